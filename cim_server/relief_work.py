"""What workers compute for the terrain services: each function returns finished bytes.

Imported by the serving process for the names of its functions alone; what they need is imported
when they run, in a worker.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cim_server.surfaces import Surface, datum_of, open_source, told

Array = NDArray[np.float64]

# Cells of a contour tile: 32 tile units each; two of them are the buffer of 64 units.
_CONTOUR_CELLS, _CONTOUR_MARGIN = 128, 2


@dataclass(frozen=True, slots=True)
class ImageJob:
    """One relief image.

    Attributes:
        surface: what is shown.
        product: how: hillshade, slope, terrainrgb or terrarium.
        grid: name of the tiling scheme.
        tile: level, column and row as the grid counts them.
        size: pixels along the edge.
        ending: png or webp.
        light: azimuth and altitude of the light in degrees, exaggeration of heights (hillshade).
        scale: values of the ramp's first and last colour (slope, degrees).
        ramp: 256 RGBA colours as 1024 bytes (slope).
    """

    surface: Surface
    product: str
    grid: str
    tile: tuple[int, int, int]
    size: int
    ending: str
    light: tuple[float, float, float] = (315.0, 45.0, 1.0)
    scale: tuple[float, float] = (0.0, 60.0)
    ramp: bytes = b""


def covers(surface: Surface, grid: str, tile: tuple[int, int, int]) -> bool:
    """Say whether a tile holds a part of the surface's sheets."""
    from tiling.coords import TileCoord
    from tiling.schemes import SCHEMES
    from tiling.tilers.relief_window import overlaps

    return overlaps(open_source(surface), SCHEMES[grid], TileCoord(*tile))


def image(job: ImageJob) -> bytes | None:
    """Return a relief image, None where the surface has no sheet."""
    from tiling.coords import TileCoord
    from tiling.formats.png import encode_png
    from tiling.schemes import SCHEMES
    from tiling.tilers import relief
    from tiling.tilers.relief_window import overlaps, pixels

    source, scheme, tile = open_source(job.surface), SCHEMES[job.grid], TileCoord(*job.tile)
    if not overlaps(source, scheme, tile):
        return None
    if job.product in ("hillshade", "slope"):
        window = pixels(source, scheme, tile, job.size, relief.MARGIN)
        known = np.isfinite(window.inner)
        if job.product == "hillshade":
            picture = relief.with_voids(relief.hillshade(window, *job.light), known)
        else:
            ramp = np.frombuffer(job.ramp, np.uint8).reshape(256, 4)
            picture = relief.coloured(relief.slope_deg(window), *job.scale, ramp)
    else:
        window = pixels(source, scheme, tile, job.size, 0).above(datum_of(job.surface))
        code = relief.terrain_rgb if job.product == "terrainrgb" else relief.terrarium
        picture = code(window.heights, relief.sea_m(window, datum_of(job.surface)))
    return encode_png(picture) if job.ending == "png" else _webp(picture)


def _webp(picture: object) -> bytes:
    import io

    import numpy as np
    from PIL import Image

    pixels = np.asarray(picture)
    if pixels.shape[2] <= 2:
        # WebP has no grey: the bands are repeated.
        pixels = np.concatenate([pixels[..., :1].repeat(3, axis=2), pixels[..., 1:]], axis=2)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "WEBP", quality=85, method=2)
    return out.getvalue()


def contour_tile(
    surface: Surface, tile: tuple[int, int, int], interval: float | None
) -> bytes | None:
    """Return a vector tile of contour lines as one gzip member, None where there is no sheet.

    Args:
        surface: whose heights, in its own vertical datum.
        tile: level, column and row of WebMercatorQuad.
        interval: metres between two lines; None for what suits the level.

    Raises:
        TilingError: the interval makes too many lines.
    """
    from tiling.coords import TileCoord
    from tiling.schemes import WEB_MERCATOR_QUAD
    from tiling.tilers.pipeline import compress
    from tiling.tilers.relief_contours import contours, encode_contours, interval_m
    from tiling.tilers.relief_window import nodes, overlaps

    source, coord = open_source(surface), TileCoord(*tile)
    if not overlaps(source, WEB_MERCATOR_QUAD, coord):
        return None
    step = interval_m(coord.level) if interval is None else interval
    window = nodes(source, WEB_MERCATOR_QUAD, coord, _CONTOUR_CELLS, _CONTOUR_MARGIN)
    lines = contours(window.above(datum_of(surface)).heights, step)
    return compress(encode_contours(lines, step, _CONTOUR_CELLS, _CONTOUR_MARGIN))


class Span(NamedTuple):
    """A line, or a single place: degrees of its vertices."""

    lon: tuple[float, ...]
    lat: tuple[float, ...]


class Profile(NamedTuple):
    """Heights along a line.

    Attributes:
        lon, lat: (N,) float64 degrees.
        distance: (N,) float64 metres from its beginning.
        orthometric, ellipsoidal: (N,) float64 metres, NaN where void.
        datum: JSON of what `orthometric` is counted from.
        climb: see `tiling.tilers.relief_profile.Climb`, of `orthometric`.
        reasons: why there is no height, for each place; empty where there is one.
    """

    lon: Array
    lat: Array
    distance: Array
    orthometric: Array
    ellipsoidal: Array
    datum: dict[str, Any]
    climb: tuple[float, float, float, float, int]
    reasons: tuple[str, ...]


def span_of(line: Span) -> float:
    """Return about how long a line is, metres; never less than it is."""
    from tiling.tilers.relief_profile import most_length_m

    return most_length_m(np.array(line.lon), np.array(line.lat))


def profile(surface: Surface, line: Span, samples: int | None, spacing: float | None) -> Profile:
    """Return the heights at a place (a line of one vertex) or at equal distances along a line.

    Args:
        surface: whose heights.
        line: the place, or the line.
        samples, spacing: number of places, or the most metres between two of them.
    """
    from tiling.geoid import parse_vertical
    from tiling.tilers.relief_profile import Path, climb, count_for, evenly, trace

    lon, lat = np.array(line.lon), np.array(line.lat)
    path = Path(lon, lat, np.zeros(len(lon)))
    if len(lon) > 1:
        traced = trace(lon, lat)
        length = float(traced.distance_m[-1])
        path = evenly(traced, samples or count_for(length, spacing or length))
    source, datum = open_source(surface), datum_of(surface)
    if datum.kind == "ellipsoidal":
        datum = parse_vertical("EPSG:5773")
    ellipsoidal = source.sample(path.lon, path.lat)
    known = np.isfinite(ellipsoidal)
    orthometric = ellipsoidal.copy()
    orthometric[known] -= datum.separation(path.lon[known], path.lat[known])
    inside = np.zeros(len(known), dtype=bool)
    for area in source.coverage:
        inside |= (
            (path.lon >= area.west)
            & (path.lon <= area.east)
            & (path.lat >= area.south)
            & (path.lat <= area.north)
        )
    reasons = np.where(
        known, "", np.where(inside, "a void of the elevation model", "outside the elevation model")
    )
    return Profile(
        *path,
        orthometric,
        ellipsoidal,
        told(datum.to_json()),
        climb(orthometric),
        tuple(reasons.tolist()),
    )
