"""A reader of glb content by the specifications: pygltflib for the container, NumPy for the rest.

It shares nothing with the project's encoders, nor with its own readers. Meshopt compression is
taken off by the decoder of the meshoptimizer project.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pygltflib
from numpy.typing import NDArray

from tests.acceptance.meshopt import without_meshopt

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
        cls: id of the metadata class of the rows.
        to_ecef: (4, 4) tile's metres, z up, to Earth-centred metres.
        quantum_m: metres of one step of the positions; 1 where they are not quantised.
    """

    ecef: NDArray[np.float64]
    triangles: NDArray[np.int64]
    feature: NDArray[np.int64]
    rows: list[dict[str, Any]]
    cls: str
    to_ecef: NDArray[np.float64]
    quantum_m: float

    @property
    def local(self) -> NDArray[np.float64]:
        """(V, 3) metres in the tile's own east-north-up frame."""
        turn, origin = self.to_ecef[:3, :3], self.to_ecef[:3, 3]
        local: NDArray[np.float64] = (self.ecef - origin) @ np.linalg.inv(turn).T
        return local


# 3D Tiles 1.1, "glTF transforms": y-up to z-up is a quarter turn about x.
_Z_UP = np.array([[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]], dtype=np.float64)


def read_glb(data: bytes) -> Content:
    """Decode a glb of one mesh, whose primitives share one property table."""
    gltf = pygltflib.GLTF2.load_from_bytes(without_meshopt(data))
    matrix, quantum_m, mesh = _placed(gltf)
    ecef, triangles, feature, tables = [], [], [], set()
    first = 0
    for primitive in gltf.meshes[mesh].primitives:
        assert primitive.mode == pygltflib.TRIANGLES
        stored = _accessor(gltf, primitive.attributes.POSITION).astype(np.float64)
        local = np.column_stack([stored * quantum_m, np.ones(len(stored))])
        ecef.append((local @ (_Z_UP @ matrix).T)[:, :3])
        (declared,) = primitive.extensions["EXT_mesh_features"]["featureIds"]
        name = f"_FEATURE_ID_{declared['attribute']}"
        feature.append(_accessor(gltf, getattr(primitive.attributes, name))[:, 0].astype(np.int64))
        triangles.append(_accessor(gltf, primitive.indices).astype(np.int64).reshape(-1, 3) + first)
        tables.add((declared["propertyTable"], declared["featureCount"]))
        first += len(stored)
    ((index, count),) = tables
    metadata = gltf.extensions["EXT_structural_metadata"]
    table = metadata["propertyTables"][index]
    assert table["count"] == count
    schema = metadata["schema"]
    properties = schema["classes"][table["class"]]["properties"]
    columns = {
        properties[key]["name"]: _column(
            gltf, properties[key], table["properties"].get(key), count, schema.get("enums", {})
        )
        for key in properties
    }
    rows = [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]
    return Content(
        np.concatenate(ecef),
        np.concatenate(triangles),
        np.concatenate(feature),
        rows,
        table["class"],
        _Z_UP @ matrix,
        quantum_m,
    )


def _placed(gltf: Any) -> tuple[NDArray[np.float64], float, int]:
    """Return the matrix of the scene's one mesh, its uniform scale apart, and the mesh."""
    (root,) = gltf.scenes[gltf.scene].nodes
    node = gltf.nodes[root]
    matrix = np.array(node.matrix, dtype=np.float64).reshape(4, 4, order="F")
    if node.mesh is not None:
        return matrix, 1.0, node.mesh
    (child,) = node.children
    x, y, z = gltf.nodes[child].scale
    assert x == y == z
    return matrix, x, gltf.nodes[child].mesh


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


def _column(
    gltf: Any, prop: dict[str, Any], entry: Any, count: int, enums: dict[str, Any]
) -> list[Any]:
    assert not prop.get("array"), "no source of these tests has lists"
    if entry is None:
        # A property that a table lacks has its no-data value throughout.
        assert not prop.get("required"), prop
        return [None] * count
    data = _view(gltf, entry["values"])
    if prop["type"] == "STRING":
        width = _NUMBERS[entry.get("stringOffsetType", "UINT32")]
        ends = np.frombuffer(_view(gltf, entry["stringOffsets"]), width)[: count + 1].tolist()
        values = [data[a:b].decode("utf-8") for a, b in pairwise(ends)]
    elif prop["type"] == "ENUM":
        enum = enums[prop["enumType"]]
        names = {each["value"]: each["name"] for each in enum["values"]}
        width = _NUMBERS[enum.get("valueType", "UINT16")]
        values = [names[v] for v in np.frombuffer(data, width)[:count].tolist()]
    elif prop["type"] == "BOOLEAN":
        values = [bool(data[i // 8] >> (i % 8) & 1) for i in range(count)]
    else:
        values = np.frombuffer(data, _NUMBERS[prop["componentType"]])[:count].tolist()
    assert len(values) == count
    null = prop.get("noData", _NONE)
    return [None if value == null else value for value in values]


_NONE = object()
