"""Pixels of a stack's rasters and overviews, a block at a time, in bounded memory.

Blocks are those of the file (512 x 512), decoded once, float32 with NaN for void, and kept while
they are used; open files are few. One process, one thread.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window

from tiling.dem.layer import DemLayer, opened
from tiling.errors import StoreError

BLOCK = 512
# What a unit of terrain touches lies close together; a server may keep more.
CACHE_NBYTES = 24 * 1024**2
_MAX_OPEN = 24
_GDAL_NBYTES = 4 * 1024**2

Block = NDArray[np.float32]
Key = tuple[int, int, int, int]


class Blocks:
    """Open files and decoded blocks, least recently used first out.

    Args:
        nbytes: the most that decoded blocks may take.
    """

    def __init__(self, nbytes: int = CACHE_NBYTES) -> None:
        self._limit = nbytes
        self._nbytes = 0
        self._blocks: OrderedDict[Key, Block] = OrderedDict()
        self._open: OrderedDict[tuple[str, int], DatasetReader] = OrderedDict()

    def close(self) -> None:
        """Close all files and forget all blocks."""
        self._blocks.clear()
        self._nbytes = 0
        while self._open:
            self._open.popitem()[1].close()

    def get(self, key: Key, make: Callable[[], Block]) -> Block:
        """Return what is kept under a key, made if it is not there."""
        found = self._blocks.get(key)
        if found is not None:
            self._blocks.move_to_end(key)
            return found
        block = make()
        self._blocks[key] = block
        self._nbytes += block.nbytes
        while self._nbytes > self._limit and len(self._blocks) > 1:
            self._nbytes -= self._blocks.popitem(last=False)[1].nbytes
        return block

    def window(
        self, index: int, layer: DemLayer, level: int, bounds: tuple[int, int, int, int]
    ) -> Block:
        """Return pixels of a level; those outside the raster are NaN.

        Args:
            index: number of the layer.
            layer: the layer.
            level: of its overviews; 0 is the raster.
            bounds: first column and row, and the ones after the last.

        Raises:
            StoreError: a block cannot be read.
        """
        left, top, right, bottom = bounds
        width, height = layer.sizes[level]
        c0, r0, c1, r1 = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
        down, across = r0 // BLOCK, c0 // BLOCK
        if c1 > c0 and r1 > r0 and (r1 - 1) // BLOCK == down and (c1 - 1) // BLOCK == across:
            if (c0, r0, c1, r1) == (left, top, right, bottom):
                block = self._block(index, layer, level, down, across)
                y, x = down * BLOCK, across * BLOCK
                # A copy: the kernels are compiled for contiguous arrays.
                return np.ascontiguousarray(block[r0 - y : r1 - y, c0 - x : c1 - x])
        out = np.full((bottom - top, right - left), np.nan, dtype=np.float32)
        for down in range(r0 // BLOCK, -(-r1 // BLOCK)):
            y0, y1 = max(r0, down * BLOCK), min(r1, (down + 1) * BLOCK)
            for across in range(c0 // BLOCK, -(-c1 // BLOCK)):
                x0, x1 = max(c0, across * BLOCK), min(c1, (across + 1) * BLOCK)
                block = self._block(index, layer, level, down, across)
                y, x = down * BLOCK, across * BLOCK
                out[y0 - top : y1 - top, x0 - left : x1 - left] = block[
                    y0 - y : y1 - y, x0 - x : x1 - x
                ]
        return out

    def _block(self, index: int, layer: DemLayer, level: int, down: int, across: int) -> Block:
        key = (index, level, down, across)
        return self.get(key, lambda: self._read(layer, level, down, across))

    def _read(self, layer: DemLayer, level: int, down: int, across: int) -> Block:
        width, height = layer.sizes[level]
        x, y = across * BLOCK, down * BLOCK
        window = Window(x, y, min(BLOCK, width - x), min(BLOCK, height - y))
        try:
            # Blocks are kept here: GDAL, which would take a share of all memory, keeps few.
            with rasterio.Env(GDAL_CACHEMAX=_GDAL_NBYTES):
                raw = self._dataset(layer.path, level).read(1, window=window)
        except RasterioError as error:
            raise StoreError(
                f"{layer.path}: block {across}, {down} of level {level} cannot be read: the file "
                "is damaged; ingest the elevation model again"
            ) from error
        block: Block = raw.astype(np.float32)
        if layer.nodata is not None:
            block[raw == layer.nodata] = np.nan
        block[~np.isfinite(block)] = np.nan
        return block

    def _dataset(self, path: str, level: int) -> DatasetReader:
        key = (path, level)
        if key in self._open:
            self._open.move_to_end(key)
        else:
            self._open[key] = opened(path, level)
            if len(self._open) > _MAX_OPEN:
                self._open.popitem(last=False)[1].close()
        return self._open[key]
