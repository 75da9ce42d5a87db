"""CORS for embedded viewers: anyone may read what needs no credentials.

``Access-Control-Allow-Origin: *`` never lets a browser send cookies along, so it opens nothing
that a plain request could not fetch. Preflights are answered here, before any route.
"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_PREFLIGHT: Sequence[tuple[bytes, bytes]] = (
    (b"access-control-allow-origin", b"*"),
    (b"access-control-allow-methods", b"GET, HEAD, POST, OPTIONS"),
    (
        b"access-control-allow-headers",
        b"Authorization, Content-Type, If-None-Match, If-Range, Range",
    ),
    (b"access-control-max-age", b"86400"),
    (b"content-length", b"0"),
)
_ANSWER: Sequence[tuple[bytes, bytes]] = (
    (b"access-control-allow-origin", b"*"),
    (b"access-control-expose-headers", b"CIM-Dropped, Content-Bbox, Content-Range, ETag, Link"),
)


class CorsMiddleware:
    """Adds the CORS headers and answers preflight requests.

    Args:
        app: the application inside.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a preflight, or pass on and add headers to the answer."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if scope["method"] == "OPTIONS":
            await send({"type": "http.response.start", "status": 204, "headers": list(_PREFLIGHT)})
            await send({"type": "http.response.body", "body": b""})
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_ANSWER]
            await send(message)

        await self.app(scope, receive, with_headers)
