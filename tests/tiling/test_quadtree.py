"""The tree of tiles: volumes, counts, subtrees, and how the work is cut."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tiling.coords import TileCoord
from tiling.formats.subtree import decode_subtree, encode_subtree
from tiling.tilers.buildings import plan_units
from tiling.tilers.quadtree import (
    DEEPEST_LEVEL,
    ROOT_LEVEL,
    SUBTREE_LEVELS,
    ContentTile,
    cell_mortons,
    cell_of,
    cell_region,
    content_key,
    grow,
    subtrees,
    tiles_of,
)


def tiles(seed: int, count: int) -> list[ContentTile]:
    """Return tiles with content, and their ancestors with content, at random places."""
    rng = np.random.default_rng(seed)
    leaves = {
        TileCoord(level, int(x) >> (17 - level), int(y) >> (17 - level))
        for level, x, y in zip(
            rng.integers(14, 18, count).tolist(),
            (213_000 + rng.integers(0, 900, count)).tolist(),
            (88_000 + rng.integers(0, 900, count)).tolist(),
            strict=True,
        )
    }
    cells = set(leaves)
    for leaf in leaves:
        cell = leaf
        while cell.level > ROOT_LEVEL:
            cell = cell.parent()
            cells.add(cell)
    leaves = {cell for cell in cells if not any(child in cells for child in cell.children())}
    counts: dict[TileCoord, int] = dict.fromkeys(cells, 0)
    for leaf in leaves:
        features = int(rng.integers(1, 50))
        cell = leaf
        counts[cell] += features
        while cell.level > ROOT_LEVEL:
            cell = cell.parent()
            counts[cell] += features
    found = []
    for cell in sorted(cells):
        region = cell_region(cell)
        low = float(rng.uniform(0, 30))
        corners = np.radians(region[:4]).tolist()
        found.append(ContentTile(cell, (*corners, low, low + 20.0), counts[cell]))
    return found


@given(seed=st.integers(0, 1000), count=st.integers(1, 60))
@settings(max_examples=25, deadline=None)
def test_volumes_hold_their_children_and_counts_add_up(seed: int, count: int) -> None:
    levels = grow(tiles(seed, count))
    for above, below in zip(levels[:-1], levels[1:], strict=True):
        parent = np.searchsorted(above.mortons, below.mortons >> np.uint64(2))
        assert (above.mortons[parent] == below.mortons >> np.uint64(2)).all()
        assert (above.regions[parent][:, [0, 1, 4]] <= below.regions[:, [0, 1, 4]]).all()
        assert (above.regions[parent][:, [2, 3, 5]] >= below.regions[:, [2, 3, 5]]).all()
        sums = np.bincount(parent, weights=below.features, minlength=len(above.mortons))
        has_children = np.bincount(parent, minlength=len(above.mortons)) > 0
        assert (sums[has_children] == above.features[has_children]).all()


@given(seed=st.integers(0, 1000), count=st.integers(1, 60))
@settings(max_examples=25, deadline=None)
def test_a_tree_read_from_its_subtrees_grows_into_itself(seed: int, count: int) -> None:
    levels = grow(tiles(seed, count))
    read = []
    for root, subtree in subtrees(levels):
        read.extend(tiles_of(root, decode_subtree(encode_subtree(subtree), SUBTREE_LEVELS)))
    again = grow(read)
    assert len(again) == len(levels)
    for one, other in zip(levels, again, strict=True):
        assert np.array_equal(one.mortons, other.mortons)
        assert np.array_equal(one.contents, other.contents)
        assert np.array_equal(one.regions, other.regions)
        assert np.array_equal(one.features, other.features)


@given(
    seed=st.integers(0, 1000),
    n=st.integers(1, 3000),
    spread=st.sampled_from([1e-4, 0.01, 0.5, 3.0]),
    max_rows=st.integers(1, 400),
)
@settings(max_examples=30, deadline=None)
def test_units_are_disjoint_hold_everything_and_fit(
    seed: int, n: int, spread: float, max_rows: int
) -> None:
    rng = np.random.default_rng(seed)
    lon, lat = 113.0 + spread * rng.random(n), 31.0 + spread * rng.random(n)
    keys = np.sort(cell_mortons(lon, lat, DEEPEST_LEVEL))
    held = 0
    last = 0
    for cell in plan_units(keys, max_rows):
        below = np.uint64(2 * (DEEPEST_LEVEL - cell.level))
        low = np.uint64(cell.morton()) << below
        high = np.uint64(cell.morton() + 1) << below
        assert low >= last
        last = high
        rows = int(((keys >= low) & (keys < high)).sum())
        assert 0 < rows <= max_rows or cell.level == DEEPEST_LEVEL
        held += rows
    assert held == n


@given(
    lon=st.floats(-180, 180, exclude_max=True), lat=st.floats(-90, 89.99), level=st.integers(0, 20)
)
def test_a_cell_holds_the_places_that_lead_to_it(lon: float, lat: float, level: int) -> None:
    morton = cell_mortons(np.array([lon]), np.array([lat]), level)
    region = cell_region(cell_of(int(morton[0]), level))
    # Places a rounding error off a border may fall on its other side.
    assert region.west - 1e-9 <= lon <= region.east + 1e-9
    assert region.south - 1e-9 <= lat <= region.north + 1e-9


def test_paths_depend_on_the_cell_alone() -> None:
    cell = TileCoord(ROOT_LEVEL, 417, 173)
    assert content_key(cell) == "content/8/417/173/0/0/0.glb"
    assert content_key(TileCoord(10, 4 * 417 + 3, 4 * 173 + 1)) == "content/8/417/173/2/3/1.glb"
