"""From source features to what a tiler takes: one frame, clean geometry, heights, in file order.

The prepared features are spooled to the job's folder. They are read from there twice (tiles,
GeoParquet), and a run that was killed finds them finished and does not read the source again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ingest.location import check_batch
from ingest.plan import Plan
from ingest.quality import BEFORE_REFRAMING, RULES, apply_rules
from ingest.readers import open_source
from tiling.areas import parse_area
from tiling.batches import LAYER_COLUMN, FeatureBatch
from tiling.crs import TILE_REF, reframe
from tiling.errors import NothingToTile
from tiling.findings import Finding, Findings
from tiling.tilers.base import Progress
from tiling.tilers.extsort import Spool, SpoolWriter

Step = Callable[[FeatureBatch], FeatureBatch]
_FACTS = "facts.json"


@dataclass(frozen=True, slots=True)
class Prepared:
    """Spooled features of an asset, ready for tilers.

    Attributes:
        spool: the features, keyed by their ordinal.
        shifts: JSON of each distinct coordinate operation that was applied.
        chunk_rows: how many features to hand out at once.
    """

    spool: Spool
    shifts: list[dict[str, Any]]
    chunk_rows: int

    def batches(self) -> Iterator[FeatureBatch]:
        """Yield the features in source order."""
        for _, batch in self.spool.chunks(self.chunk_rows):
            yield batch


def prepare(
    plan: Plan,
    folder: Path,
    memory_nbytes: int,
    progress: Progress,
    findings: Findings,
    resolve_heights: Step | None,
) -> Prepared:
    """Read, reframe and clean every source feature into a spool.

    Args:
        plan: the accepted plan.
        folder: where the spool rests.
        memory_nbytes: the budget of the run; a batch takes a sixteenth of it.
        progress: counts features.
        findings: empty; receives what the rules see, on resume what they saw.
        resolve_heights: adds the height columns of buildings.

    Raises:
        NothingToTile: nothing was left.
    """
    facts_path = folder / _FACTS
    if Spool.is_finished(folder) and facts_path.exists():
        facts = json.loads(facts_path.read_text(encoding="utf-8"))
        findings.merge(Finding.from_json(f) for f in facts["findings"])
        return Prepared(Spool(folder), facts["shifts"], facts["chunk_rows"])
    progress.begin("read", plan.features)
    writer = SpoolWriter.create(folder, memory_nbytes // 8)
    shifts: list[dict[str, Any]] = []
    kept = nbytes = 0
    for batch in _source_batches(plan, memory_nbytes // 16, progress, findings, shifts):
        batch = apply_rules(RULES[plan.kind], batch, findings)
        if resolve_heights is not None and len(batch):
            batch = resolve_heights(batch)
        batch = replace(batch, ref=TILE_REF)
        kept += len(batch)
        nbytes += batch.nbytes
        if len(batch):
            writer.add(batch, batch.ids.astype(np.uint64))
    if kept == 0:
        raise NothingToTile(
            f"none of its {plan.features} features is left after the quality rules: "
            + "; ".join(f"{f.message} ({f.count})" for f in findings if f.severity == "drop"),
            source=plan.sources[0].path,
            remedy="see the findings in the report (--report FILE.json)",
        )
    chunk_rows = max(1, int(kept * (memory_nbytes / 16) / max(nbytes, 1)))
    spool = writer.finish()
    facts = {"findings": findings.to_json(), "shifts": shifts, "chunk_rows": chunk_rows}
    partial = facts_path.with_suffix(".part")
    partial.write_text(json.dumps(facts), encoding="utf-8")
    partial.rename(facts_path)
    return Prepared(spool, shifts, chunk_rows)


def _source_batches(
    plan: Plan,
    max_nbytes: int,
    progress: Progress,
    findings: Findings,
    shifts: list[dict[str, Any]],
) -> Iterator[FeatureBatch]:
    area = parse_area(plan.options.area)
    offset = 0
    for index, (info, layer) in enumerate(zip(plan.sources, plan.layers, strict=True)):
        ref = plan.refs[index]
        with open_source(info.path, plan.read_options(index)) as reader:
            for batch in reader.batches(max_nbytes=max_nbytes):
                progress.advance(len(batch))
                # Heights of outlines are handled by columns, so the frame is horizontal here.
                batch = replace(batch, ref=ref.with_vertical(None), ids=batch.ids + offset)
                batch = apply_rules(BEFORE_REFRAMING, batch, findings)
                if not len(batch):
                    continue
                batch, shift = reframe(batch, TILE_REF.with_vertical(None), info.path)
                if shift.to_json() not in shifts:
                    shifts.append(shift.to_json())
                check_batch(batch.geometry, batch.ids - offset, area, info.path)
                if len(plan.sources) > 1:
                    name = pa.array([info.path.stem] * len(batch), type=pa.string())
                    batch = batch.with_column(LAYER_COLUMN, name)
                yield batch
            # What opening found is in the plan already.
            findings.merge(f for f in reader.findings if f not in info.findings)
        offset += max(layer.features, 0)
