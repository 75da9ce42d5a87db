"""Point clouds to 3D Tiles 1.1: an implicit octree with ADD refinement, every point in one tile.

Sort: chunks are read, placed on the global lattice and left as runs, sorted by column
(`point_spool`). Build: columns of the ground that hold few enough points become tiles, and hand
what coarser levels may show to the column above, which does the same (`point_tiles`). Bind: volumes
are grown from the contents, subtrees and tileset.json written (`octree`).

The level of the columns follows from how many points there are where, so the result depends on the
points alone: not on chunks, workers, memory, or interruptions.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from tiling.batches import PointBatch
from tiling.bounds import Region
from tiling.coords import unmorton2
from tiling.crs import TILE_REF
from tiling.errors import NothingToTile
from tiling.findings import Finding
from tiling.formats.metadata import property_ids
from tiling.formats.points_glb import ERROR_M, PointColumnType
from tiling.formats.subtree import BOUNDING_REGION_CLASS, TILE_CLASS, encode_subtree
from tiling.formats.tileset_json import encode_tileset
from tiling.stores.base import PutTile
from tiling.tilers.base import Requirements, Run, TilesetInfo
from tiling.tilers.octree import OctreeLevel, grow, implicit_roots, subtrees
from tiling.tilers.pipeline import UnitResult, build_units, compress, drain
from tiling.tilers.point_lattice import COUNT_LEVEL, LATTICE_LEVEL, ROOT_LEVEL
from tiling.tilers.point_sampling import DEEPEST_BELOW, DEEPEST_LEVEL, spacing_m
from tiling.tilers.point_spool import RGB, PointSpool, is_run_finished, open_points, write_run
from tiling.tilers.point_tiles import BuiltColumn, PointSettings, build_column, point_tiles
from tiling.tilers.quadtree import degrees

C = TypeVar("C")

# The explicit root shows nothing, so it refines from anywhere on the globe.
_SCENE_ERROR_M, _TILESET_ERROR_M = 2.0**19, 2.0**20
# A level is left when its points would stand farther apart on the screen than half of what
# clients tolerate.
ERROR_SPACINGS = 2.0
# Points of a column that is built as a whole; part of what tiles depend on, so no option.
_COLUMN_POINTS = 500_000
_LEAF_POINTS = 40_000
# So many units at least where columns allow, that workers end together and a run that is killed has
# little to repeat.
_LEAST_UNITS = 50
# Levels that a column above joins.
_TIER_LEVELS = 3
# One level above a tile's finest voxels, where positions of all of a root could still be stated.
_LEAST_START = ROOT_LEVEL + 1
# Levels above cells as large as the cloud: it vanishes only where it is a dozen pixels wide.
_FAR_LEVELS = 4


def geometric_error_m(level: int) -> float:
    """Return how far a tile and all above it may be from everything, in metres."""
    return ERROR_SPACINGS * spacing_m(level)


@dataclass(frozen=True, slots=True)
class _Columns:
    """A work unit: columns that are built one after the other; picklable."""

    folder: Path
    runs: int
    columns: tuple[tuple[int, NDArray[np.int64]], ...]
    level: int
    settings: PointSettings
    handed: Path


@dataclass(frozen=True, slots=True)
class _Join:
    """A work unit: a column and what the columns in it handed over; picklable."""

    column: int
    level: int
    children: tuple[int, ...]
    child_level: int
    settings: PointSettings
    handed: Path


class PointCloudTiler(Generic[C]):
    """Turns chunks of points into 3D Tiles.

    Args:
        read: turns a chunk into its points and what was found in them; picklable, for workers. All
            batches of a run have the same columns.
        colour_depth: bits of colours (8 or 16) by their greatest value and the number of points.
        leaf_points: points that a tile holds at most where it could be divided.
        column_points: points of a column that is built as a whole.
    """

    kind = "pointcloud"
    requirements = Requirements(ref=TILE_REF, heights=True)

    def __init__(
        self,
        read: Callable[[C], tuple[PointBatch, Sequence[Finding]]],
        colour_depth: Callable[[int, int], int] | None = None,
        leaf_points: int = _LEAF_POINTS,
        column_points: int = _COLUMN_POINTS,
    ) -> None:
        self.read = read
        self.colour_depth = colour_depth or (lambda largest, _: 8 if largest <= 255 else 16)
        self.leaf_points = leaf_points
        self.column_points = column_points

    def run(self, chunks: Sequence[C], run: Run) -> TilesetInfo:
        """Make the tileset; what an interrupted run left in ``run.scratch`` is used.

        Raises:
            NothingToTile: there is no point that has a place.
            Cancelled: asked to stop; the same call resumes.
        """
        folder = run.scratch / "sorted"
        folder.mkdir(parents=True, exist_ok=True)
        missing = [i for i in range(len(chunks)) if not is_run_finished(folder, i)]
        run.progress.begin("read", len(chunks))
        run.progress.advance(len(chunks) - len(missing))
        jobs = ((_sort_chunk, (folder, i, self.read, chunks[i])) for i in missing)
        drain(jobs, run.executor, run.workers * 2, run.progress)
        spool = PointSpool(folder, len(chunks))
        run.findings.merge(spool.findings)
        slices = spool.slices()
        if not len(slices):
            raise NothingToTile("no point has a place on the Earth")
        columns, firsts = np.unique(slices[:, 0], return_index=True)
        counts = np.add.reduceat(slices[:, 3], firsts)
        whole = _whole_level(columns)
        settings = self._settings(spool, columns, whole, int(counts.sum()), run)
        level = _unit_level(columns, counts, whole, self.column_points)
        facts = _build(folder, len(chunks), slices, level, settings, self, run)
        roots = grow(point_tiles([tile for fact in facts for tile in fact["tiles"]]))
        bind(roots, run.writer)
        return _info(roots, facts, settings, spool)

    def _settings(
        self, spool: PointSpool, columns: NDArray[np.int64], whole: int, count: int, run: Run
    ) -> PointSettings:
        start = max(whole - _FAR_LEVELS, _LEAST_START)
        kinds, constants = _column_types(spool)
        for name, value in constants.items():
            message = f"{name} is {value:g} at every point: it is left out of tiles"
            run.findings.add("column-constant", "info", message, count)
        depth = 0
        if RGB in spool.ranges:
            known = spool.ranges[RGB]
            if known is not None and known[1] > 0:
                depth = self.colour_depth(int(known[1]), count)
            else:
                message = "all colours are black: tiles have none"
                run.findings.add("colours-empty", "info", message, count)
        apart = int(np.bitwise_or.reduce(columns ^ columns[0])).bit_length()
        alone = COUNT_LEVEL - (apart + 1) // 2
        return PointSettings(start, self.leaf_points, kinds, depth, alone)


def _sort_chunk(
    folder: Path,
    index: int,
    read: Callable[[C], tuple[PointBatch, Sequence[Finding]]],
    chunk: C,
) -> None:
    batch, findings = read(chunk)
    write_run(folder, index, batch, findings)


def _whole_level(columns: NDArray[np.int64]) -> int:
    """Return the finest level whose cells are as large as the cloud: at most four show it all."""
    x, y = unmorton2(columns)
    span = max(int(x.max() - x.min()), int(y.max() - y.min())) + 1
    level = COUNT_LEVEL - (span - 1).bit_length()
    return max(level, _LEAST_START)


def _unit_level(
    columns: NDArray[np.int64], counts: NDArray[np.int64], start: int, most: int
) -> int:
    for level in range(start, COUNT_LEVEL):
        _, firsts = np.unique(columns >> (2 * (COUNT_LEVEL - level)), return_index=True)
        if int(np.add.reduceat(counts, firsts).max()) <= most:
            return level
    return COUNT_LEVEL


def _column_types(
    spool: PointSpool,
) -> tuple[tuple[tuple[str, int, PointColumnType], ...], dict[str, float]]:
    """Return the columns that tiles show, and the values of those that are the same everywhere."""
    shown: list[tuple[str, int, str, str, bool]] = []
    constants: dict[str, float] = {}
    for name, kind, *shape in spool.fields:
        if name == RGB:
            continue
        if name in spool.constants:
            value = spool.constants[name]
            constants[name] = float("nan") if value is None else float(value)
            continue
        component, relative = _component(np.dtype(kind))
        width = shape[0][0] if shape else 1
        for part in range(width):
            label = name if width == 1 else f"{name}_{part}"
            shown.append((name, part, label, component, relative))
    ids = property_ids([label for _, _, label, _, _ in shown])
    types = tuple(
        (name, part, PointColumnType(ids[label], label, component, relative))
        for name, part, label, component, relative in shown
    )
    return types, constants


def _component(dtype: np.dtype[Any]) -> tuple[str, bool]:
    """Return the type of a column's attribute, and whether it counts from a tile's least value."""
    if dtype.kind == "b":
        return "UINT8", False
    if dtype.kind in "iu" and dtype.itemsize <= 2:
        return f"{'U' if dtype.kind == 'u' else ''}INT{8 * dtype.itemsize}", False
    # Vertex attributes have no wider numbers; from a tile's least value, most keep their digits.
    return "FLOAT32", dtype.itemsize > 4 or dtype.kind != "f"


def _build(
    folder: Path,
    runs: int,
    slices: NDArray[np.int64],
    level: int,
    settings: PointSettings,
    tiler: PointCloudTiler[Any],
    run: Run,
) -> list[dict[str, Any]]:
    """Build columns, then the columns above them, up to the coarsest level with content."""
    of_slices = slices[:, 0] >> (2 * (COUNT_LEVEL - level))
    found, firsts = np.unique(of_slices, return_index=True)
    sizes = np.add.reduceat(slices[:, 3], firsts)
    where = [_runs_of(part) for part in np.split(slices[:, 1:], firsts[1:])]
    handed = run.scratch / "handed"
    handed.mkdir(exist_ok=True)
    ends = np.cumsum(sizes)
    # How columns are grouped shows in no byte.
    groups = ends // min(tiler.column_points, int(ends[-1]) // _LEAST_UNITS + 1)
    starts = np.flatnonzero(np.diff(groups)) + 1
    every = list(zip(found.tolist(), where, strict=True))
    units = [
        _Columns(folder, runs, tuple(every[first:last]), level, settings, handed)
        for first, last in pairwise([0, *starts.tolist(), len(every)])
    ]
    facts = build_units("tiles", units, _build_columns, run)
    while level > settings.start:
        child_level, level = level, max(level - _TIER_LEVELS, settings.start)
        parents = found >> (2 * (child_level - level))
        above, firsts = np.unique(parents, return_index=True)
        joins = [
            _Join(int(parent), level, tuple(children.tolist()), child_level, settings, handed)
            for parent, children in zip(above, np.split(found, firsts[1:]), strict=True)
        ]
        facts += build_units(f"join-{level}", joins, _build_join, run)
        found = above
    return facts


def _runs_of(slices: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return slices (run, first record, count) by run, those that follow each other as one."""
    slices = slices[np.lexsort((slices[:, 1], slices[:, 0]))]
    ends = slices[:, 1] + slices[:, 2]
    follows = (slices[1:, 0] == slices[:-1, 0]) & (slices[1:, 1] == ends[:-1])
    firsts = np.flatnonzero(np.concatenate([[True], ~follows]))
    joined = slices[firsts].copy()
    joined[:, 2] = np.add.reduceat(slices[:, 2], firsts)
    return joined


