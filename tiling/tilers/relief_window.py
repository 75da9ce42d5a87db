"""The heights under one map tile: a window into the terrain's surface, with its pixel sizes.

The one idea: a pixel's height is a pure function of the pixel's place in its grid and level. The
surface is asked at the nodes of a global lattice half a pixel fine, and between its rows
interpolated by latitude alone; so neighbouring tiles, and tiles with a margin, hold the same bits
where they overlap. Rows run from the north, as images do.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tiling.batches import Lattice, TerrainSource
from tiling.bounds import Region
from tiling.coords import TileCoord
from tiling.ellipsoid import FLATTENING, SEMI_MAJOR_M
from tiling.geoid import VerticalDatum
from tiling.schemes import Scheme

Array = NDArray[np.float64]

_ECCENTRICITY_2 = FLATTENING * (2 - FLATTENING)


class Window(NamedTuple):
    """Heights of a tile's pixels (or nodes), `margin` of them wider on every side.

    Attributes:
        lon: (columns,) degrees, rising, not wrapped at the antimeridian.
        lat: (rows,) degrees, falling.
        heights: (rows, columns) float64 metres, row 0 northernmost; NaN where there is no data.
        margin: rows and columns around the tile itself.
    """

    lon: Array
    lat: Array
    heights: Array
    margin: int

    @property
    def inner(self) -> Array:
        """The heights of the tile itself."""
        m = self.margin
        return self.heights[m : self.heights.shape[0] - m, m : self.heights.shape[1] - m]

    def above(self, vertical: VerticalDatum) -> Window:
        """Return the window with ellipsoidal heights counted from a vertical datum instead."""
        if vertical.kind == "ellipsoidal":
            return self
        separation = vertical.separation_axes((self.lon + 180) % 360 - 180, self.lat)
        return self._replace(heights=self.heights - separation)


def metres_per_degree(lat_deg: Array) -> tuple[Array, Array]:
    """Return how long a degree of longitude and one of latitude is on the WGS 84 ellipsoid.

    The radii of curvature in the prime vertical and in the meridian, at height 0.

    Args:
        lat_deg: (N,) degrees.

    Returns:
        (N,) metres to the east and (N,) metres to the north.
    """
    phi = np.radians(lat_deg)
    w2 = 1 - _ECCENTRICITY_2 * np.sin(phi) ** 2
    prime = SEMI_MAJOR_M / np.sqrt(w2)
    meridian = prime * (1 - _ECCENTRICITY_2) / w2
    return prime * np.cos(phi) * math.pi / 180, meridian * math.pi / 180


def pixels(
    source: TerrainSource, scheme: Scheme, tile: TileCoord, size: int, margin: int
) -> Window:
    """Return the ellipsoidal heights at the centres of a tile's pixels.

    Args:
        source: the surface.
        scheme: grid of the tile.
        tile: the tile.
        size: pixels along its edge, a power of two.
        margin: pixels beyond each edge.
    """
    return _window(source, scheme, tile, size, margin, 0.5)


def nodes(
    source: TerrainSource, scheme: Scheme, tile: TileCoord, cells: int, margin: int
) -> Window:
    """Return the ellipsoidal heights at the corners of a tile's cells: its edges included.

    Args:
        source: the surface.
        scheme: grid of the tile.
        tile: the tile.
        cells: cells along its edge, a power of two.
        margin: cells beyond each edge.
    """
    return _window(source, scheme, tile, cells, margin, 0.0)


def _window(
    source: TerrainSource, scheme: Scheme, tile: TileCoord, size: int, margin: int, offset: float
) -> Window:
    # Counted in the grid's own pixels from its north-west corner, as integers and halves: the
    # same number, and so the same bits, whichever tile asks.
    west, north = tile.x * size, scheme.from_north(tile).y * size
    extra = 0 if offset else 1
    count = size + 2 * margin + extra
    columns, rows = scheme.size(tile.level)
    pixel_deg = 360.0 / (columns * size)
    first = west - margin + offset
    lon: Array = -180.0 + (first + np.arange(count, dtype=np.float64)) * pixel_deg
    down = north - margin + offset + np.arange(count)
    # Beyond the grid's northern and southern edge there is nothing to ask: its last row stands.
    down = np.clip(down, 0.0, float(rows * size))
    lat = scheme.from_tile(np.zeros(count), down, TileCoord(tile.level, 0, 0), extent=size)[1]
    step = pixel_deg / 2
    # Whole numbers of half pixels, from the west and from the south.
    low = math.floor((float(lat.min()) + 90) / step)
    high = math.ceil((float(lat.max()) + 90) / step)
    low, high = max(low, 0), min(max(high, low + 1), round(180 / step))
    rows_asked = Lattice(-180.0, -90.0 + low * step, step, 0, high - low + 1)
    surface = _around(source, rows_asked, round(2 * first), 2 * count - 1)[:, ::2]
    return Window(lon, lat, _rows_at(surface, (lat + 90) / step - low), margin)


def _around(source: TerrainSource, rows: Lattice, first: int, count: int) -> Array:
    """Return the nodes of some columns, counted from -180 degrees, around the antimeridian too."""
    turn = round(360 / rows.step_deg)
    cuts = [first, *(c for c in (0, turn) if first < c < first + count), first + count]
    parts = []
    for begin, end in zip(cuts, cuts[1:], strict=False):
        west = -180.0 + begin % turn * rows.step_deg
        parts.append(source.heights(rows._replace(west_deg=west, columns=end - begin)))
    return np.concatenate(parts, axis=1)


def _rows_at(surface: Array, row: Array) -> Array:
    """Interpolate linearly between rows; a void beside a height leaves the nearer of the two."""
    j = np.clip(np.floor(row).astype(np.int64), 0, len(surface) - 2)
    t = (row - j)[:, None]
    south, north = surface[j], surface[j + 1]
    between = south + t * (north - south)
    nearer = np.where(t < 0.5, south, north)
    # At a node itself its own height, so that a void next to it costs nothing.
    exact = np.where(t == 0, south, np.where(t == 1, north, between))
    return np.where(np.isfinite(exact), exact, nearer)


def overlaps(source: TerrainSource, scheme: Scheme, tile: TileCoord) -> bool:
    """Say whether a tile holds any of the areas that the source covers.

    Raises:
        ValueError: the grid has no such tile.
    """
    bounds = scheme.bounds(tile)
    return any(_share(bounds, area) for area in source.coverage)


def _share(a: Region, b: Region) -> bool:
    # More than an edge.
    return a.west < b.east and b.west < a.east and a.south < b.north and b.south < a.north
