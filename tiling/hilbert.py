"""Hilbert curve positions of quadtree cells, arrays at a time.

The curve is the one of PMTiles: it starts at cell (0, 0), ends at (2**level - 1, 0), and cells
near each other on it are near each other on the ground. The loop runs over the levels, never over
the cells. Formula: the classic rotate-and-flip recurrence (Hilbert 1891; Warren, Hacker's Delight,
ch. 16).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

MAX_LEVEL = 31


def hilbert2(x: ArrayLike, y: ArrayLike, level: int) -> NDArray[np.uint64]:
    """Return the position of cells along the curve.

    Args:
        x, y: (N,) integers in 0 .. 2**level - 1.
        level: bits of each coordinate, at most 31.

    Returns:
        (N,) uint64 in 0 .. 4**level - 1.
    """
    xs = np.array(x, dtype=np.int64, ndmin=1)
    ys = np.array(y, dtype=np.int64, ndmin=1)
    position = np.zeros(xs.shape, dtype=np.int64)
    for bit in range(level - 1, -1, -1):
        side = 1 << bit
        rx = (xs >> bit) & 1
        ry = (ys >> bit) & 1
        position += ((3 * rx) ^ ry) << (2 * bit)
        xs, ys = _turn(xs & (side - 1), ys & (side - 1), rx, ry, side)
    return position.astype(np.uint64)


def unhilbert2(position: ArrayLike, level: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the cells, two (N,) int64 arrays, at (N,) positions along the curve."""
    rest = np.array(position, dtype=np.uint64, ndmin=1).astype(np.int64)
    xs = np.zeros(rest.shape, dtype=np.int64)
    ys = np.zeros(rest.shape, dtype=np.int64)
    for bit in range(level):
        side = 1 << bit
        quadrant = (rest >> (2 * bit)) & 3
        rx = quadrant >> 1
        ry = (quadrant ^ rx) & 1
        xs, ys = _turn(xs, ys, rx, ry, side)
        xs += rx << bit
        ys += ry << bit
    return xs, ys


def _turn(
    x: NDArray[np.int64],
    y: NDArray[np.int64],
    rx: NDArray[np.int64],
    ry: NDArray[np.int64],
    side: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    low = ry == 0
    flip = low & (rx == 1)
    fx = np.where(flip, side - 1 - x, x)
    fy = np.where(flip, side - 1 - y, y)
    return np.where(low, fy, fx), np.where(low, fx, fy)
