"""Clipping to a rectangle: the fast way of GEOS, and its safe one where that fails.

`clip_by_rect` of GEOS 3.13 makes rings of three points out of some valid slivers, of which it then
complains: one of them would take all others of a call with it.
"""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.errors import GEOSException

Geometries = NDArray[np.object_]


def clip_by_rect(
    geometries: Geometries, west: float, south: float, east: float, north: float
) -> Geometries:
    """Return what lies in a rectangle of (N,) valid geometries: (N,), empty where nothing does."""
    try:
        return np.asarray(shapely.clip_by_rect(geometries, west, south, east, north), dtype=object)
    except GEOSException:
        if len(geometries) == 1:
            return np.asarray(
                shapely.intersection(geometries, shapely.box(west, south, east, north)),
                dtype=object,
            )
    # Halved until those that fail are alone: few do.
    half = len(geometries) // 2
    parts = [
        clip_by_rect(part, west, south, east, north)
        for part in (geometries[:half], geometries[half:])
    ]
    return np.concatenate(parts)
