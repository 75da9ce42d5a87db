"""Walls and roofs that lie in one plane: which of them gives way.

Building parts share walls with the building they belong to, footprints come twice. Where two such
faces look the same way a renderer cannot tell which is in front, and they flicker. Of two the one
of the smaller volume moves inwards by `STEP` quanta, a wall sideways and a roof down: more than
rounding can have moved either. Of a stack each moves behind the one before.

Walls back to back stay: only one of them faces the viewer.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tiling.kernels import njit

STEP = 2

# Behind three others nothing is seen.
_DEEPEST = 3
# Walls nearer to each other than this (quanta, along all they share) are in one plane: rounding
# moves each by 0.71 at most.
_NEAR = 1.5
# What they share must be longer than this.
_SHARED = 2.0
# Cells on a side of the raster in which neighbours are looked up; how often a box may be in it.
_RASTER = 512
_CROWDED = 8


class Insets(NamedTuple):
    """How far to move what gives way, in quanta.

    Attributes:
        inwards: (P, 2) float64, to add to foot and roof of each point.
        down: (P,) float64, to take off the roof of each point.
        faces: how many walls and roofs move.
    """

    inwards: NDArray[np.float64]
    down: NDArray[np.float64]
    faces: int


def insets(
    low: NDArray[np.int64],
    high: NDArray[np.int64],
    ring_start: NDArray[np.int64],
    polygon_start: NDArray[np.int64],
) -> Insets:
    """Return what has to move so that no two faces are coplanar.

    Args:
        low, high: (P, 3) int64, grid positions of the foot and the roof of each point.
        ring_start, polygon_start: as in `tiling.tilers.outlines.Outlines`.
    """
    if not len(low):
        return Insets(np.zeros((0, 2)), np.zeros(0), 0)
    rank, boxes, polygon = _ranked(low, high, ring_start, polygon_start)
    following = _following(ring_start)
    walls = _wall_levels(low, high, following, polygon, rank, *_raster_of_edges(high, following))
    roofs = _roof_levels(high, ring_start, polygon_start, rank, boxes, *_raster_of_boxes(boxes))
    inwards = _shifts(high, ring_start, walls) if walls.any() else np.zeros((len(low), 2))
    down = STEP * roofs[polygon].astype(np.float64)
    return Insets(inwards, down, int((walls > 0).sum() + (roofs > 0).sum()))


def _following(ring_start: NDArray[np.int64]) -> NDArray[np.int64]:
    following = np.arange(1, ring_start[-1] + 1)
    filled = ring_start[1:] > ring_start[:-1]
    following[ring_start[1:][filled] - 1] = ring_start[:-1][filled]
    return following


def _ranked(
    low: NDArray[np.int64],
    high: NDArray[np.int64],
    ring_start: NDArray[np.int64],
    polygon_start: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return rank of each polygon (0: stays), boxes (Q, 4), and the polygon of each point."""
    first = ring_start[polygon_start]
    polygon = np.repeat(np.arange(len(polygon_start) - 1), np.diff(first))
    following = _following(ring_start)
    x, y = high[:, 0], high[:, 1]
    twice = np.add.reduceat(x * y[following] - x[following] * y, first[:-1])
    tall = np.maximum.reduceat(high[:, 2] - low[:, 2], first[:-1])
    rank = np.empty(len(twice), dtype=np.int64)
    rank[np.argsort(-twice * tall, kind="stable")] = np.arange(len(twice))
    boxes = np.stack(
        [
            np.minimum.reduceat(x, first[:-1]),
            np.minimum.reduceat(y, first[:-1]),
            np.maximum.reduceat(x, first[:-1]),
            np.maximum.reduceat(y, first[:-1]),
        ],
        axis=1,
    )
    return rank, boxes, polygon


