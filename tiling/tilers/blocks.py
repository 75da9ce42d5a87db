"""Blocks: one rectangle for many outlines, and how far it strays from them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tiling.kernels import njit
from tiling.tilers.outlines import widened

# Places on each side of a block where its distance from its members is taken.
_STEPS = 4


@njit(cache=True)
def rectangles(
    xy: NDArray[np.float64],
    start: NDArray[np.int64],
    members: NDArray[np.int64],
    area: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the block of every cluster and how far it strays from its members.

    Args:
        xy, start: N rings, metres, cluster by cluster.
        members: (C + 1,) where each cluster begins among the rings.
        area: (N,) m2 of the rings.

    Returns:
        corners: (C, 4, 2) counter-clockwise, metres.
        stray: (C,) metres, an upper bound of the Hausdorff distance between the outline of the
            block and the outlines of its members.
    """
    count = len(members) - 1
    corners = np.empty((count, 4, 2))
    stray = np.empty(count)
    for c in range(count):
        first, last = start[members[c]], start[members[c + 1]]
        # Whole millimetres make the hull exact.
        x = np.empty(last - first, dtype=np.int64)
        y = np.empty(last - first, dtype=np.int64)
        for i in range(first, last):
            x[i - first] = np.int64(np.rint(xy[i, 0] * 1e3))
            y[i - first] = np.int64(np.rint(xy[i, 1] * 1e3))
        hull = widened(x, y)
        cx, cy, ux, uy, a, b = _least_rectangle(hull)
        total = 0.0
        for n in range(members[c], members[c + 1]):
            total += area[n]
        shrink = min(1.0, np.sqrt(total / (4.0 * a * b)))
        # A millimetre at least: a block never vanishes.
        a, b = max(a * shrink, 1e-3), max(b * shrink, 1e-3)
        for k in range(4):
            s = a if k == 1 or k == 2 else -a
            t = b if k >= 2 else -b
            corners[c, k, 0] = cx + s * ux - t * uy
            corners[c, k, 1] = cy + s * uy + t * ux
        # From the members to the block: beyond it the distance is greatest at a vertex, within it
        # nothing is farther than half its breadth from the nearest side.
        farthest = min(a, b)
        for i in range(first, last):
            dx, dy = xy[i, 0] - cx, xy[i, 1] - cy
            over = max(0.0, abs(dx * ux + dy * uy) - a)
            aside = max(0.0, abs(dy * ux - dx * uy) - b)
            farthest = max(farthest, np.hypot(over, aside))
        stray[c] = max(farthest, _reach(corners[c], xy, start, members[c], members[c + 1]))
    return corners, stray


@njit(cache=True)
def _least_rectangle(hull):  # type: ignore[no-untyped-def]
    """Return centre, direction and half sides (m) of the least rectangle around a hull (mm)."""
    best = np.inf
    cx = cy = ux = uy = a = b = 0.0
    size = len(hull)
    x0, y0 = hull[0, 0], hull[0, 1]
    for k in range(size):
        j = k + 1 if k + 1 < size else 0
        dx, dy = float(hull[j, 0] - hull[k, 0]), float(hull[j, 1] - hull[k, 1])
        length = np.hypot(dx, dy)
        dx, dy = dx / length, dy / length
        left = low = np.inf
        right = high = -np.inf
        for i in range(size):
            x, y = float(hull[i, 0] - x0), float(hull[i, 1] - y0)
            s, t = x * dx + y * dy, y * dx - x * dy
            left, right = min(left, s), max(right, s)
            low, high = min(low, t), max(high, t)
        if (right - left) * (high - low) < best:
            best = (right - left) * (high - low)
            s, t = (left + right) / 2, (low + high) / 2
            cx, cy = (x0 + s * dx - t * dy) / 1e3, (y0 + s * dy + t * dx) / 1e3
            ux, uy = dx, dy
            a, b = (right - left) / 2e3, (high - low) / 2e3
    return cx, cy, ux, uy, a, b


@njit(cache=True)
def _reach(corners, xy, start, first, last):  # type: ignore[no-untyped-def]
    """Return a bound of the distance from any place of a block's outline to its members."""
    worst = 0.0
    for k in range(4):
        j = (k + 1) % 4
        side = np.hypot(corners[j, 0] - corners[k, 0], corners[j, 1] - corners[k, 1])
        for step in range(_STEPS):
            part = step / _STEPS
            x = corners[k, 0] + part * (corners[j, 0] - corners[k, 0])
            y = corners[k, 1] + part * (corners[j, 1] - corners[k, 1])
            nearest = np.inf
            for ring in range(first, last):
                for i in range(start[ring], start[ring + 1]):
                    h = i + 1 if i + 1 < start[ring + 1] else start[ring]
                    nearest = min(nearest, _squared(x, y, xy[i, 0], xy[i, 1], xy[h, 0], xy[h, 1]))
            # Between two places the distance grows by half their spacing at most.
            worst = max(worst, np.sqrt(nearest) + side / (2 * _STEPS))
    return worst


@njit(cache=True)
def _squared(x, y, ax, ay, bx, by):  # type: ignore[no-untyped-def]
    """Return the squared distance from a point to a segment."""
    dx, dy = bx - ax, by - ay
    length = dx * dx + dy * dy
    part = 0.0
    if length > 0.0:
        part = min(1.0, max(0.0, ((x - ax) * dx + (y - ay) * dy) / length))
    ex, ey = ax + part * dx - x, ay + part * dy - y
    return ex * ex + ey * ey
