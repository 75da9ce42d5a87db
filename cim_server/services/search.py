"""A search as STAC clients write it, brought to the catalogue's form and answered page by page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from catalog.cql2.places import read_geometry
from catalog.cql2.tree import Tree, parse_json, parse_text
from catalog.paging import SortKey
from catalog.search import MAX_LIMIT, SearchQuery, parse_bbox, parse_interval
from cim_server.errors import InvalidRequest

DEFAULT_LIMIT = 100
CRS84 = "http://www.opengis.net/def/crs/OGC/1.3/CRS84"

_TEXT, _JSON = "cql2-text", "cql2-json"


class SortBy(BaseModel):
    """One property of the Sort extension."""

    model_config = ConfigDict(extra="forbid")

    field: str
    direction: str = Field(default="asc", pattern="^(asc|desc)$")


class FieldsBody(BaseModel):
    """What the Fields extension takes in and leaves out."""

    model_config = ConfigDict(extra="forbid")

    include: list[str] = Field(default_factory=list, max_length=1000)
    exclude: list[str] = Field(default_factory=list, max_length=1000)


class SearchBody(BaseModel):
    """The body of ``POST /stac/search``."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    bbox: list[float] | None = None
    datetime: str | None = None
    ids: list[str] | None = Field(default=None, max_length=MAX_LIMIT)
    collections: list[str] | None = Field(default=None, max_length=MAX_LIMIT)
    intersects: dict[str, Any] | None = None
    q: str | None = Field(default=None, description="Words that all occur in an asset's texts.")
    filter: dict[str, Any] | str | bool | None = None
    filter_lang: str | None = Field(default=None, alias="filter-lang")
    filter_crs: str | None = Field(default=None, alias="filter-crs")
    query: dict[str, dict[str, Any]] | None = None
    sortby: list[SortBy] | None = Field(default=None, max_length=16)
    fields: FieldsBody | None = None
    limit: int = Field(default=DEFAULT_LIMIT, ge=1)
    token: str | None = None


_ids = Field(default=None, description="Ids with commas between them.")


class ItemsParameters(BaseModel):
    """The parameters of ``GET /stac/collections/{collection}/items``."""

    bbox: str | None = Field(
        default=None, description="west,south,east,north (or with heights), degrees."
    )
    datetime: str | None = Field(
        default=None, description="RFC 3339 time, or an interval with `/`; `..` is open."
    )
    limit: int = Field(
        default=DEFAULT_LIMIT, ge=1, description=f"Items per page, at most {MAX_LIMIT}."
    )
    token: str | None = Field(default=None, description="Page, from a `next` link.")
    q: str | None = Field(default=None, description="Words that all occur in an asset's texts.")
    filter: str | None = Field(default=None, description="A CQL2 filter.")
    filter_lang: str | None = Field(
        default=None, alias="filter-lang", description=f"{_TEXT}, {_JSON}."
    )
    filter_crs: str | None = Field(default=None, alias="filter-crs", description="CRS84 only.")
    query: str | None = Field(default=None, description="JSON of the Query extension.")
    sortby: str | None = Field(default=None, description="Properties; `-` before one descends.")
    fields: str | None = Field(default=None, description="Fields to show; `-` before one hides.")

    def body(self) -> SearchBody:
        """Return the same search as a body.

        Raises:
            QueryInvalid, InvalidRequest: a parameter that means nothing.
        """
        said: dict[str, Any] = {
            "bbox": None if self.bbox is None else list(parse_bbox(self.bbox)),
            "datetime": self.datetime,
            "q": self.q,
            "filter": self.filter,
            "filter-lang": self.filter_lang or _TEXT,
            "filter-crs": self.filter_crs,
            "query": None if self.query is None else _object(self.query, "query"),
            "sortby": None if self.sortby is None else list(map(_sort, _names(self.sortby))),
            "fields": None if self.fields is None else _fields(_names(self.fields)),
            "limit": self.limit,
            "token": self.token,
        }
        return _valid(said)


