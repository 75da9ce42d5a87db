"""Triangles cover their polygon exactly, whatever it looks like."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tiling.tilers.outlines import Outlines
from tiling.tilers.triangulate import clip_ears, triangulate

IntArray = NDArray[np.int64]


def rings(polygons: list[shapely.Polygon]) -> tuple[IntArray, IntArray, IntArray]:
    outlines = Outlines.of(np.array(polygons, dtype=object))
    return outlines.lonlat.astype(np.int64), outlines.ring_start, outlines.polygon_start


def areas(points: IntArray, triangles: IntArray) -> IntArray:
    a, b, c = np.moveaxis(points[triangles], 1, 0)
    twice: IntArray = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
    return twice


def assert_covers(polygon: shapely.Polygon, points: IntArray, triangles: IntArray) -> None:
    assert (areas(points, triangles) > 0).all()
    assert areas(points, triangles).sum() == round(2 * polygon.area)
    # No two overlap: their union has the area of them all.
    union = shapely.union_all(shapely.polygons(points[triangles].astype(float)))
    assert union.area == pytest.approx(polygon.area)
    assert shapely.difference(union, polygon).area == pytest.approx(0, abs=1e-6 * polygon.area)


def check(polygons: list[shapely.Polygon]) -> None:
    points, ring_start, polygon_start = rings(polygons)
    triangles, start = triangulate(points, ring_start, polygon_start, points.astype(float))
    for i, polygon in enumerate(polygons):
        assert_covers(polygon, points, triangles[start[i] : start[i + 1]])


def comb(teeth: int) -> shapely.Polygon:
    upper = [(x, 100 if x % 4 < 2 else 20) for x in range(2 * teeth, -1, -1)]
    return shapely.Polygon([(0, 0), (2 * teeth, 0), *upper])


BOX = shapely.box(0, 0, 100, 100)
SHAPES = {
    "triangle": shapely.Polygon([(0, 0), (9, 1), (3, 7)]),
    "square": BOX,
    "points on straight sides": shapely.Polygon(
        [(0, 0), (3, 0), (7, 0), (10, 0), (10, 4), (10, 10), (5, 10), (0, 10), (0, 1)]
    ),
    "arrow": shapely.Polygon([(0, 0), (10, 10), (0, 20), (5, 10)]),
    "comb": comb(9),
    "courtyard": BOX.difference(shapely.box(30, 30, 60, 60)),
    "courtyards side by side": BOX.difference(
        shapely.union_all([shapely.box(x, y, x + 8, y + 8) for x in (5, 25, 45) for y in (5, 55)])
    ),
    "holes in a row": BOX.difference(
        shapely.union_all([shapely.box(x, 40, x + 6, 46) for x in range(5, 90, 10)])
    ),
    "hole that touches the shell": shapely.Polygon(
        BOX.exterior.coords, [[(0, 50), (30, 40), (30, 60)]]
    ),
    "holes that touch each other": shapely.Polygon(
        BOX.exterior.coords, [[(20, 50), (50, 40), (50, 60)], [(50, 40), (80, 30), (80, 50)]]
    ),
    "spiral": shapely.LineString(
        [(50, 50), (60, 50), (60, 60), (40, 60), (40, 40), (70, 40), (70, 70), (30, 70)]
    ).buffer(2, cap_style="flat", join_style="mitre"),
}


@pytest.mark.parametrize("name", SHAPES)
def test_triangles_cover_the_polygon(name: str) -> None:
    check([SHAPES[name]])


@pytest.mark.parametrize("name", [n for n in SHAPES if "touch" not in n])
def test_ears_need_no_help_from_geos(name: str) -> None:
    _, _, exact = clip_ears(*rings([SHAPES[name]]), 256)
    assert exact.all()


# Where a hole touches the middle of a side of the shell, that side is in two triangles.
@pytest.mark.parametrize("name", [n for n in SHAPES if n != "hole that touches the shell"])
def test_every_side_of_a_roof_is_a_side_of_a_triangle(name: str) -> None:
    points, ring_start, polygon_start = rings([SHAPES[name]])
    triangles, _ = triangulate(points, ring_start, polygon_start, points.astype(float))
    sides = np.stack([triangles, np.roll(triangles, -1, axis=1)], axis=2).reshape(-1, 2)
    drawn = set(map(tuple, points[sides].reshape(-1, 4).tolist()))
    for begin, end in zip(ring_start[:-1], ring_start[1:], strict=True):
        ring = points[begin:end]
        wanted = np.concatenate([ring, np.roll(ring, -1, axis=0)], axis=1)
        assert set(map(tuple, wanted.tolist())) <= drawn


def test_many_at_once_are_the_same_as_one_by_one() -> None:
    polygons = list(SHAPES.values())
    points, ring_start, polygon_start = rings(polygons)
    triangles, start = triangulate(points, ring_start, polygon_start, points.astype(float))
    for i, polygon in enumerate(polygons):
        alone = rings([polygon])
        own, _ = triangulate(*alone, alone[0].astype(float))
        first = ring_start[polygon_start[i]]
        np.testing.assert_array_equal(own + first, triangles[start[i] : start[i + 1]])


@st.composite
def stars(draw: st.DrawFn) -> shapely.Polygon:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    corners = draw(st.integers(3, 60))
    angle = np.sort(rng.uniform(0, 2 * np.pi, corners))
    reach = rng.uniform(20, draw(st.sampled_from([25, 300, 30_000])), corners)
    xy = np.rint(np.stack([reach * np.cos(angle), reach * np.sin(angle)], axis=1)) + 32_000
    return shapely.Polygon(xy)


@given(stars(), st.integers(0, 6), st.integers(0, 2**32 - 1))
def test_any_polygon_with_holes_is_covered(star: shapely.Polygon, holes: int, seed: int) -> None:
    # Rounding may fold a star over; that is another test's matter, and GEOS cuts no such thing.
    assume(star.is_valid)
    rng = np.random.default_rng(seed)
    west, south, east, north = star.bounds
    cut = star
    for x, y in zip(rng.uniform(west, east, holes), rng.uniform(south, north, holes), strict=True):
        cut = cut.difference(shapely.box(*np.rint([x, y, x + 9, y + 7]).tolist()))
    parts = [
        shapely.Polygon(np.rint(p.exterior.coords), [np.rint(r.coords) for r in p.interiors])
        for p in shapely.get_parts(cut)
        if p.geom_type == "Polygon"
    ]
    good = [p for p in parts if p.is_valid and p.area > 0]
    if good:
        check(good)


def test_twenty_thousand_points_go_to_geos() -> None:
    angle = np.linspace(0, 2 * np.pi, 20_000, endpoint=False)
    reach = 30_000 + 2_000 * np.sin(40 * angle)
    xy = np.rint(np.stack([reach * np.cos(angle), reach * np.sin(angle)], axis=1)) + 32_768
    polygon = shapely.remove_repeated_points(shapely.Polygon(xy))
    assert polygon.is_valid
    points, ring_start, polygon_start = rings([polygon])
    triangles, _ = triangulate(points, ring_start, polygon_start, points.astype(float))
    assert areas(points, triangles).sum() == round(2 * polygon.area)
    assert (areas(points, triangles) > 0).all()


def test_what_rounding_folded_over_is_triangulated_as_drawn() -> None:
    drawn = np.array([(0, 0), (10, 0), (10, 10), (5.4, 0.3), (5.2, 10), (0, 10)])
    points = np.rint(drawn).astype(np.int64)
    points[3, 1] = -2  # Below the base line: the ring crosses itself.
    whole = np.array([0, 1]), np.array([0, 6])
    triangles, _ = triangulate(points, whole[1], whole[0], drawn)
    assert len(triangles) >= 3
    assert (areas(points, triangles) > 0).all()
