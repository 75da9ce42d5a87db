"""External sort of features by a 64-bit key: sorted runs on disk, gathered by key range.

The one idea: each run is an Arrow IPC file sorted by (key, id) with its keys beside it, so
gathering a key range is a binary search in every run, reading the few record batches that hold it,
and a small sort of what was found. Memory is bounded by one run while writing and by one range
while reading, whatever the input's size, and because rows are ordered by (key, id) neither the
size of the runs nor who wrote them shows in the result.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import shapely
from numpy.typing import NDArray

from tiling.batches import FeatureBatch
from tiling.crs import SpatialRef

_KEY, _ID, _GEOMETRY = "__key", "__id", "__wkb"
_MANIFEST = "spool.json"
# What one read takes at least; small, because a range touches a batch or two of every run.
_BATCH_ROWS = 1024


def to_table(batch: FeatureBatch) -> pa.Table:
    """Return the features of a batch as one Arrow table, ids and geometries in columns of ours."""
    wkb = shapely.to_wkb(batch.geometry)
    return batch.attributes.append_column(_ID, pa.array(batch.ids)).append_column(
        _GEOMETRY, pa.array(wkb, type=pa.large_binary())
    )


def from_table(table: pa.Table, ref: SpatialRef) -> FeatureBatch:
    """Return the batch that `to_table` turned into a table."""
    return FeatureBatch(
        ref,
        _values(table.column(_ID)),
        shapely.from_wkb(table.column(_GEOMETRY).to_numpy()),
        table.drop_columns([_ID, _GEOMETRY]),
    )


def write_run(folder: Path, index: int, table: pa.Table, keys: NDArray[np.uint64]) -> None:
    """Write a sorted run; complete when its keys are there.

    Args:
        folder: of the spool.
        index: number of the run.
        table: N features, as `to_table` returns them.
        keys: (N,) uint64.
    """
    keys = np.asarray(keys, dtype=np.uint64)
    ids = _values(table.column(_ID))
    order = np.lexsort((ids, keys))
    table = table.take(pa.array(order)).combine_chunks()
    with (
        pa.OSFile(str(_run(folder, index)), "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as writer,
    ):
        writer.write_table(table, max_chunksize=_BATCH_ROWS)
    partial = folder / f"run-{index:05d}.part.npy"
    np.save(partial, np.stack([keys[order], ids[order].view(np.uint64)]))
    partial.rename(_keys(folder, index))


def is_run_finished(folder: Path, index: int) -> bool:
    """Say whether a run is complete."""
    return _keys(folder, index).exists()


def finish_spool(folder: Path, runs: int, ref: SpatialRef | None) -> Spool:
    """Make a spool of complete runs 0 to `runs` - 1."""
    manifest = {"runs": runs, "ref": None if ref is None else ref.to_json()}
    partial = folder / (_MANIFEST + ".part")
    partial.write_text(json.dumps(manifest), encoding="utf-8")
    partial.rename(folder / _MANIFEST)
    return Spool(folder)


def _run(folder: Path, index: int) -> Path:
    return folder / f"run-{index:05d}.arrow"


def _keys(folder: Path, index: int) -> Path:
    return folder / f"run-{index:05d}.npy"


@dataclass(slots=True)
class SpoolWriter:
    """Writes sorted runs into a folder.

    Attributes:
        folder: made empty by the caller; holds the runs and, once finished, a manifest.
        run_nbytes: rough memory a run may take before it is sorted and written.
    """

    folder: Path
    run_nbytes: int
    _pending: list[tuple[pa.Table, NDArray[np.uint64]]]
    _pending_nbytes: int
    _runs: int
    _ref: SpatialRef | None

    @classmethod
    def create(cls, folder: Path, run_nbytes: int) -> SpoolWriter:
        """Start a spool; what an interrupted writer left in `folder` is dropped."""
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.iterdir():
            leftover.unlink()
        return cls(folder, run_nbytes, [], 0, 0, None)

    def add(self, batch: FeatureBatch, keys: NDArray[np.uint64]) -> None:
        """Add features under their keys; a feature may be added under several keys.

        Args:
            batch: N features; every batch of a spool shares frame and attribute schema.
            keys: (N,) uint64.
        """
        table = to_table(batch)
        self._ref = batch.ref
        self._pending.append((table, np.asarray(keys, dtype=np.uint64)))
        self._pending_nbytes += table.nbytes
        if self._pending_nbytes >= self.run_nbytes:
            self._flush()

    def _flush(self) -> None:
        if not self._pending:
            return
        tables, keys = zip(*self._pending, strict=True)
        table = pa.concat_tables(tables, promote_options="permissive")
        write_run(self.folder, self._runs, table, np.concatenate(keys))
        self._runs += 1
        self._pending, self._pending_nbytes = [], 0

    def finish(self) -> Spool:
        """Write the last run and the manifest that makes the spool complete."""
        self._flush()
        return finish_spool(self.folder, self._runs, self._ref)


class Spool:
    """A finished spool; worker processes open their own (`open_spool`)."""

    def __init__(self, folder: Path) -> None:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        self.folder = folder
        self.ref = SpatialRef.from_json(manifest["ref"]) if manifest["ref"] else None
        self._index = [np.load(_keys(folder, i)) for i in range(manifest["runs"])]
        self.rows = sum(index.shape[1] for index in self._index)

    @staticmethod
    def is_finished(folder: Path) -> bool:
        """Say whether a complete spool rests in `folder`."""
        return (folder / _MANIFEST).exists()

    def keys(self) -> NDArray[np.uint64]:
        """Return the distinct keys, ascending."""
        return np.unique(self.sorted_keys())

    def sorted_keys(self) -> NDArray[np.uint64]:
        """Return the key of every row, ascending."""
        parts = [index[0] for index in self._index]
        return np.sort(np.concatenate(parts)) if parts else np.empty(0, dtype=np.uint64)

    def ids(self) -> NDArray[np.int64]:
        """Return the id of every row, in the order of the runs."""
        parts = [index[1] for index in self._index]
        return np.concatenate(parts).view(np.int64) if parts else np.empty(0, dtype=np.int64)

    def schema(self) -> pa.Schema:
        """Return the attributes' schema over all runs; every batch has it."""
        return pa.schema([field for field in self._schema if field.name not in (_ID, _GEOMETRY)])

    @cached_property
    def _schema(self) -> pa.Schema:
        schemas = []
        for i in range(len(self._index)):
            with pa.OSFile(str(_run(self.folder, i))) as file:
                schemas.append(pa.ipc.open_file(file).schema)
        return common_schema(schemas)

    def gather(self, low: int, high: int) -> tuple[NDArray[np.uint64], FeatureBatch]:
        """Return the features with ``low <= key < high``, ordered by (key, id).

        Returns:
            (N,) uint64 keys and the N features.
        """
        tables, keys = [], []
        for i, index in enumerate(self._index):
            # high may be 2**64, which no uint64 holds: search for the last key instead.
            start = int(np.searchsorted(index[0], np.uint64(low), side="left"))
            stop = int(np.searchsorted(index[0], np.uint64(high - 1), side="right"))
            if stop > start:
                tables.append(self._rows(i, start, stop))
                keys.append(index[0, start:stop])
        if self.ref is None or not self._index:
            raise ValueError(f"the spool {self.folder} is empty")
        if not tables:
            tables, keys = [self._rows(0, 0, 0)], [self._index[0][0, :0]]
        table = pa.concat_tables([_conform(table, self._schema) for table in tables])
        found = np.concatenate(keys)
        if len(tables) > 1:
            order = np.lexsort((_values(table.column(_ID)), found))
            table, found = table.take(pa.array(order)), found[order]
        return found, from_table(table.combine_chunks(), self.ref)

    def _rows(self, run: int, start: int, stop: int) -> pa.Table:
        first, last = start // _BATCH_ROWS, (stop - 1) // _BATCH_ROWS
        # Read, not mapped: mapped pages would count as memory of every process that saw them.
        with pa.OSFile(str(_run(self.folder, run))) as file:
            reader = pa.ipc.open_file(file)
            if stop <= start:
                return reader.schema.empty_table()
            batches = [reader.get_batch(i) for i in range(first, last + 1)]
        table = pa.Table.from_batches(batches)
        return table.slice(start - first * _BATCH_ROWS, stop - start)

    def chunks(self, max_rows: int) -> Iterator[tuple[NDArray[np.uint64], FeatureBatch]]:
        """Yield everything once in (key, id) order, about `max_rows` rows at a time.

        A chunk never splits one key, so it can be larger when many rows share a key.
        """
        every = self.sorted_keys()
        start = 0
        while start < len(every):
            stop = min(start + max_rows, len(every))
            stop = int(np.searchsorted(every, every[stop - 1], side="right"))
            yield self.gather(int(every[start]), int(every[stop - 1]) + 1)
            start = stop


@lru_cache(maxsize=2)
def open_spool(folder: Path) -> Spool:
    """Open a finished spool once a process."""
    return Spool(folder)


def common_schema(schemas: Sequence[pa.Schema]) -> pa.Schema:
    """Return the columns of all schemas, each in a type that holds its values in every one."""
    kinds: dict[str, pa.DataType] = {}
    for field in (field for schema in dict.fromkeys(schemas) for field in schema):
        known = kinds.get(field.name, field.type)
        kinds[field.name] = common_type(known, field.type)
    return pa.schema(list(kinds.items()))


def common_type(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """Return the type that holds the values of both: text where nothing narrower does."""
    if one.equals(other):
        return one
    both = [pa.schema([("", one)]), pa.schema([("", other)])]
    try:
        return pa.unify_schemas(both, promote_options="permissive").field(0).type
    except (pa.ArrowTypeError, pa.ArrowInvalid):
        return pa.string()


def _conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    if table.schema.equals(schema):
        return table
    here = set(table.column_names)
    columns = [
        table.column(field.name).cast(field.type)
        if field.name in here
        else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def _values(column: pa.ChunkedArray) -> NDArray[Any]:
    return np.asarray(column.to_numpy())
