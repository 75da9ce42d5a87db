"""Places along a line, with their distance on the ellipsoid, and what heights along it add up to.

Between its vertices a line is straight in longitude and latitude, as GeoJSON has it (RFC 7946
§3.1.1). Distances are those along the ellipsoid: lines are cut into chords of at most 500 m, which
differ from the arcs above them by less than c³ / 24 R², a micrometre each.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tiling.ellipsoid import geodetic_to_ecef

Array = NDArray[np.float64]

_CHORD_M = 500.0
# At most this long is a degree, of latitude at a pole or of longitude at the equator.
_DEGREE_M = 111_700.0


class Path(NamedTuple):
    """N places along a line, from its beginning to its end.

    Attributes:
        lon, lat: (N,) float64 degrees.
        distance_m: (N,) float64 metres from the beginning, rising.
    """

    lon: Array
    lat: Array
    distance_m: Array


class Climb(NamedTuple):
    """What heights along a line add up to; NaN where none is known.

    Attributes:
        min_m, max_m: lowest and highest.
        ascent_m, descent_m: sums of the rises and of the falls between neighbouring places that
            both have a height.
        voids: places without a height.
    """

    min_m: float
    max_m: float
    ascent_m: float
    descent_m: float
    voids: int


def most_length_m(lon_deg: Array, lat_deg: Array) -> float:
    """Return a bound that the length of a line does not exceed, cheaply.

    Args:
        lon_deg, lat_deg: (V,) degrees of its vertices.
    """
    return float(np.hypot(np.diff(lon_deg), np.diff(lat_deg)).sum()) * _DEGREE_M


def trace(lon_deg: Array, lat_deg: Array) -> Path:
    """Return a line as a chain of short chords, its vertices among them.

    Args:
        lon_deg, lat_deg: (V,) degrees of its vertices, two or more.
    """
    reach = np.hypot(np.diff(lon_deg), np.diff(lat_deg)) * _DEGREE_M
    pieces = np.maximum(1, np.ceil(reach / _CHORD_M)).astype(np.int64)
    vertex = np.concatenate([[0], np.cumsum(pieces)]).astype(np.float64)
    at = np.arange(int(vertex[-1]) + 1, dtype=np.float64)
    lon, lat = np.interp(at, vertex, lon_deg), np.interp(at, vertex, lat_deg)
    ecef = geodetic_to_ecef(lon, lat, 0.0)
    chords = np.linalg.norm(np.diff(ecef, axis=0), axis=1)
    return Path(lon, lat, np.concatenate([[0.0], np.cumsum(chords)]))


def evenly(path: Path, count: int) -> Path:
    """Return places at equal distances along a traced line, both ends included.

    Args:
        path: as `trace` returned it; of some length.
        count: number of places, two or more.
    """
    distance = np.linspace(0.0, path.distance_m[-1], count)
    # Where vertices repeat, distance stands still: one name for each place.
    moved = np.concatenate([[True], np.diff(path.distance_m) > 0])
    known = path.distance_m[moved]
    lon = np.interp(distance, known, path.lon[moved])
    return Path(lon, np.interp(distance, known, path.lat[moved]), distance)


def count_for(length_m: float, spacing_m: float) -> int:
    """Return how many places are no further apart than a spacing, both ends included."""
    return max(2, math.ceil(length_m / spacing_m - 1e-9) + 1)


def climb(heights: Array) -> Climb:
    """Add up the heights along a line.

    Args:
        heights: (N,) metres, NaN where void.
    """
    known = np.isfinite(heights)
    steps = np.diff(heights)
    steps = steps[np.isfinite(steps)]
    low, high = (heights[known].min(), heights[known].max()) if known.any() else (np.nan, np.nan)
    rise, fall = steps[steps > 0].sum(), -steps[steps < 0].sum()
    return Climb(float(low), float(high), float(rise), float(fall), int((~known).sum()))
