"""Elevation from any stack of Cloud Optimized GeoTIFFs: one surface, asked anywhere.

`DemLayer` is one raster and its frame; `DemStack` lays layers over each other, the first with data
wins, and seams are feathered. Everything here compiles with Numba: a serving process asks a worker.
"""

from tiling.dem.layer import DemLayer
from tiling.dem.stack import DemStack

__all__ = ["DemLayer", "DemStack"]
