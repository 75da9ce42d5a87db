"""Subtrees of implicit quadtrees and octrees (3D Tiles 1.1, ``.subtree``).

They hold the availability of tiles and the metadata of each.

A subtree covers a fixed number of levels. Nodes are numbered level by level, in Morton order
within a level; availability is a constant, or one bit a node, least significant bit first.
Layout: 24-byte header (magic, version, two 64-bit lengths), JSON padded with spaces and binary
padded with zeros to 8 bytes each; buffer views start on multiples of 8.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from tiling.errors import FormatError

_HEADER = struct.Struct("<4sIQQ")
MAGIC = b"subt"
BOUNDING_REGION_CLASS = "tile"
BOUNDING_REGION_PROPERTY = "bounding_region"
FEATURES_PROPERTY = "features"

# Schema of the metadata that every tile of a subtree carries; belongs into tileset.json.
TILE_CLASS: dict[str, Any] = {
    "name": "Tile",
    "properties": {
        BOUNDING_REGION_PROPERTY: {
            "name": "Bounding region",
            "description": "west, south, east, north in radians; lowest, highest in metres",
            "type": "SCALAR",
            "componentType": "FLOAT64",
            "array": True,
            "count": 6,
            "semantic": "TILE_BOUNDING_REGION",
            "required": True,
        },
        FEATURES_PROPERTY: {
            "name": "Features",
            "description": "source features that the tile and everything below it stand for",
            "type": "SCALAR",
            "componentType": "UINT32",
            "required": True,
        },
    },
}


def node_count(levels: int, branching: int = 4) -> int:
    """Return how many nodes a quadtree, or octree (`branching` 8), of `levels` levels has."""
    return int((branching**levels - 1) // (branching - 1))


@dataclass(frozen=True, slots=True)
class Subtree:
    """Availability of one subtree.

    Attributes:
        tiles: (nodes,) bool, which tiles exist.
        contents: (nodes,) bool, which tiles have content.
        children: (4**levels,) bool, in octrees (8**levels,), which child subtrees exist, in
            Morton order.
        regions: (available tiles, 6) float64, radians and metres, in the order of the nodes.
        features: (available tiles,) uint32, source features that each tile stands for.
    """

    tiles: NDArray[np.bool_]
    contents: NDArray[np.bool_]
    children: NDArray[np.bool_]
    regions: NDArray[np.float64]
    features: NDArray[np.uint32]


class _Buffer:
    """Collects buffer views on multiples of 8."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.views: list[dict[str, int]] = []

    def add(self, data: bytes) -> int:
        self.views.append({"buffer": 0, "byteOffset": len(self.data), "byteLength": len(data)})
        self.data += data + bytes(-len(data) % 8)
        return len(self.views) - 1


def encode_subtree(subtree: Subtree) -> bytes:
    """Return the bytes of a ``.subtree`` file; equal input gives equal bytes."""
    buffer = _Buffer()
    regions = np.ascontiguousarray(subtree.regions, dtype="<f8")
    values = buffer.add(regions.tobytes())
    counts = buffer.add(subtree.features.astype("<u4").tobytes())
    document: dict[str, Any] = {
        "tileAvailability": _availability(subtree.tiles, buffer),
        "contentAvailability": [_availability(subtree.contents, buffer)],
        "childSubtreeAvailability": _availability(subtree.children, buffer),
        "propertyTables": [
            {
                "class": BOUNDING_REGION_CLASS,
                "count": len(regions),
                "properties": {
                    BOUNDING_REGION_PROPERTY: {"values": values},
                    FEATURES_PROPERTY: {"values": counts},
                },
            }
        ],
        "tileMetadata": 0,
    }
    document["bufferViews"] = buffer.views
    document["buffers"] = [{"byteLength": len(buffer.data)}]
    text = orjson.dumps(document, option=orjson.OPT_SORT_KEYS)
    text += b" " * (-len(text) % 8)
    return _HEADER.pack(MAGIC, 1, len(text), len(buffer.data)) + text + bytes(buffer.data)


def _availability(bits: NDArray[np.bool_], buffer: _Buffer) -> dict[str, int]:
    count = int(bits.sum())
    if count in (0, len(bits)):
        return {"constant": int(count > 0)}
    packed = np.packbits(bits, bitorder="little").tobytes()
    return {"bitstream": buffer.add(packed), "availableCount": count}


def decode_subtree(data: bytes, levels: int, branching: int = 4) -> Subtree:
    """Read a subtree of `levels` levels with bounding regions and counts as metadata.

    Args:
        data: the file.
        levels: of the subtree.
        branching: 4, or 8 in octrees.

    Raises:
        FormatError: the bytes are not a subtree, or one that points outside of itself.
    """
    try:
        magic, version, json_length, binary_length = _HEADER.unpack_from(data)
        document = orjson.loads(data[_HEADER.size : _HEADER.size + json_length])
    except (struct.error, orjson.JSONDecodeError) as error:
        raise FormatError(f"not a subtree: {error}") from error
    if magic != MAGIC or version != 1:
        raise FormatError(f"not a subtree: magic {magic!r}, version {version}")
    start = _HEADER.size + json_length
    if json_length % 8 or binary_length % 8 or len(data) != start + binary_length:
        raise FormatError(
            f"a subtree of {len(data)} bytes claims {json_length} + {binary_length} + 24"
        )
    binary = data[start:]
    nodes = node_count(levels, branching)
    try:
        contents = document.get("contentAvailability", [{"constant": 0}])[0]
        return Subtree(
            _bits(document, binary, document["tileAvailability"], nodes),
            _bits(document, binary, contents, nodes),
            _bits(document, binary, document["childSubtreeAvailability"], branching**levels),
            *_metadata(document, binary),
        )
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise FormatError(f"a subtree points outside of itself: {error!r}") from error


def _view(document: dict[str, Any], binary: bytes, index: int) -> bytes:
    view = document["bufferViews"][index]
    data = binary[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]
    if len(data) != view["byteLength"] or view["byteOffset"] % 8:
        raise FormatError(f"buffer view {index} of a subtree is misaligned or too long: {view}")
    return data


def _bits(
    document: dict[str, Any], binary: bytes, availability: dict[str, int], count: int
) -> NDArray[np.bool_]:
    if "constant" in availability:
        return np.full(count, bool(availability["constant"]))
    packed = np.frombuffer(_view(document, binary, availability["bitstream"]), dtype=np.uint8)
    if len(packed) != -(-count // 8):
        raise FormatError(f"an availability of {len(packed)} bytes cannot hold {count} bits")
    bits = np.unpackbits(packed, bitorder="little")[:count].astype(bool)
    if int(bits.sum()) != availability.get("availableCount", int(bits.sum())):
        raise FormatError(f"availableCount says {availability['availableCount']}: {bits.sum()} set")
    return bits


def _metadata(
    document: dict[str, Any], binary: bytes
) -> tuple[NDArray[np.float64], NDArray[np.uint32]]:
    if "tileMetadata" not in document:
        return np.empty((0, 6)), np.empty(0, dtype=np.uint32)
    table = document["propertyTables"][document["tileMetadata"]]
    properties, count = table["properties"], table["count"]
    regions = _view(document, binary, properties[BOUNDING_REGION_PROPERTY]["values"])
    features = _view(document, binary, properties[FEATURES_PROPERTY]["values"])
    return (
        np.frombuffer(regions, dtype="<f8").reshape(count, 6),
        np.frombuffer(features, dtype="<u4", count=count),
    )
