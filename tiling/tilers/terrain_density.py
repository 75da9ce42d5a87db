"""How dense the nodes of a terrain must lie, measured before anything is made.

The one idea: pixels between nodes are nobody's vertices. How far they lie off the surface through
the nodes is measured where the source has its pixels; what is left of a level's geometric error
is the tolerance of its meshes. Rough land gets nodes denser than its pixels, smooth land does not.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from tiling.batches import Lattice, PixelSource, TerrainSource
from tiling.bounds import Region
from tiling.tilers.terrain_probes import squares

# More pixels than this are measured in squares; what those may have missed is allowed for.
_LIMIT = 1_000_000
_MISSED = 1.25

Array = NDArray[np.float64]


def between_nodes_m(source: TerrainSource, step_deg: float, finest_step_deg: float) -> float:
    """Return how far pixels lie off the bilinear surface through nodes, at most, metres.

    Args:
        source: 0 is returned for one that cannot name its pixels.
        step_deg: distance of the nodes.
        finest_step_deg: the step at which nodes are as fine as pixels.
    """
    if not isinstance(source, PixelSource):
        return 0.0
    regions, whole = squares(source.extent, source.extent, source.resolution_deg, _LIMIT)
    worst = 0.0
    for region in regions:
        lon, lat, heights = source.pixels(region, _LIMIT)
        if len(lon):
            # Heights are asked as the finest level asks them: a coarser step may read overviews.
            step = min(step_deg, finest_step_deg)
            every = round(step_deg / step)
            found = _between(source, region, step, every, lon, lat)
            off = np.abs(found - heights)
            worst = max(worst, float(np.nanmax(off, initial=0.0)))
    return worst if whole else worst * _MISSED


def _between(
    source: TerrainSource, region: Region, step: float, every: int, lon: Array, lat: Array
) -> Array:
    wide = step * every
    around, top = round(360 / wide), round(180 / wide)
    i0 = max(math.floor((region.west + 180) / wide), 0)
    j0 = max(math.floor((region.south + 90) / wide), 0)
    i1 = min(math.floor((region.east + 180) / wide) + 1, around)
    j1 = min(math.floor((region.north + 90) / wide) + 1, top)
    lattice = Lattice(
        -180 + i0 * wide, -90 + j0 * wide, step, (i1 - i0) * every + 1, (j1 - j0) * every + 1
    )
    nodes = source.heights(lattice)[::every, ::every]
    x, y = (lon + 180) / wide - i0, (lat + 90) / wide - j0
    i = np.clip(x.astype(np.int64), 0, i1 - i0 - 1)
    j = np.clip(y.astype(np.int64), 0, j1 - j0 - 1)
    a, b = x - i, y - j
    south = nodes[j, i] * (1 - a) + nodes[j, i + 1] * a
    north = nodes[j + 1, i] * (1 - a) + nodes[j + 1, i + 1] * a
    found: Array = south * (1 - b) + north * b
    return found