def _valid(said: dict[str, Any]) -> SearchBody:
    try:
        return SearchBody.model_validate(said)
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidRequest(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error


class SearchParameters(ItemsParameters):
    """The parameters of ``GET /stac/search``."""

    ids: Annotated[str | None, _ids] = None
    collections: Annotated[str | None, _ids] = None
    intersects: str | None = Field(default=None, description="GeoJSON geometry.")

    def body(self) -> SearchBody:
        """Return the same search as a body.

        Raises:
            QueryInvalid, InvalidRequest: a parameter that means nothing.
        """
        more: dict[str, Any] = {}
        if self.ids is not None:
            more["ids"] = _names(self.ids)
        if self.collections is not None:
            more["collections"] = _names(self.collections)
        if self.intersects is not None:
            more["intersects"] = _object(self.intersects, "intersects")
        return super().body().model_copy(update=more)


def known_names(parameters: type[BaseModel]) -> frozenset[str]:
    """Return the names of parameters as requests have them."""
    return frozenset(field.alias or name for name, field in parameters.model_fields.items())


def query_of(body: SearchBody) -> SearchQuery:
    """Return the catalogue's form of a search.

    Raises:
        QueryInvalid: a bbox, interval, filter, order or token that means nothing.
        InvalidRequest: parts that exclude each other, or a language that is not spoken here.
    """
    conditions: list[Tree] = []
    if body.intersects is not None:
        if body.bbox is not None:
            raise InvalidRequest("give bbox or intersects, not both")
        read_geometry(body.intersects)
        conditions.append(
            {"op": "s_intersects", "args": [{"property": "geometry"}, body.intersects]}
        )
    if (tree := _filter(body)) is not None:
        conditions.append(tree)
    conditions += [_asked(name, op, value) for name, ops in (body.query or {}).items()
                   for op, value in ops.items()]  # fmt: skip
    return SearchQuery(
        bbox=None if body.bbox is None else tuple(body.bbox),
        interval=None if body.datetime is None else parse_interval(body.datetime),
        ids=body.ids,
        collections=body.collections,
        text=body.q or "",
        filter=None if not conditions else {"op": "and", "args": conditions},
        sort=tuple(SortKey(s.field, s.direction == "desc") for s in body.sortby or ()),
        # OGC API Features (17-069r4 §7.15.3): too large a limit is no error.
        limit=min(body.limit, MAX_LIMIT),
        token=body.token,
    )


def _filter(body: SearchBody) -> Tree | None:
    if body.filter_crs not in (None, CRS84):
        raise InvalidRequest(f"filter-crs {body.filter_crs!r}: filters are in {CRS84} here")
    if body.filter is None:
        return None
    language = body.filter_lang or (_TEXT if isinstance(body.filter, str) else _JSON)
    if language == _TEXT and isinstance(body.filter, str):
        return parse_text(body.filter)
    if language == _JSON:
        return parse_json(
            _json(body.filter, "filter") if isinstance(body.filter, str) else body.filter
        )
    raise InvalidRequest(
        f"filter-lang {language!r} does not fit the filter; use {_TEXT} or {_JSON}"
    )


def _compare(op: str) -> Callable[[Any, Any], Tree]:
    return lambda side, value: {"op": op, "args": [side, value]}


def _like(before: str, after: str) -> Callable[[Any, Any], Tree]:
    def like(side: Any, value: Any) -> Tree:
        if not isinstance(value, str):
            raise InvalidRequest(f"query: {value!r} is no text to look for")
        escaped = value.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        return {"op": "like", "args": [side, f"{before}{escaped}{after}"]}

    return like


_QUERY: Mapping[str, Callable[[Any, Any], Tree]] = {
    "eq": _compare("="),
    "neq": _compare("<>"),
    "lt": _compare("<"),
    "lte": _compare("<="),
    "gt": _compare(">"),
    "gte": _compare(">="),
    "in": _compare("in"),
    "startsWith": _like("", "%"),
    "endsWith": _like("%", ""),
    "contains": _like("%", "%"),
}


def _asked(name: str, op: str, value: Any) -> Tree:
    if op not in _QUERY:
        raise InvalidRequest(f"query: {op!r} is no operator; known are {', '.join(_QUERY)}")
    return parse_json(_QUERY[op]({"property": name}, value))


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _sort(text: str) -> SortBy:
    # A plus sign in a query string is a space to most readers of them.
    descending = text.startswith("-")
    return SortBy(field=text.lstrip("+- "), direction="desc" if descending else "asc")


def _fields(names: list[str]) -> FieldsBody:
    hidden = [name[1:] for name in names if name.startswith("-")]
    shown = [name.lstrip("+ ") for name in names if not name.startswith("-")]
    return FieldsBody(include=shown, exclude=hidden)


def _object(text: str, what: str) -> dict[str, Any]:
    data = _json(text, what)
    if not isinstance(data, dict):
        raise InvalidRequest(f"{what} is not a JSON object")
    return data


def _json(text: str, what: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"{what} is not JSON: {error}") from error


def only(document: dict[str, Any], fields: FieldsBody | None) -> dict[str, Any]:
    """Return a STAC item with the fields that are asked for; its type, id and collection always.

    The nearer name decides: ``properties`` left out and ``properties.title`` taken in leaves the
    title.
    """
    if fields is None or not (fields.include or fields.exclude):
        return document
    shown = {name: True for name in fields.include} | {name: False for name in fields.exclude}
    kept = _kept(document, "", not fields.include, shown)
    always = {name: document[name] for name in ("type", "id", "collection")}
    return {**always, **kept}


def _kept(node: Mapping[str, Any], path: str, default: bool, shown: Mapping[str, bool]) -> Any:
    found = {}
    for key, value in node.items():
        name = path + key
        state = shown.get(name, default)
        if isinstance(value, dict) and any(other.startswith(name + ".") for other in shown):
            inner = _kept(value, name + ".", state, shown)
            if state or inner:
                found[key] = inner
        elif state:
            found[key] = value
    return found
