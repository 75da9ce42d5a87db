"""Hashes of outlines: the same walls have the same hash, whichever vertex they begin at."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray

_Hashes = NDArray[np.uint64]
# Coordinates are compared to this: about 0.1 mm on the ground, below every survey.
_QUANTUM_DEG = 1e-9


def outline_hashes(geometry: NDArray[np.object_]) -> _Hashes:
    """Return (N,) uint64 hashes of N polygons or multipolygons in lon/lat degrees.

    The hash of an outline is the sum of the hashes of its edges, and that of an edge does not
    know its direction: neither the first vertex, nor the direction, nor the order of rings and
    parts matters. The same outline read twice has the same hash; two outlines that differ have
    the same one with a chance of 2**-64. Coordinates are rounded, so outlines that differ by
    noise around a rounding border count as different.
    """
    polygons, feature_of = shapely.get_parts(geometry, return_index=True)
    rings, polygon_of = shapely.get_rings(polygons, return_index=True)
    points, ring_of = shapely.get_coordinates(rings, return_index=True)
    cells = np.round(points / _QUANTUM_DEG).astype(np.int64).view(np.uint64)
    corner = _mixed(_mixed(cells[:, 0]) + np.uint64(3) * cells[:, 1])
    inside = ring_of[1:] == ring_of[:-1]
    edge = _mixed(corner[1:] + corner[:-1])[inside]
    owner = feature_of[polygon_of[ring_of[1:][inside]]]
    # Sums of ranges by the difference of running sums; both wrap around alike.
    running = np.concatenate([np.zeros(1, np.uint64), np.cumsum(edge, dtype=np.uint64)])
    ends = np.searchsorted(owner, np.arange(len(geometry) + 1))
    return _mixed(running[ends[1:]] - running[ends[:-1]])


def _mixed(values: _Hashes) -> _Hashes:
    # The finaliser of SplitMix64 (Steele, Lea and Flood, 2014): every bit reaches every other.
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(values ^ (values >> np.uint64(31)), dtype=np.uint64)
