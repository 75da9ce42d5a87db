"""Binary glTF 2.0 (``.glb``) for 3D Tiles: one mesh of many features with their property table.

The one idea: positions stay small numbers in a local east-north-up frame; the node's matrix puts
them on the Earth in float64. glTF is y-up and tiles are z-up: `_Z_UP_TO_Y_UP` in that matrix is
the only place of the project that converts between them.

Extensions: KHR_mesh_quantization (byte normals), EXT_mesh_features (_FEATURE_ID_0),
EXT_structural_metadata (property table), CESIUM_primitive_outline (edges drawn as lines).
Every buffer view starts on a multiple of 8, as 3D Metadata demands.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from tiling.formats.metadata import CLASS_ID, EncodedProperty, MetadataSchema

MAGIC = b"glTF"
_HEADER = struct.Struct("<4sII")
_CHUNK = struct.Struct("<I4s")
_COMPONENTS = {"int8": 5120, "uint8": 5121, "uint16": 5123, "uint32": 5125, "float32": 5126}
_ARRAY_BUFFER, _ELEMENT_ARRAY_BUFFER = 34962, 34963
_TRIANGLES = 4

# Column vectors: (x, y, z) z-up becomes (x, z, -y) y-up.
_Z_UP_TO_Y_UP = np.array([[1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]], dtype=float)


@dataclass(frozen=True, slots=True)
class Mesh:
    """Triangles of many features.

    Attributes:
        positions: (V, 3) float32, local metres, z up.
        normals: (V, 3) float64, unit vectors; stored as bytes.
        colors: (V, 4) uint8, linear RGBA.
        feature_ids: (V,) integers, rows of the property table.
        triangles: (T, 3) integers, counter-clockwise from outside.
        edges: (E, 2) integers, sides of triangles to be drawn as lines; may be empty.
        to_ecef: (4, 4) float64, local metres to Earth-centred metres, z up.
    """

    positions: NDArray[np.float32]
    normals: NDArray[np.float64]
    colors: NDArray[np.uint8]
    feature_ids: NDArray[np.int64]
    triangles: NDArray[np.int64]
    edges: NDArray[np.int64]
    to_ecef: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PropertyTable:
    """Attributes of a mesh's features.

    Attributes:
        schema: of the whole tileset.
        count: number of features.
        properties: what `metadata.encode_table` returned.
    """

    schema: MetadataSchema
    count: int
    properties: Sequence[EncodedProperty]


@dataclass(slots=True)
class _Document:
    """Buffer views and accessors under construction."""

    binary: bytearray = field(default_factory=bytearray)
    views: list[dict[str, Any]] = field(default_factory=list)
    accessors: list[dict[str, Any]] = field(default_factory=list)

    def view(self, data: bytes, **extra: Any) -> int:
        # glTF allows no empty view: text columns of empty strings get one unused byte.
        data = data or b"\0"
        self.views.append(
            {"buffer": 0, "byteOffset": len(self.binary), "byteLength": len(data), **extra}
        )
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
        return self._accessor(view, values, kind, len(values), extra)

    def indices(self, values: NDArray[np.int64], vertices: int, **view: Any) -> int:
        # 65535 is a restart mark, so it takes 65535 vertices or fewer to fit 16 bits.
        small = values.astype("<u2" if vertices <= 65535 else "<u4").reshape(-1)
        return self._accessor(self.view(small.tobytes(), **view), small, "SCALAR", len(small), {})

    def _accessor(
        self, view: int, values: NDArray[Any], kind: str, count: int, extra: dict[str, Any]
    ) -> int:
        component = _COMPONENTS[values.dtype.name]
        self.accessors.append(
            {"bufferView": view, "componentType": component, "type": kind, "count": count, **extra}
        )
        return len(self.accessors) - 1


def encode_glb(mesh: Mesh, table: PropertyTable) -> bytes:
    """Return a glb; equal input gives equal bytes.

    Raises:
        ValueError: the mesh has no triangle.
    """
    if not len(mesh.triangles):
        raise ValueError("a glb needs at least one triangle")
    document = _Document()
    primitive = _primitive(document, mesh, table.count)
    metadata = _structural_metadata(document, table)
    used = {"EXT_structural_metadata", "KHR_mesh_quantization", *primitive["extensions"]}
    gltf = {
        "asset": {"version": "2.0", "generator": "cim-server"},
        "extensionsUsed": sorted(used),
        "extensionsRequired": ["KHR_mesh_quantization"],
        "extensions": {"EXT_structural_metadata": metadata},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        # Column-major, as glTF has it.
        "nodes": [{"mesh": 0, "matrix": (_Z_UP_TO_Y_UP @ mesh.to_ecef).T.ravel().tolist()}],
        "meshes": [{"primitives": [primitive]}],
        "materials": [
            {"pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 1.0}},
        ],
        "accessors": document.accessors,
        "bufferViews": document.views,
        "buffers": [{"byteLength": len(document.binary)}],
    }
    text = orjson.dumps(gltf)
    # 12 + 8 + text + 8 bytes precede the binary, whose first byte must be on a multiple of 8 too.
    text += b" " * ((4 - len(text)) % 8)
    total = _HEADER.size + 2 * _CHUNK.size + len(text) + len(document.binary)
    return b"".join(
        [
            _HEADER.pack(MAGIC, 2, total),
            _CHUNK.pack(len(text), b"JSON"),
            text,
            _CHUNK.pack(len(document.binary), b"BIN\0"),
            bytes(document.binary),
        ]
    )


def _primitive(document: _Document, mesh: Mesh, features: int) -> dict[str, Any]:
    vertices = len(mesh.positions)
    positions = mesh.positions.astype("<f4")
    attributes = {
        "POSITION": document.attribute(
            positions,
            min=positions.min(axis=0).astype(float).tolist(),
            max=positions.max(axis=0).astype(float).tolist(),
        ),
        "NORMAL": document.attribute(np.rint(mesh.normals * 127).astype(np.int8), normalized=True),
        "COLOR_0": document.attribute(mesh.colors, normalized=True),
        # Vertex attributes may not be uint32; float32 counts exactly to 2**24.
        "_FEATURE_ID_0": document.attribute(
            mesh.feature_ids.astype("<u2" if features <= 65536 else "<f4")
        ),
    }
    triangles = document.indices(mesh.triangles, vertices, target=_ELEMENT_ARRAY_BUFFER)
    extensions: dict[str, Any] = {
        "EXT_mesh_features": {
            "featureIds": [{"featureCount": features, "attribute": 0, "propertyTable": 0}]
        }
    }
    if len(mesh.edges):
        extensions["CESIUM_primitive_outline"] = {"indices": document.indices(mesh.edges, vertices)}
    return {
        "attributes": attributes,
        "indices": triangles,
        "material": 0,
        "mode": _TRIANGLES,
        "extensions": extensions,
    }


def _structural_metadata(document: _Document, table: PropertyTable) -> dict[str, Any]:
    properties = {}
    for encoded in table.properties:
        entry: dict[str, Any] = {"values": document.view(encoded.values)}
        if encoded.array_offsets is not None:
            entry["arrayOffsets"] = document.view(encoded.array_offsets.tobytes())
            entry["arrayOffsetType"] = "UINT32"
        if encoded.string_offsets is not None:
            entry["stringOffsets"] = document.view(encoded.string_offsets.tobytes())
            entry["stringOffsetType"] = "UINT32"
        properties[encoded.id] = entry
    return {
        "schema": {"id": "cim", "classes": {CLASS_ID: table.schema.to_json()}},
        "propertyTables": [
            {"name": "features", "class": CLASS_ID, "count": table.count, "properties": properties}
        ],
    }
