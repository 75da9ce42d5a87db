"""Readers: one per family of source formats.

The one idea: a reader is imported when its turn comes to look at a source, and what is plainly a
raster is asked of the raster reader first, so that a run over rasters holds no library of vectors
in memory.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from ingest.readers.base import ReadOptions, SourceReader
from tiling.errors import SourceUnreadable, UnknownFormat

# Module and class of each reader, in the order in which they are asked.
READERS: tuple[tuple[str, str], ...] = (
    ("geoparquet", "GeoParquetReader"),
    ("tileset", "TilesetReader"),
    ("las", "LasReader"),
    ("model", "ModelReader"),
    ("cityjson", "CityJsonReader"),
    ("citygml", "CityGmlReader"),
    ("vector", "VectorReader"),
    ("raster", "RasterReader"),
    ("e57", "E57Reader"),
    ("ply", "PlyReader"),
    ("xyz", "XyzReader"),
    ("pdal", "PdalReader"),
)
# What lies beside the files of `ingest.readers.sheets.SUFFIXES` and is nothing by itself.
_BESIDE_RASTERS = {".tfw", ".hdr", ".prj", ".aux", ".xml", ".ovr", ".msk", ".rrd", ".ige", ".md"}

_REMEDY = (
    "readable are Shapefile (give the .shp), GeoPackage, GeoJSON, FlatGeobuf, FileGDB, DXF, CSV, "
    "GeoParquet, ZIP archives of these, 3D Tiles (a folder with tileset.json, or .3tz), OBJ and "
    "glTF models, LAS, LAZ, COPC, E57, PLY, rows of points as text, what PDAL reads, CityJSON "
    "(.city.json, .city.jsonl), CityGML, and the rasters GDAL knows"
)


def readers() -> Iterator[type[SourceReader]]:
    """Yield the classes of `READERS` in their order, each imported when it is asked for."""
    for module, name in READERS:
        yield getattr(import_module(f"ingest.readers.{module}"), name)


def open_source(path: str | Path, options: ReadOptions | None = None) -> SourceReader:
    """Return the first reader that recognises a file or folder by its content.

    Args:
        path: the source.
        options: what the user declares about it.

    Raises:
        SourceUnreadable: there is no such file.
        UnknownFormat: no reader recognises it.
    """
    source = Path(path)
    if not source.exists():
        raise SourceUnreadable(
            "there is no such file or folder", source=source, remedy="check the path"
        )
    if options is not None and options.points.columns:
        # Who names the columns of a text says that its rows are points.
        from ingest.readers.xyz import XyzReader

        return XyzReader(source, options)
    if _plainly_raster(source):
        from ingest.readers.raster import RasterReader

        if RasterReader.sniff(source):
            return RasterReader(source, options or ReadOptions())
    for reader in readers():
        if reader.sniff(source):
            return reader(source, options or ReadOptions())
    tried = ", ".join(reader.name for reader in readers())
    raise UnknownFormat(
        f"no reader recognises it (tried: {tried}); {_look(source)}",
        source=source,
        remedy=_REMEDY,
    )


def _plainly_raster(source: Path) -> bool:
    """Say whether all that a source holds is rasters and their companions, by name."""
    from ingest.readers.sheets import SUFFIXES

    if source.is_dir():
        names = [p.name for p in source.rglob("*") if p.is_file()]
    elif source.suffix.lower() == ".zip" and zipfile.is_zipfile(source):
        try:
            with zipfile.ZipFile(source) as archive:
                names = [name for name in archive.namelist() if not name.endswith("/")]
        except (zipfile.BadZipFile, OSError, NotImplementedError):
            return False  # the readers say what is wrong with it
    else:
        names = [source.name]
    return all(Path(name).suffix.lower() in SUFFIXES | _BESIDE_RASTERS for name in names)


def _look(source: Path) -> str:
    if source.is_dir():
        endings = sorted({p.suffix.lower() or p.name for p in source.iterdir()})
        return f"the folder holds {', '.join(endings[:12]) or 'nothing'}"
    with source.open("rb") as file:
        head = file.read(16)
    return f"the file begins with {head!r}" if head else "the file is empty"
