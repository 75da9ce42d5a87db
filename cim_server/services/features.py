"""Features of one asset: what is at a place, and which has an id. GeoJSON from its GeoParquet."""

# No postponed annotations here: FastAPI resolves them at run time.
from pathlib import Path as File
from typing import Annotated, Any

import anyio
import anyio.to_thread
from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from cim_server.errors import InvalidRequest
from cim_server.feature_rows import MAX_FEATURES, MAX_RADIUS_M, feature_by_id, features_at
from cim_server.links import Links
from cim_server.responses import json_response
from cim_server.state import CURRENT, Entry, State
from tiling.errors import NotFound

GEOJSON = "application/geo+json"
_ANSWER: Any = {200: {"content": {GEOJSON: {}}}}
_THREADS = 4

_Asset = Annotated[str, Path(description="Id of the asset.")]
_Version = Annotated[str, Query(description="Number of a version, or `current`.")]


def router(state: State) -> APIRouter:
    """Return the endpoints ``/features/{asset}/at`` and ``/features/{asset}/items/{id}``."""
    routes = APIRouter(prefix="/features", tags=["Features"], default_response_class=Response)
    threads = anyio.CapacityLimiter(_THREADS)

    def files(entry: Entry) -> list[File]:
        found = [state.path_of(ref) for ref in entry.stores if ref.format == "geoparquet"
                 and ref.role == "features"]  # fmt: skip
        if not found:
            raise NotFound(f"version {entry.number} of {entry.asset!r} holds no features")
        return found

    def finished(feature: dict[str, Any], entry: Entry, link: Links) -> dict[str, Any]:
        here = link("feature", asset=entry.asset, id=str(feature["id"]))
        feature["links"] = [
            {"rel": "self", "href": here, "type": GEOJSON},
            {"rel": "alternate", "href": link("portal", item=entry.asset), "type": "text/html"},
        ]
        return feature

    @routes.get("/{asset}/at", operation_id="features.at", responses=_ANSWER)
    async def at(
        request: Request,
        asset: _Asset,
        lon: Annotated[float, Query(ge=-180, le=180, description="Degrees, WGS 84.")],
        lat: Annotated[float, Query(ge=-90, le=90, description="Degrees, WGS 84.")],
        radius: Annotated[
            float, Query(ge=0, le=MAX_RADIUS_M, description="Metres that a feature may be away.")
        ] = 0.0,
        limit: Annotated[int, Query(ge=1, le=MAX_FEATURES, description="Most features.")] = 10,
        version: _Version = CURRENT,
    ) -> Response:
        """Return the features at a place, the nearest first."""
        _refuse_unknown(request, {"lon", "lat", "radius", "limit", "version"})
        entry = state.entry(asset, version)
        found = await anyio.to_thread.run_sync(
            features_at, files(entry), lon, lat, radius, limit, limiter=threads
        )
        link = Links.of(request.scope)
        document = {
            "type": "FeatureCollection",
            "features": [finished(feature, entry, link) for feature in found],
            "numberReturned": len(found),
        }
        return json_response(document, request.headers, media_type=GEOJSON)

    @routes.get("/{asset}/items/{feature}", operation_id="features.item", responses=_ANSWER)
    async def item(
        request: Request,
        asset: _Asset,
        feature: Annotated[int, Path(ge=0, lt=2**63, description="Id, as tiles have it.")],
        version: _Version = CURRENT,
    ) -> Response:
        """Return one feature with its whole geometry and all its attributes."""
        _refuse_unknown(request, {"version"})
        entry = state.entry(asset, version)
        found = await anyio.to_thread.run_sync(
            feature_by_id, files(entry), feature, limiter=threads
        )
        if found is None:
            raise NotFound(f"version {entry.number} of {asset!r} has no feature {feature}")
        document = finished(found, entry, Links.of(request.scope))
        return json_response(document, request.headers, media_type=GEOJSON)

    return routes


def _refuse_unknown(request: Request, known: set[str]) -> None:
    if unknown := sorted(set(request.query_params) - known):
        raise InvalidRequest(f"unknown parameter {', '.join(unknown)}")
