"""STAC API 1.0: items, their search, and what the search can ask."""

# No postponed annotations here: FastAPI resolves them at run time.
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from catalog.database import Catalog
from catalog.records import Collection
from catalog.search import SearchQuery
from catalog.stac import item_to_stac
from cim_server.errors import InvalidRequest
from cim_server.links import Links
from cim_server.responses import json_response, plain_json
from cim_server.services.search import (
    ItemsParameters,
    SearchBody,
    SearchParameters,
    known_names,
    only,
    query_of,
)
from cim_server.state import CURRENT, State
from tiling.errors import NotFound

GEOJSON = "application/geo+json"
_FEATURES_ANSWER: Any = {200: {"content": {GEOJSON: {}}}}
_SCHEMA_ANSWER: Any = {200: {"content": {"application/schema+json": {}}}}


def by_id(catalog: Catalog) -> dict[str, Collection]:
    """Return the collections by id, in their order."""
    return {collection.id: collection for collection in catalog.collections()}


def rel_link(rel: str, href: str, media_type: str, **more: Any) -> dict[str, Any]:
    """Return a link object."""
    return {"rel": rel, "href": href, "type": media_type, **more}


def refuse_unknown(request: Request, parameters: type[BaseModel]) -> None:
    """Refuse what is no parameter.

    Raises:
        InvalidRequest: there is one.
    """
    known = known_names(parameters)
    if unknown := sorted(set(request.query_params) - known):
        raise InvalidRequest(
            f"unknown parameter {', '.join(unknown)}; known are {', '.join(sorted(known))}"
        )


def add(routes: APIRouter, state: State) -> None:
    """Add the endpoints."""
    _add_items(routes, state)
    _add_search(routes, state)
    _add_queryables(routes, state)


def _page(
    catalog: Catalog, body: SearchBody, link: Links, links: list[dict[str, Any]]
) -> tuple[dict[str, Any], str | None]:
    found = catalog.search(query_of(body))
    collections = by_id(catalog)
    features = [
        only(item_to_stac(i, v, link, collections, shown=CURRENT), body.fields)
        for i, v in found.items
    ]
    document: dict[str, Any] = {
        "type": "FeatureCollection",
        "features": features,
        "links": [rel_link("root", link("stac-root"), "application/json"), *links],
        "numberReturned": len(features),
    }
    if found.matched is not None:
        document["numberMatched"] = found.matched
    return document, found.next


def _add_items(routes: APIRouter, state: State) -> None:
    catalog = state.catalog

    @routes.get(
        "/collections/{collection}/items", operation_id="stac.getItems", responses=_FEATURES_ANSWER
    )
    async def items(
        request: Request,
        collection: Annotated[str, Path(description="Id of the collection.")],
        asked: Annotated[ItemsParameters, Query()],
    ) -> Response:
        """Return a page of the collection's published assets."""
        refuse_unknown(request, ItemsParameters)
        link = Links.of(request.scope)
        body = asked.body().model_copy(update={"collections": [collection]})
        here = link("stac-items", collection=collection, **request.query_params)

        def read() -> dict[str, Any]:
            catalog.collection(collection)
            home = link("stac-collection", collection=collection)
            links = [
                rel_link("self", here, GEOJSON),
                rel_link("collection", home, "application/json"),
            ]
            document, after = _page(catalog, body, link, links)
            if after is not None:
                params = {**request.query_params, "token": after}
                href = link("stac-items", collection=collection, **params)
                document["links"].append(rel_link("next", href, GEOJSON))
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
            return item_to_stac(*found[0], link, by_id(catalog), shown=CURRENT)

        document = await state.in_catalogue_thread(read)
        return json_response(document, request.headers, media_type=GEOJSON)


def _add_search(routes: APIRouter, state: State) -> None:
    catalog = state.catalog

    @routes.get("/search", operation_id="stac.getSearch", responses=_FEATURES_ANSWER)
    async def search(request: Request, asked: Annotated[SearchParameters, Query()]) -> Response:
        """Search the published assets."""
        refuse_unknown(request, SearchParameters)
        link = Links.of(request.scope)
        body = asked.body()

        def read() -> dict[str, Any]:
            here = link("stac-search", **request.query_params)
            document, after = _page(catalog, body, link, [rel_link("self", here, GEOJSON)])
            if after is not None:
                href = link("stac-search", **{**request.query_params, "token": after})
                document["links"].append(rel_link("next", href, GEOJSON, method="GET"))
            return document

        document = await state.in_catalogue_thread(read)
        return json_response(document, request.headers, media_type=GEOJSON)

    @routes.post("/search", operation_id="stac.postSearch", responses=_FEATURES_ANSWER)
    async def post_search(request: Request, body: SearchBody) -> Response:
        """Search the published assets with a JSON body."""
        link = Links.of(request.scope)

        def read() -> dict[str, Any]:
            href = link("stac-search")
            document, after = _page(catalog, body, link, [rel_link("self", href, GEOJSON)])
            if after is not None:
                again = {**body.model_dump(exclude_none=True, by_alias=True), "token": after}
                more = {"method": "POST", "body": again, "merge": False}
                document["links"].append(rel_link("next", href, GEOJSON, **more))
            return document

        document = await state.in_catalogue_thread(read)
        return plain_json(document, media_type=GEOJSON)


def _add_queryables(routes: APIRouter, state: State) -> None:
    catalog = state.catalog

    @routes.get("/queryables", operation_id="stac.getQueryables", responses=_SCHEMA_ANSWER)
    async def queryables(request: Request) -> Response:
        """Return what filters can ask of any asset, as a JSON Schema."""
        here = Links.of(request.scope)("stac-queryables")
        return await _schema(request, here, None, "资产的可查询属性")

    @routes.get(
        "/collections/{collection}/queryables",
        operation_id="stac.getCollectionQueryables",
        responses=_SCHEMA_ANSWER,
    )
    async def collection_queryables(
        request: Request, collection: Annotated[str, Path(description="Id of the collection.")]
    ) -> Response:
        """Return what filters can ask of the assets of a collection, as a JSON Schema."""
        here = Links.of(request.scope)("stac-collection-queryables", collection=collection)
        known = await state.in_catalogue_thread(catalog.collection, collection)
        return await _schema(request, here, collection, f"{known.title}的可查询属性")

    async def _schema(request: Request, here: str, collection: str | None, title: str) -> Response:
        document = {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$id": here,
            "type": "object",
            "title": title,
            "properties": await state.in_catalogue_thread(catalog.queryables, collection),
            "additionalProperties": True,
        }
        return json_response(document, request.headers, media_type="application/schema+json")
