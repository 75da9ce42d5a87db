"""Shapes simple enough for a compiled loop: cut, rounded and encoded, all tiles of a zoom at once.

Footprints, points and short lines are nearly all features of a city. A polygon of one ring is cut
by Sutherland and Hodgman's algorithm (1974), rounded, and proven simple by looking at every pair
of its edges; what that does not prove, and every other shape, is `HARD`: the caller gives it to
GEOS. So the loop may be strict and never has to repair.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from tiling.formats.mvt import BUFFER, EXTENT
from tiling.formats.mvt_geometry import LINE, POINT, POLYGON
from tiling.formats.ragged import RaggedBytes
from tiling.kernels import njit

# What became of a shape in a cell.
ABSENT, DRAWN, HARD = 0, 1, 2
MOST_POINTS = 64
# More cells than this are cheaper to find by halves.
_MOST_CELLS = 16
# A ring of 64 points cut by four lines: each cut can at most add half as many as there are.
_SCRATCH = 512
# A point of a tile and its buffer: two varints of two bytes each.
_POINT_NBYTES, _HEAD_NBYTES = 4, 8

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bytes = NDArray[np.uint8]
_SINGLE = np.array([0, 1, 3])  # shapely's type ids: Point, LineString, Polygon


@dataclass(frozen=True, slots=True)
class CellShapes:
    """The simple shapes of one cell.

    Attributes:
        rows: (M,) int64, ascending: which shapes.
        states: (M,) uint8: `DRAWN` or `HARD`.
        commands: M rows of geometry commands; empty for `HARD`.
    """

    rows: Ints
    states: Bytes
    commands: RaggedBytes


def are_simple(geometry: NDArray[np.object_], cells: Ints) -> NDArray[np.bool_]:
    """Say which of (N,) geometries, each over (N,) int64 cells, the loop may be given."""
    chosen: NDArray[np.bool_] = (
        np.isin(shapely.get_type_id(geometry), _SINGLE)
        & (shapely.get_num_coordinates(geometry) <= MOST_POINTS)
        & (shapely.get_num_interior_rings(geometry) == 0)
        & (cells <= _MOST_CELLS)
    )
    return chosen


def encode_cells(
    geometry: NDArray[np.object_],
    kinds: Ints,
    owner: Ints,
    west: Floats,
    north: Floats,
    scale: float,
    cells: Ints,
) -> list[CellShapes]:
    """Cut, round and encode shapes for the cells they reach.

    Args:
        geometry: (N,) simple shapes, metres.
        kinds: (N,) int64, 1 point, 2 line, 3 polygon.
        owner: (P,) int64, the shape of each pair of a shape and a cell.
        west, north: (P,) float64, the corner of the pair's cell, metres.
        scale: tile units a metre.
        cells: (C + 1,) int64, where the pairs of each cell begin and end.

    Returns:
        C cells.
    """
    xy, index = shapely.get_coordinates(geometry, return_index=True)
    starts = np.searchsorted(index, np.arange(len(geometry) + 1)).astype(np.int64)
    bound = len(owner) * _HEAD_NBYTES + _POINT_NBYTES * int(
        np.where(kinds[owner] == POLYGON, _SCRATCH, np.diff(starts)[owner]).sum()
    )
    # Most of it is never touched, so it takes no memory.
    out = np.empty(bound, dtype=np.uint8)
    lengths = np.zeros(len(owner), dtype=np.int64)
    states = np.zeros(len(owner), dtype=np.uint8)
    _encode_pairs(xy, starts, kinds, owner, west, north, scale, out, lengths, states)
    ends = np.concatenate(([0], np.cumsum(lengths)))
    found = []
    for start, stop in zip(cells[:-1].tolist(), cells[1:].tolist(), strict=True):
        here = np.flatnonzero(states[start:stop] != ABSENT) + start
        data = out[ends[start] : ends[stop]].copy()
        found.append(CellShapes(owner[here], states[here], RaggedBytes(data, lengths[here])))
    return found


@njit(cache=True)
def _encode_pairs(
    xy: Floats,
    starts: Ints,
    kinds: Ints,
    owner: Ints,
    west: Floats,
    north: Floats,
    scale: float,
    out: Bytes,
    lengths: Ints,
    states: Bytes,
) -> None:
    a = np.empty((_SCRATCH, 2), dtype=np.float64)
    b = np.empty((_SCRATCH, 2), dtype=np.float64)
    ring = np.empty((_SCRATCH, 2), dtype=np.int64)
    low, high = -float(BUFFER), float(EXTENT + BUFFER)
    at = 0
    for p in range(len(owner)):
        f = owner[p]
        kind = kinds[f]
        count = starts[f + 1] - starts[f]
        inside = True
        for i in range(count):
            a[i, 0] = (xy[starts[f] + i, 0] - west[p]) * scale
            a[i, 1] = (north[p] - xy[starts[f] + i, 1]) * scale
            if not (low <= a[i, 0] <= high and low <= a[i, 1] <= high):
                inside = False
        if kind == POLYGON:
            count -= 1
            if not inside:
                count = _clip(a, b, count, low, high)
        elif not inside:
            states[p] = ABSENT if kind == POINT else HARD
            continue
        if count < 1:
            states[p] = ABSENT
            continue
        count = _round(a, count, ring, kind == POLYGON)
        if kind == POLYGON:
            area2 = _double_area(ring, count)
            if count < 3 or area2 == 0 or not _is_simple(ring, count):
                states[p] = HARD
                continue
            _turn(ring, count, area2 < 0, b)
        elif kind == LINE and count < 2:
            states[p] = HARD
            continue
        end = _write(ring, count, kind, out, at)
        lengths[p] = end - at
        states[p] = DRAWN
        at = end


@njit(cache=True)
def _clip(a: Floats, b: Floats, count: int, low: float, high: float) -> int:
    # Sutherland-Hodgman; the result is in `a`.
    for side in range(4):
        axis, limit = side % 2, low if side < 2 else high
        sign = 1.0 if side < 2 else -1.0
        kept = 0
        for i in range(count):
            j = i + 1 if i + 1 < count else 0
            here = (a[i, axis] - limit) * sign
            there = (a[j, axis] - limit) * sign
            if here >= 0:
                b[kept, 0], b[kept, 1] = a[i, 0], a[i, 1]
                kept += 1
            if (here < 0 and there > 0) or (here > 0 and there < 0):
                share = here / (here - there)
                other = 1 - axis
                b[kept, axis] = limit
                b[kept, other] = a[i, other] + share * (a[j, other] - a[i, other])
                kept += 1
        for i in range(kept):
            a[i, 0], a[i, 1] = b[i, 0], b[i, 1]
        count = kept
        if count == 0:
            return 0
    return count


@njit(cache=True)
def _round(a: Floats, count: int, ring: Ints, closed: bool) -> int:
    # Whole units, without points that repeat their predecessor.
    kept = 0
    for i in range(count):
        x, y = np.int64(np.rint(a[i, 0])), np.int64(np.rint(a[i, 1]))
        if kept and ring[kept - 1, 0] == x and ring[kept - 1, 1] == y:
            continue
        ring[kept, 0], ring[kept, 1] = x, y
        kept += 1
    while closed and kept > 1 and (ring[0] == ring[kept - 1]).all():
        kept -= 1
    return kept


@njit(cache=True)
def _double_area(ring: Ints, count: int) -> int:
    # Surveyor's formula: positive for exterior rings, y downwards.
    area2 = 0
    for i in range(count):
        j = i + 1 if i + 1 < count else 0
        area2 += ring[i, 0] * ring[j, 1] - ring[j, 0] * ring[i, 1]
    return area2


@njit(cache=True)
def _turn(ring: Ints, count: int, backwards: bool, spare: Floats) -> None:
    # Begin at the westernmost point: where a ring was cut before must not show.
    first = 0
    for i in range(count):
        spare[i, 0], spare[i, 1] = ring[i, 0], ring[i, 1]
        if ring[i, 0] < ring[first, 0] or (
            ring[i, 0] == ring[first, 0] and ring[i, 1] < ring[first, 1]
        ):
            first = i
    for i in range(count):
        j = (first - i if backwards else first + i) % count
        ring[i, 0], ring[i, 1] = np.int64(spare[j, 0]), np.int64(spare[j, 1])


@njit(cache=True)
def _side(ax: int, ay: int, bx: int, by: int, cx: int, cy: int) -> int:
    value = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
    return 1 if value > 0 else (-1 if value < 0 else 0)


@njit(cache=True)
def _is_simple(ring: Ints, count: int) -> bool:
    # No edge meets another but its neighbour, and that only in their common point.
    for i in range(count):
        ax, ay = ring[i, 0], ring[i, 1]
        n = i + 1 if i + 1 < count else 0
        bx, by = ring[n, 0], ring[n, 1]
        m = n + 1 if n + 1 < count else 0
        ex, ey = ring[m, 0] - bx, ring[m, 1] - by
        if _side(ax, ay, bx, by, ring[m, 0], ring[m, 1]) == 0:
            if (bx - ax) * ex + (by - ay) * ey < 0:
                return False
        for j in range(i + 2, count):
            k = j + 1 if j + 1 < count else 0
            if k == i:
                continue
            cx, cy, dx, dy = ring[j, 0], ring[j, 1], ring[k, 0], ring[k, 1]
            if (
                max(ax, bx) < min(cx, dx)
                or max(cx, dx) < min(ax, bx)
                or max(ay, by) < min(cy, dy)
                or max(cy, dy) < min(ay, by)
            ):
                continue
            # Their boxes meet, so the edges do unless one lies wholly beside the other.
            if (
                _side(ax, ay, bx, by, cx, cy) * _side(ax, ay, bx, by, dx, dy) <= 0
                and _side(cx, cy, dx, dy, ax, ay) * _side(cx, cy, dx, dy, bx, by) <= 0
            ):
                return False
    return True


@njit(cache=True)
def _put_delta(out: Bytes, at: int, delta: int) -> int:
    rest = (delta << 1) ^ (delta >> 63)
    while rest >= 0x80:
        out[at] = np.uint8((rest & 0x7F) | 0x80)
        rest >>= 7
        at += 1
    out[at] = np.uint8(rest)
    return at + 1


@njit(cache=True)
def _put_command(out: Bytes, at: int, command: int, count: int) -> int:
    rest = (count << 3) | command
    while rest >= 0x80:
        out[at] = np.uint8((rest & 0x7F) | 0x80)
        rest >>= 7
        at += 1
    out[at] = np.uint8(rest)
    return at + 1


@njit(cache=True)
def _write(ring: Ints, count: int, kind: int, out: Bytes, at: int) -> int:
    at = _put_command(out, at, 1, 1)
    x, y = 0, 0
    for i in range(count):
        if i == 1:
            at = _put_command(out, at, 2, count - 1)
        at = _put_delta(out, at, ring[i, 0] - x)
        at = _put_delta(out, at, ring[i, 1] - y)
        x, y = ring[i, 0], ring[i, 1]
    if kind == POLYGON:
        at = _put_command(out, at, 7, 1)
    return at
