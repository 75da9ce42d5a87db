"""GeoParquet 1.1: features at rest, for queries and for export.

Features are sorted along a space-filling curve and carry a bounding-box column, so that a reader
that wants a place skips the row groups elsewhere. Attributes keep their types. Written after
https://geoparquet.org/releases/v1.1.0/.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray

from tiling.batches import FeatureBatch
from tiling.bounds import Region
from tiling.crs import TILE_REF, SpatialRef
from tiling.errors import NothingToTile, StoreError
from tiling.formats.geoparquet_footer import (
    CORNERS,
    FILE_KEY,
    GEO_KEY,
    OWN_KEY,
    frame,
    group_boxes,
    opened,
    own_names,
)
from tiling.hilbert import hilbert2
from tiling.tilers.extsort import Spool, SpoolWriter

FEATURE_ID = "cim_feature_id"
ROW_GROUP_ROWS = 16_384
_RUN_NBYTES = 256 << 20
_CURVE_LEVEL = 24
_GLOBE = (-180.0, -90.0, 180.0, 90.0)
_PLANE = (-4.2e7, -4.2e7, 4.2e7, 4.2e7)  # zone prefixes of the easting included
_TYPES = np.array(
    [
        "Point",
        "LineString",
        "LineString",
        "Polygon",
        "MultiPoint",
        "MultiLineString",
        "MultiPolygon",
        "GeometryCollection",
    ]
)


class Where(Protocol):
    """A condition on rows.

    Attributes:
        columns: names of the attributes that it looks at; a file need not have them all.
    """

    columns: Sequence[str]

    def mask(self, table: pa.Table) -> NDArray[np.bool_]:
        """Return which of N rows fulfil it: (N,) bool."""


def write_geoparquet(
    batches: Iterable[FeatureBatch],
    path: Path,
    spool_folder: Path,
    *,
    row_group_rows: int = ROW_GROUP_ROWS,
) -> int:
    """Write features, sorted by place; the file appears when it is complete.

    Args:
        batches: features of one frame; attributes of any Arrow type.
        path: the file to make.
        spool_folder: scratch of the sort; a finished sort found there is not repeated.
        row_group_rows: rows that a reader takes or skips together.

    Returns:
        the number of features written.

    Raises:
        NothingToTile: there is none.
        StoreError: the file cannot be written.
    """
    return write_sorted(_sorted(batches, spool_folder), path, row_group_rows=row_group_rows)


def write_sorted(
    spool: Spool,
    path: Path,
    *,
    row_group_rows: int = ROW_GROUP_ROWS,
    file_metadata: Mapping[str, Any] | None = None,
) -> int:
    """Write the features of a spool that is sorted by place already.

    Args:
        spool: the features, under keys along a space-filling curve.
        path, row_group_rows: see `write_geoparquet`.
        file_metadata: JSON that `read_metadata` gives back.

    Returns:
        the number of features written.

    Raises:
        NothingToTile: there is none.
        StoreError: the file cannot be written.
    """
    if spool.rows == 0 or spool.ref is None:
        raise NothingToTile("there is no feature to write", source=path)
    partial = path.with_name(path.name + ".part")
    schema = spool.schema()
    try:
        with _Writer(partial, spool.ref, dict(file_metadata or {})) as writer:
            for _, batch in spool.chunks(row_group_rows):
                writer.write(_conformed(batch, schema))
        partial.replace(path)
    except OSError as error:
        raise StoreError(f"{path}: cannot write: {error}") from error
    finally:
        partial.unlink(missing_ok=True)
    return int(spool.rows)


def write_none(like: Path, path: Path, file_metadata: Mapping[str, Any]) -> None:
    """Write a features file without features, with the columns of another.

    Args:
        like: a file that `write_sorted` wrote.
        path: the file to make.
        file_metadata: see `write_sorted`.

    Raises:
        StoreError: the file cannot be written, or the other not be read.
    """
    try:
        schema = pq.read_schema(like)
        stated = pq.read_metadata(like).metadata
        own = {FILE_KEY: json.dumps(dict(file_metadata), ensure_ascii=False).encode()}
        kept = {key: stated[key] for key in (GEO_KEY, OWN_KEY)}
        pq.write_table(schema.with_metadata({**kept, **own}).empty_table(), path)
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f"{path}: cannot write: {error}") from error


def _conformed(batch: FeatureBatch, schema: pa.Schema) -> FeatureBatch:
    """Return the batch with every column of the file, in the file's types."""
    if batch.attributes.schema.equals(schema):
        return batch
    table = pa.concat_tables([schema.empty_table(), batch.attributes], promote_options="permissive")
    return replace(batch, attributes=table.select(schema.names).cast(schema))


