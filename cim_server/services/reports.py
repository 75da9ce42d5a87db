"""Quality reports: what the ingest of a version found, dropped, repaired and assumed."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from cim_server.responses import IMMUTABLE, REVALIDATE, json_response
from cim_server.state import CURRENT, State


def router(state: State) -> APIRouter:
    """Return ``/reports/{asset}/{version}``."""
    routes = APIRouter(tags=["catalogue"])

    @routes.get(
        "/reports/{asset}/{version}",
        response_class=Response,
        operation_id="getReport",
        responses={200: {"content": {"application/json": {}}}},
    )
    async def report(
        request: Request,
        asset: Annotated[str, Path(description="Id of the asset.")],
        version: Annotated[str, Path(description="Version number or `current`.")],
    ) -> Response:
        """Return the report of the ingest that made a version."""
        # The snapshot leaves reports out: they can be long and are rarely asked for.
        number = state.entry(asset, version).number
        record = await state.in_catalogue_thread(state.catalog.version, asset, number)
        cache_control = REVALIDATE if version == CURRENT else IMMUTABLE
        return json_response(dict(record.report), request.headers, cache_control=cache_control)

    return routes
