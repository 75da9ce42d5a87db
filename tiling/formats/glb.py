"""Binary glTF 2.0 (``.glb``) for 3D Tiles: a tile of many features with their property table.

Positions are integers in the grid of the tile: a scale makes metres of them, a matrix puts those
on the Earth in float64. Scale and matrix are nodes of their own, so a reader gets both back bit for
bit. glTF is y-up and tiles are z-up: `Z_UP_TO_Y_UP` in that matrix is the only place of the
project that converts between them.

Extensions: KHR_mesh_quantization, EXT_meshopt_compression (vertices and indices),
EXT_mesh_features (_FEATURE_ID_0), EXT_structural_metadata (property table),
CESIUM_primitive_outline (edges drawn as lines). Every buffer view starts on a multiple of 8, as 3D
Metadata demands.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from tiling.formats import meshopt
from tiling.formats.extent import axis_range
from tiling.formats.metadata import EncodedTable, encode_properties
from tiling.formats.primitive import Grid, Primitive

MAGIC = b"glTF"
_HEADER = struct.Struct("<4sII")
_CHUNK = struct.Struct("<I4s")
_COMPONENTS = {
    "int8": 5120,
    "uint8": 5121,
    "int16": 5122,
    "uint16": 5123,
    "uint32": 5125,
    "float32": 5126,
}
_ARRAY_BUFFER, _ELEMENT_ARRAY_BUFFER = 34962, 34963
_TRIANGLES = 4
_BIN, _FALLBACK = 0, 1
MESHOPT = "EXT_meshopt_compression"

# Column vectors: (x, y, z) z-up becomes (x, z, -y) y-up.
Z_UP_TO_Y_UP = np.array([[1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]], dtype=float)


@dataclass(slots=True)
class Document:
    """Buffer views and accessors under construction.

    Attributes:
        binary: the binary chunk.
        decoded_nbytes: length of the buffer that compressed views stand for.
    """

    binary: bytearray = field(default_factory=bytearray)
    decoded_nbytes: int = 0
    views: list[dict[str, Any]] = field(default_factory=list)
    accessors: list[dict[str, Any]] = field(default_factory=list)

    def buffers(self) -> list[dict[str, Any]]:
        """Return the binary chunk, and the buffer that compressed views stand for."""
        fallback = {MESHOPT: {"fallback": True}}
        return [
            {"byteLength": len(self.binary)},
            {"byteLength": self.decoded_nbytes, "extensions": fallback},
        ]

    def view(self, data: bytes) -> int:
        """Add a buffer view of plain bytes."""
        # glTF allows no empty view: text columns of empty strings get one unused byte.
        data = data or b"\0"
        start = self._append(data)
        self.views.append({"buffer": _BIN, "byteOffset": start, "byteLength": len(data)})
        return len(self.views) - 1

    def _append(self, data: bytes) -> int:
        start = len(self.binary)
        self.binary += data + bytes(-len(data) % 8)
        return start

    def _compressed(self, data: bytes, mode: str, count: int, stride: int, **view: Any) -> int:
        extension = {
            "buffer": _BIN,
            "byteOffset": self._append(data),
            "byteLength": len(data),
            "byteStride": stride,
            "mode": mode,
            "count": count,
        }
        nbytes = count * stride
        self.views.append(
            {
                "buffer": _FALLBACK,
                "byteOffset": self.decoded_nbytes,
                "byteLength": nbytes,
                **view,
                "extensions": {MESHOPT: extension},
            }
        )
        self.decoded_nbytes += nbytes + (-nbytes) % 8
        return len(self.views) - 1

    def attribute(self, values: NDArray[Any], **extra: Any) -> int:
        """Add a vertex attribute; elements are padded to multiples of four bytes."""
        rows = values.reshape(len(values), -1)
        element = rows.shape[1] * rows.itemsize
        stride = element + (-element) % 4
        padded = np.zeros((len(rows), stride), dtype=np.uint8)
        padded[:, :element] = np.ascontiguousarray(rows).view(np.uint8)
        view = self._compressed(
            meshopt.encode_attributes(padded),
            meshopt.ATTRIBUTES,
            len(rows),
            stride,
            byteStride=stride,
            target=_ARRAY_BUFFER,
        )
        kind = "SCALAR" if values.ndim == 1 else f"VEC{values.shape[1]}"
        return self._accessor(view, values.dtype.name, kind, len(values), extra)

    def triangles(self, triangles: NDArray[np.uint32], vertices: int) -> int:
        """Add (T, 3) triangles."""
        name, stride = _index_type(vertices)
        data = meshopt.encode_triangles(triangles)
        count = 3 * len(triangles)
        view = self._compressed(
            data, meshopt.TRIANGLES, count, stride, target=_ELEMENT_ARRAY_BUFFER
        )
        return self._accessor(view, name, "SCALAR", count, {})

    def indices(self, values: NDArray[np.uint32], vertices: int) -> int:
        """Add a sequence of (N,) indices."""
        name, stride = _index_type(vertices)
        data = meshopt.encode_indices(values)
        view = self._compressed(data, meshopt.INDICES, len(values), stride)
        return self._accessor(view, name, "SCALAR", len(values), {})

    def _accessor(
        self, view: int, component: str, kind: str, count: int, extra: dict[str, Any]
    ) -> int:
        self.accessors.append(
            {
                "bufferView": view,
                "componentType": _COMPONENTS[component],
                "type": kind,
                "count": count,
                **extra,
            }
        )
        return len(self.accessors) - 1


def _index_type(vertices: int) -> tuple[str, int]:
    # 65535 is a restart mark, so it takes 65535 vertices or fewer to fit 16 bits.
    return ("uint16", 2) if vertices <= 65535 else ("uint32", 4)


def encode_tile(
    grid: Grid,
    primitives: Sequence[Primitive],
    table: pa.Table,
    ids: Mapping[str, str],
    class_name: str = "feature",
) -> bytes:
    """Return a glb; equal input gives equal bytes.

    Args:
        grid: of all positions.
        primitives: at least one, each with at least one triangle.
        table: one row a feature, columns as `plain_columns.plain` returns them.
        ids: property id of every column (`metadata.property_ids`).
        class_name: id of the metadata class.

    Raises:
        ValueError: a primitive has no triangle.
    """
    if not primitives or any(not len(p.triangles) for p in primitives):
        raise ValueError("a glb needs primitives with at least one triangle each")
    document = Document()
    materials: list[dict[str, Any]] = []
    images: list[dict[str, Any]] = []
    meshes = [_primitive(document, p, table.num_rows, materials, images) for p in primitives]
    metadata = _structural_metadata(document, encode_properties(table, ids), class_name)
    used = {"EXT_structural_metadata", "EXT_mesh_features", "KHR_mesh_quantization", MESHOPT}
    if any(len(p.edges) for p in primitives):
        used.add("CESIUM_primitive_outline")
    gltf: dict[str, Any] = {
        "asset": {"version": "2.0", "generator": "cim-server"},
        "extensionsUsed": sorted(used),
        "extensionsRequired": [MESHOPT, "KHR_mesh_quantization"],
        "extensions": {"EXT_structural_metadata": metadata},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [
            # Column-major, as glTF has it.
            {"matrix": (Z_UP_TO_Y_UP @ grid.to_ecef).T.ravel().tolist(), "children": [1]},
            {"scale": [grid.quantum_m] * 3, "mesh": 0},
        ],
        "meshes": [{"primitives": meshes}],
        "materials": materials,
        "accessors": document.accessors,
        "bufferViews": document.views,
        "buffers": document.buffers(),
    }
    if images:
        gltf["images"] = images
        gltf["samplers"] = [{"wrapS": 33071, "wrapT": 33071}]
        gltf["textures"] = [{"source": i, "sampler": 0} for i in range(len(images))]
    return packed(gltf, bytes(document.binary))


def packed(gltf: dict[str, Any], binary: bytes) -> bytes:
    """Return a glb of a document and its binary chunk."""
    text = orjson.dumps(gltf)
    # 12 + 8 + text + 8 bytes precede the binary, whose first byte must be on a multiple of 8 too.
    text += b" " * ((4 - len(text)) % 8)
    total = _HEADER.size + 2 * _CHUNK.size + len(text) + len(binary)
    return b"".join(
        [
            _HEADER.pack(MAGIC, 2, total),
            _CHUNK.pack(len(text), b"JSON"),
            text,
            _CHUNK.pack(len(binary), b"BIN\0"),
            binary,
        ]
    )


def _primitive(
    document: Document,
    primitive: Primitive,
    features: int,
    materials: list[dict[str, Any]],
    images: list[dict[str, Any]],
) -> dict[str, Any]:
    vertices = len(primitive.positions)
    positions = primitive.positions.astype("<u2")
    low, high = axis_range(positions)
    attributes = {
        "POSITION": document.attribute(
            positions,
            min=low.tolist(),
            max=high.tolist(),
        ),
        "NORMAL": document.attribute(primitive.normals, normalized=True),
        # Vertex attributes may not be uint32; float32 counts exactly to 2**24.
        "_FEATURE_ID_0": document.attribute(
            primitive.feature_ids.astype("<u2" if features <= 65536 else "<f4")
        ),
    }
    if primitive.colors is not None:
        attributes["COLOR_0"] = document.attribute(primitive.colors, normalized=True)
    if primitive.uv is not None:
        attributes["TEXCOORD_0"] = document.attribute(primitive.uv.astype("<f4"))
    extensions: dict[str, Any] = {
        "EXT_mesh_features": {
            "featureIds": [{"featureCount": features, "attribute": 0, "propertyTable": 0}]
        }
    }
    triangles = document.triangles(primitive.triangles, vertices)
    if len(primitive.edges):
        edges = document.indices(primitive.edges.reshape(-1), vertices)
        extensions["CESIUM_primitive_outline"] = {"indices": edges}
    return {
        "attributes": attributes,
        "indices": triangles,
        "material": _material(document, primitive, materials, images),
        "mode": _TRIANGLES,
        "extensions": extensions,
        "extras": {"layout": primitive.layout},
    }


def _material(
    document: Document,
    primitive: Primitive,
    materials: list[dict[str, Any]],
    images: list[dict[str, Any]],
) -> int:
    look: dict[str, Any] = {"metallicFactor": 0.0, "roughnessFactor": 1.0}
    if primitive.texture is not None:
        texture = primitive.texture
        images.append({"bufferView": document.view(texture.data), "mimeType": texture.media_type})
        look["baseColorTexture"] = {"index": len(images) - 1}
    material = {"pbrMetallicRoughness": look}
    if material not in materials:
        materials.append(material)
    return materials.index(material)


def _structural_metadata(
    document: Document, table: EncodedTable, class_name: str
) -> dict[str, Any]:
    properties = {}
    for encoded in table.columns:
        if encoded.values is None:
            continue
        entry: dict[str, Any] = {"values": document.view(encoded.values)}
        for role, offsets in (
            ("array", encoded.array_offsets),
            ("string", encoded.string_offsets),
        ):
            if offsets is not None:
                entry[f"{role}Offsets"] = document.view(offsets.tobytes())
                entry[f"{role}OffsetType"] = f"UINT{8 * offsets.itemsize}"
        properties[encoded.id] = entry
    schema: dict[str, Any] = {
        "id": "cim",
        "classes": {class_name: {"name": class_name.title(), "properties": table.properties}},
    }
    if table.enums:
        schema["enums"] = table.enums
    return {
        "schema": schema,
        "propertyTables": [
            {
                "name": f"{class_name}s",
                "class": class_name,
                "count": table.count,
                "properties": properties,
            }
        ],
    }
