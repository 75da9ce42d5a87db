"""A glb holds what was put in, where it was put, and keeps the rules of glTF and 3D Metadata."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pygltflib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiling.ellipsoid import enu_to_ecef_matrix, geodetic_to_ecef
from tiling.errors import FormatError
from tiling.formats.glb import Mesh, PropertyTable, encode_glb
from tiling.formats.metadata import SchemaBuilder, encode_table
from tiling.formats.plain_columns import plain
from tiling.validate.gltf import Glb

TABLE = pa.table({"名称": ["光谷国际广场", None], "height": [23.5, 9.0], "空": ["", ""]})


def property_table(table: pa.Table = TABLE) -> PropertyTable:
    builder = SchemaBuilder()
    builder.observe(plain(table))
    schema = builder.finish()
    return PropertyTable(schema, table.num_rows, encode_table(schema, plain(table)))


def mesh(vertices: int = 6, edges: bool = True) -> Mesh:
    rng = np.random.default_rng(3)
    normals = rng.normal(size=(vertices, 3))
    return Mesh(
        positions=rng.uniform(-500, 500, (vertices, 3)).astype(np.float32),
        normals=normals / np.linalg.norm(normals, axis=1, keepdims=True),
        colors=np.full((vertices, 4), 200, dtype=np.uint8),
        feature_ids=np.arange(vertices) % 2,
        triangles=np.arange(vertices - vertices % 3).reshape(-1, 3),
        edges=np.array([[0, 1], [1, 2]]) if edges else np.empty((0, 2), dtype=np.int64),
        to_ecef=enu_to_ecef_matrix(114.39, 30.51, 25.0),
    )


def accessor(gltf: pygltflib.GLTF2, index: int) -> np.ndarray[Any, Any]:
    """Read an accessor through pygltflib, stride and all."""
    a = gltf.accessors[index]
    view = gltf.bufferViews[a.bufferView]
    dtype = {5120: "i1", 5121: "u1", 5123: "u2", 5125: "u4", 5126: "f4"}[a.componentType]
    width = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}[a.type]
    step = view.byteStride or width * np.dtype(dtype).itemsize
    blob = gltf.binary_blob()
    return np.ndarray(
        (a.count, width), dtype, blob, view.byteOffset, (step, np.dtype(dtype).itemsize)
    )


@pytest.mark.parametrize(("vertices", "index_type"), [(6, 5123), (65535, 5123), (65538, 5125)])
def test_another_decoder_reads_the_same_mesh(vertices: int, index_type: int) -> None:
    source = mesh(vertices)
    gltf = pygltflib.GLTF2.load_from_bytes(encode_glb(source, property_table()))
    primitive = gltf.meshes[0].primitives[0]
    np.testing.assert_array_equal(accessor(gltf, primitive.attributes.POSITION), source.positions)
    normals = accessor(gltf, primitive.attributes.NORMAL) / 127
    assert np.abs(normals - source.normals).max() <= 0.5 / 127 + 1e-12
    np.testing.assert_array_equal(accessor(gltf, primitive.attributes.COLOR_0), source.colors)
    ids = accessor(gltf, primitive.attributes._FEATURE_ID_0)
    np.testing.assert_array_equal(ids[:, 0], source.feature_ids)
    np.testing.assert_array_equal(
        accessor(gltf, primitive.indices).reshape(-1, 3), source.triangles
    )
    assert gltf.accessors[primitive.indices].componentType == index_type


def test_the_node_puts_local_metres_on_the_earth() -> None:
    source = mesh()
    gltf = pygltflib.GLTF2.load_from_bytes(encode_glb(source, property_table()))
    matrix = np.array(gltf.nodes[0].matrix).reshape(4, 4).T
    y_up = np.array([0, 0, 10, 1]) @ matrix.T
    # The tile's client turns y-up into z-up; ten metres up from the origin is then ten metres up.
    ecef = np.array([y_up[0], -y_up[2], y_up[1]])
    assert np.linalg.norm(ecef - geodetic_to_ecef(114.39, 30.51, 35.0)) < 1e-6


def test_equal_input_gives_equal_bytes() -> None:
    assert encode_glb(mesh(), property_table()) == encode_glb(mesh(), property_table())


def test_every_part_starts_on_a_multiple_of_eight() -> None:
    data = encode_glb(mesh(), property_table())
    text = struct.unpack_from("<I", data, 12)[0]
    assert len(data) % 8 == (28 + text) % 8 == 0
    gltf = pygltflib.GLTF2.load_from_bytes(data)
    assert all(view.byteOffset % 8 == 0 for view in gltf.bufferViews)


def test_the_json_keeps_the_schemas(schema_errors: Any) -> None:
    document = Glb(encode_glb(mesh(), property_table())).document
    assert schema_errors("gltf/core/glTF.schema.json", document) == []
    assert (
        schema_errors(
            "gltf/EXT_structural_metadata/schema/glTF.EXT_structural_metadata.schema.json",
            document["extensions"]["EXT_structural_metadata"],
        )
        == []
    )
    primitive = document["meshes"][0]["primitives"][0]
    assert (
        schema_errors(
            "gltf/EXT_mesh_features/schema/mesh.primitive.EXT_mesh_features.schema.json",
            primitive["extensions"]["EXT_mesh_features"],
        )
        == []
    )


def test_the_schemas_do_object_to_what_is_wrong(schema_errors: Any) -> None:
    document = Glb(encode_glb(mesh(), property_table())).document
    extension = document["extensions"]["EXT_structural_metadata"]
    del extension["propertyTables"][0]["class"]
    path = "gltf/EXT_structural_metadata/schema/glTF.EXT_structural_metadata.schema.json"
    assert schema_errors(path, extension)
    del document["asset"]
    assert schema_errors("gltf/core/glTF.schema.json", document)


@pytest.mark.parametrize("edges", [True, False])
def test_the_khronos_validator_finds_nothing(edges: bool, tmp_path: Path, gltf_issues: Any) -> None:
    path = tmp_path / "瓦片.glb"
    path.write_bytes(encode_glb(mesh(edges=edges), property_table()))
    assert gltf_issues([path]) == {str(path): []}


def test_the_khronos_validator_does_object_to_what_is_wrong(
    tmp_path: Path, gltf_issues: Any
) -> None:
    source = mesh()
    source.triangles[0, 0] = 77
    path = tmp_path / "wrong.glb"
    path.write_bytes(encode_glb(source, property_table()))
    assert gltf_issues([path])[str(path)]


def test_only_extensions_in_use_are_declared() -> None:
    document = Glb(encode_glb(mesh(edges=False), property_table())).document
    assert "CESIUM_primitive_outline" not in document["extensionsUsed"]


def test_a_mesh_without_triangles_is_refused() -> None:
    with pytest.raises(ValueError, match="triangle"):
        encode_glb(mesh(vertices=2), property_table())


@given(st.integers(0, 10_000), st.binary(min_size=1, max_size=4))
def test_damaged_bytes_are_either_read_or_refused(at: int, noise: bytes) -> None:
    data = bytearray(encode_glb(mesh(), property_table()))
    start = at % len(data)
    data[start : start + len(noise)] = noise
    try:
        glb = Glb(bytes(data))
        glb.primitives()
        glb.features()
    except FormatError:
        pass
