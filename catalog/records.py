"""Records of the catalogue: collections, assets (items), their versions, and the changes to them.

Values only: frozen, validated when made, without any idea of the database that keeps them or the
server that shows them. Coordinates are WGS 84 degrees, longitude first; times carry a zone.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import resources
from typing import Any, Literal

from tiling.bounds import Region
from tiling.errors import RecordInvalid

Kind = Literal["buildings", "terrain", "imagery", "vector", "divisions", "pointcloud"]
Role = Literal["tiles", "features", "data", "report", "index", "sheets", "overview", "water"]
StoreFormat = Literal["3tz", "pmtiles", "geoparquet", "cog", "copc", "directory", "sqlite"]
Action = Literal["create", "publish", "rollback", "update", "delete"]

KINDS: tuple[Kind, ...] = (
    "buildings",
    "terrain",
    "imagery",
    "vector",
    "divisions",
    "pointcloud",
)

_ID = re.compile(r"\w[\w.\-]{0,127}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def utc_now() -> datetime:
    """Return the present time in UTC."""
    return datetime.now(UTC)


def _check_id(value: str, what: str) -> None:
    if not _ID.fullmatch(value) or not unicodedata.is_normalized("NFC", value):
        raise RecordInvalid(
            f"{what} {value!r} cannot be part of a URL; use up to 128 letters (any script), "
            "digits, '_', '-' and '.', and begin with a letter or digit"
        )


_UNKEPT = re.compile("[\0\ud800-\udfff]")


def _check_text(value: str, what: str) -> None:
    if _UNKEPT.search(value):
        raise RecordInvalid(f"{what} holds characters that no database keeps: {value[:80]!r}")


def _check_json(value: Mapping[str, Any], what: str) -> None:
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise RecordInvalid(f"{what} cannot be written as JSON: {error}") from error
    # JSON escapes control characters itself; only lone surrogates are beyond UTF-8.
    _check_text(text, what)


@dataclass(frozen=True, slots=True)
class Collection:
    """A category of assets at a CIM level.

    Attributes:
        id: stable, part of URLs.
        title: Chinese first, e.g. ``行政区划``.
        title_en: the same in English.
        description: a sentence or two.
        level: CIM level 1 to 7, None where levels do not apply.
        parent: id of the collection above, e.g. ``base`` (时空基础).
    """

    id: str
    title: str
    title_en: str = ""
    description: str = ""
    level: int | None = None
    parent: str | None = None

    def __post_init__(self) -> None:
        _check_id(self.id, "the collection id")
        for value in (self.title, self.title_en, self.description):
            _check_text(value, f"collection {self.id}")
        if self.level is not None and not 1 <= self.level <= 7:
            raise RecordInvalid(f"collection {self.id}: CIM level {self.level} is not in 1..7")


@dataclass(frozen=True, slots=True)
class StoreRef:
    """A file (or folder) that holds a part of a version.

    Attributes:
        role: what it is for. ``sheets`` is the index of a mosaic and ``overview`` the whole of it
            at low resolution, see `tiling.mosaics`; ``water`` the polygons of another asset that
            are water in a terrain's tiles.
        format: how it is read, e.g. ``3tz``.
        path: POSIX, relative to the data folder.
        sha256: hex digest of the file; of the sorted listing for folders.
        nbytes: size on disk.
        media_type: e.g. ``application/vnd.pmtiles``.
    """

    role: Role
    format: StoreFormat
    path: str
    sha256: str
    nbytes: int
    media_type: str

    def __post_init__(self) -> None:
        _check_text(self.path, "a store's path")
        parts = self.path.split("/")
        if "\\" in self.path or any(part in ("", ".", "..") for part in parts):
            raise RecordInvalid(f"store path {self.path!r} is not relative to the data folder")
        if not _SHA256.fullmatch(self.sha256):
            raise RecordInvalid(f"{self.path}: {self.sha256!r} is no sha256 in lower-case hex")
        if self.nbytes < 0:
            raise RecordInvalid(f"{self.path}: a size of {self.nbytes} bytes")

    def to_json(self) -> dict[str, Any]:
        """Return the reference as a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> StoreRef:
        """Make a reference from what `to_json` returned."""
        return cls(**data)


@dataclass(frozen=True, slots=True)
class Item:
    """One catalogued asset of the city; its id outlives its versions.

    Attributes:
        id: stable, part of URLs, letters of any script.
        collection: id of its collection.
        kind: what it is, hence how it is served.
        title: for people, Chinese first.
        description: a sentence or two.
        properties: JSON; STAC properties of the data itself, such as ``datetime`` or
            ``start_datetime`` and ``end_datetime`` (RFC 3339), ``cim:division``, ``license``.
        created, updated: kept by the catalogue; what the caller says is not used.
        current: number of the published version; kept by the catalogue.
    """

    id: str
    collection: str
    kind: Kind
    title: str
    description: str = ""
    properties: Mapping[str, Any] = field(default_factory=dict)
    created: datetime = field(default_factory=utc_now)
    updated: datetime = field(default_factory=utc_now)
    current: int | None = None

    def __post_init__(self) -> None:
        _check_id(self.id, "the asset id")
        if self.kind not in KINDS:
            raise RecordInvalid(f"asset {self.id}: kind {self.kind!r} is none of {list(KINDS)}")
        _check_text(self.title, f"the title of {self.id}")
        _check_text(self.description, f"the description of {self.id}")
        _check_json(self.properties, f"the properties of {self.id}")
        data_interval(self.properties)

    def metadata(self) -> dict[str, Any]:
        """Return what the owner says about the asset as JSON: all but times and version."""
        return {
            "id": self.id,
            "collection": self.collection,
            "kind": self.kind,
            "title": self.title,
            "description": self.description,
            "properties": dict(self.properties),
        }


