"""Low zooms: what is small is collected, what crowds is thinned, and no border of a tile shows."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from tiling.formats.mvt_geometry import LINE, POINT, POLYGON
from tiling.tilers.simplify import smallest_m
from tiling.tilers.vector_selection import Outlines, Selection, pixels_at, select

WEST_M, NORTH_M = 12_600_000.0, 3_700_000.0


def outlines(
    kind: int,
    place: np.ndarray,
    size_m: np.ndarray | float = 0.0,
    rank: np.ndarray | float = -np.inf,
    layer: int = 0,
) -> Outlines:
    n = place.shape[1]
    records = Outlines.of(
        np.zeros(n, dtype=np.uint64),
        np.arange(n),
        np.full(n, layer),
        np.full(n, kind),
        np.broadcast_to(size_m, n),
        place,
        np.broadcast_to(rank, n),
    )
    return Outlines.gathered([records])


def places(seed: int, n: int, across_m: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.array([[WEST_M], [NORTH_M]]) + rng.uniform(0, across_m, (2, n))


def at(mask: np.ndarray, zoom: int) -> np.ndarray:
    return (mask >> np.uint32(zoom)) & 1 == 1


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), zoom=st.integers(7, 12))
def test_a_city_of_small_polygons_keeps_its_area_within_each_block(seed: int, zoom: int) -> None:
    rng = np.random.default_rng(seed)
    size = rng.uniform(3, 20, 4000)
    here = places(seed, 4000, 6000.0)
    small = size < smallest_m(zoom)
    chosen = select(outlines(POLYGON, here, size), {0: (zoom, 14)})
    dust = at(chosen.dust, zoom)
    side = smallest_m(zoom) * 64
    origin = 20037508.342789244
    column, row = np.floor((here[0] + origin) / side), np.floor((origin - here[1]) / side)
    assert not dust[~small].any()
    assert (at(chosen.shown, zoom) == (dust | ~small)).all()
    # Each block is off by half a pixel at most.
    count = len(np.unique(np.stack([column, row]), axis=1).T)
    pixel = smallest_m(zoom) ** 2
    assert abs(dust.sum() * pixel - np.square(size[small]).sum()) <= count * pixel / 2


def test_what_a_block_shows_does_not_depend_on_what_lies_in_others() -> None:
    near, far = places(1, 500, 2000.0), places(2, 500, 2000.0) + 500_000.0
    alone = select(outlines(POLYGON, near, 8.0), {0: (10, 14)})
    both = select(outlines(POLYGON, np.hstack([near, far]), 8.0), {0: (10, 14)})
    assert (both.shown[:500] == alone.shown).all()
    assert (both.dust[:500] == alone.dust).all()


def test_a_pixel_is_the_one_that_holds_the_place_and_is_exactly_a_pixel() -> None:
    here = places(3, 50, 100_000.0)
    for zoom in (3, 9, 14):
        boxes = pixels_at(here, zoom)
        assert shapely.contains_xy(shapely.buffer(boxes, 1e-6), here[0], here[1]).all()
        assert shapely.area(boxes) == pytest.approx(smallest_m(zoom) ** 2, rel=1e-6)


def test_the_most_important_points_stay_and_none_that_is_shown_goes_when_zooming_in() -> None:
    here = places(4, 3000, 40_000.0)
    rank = np.random.default_rng(4).permutation(3000).astype(float)
    chosen = select(outlines(POINT, here, rank=rank), {0: (4, 14)})
    before = np.zeros(3000, dtype=bool)
    for zoom in range(4, 15):
        shown = at(chosen.shown, zoom)
        assert shown[before].all()
        assert shown.sum() + chosen.dropped["thinned"].get(str(zoom), 0) == 3000
        before = shown
    few = at(chosen.shown, 4)
    assert few.sum() < 100 and before.all()
    assert rank[few].min() > np.sort(rank)[-2 * few.sum()] - 1
    assert few[np.argmax(rank)]


def test_denser_places_show_more_points() -> None:
    dense, loose = places(5, 2000, 500.0), places(6, 60, 500.0) + np.array([[80_000.0], [0.0]])
    chosen = select(outlines(POINT, np.hstack([dense, loose])), {0: (8, 14)})
    shown = at(chosen.shown, 8)
    assert shown[:2000].sum() > shown[2000:].sum() > 0


def test_each_layer_has_its_own_zooms_and_is_whole_at_its_last() -> None:
    one = outlines(LINE, places(7, 5, 100.0), 1.0).records
    two = outlines(LINE, places(8, 5, 100.0), 1.0, layer=1).records
    two["id"] += 5
    chosen: Selection = select(Outlines.gathered([one, two]), {0: (3, 6), 1: (9, 11)})
    assert (chosen.shown[:5] == 1 << 6).all() and (chosen.shown[5:] == 1 << 11).all()
    lines = chosen.dropped["smaller_than_a_pixel"]
    assert lines == {"3": 5, "4": 5, "5": 5, "9": 5, "10": 5}


@pytest.mark.parametrize("order", [1, -1])
def test_the_order_in_which_features_come_does_not_matter(order: int) -> None:
    records = outlines(POLYGON, places(9, 400, 5000.0), 9.0).records
    parts = np.array_split(records[::order], 7)
    again = select(Outlines.gathered(list(parts)), {0: (9, 13)})
    plain = select(Outlines.gathered([records]), {0: (9, 13)})
    assert (again.shown == plain.shown).all() and again.dropped == plain.dropped
