"""Where a feature is written: the visual centre of its largest part, found once for all zooms."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray

# The centre of the largest inscribed circle is found to this share of the polygon's size.
_PRECISION = 0.01
# The centroid is where the eye looks first: it is taken if a circle about it is nearly as large.
# So a long rectangle has its name in the middle, though circles of one size fit anywhere in it.
_NEARLY = 0.9


def inner_points(polygons: NDArray[np.object_]) -> NDArray[np.float64]:
    """Return some point inside the largest part of each polygon; twenty times as fast.

    Args:
        polygons: (N,) polygons or multipolygons, none empty.

    Returns:
        (N, 2) float64, in the frame of the polygons.
    """
    return np.asarray(shapely.get_coordinates(shapely.point_on_surface(_largest(polygons))))


def label_points(polygons: NDArray[np.object_]) -> NDArray[np.float64]:
    """Return the visual centre of the largest part of each polygon.

    It is the centroid where that lies well inside, else the centre of the largest circle that fits
    (the "pole of inaccessibility").

    Args:
        polygons: (N,) valid polygons or multipolygons, none empty.

    Returns:
        (N, 2) float64, in the frame of the polygons, each inside its polygon.
    """
    parts = _largest(polygons)
    found = inner_points(parts)
    area = shapely.area(parts)
    solid = np.flatnonzero(area > 0.0)
    if not len(solid):
        return found
    parts = parts[solid]
    circles = shapely.maximum_inscribed_circle(parts, tolerance=_PRECISION * np.sqrt(area[solid]))
    # A radius as a line: from the centre to the nearest point of the edge.
    centre, radius = shapely.get_point(circles, 0), shapely.length(circles)
    middle = shapely.centroid(parts)
    room = np.where(
        shapely.contains(parts, middle), shapely.distance(middle, shapely.boundary(parts)), 0.0
    )
    chosen = np.where(room >= _NEARLY * radius, middle, centre)
    # A sliver thinner than the precision of its coordinates has its centre on the edge.
    inside = shapely.contains(parts, chosen)
    found[solid[inside]] = shapely.get_coordinates(chosen[inside])
    return found


def _largest(polygons: NDArray[np.object_]) -> NDArray[np.object_]:
    parts, owner = shapely.get_parts(polygons, return_index=True)
    order = np.lexsort((shapely.area(parts), owner))
    return np.asarray(parts[order[np.flatnonzero(np.diff(owner[order], append=len(polygons)))]])
