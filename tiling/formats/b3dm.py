"""Batched 3D Model (``.b3dm``) of 3D Tiles 1.0: a glb with a batch table, for viewers without 1.1.

Layout, after the 3D Tiles 1.0 specification, "Batched 3D Model": a header of 28 bytes, the feature
table, the batch table, the glb; each begins on a multiple of eight bytes.

The glb inside is plain glTF 2.0: metres and normals in float32, nothing compressed, no extension
that a reader has to know.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from tiling.errors import FormatError
from tiling.formats.extent import axis_range
from tiling.formats.glb import Z_UP_TO_Y_UP
from tiling.formats.primitive import Primitive
from tiling.formats.tile_reading import TileContent

MAGIC = b"b3dm"
_HEADER = struct.Struct("<4sIIIIII")
_GLB_HEADER, _CHUNK = struct.Struct("<4sII"), struct.Struct("<I4s")
_COMPONENTS = {"uint8": 5121, "uint16": 5123, "uint32": 5125, "float32": 5126}
_ARRAY_BUFFER, _ELEMENT_ARRAY_BUFFER = 34962, 34963
_CLAMP = 33071
_OUTLINE = "CESIUM_primitive_outline"


def encode_b3dm(glb: bytes, batch_table: Mapping[str, Any], batch_length: int) -> bytes:
    """Return a b3dm.

    Args:
        glb: with the attribute ``_BATCHID`` 0 .. `batch_length` - 1; see `batched_glb`.
        batch_table: per property `batch_length` values; lists, or NumPy arrays.
        batch_length: number of features.
    """
    feature_json = _padded(orjson.dumps({"BATCH_LENGTH": batch_length}), _HEADER.size)
    plain = {
        name: values.tolist() if isinstance(values, np.ndarray) else values
        for name, values in batch_table.items()
    }
    batch_json = _padded(orjson.dumps(plain), 0)
    body = glb + b"\0" * (-len(glb) % 8)
    total = _HEADER.size + len(feature_json) + len(batch_json) + len(body)
    header = _HEADER.pack(MAGIC, 1, total, len(feature_json), 0, len(batch_json), 0)
    return header + feature_json + batch_json + body


def decode_b3dm(data: bytes) -> tuple[bytes, dict[str, Any], int]:
    """Return the glb, the batch table and the number of features of a b3dm.

    Raises:
        FormatError: not a b3dm, or one cut short.
    """
    try:
        magic, version, total, feature, feature_bin, batch, batch_bin = _HEADER.unpack_from(data)
        if magic != MAGIC or version != 1 or total != len(data):
            raise FormatError(f"not a b3dm of {len(data)} bytes: {magic!r} {version} {total}")
        start = _HEADER.size
        features = orjson.loads(data[start : start + feature])
        start += feature + feature_bin
        table = orjson.loads(data[start : start + batch]) if batch else {}
        return data[start + batch + batch_bin :], table, int(features["BATCH_LENGTH"])
    except (struct.error, orjson.JSONDecodeError, KeyError) as error:
        raise FormatError(f"not a b3dm: {error}") from error


def batched_glb(tile: TileContent) -> bytes:
    """Return a tile of ours as 3D Tiles 1.0 wants it; equal tiles give equal bytes.

    Feature ids are ``_BATCHID``; colours, textures and outlines stay. There is no property table:
    the batch table replaces it.

    Args:
        tile: at least one primitive, each with at least one triangle.
    """
    parts = _Parts()
    meshes = [
        _primitive(parts, p, tile.grid.quantum_m, tile.table.num_rows) for p in tile.primitives
    ]
    gltf: dict[str, Any] = {
        "asset": {"version": "2.0", "generator": "cim-server"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        # Column-major, as glTF has it.
        "nodes": [{"matrix": (Z_UP_TO_Y_UP @ tile.grid.to_ecef).T.ravel().tolist(), "mesh": 0}],
        "meshes": [{"primitives": meshes}],
        "materials": parts.materials,
        "accessors": parts.accessors,
        "bufferViews": parts.views,
        "buffers": [{"byteLength": len(parts.binary)}],
    }
    if any(len(p.edges) for p in tile.primitives):
        gltf["extensionsUsed"] = [_OUTLINE]
    if parts.images:
        gltf["images"] = parts.images
        gltf["samplers"] = [{"wrapS": _CLAMP, "wrapT": _CLAMP}]
        gltf["textures"] = [{"source": i, "sampler": 0} for i in range(len(parts.images))]
    return _packed(gltf, bytes(parts.binary))


@dataclass(slots=True)
class _Parts:
    """What the document lists, under construction.

    Attributes:
        binary: the buffer; every view of it starts on a multiple of eight.
    """

    binary: bytearray = field(default_factory=bytearray)
    views: list[dict[str, Any]] = field(default_factory=list)
    accessors: list[dict[str, Any]] = field(default_factory=list)
    materials: list[dict[str, Any]] = field(default_factory=list)
    images: list[dict[str, Any]] = field(default_factory=list)

    def view(self, data: bytes, **extra: Any) -> int:
        view = {"buffer": 0, "byteOffset": len(self.binary), "byteLength": len(data)}
        self.views.append(view | extra)
        self.binary += data + bytes(-len(data) % 8)
        return len(self.views) - 1

    def attribute(self, values: NDArray[Any], **extra: Any) -> int:
        """Add a vertex attribute; elements are padded to multiples of four bytes."""
        rows = values.reshape(len(values), -1)
        element = rows.shape[1] * rows.itemsize
        stride = element + (-element) % 4
        padded = np.zeros((len(rows), stride), dtype=np.uint8)
        padded[:, :element] = np.ascontiguousarray(rows).view(np.uint8)
        view = self.view(padded.tobytes(), byteStride=stride, target=_ARRAY_BUFFER)
        kind = "SCALAR" if values.ndim == 1 else f"VEC{values.shape[1]}"
        return self._accessor(view, values, kind, extra)

    def indices(self, values: NDArray[np.uint32], vertices: int, **view: Any) -> int:
        # 65535 is a restart mark, so it takes 65535 vertices or fewer to fit 16 bits.
        flat = values.reshape(-1).astype("<u2" if vertices <= 65535 else "<u4")
        return self._accessor(self.view(flat.tobytes(), **view), flat, "SCALAR", {})

    def _accessor(self, view: int, values: NDArray[Any], kind: str, extra: dict[str, Any]) -> int:
        component = _COMPONENTS[values.dtype.name]
        accessor = {"bufferView": view, "componentType": component, "type": kind}
        self.accessors.append(accessor | {"count": len(values)} | extra)
        return len(self.accessors) - 1


def _primitive(
    parts: _Parts, primitive: Primitive, quantum_m: float, features: int
) -> dict[str, Any]:
    vertices = len(primitive.positions)
    metres = (primitive.positions * quantum_m).astype("<f4")
    low, high = axis_range(metres)
    normals = primitive.normals.astype("<f4")
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    attributes = {
        "POSITION": parts.attribute(metres, min=low.tolist(), max=high.tolist()),
        "NORMAL": parts.attribute(normals),
        # Vertex attributes may not be uint32; float32 counts exactly to 2**24.
        "_BATCHID": parts.attribute(
            primitive.feature_ids.astype("<u2" if features <= 65536 else "<f4")
        ),
    }
    if primitive.colors is not None:
        attributes["COLOR_0"] = parts.attribute(primitive.colors, normalized=True)
    if primitive.uv is not None:
        attributes["TEXCOORD_0"] = parts.attribute(primitive.uv.astype("<f4"))
    made: dict[str, Any] = {
        "attributes": attributes,
        "indices": parts.indices(primitive.triangles, vertices, target=_ELEMENT_ARRAY_BUFFER),
        "material": _material(parts, primitive),
    }
    if len(primitive.edges):
        made["extensions"] = {_OUTLINE: {"indices": parts.indices(primitive.edges, vertices)}}
    return made


def _material(parts: _Parts, primitive: Primitive) -> int:
    look: dict[str, Any] = {"metallicFactor": 0.0, "roughnessFactor": 1.0}
    if primitive.texture is not None:
        texture = primitive.texture
        view = parts.view(texture.data)
        parts.images.append({"bufferView": view, "mimeType": texture.media_type})
        look["baseColorTexture"] = {"index": len(parts.images) - 1}
    material = {"pbrMetallicRoughness": look}
    if material not in parts.materials:
        parts.materials.append(material)
    return parts.materials.index(material)


def _packed(document: dict[str, Any], binary: bytes) -> bytes:
    text = orjson.dumps(document)
    text += b" " * ((4 - len(text)) % 8)
    total = _GLB_HEADER.size + 2 * _CHUNK.size + len(text) + len(binary)
    return b"".join(
        [
            _GLB_HEADER.pack(b"glTF", 2, total),
            _CHUNK.pack(len(text), b"JSON"),
            text,
            _CHUNK.pack(len(binary), b"BIN\0"),
            binary,
        ]
    )


def _padded(text: bytes, before: int) -> bytes:
    return text + b" " * (-(before + len(text)) % 8)
