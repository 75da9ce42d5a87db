"""STAC API 1.0: the catalogue for programs: landing page, conformance, collections.

Parameters that are not understood are refused: a filter silently ignored would answer with what
was not asked for. Items and their search: `cim_server.services.stac_items`.
"""

# No postponed annotations here: FastAPI resolves them at run time.
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from catalog.database import Catalog
from catalog.records import Collection
from catalog.search import MAX_LIMIT, Extent, Interval, parse_bbox, parse_interval
from catalog.stac import collection_to_stac
from cim_server.links import Links
from cim_server.responses import json_response
from cim_server.services import stac_items
from cim_server.services.stac_items import GEOJSON, by_id, refuse_unknown
from cim_server.services.stac_items import rel_link as _link
from cim_server.state import State

OPENAPI = "application/vnd.oai.openapi+json;version=3.1"
SCHEMA = "application/schema+json"
QUERYABLES_REL = "http://www.opengis.net/def/rel/ogc/1.0/queryables"

# Only what holds.
CONFORMANCE = (
    "https://api.stacspec.org/v1.0.0/core",
    "https://api.stacspec.org/v1.0.0/collections",
    "https://api.stacspec.org/v1.0.0/ogcapi-features",
    "https://api.stacspec.org/v1.0.0/ogcapi-features#fields",
    "https://api.stacspec.org/v1.0.0/ogcapi-features#sort",
    "https://api.stacspec.org/v1.0.0/ogcapi-features#query",
    "https://api.stacspec.org/v1.0.0/item-search",
    "https://api.stacspec.org/v1.0.0/item-search#fields",
    "https://api.stacspec.org/v1.0.0/item-search#sort",
    "https://api.stacspec.org/v1.0.0/item-search#query",
    "https://api.stacspec.org/v1.0.0/item-search#filter",
    "https://api.stacspec.org/v1.0.0-rc.1/collection-search",
    "http://www.opengis.net/spec/ogcapi-common-2/1.0/conf/simple-query",
    "http://www.opengis.net/spec/ogcapi-features-1/1.0/conf/core",
    "http://www.opengis.net/spec/ogcapi-features-1/1.0/conf/geojson",
    "http://www.opengis.net/spec/ogcapi-features-3/1.0/conf/queryables",
    "http://www.opengis.net/spec/ogcapi-features-3/1.0/conf/filter",
    "http://www.opengis.net/spec/ogcapi-features-3/1.0/conf/features-filter",
    "http://www.opengis.net/spec/cql2/1.0/conf/cql2-text",
    "http://www.opengis.net/spec/cql2/1.0/conf/cql2-json",
    "http://www.opengis.net/spec/cql2/1.0/conf/basic-cql2",
    "http://www.opengis.net/spec/cql2/1.0/conf/advanced-comparison-operators",
    "http://www.opengis.net/spec/cql2/1.0/conf/case-insensitive-comparison",
    "http://www.opengis.net/spec/cql2/1.0/conf/accent-insensitive-comparison",
    "http://www.opengis.net/spec/cql2/1.0/conf/basic-spatial-functions",
    "http://www.opengis.net/spec/cql2/1.0/conf/basic-spatial-functions-plus",
    "http://www.opengis.net/spec/cql2/1.0/conf/spatial-functions",
    "http://www.opengis.net/spec/cql2/1.0/conf/temporal-functions",
    "http://www.opengis.net/spec/cql2/1.0/conf/array-functions",
    "http://www.opengis.net/spec/cql2/1.0/conf/property-property",
)


class CollectionsParameters(BaseModel):
    """The parameters of ``GET /stac/collections``."""

    bbox: str | None = Field(
        default=None, description="west,south,east,north (or with heights), degrees."
    )
    datetime: str | None = Field(
        default=None, description="RFC 3339 time, or an interval with `/`; `..` is open."
    )
    q: str | None = Field(default=None, description="Words that all occur in a collection's texts.")
    limit: int | None = Field(default=None, ge=1, le=MAX_LIMIT, description="At most so many.")


