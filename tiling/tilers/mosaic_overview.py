"""The whole of a mosaic at low resolution: one COG for tiles far out.

A tile of a whole city would touch every one of its thousand sheets. So the mosaic is drawn once on
the pixel grid of a zoom of WebMercatorQuad, from the sheets' own overviews, first wins, block by
block: memory does not grow with the number of sheets or their size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio import Affine
from rasterio.enums import ColorInterp, Resampling
from rasterio.io import DatasetReader
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from tiling.bounds import Region
from tiling.ellipsoid import SEMI_MAJOR_M
from tiling.mosaics import MosaicSheet, SheetIndex
from tiling.tilers.base import Progress
from tiling.tilers.cog import BLOCK, GDAL_CACHE_NBYTES, LOSSLESS, finish, reading, writing
from tiling.tilers.image_place import wgs84_twin

MAX_SIDE = 8192
_HALF_M = math.pi * SEMI_MAJOR_M
_MAX_LATITUDE = 85.0511287798066
_OPEN_SHEETS = 64

PathOf = Callable[[MosaicSheet], Path]


class Grid(NamedTuple):
    """Pixels of a zoom of WebMercatorQuad (tiles of 256) that cover a mosaic.

    Attributes:
        zoom: of the tiles.
        left, top: the first pixel, counted from the north-western corner of the world.
        width, height: pixels.
    """

    zoom: int
    left: int
    top: int
    width: int
    height: int

    @property
    def transform(self) -> Affine:
        """Pixel -> EPSG:3857."""
        step = 2 * _HALF_M / 256 / 2**self.zoom
        return Affine(step, 0, self.left * step - _HALF_M, 0, -step, _HALF_M - self.top * step)


def overview_grid(bounds: Region, max_zoom: int, max_side: int = MAX_SIDE) -> Grid:
    """Return the finest grid of at most `max_side` pixels a side, coarser than `max_zoom`."""
    for zoom in range(max(max_zoom - 1, 0), -1, -1):
        world = 256 * 2**zoom
        left = math.floor((bounds.west + 180) / 360 * world)
        right = math.ceil((bounds.east + 180) / 360 * world)
        top = math.floor(_row(bounds.north) * world)
        bottom = math.ceil(_row(bounds.south) * world)
        if max(right - left, bottom - top) <= max_side:
            break
    return Grid(zoom, left, top, max(right - left, 1), max(bottom - top, 1))


def _row(latitude: float) -> float:
    """Return the distance from the northern edge of the world, 0 .. 1."""
    phi = math.radians(min(max(latitude, -_MAX_LATITUDE), _MAX_LATITUDE))
    return (1 - math.asinh(math.tan(phi)) / math.pi) / 2


def write_overview(
    index: SheetIndex, path_of: PathOf, grid: Grid, out: Path, progress: Progress
) -> None:
    """Write the overview of a mosaic as COG, lossless where its sheets are not photographs.

    Args:
        index: the sheets, first wins.
        path_of: where the pixels of a sheet are.
        grid: see `overview_grid`.
        out: the file to make.
        progress: counts blocks; asked for cancellation.

    Raises:
        SourceUnreadable: a sheet cannot be read.
        StoreError: it cannot be written.
        Cancelled: the user asked to stop.
    """
    with reading(path_of(index.sheets[0])), rasterio.open(path_of(index.sheets[0])) as first:
        colors = [c for c in first.colorinterp if c is not ColorInterp.alpha]
        dtype, nodata = first.dtypes[0], first.nodata
        palette = first.colormap(1) if colors[0] is ColorInterp.palette else None
    photograph = len(colors) == 3 and dtype == "uint8"
    work = out.with_name(out.name + ".work.tif")
    part = out.with_name(out.name + ".part")
    profile = {
        "driver": "GTiff",
        "width": grid.width,
        "height": grid.height,
        "count": len(colors),
        "dtype": dtype,
        "crs": "EPSG:3857",
        "transform": grid.transform,
        "tiled": True,
        "blockxsize": BLOCK,
        "blockysize": BLOCK,
        "compress": "zstd",
    }
    blocks = list(_blocks(grid))
    progress.begin("overview", len(blocks))
    resampling = Resampling.average if palette is None else Resampling.nearest
    try:
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True, GDAL_CACHEMAX=GDAL_CACHE_NBYTES),
            writing(work),
            rasterio.open(work, "w", **profile) as sink,
            _Sheets(path_of, grid, resampling) as sheets,
        ):
            sink.colorinterp = colors
            if palette is not None:
                sink.write_colormap(1, palette)
            for window in blocks:
                values, present = _draw(index, sheets, grid, window, len(colors), dtype, nodata)
                sink.write(values, window=window)
                sink.write_mask(present, window=window)
                progress.advance()
        options = dict(LOSSLESS)
        if photograph:
            options = {"COMPRESS": "JPEG", "QUALITY": "85"}
        options["OVERVIEW_RESAMPLING"] = "AVERAGE" if palette is None else "NEAREST"
        finish(work, part, options, progress)
        part.rename(out)
    finally:
        work.unlink(missing_ok=True)
        part.unlink(missing_ok=True)


def _blocks(grid: Grid) -> Iterator[Window]:
    for top in range(0, grid.height, BLOCK):
        for left in range(0, grid.width, BLOCK):
            yield Window(left, top, min(BLOCK, grid.width - left), min(BLOCK, grid.height - top))


def _degrees(grid: Grid, window: Window) -> tuple[float, float, float, float]:
    world = 256 * 2**grid.zoom
    left, top = grid.left + window.col_off, grid.top + window.row_off

    def latitude(row: float) -> float:
        return math.degrees(math.atan(math.sinh(math.pi * (1 - 2 * row / world))))

    return (
        left / world * 360 - 180,
        latitude(top + window.height),
        (left + window.width) / world * 360 - 180,
        latitude(top),
    )


def _draw(
    index: SheetIndex,
    sheets: _Sheets,
    grid: Grid,
    window: Window,
    bands: int,
    dtype: str,
    nodata: float | None,
) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
    shape = (window.height, window.width)
    values = np.zeros((bands, *shape), dtype)
    present = np.zeros(shape, np.bool_)
    for sheet in index.touching(*_degrees(grid, window)):
        pixels, there = sheets.read(sheet, window, bands)
        fresh = there & ~present
        values[:, fresh] = pixels[:, fresh]
        present |= there
        if present.all():
            break
    return values, present


class _Sheets:
    """Open sheets, warped to the grid; the least recently used are closed."""

    def __init__(self, path_of: PathOf, grid: Grid, resampling: Resampling) -> None:
        self._path_of = path_of
        self._grid = grid
        self._resampling = resampling
        self._open: dict[str, tuple[ExitStack, DatasetReader]] = {}

    def __enter__(self) -> _Sheets:
        return self

    def __exit__(self, *_: object) -> None:
        for stack, _dataset in self._open.values():
            stack.close()

    def read(
        self, sheet: MosaicSheet, window: Window, bands: int
    ) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
        """Return (bands, rows, columns) and where there is a picture."""
        path = self._path_of(sheet)
        with reading(path):
            warped = self._warped(sheet.store, path)
            pixels = warped.read(list(range(1, bands + 1)), window=window)
            there = np.asarray(warped.dataset_mask(window=window) != 0)
        if np.issubdtype(pixels.dtype, np.floating):
            there &= np.isfinite(pixels).all(axis=0)
        return pixels, there

    def _warped(self, store: str, path: Path) -> DatasetReader:
        found = self._open.pop(store, None)
        if found is None:
            if len(self._open) >= _OPEN_SHEETS:
                self._open.pop(next(iter(self._open)))[0].close()
            stack = ExitStack()
            source = stack.enter_context(rasterio.open(path))
            has_alpha = ColorInterp.alpha in source.colorinterp
            found = (
                stack,
                stack.enter_context(
                    WarpedVRT(
                        source,
                        src_crs=wgs84_twin(source.crs) or source.crs,
                        crs="EPSG:3857",
                        transform=self._grid.transform,
                        width=self._grid.width,
                        height=self._grid.height,
                        resampling=self._resampling,
                        add_alpha=source.nodata is None and not has_alpha,
                    )
                ),
            )
        self._open[store] = found
        return found[1]
