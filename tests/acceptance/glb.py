"""A reader of glb content by the specifications: pygltflib for the container, NumPy for the rest.

It shares nothing with the project's encoders, nor with its own reader in `tiling.validate`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pygltflib
from numpy.typing import NDArray

_COMPONENTS = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}
_NUMBERS = {
    "INT8": "<i1", "UINT8": "<u1", "INT16": "<i2", "UINT16": "<u2", "INT32": "<i4",
    "UINT32": "<u4", "INT64": "<i8", "UINT64": "<u8", "FLOAT32": "<f4", "FLOAT64": "<f8",
}  # fmt: skip


@dataclass(frozen=True)
class Content:
    """What a client sees of a glb.

    Attributes:
        ecef: (V, 3) float64, Earth-centred metres, z to the north pole.
        triangles: (T, 3) vertex numbers.
        feature: (V,) row of the property table.
        rows: one dict of source column name -> value (None for null) per feature.
    """

    ecef: NDArray[np.float64]
    triangles: NDArray[np.int64]
    feature: NDArray[np.int64]
    rows: list[dict[str, Any]]


def read_glb(data: bytes) -> Content:
    """Decode a glb of one node and one primitive."""
    gltf = pygltflib.GLTF2.load_from_bytes(data)
    (node,) = gltf.nodes
    (primitive,) = gltf.meshes[node.mesh].primitives
    assert primitive.mode == pygltflib.TRIANGLES
    matrix = np.array(node.matrix, dtype=np.float64).reshape(4, 4, order="F")
    local = _accessor(gltf, primitive.attributes.POSITION).astype(np.float64)
    placed = np.column_stack([local, np.ones(len(local))]) @ matrix.T
    # 3D Tiles 1.1, "glTF transforms": y-up to z-up is a quarter turn about x.
    ecef = np.column_stack([placed[:, 0], -placed[:, 2], placed[:, 1]])
    declared = primitive.extensions["EXT_mesh_features"]["featureIds"][0]
    feature = _accessor(gltf, getattr(primitive.attributes, f"_FEATURE_ID_{declared['attribute']}"))
    metadata = gltf.extensions["EXT_structural_metadata"]
    table = metadata["propertyTables"][declared["propertyTable"]]
    properties = metadata["schema"]["classes"][table["class"]]["properties"]
    count = table["count"]
    assert declared["featureCount"] == count
    columns = {
        properties[key]["name"]: _column(gltf, properties[key], table["properties"].get(key), count)
        for key in properties
    }
    rows = [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]
    triangles = _accessor(gltf, primitive.indices).astype(np.int64).reshape(-1, 3)
    return Content(ecef, triangles, feature[:, 0].astype(np.int64), rows)


def _view(gltf: Any, index: int) -> bytes:
    view = gltf.bufferViews[index]
    data = gltf.binary_blob()[view.byteOffset or 0 :][: view.byteLength]
    assert len(data) == view.byteLength
    return bytes(data)


def _accessor(gltf: Any, index: int) -> NDArray[Any]:
    accessor = gltf.accessors[index]
    dtype, width = np.dtype(_COMPONENTS[accessor.componentType]), _WIDTHS[accessor.type]
    stride = gltf.bufferViews[accessor.bufferView].byteStride or dtype.itemsize * width
    data = _view(gltf, accessor.bufferView)
    shape, strides = (accessor.count, width), (stride, dtype.itemsize)
    values: NDArray[Any] = np.ndarray(shape, dtype, data, accessor.byteOffset or 0, strides)
    return values


def _column(gltf: Any, prop: dict[str, Any], entry: Any, count: int) -> list[Any]:
    assert not prop.get("array"), "no source of these tests has lists"
    if entry is None:
        # A property that a table lacks has its no-data value throughout.
        assert not prop.get("required"), prop
        return [None] * count
    data = _view(gltf, entry["values"])
    if prop["type"] == "STRING":
        assert entry["stringOffsetType"] == "UINT32"
        ends = np.frombuffer(_view(gltf, entry["stringOffsets"]), "<u4")[: count + 1].tolist()
        values = [data[a:b].decode("utf-8") for a, b in pairwise(ends)]
    elif prop["type"] == "BOOLEAN":
        values = [bool(data[i // 8] >> (i % 8) & 1) for i in range(count)]
    else:
        values = np.frombuffer(data, _NUMBERS[prop["componentType"]])[:count].tolist()
    assert len(values) == count
    null = prop.get("noData", _NONE)
    return [None if value == null else value for value in values]


_NONE = object()
