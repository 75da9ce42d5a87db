"""An image of many sheets: every sheet becomes a store of its own, none is joined with another.

The one idea: a sheet is a unit of work with a name made of its content. Sheets are converted side
by side, what is finished survives a kill, and what an earlier version of the asset holds already is
taken over without being read twice. A sheet that is a COG of a kind that would be made here is
copied as it is. One that is damaged ends the run before anything is published.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path

from catalog.records import StoreRef
from ingest.readers.mosaic import mosaic_vrt
from ingest.readers.sheets import Sheet
from ingest.workspace import file_store
from tiling.crs import SpatialRef
from tiling.errors import SourceError
from tiling.findings import Finding, Findings
from tiling.mosaics import MosaicSheet
from tiling.stores.base import StoreInfo
from tiling.stores.staging import file_sha256
from tiling.tilers.base import Progress
from tiling.tilers.cog import opened, read_through
from tiling.tilers.image_place import image_place
from tiling.tilers.imagery import Compression, ImageryTiler

# Raised when what is made of a sheet changes.
_RECIPE = 1
_LARGEST_BLOCK = 1024


@dataclass(frozen=True, slots=True)
class SheetSource:
    """One sheet to be made a store.

    Attributes:
        name: unique in the mosaic.
        sheet: the file.
        ref: its frame.
        declared: whether the frame or nodata are declared, and not the file's own.
        date: of the picture, ``YYYY-MM-DD``, as declared or as the file says; empty when neither.
    """

    name: str
    sheet: Sheet
    ref: SpatialRef
    declared: bool
    date: str

    @property
    def dataset(self) -> str:
        """What GDAL opens."""
        if not self.declared:
            return self.sheet.name
        return mosaic_vrt([self.sheet], self.ref.crs.to_wkt())


@dataclass(frozen=True, slots=True)
class MadeSheet:
    """A finished sheet: its row of the index, and its store, staged or taken over."""

    row: MosaicSheet
    staged: StoreInfo | None
    kept: StoreRef | None
    findings: tuple[Finding, ...]

    def path(self, root: Path) -> Path:
        """Return where its pixels are now; `root` is the data folder."""
        if self.staged is not None:
            return self.staged.path
        assert self.kept is not None  # one of the two
        return root / self.kept.path


@dataclass(frozen=True, slots=True)
class SheetMaker:
    """Makes stores of sheets.

    Attributes:
        folder: scratch of the job; finished sheets lie there.
        compression: as declared.
        locks: one for each sheet's name by content: copies of a sheet are made once.
        known: (source, recipe) -> row and store of the version before.
        progress: counts sheets; asked for cancellation.
    """

    folder: Path
    compression: Compression
    progress: Progress
    known: Mapping[tuple[str, str], tuple[MosaicSheet, StoreRef]] = field(default_factory=dict)
    locks: dict[str, threading.Lock] = field(default_factory=dict)

    def make(self, sources: Sequence[SheetSource], threads: int) -> list[MadeSheet]:
        """Make every sheet, in the order given.

        Raises:
            SourceError: a sheet cannot be taken; it is named.
            Cancelled: the user asked to stop; finished sheets stay in the folder.
        """
        self.folder.mkdir(exist_ok=True)
        self.progress.begin("sheets", len(sources))
        # Threads are enough: pixels are compressed in processes that each of them starts.
        with ThreadPoolExecutor(threads) as pool:
            futures = [pool.submit(self._one, source, 1 if threads > 1 else None)
                       for source in sources]  # fmt: skip
            try:
                waiting = set(futures)
                while waiting:
                    done, waiting = wait(waiting, 0.2, FIRST_EXCEPTION)
                    for future in done:
                        future.result()
                    self.progress.advance(len(done))
            except BaseException:
                for future in futures:
                    future.cancel()
                raise
            return [future.result() for future in futures]

    def _one(self, source: SheetSource, threads: int | None) -> MadeSheet:
        digest = hashlib.sha256()
        for path in source.sheet.files:
            digest.update(file_sha256(path).encode())
        content, recipe = digest.hexdigest(), self._recipe(source)
        known = self.known.get((content, recipe))
        if known is not None:
            row, ref = known
            row = replace(row, name=source.name, date=source.date or None)
            return MadeSheet(row, None, ref, ())
        stem = hashlib.sha256(f"{content} {recipe}".encode()).hexdigest()[:32]
        out, note = self.folder / f"{stem}.tif", self.folder / f"{stem}.json"
        with self.locks.setdefault(stem, threading.Lock()):
            if not note.exists():
                self._write(source, out, note, threads)
        stated = json.loads(note.read_text("utf-8"))
        with opened(out) as cog:
            place, crs = image_place(cog), SpatialRef.parse(cog.crs.to_wkt()).horizontal_code
            width, height = cog.width, cog.height
        staged = file_store(out, "cog")
        row = MosaicSheet(
            name=source.name,
            store=staged.sha256,
            source=content,
            recipe=recipe,
            crs=crs,
            width=width,
            height=height,
            resolution_m=place.resolution_m,
            date=source.date or None,
            outline=place.outline,
            info=stated["info"],
        )
        return MadeSheet(row, staged, None, tuple(map(Finding.from_json, stated["findings"])))

    def _recipe(self, source: SheetSource) -> str:
        wish = self.compression
        parts = [_RECIPE, wish.codec, wish.quality, wish.max_error]
        if source.sheet.nodata_declared:
            parts.append(repr(source.sheet.nodata))
        return json.dumps([*parts, source.ref.horizontal_code if source.declared else None])

    def _write(self, source: SheetSource, out: Path, note: Path, threads: int | None) -> None:
        findings = Findings()
        watch = _Watch(self.progress)
        # Made under another name first: a sheet counts as finished once its note is there.
        as_it_is = out.with_suffix(".checked.tif")
        try:
            tiler = ImageryTiler(self.compression, threads)
            if self.compression == Compression() and is_ready(source):
                read_through(source.sheet.name, watch)
                shutil.copyfile(source.sheet.name, as_it_is)
                info = tiler.describe(as_it_is, findings)
                as_it_is.replace(out)
            else:
                info = tiler.run(source.dataset, out, watch, findings)
        except SourceError as error:
            # A VRT, or a bare name, is named by the sheet it stands for.
            raise type(error)(
                error.problem, source=source.sheet.name, remedy=error.remedy
            ) from error
        finally:
            as_it_is.unlink(missing_ok=True)
        facts = {
            "info": {**info.metadata, "min_level": info.min_level, "max_level": info.max_level},
            "findings": findings.to_json(),
        }
        partial = note.with_suffix(".part")
        partial.write_text(json.dumps(facts, ensure_ascii=False), "utf-8")
        partial.replace(note)


def is_ready(source: SheetSource) -> bool:
    """Say whether a sheet can be a store as it is: one tiled file with overviews, nothing unsaid.

    What would be changed (an alpha band of a photograph, nodata under lossy compression, colours
    that the file does not name) makes it no store as it is.
    """
    sheet = source.sheet
    if source.declared or sheet.driver != "GTiff" or len(sheet.files) != 1:
        return False
    with opened(sheet.name) as file:
        layout = file.tags(ns="IMAGE_STRUCTURE").get("LAYOUT")
    small = max(sheet.width, sheet.height) <= _LARGEST_BLOCK
    named = sheet.bands < 3 or {"red", "green", "blue"} <= set(sheet.colorinterp)
    photograph = sheet.dtype == "uint8" and sheet.bands == 3
    return (
        layout == "COG"
        and max(sheet.block) <= _LARGEST_BLOCK
        and (small or bool(sheet.overviews))
        and named
        and "alpha" not in sheet.colorinterp
        and not (photograph and sheet.nodata is not None)
    )


class _Watch:
    """Progress of one sheet among many: cancels, but shows nothing."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def begin(self, step: str, total: int | None = None) -> None:
        """Do nothing."""

    def advance(self, amount: int = 1) -> None:
        """Ask whether to stop."""
        self._progress.advance(0)
