"""The ground under footprints, sampled from the DEM of a catalogued terrain asset."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from catalog.database import Catalog
from ingest.readers import open_source
from ingest.readers.base import ReadOptions
from ingest.readers.raster import RasterReader
from ingest.workspace import Workspace
from tiling.batches import ElevationSource
from tiling.errors import SourceError
from tiling.findings import Findings
from tiling.geoid import VerticalDatum

# Samples a pixel, so that no dip of the bilinear surface between two of them is overlooked.
_SAMPLES_A_PIXEL = 2
# Places that are sampled at once: some 100 MB of arrays.
_PLACES = 1_000_000


@dataclass(frozen=True, slots=True)
class TerrainGround:
    """Lowest and highest ground along the outline of each footprint, so that no wall floats.

    Outlines are sampled at the pixels they cross and not at their corners alone: along a wall
    the ground may be metres lower than at both of its ends.

    Attributes:
        elevation: the DEM of the terrain asset.
        vertical: its vertical datum.
    """

    elevation: ElevationSource
    vertical: VerticalDatum

    def __call__(
        self, footprints: NDArray[np.object_], findings: Findings
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return (N,) lowest and (N,) highest ellipsoidal heights along N outlines, metres.

        Args:
            footprints: (N,) polygons in lon/lat degrees, N > 0.
            findings: counts the footprints that reach outside the DEM.
        """
        step_deg = self.elevation.resolution_deg / _SAMPLES_A_PIXEL
        places = shapely.get_num_coordinates(footprints) + shapely.length(footprints) / step_deg
        chunk = (np.cumsum(places) // _PLACES).astype(np.int64)
        start = np.flatnonzero(np.append(True, chunk[1:] != chunk[:-1]))
        parts = np.split(footprints, start[1:])
        ranges = [self._range(part, step_deg, findings) for part in parts]
        lowest, highest = (np.concatenate(ends) for ends in zip(*ranges, strict=True))
        return lowest, highest

    def _range(
        self, footprints: NDArray[np.object_], step_deg: float, findings: Findings
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        outlines = shapely.segmentize(shapely.force_2d(footprints), step_deg)
        points, owner = shapely.get_coordinates(outlines, return_index=True)
        lon, lat = np.ascontiguousarray(points.T)
        height = self.elevation.sample(lon, lat)
        outside = ~np.isfinite(height)
        lowest = np.full(len(footprints), np.inf)
        highest = np.full(len(footprints), -np.inf)
        beyond = np.zeros(len(footprints), dtype=bool)
        beyond[owner[outside]] = True
        findings.add(
            "ground-outside-terrain",
            "assumption",
            "outlines that leave the terrain's data stand at 0 m of its vertical datum, as the "
            "terrain tiles do there",
            int(beyond.sum()),
        )
        ellipsoidal = np.where(outside, 0.0, height) + self.vertical.separation(lon, lat)
        np.minimum.at(lowest, owner, ellipsoidal)
        np.maximum.at(highest, owner, ellipsoidal)
        return lowest, highest


def terrain_data(catalog: Catalog, terrain_id: str) -> tuple[str, str, VerticalDatum]:
    """Return path and sha256 of the DEM that a terrain asset keeps, and its vertical datum.

    Raises:
        NotFound: no such asset.
        SourceError: the asset is no terrain.
    """
    item, version = catalog.item(terrain_id), catalog.version(terrain_id)
    for ref in version.stores:
        if item.kind == "terrain" and ref.role == "data":
            return ref.path, ref.sha256, VerticalDatum.from_json(dict(version.info["vertical"]))
    raise SourceError(
        f"--terrain {terrain_id!r} is an asset of kind {item.kind}, not a terrain",
        remedy="name a terrain asset: cim list shows them",
    )


def open_ground(workspace: Workspace, catalog: Catalog, terrain_id: str) -> TerrainGround:
    """Open the DEM of a terrain asset for sampling."""
    path, _, vertical = terrain_data(catalog, terrain_id)
    reader = open_source(workspace.root / path, ReadOptions())
    assert isinstance(reader, RasterReader)
    return TerrainGround(reader.elevation(vertical), vertical)
