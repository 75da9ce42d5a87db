"""The application: the one place that wires settings, catalogue, services and middleware.

Order matters twice. Tile routes come first, because they are asked for most. And the middleware,
from the outside in: measure (sees what the client sees), drop the bodies of HEAD, CORS (so that
errors carry it too), the public address, the bound on bodies.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from importlib.metadata import version
from typing import Any

import anyio.to_thread
from fastapi import Depends, FastAPI, Request
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import BaseRoute

from catalog.database import Catalog
from cim_server.errors import HANDLERS
from cim_server.middleware.base_url import BaseUrlMiddleware
from cim_server.middleware.body_limit import BodyLimitMiddleware
from cim_server.middleware.conditional import ConditionalMiddleware
from cim_server.middleware.cors import CorsMiddleware
from cim_server.middleware.head import AskGetForHead, DropBodyOfHead
from cim_server.middleware.measure import MeasureMiddleware, label
from cim_server.middleware.twice import TwiceMiddleware
from cim_server.services import (
    docs,
    elevation,
    features,
    health,
    imagery,
    lookup,
    portal,
    raster_tiles,
    reports,
    stac,
    styles,
    terrain,
    tiles,
    wmts_service,
)
from cim_server.settings import Settings
from cim_server.state import State

TITLE = "cim-server"


def make_app(settings: Settings) -> Starlette:
    """Return the application; the catalogue is opened at once, so that trouble shows at start.

    Raises:
        CatalogError: the catalogue cannot be opened.
    """
    settings.data.mkdir(parents=True, exist_ok=True)
    url = settings.database_url or settings.data / "catalog.db"
    state = State(settings, Catalog.open(url))
    images = raster_tiles.RasterTiles(state)
    api = _api(state, images)
    routes: list[BaseRoute] = [
        *tiles.routes(state),
        *images.routes(api),
        *portal.routes(),
    ]
    app = Starlette(
        routes=routes,
        middleware=[
            Middleware(MeasureMiddleware, metrics=state.metrics),
            Middleware(DropBodyOfHead),
            Middleware(CorsMiddleware),
            Middleware(
                BaseUrlMiddleware,
                public_url=settings.public_url,
                trusted_proxies=settings.trusted_proxies,
            ),
            Middleware(BodyLimitMiddleware, max_nbytes=settings.max_body_nbytes),
        ],
        exception_handlers=HANDLERS,
        lifespan=_lifespan(state),
    )
    app.router.redirect_slashes = False
    # Not a mount: a mount of everything would also take what a route above refuses by method.
    app.router.default = api
    app.state.cim = state
    return app


def _lifespan(state: State) -> Any:
    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        # FastAPI runs plain functions, which here means GDAL, in anyio's default threads.
        limiter = anyio.to_thread.current_default_thread_limiter()
        limiter.total_tokens = state.settings.raster_threads
        await state.refresh()
        follower = asyncio.create_task(state.follow(), name="follow the catalogue")
        follower.add_done_callback(state.following_ended)
        try:
            yield
        finally:
            follower.cancel()
            await asyncio.wait([follower])
            state.close()

    return lifespan


async def _label_route(request: Request) -> None:
    label(request.scope, request.scope["route"].path)


def _api(state: State, images: raster_tiles.RasterTiles) -> AskGetForHead:
    api = FastAPI(
        title=TITLE,
        version=version("cim-server"),
        summary="A city's terrain, imagery, buildings and divisions: catalogue and services.",
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        redirect_slashes=False,
        dependencies=[Depends(_label_route)],
        exception_handlers=HANDLERS,
    )
    for router in (
        stac.router(state),
        imagery.router(state),
        wmts_service.router(state, images),
        terrain.router(state),
        elevation.router(state),
        lookup.router(state),
        features.router(state),
        reports.router(state),
        styles.router(),
        health.router(state),
        docs.router(TITLE),
    ):
        api.include_router(router)
    described = api.openapi

    def openapi() -> dict[str, Any]:
        document = described()
        document["paths"].update(tiles.openapi_paths())
        return document

    api.openapi = openapi  # type: ignore[method-assign]
    return AskGetForHead(TwiceMiddleware(ConditionalMiddleware(api)))
