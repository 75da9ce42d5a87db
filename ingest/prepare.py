"""From source features to what a tiler takes: one frame, clean geometry, heights, sorted.

One process reads; what it reads is cleaned, reframed and sorted piece by piece wherever the
executor has room. The pieces are the runs of a spool in the job's folder: the tiler and the
GeoParquet are made from there, and a run that was killed repeats only the pieces that are missing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.ipc
from numpy.typing import NDArray

from ingest.location import check_batch, check_reach
from ingest.plan import Plan
from ingest.quality import BEFORE_REFRAMING, RULES, apply_rules
from ingest.readers import open_source
from tiling.areas import parse_area
from tiling.batches import LAYER_COLUMN, MESH_COLUMN, FeatureBatch
from tiling.bounds import Region
from tiling.crs import TILE_REF, SpatialRef, reframe, transform_points
from tiling.errors import NothingToTile
from tiling.findings import Finding, Findings
from tiling.meshes import transform_meshes
from tiling.tilers.base import Progress
from tiling.tilers.extsort import (
    Spool,
    finish_spool,
    from_table,
    is_run_finished,
    to_table,
    write_run,
)
from tiling.tilers.pipeline import drain

SortKeys = Callable[[FeatureBatch], NDArray[np.uint64]]
_FACTS = "facts.json"
# Pieces are cut alike whatever the memory, so that a run with more of it can resume.
_PIECE_NBYTES = 12 << 20


class ResolveHeights(Protocol):
    """Adds the height columns of buildings to a batch; picklable."""

    def resolve(self, batch: FeatureBatch, findings: Findings) -> FeatureBatch:
        """Return the batch with its heights; what was assumed or left out is a finding."""
        ...


@dataclass(frozen=True, slots=True)
class Prepared:
    """Spooled features of an asset, ready for tilers.

    Attributes:
        spool: the features, under the keys that `prepare` was told to sort by.
        shifts: JSON of each distinct coordinate operation that was applied.
        chunk_rows: how many features to hand out at once.
    """

    spool: Spool
    shifts: list[dict[str, Any]]
    chunk_rows: int

    def batches(self) -> Iterator[FeatureBatch]:
        """Yield the features in the order of their keys."""
        for _, batch in self.spool.chunks(self.chunk_rows):
            yield batch


@dataclass(frozen=True, slots=True)
class _Work:
    """What is done to every piece; picklable.

    Attributes:
        kind: of the asset.
        area: where coordinates must lie.
        resolve: adds heights; None for what has none.
        sort_keys: the order of the spool.
        identify: makes ids of the features' own keys; None: ordinals.
    """

    kind: str
    area: Region
    resolve: ResolveHeights | None
    sort_keys: SortKeys
    identify: Callable[[FeatureBatch], FeatureBatch] | None


@dataclass(frozen=True, slots=True)
class _Piece:
    """Features as they were read, and where they came from.

    Attributes:
        index: number of the run.
        source: the file.
        ref: frame of its coordinates, vertical datum included.
        layer: what the layer column says; None without.
        offset: ordinal of the source's first feature within the asset.
        folder: of the spool.
    """

    index: int
    source: Path
    ref: SpatialRef
    layer: str | None
    offset: int
    folder: Path

    @property
    def raw(self) -> Path:
        return self.folder / f"raw-{self.index:05d}.arrow"

    @property
    def facts(self) -> Path:
        return self.folder / f"facts-{self.index:05d}.json"


def by_ordinal(batch: FeatureBatch) -> NDArray[np.uint64]:
    """Sort keys that keep the order of the source."""
    return batch.ids.astype(np.uint64)


def prepare(
    plan: Plan,
    folder: Path,
    memory_nbytes: int,
    executor: Executor,
    workers: int,
    progress: Progress,
    findings: Findings,
    resolve: ResolveHeights | None = None,
    sort_keys: SortKeys = by_ordinal,
    identify: Callable[[FeatureBatch], FeatureBatch] | None = None,
) -> Prepared:
    """Read, reframe and clean every source feature into a spool.

    Args:
        plan: the accepted plan.
        folder: where the spool rests.
        memory_nbytes: the budget of the run.
        executor, workers: where pieces are cleaned, and how many at once.
        progress: counts features.
        findings: empty; receives what the rules see, on resume what they saw.
        resolve: adds the height columns of buildings.
        sort_keys: picklable; the order in which the features are wanted.
        identify: picklable; replaces the ids of a batch.

    Raises:
        NothingToTile: nothing was left.
    """
    facts_path = folder / _FACTS
    if not (Spool.is_finished(folder) and facts_path.exists()):
        folder.mkdir(parents=True, exist_ok=True)
        work = _Work(plan.kind, parse_area(plan.options.area), resolve, sort_keys, identify)
        _clean(plan, folder, work, executor, workers, progress, findings, facts_path)
    facts = json.loads(facts_path.read_text(encoding="utf-8"))
    findings.merge(Finding.from_json(f) for f in facts["findings"])
    chunk_rows = max(1, int(facts["rows"] * (memory_nbytes / 16) / max(facts["nbytes"], 1)))
    return Prepared(Spool(folder), facts["shifts"], chunk_rows)


def _clean(
    plan: Plan,
    folder: Path,
    work: _Work,
    executor: Executor,
    workers: int,
    progress: Progress,
    findings: Findings,
    facts_path: Path,
) -> None:
    progress.begin("read", plan.features)
    seen = Findings()
    pieces: list[_Piece] = []
    try:
        jobs = _pieces(plan, folder, work, pieces, progress, seen)
        drain(jobs, executor, workers + 1, _Quiet(progress))
    finally:
        # A refusal is easier to understand beside what was seen until then.
        done = [piece.facts for piece in pieces if piece.facts.exists()]
        every = [json.loads(path.read_text(encoding="utf-8")) for path in done]
        for facts in every:
            seen.merge(Finding.from_json(f) for f in facts["findings"])
        if len(every) < len(pieces) or not pieces:
            findings.merge(seen)
    rows = sum(facts["rows"] for facts in every)
    if rows == 0:
        findings.merge(seen)
        raise NothingToTile(
            f"none of its {plan.features} features is left after the quality rules: "
            + "; ".join(f"{f.message} ({f.count})" for f in seen if f.severity == "drop"),
            source=plan.sources[0].path,
            remedy="see the findings in the report (--report FILE.json)",
        )
    shifts: list[dict[str, Any]] = []
    for facts in every:
        if facts["shift"] is not None and facts["shift"] not in shifts:
            shifts.append(facts["shift"])
    whole = {
        "rows": rows,
        "nbytes": sum(facts["nbytes"] for facts in every),
        "shifts": shifts,
        "findings": seen.to_json(),
    }
    finish_spool(folder, len(pieces), TILE_REF)
    partial = facts_path.with_suffix(".part")
    partial.write_text(json.dumps(whole), encoding="utf-8")
    partial.rename(facts_path)


class _Quiet:
    """Cancels as the real progress does, but does not count: features are counted when read."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def begin(self, step: str, total: int | None = None) -> None:
        """Do nothing: the step has begun."""

    def advance(self, amount: int = 1) -> None:
        """Only notice a cancellation."""
        self._progress.advance(0)


