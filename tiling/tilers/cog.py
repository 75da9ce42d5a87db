"""Cloud Optimized GeoTIFFs, written by GDAL's COG driver; its errors told apart by whose they are.

The one idea: what fails while reading is the source's fault, what fails while writing is the
disk's, so each has its own guard (`reading`, `writing`). Files are staged beside their target.
"""

from __future__ import annotations

import html
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import rasterio
import rasterio.shutil
from rasterio._err import CPLE_BaseError  # what `rasterio.shutil.copy` raises; exported nowhere
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window

from tiling.errors import SourceUnreadable, StoreError, StoreFull
from tiling.tilers.base import Progress

BLOCK = 512
GDAL_CACHE_MB = 128
_SOURCE_NAME = re.compile(r"<SourceFilename[^>]*>([^<]+)<")
_COG = {
    "driver": "COG",
    "BLOCKSIZE": str(BLOCK),
    "BIGTIFF": "IF_SAFER",
    "NUM_THREADS": "2",
    "OVERVIEWS": "IGNORE_EXISTING",
}
LOSSLESS = {"COMPRESS": "DEFLATE", "LEVEL": "6", "PREDICTOR": "YES"}


def write_dem_cog(dataset: str | Path, out_path: Path, progress: Progress) -> None:
    """Write a DEM as lossless COG: same CRS, type, nodata, scale and unit.

    Args:
        dataset: what GDAL opens: a path, ``/vsizip/...`` or the text of a VRT.
        out_path: where the COG goes.
        progress: one step of unknown length.

    Raises:
        SourceUnreadable: the DEM cannot be read.
        StoreError: the disk is full or not writable.
    """
    progress.begin("cog")
    part = out_path.with_name(out_path.name + ".part")
    try:
        with opened(dataset):
            pass
        finish(dataset, part, {**LOSSLESS, "OVERVIEW_RESAMPLING": "AVERAGE"})
        part.rename(out_path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def opened(dataset: str | Path) -> Iterator[DatasetReader]:
    """Open a raster; GDAL's errors, in the block too, become `SourceUnreadable`."""
    with reading(dataset), rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_MB), warnings.catch_warnings():
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
    free = shutil.disk_usage(path.parent).free
    try:
        yield
    except (RasterioError, CPLE_BaseError) as error:
        if min(free, shutil.disk_usage(path.parent).free) < needed_nbytes:
            raise StoreFull(
                f"the disk is full: {path.name} could not be written in {path.parent}, where "
                f"{free:,} bytes were free"
            ) from error
        raise StoreError(
            f"{path.name} cannot be written in {path.parent}: {innermost(error)}; "
            "free space there or check its permissions"
        ) from error


def innermost(error: BaseException) -> str:
    """Return GDAL's own words about an error of rasterio."""
    # rasterio says "Read failed. See previous exception for details."; GDAL's words lie below.
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error)


def shown(dataset: str | Path) -> str:
    """Return how a message names a dataset: a VRT by the files it is made of."""
    text = str(dataset)
    if not text.startswith("<VRTDataset"):
        return text
    names = dict.fromkeys(html.unescape(name) for name in _SOURCE_NAME.findall(text))
    first = next(iter(names), "VRT")
    return first if len(names) < 2 else f"mosaic of {len(names)} sheets ({first} ...)"


def finish(source: str | Path, part: Path, options: dict[str, str]) -> None:
    """Write a dataset as COG with overviews.

    Raises:
        StoreFull: no room is left.
        StoreError: it cannot be written.
    """
    with writing(part), rasterio.open(source) as dataset:
        needed = most_nbytes(dataset)
    with (
        writing(part, needed),
        rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_MB, GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(source) as dataset,
    ):
        rasterio.shutil.copy(dataset, part, **{**_COG, **options})
    # GDAL notices a full disk when it closes the file, and says so only in its log. The last
    # block of the full image lies at the end of a COG.
    with writing(part, needed), rasterio.open(part) as written:
        rows, columns = written.block_shapes[0]
        top = (written.height - 1) // rows * rows
        left = (written.width - 1) // columns * columns
        written.read(window=Window(left, top, written.width - left, written.height - top))


def most_nbytes(dataset: DatasetReader) -> int:
    """Return the most that a lossless copy with overviews takes: no pixel compressed at all."""
    pixel = sum(np.dtype(t).itemsize for t in dataset.dtypes) + 1  # and its mask
    nbytes: int = dataset.width * dataset.height * pixel * 3 // 2
    return nbytes + 1024**2
