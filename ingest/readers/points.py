"""Points read in workers: a chunk's description in, a batch out.

`read_chunk` is picklable and owes nothing to the process it runs in. A decoder yields what the file
has; here heights become metres, geocentric coordinates become geodetic ones, and the columns become
those of the whole source.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ingest.readers.point_chunks import PointChunk, PointColumn
from tiling.batches import PointBatch
from tiling.ellipsoid import ecef_to_geodetic
from tiling.findings import Finding, Findings, Severity

Decoder: TypeAlias = Callable[
    [PointChunk, Sequence[str]], tuple[NDArray[np.float64], dict[str, NDArray[Any]]]
]

# One decoder of each family; a chunk names its own.
# Imported when they are needed: some bring large libraries.
DECODERS: dict[str, tuple[str, str]] = {
    "las": ("las_points", "decode_las"),
    "ply": ("ply_points", "decode_ply"),
    "xyz": ("xyz_points", "decode_text"),
    "e57": ("e57_points", "decode_e57"),
    "pdal": ("pdal_points", "decode_pdal"),
}


def read_chunk(chunk: PointChunk, columns: Sequence[str] | None = None) -> PointBatch:
    """Decode the points of a chunk.

    Args:
        chunk: from a reader's `chunks`.
        columns: what to read besides coordinates, by name; None for every column of the source.
            Columns that the chunk's file lacks are filled (`PointColumn.filled`).

    Returns:
        PointBatch: `chunk.count` points (fewer where withheld ones are dropped) in file order, in
        ``chunk.ref``, heights in metres.

    Raises:
        KeyError: the source has no such column.
        SourceError: the points are damaged.
    """
    wanted = {column.name: column for column in chunk.columns}
    if columns is not None:
        wanted = {name: wanted[name] for name in columns}
    names = tuple(wanted)
    drop = chunk.drop_withheld and any(c.name == "withheld" for c in chunk.columns)
    module, name = DECODERS[chunk.format]
    decode: Decoder = getattr(import_module(f"ingest.readers.{module}"), name)
    xyz, found = decode(chunk, (*names, "withheld") if drop else names)
    if chunk.geocentric:
        xyz = np.stack(ecef_to_geodetic(xyz), axis=1)
    elif chunk.z_unit_m != 1.0:
        xyz[:, 2] *= chunk.z_unit_m
    values = {name: _as(column, found.get(name), len(xyz)) for name, column in wanted.items()}
    batch = PointBatch(chunk.ref, chunk.first, xyz, values)
    if drop and "withheld" in found and found["withheld"].any():
        return batch.take(found["withheld"] == 0)
    return batch


def _as(column: PointColumn, values: NDArray[Any] | None, count: int) -> NDArray[Any]:
    return column.filled(count) if values is None else values.astype(column.dtype, copy=False)


def common_columns(
    files: Sequence[tuple[tuple[PointColumn, ...], int]], findings: Findings
) -> tuple[PointColumn, ...]:
    """Return one set of columns for many files; types that differ widen.

    Args:
        files: columns and number of points of each.
        findings: receives a finding for each column that some points lack, and what fills it.
    """
    common: dict[str, PointColumn] = {}
    counts: dict[str, int] = {}
    total = sum(count for _, count in files)
    # Thousands of files have a few sets of columns among them.
    sets: dict[tuple[PointColumn, ...], int] = {}
    for columns, count in files:
        sets[columns] = sets.get(columns, 0) + count
    for columns, count in sets.items():
        for column in columns:
            known = common.setdefault(column.name, column)
            if known.description != column.description:
                message = f"files differ in what {column.name} is"
                said = {known.description, column.description}
                findings.add("column-differs", "warning", message, count, sorted(said))
            counts[column.name] = counts.get(column.name, 0) + count
            dtype = np.promote_types(known.dtype, column.dtype).name
            common[column.name] = replace(known, dtype=dtype, width=max(known.width, column.width))
    for name, column in common.items():
        fill = column.filled(1).ravel()[0]
        message = f"points have no {name} and get {fill}"
        findings.add("column-missing", "assumption", message, total - counts[name])
    return tuple(common.values())


def chunk_findings(chunk: PointChunk, batch: PointBatch) -> tuple[Finding, ...]:
    """Say what is strange about points that were read; the counts of chunks add up.

    Args:
        chunk: what was read.
        batch: the points, with whatever columns are to be looked at.
    """
    findings = Findings()
    if chunk.bounds is not None:
        low, high = np.array(chunk.bounds[:3]), np.array(chunk.bounds[3:])
        outside = ((batch.xyz < low) | (batch.xyz > high)).any(axis=1)
        message = "points lie outside the bounds that their file's header states"
        count = int(np.count_nonzero(outside))
        findings.add("points-outside-bounds", "warning", message, count, [chunk.path.name])
    if (time := batch.columns.get("gps_time")) is not None:
        count = int(np.count_nonzero(np.isnan(time)))
        findings.add("gps-time-nan", "info", "points have no GPS time (NaN)", count)
    left = chunk.count - len(batch)
    if chunk.drop_withheld:
        findings.add("withheld-dropped", "drop", "points marked as withheld are left out", left)
    else:
        message = "points that are marked as invalid, or without coordinates, are left out"
        findings.add("points-invalid", "drop", message, left)
    for flag, severity in _FLAGS.items():
        if (marked := batch.columns.get(flag)) is not None:
            count = int(np.count_nonzero(marked))
            findings.add(f"points-{flag}", severity, f"points are marked as {flag}; kept", count)
    return tuple(findings)


_FLAGS: dict[str, Severity] = {"withheld": "warning", "synthetic": "info", "overlap": "info"}
