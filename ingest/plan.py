"""The plan: what an ingest would do, decided before hours of work, refusals included.

Everything that can be known from headers is decided here: the kind of the asset, the frame of its
coordinates, the vertical datum, which columns hold heights, and whether the data lies where the
user says. A plan that refuses carries every refusal, not only the first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingest.dem_groups import DemGroup, DemSheet, decided_by, group_sheets
from ingest.location import check_location, crs_missing
from ingest.manifest import IngestOptions, Kind
from ingest.readers import open_source
from ingest.readers.base import LayerInfo, ReadOptions, SourceInfo
from ingest.readers.raster import RasterReader
from ingest.tile_layers import EVERY_LAYER, Declared
from tiling.areas import parse_area
from tiling.crs import TILE_REF, SpatialRef
from tiling.errors import (
    ConfigError,
    CrsMissing,
    DatumUndeclared,
    FieldInvalid,
    NothingToTile,
    SourceError,
)
from tiling.findings import Findings
from tiling.geoid import parse_vertical
from tiling.tilers.codecs import Compression

# What only one kind of source needs is imported when there is one: a run holds all that it
# imports in memory, and starts no sooner.
if TYPE_CHECKING:
    from ingest.height_columns import HeightColumns
    from tiling.tilers.layer_rules import LayerRule

COLLECTION_OF_KIND: dict[Kind, str] = {
    "buildings": "buildings",
    "terrain": "terrain",
    "imagery": "imagery",
    "divisions": "admin-divisions",
    "vector": "other",
    "pointcloud": "pointclouds",
}
_CODE_COLUMNS = ("gb", "adcode", "xzqdm", "行政区划代码", "区划代码")
_KINDS_WITH_HEIGHTS: tuple[Kind, ...] = ("buildings", "terrain", "pointcloud")
STEPS: dict[Kind, tuple[str, ...]] = {
    "buildings": (
        "read",
        "reframe",
        "quality",
        "heights",
        "3D Tiles",
        "GeoParquet",
        "index",
        "publish",
    ),
    "terrain": ("read", "COG", "quantized-mesh", "publish"),
    "imagery": ("read", "COG", "publish"),
    "divisions": ("read", "reframe", "quality", "vector tiles", "GeoParquet", "publish"),
    "vector": ("read", "reframe", "quality", "vector tiles", "GeoParquet", "publish"),
    "pointcloud": ("read", "reframe", "3D Tiles", "publish"),
}
STEPS_OF_IMPORT = ("check", "copy", "publish")


@dataclass(frozen=True, slots=True)
class Plan:
    """What an ingest would do.

    Attributes:
        options: what was declared.
        sources: what the readers found, one per source.
        layers: the layer that is taken of each vector source; of a raster its only one. A source
            of which several are taken is there once for each.
        tile_layers: what each layer is called in vector tiles; None: by the asset.
        kind: of the asset, with the evidence in `kind_evidence`.
        refs: frame of each source's coordinates, vertical datum included.
        crs_assumed: whether a source's frame is the one of ``--assume-crs``.
        columns: height columns of buildings.
        groups: the rasters that a terrain is made of, in order of priority.
        refusals: why it cannot be done; empty when it can.
        findings: assumptions and warnings known beforehand.
    """

    options: IngestOptions
    sources: tuple[SourceInfo, ...]
    layers: tuple[LayerInfo, ...]
    kind: Kind
    kind_evidence: str
    refs: tuple[SpatialRef, ...]
    crs_assumed: tuple[bool, ...]
    tile_layers: tuple[str | None, ...] = ()
    columns: HeightColumns | None = None
    groups: tuple[DemGroup, ...] = ()
    refusals: tuple[SourceError, ...] = ()
    findings: Findings = field(default_factory=Findings)

    @property
    def collection(self) -> str:
        """Id of the collection the asset goes to."""
        return self.options.collection or COLLECTION_OF_KIND[self.kind]

    @property
    def title(self) -> str:
        """Title of the asset."""
        return self.options.title or self.sources[0].path.stem

    @property
    def features(self) -> int:
        """Number of source features; 0 for rasters."""
        return sum(max(layer.features, 0) for layer in self.layers)

    @property
    def imported(self) -> bool:
        """Whether the sources are finished tiles, which are taken in as they are."""
        return self.sources[0].kind == "tileset"

    @property
    def nbytes(self) -> int:
        """Size of the source files."""
        return sum({info.path: info.nbytes for info in self.sources}.values())

    @property
    def refusal(self) -> SourceError | None:
        """All refusals as one error of the first one's kind; None when there are none."""
        if len(self.refusals) < 2:
            return next(iter(self.refusals), None)
        first, *others = self.refusals
        also = "".join(
            f"\n  also refused: {other.problem}\n  remedy: {other.remedy}" for other in others
        )
        return type(first)(first.problem, source=first.source, remedy=first.remedy + also)

    def layer_rules(self) -> dict[str, LayerRule]:
        """Return how the layers of vector tiles are drawn, as declared.

        Raises:
            ConfigError: of a layer or a field that is not there.
        """
        fields: dict[str, list[str]] = {}
        for name, layer in zip(self.tile_layers, self.layers, strict=True):
            own = fields.setdefault(name or self.options.id, [])
            own += [f.name for f in layer.fields if f.name not in own]
        return self.options.layer_wishes().rules(fields)

    def read_options(self, index: int) -> ReadOptions:
        """Return how source `index` is to be read."""
        path = self.sources[index].path
        crs = self.options.declared_of(path).get("crs", self.options.crs)
        if self.crs_assumed[index] and self.sources[index].points is None:
            crs = self.options.assume_crs
        place, up = self.options.placement(path)
        return ReadOptions(
            crs,
            self.options.encoding,
            self.layers[index].name,
            place,
            up,
            self.options.declared_of(path).get("vertical", self.options.vertical),
            self.options.assume_vertical,
            self.options.assume_crs,
            self.options.points(),
            self.options.declared_of(path).get("nodata", self.options.nodata),
        )

    def raster_readers(self) -> list[RasterReader]:
        """Return a reader of every source of a raster asset."""
        return [
            RasterReader(info.path, self.read_options(index))
            for index, info in enumerate(self.sources)
        ]

    def to_json(self) -> dict[str, Any]:
        """Return the plan for ``cim plan --json`` and the report."""
        return {
            "id": self.options.id,
            "kind": self.kind,
            "kind_evidence": self.kind_evidence,
            "collection": self.collection,
            "title": self.title,
            "sources": [
                _source_json(*each)
                for each in zip(self.sources, self.layers, self.refs, self.tile_layers, strict=True)
            ],
            "heights": self.columns.evidence if self.columns else None,
            "groups": [group.to_json() for group in self.groups],
            "steps": list(STEPS_OF_IMPORT if self.imported else STEPS[self.kind]),
            "features": self.features,
            "source_nbytes": self.nbytes,
            "estimate": estimate(self),
            "findings": self.findings.to_json(),
            "refusals": [error_json(e) for e in self.refusals],
        }


