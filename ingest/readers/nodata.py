"""The value of absent pixels, as the user declares it of files that say none or a wrong one.

It is a stored value: before the band's scale, offset and unit.
"""

from __future__ import annotations

import numpy as np
from rasterio.enums import MaskFlags
from rasterio.io import DatasetReader

from tiling.errors import RasterUnsupported


def stored_nodata(name: str, dataset: DatasetReader, value: float) -> float:
    """Return a declared nodata value as the pixels of a raster would hold it.

    Args:
        name: the raster's, for messages.
        dataset: the open raster.
        value: as declared.

    Raises:
        RasterUnsupported: a mask or an alpha band says already what is absent, or the pixels
            cannot hold the value.
    """
    flags = {flag for band in dataset.mask_flag_enums for flag in band}
    if flags & {MaskFlags.per_dataset, MaskFlags.alpha}:
        raise RasterUnsupported(
            f"a mask or an alpha band says which pixels are absent, and so does --nodata {value:g}",
            source=name,
            remedy="leave --nodata out, or take the mask away: gdal_translate -mask none -b 1 ...",
        )
    for dtype in map(np.dtype, dataset.dtypes):
        if dtype.kind == "f":
            continue
        limits = np.iinfo(dtype.name)
        if not (value.is_integer() and limits.min <= value <= limits.max):
            raise RasterUnsupported(
                f"--nodata {value:g} is no value that pixels of type {dtype} can have",
                source=name,
                remedy=f"name a whole number from {limits.min} to {limits.max}",
            )
    with np.errstate(over="ignore"):
        return float(np.float64(value).astype(dataset.dtypes[0]))
