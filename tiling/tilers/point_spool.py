"""Points on disk, sorted by their columns: what chunks leave and work units gather.

A run is one chunk's points as packed records, sorted by column of `COUNT_LEVEL`, with the columns
and how many points each has beside it. What is the same of all points of a chunk is stated once and
is no part of its records. Gathering a column of any coarser level is one read of every run that
touches it. Memory is bounded by a chunk while writing and by a column while reading.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiling.batches import PointBatch
from tiling.coords import unmorton2
from tiling.findings import Finding, Findings
from tiling.tilers.point_lattice import (
    HIGHEST_M,
    LATTICE_LEVEL,
    LOWEST_M,
    RECORD_LEVEL,
    column_keys,
    on_lattice,
)
from tiling.tilers.point_order import by_key
from tiling.tilers.point_reframe import to_geodetic

RGB = "rgb"
# Counted by value, so that a viewer can say how many points each class has.
CLASS = "classification"
PLACE = (("x", "<u4"), ("y", "<u4"), ("z", "<u4"))


def write_run(
    folder: Path, index: int, batch: PointBatch, findings: Sequence[Finding] = ()
) -> None:
    """Place the points of a batch and write them as a run; complete when its facts are there.

    Args:
        folder: of the spool.
        index: number of the run.
        batch: heights must have a datum. Points without a place on the lattice are dropped and
            counted.
        findings: of reading, kept with the run.
    """
    seen = Findings()
    seen.merge(findings)
    xyz = batch.xyz
    places, columns, placed = on_lattice(*to_geodetic(batch.ref, xyz).T)
    lost = np.flatnonzero(~placed)
    seen.add(
        "points-without-place",
        "drop",
        f"points lie nowhere on the Earth, or not between {LOWEST_M:.0f} and {HIGHEST_M:.0f} m",
        len(lost),
        [", ".join(f"{v:.10g}" for v in xyz[row]) for row in lost[:3].tolist()],
    )
    columns, order = by_key(columns)
    if len(lost):
        kept = placed.take(order)
        columns, order = columns[kept], order[kept]
    fields = _fields(batch)
    ranges = {name: _range(values) for name, values in batch.columns.items()}
    same = {
        name: value
        for name, values in batch.columns.items()
        for value in _same(values, ranges[name])
    }
    varying = [field for field in fields if field[0] not in same]
    records = np.empty(len(xyz), dtype=np.dtype([*PLACE, *varying]))
    for axis, (name, _) in enumerate(PLACE):
        records[name] = places[:, axis]
    for name, *_ in varying:
        records[name] = batch.columns[name]
    # Whole records at once: `take` moves them several times faster than an index does.
    records = records.take(order)
    found, counts = _counted(columns)
    part = folder / f"run-{index:06d}.{os.getpid()}.tmp"
    with part.open("wb") as file:
        records.tofile(file)
    part.rename(_records(folder, index))
    with part.open("wb") as file:
        np.save(file, np.stack([found, counts]))
    part.rename(_index(folder, index))
    facts = {
        "fields": fields,
        "same": same,
        "ranges": ranges,
        "classes": _classes(batch, order),
        "findings": [finding.to_json() for finding in seen],
    }
    part.write_text(json.dumps(facts), encoding="utf-8")
    part.rename(_facts(folder, index))


def is_run_finished(folder: Path, index: int) -> bool:
    """Say whether a run is complete."""
    return _facts(folder, index).exists()


def _fields(batch: PointBatch) -> list[tuple[Any, ...]]:
    fields: list[tuple[Any, ...]] = []
    for name, values in batch.columns.items():
        kind = values.dtype.newbyteorder("<").str
        fields.append((name, kind) if values.ndim == 1 else (name, kind, values.shape[1:]))
    return fields


def _counted(ordered: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return the distinct values of an ordered array, and how often each occurs."""
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])[: len(ordered)])
    return ordered[starts], np.diff(starts, append=len(ordered)).astype(np.uint64)


def _same(values: NDArray[Any], known: tuple[float, float] | None) -> list[float | int | None]:
    """Return the one value of a column, None for NaN; nothing when there are several.

    Args:
        values: of the column.
        known: its least and greatest finite value.
    """
    if not values.size or (known is not None and known[0] != known[1]):
        return []
    first = values.flat[0]
    if values.dtype.kind != "f":
        return [first.item()]
    if np.isnan(first):
        return [None] if np.isnan(values).all() else []
    return [first.item()] if (values == first).all() else []


def _classes(batch: PointBatch, rows: NDArray[np.uint32]) -> dict[str, int]:
    """Return how many of some points are in each class; nothing where classes are no integers."""
    values = batch.columns.get(CLASS)
    if values is None or values.dtype.kind not in "iu" or values.dtype.itemsize > 2:
        return {}
    values = values.take(rows)
    least = int(values.min(initial=0))
    counts = np.bincount(values.astype(np.int64) - least)
    return {str(value + least): int(counts[value]) for value in np.flatnonzero(counts)}


def _range(values: NDArray[Any]) -> tuple[float, float] | None:
    if values.dtype.kind == "f" and not (finite := np.isfinite(values)).all():
        values = values[finite]
    return (float(values.min()), float(values.max())) if values.size else None


def _records(folder: Path, index: int) -> Path:
    return folder / f"run-{index:06d}.points"


def _index(folder: Path, index: int) -> Path:
    return folder / f"run-{index:06d}.npy"


def _facts(folder: Path, index: int) -> Path:
    return folder / f"run-{index:06d}.json"


