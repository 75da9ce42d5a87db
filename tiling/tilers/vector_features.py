"""The first pass of vector tiling: features into Web Mercator, measured once and spooled.

Whatever later steps decide (zoom range, size of units, who is too small for a zoom) follows from
the `Summary` of all features, so neither the size of the batches nor a resumed run shows in the
tiles.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from numpy.typing import NDArray

from tiling.batches import LAYER_COLUMN, FeatureBatch
from tiling.bounds import Region
from tiling.coords import morton2
from tiling.crs import TILE_REF, SpatialRef
from tiling.errors import FieldInvalid, NothingToTile, TilingError
from tiling.findings import Finding, Findings
from tiling.formats.mvt import field_types, plain_attributes
from tiling.formats.mvt_geometry import POINT, POLYGON, geometry_kinds
from tiling.schemes import MERCATOR_MAX_LAT_DEG, WEB_MERCATOR_QUAD
from tiling.tilers.base import Progress
from tiling.tilers.clipping import clip_by_rect
from tiling.tilers.extsort import Spool, SpoolWriter
from tiling.tilers.label_points import inner_points, label_points
from tiling.tilers.layer_attributes import chosen_attributes, importance
from tiling.tilers.layer_rules import LayerRules
from tiling.tilers.simplify import WORLD_M, cells_of, of_dimension, thickened
from tiling.tilers.vector_selection import Outlines
from tiling.tilers.zoom_range import Measure, crowding, default_zooms, quantiles

MERCATOR_REF = SpatialRef.parse("EPSG:3857")
# Columns beside the attributes. "\x00" cannot begin a field of any source format. The masks (bit z
# for zoom z: is it drawn, is it drawn as a pixel) are added when features are sorted into cells.
SIZE, HOME_X, HOME_Y, LABEL_X, LABEL_Y, RANK, LAYER, SHOWN, DUST = (
    f"\x00{name}"
    for name in ("size", "home_x", "home_y", "label_x", "label_y", "rank", "layer", "shown", "dust")
)
OWN_COLUMNS = (SIZE, HOME_X, HOME_Y, LABEL_X, LABEL_Y, RANK, LAYER)
KEY_LEVEL = 16
_SUMMARY = "summary.json"
_THIN = "polygons thinner than a micrometre are made two millimetres wide in the tiles"


@dataclass(slots=True)
class Summary:
    """What the first pass learnt.

    Attributes:
        features, coordinates, points, polygons: counts.
        bounds: degrees: west, south, east, north.
        size_m: 101 quantiles of the features' sizes (see `SIZE`), Web Mercator metres.
        segment_m: 101 quantiles of the features' mean segment lengths, Web Mercator metres.
        crowd, mass: per level 0 .. `KEY_LEVEL` the most features, and the most coordinates, that
            lie (by their centres) in one cell.
        layers: per layer name the features, the kinds of geometry (1 point, 2 line, 3 polygon),
            per field its type in ``vector_layers``, and the zooms that suit the layer
            (`zoom_range.default_zooms`).
        findings: JSON of what was dropped and repaired.
    """

    features: int = 0
    coordinates: int = 0
    points: int = 0
    polygons: int = 0
    bounds: list[float] = field(default_factory=list)
    size_m: list[float] = field(default_factory=list)
    segment_m: list[float] = field(default_factory=list)
    crowd: list[int] = field(default_factory=list)
    mass: list[int] = field(default_factory=list)
    layers: dict[str, dict[str, Any]] = field(default_factory=dict)
    findings: list[dict[str, Any]] = field(default_factory=list)

    @property
    def region(self) -> Region:
        """The bounds as a region of no height."""
        return Region(*self.bounds)


def spool_features(
    batches: Iterable[FeatureBatch],
    folder: Path,
    layer: str,
    id_column: str | None,
    run_nbytes: int,
    progress: Progress,
    rules: LayerRules,
    labels: bool = False,
) -> tuple[Spool, Summary]:
    """Project, measure and spool every feature; a finished spool in `folder` is taken as it is.

    Args:
        batches: features in longitude and latitude.
        folder: where the spool rests.
        layer: the layer of features that name none in `LAYER_COLUMN`.
        id_column: an integer column that replaces the ordinals as feature ids.
        run_nbytes: memory of one sorted run.
        progress: counts features.
        rules: what is declared of layers.
        labels: polygons will be labelled, so their visual centres are sought.

    Returns:
        a spool keyed by the Morton index of each feature's centre at level `KEY_LEVEL`, geometry
        in Web Mercator metres, with `Outlines` beside it; what was learnt.

    Raises:
        NothingToTile: there is no feature.
        FieldInvalid: `id_column` is missing, no integer, null, negative or not unique; a rule
            names a field that cannot serve it.
        TilingError: the batches are not in longitude and latitude.
    """
    path = folder / _SUMMARY
    if Spool.is_finished(folder) and path.exists():
        return Spool(folder), Summary(**json.loads(path.read_text(encoding="utf-8")))
    path.unlink(missing_ok=True)
    writer = SpoolWriter.create(folder, run_nbytes)
    pass_ = _Pass(layer, id_column, rules, labels)
    progress.begin("measure features")
    for batch in batches:
        progress.advance(len(batch))
        ready, keys = pass_.take(batch)
        if len(ready):
            writer.add(ready, keys)
    summary = pass_.summary()
    spool = writer.finish()
    pass_.outlines().save(folder)
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(asdict(summary), ensure_ascii=False), encoding="utf-8")
    partial.rename(path)
    return spool, summary


class _Pass:
    def __init__(self, layer: str, id_column: str | None, rules: LayerRules, labels: bool) -> None:
        self.layer = layer
        self.place = label_points if labels else inner_points
        self.id_column = id_column
        self.rules = rules
        self.total = Summary()
        self.findings = Findings()
        self.records: list[NDArray[np.void]] = []
        self.segments: list[NDArray[np.float64]] = []
        self.boxes: list[NDArray[np.float64]] = []
        self.counts: list[NDArray[np.int64]] = []
        self.stated_ids: list[NDArray[np.int64]] = []  # of `id_column`, to see them unique
        self.fields: dict[str, None] = {}  # in the order of the schema
        self.layers: dict[str, int] = {}  # numbers, in the order in which layers turned up

    def take(self, batch: FeatureBatch) -> tuple[FeatureBatch, NDArray[np.uint64]]:
        if not batch.ref.same_horizontal(TILE_REF):
            raise TilingError(
                f"vector tiles are made of longitude and latitude, not of {batch.ref.code}; "
                "reframe the batches first"
            )
        batch = self._clean(batch)
        geometry = np.asarray(shapely.transform(batch.geometry, to_mercator), dtype=object)
        kinds = geometry_kinds(geometry)
        geometry, thin = thickened(geometry, kinds)
        self.findings.add("polygon-too-thin", "repair", _THIN, len(thin), batch.ids[thin].tolist())
        bounds = shapely.bounds(geometry)
        size = np.where(
            kinds == POLYGON,
            np.sqrt(shapely.area(geometry)),
            np.maximum(bounds[:, 2] - bounds[:, 0], bounds[:, 3] - bounds[:, 1]),
        )
        size[kinds == POINT] = 0.0
        table = self._attributes(batch, geometry, kinds, size)
        self._measure(batch, geometry, kinds)
        middle = (bounds[:, :2] + bounds[:, 2:]) / 2
        keys = morton2(*cells_of(middle[:, 0], middle[:, 1], KEY_LEVEL))
        ids = self._ids(batch)
        self.records.append(self._outlines(ids, keys, kinds, table))
        return FeatureBatch(MERCATOR_REF, ids, geometry, table), keys

    def _outlines(
        self,
        ids: NDArray[np.int64],
        keys: NDArray[np.uint64],
        kinds: NDArray[np.int64],
        table: pa.Table,
    ) -> NDArray[np.void]:
        coded = table.column(LAYER).combine_chunks().dictionary_encode()
        names = coded.dictionary.to_pylist()
        numbers = np.array([self.layers.setdefault(n, len(self.layers)) for n in names], int)
        place = np.stack([table.column(name).to_numpy() for name in (LABEL_X, LABEL_Y)])
        size, rank = table.column(SIZE).to_numpy(), table.column(RANK).to_numpy()
        layers = numbers[coded.indices.to_numpy()]
        return Outlines.of(keys, ids, layers, kinds, size, place, rank)

    def outlines(self) -> Outlines:
        return Outlines.gathered(self.records)

    def _clean(self, batch: FeatureBatch) -> FeatureBatch:
        geometry = np.asarray(shapely.force_2d(batch.geometry), dtype=object)
        kinds = np.maximum(1, shapely.get_dimensions(geometry) + 1)
        # A line is drawn as it is: only areas can contradict themselves.
        broken = np.flatnonzero((kinds == POLYGON) & ~shapely.is_valid(geometry))
        if len(broken):
            geometry[broken] = shapely.make_valid(geometry[broken], method="structure")
            self.findings.add(
                "geometry-repaired",
                "repair",
                "invalid geometries were made valid",
                len(broken),
                batch.ids[broken].tolist(),
            )
        geometry = of_dimension(geometry, kinds)
        bounds = shapely.bounds(geometry)
        polar = np.flatnonzero(np.abs(bounds[:, [1, 3]]).max(axis=1) > MERCATOR_MAX_LAT_DEG)
        if len(polar):
            limit = MERCATOR_MAX_LAT_DEG
            clipped = clip_by_rect(geometry[polar], -180.0, -limit, 180.0, limit)
            geometry[polar] = of_dimension(clipped, kinds[polar])
            self.findings.add(
                "outside-mercator",
                "warning",
                "features reach beyond 85.05 degrees of latitude and are cut there",
                len(polar),
                batch.ids[polar].tolist(),
            )
        empty = shapely.is_empty(geometry)
        if empty.any():
            self.findings.add(
                "geometry-empty",
                "drop",
                "features without geometry are not in the tiles",
                int(empty.sum()),
                batch.ids[empty].tolist(),
            )
        cleaned = FeatureBatch(batch.ref, batch.ids, geometry, batch.attributes)
        return cleaned.take(~empty) if empty.any() else cleaned

    def _ids(self, batch: FeatureBatch) -> NDArray[np.int64]:
        if self.id_column is None:
            return batch.ids
        if self.id_column not in batch.attributes.column_names:
            raise FieldInvalid(
                f"there is no field {self.id_column!r} for the feature ids",
                remedy=f"name one of {', '.join(batch.attributes.column_names)}",
            )
        column = batch.attributes.column(self.id_column)
        if not pa.types.is_integer(column.type) or column.null_count or _any_negative(column):
            raise FieldInvalid(
                f"field {self.id_column!r} ({column.type}) cannot be the feature id: ids are "
                "whole, not negative and never null",
                remedy="name another field, or none",
            )
        ids = np.asarray(column.to_numpy(), dtype=np.int64)
        self.stated_ids.append(ids)
        return ids

    def _require_unique_ids(self) -> None:
        if not self.stated_ids:
            return
        ids, counts = np.unique(np.concatenate(self.stated_ids), return_counts=True)
        if (counts > 1).any():
            raise FieldInvalid(
                f"field {self.id_column!r} cannot be the feature id: {int((counts > 1).sum())} "
                f"values repeat, e.g. {ids[counts > 1][0]}",
                remedy="name another field, or none",
            )

    def _attributes(
        self,
        batch: FeatureBatch,
        geometry: NDArray[np.object_],
        kinds: NDArray[np.int64],
        size: NDArray[np.float64],
    ) -> pa.Table:
        source = batch.attributes
        names = pa.chunked_array([pa.array([self.layer] * len(batch), pa.large_string())])
        if LAYER_COLUMN in source.column_names:
            stated = pc.cast(source.column(LAYER_COLUMN), pa.large_string())
            names = pc.coalesce(stated, pa.scalar(self.layer, pa.large_string()))
            source = source.drop_columns([LAYER_COLUMN])
        rank = importance(source, names, self.rules)
        source = chosen_attributes(source, names, self.rules)
        table, omitted = plain_attributes(source)
        for name in omitted:
            self.findings.add(
                "attribute-omitted",
                "drop",
                f"field {name!r} is binary: vector tiles have no such values",
                len(batch),
            )
        self._count_not_finite(source)
        self._count_fields(names, table, kinds)
        home = _first_points(geometry)
        label = home.copy()
        areas = np.flatnonzero(kinds == POLYGON)
        label[areas] = self.place(geometry[areas])
        own = [size, home[:, 0], home[:, 1], label[:, 0], label[:, 1], rank]
        for name, values in zip(OWN_COLUMNS, own, strict=False):
            table = table.append_column(name, pa.array(values))
        return table.append_column(LAYER, names)

    def _count_not_finite(self, table: pa.Table) -> None:
        for name, column in zip(table.column_names, table.columns, strict=True):
            if pa.types.is_floating(column.type):
                strange = pc.sum(pc.invert(pc.is_finite(column))).as_py() or 0
                self.findings.add(
                    "number-not-finite",
                    "drop",
                    f"field {name!r}: NaN and infinite values are absent from the tiles",
                    strange,
                )

    def _count_fields(self, names: Any, table: pa.Table, kinds: NDArray[np.int64]) -> None:
        types = field_types(table.schema)
        self.fields.update(dict.fromkeys(types))
        for name in pc.unique(names).to_pylist():
            mask = pc.equal(names, name)
            entry = self.total.layers.setdefault(
                name, {"features": 0, "fields": {}, "geometries": []}
            )
            entry["features"] += pc.sum(mask).as_py()
            found = {*entry["geometries"], *kinds[mask.to_numpy()].tolist()}
            entry["geometries"] = sorted(found)
            for field_name, word in types.items():
                valid = pc.and_(mask, pc.is_valid(table.column(field_name)))
                # A field is declared only when a tile holds it.
                if pc.any(valid).as_py():
                    entry["fields"].setdefault(field_name, word)

    def _measure(
        self, batch: FeatureBatch, geometry: NDArray[np.object_], kinds: NDArray[np.int64]
    ) -> None:
        counts = shapely.get_num_coordinates(geometry)
        self.counts.append(counts.astype(np.int64))
        self.total.features += len(batch)
        self.total.coordinates += int(counts.sum())
        self.total.points += int((kinds == POINT).sum())
        self.total.polygons += int((kinds == POLYGON).sum())
        lengths = shapely.length(geometry)
        segments = np.where(kinds == POINT, np.nan, lengths / np.maximum(counts - 1, 1))
        self.segments.append(segments)
        if len(batch):
            self.boxes.append(shapely.total_bounds(batch.geometry))

    def summary(self) -> Summary:
        total = self.total
        if not total.features:
            raise NothingToTile(
                "there is no feature with a geometry", remedy="check the layer and its filter"
            )
        self._require_unique_ids()
        boxes = np.stack(self.boxes)
        total.bounds = [*boxes[:, :2].min(axis=0).tolist(), *boxes[:, 2:].max(axis=0).tolist()]
        records, segments = np.concatenate(self.records), np.concatenate(self.segments)
        counts = np.concatenate(self.counts)
        total.size_m, total.segment_m = quantiles(records["size"]), quantiles(segments)
        total.crowd, total.mass = crowding(records["key"], counts, KEY_LEVEL)
        for name, number in self.layers.items():
            own = records["layer"] == number
            total.layers[name]["number"] = number
            total.layers[name]["zooms"] = default_zooms(
                Measure(
                    int(own.sum()),
                    int((records["kind"][own] == POINT).sum()),
                    quantiles(records["size"][own]),
                    quantiles(segments[own]),
                    crowding(records["key"][own], counts[own], KEY_LEVEL)[0],
                )
            )
        for entry in total.layers.values():
            found = entry["fields"]
            # The order of the schema, not the one in which values turned up.
            entry["fields"] = {name: found[name] for name in self.fields if name in found}
        total.findings = self.findings.to_json()
        return total


def to_mercator(lonlat: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (N, 2) longitudes and latitudes in degrees as Web Mercator metres."""
    u, v = WEB_MERCATOR_QUAD.position(lonlat[:, 0], lonlat[:, 1], 0)
    return np.stack([(u - 0.5) * WORLD_M, (0.5 - v) * WORLD_M], axis=1)


def _first_points(geometry: NDArray[np.object_]) -> NDArray[np.float64]:
    coordinates, owner = shapely.get_coordinates(geometry, return_index=True)
    starts = np.flatnonzero(np.diff(owner, prepend=-1))
    return np.asarray(coordinates[starts], dtype=np.float64)


def _any_negative(column: pa.ChunkedArray) -> bool:
    return bool(pc.any(pc.less(column, 0)).as_py())


def restore_findings(summary: Summary, findings: Findings) -> None:
    """Add what the first pass found, also when it ran in an earlier process."""
    findings.merge(Finding.from_json(f) for f in summary.findings)
