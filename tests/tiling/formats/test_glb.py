"""A tile holds what was put in, where it was put, and keeps the rules of glTF and 3D Metadata."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pygltflib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tiling.formats.decoding import decoded
from tiling.ellipsoid import enu_to_ecef_matrix, geodetic_to_ecef
from tiling.errors import FormatError
from tiling.formats.glb import encode_tile
from tiling.formats.gltf_reading import Glb
from tiling.formats.metadata import property_ids
from tiling.formats.plain_columns import plain
from tiling.formats.primitive import Grid, Primitive, Texture
from tiling.formats.tile_reading import decode_tile

TABLE = pa.table({"名称": ["光谷国际广场", None], "height": [23.5, 9.0], "空": ["", ""]})
GRID = Grid(enu_to_ecef_matrix(114.39, 30.51, 25.0), 0.02)
# The smallest PNG there is: one white pixel.
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c63f8ff"
    "ffff7f0009fb03fd05434580000000000049454e44ae426082"
)


def primitive(vertices: int = 6, edges: bool = True) -> Primitive:
    rng = np.random.default_rng(3)
    normals = rng.normal(size=(vertices, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return Primitive(
        positions=rng.integers(0, 65_536, (vertices, 3)).astype(np.uint16),
        normals=np.rint(normals * 127).astype(np.int8),
        colors=rng.integers(0, 256, (vertices, 4)).astype(np.uint8),
        feature_ids=(np.arange(vertices) % 2).astype(np.uint32),
        triangles=np.arange(vertices - vertices % 3).reshape(-1, 3).astype(np.uint32),
        edges=np.array([[0, 1], [1, 2]] if edges else np.empty((0, 2)), dtype=np.uint32),
    )


def encoded(*primitives: Primitive, table: pa.Table = TABLE) -> bytes:
    return encode_tile(
        GRID, primitives or (primitive(),), plain(table), property_ids(table.column_names)
    )


@pytest.mark.parametrize(("vertices", "index_type"), [(6, 5123), (65535, 5123), (65538, 5125)])
def test_another_decoder_reads_the_same_mesh(vertices: int, index_type: int) -> None:
    source = primitive(vertices)
    document, accessors = decoded(encoded(source))
    read = document["meshes"][0]["primitives"][0]
    attributes = read["attributes"]
    np.testing.assert_array_equal(accessors[attributes["POSITION"]], source.positions)
    np.testing.assert_array_equal(accessors[attributes["NORMAL"]], source.normals)
    np.testing.assert_array_equal(accessors[attributes["COLOR_0"]], source.colors)
    np.testing.assert_array_equal(accessors[attributes["_FEATURE_ID_0"]], source.feature_ids)
    triangles = accessors[read["indices"]].reshape(-1, 3)
    assert document["accessors"][read["indices"]]["componentType"] == index_type
    # The codec may turn a triangle, never mirror it.
    first = triangles.argmin(axis=1)[:, None]
    turned = np.take_along_axis(triangles, (first + np.arange(3)) % 3, axis=1)
    np.testing.assert_array_equal(turned, source.triangles)
    outline = read["extensions"]["CESIUM_primitive_outline"]["indices"]
    np.testing.assert_array_equal(accessors[outline].reshape(-1, 2), source.edges)


def test_a_tile_reads_back_bit_for_bit() -> None:
    source = primitive(300)
    tile = decode_tile(encoded(source))
    assert np.array_equal(tile.grid.to_ecef, GRID.to_ecef)
    assert tile.grid.quantum_m == GRID.quantum_m
    (read,) = tile.primitives
    for name in ("positions", "normals", "colors", "feature_ids", "edges"):
        np.testing.assert_array_equal(getattr(read, name), getattr(source, name))
    assert read.layout == source.layout
    assert tile.table.to_pydict() == TABLE.to_pydict()
    again = encode_tile(tile.grid, tile.primitives, plain(tile.table), tile.ids)
    assert again == encoded(source)


def test_the_nodes_put_grid_steps_on_the_earth() -> None:
    gltf = pygltflib.GLTF2.load_from_bytes(encoded())
    matrix = np.array(gltf.nodes[0].matrix).reshape(4, 4).T
    (scale,) = set(gltf.nodes[1].scale)
    steps_up = 10 / scale
    y_up = matrix @ np.array([0, 0, steps_up * scale, 1])
    # The tile's client turns y-up into z-up; ten metres up from the origin is then ten metres up.
    ecef = np.array([y_up[0], -y_up[2], y_up[1]])
    assert np.linalg.norm(ecef - geodetic_to_ecef(114.39, 30.51, 35.0)) < 1e-6


def test_equal_input_gives_equal_bytes() -> None:
    assert encoded() == encoded()


def test_every_part_starts_on_a_multiple_of_eight() -> None:
    data = encoded()
    text = struct.unpack_from("<I", data, 12)[0]
    assert len(data) % 8 == (28 + text) % 8 == 0
    gltf = pygltflib.GLTF2.load_from_bytes(data)
    assert all((view.byteOffset or 0) % 8 == 0 for view in gltf.bufferViews)


def test_a_texture_is_carried_as_it_is() -> None:
    source = primitive()
    uv = np.linspace(0, 1, 12, dtype=np.float32).reshape(6, 2)
    textured = replace(source, colors=None, uv=uv, texture=Texture(PIXEL, "image/png"))
    tile = decode_tile(encoded(source, textured))
    assert [p.texture is not None for p in tile.primitives] == [False, True]
    assert tile.primitives[1].texture == Texture(PIXEL, "image/png")
    np.testing.assert_array_equal(tile.primitives[1].uv, uv)  # type: ignore[arg-type]


def test_the_json_keeps_the_schemas(schema_errors: Any) -> None:
    table = pa.table({"用途": ["住宅", "商业", None, "住宅"] * 8, "层": [3, None, 1, 2] * 8})
    source = replace(primitive(96), feature_ids=(np.arange(96) % 32).astype(np.uint32))
    document = Glb(encoded(source, table=table)).document
    assert "enums" in document["extensions"]["EXT_structural_metadata"]["schema"]
    assert schema_errors("gltf/core/glTF.schema.json", document) == []
    path = "gltf/EXT_structural_metadata/schema/glTF.EXT_structural_metadata.schema.json"
    assert schema_errors(path, document["extensions"]["EXT_structural_metadata"]) == []
    read = document["meshes"][0]["primitives"][0]
    path = "gltf/EXT_mesh_features/schema/mesh.primitive.EXT_mesh_features.schema.json"
    assert schema_errors(path, read["extensions"]["EXT_mesh_features"]) == []


def test_the_schemas_do_object_to_what_is_wrong(schema_errors: Any) -> None:
    document = Glb(encoded()).document
    extension = document["extensions"]["EXT_structural_metadata"]
    del extension["propertyTables"][0]["class"]
    path = "gltf/EXT_structural_metadata/schema/glTF.EXT_structural_metadata.schema.json"
    assert schema_errors(path, extension)
    del document["asset"]
    assert schema_errors("gltf/core/glTF.schema.json", document)


@pytest.mark.parametrize("edges", [True, False])
def test_the_khronos_validator_finds_nothing(edges: bool, tmp_path: Path, gltf_issues: Any) -> None:
    path = tmp_path / "瓦片.glb"
    path.write_bytes(encoded(primitive(edges=edges)))
    assert gltf_issues([path]) == {str(path): []}


def test_the_khronos_validator_does_object_to_what_is_wrong(
    tmp_path: Path, gltf_issues: Any
) -> None:
    data = encoded()
    path = tmp_path / "wrong.glb"
    # The same length, another node: one that is not there.
    path.write_bytes(data.replace(b'"scenes":[{"nodes":[0]}]', b'"scenes":[{"nodes":[7]}]'))
    assert gltf_issues([path])[str(path)]


def test_only_extensions_in_use_are_declared() -> None:
    document = Glb(encoded(primitive(edges=False))).document
    assert "CESIUM_primitive_outline" not in document["extensionsUsed"]


def test_a_mesh_without_triangles_is_refused() -> None:
    with pytest.raises(ValueError, match="triangle"):
        encoded(primitive(vertices=2))


@given(st.integers(0, 10_000), st.binary(min_size=1, max_size=4))
def test_damaged_bytes_are_either_read_or_refused(at: int, noise: bytes) -> None:
    data = bytearray(encoded())
    start = at % len(data)
    data[start : start + len(noise)] = noise
    try:
        glb = Glb(bytes(data))
        glb.primitives()
        glb.features()
    except FormatError:
        pass
