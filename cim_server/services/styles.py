"""Styles: how a kind of asset looks, as data."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from cim_server.responses import json_response
from styles import load_style, style_names
from tiling.errors import NotFound


def router() -> APIRouter:
    """Return ``/styles/{name}.json``."""
    routes = APIRouter(tags=["styles"])

    @routes.get(
        "/styles/{name}.json",
        response_class=Response,
        operation_id="getStyle",
        responses={200: {"content": {"application/json": {}}}},
    )
    async def style(
        request: Request, name: Annotated[str, Path(description="Name of the style.")]
    ) -> Response:
        """Return a style; for buildings a 3D Tiles style that Cesium reads as it is."""
        if name not in style_names():
            raise NotFound(f"no style {name!r}; there are {', '.join(style_names())}")
        return json_response(load_style(name), request.headers)

    return routes
