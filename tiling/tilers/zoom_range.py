"""Which zooms a layer deserves, from the size and the density of what is in it."""

from __future__ import annotations

import math

from tiling.formats.mvt import EXTENT
from tiling.tilers.simplify import WORLD_M
from tiling.tilers.vector_features import Summary

LOWEST, DETAILED, HIGHEST, POINTS = 4, 12, 16, 14
# At full detail a typical segment is at least this many tile units long, so that rounding bends
# no corner; at the lowest zoom a large feature (90th percentile) is this part of a tile, 4 px.
_SEGMENT_QUANTA = 64
_VISIBLE_PART = 1 / 128
_POINTS_A_TILE = 2000


def default_zooms(summary: Summary) -> tuple[int, int]:
    """Return the lowest zoom and the zoom of full detail.

    Divisions come out at about 4 to 12, roads at 8 to 15, buildings at 13 to 16.
    """
    if summary.points == summary.features:
        return _point_zooms(summary)
    high = DETAILED
    segment = summary.segment_m[50]
    if segment > 0:
        high = math.ceil(math.log2(_SEGMENT_QUANTA * WORLD_M / (segment * EXTENT)))
    high = min(max(high, DETAILED), HIGHEST)
    return min(_first_visible(summary.size_m[90]), high), high


def _first_visible(size_m: float) -> int:
    if size_m <= 0:
        return LOWEST
    return max(LOWEST, math.floor(math.log2(_VISIBLE_PART * WORLD_M / size_m)))


def _point_zooms(summary: Summary) -> tuple[int, int]:
    # The first level at which no cell is overcrowded.
    for level, most in enumerate(summary.crowd):
        if most <= _POINTS_A_TILE:
            return min(max(level, LOWEST), POINTS), POINTS
    return POINTS, POINTS
