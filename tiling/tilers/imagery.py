"""Images and DEMs -> Cloud Optimized GeoTIFF in their own CRS; the server cuts tiles from it.

The one idea: nothing is copied before GDAL's COG driver runs. It is shown the source through the
text of a VRT in which alpha, masks and (for lossy compression) nodata are one mask; it reads every
block, so a damaged one ends the run before anything is finished. Only an image whose alpha or
nodata has to become a mask is read once before. What needs a sample of the values (the display
range, whether there is any picture at all) is taken from the finished overviews.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.io import DatasetReader

from tiling.crs import SpatialRef
from tiling.errors import NothingToTile
from tiling.findings import Findings
from tiling.tilers.base import Progress, SilentProgress, TilesetInfo
from tiling.tilers.codecs import Codec, Compression, choose, is_lossy
from tiling.tilers.cog import block_windows, finish, opened, shown, writing
from tiling.tilers.image_look import Look, Survey, check, survey, understand
from tiling.tilers.image_place import image_place
from tiling.tilers.image_vrt import image_vrt

__all__ = ["Compression", "ImageryTiler"]

_SAMPLE_SIDE = 1024
_PERCENTILES = (2.0, 98.0)


@dataclass(frozen=True, slots=True)
class ImageryTiler:
    """Makes a COG of an image.

    Attributes:
        compression: how pixels are compressed, by default by what the image is.
        threads: cores that compress; None: all.
    """

    compression: Compression = Compression()
    threads: int | None = None

    def run(
        self, dataset: str | Path, out_path: Path, progress: Progress, findings: Findings
    ) -> TilesetInfo:
        """Write the COG; a failed or cancelled run leaves nothing at `out_path`.

        Args:
            dataset: what GDAL opens: a path, ``/vsizip/...`` or the text of a VRT.
            out_path: where the COG goes; its folder also holds scratch files.
            progress: counts megapixels while a mask is made; asked for cancellation throughout.
            findings: receives what was assumed about bands, alpha, compression and display range.

        Returns:
            bounds and zooms (WebMercatorQuad) of the image; metadata: ``bands, dtype, nodata,
            masked, rescale`` ((low, high) per band, None for bytes), ``display_bands`` (from 1),
            ``colorinterp, overviews, width, height, crs, resolution, compression`` and its
            ``quality`` or ``max_error``.

        Raises:
            SourceUnreadable: a block cannot be read.
            CrsMissing, RasterUnsupported, NothingToTile: see the messages.
            StoreError: the disk is full or not writable.
        """
        mask = out_path.with_name(out_path.name + ".mask.tif")
        part = out_path.with_name(out_path.name + ".part")
        try:
            with opened(dataset) as source:
                check(source)
                look = understand(source, findings)
                place = image_place(source)
            seen: Survey | None = None
            if look.needs_survey(is_lossy(self.compression, look)):
                seen = survey(dataset, look, mask, progress)
                if not seen.valid:
                    raise _nothing(dataset)
            half = seen is not None and seen.half_transparent > 0 and seen.opaque == 255
            codec = choose(self.compression, look, half, shown(dataset))
            with opened(dataset) as source:
                text = _shown_to_gdal(source, dataset, look, seen, codec)
            progress.begin("cog")
            options = dict(codec.options)
            if self.threads is not None:
                options["NUM_THREADS"] = str(self.threads)
            finish(text, part, options, progress)
            with writing(part), rasterio.open(part) as cog:
                _refuse_nothing(cog, dataset, progress)
                rescale = _rescale(cog, look, findings)
                metadata = _facts(cog, look, rescale, codec)
            _report(findings, codec, look, seen)
            part.rename(out_path)
        finally:
            mask.unlink(missing_ok=True)
            part.unlink(missing_ok=True)
        return TilesetInfo(place.bounds, place.min_zoom, place.max_zoom, tiles=1, metadata=metadata)

    def describe(self, path: Path, findings: Findings) -> TilesetInfo:
        """Return what `run` returns, of a file that is a COG already.

        Raises:
            SourceUnreadable, CrsMissing, RasterUnsupported, NothingToTile: see the messages.
        """
        with opened(path) as cog:
            check(cog)
            look, place = understand(cog, findings), image_place(cog)
            _refuse_nothing(cog, path, SilentProgress())
            name = cog.compression.name.lower() if cog.compression else "none"
            codec = Codec(name, False, {}, "the file is a COG already: kept as it is")
            metadata = _facts(cog, look, _rescale(cog, look, findings), codec)
        _report(findings, codec, look, None)
        return TilesetInfo(place.bounds, place.min_zoom, place.max_zoom, tiles=1, metadata=metadata)


def _shown_to_gdal(
    source: DatasetReader, dataset: str | Path, look: Look, seen: Survey | None, codec: Codec
) -> str:
    whole = seen is not None and seen.valid == seen.pixels
    mask = None if seen is None or whole else seen.mask
    nodata = look.nodata
    if seen is not None or look.has_mask:
        nodata = None
    elif nodata is None and look.dtype.startswith("float"):
        # NaN is no colour: without this, overviews would spread it.
        nodata = math.nan
    return image_vrt(source, dataset, look, mask=mask, keep_alpha=codec.keep_alpha, nodata=nodata)


def _report(findings: Findings, codec: Codec, look: Look, seen: Survey | None) -> None:
    facts = "".join(f", {name} {value:g}" for name, value in codec.facts.items())
    findings.add("compression", "info", f"stored as {codec.name}{facts}: {codec.reason}")
    if seen is None or look.alpha is None:
        return
    if seen.valid == seen.pixels and not seen.half_transparent:
        findings.add("alpha-opaque", "info", "the alpha band is opaque everywhere: left out")
    if not codec.keep_alpha:
        findings.add(
            "alpha-thresholded",
            "repair",
            "half-transparent pixels were made opaque: the mask knows only yes and no",
            seen.half_transparent,
        )


def _nothing(dataset: str | Path) -> NothingToTile:
    return NothingToTile(
        "every pixel of the image is nodata or transparent",
        source=shown(dataset),
        remedy="check the export that made it, and its nodata value",
    )


def _sample(cog: DatasetReader) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return values of an overview, (bands, rows, columns), and (rows, columns) which are there."""
    step = max(1.0, max(cog.width, cog.height) / _SAMPLE_SIDE)
    shape = max(1, round(cog.height / step)), max(1, round(cog.width / step))
    values: NDArray[Any] = cog.read(out_shape=(cog.count, *shape))
    present = cog.dataset_mask(out_shape=shape) != 0
    if np.issubdtype(values.dtype, np.floating):
        present &= np.isfinite(values).any(axis=0)
    return values, present


