"""Points on disk, sorted by their columns: what chunks leave and work units gather.

A run is one chunk's points as packed records, sorted by column of `COUNT_LEVEL`, with the columns
and how many points each has beside it. Gathering a column of any coarser level is one read of every
run that touches it. Memory is bounded by a chunk while writing and by a column while reading.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiling.batches import PointBatch
from tiling.coords import unmorton2
from tiling.crs import TILE_REF, transform_points
from tiling.findings import Finding, Findings
from tiling.tilers.point_lattice import (
    COUNT_LEVEL,
    HIGHEST_M,
    LATTICE_LEVEL,
    LOWEST_M,
    RECORD_LEVEL,
    column_keys,
    on_lattice,
)

PLACE = (("x", "<u4"), ("y", "<u4"), ("z", "<u4"))


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What is known of a run.

    Attributes:
        dtype: of the records, as `numpy.dtype` takes it.
        ranges: least and greatest value of every column, NaN left out; None where there is none.
        findings: of reading and placing.
    """

    dtype: list[tuple[Any, ...]]
    ranges: Mapping[str, tuple[float, float] | None]
    findings: tuple[Finding, ...]


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
    lon, lat, height = transform_points(batch.ref, TILE_REF, xyz[:, 0], xyz[:, 1], xyz[:, 2])
    assert height is not None
    places, columns, placed = on_lattice(lon, lat, height)
    lost = np.flatnonzero(~placed)
    seen.add(
        "points-without-place",
        "drop",
        f"points lie nowhere on the Earth, or not between {LOWEST_M:.0f} and {HIGHEST_M:.0f} m",
        len(lost),
        [", ".join(f"{v:.10g}" for v in xyz[row]) for row in lost[:3].tolist()],
    )
    order = np.argsort(columns)
    if len(lost):
        order = order[placed[order]]
    dtype = record_dtype(batch)
    records = np.empty(len(order), dtype=dtype)
    for axis, (name, _) in enumerate(PLACE):
        records[name] = places[order, axis]
    for name, values in batch.columns.items():
        records[name] = values[order]
    found, counts = np.unique(columns[order], return_counts=True)
    part = folder / f"run-{index:06d}.{os.getpid()}.tmp"
    part.write_bytes(records.tobytes())
    part.rename(_records(folder, index))
    with part.open("wb") as file:
        np.save(file, np.stack([found, counts.astype(np.uint64)]))
    part.rename(_index(folder, index))
    facts = {
        "dtype": [list(field) for field in _fields(batch)],
        "ranges": {name: _range(values) for name, values in batch.columns.items()},
        "findings": [finding.to_json() for finding in seen],
    }
    part.write_text(json.dumps(facts), encoding="utf-8")
    part.rename(_facts(folder, index))


def is_run_finished(folder: Path, index: int) -> bool:
    """Say whether a run is complete."""
    return _facts(folder, index).exists()


def record_dtype(batch: PointBatch) -> np.dtype[Any]:
    """Return the packed record of a batch's points: places and columns."""
    return np.dtype([*PLACE, *_fields(batch)])


def _fields(batch: PointBatch) -> list[tuple[Any, ...]]:
    fields: list[tuple[Any, ...]] = []
    for name, values in batch.columns.items():
        kind = values.dtype.newbyteorder("<").str
        fields.append((name, kind) if values.ndim == 1 else (name, kind, values.shape[1:]))
    return fields


def _range(values: NDArray[Any]) -> tuple[float, float] | None:
    if values.dtype.kind == "f":
        values = values[np.isfinite(values)]
    return (float(values.min()), float(values.max())) if values.size else None


def _records(folder: Path, index: int) -> Path:
    return folder / f"run-{index:06d}.points"


def _index(folder: Path, index: int) -> Path:
    return folder / f"run-{index:06d}.npy"


def _facts(folder: Path, index: int) -> Path:
    return folder / f"run-{index:06d}.json"


class PointSpool:
    """Complete runs 0 to `runs` - 1; worker processes open their own (`open_points`)."""

    def __init__(self, folder: Path, runs: int) -> None:
        self.folder = folder
        self.runs = runs
        facts = [json.loads(_facts(folder, i).read_text(encoding="utf-8")) for i in range(runs)]
        self.fields = [_as_field(field) for field in facts[0]["dtype"]]
        self.dtype = np.dtype([*PLACE, *self.fields])
        for other in facts:
            if [_as_field(field) for field in other["dtype"]] != self.fields:
                raise ValueError(f"{folder}: chunks of one source have different columns")
        self.findings = [Finding.from_json(f) for each in facts for f in each["findings"]]
        self.ranges = {field[0]: _merged(facts, field[0]) for field in self.fields}

    def counts(self) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """Return columns of `COUNT_LEVEL`, ascending, and how many points each holds."""
        total_columns = np.empty(0, dtype=np.uint64)
        total_counts = np.empty(0, dtype=np.int64)
        # A few runs at a time, so that what many runs share is held once.
        for first in range(0, self.runs, 32):
            parts = [self._read_index(i) for i in range(first, min(first + 32, self.runs))]
            columns = np.concatenate([total_columns, *(part[0] for part in parts)])
            counts = np.concatenate([total_counts, *(part[1].astype(np.int64) for part in parts)])
            total_columns, inverse = np.unique(columns, return_inverse=True)
            total_counts = np.bincount(inverse, counts, len(total_columns)).astype(np.int64)
        return total_columns, total_counts

    def _read_index(self, index: int) -> NDArray[np.uint64]:
        found: NDArray[np.uint64] = np.load(_index(self.folder, index))
        return found

    def gather(self, column: int, level: int) -> NDArray[Any]:
        """Return the points of a column, in no order: records with places from its corner.

        Args:
            column: Morton index.
            level: of the column, at most `COUNT_LEVEL`.
        """
        down = 2 * (COUNT_LEVEL - level)
        wanted = np.array([column << down, (column + 1) << down], dtype=np.uint64)
        parts = []
        for run in range(self.runs):
            columns, counts = self._read_index(run)
            first, last = np.searchsorted(columns, wanted)
            if first == last:
                continue
            start, count = int(counts[:first].sum()), int(counts[first:last].sum())
            offset = start * self.dtype.itemsize
            parts.append(np.fromfile(_records(self.folder, run), self.dtype, count, offset=offset))
        records = np.concatenate(parts)
        rebase(records, corner(column, level))
        return records


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
    """Return the points of a column by key, and their keys: one order for one multiset.

    Points with the same key are ordered by everything known of them, so only equal ones could
    change places.
    """
    places = places_of(records)
    keys = column_keys(places, level)
    order = np.argsort(keys)
    keys = keys[order]
    records = records[order]
    tied = np.zeros(len(keys), dtype=bool)
    same = keys[1:] == keys[:-1]
    tied[1:] |= same
    tied[:-1] |= same
    rows = np.flatnonzero(tied)
    if len(rows):
        some = records[rows]
        text = some.view(f"S{records.dtype.itemsize}")
        records[rows] = some[np.lexsort((text, keys[rows]))]
    return records, keys


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
