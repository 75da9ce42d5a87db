"""How dense the nodes of a terrain must lie, measured before anything is made.

The one idea: pixels between nodes are nobody's vertices. How far they lie off the surface through
the nodes is measured where the source has its pixels; what is left of a level's geometric error
is the tolerance of its meshes. Rough land gets nodes denser than its pixels, smooth land does not.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tiling.batches import Lattice, PixelSource, TerrainSource
from tiling.bounds import Region
from tiling.kernels import njit
from tiling.tilers.terrain_probes import Probes, squares

# More pixels than this are measured in squares; what those may have missed is allowed for.
_LIMIT = 1_000_000
_MISSED = 1.25

Array = NDArray[np.float64]


class PixelSamples(NamedTuple):
    """Pixels of a source by which the density of nodes is judged.

    Attributes:
        parts: the pixels of each region, with their ellipsoidal heights.
        whole: whether these are all pixels.
    """

    parts: tuple[tuple[Region, Probes], ...]
    whole: bool

    @classmethod
    def of(cls, source: TerrainSource) -> PixelSamples:
        """Choose pixels; there are none of a source that cannot name its pixels."""
        if not isinstance(source, PixelSource):
            return cls((), True)
        regions, whole = squares(source.extent, source.extent, source.resolution_deg, _LIMIT)
        found = ((region, Probes(*source.pixels(region, _LIMIT))) for region in regions)
        return cls(tuple((region, probes) for region, probes in found if len(probes.lon)), whole)

    def between_nodes_m(self, source: TerrainSource, step_deg: float) -> float:
        """Return how far pixels lie off the bilinear surface through nodes, at most, metres.

        Args:
            source: whose pixels these are.
            step_deg: distance of the nodes.
        """
        around, top = round(360 / step_deg), round(180 / step_deg)
        worst = 0.0
        for region, probes in self.parts:
            i0 = max(math.floor((region.west + 180) / step_deg), 0)
            j0 = max(math.floor((region.south + 90) / step_deg), 0)
            i1 = min(math.floor((region.east + 180) / step_deg) + 1, around)
            j1 = min(math.floor((region.north + 90) / step_deg) + 1, top)
            lattice = Lattice(
                -180 + i0 * step_deg, -90 + j0 * step_deg, step_deg, i1 - i0 + 1, j1 - j0 + 1
            )
            x, y = (probes.lon + 180) / step_deg - i0, (probes.lat + 90) / step_deg - j0
            worst = max(worst, largest_off(source.heights(lattice), x, y, probes.heights))
        return worst if self.whole else worst * _MISSED


@njit(cache=True)
def largest_off(nodes: Array, x: Array, y: Array, heights: Array) -> float:
    """Return how far heights lie off the bilinear surface through nodes, at most.

    Args:
        nodes: (rows, columns) float64 metres, at least 2 of each; NaN is void, and no surface.
        x, y: (N,) float64 places in nodes, 0 at the first.
        heights: (N,) float64 metres.
    """
    worst = 0.0
    rows, columns = nodes.shape
    for k in range(len(x)):
        i, j = min(max(int(x[k]), 0), columns - 2), min(max(int(y[k]), 0), rows - 2)
        a, b = x[k] - i, y[k] - j
        south = nodes[j, i] * (1 - a) + nodes[j, i + 1] * a
        north = nodes[j + 1, i] * (1 - a) + nodes[j + 1, i + 1] * a
        off = abs(south * (1 - b) + north * b - heights[k])
        # False for NaN.
        if off > worst:
            worst = off
    return worst
