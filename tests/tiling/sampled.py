"""Raster sheets as a terrain source: ellipsoidal heights on lattices.

The one idea: sampling is a pure function of the place, so a lattice is asked like any set of places
and the separation of the datum is added there.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tests.elevation_raster import ElevationRaster
from tiling.batches import Lattice
from tiling.bounds import Region
from tiling.errors import DatumUndeclared
from tiling.geoid import VerticalDatum

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ElevationTerrain:
    """A `TerrainSource` and `PixelSource` over an `ElevationRaster`.

    Attributes:
        raster: heights in ``raster.ref.vertical``.

    Raises:
        DatumUndeclared: the heights have no vertical datum.
    """

    raster: ElevationRaster

    def __post_init__(self) -> None:
        if self.raster.ref.vertical is None:
            raise DatumUndeclared(
                "the heights of the elevation model have no vertical datum",
                remedy="declare it: --vertical EPSG:5737, ellipsoidal, offset:METRES or grid:FILE",
            )

    @property
    def _vertical(self) -> VerticalDatum:
        vertical = self.raster.ref.vertical
        assert vertical is not None
        return vertical

    @property
    def resolution_deg(self) -> float:
        """The finest pixel's size."""
        return self.raster.resolution_deg

    @property
    def extent(self) -> Region:
        """Lon/lat degrees of all sheets, and the range of their ellipsoidal heights."""
        return self._lifted(self.raster.extent)

    @property
    def coverage(self) -> tuple[Region, ...]:
        """The same for every sheet."""
        return tuple(self._lifted(region) for region in self.raster.coverage)

    @cached_property
    def _separation(self) -> tuple[float, float]:
        region = self.raster.extent
        lon, lat = np.meshgrid(
            np.linspace(region.west, region.east, 129),
            np.linspace(region.south, region.north, 129),
        )
        data = np.isfinite(self.raster.sample(lon.ravel(), lat.ravel()))
        inside = data if data.any() else np.ones_like(data)
        found = self._vertical.separation(lon.ravel()[inside], lat.ravel()[inside])
        low, high = float(found.min()), float(found.max())
        # The separation is smooth: what it does between these places stays within this margin.
        margin = 0.5 + 0.1 * (high - low) if high > low else 0.0
        return low - margin, high + margin

    def _lifted(self, region: Region) -> Region:
        low, high = self._separation
        return region._replace(
            min_height_m=region.min_height_m + low, max_height_m=region.max_height_m + high
        )

    def heights(self, lattice: Lattice) -> Array:
        """Return heights on a lattice; see `tiling.batches.TerrainSource`.

        Raises:
            SourceUnreadable: a block cannot be read.
        """
        lon, lat = np.meshgrid(
            lattice.west_deg + np.arange(lattice.columns) * lattice.step_deg,
            lattice.south_deg + np.arange(lattice.rows) * lattice.step_deg,
        )
        return self._ellipsoidal(lon.ravel(), lat.ravel()).reshape(lon.shape)

    def pixels(self, region: Region, limit: int) -> tuple[Array, Array, Array]:
        """Return pixels inside a region; see `tiling.batches.PixelSource`."""
        lon, lat = self.raster.pixel_centres(region, limit)
        heights = self._ellipsoidal(lon, lat)
        data = np.isfinite(heights)
        return lon[data], lat[data], heights[data]

    def _ellipsoidal(self, lon: Array, lat: Array) -> Array:
        heights = self.raster.sample(lon, lat)
        data = np.isfinite(heights)
        heights[data] += self._vertical.separation(lon[data], lat[data])
        return heights
