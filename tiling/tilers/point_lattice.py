"""Where points lie for the tiler: integers of one global lattice, and the cells of its octree.

A cell of level L spans 180 / 2**L degrees of longitude and of latitude, and as many metres of
height as that is along the equator; heights count from `LOWEST_M`. Cells of `ROOT_LEVEL` span all
heights at once and are the roots of implicit octrees, so the path of a tile depends on its cell
alone. The lattice cuts a cell of level L into 2**(40 - L) steps a side, 0.02 mm each: what is
computed from it depends on a point alone, never on who else was in its chunk.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tiling.ellipsoid import SEMI_MAJOR_M
from tiling.kernels import njit

LATTICE_LEVEL = 40
ROOT_LEVEL = 9
LOWEST_M = -10_000.0
HALF_EQUATOR_M = float(np.pi * SEMI_MAJOR_M)
HIGHEST_M = LOWEST_M + HALF_EQUATOR_M / 2**ROOT_LEVEL
STEP_DEG = 180.0 / 2**LATTICE_LEVEL
STEP_M = HALF_EQUATOR_M / 2**LATTICE_LEVEL
# Columns are counted in squares of some nine metres when the work is cut.
COUNT_LEVEL = 22
# Records keep the lower 32 bits of x and y: places in a cell of this level.
RECORD_LEVEL = LATTICE_LEVEL - 32


def cell_size_m(level: int) -> float:
    """Return the height of a cell, and its length from south to north at the equator, metres."""
    return float(HALF_EQUATOR_M / 2**level)


def on_lattice(
    lon_deg: NDArray[np.float64], lat_deg: NDArray[np.float64], height_m: NDArray[np.float64]
) -> tuple[NDArray[np.uint32], NDArray[np.uint64], NDArray[np.bool_]]:
    """Put points on the lattice.

    Args:
        lon_deg, lat_deg, height_m: (N,) degrees on WGS 84 and ellipsoidal metres.

    Returns:
        (N, 3) uint32: x and y within their cells of `RECORD_LEVEL`, z from `LOWEST_M`; (N,) uint64
        Morton indices of their columns of `COUNT_LEVEL`; (N,) bool, which points have a place: the
        others' values mean nothing.
    """
    places = np.empty((len(lon_deg), 3), dtype=np.uint32)
    columns = np.empty(len(lon_deg), dtype=np.uint64)
    placed = np.empty(len(lon_deg), dtype=np.bool_)
    _on_lattice(
        np.ascontiguousarray(lon_deg),
        np.ascontiguousarray(lat_deg),
        np.ascontiguousarray(height_m),
        places,
        columns,
        placed,
    )
    return places, columns, placed


def ground_columns(places: NDArray[np.uint32], level: int) -> NDArray[np.uint64]:
    """Return the columns that places of the first root cell lie in: (N,) uint64 Morton indices.

    Args:
        places: (N, 3) uint32, x and y from the corner of the lattice.
        level: of the columns, at least `ROOT_LEVEL`.
    """
    columns = np.empty(len(places), dtype=np.uint64)
    _ground_columns(np.ascontiguousarray(places), LATTICE_LEVEL - level, columns)
    return columns


@njit(cache=True)
def _ground_columns(places, bits, columns):  # type: ignore[no-untyped-def]
    down = np.uint64(bits)
    for i in range(len(places)):
        x, y = np.uint64(places[i, 0]) >> down, np.uint64(places[i, 1]) >> down
        columns[i] = _spread2(x) | (_spread2(y) << np.uint64(1))


@njit(cache=True)
def _on_lattice(lon, lat, height, places, columns, placed):  # type: ignore[no-untyped-def]
    down = np.uint64(LATTICE_LEVEL - COUNT_LEVEL)
    low32 = np.uint64(0xFFFFFFFF)
    for i in range(len(lon)):
        x, y = (lon[i] + 180.0) / STEP_DEG, (lat[i] + 90.0) / STEP_DEG
        z = (height[i] - LOWEST_M) / STEP_M
        inside = 0.0 <= x <= 2.0 ** (LATTICE_LEVEL + 1) and 0.0 <= y <= 2.0**LATTICE_LEVEL
        # NaN compares false.
        placed[i] = inside and 0.0 <= z < 2.0 ** (LATTICE_LEVEL - ROOT_LEVEL)
        if not placed[i]:
            columns[i] = 0
            continue
        # What lies on 180 degrees belongs to the last cell, a step west of it.
        ux = min(np.uint64(x), np.uint64((1 << (LATTICE_LEVEL + 1)) - 1))
        uy = min(np.uint64(y), np.uint64((1 << LATTICE_LEVEL) - 1))
        places[i, 0] = np.uint32(ux & low32)
        places[i, 1] = np.uint32(uy & low32)
        places[i, 2] = np.uint32(np.uint64(z))
        columns[i] = _spread2(ux >> down) | (_spread2(uy >> down) << np.uint64(1))


@njit(cache=True)
def _spread2(v):  # type: ignore[no-untyped-def]
    v = (v | (v << np.uint64(16))) & np.uint64(0x0000FFFF0000FFFF)
    v = (v | (v << np.uint64(8))) & np.uint64(0x00FF00FF00FF00FF)
    v = (v | (v << np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    v = (v | (v << np.uint64(2))) & np.uint64(0x3333333333333333)
    return (v | (v << np.uint64(1))) & np.uint64(0x5555555555555555)


@njit(cache=True)
def spread3(v):  # type: ignore[no-untyped-def]
    """Put two zeros before each of the lower 21 bits."""
    v = v & np.uint64(0x1FFFFF)
    v = (v | (v << np.uint64(32))) & np.uint64(0x1F00000000FFFF)
    v = (v | (v << np.uint64(16))) & np.uint64(0x1F0000FF0000FF)
    v = (v | (v << np.uint64(8))) & np.uint64(0x100F00F00F00F00F)
    v = (v | (v << np.uint64(4))) & np.uint64(0x10C30C30C30C30C3)
    return (v | (v << np.uint64(2))) & np.uint64(0x1249249249249249)


@njit(cache=True)
def gather3(v):  # type: ignore[no-untyped-def]
    """Undo `spread3`."""
    v = v & np.uint64(0x1249249249249249)
    v = (v | (v >> np.uint64(2))) & np.uint64(0x10C30C30C30C30C3)
    v = (v | (v >> np.uint64(4))) & np.uint64(0x100F00F00F00F00F)
    v = (v | (v >> np.uint64(8))) & np.uint64(0x1F0000FF0000FF)
    v = (v | (v >> np.uint64(16))) & np.uint64(0x1F00000000FFFF)
    return (v | (v >> np.uint64(32))) & np.uint64(0x1FFFFF)


# Bits of x, y and z below a column's level that keys interleave.
KEY_BITS = 17


def column_keys(places: NDArray[np.uint32], level: int) -> NDArray[np.uint64]:
    """Return the keys of points of one column: cell of `level` above, Morton index below.

    Args:
        places: (N, 3) uint32, x and y from the column's corner, z from `LOWEST_M`.
        level: of the column.

    Returns:
        (N,) uint64. Shifted right by ``3 * (KEY_BITS - d)``, a key names the cell d levels below.
    """
    keys = np.empty(len(places), dtype=np.uint64)
    _column_keys(places, level, keys)
    return keys


@njit(cache=True)
def _column_keys(places, level, keys):  # type: ignore[no-untyped-def]
    side = LATTICE_LEVEL - level
    down = np.uint64(side - KEY_BITS)
    for i in range(len(places)):
        x, y = np.uint64(places[i, 0]), np.uint64(places[i, 1])
        z = np.uint64(places[i, 2])
        key = (z >> np.uint64(side)) << np.uint64(3 * KEY_BITS)
        mask = np.uint64((1 << KEY_BITS) - 1)
        key |= spread3((x >> down) & mask)
        key |= spread3((y >> down) & mask) << np.uint64(1)
        key |= spread3((z >> down) & mask) << np.uint64(2)
        keys[i] = key
