"""Which zooms a layer deserves, from the size and the density of what is in it."""

from __future__ import annotations

import math
from typing import NamedTuple

from tiling.formats.mvt import EXTENT
from tiling.tilers.simplify import WORLD_M

LOWEST, DETAILED, HIGHEST, POINTS = 4, 12, 16, 14
# At full detail a typical segment is at least this many tile units long, so that rounding bends
# no corner; at the lowest zoom a large feature (90th percentile) is this part of a tile, 4 px.
_SEGMENT_QUANTA = 64
_VISIBLE_PART = 1 / 128
_POINTS_A_TILE = 2000


class Measure(NamedTuple):
    """What a layer's zooms follow from.

    Attributes:
        features, points: counts.
        size_m: 101 quantiles of the features' sizes, Web Mercator metres.
        segment_m: 101 quantiles of the mean segment lengths of lines and polygons, likewise.
        crowd: per level 0, 1 .. the most features in one cell.
    """

    features: int
    points: int
    size_m: list[float]
    segment_m: list[float]
    crowd: list[int]


def default_zooms(layer: Measure) -> tuple[int, int]:
    """Return the lowest zoom and the zoom of full detail.

    Divisions come out at about 4 to 12, roads at 8 to 15, buildings at 13 to 16.
    """
    if layer.points == layer.features:
        return _point_zooms(layer.crowd)
    high = DETAILED
    segment = layer.segment_m[50]
    if segment > 0:
        high = math.ceil(math.log2(_SEGMENT_QUANTA * WORLD_M / (segment * EXTENT)))
    high = min(max(high, DETAILED), HIGHEST)
    return min(_first_visible(layer.size_m[90]), high), high


def _first_visible(size_m: float) -> int:
    if size_m <= 0:
        return LOWEST
    return max(LOWEST, math.floor(math.log2(_VISIBLE_PART * WORLD_M / size_m)))


def _point_zooms(crowd: list[int]) -> tuple[int, int]:
    # The first level at which no cell is overcrowded.
    for level, most in enumerate(crowd):
        if most <= _POINTS_A_TILE:
            return min(max(level, LOWEST), POINTS), POINTS
    return POINTS, POINTS