def _sorted(batches: Iterable[FeatureBatch], folder: Path) -> Spool:
    if Spool.is_finished(folder):
        return Spool(folder)
    writer = SpoolWriter.create(folder, _RUN_NBYTES)
    for batch in batches:
        if len(batch):
            writer.add(batch, _curve(batch))
    return writer.finish()


def _curve(batch: FeatureBatch) -> NDArray[np.uint64]:
    # Over the whole frame, so that no other feature moves a feature's place on the curve.
    west, south, east, north = _PLANE if batch.ref.is_projected else _GLOBE
    bounds = shapely.bounds(batch.geometry)
    middle = np.nan_to_num((bounds[:, :2] + bounds[:, 2:]) / 2)
    unit = (middle - (west, south)) / (east - west, north - south)
    last = (1 << _CURVE_LEVEL) - 1
    cells = np.clip(unit * (last + 1), 0, last).astype(np.int64)
    return hilbert2(cells[:, 0], cells[:, 1], _CURVE_LEVEL)


class _Writer:
    def __init__(self, path: Path, ref: SpatialRef, own: dict[str, Any]) -> None:
        self.path = path
        self.own = own
        self.ref = ref
        self.parquet: pq.ParquetWriter | None = None
        self.schema: pa.Schema | None = None
        self.names: dict[str, str] = {}
        self.types: set[str] = set()
        self.boxes: list[NDArray[np.float64]] = []

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.parquet is None:
            return
        if kind is not None:
            # The file is given up; what closing it meets as well (a full disk) is no news.
            with contextlib.suppress(OSError):
                self.parquet.close()
        else:
            self.parquet.add_key_value_metadata(
                {
                    GEO_KEY: json.dumps(self._geo(), ensure_ascii=False),
                    OWN_KEY: json.dumps(self.names, ensure_ascii=False),
                    FILE_KEY: json.dumps(self.own, ensure_ascii=False),
                }
            )
            self.parquet.close()

    def write(self, batch: FeatureBatch) -> None:
        """Write one row group."""
        if self.parquet is None:
            self.names = {
                role: _free_name(wanted, batch.attributes.column_names)
                for role, wanted in (
                    ("geometry", "geometry"),
                    ("bbox", "bbox"),
                    ("feature_id", FEATURE_ID),
                )
            }
        bounds = shapely.bounds(batch.geometry)
        corners = [pa.array(bounds[:, i], from_pandas=True) for i in range(4)]
        table = batch.attributes
        for role, column in (
            ("feature_id", pa.array(batch.ids, pa.int64())),
            ("bbox", pa.StructArray.from_arrays(corners, names=CORNERS)),
            ("geometry", pa.array(shapely.to_wkb(batch.geometry), pa.binary())),
        ):
            table = table.append_column(self.names[role], column)
        if self.parquet is None:
            self.schema = table.schema
            self.parquet = pq.ParquetWriter(
                self.path, self.schema, compression="zstd", write_page_index=True
            )
        self.parquet.write_table(table.cast(self.schema), row_group_size=max(1, len(batch)))
        self.boxes.append(shapely.total_bounds(batch.geometry))
        kinds = _TYPES[shapely.get_type_id(batch.geometry)]
        deep = np.where(shapely.has_z(batch.geometry), " Z", "")
        self.types.update(np.unique(np.char.add(kinds, deep)).tolist())

    def _geo(self) -> dict[str, Any]:
        boxes = np.stack(self.boxes)
        column: dict[str, Any] = {
            "encoding": "WKB",
            "geometry_types": sorted(self.types),
            "bbox": [*boxes[:, :2].min(axis=0).tolist(), *boxes[:, 2:].max(axis=0).tolist()],
            "covering": {"bbox": {c: [self.names["bbox"], c] for c in CORNERS}},
        }
        # Without a crs the format means OGC:CRS84, longitude first: what our features are in.
        if not self.ref.same_horizontal(TILE_REF):
            column["crs"] = self.ref.crs.to_json_dict()
        name = self.names["geometry"]
        return {"version": "1.1.0", "primary_column": name, "columns": {name: column}}


def _free_name(wanted: str, taken: Sequence[str]) -> str:
    # Attributes keep their names; our own columns give way.
    lowered = {name.lower() for name in taken}
    name, number = wanted, 2
    while name.lower() in lowered:
        name, number = f"{wanted}_{number}", number + 1
    return name


