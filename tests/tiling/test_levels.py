"""Every building gets one level; the biggest are seen from farthest; budgets hold."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tiling.bounds import Region
from tiling.coords import TileCoord
from tiling.tilers.levels import Budget, Candidates, assign_levels
from tiling.tilers.quadtree import (
    DEEPEST_LEVEL,
    ROOT_LEVEL,
    cell_mortons,
    cell_region,
    content_key,
    tile_keys,
    tile_of,
)


def city(n: int, seed: int, spread_deg: float = 0.3) -> Candidates:
    rng = np.random.default_rng(seed)
    lon, lat = 113 + rng.random(n) * spread_deg, 31 + rng.random(n) * spread_deg
    return Candidates(
        cell_mortons(lon, lat, DEEPEST_LEVEL),
        rng.permutation(n).astype(np.int64),
        np.round(rng.lognormal(7, 2, n), 1),
        rng.integers(20, 60, n),
    )


@given(st.integers(1, 800), st.integers(0, 2**32 - 1), st.integers(1, 50), st.integers(8, 15))
def test_no_cell_above_the_deepest_exceeds_its_budget(
    n: int, seed: int, features: int, max_level: int
) -> None:
    buildings = city(n, seed)
    budget = Budget(features, 40 * features)
    level = assign_levels(buildings, budget, ROOT_LEVEL, max_level)
    keys, index, counts = np.unique(
        tile_keys(buildings.deepest, level), return_inverse=True, return_counts=True
    )
    vertices = np.bincount(index, buildings.vertices)
    above = (keys & np.uint64(31)) < max_level
    assert (counts[above] <= 1.5 * features).all()
    assert ((vertices[above] <= 1.5 * budget.vertices) | (counts[above] == 1)).all()
    assert level.min() >= ROOT_LEVEL and level.max() <= max_level


@given(st.integers(2, 500), st.integers(0, 2**32 - 1))
def test_what_an_ancestor_shows_is_never_smaller_than_what_it_hands_down(n: int, seed: int) -> None:
    buildings = city(n, seed)
    level = assign_levels(buildings, Budget(20, 10**9), ROOT_LEVEL, 14)
    for here in range(ROOT_LEVEL, 14):
        shift = np.uint64(2 * (DEEPEST_LEVEL - here))
        for cell in np.unique(buildings.deepest[level == here] >> shift):
            inside = buildings.deepest >> shift == cell
            shown = buildings.volume[inside & (level == here)]
            deeper = buildings.volume[inside & (level > here)]
            assert not len(deeper) or shown.min() >= deeper.max()


@given(st.integers(1, 300), st.integers(0, 2**32 - 1))
def test_the_order_of_the_input_is_irrelevant(n: int, seed: int) -> None:
    buildings = city(n, seed)._replace(volume=np.repeat(np.arange(-(-n // 7)), 7)[:n] * 1.0)
    budget = Budget(5, 300)
    level = assign_levels(buildings, budget, ROOT_LEVEL, 16)
    order = np.random.default_rng(seed).permutation(n)
    np.testing.assert_array_equal(
        assign_levels(buildings.take(order), budget, ROOT_LEVEL, 16), level[order]
    )


@given(
    st.floats(-180, 180, exclude_max=True),
    st.floats(-90, 90, exclude_max=True),
    st.integers(ROOT_LEVEL, DEEPEST_LEVEL),
)
def test_a_key_leads_back_to_the_cell_that_holds_the_place(
    lon: float, lat: float, level: int
) -> None:
    deepest = cell_mortons(np.array([lon]), np.array([lat]), DEEPEST_LEVEL)
    cell = tile_of(int(tile_keys(deepest, np.array([level], dtype=np.uint8))[0]))
    region = cell_region(cell)
    assert cell.level == level
    # Next to an edge a position can round onto it.
    assert region.contains(Region(lon, lat, lon, lat), slack_deg=1e-12)


def test_parents_sort_before_children_and_paths_depend_on_the_cell_alone() -> None:
    deepest = cell_mortons(np.full(3, 113.4), np.full(3, 31.7), DEEPEST_LEVEL)
    keys = tile_keys(deepest, np.array([8, 9, 14], dtype=np.uint8))
    assert (np.diff(keys.astype(np.int64)) > 0).all()
    # 180 / 2**8 = 0.703125 degrees: x = floor(293.4 / 0.703125), y = floor(121.7 / 0.703125).
    assert content_key(tile_of(int(keys[0]))) == "content/8/417/173/0/0/0.glb"
    assert content_key(TileCoord(9, 835, 346)) == "content/8/417/173/1/1/0.glb"
