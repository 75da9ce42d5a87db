"""Which level shows a point: even samples at every level, each point in exactly one.

The one idea: levels are decided from the finest to the coarsest, and what a level shows (with all
coarser ones, refinement being ADD) is chosen among what the next finer one shows. In every voxel of
a level, the side of its cells divided by `VOXELS`, the point nearest to the voxel's target is
a candidate; candidates closer together than the level's least distance compete, the one nearer to
its target wins. Targets lie a third of a side from the voxel's edge, alternating so that the
targets of a level are targets of the next: where points are dense, every level is nearly a
regular lattice, and nothing happens at the borders of cells.

Columns are sampled without their neighbours: candidates keep half the least distance from
a column's four sides, so points of two columns are never too close, whoever made them. All of it
depends on the points alone, neither on their order nor on how they were cut.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tiling.kernels import njit
from tiling.tilers.point_lattice import KEY_BITS, LATTICE_LEVEL, STEP_M, gather3
from tiling.tilers.point_order import by_key

VOXEL_BITS = 7
VOXELS = 2**VOXEL_BITS
# Of the shorter side of a voxel.
_LEAST_DISTANCE = 0.7
# The deepest level below a column whose voxels keys can tell apart.
DEEPEST_BELOW = KEY_BITS - VOXEL_BITS
# The deepest of all: its voxels are as small as what positions are rounded to.
DEEPEST_LEVEL = 27


def spacing_m(level: int) -> float:
    """Return the side of a level's voxels, metres from south to north and upwards."""
    return float(STEP_M * 2.0 ** (LATTICE_LEVEL - level) / VOXELS)


def least_distance_m(level: int, shrink: float) -> float:
    """Return how far apart the points are that a level shows, metres.

    Args:
        level: of the octree; none of its leaves, which show whatever is left.
        shrink: cosine of the latitude.
    """
    return _LEAST_DISTANCE * spacing_m(level) * shrink


def leaf_levels(
    keys: NDArray[np.uint64], level: int, deepest: int, leaf_points: int
) -> NDArray[np.int8]:
    """Return the level of the leaf of every point: the coarsest cell that holds few enough.

    Args:
        keys: (N,) uint64, ascending, of `column_keys`.
        level: of the column, the coarsest that a leaf can have.
        deepest: the finest; its leaves take whatever is left.
        leaf_points: points that a leaf above `deepest` holds at most.
    """
    found = np.full(len(keys), deepest, dtype=np.int8)
    _leaf_levels(keys, level, deepest, leaf_points, found)
    return found


@njit(cache=True)
def _leaf_levels(keys, level, deepest, leaf_points, found):  # type: ignore[no-untyped-def]
    start, count = 0, len(keys)
    while start < count:
        here = level
        while here < deepest:
            shift = np.uint64(3 * (KEY_BITS - (here - level)))
            cell = keys[start] >> shift
            # A cell that began before was divided: what is left of it is no cell.
            whole = start == 0 or (keys[start - 1] >> shift) != cell
            last = start + leaf_points
            if whole and (last >= count or (keys[last] >> shift) != cell):
                break
            here += 1
        shift = np.uint64(3 * (KEY_BITS - (here - level)))
        cell = keys[start] >> shift
        while start < count and (keys[start] >> shift) == cell:
            found[start] = here
            start += 1


def sample(
    places: NDArray[np.uint32],
    keys: NDArray[np.uint64],
    levels: NDArray[np.int8],
    column: int,
    finest: int,
    coarsest: int,
    shrink: float,
    alone: bool = False,
) -> None:
    """Move points of a column to the coarsest levels that show them, in place.

    Args:
        places: (N, 3) uint32, x and y from the column's corner.
        keys: (N,) uint64, ascending.
        levels: (N,) int8; at first the level of each point's leaf.
        column: level of the column.
        finest, coarsest: levels to which points are raised, `finest` first.
        shrink: cosine of the latitude of the column's middle.
        alone: there are no other columns, so that points may lie at its sides.
    """
    for level in range(finest, coarsest - 1, -1):
        least = least_distance_m(level, shrink) / STEP_M
        guard = 0.0 if alone else least / 2
        candidates, nearness = _candidates(
            places, keys, levels, column, level, shrink, guard / shrink, guard
        )
        # Floats that are not negative stand in the order of their bits.
        _, order = by_key(nearness.view(np.uint64))
        _thin(places, levels, candidates, order, column, level, least, shrink)


@njit(cache=True)
def _candidates(places, keys, levels, column, level, shrink, guard_x, guard_y):  # type: ignore[no-untyped-def]
    """Return the rows nearest to the targets of their voxels, and how near: squared steps."""
    below = level - column + VOXEL_BITS
    shift = np.uint64(3 * (KEY_BITS - below))
    bits = LATTICE_LEVEL - level - VOXEL_BITS
    side = 2.0**bits
    within = np.uint32((1 << bits) - 1)
    width = 2.0 ** (LATTICE_LEVEL - column)
    target = side * (1.0 / 3.0 if level % 2 == 0 else 2.0 / 3.0)
    rows = np.empty(len(keys), dtype=np.int64)
    nearness = np.empty(len(keys))
    count = 0
    last = np.uint64(0)
    for i in range(len(keys)):
        if levels[i] != level + 1:
            continue
        x, y = float(places[i, 0]), float(places[i, 1])
        if x < guard_x or width - x < guard_x or y < guard_y or width - y < guard_y:
            continue
        dx = (float(places[i, 0] & within) - target) * shrink
        dy = float(places[i, 1] & within) - target
        dz = float(places[i, 2] & within) - target
        near = dx * dx + dy * dy + dz * dz
        voxel = keys[i] >> shift
        if count and voxel == last:
            if near < nearness[count - 1]:
                nearness[count - 1] = near
                rows[count - 1] = i
        else:
            rows[count] = i
            nearness[count] = near
            last = voxel
            count += 1
    return rows[:count].copy(), nearness[:count].copy()


