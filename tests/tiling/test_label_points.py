"""A label lies where its area is widest, or in the middle if there is room."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyogrio
import pytest
import shapely

from tiling.tilers.label_points import inner_points, label_points

DEMO = Path(__file__).parent.parent.parent / "cim_server" / "demo" / "data"
SHAPES = {
    "crescent": shapely.Point(0, 0).buffer(10).difference(shapely.Point(4, 0).buffer(8)),
    "ring": shapely.Point(0, 0).buffer(10).difference(shapely.Point(1, 0).buffer(6)),
    "angle": shapely.from_wkt("POLYGON((0 0, 20 0, 20 3, 5 3, 5 18, 0 18, 0 0))"),
    "dumb-bell": shapely.union_all(
        [shapely.box(0, 0, 4, 4), shapely.box(4, 1.9, 30, 2.1), shapely.box(30, -4, 41, 7)]
    ),
}


def of(*polygons: object) -> np.ndarray:
    return np.array(polygons, dtype=object)


@pytest.mark.parametrize("name", SHAPES)
def test_a_label_has_nearly_as_much_room_as_there_is_anywhere(name: str) -> None:
    polygon = SHAPES[name]
    shapely.prepare(polygon)
    west, south, east, north = polygon.bounds
    x, y = np.meshgrid(np.linspace(west, east, 201), np.linspace(south, north, 201))
    grid = shapely.points(x.ravel(), y.ravel())
    most = shapely.distance(grid[shapely.contains(polygon, grid)], polygon.boundary).max()
    (place,) = shapely.points(label_points(of(polygon)))
    assert polygon.contains(place)
    assert place.distance(polygon.boundary) >= 0.89 * most


def test_a_long_shape_is_labelled_in_its_middle() -> None:
    assert label_points(of(shapely.box(0, 0, 30, 2))) == pytest.approx(np.array([[15.0, 1.0]]))


def test_the_largest_part_carries_the_label() -> None:
    parts = shapely.multipolygons([shapely.box(0, 0, 1, 1), shapely.box(5, 5, 9, 9)])
    assert label_points(of(shapely.box(0, 0, 2, 2), parts)) == pytest.approx(
        np.array([[1.0, 1.0], [7.0, 7.0]])
    )


def test_slivers_and_specks_have_a_place_too() -> None:
    east, north = 12_000_000.0, 4_000_000.0
    thin = shapely.Polygon([(east, north), (east + 5e-9, north), (east, north + 1e-5)])
    flat = shapely.Polygon([(0, 0), (1e5, 1e-9), (2e5, 0)])
    none = shapely.Polygon([(3, 3), (4, 4), (3, 3)])
    places = label_points(of(thin, flat, none))
    assert shapely.distance(shapely.points(places), of(thin, flat, none)).max() < 1e-6
    assert label_points(of(none)).tolist() == inner_points(of(none)).tolist()


def test_counties_are_labelled_inside_and_not_in_a_corner() -> None:
    _, _, geometry, _ = pyogrio.raw.read(DEMO / "suizhou_counties_cgcs2000.geojson", columns=[])
    counties = shapely.from_wkb(geometry)
    places = shapely.points(label_points(counties))
    assert shapely.contains(counties, places).all()
    edges = shapely.boundary(counties)
    some = shapely.points(inner_points(counties))
    assert (shapely.distance(places, edges) >= 0.89 * shapely.distance(some, edges)).all()