def _raster_of_edges(
    high: NDArray[np.int64], following: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    ends = np.stack([high[:, :2], high[following, :2]])
    # Walls in one plane meet in some cell though rounding may have set them apart.
    return _raster_of_boxes(np.concatenate([ends.min(axis=0) - 1, ends.max(axis=0) + 1], axis=1))


def _raster_of_boxes(boxes: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where the cells of a raster begin, and the boxes that touch each."""
    corner = boxes[:, :2].min(axis=0)
    span = int((boxes[:, 2:].max(axis=0) - corner).max()) + 1
    shifted = boxes - np.tile(corner, 2)
    across = int(min(_RASTER, max(1, 2 * np.sqrt(len(boxes)))))
    # Long boxes fill many cells; in coarser ones they take no more room than the others.
    while across > 1 and _touched(shifted, span // across + 1) > _CROWDED * len(boxes):
        across //= 2
    start, members = _binned(shifted, across, span // across + 1)
    return start, members


def _touched(boxes: NDArray[np.int64], side: int) -> int:
    cells = boxes // side
    return int(((cells[:, 2] - cells[:, 0] + 1) * (cells[:, 3] - cells[:, 1] + 1)).sum())


@njit(cache=True)
def _binned(
    boxes: NDArray[np.int64], across: int, side: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    start = np.zeros(across * across + 1, dtype=np.int64)
    for b in range(len(boxes)):
        for row in range(boxes[b, 1] // side, boxes[b, 3] // side + 1):
            for column in range(boxes[b, 0] // side, boxes[b, 2] // side + 1):
                start[row * across + column + 1] += 1
    start = np.cumsum(start)
    filled = start.copy()
    members = np.empty(start[-1], dtype=np.int64)
    for b in range(len(boxes)):
        for row in range(boxes[b, 1] // side, boxes[b, 3] // side + 1):
            for column in range(boxes[b, 0] // side, boxes[b, 2] // side + 1):
                members[filled[row * across + column]] = b
                filled[row * across + column] += 1
    return start, members


@njit(cache=True)
def _wall_levels(  # type: ignore[no-untyped-def]
    low, high, following, polygon, rank, start, members
):
    """Return (P,) how many walls each wall has to stand behind."""
    pairs = np.empty((64, 2), dtype=np.int64)
    count = 0
    for cell in range(len(start) - 1):
        for m in range(start[cell], start[cell + 1]):
            i = members[m]
            for n in range(m + 1, start[cell + 1]):
                j = members[n]
                if polygon[i] == polygon[j] or not _one_plane(low, high, following, i, j):
                    continue
                if count == len(pairs):
                    longer = np.empty((2 * count, 2), dtype=np.int64)
                    for k in range(count):
                        longer[k, 0], longer[k, 1] = pairs[k, 0], pairs[k, 1]
                    pairs = longer
                behind = rank[polygon[i]] > rank[polygon[j]]
                pairs[count, 0] = i if behind else j
                pairs[count, 1] = j if behind else i
                count += 1
    level = np.zeros(len(low), dtype=np.int64)
    changed = True
    while changed:
        changed = False
        for k in range(count):
            wanted = min(level[pairs[k, 1]] + 1, _DEEPEST)
            if wanted > level[pairs[k, 0]]:
                level[pairs[k, 0]] = wanted
                changed = True
    return level


@njit(cache=True)
def _one_plane(low, high, following, i, j):  # type: ignore[no-untyped-def]
    a, b, c, d = i, following[i], j, following[j]
    ux, uy = high[b, 0] - high[a, 0], high[b, 1] - high[a, 1]
    vx, vy = high[d, 0] - high[c, 0], high[d, 1] - high[c, 1]
    if ux * vx + uy * vy <= 0:
        return False
    if min(high[a, 2], high[c, 2]) <= max(low[a, 2], low[c, 2]):
        return False
    # Along the longer of the two, whose direction rounding turned less.
    if vx * vx + vy * vy > ux * ux + uy * uy:
        a, b, c, d = c, d, a, b
        ux, uy, vx, vy = vx, vy, ux, uy
    length = np.sqrt(float(ux * ux + uy * uy))
    wx, wy = high[c, 0] - high[a, 0], high[c, 1] - high[a, 1]
    s = (wx * ux + wy * uy) / length
    t = s + (vx * ux + vy * uy) / length
    p = (ux * wy - uy * wx) / length
    q = p + (ux * vy - uy * vx) / length
    begin, end = max(0.0, s), min(length, t)
    if end - begin <= _SHARED:
        return False
    slope = (q - p) / (t - s)
    return abs(p + slope * (begin - s)) <= _NEAR and abs(p + slope * (end - s)) <= _NEAR


@njit(cache=True)
def _roof_levels(  # type: ignore[no-untyped-def]
    high, ring_start, polygon_start, rank, boxes, start, members
):
    """Return (Q,) how many roofs each roof has to lie under."""
    count = len(rank)
    level = np.zeros(count, dtype=np.int64)
    inside = np.full((count, 2), np.nan)
    changed = True
    while changed:
        changed = False
        for cell in range(len(start) - 1):
            for m in range(start[cell], start[cell + 1]):
                for n in range(m + 1, start[cell + 1]):
                    i, j = members[m], members[n]
                    if rank[i] < rank[j]:
                        i, j = j, i
                    wanted = min(level[j] + 1, _DEEPEST)
                    if wanted <= level[i]:
                        continue
                    first = ring_start[polygon_start[i]]
                    other = ring_start[polygon_start[j]]
                    if abs(high[first, 2] - high[other, 2]) > STEP:
                        continue
                    if min(boxes[i, 2], boxes[j, 2]) - max(boxes[i, 0], boxes[j, 0]) <= _SHARED:
                        continue
                    if min(boxes[i, 3], boxes[j, 3]) - max(boxes[i, 1], boxes[j, 1]) <= _SHARED:
                        continue
                    for k in (i, j):
                        if np.isnan(inside[k, 0]):
                            inside[k, 0], inside[k, 1] = _place_inside(
                                high, ring_start, polygon_start[k], polygon_start[k + 1]
                            )
                    if _covers(
                        high, ring_start, polygon_start, i, inside[j, 0], inside[j, 1]
                    ) or _covers(high, ring_start, polygon_start, j, inside[i, 0], inside[i, 1]):
                        level[i] = wanted
                        changed = True
    return level


@njit(cache=True)
def _covers(high, ring_start, polygon_start, polygon, x, y):  # type: ignore[no-untyped-def]
    """Say whether a place is inside a polygon (even-odd rule)."""
    odd = False
    for ring in range(polygon_start[polygon], polygon_start[polygon + 1]):
        begin, end = ring_start[ring], ring_start[ring + 1]
        for a in range(begin, end):
            b = a + 1 if a + 1 < end else begin
            if (high[a, 1] > y) != (high[b, 1] > y):
                part = (y - high[a, 1]) / (high[b, 1] - high[a, 1])
                if high[a, 0] + part * (high[b, 0] - high[a, 0]) > x:
                    odd = not odd
    return odd


@njit(cache=True)
def _place_inside(high, ring_start, first, last):  # type: ignore[no-untyped-def]
    """Return a place inside a polygon: the middle of its widest stretch halfway up."""
    begin, end = ring_start[first], ring_start[last]
    lowest = highest = high[begin, 1]
    for i in range(begin, end):
        lowest, highest = min(lowest, high[i, 1]), max(highest, high[i, 1])
    # Between whole numbers no corner is met.
    y = np.floor((lowest + highest) / 2.0) + 0.5
    crossings = np.empty(end - begin)
    count = 0
    for ring in range(first, last):
        for a in range(ring_start[ring], ring_start[ring + 1]):
            b = a + 1 if a + 1 < ring_start[ring + 1] else ring_start[ring]
            if (high[a, 1] > y) != (high[b, 1] > y):
                part = (y - high[a, 1]) / (high[b, 1] - high[a, 1])
                crossing = high[a, 0] + part * (high[b, 0] - high[a, 0])
                # Inserted where it belongs: there are few.
                k = count
                while k > 0 and crossings[k - 1] > crossing:
                    crossings[k] = crossings[k - 1]
                    k -= 1
                crossings[k] = crossing
                count += 1
    # A polygon without height is inside nothing.
    x, widest = -1.0, -1.0
    for k in range(0, count - 1, 2):
        if crossings[k + 1] - crossings[k] > widest:
            widest = crossings[k + 1] - crossings[k]
            x = (crossings[k] + crossings[k + 1]) / 2
    return x, y


@njit(cache=True)
def _shifts(
    high: NDArray[np.int64], ring_start: NDArray[np.int64], level: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return (P, 2) how each corner moves when the walls at its sides step inwards."""
    out = np.zeros((len(high), 2))
    for ring in range(len(ring_start) - 1):
        begin, end = ring_start[ring], ring_start[ring + 1]
        for i in range(begin, end):
            h = i - 1 if i > begin else end - 1
            j = i + 1 if i + 1 < end else begin
            if level[h] == 0 and level[i] == 0:
                continue
            before, after = float(STEP * level[h]), float(STEP * level[i])
            ax, ay = _inward(high, h, i)
            bx, by = _inward(high, i, j)
            cross = ax * by - ay * bx
            if abs(cross) > 0.3:
                # Where the two walls meet after their steps.
                out[i, 0] = (before * by - after * ay) / cross
                out[i, 1] = (after * ax - before * bx) / cross
            else:
                step = max(before, after)
                out[i, 0] = step * (ax if before > after else bx)
                out[i, 1] = step * (ay if before > after else by)
    return out


@njit(cache=True)
def _inward(high, a, b):  # type: ignore[no-untyped-def]
    dx, dy = float(high[b, 0] - high[a, 0]), float(high[b, 1] - high[a, 1])
    length = np.hypot(dx, dy)
    if length == 0.0:
        return 0.0, 0.0
    # The solid is on the left.
    return -dy / length, dx / length
