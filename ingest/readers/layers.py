"""The layers of a dataset: names, types, extent, frame; looked at once, before reading."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyogrio
from numpy.typing import NDArray
from pyogrio.raw import open_arrow

from ingest.encoding import codec, decode
from ingest.readers.base import Extent, FieldInfo, LayerInfo, ReadOptions
from ingest.readers.columns import is_json, is_nested, plain_type, unique_names
from ingest.readers.dataset import Dataset, gdal
from ingest.readers.frames import resolve_frame
from ingest.readers.wkb import GEOMETRY_TYPES, summarise_types, type_codes
from tiling.crs import SpatialRef
from tiling.errors import CrsMissing, GeometryInvalid, SourceError, SourceUnreadable
from tiling.findings import Findings

_CRS_MEMBER = b'"crs"'
_SCAN_ROWS = 65_536


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer and what is needed to read it.

    Attributes:
        info: what readers tell about it.
        dataset: where it lies.
        name_in_dataset: GDAL's name or number for it.
        source_names: (name in `info.fields`, name GDAL knows), in the source's order.
        refusal: why it cannot be read, if so.
    """

    info: LayerInfo
    dataset: Dataset
    name_in_dataset: str | int
    source_names: tuple[tuple[str, str], ...] = ()
    refusal: SourceError | None = None

    def damaged(self, fids: NDArray[np.int64]) -> NDArray[np.bool_] | None:
        """Say which rows must have a geometry: if GDAL then yields none, it is damaged.

        Args:
            fids: (N,) int64 feature ids of GDAL; for Shapefiles the record number.
        """
        if self.dataset.shapefile is None:
            return None
        present: NDArray[np.bool_] = self.dataset.shapefile.content_words()[fids] > 2
        return present


def describe(dataset: Dataset, options: ReadOptions, notes: Findings) -> Iterator[Layer]:
    """Yield the layers of a dataset; what is assumed about them is added to `notes`."""
    for name in _layer_names(dataset, notes):
        try:
            yield _describe_one(dataset, name, options, notes)
        except GeometryInvalid as error:
            # One layer of an exotic type must not keep the others from being read.
            shown = name if isinstance(name, str) else dataset.path.stem
            info = LayerInfo(shown, "unsupported", -1, (), None, None, None, False)
            yield Layer(info, dataset, name, refusal=error)


def _layer_names(dataset: Dataset, notes: Findings) -> list[str | int]:
    if dataset.has_one_layer:
        return [0]
    with gdal(dataset, notes):
        names = [str(name) for name, _ in pyogrio.list_layers(dataset.location)]
    if not names:
        raise SourceUnreadable("it holds no layer", source=dataset.path)
    return list(names)


def _describe_one(
    dataset: Dataset, name: str | int, options: ReadOptions, notes: Findings
) -> Layer:
    with gdal(dataset, notes):
        seen = pyogrio.read_info(
            dataset.location,
            layer=name,
            encoding=dataset.gdal_encoding,
            force_feature_count=True,
            force_total_bounds=True,
            **dataset.open_options,
        )
    geometry_type, has_z = _geometry_type(seen["geometry_type"])
    schema = _schema(dataset, name, notes)
    extra: dict[str, Any] = {"format": dataset.format, "driver": seen["driver"]}
    deleted = dataset.shapefile.deleted_rows() if dataset.shapefile else 0
    features = int(seen["features"]) - deleted
    if geometry_type == "Geometry" and features:
        geometry_type, has_z, extra["geometry_types"] = _scan_types(dataset, name, notes)
    source_names = [f.name for f in schema]
    names = unique_names(_decoded_names(dataset, source_names, notes), notes)
    structured = [
        n for n, f in zip(names, schema, strict=True) if is_nested(f.type) or is_json(f.type)
    ]
    notes.add(
        "nested-as-json",
        "info",
        "fields with structures are kept as JSON text",
        len(structured),
        structured,
    )
    fields = tuple(
        FieldInfo(n, str(plain_type(f.type))) for n, f in zip(names, schema, strict=True)
    )
    info = LayerInfo(
        str(seen["layer_name"]),
        geometry_type,
        features,
        fields,
        _extent(seen["total_bounds"]) if features else None,
        _frame(dataset, seen["crs"], options, notes) if geometry_type else None,
        dataset.encoding,
        has_z,
        extra,
    )
    return Layer(info, dataset, name, tuple(zip(names, source_names, strict=True)))


def _geometry_type(text: str | None) -> tuple[str | None, bool]:
    if text is None:
        return None, False
    words = text.removeprefix("2.5D ").removeprefix("3D ").split(" ")
    has_z = text.startswith(("2.5D", "3D")) or words[-1] in ("Z", "ZM")
    return ("Geometry" if words[0] in ("Unknown", "Measured") else words[0]), has_z


