"""Clipping to a rectangle: the fast way of GEOS, and its safe one where that fails.

`clip_by_rect` of GEOS 3.13 makes rings of three points out of some valid slivers, of which it then
complains, so that one of them takes all others of a call with it; of others it returns the whole
rectangle. Both are seen here, and clipped by the overlay of GEOS.
"""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.errors import GEOSException

Geometries = NDArray[np.object_]

# What is clipped may grow by roundings only: of its own area, and of the rectangle's.
_OWN, _RECT = 1e-6, 1e-12


def clip_by_rect(
    geometries: Geometries, west: float, south: float, east: float, north: float
) -> Geometries:
    """Return what lies in a rectangle of (N,) valid geometries: (N,), empty where nothing does."""
    clipped = _clipped(geometries, west, south, east, north)
    most = shapely.area(geometries) * (1 + _OWN) + (east - west) * (north - south) * _RECT
    wrong = np.flatnonzero(shapely.area(clipped) > most)
    if len(wrong):
        clipped[wrong] = shapely.intersection(
            geometries[wrong], shapely.box(west, south, east, north)
        )
    return clipped


def _clipped(
    geometries: Geometries, west: float, south: float, east: float, north: float
) -> Geometries:
    try:
        return np.asarray(shapely.clip_by_rect(geometries, west, south, east, north), dtype=object)
    except GEOSException:
        if len(geometries) == 1:
            rect = shapely.box(west, south, east, north)
            return np.asarray(shapely.intersection(geometries, rect), dtype=object)
    # Halved until those that fail are alone: few do.
    half = len(geometries) // 2
    parts = (geometries[:half], geometries[half:])
    return np.concatenate([_clipped(part, west, south, east, north) for part in parts])