def _build_columns(unit: _Columns) -> UnitResult:
    spool = open_points(unit.folder, unit.runs)
    result = UnitResult([], {"tiles": []})
    for column, slices in unit.columns:
        records = spool.gather(column, unit.level, slices)
        deepest = min(unit.level + DEEPEST_BELOW, DEEPEST_LEVEL)
        built = build_column(records, column, unit.level, deepest, unit.settings, False)
        _finish(built, column, unit.level, unit.handed, result)
    return result


def _build_join(unit: _Join) -> UnitResult:
    parts = []
    for child in unit.children:
        path = _handed(unit.handed, child, unit.child_level)
        if not path.exists():
            continue
        records = np.load(path)
        # Places count from the child's corner; so much farther is it from this one's.
        depth = unit.child_level - unit.level
        x, y = unmorton2(np.uint64(child))
        side = LATTICE_LEVEL - unit.child_level
        mask = (1 << depth) - 1
        records["x"] += np.uint32((int(x) & mask) << side)
        records["y"] += np.uint32((int(y) & mask) << side)
        parts.append(records)
    result = UnitResult([], {"tiles": []})
    if parts:
        built = build_column(
            np.concatenate(parts),
            unit.column,
            unit.level,
            unit.child_level - 1,
            unit.settings,
            True,
        )
        _finish(built, unit.column, unit.level, unit.handed, result)
    return result


