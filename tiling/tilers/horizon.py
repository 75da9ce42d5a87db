"""Bounding sphere and horizon occlusion point of a terrain tile.

The one idea: both are computed from the vertices as a decoder sees them (quantised), so they
hold for what is drawn. The occlusion point lives in the space scaled by the ellipsoid's radii,
where the Earth is the unit sphere: if the point is below the horizon, the whole tile is.
"""

from __future__ import annotations

import math
from typing import cast

import numpy as np
from numpy.typing import NDArray

from tiling.kernels import njit

WGS84_RADII_M = np.array([6378137.0, 6378137.0, 6356752.3142451793])

# A tile that reaches a quarter of the globe from its centre (the two roots) has no finite
# occlusion point; a point this far out is hidden only from where the whole half globe is.
FAR_MAGNITUDE = 1e6
_SPHERE_SLACK_M = 1e-3


def bounds_of(points: NDArray[np.float64], centre: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a sphere that contains every point, and their horizon occlusion point.

    The sphere's centre is that of the points' axis-aligned box: within a few per cent of the
    smallest sphere for a grid of terrain. Every point's horizon cone, tangent to the unit sphere in
    scaled space, cuts the ray through the tile's centre at some distance; the largest of them
    serves all. Formula: K. Ring, "Computing the horizon occlusion point" (cesium.com/blog, 2013).
    Points below the ellipsoid are taken as on it.

    Args:
        points: (N, 3) float64, ECEF metres.
        centre: (3,) float64, ECEF metres; the ray goes from the Earth's centre through it.

    Returns:
        (7,) float64: centre of the sphere and its radius, ECEF metres; the point in scaled space,
        never NaN, at most `FAR_MAGNITUDE` from the origin.
    """
    return cast(NDArray[np.float64], enclose(points, centre))


@njit(cache=True)
def enclose(points, centre):  # type: ignore[no-untyped-def]
    """Do what `bounds_of` says, for other kernels."""
    found = np.empty(7)
    for axis in range(3):
        least, most = np.inf, -np.inf
        for k in range(len(points)):
            least, most = min(least, points[k, axis]), max(most, points[k, axis])
        found[axis] = (least + most) / 2
    rx, ry, rz = WGS84_RADII_M
    dx, dy, dz = centre[0] / rx, centre[1] / ry, centre[2] / rz
    norm = math.sqrt(dx * dx + dy * dy + dz * dz)
    dx, dy, dz = dx / norm, dy / norm, dz / norm
    radius_2, cosine = 0.0, 1.0
    for k in range(len(points)):
        x, y, z = points[k, 0], points[k, 1], points[k, 2]
        off = (x - found[0]) ** 2 + (y - found[1]) ** 2 + (z - found[2]) ** 2
        radius_2 = max(radius_2, off)
        sx, sy, sz = x / rx, y / ry, z / rz
        length = math.sqrt(sx * sx + sy * sy + sz * sz)
        cos_alpha = (sx * dx + sy * dy + sz * dz) / length
        ox, oy, oz = sy * dz - sz * dy, sz * dx - sx * dz, sx * dy - sy * dx
        sin_alpha = math.sqrt(ox * ox + oy * oy + oz * oz) / length
        above = max(length, 1.0)
        sin_beta = math.sqrt(above * above - 1.0) / above
        # The cosine of alpha + beta; at a right angle and beyond, the cone misses the ray.
        cosine = min(cosine, cos_alpha / above - sin_alpha * sin_beta)
    found[3] = math.sqrt(radius_2) + _SPHERE_SLACK_M
    magnitude = min(FAR_MAGNITUDE, 1.0 / cosine) if cosine > 0 else FAR_MAGNITUDE
    found[4], found[5], found[6] = dx * magnitude, dy * magnitude, dz * magnitude
    return found
