"""The footer of a features file: what a GeoParquet tells without reading its rows.

Footers of files asked lately are kept in memory, and so are the boxes of their row groups: reading
them costs more than a tile's features do. A file that is replaced is another file.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tiling.crs import TILE_REF, SpatialRef
from tiling.errors import CimError, StoreError

GEO_KEY, OWN_KEY, FILE_KEY = b"geo", b"cim", b"cim:file"
CORNERS = ("xmin", "ymin", "xmax", "ymax")
_FOOTERS = 16  # kept of files asked lately


def footer(path: Path) -> pq.FileMetaData:
    """Return the footer of a Parquet file.

    Raises:
        StoreError: not a readable Parquet file.
    """
    try:
        return _footer(path, _stamp(path))
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f"{path}: not a readable Parquet file: {error}") from error


def opened(path: Path) -> pq.ParquetFile:
    """Return a Parquet file to read rows of; the caller closes it.

    Raises:
        StoreError: not a readable Parquet file.
    """
    known = footer(path)
    try:
        return pq.ParquetFile(path, metadata=known)
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f"{path}: not a readable Parquet file: {error}") from error


def own_names(path: Path, file: pq.ParquetFile) -> dict[str, str]:
    """Return the names of our own columns by role: geometry, bbox, feature_id.

    Raises:
        StoreError: not a features file of this project.
    """
    metadata = file.metadata.metadata or {}
    if GEO_KEY not in metadata or OWN_KEY not in metadata:
        raise StoreError(f"{path}: not a features file of this project: no {OWN_KEY!r} entry")
    names: dict[str, str] = json.loads(metadata[OWN_KEY])
    return names


def frame(path: Path, file: pq.ParquetFile) -> SpatialRef:
    """Return the frame of a features file's coordinates.

    Raises:
        StoreError: its CRS cannot be read.
    """
    geo = json.loads(file.metadata.metadata[GEO_KEY])
    crs = geo["columns"][geo["primary_column"]].get("crs")
    if crs is None:
        return TILE_REF
    try:
        return SpatialRef.parse(json.dumps(crs))
    except CimError as error:
        raise StoreError(f"{path}: its CRS cannot be read: {error}") from error


def attribute_schema(path: Path) -> pa.Schema:
    """Return names and types of the attributes in a features file.

    Raises:
        StoreError: not a readable features file of this project.
    """
    try:
        known = _footer(path, _stamp(path))
        schema = known.schema.to_arrow_schema()
        own = set(json.loads((known.metadata or {})[OWN_KEY]).values())
    except (OSError, pa.ArrowException, KeyError) as error:
        raise StoreError(f"{path}: not a readable features file: {error}") from error
    return pa.schema([field for field in schema if field.name not in own])


def group_boxes(path: Path) -> NDArray[np.float64]:
    """Return west, south, east and north of every row group of a features file: (G, 4), read only.

    Raises:
        StoreError: missing, damaged, or not written by this project.
    """
    try:
        return _boxes(path, _stamp(path))
    except OSError as error:
        raise StoreError(f"{path}: not a readable Parquet file: {error}") from error


def read_file_metadata(path: Path) -> dict[str, Any]:
    """Return the JSON that was given as `file_metadata` when the file was written.

    Raises:
        StoreError: not a readable Parquet file.
    """
    own: dict[str, Any] = json.loads((footer(path).metadata or {}).get(FILE_KEY, b"{}"))
    return own


def feature_count(path: Path) -> int:
    """Return the number of features.

    Raises:
        StoreError: not a readable Parquet file.
    """
    return int(footer(path).num_rows)


def geometry_types(path: Path) -> list[str]:
    """Return the geometry types that a features file states, e.g. ``["MultiPolygon", "Polygon"]``.

    Raises:
        StoreError: not a readable GeoParquet file.
    """
    metadata = footer(path).metadata or {}
    if GEO_KEY not in metadata:
        raise StoreError(f"{path}: not a GeoParquet file: no 'geo' entry")
    geo = json.loads(metadata[GEO_KEY])
    return list(geo["columns"][geo["primary_column"]]["geometry_types"])


def _stamp(path: Path) -> tuple[int, int, int]:
    """Return what changes when a file is replaced or written again."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


@lru_cache(maxsize=_FOOTERS)
def _footer(path: Path, stamp: tuple[int, int, int]) -> pq.FileMetaData:
    return pq.read_metadata(path)


@lru_cache(maxsize=_FOOTERS)
def _boxes(path: Path, stamp: tuple[int, int, int]) -> NDArray[np.float64]:
    with opened(path) as file:
        name = own_names(path, file)["bbox"]
        boxes = np.array([_group_box(file, group, name) for group in range(file.num_row_groups)])
    boxes.setflags(write=False)
    return boxes


def _group_box(file: pq.ParquetFile, group: int, name: str) -> tuple[float, float, float, float]:
    """Return the box of a row group from its statistics; everywhere where there are none."""
    statistics = {}
    row_group = file.metadata.row_group(group)
    for i in range(row_group.num_columns):
        column = row_group.column(i)
        if column.path_in_schema.startswith(f"{name}.") and column.statistics is not None:
            statistics[column.path_in_schema[len(name) + 1 :]] = column.statistics
    if any(c not in statistics or not statistics[c].has_min_max for c in CORNERS):
        return -np.inf, -np.inf, np.inf, np.inf
    corners = statistics
    return corners["xmin"].min, corners["ymin"].min, corners["xmax"].max, corners["ymax"].max
