"""Which files of a version show a tile: one COG, several in order of priority, or sheets.

Hundreds of sheets under one tile would be hundreds of reads, so far out a mosaic shows its
overview, a single COG of the whole at low resolution; so it does where more than `MAX_SHEETS`
sheets lie under one tile, which only sheets smaller than a few pixels can bring about.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from catalog.records import StoreRef
from cim_server.services.rasters import RasterSource
from cim_server.state import Entry, State
from tiling.coords import TileCoord
from tiling.errors import NotFound, StoreError
from tiling.mosaics import SheetIndex
from tiling.schemes import Scheme

MAX_SHEETS = 64
_METRES_PER_DEGREE = 111_320.0


@dataclass(frozen=True, slots=True)
class VersionRasters:
    """The rasters of a version.

    Attributes:
        title: of the asset.
        info: what the tiler told the catalogue.
        sheets: sha256 -> COG; in order of priority.
        index: file of the mosaic's index, None when it is none.
        overview: the whole of a mosaic at low resolution.
        digests: sha256 of the stores that answers depend on.
    """

    title: str
    info: Mapping[str, Any]
    sheets: Mapping[str, Path]
    index: Path | None
    overview: Path | None
    digests: str

    def source(self, path: Path) -> RasterSource:
        """Return one of the files as what is rendered."""
        return RasterSource(path, self.title, self.info)

    def whole(self) -> RasterSource:
        """Return the one file that stands for the version: of a mosaic its overview."""
        return self.source(self.overview or next(iter(self.sheets.values())))

    def finest(self) -> Path:
        """Return the file with the smallest pixels; blocks on the index the first time."""
        if self.index is None:
            return next(iter(self.sheets.values()))
        sheets = _index(str(self.index)).sheets
        return self.sheets[min(sheets, key=lambda sheet: sheet.resolution_m).store]

    def under(self, scheme: Scheme, tile: TileCoord, size: int) -> tuple[RasterSource, ...]:
        """Return what shows a tile, first wins; blocks on the index the first time.

        Raises:
            StoreError: the index is damaged, or names a sheet that the version does not have.
        """
        if self.index is None or self.overview is None:
            return tuple(self.source(path) for path in self.sheets.values())
        box = scheme.bounds(tile)
        resolution_m = (box.north - box.south) * _METRES_PER_DEGREE / size
        if resolution_m >= float(self.info["mosaic"]["overview_resolution_m"]):
            return (self.source(self.overview),)
        found = _index(str(self.index)).touching(box.west, box.south, box.east, box.north)
        if len(found) > MAX_SHEETS:
            return (self.source(self.overview),)
        missing = [sheet.name for sheet in found if sheet.store not in self.sheets]
        if missing:
            raise StoreError(f"{self.index}: the version has no store for {', '.join(missing)}")
        return tuple(self.source(self.sheets[sheet.store]) for sheet in found)


def rasters_of(state: State, entry: Entry) -> VersionRasters:
    """Return the rasters of a version.

    Raises:
        NotFound: it has none.
    """
    return rasters_in(state.settings.data, entry)


def rasters_in(data: Path, entry: Entry) -> VersionRasters:
    """Return the rasters of a version whose stores lie in the folder `data`.

    Raises:
        NotFound: it has none.
    """
    refs = [ref for ref in entry.stores if ref.role == "data" and ref.format == "cog"]
    if not refs:
        raise NotFound(f"version {entry.number} of {entry.asset!r} has no raster to render")
    index, overview = _of_role(entry, "sheets"), _of_role(entry, "overview")
    if "mosaic" not in entry.info or index is None or overview is None:
        index = overview = None
    # The index names every sheet by its digest, so it speaks for all of them.
    telling = refs if index is None or overview is None else [index, overview]
    return VersionRasters(
        entry.title,
        entry.info,
        {ref.sha256: data / ref.path for ref in refs},
        None if index is None else data / index.path,
        None if overview is None else data / overview.path,
        " ".join(ref.sha256 for ref in telling),
    )


def _of_role(entry: Entry, role: str) -> StoreRef | None:
    return next((ref for ref in entry.stores if ref.role == role), None)


@lru_cache(maxsize=64)
def _index(path: str) -> SheetIndex:
    return SheetIndex.open(Path(path))
