"""Tiling schemes: which piece of the Earth a `TileCoord` is.

The only module that knows which row is north. Three grids cover everything the project writes:

* `WEB_MERCATOR_QUAD` (XYZ): one root, rows counted from the north; vector tiles and imagery.
* `CGCS2000_QUAD`: OGC's WorldCRS84Quad labelled EPSG:4490, two roots, rows from the north; level n
  of 天地图's ``c`` layers is level n - 1 here.
* `TMS_GEOGRAPHIC`: the same cells counted from the SOUTH; quantized-mesh terrain, and under the
  name `CRS84_CELLS` the global quadtree of 3D Tiles (implicit tiling subdivides south first).
  Level L has 2**(L+1) x 2**L cells of 180/2**L degrees.

Degrees on WGS 84 (CGCS2000 is equal at this precision); longitude first. Cells are half-open: a
point on a shared edge belongs to the cell with the higher x or y; the grid's outer edges belong to
the outermost cells. Bounds of geographic cells are exact, so neighbours share them bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tiling.bounds import Region
from tiling.coords import TileCoord

if TYPE_CHECKING:
    from morecantile import TileMatrixSet

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

# atan(sinh(pi)): where the Mercator square ends.
MERCATOR_MAX_LAT_DEG = math.degrees(math.atan(math.sinh(math.pi)))
MAX_LEVEL = 30


class TileRange(NamedTuple):
    """A rectangle of cells of one level, first and last inclusive."""

    level: int
    min_x: int
    min_y: int
    max_x: int
    max_y: int

    @property
    def cells(self) -> int:
        """Number of cells."""
        return (self.max_x - self.min_x + 1) * (self.max_y - self.min_y + 1)

    def __contains__(self, tile: object) -> bool:
        """Say whether a `TileCoord` is one of the cells."""
        return (
            isinstance(tile, TileCoord)
            and tile.level == self.level
            and self.min_x <= tile.x <= self.max_x
            and self.min_y <= tile.y <= self.max_y
        )

    def tiles(self) -> Iterator[TileCoord]:
        """Yield the cells, row by row."""
        for y in range(self.min_y, self.max_y + 1):
            for x in range(self.min_x, self.max_x + 1):
                yield TileCoord(self.level, x, y)


@dataclass(frozen=True, slots=True)
class Scheme:
    """A quadtree over the Earth.

    Attributes:
        name: identifier, e.g. in URLs.
        crs: CRS that clients are told.
        projection: ``geographic`` (rows equal in latitude) or ``mercator``.
        roots: columns at level 0; there is one row.
        north_first: whether row 0 is the northernmost.
    """

    name: str
    crs: str
    projection: Literal["geographic", "mercator"]
    roots: int
    north_first: bool

    def size(self, level: int) -> tuple[int, int]:
        """Return the numbers of columns and rows of a level."""
        if not 0 <= level <= MAX_LEVEL:
            raise ValueError(f"level {level} is not within 0..{MAX_LEVEL}")
        return self.roots << level, 1 << level

    @property
    def extent(self) -> Region:
        """What the grid covers, in degrees."""
        edge = 90.0 if self.projection == "geographic" else MERCATOR_MAX_LAT_DEG
        return Region(-180.0, -edge, 180.0, edge)

    def bounds(self, tile: TileCoord) -> Region:
        """Return the cell's rectangle in degrees; heights are 0.

        Raises:
            ValueError: the cell is not in the grid.
        """
        columns, rows = self.size(tile.level)
        if not (0 <= tile.x < columns and 0 <= tile.y < rows):
            raise ValueError(f"{tile} is outside the {columns} x {rows} cells of {self.name}")
        first, second = self._row_edge(np.array([tile.y, tile.y + 1]), tile.level).tolist()
        west, east = self._column_edge(np.array([tile.x, tile.x + 1]), tile.level).tolist()
        return Region(west, min(first, second), east, max(first, second))

    def tile_of(
        self, lon_deg: ArrayLike, lat_deg: ArrayLike, level: int
    ) -> tuple[IntArray, IntArray]:
        """Return the cells that hold the points; points beyond the grid go to its outer cells.

        Args:
            lon_deg, lat_deg: (N,) finite degrees.
            level: level of the cells.

        Returns:
            (N,) int64 x and y. `bounds` of the cell holds the point, exactly.
        """
        columns, rows = self.size(level)
        lon = np.asarray(lon_deg, dtype=np.float64)
        lat = np.asarray(lat_deg, dtype=np.float64)
        u, v = self.position(lon, lat, level)
        x = np.clip(np.floor(u), 0, columns - 1).astype(np.int64)
        y = np.clip(np.floor(v), 0, rows - 1).astype(np.int64)
        # Rounding in u and v can put a point next to an edge into the neighbour; the edges decide.
        x -= (lon < self._column_edge(x, level)) & (x > 0)
        x += (lon >= self._column_edge(x + 1, level)) & (x < columns - 1)
        if self.north_first:
            y -= (lat > self._row_edge(y, level)) & (y > 0)
            y += (lat <= self._row_edge(y + 1, level)) & (y < rows - 1)
        else:
            y -= (lat < self._row_edge(y, level)) & (y > 0)
            y += (lat >= self._row_edge(y + 1, level)) & (y < rows - 1)
        return x, y

    def tile_range(self, region: Region, level: int) -> TileRange:
        """Return the cells that share more than an edge with `region`.

        A region without width or height gets the cell that holds it.
        """
        west, east = self.tile_of([region.west, region.east], [0.0, 0.0], level)[0].tolist()
        south, north = self.tile_of([0.0, 0.0], [region.south, region.north], level)[1].tolist()
        east_edge = float(self._column_edge(np.array([east]), level)[0])
        if east > west and east_edge >= region.east:
            east -= 1
        far, near = (south, north) if self.north_first else (north, south)
        far_edge = float(self._row_edge(np.array([far]), level)[0])
        if far > near and far_edge == (region.south if self.north_first else region.north):
            far -= 1
        return TileRange(level, west, near, east, far)

    def tiles_in(self, region: Region, level: int) -> Iterator[TileCoord]:
        """Yield the cells that share more than an edge with `region`, row by row."""
        return self.tile_range(region, level).tiles()

    def position(
        self, lon_deg: ArrayLike, lat_deg: ArrayLike, level: int
    ) -> tuple[FloatArray, FloatArray]:
        """Return where points lie in the grid, in units of cells.

        Args:
            lon_deg, lat_deg: (N,) degrees.
            level: level of the cells.

        Returns:
            (N,) float64 column and row, counted as `TileCoord` counts; beyond the grid they leave
            0..columns and 0..rows. At the poles Mercator rows are infinite.
        """
        columns, rows = self.size(level)
        lon = np.asarray(lon_deg, dtype=np.float64)
        lat = np.asarray(lat_deg, dtype=np.float64)
        u = (lon + 180.0) / 360.0 * columns
        if self.projection == "mercator":
            with np.errstate(divide="ignore"):
                v = (1.0 - np.arctanh(np.sin(np.radians(lat))) / np.pi) / 2.0 * rows
        else:
            v = (90.0 - lat) / 180.0 * rows
        return u, v if self.north_first else rows - v

    def to_tile(
        self, lon_deg: ArrayLike, lat_deg: ArrayLike, tile: TileCoord, extent: float = 4096
    ) -> tuple[FloatArray, FloatArray]:
        """Return points in the pixels of one tile: right and DOWN from its north-west corner.

        Args:
            lon_deg, lat_deg: (N,) degrees.
            tile: the tile.
            extent: number of units along a tile's edge.

        Returns:
            (N,) float64 x and y, not rounded; outside 0..extent for points outside the tile.
        """
        u, v = self.position(lon_deg, lat_deg, tile.level)
        down = v - tile.y if self.north_first else tile.y + 1 - v
        return (u - tile.x) * extent, down * extent

    def from_tile(
        self, px: ArrayLike, py: ArrayLike, tile: TileCoord, extent: float = 4096
    ) -> tuple[FloatArray, FloatArray]:
        """Return the longitude and latitude of pixels: the inverse of `to_tile`.

        Args:
            px, py: (N,) units right and down from the tile's north-west corner.
            tile: the tile.
            extent: number of units along a tile's edge.
        """
        x = np.asarray(px, dtype=np.float64) / extent
        down = np.asarray(py, dtype=np.float64) / extent
        y = tile.y + down if self.north_first else tile.y + 1 - down
        return self._column_edge(tile.x + x, tile.level), self._row_edge(y, tile.level)

    def from_north(self, tile: TileCoord) -> TileCoord:
        """Return the cell with its row counted from the north (as XYZ and WMTS do)."""
        return tile if self.north_first else self._flipped(tile)

    def level_for(self, resolution_deg: float, samples: int = 256) -> int:
        """Return the coarsest level whose cells, divided into `samples`, are at least as fine.

        Args:
            resolution_deg: size of a source's pixel in degrees of longitude.
            samples: pixels or intervals along a cell's edge.
        """
        if not resolution_deg > 0:
            raise ValueError(f"a resolution of {resolution_deg} degrees")
        # A thousandth of slack: a pixel size rounded in its last digits needs no finer level.
        exact = math.log2(360.0 / self.roots / samples / resolution_deg)
        return min(MAX_LEVEL, max(0, math.ceil(exact - 0.001)))

    def _flipped(self, tile: TileCoord) -> TileCoord:
        return tile._replace(y=(1 << tile.level) - 1 - tile.y)

    def _column_edge(self, x: NDArray[np.generic], level: int) -> FloatArray:
        # 360 / columns is a small integer over a power of two: exact, like its multiples.
        edge: FloatArray = np.asarray(x, dtype=np.float64) * (360.0 / (self.roots << level)) - 180.0
        return edge

    def _row_edge(self, y: NDArray[np.generic], level: int) -> FloatArray:
        rows = 1 << level
        down = np.asarray(y, dtype=np.float64)
        if not self.north_first:
            down = rows - down
        if self.projection == "geographic":
            edge: FloatArray = 90.0 - down * (180.0 / rows)
            return edge
        edge = np.degrees(np.arctan(np.sinh(np.pi * (1.0 - 2.0 * down / rows))))
        return edge


WEB_MERCATOR_QUAD = Scheme("WebMercatorQuad", "EPSG:3857", "mercator", 1, True)
CGCS2000_QUAD = Scheme("CGCS2000Quad", "EPSG:4490", "geographic", 2, True)
TMS_GEOGRAPHIC = Scheme("TmsGeographic", "EPSG:4326", "geographic", 2, False)
CRS84_CELLS = Scheme("CRS84Cells", "OGC:CRS84", "geographic", 2, False)

SCHEMES = {s.name: s for s in (WEB_MERCATOR_QUAD, CGCS2000_QUAD, TMS_GEOGRAPHIC, CRS84_CELLS)}

# OGC 17-083r4: a pixel is 0.28 mm, and a degree is that of a sphere with the ellipsoid's radius.
_PIXEL_M = 0.00028
_METRES_PER_DEGREE = 6378137.0 * math.pi / 180.0


@lru_cache(maxsize=4)
def cgcs2000_quad(max_level: int = 23, tile_size: int = 256) -> TileMatrixSet:
    """Return `CGCS2000_QUAD` as an OGC TileMatrixSet.

    Scale denominators are OGC's (0.28 mm pixels; Chinese catalogues print those of 96 dpi). Axes
    and origin follow EPSG:4490, latitude first.

    Args:
        max_level: finest level.
        tile_size: pixels along a tile's edge.
    """
    # Imported here: only the raster services need it.
    from morecantile import TileMatrixSet

    matrices = []
    for level in range(max_level + 1):
        columns, rows = CGCS2000_QUAD.size(level)
        cell_size = 180.0 / rows / tile_size
        matrices.append(
            {
                "id": str(level),
                "scaleDenominator": cell_size * _METRES_PER_DEGREE / _PIXEL_M,
                "cellSize": cell_size,
                "pointOfOrigin": [90.0, -180.0],
                "tileWidth": tile_size,
                "tileHeight": tile_size,
                "matrixWidth": columns,
                "matrixHeight": rows,
            }
        )
    return TileMatrixSet.model_validate(
        {
            "id": CGCS2000_QUAD.name,
            "title": "CGCS2000 geographic quad (EPSG:4490)",
            "crs": "http://www.opengis.net/def/crs/EPSG/0/4490",
            "orderedAxes": ["Lat", "Lon"],
            "wellKnownScaleSet": "http://www.opengis.net/def/wkss/OGC/1.0/GoogleCRS84Quad",
            "tileMatrices": matrices,
        }
    )
