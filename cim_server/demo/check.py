"""Checks that a served demo answers: the page, and one tile of every layer, over HTTP."""

from __future__ import annotations

import gzip
import json
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.error import HTTPError, URLError

from cim_server.serve import make_server
from cim_server.settings import Settings
from ingest.workspace import Workspace
from tiling.errors import CimError
from tiling.stores import open_store

STARTUP_SECONDS = 30.0


class DemoBroken(CimError):
    """The served demo does not answer as it must."""


def check_demo(settings: Settings) -> None:
    """Serve, fetch the page and one tile of every asset, and stop.

    Raises:
        DemoBroken: something did not answer; the message names the URL.
    """
    with _serving(settings) as base:
        page = _fetch(base + "/")
        if b"<html" not in page:
            raise DemoBroken(f"{base}/ is not the portal's page")
        print(f"ok  {base}/")
        for url in _tile_urls(settings, base):
            body = _fetch(url)
            if not body:
                raise DemoBroken(f"{url} is empty")
            print(f"ok  {url} ({len(body):,} bytes)")


@contextmanager
def _serving(settings: Settings) -> Iterator[str]:
    server = make_server(settings)
    thread = threading.Thread(target=server.run, name="demo-server")
    thread.start()
    try:
        deadline = time.monotonic() + STARTUP_SECONDS
        while not server.started:
            if not thread.is_alive() or time.monotonic() > deadline:
                raise DemoBroken(f"the server did not start on {settings.host}:{settings.port}")
            time.sleep(0.05)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://{settings.host}:{port}"
    finally:
        server.should_exit = True
        thread.join()


def _tile_urls(settings: Settings, base: str) -> Iterator[str]:
    workspace = Workspace(settings.data, settings.database_url)
    with workspace.open_catalog() as catalog:
        for item in catalog.items():
            version = catalog.version(item.id)
            if item.kind == "imagery":
                yield _raster_tile(
                    json.loads(_fetch(f"{base}/raster/{item.id}/WebMercatorQuad/tilejson.json"))
                )
                continue
            for ref in version.stores:
                if ref.role == "tiles":
                    store = open_store(workspace.store_path(ref), ref.format)
                    key = next(k for k in store.keys() if not k.endswith((".json", ".subtree")))
                    store.close()
                    yield f"{base}/tiles/{item.id}/current/{key}"


def _raster_tile(tilejson: dict[str, Any]) -> str:
    from morecantile import tms

    west, south, east, north = tilejson["bounds"]
    zoom = tilejson["minzoom"]
    tile = tms.get("WebMercatorQuad").tile((west + east) / 2, (south + north) / 2, zoom)
    template: str = tilejson["tiles"][0]
    for name, value in (("z", zoom), ("x", tile.x), ("y", tile.y)):
        template = template.replace("{" + name + "}", str(value))
    return template


def _fetch(url: str) -> bytes:
    request = urllib.request.Request(url, headers={"Accept-Encoding": "gzip"})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            body: bytes = response.read()
            if response.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            return body
    except HTTPError as error:
        raise DemoBroken(f"{url} answered {error.code}: {error.read(500)!r}") from error
    except URLError as error:
        raise DemoBroken(f"{url} did not answer: {error.reason}") from error