@dataclass(frozen=True, slots=True)
class NewVersion:
    """A version before it has a number.

    Attributes:
        bounds: WGS 84 degrees and ellipsoidal metres.
        stores: newest first; a later store answers only what the earlier ones lack.
        info: JSON; the tiler's metadata with ``min_level``, ``max_level``, ``tiles``, ``features``.
        report: JSON; what the ingest found, dropped, repaired and assumed.
        job: id of the job that made it.
        tombstones: tile keys that older stores hold and that are gone.
    """

    bounds: Region
    stores: tuple[StoreRef, ...]
    info: Mapping[str, Any] = field(default_factory=dict)
    report: Mapping[str, Any] = field(default_factory=dict)
    job: str = ""
    tombstones: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        b = self.bounds
        if not all(math.isfinite(v) for v in b):
            raise RecordInvalid(f"bounds {tuple(b)} are not finite")
        if not (-180 <= b.west <= b.east <= 180 and -90 <= b.south <= b.north <= 90):
            raise RecordInvalid(
                f"bounds {tuple(b)} are not west <= east, south <= north in degrees; "
                "are the axes swapped or the coordinates still projected?"
            )
        if b.min_height_m > b.max_height_m:
            raise RecordInvalid(f"bounds {tuple(b)}: the lowest height is above the highest")
        if not self.stores:
            raise RecordInvalid("a version without a store has nothing to show")
        _check_json(self.info, "the version's info")
        _check_json(self.report, "the version's report")
        for key in self.tombstones:
            _check_text(key, "a tombstone")


@dataclass(frozen=True, slots=True)
class Version:
    """One immutable published state of an asset; the fields of `NewVersion` and a number.

    Attributes:
        item_id: the asset.
        number: counts from 1 and is never used again, not even after a deletion.
        created: when it was published.
    """

    item_id: str
    number: int
    created: datetime
    bounds: Region
    stores: tuple[StoreRef, ...]
    info: Mapping[str, Any] = field(default_factory=dict)
    report: Mapping[str, Any] = field(default_factory=dict)
    job: str = ""
    tombstones: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """An entry of the change log.

    Attributes:
        seq: grows by one with every change, in the order in which they became visible.
        time: when.
        action: what happened.
        item_id: to which asset.
        version: the version it made or chose, None for create, update and delete.
        detail: JSON; enough to repeat the change elsewhere (`catalog.events.replay`).
    """

    seq: int
    time: datetime
    action: Action
    item_id: str
    version: int | None
    detail: Mapping[str, Any]


def parse_time(text: str, what: str = "the time") -> datetime:
    """Read an RFC 3339 time; without a zone it is taken to be wrong, not to be local.

    Raises:
        RecordInvalid: not a time, or without a zone.
    """
    try:
        value = datetime.fromisoformat(text)
    except ValueError as error:
        raise RecordInvalid(f"{what} {text!r} is no RFC 3339 time") from error
    if value.tzinfo is None:
        raise RecordInvalid(f"{what} {text!r} lacks a zone: add Z or +08:00")
    try:
        return value.astimezone(UTC)
    except OverflowError as error:
        raise RecordInvalid(f"{what} {text!r} is beyond the years 1 to 9999") from error


def data_interval(properties: Mapping[str, Any]) -> tuple[datetime, datetime] | None:
    """Return the first and last moment of the data as its properties state it, or None.

    Raises:
        RecordInvalid: a time that is none, or an interval that is half open or reversed.
    """
    start, end = properties.get("start_datetime"), properties.get("end_datetime")
    if start is None and end is None:
        moment = properties.get("datetime")
        if moment is None:
            return None
        at = parse_time(str(moment), "property datetime")
        return at, at
    if start is None or end is None:
        raise RecordInvalid("start_datetime and end_datetime must be given together")
    first = parse_time(str(start), "property start_datetime")
    last = parse_time(str(end), "property end_datetime")
    if first > last:
        raise RecordInvalid(f"start_datetime {start} is after end_datetime {end}")
    return first, last


def standard_collections() -> list[Collection]:
    """Return the collections every catalogue starts with, parents before children."""
    text = resources.files("catalog").joinpath("collections.json").read_text(encoding="utf-8")
    return [Collection(**row) for row in json.loads(text)["collections"]]
