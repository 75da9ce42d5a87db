"""What the fast clipping of GEOS fails on is clipped all the same, and nothing else is lost."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.errors import GEOSException

from tiling.tilers.clipping import clip_by_rect

RECT = (-0.5, -0.5, 0.5, 0.5)
# Valid triangles, thinner than a rounding where they cross the border.
SLIVERS = [
    shapely.from_wkb(text)
    for text in (
        "010300000001000000040000002411266D0502E03F050EEF04BE5FEABFC5CD8D64A457DE3F2986E545ACE4E3BF"
        "1C9443E9F53DD63F939976F92EF4D63F2411266D0502E03F050EEF04BE5FEABF",
        "01030000000100000004000000789EDBC3A7F2F4BFFA281DD941D9D63FE0ACA3F5E626F2BF68CF2FA9CA68D73F"
        "AAA7953D6C9DC73FC6626F5F34A4DB3F789EDBC3A7F2F4BFFA281DD941D9D63F",
    )
]


@pytest.mark.parametrize("sliver", SLIVERS)
def test_a_sliver_is_clipped_beside_whole_shapes(sliver: shapely.Geometry) -> None:
    assert sliver.is_valid
    with pytest.raises(GEOSException):
        shapely.clip_by_rect(sliver, *RECT)
    squares = [shapely.box(n / 10, 0, n / 10 + 0.3, 1) for n in range(9)]
    mixed = np.array([*squares[:4], sliver, *squares[4:]], dtype=object)
    clipped = clip_by_rect(mixed, *RECT)
    expected = shapely.intersection(mixed, shapely.box(*RECT))
    assert len(clipped) == 10
    assert np.allclose(shapely.area(clipped), shapely.area(expected), atol=1e-15)
    assert shapely.covers(shapely.box(*RECT).buffer(1e-12), clipped[4])


def test_a_sliver_does_not_become_the_whole_rectangle() -> None:
    dice = np.random.default_rng(0)
    found = 0
    for _ in range(400):
        along = np.sort(dice.uniform(-1, 1, (20, 4, 1)), axis=1) * dice.uniform(-1, 1, (20, 1, 2))
        points = along + dice.normal(size=(20, 4, 2)) * 1e-17 + dice.uniform(-0.6, 0.6, 2)
        for polygon in map(shapely.Polygon, points):
            try:
                wrong = polygon.is_valid and shapely.clip_by_rect(polygon, *RECT).area > 0.5
            except GEOSException:
                continue
            if wrong:
                found += 1
                assert clip_by_rect(np.array([polygon], dtype=object), *RECT)[0].area < 1e-9
    assert found, "GEOS has been mended: then this module can go"


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 2**32 - 1), st.integers(-17, 0))
def test_any_polygons_are_clipped_as_their_intersection(seed: int, thinness: int) -> None:
    dice = np.random.default_rng(seed)
    along = np.sort(dice.uniform(-1, 1, (20, 4, 1)), axis=1) * dice.uniform(-1, 1, (20, 1, 2))
    points = along + dice.normal(size=(20, 4, 2)) * 10.0**thinness + dice.uniform(-0.6, 0.6, 2)
    polygons = np.array([p for p in map(shapely.Polygon, points) if p.is_valid], dtype=object)
    clipped = clip_by_rect(polygons, *RECT)
    expected = shapely.intersection(polygons, shapely.box(*RECT))
    assert np.allclose(shapely.area(clipped), shapely.area(expected), rtol=1e-6, atol=1e-12)
    assert len(clipped) == len(polygons)