def landing(catalog: Catalog, link: Links) -> dict[str, Any]:
    """Return the landing page: a STAC Catalog."""
    json = "application/json"
    search = link("stac-search")
    children = [
        _link("child", link("stac-collection", collection=c.id), json, title=c.title)
        for c in catalog.collections()
    ]
    return {
        "type": "Catalog",
        "stac_version": "1.1.0",
        "id": "cim-server",
        "title": "城市信息模型目录",
        "description": "城市信息模型的时空基础、资源与服务目录。Catalogue of the city's base data.",
        "conformsTo": CONFORMANCE,
        "links": [
            _link("self", link("stac-root"), json),
            _link("root", link("stac-root"), json),
            _link("conformance", link("stac-conformance"), json),
            _link("data", link("stac-collections"), json),
            _link("search", search, GEOJSON, method="GET"),
            _link("search", search, GEOJSON, method="POST"),
            _link(QUERYABLES_REL, link("stac-queryables"), SCHEMA),
            _link("service-desc", link("openapi"), OPENAPI),
            _link("service-doc", link("docs"), "text/html"),
            *children,
        ],
    }


def _collection(
    collection: Collection,
    extents: dict[str, Extent],
    link: Links,
    collections: dict[str, Collection],
) -> dict[str, Any]:
    document = collection_to_stac(collection, extents.get(collection.id), link, collections)
    items = link("stac-items", collection=collection.id)
    queryables = link("stac-collection-queryables", collection=collection.id)
    document["links"] += [
        _link("items", items, GEOJSON),
        _link(QUERYABLES_REL, queryables, SCHEMA),
    ]
    return document


def _asked_for(
    collection: Collection,
    extent: Extent | None,
    bbox: tuple[float, ...] | None,
    interval: Interval | None,
    words: list[str],
) -> bool:
    texts = [collection.id, collection.title, collection.title_en, collection.description]
    if not all(word in "\n".join(texts).casefold() for word in words):
        return False
    if bbox is None and interval is None:
        return True
    return extent is not None and extent.touches(bbox, interval)


def router(state: State) -> APIRouter:
    """Return the endpoints below ``/stac``."""
    routes = APIRouter(prefix="/stac", tags=["STAC"], default_response_class=Response)
    _add_catalogue(routes, state)
    stac_items.add(routes, state)
    return routes


_JSON_ANSWER: Any = {200: {"content": {"application/json": {}}}}


def _add_catalogue(routes: APIRouter, state: State) -> None:
    catalog = state.catalog

    @routes.get("", operation_id="stac.getLandingPage", responses=_JSON_ANSWER)
    async def root(request: Request) -> Response:
        """Return the landing page."""
        link = Links.of(request.scope)
        document = await state.in_catalogue_thread(landing, catalog, link)
        return json_response(document, request.headers)

    @routes.get("/conformance", operation_id="stac.getConformance", responses=_JSON_ANSWER)
    async def conformance(request: Request) -> Response:
        """Return the conformance classes that hold."""
        return json_response({"conformsTo": CONFORMANCE}, request.headers)

    @routes.get("/collections", operation_id="stac.getCollections", responses=_JSON_ANSWER)
    async def collections(
        request: Request, asked: Annotated[CollectionsParameters, Query()]
    ) -> Response:
        """Return the collections, or those asked for, with the extent of what is published."""
        refuse_unknown(request, CollectionsParameters)
        link = Links.of(request.scope)
        bbox = None if asked.bbox is None else parse_bbox(asked.bbox)
        interval = None if asked.datetime is None else parse_interval(asked.datetime)
        words = (asked.q or "").casefold().split()

        def read() -> dict[str, Any]:
            known, extents = by_id(catalog), catalog.extents()
            wanted = [
                collection
                for collection in known.values()
                if _asked_for(collection, extents.get(collection.id), bbox, interval, words)
            ]
            shown = wanted[: asked.limit]
            links = [
                _link("self", link("stac-collections", **request.query_params), "application/json"),
                _link("root", link("stac-root"), "application/json"),
            ]
            return {
                "collections": [_collection(c, extents, link, known) for c in shown],
                "links": links,
                "numberMatched": len(wanted),
                "numberReturned": len(shown),
            }

        return json_response(await state.in_catalogue_thread(read), request.headers)

    @routes.get(
        "/collections/{collection}", operation_id="stac.getCollection", responses=_JSON_ANSWER
    )
    async def one_collection(
        request: Request, collection: Annotated[str, Path(description="Id of the collection.")]
    ) -> Response:
        """Return one collection."""
        link = Links.of(request.scope)

        def read() -> dict[str, Any]:
            found = catalog.collection(collection)
            return _collection(found, catalog.extents(), link, by_id(catalog))

        return json_response(await state.in_catalogue_thread(read), request.headers)
