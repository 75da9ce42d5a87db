"""A version's raster as GDAL should open it, and how it looks when the caller does not say.

Two facts of GDAL decide the form. Making a transformer from a CGCS2000 frame to Web Mercator takes
about 50 ms and happens several times a tile, because PROJ weighs candidate datum shifts that are
all null; so a CGCS2000 frame is opened under its WGS 84 twin (equal at tile precision). And a DEM
or a 16-bit image has no range of its own, so one is kept per file.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import attr
import numpy as np
import rasterio
from morecantile import Tile
from rasterio.enums import Resampling
from rasterio.io import DatasetReader
from rasterio.transform import from_bounds
from rasterio.vrt import WarpedVRT
from rio_tiler.errors import TileOutsideBounds
from rio_tiler.io import Reader
from rio_tiler.models import ImageData, Info
from rio_tiler.utils import CRS_to_uri, has_alpha_band

from tiling.tilers.image_place import wgs84_twin

_STATISTICS_SIZE = 512


@dataclass(frozen=True, slots=True)
class RasterSource:
    """A raster of the catalogue.

    Attributes:
        path: the COG; immutable, so that it is the key of everything cached about it.
        title: of the asset.
        info: what the tiler told the catalogue.
    """

    path: Path
    title: str
    info: Mapping[str, Any]

    def rescale(self, indexes: Sequence[int] | None) -> list[tuple[float, float]] | None:
        """Return (low, high) for each band of `indexes` (None: all that are shown).

        None when the bands are bytes already.
        """
        stored = self.info.get("rescale")
        ranges = [(float(a), float(b)) for a, b in stored] if stored else _ranges(str(self.path))
        if ranges is None:
            return None
        chosen = indexes if indexes is not None else self.bands()
        if not chosen:
            return ranges
        return [ranges[min(i, len(ranges)) - 1] for i in chosen]

    def bands(self) -> list[int] | None:
        """Return the bands to show (from 1), None for the file's own order."""
        stored = self.info.get("display_bands")
        return [int(i) for i in stored] if stored else None


@lru_cache(maxsize=4096)
def band_count(path: str) -> int:
    """Return how many bands an immutable file has."""
    with rasterio.open(path) as dataset:
        return int(dataset.count)


@attr.s
class CatalogueReader(Reader):
    """A rio-tiler reader of a catalogued file, opened as `gdal_name` says."""

    def __attrs_post_init__(self) -> None:
        self.file = str(self.input)
        self.input = gdal_name(self.file)
        super().__attrs_post_init__()  # type: ignore[no-untyped-call]

    def tile(  # type: ignore[override]
        self, tile_x: int, tile_y: int, tile_z: int, tilesize: int | None = None, **how: Any
    ) -> ImageData:
        """Return a tile; one that shows the image small is warped at its own size.

        rio-tiler warps at the image's resolution and thins afterwards, which is right as long as
        the tile is not much larger than the image: far out it would warp a continent of nothing.
        """
        if tile_z >= self.minzoom:
            return super().tile(tile_x, tile_y, tile_z, tilesize, **how)
        if not self.tile_exists(tile_x, tile_y, tile_z):
            raise TileOutsideBounds(f"Tile({tile_x}, {tile_y}, {tile_z}) is outside bounds")
        matrix = self.tms.matrix(tile_z)
        size = tilesize or matrix.tileWidth
        how.pop("buffer", None)  # pixels beyond the edge are not worth a second warp this far out
        dataset: DatasetReader = self.dataset  # open since init
        crs = self.tms.rasterio_crs
        bounds = tuple(self.tms.xy_bounds(Tile(tile_x, tile_y, tile_z)))
        with WarpedVRT(
            dataset,
            crs=crs,
            transform=from_bounds(*bounds, size, size),
            width=size,
            height=size,
            resampling=Resampling.average,
            add_alpha=dataset.nodata is None and not has_alpha_band(dataset),
        ) as vrt:
            with Reader(None, dataset=vrt, tms=self.tms) as reader:
                image: ImageData = reader.part(
                    bounds, dst_crs=crs, bounds_crs=crs, width=size, height=size, **how
                )
                return image

    def info(self) -> Info:
        """Return the dataset's facts under the CRS that the file itself declares."""
        info = super().info()
        with rasterio.open(self.file) as dataset:
            info.crs = CRS_to_uri(dataset.crs) or dataset.crs.to_wkt()
        return info


@lru_cache(maxsize=4096)
def gdal_name(path: str) -> str:
    """Return what GDAL should open: the file, or the file under the WGS 84 twin of its CRS.

    Args:
        path: an immutable file of the data folder.
    """
    with rasterio.open(path) as dataset:
        twin = wgs84_twin(dataset.crs)
    # The vrt: syntax has no escape for these two.
    if twin is None or "?" in path or "&" in path:
        return path
    return f"vrt://{path}?a_srs={twin}"


@lru_cache(maxsize=4096)
def _ranges(path: str) -> list[tuple[float, float]] | None:
    # Files are immutable and named by their digest, so the path is a sound key.
    with warnings.catch_warnings():
        # Small rasters need no overviews, and rio-tiler would mention it.
        warnings.simplefilter("ignore")
        with Reader(path) as reader:
            if reader.dataset.dtypes[0] == "uint8":
                return None
            image = reader.preview(max_size=_STATISTICS_SIZE)
    ranges = []
    for band in image.array:
        values = band.compressed()
        values = values[np.isfinite(values)]
        if values.size == 0:
            ranges.append((0.0, 1.0))
            continue
        low, high = (float(v) for v in np.percentile(values, (0.5, 99.5)))
        ranges.append((low, high if high > low else low + 1.0))
    return ranges
