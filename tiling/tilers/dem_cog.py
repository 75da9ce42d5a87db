"""Heights -> a Cloud Optimized GeoTIFF, made in pieces that workers compress.

The one idea: whoever has the pixels of the full image yields its blocks (`base_tiles`) and leaves
the pixels of the first overview in a plain file, a *plane*; each further pass reads a plane, yields
the blocks of two levels and leaves the plane of the level after them. So every pixel is held once,
no more than a piece at a time, and neither memory nor the time for a pixel grows with the raster.

Pixels travel as (rows, columns) float32 metres, NaN for void. An overview's pixel is the mean of
the area under it, voids left aside; overviews cover just what the full image covers, so where a
side is odd their pixels are not quite twice as large, as in GDAL's own.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tiling.crs import SpatialRef
from tiling.formats import cog
from tiling.kernels import njit
from tiling.stores.base import Encoding
from tiling.tilers.base import Run
from tiling.tilers.pipeline import Tile, UnitResult, build_parts

Heights = NDArray[np.float32]
Window = tuple[int, int, int, int]

INT16_VOID = -32768
# Pixels along a piece of a plane: 16 MB, and 4 MB of the level above.
_PIECE = 2048
# Pixels beside a piece that its own coarsest pixels may reach into, where sides are odd.
_RIM = 3
_VOID_BITS = np.float32(np.nan).view(np.uint32)


@dataclass(frozen=True, slots=True)
class Image:
    """The raster that is made.

    Attributes:
        width, height: pixels.
        dtype: ``float32`` (void: NaN) or ``int16`` (void: -32768).
        ref: frame.
        transform: x = a * column + c, y = e * row + f as (a, 0, c, 0, e, f).
        planes: beginning of the names of scratch files.
    """

    width: int
    height: int
    dtype: str
    ref: SpatialRef
    transform: tuple[float, float, float, float, float, float]
    planes: str

    def sizes(self) -> list[tuple[int, int]]:
        """Return width and height of every level, the full image first."""
        return [(level.width, level.height) for level in cog.levels(self.width, self.height)]

    def rim(self, level: int) -> int:
        """Return how many pixels to the left and above a piece of a level needs besides its own."""
        deeper = self.sizes()[level : level + 2]
        return _RIM if any(side % 2 for size in deeper for side in size) else 0

    def plane(self, level: int) -> Plane:
        """Return the scratch file of a level."""
        return Plane(Path(f"{self.planes}-{level}.f32"), *self.sizes()[level])


@dataclass(frozen=True, slots=True)
class Plane:
    """Pixels of a level in a plain file, row by row; many processes may write at once.

    What nobody has written is void: the bits of a pixel are kept as they differ from those of NaN,
    for a hole in a file reads as zeros.
    """

    path: Path
    width: int
    height: int

    def read(self, left: int, top: int, right: int, bottom: int) -> Heights:
        """Return pixels."""
        out = np.empty((bottom - top, right - left), dtype=np.float32)
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            for row in range(top, bottom):
                os.preadv(descriptor, [out[row - top]], (row * self.width + left) * 4)
        finally:
            os.close(descriptor)
        out.view(np.uint32)[:] ^= _VOID_BITS
        return out

    def write(self, left: int, top: int, pixels: Heights) -> None:
        """Write pixels; the file is made when there is none."""
        coded = np.ascontiguousarray(pixels).view(np.uint32) ^ _VOID_BITS
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            os.ftruncate(descriptor, self.width * self.height * 4)
            for row in range(len(pixels)):
                at = ((top + row) * self.width + left) * 4
                data = memoryview(coded[row]).cast("B")
                while data:
                    done = os.pwrite(descriptor, data, at)
                    data, at = data[done:], at + done
        finally:
            os.close(descriptor)


def base_tiles(image: Image, pixels: Heights, left: int, top: int, rim: int) -> Iterator[Tile]:
    """Yield the blocks of a window of the full image, and lay its pixels into the first plane.

    Args:
        image: the raster.
        pixels: the window with `rim` more columns on its left and rows above it, as far as the
            image reaches (none beyond its edge).
        left, top: first column and row of the window proper, multiples of 1024 or 512.
        rim: see `Image.rim`.
    """
    own = pixels[min(rim, top) :, min(rim, left) :]
    yield from _tiles(image, 0, own, left, top)
    if len(image.sizes()) > 1:
        at = left - min(rim, left), top - min(rim, top)
        window = _halved_window(image, 0, (left, top, left + own.shape[1], top + own.shape[0]))
        half = _halved(image, 0, pixels, at, window)
        image.plane(1).write(window[0], window[1], half)


def overview_parts(image: Image, name: str, run: Run) -> list[list[Path]]:
    """Make the blocks of all overviews from the first plane.

    Args:
        image: the raster; its first plane is complete.
        name: of the folder in which those of the parts are.
        run: where work units go.

    Returns:
        parts, see `tiling.tilers.pipeline.build_parts`; those of the finest overviews first.
    """
    passes = []
    sizes = image.sizes()
    for level in range(1, len(sizes), 2):
        width, height = sizes[level]
        units = [
            (level, left, top, min(left + _PIECE, width), min(top + _PIECE, height))
            for top in range(0, height, _PIECE)
            for left in range(0, width, _PIECE)
        ]
        passes.append(build_parts(f"{name}/{level}", units, partial(_build, image), run, "cog"))
    return passes


class CogWriter:
    """Writes the file: blocks in the order in which they come, the header last.

    Blocks of coarser levels should come first, as the layout wants it.

    Args:
        image: the raster.
        path: where the file goes.
    """

    def __init__(self, image: Image, path: Path) -> None:
        self._levels = cog.levels(image.width, image.height)
        void = str(INT16_VOID) if image.dtype == "int16" else "nan"
        place = cog.place_tags(image.ref.crs.to_wkt(), image.transform)
        self._header = partial(cog.header, self._levels, image.dtype, void, place)
        self._file = path.open("wb")
        self._at = len(self._header())
        self._file.seek(self._at)

    def put(self, key: str, data: bytes, encoding: Encoding = None) -> None:
        """Add a block; its key is LEVEL/ROW/COLUMN."""
        number, row, column = (int(part) for part in key.split("/"))
        level = self._levels[number]
        level.offsets[row, column], level.nbytes[row, column] = self._at, len(data)
        self._file.write(data)
        self._at += len(data)

    def commit(self) -> None:
        """Write the header and flush the file to the disk."""
        self._file.seek(0)
        self._file.write(self._header())
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def abort(self) -> None:
        """Close the file; calling it after `commit` does nothing."""
        self._file.close()


def _build(image: Image, unit: tuple[int, int, int, int, int]) -> UnitResult:
    level, left, top, right, bottom = unit
    if not image.plane(level).path.exists():
        return UnitResult([])  # nobody has had a pixel to write
    rim = image.rim(level)
    at = max(left - rim, 0), max(top - rim, 0)
    pixels = image.plane(level).read(*at, right, bottom)
    if np.isnan(pixels).all():
        return UnitResult([])
    tiles: list[Tile] = []
    if level + 1 < len(image.sizes()):
        window = _halved_window(image, level, (left, top, right, bottom))
        # The pixel before the window's own may be needed by the level after it.
        first = max(window[0] - (rim > 0), 0), max(window[1] - (rim > 0), 0)
        half = _halved(image, level, pixels, at, (*first, *window[2:]))
        own = half[window[1] - first[1] :, window[0] - first[0] :]
        tiles += _tiles(image, level + 1, own, window[0], window[1])
        if level + 2 < len(image.sizes()):
            last = _halved_window(image, level + 1, window)
            quarter = _halved(image, level + 1, half, first, last)
            image.plane(level + 2).write(last[0], last[1], quarter)
    tiles += _tiles(image, level, pixels[top - at[1] :, left - at[0] :], left, top)
    return UnitResult(tiles)


def _tiles(image: Image, level: int, pixels: Heights, left: int, top: int) -> Iterator[Tile]:
    for row in range(0, pixels.shape[0], cog.BLOCK):
        for column in range(0, pixels.shape[1], cog.BLOCK):
            block = pixels[row : row + cog.BLOCK, column : column + cog.BLOCK]
            void = np.isnan(block)
            if void.all():
                continue
            stored: NDArray[np.float32] | NDArray[np.int16] = block
            if image.dtype == "int16":
                stored = np.where(void, INT16_VOID, np.rint(block)).astype(np.int16)
            key = f"{level}/{(top + row) // cog.BLOCK}/{(left + column) // cog.BLOCK}"
            yield Tile(key, cog.encode_block(stored))


def _halved_window(image: Image, level: int, window: Window) -> Window:
    """Return the pixels of the next level that belong to a piece of a level."""
    left, top, right, bottom = window
    width, height = image.sizes()[level + 1]
    return left // 2, top // 2, min(-(-right // 2), width), min(-(-bottom // 2), height)


def _halved(
    image: Image, level: int, pixels: Heights, at: tuple[int, int], window: Window
) -> Heights:
    """Return the means of a window of the next level.

    Args:
        image: the raster.
        level: of the pixels.
        pixels: enough of them.
        at: column and row of the first.
        window: of the next level.
    """
    sizes: Sequence[tuple[int, int]] = image.sizes()
    ratio_x = sizes[level][0] / sizes[level + 1][0]
    ratio_y = sizes[level][1] / sizes[level + 1][1]
    left, top, right, bottom = window
    out = np.empty((bottom - top, right - left), dtype=np.float32)
    average_area(np.ascontiguousarray(pixels), at[0], at[1], ratio_x, ratio_y, left, top, out)
    return out


@njit(cache=True)
def average_area(
    pixels: Heights,
    first_column: int,
    first_row: int,
    ratio_x: float,
    ratio_y: float,
    left: int,
    top: int,
    out: Heights,
) -> None:
    """Average the pixels under each larger pixel, by the area they share; voids have no say.

    Args:
        pixels: (h, w) metres, NaN for void.
        first_column, first_row: place of the first of them in its level.
        ratio_x, ratio_y: sides of a larger pixel in pixels.
        left, top: place of the first larger pixel in its level.
        out: (m, n) receives the means; NaN where all is void.
    """
    rows, columns = pixels.shape
    for j in range(out.shape[0]):
        y0 = (top + j) * ratio_y - first_row
        y1 = min(y0 + ratio_y, float(rows))
        for i in range(out.shape[1]):
            x0 = (left + i) * ratio_x - first_column
            x1 = min(x0 + ratio_x, float(columns))
            total, area = 0.0, 0.0
            for row in range(max(int(math.floor(y0 + 1e-9)), 0), int(math.ceil(y1 - 1e-9))):
                down = min(y1, row + 1.0) - max(y0, float(row))
                for column in range(max(int(math.floor(x0 + 1e-9)), 0), int(math.ceil(x1 - 1e-9))):
                    value = pixels[row, column]
                    if value == value:
                        share = down * (min(x1, column + 1.0) - max(x0, float(column)))
                        total += share * value
                        area += share
            out[j, i] = total / area if area > 0.0 else math.nan
