"""What the user declares about a source: options of one ingest, from the command line or a file.

A manifest is a TOML file with the same names as the options of ``cim ingest`` (dashes become
underscores) plus the table ``[properties]`` (catalogue metadata). Options on the command line win.
"""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast, get_args

from ingest.overrides import Override
from ingest.readers.placement import Placement, Up, parse_up
from ingest.readers.point_chunks import PointOptions
from ingest.tile_layers import LayerWishes, parse_table
from tiling.errors import ConfigError
from tiling.point_frames import UNITS
from tiling.tilers.codecs import Compression

Kind = Literal["buildings", "terrain", "imagery", "vector", "divisions", "pointcloud"]
HeightMode = Literal["relative", "absolute"]
BadHeights = Literal["refuse", "default", "drop"]
Order = Literal["finest", "newest", "given"]
Mosaic = Literal["join", "sheets"]
Withheld = Literal["keep", "drop"]

KINDS: tuple[Kind, ...] = get_args(Kind)
_ID = re.compile(r"\w[\w.\-]{0,127}")
_DATE = re.compile(r"\d{4}(-[01]\d(-[0-3]\d)?)?")
_MEMORY = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)i?B?", re.IGNORECASE)
MAX_ZOOM = 24
MAX_FILL_PIXELS = 64
# Type of an option in a manifest, and how messages name it; text where nothing else is said.
_TEXT: tuple[type, str] = (str, "a text in quotes")
_TYPES: Mapping[str, tuple[type, str]] = {
    "sources": (list, 'a list of texts: ["a.shp", "b.shp"]'),
    "models": (list, 'tables: [[models]] with source = "a.glb", lon, lat and height'),
    "rasters": (list, 'tables: [[rasters]] with source = "a.tif" and crs, vertical, date, nodata'),
    "layers": (list, "tables: [[layers]] with name, and source, layer, zooms, attributes ..."),
    "layer_zooms": (list, 'a list of texts: ["roads=8-16"]'),
    "attributes": (list, 'a list of texts: ["name,class"] or ["roads=name,class"]'),
    "rename": (list, 'a list of texts: ["名称=name"]'),
    "rank": (list, 'a list of texts: ["population:desc"] or ["places=population:desc"]'),
    "fill_voids": (int, f"a whole number of pixels from 0 to {MAX_FILL_PIXELS}"),
    "despike": (bool, "true or false"),
    "nodata": (float, "a number"),
    "overrides": (list, 'tables: [[overrides]] with match = { "编码" = "A-1" } and height'),
    "properties": (dict, 'a table: { "name" = "value" }'),
    "min_zoom": (int, f"a whole number from 0 to {MAX_ZOOM}"),
    "max_zoom": (int, f"a whole number from 0 to {MAX_ZOOM}"),
    "colour_depth": (int, "8 or 16"),
    "quality": (int, "a whole number from 1 to 100"),
    "max_error": (float, "a number with a point, such as 0.05"),
}
_TEXTS = ("layer_zooms", "attributes", "rename", "rank")


@dataclass(frozen=True, slots=True)
class CopcWish:
    """A COPC beside the tiles of points.

    Attributes:
        spacing_m: least distance of its points in metres; None: all points.
    """

    spacing_m: float | None


