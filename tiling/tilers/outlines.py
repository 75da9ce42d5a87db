"""The rings of many footprints as flat arrays, in degrees and then in the grid of a tile.

Shells run counter-clockwise and holes clockwise, seen from above, so the solid lies on the left of
every edge. Rounding to the grid can fold a sliver over: a hole that does is filled, a shell that
does becomes its convex hull, at least one quantum wide. So no footprint is lost, and of every
ring in the grid the sign of its area tells shell from hole.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray

from tiling.ellipsoid import FLATTENING, SEMI_MAJOR_M
from tiling.errors import GeometryInvalid
from tiling.kernels import njit

_E2 = FLATTENING * (2.0 - FLATTENING)


class Outlines(NamedTuple):
    """Rings without closing and repeated points.

    Attributes:
        lonlat: (P, 2) float64 degrees.
        ring_start: (R + 1,) int64, where each ring begins in `lonlat`.
        polygon_start: (Q + 1,) int64, where each polygon begins among the rings; its shell first.
        owner: (Q,) int64, the feature of each polygon.
    """

    lonlat: NDArray[np.float64]
    ring_start: NDArray[np.int64]
    polygon_start: NDArray[np.int64]
    owner: NDArray[np.int64]

    @classmethod
    def of(cls, geometry: NDArray[np.object_]) -> Outlines:
        """Return the rings of (N,) polygons and multipolygons, lon/lat degrees; Z is ignored.

        Raises:
            GeometryInvalid: a feature is empty.
        """
        if not len(geometry):
            zero = np.zeros(1, dtype=np.int64)
            return cls(np.empty((0, 2)), zero, zero, zero[:0])
        kind, lonlat, offsets = shapely.to_ragged_array(geometry, include_z=False)
        if kind is shapely.GeometryType.POLYGON:
            rings, polygons = offsets
            owner = np.arange(len(geometry))
        else:
            rings, polygons, features = offsets
            owner = np.repeat(np.arange(len(geometry)), np.diff(features))
        # An empty part of a feature is no loss, an empty feature is.
        solid = np.diff(polygons) > 0
        owner, polygons = owner[solid], np.append(0, polygons[1:][solid])
        bare = np.bincount(owner, minlength=len(geometry)) == 0
        if bare.any():
            raise GeometryInvalid(
                f"{int(bare.sum())} footprints are empty, the first being row "
                f"{int(np.flatnonzero(bare)[0])}",
                remedy="drop footprints without area before tiling",
            )
        opened, start = _opened(lonlat, rings.astype(np.int64), polygons.astype(np.int64))
        return cls(opened, start, polygons.astype(np.int64), owner.astype(np.int64))

    @property
    def feature(self) -> NDArray[np.int64]:
        """(P,) int64, the feature of each point."""
        rings = np.repeat(self.owner, np.diff(self.polygon_start))
        return np.repeat(rings, np.diff(self.ring_start))


class GridRings(NamedTuple):
    """Rings in the grid of a tile; the ring of the roof and that of the foot differ a little.

    Walls are plumb where they stand, so they lean in the frame of a wide tile.

    Attributes:
        low: (P, 3) int64, grid positions of the foot.
        high: (P, 3) int64, grid positions of the roof.
        source: (P,) int64, the point of the `Outlines` that each came from.
        ring_start: (R + 1,) int64, where each ring begins.
        polygon_start: (Q + 1,) int64, where each polygon begins among the rings.
    """

    low: NDArray[np.int64]
    high: NDArray[np.int64]
    source: NDArray[np.int64]
    ring_start: NDArray[np.int64]
    polygon_start: NDArray[np.int64]


@njit(cache=True)
def _opened(
    lonlat: NDArray[np.float64],
    ring_offsets: NDArray[np.int64],
    polygon_offsets: NDArray[np.int64],
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    out = np.empty_like(lonlat)
    start = np.zeros(len(ring_offsets), dtype=np.int64)
    count = 0
    for polygon in range(len(polygon_offsets) - 1):
        shell = polygon_offsets[polygon]
        for ring in range(shell, polygon_offsets[polygon + 1]):
            first, last = ring_offsets[ring], ring_offsets[ring + 1]
            begin = count
            for i in range(first, last):
                x, y = lonlat[i, 0], lonlat[i, 1]
                if count > begin and out[count - 1, 0] == x and out[count - 1, 1] == y:
                    continue
                out[count, 0] = x
                out[count, 1] = y
                count += 1
            while count > begin + 1 and (
                out[count - 1, 0] == out[begin, 0] and out[count - 1, 1] == out[begin, 1]
            ):
                count -= 1
            area = 0.0
            for i in range(begin, count):
                j = i + 1 if i + 1 < count else begin
                # From the first point: degrees far from zero would cancel.
                area += (out[i, 0] - out[begin, 0]) * (out[j, 1] - out[begin, 1])
                area -= (out[j, 0] - out[begin, 0]) * (out[i, 1] - out[begin, 1])
            if (area < 0.0) == (ring == shell):
                # The first point stays the first.
                i, j = begin + 1, count - 1
                while i < j:
                    for k in range(2):
                        out[i, k], out[j, k] = out[j, k], out[i, k]
                    i += 1
                    j -= 1
            start[ring + 1] = count
    return out[:count].copy(), start


@njit(cache=True)
def place(
    lonlat: NDArray[np.float64], to_ecef: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return where points at height zero lie in a frame, and which way is up there.

    A point at height h is ``foot + h * up``: the textbook closed form of `geodetic_to_ecef`.

    Args:
        lonlat: (P, 2) degrees.
        to_ecef: (4, 4) the frame.

    Returns:
        feet: (P, 3) float64 metres; up: (P, 3) float64 unit vectors, both in the frame.
    """
    count = len(lonlat)
    feet = np.empty((count, 3))
    ups = np.empty((count, 3))
    for i in range(count):
        lon, lat = np.radians(lonlat[i, 0]), np.radians(lonlat[i, 1])
        sin_lat, cos_lat = np.sin(lat), np.cos(lat)
        prime_vertical = SEMI_MAJOR_M / np.sqrt(1.0 - _E2 * sin_lat * sin_lat)
        ux, uy, uz = cos_lat * np.cos(lon), cos_lat * np.sin(lon), sin_lat
        x = prime_vertical * ux - to_ecef[0, 3]
        y = prime_vertical * uy - to_ecef[1, 3]
        z = prime_vertical * (1.0 - _E2) * uz - to_ecef[2, 3]
        for k in range(3):
            feet[i, k] = x * to_ecef[0, k] + y * to_ecef[1, k] + z * to_ecef[2, k]
            ups[i, k] = ux * to_ecef[0, k] + uy * to_ecef[1, k] + uz * to_ecef[2, k]
    return feet, ups