class PointSpool:
    """Complete runs 0 to `runs` - 1; worker processes open their own (`open_points`).

    Attributes:
        fields: every column of the source, as `numpy.dtype` takes it.
        varying: names of those that are not the same of every point.
        constants: the value of the others; None for NaN.
        classes: how many points have each value of `CLASS`.
        ranges: least and greatest finite value of every column; None where there is none.
        findings: of reading and placing.
        dtype: of gathered records: places, and what varies; colours unless all are black.
    """

    def __init__(self, folder: Path, runs: int) -> None:
        self.folder = folder
        self.runs = runs
        facts = [json.loads(_facts(folder, i).read_text(encoding="utf-8")) for i in range(runs)]
        self.fields = [_as_field(field) for field in facts[0]["fields"]]
        for other in facts:
            if [_as_field(field) for field in other["fields"]] != self.fields:
                raise ValueError(f"{folder}: chunks of one source have different columns")
        self.findings = [Finding.from_json(f) for each in facts for f in each["findings"]]
        self.ranges = {name: _merged(facts, name) for name, *_ in self.fields}
        self.classes: dict[int, int] = {}
        for each in facts:
            for value, count in each["classes"].items():
                self.classes[int(value)] = self.classes.get(int(value), 0) + count
        self._same: list[dict[str, Any]] = [each["same"] for each in facts]
        first = self._same[0]
        names = [name for name, *_ in self.fields]
        self.constants = {
            name: first[name]
            for name in names
            if all(name in same and same[name] == first[name] for same in self._same)
        }
        self.varying = [name for name in names if name not in self.constants]
        kept = set(self.varying) | ({RGB} if self.constants.get(RGB) else set())
        self.dtype = self._records_dtype(kept)

    def _records_dtype(self, names: set[str]) -> np.dtype[Any]:
        return np.dtype([*PLACE, *(field for field in self.fields if field[0] in names)])

    def slices(self) -> NDArray[np.int64]:
        """Return where points are: (N, 4) int64 of column, run, first record, count, by column."""
        parts = []
        for run in range(self.runs):
            columns, counts = np.load(_index(self.folder, run)).astype(np.int64)
            starts = np.cumsum(counts) - counts
            parts.append(np.stack([columns, np.full(len(columns), run), starts, counts], axis=1))
        every = np.concatenate(parts)
        ordered: NDArray[np.int64] = every[np.argsort(every[:, 0], kind="stable")]
        return ordered

    def gather(self, column: int, level: int, slices: NDArray[np.int64]) -> NDArray[Any]:
        """Return the points of a column, in no order: records with places from its corner.

        Args:
            column: Morton index.
            level: of the column.
            slices: (K, 3) int64: run, first record, count.
        """
        records = np.empty(int(slices[:, 2].sum()), dtype=self.dtype)
        at = 0
        for run, start, count in slices.tolist():
            same = self._same[run]
            dtype = self._records_dtype({f[0] for f in self.fields if f[0] not in same})
            offset = start * dtype.itemsize
            found = np.fromfile(_records(self.folder, run), dtype, count, offset=offset)
            own = records[at : at + count]
            if dtype == self.dtype:
                own[:] = found
            else:
                for name in self.dtype.names or ():
                    value = same.get(name, 0)
                    missing = np.nan if value is None else value
                    own[name] = missing if name in same else found[name]
            at += count
        rebase(records, corner(column, level))
        return records


@lru_cache(maxsize=2)
def open_points(folder: Path, runs: int) -> PointSpool:
    """Open complete runs once a process."""
    return PointSpool(folder, runs)


def corner(column: int, level: int) -> tuple[int, int]:
    """Return x and y of a column's corner on the lattice."""
    x, y = unmorton2(np.uint64(column))
    return int(x) << (LATTICE_LEVEL - level), int(y) << (LATTICE_LEVEL - level)


def rebase(records: NDArray[Any], origin: tuple[int, int]) -> None:
    """Count places from a corner, given as they lie in their cell of `RECORD_LEVEL`; in place."""
    for name, value in zip("xy", origin, strict=True):
        # Modulo 2**32: a corner and what lies right of it share everything above.
        records[name] -= np.uint32(value & ((1 << (LATTICE_LEVEL - RECORD_LEVEL)) - 1))


def in_order(records: NDArray[Any], level: int) -> tuple[NDArray[Any], NDArray[np.uint64]]:
    """Return the points of a column by key, and their keys: one order for one multiset."""
    keys, rows = in_one_order(records, column_keys(places_of(records), level))
    return records.take(rows), keys


def in_one_order(
    records: NDArray[Any], keys: NDArray[np.uint64]
) -> tuple[NDArray[np.uint64], NDArray[np.uint32]]:
    """Return keys in ascending order, and the rows they came from.

    Rows with the same key are ordered by everything known of them, so only equal ones could change
    places, whatever order they came in.
    """
    keys, rows = by_key(keys)
    tied = np.zeros(len(keys), dtype=bool)
    same = keys[1:] == keys[:-1]
    tied[1:] |= same
    tied[:-1] |= same
    at = np.flatnonzero(tied)
    if len(at):
        some = np.ascontiguousarray(records.take(rows[at]))
        text = some.view(f"S{records.dtype.itemsize}")
        rows[at] = rows[at][np.lexsort((text, keys[at]))]
    return keys, rows


def places_of(records: NDArray[Any]) -> NDArray[np.uint32]:
    """Return x, y and z of records: (N, 3) uint32."""
    return np.stack([records["x"], records["y"], records["z"]], axis=1)


def _as_field(field: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(tuple(part) if isinstance(part, list) else part for part in field)


def _merged(facts: list[dict[str, Any]], name: str) -> tuple[float, float] | None:
    found = [each["ranges"][name] for each in facts if each["ranges"][name] is not None]
    if not found:
        return None
    return min(low for low, _ in found), max(high for _, high in found)
