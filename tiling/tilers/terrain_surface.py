"""The surface of one terrain level as integers: data, what is filled beside it, and the sea.

The one idea: the height of a node is a pure function of its place and of the distance of nodes, so
whoever computes it, for whatever tile, gets the same integer. Row 0 is the southernmost.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tiling.batches import Lattice, TerrainSource
from tiling.errors import TilingError
from tiling.formats.quantized_mesh import QUANTA
from tiling.geoid_grid import bundled_egm96
from tiling.kernels import njit
from tiling.tilers.terrain_rtin import SUB

# Rings of nodes beside data that take the mean of their neighbours, so that no cell that holds
# data falls off a cliff.
FILL_RINGS = 2
_STRIP_NODES = 1 << 18

Array = NDArray[np.float64]


class Window(NamedTuple):
    """A rectangle of nodes of a globe of them.

    Attributes:
        level, cells: nodes lie 180 / 2**level / cells degrees apart.
        x0, y0: the first node, counted from the grid's south-west corner; the window may reach
            over the antimeridian (longitudes repeat) and over a pole (the pole's row repeats).
        columns, rows: numbers of nodes.
    """

    level: int
    cells: int
    x0: int
    y0: int
    columns: int
    rows: int


def sample(
    source: TerrainSource, window: Window, halo: int, low: float, high: float
) -> tuple[NDArray[np.int32], int]:
    """Return the heights of nodes as integers, `SUB` to a quantum.

    Args:
        source: ellipsoidal heights.
        window: the nodes.
        halo: width of the rim whose heights may leave the range; they are brought into it.
        low, high: ellipsoidal metres of 0 and `QUANTA` quanta.

    Returns:
        (rows, columns) int32 and the number of nodes without data inside the halo.

    Raises:
        TilingError: a height inside the halo lies outside the range.
    """
    fine = np.empty((window.rows, window.columns), dtype=np.int32)
    scale = QUANTA * SUB / (high - low)
    strip = max(8, _STRIP_NODES // window.columns)
    voids = 0
    for start in range(0, window.rows, strip):
        stop = min(start + strip, window.rows)
        heights, void = _strip(source, window, start, stop)
        first, last = max(halo - start, 0), max(min(stop, window.rows - halo) - start, 0)
        least, greatest = in_steps(heights, low, scale, first, last, halo, fine[start:stop])
        if least < 0 or greatest > QUANTA * SUB:
            raise TilingError(
                f"level {window.level}: heights {low + least / scale:.3f} .. "
                f"{low + greatest / scale:.3f} m leave the range {low} .. {high} m that was "
                "declared for them"
            )
        if void is not None:
            voids += int(void[first:last, halo : window.columns - halo].sum())
    return fine, voids


@njit(cache=True)
def in_steps(
    heights: Array,
    low: float,
    scale: float,
    first: int,
    last: int,
    halo: int,
    out: NDArray[np.int32],
) -> tuple[float, float]:
    """Write heights as integers, brought into their range.

    Args:
        heights: (rows, columns) float64 metres.
        low: the height of 0.
        scale: steps to a metre.
        first, last: the rows from `first` to before `last` lie inside the halo.
        halo: columns of it to either side.
        out: (rows, columns) int32 receives 0 .. QUANTA * SUB.

    Returns:
        the least and the greatest step inside the halo; 0 and 0 if there is none.
    """
    top = float(QUANTA * SUB)
    rows, columns = heights.shape
    least, greatest = math.inf, -math.inf
    for j in range(rows):
        inside = first <= j < last
        for i in range(columns):
            step = np.rint((heights[j, i] - low) * scale)
            if inside and halo <= i < columns - halo:
                least, greatest = min(least, step), max(greatest, step)
            out[j, i] = np.int32(min(max(step, 0.0), top))
    return (0.0, 0.0) if least > greatest else (least, greatest)


def _strip(
    source: TerrainSource, window: Window, start: int, stop: int
) -> tuple[Array, NDArray[np.bool_] | None]:
    """Return the heights of some rows of a window, voids filled, and which were void, if any."""
    step = 180 / 2**window.level / window.cells
    around, top = 2 * window.cells << window.level, window.cells << window.level
    rings = FILL_RINGS
    # There is nothing beyond a pole: its row stands for what would lie there.
    rows = np.clip(np.arange(start - rings, stop + rings) + window.y0, 0, top)
    first, last = int(rows[0]), int(rows[-1])
    columns = (np.arange(-rings, window.columns + rings) + window.x0) % around
    # The antimeridian has one name, -180: a window over it is asked for in several pieces.
    cuts = [0, *(np.flatnonzero(np.diff(columns) < 0) + 1).tolist(), len(columns)]
    parts = []
    for begin, end in itertools.pairwise(cuts):
        west = -180 + int(columns[begin]) * step
        lattice = Lattice(west, -90 + first * step, step, end - begin, last - first + 1)
        parts.append(source.heights(lattice))
    heights = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
    if len(rows) != len(heights):
        heights = heights[rows - first]
    inside = np.s_[rings:-rings, rings:-rings]
    # A sum is NaN when one of its parts is.
    if not math.isnan(heights.sum()):
        return heights[inside], None
    void = np.isnan(heights)
    heights = np.array(heights)
    fill_voids(heights, -180 + columns * step, -90 + rows * step)
    return heights[inside], void[inside]


def fill_voids(heights: Array, lon: Array, lat: Array) -> None:
    """Fill voids in place: beside data by the neighbours' height above the sea, else the sea.

    Counted above the sea, the mean of a flat sea is the sea, however the geoid slopes.

    Args:
        heights: (rows, columns) float64 metres; NaN is void.
        lon, lat: degrees of the columns and of the rows.
    """
    grid = bundled_egm96()
    _fill(heights, lon, lat, grid.values, grid.west_deg, grid.south_deg, grid.step_lon_deg)


@njit(cache=True)
def _axis(places, first, step, most):  # type: ignore[no-untyped-def]
    """Return the node before each place, at most a last one, and how far beyond it places lie."""
    cells, shares = np.empty(len(places), dtype=np.int64), np.empty(len(places))
    for k in range(len(places)):
        cell = min(math.floor((places[k] - first) / step), most)
        cells[k], shares[k] = cell, (places[k] - first) / step - cell
    return cells, shares


@njit(cache=True)
def _sea(values, j, k, fx, i, fy):  # type: ignore[no-untyped-def]
    """Return the geoid between columns j and k of the grid and above its row i; see `GeoidGrid`."""
    below = values[i, j] * (1 - fx) + values[i, k] * fx
    above = values[i + 1, j] * (1 - fx) + values[i + 1, k] * fx
    return below * (1 - fy) + above * fy


@njit(cache=True)
def _fill(heights, lon, lat, values, west, south, step):  # type: ignore[no-untyped-def]
    rows, columns = heights.shape
    around = values.shape[1]
    # The grid goes around the globe.
    js, fxs = _axis(lon, west, step, 2 * around)
    js %= around
    ks = (js + 1) % around
    ys, fys = _axis(lat, south, step, len(values) - 2)
    # 0 void, 1 data, 2 and more: the ring in which it was filled.
    known = np.zeros((rows, columns), dtype=np.uint8)
    for j in range(rows):
        for i in range(columns):
            known[j, i] = not math.isnan(heights[j, i])
    near = np.zeros(columns + 2, dtype=np.int64)
    for ring in range(2, FILL_RINGS + 2):
        for j in range(rows):
            # Most voids lie far from data: of each column, what is known in three rows.
            near[1:-1] = known[j]
            if j:
                near[1:-1] += known[j - 1]
            if j + 1 < rows:
                near[1:-1] += known[j + 1]
            for i in range(columns):
                if known[j, i] or near[i] + near[i + 1] + near[i + 2] == 0:
                    continue
                total, count = 0.0, 0
                for b in range(max(j - 1, 0), min(j + 2, rows)):
                    for a in range(max(i - 1, 0), min(i + 2, columns)):
                        if known[b, a] and known[b, a] < ring:
                            sea = _sea(values, js[a], ks[a], fxs[a], ys[b], fys[b])
                            total += heights[b, a] - sea
                            count += 1
                if count:
                    own = _sea(values, js[i], ks[i], fxs[i], ys[j], fys[j])
                    heights[j, i] = own + total / count
                    known[j, i] = ring
    for j in range(rows):
        for i in range(columns):
            if not known[j, i]:
                heights[j, i] = _sea(values, js[i], ks[i], fxs[i], ys[j], fys[j])