def _schema(dataset: Dataset, name: str | int, notes: Findings) -> list[pa.Field]:
    with (
        gdal(dataset, notes),
        open_arrow(
            dataset.location,
            layer=name,
            encoding=dataset.gdal_encoding,
            read_geometry=False,
            use_pyarrow=True,
            **dataset.open_options,
        ) as (_, stream),
    ):
        return list(stream.schema)


def _scan_types(
    dataset: Dataset, name: str | int, notes: Findings
) -> tuple[str, bool, dict[str, int]]:
    """Return the one type that covers all, whether any has Z, and the rows of each type."""
    codes: Counter[int] = Counter()
    any_z = False
    with (
        gdal(dataset, notes),
        open_arrow(
            dataset.location,
            layer=name,
            columns=[],
            use_pyarrow=True,
            batch_size=_SCAN_ROWS,
            **dataset.open_options,
        ) as (_, stream),
    ):
        for batch in stream:
            found, has_z = type_codes(batch.column(batch.num_columns - 1))
            kinds, rows = np.unique(found[found >= 0], return_counts=True)
            codes.update(dict(zip(kinds.tolist(), rows.tolist(), strict=True)))
            any_z = any_z or bool(has_z.any())
    counts = {GEOMETRY_TYPES.get(c, str(c)): n for c, n in sorted(codes.items())}
    return summarise_types(set(codes)) or "Geometry", any_z, counts


def _decoded_names(dataset: Dataset, names: list[str], notes: Findings) -> list[str]:
    if not dataset.raw_text:
        return names
    python_codec = codec(dataset.encoding.encoding)
    assert python_codec is not None  # the decision was made with it
    decoded = []
    for name in names:
        raw = name.encode("latin-1")
        text, whole = decode(raw, python_codec)
        if not whole or len(text.encode(python_codec, "replace")) < len(raw):
            notes.add(
                "field-name-cut",
                "repair",
                "field names lost a character that the width of the name had cut in half",
                samples=[text],
            )
        decoded.append(text)
    return decoded


def _extent(bounds: Any) -> Extent | None:
    if bounds is None or not all(math.isfinite(v) for v in bounds):
        return None
    xmin, ymin, xmax, ymax = (float(v) for v in bounds)
    return xmin, ymin, xmax, ymax


def _frame(
    dataset: Dataset, stated: str | None, options: ReadOptions, notes: Findings
) -> SpatialRef | None:
    assumed = (
        dataset.format in ("geojson", "geojsonseq")
        and stated == "EPSG:4326"
        and not _has_crs_member(dataset)
    )
    if assumed and options.crs is None:
        notes.add(
            "crs-by-format",
            "assumption",
            "the GeoJSON states no CRS, so it is WGS 84 by RFC 7946 (data from internet maps is "
            "often GCJ-02: declare --crs GCJ-02)",
        )
    return resolve_frame(None if assumed and options.crs else stated, options, notes)


def _has_crs_member(dataset: Dataset) -> bool:
    with open(dataset.location, "rb") as file:
        return _CRS_MEMBER in file.read(64 * 1024)


def choose_layer(path: Path, layers: tuple[Layer, ...], wanted: str | None) -> Layer:
    """Return the layer to read: the one asked for, or the only one with geometry.

    Raises:
        SourceError: it does not exist, it cannot be read, or there are several.
    """
    known = ", ".join(repr(layer.info.name) for layer in layers)
    if wanted is not None:
        found = [layer for layer in layers if layer.info.name == wanted]
        problem = f"there is no layer {wanted!r}"
    else:
        found = [layer for layer in layers if layer.info.geometry_type is not None]
        problem = f"{len(found)} layers with geometry, and none is chosen"
    if len(found) != 1:
        raise SourceError(
            problem, source=path, remedy=f"name one layer of: {known}" if known else ""
        )
    if (refusal := found[0].refusal) is not None:
        raise refusal
    if found[0].info.geometry_type is None:
        raise SourceError(
            f"layer {found[0].info.name!r} is a table without geometry",
            source=path,
            remedy=f"layers: {known}",
        )
    return found[0]


def frame_of(info: LayerInfo, path: Path) -> SpatialRef:
    """Return the layer's frame.

    Raises:
        CrsMissing: it has none.
    """
    if info.ref is None:
        raise CrsMissing(
            f"layer {info.name!r} has no coordinate reference system"
            + (f"; its extent is {info.extent}" if info.extent else ""),
            source=path,
            remedy="declare it: --crs EPSG:4547 (or EPSG:4490, GCJ-02 ...)",
        )
    return info.ref
