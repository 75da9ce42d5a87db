"""Features out of their resting GeoParquet into exchange formats.

Columns stream through Arrow into GDAL, a row group at a time. What a format cannot hold (long
field names and texts of Shapefiles, characters that an encoding lacks) is decided here, where it
can be counted, and never left to the driver.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from numpy.typing import NDArray
from pyogrio.errors import DataLayerError, DataSourceError, FeatureError, FieldError, GeometryError
from pyogrio.raw import write_arrow

from ingest.export_text import fit_names, fit_text, legal_encoding
from tiling.batches import FeatureBatch
from tiling.crs import SpatialRef
from tiling.errors import ConfigError, StoreError
from tiling.findings import Findings
from tiling.formats.geoparquet import read_geoparquet
from tiling.formats.geoparquet_footer import geometry_types
from tiling.formats.json_text import json_text

_GEOMETRY = "cim_wkb"
_DRIVER_ERRORS = (DataLayerError, DataSourceError, FeatureError, FieldError, GeometryError)


@dataclass(frozen=True, slots=True)
class _Driver:
    """What a format can hold.

    Attributes:
        name: GDAL's driver.
        ending: of the file.
        options: layer creation options.
        mixed: takes geometries of several types.
        binary: takes binary fields.
        times: takes date-times; text is written otherwise.
        nan: takes NaN and infinity.
        name_nbytes: longest field name, in the encoding; 0 for any.
    """

    name: str
    ending: str
    options: dict[str, str]
    mixed: bool = True
    binary: bool = False
    times: bool = True
    nan: bool = True
    name_nbytes: int = 0


DRIVERS: dict[str, _Driver] = {
    # A geometry column and a key whose names no attribute will have.
    "gpkg": _Driver(
        "GPKG",
        ".gpkg",
        {"GEOMETRY_NAME": "cim_geometry", "FID": "cim_fid"},
        binary=True,
    ),
    "shp": _Driver(
        "ESRI Shapefile",
        ".shp",
        {},
        mixed=False,
        times=False,
        name_nbytes=10,
    ),
    # Nine decimals of a degree are a tenth of a millimetre.
    "geojson": _Driver("GeoJSON", ".geojson", {"COORDINATE_PRECISION": "9"}, nan=False),
    "fgb": _Driver("FlatGeobuf", ".fgb", {}),
}
FORMATS = (*DRIVERS, "geoparquet")


def export_features(
    source: Path,
    out: Path,
    format: str,
    *,
    encoding: str = "UTF-8",
    findings: Findings,
) -> int:
    """Write the features of a GeoParquet store into another format.

    Args:
        source: a file that `write_geoparquet` made.
        out: the file to make; it and its companions (.shx, .dbf, .prj, .cpg) appear when complete.
        format: one of `FORMATS`.
        encoding: text encoding of Shapefiles, e.g. ``GBK``; the others are always UTF-8.
        findings: receives names and texts that were cut or replaced, and fields left out.

    Returns:
        the number of features written.

    Raises:
        ConfigError: an unknown format or encoding; geometries of several types for a Shapefile.
        StoreError: the source is damaged, or the file cannot be written.
    """
    if format == "geoparquet":
        return _copy(source, out)
    if format not in DRIVERS:
        raise ConfigError(f"features cannot be written as {format!r}; use {', '.join(FORMATS)}")
    driver = DRIVERS[format]
    stage = out.with_name(f".{out.name}.part")
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir(parents=True)
    try:
        export = _Export(source, driver, legal_encoding(encoding), findings)
        written = stage / f"{out.stem}{driver.ending}"
        export.write(written)
        _publish(written, out)
        return export.rows
    finally:
        shutil.rmtree(stage, ignore_errors=True)


class _Export:
    def __init__(self, source: Path, driver: _Driver, encoding: str, findings: Findings) -> None:
        self.source = source
        self.driver = driver
        self.encoding = encoding if driver.name_nbytes else "UTF-8"
        self.findings = findings
        self.rows = 0
        self.multi, self.geometry_type = _geometry_type(source, driver)

    def write(self, path: Path) -> None:
        batches = read_geoparquet(self.source)
        first = next(batches, None)
        if first is None:
            raise StoreError(f"{self.source}: it holds no feature")
        self.names = self._names(first.attributes)
        head = self._record(first)
        reader = pa.RecordBatchReader.from_batches(head.schema, self._records(head, batches))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                write_arrow(
                    reader,
                    str(path),
                    layer=_layer_name(path.stem),
                    driver=self.driver.name,
                    geometry_name=_GEOMETRY,
                    geometry_type=self.geometry_type,
                    crs=_crs_text(first.ref),
                    encoding=self.encoding if self.driver.name_nbytes else None,
                    layer_options=self.driver.options or None,
                )
            except (*_DRIVER_ERRORS, OSError) as error:
                raise StoreError(f"{path}: cannot write: {error}") from error
        for warning in caught:
            self.findings.add("gdal-warning", "warning", str(warning.message))

    def _records(
        self, head: pa.RecordBatch, batches: Iterator[FeatureBatch]
    ) -> Iterator[pa.RecordBatch]:
        yield head
        for batch in batches:
            yield self._record(batch).cast(head.schema)

    def _names(self, table: pa.Table) -> dict[str, str]:
        kept = []
        for field in table.schema:
            if _is_binary(field.type) and not self.driver.binary:
                self.findings.add(
                    "field-left-out",
                    "drop",
                    f"field {field.name!r} is binary: {self.driver.name} has no such fields",
                )
            else:
                kept.append(field.name)
        names = fit_names(kept, self.driver.name_nbytes, self.encoding)
        changed = [f"{old} -> {new}" for old, new in names.items() if old != new]
        self.findings.add(
            "field-name-truncated",
            "repair",
            f"{self.driver.name} cannot hold these field names; they were shortened or numbered",
            len(changed),
            changed,
        )
        return names

    def _record(self, batch: FeatureBatch) -> pa.RecordBatch:
        self.rows += len(batch)
        columns, fields = [], []
        for old, new in self.names.items():
            column = self._column(old, batch.attributes.column(old).combine_chunks())
            columns.append(column)
            fields.append(pa.field(new, column.type))
        geometry = _multi(batch.geometry) if self.multi else batch.geometry
        columns.append(pa.array(shapely.to_wkb(geometry, flavor="iso"), pa.binary()))
        fields.append(
            pa.field(_GEOMETRY, pa.binary(), metadata={"ARROW:extension:name": "geoarrow.wkb"})
        )
        return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))

    def _column(self, name: str, array: pa.Array) -> pa.Array:
        column = _writable(array, self.driver.times)
        if not self.driver.nan and pa.types.is_floating(column.type):
            return self._without_nan(name, column)
        if self.driver.name_nbytes and pa.types.is_string(column.type):
            return fit_text(column, name, self.encoding, self.findings)
        return column

    def _without_nan(self, name: str, column: pa.Array) -> pa.Array:
        known = pc.fill_null(pc.is_finite(column), True)
        self.findings.add(
            "number-left-out",
            "drop",
            f"field {name!r}: {self.driver.name} has no NaN and no infinity; null was written",
            len(column) - pc.sum(known.cast(pa.int64())).as_py() if len(column) else 0,
        )
        return pc.if_else(known, column, pa.scalar(None, column.type))


def _geometry_type(source: Path, driver: _Driver) -> tuple[bool, str]:
    # Returns whether geometries are made multi, and the type of the layer.
    stated = geometry_types(source)
    depth = " Z" if any(t.endswith(" Z") for t in stated) else ""
    plain = {t.removesuffix(" Z") for t in stated}
    bases = {t.removeprefix("Multi") for t in plain}
    if len(bases) == 1 and "GeometryCollection" not in bases:
        multi = len(plain) == 2
        return multi, (f"Multi{bases.pop()}" if multi else plain.pop()) + depth
    if not driver.mixed:
        raise ConfigError(
            f"{driver.name} holds one type of geometry, this asset has {', '.join(sorted(plain))}; "
            "use gpkg or geojson"
        )
    return False, "Unknown"


def _multi(geometry: NDArray[np.object_]) -> NDArray[np.object_]:
    result = geometry.copy()
    kinds = shapely.get_type_id(geometry)
    joins: tuple[tuple[int, Callable[..., Any]], ...] = (
        (0, shapely.multipoints),
        (1, shapely.multilinestrings),
        (3, shapely.multipolygons),
    )
    for kind, join in joins:
        single = np.flatnonzero(kinds == kind)
        if len(single):
            result[single] = join(geometry[single], indices=np.arange(len(single)))
    return result


def _writable(array: pa.Array, times: bool) -> pa.Array:
    # Types that GDAL's Arrow writer and every driver here take.
    kind = array.type
    if pa.types.is_dictionary(kind):
        return _writable(array.dictionary_decode(), times)
    if pa.types.is_nested(kind):
        return pc.cast(json_text(array), pa.string())
    if pa.types.is_null(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pc.cast(array, pa.string())
    if pa.types.is_uint64(kind):
        # GDAL's widest integer is signed; what part of the column would fit shows only at its end.
        return pc.cast(array, pa.string())
    if pa.types.is_unsigned_integer(kind) or pa.types.is_duration(kind):
        return pc.cast(array, pa.int64())
    if pa.types.is_float16(kind) or pa.types.is_decimal(kind):
        return pc.cast(array, pa.float64())
    if pa.types.is_time(kind) or (pa.types.is_timestamp(kind) and not times):
        return pc.cast(array, pa.string())
    return array


def _is_binary(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
    )


def _layer_name(stem: str) -> str:
    # GeoPackage keeps names that begin with its own for itself.
    return f"layer_{stem}" if stem.casefold().startswith("gpkg") else stem


def _crs_text(ref: SpatialRef) -> str:
    code = ref.horizontal_code
    return code if code.startswith("EPSG:") else str(ref.crs.to_wkt())


def _publish(written: Path, out: Path) -> None:
    # The file that names the dataset comes last: with it the companions are complete.
    companions = sorted(p for p in written.parent.iterdir() if p != written)
    for path in companions:
        path.replace(out.with_name(out.stem + path.name[len(written.stem) :]))
    written.replace(out)


def _copy(source: Path, out: Path) -> int:
    rows = sum(len(batch) for batch in read_geoparquet(source, columns=()))
    partial = out.with_name(out.name + ".part")
    try:
        shutil.copyfile(source, partial)
        partial.replace(out)
    except OSError as error:
        raise StoreError(f"{out}: cannot write: {error}") from error
    finally:
        partial.unlink(missing_ok=True)
    return rows
