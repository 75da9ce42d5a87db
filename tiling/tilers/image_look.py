"""How an image is understood: which bands make the picture, and what says where there is none.

Two steps. `understand` decides from the header. `survey` then reads once through those images
whose absent pixels the result must keep in a mask of its own (an alpha band, or nodata of a
photograph, which lossy compression would blur): it writes that mask and counts.
"""

from __future__ import annotations

import math
import os
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.io import DatasetReader
from rasterio.windows import Window

from tiling.errors import CrsMissing, RasterUnsupported
from tiling.findings import Findings
from tiling.tilers.base import Progress
from tiling.tilers.cog import BLOCK, block_windows, opened, shown, writing

_RGB = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)


@dataclass(frozen=True, slots=True)
class Look:
    """How an image is understood.

    Attributes:
        bands: source bands that are kept, from 1.
        alpha: the source band that says what is transparent, or None.
        shown: positions among the kept bands that make the picture, from 1.
        colorinterp: of the kept bands.
        dtype: NumPy name of the type of all bands.
        photograph: three bytes a pixel.
        palette: values are names of colours: never averaged.
        has_mask: the source has a mask beside its bands.
        nodata: the value that means no data, None when undeclared.
    """

    bands: tuple[int, ...]
    alpha: int | None
    shown: tuple[int, ...]
    colorinterp: tuple[ColorInterp, ...]
    dtype: str
    photograph: bool
    palette: bool
    has_mask: bool
    nodata: float | None

    def needs_survey(self, lossy: bool) -> bool:
        """Say whether absent pixels must be turned into a mask, given how values will be kept."""
        return self.alpha is not None or (lossy and self.nodata is not None)


@dataclass(frozen=True, slots=True)
class Survey:
    """What a survey found.

    Attributes:
        mask: a file of one band, 255 where there is a picture.
        valid, half_transparent, pixels: counts; half-transparent pixels are valid.
        opaque: the largest value of the alpha band, 0 when there is none.
    """

    mask: Path
    valid: int
    half_transparent: int
    pixels: int
    opaque: int


def check(source: DatasetReader) -> None:
    """Refuse an image that cannot be placed or whose bands are no numbers.

    Raises:
        CrsMissing, RasterUnsupported: with the remedy.
    """
    name = shown(source.name)
    if source.crs is None:
        raise CrsMissing(
            "the image has no coordinate reference system",
            source=name,
            remedy="declare it: --crs EPSG:4547 (or another code)",
        )
    _, b, _, d, _, _ = tuple(source.transform)[:6]
    if b or d:
        raise RasterUnsupported(
            f"the image is rotated or sheared: its geotransform has the terms {b:g} and {d:g}",
            source=name,
            remedy="straighten it first: gdalwarp -r bilinear IN OUT",
        )
    if len(set(source.dtypes)) > 1 or source.dtypes[0].startswith("complex"):
        raise RasterUnsupported(
            f"bands of the types {', '.join(sorted(set(source.dtypes)))}",
            source=name,
            remedy="export bands of one real type: gdal_translate -ot UInt16 IN OUT",
        )


def understand(source: DatasetReader, findings: Findings) -> Look:
    """Decide from the header what the bands of an image are; what is assumed is a finding."""
    interp = tuple(source.colorinterp)
    alpha = next((i for i, c in enumerate(interp, 1) if c is ColorInterp.alpha), None)
    bands = tuple(i for i in source.indexes if i != alpha)
    if not bands:
        raise RasterUnsupported(
            "the image has an alpha band and nothing else",
            source=shown(source.name),
            remedy="check the export that made it",
        )
    kept = [interp[i - 1] for i in bands]
    if all(c in kept for c in _RGB):
        picture = tuple(kept.index(c) + 1 for c in _RGB)
    elif len(bands) >= 3:
        picture = (1, 2, 3)
        kept[:3] = _RGB
        rest = "" if len(bands) == 3 else f" and {len(bands) - 3} more that are not shown"
        findings.add(
            "bands-assumed",
            "assumption",
            f"the file does not say what its {len(bands)} bands are: taken as red, green, blue"
            + rest,
        )
    else:
        picture = (1,)
    flags = source.mask_flag_enums[bands[0] - 1]
    return Look(
        bands=bands,
        alpha=alpha,
        shown=picture,
        colorinterp=tuple(kept),
        dtype=source.dtypes[0],
        photograph=len(bands) == 3 and source.dtypes[0] == "uint8",
        palette=kept[0] is ColorInterp.palette and len(bands) == 1,
        has_mask=MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags,
        nodata=source.nodata,
    )


