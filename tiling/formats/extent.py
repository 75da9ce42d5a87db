"""Where the vertices of a tile lie: the range of each axis, and of their places on the Earth.

Both are asked of every vertex of every tile, when it is made and when it is checked, so they are
compiled: no array is made on the way.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiling.ellipsoid import FLATTENING, SEMI_MAJOR_M, SEMI_MINOR_M
from tiling.kernels import njit

_E2 = FLATTENING * (2.0 - FLATTENING)
_EP2 = _E2 / (1.0 - _E2)


def axis_range(values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the least and the greatest value of each column of (N, k) values: (k,) each."""
    low: NDArray[Any]
    low, high = _axis_range(values)
    return low, high


def geodetic_range(ecef: NDArray[np.float64]) -> tuple[float, float, float, float, float, float]:
    """Return west, south, east, north in degrees and the lowest and highest metres of positions.

    Bowring's formula of 1976 with the tangent of the reduced latitude, not iterated: within 1e-9
    degrees and a micrometre up to 10 km above the ellipsoid.

    Args:
        ecef: (N, 3) Earth-centred metres, at least one.
    """
    found: tuple[float, float, float, float, float, float] = _geodetic_range(ecef)
    return found


def placed(local: NDArray[np.float64], matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (N, 3) positions moved by a (4, 4) matrix of column vectors."""
    moved: NDArray[np.float64] = _placed(local, matrix)
    return moved


@njit(cache=True)
def _placed(local, matrix):  # type: ignore[no-untyped-def]
    out = np.empty((len(local), 3))
    for i in range(len(local)):
        x, y, z = local[i, 0], local[i, 1], local[i, 2]
        for k in range(3):
            out[i, k] = matrix[k, 0] * x + matrix[k, 1] * y + matrix[k, 2] * z + matrix[k, 3]
    return out


@njit(cache=True)
def _axis_range(values):  # type: ignore[no-untyped-def]
    low, high = values[0].copy(), values[0].copy()
    for i in range(len(values)):
        for k in range(values.shape[1]):
            value = values[i, k]
            if value < low[k]:
                low[k] = value
            if value > high[k]:
                high[k] = value
    return low, high


@njit(cache=True)
def _geodetic_range(ecef):  # type: ignore[no-untyped-def]
    west = south = low = np.inf
    east = north = high = -np.inf
    for i in range(len(ecef)):
        x, y, z = ecef[i, 0], ecef[i, 1], ecef[i, 2]
        rho = np.sqrt(x * x + y * y)
        # Sine and cosine of the reduced latitude, then of the latitude.
        a, b = z, (1.0 - FLATTENING) * rho
        length = np.sqrt(a * a + b * b)
        sin_b, cos_b = a / length, b / length
        a = z + _EP2 * SEMI_MINOR_M * sin_b**3
        b = rho - _E2 * SEMI_MAJOR_M * cos_b**3
        length = np.sqrt(a * a + b * b)
        sin_lat, cos_lat = a / length, b / length
        height = rho * cos_lat + z * sin_lat
        height -= SEMI_MAJOR_M * np.sqrt(1.0 - _E2 * sin_lat * sin_lat)
        lon, lat = np.arctan2(y, x), np.arctan2(a, b)
        west, east = min(west, lon), max(east, lon)
        south, north = min(south, lat), max(north, lat)
        low, high = min(low, height), max(high, height)
    return np.degrees(west), np.degrees(south), np.degrees(east), np.degrees(north), low, high
