"""Shapes of their own: records that come back, and faces where they belong in a tile."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tiling.ellipsoid import geodetic_to_ecef
from tiling.errors import FormatError, TilingError
from tiling.formats.primitive import Texture
from tiling.meshes import (
    GROUND,
    ROOF,
    WALL,
    FeatureMesh,
    decode_mesh,
    decode_meshes,
    encode_mesh,
    mesh_heights,
    transform_meshes,
)
from tiling.tilers.massing import grid_at
from tiling.tilers.mesh_tile import SURFACE_COLORS, mesh_extent, mesh_primitives
from tiling.tilers.prisms import prisms_of

LON, LAT = 113.38, 31.69
# Metres a degree at this place, nearly.
SCALE = np.array([94_800.0, 110_900.0])

_FACES = np.array(
    [
        (0, 2, 1), (0, 3, 2),  # ground, seen from below
        (4, 5, 6), (4, 6, 7),  # roof
        (0, 1, 5), (0, 5, 4), (1, 2, 6), (1, 6, 5), (2, 3, 7), (2, 7, 6), (3, 0, 4), (3, 4, 7),
    ],
    dtype=np.uint32,
)  # fmt: skip


def box(east_m: float, size_m: float = 10.0, height_m: float = 20.0, **more: Any) -> FeatureMesh:
    """Return a box of twelve triangles."""
    square = np.array([(0, 0), (1, 0), (1, 1), (0, 1)]) * size_m + [east_m, 0]
    flat = square / SCALE + [LON, LAT]
    vertices = np.concatenate(
        [np.column_stack([flat, np.full(4, h)]) for h in (50.0, 50.0 + height_m)]
    )
    surfaces = np.repeat(np.array([GROUND, ROOF, WALL], np.uint8), [2, 2, 8])
    return FeatureMesh(vertices, _FACES, surfaces, **more)


def column(*meshes: FeatureMesh | None) -> pa.ChunkedArray:
    values = [None if mesh is None else encode_mesh(mesh) for mesh in meshes]
    return pa.chunked_array([pa.array(values, pa.large_binary())])


def picture(color: tuple[int, int, int]) -> Texture:
    file = io.BytesIO()
    Image.new("RGB", (16, 16), color).save(file, "PNG")
    return Texture(file.getvalue(), "image/png")


def assert_equal(one: FeatureMesh | None, other: FeatureMesh) -> None:
    assert one is not None
    for name in FeatureMesh.__dataclass_fields__:
        left, right = getattr(one, name), getattr(other, name)
        if isinstance(right, np.ndarray):
            np.testing.assert_array_equal(left, right)
        else:
            assert left == right


@given(seed=st.integers(0, 1000), textured=st.booleans(), colored=st.booleans())
def test_a_record_comes_back(seed: int, textured: bool, colored: bool) -> None:
    rng = np.random.default_rng(seed)
    vertices, triangles = int(rng.integers(3, 40)), int(rng.integers(0, 60))
    mesh = FeatureMesh(
        rng.normal(size=(vertices, 3)),
        rng.integers(0, vertices, (triangles, 3)).astype(np.uint32),
        rng.integers(0, 4, triangles).astype(np.uint8),
        rng.integers(0, 256, (triangles, 4)).astype(np.uint8) if colored else None,
        rng.random((triangles, 3, 2)).astype(np.float32) if textured else None,
        rng.integers(-1, 2, triangles).astype(np.int32) if textured else None,
        (picture((1, 2, 3)), Texture(b"\xff\xd8jpeg", "image/jpeg")) if textured else (),
    )
    record = encode_mesh(mesh)
    assert_equal(decode_mesh(record), mesh)
    assert encode_mesh(decode_mesh(record)) == record


@given(cut=st.integers(0, 400), noise=st.binary(max_size=8))
def test_a_damaged_record_is_read_or_refused(cut: int, noise: bytes) -> None:
    record = encode_mesh(box(0))
    at = cut % len(record)
    for damaged in (record[:at], record[:at] + noise + record[at + len(noise) :]):
        try:
            decode_mesh(damaged)
        except FormatError:
            pass


def test_a_triangle_that_names_no_vertex_is_refused() -> None:
    record = bytearray(encode_mesh(box(0)))
    first_index = 20 + 8 * 24
    record[first_index : first_index + 4] = (99).to_bytes(4, "little")
    with pytest.raises(FormatError, match="99"):
        decode_mesh(bytes(record))


def test_vertices_move_together_and_nulls_stay() -> None:
    calls = []

    def shift(x: Any, y: Any, z: Any) -> Any:
        calls.append(len(x))
        return x + 1, y + 2, z + 3

    first, last = box(0), box(30, height_m=5)
    moved = list(decode_meshes(transform_meshes(column(first, None, last), shift)))
    assert calls == [16]
    assert moved[1] is None
    for before, after in ((first, moved[0]), (last, moved[2])):
        assert after is not None
        np.testing.assert_allclose(after.vertices, before.vertices + [1, 2, 3])
    low, high = mesh_heights(column(first, None, last))
    np.testing.assert_array_equal(low, [50, np.nan, 50])
    np.testing.assert_array_equal(high, [70, np.nan, 55])


def tile(*meshes: FeatureMesh | None) -> tuple[Any, Any, Any]:
    meshes_column = column(*meshes)
    lonlat, low, high = mesh_extent(meshes_column)
    grid = grid_at(lonlat, low, high)
    rows = np.flatnonzero([mesh is not None for mesh in meshes])
    return grid, mesh_primitives(meshes_column, rows, grid), meshes_column


def test_every_vertex_is_within_half_a_step_of_its_place() -> None:
    shapes = (box(0), None, box(40, 8, 33))
    grid, (primitive,), _ = tile(*shapes)
    own = grid.ecef(primitive.positions)
    for row in (0, 2):
        vertices = shapes[row].vertices  # type: ignore[union-attr]
        expected = geodetic_to_ecef(*vertices.T)
        found = own[primitive.feature_ids == row]
        apart = np.linalg.norm(found[:, None] - expected[None], axis=2)
        # Half a step on each of three axes.
        assert apart.min(axis=1).max() < grid.quantum_m * 0.5 * np.sqrt(3) + 1e-6
        assert apart.min(axis=0).max() < grid.quantum_m * 0.5 * np.sqrt(3) + 1e-6


def test_faces_look_outwards_and_wear_the_colours_of_their_surfaces() -> None:
    _, (primitive,), _ = tile(box(0))
    assert len(primitive.triangles) == 12
    corners = primitive.positions.astype(np.int64)[primitive.triangles]
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    centre = primitive.positions.astype(float).mean(axis=0)
    outwards = ((corners.mean(axis=1) - centre) * across).sum(axis=1)
    assert (outwards > 0).all()
    normals = primitive.normals[primitive.triangles[:, 0]].astype(float)
    assert ((normals * across).sum(axis=1) > 0).all()
    colors = {tuple(c) for c in primitive.colors.tolist()}
    assert colors == {tuple(SURFACE_COLORS[s].tolist()) for s in (WALL, ROOF, GROUND)}


def test_edges_are_drawn_where_faces_meet_at_an_angle_and_not_within_them() -> None:
    _, (primitive,), _ = tile(box(0))
    ends = primitive.positions[primitive.edges].astype(np.int64)
    lines = {tuple(sorted(map(tuple, pair))) for pair in ends.tolist()}
    # A box has twelve edges; the diagonals of its faces are none.
    assert len(lines) == 12
    sides = np.concatenate([primitive.triangles[:, [i, (i + 1) % 3]] for i in range(3)])
    assert {tuple(sorted(e)) for e in primitive.edges.tolist()} <= {
        tuple(sorted(s)) for s in sides.tolist()
    }


def test_textured_faces_share_one_image_and_the_rest_keep_their_colours() -> None:
    image = np.where(np.arange(12) < 4, 0, -1).astype(np.int32)
    uv = np.tile(np.array([(0, 0), (1, 0), (1, 1)], np.float32), (12, 1, 1))
    first = box(0, uv=uv, image=image, images=(picture((250, 0, 0)),))
    second = box(30, uv=uv, image=image, images=(picture((0, 0, 250)),))
    _, (bare, textured), _ = tile(first, second)
    assert bare.texture is None and len(bare.triangles) == 16
    assert textured.texture is not None and len(textured.triangles) == 8
    atlas = np.asarray(Image.open(io.BytesIO(textured.texture.data)).convert("RGB"), dtype=int)
    for row, channel in ((0, 0), (1, 2)):
        uv_of = textured.uv[textured.feature_ids == row].mean(axis=0)
        height, width, _ = atlas.shape
        pixel = atlas[int(uv_of[1] * height), int(uv_of[0] * width)]
        assert pixel.argmax() == channel and pixel.max() > 200


def test_a_coarser_tile_sees_the_hull_of_a_shape() -> None:
    grid, primitives, _ = tile(box(0, 10, 20), box(50, 12, 9))
    prisms = prisms_of(grid, primitives, np.array([7, 9]), np.ones(2, dtype=np.int64))
    assert prisms.ids.tolist() == [7, 9]
    np.testing.assert_allclose(prisms.bottom_m, 50, atol=0.05)
    np.testing.assert_allclose(prisms.top_m, [70, 59], atol=0.05)
    assert np.diff(prisms.start).tolist() == [4, 4]


def test_a_shape_finer_than_the_grid_is_still_there() -> None:
    at = box(0).vertices[[0, 0, 0]]
    speck = FeatureMesh(at, np.array([[0, 1, 2]], np.uint32), np.zeros(1, np.uint8))
    _, (primitive,), _ = tile(box(30), speck)
    assert (primitive.feature_ids == 1).sum() == 3


def test_a_shape_beyond_the_grid_is_refused() -> None:
    grid, _, _ = tile(box(0))
    with pytest.raises(TilingError, match="beyond the grid"):
        mesh_primitives(column(box(10_000)), np.array([0]), grid)
