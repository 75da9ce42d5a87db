"""The portal: one page and the files it asks for, as Vite built them into ``portal/static``.

The folder is listed once at start; a request names a key of that list, never a file. Bodies are
read (and text is compressed) at the first request and kept: the whole portal is a few megabytes.
"""

from __future__ import annotations

import gzip
import mimetypes
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import anyio.to_thread
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from cim_server.errors import InvalidRequest, problem
from cim_server.middleware.measure import label
from cim_server.responses import IMMUTABLE, REVALIDATE, tile_response
from tiling.errors import NotFound
from tiling.stores.base import StoredTile

FOLDER = Path(__file__).parent.parent / "portal" / "static"
_TEXT = ("text/", "application/json", "application/wasm", "image/svg+xml")
# The system's own table differs from machine to machine; these must not.
_MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".glb": "model/gltf-binary",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".ktx2": "image/ktx2",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
    ".woff2": "font/woff2",
}


@dataclass(slots=True)
class StaticFiles:
    """Files below one folder, by their POSIX path relative to it."""

    files: dict[str, Path]
    _loaded: dict[str, StoredTile]

    @classmethod
    def of(cls, folder: Path) -> StaticFiles:
        """List `folder`; a missing folder is an empty list."""
        files = sorted(p for p in folder.rglob("*") if p.is_file())
        return cls({p.relative_to(folder).as_posix(): p for p in files}, {})

    async def get(self, key: str) -> StoredTile | None:
        """Return the file under `key`, read in a thread the first time."""
        loaded = self._loaded.get(key)
        if loaded is None and key in self.files:
            loaded = await anyio.to_thread.run_sync(_load, self.files[key])
            self._loaded[key] = loaded
        return loaded


def _load(path: Path) -> StoredTile:
    data = path.read_bytes()
    known = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    media_type = _MEDIA_TYPES.get(path.suffix, known)
    etag = blake2b(data, digest_size=12).hexdigest()
    if media_type.startswith(_TEXT) and len(data) > 1000:
        return StoredTile(gzip.compress(data, 6, mtime=0), media_type, "gzip", etag)
    return StoredTile(data, media_type, None, etag)


def routes(folder: Path = FOLDER) -> list[BaseRoute]:
    """Return ``/``, ``/static/…`` and ``/favicon.ico``."""
    static = StaticFiles.of(folder)
    icon = next((k for k in static.files if k.startswith("assets/icon-")), None)

    async def index(request: Request) -> Response:
        label(request.scope, "/")
        page = await static.get("index.html")
        if page is None:
            return problem(
                503,
                "The portal's front-end has not been built.",
                remedy="run `make setup`, or install the wheel, which contains it",
            )
        return tile_response(page, request.headers, REVALIDATE)

    async def file(request: Request) -> Response:
        label(request.scope, "/static/{path}")
        key = request.path_params["path"]
        if len(key) > 512:
            raise InvalidRequest("the path is too long")
        found = await static.get(key)
        if found is None:
            raise NotFound(f"the portal has no file {key!r}")
        # Vite puts a hash of the content into the names of its own bundles only.
        cache_control = IMMUTABLE if key.startswith("assets/") else REVALIDATE
        return tile_response(found, request.headers, cache_control)

    async def favicon(request: Request) -> Response:
        # Browsers ask for it beside every page that names no icon, such as a service's JSON.
        label(request.scope, "/favicon.ico")
        if icon is None:
            raise NotFound("the portal has no icon")
        return RedirectResponse(f"static/{icon}")

    return [
        Route("/", index, name="portal"),
        Route("/static/{path:path}", file, name="static"),
        Route("/favicon.ico", favicon, name="favicon"),
    ]
