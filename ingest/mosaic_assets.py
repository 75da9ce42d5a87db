"""An asset of many sheets: their stores, the index that orders them, and the whole from afar."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio

from catalog.records import StoreRef, Version
from ingest.dem_groups import newest_first
from ingest.manifest import IngestOptions, Order
from ingest.readers.raster import RasterReader
from ingest.readers.sheets import Sheet
from ingest.sheet_stores import MadeSheet, SheetMaker, SheetSource
from ingest.workspace import Workspace, file_store
from tiling.errors import CrsMissing, RasterUnsupported
from tiling.findings import Findings
from tiling.mosaics import MosaicSheet, SheetIndex
from tiling.stores.base import StoreInfo
from tiling.tilers.base import Progress, TilesetInfo
from tiling.tilers.imagery import Compression, display_range
from tiling.tilers.mosaic_overview import overview_grid, write_overview

# A handful of sheets is one picture; more of them are a city's, whose pixels nobody wants twice.
HANDFUL = 8
# (source, recipe) -> row and store of a version.
Known = Mapping[tuple[str, str], tuple[MosaicSheet, StoreRef]]
_SAMPLE_SIDE = 64


def check_sheets(readers: Sequence[RasterReader], options: IngestOptions) -> None:
    """Refuse sheets that cannot be one image, before any of them is read.

    Raises:
        SourceError: their kinds differ, or their frames where they are to be joined.
    """
    if stay_sheets(readers, options):
        sheet_sources(readers, options)
    elif all(reader.ref is not None for reader in readers):
        RasterReader.joined(readers).dataset_path()


def stay_sheets(readers: Sequence[RasterReader], options: IngestOptions) -> bool:
    """Say whether sheets stay stores of their own: asked for, ordered, or more than `HANDFUL`."""
    if options.mosaic is not None:
        return options.mosaic == "sheets"
    return options.order is not None or sum(len(r.sheets) for r in readers) > HANDFUL


def sheet_sources(readers: Sequence[RasterReader], options: IngestOptions) -> list[SheetSource]:
    """Return the sheets of several sources as they were given: of a folder, by name.

    Args:
        readers: in the order in which they were named.
        options: declare dates; with ``order`` ``newest`` every sheet must have one.

    Raises:
        RasterUnsupported: sheets of different kinds, or without a date where dates decide.
    """
    found = []
    for reader in readers:
        declared = reader.options.crs is not None or reader.options.nodata is not None
        date = options.declared_of(reader.path).get("date")
        for sheet, ref in zip(reader.sheets, reader.refs, strict=True):
            if ref is None:
                raise CrsMissing(
                    "the sheet has no coordinate reference system",
                    source=sheet.name,
                    remedy="declare it: --crs EPSG:4547 (or another code)",
                )
            name = _name(reader.path, sheet)
            found.append(SheetSource(name, sheet, ref, declared, date or sheet.date))
    found = _apart(found)
    first = found[0].sheet
    for source in found[1:]:
        if _kind(source.sheet) != _kind(first):
            raise RasterUnsupported(
                f"{_said(source.sheet)} cannot lie in one mosaic with {_said(first)} of "
                f"{Path(first.name).name}",
                source=source.sheet.name,
                remedy="give sheets of one kind, or ingest them as assets of their own",
            )
    for source in found if options.order == "newest" else ():
        if not source.date:
            raise RasterUnsupported(
                "the sheet does not say when it was taken (TIFFTAG_DATETIME), so --order newest "
                "cannot place it",
                source=source.sheet.name,
                remedy="say it in the manifest: [[rasters]] date = 2024-05-01, or name the sheets "
                "in order and leave --order out",
            )
    return found


def known_sheets(workspace: Workspace, version: Version | None) -> Known:
    """Return the sheets that a version holds, by what and how they were made."""
    if version is None:
        return {}
    refs = {ref.sha256: ref for ref in version.stores if ref.role == "data"}
    found = {}
    for ref in version.stores:
        if ref.role == "sheets":
            for row in SheetIndex.open(workspace.store_path(ref)).sheets:
                store = refs.get(row.store)
                if store is not None and workspace.store_path(store).exists():
                    found[row.source, row.recipe] = row, store
    return found


def make_mosaic(
    sources: Sequence[SheetSource],
    *,
    folder: Path,
    root: Path,
    compression: Compression,
    order: Order,
    known: Known,
    threads: int,
    progress: Progress,
    findings: Findings,
) -> tuple[list[tuple[str, StoreInfo]], list[StoreRef], TilesetInfo]:
    """Make the stores of a mosaic.

    Args:
        sources: as they were given.
        folder: scratch of the job.
        root: the data folder.
        compression: as declared.
        order: which sheets come first and win; ties stay as given.
        known: see `known_sheets`; what is known is not made again.
        threads: sheets that are made at once.
        progress, findings: as everywhere.

    Returns:
        new stores by role, stores taken over, and what the catalogue should know.

    Raises:
        SourceError: a sheet cannot be taken; it is named, and nothing is published.
        Cancelled: the user asked to stop; finished sheets stay for the next run.
    """
    made = SheetMaker(folder / "sheets", compression, progress, known).make(sources, threads)
    made.sort(key=lambda each: _rank(each.row, order))
    made = _once(made, findings)
    for each in made:
        findings.merge(each.findings)
    index = SheetIndex([each.row for each in made])
    index.write(folder / "sheets.parquet")
    paths = {each.row.store: each.path(root) for each in made}

    def path_of(sheet: MosaicSheet) -> Path:
        return paths[sheet.store]

    max_zoom = max(int(each.row.info["max_level"]) for each in made)
    grid = overview_grid(index.bounds, max_zoom)
    overview = folder / "overview.tif"
    overview.unlink(missing_ok=True)
    write_overview(index, path_of, grid, overview, progress)
    kept = [each.kept for each in made if each.kept is not None]
    findings.add("sheets", "info", f"sheets of the mosaic, priority: {order}", len(made))
    findings.add("sheets-kept", "info", "sheets taken over from the version before", len(kept))
    stores = [("sheets", file_store(folder / "sheets.parquet", "geoparquet"))]
    stores += [("data", each.staged) for each in made if each.staged is not None]
    stores.append(("overview", file_store(overview, "cog")))
    facts = dict(made[0].row.info)
    for own in ("width", "height", "overviews", "min_level", "max_level", "resolution"):
        facts.pop(own, None)
    codes = sorted({each.row.crs for each in made})
    facts |= {
        "crs": codes[0] if len(codes) == 1 else "mixed",
        "rescale": _rescale([path_of(each.row) for each in made], facts),
        "mosaic": {
            "index": "sheets",
            "overview": "overview",
            "overview_max_zoom": grid.zoom,
            "overview_resolution_m": grid.transform.a,
            "sheets": len(made),
            "order": order,
        },
    }
    spread = int(np.ceil(np.log2(max(grid.width, grid.height, 256) / 256)))
    min_zoom = max(0, grid.zoom - spread)
    return stores, kept, TilesetInfo(index.bounds, min_zoom, max_zoom, len(made), metadata=facts)


def _rank(row: MosaicSheet, order: Order) -> tuple[Any, ...]:
    if order == "given":
        return ()
    # A hair of difference between frames is no finer pixel: compare to two digits.
    fine, new = float(f"{row.resolution_m:.2g}"), newest_first(row.date or "")
    return (new, fine) if order == "newest" else (fine, new)


def _once(made: Sequence[MadeSheet], findings: Findings) -> list[MadeSheet]:
    """Leave out sheets whose pixels are there already, under another name."""
    seen: dict[str, MadeSheet] = {}
    for each in made:
        if each.row.store in seen:
            findings.add(
                "sheet-repeated",
                "drop",
                "sheets are copies of others and were left out",
                samples=[each.row.name],
            )
        seen.setdefault(each.row.store, each)
    return list(seen.values())


def _rescale(paths: Sequence[Path], facts: Mapping[str, Any]) -> list[list[float]] | None:
    """Return one display range for all sheets, from a thumbnail of each."""
    if facts["rescale"] is None:
        return None
    samples: list[list[np.ndarray]] = [[] for _ in range(int(facts["bands"]))]
    for path in paths:
        with rasterio.open(path) as cog:
            shape = min(cog.height, _SAMPLE_SIDE), min(cog.width, _SAMPLE_SIDE)
            there = cog.dataset_mask(out_shape=shape) != 0
            for band, sample in enumerate(samples, 1):
                values = cog.read(band, out_shape=shape)
                sample.append(values[there & np.isfinite(values)])
    return [display_range(np.concatenate(sample)) for sample in samples]


def _kind(sheet: Sheet) -> tuple[Any, ...]:
    colors = tuple(c for c in sheet.colorinterp if c != "alpha")
    return len(colors), sheet.dtypes[0], "palette" in colors, sheet.colormap


def _said(sheet: Sheet) -> str:
    kinds = ", ".join(sheet.colorinterp)
    return f"{sheet.bands} band{'s' * (sheet.bands > 1)} of {sheet.dtype} ({kinds})"


def _name(root: Path, sheet: Sheet) -> str:
    path = Path(sheet.name)
    if path.is_relative_to(root) and path != root:
        return path.relative_to(root).as_posix()
    return path.name


def _apart(sources: Sequence[SheetSource]) -> list[SheetSource]:
    counts: dict[str, int] = {}
    for source in sources:
        counts[source.name] = counts.get(source.name, 0) + 1
    return [
        source if counts[source.name] == 1
        else replace(source, name=source.sheet.name)
        for source in sources
    ]  # fmt: skip
