"""The ground under footprints: the DEM of a catalogued terrain asset, and the terrain as drawn."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from catalog.database import Catalog
from ingest.drawn_terrain import DrawnTerrain
from ingest.workspace import Workspace
from tiling.dem import DemStack
from tiling.errors import SourceError
from tiling.findings import Findings
from tiling.tilers.terrain_spec import SEA_LEVEL

# Samples a pixel, so that no dip of the bilinear surface between two of them is overlooked.
_SAMPLES_A_PIXEL = 2
# Places that are sampled at once: some 100 MB of arrays.
_PLACES = 1_000_000


@dataclass(frozen=True, slots=True)
class TerrainGround:
    """Lowest and highest ground of each footprint, so that no wall floats.

    Outlines are sampled at the pixels they cross and not at their corners alone: along a wall
    the ground may be metres lower than at both of its ends. Viewers draw meshes, which leave the
    elevation model by what their level allows: the ground is the lower, and the higher, of both.

    Attributes:
        surface: the elevation models of the terrain asset.
        drawn: its finest meshes.
    """

    surface: DemStack
    drawn: DrawnTerrain

    def __call__(
        self, footprints: NDArray[np.object_], findings: Findings
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return (N,) lowest and (N,) highest ellipsoidal heights under N footprints, metres.

        Args:
            footprints: (N,) polygons in lon/lat degrees, N > 0.
            findings: counts the footprints that reach outside the DEM.
        """
        step_deg = self.surface.resolution_deg / _SAMPLES_A_PIXEL
        places = shapely.get_num_coordinates(footprints) + shapely.length(footprints) / step_deg
        chunk = (np.cumsum(places) // _PLACES).astype(np.int64)
        start = np.flatnonzero(np.append(True, chunk[1:] != chunk[:-1]))
        parts = np.split(footprints, start[1:])
        ranges = [self._range(part, step_deg, findings) for part in parts]
        lowest, highest = (np.concatenate(ends) for ends in zip(*ranges, strict=True))
        low, high = self.drawn.ranges(footprints, findings)
        return np.minimum(lowest, low), np.maximum(highest, high)

    def _range(
        self, footprints: NDArray[np.object_], step_deg: float, findings: Findings
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        outlines = shapely.segmentize(shapely.force_2d(footprints), step_deg)
        points, owner = shapely.get_coordinates(outlines, return_index=True)
        lon, lat = np.ascontiguousarray(points.T)
        height = self.surface.sample(lon, lat)
        outside = ~np.isfinite(height)
        height[outside] = SEA_LEVEL.separation(lon[outside], lat[outside])
        lowest = np.full(len(footprints), np.inf)
        highest = np.full(len(footprints), -np.inf)
        beyond = np.zeros(len(footprints), dtype=bool)
        beyond[owner[outside]] = True
        findings.add(
            "ground-outside-terrain",
            "assumption",
            "outlines that leave the terrain's data stand at mean sea level (EGM96) there, as the "
            "terrain tiles do",
            int(beyond.sum()),
        )
        np.minimum.at(lowest, owner, height)
        np.maximum.at(highest, owner, height)
        return lowest, highest


def terrain_state(catalog: Catalog, terrain_id: str) -> dict[str, Any]:
    """Return all that the ground of a terrain asset depends on, as JSON.

    Raises:
        NotFound: no such asset.
        SourceError: the asset is no terrain, or was made before elevation models were described.
    """
    item, version = catalog.item(terrain_id), catalog.version(terrain_id)
    if item.kind != "terrain":
        raise SourceError(
            f"--terrain {terrain_id!r} is an asset of kind {item.kind}, not a terrain",
            remedy="name a terrain asset: cim list shows them",
        )
    if not {"dem", "mesh"} <= version.info.get("terrain", {}).keys():
        raise SourceError(
            f"--terrain {terrain_id!r} was made by an older version of this program",
            remedy="ingest the terrain again",
        )
    return {
        "stores": [ref.sha256 for ref in version.stores],
        "terrain": json.loads(json.dumps(version.info["terrain"])),
    }


def open_ground(workspace: Workspace, catalog: Catalog, terrain_id: str) -> TerrainGround:
    """Open the elevation models and the finest meshes of a terrain asset.

    Raises:
        ConfigError: another version of this program made its meshes.
    """
    version = catalog.version(terrain_id)
    kept = dict(version.info["terrain"])
    paths = [workspace.root / ref.path for ref in version.stores if ref.role == "data"]
    surface = DemStack.from_json(paths, kept)
    return TerrainGround(surface, DrawnTerrain.of(workspace, version, surface))