def survey(dataset: str | Path, look: Look, mask: Path, progress: Progress) -> Survey:
    """Read an image once and write the mask of its picture.

    Args:
        dataset: what GDAL opens.
        look: how it is understood; it needs one.
        mask: the file to make.
        progress: counts megapixels.

    Raises:
        SourceUnreadable: a block cannot be read.
        StoreError: the mask cannot be written.
    """
    with opened(dataset) as source:
        width, height = source.width, source.height
        crs, transform = source.crs, source.transform
    progress.begin("read image", -(-width * height // 1_000_000))
    valid = half = opaque = done = 0
    # A histogram of alpha tells what is half transparent once the most opaque value is known:
    # some files write 1 and not 255 for opaque.
    values: dict[int, int] = {}
    profile = {
        "driver": "GTiff",
        "width": width,
        "height": height,
        "crs": crs,
        "transform": transform,
        "count": 1,
        "dtype": "uint8",
        "tiled": True,
        "blockxsize": BLOCK,
        "blockysize": BLOCK,
        "compress": "zstd",
        "zstd_level": 1,
        "bigtiff": "IF_SAFER",
    }
    with writing(mask), rasterio.open(mask, "w", **profile) as sink:
        for window, present, alpha in _presence(dataset, look, width, height):
            sink.write(present.astype(np.uint8) * np.uint8(255), 1, window=window)
            valid += int(np.count_nonzero(present))
            for value, count in alpha.items():
                values[value] = values.get(value, 0) + count
            before = done
            done += present.size
            progress.advance(done // 1_000_000 - before // 1_000_000)
    if values:
        opaque = max(values)
        half = sum(count for value, count in values.items() if 0 < value < opaque)
    return Survey(mask, valid, half, width * height, opaque)


_Presence = tuple[Window, NDArray[np.bool_], dict[int, int]]


def _presence(dataset: str | Path, look: Look, width: int, height: int) -> Iterator[_Presence]:
    """Yield window, where there is a picture, and the counts of alpha's values, in order."""
    own = threading.local()
    opened_by_threads: list[DatasetReader] = []

    def read(window: Window) -> _Presence:
        # A handle of GDAL belongs to one thread at a time.
        if not hasattr(own, "source"):
            own.source = rasterio.open(dataset)
            opened_by_threads.append(own.source)
        return window, *_present(own.source, look, window)

    threads = os.cpu_count() or 1
    waiting: deque[Future[_Presence]] = deque()
    with opened(dataset), ThreadPoolExecutor(threads) as pool:
        try:
            for window in block_windows(width, height):
                waiting.append(pool.submit(read, window))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
            pool.shutdown()
            for source in opened_by_threads:
                source.close()


def _present(
    source: DatasetReader, look: Look, window: Window
) -> tuple[NDArray[np.bool_], dict[int, int]]:
    if look.alpha is not None:
        alpha = source.read(look.alpha, window=window)
        if alpha.dtype in (np.uint8, np.uint16):
            counts = np.bincount(alpha.ravel())
            found = np.flatnonzero(counts)
            return alpha > 0, dict(zip(found.tolist(), counts[found].tolist(), strict=True))
        found, counts = np.unique(alpha, return_counts=True)
        return alpha > 0, dict(zip(found.tolist(), counts.tolist(), strict=True))
    if look.has_mask:
        return np.asarray(source.dataset_mask(window=window) != 0), {}
    present = np.zeros((window.height, window.width), np.bool_)
    for index in look.bands:
        # One band that is not at the nodata value makes a colour.
        present |= _differs(source.read(index, window=window), source.nodatavals[index - 1])
    return present, {}


def _differs(values: NDArray[Any], nodata: float | None) -> NDArray[np.bool_]:
    if nodata is None:
        return np.ones(values.shape, np.bool_)
    if math.isnan(nodata):
        return np.asarray(~np.isnan(values))
    with np.errstate(invalid="ignore", over="ignore"):
        stored = np.float64(nodata).astype(values.dtype)
    # A value that the type cannot hold never occurs; floats are compared as they are stored.
    if not np.issubdtype(values.dtype, np.floating) and float(stored) != nodata:
        return np.ones(values.shape, np.bool_)
    return np.asarray(values != stored)
