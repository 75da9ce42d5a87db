"""Cloud Optimized GeoTIFFs, written by GDAL's COG driver; its errors told apart by whose they are.

The one idea: what fails while reading is the source's fault, what fails while writing is the
disk's, so each has its own guard (`reading`, `writing`). The driver itself reads and writes in one
call; when that fails the source is read through once more, and the answer tells whose fault it was.
Files are staged beside their target.
"""

from __future__ import annotations

import glob
import html
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import rasterio
from rasterio._err import CPLE_BaseError  # what `rasterio.shutil.copy` raises; exported nowhere
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window

from tiling.errors import SourceUnreadable, StoreError, StoreFull
from tiling.tilers.base import Progress
from tiling.tilers.cog_process import CopyFailed, copy_apart, copy_here, innermost

BLOCK = 512
_WINDOW_PIXELS = 4 * 1024 * 1024
_SMALL_PIXELS = 2048 * 2048
# rasterio takes bytes where GDAL takes megabytes: a bare 128 would be no cache at all.
GDAL_CACHE_NBYTES = 128 * 1024**2
_SOURCE_NAME = re.compile(r"<SourceFilename[^>]*>([^<]+)<")
_COG = {
    "driver": "COG",
    "BLOCKSIZE": str(BLOCK),
    "BIGTIFF": "IF_SAFER",
    "NUM_THREADS": "ALL_CPUS",
    "OVERVIEWS": "IGNORE_EXISTING",
}
LOSSLESS = {"COMPRESS": "DEFLATE", "LEVEL": "6", "PREDICTOR": "YES"}


@contextmanager
def opened(dataset: str | Path) -> Iterator[DatasetReader]:
    """Open a raster; GDAL's errors, in the block too, become `SourceUnreadable`."""
    with reading(dataset), rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_NBYTES), warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(dataset) as source:
            yield source


@contextmanager
def reading(dataset: str | Path) -> Iterator[None]:
    """Turn GDAL's errors inside the block into `SourceUnreadable`."""
    try:
        yield
    except (RasterioError, CPLE_BaseError) as error:
        raise SourceUnreadable(
            f"the raster cannot be read: {innermost(error)}",
            source=shown(dataset),
            remedy="it is truncated or corrupt: copy it again, or repair it with gdal_translate",
        ) from error


@contextmanager
def writing(path: Path, needed_nbytes: int = 0) -> Iterator[None]:
    """Turn GDAL's errors inside the block into `StoreError`.

    Args:
        path: what is written.
        needed_nbytes: the most it may take. GDAL does not pass on why a write failed, and often
            removes the file before we can look: less room than that is taken for the reason.
    """
    free = _free(path)
    try:
        yield
    except (RasterioError, CPLE_BaseError) as error:
        full = min(free, _free(path)) < needed_nbytes
        raise _unwritable(path, innermost(error), full) from error


def _free(path: Path) -> int:
    return shutil.disk_usage(path.parent).free


def _unwritable(path: Path, why: str, full: bool) -> StoreError:
    if full:
        return StoreFull(
            f"the disk is full: {path.name} could not be written in {path.parent}, where "
            f"{_free(path):,} bytes are free"
        )
    return StoreError(
        f"{path.name} cannot be written in {path.parent}: {why}; "
        "free space there or check its permissions"
    )


def shown(dataset: str | Path) -> str:
    """Return how a message names a dataset: a VRT by the files it is made of."""
    text = str(dataset)
    if not text.startswith("<VRTDataset"):
        return text
    names = dict.fromkeys(html.unescape(name) for name in _SOURCE_NAME.findall(text))
    first = next(iter(names), "VRT")
    return first if len(names) < 2 else f"mosaic of {len(names)} sheets ({first} ...)"


def finish(source: str | Path, part: Path, options: Mapping[str, str], progress: Progress) -> None:
    """Write a dataset as COG with overviews, with all cores.

    Args:
        source: what GDAL opens: a path, ``/vsizip/...`` or the text of a VRT.
        part: the file to make; the caller removes what is left of it when this fails.
        options: creation options of GDAL's COG driver beside our own.
        progress: asked for cancellation.

    Raises:
        SourceUnreadable: a block of the source cannot be read.
        StoreFull: no room is left.
        StoreError: it cannot be written.
        Cancelled: the user asked to stop.
    """
    with opened(source) as dataset:
        needed = most_nbytes(dataset)
        small = dataset.width * dataset.height <= _SMALL_PIXELS
    free = _free(part)
    try:
        if small:
            copy_here(source, part, {**_COG, **options}, GDAL_CACHE_NBYTES)
        else:
            copy_apart(source, part, {**_COG, **options}, GDAL_CACHE_NBYTES, progress)
        # GDAL notices a full disk when it closes the file, and says so only in its log. The last
        # block of the full image lies at the end of a COG.
        with writing(part, needed), rasterio.open(part) as written:
            rows, columns = written.block_shapes[0]
            top = (written.height - 1) // rows * rows
            left = (written.width - 1) // columns * columns
            written.read(window=Window(left, top, written.width - left, written.height - top))
    except CopyFailed as error:
        read_through(source, progress)
        raise _unwritable(part, str(error), min(free, _free(part)) < needed) from error
    finally:
        for scratch in part.parent.glob(f"{glob.escape(part.name)}.*"):
            scratch.unlink()


def read_through(source: str | Path, progress: Progress) -> None:
    """Read every block of a dataset once.

    Raises:
        SourceUnreadable: a block cannot be read.
        Cancelled: the user asked to stop.
    """
    with opened(source) as dataset:
        for window in block_windows(dataset.width, dataset.height):
            dataset.read(window=window)
            dataset.dataset_mask(window=window)
            progress.advance(0)


def block_windows(width: int, height: int) -> Iterator[Window]:
    """Yield windows of whole output blocks that cover an image once, of some 4 million pixels."""
    wide = _WINDOW_PIXELS // BLOCK // BLOCK * BLOCK
    across = min(wide, -(-width // BLOCK) * BLOCK)
    down = max(1, _WINDOW_PIXELS // across // BLOCK) * BLOCK
    for top in range(0, height, down):
        for left in range(0, width, across):
            yield Window(left, top, min(across, width - left), min(down, height - top))


def most_nbytes(dataset: DatasetReader) -> int:
    """Return the most that a lossless copy with overviews takes: no pixel compressed at all."""
    pixel = sum(np.dtype(t).itemsize for t in dataset.dtypes) + 1  # and its mask
    nbytes: int = dataset.width * dataset.height * pixel * 3 // 2
    return nbytes + 1024**2
