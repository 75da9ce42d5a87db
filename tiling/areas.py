"""Declared areas: is the data where it is said to be, and if not, what went wrong?

The one idea: a wrong CRS shows in the numbers. Swapped axes, eastings with or without a zone
prefix, metres labelled degrees: each leaves a magnitude that names the mistake, so a refusal can
name the remedy. The arithmetic here is coarse on purpose (half a degree): it chooses between
zones three degrees wide, it transforms nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tiling.bounds import Region
from tiling.errors import ConfigError, OutsideArea

# Land and sea of China, from Zengmu Shoal to the Amur, with a tenth of a degree to spare.
CHINA = Region(73.4, 3.4, 135.2, 53.7)
WORLD = Region(-180.0, -90.0, 180.0, 90.0)

_NAMED = {"china": CHINA, "中国": CHINA, "world": WORLD}

_METRES_PER_DEGREE = 111_195.0
_WEB_MERCATOR_RADIUS_M = 6378137.0
_FALSE_EASTING_M = 500_000.0
# Half the width of a 6-degree zone at the equator, and as much again for overlapping sheets.
_REACH_M = 450_000.0
# What coarse arithmetic may err by.
_SLACK_DEG = 0.5

_MERIDIAN_RULE = (
    "EPSG:N with N = 4534 + (central meridian - 75) / 3, e.g. EPSG:4547 for 114 E, or --area "
    "west,south,east,north for a narrower guess"
)


@dataclass(frozen=True, slots=True)
class CrsGuess:
    """What raw coordinates look like.

    Attributes:
        code: a CRS that would put them into the area, e.g. ``EPSG:4526``.
        swapped: whether it fits only with x and y exchanged.
        reason: a clause for messages.
    """

    code: str
    swapped: bool
    reason: str


def parse_area(text: str) -> Region:
    """Make a region from ``china``, ``world`` or ``west,south,east,north`` in degrees.

    Raises:
        ConfigError: anything else.
    """
    named = _NAMED.get(text.strip().lower())
    if named is not None:
        return named
    try:
        west, south, east, north = (float(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(
            f"the area {text!r} is neither china, world nor west,south,east,north in degrees"
        ) from error
    if not (-180 <= west < east <= 180 and -90 <= south < north <= 90):
        raise ConfigError(
            f"the area {text!r} is not west,south,east,north in degrees with west < east "
            "and south < north"
        )
    return Region(west, south, east, north)


def check_area(
    lon_deg: ArrayLike,
    lat_deg: ArrayLike,
    area: Region,
    source: str | Path | None = None,
    *,
    raw: tuple[ArrayLike, ArrayLike] | None = None,
    what: str = "coordinates",
    declared: str = "",
) -> None:
    """Refuse coordinates outside the declared area, and say what probably went wrong.

    Args:
        lon_deg, lat_deg: (N,) degrees, as transformed with the CRS that was declared.
        area: where they must lie; its heights are ignored.
        source: the file, for the message.
        raw: (N,) x and y as the file holds them, when they differ: better guesses.
        what: what the coordinates are, for the message.
        declared: code of the CRS they were transformed with: a better remedy.

    Raises:
        OutsideArea: any coordinate lies outside, or is not finite.
    """
    lon = np.atleast_1d(np.asarray(lon_deg, dtype=np.float64))
    lat = np.atleast_1d(np.asarray(lat_deg, dtype=np.float64))
    # Written so that NaN and inf count as outside.
    inside = (lon >= area.west) & (lon <= area.east) & (lat >= area.south) & (lat <= area.north)
    if inside.all():
        return
    outside = np.flatnonzero(~inside)
    at = int(outside[0])
    x, y = (lon, lat) if raw is None else (np.atleast_1d(np.asarray(v)) for v in raw)
    stated = f"{_number(lon[at])}, {_number(lat[at])}"
    if raw is not None:
        stated += f" (in the file: {_number(x[at])}, {_number(y[at])})"
    diagnosis, remedy = explain(x[outside], y[outside], area, declared)
    raise OutsideArea(
        f"{outside.size} of {lon.size} {what} lie outside the declared area "
        f"{area.west:g},{area.south:g},{area.east:g},{area.north:g}, the first at {stated}"
        + (f": {diagnosis}" if diagnosis else ""),
        source=source,
        remedy=remedy,
    )


def explain(
    x: ArrayLike, y: ArrayLike, area: Region = CHINA, declared: str = ""
) -> tuple[str, str]:
    """Say what raw coordinates look like and what to do about it.

    Args:
        x, y: (N,) as the file holds them.
        area: where they should lie.
        declared: code of the CRS that puts them elsewhere; its meridian may well be right.

    Returns:
        a diagnosis (empty when there is none) and a remedy.
    """
    xs, ys = _finite(x, y)
    if xs.size and not xs.any() and not ys.any():
        return (
            "0, 0 is how missing coordinates look",
            "remove the features without a place from the source",
        )
    if xs.size and 0 <= xs.min() and 180 < xs.max() <= 360 and np.abs(ys).max() <= 90:
        return (
            "longitudes beyond 180 degrees lie across the antimeridian",
            "cut the data at 180 degrees, write what lies beyond as -180 and up, and name both "
            "parts (rasters: gdal_translate -projwin, then gdal_edit.py -a_ullr)",
        )
    guesses = suggest_crs(x, y, area)
    if not guesses:
        return "", "check --crs, or declare where the data lies: --area west,south,east,north"
    first = guesses[0]
    codes = [g.code for g in guesses]
    if (same_meridian := _without_prefix(declared)) in codes:
        codes = [same_meridian]
    # Too large an area to tell the meridian: name the rule rather than twenty codes.
    named = " or ".join(codes) if len(codes) <= 5 else _MERIDIAN_RULE
    if first.swapped:
        return first.reason, f"exchange x and y in the source (easting first), with --crs {named}"
    return first.reason, f"--crs {named}"


def suggest_crs(x: ArrayLike, y: ArrayLike, area: Region = CHINA) -> tuple[CrsGuess, ...]:
    """Guess the CRS of raw coordinates from their magnitude.

    Args:
        x, y: (N,) as the file holds them; what is not finite is ignored.
        area: where they should lie.

    Returns:
        the frames of China's CGCS2000 family, WGS 84 and Web Mercator that fit, the likeliest
        first; empty when none does. Those with exchanged axes come only when no other fits.
    """
    xs, ys = _finite(x, y)
    if not xs.size:
        return ()
    middle = float(np.median(xs)), float(np.median(ys))
    straight = _guess(*middle, area, swapped=False)
    return straight or _guess(middle[1], middle[0], area, swapped=True)


def _guess(x: float, y: float, area: Region, swapped: bool) -> tuple[CrsGuess, ...]:
    lead = "x and y are exchanged: " if swapped else ""
    if _near(x, y, area):
        reason = f"{lead}they are longitude and latitude in degrees"
        return (CrsGuess("EPSG:4490", swapped, reason),)
    if abs(x) <= 360 and abs(y) <= 360:
        return ()
    return _prefixed(x, y, area, swapped, lead) or (
        *_unprefixed(x, y, area, swapped, lead),
        *_web_mercator(x, y, area, swapped, lead),
    )


def _prefixed(x: float, y: float, area: Region, swapped: bool, lead: str) -> tuple[CrsGuess, ...]:
    zone, easting = int(x // 1_000_000), x % 1_000_000
    if 25 <= zone <= 45:
        width, meridian, code = 3, 3 * zone, 4513 + zone - 25
    elif 13 <= zone <= 23:
        width, meridian, code = 6, 6 * zone - 3, 4491 + zone - 13
    else:
        return ()
    if not _near(*_gauss_kruger(easting, y, meridian), area):
        return ()
    reason = f"{lead}the easting {x:.0f} carries the prefix of {width}-degree zone {zone}"
    return (CrsGuess(f"EPSG:{code}", swapped, reason),)


def _unprefixed(x: float, y: float, area: Region, swapped: bool, lead: str) -> tuple[CrsGuess, ...]:
    if abs(x - _FALSE_EASTING_M) > _REACH_M:
        return ()
    reason = f"{lead}they are Gauss-Krüger metres without a zone prefix"
    fits = [m for m in range(75, 136, 3) if _near(*_gauss_kruger(x, y, m), area)]
    return tuple(CrsGuess(f"EPSG:{4534 + (m - 75) // 3}", swapped, reason) for m in fits)


def _without_prefix(declared: str) -> str:
    # The frame of the same meridian whose eastings carry no zone prefix; empty when unknown.
    number = declared.partition("+")[0].removeprefix("EPSG:")
    code = int(number) if number.isdecimal() else 0
    if 4513 <= code <= 4533:
        return f"EPSG:{code - 4513 + 4534}"
    if 4491 <= code <= 4501:
        return f"EPSG:{4534 + 2 * (code - 4491)}"
    return ""


def _web_mercator(
    x: float, y: float, area: Region, swapped: bool, lead: str
) -> tuple[CrsGuess, ...]:
    if max(abs(x), abs(y)) > math.pi * _WEB_MERCATOR_RADIUS_M:
        return ()
    lon = math.degrees(x / _WEB_MERCATOR_RADIUS_M)
    lat = math.degrees(math.atan(math.sinh(y / _WEB_MERCATOR_RADIUS_M)))
    if not _near(lon, lat, area):
        return ()
    return (CrsGuess("EPSG:3857", swapped, f"{lead}they are Web Mercator metres"),)


def _gauss_kruger(easting: float, northing: float, meridian: int) -> tuple[float, float]:
    lat = northing / _METRES_PER_DEGREE
    if abs(lat) >= 89:
        return math.nan, lat
    across = (easting - _FALSE_EASTING_M) / _METRES_PER_DEGREE
    return meridian + across / math.cos(math.radians(lat)), lat


def _near(lon: float, lat: float, area: Region) -> bool:
    return (
        area.west - _SLACK_DEG <= lon <= area.east + _SLACK_DEG
        and area.south - _SLACK_DEG <= lat <= area.north + _SLACK_DEG
    )


def _finite(x: ArrayLike, y: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    xs = np.atleast_1d(np.asarray(x, dtype=np.float64))
    ys = np.atleast_1d(np.asarray(y, dtype=np.float64))
    known = np.isfinite(xs) & np.isfinite(ys)
    return xs[known], ys[known]


def _number(value: float) -> str:
    return f"{value:.6f}" if abs(value) < 1000 else f"{value:.3f}"
