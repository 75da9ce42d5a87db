"""Size rules G8 and G9: outlines that no building has are kept and counted."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray

from tiling.batches import MESH_COLUMN, FeatureBatch
from tiling.findings import Findings

# Mean width below which an outline is a sliver, and extent above which it is no building.
SLIVER_M = 0.2
HUGE_M = 5000.0
# Metres of a degree of latitude on a sphere of the WGS 84 equatorial radius: enough to judge by.
_DEGREE_M = 111_319.49


def slivers(batch: FeatureBatch, findings: Findings) -> FeatureBatch:
    """G8: outlines less than `SLIVER_M` wide (twice the area by the perimeter)."""
    geometry = batch.geometry
    # A degree of longitude is the shorter one, so this is the least the width can be.
    latitude = shapely.bounds(geometry)[:, 1]
    scale = np.cos(np.radians(latitude))
    least = 2 * shapely.area(geometry) * scale * _DEGREE_M / shapely.length(geometry)
    near = np.flatnonzero(least < SLIVER_M)
    if MESH_COLUMN in batch.attributes.column_names and len(near):
        # The footprint of a wall that stands alone is made as thin as that.
        own = np.asarray(batch.attributes.column(MESH_COLUMN).is_valid().to_numpy())
        near = near[~own[near]]
    if not len(near):
        return batch
    thin = near[_widths_m(geometry[near]) < SLIVER_M]
    findings.add(
        "G8-sliver",
        "warning",
        f"outlines less than {SLIVER_M:g} m wide; they are kept",
        len(thin),
        batch.ids[thin].tolist(),
    )
    return batch


def _widths_m(geometry: NDArray[np.object_]) -> NDArray[np.float64]:
    """Return twice the area by the perimeter of N polygons in degrees, metres."""
    points, owner = shapely.get_coordinates(geometry, return_index=True)
    scale = np.cos(np.radians(points[:, 1]))
    # From the first corner of each, where longitudes are scaled by their own latitude.
    first = np.searchsorted(owner, np.arange(len(geometry)))
    flat = (points - points[first][owner]) * _DEGREE_M
    flat[:, 0] *= scale[first][owner]
    metric = shapely.set_coordinates(geometry.copy(), flat)
    return np.asarray(2 * shapely.area(metric) / shapely.length(metric))


def huge_outlines(batch: FeatureBatch, findings: Findings) -> FeatureBatch:
    """G9: outlines more than `HUGE_M` across, corner to corner of their box."""
    west, south, east, north = shapely.bounds(batch.geometry).T
    across = np.hypot((east - west) * np.cos(np.radians(south)), north - south) * _DEGREE_M
    huge = across > HUGE_M
    findings.add(
        "G9-huge",
        "warning",
        f"outlines more than {HUGE_M / 1000:g} km across are hardly buildings; they are kept",
        int(huge.sum()),
        batch.ids[huge].tolist(),
    )
    return batch