def error_json(error: SourceError) -> dict[str, Any]:
    """Return an error as the report shows it."""
    return {
        "error": type(error).__name__,
        "source": error.source,
        "problem": error.problem,
        "remedy": error.remedy,
    }


def make_plan(options: IngestOptions) -> Plan:
    """Look at every source's header and decide.

    Raises:
        SourceError: a source cannot be read at all; what can be refused later is collected in
            ``Plan.refusals``.
    """
    looks = [look for path in options.sources for look in _looks(path, options)]
    sources, layers, assumed, called = zip(*looks, strict=True)
    kind, evidence = _decide_kind(options, sources, layers)
    findings = Findings()
    for info, crs_assumed in zip(sources, assumed, strict=True):
        findings.merge(info.findings)
        if crs_assumed:
            message = f"the file has no reference system: taken as {options.assume_crs}"
            findings.add("crs-assumed", "assumption", message)
    if kind != "imagery" and (options.mosaic or options.compression() != Compression()):
        raise ConfigError(
            "--compress, --quality, --max-error and --mosaic belong to --kind imagery"
        )
    if kind != "pointcloud" and options.copc is not None:
        raise ConfigError(f"--copc belongs to --kind pointcloud, and these sources become {kind}")
    if kind not in ("vector", "divisions") and (
        options.layer == EVERY_LAYER or options.layer_wishes()
    ):
        raise ConfigError(
            f"layers, their zooms, attributes and ranks are of vector tiles, and these sources "
            f"become {kind}: declare --kind vector or --kind divisions, or leave them out"
        )
    refusals: list[SourceError] = []
    refs = tuple(
        _decide_ref(info, layer, kind, options, findings, refusals)
        for info, layer in zip(sources, layers, strict=True)
    )
    plan = Plan(options, sources, layers, kind, evidence, refs, assumed, called, findings=findings)
    if sources[0].kind == "vector":
        from ingest.common_columns import note_differences

        plan.layer_rules()
        # Layers of tiles need not have the same fields; what is one layer, or one table, should.
        groups = called if kind in ("vector", "divisions") else [None] * len(called)
        note_differences(layers, [info.path.name for info in sources], findings, groups)
    plan = _decide_heights(plan, refusals)
    if options.copc is not None and not refusals:
        from ingest.copc_store import check_frame

        try:
            check_frame(plan.refs[0], sources[0].path)
        except CrsMissing as error:
            refusals.append(error)
    for index in range(len(sources)):
        _check_key(plan, index, refusals)
        _check_layer(plan, index, refusals)
    if kind == "imagery" and not refusals:
        from ingest.mosaic_assets import check_sheets, stay_sheets

        try:
            readers = plan.raster_readers()
            check_sheets(readers, options)
            count = sum(len(reader.sheets) for reader in readers)
            if count > 1:
                apart = stay_sheets(readers, options)
                became = "stay stores of their own (--mosaic sheets)" if apart else "become one COG"
                findings.add("mosaic", "info", f"{count} sheets {became}", count)
        except SourceError as error:
            refusals.append(error)
    return replace(plan, refusals=tuple(refusals))


