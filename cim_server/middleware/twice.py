"""``@2x`` in a raster tile's path, as map libraries write it for dense screens: 512 pixels."""

from __future__ import annotations

import re

from starlette.types import ASGIApp, Receive, Scope, Send

_TWICE = re.compile(r"(/raster/[^/]+/tiles/.+/\d+)@2x(\.\w+)?$")


class TwiceMiddleware:
    """Turns ``…/{y}@2x.png`` into ``…/{y}.png?tilesize=512``.

    Args:
        app: the application inside.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Rewrite the path and the query; other paths pass untouched."""
        if scope["type"] == "http" and "@2x" in scope["path"]:
            match = _TWICE.search(scope["path"])
            if match is not None:
                path = scope["path"][: match.start()] + match[1] + (match[2] or "")
                query = b"&".join(q for q in (scope["query_string"], b"tilesize=512") if q)
                scope = {**scope, "path": path, "query_string": query}
        await self.app(scope, receive, send)
