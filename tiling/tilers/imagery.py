"""Images and DEMs -> Cloud Optimized GeoTIFF in their own CRS; the server cuts tiles from it.

The one idea: one bounded pass copies the source block by block into a plain working file. That
pass turns alpha, masks and (for JPEG) nodata into one mask, collects the sample from which the
display range is taken, and meets every damaged block before anything is finished. GDAL's COG
driver then adds overviews and compression. Photographs (three bytes a pixel) become JPEG;
everything else stays lossless.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.io import DatasetReader
from rasterio.windows import Window

from tiling.bounds import Region
from tiling.crs import SpatialRef, to_lonlat
from tiling.errors import (
    CrsMissing,
    NothingToTile,
    RasterUnsupported,
)
from tiling.findings import Findings
from tiling.tilers.base import Progress, TilesetInfo
from tiling.tilers.cog import (
    BLOCK,
    LOSSLESS,
    finish,
    most_nbytes,
    opened,
    reading,
    shown,
    write_dem_cog,
    writing,
)

__all__ = ["ImageryTiler", "write_dem_cog"]

_WINDOW_PIXELS = 4 * 1024 * 1024
_SAMPLE_PIXELS = 1_000_000
_PERCENTILES = (2.0, 98.0)
_RGB = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)


@dataclass(frozen=True, slots=True)
class _Look:
    """How an image is understood.

    Attributes:
        bands: source bands that are kept, from 1.
        alpha: the source band that says what is transparent, or None.
        shown: positions among the kept bands that make the picture, from 1.
        colorinterp: of the kept bands.
        photograph: three bytes a pixel: JPEG serves it.
        palette: values are names of colours: never averaged.
        masked: some pixels may be absent without a nodata value saying so.
    """

    bands: tuple[int, ...]
    alpha: int | None
    shown: tuple[int, ...]
    colorinterp: tuple[ColorInterp, ...]
    photograph: bool
    palette: bool
    masked: bool


@dataclass(slots=True)
class _Tally:
    """What the pass over the source collects."""

    valid: int = 0
    half_transparent: int = 0
    samples: list[NDArray[Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ImageryTiler:
    """Makes a COG of an image.

    Attributes:
        quality: of JPEG, 1 .. 100.
    """

    quality: int = 90

    def run(
        self, dataset: str | Path, out_path: Path, progress: Progress, findings: Findings
    ) -> TilesetInfo:
        """Write the COG; a failed or cancelled run leaves nothing at `out_path`.

        Args:
            dataset: what GDAL opens: a path, ``/vsizip/...`` or the text of a VRT.
            out_path: where the COG goes; its folder also holds the working file.
            progress: counts megapixels.
            findings: receives what was assumed about bands, alpha and display range.

        Returns:
            bounds and zooms (WebMercatorQuad) of the image; metadata: ``bands, dtype, nodata,
            rescale`` ((low, high) per band, None for bytes), ``display_bands`` (from 1),
            ``colorinterp, overviews, width, height, crs, resolution, compression``.

        Raises:
            SourceUnreadable: a block cannot be read.
            CrsMissing, RasterUnsupported, NothingToTile: see the messages.
            StoreError: the disk is full or not writable.
        """
        work = out_path.with_name(out_path.name + ".work.tif")
        part = out_path.with_name(out_path.name + ".part")
        try:
            with opened(dataset) as source:
                _check(source)
                look = _understand(source, findings)
                tally = _copy(source, work, look, progress)
                if not tally.valid:
                    raise NothingToTile(
                        "every pixel of the image is nodata or transparent",
                        source=shown(dataset),
                        remedy="check the export that made it, and its nodata value",
                    )
                place = _place(source)
                rescale = _rescale(source, tally, findings)
            findings.add(
                "alpha-thresholded",
                "repair",
                "half-transparent pixels were made opaque: the mask knows only yes and no",
                tally.half_transparent,
            )
            progress.begin("cog")
            options = LOSSLESS
            if look.photograph:
                options = {"COMPRESS": "JPEG", "QUALITY": str(self.quality)}
            resampling = "NEAREST" if look.palette else "AVERAGE"
            finish(work, part, {**options, "OVERVIEW_RESAMPLING": resampling})
            metadata = _facts(part, look, rescale)
            part.rename(out_path)
        finally:
            work.unlink(missing_ok=True)
            part.unlink(missing_ok=True)
        region, low, high = place
        return TilesetInfo(region, low, high, tiles=1, metadata=metadata)


def _check(source: DatasetReader) -> None:
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


def _understand(source: DatasetReader, findings: Findings) -> _Look:
    interp = tuple(source.colorinterp)
    alpha = next((i for i, c in enumerate(interp, 1) if c is ColorInterp.alpha), None)
    bands = tuple(i for i in source.indexes if i != alpha)
    kept = [interp[i - 1] for i in bands]
    if all(c in kept for c in _RGB):
        shown = tuple(kept.index(c) + 1 for c in _RGB)
    elif len(bands) >= 3:
        shown = (1, 2, 3)
        kept[:3] = _RGB
        rest = "" if len(bands) == 3 else f" and {len(bands) - 3} more that are not shown"
        findings.add(
            "bands-assumed",
            "assumption",
            f"the file does not say what its {len(bands)} bands are: taken as red, green, blue"
            + rest,
        )
    else:
        shown = (1,)
    palette = kept[0] is ColorInterp.palette and len(bands) == 1
    flags = source.mask_flag_enums[bands[0] - 1]
    masked = alpha is not None or (MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags)
    photograph = len(bands) == 3 and source.dtypes[0] == "uint8"
    if photograph and source.nodata is not None:
        masked = True
    return _Look(bands, alpha, shown, tuple(kept), photograph, palette, masked)


def _copy(source: DatasetReader, work: Path, look: _Look, progress: Progress) -> _Tally:
    pixels = source.width * source.height
    progress.begin("read image", -(-pixels // 1_000_000))
    profile = {
        "driver": "GTiff",
        "width": source.width,
        "height": source.height,
        "count": len(look.bands),
        "dtype": source.dtypes[0],
        "crs": source.crs,
        "transform": source.transform,
        "nodata": None if look.masked else source.nodata,
        "tiled": True,
        "blockxsize": BLOCK,
        "blockysize": BLOCK,
        "bigtiff": "IF_SAFER",
    }
    if look.photograph:
        profile["photometric"] = "RGB"
    stride = max(1, math.isqrt(pixels // _SAMPLE_PIXELS))
    tally, done = _Tally(), 0
    with (
        writing(work, most_nbytes(source)),
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(work, "w", **profile) as sink,
    ):
        sink.colorinterp = look.colorinterp
        if look.palette:
            sink.write_colormap(1, source.colormap(1))
        sink.scales = [source.scales[i - 1] for i in look.bands]
        sink.offsets = [source.offsets[i - 1] for i in look.bands]
        for window in _windows(source):
            with reading(source.name):
                values = source.read(look.bands, window=window)
                present, partial = _present(source, look, window)
            sink.write(values, window=window)
            if look.masked:
                sink.write_mask(present, window=window)
            tally.valid += int(np.count_nonzero(present))
            tally.half_transparent += partial
            rows = slice(-window.row_off % stride, None, stride)
            columns = slice(-window.col_off % stride, None, stride)
            if source.dtypes[0] != "uint8":
                tally.samples.append(values[:, rows, columns][:, present[rows, columns]])
            before = done
            done += present.size
            progress.advance(done // 1_000_000 - before // 1_000_000)
    return tally


def _present(source: DatasetReader, look: _Look, window: Window) -> tuple[NDArray[np.bool_], int]:
    if look.alpha is None:
        return source.dataset_mask(window=window) != 0, 0
    alpha = source.read(look.alpha, window=window)
    # Some files write 1 or 255 for opaque whatever the type: the most opaque pixel tells.
    opaque = alpha.max()
    return alpha > 0, int(np.count_nonzero((alpha > 0) & (alpha < opaque)))


def _windows(source: DatasetReader) -> Iterator[Window]:
    # Whole output blocks, each written once; and whole source blocks where they are tiles.
    wide = max(1, _WINDOW_PIXELS // BLOCK // BLOCK) * BLOCK
    across = min(wide, -(-source.width // BLOCK) * BLOCK)
    down = max(1, _WINDOW_PIXELS // across // BLOCK) * BLOCK
    for top in range(0, source.height, down):
        for left in range(0, source.width, across):
            yield Window(
                left, top, min(across, source.width - left), min(down, source.height - top)
            )


def _rescale(source: DatasetReader, tally: _Tally, findings: Findings) -> list[list[float]] | None:
    if source.dtypes[0] == "uint8":
        return None
    ranges = []
    for band in np.concatenate(tally.samples, axis=1):
        values = band[np.isfinite(band)] if np.issubdtype(band.dtype, np.floating) else band
        low, high = np.percentile(values, _PERCENTILES) if values.size else (0.0, 1.0)
        ranges.append([float(low), float(high if high > low else low + 1)])
    shown = ", ".join(f"{low:g} .. {high:g}" for low, high in ranges)
    findings.add(
        "display-range",
        "assumption",
        f"{source.dtypes[0]} values are shown from the 2nd to the 98th percentile of a decimated "
        f"read, per band: {shown}; the values themselves are kept",
    )
    return ranges


def _facts(part: Path, look: _Look, rescale: list[list[float]] | None) -> dict[str, Any]:
    with rasterio.open(part) as cog:
        ref = SpatialRef.parse(cog.crs.to_wkt())
        return {
            "bands": cog.count,
            "dtype": cog.dtypes[0],
            "nodata": _json_number(cog.nodata),
            "masked": look.masked,
            "rescale": rescale,
            "display_bands": list(look.shown),
            "colorinterp": [c.name for c in cog.colorinterp],
            "overviews": list(cog.overviews(1)),
            "width": cog.width,
            "height": cog.height,
            "crs": ref.horizontal_code,
            "resolution": [abs(cog.transform.a), abs(cog.transform.e)],
            "compression": cog.compression.name if cog.compression else "none",
        }


def _json_number(value: float | None) -> float | str | None:
    # NaN and infinities are no JSON.
    return value if value is None or math.isfinite(value) else str(value)


def _place(source: DatasetReader) -> tuple[Region, int, int]:
    """Return bounds in degrees, and the zooms of WebMercatorQuad at which the image shows."""
    ref = SpatialRef.parse(source.crs.to_wkt())
    a, _, c, _, e, f = tuple(source.transform)[:6]
    t = np.linspace(0, 1, 33)
    x, y = c + t * a * source.width, f + t * e * source.height
    flat = np.ones_like(t)
    lon, lat = to_lonlat(
        ref,
        np.concatenate([x, x, x[0] * flat, x[-1] * flat]),
        np.concatenate([y[0] * flat, y[-1] * flat, y, y]),
    )
    if not (np.isfinite(lon).all() and np.isfinite(lat).all()):
        raise RasterUnsupported(
            f"the image reaches beyond where {ref.code} can be placed on the globe",
            source=shown(source.name),
            remedy="check --crs, or cut the image to the area of its CRS",
        )
    bounds = Region(
        max(float(lon.min()), -180.0),
        max(float(lat.min()), -90.0),
        min(float(lon.max()), 180.0),
        min(float(lat.max()), 90.0),
    )
    middle = np.array([c + a * source.width / 2]), np.array([f + e * source.height / 2])
    lon0, lat0 = to_lonlat(ref, *middle)
    lon1, lat1 = to_lonlat(ref, middle[0] + a, middle[1])
    # A degree of longitude is the same everywhere in Web Mercator; the height of a pixel there
    # grows with latitude just as its width does.
    step = math.hypot(float(lon1[0] - lon0[0]), float(lat1[0] - lat0[0]))
    finest = min(max(math.ceil(math.log2(360 / 256 / step) - 0.25), 0), 24)
    spread = math.ceil(math.log2(max(source.width, source.height, 256) / 256))
    return bounds, max(0, finest - spread), finest
