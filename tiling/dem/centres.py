"""Places where a raster of a stack has the centres of its pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tiling.bounds import Region
from tiling.crs import to_lonlat
from tiling.dem.layer import DemLayer

Array = NDArray[np.float64]


def pixel_window(layer: DemLayer, region: Region) -> tuple[int, int, int, int]:
    """Return first column and row, and the ones after the last, of pixels that may lie inside."""
    t = np.linspace(0, 1, 33)
    lon, lat = region.west + t * (region.east - region.west), np.ones(33)
    up = region.south + t * (region.north - region.south)
    x, y = layer.places(
        np.concatenate([lon, lon, region.west * lat, region.east * lat]),
        np.concatenate([region.south * lat, region.north * lat, up, up]),
    )
    width, height = layer.sizes[0]
    finite = np.isfinite(x) & np.isfinite(y)
    west, _, east, _ = layer.box
    if not finite.all() or (west, east) == (-180.0, 180.0):
        return 0, 0, width, height
    columns, rows = layer.pixels(x, y, 0)
    c0, c1 = int(np.floor(columns.min())), int(np.ceil(columns.max())) + 1
    r0, r1 = int(np.floor(rows.min())), int(np.ceil(rows.max())) + 1
    return max(c0, 0), max(r0, 0), min(c1, width), min(r1, height)


def pixel_centres(layers: tuple[DemLayer, ...], region: Region, limit: int) -> tuple[Array, Array]:
    """Return (N,) longitudes and latitudes of pixel centres inside a region, degrees.

    Args:
        layers: whose pixels.
        region: degrees.
        limit: about how many at most; beyond it an even stride is taken.
    """
    near = [layer for layer in layers if _overlap(layer.box, region)]
    windows = [(layer, pixel_window(layer, region)) for layer in near]
    windows = [(layer, w) for layer, w in windows if w[2] > w[0] and w[3] > w[1]]
    total = sum((w[2] - w[0]) * (w[3] - w[1]) for _, w in windows)
    stride = max(1, int(np.ceil(np.sqrt(total / limit))))
    found: list[tuple[Array, Array]] = [(np.empty(0), np.empty(0))]
    for layer, (c0, r0, c1, r1) in windows:
        a, _, c, _, e, f = layer.transform
        columns, rows = np.arange(c0, c1, stride), np.arange(r0, r1, stride)
        x, y = np.meshgrid((columns + 0.5) * a + c, (rows + 0.5) * e + f)
        lon, lat = to_lonlat(layer.ref, x.ravel(), y.ravel())
        lon = np.where(lon > 180, lon - 360, lon)
        inside = (lon >= region.west) & (lon <= region.east)
        inside &= (lat >= region.south) & (lat <= region.north)
        found.append((lon[inside], lat[inside]))
    return np.concatenate([p[0] for p in found]), np.concatenate([p[1] for p in found])


def _overlap(box: tuple[float, float, float, float], region: Region) -> bool:
    west, south, east, north = box
    across = west <= region.east and region.west <= east
    return across and south <= region.north and region.south <= north
