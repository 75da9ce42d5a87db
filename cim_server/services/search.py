"""A search as STAC clients write it, brought to the catalogue's form and answered page by page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson
import shapely
from pydantic import BaseModel, ConfigDict, Field
from shapely.errors import ShapelyError

from catalog.database import Catalog
from catalog.records import Item, Version
from catalog.search import MAX_LIMIT, SearchQuery, parse_interval, token_after
from cim_server.errors import InvalidRequest

DEFAULT_LIMIT = 100
_MAX_VERTICES = 10_000
_GEOMETRY_TYPES = frozenset(
    ("Point", "MultiPoint", "LineString", "MultiLineString", "Polygon", "MultiPolygon")
    + ("GeometryCollection",)
)


class SearchBody(BaseModel):
    """The body of ``POST /stac/search``."""

    model_config = ConfigDict(extra="forbid")

    bbox: list[float] | None = None
    datetime: str | None = None
    ids: list[str] | None = Field(default=None, max_length=MAX_LIMIT)
    collections: list[str] | None = Field(default=None, max_length=MAX_LIMIT)
    intersects: dict[str, Any] | None = None
    limit: int = Field(default=DEFAULT_LIMIT, ge=1)
    token: str | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """One page.

    Attributes:
        pairs: assets with their current versions, by id.
        next: token of the page after this one, None on the last.
        matched: number of assets on all pages, None when only counting all would tell.
    """

    pairs: list[tuple[Item, Version]]
    next: str | None
    matched: int | None


def find(catalog: Catalog, query: SearchQuery, geometry: shapely.Geometry | None) -> Found:
    """Return one page; blocks on the database.

    Args:
        catalog: the catalogue.
        query: what is asked for.
        geometry: lon/lat degrees that the footprints must touch, None for any; its bounds are
            in `query` already.
    """
    page = catalog.search(query)
    if geometry is None:
        return Found(page.items, page.next, page.matched)
    # Footprints are boxes, so the database has done all but the corners; go on until it is full.
    pairs: list[tuple[Item, Version]] = []
    while True:
        for item, version in page.items:
            if shapely.intersects(geometry, shapely.box(*version.bounds.bbox2d())):
                if len(pairs) == query.limit:
                    return Found(pairs, token_after(pairs[-1][0].id), None)
                pairs.append((item, version))
        if page.next is None:
            return Found(pairs, None, None)
        page = catalog.search(replace(query, token=page.next))


def query_of(body: SearchBody) -> tuple[SearchQuery, shapely.Geometry | None]:
    """Return the catalogue's form of a search.

    Raises:
        QueryInvalid: a bbox, interval or token that means nothing.
        InvalidRequest: ``bbox`` beside ``intersects``, or a geometry that is none.
    """
    geometry = None
    bbox = None if body.bbox is None else tuple(body.bbox)
    if body.intersects is not None:
        if bbox is not None:
            raise InvalidRequest("give bbox or intersects, not both")
        geometry = _geometry(body.intersects)
        bbox = tuple(float(v) for v in geometry.bounds)
    query = SearchQuery(
        bbox=bbox,
        interval=None if body.datetime is None else parse_interval(body.datetime),
        ids=body.ids,
        collections=body.collections,
        # OGC API Features (17-069r4 §7.15.3): too large a limit is no error.
        limit=min(body.limit, MAX_LIMIT),
        token=body.token,
    )
    return query, geometry


def _geometry(data: Mapping[str, Any]) -> shapely.Geometry:
    if data.get("type") not in _GEOMETRY_TYPES:
        raise InvalidRequest(f"intersects has the type {data.get('type')!r}, which is no geometry")
    try:
        geometry = shapely.from_geojson(orjson.dumps(data).decode())
    except ShapelyError as error:
        raise InvalidRequest(f"intersects is no GeoJSON geometry: {error}") from error
    if geometry is None or geometry.is_empty or not geometry.is_valid:
        raise InvalidRequest("intersects is empty or not a valid geometry")
    if shapely.get_num_coordinates(geometry) > _MAX_VERTICES:
        raise InvalidRequest(f"intersects has more than {_MAX_VERTICES} vertices")
    return geometry


def parse_geometry(text: str) -> dict[str, Any]:
    """Read the ``intersects`` parameter of a GET request.

    Raises:
        InvalidRequest: not a JSON object.
    """
    try:
        data = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"intersects is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise InvalidRequest("intersects is not a JSON object")
    return data