_Look = tuple[SourceInfo, LayerInfo, bool, str | None]


def _looks(path: Path, options: IngestOptions) -> Iterator[_Look]:
    """Yield each layer that is taken of a source, and what it is called in vector tiles."""
    tables = options.layer_wishes().tables
    if tables:
        yield from _declared_layers(path, options, tables)
    elif options.layer == EVERY_LAYER:
        found = _with_geometry(_look(path, options, every=True)[0])
        for layer in found:
            yield *_look(path, replace(options, layer=layer.name)), layer.name
    else:
        several = len(options.sources) > 1
        yield *_look(path, options), path.stem if several else None


def _declared_layers(
    path: Path, options: IngestOptions, tables: Sequence[Declared]
) -> Iterator[_Look]:
    if options.layer is not None:
        raise ConfigError("--layer and [[layers]] both say which layers: leave one out")
    count = 0
    for table in tables:
        if table.source is None and len(options.sources) > 1:
            raise ConfigError(
                f"[[layers]] {table.name!r} names no source, and there are {len(options.sources)}"
            )
        if table.source in (None, path):
            count += 1
            layer = table.layer
            if layer is None:
                names = [x.name for x in _with_geometry(_look(path, options, every=True)[0])]
                layer = table.name if table.name in names else None
            yield *_look(path, replace(options, layer=layer)), table.name
    if not count:
        raise ConfigError(f"none of the [[layers]] is made of {path}: leave it out or declare one")


def _with_geometry(info: SourceInfo) -> list[LayerInfo]:
    # Tables without geometry (styles, domains) are no layers.
    found = [layer for layer in info.layers if layer.geometry_type is not None]
    if not found:
        raise SourceError(
            "has no layer with geometry", source=info.path, remedy="name another source"
        )
    return found


