"""A finished terrain with new rasters over those it was made of: what that changes, and no more.

The one idea: a tile is a pure function of its specification and of the heights in its reach. Where
no new raster is in reach, the tile is what it was; all others are made again, the roots included,
and those that come out as they were are left out. Because the specification stays, the result
equals a whole terrain of the same rasters and specification, byte for byte.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tiling.bounds import Region
from tiling.coords import TileCoord
from tiling.dem import DemLayer, DemStack
from tiling.errors import Conflict
from tiling.stores.base import Encoding, GetTile, PutTile, StoreInfo
from tiling.stores.gzip_member import content, decode
from tiling.tilers.base import Run
from tiling.tilers.pipeline import compress
from tiling.tilers.terrain import build_near, level_for, note_errors, worst_errors
from tiling.tilers.terrain_cells import available_levels
from tiling.tilers.terrain_rtin import SQUARE
from tiling.tilers.terrain_spec import TerrainSpec
from tiling.tilers.terrain_surface import FILL_RINGS

if TYPE_CHECKING:  # polygons and their libraries are for terrains with water
    from tiling.tilers.terrain_water import WaterAreas

LAYER = "layer.json"
# Pixels of an overview in which data may reach beyond its sheet, and nodes through rounding.
_PIXELS, _NODES = 2, 1


@dataclass(frozen=True, slots=True)
class Updated:
    """What an update changed.

    Attributes:
        built: how many tiles were made again.
        changed: those that came out otherwise than they were, or that are new.
        errors_m: per level, by how much their meshes leave the pixels at most.
    """

    built: int
    changed: frozenset[TileCoord]
    errors_m: Mapping[str, float]


def extended(spec: TerrainSpec, layers: Sequence[DemLayer], remedy: str) -> TerrainSpec:
    """Return a specification that has room for new rasters, all else as it was.

    Args:
        spec: of the finished terrain.
        layers: the new rasters.
        remedy: what to do where there is no room; ends the message.

    Raises:
        Conflict: the tiles there are would have to be others: the new rasters are finer than the
            deepest level, or lie above or below the heights that tiles are quantised between.
    """
    deepest = spec.levels[-1]
    wanted = max(level_for(layer.resolution_deg) for layer in layers)
    if wanted > deepest:
        raise Conflict(
            f"the new sheets are as fine as level {wanted}, the terrain ends at level {deepest}: "
            f"with deeper levels every tile would be another; {remedy}, or keep the levels there "
            f"are with --max-zoom {deepest}"
        )
    return widened(spec, layers, remedy)


def widened(spec: TerrainSpec, layers: Sequence[DemLayer], remedy: str) -> TerrainSpec:
    """Return the same as `extended`, for rasters that may be finer than the deepest level."""
    regions = [region for layer in layers for region in layer.regions()]
    low = min(region.min_height_m for region in regions)
    high = max(region.max_height_m for region in regions)
    for level, (bottom, top) in zip(spec.levels, spec.ranges_m, strict=True):
        if low < bottom or high > top:
            raise Conflict(
                f"the new heights {low:.1f} .. {high:.1f} m (ellipsoidal) leave {bottom:g} .. "
                f"{top:g} m, between which all tiles of level {level} are quantised; {remedy}"
            )
    return replace(spec, areas=(*regions, *(a for a in spec.areas if a not in regions)))


def reach(layers: Sequence[DemLayer], spec: TerrainSpec, level: int) -> list[Region]:
    """Return the places from which tiles of a level see one of some rasters.

    A mesh is decided with `SQUARE` nodes around its tile, and beside data `FILL_RINGS` rings of
    nodes take heights from it; normals reach less far.
    """
    step = spec.step_deg(level)
    found = []
    for layer in layers:
        overview = layer.sizes[0][0] / layer.sizes[layer.level_for(step)][0]
        margin = (SQUARE + FILL_RINGS + _NODES) * step + _PIXELS * overview * layer.pixel_deg
        for west, south, east, north in layer.coverage:
            south, north = max(south - margin, -90.0), min(north + margin, 90.0)
            west, east = west - margin, east + margin
            found.append(Region(max(west, -180.0), south, min(east, 180.0), north, 0.0, 0.0))
            # The antimeridian is no edge of the Earth.
            if west < -180:
                found.append(Region(max(west + 360, -180.0), south, 180.0, north, 0.0, 0.0))
            if east > 180:
                found.append(Region(-180.0, south, min(east - 360, 180.0), north, 0.0, 0.0))
    return found


def update_tiles(
    source: DemStack,
    new: int,
    spec: TerrainSpec,
    baked: Sequence[int],
    old: GetTile,
    run: Run,
    water: WaterAreas | None = None,
) -> Updated:
    """Write the tiles that differ from those of a finished terrain, and ``layer.json``.

    Args:
        source: the new rasters over those of the finished terrain.
        new: how many of its layers are new.
        spec: see `extended`.
        baked: the levels whose tiles are stored.
        old: the finished terrain.
        run: where tiles, progress and findings go.
        water: where water is, if tiles of the finished terrain carry masks of it.

    Raises:
        TilingError: the sea or what is filled beside data leaves the range of heights.
        StoreError: the finished terrain cannot be read.
    """
    changes = _Changes(run.writer, old)
    layers = source.layers[:new]
    facts = build_near(
        source,
        spec,
        baked,
        lambda level: reach(layers, spec, level),
        replace(run, writer=changes),
        water,
    )
    errors = worst_errors(facts)
    note_errors(errors, run.findings)
    run.writer.put(LAYER, compress(_layer(source, spec, baked, old)), "gzip")
    return Updated(changes.seen, frozenset(changes.written), errors)


def _layer(source: DemStack, spec: TerrainSpec, baked: Sequence[int], old: GetTile) -> bytes:
    tile = old.get(LAYER)
    assert tile is not None  # a published terrain was checked to have one
    layer: dict[str, Any] = json.loads(content(tile, LAYER))
    layer["bounds"] = source.extent.bbox2d()
    layer["available"] = available_levels(spec.areas, baked)
    return json.dumps(layer, ensure_ascii=False, indent=1).encode()


class _Changes:
    """A writer that leaves out tiles that are as they were."""

    def __init__(self, writer: PutTile, old: GetTile) -> None:
        self._writer, self._old = writer, old
        self.seen = 0
        self.written: list[TileCoord] = []

    def put(self, key: str, data: bytes, encoding: Encoding = None) -> None:
        self.seen += 1
        before = self._old.get(key)
        if before is None or content(before, key) != decode(data, encoding, key):
            level, x, y = key.removesuffix(".terrain").split("/")
            self.written.append(TileCoord(int(level), int(x), int(y)))
            self._writer.put(key, data, encoding)

    def commit(self, metadata: Mapping[str, Any] | None = None) -> StoreInfo:
        return self._writer.commit(metadata)

    def abort(self) -> None:
        self._writer.abort()