def _finish(built: BuiltColumn, column: int, level: int, handed: Path, result: UnitResult) -> None:
    assert isinstance(result.tiles, list)
    result.tiles += built.tiles
    result.facts["tiles"] += built.facts
    if built.handed is not None:
        # Complete before the part that stands for the unit is; 3.0 knows Chinese names of columns.
        path = _handed(handed, column, level)
        partial = path.with_suffix(f".{os.getpid()}.tmp")
        with partial.open("wb") as file:
            np.lib.format.write_array(file, built.handed, (3, 0))  # type: ignore[no-untyped-call]
        partial.rename(path)


def _handed(folder: Path, column: int, level: int) -> Path:
    return folder / f"{level}-{column}.npy"


def bind(roots: dict[str, list[OctreeLevel]], writer: PutTile) -> None:
    """Write subtrees and tileset.json."""
    for root, levels in roots.items():
        for key, subtree in subtrees(root, levels):
            writer.put(key, compress(encode_subtree(subtree)), "gzip")
    extras = {"cim:bounds": _bounds(roots).bbox3d(), "cim:point_error_m": ERROR_M}
    tileset = encode_tileset(
        implicit_roots(roots, geometric_error_m(ROOT_LEVEL)),
        _TILESET_ERROR_M,
        _SCENE_ERROR_M,
        {"id": "cim", "classes": {BOUNDING_REGION_CLASS: TILE_CLASS}},
        extras,
    )
    writer.put("tileset.json", compress(tileset), "gzip")