def _look(
    path: Path, options: IngestOptions, every: bool = False
) -> tuple[SourceInfo, LayerInfo, bool]:
    if every:
        with open_source(path, ReadOptions(options.crs, options.encoding)) as reader:
            info = reader.info()
        return info, _with_geometry(info)[0], False
    place, up = options.placement(path)
    crs = options.declared_of(path).get("crs", options.crs)
    nodata = options.declared_of(path).get("nodata", options.nodata)
    given = ReadOptions(
        crs, options.encoding, options.layer, place, up, points=options.points(), nodata=nodata
    )
    info, layer = _look_as(path, given)
    if nodata is not None and info.kind != "raster":
        raise ConfigError(f"{path} is read by the {info.reader} reader: --nodata is of rasters")
    if (place or up) and info.reader != "model":
        raise ConfigError(
            f"{path} is read by the {info.reader} reader: only OBJ and glTF models have a "
            "placement (--place, --up)"
        )
    if layer.ref is not None or options.assume_crs is None:
        return info, layer, False
    # Of a folder of clouds, only those files that state no frame are meant.
    if info.points is not None:
        return *_look_as(path, replace(given, assume_crs=options.assume_crs)), True
    return *_look_as(path, replace(given, crs=options.assume_crs)), True


def _look_as(path: Path, options: ReadOptions) -> tuple[SourceInfo, LayerInfo]:
    with open_source(path, options) as reader:
        info = reader.info()
        layer = _choose_layer(info, options.layer)
        if layer.geometry_type == "unsupported":
            # Reading says why.
            next(reader.batches(columns=()), None)
    return info, layer


def _choose_layer(info: SourceInfo, wanted: str | None) -> LayerInfo:
    if wanted is not None:
        for layer in info.layers:
            if layer.name == wanted:
                return layer
        problem = f"there is no layer {wanted!r}"
    else:
        # Tables without geometry (styles, domains) are no candidates.
        found = [layer for layer in info.layers if layer.geometry_type is not None]
        if len(found) == 1:
            return found[0]
        problem = f"has {len(found)} layers with geometry"
    names = ", ".join(layer.name for layer in info.layers)
    raise SourceError(problem, source=info.path, remedy=f"choose one with --layer: {names}")


def _decide_kind(
    options: IngestOptions, sources: Sequence[SourceInfo], layers: Sequence[LayerInfo]
) -> tuple[Kind, str]:
    shapes = {info.kind for info in sources}
    if len(shapes) > 1:
        raise ConfigError(
            "rasters, vectors, point clouds and finished tiles cannot be one asset: ingest them "
            "one by one"
        )
    if shapes == {"tileset"}:
        return _kind_of_import(options, sources)
    points = shapes == {"pointcloud"}
    if options.kind is not None and points != (options.kind == "pointcloud"):
        what = "a point cloud" if points else f"a {sources[0].kind}"
        raise SourceError(
            f"--kind {options.kind} cannot be made of {what}",
            source=sources[0].path,
            remedy="point clouds are made of LAS and LAZ files, and nothing else is made of them",
        )
    if points:
        return "pointcloud", f"points of {sources[0].reader} files"
    raster = shapes == {"raster"}
    one_band = all(x.extra.get("bands") == 1 for x in layers)
    heights = one_band and options.kind != "imagery" and options.mosaic is None
    if raster and len(sources) > 1 and not heights and not (options.kind or options.mosaic):
        raise ConfigError(
            f"{len(sources)} rasters of several bands were named: if they are sheets of one image, "
            "say so with --kind imagery"
        )
    if options.kind is not None:
        if raster != (options.kind in ("terrain", "imagery")):
            raise SourceError(
                f"--kind {options.kind} cannot be made of a {'raster' if raster else 'vector'}",
                source=sources[0].path,
                remedy="terrain and imagery are made of rasters, the other kinds of vectors",
            )
        return options.kind, "declared"
    layer = layers[0]
    if not raster and (options.layer == EVERY_LAYER or options.layers):
        coded = all(_is_coded(each) for each in layers)
        return ("divisions" if coded else "vector"), f"{len(layers)} layers of vector tiles"
    if raster:
        bands = layer.extra["bands"]
        if len(sources) > 1 and heights:
            return "terrain", f"{len(sources)} rasters of one band"
        if bands == 1 and layer.extra["dtype"] not in ("uint8", "int8"):
            return "terrain", f"one band of {layer.extra['dtype']}"
        return "imagery", f"{bands} bands of {layer.extra['dtype']}"
    names = [f.name for f in layer.fields]
    folded = {n.casefold() for n in names}
    shapes_of_layer = {layer.geometry_type or "", *layer.extra.get("geometry_types", ())}
    if told := _told_to_be_buildings(options):
        return "buildings", f"{told} is an option of buildings"
    if layer.extra.get("mesh"):
        return "buildings", f"shapes of their own in {layer.extra['format']}"
    if any("polygon" in shape.lower() for shape in shapes_of_layer):
        from ingest.height_columns import find_columns

        try:
            columns = find_columns(names, options, str(sources[0].path))
        except FieldInvalid:
            columns = None  # said again, as a refusal, once the kind is declared
        # Footprints may carry the code of their division; divisions have no height.
        if columns and (columns.height or columns.roof or columns.floors):
            return "buildings", f"polygons with {columns.evidence}"
        if codes := [n for n in _CODE_COLUMNS if n.casefold() in folded]:
            return "divisions", f"polygons with a division code in {codes[0]!r}"
    return "vector", f"{layer.geometry_type} features"


