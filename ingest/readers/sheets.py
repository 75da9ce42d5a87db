"""Sheets: one raster file each, opened, checked and described; several make a mosaic.

A `Sheet` is plain data, so it travels to worker processes; they open its file again. GDAL's
errors become `SourceError` here and nowhere else.
"""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window

from ingest.readers.nodata import stored_nodata
from ingest.readers.vrt_sources import check_overview_name, check_sidecars, check_vrt, is_vrt
from tiling.errors import NothingToTile, RasterUnsupported, SourceUnreadable, UnknownFormat

# What each driver is for; anything else that GDAL could open is not offered as a source.
DRIVERS: Mapping[str, str] = MappingProxyType(
    {
        "GTiff": ".tif .tiff",
        "SRTMHGT": ".hgt",
        "HFA": ".img",
        "AAIGrid": ".asc",
        "VRT": ".vrt",
    }
)
SUFFIXES = frozenset(suffix for kinds in DRIVERS.values() for suffix in kinds.split())
# One block is read at a time: a file that is one huge strip would not fit into the budget.
MAX_BLOCK_NBYTES = 512 * 1024**2
# rasterio takes bytes where GDAL takes megabytes: a bare 128 would be no cache at all.
GDAL_CACHE_NBYTES = 128 * 1024**2

# Metres per unit, as GDAL drivers name the unit of a band.
UNITS_M: Mapping[str, float] = MappingProxyType(
    {
        "": 1.0,
        "m": 1.0,
        "metre": 1.0,
        "metres": 1.0,
        "meter": 1.0,
        "meters": 1.0,
        "米": 1.0,
        "cm": 0.01,
        "dm": 0.1,
        "km": 1000.0,
        "ft": 0.3048,
        "foot": 0.3048,
        "feet": 0.3048,
        "us survey foot": 1200 / 3937,
        "us_survey_foot": 1200 / 3937,
        "us-ft": 1200 / 3937,
        "ftus": 1200 / 3937,
    }
)

_TIFF_DATE = re.compile(r"(\d{4}):([01]\d):([0-3]\d)\b")

Affine6 = tuple[float, float, float, float, float, float]


@dataclass(frozen=True, slots=True)
class Sheet:
    """One raster file.

    Attributes:
        name: what GDAL opens: a path, or ``/vsizip/...``.
        driver: GDAL's short name of the format.
        width, height: pixels.
        transform: x = a * column + c, y = e * row + f as (a, 0, c, 0, e, f).
        crs_wkt: the file's own CRS, empty when it has none.
        bands: number of bands.
        dtype: NumPy name of the first band's type.
        dtypes: of every band.
        nodata: of the first band, declared by the user or the file; None when undeclared.
        colorinterp: GDAL's colour interpretation of every band.
        colormap: red, green, blue, alpha of every value of a palette image; else empty.
        scale, offset: stored value -> value of the first band.
        unit: of the first band's values, as the file writes it.
        block: rows and columns of a block.
        overviews: decimation factors.
        masked: whether a mask, an alpha band or nodata marks pixels as absent.
        files: the file itself and its sidecars.
        date: when it was made, ``YYYY-MM-DD``, if the file says so.
        nodata_declared: whether the user declared `nodata`; the file's own does not count then.
    """

    name: str
    driver: str
    width: int
    height: int
    transform: Affine6
    crs_wkt: str
    bands: int
    dtype: str
    dtypes: tuple[str, ...]
    nodata: float | None
    colorinterp: tuple[str, ...]
    colormap: tuple[tuple[int, int, int, int], ...]
    scale: float
    offset: float
    unit: str
    block: tuple[int, int]
    overviews: tuple[int, ...]
    masked: bool
    files: tuple[Path, ...]
    date: str = ""
    nodata_declared: bool = False

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """(xmin, ymin, xmax, ymax) of the outer edges in the sheet's own frame."""
        a, _, c, _, e, f = self.transform
        x, y = (c, c + a * self.width), (f, f + e * self.height)
        return min(x), min(y), max(x), max(y)


def find_rasters(path: Path) -> tuple[str, ...]:
    """Return what GDAL should open for a file, or for the sheets in a folder or a zip.

    Sheets come in the order of their names, which is also their priority.

    Raises:
        NothingToTile: the folder or the archive holds no raster.
        SourceUnreadable: missing, or a damaged archive.
    """
    if path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        if not found:
            raise NothingToTile(
                "the folder holds no raster",
                source=path,
                remedy=f"put sheets there, one of: {' '.join(sorted(SUFFIXES))}",
            )
        return tuple(str(p) for p in found)
    if not path.exists():
        raise SourceUnreadable("no such file", source=path, remedy="check the path")
    if path.suffix.lower() != ".zip":
        return (str(path),)
    names = rasters_in_zip(path)
    if not names:
        raise NothingToTile("the archive holds no raster", source=path, remedy="check its content")
    return tuple(f"/vsizip/{{{path.resolve()}}}/{name}" for name in names)


