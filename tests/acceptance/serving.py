"""The real application without a socket: httpx over ASGI, life cycle included."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from cim_server.app import make_app
from cim_server.settings import Settings

BASE = "http://cim.test"


class Client:
    """Asks an application; blocks."""

    def __init__(self, runner: asyncio.Runner, client: httpx.AsyncClient) -> None:
        self._runner = runner
        self._client = client

    def get(self, url: str, **more: Any) -> httpx.Response:
        """Return the answer to a GET."""
        return self._runner.run(self._client.get(url, **more))

    def content(self, url: str) -> bytes:
        """Return the decoded body of what must be there."""
        answer = self.get(url)
        assert answer.status_code == 200, f"{url}: {answer.status_code} {answer.text[:200]}"
        return answer.content


@contextmanager
def served(data: Path) -> Iterator[Client]:
    """Serve a data folder."""
    app = make_app(Settings(data=data))
    with asyncio.Runner() as runner:
        life = app.router.lifespan_context(app)
        runner.run(life.__aenter__())
        client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=BASE)
        try:
            yield Client(runner, client)
        finally:
            runner.run(client.aclose())
            runner.run(life.__aexit__(None, None, None))