_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestOptions:
    """Everything one ingest may be told; None means: decide on evidence, and report it.

    Attributes:
        sources: files or folders, read as one asset.
        id: catalogue id of the asset; letters of any script, digits, ``. _ -``.
        crs: declared reference system of the coordinates; overrides the file's.
        assume_crs: used only where the file has none; recorded as an assumption.
        vertical: declared vertical datum of the heights.
        assume_vertical: the same, recorded as an assumption.
        key: column that identifies features over time, so that a later ingest can update them.
        height_mode: whether the height column is a height (relative) or a roof elevation
            (absolute).
        min_height_mode: whether building parts begin at a height above ground or at an elevation.
        bad_heights: what to do with null, NaN, zero, negative or absurd heights. By default
            missing ones get a default from the style rule, and impossible ones are refused.
        bake: which tiles of a terrain are made at once: ``all`` (the default), ``none`` but the
            roots, or those down to a level. The server makes the others on request.
        terrain: id of a terrain asset on which buildings stand.
        parent: id of a terrain asset that surrounds a terrain; see `ingest.terrain_parent`.
        water: id of a vector asset whose polygons are water in the tiles of a terrain.
        place: where a model stands, as `Placement.parse` takes it.
        up: the axis of models that points up: ``y`` or ``z``.
        models: tables with the ``source`` and the placement of one model each.
        overrides: tables that name features and say their height, base, roof or storeys, or
            that they are left out; see `ingest.overrides`.
        compress: how the pixels of imagery are compressed; see `tiling.tilers.codecs`.
        quality: of JPEG and WebP.
        max_error: largest error of a value that LERC may make.
        rasters: tables with the ``source`` and the ``crs``, ``vertical``, ``date`` and ``nodata``
            of one raster (or folder of them) each.
        order: which sheets win where they overlap: ``finest`` (then newest), ``newest`` (then
            finest) or as ``given``; of a terrain ``finest``, of an image ``given`` if None.
        fill_voids: voids of a terrain that data encloses within so many pixels are interpolated.
        despike: whether spikes and pits of a terrain are replaced.
        nodata: stored value of absent pixels of rasters; replaces what the files say of it.
        mosaic: whether sheets of imagery are joined into one COG or stay stores of their own;
            if None, their number decides: see `ingest.mosaic_assets.stay_sheets`.
        height_unit: of point clouds: ``metre``, ``foot`` or ``us-foot``; wins over the files.
        point_columns: of text files of points: their columns by name, separated by commas.
        withheld: whether points with the withheld flag are kept or dropped.
        colour_depth: 8 or 16 bits in 16-bit colours of points; decided by them if None.
        copc: ``whole``, or the least distance of points in metres: a COPC beside the tiles of
            points; None for none.
        layer: the layer of a source with several; ``*``: every one, each a layer of the tiles.
        layers: tables that each declare a layer of vector tiles; see `ingest.tile_layers`.
        layer_zooms, attributes, rename, rank: the same of vector tiles, as the command line says
            it: ``roads=8-16``, ``roads=name,class``, ``名称=name``, ``places=population:desc``.
        area: where coordinates must lie: ``china``, ``world`` or ``west,south,east,north``.
    """

    sources: tuple[Path, ...]
    id: str
    kind: Kind | None = None
    title: str | None = None
    description: str = ""
    collection: str | None = None
    layer: str | None = None
    crs: str | None = None
    assume_crs: str | None = None
    vertical: str | None = None
    assume_vertical: str | None = None
    encoding: str | None = None
    height_field: str | None = None
    base_field: str | None = None
    roof_field: str | None = None
    floors_field: str | None = None
    key: str | None = None
    height_mode: HeightMode | None = None
    min_height_mode: HeightMode | None = None
    bad_heights: BadHeights | None = None
    min_zoom: int | None = None
    max_zoom: int | None = None
    bake: str | None = None
    terrain: str | None = None
    parent: str | None = None
    water: str | None = None
    place: str | None = None
    up: str | None = None
    models: tuple[Mapping[str, Any], ...] = ()
    overrides: tuple[Mapping[str, Any], ...] = ()
    compress: str | None = None
    quality: int | None = None
    max_error: float | None = None
    rasters: tuple[Mapping[str, Any], ...] = ()
    order: Order | None = None
    fill_voids: int | None = None
    despike: bool | None = None
    nodata: float | None = None
    mosaic: Mosaic | None = None
    height_unit: str | None = None
    point_columns: str | None = None
    withheld: Withheld | None = None
    colour_depth: int | None = None
    copc: str | None = None
    layers: tuple[Mapping[str, Any], ...] = ()
    layer_zooms: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()
    rename: tuple[str, ...] = ()
    rank: tuple[str, ...] = ()
    area: str = "china"
    attribution: str = ""
    properties: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.id):
            raise ConfigError(
                f"--id {self.id!r} cannot be part of a URL: use up to 128 letters (any script), "
                "digits, '_', '-' and '.' (the title may be any text: --title)"
            )
        if self.kind is not None and self.kind not in KINDS:
            raise ConfigError(f"--kind {self.kind!r} is not one of {', '.join(KINDS)}")
        if self.height_mode not in (None, *get_args(HeightMode)):
            raise ConfigError(f"--height-mode {self.height_mode!r} is not relative or absolute")
        if self.min_height_mode not in (None, *get_args(HeightMode)):
            raise ConfigError(
                f"--min-height-mode {self.min_height_mode!r} is not relative or absolute"
            )
        if self.bad_heights not in (None, *get_args(BadHeights)):
            raise ConfigError(f"--bad-heights {self.bad_heights!r} is not refuse, default or drop")
        if not self.sources:
            raise ConfigError("no source given: name files or folders, or sources in a manifest")
        if None not in (self.min_zoom, self.max_zoom):
            if cast(int, self.min_zoom) > cast(int, self.max_zoom):
                raise ConfigError(f"--min-zoom {self.min_zoom} is above --max-zoom {self.max_zoom}")
        if self.order not in (None, *get_args(Order)):
            raise ConfigError(f"--order {self.order!r} is not one of {', '.join(get_args(Order))}")
        if self.fill_voids is not None and not 0 <= self.fill_voids <= MAX_FILL_PIXELS:
            raise ConfigError(
                f"--fill-voids {self.fill_voids} is not a number of pixels from 0 to "
                f"{MAX_FILL_PIXELS}"
            )
        self.bake_level()
        if self.mosaic not in (None, *get_args(Mosaic)):
            raise ConfigError(f"--mosaic {self.mosaic!r} is not join or sheets")
        if self.mosaic == "join" and self.order is not None:
            raise ConfigError("--order belongs to --mosaic sheets: what is joined lies as given")
        self.compression()
        self.points()
        self.layer_wishes()
        self.copc_wish()
        self.feature_overrides()
        parse_up(self.up)
        for source in self.sources:
            self.placement(source)

    def placement(self, source: Path) -> tuple[Placement | None, Up | None]:
        """Return where a model stands and which of its axes points up, as declared for it.

        Raises:
            ConfigError: the numbers mean no place.
        """
        for table in self.models:
            if Path(table["source"]) == source:
                return Placement.from_table(table), parse_up(table.get("up", self.up))
        return None if self.place is None else Placement.parse(self.place), parse_up(self.up)

    def bake_level(self) -> int | None:
        """Return the deepest terrain level that is baked (0: the roots alone), None for all.

        Raises:
            ConfigError: neither ``all`` nor ``none`` nor a level.
        """
        if self.bake in (None, "all"):
            return None
        if self.bake == "none":
            return 0
        if self.bake.isdecimal() and int(self.bake) <= MAX_ZOOM:
            return int(self.bake)
        raise ConfigError(
            f"--bake {self.bake!r} is neither all, none nor a level from 0 to {MAX_ZOOM}"
        )

    def compression(self) -> Compression:
        """Return how the pixels of imagery are compressed.

        Raises:
            ConfigError: the three options contradict each other.
        """
        return Compression(self.compress or "auto", self.quality, self.max_error)

    def points(self) -> PointOptions:
        """Return what is declared about points.

        Raises:
            ConfigError: a value that means nothing.
        """
        if self.height_unit not in (None, *UNITS):
            raise ConfigError(f"--height-unit {self.height_unit!r} is not {', '.join(UNITS)}")
        if self.withheld not in (None, *get_args(Withheld)):
            raise ConfigError(f"--withheld {self.withheld!r} is not keep or drop")
        if self.colour_depth not in (None, 8, 16):
            raise ConfigError(f"--colour-depth {self.colour_depth!r} is not 8 or 16")
        columns = tuple(c.strip() for c in (self.point_columns or "").split(",") if c.strip())
        named = [name for name in columns if name != "-"]
        if columns and (len(set(named)) < len(named) or not {"x", "y", "z"} <= set(named)):
            raise ConfigError(
                f"--point-columns {self.point_columns!r} does not name x, y and z once each"
            )
        return PointOptions(self.height_unit, columns, self.withheld == "drop", self.colour_depth)

    def copc_wish(self) -> CopcWish | None:
        """Return what is declared of a COPC, None for none.

        Raises:
            ConfigError: neither ``whole`` nor a distance.
        """
        if self.copc is None:
            return None
        if self.copc == "whole":
            return CopcWish(None)
        try:
            spacing_m = float(self.copc)
        except ValueError:
            spacing_m = -1.0
        if not 0.001 <= spacing_m <= 1000.0:
            raise ConfigError(
                f"--copc {self.copc!r} is neither whole nor a distance from 0.001 to 1000 metres"
            )
        return CopcWish(spacing_m)

    def layer_wishes(self) -> LayerWishes:
        """Return what is declared of the layers of vector tiles.

        Raises:
            ConfigError: a text or a table that means nothing.
        """
        return LayerWishes.parse(
            self.layers, self.layer_zooms, self.attributes, self.rank, self.rename
        )

    def declared_of(self, source: Path) -> Mapping[str, Any]:
        """Return what is declared of one raster: ``crs``, ``vertical``, ``date``, ``nodata``."""
        return next((table for table in self.rasters if Path(table["source"]) == source), {})

    def feature_overrides(self) -> tuple[Override, ...]:
        """Return what is declared of single features.

        Raises:
            ConfigError: a table says nothing, or something impossible.
        """
        return tuple(Override.from_table(table) for table in self.overrides)

    def to_json(self) -> dict[str, Any]:
        """Return what was declared (Nones left out), for the report and the job's key."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        values["sources"] = [str(p) for p in self.sources]
        values["properties"] = dict(self.properties)
        for name in ("models", "overrides", "rasters", "layers"):
            values[name] = [dict(table) for table in getattr(self, name)]
        return {k: v for k, v in values.items() if v is not None and v not in ("", {}, [], ())}


def parse_memory(text: str) -> int:
    """Return the bytes that ``2GB``, ``512MB`` or ``1.5 GiB`` mean (binary units).

    Raises:
        ConfigError: not a size, or under 64 MB.
    """
    match = _MEMORY.fullmatch(text.strip())
    nbytes = int(float(match[1]) * _UNITS[match[2].upper()]) if match else 0
    if nbytes < 64 * 2**20:
        raise ConfigError(f"--memory {text!r} is not a size of at least 64MB, such as 2GB")
    return nbytes


def read_manifest(path: Path) -> dict[str, Any]:
    """Return the options a TOML manifest declares; relative sources are beside the manifest.

    Raises:
        ConfigError: unreadable, not TOML, or with a name that is no option.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a TOML file in UTF-8: {error}") from error
    known = {f.name for f in dataclasses.fields(IngestOptions)}
    if unknown := sorted(set(data) - known):
        raise ConfigError(f"{path}: unknown options {', '.join(unknown)}; known: {sorted(known)}")
    for name, value in data.items():
        if not _is_of_type(name, value):
            raise ConfigError(f"{path}: {name} = {value!r} is not {_TYPES.get(name, _TEXT)[1]}")
    if "sources" in data:
        data["sources"] = tuple(path.parent / s for s in data["sources"])
    if "nodata" in data:
        data["nodata"] = float(data["nodata"])
    if "overrides" in data:
        data["overrides"] = tuple(data["overrides"])
    if "models" in data:
        data["models"] = tuple(_model(path, table) for table in data["models"])
        data.setdefault("sources", tuple(Path(table["source"]) for table in data["models"]))
    if "rasters" in data:
        data["rasters"] = tuple(_raster(path, table) for table in data["rasters"])
        data.setdefault("sources", tuple(Path(table["source"]) for table in data["rasters"]))
    if "layers" in data:
        data["layers"] = tuple(parse_table(path, table) for table in data["layers"])
        named = [table["source"] for table in data["layers"] if "source" in table]
        if named:
            data.setdefault("sources", tuple(Path(source) for source in dict.fromkeys(named)))
    for name in _TEXTS:
        if name in data:
            data[name] = tuple(data[name])
    return data


