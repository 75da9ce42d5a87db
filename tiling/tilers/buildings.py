"""White-model buildings (白模): footprints, or shapes of their own, to 3D Tiles 1.1.

Sort: an external sort by Morton index, so that every cell is a range of rows. Build: the tiles of
some thousand neighbouring features at a time, full detail first, then what their parents show
(`building_tiles`). Join: the coarser levels, from what the finer ones show. Bound: volumes are
grown bottom-up from the decoded content (`quadtree`), then subtrees and tileset.json are written.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from tiling.batches import (
    BASE_COLUMN,
    HEIGHT_COLUMN,
    HEIGHT_SOURCE_COLUMN,
    MESH_COLUMN,
    SKIRT_COLUMN,
    FeatureBatch,
)
from tiling.bounds import Region
from tiling.coords import TileCoord
from tiling.crs import TILE_REF
from tiling.errors import ConfigError, NothingToTile, TilingError
from tiling.formats.metadata import property_ids
from tiling.formats.plain_columns import plain
from tiling.formats.subtree import BOUNDING_REGION_CLASS, TILE_CLASS, encode_subtree
from tiling.formats.tileset_json import encode_tileset
from tiling.stores.base import PutTile
from tiling.tilers.base import Requirements, Run, TilesetInfo
from tiling.tilers.building_tiles import (
    FEATURE_ID_COLUMN,
    FEATURES_COLUMN,
    ROOT_ERROR_M,
    Built,
    TileSettings,
    build_cell,
    build_parent,
    content_tiles,
    geometric_error_m,
)
from tiling.tilers.extsort import Spool, SpoolWriter, open_spool
from tiling.tilers.pipeline import UnitResult, build_units, compress
from tiling.tilers.prisms import Prisms
from tiling.tilers.quadtree import (
    BASE_LEVEL,
    DEEPEST_LEVEL,
    ROOT_LEVEL,
    Level,
    cell_mortons,
    cell_of,
    degrees,
    grow,
    implicit_roots,
    places,
    subtree_key,
    subtrees,
)

# The explicit root shows nothing, so it refines from anywhere on the globe.
_SCENE_ERROR_M, _TILESET_ERROR_M = 2.0**19, 2.0**20
# Cells of about 5 km are built as one, unless they hold more than this.
_UNIT_LEVEL = 12
_UNIT_ROWS = 16_384


class BuildingsTiler:
    """Turns features with base and height into 3D Tiles.

    Args:
        min_level: coarsest level of the global quadtree with content, at least 8.
        max_level: finest level; its tiles take whatever is left, at most 20.
        tile_features: buildings that a tile above `max_level` holds at most.
        tile_vertices: vertices that it holds at most, roughly.
        key: column that identifies features over time; ids were made from it. None: ids are
            ordinals, and tiles carry them.

    Raises:
        ConfigError: the levels contradict each other.
    """

    kind = "buildings"
    requirements = Requirements(ref=TILE_REF, columns=(BASE_COLUMN, HEIGHT_COLUMN), heights=True)

    def __init__(
        self,
        min_level: int = ROOT_LEVEL,
        max_level: int = 18,
        tile_features: int = 2000,
        tile_vertices: int = 65_000,
        key: str | None = None,
    ) -> None:
        if not (ROOT_LEVEL <= min_level <= max_level <= DEEPEST_LEVEL and max_level >= BASE_LEVEL):
            raise ConfigError(
                f"levels {min_level} to {max_level} of buildings: choose {ROOT_LEVEL} <= min <= "
                f"max <= {DEEPEST_LEVEL}, and a max of at least {BASE_LEVEL}"
            )
        if tile_features < 1 or tile_vertices < 1:
            raise ConfigError(
                f"{tile_features} buildings, {tile_vertices} vertices a tile: at least one"
            )
        self.min_level = min_level
        self.max_level = max_level
        self.tile_features = tile_features
        self.tile_vertices = tile_vertices
        self.key = key

    def settings(self, columns: Sequence[str]) -> TileSettings:
        """Return the settings of a tileset whose features have these attributes."""
        derived = (FEATURE_ID_COLUMN, FEATURES_COLUMN, BASE_COLUMN, HEIGHT_COLUMN)
        shown = [name for name in columns if name not in (SKIRT_COLUMN, MESH_COLUMN)]
        reserved = (*derived, HEIGHT_SOURCE_COLUMN)
        names = list(dict.fromkeys((*shown, FEATURE_ID_COLUMN, FEATURES_COLUMN)))
        return TileSettings(
            base_level=max(BASE_LEVEL, self.min_level),
            max_level=self.max_level,
            min_level=self.min_level,
            tile_features=self.tile_features,
            tile_vertices=self.tile_vertices,
            property_ids=property_ids(names, reserved),
            key=self.key,
        )

    def run(self, batches: Iterable[FeatureBatch], run: Run) -> TilesetInfo:
        """Make the tileset; what an interrupted run left in ``run.scratch`` is used.

        Raises:
            NothingToTile: there is no building.
            TilingError: a batch breaks what `requirements` ask for.
            Cancelled: asked to stop; the same call resumes.
        """
        folder = run.scratch / "sorted"
        if not Spool.is_finished(folder):
            writer = SpoolWriter.create(folder, max(run.memory_nbytes // 8, 1 << 20))
            run.progress.begin("sort", None)
            for batch in batches:
                if len(batch):
                    writer.add(batch, sort_keys(batch))
                    run.progress.advance(len(batch))
            writer.finish()
        return self.run_sorted(folder, run)

    def run_sorted(self, folder: Path, run: Run) -> TilesetInfo:
        """Make the tileset of a spool whose keys are those of `sort_keys`."""
        spool = Spool(folder)
        keys = spool.sorted_keys()
        if not len(keys):
            raise NothingToTile("there is no building to tile")
        schema = spool.schema()
        settings = self.settings(schema.names)
        facts = [fact for step in _steps(folder, keys, settings, run) for fact in step]
        levels = grow(content_tiles(facts))
        bind(levels, run.writer, settings)
        run.findings.add(
            "coplanar-set-apart",
            "info",
            "walls and roofs in one plane with others were set apart, so that they do not flicker",
            sum(fact["inset"] for fact in facts),
        )
        return _info(levels, facts, schema, settings)


def sort_keys(batch: FeatureBatch) -> NDArray[np.uint64]:
    """Return the (N,) uint64 keys under which the features of a batch are sorted.

    Raises:
        TilingError: the batch breaks what buildings require.
    """
    _require(batch)
    place = places(batch.geometry)
    return cell_mortons(place[:, 0], place[:, 1], DEEPEST_LEVEL)


def _require(batch: FeatureBatch) -> None:
    for name in (BASE_COLUMN, HEIGHT_COLUMN):
        if name not in batch.attributes.column_names:
            raise TilingError(f"buildings need the column {name!r}")
    base, height = batch.column(BASE_COLUMN), batch.column(HEIGHT_COLUMN)
    flat = ~(np.isfinite(base) & np.isfinite(height) & (height > 0))
    if flat.any():
        first = int(np.flatnonzero(flat)[0])
        raise TilingError(
            f"{int(flat.sum())} buildings lack a finite base or a height above zero, "
            f"the first being feature {batch.ids[first]}: base {base[first]}, "
            f"height {height[first]}"
        )
    areal = np.isin(shapely.get_type_id(batch.geometry), (3, 6)) & ~shapely.is_empty(batch.geometry)
    if not areal.all():
        first = int(np.flatnonzero(~areal)[0])
        raise TilingError(
            f"{int((~areal).sum())} features are not polygons, the first being feature "
            f"{batch.ids[first]}: {batch.geometry[first].geom_type}"
        )


@dataclass(frozen=True, slots=True)
class _Unit:
    """A cell of a spool; `shown` is where to put what its tile shows."""

    spool: Path
    cell: TileCoord
    shown: Path
    settings: TileSettings


@dataclass(frozen=True, slots=True)
class _Parent:
    """A cell whose children have been built; `children` is where what they show rests."""

    cell: TileCoord
    children: tuple[Path, ...]
    shown: Path
    settings: TileSettings


def _steps(
    folder: Path, keys: NDArray[np.uint64], settings: TileSettings, run: Run
) -> Iterator[list[dict[str, Any]]]:
    """Build full detail, then level after level above it; yield the facts of each step."""
    shown = run.scratch / "shown"
    shown.mkdir(exist_ok=True)
    cells = plan_units(keys)
    units = [_Unit(folder, cell, shown / f"{_name(cell)}.npz", settings) for cell in cells]
    yield build_units("buildings", units, _build_unit, run)
    waiting = {unit.cell: unit.shown for unit in units}
    for level in range(max(cell.level for cell in cells) - 1, ROOT_LEVEL - 1, -1):
        below = [cell for cell in waiting if cell.level == level + 1]
        parents: dict[TileCoord, list[Path]] = {}
        for cell in sorted(below, key=lambda cell: cell.morton()):
            parents.setdefault(cell.parent(), []).append(waiting.pop(cell))
        joins = [
            _Parent(cell, tuple(children), shown / f"{_name(cell)}.npz", settings)
            for cell, children in parents.items()
        ]
        if joins:
            yield build_units(f"level-{level}", joins, _build_join, run)
        waiting.update((join.cell, join.shown) for join in joins)


def _name(cell: TileCoord) -> str:
    return f"{cell.level}-{cell.x}-{cell.y}"


def plan_units(keys: NDArray[np.uint64], max_rows: int = _UNIT_ROWS) -> list[TileCoord]:
    """Return the cells that are built as one: large, but of no more rows than fit in memory.

    Args:
        keys: (N,) uint64, ascending, at `DEEPEST_LEVEL`.
        max_rows: rows of a cell; a cell of the deepest level takes what it holds.
    """
    units: list[TileCoord] = []
    pending = [(_UNIT_LEVEL, morton) for morton in _distinct(keys, _UNIT_LEVEL)]
    while pending:
        level, morton = pending.pop()
        below = np.uint64(2 * (DEEPEST_LEVEL - level))
        low, high = np.searchsorted(
            keys, np.array([morton, morton + 1], dtype=np.uint64) << below
        ).tolist()
        if high - low > max_rows and level < DEEPEST_LEVEL:
            inside = keys[low:high]
            pending.extend((level + 1, child) for child in _distinct(inside, level + 1))
        else:
            units.append(cell_of(morton, level))
    return sorted(units, key=lambda cell: cell.morton() << (2 * (DEEPEST_LEVEL - cell.level)))


def _distinct(keys: NDArray[np.uint64], level: int) -> list[int]:
    mortons: list[int] = np.unique(keys >> np.uint64(2 * (DEEPEST_LEVEL - level))).tolist()
    return mortons


def _build_unit(unit: _Unit) -> UnitResult:
    below = 2 * (DEEPEST_LEVEL - unit.cell.level)
    low = unit.cell.morton() << below
    keys, batch = open_spool(unit.spool).gather(low, low + (1 << below))
    built = Built()
    shown = build_cell(unit.cell, keys, batch, unit.settings, built)
    _save(shown, unit.shown)
    return UnitResult(built.tiles, built.facts())


def _build_join(join: _Parent) -> UnitResult:
    built = Built()
    children = [_load(path) for path in join.children]
    _save(build_parent(join.cell, children, join.settings, built), join.shown)
    return UnitResult(built.tiles, built.facts())


def _save(prisms: Prisms, path: Path) -> None:
    # Complete before the part that stands for the unit is.
    partial = path.with_name(f"{path.stem}.{os.getpid()}.tmp.npz")
    np.savez(partial, **{name: getattr(prisms, name) for name in Prisms.__dataclass_fields__})
    partial.rename(path)


def _load(path: Path) -> Prisms:
    with np.load(path) as arrays:
        return Prisms(**{name: arrays[name] for name in Prisms.__dataclass_fields__})


def bind(
    levels: list[Level],
    writer: PutTile,
    settings: TileSettings,
    roots: frozenset[TileCoord] | None = None,
) -> None:
    """Write subtrees and tileset.json.

    Args:
        levels: the whole tree.
        writer: of the store.
        settings: of the tileset.
        roots: root cells of the subtrees to write; None: all.
    """
    for cell, subtree in subtrees(levels):
        if roots is None or cell in roots:
            writer.put(subtree_key(cell), compress(encode_subtree(subtree)), "gzip")
    bounds, _ = summary(levels)
    # The root's volume is made of whole cells; this is where the buildings are.
    extras: dict[str, Any] = {"cim:bounds": bounds.bbox3d()}
    if settings.key is not None:
        extras["cim:key"] = settings.property_ids[settings.key]
    tileset = encode_tileset(
        implicit_roots(levels, ROOT_ERROR_M),
        _TILESET_ERROR_M,
        _SCENE_ERROR_M,
        {"id": "cim", "classes": {BOUNDING_REGION_CLASS: TILE_CLASS}},
        extras,
    )
    writer.put("tileset.json", compress(tileset), "gzip")


def summary(levels: list[Level]) -> tuple[Region, dict[str, Any]]:
    """Return the bounds of a tree, and what a version's info says of it."""
    bounds = degrees(levels[0].regions[0])
    for region in levels[0].regions[1:]:
        bounds = bounds.union(degrees(region))
    counts = {
        ROOT_LEVEL + depth: int(level.contents.sum())
        for depth, level in enumerate(levels)
        if level.contents.any()
    }
    return bounds, {
        "min_level": min(counts),
        "max_level": max(counts),
        "tiles": sum(counts.values()),
        "tiles_per_level": {str(level): count for level, count in counts.items()},
        "geometric_error_m": {str(level): geometric_error_m(level) for level in counts},
    }


def _info(
    levels: list[Level], facts: list[dict[str, Any]], schema: pa.Schema, settings: TileSettings
) -> TilesetInfo:
    bounds, tree = summary(levels)
    shown = plain(schema.empty_table()).schema
    return TilesetInfo(
        bounds=bounds,
        min_level=tree["min_level"],
        max_level=tree["max_level"],
        tiles=tree["tiles"],
        features=sum(fact["features"] for fact in facts),
        metadata={
            "fields": [
                {
                    "id": settings.property_ids[name],
                    "name": name,
                    "type": str(shown.field(name).type),
                    "source_type": str(schema.field(name).type),
                }
                for name in shown.names
                if name in settings.property_ids
            ],
            "tiles_per_level": tree["tiles_per_level"],
            "geometric_error_m": tree["geometric_error_m"],
            "triangles": sum(fact["triangles"] for fact in facts),
            "tiles_nbytes": sum(fact["nbytes"] for fact in facts),
            "full_detail_nbytes": sum(fact["leaf_nbytes"] for fact in facts),
            "tiler": settings.to_json(),
        },
    )
