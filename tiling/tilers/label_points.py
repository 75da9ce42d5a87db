"""Where a feature is written: the visual centre of its largest part, found once for all zooms."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray


def label_points(polygons: NDArray[np.object_]) -> NDArray[np.float64]:
    """Return a point well inside the largest part of each polygon.

    Args:
        polygons: (N,) polygons or multipolygons, none empty.

    Returns:
        (N, 2) float64, in the frame of the polygons.
    """
    parts, owner = shapely.get_parts(polygons, return_index=True)
    order = np.lexsort((shapely.area(parts), owner))
    largest = order[np.flatnonzero(np.diff(owner[order], append=len(polygons)))]
    return np.asarray(shapely.get_coordinates(shapely.point_on_surface(parts[largest])))
