"""How an image is compressed: chosen by what it is, or as the user wishes; never silently lossy.

Photographs of three bytes a pixel lose nothing that an eye sees as JPEG; where they are half
transparent WebP keeps that. Anything that is measured or classified stays lossless (DEFLATE),
unless a largest error is stated (LERC).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from tiling.errors import ConfigError, RasterUnsupported
from tiling.tilers.cog import LOSSLESS
from tiling.tilers.image_look import Look

CODECS = ("auto", "jpeg", "webp", "deflate", "zstd", "lerc")
DEFAULT_QUALITY = 90
_LOSSY = ("jpeg", "webp")


@dataclass(frozen=True, slots=True)
class Compression:
    """What the user wishes.

    Attributes:
        codec: one of `CODECS`.
        quality: 1 .. 100, of JPEG and WebP; at 100 WebP loses nothing.
        max_error: largest error of a value that LERC may make, in the unit of the values.

    Raises:
        ConfigError: an unknown codec, or numbers that it does not take.
    """

    codec: str = "auto"
    quality: int | None = None
    max_error: float | None = None

    def __post_init__(self) -> None:
        if self.codec not in CODECS:
            raise ConfigError(f"--compress {self.codec!r} is not one of {', '.join(CODECS)}")
        if self.quality is not None:
            if not 1 <= self.quality <= 100:
                raise ConfigError(f"--quality {self.quality} is not between 1 and 100")
            if self.codec not in ("auto", *_LOSSY):
                raise ConfigError(f"--quality says nothing to {self.codec}, only to jpeg and webp")
        if self.max_error is not None:
            if not (self.max_error >= 0 and self.max_error < float("inf")):
                raise ConfigError(f"--max-error {self.max_error:g} is not a number from 0 up")
            if self.codec != "lerc":
                raise ConfigError("--max-error belongs to --compress lerc")


@dataclass(frozen=True, slots=True)
class Codec:
    """What was chosen.

    Attributes:
        name: of the codec.
        keep_alpha: the alpha band stays a band.
        options: creation options of GDAL's COG driver.
        reason: why, for the report.
        facts: JSON for the catalogue: quality or largest error.
    """

    name: str
    keep_alpha: bool
    options: Mapping[str, str]
    reason: str
    facts: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))


def choose(wish: Compression, look: Look, half_transparent: bool, source: str) -> Codec:
    """Decide how an image is compressed.

    Args:
        wish: what the user said.
        look: what the image is.
        half_transparent: whether its alpha band has more than yes and no.
        source: its name, for messages.

    Raises:
        RasterUnsupported: the wished codec cannot hold this image.
    """
    if wish.codec == "auto":
        if look.photograph and half_transparent:
            reason = "a photograph with half-transparent pixels, which WebP keeps"
            return _lossy("webp", wish, True, reason)
        if look.photograph:
            return _lossy("jpeg", wish, False, "a photograph: three bytes a pixel")
        what = "classes under a palette" if look.palette else f"{len(look.bands)} x {look.dtype}"
        return Codec("deflate", False, _lossless(look, "DEFLATE"), f"{what}: nothing may be lost")
    if wish.codec in _LOSSY:
        counts = (1, 3) if wish.codec == "jpeg" else (3,)
        if look.dtype != "uint8" or len(look.bands) not in counts or look.palette:
            bands = f"{len(look.bands)} bands" if len(look.bands) > 1 else "one band"
            raise RasterUnsupported(
                f"{bands} of {look.dtype}{' under a palette' if look.palette else ''} cannot be "
                f"kept as {wish.codec}, which takes bytes in {' or '.join(map(str, counts))} bands",
                source=source,
                remedy="leave --compress out, or choose deflate (lossless) or lerc",
            )
        return _lossy(wish.codec, wish, wish.codec == "webp" and half_transparent, "asked for")
    if wish.codec == "lerc":
        if wish.max_error is None:
            raise ConfigError(
                "--compress lerc needs --max-error: the largest error of a value that may be made, "
                "in its unit (0: none)"
            )
        if look.palette:
            raise RasterUnsupported(
                "classes under a palette have no errors that could be small",
                source=source,
                remedy="leave --compress out: classes are kept as they are",
            )
        options = {"COMPRESS": "LERC_DEFLATE", "MAX_Z_ERROR": repr(wish.max_error)}
        options["OVERVIEW_RESAMPLING"] = "AVERAGE"
        return Codec("lerc", False, options, "asked for", {"max_error": wish.max_error})
    return Codec(wish.codec, False, _lossless(look, wish.codec.upper()), "asked for")


def is_lossy(wish: Compression, look: Look) -> bool:
    """Say whether values will change, and a nodata value with them."""
    if wish.codec == "auto":
        return look.photograph
    return wish.codec in _LOSSY or bool(wish.max_error)


def _lossy(name: str, wish: Compression, keep_alpha: bool, reason: str) -> Codec:
    quality = wish.quality or DEFAULT_QUALITY
    options = {
        "COMPRESS": name.upper(),
        "QUALITY": str(quality),
        "OVERVIEW_RESAMPLING": "AVERAGE",
    }
    return Codec(name, keep_alpha, options, reason, {"quality": quality})


def _lossless(look: Look, compress: str) -> dict[str, str]:
    options = {**LOSSLESS, "COMPRESS": compress}
    if compress == "ZSTD":
        options["LEVEL"] = "9"
    return {**options, "OVERVIEW_RESAMPLING": "NEAREST" if look.palette else "AVERAGE"}
