"""STAC API 1.0: the catalogue for programs. Core, Collections, Features, Item Search.

Parameters that are not understood are refused: a filter silently ignored would answer with assets
that were not asked for.
"""

# No postponed annotations here: FastAPI resolves them at run time.
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from catalog.database import Catalog
from catalog.records import Collection
from catalog.search import MAX_LIMIT, SearchQuery, parse_bbox
from catalog.stac import collection_to_stac, item_to_stac
from cim_server.errors import InvalidRequest
from cim_server.links import Links
from cim_server.responses import json_response, plain_json
from cim_server.services.search import DEFAULT_LIMIT, SearchBody, find, parse_geometry, query_of
from cim_server.state import CURRENT, State
from tiling.errors import NotFound

GEOJSON = "application/geo+json"
OPENAPI = "application/vnd.oai.openapi+json;version=3.1"

# Only what holds.
CONFORMANCE = (
    "https://api.stacspec.org/v1.0.0/core",
    "https://api.stacspec.org/v1.0.0/collections",
    "https://api.stacspec.org/v1.0.0/ogcapi-features",
    "https://api.stacspec.org/v1.0.0/item-search",
    "http://www.opengis.net/spec/ogcapi-features-1/1.0/conf/core",
    "http://www.opengis.net/spec/ogcapi-features-1/1.0/conf/geojson",
)

_Bbox = Annotated[
    str | None, Query(description="west,south,east,north (or with heights), degrees.")
]
_Datetime = Annotated[
    str | None,
    Query(alias="datetime", description="RFC 3339 time, or an interval with `/`; `..` is open."),
]
_Limit = Annotated[int, Query(ge=1, description=f"Items per page, at most {MAX_LIMIT}.")]
_Token = Annotated[str | None, Query(description="Page, from a `next` link.")]
_Names = Annotated[str | None, Query(description="Ids with commas between them.")]
_Geometry = Annotated[str | None, Query(description="GeoJSON geometry.")]


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name for name in text.split(",") if name]


def _refuse_unknown(request: Request, known: frozenset[str]) -> None:
    unknown = sorted(set(request.query_params) - known)
    if unknown:
        raise InvalidRequest(
            f"unknown parameter {', '.join(unknown)}; known are {', '.join(sorted(known))}"
        )


_ITEMS_PARAMETERS = frozenset(("bbox", "datetime", "limit", "token"))
_SEARCH_PARAMETERS = _ITEMS_PARAMETERS | {"ids", "collections", "intersects"}


def _by_id(catalog: Catalog) -> dict[str, Collection]:
    return {collection.id: collection for collection in catalog.collections()}


def _published(catalog: Catalog, wanted: str | None = None) -> dict[str, list[Any]]:
    """Return the published assets with their current versions, by collection."""
    grouped: dict[str, list[Any]] = {}
    only = None if wanted is None else [wanted]
    query = SearchQuery(collections=only, limit=MAX_LIMIT)
    while True:
        page = catalog.search(query)
        for item, version in page.items:
            grouped.setdefault(item.collection, []).append((item, version))
        if page.next is None:
            return grouped
        query = replace(query, token=page.next)


def _link(rel: str, href: str, media_type: str, **more: Any) -> dict[str, Any]:
    return {"rel": rel, "href": href, "type": media_type, **more}


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
            _link("service-desc", link("openapi"), OPENAPI),
            _link("service-doc", link("docs"), "text/html"),
            *children,
        ],
    }


def _collection(
    collection: Collection,
    published: list[Any],
    link: Links,
    collections: dict[str, Collection],
) -> dict[str, Any]:
    document = collection_to_stac(collection, published, link, collections)
    items = link("stac-items", collection=collection.id)
    document["links"].append(_link("items", items, GEOJSON))
    return document


def _page(
    catalog: Catalog, body: SearchBody, link: Links, links: list[dict[str, Any]]
) -> tuple[dict[str, Any], str | None]:
    found = find(catalog, *query_of(body))
    collections = _by_id(catalog)
    features = [item_to_stac(i, v, link, collections, shown=CURRENT) for i, v in found.pairs]
    document: dict[str, Any] = {
        "type": "FeatureCollection",
        "features": features,
        "links": [_link("root", link("stac-root"), "application/json"), *links],
        "numberReturned": len(features),
    }
    if found.matched is not None:
        document["numberMatched"] = found.matched
    return document, found.next


def router(state: State) -> APIRouter:
    """Return the endpoints below ``/stac``."""
    routes = APIRouter(prefix="/stac", tags=["STAC"], default_response_class=Response)
    _add_catalogue(routes, state)
    _add_items(routes, state)
    _add_search(routes, state)
    return routes