def _raster(path: Path, table: Any) -> dict[str, Any]:
    source = table.get("source") if isinstance(table, dict) else None
    if not isinstance(source, str):
        raise ConfigError(f'{path}: a raster needs its file: source = "a.tif", not {table!r}')
    if unknown := sorted(set(table) - {"source", "crs", "vertical", "date", "nodata"}):
        raise ConfigError(f"{path}: unknown names in [[rasters]]: {', '.join(unknown)}")
    made = {**table, "source": str(path.parent / source)}
    if "nodata" in table:
        if not _is_of_type("nodata", table["nodata"]):
            raise ConfigError(f"{path}: nodata = {table['nodata']!r} is not a number")
        made["nodata"] = float(table["nodata"])
    if "date" in table:
        # TOML's own dates, or a text.
        made["date"] = str(table["date"])[:10]
        if not _DATE.fullmatch(made["date"]):
            raise ConfigError(f"{path}: date = {table['date']!r} is not a date such as 2023-05-31")
    return made


def _model(path: Path, table: Any) -> dict[str, Any]:
    source = table.get("source") if isinstance(table, dict) else None
    if not isinstance(source, str):
        raise ConfigError(f'{path}: a model needs its file: source = "a.glb", not {table!r}')
    if unknown := sorted(set(table) - {"source", "lon", "lat", "height", "heading", "scale", "up"}):
        raise ConfigError(f"{path}: unknown names in [[models]]: {', '.join(unknown)}")
    return {**table, "source": str(path.parent / source)}


def _is_of_type(name: str, value: Any) -> bool:
    if name == "sources" or name in _TEXTS:
        return isinstance(value, list) and all(isinstance(each, str) for each in value)
    if name in ("min_zoom", "max_zoom"):
        # TOML's true and false are integers to Python.
        return type(value) is int and 0 <= value <= MAX_ZOOM
    if name == "nodata":
        return type(value) in (int, float)
    return isinstance(value, _TYPES.get(name, _TEXT)[0])


def merge_options(declared: Mapping[str, Any], manifest: Mapping[str, Any]) -> IngestOptions:
    """Combine options; those of `declared` that are not None (or empty) win over the manifest.

    Raises:
        ConfigError: no id, or contradicting values.
    """
    values = dict(manifest)
    values.update({k: v for k, v in declared.items() if v not in (None, (), {}, "")})
    if "id" not in values:
        raise ConfigError("an asset needs an id: --id ID")
    values.setdefault("sources", ())
    return IngestOptions(**values)
