"""External sort of features by a 64-bit key: sorted runs on disk, gathered by key range.

The one idea: each run is an Arrow IPC file sorted by (key, id) and memory-mapped when read, so
gathering a key range is a binary search in every run and a small stable sort of what was found.
Memory is bounded by one run while writing and by one range while reading, whatever the input's
size, and because rows are ordered by (key, id) the size of the runs never shows in the result.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
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


@dataclass(slots=True)
class SpoolWriter:
    """Writes sorted runs into a folder.

    Attributes:
        folder: made empty by the caller; holds the runs and, once finished, a manifest.
        run_nbytes: rough memory a run may take before it is sorted and written.
    """

    folder: Path
    run_nbytes: int
    _pending: list[pa.Table]
    _pending_nbytes: int
    _runs: int
    _rows: int
    _ref: SpatialRef | None

    @classmethod
    def create(cls, folder: Path, run_nbytes: int) -> SpoolWriter:
        """Start a spool; what an interrupted writer left in `folder` is dropped."""
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.iterdir():
            leftover.unlink()
        return cls(folder, run_nbytes, [], 0, 0, 0, None)

    def add(self, batch: FeatureBatch, keys: NDArray[np.uint64]) -> None:
        """Add features under their keys; a feature may be added under several keys.

        Args:
            batch: N features; every batch of a spool shares frame and attribute schema.
            keys: (N,) uint64.
        """
        table = batch.attributes
        table = table.append_column(_KEY, pa.array(np.asarray(keys, dtype=np.uint64)))
        table = table.append_column(_ID, pa.array(batch.ids))
        table = table.append_column(
            _GEOMETRY, pa.array(shapely.to_wkb(batch.geometry), type=pa.large_binary())
        )
        self._ref = batch.ref
        self._pending.append(table)
        self._pending_nbytes += table.nbytes
        if self._pending_nbytes >= self.run_nbytes:
            self._flush()

    def _flush(self) -> None:
        if not self._pending:
            return
        table = pa.concat_tables(self._pending, promote_options="permissive").combine_chunks()
        order = np.lexsort((table.column(_ID).to_numpy(), table.column(_KEY).to_numpy()))
        table = table.take(pa.array(order))
        path = self.folder / f"run-{self._runs:05d}.arrow"
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        self._runs += 1
        self._rows += table.num_rows
        self._pending, self._pending_nbytes = [], 0

    def finish(self) -> Spool:
        """Write the last run and the manifest that makes the spool complete."""
        self._flush()
        ref = None if self._ref is None else self._ref.to_json()
        manifest = {"runs": self._runs, "rows": self._rows, "ref": ref}
        partial = self.folder / (_MANIFEST + ".part")
        partial.write_text(json.dumps(manifest), encoding="utf-8")
        partial.rename(self.folder / _MANIFEST)
        return Spool(self.folder)


class Spool:
    """A finished spool; cheap to open, so that worker processes open their own."""

    def __init__(self, folder: Path) -> None:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        self.folder = folder
        self.rows: int = manifest["rows"]
        self.ref = SpatialRef.from_json(manifest["ref"]) if manifest["ref"] else None
        self._tables = [
            pa.ipc.open_file(pa.memory_map(str(folder / f"run-{i:05d}.arrow"))).read_all()
            for i in range(manifest["runs"])
        ]
        self._keys = [_values(t.column(_KEY)) for t in self._tables]

    @staticmethod
    def is_finished(folder: Path) -> bool:
        """Say whether a complete spool rests in `folder`."""
        return (folder / _MANIFEST).exists()

    def keys(self) -> NDArray[np.uint64]:
        """Return the distinct keys, ascending."""
        if not self._keys:
            return np.empty(0, dtype=np.uint64)
        return np.unique(np.concatenate(self._keys))

    def gather(self, low: int, high: int) -> tuple[NDArray[np.uint64], FeatureBatch]:
        """Return the features with ``low <= key < high``, ordered by (key, id).

        Returns:
            (N,) uint64 keys and the N features.
        """
        parts = []
        for table, keys in zip(self._tables, self._keys, strict=True):
            # high may be 2**64, which no uint64 holds: search for the last key instead.
            start = np.searchsorted(keys, np.uint64(low), side="left")
            stop = np.searchsorted(keys, np.uint64(high - 1), side="right")
            if stop > start:
                parts.append(table.slice(int(start), int(stop - start)))
        return self._assemble(parts)

    def chunks(self, max_rows: int) -> Iterator[tuple[NDArray[np.uint64], FeatureBatch]]:
        """Yield everything once in (key, id) order, about `max_rows` rows at a time.

        A chunk never splits one key, so it can be larger when many rows share a key.
        """
        if not self._keys:
            return
        every = np.sort(np.concatenate(self._keys))
        start = 0
        while start < len(every):
            stop = min(start + max_rows, len(every))
            stop = int(np.searchsorted(every, every[stop - 1], side="right"))
            yield self.gather(int(every[start]), int(every[stop - 1]) + 1)
            start = stop

    def _assemble(self, parts: list[pa.Table]) -> tuple[NDArray[np.uint64], FeatureBatch]:
        if self.ref is None or not self._tables:
            raise ValueError(f"the spool {self.folder} is empty")
        table = pa.concat_tables(parts, promote_options="permissive") if parts else None
        if table is None:
            table = self._tables[0].slice(0, 0)
        keys, ids = _values(table.column(_KEY)), _values(table.column(_ID))
        order = np.lexsort((ids, keys))
        table = table.take(pa.array(order)).combine_chunks()
        batch = FeatureBatch(
            self.ref,
            ids[order],
            shapely.from_wkb(table.column(_GEOMETRY).to_numpy(zero_copy_only=False)),
            table.drop_columns([_KEY, _ID, _GEOMETRY]),
        )
        return keys[order], batch


def _values(column: pa.ChunkedArray) -> NDArray[Any]:
    return np.asarray(column.to_numpy())
