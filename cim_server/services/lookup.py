"""Lookup: where is the feature with this code, id or name? GeoJSON from the feature indices."""

# No postponed annotations here: FastAPI resolves them at run time.
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from catalog.feature_index import BY, MAX_LIMIT, MAX_OFFSET, By, FoundFeature, find_features
from cim_server.errors import InvalidRequest
from cim_server.links import Links
from cim_server.responses import json_response
from cim_server.state import CURRENT, State
from tiling.coords import unmorton2

GEOJSON = "application/geo+json"
_PARAMETERS = frozenset(("q", "by", "asset", "prefix", "limit", "offset"))
_ANSWER: Any = {200: {"content": {GEOJSON: {}}}}
_CELL_LEVEL = 14


def feature_document(found: FoundFeature, link: Links) -> dict[str, Any]:
    """Return a found feature as GeoJSON with links to its asset."""
    hit = found.hit
    x, y = (int(v) for v in unmorton2(hit.cell))
    item = link("stac-item", collection=found.collection, item=found.asset)
    tileset = link("tileset", asset=found.asset, version=CURRENT)
    portal = link("portal", item=found.asset)
    return {
        "type": "Feature",
        "id": hit.id,
        "geometry": {"type": "Point", "coordinates": [hit.lon, hit.lat]},
        "bbox": list(hit.bbox),
        "properties": {
            "asset": found.asset,
            "version": found.version,
            "code": hit.code,
            "name": hit.name,
            "cell": f"{_CELL_LEVEL}/{x}/{y}",
            "base_m": hit.base_m,
            "height_m": hit.height_m,
            "matched": hit.matched,
            "exact": hit.exact,
        },
        "links": [
            {"rel": "item", "href": item, "type": GEOJSON},
            {"rel": "tileset", "href": tileset, "type": "application/json"},
            {"rel": "alternate", "href": portal, "type": "text/html"},
        ],
    }


def router(state: State) -> APIRouter:
    """Return the endpoint ``/features/lookup``."""
    routes = APIRouter(prefix="/features", tags=["Features"], default_response_class=Response)

    @routes.get("/lookup", operation_id="features.lookup", responses=_ANSWER)
    async def lookup(
        request: Request,
        q: Annotated[str, Query(description="Code, id or name.")],
        by: Annotated[
            str, Query(description="code, id, name, or several with commas between them.")
        ] = ",".join(BY),
        asset: Annotated[str | None, Query(description="Only in this asset.")] = None,
        prefix: Annotated[bool, Query(description="Also what only begins with it.")] = False,
        limit: Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Most features.")] = 10,
        offset: Annotated[int, Query(ge=0, le=MAX_OFFSET, description="How many to skip.")] = 0,
    ) -> Response:
        """Find features by code, id or name; exact matches first."""
        unknown = sorted(set(request.query_params) - _PARAMETERS)
        if unknown:
            raise InvalidRequest(f"unknown parameter {', '.join(unknown)}")
        columns: list[By] = [c for c in BY if c in by.split(",")]
        if set(by.split(",")) != set(columns):
            raise InvalidRequest(f"by {by[:80]!r} is not made of {', '.join(BY)}")

        def read() -> list[FoundFeature]:
            return find_features(
                state.catalog,
                state.indexes,
                q,
                asset=asset,
                by=columns,
                prefix=prefix,
                limit=limit,
                offset=offset,
            )

        found = await state.in_catalogue_thread(read)
        link = Links.of(request.scope)
        document = {
            "type": "FeatureCollection",
            "features": [feature_document(one, link) for one in found],
            "numberReturned": len(found),
        }
        return json_response(document, request.headers, media_type=GEOJSON)

    return routes
