"""Roofs: polygons with holes, in integers, to triangles.

Ears are clipped exactly: orientations are integer products, so there is no tolerance to choose.
Whether it worked is checked by arithmetic: the areas of the triangles, none of them folded over,
must add up to that of the polygon. Where they do not, and where a ring is too long for a
quadratic search, GEOS makes a constrained Delaunay triangulation.
"""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray

from tiling.kernels import njit

# Clipping is quadratic in the points; above this GEOS is faster.
_EARS = 256


def triangulate(
    points: NDArray[np.int64],
    ring_start: NDArray[np.int64],
    polygon_start: NDArray[np.int64],
    drawn: NDArray[np.float64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the triangles of Q polygons.

    Args:
        points: (P, 2) int64, below 2**20; shells counter-clockwise, holes clockwise, no ring with
            its first point repeated.
        ring_start: (R + 1,) where each ring begins in `points`.
        polygon_start: (Q + 1,) where each polygon begins among the rings; its shell first.
        drawn: (P, 2) float64, the points before rounding; what rounding made invalid is
            triangulated as it was drawn.

    Returns:
        triangles: (T, 3) int64, positions in `points`, counter-clockwise, none without area.
        start: (Q + 1,) int64, where the triangles of each polygon begin.
    """
    triangles, start, exact = clip_ears(points, ring_start, polygon_start, _EARS)
    rest = np.flatnonzero(~exact)
    if not len(rest):
        return triangles, start
    own, made = _delaunay(points, ring_start, polygon_start, drawn, rest)
    kept = np.repeat(exact, np.diff(start))
    polygon = np.concatenate([np.repeat(np.arange(len(exact)), np.diff(start))[kept], own])
    order = np.argsort(polygon, kind="stable")
    joined = np.concatenate([triangles[kept], made])[order]
    counts = np.bincount(polygon, minlength=len(exact))
    return joined, np.concatenate([[0], np.cumsum(counts)])


def _delaunay(
    points: NDArray[np.int64],
    ring_start: NDArray[np.int64],
    polygon_start: NDArray[np.int64],
    drawn: NDArray[np.float64],
    rest: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return polygon and triangles, (T,) and (T, 3), of the polygons `rest`."""
    owners, found = [], []
    for polygon in rest.tolist():
        rings = range(polygon_start[polygon], polygon_start[polygon + 1])
        spans = [slice(ring_start[ring], ring_start[ring + 1]) for ring in rings]
        first = int(ring_start[polygon_start[polygon]])
        last = int(ring_start[polygon_start[polygon + 1]])
        for coordinates in (points.astype(np.float64), drawn):
            shape = shapely.Polygon(coordinates[spans[0]], [coordinates[s] for s in spans[1:]])
            if shape.is_valid:
                corners = shapely.get_coordinates(
                    shapely.get_parts(shapely.constrained_delaunay_triangles(shape))
                ).reshape(-1, 4, 2)[:, :3]
                triangles = first + _positions(coordinates[first:last], corners)
                break
        else:
            # Invalid as drawn too: the ears that could be clipped are better than no roof.
            triangles = clip_ears(
                points, ring_start, polygon_start[polygon : polygon + 2].copy(), last - first
            )[0]
        upright = _upright(points, triangles)
        owners.append(np.full(len(upright), polygon))
        found.append(upright)
    return np.concatenate(owners), np.concatenate(found)


def _positions(points: NDArray[np.float64], corners: NDArray[np.float64]) -> NDArray[np.int64]:
    # GEOS hands coordinates through untouched, so a corner is found again by its exact value;
    # adding zero turns -0.0 into 0.0.
    keys = np.concatenate([points, corners.reshape(-1, 2)]) + 0.0
    _, first, inverse = np.unique(
        keys.view([("x", "<f8"), ("y", "<f8")]).ravel(), return_index=True, return_inverse=True
    )
    found: NDArray[np.int64] = first[inverse[len(points) :]].reshape(-1, 3)
    return found


def _upright(points: NDArray[np.int64], triangles: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the triangles turned counter-clockwise, without those that have no area."""
    a, b, c = np.moveaxis(points[triangles], 1, 0)
    area = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
    turned = np.where((area < 0)[:, None], triangles[:, ::-1], triangles)
    return np.asarray(turned[area != 0], dtype=np.int64)


@njit(cache=True)
def clip_ears(
    points: NDArray[np.int64],
    ring_start: NDArray[np.int64],
    polygon_start: NDArray[np.int64],
    limit: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Clip the ears of every polygon of at most `limit` points.

    Holes are first joined to their shell by bridges, the rightmost hole first: from the rightmost
    point of a hole some point of what surrounds it can be seen.

    Returns:
        triangles: (T, 3) int64, positions in `points`.
        start: (Q + 1,) int64, where the triangles of each polygon begin.
        exact: (Q,) bool, whether they cover the polygon exactly.
    """
    polygons = len(polygon_start) - 1
    room, most = 0, 0
    for polygon in range(polygons):
        first, last = polygon_start[polygon], polygon_start[polygon + 1]
        size = ring_start[last] - ring_start[first] + 2 * (last - first)
        if size - 2 * (last - first) <= limit:
            room += size
            most = max(most, size)
    triangles = np.empty((room, 3), dtype=np.int64)
    start = np.zeros(polygons + 1, dtype=np.int64)
    exact = np.zeros(polygons, dtype=np.bool_)
    ring = np.empty(most, dtype=np.int64)
    following = np.empty(most, dtype=np.int64)
    preceding = np.empty(most, dtype=np.int64)
    count = 0
    for polygon in range(polygons):
        first, last = polygon_start[polygon], polygon_start[polygon + 1]
        if ring_start[last] - ring_start[first] <= limit:
            begin = count
            size = ring_start[first + 1] - ring_start[first]
            for k in range(size):
                ring[k] = ring_start[first] + k
            seen = True
            if last - first > 1:
                size, seen = _bridge(points, ring_start, first, last, ring, size)
            count = _clip(points, ring, size, following, preceding, triangles, count)
            area = 0
            for r in range(first, last):
                area += _ring_area(points, ring_start[r], ring_start[r + 1])
            for t in range(begin, count):
                area -= _area(points, triangles[t, 0], triangles[t, 1], triangles[t, 2])
            exact[polygon] = seen and area == 0
        start[polygon + 1] = count
    return triangles[:count].copy(), start, exact


@njit(cache=True)
def _ring_area(points, first, last):  # type: ignore[no-untyped-def]
    total = 0
    for i in range(first, last):
        j = i + 1 if i + 1 < last else first
        total += points[i, 0] * points[j, 1] - points[j, 0] * points[i, 1]
    return total


@njit(cache=True)
def _area(points, a, b, c):  # type: ignore[no-untyped-def]
    return (points[b, 0] - points[a, 0]) * (points[c, 1] - points[a, 1]) - (
        points[b, 1] - points[a, 1]
    ) * (points[c, 0] - points[a, 0])


@njit(cache=True)
def _equal(points, a, b):  # type: ignore[no-untyped-def]
    return points[a, 0] == points[b, 0] and points[a, 1] == points[b, 1]


@njit(cache=True)
def _bridge(points, ring_start, first, last, ring, size):  # type: ignore[no-untyped-def]
    """Splice the holes into `ring`; return its size and whether every hole found its bridge."""
    holes = last - first - 1
    rightmost = np.empty(holes, dtype=np.int64)
    done = np.zeros(holes, dtype=np.bool_)
    for h in range(holes):
        best = ring_start[first + 1 + h]
        for i in range(best, ring_start[first + 2 + h]):
            if points[i, 0] > points[best, 0]:
                best = i
        rightmost[h] = best
    for _ in range(holes):
        hole = -1
        for h in range(holes):
            if not done[h] and (hole < 0 or points[rightmost[h], 0] > points[rightmost[hole], 0]):
                hole = h
        done[hole] = True
        start = rightmost[hole]
        target, nearest = -1, 0
        for k in range(size):
            dx = points[ring[k], 0] - points[start, 0]
            dy = points[ring[k], 1] - points[start, 1]
            distance = dx * dx + dy * dy
            if target >= 0 and distance >= nearest:
                continue
            if not _within_corner(points, ring, size, k, start):
                continue
            if _crosses(points, ring_start, first, done, hole, ring, size, ring[k], start):
                continue
            target, nearest = k, distance
        if target < 0:
            return size, False
        begin, end = ring_start[first + 1 + hole], ring_start[first + 2 + hole]
        added = end - begin + 2
        for k in range(size - 1, target, -1):
            ring[k + added] = ring[k]
        for k in range(added - 1):
            ring[target + 1 + k] = begin + (start - begin + k) % (end - begin)
        ring[target + added] = ring[target]
        size += added
    return size, True


@njit(cache=True)
def _within_corner(points, ring, size, k, goal):  # type: ignore[no-untyped-def]
    """Say whether the way from a corner of the ring to `goal` leads into the polygon."""
    here = ring[k]
    before, after = ring[(k + size - 1) % size], ring[(k + 1) % size]
    left_of_after = _area(points, here, after, goal) > 0
    right_of_before = _area(points, here, before, goal) < 0
    if _area(points, before, here, after) > 0:
        return left_of_after and right_of_before
    return left_of_after or right_of_before


@njit(cache=True)
def _crosses(points, ring_start, first, done, hole, ring, size, a, b):  # type: ignore[no-untyped-def]
    """Say whether the segment a-b meets an edge of the ring or of a hole not yet joined."""
    for k in range(size):
        if _meets(points, a, b, ring[k], ring[(k + 1) % size]):
            return True
    for h in range(len(done)):
        if done[h] and h != hole:
            continue
        begin, end = ring_start[first + 1 + h], ring_start[first + 2 + h]
        for i in range(begin, end):
            if _meets(points, a, b, i, i + 1 if i + 1 < end else begin):
                return True
    return False


@njit(cache=True)
def _meets(points, a, b, c, d):  # type: ignore[no-untyped-def]
    side_c, side_d = _area(points, a, b, c), _area(points, a, b, d)
    if side_c == 0 and not _equal(points, c, a) and not _equal(points, c, b):
        inside = (points[c, 0] - points[a, 0]) * (points[c, 0] - points[b, 0]) + (
            points[c, 1] - points[a, 1]
        ) * (points[c, 1] - points[b, 1])
        if inside < 0:
            return True
    if (side_c > 0) == (side_d > 0) or side_c == 0 or side_d == 0:
        return False
    side_a, side_b = _area(points, c, d, a), _area(points, c, d, b)
    return (side_a > 0) != (side_b > 0) and side_a != 0 and side_b != 0


@njit(cache=True)
def _clip(points, ring, size, following, preceding, triangles, count):  # type: ignore[no-untyped-def]
    """Append the ears of a ring to `triangles`; return the new count."""
    for k in range(size):
        following[k] = k + 1
        preceding[k] = k - 1
    following[size - 1] = 0
    preceding[0] = size - 1
    k, left, idle = 0, size, 0
    while left > 2:
        before, after = preceding[k], following[k]
        a, b, c = ring[before], ring[k], ring[after]
        area = _area(points, a, b, c)
        # What is left after a full round without an ear has folded over: corners without area go
        # first, then any; the check of areas has the last word.
        take = area > 0 and (idle > 2 * left or _free(points, ring, following, before, k, after))
        if not take and idle > left:
            take = area == 0 or idle > 3 * left
        if take:
            if area > 0:
                triangles[count, 0] = a
                triangles[count, 1] = b
                triangles[count, 2] = c
                count += 1
            following[before] = after
            preceding[after] = before
            left -= 1
            idle = 0
            # Not the neighbour: a fan around one corner makes needles.
            k = following[after]
        else:
            idle += 1
            k = after
    return count


@njit(cache=True)
def _free(points, ring, following, before, k, after):  # type: ignore[no-untyped-def]
    """Say whether no other corner lies in the triangle or on its sides."""
    a, b, c = ring[before], ring[k], ring[after]
    ax, ay = points[a, 0], points[a, 1]
    bx, by = points[b, 0], points[b, 1]
    cx, cy = points[c, 0], points[c, 1]
    other = following[after]
    while other != before:
        x, y = points[ring[other], 0], points[ring[other], 1]
        other = following[other]
        if (bx - ax) * (y - ay) - (by - ay) * (x - ax) < 0:
            continue
        if (cx - bx) * (y - by) - (cy - by) * (x - bx) < 0:
            continue
        if (ax - cx) * (y - cy) - (ay - cy) * (x - cx) < 0:
            continue
        if (x == ax and y == ay) or (x == bx and y == by) or (x == cx and y == cy):
            continue
        return False
    return True
