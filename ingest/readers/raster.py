"""Rasters: GeoTIFF/COG, HGT, IMG, ASC, VRT, or a folder or zip of sheets.

A folder is one mosaic; where its sheets overlap the first by name wins. Sheets of an image share a
CRS; those of an elevation model are grouped (`ingest.dem_groups`).
Rasters have no batches; the pixels of a DEM are read sheet by sheet (`ingest.dem_sheets`), an image
is handed on as the name of one GDAL dataset (`RasterReader.dataset_path`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ingest.readers import mosaic
from ingest.readers.base import (
    DEFAULT_BATCH_NBYTES,
    Closing,
    Extent,
    Kind,
    LayerInfo,
    ReadOptions,
    SourceInfo,
)
from ingest.readers.frames import resolve_frame
from ingest.readers.sheets import (
    SUFFIXES,
    Sheet,
    describe,
    factor,
    find_rasters,
    rasters_in_zip,
)
from tiling.batches import FeatureBatch
from tiling.crs import SpatialRef, transform_points
from tiling.errors import CrsMissing, RasterUnsupported
from tiling.findings import Findings

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"EHFA_HEADER_TAG", b"<VRTDataset")
_ASCII_GRID = re.compile(rb"\s*(ncols|nrows|xllc|yllc|cellsize|dx|dy)", re.IGNORECASE)
_HGT_NAME = re.compile(r"[NS]\d\d[EW]\d\d\d.*\.hgt", re.IGNORECASE)


class RasterReader(Closing):
    """Reads rasters; see `ingest.readers.base.SourceReader`.

    Attributes:
        findings: what was noticed, converted or assumed.
    """

    name: ClassVar[str] = "raster"
    kind: ClassVar[Kind] = "raster"
    findings: Findings

    def __init__(self, path: Path, options: ReadOptions = ReadOptions()) -> None:  # noqa: B008
        self.path = Path(path)
        self.options = options
        self.findings = Findings()
        self._sheets: tuple[Sheet, ...] | None = None
        self._refs: tuple[SpatialRef | None, ...] = ()

    @classmethod
    def joined(cls, readers: Sequence[RasterReader]) -> RasterReader:
        """Return one reader over the sheets of several; earlier ones win where they overlap.

        Args:
            readers: at least one, all with the same options.

        Raises:
            RasterUnsupported: their frames differ.
            SourceError: see `sheets`.
        """
        whole = cls(readers[0].path, readers[0].options)
        sheets = tuple(sheet for reader in readers for sheet in reader.sheets)
        whole._refs = whole._decide_refs(sheets)
        whole._sheets = sheets
        whole._refuse_mixture()
        return whole

    @classmethod
    def sniff(cls, path: Path) -> bool:
        """Say whether this is a raster, by magic number or, for HGT, by name; reads 64 bytes."""
        if path.is_dir():
            return any(p.suffix.lower() in SUFFIXES for p in path.rglob("*"))
        if not path.is_file():
            return False
        if path.suffix.lower() == ".zip":
            with path.open("rb") as file:
                is_zip = file.read(4) == b"PK\3\4"
            return is_zip and bool(rasters_in_zip(path))
        with path.open("rb") as file:
            head = file.read(64)
        by_content = head.startswith(_MAGIC) or _ASCII_GRID.match(head) is not None
        return by_content or _HGT_NAME.fullmatch(path.name) is not None

    @property
    def sheets(self) -> tuple[Sheet, ...]:
        """The sheets, in order of priority.

        Raises:
            SourceError: a sheet is damaged or of a kind that no tiler takes.
        """
        if self._sheets is None:
            nodata = self.options.nodata
            sheets = tuple(describe(name, nodata) for name in find_rasters(self.path))
            if nodata is not None:
                self.findings.add(
                    "nodata-declared",
                    "info",
                    f"pixels of the stored value {nodata:g} are absent, as declared; what the "
                    "files say of nodata does not count",
                    len(sheets),
                )
            self._refs = self._decide_refs(sheets)
            self._sheets = sheets
        return self._sheets

    @property
    def ref(self) -> SpatialRef | None:
        """The frame of the first sheet, declared or embedded; None when there is none."""
        return self.refs[0]

    @property
    def refs(self) -> tuple[SpatialRef | None, ...]:
        """The frame of every sheet; those of an elevation model may differ."""
        return self._refs if self.sheets else ()

    def info(self) -> SourceInfo:
        """Return what the source holds, as one layer; reads headers only.

        Raises:
            SourceError: see `sheets`.
        """
        sheets = self.sheets
        first = sheets[0]
        boxes = [
            _bounds_in(self.refs[0], ref, sheet)
            for sheet, ref in zip(sheets, self.refs, strict=True)
        ]
        extent: Extent = (
            min(b[0] for b in boxes),
            min(b[1] for b in boxes),
            max(b[2] for b in boxes),
            max(b[3] for b in boxes),
        )
        a, e = abs(first.transform[0]), abs(first.transform[4])
        extra: dict[str, Any] = {
            "driver": first.driver,
            "sheets": len(sheets),
            "bands": first.bands,
            "dtype": first.dtype,
            "width": round((extent[2] - extent[0]) / a),
            "height": round((extent[3] - extent[1]) / e),
            "resolution": [a, e],
            "nodata": first.nodata,
            "masked": first.masked,
            "colorinterp": list(first.colorinterp),
            "scale": first.scale,
            "offset": first.offset,
            "unit": first.unit,
            "overviews": list(first.overviews),
        }
        layer = LayerInfo(
            name=self.path.stem,
            geometry_type="Raster",
            features=0,
            fields=(),
            extent=extent,
            ref=self.ref,
            encoding=None,
            has_z=False,
            extra=extra,
        )
        files = tuple(dict.fromkeys(f for sheet in sheets for f in sheet.files))
        nbytes = sum(f.stat().st_size for f in files)
        return SourceInfo(
            self.path, self.name, self.kind, (layer,), files, nbytes, tuple(self.findings)
        )

    def batches(
        self,
        columns: Sequence[str] | None = None,
        region: Extent | None = None,
        max_nbytes: int = DEFAULT_BATCH_NBYTES,
    ) -> Iterator[FeatureBatch]:
        """Refuse: a raster has no features.

        Raises:
            RasterUnsupported: always.
        """
        raise RasterUnsupported(
            "a raster has no features",
            source=self.path,
            remedy="ingest it as terrain or imagery",
        )

    def dataset_path(self) -> str:
        """Return what GDAL opens as one dataset: the file, or the text of a VRT.

        A VRT stands for several sheets, and for a file whose CRS or nodata the user declared.

        Raises:
            CrsMissing: no CRS, neither declared nor embedded.
            SourceError: see `sheets`; sheets whose bands differ.
        """
        ref, sheets = self._require_ref(), self.sheets
        if len(sheets) == 1 and self.options.crs is None and self.options.nodata is None:
            return sheets[0].name
        return mosaic.mosaic_vrt(sheets, ref.crs.to_wkt())

    def _decide_refs(self, sheets: Sequence[Sheet]) -> tuple[SpatialRef | None, ...]:
        frames: dict[str, SpatialRef | None] = {}
        for sheet in sheets:
            if sheet.crs_wkt not in frames:
                frames[sheet.crs_wkt] = resolve_frame(
                    sheet.crs_wkt or None, self.options, self.findings
                )
        return tuple(frames[sheet.crs_wkt] for sheet in sheets)

    def _refuse_mixture(self) -> None:
        first = self.refs[0]
        for sheet, ref in zip(self.sheets, self.refs, strict=True):
            if ref is not first and not (ref and first and ref.same_horizontal(first)):
                raise RasterUnsupported(
                    f"the sheets have different frames: {_code(first)} of {self.sheets[0].name} "
                    f"and {_code(ref)} here",
                    source=sheet.name,
                    remedy="bring them into one CRS with gdalwarp, or declare it with --crs when "
                    "the files are wrong",
                )

    def _require_ref(self) -> SpatialRef:
        if self.ref is None:
            raise CrsMissing(
                "the raster has no coordinate reference system",
                source=self.path,
                remedy="declare it: --crs EPSG:4547 (or another code)",
            )
        self._refuse_mixture()
        return self.ref

    def check_sheets(self) -> None:
        """Refuse what is no elevation model, by its headers.

        Raises:
            RasterUnsupported: several bands, or an unknown unit.
        """
        for sheet in self.sheets:
            self._check_heights(sheet)

    def _check_heights(self, sheet: Sheet) -> None:
        if sheet.bands != 1:
            raise RasterUnsupported(
                f"{sheet.bands} bands: an elevation model has one",
                source=sheet.name,
                remedy="take the band of heights out: gdal_translate -b 1 IN OUT",
            )
        metres = factor(sheet)
        if metres != 1.0:
            self.findings.add(
                "heights-converted", "info", f"heights in {sheet.unit} were converted to metres"
            )
        if (sheet.scale, sheet.offset) != (1.0, 0.0):
            self.findings.add(
                "heights-scaled",
                "info",
                f"stored values were read as value * {sheet.scale:g} + {sheet.offset:g}",
            )


def _bounds_in(first: SpatialRef | None, ref: SpatialRef | None, sheet: Sheet) -> Extent:
    if ref is first or ref is None or first is None or ref.same_horizontal(first):
        return sheet.bounds
    west, south, east, north = sheet.bounds
    corners = np.array([west, east, west, east]), np.array([south, south, north, north])
    x, y, _ = transform_points(ref, first, *corners)
    return float(x.min()), float(y.min()), float(x.max()), float(y.max())


def _code(ref: SpatialRef | None) -> str:
    return "none" if ref is None else ref.code
