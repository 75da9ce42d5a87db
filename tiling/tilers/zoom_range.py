"""Which zooms a layer deserves, from the size and the density of what is in it."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tiling.formats.mvt import EXTENT
from tiling.tilers.simplify import WORLD_M

LOWEST, DETAILED, HIGHEST, POINTS = 4, 12, 16, 14
# At full detail a typical segment is at least this many tile units long, so that rounding bends
# no corner; at the lowest zoom a large feature (90th percentile) is this part of a tile, 4 px.
_SEGMENT_QUANTA = 64
_VISIBLE_PART = 1 / 128
_POINTS_A_TILE = 2000
_QUANTILES = np.linspace(0.0, 1.0, 101)


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


def quantiles(values: NDArray[np.float64]) -> list[float]:
    """Return the 101 quantiles of what is a number among (N,) values; none if nothing is."""
    values = values[~np.isnan(values)]
    return [] if not len(values) else [float(v) for v in np.quantile(values, _QUANTILES)]


def crowding(
    keys: NDArray[np.uint64], counts: NDArray[np.int64], key_level: int
) -> tuple[list[int], list[int]]:
    """Return, per level 0 .. `key_level`, the most features and coordinates in one cell.

    Args:
        keys: (N,) Morton indices of the features' places at `key_level`.
        counts: (N,) coordinates of the features.
        key_level: of the keys.
    """
    crowd, mass = [], []
    for level in range(key_level + 1):
        _, cell = np.unique(keys >> np.uint64(2 * (key_level - level)), return_inverse=True)
        crowd.append(int(np.bincount(cell).max()))
        mass.append(int(np.bincount(cell, weights=counts).max()))
    return crowd, mass
