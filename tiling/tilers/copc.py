"""Point clouds to COPC, in their own frame, with every column: for analysis and download.

The same idea as that of the 3D Tiles (`pointcloud`): chunks are left as runs of records, sorted by
columns of the ground; columns that hold few enough points become nodes, and hand what coarser nodes
may show to the column above. The cube of the file is laid onto one root cell of the lattice, so
that cells, keys and sampling are the tiler's. Thinned, of the points in each voxel of the spacing
asked for, the one nearest to its middle is kept; the cube is a power of two of them wide, so that
no voxel lies in two columns.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from tiling.batches import PointBatch
from tiling.coords import unmorton2
from tiling.errors import NothingToTile, TilingError
from tiling.formats.copc import CopcWriter, Cube, Node, Totals, compress_node, compressor
from tiling.formats.las_records import LasSchema
from tiling.stores.base import Encoding
from tiling.tilers.base import Run
from tiling.tilers.pipeline import Tile, UnitResult, build_parts, drain, pour
from tiling.tilers.point_lattice import (
    KEY_BITS,
    LATTICE_LEVEL,
    ROOT_LEVEL,
    column_keys,
    ground_columns,
)
from tiling.tilers.point_sampling import (
    DEEPEST_BELOW,
    cells_of,
    leaf_levels,
    sample,
)
from tiling.tilers.point_spool import corner, in_one_order

C = TypeVar("C")

# Records are sorted by a thousand columns along the cube's side: enough to cut the work by.
_SORT_LEVEL = ROOT_LEVEL + 10
_ROOT_BITS = LATTICE_LEVEL - ROOT_LEVEL
_COLUMN_POINTS = 500_000
_LEAF_POINTS = 50_000
_TIER_LEVELS = 3
Bounds = tuple[float, float, float, float, float, float]


@dataclass(frozen=True, slots=True)
class CopcPlan:
    """What a file depends on besides its points; picklable.

    Attributes:
        schema: of the records.
        cube: root of the octree.
        voxel_bits: levels from the cube to the voxels that keep one point each; None: all points
            are kept.
    """

    schema: LasSchema
    cube: Cube
    voxel_bits: int | None

    @classmethod
    def of(cls, schema: LasSchema, bounds: Bounds, spacing: float | None) -> CopcPlan:
        """Return the plan for points within bounds.

        Args:
            schema: of the records.
            bounds: (xmin, ymin, zmin, xmax, ymax, zmax) of the points, in their units.
            spacing: side of the voxels when thinned, in the units of the bounds; None: all points
                are kept.
        """
        low, high = np.array(bounds[:3]), np.array(bounds[3:])
        # At least a step wide, that one point has a cube too.
        extent = float(max((high - low).max(), max(schema.scales)))
        voxel_bits = None
        side = extent
        if spacing is not None:
            voxel_bits = max(0, math.ceil(math.log2(extent / spacing)))
            side = spacing * 2.0**voxel_bits
        # The cube begins where the points do: some readers take its corner from the header.
        return cls(schema, Cube((bounds[0], bounds[1], bounds[2]), side), voxel_bits)

    def thinned(self, places: NDArray[np.uint32]) -> NDArray[np.int64]:
        """Return the rows that are kept of a column's points.

        Args:
            places: (N, 3) uint32, all points of the voxels they lie in; of equally good ones in a
                voxel the first is kept.
        """
        assert self.voxel_bits is not None
        bits = _ROOT_BITS - self.voxel_bits
        voxels = places >> np.uint32(bits)
        beside = (places - (voxels << np.uint32(bits))).astype(np.float64) - 2.0 ** (bits - 1)
        order = np.lexsort(((beside**2).sum(axis=1), *voxels.T))
        ordered = voxels[order]
        firsts = np.concatenate([[True], (ordered[1:] != ordered[:-1]).any(axis=1)])
        return np.sort(order[firsts])

    def places(self, records: NDArray[np.void]) -> NDArray[np.uint32]:
        """Return where records lie in the root cell: (N, 3) uint32.

        Raises:
            TilingError: some lie outside the cube.
        """
        low, scales = np.array(self.cube.low), np.array(self.schema.scales)
        beside = self.schema.xyz(records) - low
        # A stored coordinate is up to half a step beside the one it stands for.
        if not ((beside >= -scales) & (beside <= self.cube.side + scales)).all():
            raise TilingError(
                "points lie outside the bounds that were measured: the source has changed while it "
                "was read; run the command again"
            )
        beside *= 2.0**_ROOT_BITS / self.cube.side
        places: NDArray[np.uint32] = beside.clip(0, 2.0**_ROOT_BITS - 1).astype(np.uint32)
        return places


@dataclass(frozen=True, slots=True)
class _Unit:
    """Columns that are built one after the other; picklable."""

    folder: Path
    columns: tuple[tuple[int, NDArray[np.int64]], ...]
    level: int
    plan: CopcPlan


@dataclass(frozen=True, slots=True)
class _Join:
    """A column and what the columns in it handed over; picklable."""

    column: int
    level: int
    children: tuple[int, ...]
    child_level: int
    folder: Path
    plan: CopcPlan


class CopcTiler(Generic[C]):
    """Turns chunks of points into a COPC.

    Args:
        read: turns a chunk into its points, in the frame of the file; picklable, called in workers.
        column_points: points of a column that is built as a whole.
        leaf_points: points that a node holds at most where it could be divided.
    """

    def __init__(
        self,
        read: Callable[[C], PointBatch],
        column_points: int = _COLUMN_POINTS,
        leaf_points: int = _LEAF_POINTS,
    ) -> None:
        self.read = read
        self.column_points = column_points
        self.leaf_points = leaf_points

    def run(self, chunks: Sequence[C], plan: CopcPlan, writer: CopcWriter, run: Run) -> Totals:
        """Write the file; what an interrupted run left in ``run.scratch`` is used.

        Args:
            chunks: of the points.
            plan: of the file.
            writer: receives the nodes; committed here.
            run: its own writer is not used.

        Returns:
            the totals of what the file holds.

        Raises:
            NothingToTile: there are no points.
            Cancelled: asked to stop; the same call resumes.
        """
        folder = run.scratch / "copc"
        folder.mkdir(parents=True, exist_ok=True)
        missing = [i for i in range(len(chunks)) if not _index(folder, i).exists()]
        run.progress.begin("copc-read", len(chunks))
        run.progress.advance(len(chunks) - len(missing))
        jobs = ((_sort_chunk, (folder, i, self.read, chunks[i], plan)) for i in missing)
        drain(jobs, run.executor, run.workers * 2, run.progress)
        slices = _slices(folder, len(chunks))
        if not len(slices):
            raise NothingToTile("the point cloud holds no points")
        columns, firsts = np.unique(slices[:, 0], return_index=True)
        counts = np.add.reduceat(slices[:, 3], firsts)
        level = self._unit_level(columns, counts, plan)
        facts = self._build(folder, slices, level, plan, writer, run)
        totals = Totals()
        for fact in facts:
            totals.add(Totals.from_json(fact["totals"]))
        left = int(counts.sum()) - totals.count
        message = "points that share a voxel of the spacing with another are left out of the COPC"
        run.findings.add("copc-thinned", "info", message, left)
        writer.commit(totals)
        return totals

    def _unit_level(
        self, columns: NDArray[np.int64], counts: NDArray[np.int64], plan: CopcPlan
    ) -> int:
        most = _SORT_LEVEL
        if plan.voxel_bits is not None:
            most = min(most, ROOT_LEVEL + plan.voxel_bits)
        for level in range(ROOT_LEVEL, most):
            _, firsts = np.unique(columns >> (2 * (_SORT_LEVEL - level)), return_index=True)
            if int(np.add.reduceat(counts, firsts).max()) <= self.column_points:
                return level
        return most

    def _build(
        self,
        folder: Path,
        slices: NDArray[np.int64],
        level: int,
        plan: CopcPlan,
        writer: CopcWriter,
        run: Run,
    ) -> list[dict[str, Any]]:
        of_slices = slices[:, 0] >> (2 * (_SORT_LEVEL - level))
        found, firsts = np.unique(of_slices, return_index=True)
        sizes = np.add.reduceat(slices[:, 3], firsts)
        where = [part[:, 1:] for part in np.split(slices, firsts[1:])]
        groups = np.cumsum(sizes) // self.column_points
        starts = np.flatnonzero(np.diff(groups)) + 1
        every = list(zip(found.tolist(), where, strict=True))
        build = _Build(self.leaf_points)
        units = [
            _Unit(folder, tuple(every[first:last]), level, plan)
            for first, last in pairwise([0, *starts.tolist(), len(every)])
        ]
        put = _Nodes(writer).put
        paths = build_parts("copc-nodes", units, build.columns, run, "copc")
        facts = [pour(path, put, run.findings) for path in paths]
        while level > ROOT_LEVEL:
            child_level, level = level, max(level - _TIER_LEVELS, ROOT_LEVEL)
            above, firsts = np.unique(found >> (2 * (child_level - level)), return_index=True)
            joins = [
                _Join(int(parent), level, tuple(children.tolist()), child_level, folder, plan)
                for parent, children in zip(above, np.split(found, firsts[1:]), strict=True)
            ]
            step = f"copc-join-{level}"
            paths = build_parts(step, joins, build.join, run, step)
            facts += [pour(path, put, run.findings) for path in paths]
            found = above
        return facts


class _Nodes:
    """Lets a file receive what a store receives."""

    def __init__(self, writer: CopcWriter) -> None:
        self._writer = writer

    def put(self, key: str, data: bytes, encoding: Encoding = None) -> None:
        """Write the chunk of a node whose key is ``level-x-y-z-count``."""
        *node, count = map(int, key.split("-"))
        self._writer.put(Node(*node), data, count)


def _sort_chunk(
    folder: Path, index: int, read: Callable[[C], PointBatch], chunk: C, plan: CopcPlan
) -> None:
    batch = read(chunk)
    records = plan.schema.pack(batch.xyz, batch.columns)
    columns = ground_columns(plan.places(records), _SORT_LEVEL)
    order = np.argsort(columns, kind="stable")
    found, counts = np.unique(columns, return_counts=True)
    part = folder / f"{index:06d}.{os.getpid()}.tmp"
    part.write_bytes(records[order].tobytes())
    part.rename(_records(folder, index))
    with part.open("wb") as file:
        np.save(file, np.stack([found, counts.astype(np.uint64)]))
    part.rename(_index(folder, index))


def _records(folder: Path, index: int) -> Path:
    return folder / f"{index:06d}.las"


def _index(folder: Path, index: int) -> Path:
    return folder / f"{index:06d}.npy"


def _slices(folder: Path, runs: int) -> NDArray[np.int64]:
    """Return where points are: (N, 4) int64 of column, run, first record, count, by column."""
    parts = []
    for run in range(runs):
        columns, counts = np.load(_index(folder, run)).astype(np.int64)
        starts = np.cumsum(counts) - counts
        parts.append(np.stack([columns, np.full(len(columns), run), starts, counts], axis=1))
    every = np.concatenate(parts)
    ordered: NDArray[np.int64] = every[np.argsort(every[:, 0], kind="stable")]
    return ordered


@dataclass(frozen=True, slots=True)
class _Build:
    """Builds units in workers; picklable."""

    leaf_points: int

    def columns(self, unit: _Unit) -> UnitResult:
        """Make the nodes of columns."""
        made = _Made(unit.plan, unit.folder)
        for column, slices in unit.columns:
            parts = []
            for run, start, count in _joined(slices).tolist():
                offset = start * unit.plan.schema.dtype.itemsize
                path = _records(unit.folder, run)
                parts.append(np.fromfile(path, unit.plan.schema.dtype, count, offset=offset))
            records = np.concatenate(parts)
            made.column(records, column, unit.level, None, self.leaf_points)
        return made.result()

    def join(self, unit: _Join) -> UnitResult:
        """Make the nodes of a column out of what the columns in it handed over."""
        made = _Made(unit.plan, unit.folder)
        paths = [_handed(unit.folder, child, unit.child_level) for child in unit.children]
        parts = [np.load(path) for path in paths if path.exists()]
        if parts:
            records = np.concatenate(parts)
            made.column(records, unit.column, unit.level, unit.child_level - 1, self.leaf_points)
        return made.result()


class _Made:
    """Nodes of one unit, and their totals."""

    def __init__(self, plan: CopcPlan, folder: Path) -> None:
        self._plan, self._folder = plan, folder
        self._vlr = compressor(plan.schema)
        self._tiles: list[Tile] = []
        self._totals = Totals()

    def result(self) -> UnitResult:
        """Return what was made."""
        totals = json.loads(json.dumps(self._totals.to_json()))
        return UnitResult(self._tiles, {"totals": totals})

    def column(
        self,
        records: NDArray[np.void],
        column: int,
        level: int,
        handed_level: int | None,
        leaf_points: int,
    ) -> None:
        """Make the nodes of a column, and leave what the column above chooses from.

        Args:
            records: points of the column in any order.
            column: Morton index.
            level: of the column.
            handed_level: the points are what parts of the column handed over, to be shown at this
                level or above; None: they are all of its points.
            leaf_points: points that a node holds at most where it could be divided.
        """
        places = self._plan.places(records)
        places[:, :2] -= np.array(corner(column, level), np.uint32)
        keys, order = in_one_order(records, column_keys(places, level))
        if handed_level is None and self._plan.voxel_bits is not None:
            kept = self._plan.thinned(places[order])
            keys, order = keys[kept], order[kept]
        records, places = records.take(order), places.take(order, axis=0)
        if handed_level is not None:
            levels = np.full(len(keys), handed_level, np.int8)
        else:
            levels = leaf_levels(keys, level, level + DEEPEST_BELOW, leaf_points)
        top = max(level - 1, ROOT_LEVEL)
        alone = level == ROOT_LEVEL
        sample(places, keys, levels, level, int(levels.max()) - 1, top, 1.0, alone)
        by_level = np.argsort(levels, kind="stable")
        found, starts = np.unique(levels[by_level], return_index=True)
        for here, rows in zip(found.tolist(), np.split(by_level, starts[1:]), strict=True):
            if here < level:
                self._hand(records[rows], column, level)
                continue
            cells = keys[rows] >> np.uint64(3 * (KEY_BITS - (here - level)))
            firsts = np.flatnonzero(np.concatenate([[True], cells[1:] != cells[:-1]]))
            where = cells_of(keys[rows[firsts]], here - level)
            origin = [int(v) << (here - level) for v in unmorton2(np.uint64(column))]
            for (x, y, z), own in zip(where.tolist(), np.split(rows, firsts[1:]), strict=True):
                node = Node(here - ROOT_LEVEL, origin[0] + x, origin[1] + y, z)
                self._add(node, records[own])

    def _add(self, node: Node, records: NDArray[np.void]) -> None:
        key = "-".join(map(str, (*node, len(records))))
        self._tiles.append(Tile(key, compress_node(records, self._vlr)))
        self._totals.add(Totals.of(records))

    def _hand(self, records: NDArray[np.void], column: int, level: int) -> None:
        # Complete before the part that stands for the unit is.
        path = _handed(self._folder, column, level)
        partial = path.with_suffix(f".{os.getpid()}.tmp")
        with partial.open("wb") as file:
            np.save(file, records)
        partial.rename(path)


def _handed(folder: Path, column: int, level: int) -> Path:
    return folder / f"{level}-{column}.npy"


def _joined(slices: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return slices (run, first record, count) by run, those that follow each other as one."""
    slices = slices[np.lexsort((slices[:, 1], slices[:, 0]))]
    ends = slices[:, 1] + slices[:, 2]
    follows = (slices[1:, 0] == slices[:-1, 0]) & (slices[1:, 1] == ends[:-1])
    firsts = np.flatnonzero(np.concatenate([[True], ~follows]))
    joined = slices[firsts].copy()
    joined[:, 2] = np.add.reduceat(slices[:, 2], firsts)
    return joined