_JSON_ANSWER: Any = {200: {"content": {"application/json": {}}}}
_FEATURES_ANSWER: Any = {200: {"content": {GEOJSON: {}}}}


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
    async def collections(request: Request) -> Response:
        """Return every collection with the extent of what is published in it."""
        link = Links.of(request.scope)

        def read() -> list[dict[str, Any]]:
            known, published = _by_id(catalog), _published(catalog)
            return [_collection(c, published.get(c.id, []), link, known) for c in known.values()]

        links = [
            _link("self", link("stac-collections"), "application/json"),
            _link("root", link("stac-root"), "application/json"),
        ]
        found = await state.in_catalogue_thread(read)
        return json_response({"collections": found, "links": links}, request.headers)

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
            published = _published(catalog, collection).get(collection, [])
            return _collection(found, published, link, _by_id(catalog))

        return json_response(await state.in_catalogue_thread(read), request.headers)


def _add_items(routes: APIRouter, state: State) -> None:
    catalog = state.catalog

    @routes.get(
        "/collections/{collection}/items", operation_id="stac.getItems", responses=_FEATURES_ANSWER
    )
    async def items(
        request: Request,
        collection: Annotated[str, Path(description="Id of the collection.")],
        bbox: _Bbox = None,
        when: _Datetime = None,
        limit: _Limit = DEFAULT_LIMIT,
        token: _Token = None,
    ) -> Response:
        """Return a page of the collection's published assets."""
        _refuse_unknown(request, _ITEMS_PARAMETERS)
        link = Links.of(request.scope)
        body = SearchBody(
            bbox=None if bbox is None else list(parse_bbox(bbox)),
            datetime=when,
            collections=[collection],
            limit=limit,
            token=token,
        )
        here = link("stac-items", collection=collection, **request.query_params)

        def read() -> dict[str, Any]:
            catalog.collection(collection)
            links = [
                _link("self", here, GEOJSON),
                _link(
                    "collection", link("stac-collection", collection=collection), "application/json"
                ),
            ]
            document, after = _page(catalog, body, link, links)
            if after is not None:
                params = {**request.query_params, "token": after}
                href = link("stac-items", collection=collection, **params)
                document["links"].append(_link("next", href, GEOJSON))
            return document

        document = await state.in_catalogue_thread(read)
        return json_response(document, request.headers, media_type=GEOJSON)

    @routes.get(
        "/collections/{collection}/items/{item}",
        operation_id="stac.getItem",
        responses=_FEATURES_ANSWER,
    )
    async def one_item(
        request: Request,
        collection: Annotated[str, Path(description="Id of the collection.")],
        item: Annotated[str, Path(description="Id of the asset.")],
    ) -> Response:
        """Return one published asset."""
        link = Links.of(request.scope)

        def read() -> dict[str, Any]:
            found = catalog.search(SearchQuery(ids=[item], collections=[collection])).items
            if not found:
                raise NotFound(f"collection {collection!r} has no published asset {item!r}")
            return item_to_stac(*found[0], link, _by_id(catalog), shown=CURRENT)

        document = await state.in_catalogue_thread(read)
        return json_response(document, request.headers, media_type=GEOJSON)


def _add_search(routes: APIRouter, state: State) -> None:
    catalog = state.catalog

    @routes.get("/search", operation_id="stac.getSearch", responses=_FEATURES_ANSWER)
    async def search(
        request: Request,
        bbox: _Bbox = None,
        when: _Datetime = None,
        ids: _Names = None,
        collections: _Names = None,
        intersects: _Geometry = None,
        limit: _Limit = DEFAULT_LIMIT,
        token: _Token = None,
    ) -> Response:
        """Search the published assets."""
        _refuse_unknown(request, _SEARCH_PARAMETERS)
        link = Links.of(request.scope)
        body = SearchBody(
            bbox=None if bbox is None else list(parse_bbox(bbox)),
            datetime=when,
            ids=_names(ids),
            collections=_names(collections),
            intersects=None if intersects is None else parse_geometry(intersects),
            limit=limit,
            token=token,
        )

        def read() -> dict[str, Any]:
            here = link("stac-search", **request.query_params)
            document, after = _page(catalog, body, link, [_link("self", here, GEOJSON)])
            if after is not None:
                href = link("stac-search", **{**request.query_params, "token": after})
                document["links"].append(_link("next", href, GEOJSON, method="GET"))
            return document

        document = await state.in_catalogue_thread(read)
        return json_response(document, request.headers, media_type=GEOJSON)

    @routes.post("/search", operation_id="stac.postSearch", responses=_FEATURES_ANSWER)
    async def post_search(request: Request, body: SearchBody) -> Response:
        """Search the published assets with a JSON body."""
        link = Links.of(request.scope)

        def read() -> dict[str, Any]:
            href = link("stac-search")
            document, after = _page(catalog, body, link, [_link("self", href, GEOJSON)])
            if after is not None:
                again = {**body.model_dump(exclude_none=True), "token": after}
                more = {"method": "POST", "body": again, "merge": False}
                document["links"].append(_link("next", href, GEOJSON, **more))
            return document

        document = await state.in_catalogue_thread(read)
        return plain_json(document, media_type=GEOJSON)