def _is_coded(layer: LayerInfo) -> bool:
    folded = {field.name.casefold() for field in layer.fields}
    polygons = "polygon" in (layer.geometry_type or "").lower()
    return polygons and any(name.casefold() in folded for name in _CODE_COLUMNS)


def _kind_of_import(options: IngestOptions, sources: Sequence[SourceInfo]) -> tuple[Kind, str]:
    from ingest.readers.tileset import single_tileset

    single_tileset([info.path for info in sources])
    if options.kind not in (None, "buildings"):
        raise SourceError(
            f"--kind {options.kind} cannot be made of finished 3D Tiles",
            source=sources[0].path,
            remedy="they are taken in as they are, as buildings: --kind buildings",
        )
    if told := _told_to_be_buildings(options):
        raise ConfigError(f"{told} cannot change finished 3D Tiles, which are taken as they are")
    return "buildings", "finished 3D Tiles"


def _told_to_be_buildings(options: IngestOptions) -> str | None:
    given = {
        "--height-field": options.height_field,
        "--roof-field": options.roof_field,
        "--base-field": options.base_field,
        "--floors-field": options.floors_field,
        "--height-mode": options.height_mode,
        "--min-height-mode": options.min_height_mode,
        "--bad-heights": options.bad_heights,
        "--terrain": options.terrain,
    }
    return next((name for name, value in given.items() if value is not None), None)


def _decide_ref(
    info: SourceInfo,
    layer: LayerInfo,
    kind: Kind,
    options: IngestOptions,
    findings: Findings,
    refusals: list[SourceError],
) -> SpatialRef:
    if layer.ref is None:
        refusals.append(crs_missing(info.path, layer, parse_area(options.area)))
        return TILE_REF
    ref = layer.ref
    if kind not in _KINDS_WITH_HEIGHTS:
        return ref
    stated = options.declared_of(info.path).get("vertical", options.vertical)
    if stated is not None:
        declared = parse_vertical(stated)
        if ref.vertical is not None and ref.vertical != declared:
            findings.add(
                "vertical-overridden",
                "warning",
                f"the file says heights are {ref.vertical.code}, declared is {declared.code}",
            )
        ref = ref.with_vertical(declared)
    elif ref.vertical is None and options.assume_vertical is not None:
        assumed = parse_vertical(options.assume_vertical)
        findings.add("vertical-assumed", "assumption", f"heights are taken as {assumed.code}")
        ref = ref.with_vertical(assumed)
    if ref.vertical is not None and ref.vertical.approximated:
        findings.add("vertical-approximated", "assumption", ref.vertical.approximated)
    return ref


