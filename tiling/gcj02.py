"""The shifted frames of Chinese internet maps: GCJ-02 and Baidu's BD-09 on top of it.

The forward formulas are the public ones; the inverses are fixed points of them, because the
customary one-step inverse errs by up to 0.7 m. Degrees on CGCS2000, longitude first. These are
frames in which data arrives, never frames in which it is stored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

LonLat: TypeAlias = tuple[NDArray[np.float64], NDArray[np.float64]]

# Krasovsky 1940, as the formula uses it.
_A = 6378245.0
_EE = 0.00669342162296594323
# Outside this box the GCJ-02 formula is the identity.
_WEST, _EAST, _SOUTH, _NORTH = 72.004, 137.8347, 0.8293, 55.8271

_BD_TURN = np.pi * 3000.0 / 180.0
_BD_LON, _BD_LAT = 0.0065, 0.006

# The shifts change by less than 1 % over a shift's length: each step gains two digits or more.
_STEPS = 12
_TOLERANCE_DEG = 1e-12


def _inside(lon: NDArray[np.float64], lat: NDArray[np.float64]) -> NDArray[np.bool_]:
    inside: NDArray[np.bool_] = (lon >= _WEST) & (lon <= _EAST) & (lat >= _SOUTH) & (lat <= _NORTH)
    return inside


def _gcj_shift(lon: NDArray[np.float64], lat: NDArray[np.float64]) -> LonLat:
    x, y, pi = lon - 105.0, lat - 35.0, np.pi
    root = np.sqrt(np.abs(x))
    ripple = (20.0 * np.sin(6.0 * x * pi) + 20.0 * np.sin(2.0 * x * pi)) * 2.0 / 3.0
    north = -100.0 + 2.0 * x + 3.0 * y + 0.2 * y * y + 0.1 * x * y + 0.2 * root + ripple
    north += (20.0 * np.sin(y * pi) + 40.0 * np.sin(y / 3.0 * pi)) * 2.0 / 3.0
    north += (160.0 * np.sin(y / 12.0 * pi) + 320.0 * np.sin(y * pi / 30.0)) * 2.0 / 3.0
    east = 300.0 + x + 2.0 * y + 0.1 * x * x + 0.1 * x * y + 0.1 * root + ripple
    east += (20.0 * np.sin(x * pi) + 40.0 * np.sin(x / 3.0 * pi)) * 2.0 / 3.0
    east += (150.0 * np.sin(x / 12.0 * pi) + 300.0 * np.sin(x / 30.0 * pi)) * 2.0 / 3.0
    phi = np.radians(lat)
    w2 = 1.0 - _EE * np.sin(phi) ** 2
    meridian = _A * (1.0 - _EE) / (w2 * np.sqrt(w2))
    parallel = _A / np.sqrt(w2) * np.cos(phi)
    return np.degrees(east / parallel), np.degrees(north / meridian)


def _bd_shift(lon: NDArray[np.float64], lat: NDArray[np.float64]) -> LonLat:
    radius = np.hypot(lon, lat) + 0.00002 * np.sin(lat * _BD_TURN)
    angle = np.arctan2(lat, lon) + 0.000003 * np.cos(lon * _BD_TURN)
    return radius * np.cos(angle) + _BD_LON - lon, radius * np.sin(angle) + _BD_LAT - lat


def _arrays(lon_deg: ArrayLike, lat_deg: ArrayLike) -> LonLat:
    return np.asarray(lon_deg, dtype=np.float64), np.asarray(lat_deg, dtype=np.float64)


def _unshift(
    shift: Callable[[NDArray[np.float64], NDArray[np.float64]], LonLat],
    lon: NDArray[np.float64],
    lat: NDArray[np.float64],
) -> LonLat:
    x, y = lon, lat
    for _ in range(_STEPS):
        dx, dy = shift(x, y)
        moved = np.maximum(np.abs(lon - dx - x), np.abs(lat - dy - y))
        x, y = lon - dx, lat - dy
        if not np.any(moved > _TOLERANCE_DEG):
            break
    return x, y


def cgcs2000_to_gcj02(lon_deg: ArrayLike, lat_deg: ArrayLike) -> LonLat:
    """Shift CGCS2000 into GCJ-02; the identity outside 72.004-137.8347 E, 0.8293-55.8271 N.

    Args:
        lon_deg, lat_deg: (N,) degrees.

    Returns:
        two (N,) float64 arrays, degrees.
    """
    lon, lat = _arrays(lon_deg, lat_deg)
    dx, dy = _gcj_shift(lon, lat)
    inside = _inside(lon, lat)
    return np.where(inside, lon + dx, lon), np.where(inside, lat + dy, lat)


def gcj02_to_cgcs2000(lon_deg: ArrayLike, lat_deg: ArrayLike) -> LonLat:
    """Invert `cgcs2000_to_gcj02` to well under a millimetre.

    Along the border of the formula's box (far from any land of China) the forward map jumps, and
    within one shift's length of it no inverse exists.

    Args:
        lon_deg, lat_deg: (N,) degrees GCJ-02.

    Returns:
        two (N,) float64 arrays, degrees CGCS2000.
    """
    lon, lat = _arrays(lon_deg, lat_deg)
    x, y = _unshift(_gcj_shift, lon, lat)
    inside = _inside(lon, lat)
    return np.where(inside, x, lon), np.where(inside, y, lat)


def cgcs2000_to_bd09(lon_deg: ArrayLike, lat_deg: ArrayLike) -> LonLat:
    """Shift CGCS2000 into Baidu's BD-09 (GCJ-02, and Baidu's own shift on top).

    Args:
        lon_deg, lat_deg: (N,) degrees.

    Returns:
        two (N,) float64 arrays, degrees.
    """
    lon, lat = cgcs2000_to_gcj02(lon_deg, lat_deg)
    dx, dy = _bd_shift(lon, lat)
    return lon + dx, lat + dy


def bd09_to_cgcs2000(lon_deg: ArrayLike, lat_deg: ArrayLike) -> LonLat:
    """Invert `cgcs2000_to_bd09` to well under a millimetre.

    Args:
        lon_deg, lat_deg: (N,) degrees BD-09.

    Returns:
        two (N,) float64 arrays, degrees CGCS2000.
    """
    return gcj02_to_cgcs2000(*_unshift(_bd_shift, *_arrays(lon_deg, lat_deg)))
