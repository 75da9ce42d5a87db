"""Readers: one per family of source formats."""

from __future__ import annotations

from pathlib import Path

from ingest.readers.base import ReadOptions, SourceReader
from ingest.readers.citygml import CityGmlReader
from ingest.readers.cityjson import CityJsonReader
from ingest.readers.geoparquet import GeoParquetReader
from ingest.readers.model import ModelReader
from ingest.readers.raster import RasterReader
from ingest.readers.tileset import TilesetReader
from ingest.readers.vector import VectorReader
from tiling.errors import SourceUnreadable, UnknownFormat

READERS: tuple[type[SourceReader], ...] = (
    GeoParquetReader,
    TilesetReader,
    ModelReader,
    CityJsonReader,
    CityGmlReader,
    VectorReader,
    RasterReader,
)

_REMEDY = (
    "readable are Shapefile (give the .shp), GeoPackage, GeoJSON, FlatGeobuf, FileGDB, DXF, CSV, "
    "GeoParquet, ZIP archives of these, 3D Tiles (a folder with tileset.json, or .3tz), OBJ and "
    "glTF models, CityJSON (.city.json, .city.jsonl), CityGML, and the rasters GDAL knows"
)


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
    for reader in READERS:
        if reader.sniff(source):
            return reader(source, options or ReadOptions())
    tried = ", ".join(reader.name for reader in READERS)
    raise UnknownFormat(
        f"no reader recognises it (tried: {tried}); {_look(source)}",
        source=source,
        remedy=_REMEDY,
    )


def _look(source: Path) -> str:
    if source.is_dir():
        endings = sorted({p.suffix.lower() or p.name for p in source.iterdir()})
        return f"the folder holds {', '.join(endings[:12]) or 'nothing'}"
    with source.open("rb") as file:
        head = file.read(16)
    return f"the file begins with {head!r}" if head else "the file is empty"
