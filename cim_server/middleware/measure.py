"""Counts and times every request under its route's template."""

from __future__ import annotations

from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cim_server.metrics import Metrics

_METHODS = frozenset(("GET", "HEAD", "POST", "OPTIONS", "PUT", "PATCH", "DELETE"))
_LABEL = "cim.label"


def label(scope: Scope, route: str) -> None:
    """Say under which template the request is counted; called by whoever matched it."""
    # The dict is shared by all copies of the scope that routers make on the way in.
    scope.get(_LABEL, {})["route"] = route


class MeasureMiddleware:
    """Observes status, duration and body bytes.

    Args:
        app: the application inside; it calls `label`.
        metrics: where to count.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application and count the answer."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = perf_counter()
        status, nbytes = 500, 0

        async def counted(message: Message) -> None:
            nonlocal status, nbytes
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                nbytes += len(message.get("body", b""))
            await send(message)

        labels: dict[str, str] = {}
        try:
            await self.app({**scope, _LABEL: labels}, receive, counted)
        finally:
            method = scope["method"] if scope["method"] in _METHODS else "OTHER"
            route = labels.get("route", "unmatched")
            self.metrics.observe(route, method, status, perf_counter() - started, nbytes)