def read_geoparquet(
    path: Path,
    bbox: Region | Sequence[float] | None = None,
    columns: Sequence[str] | None = None,
    where: Where | None = None,
) -> Iterator[FeatureBatch]:
    """Read features that `write_geoparquet` wrote, one row group at a time.

    Args:
        path: the file.
        bbox: west, south, east, north in the file's frame; only features whose boxes touch it are
            given, and row groups elsewhere are not read.
        columns: attributes to read; all when None.
        where: which of the rows in `bbox` are given; shapes of others are not read.

    Yields:
        batches in the order of the file; ids are the features' ordinals in their source.

    Raises:
        StoreError: missing, damaged, or not written by this project.
    """
    with opened(path) as file:
        names = own_names(path, file)
        ref = frame(path, file)
        own = set(names.values())
        wanted = [n for n in file.schema_arrow.names if n not in own]
        attributes = set(wanted)
        if columns is not None:
            missing = [n for n in columns if n not in wanted]
            if missing:
                raise StoreError(f"{path}: no such attributes: {', '.join(missing)}")
            wanted = list(columns)
        box = None if bbox is None else np.asarray(tuple(bbox)[:4], dtype=np.float64)
        touched = range(file.num_row_groups)
        if box is not None:
            touched = np.flatnonzero(_overlap(group_boxes(path), box)).tolist()
        for group in touched:
            try:
                rows = None
                if box is not None:
                    # Small beside the others, and often all that has to be read.
                    asked = set() if where is None else attributes & set(where.columns)
                    head = file.read_row_group(group, [names["bbox"], *sorted(asked)])
                    inside = _inside(head.column(names["bbox"]), box)
                    if where is not None and inside.any():
                        inside &= where.mask(head)
                    rows = np.flatnonzero(inside)
                    if not len(rows):
                        continue
                table = file.read_row_group(group, [*wanted, *names.values()])
            except (OSError, pa.ArrowException) as error:
                raise StoreError(f"{path}: row group {group} is damaged: {error}") from error
            if rows is not None and len(rows) < len(table):
                table = table.take(pa.array(rows))
            batch = _batch(ref, table, names, wanted)
            if len(batch):
                yield batch


def read_group(path: Path, group: int) -> FeatureBatch:
    """Return the features of a row group, without attributes.

    Raises:
        StoreError: missing, damaged, or not written by this project.
    """
    with opened(path) as file:
        names = own_names(path, file)
        try:
            table = file.read_row_group(group, list(names.values()))
        except (OSError, pa.ArrowException) as error:
            raise StoreError(f"{path}: row group {group} is damaged: {error}") from error
        return _batch(frame(path, file), table, names, [])


def read_ids(path: Path) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the ids of a file's features, (N,), and the first row of each row group, (G,).

    Raises:
        StoreError: missing, damaged, or not written by this project.
    """
    with opened(path) as file:
        name = own_names(path, file)["feature_id"]
        try:
            ids = np.asarray(file.read([name]).column(0).to_numpy(), np.int64)
        except (OSError, pa.ArrowException) as error:
            raise StoreError(f"{path}: its ids are damaged: {error}") from error
        counts = [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)]
    return ids, np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])[:-1]


def read_rows(path: Path, group: int, first: int, count: int) -> FeatureBatch:
    """Return consecutive features of a row group.

    Raises:
        StoreError: missing, damaged, or not written by this project.
    """
    with opened(path) as file:
        names = own_names(path, file)
        ref = frame(path, file)
        own = set(names.values())
        wanted = [n for n in file.schema_arrow.names if n not in own]
        try:
            table = file.read_row_group(group, [*wanted, *names.values()])
        except (OSError, pa.ArrowException) as error:
            raise StoreError(f"{path}: row group {group} is damaged: {error}") from error
        return _batch(ref, table.slice(first, count), names, wanted)


def _batch(
    ref: SpatialRef, table: pa.Table, names: dict[str, str], wanted: list[str]
) -> FeatureBatch:
    wkb = table.column(names["geometry"]).to_numpy()
    return FeatureBatch(
        ref,
        np.asarray(table.column(names["feature_id"]).to_numpy()),
        np.asarray(shapely.from_wkb(wkb), dtype=object),
        table.select(wanted),
    )


def _inside(boxes: pa.ChunkedArray, box: NDArray[np.float64]) -> NDArray[np.bool_]:
    xmin, ymin, xmax, ymax = (c.to_numpy() for c in boxes.combine_chunks().flatten())
    west, south, east, north = box
    return np.asarray((xmin <= east) & (xmax >= west) & (ymin <= north) & (ymax >= south))


def _overlap(boxes: NDArray[np.float64], box: NDArray[np.float64]) -> NDArray[np.bool_]:
    west, south, east, north = boxes.T
    inside = (west <= box[2]) & (east >= box[0]) & (south <= box[3]) & (north >= box[1])
    return np.asarray(inside, dtype=bool)
