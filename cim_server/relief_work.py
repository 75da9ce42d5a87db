"""What workers compute for the terrain services: each function returns finished bytes.

Imported by the serving process for the names of its functions alone; what they need is imported
when they run, in a worker.
"""

from __future__ import annotations

from dataclasses import dataclass

from cim_server.surfaces import Surface, datum_of, open_source

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
    import numpy as np

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
