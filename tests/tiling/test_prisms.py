"""Prisms read from tiles are the footprints that went in."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import shapely
from numpy.typing import NDArray

from tiling.ellipsoid import ecef_to_geodetic
from tiling.errors import TilingError
from tiling.formats.primitive import Grid, Primitive
from tiling.tilers.massing import extrude_tile, grid_at, prism_tile
from tiling.tilers.prisms import Prisms, geodetic, prisms_of

LON, LAT = 113.38, 31.69
SCALE = np.array([111_320.0 * np.cos(np.radians(LAT)), 111_320.0])


def at(shape: shapely.Geometry) -> shapely.Geometry:
    return shapely.transform(shape, lambda xy: xy / SCALE + [LON, LAT])


def polygons(prisms: Prisms) -> NDArray[np.object_]:
    """The outlines in metres around the origin."""
    owner = np.repeat(np.arange(len(prisms)), np.diff(prisms.start))
    rings = shapely.linearrings((prisms.lonlat - [LON, LAT]) * SCALE, indices=owner)
    return np.asarray(shapely.polygons(rings))


def tile(
    *shapes: shapely.Geometry, base: float = 40.0, height: float = 10.0, skirt: float = 2.0
) -> tuple[Grid, Primitive]:
    n = len(shapes)
    geometry = np.array([at(shape) for shape in shapes], dtype=object)
    return extrude_tile(geometry, np.full(n, base), np.full(n, height), np.full(n, skirt))


SQUARE = shapely.box(-20, -10, 20, 10)
ELL = shapely.Polygon([(50, 0), (80, 0), (80, 10), (60, 10), (60, 40), (50, 40)])
HOLED = shapely.Polygon(
    shapely.box(100, 0, 140, 40).exterior, [shapely.box(110, 10, 130, 30).exterior]
)
PAIR = shapely.MultiPolygon([shapely.box(0, 50, 5, 55), shapely.box(10, 50, 30, 70)])


def test_outlines_heights_and_ids_come_back() -> None:
    grid, primitive = tile(SQUARE, ELL, HOLED)
    found = prisms_of(grid, [primitive], np.array([7, 8, 9]), np.array([1, 1, 1]))
    assert found.ids.tolist() == [7, 8, 9]
    for got, sent in zip(polygons(found), [SQUARE, ELL, HOLED], strict=True):
        shell = shapely.Polygon(sent.exterior)
        assert shapely.hausdorff_distance(got, shell) <= grid.quantum_m
        assert shapely.is_ccw(shapely.get_exterior_ring(got))
    np.testing.assert_allclose(found.bottom_m, 38, atol=grid.quantum_m)
    np.testing.assert_allclose(found.top_m, 50, atol=grid.quantum_m)


def test_of_several_outlines_the_largest_carries_the_feature() -> None:
    grid, primitive = tile(PAIR, SQUARE)
    found = prisms_of(grid, [primitive], np.array([5, 6]), np.array([1, 1]))
    assert found.ids.tolist() == [5, 5, 6]
    assert found.features.tolist() == [0, 1, 1]


def test_the_order_of_triangles_does_not_matter() -> None:
    grid, primitive = tile(PAIR, HOLED, ELL)
    rng = np.random.default_rng(1)
    triangles = np.roll(rng.permutation(primitive.triangles), 1, axis=1)
    rows = np.arange(3), np.ones(3, dtype=np.int64)
    straight = prisms_of(grid, [primitive], *rows)
    shuffled = prisms_of(grid, [replace(primitive, triangles=triangles)], *rows)
    np.testing.assert_array_equal(straight.lonlat, shuffled.lonlat)
    np.testing.assert_array_equal(straight.start, shuffled.start)


def test_prisms_written_again_are_the_same() -> None:
    grid, primitive = tile(PAIR, HOLED, ELL)
    first = prisms_of(grid, [primitive], np.arange(3), np.ones(3, dtype=np.int64))
    again = prisms_of(*_listed(prism_tile(first)), first.ids, first.features)
    np.testing.assert_array_equal(first.start, again.start)
    np.testing.assert_array_equal(first.ids, again.ids)
    np.testing.assert_array_equal(first.features, again.features)
    np.testing.assert_allclose(first.lonlat * SCALE[1], again.lonlat * SCALE[1], atol=0.02)
    np.testing.assert_allclose(first.top_m, again.top_m, atol=0.02)


def _listed(pair: tuple[Grid, Primitive]) -> tuple[Grid, list[Primitive]]:
    return pair[0], [pair[1]]


def mesh(points: NDArray[np.int64], row: NDArray[np.int64]) -> Primitive:
    n = len(points)
    return Primitive(
        points.astype(np.uint16),
        np.zeros((n, 3), dtype=np.int8),
        None,
        row.astype(np.uint32),
        np.empty((0, 3), dtype=np.uint32),
        np.empty((0, 2), dtype=np.uint32),
    )


def test_a_mesh_becomes_the_hull_of_its_vertices_across_primitives() -> None:
    rng = np.random.default_rng(3)
    points = rng.integers(100, 5000, (300, 3))
    row = rng.integers(0, 4, 300)
    grid = grid_at(np.array([[LON, LAT], [LON + 0.001, LAT + 0.001]]), 0.0, 100.0)
    halves = [mesh(points[:150], row[:150]), mesh(points[150:], row[150:])]
    found = prisms_of(grid, halves, np.arange(4) + 40, np.ones(4, dtype=np.int64))
    assert found.ids.tolist() == [40, 41, 42, 43]
    lon, lat, height = ecef_to_geodetic(grid.ecef(points))
    for i, polygon in enumerate(polygons(found)):
        own = row == i
        flat = (np.stack([lon, lat], axis=1)[own] - [LON, LAT]) * SCALE
        hull = shapely.convex_hull(shapely.multipoints(flat))
        assert shapely.hausdorff_distance(hull, polygon) < 1e-3
        assert found.bottom_m[i] == pytest.approx(height[own].min(), abs=1e-6)
        assert found.top_m[i] == pytest.approx(height[own].max(), abs=1e-6)


def test_a_mesh_without_breadth_still_is_a_prism() -> None:
    points = np.array([[10, 10, 0], [20, 20, 5], [30, 30, 9], [7, 7, 7]])
    grid = grid_at(np.array([[LON, LAT]]), 0.0, 100.0)
    found = prisms_of(
        grid, [mesh(points, np.array([0, 0, 0, 1]))], np.array([1, 2]), np.array([1, 1])
    )
    assert (shapely.area(polygons(found)) > 0).all()
    assert found.features.sum() == 2


def test_rows_without_a_vertex_are_refused() -> None:
    grid, primitive = tile(SQUARE)
    with pytest.raises(TilingError, match="no vertex"):
        prisms_of(grid, [primitive], np.array([1, 2]), np.array([1, 1]))


@pytest.mark.parametrize("lon, lat", [(113.38, 31.69), (-179.9, -89.5), (0.0, 0.0), (87.0, 28.0)])
def test_positions_are_those_of_the_iterated_formula(lon: float, lat: float) -> None:
    grid = grid_at(np.array([[lon, lat], [lon + 0.7, lat + 0.4]]), -100.0, 8000.0)
    rng = np.random.default_rng(5)
    points = rng.integers(0, 65_535, (200, 3))
    expected = np.stack(ecef_to_geodetic(grid.ecef(points)), axis=1)
    got = np.array([geodetic(*p, grid.to_ecef, grid.quantum_m) for p in points.astype(float)])
    np.testing.assert_allclose(got[:, :2], expected[:, :2], atol=1e-9)
    np.testing.assert_allclose(got[:, 2], expected[:, 2], atol=1e-5)