def _decide_heights(plan: Plan, refusals: list[SourceError]) -> Plan:
    if plan.imported:
        return plan
    if plan.kind == "buildings":
        from ingest.height_plan import Sources, decide_columns

        sources = Sources(plan.options, plan.sources, plan.layers, plan.read_options)
        options, columns = decide_columns(sources, plan.findings, refusals)
        if columns is None:
            return plan
        shaped = any(layer.extra.get("mesh") for layer in plan.layers)
        elevations = any(
            name in ("base", "roof")
            for each in options.feature_overrides()
            for name, _ in each.numbers
        )
        if options.terrain is None or columns.uses_datum or shaped or elevations:
            _need_vertical(plan, refusals)
        return replace(plan, options=options, columns=columns)
    if plan.kind == "pointcloud":
        _need_vertical(plan, refusals)
    if plan.kind == "terrain":
        _need_vertical(plan, refusals)
        if not refusals:
            return replace(plan, groups=_groups(plan, refusals))
    return plan


def _groups(plan: Plan, refusals: list[SourceError]) -> tuple[DemGroup, ...]:
    """Group the sheets of a terrain; every sheet gets the datum that its source has."""
    options = plan.options
    sheets: list[DemSheet] = []
    try:
        for index, info in enumerate(plan.sources):
            table = options.declared_of(info.path)
            declared = table.get("vertical", options.vertical) is not None
            with open_source(info.path, plan.read_options(index)) as reader:
                assert isinstance(reader, RasterReader)
                reader.check_sheets()
                for sheet, own in zip(reader.sheets, reader.refs, strict=True):
                    if own is None:
                        raise CrsMissing(
                            "the raster has no coordinate reference system",
                            source=sheet.name,
                            remedy="declare it: --crs EPSG:4547 (or another code)",
                        )
                    datum = plan.refs[index].vertical
                    vertical = datum if declared else own.vertical or datum
                    date = str(table.get("date", sheet.date))
                    sheets.append(DemSheet(sheet, own.with_vertical(vertical), date, len(sheets)))
        order = options.order or "finest"
        groups = group_sheets(sheets, order)
    except SourceError as error:
        refusals.append(error)
        return ()
    if len(groups) > 1:
        plan.findings.add(
            "dem-groups",
            "info",
            f"sheets on {len(groups)} pixel grids, frames or datums are laid over each other: "
            + decided_by(groups, order),
            len(groups),
            [f"{len(g.placed)} x {g.pixel_m:.3g} m {g.ref.code} {g.date}".strip() for g in groups],
        )
    return groups


def _need_vertical(plan: Plan, refusals: list[SourceError]) -> None:
    for info, ref in zip(plan.sources, plan.refs, strict=True):
        if ref.vertical is None:
            refusals.append(
                DatumUndeclared(
                    "the vertical datum of its heights is not declared",
                    source=info.path,
                    remedy="declare it with --vertical (EPSG:5737 for 1985 heights, EPSG:5773 for "
                    "EGM96, ellipsoidal, offset:METRES or grid:FILE), or --assume-vertical, "
                    "which the report records as an assumption",
                )
            )
        elif ref.vertical != plan.refs[0].vertical and plan.kind == "buildings":
            refusals.append(
                DatumUndeclared(
                    f"its heights are {ref.vertical.code}, not those of "
                    f"{plan.sources[0].path.name}",
                    source=info.path,
                    remedy="ingest sources of different datums as assets of their own, or declare "
                    "one datum for all with --vertical",
                )
            )


