"""The surface of one terrain level: heights of its nodes, their normals, and how far off they are.

The one idea: the height of a node is a pure function of its level and its place on the globe, so
whoever computes it, for whatever tile, gets the same bits. Heights are ellipsoidal metres,
longitudes and latitudes degrees; row 0 is the southernmost.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tiling.batches import ElevationSource
from tiling.bounds import Region
from tiling.ellipsoid import FLATTENING, SEMI_MAJOR_M
from tiling.errors import TilingError
from tiling.formats import quantized_mesh
from tiling.formats.quantized_mesh import QUANTA
from tiling.geoid import parse_vertical
from tiling.tilers.terrain_cells import Cells

CELLS = 64
NODES = CELLS + 1
SEA_LEVEL = parse_vertical("EPSG:5773")
# One ring of nodes for the normals, two for the fill of voids next to data.
_FILL_RINGS = 2
HALO = 1 + _FILL_RINGS
# Every pixel of a unit at full detail; coarser units are probed on an even stride of pixels.
_PROBES = 300_000
_ECCENTRICITY_2 = FLATTENING * (2 - FLATTENING)

Array = NDArray[np.float64]


class Surface(NamedTuple):
    """Heights of one level over a rectangle of tiles, `HALO` nodes wider on every side.

    Attributes:
        level, x0, y0: the level, and the rectangle's first column and southernmost row.
        lon, lat: degrees of the nodes' columns and rows.
        heights: (rows, columns) float64, ellipsoidal metres.
        data: (rows, columns) bool, whether the source has a height there.
    """

    level: int
    x0: int
    y0: int
    lon: Array
    lat: Array
    heights: Array
    data: NDArray[np.bool_]


def sample(source: ElevationSource, found: Cells, level: int) -> Surface:
    """Return the surface over a rectangle of tiles.

    Where the source has no data the surface is mean sea level; two rings of nodes beside data take
    the mean of their neighbours with data, so that no cell holding data falls off a cliff.

    Args:
        source: heights in ``source.ref.vertical``, which must be known.
        found: the rectangle.
        level: its level.
    """
    assert source.ref.vertical is not None
    rows, columns = found.mask.shape
    spacing = 180 / 2**level / CELLS
    i = np.arange(found.x0 * CELLS - HALO, (found.x0 + columns) * CELLS + HALO + 1)
    j = np.arange(found.y0 * CELLS - HALO, (found.y0 + rows) * CELLS + HALO + 1)
    # One name for each place: the antimeridian is -180, and there is nothing beyond a pole.
    lon = -180 + (i % (2 * CELLS * 2**level)) * spacing
    lat = -90 + np.clip(j, 0, CELLS * 2**level) * spacing
    grid_lon, grid_lat = (g.ravel() for g in np.meshgrid(lon, lat))
    shape = (len(lat), len(lon))
    heights = source.sample(grid_lon, grid_lat)
    data = np.isfinite(heights)
    heights[data] += source.ref.vertical.separation(grid_lon[data], grid_lat[data])
    if not data.all():
        sea = SEA_LEVEL.separation(grid_lon, grid_lat)
        above = np.where(data, heights - sea, 0.0).reshape(shape)
        filled = sea + _fill_beside_data(above, data.reshape(shape)).ravel()
        # Where there is data, the very bits that a tile without voids computes.
        heights = np.where(data, heights, filled)
    return Surface(level, found.x0, found.y0, lon, lat, heights.reshape(shape), data.reshape(shape))


def _fill_beside_data(heights: Array, data: NDArray[np.bool_]) -> Array:
    # Heights above the sea: so the mean of a flat sea is the sea, however the geoid slopes.
    if not data.any():
        return heights
    known, rows, columns = data, *heights.shape
    for _ in range(_FILL_RINGS):
        total, count = np.zeros_like(heights), np.zeros(heights.shape)
        padded = np.pad(np.where(known, heights, 0.0), 1)
        padded_known = np.pad(known, 1)
        for dj in (0, 1, 2):
            for di in (0, 1, 2):
                total += padded[dj : dj + rows, di : di + columns]
                count += padded_known[dj : dj + rows, di : di + columns]
        fill = ~known & (count > 0)
        heights = np.where(fill, total / np.maximum(count, 1), heights)
        known = known | fill
    return heights


def quantise(surface: Surface, low: float, high: float) -> NDArray[np.uint16]:
    """Return the nodes of the rectangle (without the halo) as 0 .. 32767 between two heights.

    Args:
        surface: heights, metres.
        low, high: the range that all tiles of the level share, metres.

    Returns:
        (rows, columns) uint16.

    Raises:
        TilingError: a height lies outside the range.
    """
    heights = surface.heights[HALO:-HALO, HALO:-HALO]
    if not (heights.min() >= low and heights.max() <= high):
        raise TilingError(
            f"level {surface.level}: heights {heights.min():.3f} .. {heights.max():.3f} m leave "
            f"the range {low} .. {high} m that was declared for them"
        )
    return np.rint((heights - low) / (high - low) * QUANTA).astype(np.uint16)


def normals(surface: Surface) -> NDArray[np.uint8]:
    """Return the oct-encoded ECEF normals of the rectangle's nodes.

    Slopes are central differences along the meridian and the parallel (radii of curvature of the
    ellipsoid at height 0).

    Returns:
        (rows, columns, 2) uint8.
    """
    # Central differences over the nodes of the level; the ring beyond the rectangle makes the
    # normal on an edge the same for both tiles that share it.
    ring = HALO - 1
    h = surface.heights[ring:-ring, ring:-ring]
    lon, lat = np.radians(surface.lon[HALO:-HALO]), np.radians(surface.lat[ring:-ring])
    step = math.radians(180 / 2**surface.level / CELLS)
    phi = lat[1:-1, None]
    sin, cos = np.sin(phi), np.cos(phi)
    w2 = 1 - _ECCENTRICITY_2 * sin * sin
    prime = SEMI_MAJOR_M / np.sqrt(w2)
    meridian = prime * (1 - _ECCENTRICITY_2) / w2
    pole = np.abs(surface.lat[HALO:-HALO, None]) == 90
    east = np.where(pole, 1.0, 2 * step * prime * cos)
    slope_e = np.where(pole, 0.0, (h[1:-1, 2:] - h[1:-1, :-2]) / east)
    slope_n = (h[2:, 1:-1] - h[:-2, 1:-1]) / (meridian * (lat[2:] - lat[:-2])[:, None])
    sin_l, cos_l = np.sin(lon)[None, :], np.cos(lon)[None, :]
    x = slope_e * sin_l + slope_n * sin * cos_l + cos * cos_l
    y = -slope_e * cos_l + slope_n * sin * sin_l + cos * sin_l
    z = -slope_n * cos + sin + np.zeros_like(sin_l)
    normals = np.stack([x, y, z], axis=-1)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    rows, columns = h.shape[0] - 2, h.shape[1] - 2
    return quantized_mesh.oct_encode(normals.reshape(-1, 3)).reshape(rows, columns, 2)


class Probes(NamedTuple):
    """N places where the source's own height is known.

    Attributes:
        lon, lat: (N,) float64 degrees.
        heights: (N,) float64, ellipsoidal metres.
    """

    lon: Array
    lat: Array
    heights: Array

    def compare(self, surface: Surface, decoded: Array) -> tuple[float, float, int]:
        """Return the largest error, the sum of squares and the count over the probes."""
        spacing = 180 / 2**surface.level / CELLS
        x = (self.lon + 180) / spacing - surface.x0 * CELLS
        y = (self.lat + 90) / spacing - surface.y0 * CELLS
        rows, columns = decoded.shape
        inside = (x >= 0) & (y >= 0) & (x <= columns - 1) & (y <= rows - 1)
        if not inside.any():
            return 0.0, 0.0, 0
        x, y = x[inside], y[inside]
        i = np.minimum(x.astype(np.int64), columns - 2)
        j = np.minimum(y.astype(np.int64), rows - 2)
        x, y = x - i, y - j
        sw, se = decoded[j, i], decoded[j, i + 1]
        nw, ne = decoded[j + 1, i], decoded[j + 1, i + 1]
        lower = sw + x * (se - sw) + y * (nw - sw)
        upper = ne + (1 - x) * (nw - ne) + (1 - y) * (se - ne)
        error = np.where(x + y <= 1, lower, upper) - self.heights[inside]
        return float(np.abs(error).max()), float((error * error).sum()), len(error)


def probe(source: ElevationSource, surface: Surface) -> Probes:
    """Choose places inside a surface where the source's own heights are known.

    A source that can name its pixels (``pixel_centres(region, limit)``) is probed there: at every
    pixel, or on an even stride when there are too many. Others are probed on a lattice.
    """
    assert source.ref.vertical is not None
    inner_lon, inner_lat = surface.lon[HALO:-HALO], surface.lat[HALO:-HALO]
    spacing = 180 / 2**surface.level / CELLS
    extent = source.extent
    region = Region(
        max(extent.west, float(inner_lon[0])),
        max(extent.south, float(inner_lat[0])),
        min(extent.east, float(inner_lon[0]) + (len(inner_lon) - 1) * spacing),
        min(extent.north, float(inner_lat[-1])),
    )
    centres = getattr(source, "pixel_centres", None)
    if centres is not None:
        lon, lat = centres(region, _PROBES)
    else:
        lon, lat = lattice(*region[:4], int(math.sqrt(_PROBES)))
    heights = source.sample(lon, lat)
    data = np.isfinite(heights)
    lon, lat = lon[data], lat[data]
    return Probes(lon, lat, heights[data] + source.ref.vertical.separation(lon, lat))


def lattice(west: float, south: float, east: float, north: float, n: int) -> tuple[Array, Array]:
    """Return longitudes and latitudes of an n x n lattice, edges included: (n * n,) degrees."""
    lon, lat = np.meshgrid(np.linspace(west, east, n), np.linspace(south, north, n))
    return lon.ravel(), lat.ravel()
