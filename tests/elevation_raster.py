"""The reference of elevation models: heights of sheets, bilinear between pixel centres.

The one idea: sheets that share a pixel grid are one virtual raster, so interpolation runs across
their seams; sheets on other grids are asked next, in order, where the first know nothing. A place
has a height when the pixel it lies in has one; neighbours without data lose their weight to those
with data, and within half a pixel of the outer edge the outermost centres count, so that the
pixels' whole area is covered.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.io import DatasetReader
from rasterio.windows import Window

from ingest.dem_groups import Placed, place_on_grid
from ingest.dem_sheets import GroupSheets
from ingest.readers.raster import RasterReader
from ingest.readers.sheets import Affine6, Sheet, open_raster, read_heights, reading, windows
from tiling.bounds import Region
from tiling.crs import TILE_REF, SpatialRef, to_lonlat, transform_points
from tiling.geoid import VerticalDatum

Array = NDArray[np.float64]

_BLOCK = 256
_CACHE_NBYTES = 48 * 1024**2
_MAX_OPEN = 32
# Tolerance, in pixels, of what counts as inside a grid.
_INSIDE = 1e-6


@dataclass(frozen=True, slots=True)
class _Grid:
    """Sheets that share one pixel grid; earlier ones win where they overlap."""

    transform: Affine6
    width: int
    height: int
    placed: tuple[Placed, ...]


class ElevationRaster:
    """Heights of raster sheets, asked anywhere; picklable, opens files when asked.

    Attributes:
        ref: frame of the sheets; its vertical datum is that of the heights.
        extent: lon/lat degrees of the sheets' outer edges, heights of the data.
        coverage: the same for every sheet.
        resolution_deg: the finest pixel's size, degrees.
    """

    def __init__(
        self, sheets: Sequence[Sheet], ref: SpatialRef, min_height_m: float, max_height_m: float
    ) -> None:
        self.ref = ref
        self.sheets = tuple(sheets)
        # Heights come with the call because finding them means reading every pixel.
        self.coverage = tuple(
            _extent(sheet, ref)._replace(min_height_m=min_height_m, max_height_m=max_height_m)
            for sheet in sheets
        )
        self.resolution_deg = min(_resolution_deg(sheet, ref) for sheet in sheets)
        self._grids = tuple(_grids(self.sheets))
        self._blocks: OrderedDict[tuple[int, int, int], NDArray[Any]] = OrderedDict()
        self._nbytes = 0
        self._open: OrderedDict[str, DatasetReader] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        fresh = {"_blocks": OrderedDict(), "_nbytes": 0, "_open": OrderedDict()}
        return {**self.__dict__, **fresh}

    def close(self) -> None:
        """Close the files that sampling has opened; sampling again opens them again."""
        while self._open:
            self._open.popitem()[1].close()

    @property
    def extent(self) -> Region:
        """Lon/lat degrees of all sheets, and the range of their heights."""
        whole = self.coverage[0]
        for region in self.coverage[1:]:
            whole = whole.union(region)
        return whole

    def sample(self, lon_deg: Array, lat_deg: Array) -> Array:
        """Interpolate bilinearly between pixel centres: (N,) metres, NaN where there is no data.

        Raises:
            SourceUnreadable: a block cannot be read.
        """
        x, y, _ = transform_points(TILE_REF, self.ref, lon_deg, lat_deg)
        heights = np.full(len(x), np.nan)
        for index, grid in enumerate(self._grids):
            left = np.flatnonzero(np.isnan(heights))
            if not len(left):
                break
            heights[left] = self._sample_grid(index, grid, x[left], y[left])
        return heights

    def pixel_centres(self, region: Region, limit: int) -> tuple[Array, Array]:
        """Return places in a region where pixels have their centres.

        Args:
            region: degrees.
            limit: about how many at most; beyond it an even stride is taken.

        Returns:
            (N,) longitudes and latitudes, degrees.
        """
        ranges = [(s, _window(s, self.ref, region)) for s in self.sheets]
        ranges = [(s, w) for s, w in ranges if w[2] > w[0] and w[3] > w[1]]
        total = sum((w[2] - w[0]) * (w[3] - w[1]) for _, w in ranges)
        stride = max(1, int(np.ceil(np.sqrt(total / limit))))
        found: list[tuple[Array, Array]] = []
        for sheet, (c0, r0, c1, r1) in ranges:
            columns, rows = np.arange(c0, c1, stride), np.arange(r0, r1, stride)
            a, _, c, _, e, f = sheet.transform
            x, y = np.meshgrid((columns + 0.5) * a + c, (rows + 0.5) * e + f)
            lon, lat = to_lonlat(self.ref, x.ravel(), y.ravel())
            lon = np.where(lon > 180, lon - 360, lon)
            inside = (lon >= region.west) & (lon <= region.east)
            inside &= (lat >= region.south) & (lat <= region.north)
            found.append((lon[inside], lat[inside]))
        if not found:
            return np.empty(0), np.empty(0)
        return np.concatenate([p[0] for p in found]), np.concatenate([p[1] for p in found])

    def _sample_grid(self, index: int, grid: _Grid, x: Array, y: Array) -> Array:
        a, _, c, _, e, f = grid.transform
        if not self.ref.is_projected:
            # Longitudes repeat: bring them to the turn in which the grid lies.
            west = min(c, c + a * grid.width) - _INSIDE * abs(a)
            x = (x - west) % 360 + west
        column, row = (x - c) / a - 0.5, (y - f) / e - 0.5
        inside = (column >= -0.5 - _INSIDE) & (column <= grid.width - 0.5 + _INSIDE)
        inside &= (row >= -0.5 - _INSIDE) & (row <= grid.height - 0.5 + _INSIDE)
        heights = np.full(len(x), np.nan)
        where = np.flatnonzero(inside)
        if not len(where):
            return heights
        column = np.clip(column[where], 0, grid.width - 1)
        row = np.clip(row[where], 0, grid.height - 1)
        heights[where] = self._bilinear(index, grid, column, row)
        return heights

    def _bilinear(self, index: int, grid: _Grid, column: Array, row: Array) -> Array:
        c0, r0 = column.astype(np.int64), row.astype(np.int64)
        result = np.empty(len(column))
        across = -(-grid.width // _BLOCK)
        block = (r0 // _BLOCK) * across + c0 // _BLOCK
        order = np.argsort(block, kind="stable")
        cuts = np.flatnonzero(np.diff(block[order])) + 1
        for part in np.split(order, cuts):
            down, right = divmod(int(block[part[0]]), across)
            values = self._block(index, grid, down, right)
            i, j = c0[part] - right * _BLOCK, r0[part] - down * _BLOCK
            i1 = np.minimum(i + 1, values.shape[1] - 1)
            j1 = np.minimum(j + 1, values.shape[0] - 1)
            corners = np.stack([values[j, i], values[j, i1], values[j1, i], values[j1, i1]]).astype(
                np.float64
            )
            result[part] = _weigh(corners, column[part] - c0[part], row[part] - r0[part])
        return result

    def _block(self, index: int, grid: _Grid, down: int, right: int) -> NDArray[Any]:
        key = (index, down, right)
        if key in self._blocks:
            self._blocks.move_to_end(key)
            return self._blocks[key]
        values = self._read(grid, right * _BLOCK, down * _BLOCK)
        self._blocks[key] = values
        self._nbytes += values.nbytes
        while self._nbytes > _CACHE_NBYTES and len(self._blocks) > 1:
            self._nbytes -= self._blocks.popitem(last=False)[1].nbytes
        return values

    def _read(self, grid: _Grid, column: int, row: int) -> NDArray[Any]:
        """Read a block and the next column and row, so that every cell has its four corners."""
        width = min(_BLOCK + 1, grid.width - column)
        height = min(_BLOCK + 1, grid.height - row)
        parts: list[tuple[slice, slice, NDArray[Any]]] = []
        for placed in grid.placed:
            left, top = max(column, placed.column), max(row, placed.row)
            right = min(column + width, placed.column + placed.sheet.width)
            bottom = min(row + height, placed.row + placed.sheet.height)
            if right <= left or bottom <= top:
                continue
            window = Window(left - placed.column, top - placed.row, right - left, bottom - top)
            target = np.s_[top - row : bottom - row], np.s_[left - column : right - column]
            name = placed.sheet.name
            dataset = self._dataset(name)
            with reading(name):
                parts.append((*target, read_heights(dataset, placed.sheet, window)))
        wide = any(values.dtype == np.float64 for _, _, values in parts)
        block = np.full((height, width), np.nan, dtype=np.float64 if wide else np.float32)
        for down, across, values in parts:
            hole = np.isnan(block[down, across])
            block[down, across][hole] = values[hole]
        return block

    def _dataset(self, name: str) -> DatasetReader:
        if name in self._open:
            self._open.move_to_end(name)
        else:
            self._open[name] = open_raster(name)
            if len(self._open) > _MAX_OPEN:
                self._open.popitem(last=False)[1].close()
        return self._open[name]


def read_elevation(reader: RasterReader, vertical: VerticalDatum) -> ElevationRaster:
    """Read every pixel once, as an ingest does, and return the heights to be sampled."""
    reader.dataset_path()
    reader.check_sheets()
    low, high = np.inf, -np.inf
    for sheet in reader.sheets:
        pixels = GroupSheets([Placed(sheet, 0, 0)])
        for window in windows(sheet):
            left, top = int(window.col_off), int(window.row_off)
            values = pixels.read(left, top, left + int(window.width), top + int(window.height))
            if values is not None:
                low = min(low, float(np.nanmin(values)))
                high = max(high, float(np.nanmax(values)))
        pixels.close()
    assert reader.ref is not None
    return ElevationRaster(reader.sheets, reader.ref.with_vertical(vertical), low, high)


def _weigh(corners: Array, x: Array, y: Array) -> Array:
    weights = np.stack([(1 - x) * (1 - y), x * (1 - y), (1 - x) * y, x * y])
    data = np.isfinite(corners)
    nearest = (x >= 0.5).astype(np.int64) + 2 * (y >= 0.5)
    weights *= data
    with np.errstate(invalid="ignore"):
        height = (np.where(data, corners, 0.0) * weights).sum(axis=0) / weights.sum(axis=0)
    present = np.take_along_axis(data, nearest[None, :], axis=0)[0]
    return np.where(present, height, np.nan)


def _grids(sheets: Iterable[Sheet]) -> list[_Grid]:
    groups: list[list[Placed]] = []
    for sheet in sheets:
        for group in groups:
            at = place_on_grid(sheet, group[0].sheet)
            if at is not None:
                group.append(Placed(sheet, *at))
                break
        else:
            groups.append([Placed(sheet, 0, 0)])
    return [_grid(group) for group in groups]


def _grid(group: list[Placed]) -> _Grid:
    left, top = min(p.column for p in group), min(p.row for p in group)
    right = max(p.column + p.sheet.width for p in group)
    bottom = max(p.row + p.sheet.height for p in group)
    a, b, c, d, e, f = group[0].sheet.transform
    return _Grid(
        (a, b, c + left * a, d, e, f + top * e),
        right - left,
        bottom - top,
        tuple(Placed(p.sheet, p.column - left, p.row - top) for p in group),
    )


def _edge(xmin: float, ymin: float, xmax: float, ymax: float) -> tuple[Array, Array]:
    t = np.linspace(0, 1, 33)
    x, y = xmin + t * (xmax - xmin), ymin + t * (ymax - ymin)
    flat = np.ones_like(t)
    return (
        np.concatenate([x, x, xmin * flat, xmax * flat]),
        np.concatenate([ymin * flat, ymax * flat, y, y]),
    )


def _extent(sheet: Sheet, ref: SpatialRef) -> Region:
    lon, lat = to_lonlat(ref, *_edge(*sheet.bounds))
    west, east = float(lon.min()), float(lon.max())
    if west >= 180:
        west, east = west - 360, east - 360
    elif east > 180:
        # 0 .. 360 rasters cross the antimeridian, which a Region cannot.
        west, east = -180.0, 180.0
    # Pixel-is-point sheets of the whole Earth reach half a pixel beyond the poles.
    south, north = max(float(lat.min()), -90.0), min(float(lat.max()), 90.0)
    return Region(max(west, -180.0), south, east, north)


def _resolution_deg(sheet: Sheet, ref: SpatialRef) -> float:
    a, _, c, _, e, f = sheet.transform
    x, y = c + a * sheet.width / 2, f + e * sheet.height / 2
    lon, lat = to_lonlat(ref, np.array([x, x + a, x]), np.array([y, y, y + e]))
    steps = np.hypot(lon[1:] - lon[0], lat[1:] - lat[0])
    return float(steps.min())


def _window(sheet: Sheet, ref: SpatialRef, region: Region) -> tuple[int, int, int, int]:
    """Return first column and row and the ones after the last, of pixels that may lie inside."""
    x, y, _ = transform_points(TILE_REF, ref, *_edge(*region[:4]))
    a, _, c, _, e, f = sheet.transform
    if not ref.is_projected:
        x = np.where(x < min(c, c + a * sheet.width) - 1e-9, x + 360, x) if c >= 180 else x
    finite = np.isfinite(x) & np.isfinite(y)
    if not finite.any():
        return 0, 0, sheet.width, sheet.height
    columns, rows = (x[finite] - c) / a, (y[finite] - f) / e
    c0, c1 = int(np.floor(columns.min())) - 1, int(np.ceil(columns.max())) + 1
    r0, r1 = int(np.floor(rows.min())) - 1, int(np.ceil(rows.max())) + 1
    return max(c0, 0), max(r0, 0), min(c1, sheet.width), min(r1, sheet.height)
