"""Rasters of points against sums made point by point."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiling.batches import PointBatch
from tiling.crs import SpatialRef
from tiling.errors import TilingError
from tiling.tilers.point_rasters import (
    CellFile,
    CellGrid,
    PointRule,
    joined_classes,
    reduce_points,
)

REF = SpatialRef.parse("EPSG:4547+5737")


def cloud(seed: int, count: int) -> PointBatch:
    rng = np.random.default_rng(seed)
    xyz = np.stack(
        [
            rng.uniform(-30, 20, count),
            rng.uniform(-7, 40, count),
            np.round(rng.normal(-3, 40, count), 3),
        ],
        axis=1,
    )
    columns = {
        "classification": rng.choice([0, 2, 5, 6, 7, 18], count).astype(np.uint8),
        "return_number": rng.integers(1, 4, count).astype(np.uint8),
        "withheld": (rng.random(count) < 0.05).astype(np.uint8),
    }
    return PointBatch(REF, 0, xyz, columns)


@given(st.integers(0, 2**32), st.integers(1, 300), st.sampled_from([0.5, 1.0, 7.0]))
@settings(max_examples=30, deadline=None)
def test_cells_hold_what_lies_in_them_however_the_points_are_cut(
    tmp_path_factory: pytest.TempPathFactory, seed: int, count: int, cell: float
) -> None:
    points, rule = cloud(seed, count), PointRule()
    low, high = points.xyz.min(axis=0), points.xyz.max(axis=0)
    grid = CellGrid.over((low[0], low[1], high[0], high[1]), cell)
    cuts = np.random.default_rng(seed).permutation(count)
    pieces = [points.take(np.sort(part)) for part in np.array_split(cuts, 3) if len(part)]
    ground = CellFile(grid, tmp_path_factory.mktemp("ground"), ("points", "sum_mm"))
    surface = CellFile(grid, tmp_path_factory.mktemp("surface"), ("top_mm",))
    classes: dict[int, tuple[int, float, float]] = {}
    left_out = 0
    for piece in pieces:
        reduced = reduce_points(piece, grid, rule)
        ground.add(reduced.ground)
        surface.add(reduced.surface)
        classes = joined_classes(classes, reduced.classes)
        left_out += reduced.left_out

    held: dict[tuple[int, int], list[float]] = {}
    tops: dict[tuple[int, int], float] = {}
    kinds = points.columns["classification"]
    ignored = np.isin(kinds, (7, 18)) | (points.columns["withheld"] == 1)
    for n, (x, y, z) in enumerate(points.xyz.tolist()):
        # The north edge of the grid is a multiple of the cell, so rows count down from it.
        place = (
            round(grid.north / cell) - 1 - math.floor(y / cell),
            math.floor(x / cell) - round(grid.west / cell),
        )
        if ignored[n]:
            continue
        if kinds[n] == 2:
            held.setdefault(place, []).append(z)
        if points.columns["return_number"][n] == 1:
            tops[place] = max(tops.get(place, -math.inf), z)
    every = (slice(0, grid.rows), slice(0, grid.columns))
    mean, top = ground.mean_m(*every), surface.top_m(*every)
    expected = np.full((grid.rows, grid.columns), np.nan)
    for place, heights in held.items():
        expected[place] = sum(heights) / len(heights)
    np.testing.assert_allclose(mean, expected, atol=1e-5)
    expected = np.full((grid.rows, grid.columns), np.nan)
    for place, height in tops.items():
        expected[place] = height
    np.testing.assert_allclose(top, expected, atol=1e-5)
    assert {kind: facts[0] for kind, facts in classes.items()} == {
        int(kind): int((kinds == kind).sum()) for kind in np.unique(kinds)
    }
    assert left_out == int(ignored.sum())


def test_rasters_of_neighbouring_clouds_share_their_cells() -> None:
    a = CellGrid.over((500_000.3, 3_000_000.1, 500_010.2, 3_000_009.9), 0.5)
    b = CellGrid.over((500_010.3, 3_000_000.4, 500_020.2, 3_000_009.9), 0.5)
    assert (b.west - a.west) / 0.5 == round((b.west - a.west) / 0.5)
    assert a.north == b.north


def test_a_raster_too_large_to_hold_is_refused() -> None:
    with pytest.raises(TilingError, match="choose larger ones"):
        CellGrid.over((0, 0, 1e6, 1e6), 0.1)
