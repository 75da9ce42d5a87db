"""Which terrain tiles exist: the cells of the TMS geographic grid that data overlaps.

The one idea: existence is a pure function of where data is, so the workers, the availability in
``layer.json`` and the dry run all ask here and cannot disagree. A cell that overlaps an area has
a parent that does, so the tree has no gaps. Rows count from the south.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tiling.bounds import Region
from tiling.coords import TileCoord
from tiling.formats import layer_json


class Cells(NamedTuple):
    """Which tiles of a level exist inside a rectangle of tiles.

    Attributes:
        x0, y0: the rectangle's first column and (southernmost) row.
        mask: (rows, columns) bool.
    """

    x0: int
    y0: int
    mask: NDArray[np.bool_]


def existing(areas: Sequence[Region], level: int, within: TileCoord | None = None) -> Cells:
    """Say which tiles of a level exist: both roots, and every cell that an area overlaps.

    Args:
        areas: where data is, degrees.
        level: the level asked about.
        within: only the descendants of this tile.
    """
    spans = [_span(area, level) for area in areas] if level else [(0, 0, 2, 1)]
    x0, y0 = min(s[0] for s in spans), min(s[1] for s in spans)
    x1, y1 = max(s[2] for s in spans), max(s[3] for s in spans)
    if within is not None:
        shift = level - within.level
        x0, y0 = max(x0, within.x << shift), max(y0, within.y << shift)
        x1, y1 = min(x1, (within.x + 1) << shift), min(y1, (within.y + 1) << shift)
    mask = np.zeros((max(0, y1 - y0), max(0, x1 - x0)), dtype=bool)
    for a, b, c, d in spans:
        mask[max(b - y0, 0) : max(d - y0, 0), max(a - x0, 0) : max(c - x0, 0)] = True
    return Cells(x0, y0, mask)


def _span(area: Region, level: int) -> tuple[int, int, int, int]:
    # Half-open ranges of columns and rows; an area that only touches a cell's edge is not in it.
    rows = 2**level
    scale = rows / 180
    x0 = min(max(math.floor((area.west + 180) * scale), 0), 2 * rows - 1)
    y0 = min(max(math.floor((area.south + 90) * scale), 0), rows - 1)
    x1 = min(max(math.ceil((area.east + 180) * scale), x0 + 1), 2 * rows)
    y1 = min(max(math.ceil((area.north + 90) * scale), y0 + 1), rows)
    return x0, y0, x1, y1


def overlaps(areas: Sequence[Region], regions: Sequence[Region], level: int) -> tuple[Region, ...]:
    """Return what areas have in common with the tiles of a level that regions overlap.

    Below the areas that are returned exist those tiles, of this level and deeper ones, that exist
    below `areas` and lie in such a tile.
    """
    size = 180 / 2**level
    found = []
    for region in regions:
        x0, y0, x1, y1 = _span(region, level)
        west, south, east, north = x0 * size - 180, y0 * size - 90, x1 * size - 180, y1 * size - 90
        for area in areas:
            box = (
                max(area.west, west),
                max(area.south, south),
                min(area.east, east),
                min(area.north, north),
            )
            if box[0] < box[2] and box[1] < box[3]:
                found.append(Region(*box, area.min_height_m, area.max_height_m))
    return tuple(found)


def available_levels(
    areas: Sequence[Region], levels: Sequence[int]
) -> list[list[layer_json.Rectangle]]:
    """Return ``available`` of ``layer.json``: per level, from level 0, rectangles of its tiles.

    Args:
        areas: where data is, degrees.
        levels: rising; the others have no tiles.
    """
    available: list[list[layer_json.Rectangle]] = [[] for _ in range(levels[-1] + 1)]
    for level in levels:
        found = existing(areas, level)
        available[level] = layer_json.rectangles(found.mask, found.x0, found.y0)
    return available
