"""Live vector tiles: the features of a version that fulfil a CQL2 filter, drawn on request.

Made from the version's GeoParquet by workers, kept by what they are made of. What a tile leaves
out, its header `CIM-Dropped` counts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import quote, urlencode

from starlette.requests import Request
from starlette.responses import Response

from catalog.cql2.tree import parse_json, parse_text
from cim_server.computed import TileKey
from cim_server.errors import InvalidRequest
from cim_server.live_work import live
from cim_server.responses import IMMUTABLE, REVALIDATE, tile_response
from cim_server.state import CURRENT, Entry, State
from tiling.coords import TileCoord
from tiling.errors import NotFound
from tiling.schemes import WEB_MERCATOR_QUAD
from tiling.stores.base import StoredTile
from tiling.stores.pmtiles import etag

MAX_FILTER = 8_000
MAX_LEVEL = 22
DROPPED = "CIM-Dropped"
_TILE = re.compile(r"(\d{1,2})/(\d{1,8})/(\d{1,8})\.mvt")
_MVT = "application/vnd.mapbox-vector-tile"


FILTERS: list[dict[str, Any]] = [
    {
        "name": "filter",
        "in": "query",
        "schema": {"type": "string", "maxLength": MAX_FILTER},
        "description": "CQL2: only features that fulfil it, drawn on request.",
    },
    {
        "name": "filter-lang",
        "in": "query",
        "schema": {"type": "string", "enum": ["cql2-text", "cql2-json"], "default": "cql2-text"},
        "description": "Language of the filter.",
    },
]


@dataclass(frozen=True, slots=True)
class _Live(StoredTile):
    dropped: str


async def live_response(
    state: State, request: Request, entry: Entry, key: str, version: str
) -> Response:
    """Answer a request for a tile of what fulfils a filter.

    Raises:
        InvalidRequest: no vector tile, or no language or size that a filter may have.
        QueryInvalid: a filter that means nothing for these features.
        NotFound: no such tile; no features; nothing in the tile fulfils the filter.
        Overloaded: too much is being computed already.
    """
    tile = _coord(key)
    query = request.query_params
    tree = _tree(query["filter"], query.get("filter-lang", "cql2-text"))
    refs = [r for r in entry.stores if r.format == "geoparquet" and r.role == "features"]
    if not refs:
        raise NotFound(f"version {entry.number} of {entry.asset!r} holds no features to filter")
    nothing = NotFound(f"nothing in tile {key} of {entry.asset!r} fulfils the filter")
    # Told apart here, so that nobody keeps the workers busy with the rest of the world.
    if not entry.bounds.intersects(WEB_MERCATOR_QUAD.bounds(tile)):
        raise nothing
    paths = tuple(state.path_of(ref) for ref in refs)

    async def make() -> StoredTile | None:
        data, over, collapsed = await state.workers.run(
            live, paths, entry.asset, (tile.level, tile.x, tile.y), tree
        )
        counts = {"over-budget": over, "collapsed": collapsed}
        dropped = ", ".join(f"{name}={count}" for name, count in counts.items() if count)
        if data is None and not dropped:
            return None
        body = data or b""
        return _Live(body, _MVT, "gzip" if body else None, etag(body), dropped)

    made = await state.computed.get(
        TileKey(" ".join(ref.sha256 for ref in refs), ("live", entry.asset, tile, tree)), make
    )
    if made is None:
        raise nothing
    assert isinstance(made, _Live)
    cache_control = REVALIDATE if version == CURRENT else IMMUTABLE
    if made.data:
        answer = tile_response(made, request.headers, cache_control)
    else:
        answer = Response(status_code=204, headers={"Cache-Control": cache_control})
    if made.dropped:
        answer.headers[DROPPED] = made.dropped
    return answer


def filter_query(query: Mapping[str, str]) -> str:
    """Return the query that makes links ask for what this request asks for, ``?`` included.

    Raises:
        InvalidRequest: no language or size that a filter may have.
        QueryInvalid: a filter that means nothing.
    """
    if "filter" not in query:
        return ""
    _tree(query["filter"], query.get("filter-lang", "cql2-text"))
    kept = {name: query[name] for name in ("filter", "filter-lang") if name in query}
    return f"?{urlencode(kept, quote_via=quote)}"


def _coord(key: str) -> TileCoord:
    match = _TILE.fullmatch(key)
    if match is None:
        raise InvalidRequest(f"filter is for vector tiles ({{z}}/{{x}}/{{y}}.mvt), not for {key!r}")
    tile = TileCoord(*(int(number) for number in match.groups()))
    if tile.level > MAX_LEVEL:
        raise NotFound(f"live tiles have levels 0 to {MAX_LEVEL}, not {tile.level}")
    columns, rows = WEB_MERCATOR_QUAD.size(tile.level)
    if tile.x >= columns or tile.y >= rows:
        raise NotFound(f"level {tile.level} has {columns} x {rows} tiles: {key} is not one")
    return tile


@lru_cache(maxsize=256)
def _tree(text: str, language: str) -> str:
    """Return a filter as JSON of its tree: equal filters in one spelling."""
    if len(text) > MAX_FILTER:
        raise InvalidRequest(f"the filter is longer than {MAX_FILTER} characters")
    if language == "cql2-text":
        tree = parse_text(text)
    elif language == "cql2-json":
        try:
            tree = parse_json(json.loads(text))
        except (json.JSONDecodeError, RecursionError) as error:
            raise InvalidRequest(f"the filter is no JSON: {error}") from error
    else:
        raise InvalidRequest(f"filter-lang={language!r} is neither cql2-text nor cql2-json")
    return json.dumps(tree, ensure_ascii=False, sort_keys=True)
