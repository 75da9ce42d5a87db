"""Massing models enclose area times height, and look outwards."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tiling.errors import GeometryInvalid
from tiling.testing.cities import synthetic_footprints
from tiling.tilers.massing import ROOF, WALL, LocalFrame, Massing, extrude, vertex_counts

LON, LAT = 113.38, 31.69
FRAME = LocalFrame.at(LON, LAT, 0.0)

# Metres per degree at the frame's origin, from the principal radii of WGS 84.
_S = np.sin(np.radians(LAT))
_W2 = 1 - 0.0066943799901413165 * _S**2
EAST_M = np.radians(6378137.0 / np.sqrt(_W2)) * np.cos(np.radians(LAT))
NORTH_M = np.radians(6378137.0 * (1 - 0.0066943799901413165) / _W2**1.5)


def lonlat(geometry: NDArray[np.object_] | shapely.Geometry) -> NDArray[np.object_]:
    """Turn metres around the origin into degrees."""
    moved = shapely.transform(geometry, lambda xy: xy / [EAST_M, NORTH_M] + [LON, LAT])
    return np.atleast_1d(np.asarray(moved, dtype=object))


def solid(geometry: NDArray[np.object_], height: float = 10.0, skirt_m: float = 0.0) -> Massing:
    n = len(geometry)
    return extrude(geometry, np.zeros(n), np.full(n, height), FRAME, skirt_m)


def faces(mesh: Massing) -> NDArray[np.float64]:
    return mesh.positions[mesh.triangles]


def volume(mesh: Massing) -> float:
    """Divergence theorem: the flux of (0, 0, z) through walls and roof; the floor is at z = 0."""
    a, b, c = np.moveaxis(faces(mesh), 1, 0)
    area = np.cross(b - a, c - a) / 2
    return float((area[:, 2] * (a + b + c)[:, 2] / 3).sum())


def roof_area(mesh: Massing) -> float:
    roof = mesh.part[mesh.triangles[:, 0]] == ROOF
    a, b, c = np.moveaxis(faces(mesh)[roof], 1, 0)
    return float((np.cross(b - a, c - a)[:, 2] / 2).sum())


SQUARE = shapely.box(-20, -10, 20, 10)
ELL = shapely.Polygon([(0, 0), (30, 0), (30, 10), (10, 10), (10, 40), (0, 40)])
HOLED = shapely.Polygon(SQUARE.exterior, [shapely.box(-5, -5, 5, 5).exterior])
TWO = shapely.MultiPolygon([SQUARE, shapely.box(50, 50, 60, 70)])
SHAPES = [SQUARE, ELL, HOLED, TWO]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("reverse", [False, True])
def test_volume_and_roof_are_those_of_the_prism(shape: shapely.Geometry, reverse: bool) -> None:
    footprint = shape.reverse() if reverse else shape
    mesh = solid(lonlat(footprint))
    assert roof_area(mesh) == pytest.approx(shape.area, rel=1e-4)
    assert volume(mesh) == pytest.approx(shape.area * 10, rel=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("reverse", [False, True])
def test_walls_face_the_outside(shape: shapely.Geometry, reverse: bool) -> None:
    mesh = solid(lonlat(shape.reverse() if reverse else shape))
    wall = mesh.part[mesh.triangles[:, 0]] == WALL
    middle = faces(mesh)[wall].mean(axis=1)[:, :2]
    step = mesh.normals[mesh.triangles[wall, 0]][:, :2] * 0.05
    assert not shapely.contains_xy(shape, middle + step).any()
    assert shapely.contains_xy(shape, middle - step).all()


@given(st.integers(0, 2**32 - 1))
def test_winding_agrees_with_the_normals(seed: int) -> None:
    batch = synthetic_footprints(30, seed, LON, LAT)
    mesh = solid(batch.geometry)
    a, b, c = np.moveaxis(faces(mesh), 1, 0)
    geometric = np.cross(b - a, c - a)
    for corner in range(3):
        declared = mesh.normals[mesh.triangles[:, corner]]
        cosine = (geometric * declared).sum(axis=1) / np.linalg.norm(geometric, axis=1)
        assert cosine.min() > 0.999


@given(st.integers(3, 40), st.integers(0, 2**32 - 1))
def test_any_simple_polygon_keeps_its_area(corners: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    angle = np.sort(rng.uniform(0, 2 * np.pi, corners))
    radius = rng.uniform(1, 50, corners)
    star = shapely.Polygon(np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1))
    if not star.is_valid or star.area < 1:
        return
    assert roof_area(solid(lonlat(star))) == pytest.approx(star.area, rel=1e-3)


def test_many_at_once_are_the_same_as_one_by_one() -> None:
    geometry = lonlat(np.array(SHAPES, dtype=object))
    together = solid(geometry)
    for i in range(len(geometry)):
        alone, own = solid(geometry[i : i + 1]), together.feature == i
        np.testing.assert_array_equal(alone.positions, together.positions[own])
        assert (together.feature[together.triangles[:, 0]] == i).sum() == len(alone.triangles)


def test_the_skirt_lowers_the_walls_and_leaves_the_roof() -> None:
    without, skirted = solid(lonlat(SQUARE)), solid(lonlat(SQUARE), skirt_m=2.0)
    assert skirted.positions[:, 2].min() == pytest.approx(without.positions[:, 2].min() - 2)
    assert skirted.positions[:, 2].max() == without.positions[:, 2].max()


def test_edges_are_sides_of_triangles_and_draw_every_corner() -> None:
    mesh = solid(lonlat(SQUARE))
    sides = np.sort(mesh.triangles[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    drawn = np.sort(mesh.edges, axis=1)
    assert set(map(tuple, drawn.tolist())) <= set(map(tuple, sides.tolist()))
    lines = np.sort(np.round(mesh.positions[mesh.edges], 3), axis=1)
    # A box has twelve edges: four on the roof, four below, four upright.
    assert len(np.unique(lines.reshape(len(lines), -1), axis=0)) == 12


def test_a_round_tower_has_no_upright_edges() -> None:
    mesh = solid(lonlat(shapely.Point(0, 0).buffer(20, quad_segs=16)))
    upright = np.abs(np.diff(mesh.positions[mesh.edges][:, :, 2], axis=1)) > 1
    assert not upright.any()


def test_repeated_points_and_z_change_nothing() -> None:
    plain = solid(lonlat(SQUARE))
    ring = np.repeat(shapely.get_coordinates(lonlat(SQUARE)), 2, axis=0)
    doubled = shapely.Polygon(np.column_stack([ring, np.full(len(ring), 7.0)]))
    again = solid(np.array([doubled], dtype=object))
    np.testing.assert_array_equal(plain.positions, again.positions)


def test_vertex_counts_are_never_exceeded() -> None:
    geometry = lonlat(np.array(SHAPES, dtype=object))
    made = np.bincount(solid(geometry).feature)
    assert (made <= vertex_counts(geometry)).all()


def test_a_footprint_without_area_is_refused() -> None:
    flat = shapely.Polygon([(LON, LAT), (LON + 0.001, LAT), (LON, LAT)])
    with pytest.raises(GeometryInvalid, match="triangulated"):
        solid(np.array([lonlat(SQUARE)[0], flat], dtype=object))