def _check_key(plan: Plan, index: int, refusals: list[SourceError]) -> None:
    key, source = plan.options.key, plan.sources[index].path
    names = [field.name for field in plan.layers[index].fields]
    if key is None:
        return
    if plan.kind not in ("buildings", "vector", "divisions") or plan.imported:
        remedy = "leave --key out: it is for buildings and vector tiles that are made here"
        what = "finished 3D Tiles" if plan.imported else f"{plan.kind} assets"
        refusals.append(FieldInvalid(f"{what} have no key", source=source, remedy=remedy))
    elif key not in names:
        remedy = "choose one of its columns: " + ", ".join(names)
        refusals.append(FieldInvalid(f"there is no column {key!r}", source=source, remedy=remedy))
    elif (here := _is_text(plan, index, key)) != (there := _is_text(plan, 0, key)):
        words = {True: "text", False: "numbers"}
        refusals.append(
            FieldInvalid(
                f"its keys in {key!r} are {words[here]}, those of "
                f"{plan.sources[0].path.name} {words[there]}",
                source=source,
                remedy="give all sources keys of one type: 007 as text is another key than 7",
            )
        )


def _is_text(plan: Plan, index: int, column: str) -> bool:
    kinds = {field.name: field.type for field in plan.layers[index].fields}
    return "string" in kinds.get(column, "string")


def _check_layer(plan: Plan, index: int, refusals: list[SourceError]) -> None:
    info, layer = plan.sources[index], plan.layers[index]
    if info.kind in ("vector", "pointcloud") and layer.features == 0:
        refusals.append(
            NothingToTile(
                f"layer {layer.name!r} has no {'points' if info.points else 'features'}",
                source=info.path,
                remedy="check the export that made it, or choose another with --layer",
            )
        )
        return
    if layer.extent is None or layer.ref is None:
        return
    area = parse_area(plan.options.area)
    try:
        check_location(info.path, layer, plan.refs[index], area, plan.read_options(index))
    except SourceError as error:
        refusals.append(error)


def estimate(plan: Plan) -> dict[str, int]:
    """Return rough numbers of tiles and bytes that the ingest would write."""
    if plan.imported:
        return {"tiles": int(plan.layers[0].extra["tiles"]), "nbytes": plan.nbytes}
    if plan.kind == "buildings":
        # Tiles, GeoParquet and the index take some 120 bytes a feature each.
        return {"tiles": max(7, plan.features // 900), "nbytes": plan.features * 400}
    if plan.kind in ("vector", "divisions"):
        return {"tiles": max(1, plan.features // 40), "nbytes": plan.nbytes}
    if plan.kind == "pointcloud":
        # Some 16 bytes a point, 50 000 points a tile.
        return {"tiles": max(1, plan.features // 50_000), "nbytes": plan.features * 16}
    pixels = sum(int(x.extra["width"]) * int(x.extra["height"]) for x in plan.layers)
    if plan.groups:
        pixels = sum(group.pixels for group in plan.groups)
    if plan.kind == "terrain":
        # 65 × 65 nodes a tile at the finest level, a third more for the levels above it.
        tiles = max(2, pixels // (64 * 64) * 4 // 3)
        return {"tiles": tiles, "nbytes": tiles * 12_000}
    return {"tiles": 1, "nbytes": pixels}


def _source_json(
    info: SourceInfo, layer: LayerInfo, ref: SpatialRef, called: str | None
) -> dict[str, Any]:
    encoding = layer.encoding
    return {
        "path": str(info.path),
        "reader": info.reader,
        "files": [str(f) for f in info.files],
        "nbytes": info.nbytes,
        "layer": layer.name,
        "tile_layer": called,
        "layers": [other.name for other in info.layers],
        "geometry": layer.geometry_type,
        "features": layer.features,
        "fields": {f.name: f.type for f in layer.fields},
        "extent": list(layer.extent) if layer.extent else None,
        "crs": ref.code if layer.ref else None,
        "vertical": ref.vertical.code if ref.vertical else None,
        "encoding": None
        if encoding is None
        else {
            "name": encoding.encoding,
            "evidence": encoding.evidence,
            "confidence": encoding.confidence,
        },
        "extra": {k: v for k, v in layer.extra.items()},
    }
