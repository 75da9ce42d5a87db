"""Absolute URLs: the table of every address the server hands out, and the base they hang on.

`cim_server.middleware.base_url` has put into the scope where the client thinks it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from starlette.types import Scope

_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:\d{1,5})?")

# Name -> path template below the base. A parameter that the template lacks becomes a query field.
PATHS: Mapping[str, str] = {
    "root": "/",
    "portal": "/?asset={item}",
    "glyphs": "/styles/fonts/{fontstack}/{range}.pbf",
    "docs": "/docs",
    "openapi": "/openapi.json",
    "stac-root": "/stac",
    "stac-conformance": "/stac/conformance",
    "stac-collections": "/stac/collections",
    "stac-collection": "/stac/collections/{collection}",
    "stac-items": "/stac/collections/{collection}/items",
    "stac-item": "/stac/collections/{collection}/items/{item}",
    "stac-search": "/stac/search",
    "stac-queryables": "/stac/queryables",
    "stac-collection-queryables": "/stac/collections/{collection}/queryables",
    "tileset": "/tiles/{asset}/{version}/tileset.json",
    "layer-json": "/tiles/{asset}/{version}/layer.json",
    "tilejson": "/tiles/{asset}/{version}/tilejson.json",
    "pmtiles": "/tiles/{asset}/{version}/archive.pmtiles",
    "copc": "/tiles/{asset}/{version}/cloud.copc.laz",
    "feature": "/features/{asset}/items/{id}",
    "tile": "/tiles/{asset}/{version}/{key}",
    "vector-tiles": "/tiles/{asset}/{version}/{z}/{x}/{y}.mvt",
    "raster-tilejson": "/raster/{asset}/WebMercatorQuad/tilejson.json",
    "raster-tiles": "/raster/{asset}/tiles/WebMercatorQuad/{z}/{x}/{y}.png",
    "raster-wmts": "/raster/{asset}/WMTSCapabilities.xml",
    "raster-wmts-tiles": "/raster/{asset}/tiles/{tms}/{z}/{x}/{y}.{ending}",
    "raster-negotiated-tiles": "/raster/{asset}/tiles/{tms}/{z}/{x}/{y}",
    "wmts": "/wmts",
    "wmts-restful": "/wmts/1.0.0/WMTSCapabilities.xml",
    "terrain": "/terrain/{asset}",
    "terrain-tilejson": "/terrain/{asset}/{product}/{grid}/tilejson.json",
    "terrain-tiles": "/terrain/{asset}/{product}/tiles/{grid}/{z}/{x}/{y}{ending}",
    "terrain-point": "/terrain/{asset}/point/{lon},{lat}",
    "terrain-profile": "/terrain/{asset}/profile",
}

_FIELD = re.compile(r"\{(\w+)\}")
# What map libraries replace themselves, and what may stand in a path as it is.
_SAFE = "/{}@:,;=$!*'()+~"

Link = Callable[..., str]


def quote_path(path: str) -> str:
    """Percent-encode a path, leaving slashes and the braces of templates."""
    return quote(path, safe=_SAFE)


def base_url(scope: Scope) -> str:
    """Return scheme, host and prefix of the request's public address, without a final slash."""
    host = next((v.decode("latin-1") for n, v in scope["headers"] if n == b"host"), "")
    if not _HOST.fullmatch(host):
        server = scope.get("server") or ("localhost", None)
        host = server[0] if server[1] is None else f"{server[0]}:{server[1]}"
    prefix = str(scope.get("app_root_path", scope.get("root_path", ""))).rstrip("/")
    return f"{scope['scheme']}://{host}{prefix}"


@dataclass(frozen=True, slots=True)
class Links:
    """Makes links below one base.

    Attributes:
        base: absolute URL without a final slash.
    """

    base: str

    @classmethod
    def of(cls, scope: Scope) -> Links:
        """Return the links of a request."""
        return cls(base_url(scope))

    def __call__(self, name: str, **params: Any) -> str:
        """Return the absolute URL of a named resource.

        Args:
            name: key of `PATHS`.
            params: fields of the template; others become the query, None is left out.

        Raises:
            KeyError: no such name, or a field of its template is missing.
        """
        template = PATHS[name]
        path = _FIELD.sub(lambda field: quote_path(str(params[field[1]])), template)
        fields = set(_FIELD.findall(template))
        query = {k: v for k, v in params.items() if k not in fields and v is not None}
        # The current version of a raster is the one that is shown when none is named.
        if query.get("version") == "current":
            del query["version"]
        return f"{self.base}{path}{'?' + urlencode(query, doseq=True) if query else ''}"
