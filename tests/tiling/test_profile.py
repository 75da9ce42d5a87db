"""Profiles: distances of the ellipsoid, places on the line, climbs that add up."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pyproj import Geod

from tiling.tilers.relief_profile import climb, count_for, evenly, most_length_m, trace

GEOD = Geod(ellps="WGS84")
LINE = st.lists(
    st.tuples(st.floats(-180, 180), st.floats(-89, 89)), min_size=2, max_size=2
).flatmap(
    lambda ends: st.lists(
        st.tuples(st.floats(-0.3, 0.3), st.floats(-0.3, 0.3)), min_size=2, max_size=6
    ).map(lambda steps: [(ends[0][0] + x, ends[0][1] + y) for x, y in steps])
)


@given(LINE)
@settings(max_examples=50, deadline=None)
def test_distances_are_geodesic(points: list[tuple[float, float]]) -> None:
    lon, lat = np.array(points).T
    path = trace(lon, lat)
    measured = GEOD.line_length(path.lon, path.lat)
    assert path.distance_m[-1] == pytest.approx(measured, rel=1e-9, abs=1e-6)
    assert measured <= most_length_m(lon, lat) + 1e-6


def test_a_meridian_is_as_long_as_a_meridian() -> None:
    path = trace(np.array([113.0, 113.0]), np.array([30.0, 34.0]))
    assert path.distance_m[-1] == pytest.approx(GEOD.inv(113, 30, 113, 34)[2], abs=1e-3)


@given(LINE, st.integers(2, 300))
@settings(max_examples=50, deadline=None)
def test_places_lie_on_the_line_at_equal_distances(
    points: list[tuple[float, float]], count: int
) -> None:
    lon, lat = np.array(points).T
    traced = trace(lon, lat)
    if not traced.distance_m[-1] > 1:
        return
    path = evenly(traced, count)
    assert len(path.lon) == count
    assert (path.lon[0], path.lat[0]) == (lon[0], lat[0])
    assert path.lon[-1] == pytest.approx(lon[-1]) and path.lat[-1] == pytest.approx(lat[-1])
    assert np.diff(path.distance_m) == pytest.approx(traced.distance_m[-1] / (count - 1))
    if len(points) == 2:
        # On a straight line the geodesic between neighbours is the distance between them.
        steps = GEOD.inv(path.lon[:-1], path.lat[:-1], path.lon[1:], path.lat[1:])[2]
        assert np.abs(np.array(steps) - np.diff(path.distance_m)).max() < 0.05


def test_a_spacing_is_kept_and_both_ends_are_there() -> None:
    assert [count_for(100, s) for s in (100, 99.9, 50, 33, 1000)] == [2, 3, 3, 5, 2]


@given(arrays(np.float64, st.integers(1, 30), elements=st.floats(-100, 100)))
def test_a_climb_less_the_descent_is_what_was_gained(heights: np.ndarray) -> None:
    found = climb(heights)
    assert found.ascent_m >= 0 and found.descent_m >= 0 and found.voids == 0
    assert found.ascent_m - found.descent_m == pytest.approx(heights[-1] - heights[0], abs=1e-6)
    assert (found.min_m, found.max_m) == (heights.min(), heights.max())


def test_voids_are_counted_and_nothing_climbs_over_them() -> None:
    found = climb(np.array([1.0, np.nan, 50.0, 51.0, 49.5, np.nan]))
    assert found == (1.0, 51.0, 1.0, 1.5, 2)
    nothing = climb(np.full(3, np.nan))
    assert np.isnan(nothing.min_m) and (nothing.ascent_m, nothing.voids) == (0.0, 3)