def _pieces(
    plan: Plan,
    folder: Path,
    work: _Work,
    pieces: list[_Piece],
    progress: Progress,
    seen: Findings,
) -> Iterator[tuple[Callable[..., None], tuple[Any, ...]]]:
    """Read the sources; yield the job of each piece that is not done yet."""
    offset = 0
    for number, (info, layer) in enumerate(zip(plan.sources, plan.layers, strict=True)):
        with open_source(info.path, plan.read_options(number)) as reader:
            name = plan.tile_layers[number]
            for batch in reader.batches(max_nbytes=_PIECE_NBYTES):
                piece = _Piece(len(pieces), info.path, plan.refs[number], name, offset, folder)
                pieces.append(piece)
                if not piece.facts.exists() or not is_run_finished(folder, piece.index):
                    table = to_table(batch)
                    with (
                        pa.OSFile(str(piece.raw), "wb") as sink,
                        pa.ipc.new_file(sink, table.schema) as writer,
                    ):
                        writer.write_table(table)
                    yield _prepare_piece, (piece, work)
                progress.advance(len(batch))
            # What opening found is in the plan already.
            seen.merge(f for f in reader.findings if f not in info.findings)
        offset += max(layer.features, 0)


def _prepare_piece(piece: _Piece, work: _Work) -> None:
    with pa.OSFile(str(piece.raw)) as file:
        table = pa.ipc.open_file(file).read_all()
    findings = Findings()
    # Heights of outlines are handled by columns, so the frame is horizontal here.
    flat = piece.ref.with_vertical(None)
    batch = from_table(table, flat)
    batch = replace(batch, ids=batch.ids + piece.offset)
    batch, shift = _cleaned(batch, piece, work, findings)
    keys = work.sort_keys(batch) if len(batch) else np.empty(0, dtype=np.uint64)
    table = to_table(batch)
    write_run(piece.folder, piece.index, table, keys)
    facts = {
        "rows": len(batch),
        "nbytes": table.nbytes,
        "shift": shift,
        "findings": findings.to_json(),
    }
    partial = piece.facts.with_suffix(".part")
    partial.write_text(json.dumps(facts), encoding="utf-8")
    partial.rename(piece.facts)
    piece.raw.unlink()


def _cleaned(
    batch: FeatureBatch, piece: _Piece, work: _Work, findings: Findings
) -> tuple[FeatureBatch, dict[str, Any] | None]:
    batch = apply_rules(BEFORE_REFRAMING, batch, findings)
    shift = None
    if len(batch):
        if MESH_COLUMN in batch.attributes.column_names:
            batch = _reframe_meshes(batch, piece.ref)
        batch, record = reframe(batch, TILE_REF.with_vertical(None), piece.source)
        shift = record.to_json()
        check_batch(batch.geometry, batch.ids - piece.offset, work.area, piece.source)
        if work.kind == "buildings":
            check_reach(batch.geometry, batch.ids - piece.offset, piece.source)
    if piece.layer is not None:
        name = pa.array([piece.layer] * len(batch), type=pa.string())
        batch = batch.with_column(LAYER_COLUMN, name)
    batch = apply_rules(RULES[work.kind], batch, findings)
    if work.identify is not None and len(batch):
        batch = work.identify(batch)
    if work.resolve is not None and len(batch):
        batch = work.resolve.resolve(batch, findings)
    return replace(batch, ref=TILE_REF), shift


def _reframe_meshes(batch: FeatureBatch, ref: SpatialRef) -> FeatureBatch:
    def shift(
        x: NDArray[np.float64], y: NDArray[np.float64], z: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        lon, lat, height = transform_points(ref, TILE_REF, x, y, z)
        return np.asarray(lon), np.asarray(lat), np.asarray(height)

    meshes = transform_meshes(batch.attributes.column(MESH_COLUMN), shift)
    return batch.with_column(MESH_COLUMN, meshes)
