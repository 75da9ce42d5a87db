"""Rasters kept open: opening costs more than reading a tile, and GDAL's handles serve one thread.

Files are immutable and named by their digest, so what is known about one is known for good. A
level of a raster (its full resolution or an overview) has handles of its own, so that a window is
read as it lies in the file and GDAL never resamples.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.io import DatasetReader

from tiling.bounds import Region
from tiling.crs import SpatialRef, transform_points

EARTH_RADIUS_M = 6378137.0
_KEPT_HANDLES = 64
_EDGE_POINTS = 33
# Files lie alone: no neighbours to look for, and nothing may lead GDAL to the network.
_ENV = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": ".none",
}
_WGS84 = SpatialRef.parse("EPSG:4326")


@dataclass(frozen=True, slots=True)
class RasterFacts:
    """What a raster is, without its pixels.

    Attributes:
        path: the file.
        levels: width and height of the full resolution and of each overview, finest first.
        to_pixel: a, b, c, d, e, f of ``column = a x + b y + c``, ``row = d x + e y + f``.
        ref: its frame.
        axes: ``geographic`` or ``mercator`` when columns follow from longitude and rows from
            latitude alone (WGS 84 and what equals it, unrotated), else ``other``.
        bounds: lon/lat degrees of what it covers.
        bands: the bands of colour or values, from 1; without alpha.
        alpha: the band of opacity, or 0.
        masked: whether pixels can be missing otherwise (nodata, a mask).
        dtype: of the pixels.
        palette: (256, 4) RGBA of a paletted band, else None.
    """

    path: str
    levels: tuple[tuple[int, int], ...]
    to_pixel: tuple[float, float, float, float, float, float]
    ref: SpatialRef
    axes: str
    bounds: Region
    bands: tuple[int, ...]
    alpha: int
    masked: bool
    dtype: str
    palette: NDArray[np.uint8] | None

    def columns_rows(
        self, lon_deg: NDArray[np.float64], lat_deg: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return where places lie in pixels of the full resolution, from the outer corner.

        Args:
            lon_deg, lat_deg: degrees; of equal shape, or for separable axes of any.
        """
        a, b, c, d, e, f = self.to_pixel
        if self.axes == "geographic":
            return a * lon_deg + c, e * lat_deg + f
        if self.axes == "mercator":
            x = EARTH_RADIUS_M * np.radians(lon_deg)
            y = EARTH_RADIUS_M * np.arctanh(np.sin(np.radians(lat_deg)))
            return a * x + c, e * y + f
        x, y = transform_points(_WGS84, self.ref, lon_deg.ravel(), lat_deg.ravel())[:2]
        x, y = x.reshape(lon_deg.shape), y.reshape(lat_deg.shape)
        return a * x + b * y + c, d * x + e * y + f


@lru_cache(maxsize=4096)
def raster_facts(path: str) -> RasterFacts:
    """Return the facts of an immutable file; opens it the first time."""
    with rasterio.Env(**_ENV), rasterio.open(path) as dataset:
        ref = SpatialRef.parse(dataset.crs.to_wkt())
        inverse = ~dataset.transform
        colours = dataset.colorinterp
        alpha = colours.index(ColorInterp.alpha) + 1 if ColorInterp.alpha in colours else 0
        flags = dataset.mask_flag_enums[0]
        palette = None
        if colours[0] == ColorInterp.palette:
            palette = np.zeros((256, 4), np.uint8)
            for value, colour in dataset.colormap(1).items():
                palette[value] = colour
        sizes = [
            (-(-dataset.width // factor), -(-dataset.height // factor))
            for factor in dataset.overviews(1)
        ]
        bounds = _bounds(dataset, ref)
        return RasterFacts(
            path,
            ((dataset.width, dataset.height), *sizes),
            (inverse.a, inverse.b, inverse.c, inverse.d, inverse.e, inverse.f),
            ref,
            _axes(dataset, ref, bounds),
            bounds,
            tuple(i for i in dataset.indexes if i != alpha),
            alpha,
            MaskFlags.all_valid not in flags and not alpha,
            dataset.dtypes[0],
            palette,
        )


def _bounds(dataset: DatasetReader, ref: SpatialRef) -> Region:
    step = np.linspace(0.0, 1.0, _EDGE_POINTS)
    zero, one = np.zeros_like(step), np.ones_like(step)
    column = np.concatenate([step, one, step, zero]) * dataset.width
    row = np.concatenate([zero, step, one, step]) * dataset.height
    t = dataset.transform
    x, y = t.a * column + t.b * row + t.c, t.d * column + t.e * row + t.f
    lon, lat = transform_points(ref, _WGS84, x, y)[:2]
    return Region(float(lon.min()), float(lat.min()), float(lon.max()), float(lat.max()))


def _axes(dataset: DatasetReader, ref: SpatialRef, bounds: Region) -> str:
    if dataset.transform.b or dataset.transform.d:
        return "other"
    if ref.code == "EPSG:3857":
        return "mercator"
    if not dataset.crs.is_geographic:
        return "other"
    # A datum that is not WGS 84 moves places; then columns do not follow from longitude alone.
    here = np.array([bounds.west, bounds.east]), np.array([bounds.south, bounds.north])
    there = transform_points(_WGS84, ref, *here)[:2]
    same = all(np.array_equal(p, q) for p, q in zip(here, there, strict=True))
    return "geographic" if same else "other"


class OpenRasters:
    """A pool of handles, lent to one thread at a time; least recently returned first out.

    Args:
        limit: most handles kept that nobody uses.
    """

    def __init__(self, limit: int = _KEPT_HANDLES) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._free: OrderedDict[int, tuple[tuple[str, int], DatasetReader]] = OrderedDict()
        self._returned = 0
        self._wanted: frozenset[str] | None = None

    def __len__(self) -> int:
        return len(self._free)

    @contextmanager
    def lent(self, path: str, level: int) -> Iterator[DatasetReader]:
        """Lend a handle of a raster's level (0: full resolution, k: its k-th overview)."""
        dataset = self._take((path, level))
        if dataset is None:
            options = {} if level == 0 else {"OVERVIEW_LEVEL": level - 1}
            with rasterio.Env(**_ENV):
                dataset = rasterio.open(path, **options)
        try:
            yield dataset
        except BaseException:
            # What failed once is opened anew: a handle may keep the state of its failure.
            dataset.close()
            raise
        self._give((path, level), dataset)

    def _take(self, key: tuple[str, int]) -> DatasetReader | None:
        with self._lock:
            for number in reversed(self._free):
                if self._free[number][0] == key:
                    return self._free.pop(number)[1]
        return None

    def _give(self, key: tuple[str, int], dataset: DatasetReader) -> None:
        with self._lock:
            self._returned += 1
            surplus = []
            if self._wanted is None or key[0] in self._wanted:
                self._free[self._returned] = key, dataset
            else:
                surplus.append(dataset)
            while len(self._free) > self._limit:
                surplus.append(self._free.popitem(last=False)[1][1])
        for old in surplus:
            old.close()

    def keep_only(self, paths: frozenset[str]) -> None:
        """Close the handles of other files, and those that are lent when they come back.

        A file that was deleted keeps its space on the disk as long as a handle is open.
        """
        with self._lock:
            self._wanted = paths
            gone = [n for n, (key, _) in self._free.items() if key[0] not in paths]
            closing = [self._free.pop(number)[1] for number in gone]
        for dataset in closing:
            dataset.close()

    def close(self) -> None:
        """Close every handle, those that are lent when they come back."""
        self.keep_only(frozenset())
