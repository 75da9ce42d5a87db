"""What PROJ and the raw EGM96 grid say: answers that share no code with the project.

Longitude first, degrees; metres.
"""

from __future__ import annotations

import lzma
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyproj
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Half the side of the web mercator square: pi times the semi-major axis.
WORLD_HALF_M = np.pi * 6378137.0
_GRID = Path(__file__).parents[2] / "tiling" / "data" / "WW15MGH.DAC.xz"
_NODES_A_DEGREE = 4


@lru_cache(maxsize=1)
def _egm96() -> Floats:
    # NGA's layout: big-endian centimetres, rows from the north pole, columns from Greenwich east.
    raw = np.frombuffer(lzma.decompress(_GRID.read_bytes()), dtype=">i2")
    return raw.reshape(180 * _NODES_A_DEGREE + 1, 360 * _NODES_A_DEGREE) / 100.0


def undulation_m(lon: Floats, lat: Floats) -> Floats:
    """Return the height of the EGM96 geoid above the ellipsoid, bilinear on 15'."""
    grid = _egm96()
    column, row = np.mod(lon, 360) * _NODES_A_DEGREE, (90 - lat) * _NODES_A_DEGREE
    west, north = np.floor(column).astype(int), np.floor(row).astype(int)
    east, south = (west + 1) % grid.shape[1], np.minimum(north + 1, grid.shape[0] - 1)
    a, b = column - west, row - north
    above = grid[north, west] + a * (grid[north, east] - grid[north, west])
    below = grid[south, west] + a * (grid[south, east] - grid[south, west])
    return np.asarray(above + b * (below - above))


@lru_cache(maxsize=8)
def _between(source: int, target: int) -> pyproj.Transformer:
    return pyproj.Transformer.from_crs(source, target, always_xy=True)


def reproject(source: int, target: int, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Return PROJ's coordinates in another EPSG frame."""
    u, v = _between(source, target).transform(x, y, errcheck=True)
    return np.asarray(u), np.asarray(v)


def to_ecef(lon: Floats, lat: Floats, height_m: Floats) -> Floats:
    """Return PROJ's (N, 3) Earth-centred metres."""
    return np.stack(_between(4979, 4978).transform(lon, lat, height_m, errcheck=True), axis=-1)


def from_ecef(ecef: Floats) -> tuple[Floats, Floats, Floats]:
    """Return PROJ's longitude, latitude and ellipsoidal height of (N, 3) metres."""
    lon, lat, height = _between(4978, 4979).transform(*ecef.T, errcheck=True)
    return np.asarray(lon), np.asarray(lat), np.asarray(height)


def to_gcj02(lon: Floats, lat: Floats) -> tuple[Floats, Floats]:
    """Return where internet maps of China show a place: the formula that is public since 2010."""
    x, y = lon - 105, lat - 35
    wave = 20 * (np.sin(6 * np.pi * x) + np.sin(2 * np.pi * x))
    north = -100 + 2 * x + 3 * y + 0.2 * y * y + 0.1 * x * y + 0.2 * np.sqrt(np.abs(x))
    north += (wave + 20 * np.sin(np.pi * y) + 40 * np.sin(np.pi * y / 3)) * 2 / 3
    north += (160 * np.sin(np.pi * y / 12) + 320 * np.sin(np.pi * y / 30)) * 2 / 3
    east = 300 + x + 2 * y + 0.1 * x * x + 0.1 * x * y + 0.1 * np.sqrt(np.abs(x))
    east += (wave + 20 * np.sin(np.pi * x) + 40 * np.sin(np.pi * x / 3)) * 2 / 3
    east += (150 * np.sin(np.pi * x / 12) + 300 * np.sin(np.pi * x / 30)) * 2 / 3
    # Krassovsky's ellipsoid.
    a, ee = 6378245.0, 0.00669342162296594323
    phi = np.radians(lat)
    w = 1 - ee * np.sin(phi) ** 2
    return (
        lon + np.degrees(east / (a / np.sqrt(w) * np.cos(phi))),
        lat + np.degrees(north / (a * (1 - ee) / w**1.5)),
    )