@njit(cache=True)
def _thin(places, levels, candidates, order, column, level, least, shrink):  # type: ignore[no-untyped-def]
    """Raise candidates, the nearest to their targets first, unless one too close was raised.

    Those raised stand in a table of their voxels. Most voxels around a candidate hold none, and a
    bit for what was raised, in a field that stays in the processor's cache, says so first.
    """
    bits = LATTICE_LEVEL - level - VOXEL_BITS
    # Sides are powers of two: multiplying is exact, and no division.
    voxels_a_step = 2.0**-bits
    size_bits = 4
    while (1 << size_bits) < 2 * len(candidates):
        size_bits += 1
    voxels = np.zeros(1 << size_bits, dtype=np.uint64)
    owners = np.empty(1 << size_bits, dtype=np.int64)
    raised = np.zeros(1 << size_bits, dtype=np.uint8)
    to_bit = np.uint64(64 - size_bits - 3)
    limit = least * least
    across = least / shrink
    for rank in range(len(order)):
        row = candidates[order[rank]]
        px, py, pz = float(places[row, 0]), float(places[row, 1]), float(places[row, 2])
        free = True
        west, east = _voxels(px, across, voxels_a_step)
        south, north = _voxels(py, least, voxels_a_step)
        low, high = _voxels(pz, least, voxels_a_step)
        for ix in range(west, east + 1):
            for iy in range(south, north + 1):
                for iz in range(low, high + 1):
                    voxel = _voxel(ix, iy, iz)
                    bit = _mixed(voxel) >> to_bit
                    if not (raised[bit >> np.uint64(3)] >> (bit & np.uint64(7))) & 1:
                        continue
                    slot = _slot(voxels, voxel, size_bits)
                    if voxels[slot] == np.uint64(0):
                        continue
                    other = owners[slot]
                    dx = (px - float(places[other, 0])) * shrink
                    dy = py - float(places[other, 1])
                    dz = pz - float(places[other, 2])
                    free = free and dx * dx + dy * dy + dz * dz >= limit
                if not free:
                    break
            if not free:
                break
        if free:
            levels[row] = level
            voxel = _voxel(
                np.int64(places[row, 0]) >> bits,
                np.int64(places[row, 1]) >> bits,
                np.int64(places[row, 2]) >> bits,
            )
            bit = _mixed(voxel) >> to_bit
            raised[bit >> np.uint64(3)] |= np.uint8(1 << (bit & np.uint64(7)))
            slot = _slot(voxels, voxel, size_bits)
            voxels[slot] = voxel
            owners[slot] = row


@njit(cache=True)
def _voxels(place, reach, voxels_a_step):  # type: ignore[no-untyped-def]
    """Return the first and the last voxel within reach of a place, along one axis."""
    first = np.floor((place - reach) * voxels_a_step)
    last = np.floor((place + reach) * voxels_a_step)
    return np.int64(first), np.int64(last)


@njit(cache=True)
def _voxel(x, y, z):  # type: ignore[no-untyped-def]
    # Never zero for one that holds a point: that marks an empty slot. Voxels of a column have 17
    # bits in x and y; heights have 25 at the deepest level.
    return (
        (np.uint64(x + 1) << np.uint64(45)) + (np.uint64(y + 1) << np.uint64(26)) + np.uint64(z + 1)
    )


@njit(cache=True)
def _mixed(voxel):  # type: ignore[no-untyped-def]
    # Fibonacci hashing: the upper bits depend on all.
    return voxel * np.uint64(0x9E3779B97F4A7C15)


@njit(cache=True)
def _slot(table, voxel, size_bits):  # type: ignore[no-untyped-def]
    mask = np.uint64(len(table) - 1)
    slot = _mixed(voxel) >> np.uint64(64 - size_bits)
    while table[slot] != voxel and table[slot] != np.uint64(0):
        slot = (slot + np.uint64(1)) & mask
    return slot


def cells_of(keys: NDArray[np.uint64], below: int) -> NDArray[np.int64]:
    """Return x and y from the column's corner and z from the lowest of keys' cells: (N, 3) int64.

    Args:
        keys: (N,) uint64 of `column_keys`.
        below: levels of the cells below the column.
    """
    out = np.empty((len(keys), 3), dtype=np.int64)
    _cells_of(keys, below, out)
    return out


@njit(cache=True)
def _cells_of(keys, below, out):  # type: ignore[no-untyped-def]
    for i in range(len(keys)):
        high = keys[i] >> np.uint64(3 * KEY_BITS)
        cell = (keys[i] & np.uint64((1 << (3 * KEY_BITS)) - 1)) >> np.uint64(3 * (KEY_BITS - below))
        out[i, 0] = np.int64(gather3(cell))
        out[i, 1] = np.int64(gather3(cell >> np.uint64(1)))
        out[i, 2] = (np.int64(high) << below) + np.int64(gather3(cell >> np.uint64(2)))
