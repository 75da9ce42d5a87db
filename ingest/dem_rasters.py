"""Groups of sheets -> Cloud Optimized GeoTIFFs of metres -> one surface.

The one idea: workers clean and compress a group band by band (`ingest.dem_pixels`), then its
overviews (`tiling.tilers.dem_cog`); the finished pieces are put together as one file. Groups are
made from the lowest priority up, so a void is left open where a coarser group has data. A finished
group has a JSON file beside it, and an unfinished one its finished pieces: the same command goes on
from there.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ingest.dem_findings import note_pixels, report_seams, voids
from ingest.dem_groups import DemGroup
from ingest.dem_pixels import BandMaker, Cleaning, Tally
from tiling.dem import DemLayer, DemStack
from tiling.errors import NothingToTile
from tiling.findings import Finding, Findings
from tiling.tilers.base import Run
from tiling.tilers.dem_cog import CogWriter, Image, overview_parts
from tiling.tilers.pipeline import build_parts, pour


def make_stack(
    groups: Sequence[DemGroup], cleaning: Cleaning, run: Run, base: DemStack | None = None
) -> DemStack:
    """Write every group that is not there yet, and lay them over each other.

    Args:
        groups: in order of priority.
        cleaning: what is done to pixels.
        run: its scratch receives ``dem-N.tif``; its findings what was noticed, repaired and left
            void.
        base: a stack under them all: of an asset that is updated, or of a parent.

    Raises:
        NothingToTile: every pixel of every sheet is nodata.
        RasterUnsupported: a height is none of the Earth.
        SourceUnreadable: a block cannot be read.
        OSError: the disk is full or not writable.
    """
    layers: list[DemLayer] = []
    lower = () if base is None else base.layers
    total, valid, void = 0, 0, 0
    for number in range(len(groups) - 1, -1, -1):
        group = groups[number]
        path = run.scratch / f"dem-{number:03d}.tif"
        record = path.with_suffix(".json")
        # A run that was stopped while publishing has moved rasters away.
        if not record.exists() or not (path.exists() or _is_empty(record)):
            below = DemStack([*layers, *lower]) if layers or lower else None
            _make_group(group, path, record, cleaning, below, run)
        kept = json.loads(record.read_text(encoding="utf-8"))
        run.findings.merge(Finding.from_json(each) for each in kept["findings"])
        total, valid, void = total + group.pixels, valid + kept["valid"], void + kept["void"]
        if kept["layer"] is not None:
            layers.insert(0, DemLayer.from_json(path, kept["layer"]))
    if not layers:
        raise NothingToTile(
            f"all {total} pixels are nodata",
            source=groups[0].placed[0].sheet.name,
            remedy="check the export that made it, and the nodata value it declares",
        )
    stack = DemStack([*layers, *lower], beneath=0 if base is None else base.beneath)
    if void:
        run.findings.merge(run.executor.submit(voids, stack).result())
    report_seams(stack, run.findings)
    return stack


def _is_empty(record: Path) -> bool:
    return json.loads(record.read_text(encoding="utf-8"))["layer"] is None


def _make_group(
    group: DemGroup,
    path: Path,
    record: Path,
    cleaning: Cleaning,
    below: DemStack | None,
    run: Run,
) -> None:
    name = f"{path.stem}-pieces"
    folder, part = run.scratch / name, path.with_suffix(".part.tif")
    folder.mkdir(exist_ok=True)
    image = Image(
        group.width, group.height, group.dtype, group.ref, group.transform, str(folder / "plane")
    )
    maker = BandMaker.of(group, image, cleaning, below)
    bands = build_parts(f"{name}/0", maker.bands(group.placed), maker, run, "elevation")
    overviews = overview_parts(image, name, run)
    tally = Tally()
    writer = CogWriter(image, part)
    try:
        # The coarsest first, as the layout of the file wants it.
        for pieces in (*reversed(overviews), bands):
            for piece in pieces:
                facts = pour(piece, writer.put, run.findings)
                if facts:
                    tally.add(Tally.from_json(facts))
        writer.commit()
        layer = None
        if tally.low is not None and tally.high is not None:
            part.rename(path)
            layer = DemLayer.describe(path, group.ref, tally.low, tally.high, group.coverage())
    finally:
        writer.abort()
        part.unlink(missing_ok=True)
    found = Findings()
    note_pixels(group, tally, cleaning, found)
    content: dict[str, Any] = {
        "layer": None if layer is None else layer.to_json(),
        "valid": tally.valid,
        "void": tally.void - tally.filled,
        "findings": found.to_json(),
    }
    staged = record.with_suffix(".tmp")
    staged.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    staged.rename(record)
    shutil.rmtree(folder)
