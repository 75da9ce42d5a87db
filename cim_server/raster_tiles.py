"""One image of a map tile: read, put together, coloured, encoded. Runs in threads.

JPEG knows no transparency: where a raster has no pixel, a JPEG tile is white.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cim_server.errors import InvalidRequest
from cim_server.open_rasters import OpenRasters, RasterFacts, raster_facts
from cim_server.raster_look import Look, evaluate
from cim_server.raster_warp import Pixels, tile_pixels
from cim_server.services.rasters import RasterSource
from tiling.coords import TileCoord
from tiling.formats.png import encode_png
from tiling.schemes import Scheme

MEDIA_TYPES = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
}
_JPEG_QUALITY, _WEBP_QUALITY = 85, 80


@dataclass(frozen=True, slots=True)
class TileJob:
    """One tile that was asked for.

    Attributes:
        sources: the rasters, first wins where they overlap; all of one kind.
        scheme, tile, size: which tile, and pixels along its edge.
        look: how.
        formats: one of `MEDIA_TYPES`; or two, for tiles without holes and for others.
    """

    sources: tuple[RasterSource, ...]
    scheme: Scheme
    tile: TileCoord
    size: int
    look: Look
    formats: tuple[str, ...]


def render(rasters: OpenRasters, job: TileJob) -> tuple[bytes, str] | None:
    """Return an image and its media type; None when no raster reaches the tile.

    Raises:
        InvalidRequest: the look asks for a band that is not there.
    """
    first = raster_facts(str(job.sources[0].path))
    bands = _bands(job, first)
    found = _composed(rasters, job, bands)
    if found is None:
        return None
    shown, opacity = _coloured(job, first, bands, found)
    whole = bool((opacity == 255).all())
    ending = job.formats[0] if whole else job.formats[-1]
    return encode(shown, None if whole else opacity, ending), MEDIA_TYPES[ending]


def _bands(job: TileJob, facts: RasterFacts) -> tuple[int, ...]:
    asked = job.look.inputs()
    if asked is None:
        stored = job.sources[0].bands()
        asked = tuple(stored) if stored else facts.bands
        # A ramp colours one value; images have three bands; what else there is, is not colour.
        asked = asked[:1] if job.look.ramp is not None or len(asked) == 2 else asked[:3]
    count = len(facts.bands) + bool(facts.alpha)
    for band in asked:
        if not 1 <= band <= count:
            raise InvalidRequest(f"there is no band {band}; the raster has {count}")
    shown = len(job.look.expression.split(";")) if job.look.expression else len(asked)
    wanted = (1,) if job.look.ramp is not None else (1, 3)
    if shown not in wanted:
        raise InvalidRequest(
            f"{shown} bands cannot be shown: name {' or '.join(map(str, wanted))} with bidx="
        )
    return asked


def _composed(rasters: OpenRasters, job: TileJob, bands: tuple[int, ...]) -> Pixels | None:
    """Return what the sources show, each under those before it."""
    result: Pixels | None = None
    for source in job.sources:
        facts = raster_facts(str(source.path))
        nearest = job.look.nearest or facts.palette is not None
        found = tile_pixels(rasters, facts, job.scheme, job.tile, job.size, bands, nearest)
        if found is None:
            continue
        if result is None:
            result = found
        else:
            empty = result.opacity == 0
            values = np.where(empty, found.values, result.values)
            result = Pixels(values, np.where(empty, found.opacity, result.opacity))
        if result.opacity.all():
            break
    return result


def _coloured(
    job: TileJob, facts: RasterFacts, bands: tuple[int, ...], found: Pixels
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return (bands, rows, columns) of grey or RGB, and opacity."""
    look, values, opacity = job.look, found.values, found.opacity
    ranges = look.ranges
    if look.expression is not None:
        values = evaluate(look.expression, bands, values)
        finite = np.isfinite(values).all(axis=0)
        opacity = np.where(finite, opacity, 0).astype(np.uint8)
    elif ranges is None and facts.palette is None:
        stored = job.sources[0].rescale(bands)
        ranges = tuple(stored) if stored else None
    if ranges is None and values.dtype != np.uint8:
        ranges = ((0.0, 255.0),)
    grey = values if ranges is None else stretch(values, ranges)
    table = look.ramp
    if table is None and facts.palette is not None and ranges is None and bands == (1,):
        table = facts.palette.tobytes()
    if table is not None:
        colours = np.frombuffer(table, np.uint8).reshape(256, 4)
        painted = colours[grey[0]]
        opacity = np.minimum(opacity, painted[..., 3])
        grey = np.ascontiguousarray(painted[..., :3].transpose(2, 0, 1))
    return grey, opacity


def stretch(
    values: NDArray[np.generic], ranges: tuple[tuple[float, float], ...]
) -> NDArray[np.uint8]:
    """Return values as bytes: low becomes 0, high 255.

    Args:
        values: (bands, rows, columns).
        ranges: one for all bands, or one for each.

    Raises:
        InvalidRequest: neither one range nor one for each band.
    """
    if len(ranges) not in (1, len(values)):
        raise InvalidRequest(f"rescale has {len(ranges)} ranges for {len(values)} bands")
    low, high = (np.array(side, np.float32)[:, None, None] for side in zip(*ranges, strict=True))
    scaled = (values.astype(np.float32) - low) * (255.0 / (high - low))
    stretched: NDArray[np.uint8] = np.rint(np.clip(np.nan_to_num(scaled), 0, 255)).astype(np.uint8)
    return stretched


def encode(pixels: NDArray[np.uint8], opacity: NDArray[np.uint8] | None, ending: str) -> bytes:
    """Return an image file.

    Args:
        pixels: (1 or 3, rows, columns) uint8.
        opacity: (rows, columns) uint8, None when all is opaque.
        ending: one of `MEDIA_TYPES`.
    """
    if opacity is not None:
        # What lies under full transparency compresses best as one colour.
        hidden = 255 if ending in ("jpg", "jpeg") else 0
        pixels = np.where(opacity > 0, pixels, np.uint8(hidden))
    if opacity is not None and ending not in ("jpg", "jpeg"):
        if ending == "webp" and len(pixels) == 1:
            pixels = np.repeat(pixels, 3, axis=0)
        pixels = np.concatenate([pixels, opacity[None]])
    image = np.ascontiguousarray(pixels.transpose(1, 2, 0))
    if ending == "png":
        return encode_png(image, fast=True)
    out = io.BytesIO()
    picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    if ending == "webp":
        picture.save(out, "WEBP", quality=_WEBP_QUALITY, method=0)
    else:
        picture.save(out, "JPEG", quality=_JPEG_QUALITY)
    return out.getvalue()
