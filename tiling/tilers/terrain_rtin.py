"""Which nodes of a grid of heights a mesh needs: right-triangulated irregular networks.

The one idea: the hierarchy is that of the globe, not of a tile. A node whose place, counted in
nodes from the south-west corner of the grid, is an odd multiple of ``scale`` along one axis and an
even one along the other halves an axis-parallel hypotenuse of ``2 * scale`` nodes (a *diamond*);
one that is an odd multiple along both halves the diagonal of a square of that side (a *square*).
Its two triangles meet there. It is needed at a tolerance when a node inside them lies further off
their planes, or when a finer node that depends on it is needed. So whether a node is needed is a
pure function of the heights around it, and both tiles of an edge decide alike.

The decisions inside a square of G cells depend on nodes less than G beyond its edges, since a chain
of dependants doubles in fineness at every second step (``1/2 + 1/4 + …``): a halo of G nodes makes
them exact. Larger squares than `SQUARE` are not decided but always split, so that is the halo of
any tile, however many cells it has.

Heights are integers, `SUB` to a quantum of the format, and planes go through heights as a decoder
sees them; every comparison is exact, on any machine and in any order.
W. Evans, D. Kirkpatrick, G. Townsend, "Right-triangulated irregular networks" (2001).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tiling.kernels import njit

# Steps of the integer heights in one quantum of the format: what is lost by rounding to them is a
# thirty-second of a quantum.
SUB = 16
# What a decoder's vertex may be off its node: half a quantum.
HALF_QUANTUM = SUB // 2
# Cells along the side of the largest square that may stay two triangles.
SQUARE = 64
_BEYOND = 1 << 28


def classify(
    fine: NDArray[np.int32], x0: int, y0: int, cells: int, tolerances: NDArray[np.int64]
) -> NDArray[np.uint8]:
    """Return, for every node inside a halo of `cells`, how many tolerances need it.

    Args:
        fine: (rows, columns) int32 heights, `SUB` to a quantum, 0 .. 32767 * SUB; the outermost
            `cells` rows and columns are the halo.
        x0, y0: place on the globe's grid of ``fine[0, 0]``.
        cells: nodes along a side of the largest square that is decided, a power of two; the inside
            begins and ends at multiples of it.
        tolerances: (K,) int64 ascending, in the heights' units, none below `HALF_QUANTUM`.

    Returns:
        (rows, columns) uint8: 0 needed at no tolerance, k needed at the k smallest; undefined in
        the halo.
    """
    classes = np.zeros(fine.shape, dtype=np.uint8)
    bounds = np.zeros(fine.shape, dtype=np.int32)
    sorted_tolerances = np.asarray(tolerances, dtype=np.int64)
    heights = np.ascontiguousarray(fine)
    _bound(heights, heights.ravel(), x0, y0, cells, sorted_tolerances, bounds.ravel())
    _classify(bounds, cells, sorted_tolerances, classes)
    return classes


@njit(cache=True)
def _classify(bounds, halo, tolerances, classes):  # type: ignore[no-untyped-def]
    rows, columns = bounds.shape
    for y in range(halo, rows - halo):
        for x in range(halo, columns - halo):
            classes[y, x] = _class_of(bounds[y, x], tolerances)


@njit(cache=True)
def _bound(fine, flat, x0, y0, cells, tolerances, bounds):  # type: ignore[no-untyped-def]
    """Write to every node by how much nodes in its triangles, and in finer ones, leave these.

    That is no less than it is, and no more than to be classified alike. `flat` is `fine` in one
    dimension, as `bounds` is: most nodes are settled by a look at six of its neighbours.
    """
    rows, columns = fine.shape
    least = tolerances[0]
    scale = 1
    while 2 * scale <= cells:
        half = scale // 2
        rise, fall = half * columns + half, half * columns - half
        # How far beyond the inside a decision of this scale can matter.
        first = 2 * scale
        last_x, last_y = columns - 1 - first, rows - 1 - first
        for y in range(first, last_y + 1):
            odd = (y + y0) & (2 * scale - 1)
            if odd != 0 and odd != scale:
                continue
            level = odd == 0
            along = scale if level else scale * columns
            before = (scale if level else 0) - (first + x0)
            start = y * columns + first + (before & (2 * scale - 1))
            for at in range(start, y * columns + last_x + 1, 2 * scale):
                height = np.int64(flat[at])
                ends = decoded(np.int64(flat[at - along])) + decoded(np.int64(flat[at + along]))
                if scale == 1:
                    # No node but this one lies inside.
                    bounds[at] = max((abs(2 * height - ends) + 1) >> 1, HALF_QUANTUM)
                    continue
                inner = max(
                    max(bounds[at - rise], bounds[at - fall]),
                    max(bounds[at + fall], bounds[at + rise]),
                )
                # The finer triangles are off by at most so much, and nowhere further from the
                # coarse ones than here: often that settles it.
                bound = inner + ((abs(2 * decoded(height) - ends) + 1) >> 1)
                if bound > least:
                    needed = _needed(height, ends, inner, tolerances)
                    if needed < _class_of(bound, tolerances):
                        x, most = at - y * columns, tolerances[len(tolerances) - 1]
                        bound = _diamond_deviation(fine, y, x, scale, level, most)
                    bound = _settled(bound, needed, tolerances)
                bounds[at] = bound
        first = 3 * scale
        last_x, last_y = columns - 1 - first, rows - 1 - first
        up = scale * columns
        for y in range(first + ((scale - (first + y0)) & (2 * scale - 1)), last_y + 1, 2 * scale):
            begin = first + ((scale - (first + x0)) & (2 * scale - 1))
            for x in range(begin, last_x + 1, 2 * scale):
                at = y * columns + x
                rising = (
                    (x + x0 - scale) // (2 * scale) + (y + y0 - scale) // (2 * scale)
                ) & 1 == 0
                across = up + scale if rising else up - scale
                height = np.int64(flat[at])
                ends = decoded(np.int64(flat[at - across])) + decoded(np.int64(flat[at + across]))
                inner = max(
                    max(bounds[at - scale], bounds[at + scale]),
                    max(bounds[at - up], bounds[at + up]),
                )
                bound = inner + ((abs(2 * decoded(height) - ends) + 1) >> 1)
                if bound > least:
                    needed = _needed(height, ends, inner, tolerances)
                    if needed < _class_of(bound, tolerances):
                        most = tolerances[len(tolerances) - 1]
                        bound = _square_deviation(fine, y, x, scale, rising, most)
                    bound = _settled(bound, needed, tolerances)
                bounds[at] = bound
        scale *= 2


@njit(cache=True)
def decoded(height):  # type: ignore[no-untyped-def]
    """Return a height as a decoder sees it, in the units of the heights."""
    # The multiple of a power of two below it.
    return (height + HALF_QUANTUM) & -SUB


@njit(cache=True)
def _class_of(deviation, tolerances):  # type: ignore[no-untyped-def]
    k = 0
    while k < len(tolerances) and deviation > tolerances[k]:
        k += 1
    return k


@njit(cache=True)
def _needed(height, ends, inner, tolerances):  # type: ignore[no-untyped-def]
    """Return how many tolerances need a node for its own sake or for finer ones'."""
    own = (abs(2 * height - ends) + 1) >> 1
    return _class_of(max(own, inner), tolerances)


