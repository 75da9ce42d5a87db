"""Surfaces to test with: an analytic one, and a raster of the test data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiling.batches import Lattice
from tiling.bounds import Region

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Analytic:
    """A `TerrainSource` whose heights are a formula of longitude and latitude."""

    formula: Callable[[Array, Array], Array]
    area: Region = Region(113.0, 31.0, 114.0, 32.0)
    resolution_deg: float = 1e-4

    @property
    def extent(self) -> Region:
        return self.area

    @property
    def coverage(self) -> tuple[Region, ...]:
        return (self.area,)

    def heights(self, lattice: Lattice) -> Array:
        lon = lattice.west_deg + np.arange(lattice.columns) * lattice.step_deg
        lat = lattice.south_deg + np.arange(lattice.rows) * lattice.step_deg
        assert lon.min() >= -180 and lon.max() <= 180 and lat.min() >= -90 and lat.max() <= 90
        x, y = np.meshgrid(lon, lat)
        inside = (x >= self.area.west) & (x <= self.area.east)
        inside &= (y >= self.area.south) & (y <= self.area.north)
        return np.where(inside, self.formula(x, y), np.nan)


def hills(lon: Array, lat: Array) -> Array:
    return 300 + 180 * np.sin(lon * 251.0) * np.cos(lat * 173.0) + 40 * np.sin(lon * lat * 7)
