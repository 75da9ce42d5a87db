"""Tile coordinates and bounding regions: the algebra the tilers lean on."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiling.bounds import Region
from tiling.coords import TileCoord, morton2, unmorton2

coordinates = st.integers(0, 2**32 - 1)


@st.composite
def tiles(draw: st.DrawFn) -> TileCoord:
    level = draw(st.integers(0, 30))
    inside = st.integers(0, 2**level - 1)
    return TileCoord(level, draw(inside), draw(inside))


@st.composite
def regions(draw: st.DrawFn) -> Region:
    def pair(low: float, high: float) -> tuple[float, float]:
        a, b = draw(st.floats(low, high)), draw(st.floats(low, high))
        return min(a, b), max(a, b)

    (west, east), (south, north) = pair(-180, 180), pair(-90, 90)
    return Region(west, south, east, north, *pair(-500, 9000))


@given(x=coordinates, y=coordinates)
def test_morton_keys_round_trip(x: int, y: int) -> None:
    key = morton2([x], [y])
    assert [int(v[0]) for v in unmorton2(key)] == [x, y]


@given(x=coordinates, y=coordinates)
def test_morton_keys_interleave_bits_with_x_in_the_even_ones(x: int, y: int) -> None:
    reference = sum(((x >> i) & 1) << 2 * i | ((y >> i) & 1) << 2 * i + 1 for i in range(32))
    assert int(morton2([x], [y])[0]) == reference


def test_morton_keys_are_distinct_over_a_square() -> None:
    y, x = np.mgrid[0:64, 0:64]
    assert np.array_equal(np.sort(morton2(x.ravel(), y.ravel())), np.arange(64 * 64))


@given(tiles())
def test_a_tile_is_the_parent_of_its_four_children(tile: TileCoord) -> None:
    children = list(tile.children())
    assert len(set(children)) == 4
    assert all(child.parent() == tile for child in children)


@given(tiles())
def test_children_come_in_morton_order_right_after_each_other(tile: TileCoord) -> None:
    first = 4 * tile.morton()
    assert [child.morton() for child in tile.children()] == [first, first + 1, first + 2, first + 3]


@given(a=regions(), b=regions())
def test_a_union_holds_both_and_is_the_smallest_that_does(a: Region, b: Region) -> None:
    union = a.union(b)
    assert union == b.union(a)
    assert union.contains(a)
    assert union.contains(b)
    assert all(value in (*a, *b) for value in union)


@given(a=regions(), b=regions())
def test_what_contains_a_region_is_its_union_with_it(a: Region, b: Region) -> None:
    assert a.contains(b) == (a.union(b) == a)


@given(a=regions(), b=regions())
def test_regions_intersect_when_some_point_lies_in_both(a: Region, b: Region) -> None:
    west, south = max(a.west, b.west), max(a.south, b.south)
    shared = west <= min(a.east, b.east) and south <= min(a.north, b.north)
    assert a.intersects(b) == b.intersects(a) == shared


def test_slack_forgives_a_little_and_no_more() -> None:
    outer = Region(112, 31, 114, 32, 0, 100)
    beyond = Region(111.999, 31, 114, 32, -0.5, 100)
    assert not outer.contains(beyond)
    assert outer.contains(beyond, slack_deg=0.01, slack_m=1)
    assert not outer.contains(beyond, slack_deg=0.01)
    assert not outer.contains(beyond, slack_m=1)


@given(regions())
def test_regions_of_3d_tiles_are_radians_and_metres_and_read_back(region: Region) -> None:
    values = region.to_3dtiles()
    assert all(abs(v) <= math.pi for v in values[:4])
    assert values[4:] == [region.min_height_m, region.max_height_m]
    assert Region.from_3dtiles(values) == pytest.approx(region, abs=1e-12)


def test_bounding_boxes_list_longitude_first_and_heights_third() -> None:
    region = Region(112, 31, 114, 32, -5, 100)
    assert region.bbox2d() == [112, 31, 114, 32]
    assert region.bbox3d() == [112, 31, -5, 114, 32, 100]