def rasters_in_zip(path: Path) -> list[str]:
    """Return the names of the rasters in an archive.

    Raises:
        SourceUnreadable: no archive, or a damaged one.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = sorted(archive.namelist())
    except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
        raise SourceUnreadable(
            f"the archive cannot be read: {error}",
            source=path,
            remedy="test it with `unzip -t` and copy it again",
        ) from error
    return [
        n for n in names if Path(n).suffix.lower() in SUFFIXES and not n.startswith("__MACOSX/")
    ]


def open_raster(name: str) -> DatasetReader:
    """Open a raster with the drivers of `DRIVERS` only; the caller closes it.

    Args:
        name: a path, ``/vsizip/...``, or the text of a VRT.

    Raises:
        RasterUnsupported: it would lead GDAL to files elsewhere, see `vrt_sources`.
        SourceUnreadable: it cannot be opened; GDAL's words are kept.
        UnknownFormat: no driver takes the file.
    """
    drivers = list(DRIVERS)
    path = None if name.startswith(("<VRTDataset", "/vsizip/")) else Path(name)
    if path is not None and path.is_file():
        if is_vrt(path):
            check_vrt(path)
        check_sidecars(path)
    elif name.startswith("/vsizip/"):
        # Names inside a VRT could lead out of the archive.
        drivers.remove("VRT")
    with reading(name), warnings.catch_warnings(), rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_NBYTES):
        # A missing geotransform is refused by `describe`, with a remedy.
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        # Other drivers would go to the network for a text file that names a web service.
        # (`rasterio.open` takes one driver only.)
        dataset = DatasetReader(name, driver=drivers)
    if path is not None:
        try:
            check_overview_name(path, dataset.tags(ns="OVERVIEWS").get("OVERVIEW_FILE"))
        except RasterUnsupported:
            dataset.close()
            raise
    return dataset


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn GDAL's errors inside the block into ours.

    Raises:
        SourceUnreadable: GDAL fails; its words are kept.
        UnknownFormat: no driver takes the file.
    """
    try:
        yield
    except RasterioError as error:
        text = _innermost(error)
        if "not recognized as being in a supported file format" in text:
            if name.lower().endswith(".hgt"):
                raise SourceUnreadable(
                    "no HGT sheet has this size: they are squares of 1201 or 3601 samples of two "
                    "bytes (2,884,802 or 25,934,402 bytes)",
                    source=name,
                    remedy="it is truncated, or its name is wrong: copy it again",
                ) from error
            raise _unknown(name, "no raster driver takes the file") from error
        raise SourceUnreadable(
            f"the raster cannot be read: {text}",
            source=name,
            remedy="it is truncated, corrupt, of an unsupported compression, or a VRT whose files "
            "are not there: copy it again, or repair it with gdal_translate",
        ) from error


def _unknown(name: str, problem: str) -> UnknownFormat:
    remedy = f"convert it with gdal_translate to one of: {', '.join(DRIVERS)}"
    return UnknownFormat(problem, source=name, remedy=remedy)


def _innermost(error: BaseException) -> str:
    # rasterio says "Read failed. See previous exception for details."; GDAL's words lie below.
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error)


def describe(name: str, nodata: float | None = None) -> Sheet:
    """Open a raster, refuse what no tiler can take, and describe the rest.

    Args:
        name: what GDAL opens.
        nodata: stored value of absent pixels, if the user declares one.

    Raises:
        RasterUnsupported: rotated, not georeferenced, complex numbers, blocks too large, or a
            declared nodata value that cannot be meant.
        SourceUnreadable: damaged.
    """
    with open_raster(name) as dataset:
        _refuse(name, dataset)
        declared = None if nodata is None else stored_nodata(name, dataset, nodata)
        a, b, c, d, e, f = tuple(dataset.transform)[:6]
        block = dataset.block_shapes[0]
        masked = any(f.name != "all_valid" for f in dataset.mask_flag_enums[0])
        return Sheet(
            name=name,
            driver=dataset.driver,
            width=dataset.width,
            height=dataset.height,
            transform=(a, b, c, d, e, f),
            crs_wkt="" if dataset.crs is None else dataset.crs.to_wkt(),
            bands=dataset.count,
            dtype=dataset.dtypes[0],
            dtypes=tuple(dataset.dtypes),
            nodata=dataset.nodatavals[0] if declared is None else declared,
            colorinterp=tuple(c.name for c in dataset.colorinterp),
            colormap=_colormap(dataset),
            scale=dataset.scales[0],
            offset=dataset.offsets[0],
            unit=dataset.units[0] or "",
            block=(block[0], block[1]),
            overviews=tuple(dataset.overviews(1)),
            masked=masked or declared is not None,
            files=_files(name, dataset),
            date=_date(dataset),
            nodata_declared=declared is not None,
        )


