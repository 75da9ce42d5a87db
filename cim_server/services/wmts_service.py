"""WMTS of all rasters: one document of every layer, and tiles by key-value requests.

Errors are OWS exception reports here, as OGC 07-057r7 asks; elsewhere they are problem documents.
"""

# No postponed annotations here: FastAPI resolves them at run time.
from typing import Any

import anyio.to_thread
from fastapi import APIRouter, Request
from starlette.responses import Response

from cim_server.errors import InvalidRequest, status_of
from cim_server.links import Links
from cim_server.raster_sources import rasters_of
from cim_server.responses import bytes_response
from cim_server.services.imagery import tile_matrix_sets
from cim_server.services.raster_tiles import GRIDS, WMTS, RasterTiles, cell
from cim_server.services.wmts import FORMATS, Layer, capabilities, exception
from cim_server.state import CURRENT, State
from tiling.coords import TileCoord
from tiling.errors import CimError, NotFound
from tiling.schemes import Scheme

_VARY = {"Vary": "Host, Forwarded, X-Forwarded-Host, X-Forwarded-Proto, X-Forwarded-Prefix"}
_XML: Any = {200: {"content": {"application/xml": {}}}}


class _Refused(Exception):
    def __init__(self, code: str, locator: str, text: str, status: int = 400) -> None:
        self.answer = exception(code, locator, text), status


def router(state: State, tiles: RasterTiles) -> APIRouter:
    """Return ``/wmts`` and ``/wmts/1.0.0/WMTSCapabilities.xml``.

    Args:
        state: of the server.
        tiles: answers for tiles.
    """
    routes = APIRouter(tags=["raster"], default_response_class=Response)
    sets = tile_matrix_sets()

    async def document(request: Request, address: str, query: str | None) -> Response:
        links = Links.of(request.scope)
        layers = await anyio.to_thread.run_sync(_layers, state)
        body = capabilities(links, layers, sets, address, query)
        return bytes_response(body, request.headers, "application/xml", extra=_VARY)

    @routes.get(
        "/wmts/1.0.0/WMTSCapabilities.xml", operation_id="wmts.capabilities", responses=_XML
    )
    async def restful(request: Request) -> Response:
        """Describe the tiles of every raster as OGC WMTS 1.0.0, with RESTful addresses."""
        return await document(request, Links.of(request.scope)("wmts-restful"), "")

    @routes.get(WMTS, operation_id="wmts.kvp", responses=_XML)
    async def by_keys(request: Request) -> Response:
        """Answer key-value requests of OGC WMTS 1.0.0: GetCapabilities and GetTile."""
        keys = {name.upper(): value for name, value in request.query_params.items()}
        try:
            asked = _needed(keys, "REQUEST")
            if keys.get("SERVICE", "WMTS").upper() != "WMTS":
                raise _Refused("InvalidParameterValue", "SERVICE", "the service is WMTS")
            if asked.lower() == "getcapabilities":
                return await document(request, Links.of(request.scope)("wmts"), None)
            if asked.lower() != "gettile":
                raise _Refused("OperationNotSupported", "REQUEST", f"no operation {asked!r}", 501)
            return await _tile(state, tiles, request, keys)
        except _Refused as refused:
            body, status = refused.answer
            return Response(body, status, media_type="application/xml")

    return routes


def _layers(state: State) -> list[Layer]:
    snapshot = state.snapshot
    layers = []
    for asset in sorted(snapshot.current):
        entry = snapshot.entries[asset, CURRENT]
        if any(ref.role == "data" and ref.format == "cog" for ref in entry.stores):
            layers.append(Layer.of(asset, rasters_of(state, entry)))
    return layers


async def _tile(
    state: State, tiles: RasterTiles, request: Request, keys: dict[str, str]
) -> Response:
    media_type = _needed(keys, "FORMAT")
    if media_type not in FORMATS:
        text = f"{media_type!r}: there are {', '.join(FORMATS)}"
        raise _Refused("InvalidParameterValue", "FORMAT", text)
    if keys.get("STYLE", "default") not in ("", "default"):
        raise _Refused("InvalidParameterValue", "STYLE", "the style is 'default'")
    grid = _needed(keys, "TILEMATRIXSET")
    if grid not in GRIDS:
        text = f"{grid!r}: there are {', '.join(GRIDS)}"
        raise _Refused("InvalidParameterValue", "TILEMATRIXSET", text)
    layer = _needed(keys, "LAYER")
    try:
        entry = state.entry(layer, CURRENT)
        rasters_of(state, entry)
    except NotFound as error:
        raise _Refused("InvalidParameterValue", "LAYER", str(error)) from error
    tile = _cell(GRIDS[grid], keys)
    try:
        return await tiles.answer(
            request, entry, GRIDS[grid], tile, 256, (FORMATS[media_type],), (), {}
        )
    except NotFound as error:
        # 404, which clients take for an empty tile, where the layer's box is not filled.
        status = 404 if GRIDS[grid].bounds(tile).intersects(entry.bounds) else 400
        raise _Refused("TileOutOfRange", "TILECOL", str(error), status) from error
    except CimError as error:
        raise _Refused("NoApplicableCode", "", str(error), status_of(error)) from error


def _cell(scheme: Scheme, keys: dict[str, str]) -> TileCoord:
    numbers = []
    for name in ("TILEMATRIX", "TILECOL", "TILEROW"):
        text = _needed(keys, name)
        if not (text.isascii() and text.isdecimal() and len(text) < 10):
            raise _Refused("InvalidParameterValue", name, f"{text!r} is not a number")
        numbers.append(int(text))
    try:
        return cell(scheme, *numbers)
    except InvalidRequest as error:
        raise _Refused("InvalidParameterValue", "TILEMATRIX", str(error)) from error
    except NotFound as error:
        raise _Refused("TileOutOfRange", "TILECOL", str(error)) from error


def _needed(keys: dict[str, str], name: str) -> str:
    if not keys.get(name):
        raise _Refused("MissingParameterValue", name, f"the request needs {name}")
    return keys[name]
