"""Tiles of an image baked into one PMTiles archive, byte for byte those that the server renders.

For maps without this server behind them: a folder on any web server is enough. Units are squares of
`_UNIT_SIDE` tiles of one level; where the image does not reach there is no tile.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any, Literal, cast, get_args

from catalog.records import Item, Version
from cim_server.open_rasters import OpenRasters
from cim_server.raster_look import Look
from cim_server.raster_sources import VersionRasters, rasters_in
from cim_server.raster_tiles import TileJob, render
from cim_server.services.wmts import Layer
from cim_server.state import Entry
from ingest.executors import open_executor
from ingest.workspace import Workspace
from tiling.bounds import Region
from tiling.coords import TileCoord
from tiling.errors import ConfigError, Conflict
from tiling.findings import Findings
from tiling.schemes import WEB_MERCATOR_QUAD
from tiling.stores.pmtiles import PmtilesWriter
from tiling.tilers.base import Progress, Run
from tiling.tilers.pipeline import Tile, UnitResult, build_units

_UNIT_SIDE_LOG2 = 3
_MEMORY_NBYTES = 1 << 30
TileFormat = Literal["png", "jpg", "webp"]


@dataclass(frozen=True, slots=True)
class BakeOptions:
    """What is baked.

    Attributes:
        min_zoom, max_zoom: levels of WebMercatorQuad; None: 0, and the image's own resolution.
        ending: of the tiles; JPEG shows white where there is no pixel.
        size: pixels along a tile's edge, 256 or 512.
    """

    min_zoom: int | None = None
    max_zoom: int | None = None
    ending: TileFormat = "webp"
    size: int = 256


def bake_options(
    min_zoom: int | None, max_zoom: int | None, tile_format: str | None, tile_size: int | None
) -> BakeOptions:
    """Return options as the command line gives them.

    Raises:
        ConfigError: an unknown format or size.
    """
    if tile_format not in (None, *get_args(TileFormat)):
        raise ConfigError(
            f"--tile-format {tile_format!r} is not one of {', '.join(get_args(TileFormat))}"
        )
    if tile_size not in (None, 256, 512):
        raise ConfigError(f"--tile-size {tile_size} is neither 256 nor 512")
    ending = cast(TileFormat, tile_format or "webp")
    return BakeOptions(min_zoom, max_zoom, ending, tile_size or 256)


def can_bake(item: Item, version: Version) -> bool:
    """Say whether a version is an image."""
    return item.kind == "imagery" and any(s.role == "data" for s in version.stores)


def bake(
    workspace: Workspace,
    item: Item,
    version: Version,
    out: Path,
    options: BakeOptions,
    *,
    workers: int,
    overwrite: bool,
    progress: Progress,
) -> dict[str, Any]:
    """Write the archive; a stopped run goes on where it was.

    Args:
        workspace: of the asset; holds the finished tiles until all are there.
        item, version: an image, see `can_bake`.
        out: the file to write.
        workers: processes; they never change a byte.
        overwrite: whether `out` may exist.
        progress: counts units of up to 64 tiles.

    Returns:
        path, size, levels, number of tiles and findings, as JSON.

    Raises:
        ConfigError: levels in the wrong order.
        Conflict: `out` exists, or the same run is under way.
        StoreError: a raster or `out` cannot be read or written.
        Cancelled: asked to stop.
    """
    if out.exists() and not overwrite:
        raise Conflict(f"{out} exists: name another file, or add --overwrite")
    rasters = rasters_in(workspace.root, Entry.of(item, version))
    image = Layer.of(item.id, rasters)
    low = 0 if options.min_zoom is None else options.min_zoom
    finest = WEB_MERCATOR_QUAD.level_for(image.resolution_deg, options.size)
    high = max(low, finest) if options.max_zoom is None else options.max_zoom
    if low > high:
        raise ConfigError(f"--min-zoom {low} is above --max-zoom {high}")
    units = [
        TileCoord(zoom, x, y)
        for zoom in range(low, high + 1)
        for x, y in _corners(image.bounds, zoom)
    ]
    findings = Findings()
    named = f"{package_version('cim-server')} {rasters.digests} {options} {low} {high}"
    key = "bake-" + blake2b(named.encode(), digest_size=12).hexdigest()
    out.parent.mkdir(parents=True, exist_ok=True)
    # Put in place whole, over what was there.
    staged = out.with_name(f".{out.name}.baked")
    staged.unlink(missing_ok=True)
    writer = PmtilesWriter(staged)
    try:
        with workspace.job(key) as folder, open_executor("local", workers) as executor:
            run = Run(writer, folder, executor, workers, _MEMORY_NBYTES, progress, findings)
            build = partial(build_unit, rasters, image.bounds, options)
            build_units("bake", units, build, run)
            west, south, east, north = image.bounds[:4]
            info = writer.commit(
                {
                    "name": image.title,
                    "type": "overlay",
                    "format": options.ending,
                    "tileSize": options.size,
                    "minzoom": low,
                    "maxzoom": high,
                    "bounds": [west, south, east, north],
                    "center": [(west + east) / 2, (south + north) / 2, low],
                }
            )
            staged.replace(out)
    finally:
        writer.abort()
        staged.unlink(missing_ok=True)
    return {
        "path": str(out),
        "format": "pmtiles",
        "version": version.number,
        "nbytes": info.nbytes,
        "min_zoom": low,
        "max_zoom": high,
        "tiles": info.tiles,
        "findings": findings.to_json(),
    }


def build_unit(
    rasters: VersionRasters, bounds: Region, options: BakeOptions, corner: TileCoord
) -> UnitResult:
    """Render the tiles of one unit.

    Args:
        rasters: of the version.
        bounds: of the image, lon/lat degrees.
        options: see `BakeOptions`.
        corner: the unit's north-western tile.
    """
    reach = WEB_MERCATOR_QUAD.tile_range(bounds, corner.level)
    side = 1 << _UNIT_SIDE_LOG2
    handles, look, tiles = OpenRasters(), Look(), []
    try:
        for y in range(max(corner.y, reach.min_y), min(corner.y + side, reach.max_y + 1)):
            for x in range(max(corner.x, reach.min_x), min(corner.x + side, reach.max_x + 1)):
                tile = TileCoord(corner.level, x, y)
                sources = rasters.under(WEB_MERCATOR_QUAD, tile, options.size)
                if not sources:
                    continue
                job = TileJob(
                    sources, WEB_MERCATOR_QUAD, tile, options.size, look, (options.ending,)
                )
                made = render(handles, job)
                if made is not None:
                    tiles.append(Tile(f"{tile.level}/{x}/{y}.{options.ending}", made[0]))
    finally:
        handles.close()
    return UnitResult(tiles)


def _corners(bounds: Region, zoom: int) -> list[tuple[int, int]]:
    reach = WEB_MERCATOR_QUAD.tile_range(bounds, zoom)
    side = 1 << _UNIT_SIDE_LOG2
    return [
        (x, y)
        for y in range(reach.min_y // side * side, reach.max_y + 1, side)
        for x in range(reach.min_x // side * side, reach.max_x + 1, side)
    ]