def _colormap(dataset: DatasetReader) -> tuple[tuple[int, int, int, int], ...]:
    if dataset.colorinterp[0].name != "palette":
        return ()
    table = dataset.colormap(1)
    return tuple(table[value] for value in sorted(table))


def _date(dataset: DatasetReader) -> str:
    # Baseline TIFF: "YYYY:MM:DD HH:MM:SS"; anything else is no date.
    found = _TIFF_DATE.match(dataset.tags().get("TIFFTAG_DATETIME", ""))
    return "-".join(found.groups()) if found else ""


def _files(name: str, dataset: DatasetReader) -> tuple[Path, ...]:
    if name.startswith("/vsizip/"):
        return (Path(name[len("/vsizip/{") : name.index("}")]),)
    return tuple(sorted({Path(f) for f in dataset.files if Path(f).is_file()} | {Path(name)}))


def _refuse(name: str, dataset: DatasetReader) -> None:
    if dataset.count == 0:
        raise RasterUnsupported(
            "the file holds no bands of its own, only subdatasets",
            source=name,
            remedy="extract one with gdal_translate",
        )
    a, b, _, d, e, _ = tuple(dataset.transform)[:6]
    if b or d:
        raise RasterUnsupported(
            f"the raster is rotated or sheared: its geotransform has the terms {b:g} and {d:g}",
            source=name,
            remedy="straighten it first: gdalwarp -r bilinear IN OUT",
        )
    if dataset.crs is not None and dataset.transform.is_identity:
        raise RasterUnsupported(
            "the raster has a CRS but no geotransform: nothing says where its pixels lie",
            source=name,
            remedy="georeference it: gdal_translate -a_ullr W N E S IN OUT, or gdalwarp for GCPs",
        )
    if not (np.isfinite([a, e]).all() and a and e):
        raise RasterUnsupported(
            f"the pixels have no size: {a:g} x {e:g}", source=name, remedy="georeference it again"
        )
    strange = [t for t in dataset.dtypes if t.startswith("complex")]
    if strange:
        raise RasterUnsupported(
            f"the pixels are complex numbers ({strange[0]})",
            source=name,
            remedy="export amplitude or phase as real numbers",
        )
    rows, columns = dataset.block_shapes[0]
    nbytes = rows * columns * np.dtype(dataset.dtypes[0]).itemsize
    if nbytes > MAX_BLOCK_NBYTES:
        raise RasterUnsupported(
            f"one block of the file is {columns} x {rows} pixels, {nbytes / 2**30:.1f} GiB",
            source=name,
            remedy="rewrite it in tiles: gdal_translate -co TILED=YES -co BIGTIFF=IF_SAFER IN OUT",
        )


def windows(sheet: Sheet, max_pixels: int = 4 * 1024 * 1024) -> Iterator[Window]:
    """Yield windows that cover a sheet once, aligned to its blocks, of bounded size."""
    rows, columns = sheet.block
    across = max(1, min(max_pixels // (rows * columns), -(-sheet.width // columns))) * columns
    down = max(1, max_pixels // (rows * across)) * rows
    for top in range(0, sheet.height, down):
        for left in range(0, sheet.width, across):
            yield Window(left, top, min(across, sheet.width - left), min(down, sheet.height - top))


def read_heights(dataset: DatasetReader, sheet: Sheet, window: Window) -> NDArray[np.floating]:
    """Read the first band as metres, NaN where the file marks pixels as absent.

    Returns:
        (rows, columns) float32 when that holds the file's numbers exactly, else float64.
    """
    exact = np.can_cast(sheet.dtype, np.float32) and factor(sheet) == 1.0
    exact = exact and sheet.scale == 1.0 and sheet.offset == 0.0
    raw = dataset.read(1, window=window)
    values: NDArray[np.floating[Any]] = raw.astype(np.float32 if exact else np.float64)
    if not exact:
        values = (values * sheet.scale + sheet.offset) * factor(sheet)
    if sheet.nodata_declared:
        values[raw == np.asarray(sheet.nodata, raw.dtype)] = np.nan
    elif sheet.masked:
        values[dataset.read_masks(1, window=window) == 0] = np.nan
    values[~np.isfinite(values)] = np.nan
    return values


def factor(sheet: Sheet) -> float:
    """Return metres per unit of the sheet's heights.

    Raises:
        RasterUnsupported: the unit is no length that is known here.
    """
    metres = UNITS_M.get(sheet.unit.strip().lower())
    if metres is None:
        raise RasterUnsupported(
            f"heights are in the unit {sheet.unit!r}, which is unknown here",
            source=sheet.name,
            remedy="convert them to metres, or correct the unit of the band",
        )
    return metres
