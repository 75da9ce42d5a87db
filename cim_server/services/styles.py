"""Styles: how a kind of asset looks, as data; and the characters that maps write with."""

from __future__ import annotations

import re
from functools import lru_cache
from hashlib import blake2b
from typing import Annotated

import anyio.to_thread
from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from cim_server.responses import json_response, tile_response
from styles import load_style, style_names
from styles.glyphs import SPAN, first_font, font_names, load_glyphs
from tiling.errors import NotFound
from tiling.stores.base import StoredTile

_PBF = "application/x-protobuf"
_RANGE = re.compile(r"(\d{1,7})-(\d{1,7})")
# Fonts change with the software alone.
_A_DAY = "public, max-age=86400"


@lru_cache(maxsize=512)
def _glyphs(font: str, start: int) -> StoredTile:
    data = load_glyphs(font, start)
    return StoredTile(data, _PBF, "gzip", blake2b(data, digest_size=12).hexdigest())


def router() -> APIRouter:
    """Return ``/styles/{name}.json`` and ``/styles/fonts/{fontstack}/{range}.pbf``."""
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

    @routes.get(
        "/styles/fonts/{fontstack}/{span}.pbf",
        response_class=Response,
        operation_id="getGlyphs",
        responses={200: {"content": {_PBF: {}}}},
    )
    async def glyphs(
        request: Request,
        fontstack: Annotated[str, Path(description="Fonts, commas between them.")],
        span: Annotated[str, Path(description="Range of 256 code points, as `0-255`.")],
    ) -> Response:
        """Return 256 characters as maps of MapLibre write them, in the first font that is here."""
        font = first_font(fontstack)
        if font is None:
            known = ", ".join(font_names()) or "none: run `make setup`"
            raise NotFound(f"no font of {fontstack[:80]!r} is here; there are {known}")
        match = _RANGE.fullmatch(span)
        start, end = (int(number) for number in match.groups()) if match else (0, 0)
        if start % SPAN or end != start + SPAN - 1 or end > 0x10FFFF:
            raise NotFound(f"{span[:80]!r} is no range such as 0-255 or 19968-20223")
        found = await anyio.to_thread.run_sync(_glyphs, font, start)
        return tile_response(found, request.headers, _A_DAY)

    return routes
