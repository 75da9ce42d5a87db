"""Tiles of images and elevation models: the hot path of rasters.

One plain route before FastAPI's: a look into the snapshot, a look into the memory of computed
tiles, and only then a thread that renders. What it does not know (algorithms, colour formulas,
buffers) goes on to TiTiler's endpoint of the same address.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import Any
from urllib.parse import parse_qsl

import anyio.to_thread
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from cim_server.computed import TileKey
from cim_server.errors import InvalidRequest
from cim_server.middleware.measure import label
from cim_server.open_rasters import OpenRasters
from cim_server.raster_look import PARAMETERS, Look
from cim_server.raster_sources import VersionRasters, rasters_of
from cim_server.raster_tiles import MEDIA_TYPES, TileJob, render
from cim_server.responses import IMMUTABLE, REVALIDATE, matches
from cim_server.state import CURRENT, Entry, State
from tiling.coords import TileCoord
from tiling.errors import NotFound
from tiling.schemes import CGCS2000_QUAD, WEB_MERCATOR_QUAD
from tiling.schemes import Scheme as GridScheme
from tiling.stores.base import StoredTile

TEMPLATE = "/raster/{asset}/tiles/{tileMatrixSetId}/{z}/{x}/{y}"
GRIDS = {scheme.name: scheme for scheme in (WEB_MERCATOR_QUAD, CGCS2000_QUAD)}
WMTS = "/wmts"
MAX_ZOOM = 24
SIZES = (256, 512)
_ROW = re.compile(r"(\d{1,8})(@2x)?(?:\.(\w{1,8}))?")
_KNOWN = PARAMETERS | {"version", "tilesize"}


class RasterTiles:
    """The route of raster tiles.

    Args:
        state: of the server.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._others: ASGIApp | None = None

    def routes(self, others: ASGIApp) -> list[BaseRoute]:
        """Return the one route.

        Args:
            others: the application that answers what this does not know.
        """
        self._others = others
        path = "/raster/{asset}/tiles/{grid}/{z:int}/{x:int}/{row}"
        return [Route(path, self, name="raster-tiles")]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass on."""
        assert self._others is not None  # it has routes
        params = scope["path_params"]
        row = _ROW.fullmatch(params["row"])
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        known = row is not None and (row[3] is None or row[3] in MEDIA_TYPES)
        if (
            not known
            or row is None
            or scope["method"] not in ("GET", "HEAD")
            or params["grid"] not in GRIDS
            or any(name not in _KNOWN for name, _ in query)
        ):
            await self._others(scope, receive, send)
            return
        label(scope, TEMPLATE)
        response = await self._answer(Request(scope), params, row, query)
        await response(scope, receive, send)

    async def _answer(
        self, request: Request, params: dict[str, Any], row: re.Match[str], query: list[Any]
    ) -> Response:
        scheme = GRIDS[params["grid"]]
        tile = cell(scheme, params["z"], params["x"], int(row[1]))
        size = _size(query, twice=row[2] is not None)
        formats = (row[3],) if row[3] else negotiated(request.headers.get("accept"))
        asked = tuple(sorted(pair for pair in query if pair[0] in PARAMETERS))
        entry = self._state.entry(params["asset"], _version(query))
        sent = {"Vary": "Accept"} if not row[3] else {}
        return await self.answer(request, entry, scheme, tile, size, formats, asked, sent)

    async def answer(
        self,
        request: Request,
        entry: Entry,
        scheme: GridScheme,
        tile: TileCoord,
        size: int,
        formats: tuple[str, ...],
        asked: tuple[tuple[str, str], ...],
        headers: dict[str, str],
    ) -> Response:
        """Answer with a tile, or 304.

        Args:
            request: for its validators.
            entry: the version.
            scheme, tile, size: which tile; it must be in the grid.
            formats: as `TileJob` takes them.
            asked: the looks asked for, sorted.
            headers: more headers of the answer.

        Raises:
            NotFound: no raster, or none that reaches the tile.
            InvalidRequest: a look that means nothing.
        """
        rasters = rasters_of(self._state, entry)
        what = (scheme.name, tile, size, formats, asked)
        etag = f'"{blake2b(f"{rasters.digests} {what}".encode(), digest_size=12).hexdigest()}"'
        immutable = b"version=" in request.scope["query_string"] and request.scope["path"] != WMTS
        sent = {**headers, "ETag": etag, "Cache-Control": IMMUTABLE if immutable else REVALIDATE}
        if matches(request.headers.get("if-none-match"), etag):
            return Response(status_code=304, headers=sent)

        async def make() -> StoredTile | None:
            look = Look.of(asked)
            made = await anyio.to_thread.run_sync(
                _made, self._state.rasters, rasters, scheme, tile, size, look, formats
            )
            return None if made is None else StoredTile(made[0], made[1], None, etag)

        found = await self._state.computed.get(TileKey(rasters.digests, what), make)
        if found is None:
            raise NotFound(f"{entry.asset!r} does not reach tile {tile.level}/{tile.x}/{tile.y}")
        return Response(found.data, media_type=found.media_type, headers=sent)


def _made(
    handles: OpenRasters,
    rasters: VersionRasters,
    scheme: GridScheme,
    tile: TileCoord,
    size: int,
    look: Look,
    formats: tuple[str, ...],
) -> tuple[bytes, str] | None:
    sources = rasters.under(scheme, tile, size)
    if not sources:
        return None
    return render(handles, TileJob(sources, scheme, tile, size, look, formats))


def _version(query: list[Any]) -> str:
    asked = [value for name, value in query if name == "version"]
    if not asked:
        return CURRENT
    if not re.fullmatch(r"[1-9]\d{0,8}", asked[-1]):
        raise InvalidRequest(f"version={asked[-1]!r} is not a version number")
    return str(asked[-1])


def cell(scheme: GridScheme, z: int, x: int, y: int) -> TileCoord:
    """Return a cell of a grid.

    Raises:
        InvalidRequest: too fine a level.
        NotFound: the grid has no such cell.
    """
    if z > MAX_ZOOM:
        raise InvalidRequest(f"z={z} is not between 0 and {MAX_ZOOM}")
    columns, rows = scheme.size(z)
    if x >= columns or y >= rows:
        raise NotFound(
            f"{scheme.name} has {columns} x {rows} cells at level {z}: {x}/{y} is not one"
        )
    return TileCoord(z, x, y)


def _size(query: list[Any], twice: bool) -> int:
    asked = [value for name, value in query if name == "tilesize"]
    if not asked:
        return 512 if twice else 256
    if asked[-1] not in map(str, SIZES):
        raise InvalidRequest(f"tilesize={asked[-1]!r} is not one of 256, 512")
    return int(asked[-1])


def negotiated(accept: str | None) -> tuple[str, ...]:
    """Return the formats for a request without an ending: for whole tiles, for others.

    WebP for whoever names it; else JPEG, and PNG where something is transparent, as far as
    ``Accept`` allows.
    """
    weights = dict(_weighed(part) for part in (accept or "*/*").split(","))
    anything = weights.get("*/*", weights.get("image/*", 0.0))

    def liked(media_type: str) -> bool:
        return weights.get(media_type, weights.get("image/*", anything)) > 0

    if weights.get("image/webp", 0.0) > 0:
        return ("webp",)
    allowed = [e for e, m in (("jpg", "image/jpeg"), ("png", "image/png")) if liked(m)]
    return tuple(allowed) or ("jpg", "png")


def _weighed(part: str) -> tuple[str, float]:
    media_type, _, parameters = part.partition(";")
    _, _, weight = parameters.replace(" ", "").partition("q=")
    try:
        return media_type.strip().lower(), float(weight or 1)
    except ValueError:
        return media_type.strip().lower(), 1.0