def _bounds(roots: dict[str, list[OctreeLevel]]) -> Region:
    regions = [degrees(levels[0].regions[0]) for levels in roots.values()]
    bounds = regions[0]
    for region in regions[1:]:
        bounds = bounds.union(region)
    return bounds


def _info(
    roots: dict[str, list[OctreeLevel]],
    facts: list[dict[str, Any]],
    settings: PointSettings,
    spool: PointSpool,
) -> TilesetInfo:
    tiles = np.array([tile for fact in facts for tile in fact["tiles"]])
    levels, counts = np.unique(tiles[:, 0].astype(int), return_counts=True)
    points = np.bincount(tiles[:, 0].astype(int), tiles[:, 10])
    return TilesetInfo(
        bounds=_bounds(roots),
        min_level=int(levels.min()),
        max_level=int(levels.max()),
        tiles=len(tiles),
        features=int(tiles[:, 10].sum()),
        metadata={
            "fields": [
                {
                    "id": kind.id,
                    "name": kind.name,
                    "type": kind.component,
                    "source_type": spool.dtype[name].base.name,
                }
                for name, _, kind in settings.columns
            ],
            "constants": {k: v for k, v in spool.constants.items() if k != RGB},
            "classes": {str(value): spool.classes[value] for value in sorted(spool.classes)},
            "colour_depth": settings.colour_depth,
            "point_error_m": ERROR_M,
            "tiles_nbytes": int(tiles[:, 11].sum()),
            "tiles_per_level": {
                str(level): int(n) for level, n in zip(levels, counts, strict=True)
            },
            "points_per_level": {str(level): int(points[level]) for level in levels},
            "spacing_m": {str(level): spacing_m(int(level)) for level in levels},
            "geometric_error_m": {str(level): geometric_error_m(int(level)) for level in levels},
        },
    )
