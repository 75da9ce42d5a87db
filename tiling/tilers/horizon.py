"""Bounding sphere and horizon occlusion point of a terrain tile.

The one idea: both are computed from the vertices as a decoder sees them (quantised), so they
hold for what is drawn. The occlusion point lives in the space scaled by the ellipsoid's radii,
where the Earth is the unit sphere: if the point is below the horizon, the whole tile is.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

WGS84_RADII_M = np.array([6378137.0, 6378137.0, 6356752.3142451793])

# A tile that reaches a quarter of the globe from its centre (the two roots) has no finite
# occlusion point; a point this far out is hidden only from where the whole half globe is.
FAR_MAGNITUDE = 1e6
SPHERE_SLACK_M = 1e-3


def bounding_sphere(points: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Return a sphere that contains every point.

    Its centre is that of the points' axis-aligned box: within a few per cent of the smallest
    sphere for a grid of terrain.

    Args:
        points: (N, 3) float64, ECEF metres.

    Returns:
        (3,) float64 centre in ECEF metres, and the radius in metres.
    """
    center = (points.min(axis=0) + points.max(axis=0)) / 2
    radius = float(np.sqrt(((points - center) ** 2).sum(axis=1).max()))
    return center, radius + SPHERE_SLACK_M


def horizon_occlusion_point(
    points: NDArray[np.float64], toward: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the horizon occlusion point of a set of points.

    Every point's horizon cone, tangent to the unit sphere in scaled space, cuts the ray through
    the tile's centre at some distance; the largest of them serves all. Formula: K. Ring,
    "Computing the horizon occlusion point" (cesium.com/blog, 2013). Points below the ellipsoid
    are taken as on it.

    Args:
        points: (N, 3) float64, ECEF metres.
        toward: (3,) float64, ECEF metres; the ray goes from the Earth's centre through it.

    Returns:
        (3,) float64 in scaled space; never NaN, at most `FAR_MAGNITUDE` from the origin.
    """
    direction = toward / WGS84_RADII_M
    direction = direction / np.linalg.norm(direction)
    return np.asarray(direction * occlusion_magnitude(points, direction))


def occlusion_magnitude(points: NDArray[np.float64], direction: NDArray[np.float64]) -> float:
    """Return how far out along a direction of scaled space the occlusion point must lie.

    Args:
        points: (N, 3) float64, ECEF metres.
        direction: (3,) float64 unit vector in scaled space.
    """
    scaled = points / WGS84_RADII_M
    length = np.linalg.norm(scaled, axis=1)
    cos_alpha = scaled @ direction / length
    sin_alpha = np.linalg.norm(np.cross(scaled, direction), axis=1) / length
    above = np.maximum(length, 1.0)
    cos_beta = 1.0 / above
    sin_beta = np.sqrt(above * above - 1.0) * cos_beta
    # The cosine of alpha + beta; at a right angle and beyond, the cone misses the ray.
    cosine = (cos_alpha * cos_beta - sin_alpha * sin_beta).min()
    return float(min(FAR_MAGNITUDE, 1.0 / cosine)) if cosine > 0 else FAR_MAGNITUDE