def _refuse_nothing(cog: DatasetReader, dataset: str | Path, progress: Progress) -> None:
    if cog.nodata is None and not _has_mask(cog):
        return
    if not _sample(cog)[1].any():
        # A single pixel may be missed in a sample, never in the whole.
        for window in block_windows(cog.width, cog.height):
            if cog.dataset_mask(window=window).any():
                return
            progress.advance(0)
        raise _nothing(dataset)


def _has_mask(cog: DatasetReader) -> bool:
    return any(flag.name != "all_valid" for flag in cog.mask_flag_enums[0])


def _rescale(cog: DatasetReader, look: Look, findings: Findings) -> list[list[float]] | None:
    if look.dtype == "uint8":
        return None
    ranges: list[list[float]] = []
    sample, present = _sample(cog)
    for band in sample[: len(look.bands)]:
        ranges.append(display_range(band[present & np.isfinite(band)]))
    text = ", ".join(f"{low:g} .. {high:g}" for low, high in ranges)
    findings.add(
        "display-range",
        "assumption",
        f"{look.dtype} values are shown from the 2nd to the 98th percentile of an overview, per "
        f"band: {text}; the values themselves are kept",
    )
    return ranges


def display_range(values: NDArray[Any]) -> list[float]:
    """Return the 2nd and the 98th percentile of values, apart from each other; 0 and 1 of none."""
    low, high = np.percentile(values, _PERCENTILES) if values.size else (0.0, 1.0)
    return [float(low), float(high if high > low else low + 1)]


def _facts(
    cog: DatasetReader, look: Look, rescale: list[list[float]] | None, codec: Codec
) -> dict[str, Any]:
    ref = SpatialRef.parse(cog.crs.to_wkt())
    return {
        "bands": len(look.bands),
        "dtype": cog.dtypes[0],
        "nodata": _json_number(cog.nodata),
        "masked": cog.nodata is None and _has_mask(cog),
        "rescale": rescale,
        "display_bands": list(look.shown),
        "colorinterp": [c.name for c in cog.colorinterp],
        "overviews": list(cog.overviews(1)),
        "width": cog.width,
        "height": cog.height,
        "crs": ref.horizontal_code,
        "resolution": [abs(cog.transform.a), abs(cog.transform.e)],
        "compression": codec.name,
        **codec.facts,
    }


def _json_number(value: float | None) -> float | str | None:
    # NaN and infinities are no JSON.
    return value if value is None or math.isfinite(value) else str(value)