@njit(cache=True)
def convex_hull(x: NDArray[np.int64], y: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return positions of the corners of a convex hull, counter-clockwise (monotone chain).

    Args:
        x, y: (P,) int64, sorted by x, then y.

    Returns:
        (H,) int64; two positions when all points are on a line, one when they are equal.
    """
    count = len(x)
    chain = np.empty(2 * count + 1, dtype=np.int64)
    size = 0
    for i in range(count):
        while size >= 2 and _turn(x, y, chain[size - 2], chain[size - 1], i) <= 0:
            size -= 1
        chain[size] = i
        size += 1
    lower = size + 1
    for i in range(count - 2, -1, -1):
        while size >= lower and _turn(x, y, chain[size - 2], chain[size - 1], i) <= 0:
            size -= 1
        chain[size] = i
        size += 1
    # The chain ends where it began.
    size = max(1, size - 1)
    if size == 2 and x[chain[0]] == x[chain[1]] and y[chain[0]] == y[chain[1]]:
        size = 1
    return chain[:size].copy()


@njit(cache=True)
def _turn(x, y, a, b, c):  # type: ignore[no-untyped-def]
    return (x[b] - x[a]) * (y[c] - y[a]) - (y[b] - y[a]) * (x[c] - x[a])


@njit(cache=True)
def _sorted_order(x, y):  # type: ignore[no-untyped-def]
    """Return the order by x, then y. A Shell sort: NumPy's takes Numba seconds to compile."""
    count = len(x)
    order = np.empty(count, dtype=np.int64)
    for k in range(count):
        order[k] = k
    gap = 1
    while gap < count // 3:
        gap = 3 * gap + 1
    while gap > 0:
        for k in range(gap, count):
            moving = order[k]
            j = k
            while j >= gap:
                other = order[j - gap]
                if x[other] < x[moving] or (x[other] == x[moving] and y[other] <= y[moving]):
                    break
                order[j] = other
                j -= gap
            order[j] = moving
        gap //= 3
    return order


@njit(cache=True)
def widened(x: NDArray[np.int64], y: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return a hull of integer points that is never without area.

    Args:
        x, y: (P,) int64 points in any order, at least one; below 2**31 in size.

    Returns:
        (H, 3) int64, H >= 3, counter-clockwise: x, y and the point each corner came from. Points
        on a line get a third corner one unit aside.
    """
    count = len(x)
    order = _sorted_order(x, y)
    sorted_x = np.empty(count, dtype=np.int64)
    sorted_y = np.empty(count, dtype=np.int64)
    for k in range(count):
        sorted_x[k], sorted_y[k] = x[order[k]], y[order[k]]
    hull = convex_hull(sorted_x, sorted_y)
    out = np.empty((max(3, len(hull)), 3), dtype=np.int64)
    for k in range(len(hull)):
        source = order[hull[k]]
        out[k, 0], out[k, 1], out[k, 2] = x[source], y[source], source
    if len(hull) == 1:
        out[1, 0], out[1, 1], out[1, 2] = out[0, 0] + 1, out[0, 1], out[0, 2]
    if len(hull) < 3:
        # To the left of the way from the first corner to the second.
        out[2, 0] = out[1, 0] - np.sign(out[1, 1] - out[0, 1])
        out[2, 1] = out[1, 1] + np.sign(out[1, 0] - out[0, 0])
        out[2, 2] = out[1, 2]
    return out


@njit(cache=True)
def double_area(points: NDArray[np.int64], first: int, last: int) -> int:
    """Return twice the signed area of the ring of points `first` to `last` - 1; exact."""
    total = 0
    for i in range(first, last):
        j = i + 1 if i + 1 < last else first
        total += points[i, 0] * points[j, 1] - points[j, 0] * points[i, 1]
    return total


@njit(cache=True)
def snap(
    low: NDArray[np.int64],
    high: NDArray[np.int64],
    ring_start: NDArray[np.int64],
    polygon_start: NDArray[np.int64],
) -> tuple[
    NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]
]:
    """Drop points that rounding made equal and mend rings that it folded over.

    Args:
        low, high: (P, 3) int64 grid positions of the points of `Outlines`.
        ring_start, polygon_start: as in `Outlines`.

    Returns:
        the fields of `GridRings`.
    """
    polygons = len(polygon_start) - 1
    room = len(low) + 2 * polygons
    out_low = np.empty((room, 3), dtype=np.int64)
    out_high = np.empty((room, 3), dtype=np.int64)
    source = np.empty(room, dtype=np.int64)
    rings = np.zeros(len(ring_start), dtype=np.int64)
    starts = np.zeros(polygons + 1, dtype=np.int64)
    count = 0
    made = 0
    for polygon in range(polygons):
        shell = polygon_start[polygon]
        for ring in range(shell, polygon_start[polygon + 1]):
            begin = count
            for i in range(ring_start[ring], ring_start[ring + 1]):
                if count > begin and _same(low, high, i, source[count - 1]):
                    continue
                for k in range(3):
                    out_low[count, k], out_high[count, k] = low[i, k], high[i, k]
                source[count] = i
                count += 1
            while count > begin + 1 and _same(low, high, source[count - 1], source[begin]):
                count -= 1
            area = double_area(out_high, begin, count)
            if ring == shell:
                if area <= 0:
                    count = _mended(low, high, out_low, out_high, source, begin, count)
            elif area >= 0:
                count = begin
                continue
            made += 1
            rings[made] = count
        starts[polygon + 1] = made
    return (
        out_low[:count].copy(),
        out_high[:count].copy(),
        source[:count].copy(),
        rings[: made + 1].copy(),
        starts,
    )


@njit(cache=True)
def _mended(low, high, out_low, out_high, source, begin, end):  # type: ignore[no-untyped-def]
    """Replace points `begin` to `end` - 1 by their hull, widened; return where it ends."""
    x = np.empty(end - begin, dtype=np.int64)
    y = np.empty(end - begin, dtype=np.int64)
    came = np.empty(end - begin, dtype=np.int64)
    for k in range(end - begin):
        x[k], y[k] = out_high[begin + k, 0], out_high[begin + k, 1]
        came[k] = source[begin + k]
    hull = widened(x, y)
    for k in range(len(hull)):
        i, at = came[hull[k, 2]], begin + k
        source[at] = i
        for axis in range(3):
            moved = hull[k, axis] - high[i, axis] if axis < 2 else 0
            out_high[at, axis] = high[i, axis] + moved
            out_low[at, axis] = low[i, axis] + moved
    return begin + len(hull)


@njit(cache=True)
def _same(low, high, i, j):  # type: ignore[no-untyped-def]
    return (
        high[i, 0] == high[j, 0]
        and high[i, 1] == high[j, 1]
        and low[i, 0] == low[j, 0]
        and low[i, 1] == low[j, 1]
    )
