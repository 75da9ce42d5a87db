"""``cim serve`` and ``cim demo``."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
import webbrowser
from dataclasses import replace
from functools import partial
from typing import Annotated

import typer

from cim_server.commands.data_folder import DEFAULT_DATA, DataOption, workspace
from cim_server.commands.making import print_result, resources_of
from cim_server.progress import ConsoleProgress
from ingest.manifest import merge_options
from ingest.run import ingest


def serve_command(
    host: Annotated[str, typer.Option()] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8000,
    workers: Annotated[int, typer.Option(min=1)] = 1,
    data: DataOption = DEFAULT_DATA,
) -> None:
    """Serve the portal, tiles, catalogue and dynamic rasters."""
    from cim_server.serve import serve
    from cim_server.settings import Settings

    settings = replace(Settings.from_env(), data=data, host=host, port=port, workers=workers)
    serve(settings)


def demo_command(
    host: Annotated[str, typer.Option()] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8000,
    check: Annotated[
        bool, typer.Option("--check", help="Check the page and a tile of every layer, then stop.")
    ] = False,
    open_browser: Annotated[
        bool | None, typer.Option("--open/--no-open", help="Default: on a desktop's terminal.")
    ] = None,
    data: DataOption = DEFAULT_DATA / "demo",
) -> None:
    """Ingest the bundled data, serve it, and show the portal."""
    from cim_server.demo import demo_manifests
    from cim_server.demo.check import check_demo
    from cim_server.serve import serve
    from cim_server.settings import Settings

    resources = resources_of("2GB", 1, "local")
    for manifest in demo_manifests():
        options = merge_options({}, manifest)
        with ConsoleProgress(options.id, quiet=not sys.stderr.isatty()) as progress:
            run = partial(ingest, options, workspace(data), resources, progress)
            print_result(run())
    settings = replace(Settings.from_env(), data=data, host=host, port=port)
    if check:
        check_demo(settings)
        return
    url = f"http://{host}:{port}/"
    print(f"\n  门户 portal: {url}\n", flush=True)
    if _has_desktop() if open_browser is None else open_browser:
        threading.Thread(target=_open_when_served, args=(host, port, url), daemon=True).start()
    serve(settings)


def _has_desktop() -> bool:
    shown = sys.platform in ("darwin", "win32") or bool(
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )
    return shown and sys.stdout.isatty()


def _open_when_served(host: str, port: int, url: str) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection((host, port), 1):
            webbrowser.open(url)
            return
        time.sleep(0.2)
