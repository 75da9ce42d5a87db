"""A bound on request bodies, declared or streamed."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cim_server.errors import RequestTooLarge, problem, status_of


class BodyLimitMiddleware:
    """Refuses a body larger than `max_nbytes`.

    Args:
        app: the application inside; reading a streamed body raises `RequestTooLarge` in it.
        max_nbytes: bytes.
    """

    def __init__(self, app: ASGIApp, max_nbytes: int) -> None:
        self.app = app
        self.max_nbytes = max_nbytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse by Content-Length at once, or count what arrives."""
        if scope["type"] != "http" or scope["method"] in ("GET", "OPTIONS"):
            await self.app(scope, receive, send)
            return
        error = RequestTooLarge(f"the body is larger than {self.max_nbytes} bytes")
        refusal = problem(status_of(error), str(error))
        declared = next((v for n, v in scope["headers"] if n == b"content-length"), b"0")
        if declared.isdigit() and int(declared) > self.max_nbytes:
            await refusal(scope, receive, send)
            return
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            if message["type"] == "http.request":
                seen += len(message.get("body", b""))
                if seen > self.max_nbytes:
                    raise error
            return message

        async def unless_refused(message: Message) -> None:
            # FastAPI turns whatever goes wrong while it reads a body into an answer of its own.
            if seen <= self.max_nbytes:
                await send(message)

        try:
            await self.app(scope, counted, unless_refused)
        except RequestTooLarge as raised:
            if raised is not error:
                raise
        if seen > self.max_nbytes:
            await refusal(scope, receive, send)
