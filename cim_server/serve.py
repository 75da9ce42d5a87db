"""Runs the server: uvicorn, in this process or in several."""

from __future__ import annotations

import functools
import logging

import uvicorn
from uvicorn.supervisors import Multiprocess

from cim_server.app import make_app
from cim_server.settings import Settings, is_loopback

_log = logging.getLogger("uvicorn.error")


def config_of(settings: Settings) -> uvicorn.Config:
    """Return uvicorn's configuration for these settings."""
    return uvicorn.Config(
        # A partial can be handed to spawned workers, unlike an application.
        functools.partial(make_app, settings),
        factory=True,
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        access_log=settings.access_log,
        # Who may speak for clients is decided in one place: cim_server.middleware.base_url.
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=10,
        # A worker answers only once it has imported GDAL and the rest: seconds on a busy machine,
        # and the default of 5 s would end it for ever just before it is ready.
        timeout_worker_healthcheck=60,
    )


def make_server(settings: Settings) -> uvicorn.Server:
    """Return a server for this process; ``run()`` it, in any thread.

    ``started`` says when it listens, ``servers`` holds its sockets, ``should_exit`` stops it.
    """
    return uvicorn.Server(config_of(settings))


def serve(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM.

    Raises:
        ConfigError: the settings contradict each other (raised when they were made).
        CatalogError: the catalogue cannot be opened.
    """
    if not is_loopback(settings.host):
        _log.warning(
            "listening on %s: whoever reaches this port can read every published asset",
            settings.host,
        )
    settings.data.mkdir(parents=True, exist_ok=True)
    if settings.workers > 1:
        config = config_of(settings)
        Multiprocess(config, sockets=[config.bind_socket()]).run()
    else:
        make_server(settings).run()
