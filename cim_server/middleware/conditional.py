"""Validators for answers that are computed: known before the work, so that 304 spares it.

A handler that knows what its answer depends on calls `validate` first; the middleware adds the
headers to the answer when it comes.
"""

from __future__ import annotations

from hashlib import blake2b

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cim_server.errors import NotModified
from cim_server.responses import matches

_VALIDATORS = "cim.validators"


def validate(scope: Scope, depends_on: str, cache_control: str) -> None:
    """Set ETag and Cache-Control of the answer, or end the request with 304.

    Args:
        scope: of the request.
        depends_on: text that changes whenever the answer would.
        cache_control: e.g. `cim_server.responses.REVALIDATE`.

    Raises:
        NotModified: the client holds this answer.
    """
    etag = f'"{blake2b(depends_on.encode(), digest_size=12).hexdigest()}"'
    headers = {b"etag": etag.encode(), b"cache-control": cache_control.encode()}
    scope.get(_VALIDATORS, {}).update(headers)
    if matches(Headers(scope=scope).get("if-none-match"), etag):
        raise NotModified


class ConditionalMiddleware:
    """Adds to successful answers (and 304) what `validate` said.

    Args:
        app: the application inside.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application and complete its headers."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        validators: dict[bytes, bytes] = {}

        async def completed(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] in (200, 304):
                kept = [(n, v) for n, v in message.get("headers", ()) if n not in validators]
                message["headers"] = [*kept, *validators.items()]
            await send(message)

        await self.app({**scope, _VALIDATORS: validators}, receive, completed)
