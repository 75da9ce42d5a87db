"""Tiles of every kind: 3D Tiles, terrain, vector tiles, from whatever stores a version has.

The hot path: one route, one look into the snapshot, one read of a store, one `Response`. A key of
the URL is looked up in a store's index and never becomes a file name.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio.to_thread
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from catalog.records import StoreRef
from cim_server.errors import InvalidRequest, RangeNotSatisfiable
from cim_server.links import Links
from cim_server.middleware.measure import label
from cim_server.responses import IMMUTABLE, REVALIDATE, json_response, matches, tile_response
from cim_server.services.live_tiles import FILTERS, filter_query, live_response
from cim_server.services.terrain_tiles import LAYER, is_partly_baked, on_demand
from cim_server.services.tilejson import ending, map_layers, tilejson
from cim_server.state import CURRENT, Entry, State
from styles.glyphs import font_names
from styles.maps import map_style
from tiling.errors import NotFound, StoreError
from tiling.stores.pmtiles import PmtilesReader

MAX_KEY_LENGTH = 256
TEMPLATE = "/tiles/{asset}/{version}/{key}"
CLOUD = "cloud.copc.laz"
STYLE = "style.json"
TILEJSON = "tilejson.json"
_CHUNK_NBYTES = 1 << 18
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


def check_key(key: str) -> None:
    """Refuse a key that no store can have and that looks like an attempt at a file.

    Raises:
        InvalidRequest: too long, or with ``..``, a backslash or a control character.
    """
    if len(key) > MAX_KEY_LENGTH:
        raise InvalidRequest(f"the tile's path is longer than {MAX_KEY_LENGTH} characters")
    if "\\" in key or not key.isprintable() or ".." in key.split("/"):
        raise InvalidRequest("the tile's path holds '..', a backslash or a control character")


def routes(state: State) -> list[BaseRoute]:
    """Return the one tile route."""

    async def tile(request: Request) -> Response:
        params = request.path_params
        asset, version, key = params["asset"], params["version"], params["key"]
        label(request.scope, TEMPLATE)
        check_key(key)
        entry = state.entry(asset, version)
        if request.scope["query_string"] and "filter" in request.query_params:
            if key == TILEJSON:
                return await _tilejson(state, request, entry, version)
            return await live_response(state, request, entry, key, version)
        partly = entry.kind == "terrain" and is_partly_baked(entry)
        found = None if partly and key == LAYER else await state.tile(entry, key)
        if found is None and partly:
            found = await on_demand(state, entry, key)
        if found is not None:
            cache_control = REVALIDATE if version == CURRENT else IMMUTABLE
            return tile_response(found, request.headers, cache_control)
        if key == TILEJSON:
            return await _tilejson(state, request, entry, version)
        if key == STYLE:
            return await _map_style(state, request, entry, version)
        if key == "archive.pmtiles":
            return _archive(state, request, entry, version)
        if key == CLOUD:
            return _cloud(state, request, entry, version)
        raise NotFound(f"version {entry.number} of {asset!r} has no tile {key!r}")

    return [Route("/tiles/{asset}/{version}/{key:path}", tile, name="tiles")]


async def _map_style(state: State, request: Request, entry: Entry, version: str) -> Response:
    newest = _pmtiles(entry)[0]
    reader = await state.reader(newest)
    if not isinstance(reader, PmtilesReader):
        raise StoreError(f"{newest.path}: not a PMTiles archive")
    if ending(reader) != "mvt":
        raise NotFound(f"version {entry.number} of {entry.asset!r} has no vector tiles to style")
    link = Links.of(request.scope)
    url = link("tile", asset=entry.asset, version=version, key=TILEJSON)
    glyphs = link("glyphs", fontstack="{fontstack}", range="{range}") if font_names() else None
    style = map_style(entry.title, url, map_layers(reader.metadata), glyphs)
    return json_response(style, request.headers, extra=_VARY)


async def _tilejson(state: State, request: Request, entry: Entry, version: str) -> Response:
    newest = _pmtiles(entry)[0]
    reader = await state.reader(newest)
    if not isinstance(reader, PmtilesReader):
        raise StoreError(f"{newest.path}: not a PMTiles archive")
    template = f"{{z}}/{{x}}/{{y}}.{ending(reader)}"
    url = Links.of(request.scope)("tile", asset=entry.asset, version=version, key=template)
    url += filter_query(request.query_params)
    # Its links depend on how the client came here, so no cache may keep it for others.
    return json_response(tilejson(entry, reader, url), request.headers, extra=_VARY)


_VARY = {"Vary": "Host, Forwarded, X-Forwarded-Host, X-Forwarded-Proto, X-Forwarded-Prefix"}


def _pmtiles(entry: Entry) -> list[StoreRef]:
    found = [ref for ref in entry.tiles if ref.format == "pmtiles"]
    if not found:
        raise NotFound(f"version {entry.number} of {entry.asset!r} is not made of PMTiles")
    return found


def _archive(state: State, request: Request, entry: Entry, version: str) -> Response:
    refs = _pmtiles(entry)
    if len(refs) > 1 or entry.tombstones:
        raise NotFound(
            f"version {entry.number} of {entry.asset!r} is made of {len(refs)} archives, none of "
            "which is the whole; export it to get one file"
        )
    return _whole_file(state, request, refs[0], version)


def _cloud(state: State, request: Request, entry: Entry, version: str) -> Response:
    for ref in entry.stores:
        if ref.format == "copc":
            return _whole_file(state, request, ref, version)
    raise NotFound(f"version {entry.number} of {entry.asset!r} has no COPC")


def _whole_file(state: State, request: Request, ref: StoreRef, version: str) -> Response:
    path, etag = state.path_of(ref), f'"{ref.sha256}"'
    sent = {
        "Accept-Ranges": "bytes",
        "Cache-Control": REVALIDATE if version == CURRENT else IMMUTABLE,
        "ETag": etag,
    }
    if matches(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers=sent)
    span = None
    if request.headers.get("if-range", etag) == etag:
        span = byte_range(request.headers.get("range"), ref.nbytes)
    first, last = (0, ref.nbytes - 1) if span is None else span
    if span is not None:
        sent["Content-Range"] = f"bytes {first}-{last}/{ref.nbytes}"
    sent["Content-Length"] = str(last - first + 1)
    if not path.is_file():
        raise StoreError(f"{path}: missing")
    return StreamingResponse(
        _chunks(path, first, last if request.method != "HEAD" else -1),
        status_code=200 if span is None else 206,
        headers=sent,
        media_type=ref.media_type,
    )


def byte_range(value: str | None, nbytes: int) -> tuple[int, int] | None:
    """Return the first and last byte that a ``Range`` header asks for.

    None stands for the whole: no header, another unit, or several ranges, all of which
    RFC 9110 §14.2 allows to ignore.

    Raises:
        RangeNotSatisfiable: it begins beyond the end.
    """
    match = _RANGE.fullmatch((value or "").replace(" ", ""))
    if match is None or match[1] == match[2] == "":
        return None
    if match[1] == "":
        suffix = int(match[2])
        first, last = max(0, nbytes - suffix), nbytes - 1
    else:
        first = int(match[1])
        last = min(int(match[2]) if match[2] else nbytes - 1, nbytes - 1)
        if match[2] and int(match[2]) < first:
            return None
    if first > last:
        raise RangeNotSatisfiable(nbytes)
    return first, last


async def _chunks(path: Path, first: int, last: int) -> AsyncIterator[bytes]:
    # Opened here and not before, so that a client that has left leaves no open file behind.
    file = os.open(path, os.O_RDONLY)
    try:
        while first <= last:
            size = min(_CHUNK_NBYTES, last - first + 1)
            data = await anyio.to_thread.run_sync(os.pread, file, size, first)
            if not data:
                raise StoreError(f"{path}: ends before byte {first}")
            yield data
            first += len(data)
    finally:
        os.close(file)


def openapi_paths() -> dict[str, Any]:
    """Return the tile routes for the OpenAPI document, which FastAPI does not know of."""
    parameters = [
        {
            "name": "asset",
            "in": "path",
            "required": True,
            "schema": {"type": "string"},
            "description": "Id of the asset.",
        },
        {
            "name": "version",
            "in": "path",
            "required": True,
            "schema": {"type": "string", "pattern": "^(current|[1-9][0-9]*)$"},
            "description": "Version number (immutable) or `current` (revalidated by ETag).",
        },
    ]
    numbers = [
        {"name": n, "in": "path", "required": True, "schema": {"type": "integer", "minimum": 0}}
        for n in ("z", "x", "y")
    ]
    path = {"name": "path", "in": "path", "required": True, "schema": {"type": "string"}}
    rows: list[tuple[str, str, str, list[Any]]] = [
        ("tileset.json", "3D Tiles 1.1 tileset", "application/json", []),
        ("subtrees/{path}", "3D Tiles subtree", "application/octet-stream", [path]),
        ("content/{path}", "3D Tiles content (glb)", "model/gltf-binary", [path]),
        ("layer.json", "Terrain metadata", "application/json", []),
        (
            "{z}/{x}/{y}.terrain",
            "Quantized-mesh terrain tile (TMS, south first)",
            "application/vnd.quantized-mesh",
            numbers,
        ),
        (TILEJSON, "TileJSON 3.0 of vector tiles", "application/json", FILTERS),
        (
            "{z}/{x}/{y}.mvt",
            "Vector tile (WebMercatorQuad, north first)",
            "application/vnd.mapbox-vector-tile",
            [*numbers, *FILTERS],
        ),
        (
            "archive.pmtiles",
            "The whole PMTiles archive; Range requests are answered",
            "application/vnd.pmtiles",
            [],
        ),
        (
            CLOUD,
            "The points of a cloud as COPC; Range requests are answered",
            "application/vnd.laszip+copc",
            [],
        ),
    ]
    problem = {"description": "No such asset, version or tile", "content": _PROBLEM}
    return {
        f"/tiles/{{asset}}/{{version}}/{key}": {
            "get": {
                "tags": ["tiles"],
                "summary": summary,
                "operationId": "tiles." + re.sub(r"\W+", "_", key).strip("_"),
                "parameters": [*parameters, *extra],
                "responses": {
                    "200": {"description": "The bytes", "content": {media_type: {}}},
                    "304": {"description": "Unchanged"},
                    "404": problem,
                },
            }
        }
        for key, summary, media_type, extra in rows
    }


_PROBLEM = {"application/problem+json": {"schema": {"type": "object"}}}
