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
    _classify(fine, x0, y0, cells, np.asarray(tolerances, dtype=np.int64), classes, bounds)
    return classes


@njit(cache=True)
def _classify(fine, x0, y0, cells, tolerances, classes, bounds):  # type: ignore[no-untyped-def]
    rows, columns = fine.shape
    scale = 1
    while 2 * scale <= cells:
        # How far beyond the inside a decision of this scale can matter.
        first = 2 * scale
        last_x, last_y = columns - 1 - first, rows - 1 - first
        for y in range(first, last_y + 1):
            odd_y = (y + y0) & (2 * scale - 1)
            if odd_y == scale:
                x = first + ((-(first + x0)) & (2 * scale - 1))
                while x <= last_x:
                    _diamond(fine, y, x, scale, False, tolerances, classes, bounds)
                    x += 2 * scale
            elif odd_y == 0:
                x = first + ((scale - (first + x0)) & (2 * scale - 1))
                while x <= last_x:
                    _diamond(fine, y, x, scale, True, tolerances, classes, bounds)
                    x += 2 * scale
        first = 3 * scale
        last_x, last_y = columns - 1 - first, rows - 1 - first
        y = first + ((scale - (first + y0)) & (2 * scale - 1))
        while y <= last_y:
            x = first + ((scale - (first + x0)) & (2 * scale - 1))
            while x <= last_x:
                _square(fine, y, x, x0, y0, scale, tolerances, classes, bounds)
                x += 2 * scale
            y += 2 * scale
        scale *= 2


@njit(cache=True)
def decoded(height):  # type: ignore[no-untyped-def]
    """Return a height as a decoder sees it, in the units of the heights."""
    return ((height + HALF_QUANTUM) // SUB) * SUB


@njit(cache=True)
def _class_of(deviation, tolerances):  # type: ignore[no-untyped-def]
    k = 0
    while k < len(tolerances) and deviation > tolerances[k]:
        k += 1
    return k


@njit(cache=True)
def _diamond(fine, y, x, scale, level, tolerances, classes, bounds):  # type: ignore[no-untyped-def]
    height = np.int64(fine[y, x])
    if level:
        ends = decoded(np.int64(fine[y, x - scale])) + decoded(np.int64(fine[y, x + scale]))
    else:
        ends = decoded(np.int64(fine[y - scale, x])) + decoded(np.int64(fine[y + scale, x]))
    own = (abs(2 * height - ends) + 1) >> 1
    needed = _class_of(own, tolerances)
    if scale == 1:
        # No node but this one lies inside.
        classes[y, x] = needed
        bounds[y, x] = max(own, HALF_QUANTUM)
        return
    half = scale // 2
    bound = np.int64(0)
    for j in (y - half, y + half):
        for i in (x - half, x + half):
            needed = max(needed, np.int64(classes[j, i]))
            bound = max(bound, np.int64(bounds[j, i]))
    if needed < len(tolerances):
        # The finer triangles are off by at most `bound`, and nowhere further from the coarse
        # ones than here: often that settles it.
        bound += (abs(2 * decoded(height) - ends) + 1) >> 1
        if _class_of(bound, tolerances) > needed:
            most = tolerances[len(tolerances) - 1]
            bound = _diamond_deviation(fine, y, x, scale, level, most)
            needed = max(needed, _class_of(bound, tolerances))
    else:
        bound = np.int64(_BEYOND)
    classes[y, x] = needed
    bounds[y, x] = bound


@njit(cache=True)
def _square(fine, y, x, x0, y0, scale, tolerances, classes, bounds):  # type: ignore[no-untyped-def]
    height = np.int64(fine[y, x])
    side = 2 * scale
    rising = (((x + x0 - scale) // side) + ((y + y0 - scale) // side)) & 1 == 0
    if rising:
        ends = decoded(np.int64(fine[y - scale, x - scale]))
        ends += decoded(np.int64(fine[y + scale, x + scale]))
    else:
        ends = decoded(np.int64(fine[y - scale, x + scale]))
        ends += decoded(np.int64(fine[y + scale, x - scale]))
    own = (abs(2 * height - ends) + 1) >> 1
    needed = _class_of(own, tolerances)
    bound = np.int64(0)
    for j, i in ((y, x - scale), (y, x + scale), (y - scale, x), (y + scale, x)):
        needed = max(needed, np.int64(classes[j, i]))
        bound = max(bound, np.int64(bounds[j, i]))
    if needed < len(tolerances):
        bound += (abs(2 * decoded(height) - ends) + 1) >> 1
        if _class_of(bound, tolerances) > needed:
            most = tolerances[len(tolerances) - 1]
            bound = _square_deviation(fine, y, x, scale, rising, most)
            needed = max(needed, _class_of(bound, tolerances))
    else:
        bound = np.int64(_BEYOND)
    classes[y, x] = needed
    bounds[y, x] = bound


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
