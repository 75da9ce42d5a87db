"""GeoParquet 1.0 and 1.1 through pyarrow, one row group after the other.

The ``geo`` metadata names the primary geometry column, its encoding and its CRS as PROJJSON
(https://geoparquet.org/releases/v1.1.0/): no ``crs`` means OGC:CRS84, ``null`` means unknown.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray

from ingest.encoding import EncodingDecision
from ingest.readers.base import (
    DEFAULT_BATCH_NBYTES,
    Closing,
    Extent,
    FieldInfo,
    Kind,
    LayerInfo,
    ReadOptions,
    SourceInfo,
)
from ingest.readers.columns import is_json, is_nested, plain_column, plain_type
from ingest.readers.features import FeatureStream
from ingest.readers.frames import resolve_frame
from ingest.readers.layers import frame_of
from ingest.readers.wkb import Decoded, decode_wkb, summarise_types, type_codes
from tiling.batches import FeatureBatch
from tiling.errors import GeometryInvalid, SourceError, SourceUnreadable
from tiling.findings import Findings

_MAGIC = b"PAR1"
_DEFAULT_CRS = "OGC:CRS84"
_MAX_ROWS = 65_536
_UTF8 = EncodingDecision("UTF-8", "the format prescribes it", "certain")
# How deep lists nest around the coordinates of GeoArrow's native encodings.
_NATIVE_DEPTH = {
    "point": (shapely.GeometryType.POINT, 0),
    "linestring": (shapely.GeometryType.LINESTRING, 1),
    "polygon": (shapely.GeometryType.POLYGON, 2),
    "multipoint": (shapely.GeometryType.MULTIPOINT, 1),
    "multilinestring": (shapely.GeometryType.MULTILINESTRING, 2),
    "multipolygon": (shapely.GeometryType.MULTIPOLYGON, 3),
}


class GeoParquetReader(Closing):
    """Reads GeoParquet files."""

    name: ClassVar[str] = "geoparquet"
    kind: ClassVar[Kind] = "vector"

    def __init__(self, path: Path, options: ReadOptions | None = None) -> None:
        self.path = Path(path)
        self.options = options or ReadOptions()
        self.findings = Findings()
        self._file: pq.ParquetFile | None = None
        self._info: SourceInfo | None = None
        self._geo: dict[str, Any] = {}

    @classmethod
    def sniff(cls, path: Path) -> bool:
        """Say whether the file begins like Parquet."""
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(4) == _MAGIC

    def info(self) -> SourceInfo:
        """Return what the file holds, from its footer (and the geometry column where needed)."""
        if self._info is None:
            notes = Findings()
            layer = self._describe(self._open(), notes)
            nbytes = self.path.stat().st_size
            self._info = SourceInfo(
                self.path, self.name, self.kind, (layer,), (self.path,), nbytes, tuple(notes)
            )
            self.findings.merge(notes)
        return self._info

    def batches(
        self,
        columns: Sequence[str] | None = None,
        region: Extent | None = None,
        max_nbytes: int = DEFAULT_BATCH_NBYTES,
    ) -> Iterator[FeatureBatch]:
        """Yield the features in file order; see `SourceReader.batches`."""
        info = self.info()
        layer = info.layers[0]
        if self.options.layer not in (None, layer.name):
            raise SourceError(
                f"there is no layer {self.options.layer!r}",
                source=self.path,
                remedy=f"a GeoParquet file has one: {layer.name!r}",
            )
        self.findings = Findings()
        self.findings.merge(info.findings)
        ref = frame_of(layer, self.path)
        stream = FeatureStream(self.path, ref, columns, region, layer, self.findings)
        geometry = self._geo["primary_column"]
        ordinal = 0
        for batch in self._record_batches([*stream.columns, geometry], max_nbytes):
            arrays = [plain_column(batch.column(c)) for c in stream.columns]
            table = (
                pa.table(arrays, names=list(stream.columns))
                if arrays
                else pa.table({"": pa.nulls(batch.num_rows)}).select([])
            )
            features = stream.from_decoded(ordinal, self._decode(batch.column(geometry)), table)
            ordinal += batch.num_rows
            if len(features):
                yield from features.split(max_nbytes)

    def _record_batches(self, columns: list[str], max_nbytes: int) -> Iterator[pa.RecordBatch]:
        file = self._open()
        meta = file.metadata
        raw = sum(meta.row_group(i).total_byte_size for i in range(meta.num_row_groups))
        rows = min(_MAX_ROWS, max(1, max_nbytes // max(64, 2 * raw // max(1, meta.num_rows))))
        try:
            yield from file.iter_batches(batch_size=rows, columns=columns)
        except (pa.ArrowException, OSError) as error:
            raise self._damaged(error) from error

    def _open(self) -> pq.ParquetFile:
        if self._file is None:
            try:
                self._file = pq.ParquetFile(self.path)
            except (pa.ArrowException, OSError) as error:
                raise self._damaged(error) from error
            self._geo = self._geo_metadata(self._file)
        return self._file

    def _damaged(self, error: Exception) -> SourceUnreadable:
        return SourceUnreadable(
            f"damaged or cut short (parquet): {error}",
            source=self.path,
            remedy="copy or export it again",
        )

    def _geo_metadata(self, file: pq.ParquetFile) -> dict[str, Any]:
        text = (file.schema_arrow.metadata or {}).get(b"geo")
        if text is None:
            raise SourceUnreadable(
                "a Parquet file without 'geo' metadata: nobody says which column is geometry",
                source=self.path,
                remedy="write it as GeoParquet 1.0 or 1.1 (GeoPandas, GDAL and DuckDB do)",
            )
        try:
            geo: dict[str, Any] = json.loads(text)
            column = geo["columns"][geo["primary_column"]]
            encoding = column.get("encoding", "WKB")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SourceUnreadable(
                f"its 'geo' metadata is no GeoParquet metadata: {error!r}",
                source=self.path,
                remedy="write it again as GeoParquet 1.0 or 1.1",
            ) from error
        if geo["primary_column"] not in file.schema_arrow.names:
            raise SourceUnreadable(
                f"its geometry column {geo['primary_column']!r} does not exist",
                source=self.path,
                remedy=f"columns: {', '.join(file.schema_arrow.names)}",
            )
        if encoding != "WKB" and encoding not in _NATIVE_DEPTH:
            raise GeometryInvalid(
                f"unknown geometry encoding {encoding!r}",
                source=self.path,
                remedy="write it with WKB geometry",
            )
        return geo

    def _describe(self, file: pq.ParquetFile, notes: Findings) -> LayerInfo:
        primary = self._geo["primary_column"]
        column = self._geo["columns"][primary]
        covering = column.get("covering", {}).get("bbox", {})
        skipped = {primary, *(path[0] for path in covering.values())}
        schema = [f for f in file.schema_arrow if f.name not in skipped]
        nested = [f.name for f in schema if is_nested(f.type) or is_json(f.type)]
        notes.add(
            "nested-as-json",
            "info",
            "fields with structures are kept as JSON text",
            len(nested),
            nested,
        )
        crs = column.get("crs", _DEFAULT_CRS)
        if "crs" not in column and self.options.crs is None:
            notes.add(
                "crs-by-format",
                "assumption",
                "the GeoParquet states no CRS, so it is OGC:CRS84 by its specification",
            )
        stated = json.dumps(crs) if isinstance(crs, dict) else crs
        geometry_type, has_z, extent = self._survey(file, primary)
        fields = tuple(FieldInfo(f.name, str(plain_type(f.type))) for f in schema)
        return LayerInfo(
            self.path.stem,
            geometry_type,
            file.metadata.num_rows,
            fields,
            extent,
            resolve_frame(stated, self.options, notes),
            _UTF8,
            has_z,
            {"format": "geoparquet", "driver": f"GeoParquet {self._geo.get('version', '1.0')}"},
        )

    def _survey(self, file: pq.ParquetFile, primary: str) -> tuple[str | None, bool, Extent | None]:
        """Return geometry type, Z and extent from the geometry itself.

        The metadata may list no types and hold a stale box; one pass over one column is cheap.
        """
        codes: set[int] = set()
        has_z = False
        boxes = []
        for batch in self._record_batches([primary], DEFAULT_BATCH_NBYTES):
            decoded = self._decode(batch.column(0))
            present = decoded.geometry[~shapely.is_missing(decoded.geometry)]
            found, _ = type_codes(pa.array(shapely.to_wkb(present), type=pa.binary()))
            codes.update(np.unique(found).tolist())
            has_z = has_z or bool(shapely.has_z(present).any())
            boxes.append(shapely.total_bounds(present))
        stacked = np.array([b for b in boxes if np.isfinite(b).all()])
        if not len(stacked):
            return summarise_types(codes) or "Geometry", has_z, None
        xmin, ymin = stacked[:, :2].min(axis=0).tolist()
        xmax, ymax = stacked[:, 2:].max(axis=0).tolist()
        return summarise_types(codes) or "Geometry", has_z, (xmin, ymin, xmax, ymax)

    def _decode(self, column: pa.Array) -> Decoded:
        encoding = self._geo["columns"][self._geo["primary_column"]].get("encoding", "WKB")
        if encoding == "WKB":
            return decode_wkb(plain_column(column), self._refuse_arcs)
        return _native(column, encoding)

    def _refuse_arcs(self, rows: NDArray[np.bool_]) -> NDArray[np.object_]:
        raise GeometryInvalid(
            f"{int(rows.sum())} geometries have arcs, which GeoParquet does not allow",
            source=self.path,
            remedy="convert them first: ogr2ogr -nlt CONVERT_TO_LINEAR",
        )

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
        self._file, self._info = None, None


def _native(column: pa.Array, encoding: str) -> Decoded:
    """Turn a GeoArrow column (nested lists of coordinate structs) into geometries."""
    if isinstance(column.type, pa.BaseExtensionType):
        column = column.storage
    missing = column.is_null().to_numpy(zero_copy_only=False)
    values = column.drop_null()
    kind, depth = _NATIVE_DEPTH[encoding]
    offsets: list[NDArray[np.int64]] = []
    for _ in range(depth):
        lengths = np.asarray(values.value_lengths().to_numpy(zero_copy_only=False))
        offsets.append(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
        values = values.flatten()
    ordinates = [values.field(i).to_numpy() for i in range(values.type.num_fields)]
    names = [values.type.field(i).name for i in range(values.type.num_fields)]
    xyz = [ordinates[names.index(n)] for n in ("x", "y", "z") if n in names]
    # shapely wants the innermost offsets first.
    found = shapely.from_ragged_array(kind, np.column_stack(xyz), tuple(offsets[::-1]) or None)
    geometry = np.full(len(missing), None, dtype=object)
    geometry[~missing] = found
    none = np.zeros(len(missing), dtype=bool)
    measured = ~missing if "m" in names else none
    null = missing | shapely.is_empty(geometry)
    return Decoded(geometry, null, none, none, none, measured)