@njit(cache=True)
def _settled(bound, needed, tolerances):  # type: ignore[no-untyped-def]
    """Return a bound that is classified as needed, or higher if it is."""
    needed = max(needed, _class_of(bound, tolerances))
    if needed == len(tolerances):
        return np.int64(_BEYOND)
    return max(bound, tolerances[needed - 1] + 1) if needed else bound


# Sums and products of integers below 2**53 are exact in any order, so the order may be left to the
# compiler.
@njit(cache=True, fastmath=True)
def _off(fine, y, first, last, plane, slope, factor):  # type: ignore[no-untyped-def]
    """Return the largest |factor * height - plane| over a row, the plane sloping along it."""
    worst = 0.0
    row = fine[y]
    for i in range(last - first + 1):
        off = abs(factor * float(row[first + i]) - (plane + i * slope))
        worst = max(worst, off)
    return worst


@njit(cache=True)
def _diamond_deviation(fine, y, x, scale, level, most):  # type: ignore[no-untyped-def]
    """Return by how much nodes leave the two triangles of a diamond, or more than `most`."""
    factor = 2.0 * scale
    stop = most * factor
    south = float(decoded(np.int64(fine[y - scale, x])))
    north = float(decoded(np.int64(fine[y + scale, x])))
    west = float(decoded(np.int64(fine[y, x - scale])))
    east = float(decoded(np.int64(fine[y, x + scale])))
    worst = 0.0
    # From the middle outwards: what is far off lies there more often.
    for distance in range(scale):
        reach = scale - distance
        for sign in (-1, 1):
            j = sign * distance
            if level:
                apex = north if sign > 0 else south
                plane = scale * (west + east) + distance * (2 * apex - west - east)
                slope = east - west
                worst = max(
                    worst,
                    _off(fine, y + j, x - reach, x + reach, plane - reach * slope, slope, factor),
                )
            else:
                plane = scale * (south + north) + j * (north - south)
                slope = 2 * east - south - north
                worst = max(worst, _off(fine, y + j, x, x + reach, plane, slope, factor))
                slope = 2 * west - south - north
                worst = max(
                    worst,
                    _off(fine, y + j, x - reach, x, plane + reach * slope, -slope, factor),
                )
        if worst > stop:
            break
    return np.int64(np.ceil(worst / factor))


@njit(cache=True)
def _square_deviation(fine, y, x, scale, rising, most):  # type: ignore[no-untyped-def]
    """Return by how much nodes leave the two triangles of a square, or more than `most`."""
    side = 2 * scale
    factor = float(side)
    stop = most * factor
    left, right, bottom, top = x - scale, x + scale, y - scale, y + scale
    sw = float(decoded(np.int64(fine[bottom, left])))
    se = float(decoded(np.int64(fine[bottom, right])))
    nw = float(decoded(np.int64(fine[top, left])))
    ne = float(decoded(np.int64(fine[top, right])))
    worst = 0.0
    for j in range(side + 1):
        if rising:
            # South-east triangle right of the diagonal, north-west left of it.
            plane = factor * sw + j * (ne - se) + j * (se - sw)
            worst = max(worst, _off(fine, bottom + j, left + j, right, plane, se - sw, factor))
            plane = factor * sw + j * (nw - sw)
            worst = max(worst, _off(fine, bottom + j, left, left + j, plane, ne - nw, factor))
        else:
            i = side - j
            plane = factor * sw + j * (nw - sw)
            worst = max(worst, _off(fine, bottom + j, left, left + i, plane, se - sw, factor))
            plane = factor * ne + (side - j) * (se - ne) + (side - i) * (nw - ne)
            worst = max(worst, _off(fine, bottom + j, left + i, right, plane, ne - nw, factor))
        if worst > stop:
            break
    return np.int64(np.ceil(worst / factor))
