"""A real server on the demo's data, and a real Chromium looking at its portal."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

CIM = Path(sys.executable).parent / "cim"
# WebGL 2 without a graphics card.
SOFTWARE_WEBGL = [
    "--headless=new",
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
]
# Remarks of the browser about software rendering, not of ours.
_BROWSER_REMARKS = ("GPU stall due to ReadPixels", "Automatic fallback to software WebGL")


@dataclass
class Watched:
    """A page and everything that went wrong on it.

    Attributes:
        page: the page.
        origin: scheme, host and port of the server.
        trouble: console errors and warnings, failed requests, statuses of 400 and more.
        hosts: every host that was asked for anything.
    """

    page: Page
    origin: str
    trouble: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        page = self.page

        def console(message: Any) -> None:
            ours = not any(remark in message.text for remark in _BROWSER_REMARKS)
            if message.type in ("error", "warning") and ours:
                self.trouble.append(f"console {message.type}: {message.text}")

        def response(answer: Any) -> None:
            if answer.status >= 400:
                self.trouble.append(f"HTTP {answer.status}: {answer.url}")

        def request(asked: Any) -> None:
            if not asked.url.startswith(("data:", "blob:")):
                self.hosts.add(asked.url.split("/")[2])

        def failed(asked: Any) -> None:
            # Cesium itself cancels requests for tiles that left the view.
            if asked.failure != "net::ERR_ABORTED":
                self.trouble.append(f"failed: {asked.url}: {asked.failure}")

        page.on("console", console)
        page.on("pageerror", lambda error: self.trouble.append(f"exception: {error}"))
        page.on("requestfailed", failed)
        page.on("response", response)
        page.on("request", request)

    def open(self, query: str = "") -> None:
        """Load the portal and wait for its first layers."""
        self.page.goto(f"{self.origin}/?msaa=1{query}")
        self.page.evaluate("window.cim.ready")

    def settle(self, seconds: int = 120) -> None:
        """Wait until every tile of the view is drawn."""
        done = self.page.evaluate(
            """seconds => Promise.race([
                 window.cim.settled().then(() => true),
                 new Promise(late => setTimeout(() => late(false), 1000 * seconds)),
               ])""",
            seconds,
        )
        assert done, f"tiles are still loading after {seconds} s; trouble: {self.trouble}"

    def globe_box(self) -> dict[str, float]:
        """Left, top, width and height of the globe in CSS pixels of the page."""
        box = self.page.locator(".cesium-widget canvas").bounding_box()
        assert box is not None
        return dict(box)


@pytest.fixture(scope="module")
def demo_server(demo_data: Path) -> Iterator[str]:
    """The origin of ``cim serve`` on the demo's data."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = demo_data.parent / "browser-server.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [CIM, "serve", "--data", demo_data, "--port", str(port)],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            origin = f"http://127.0.0.1:{port}"
            _wait_for(origin, server, log)
            yield origin
        finally:
            server.terminate()
            server.wait(20)


def _wait_for(origin: str, server: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(300):
        assert server.poll() is None, f"the server ended: {log.read_text()}"
        try:
            with urllib.request.urlopen(f"{origin}/healthz", timeout=5):
                return
        except URLError:
            time.sleep(0.1)
    raise AssertionError(f"no answer from {origin}: {log.read_text()}")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Chromium with WebGL 2 in software."""
    executable = shutil.which("chromium") or shutil.which("chromium-browser")
    assert executable, "chromium is not installed: run `make setup` as root, or install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=SOFTWARE_WEBGL)
        yield browser
        browser.close()


@pytest.fixture
def new_page(chromium: Browser, demo_server: str) -> Iterator[Callable[[], Watched]]:
    """Makes pages of their own, closed after the test."""
    contexts = []

    def make() -> Watched:
        context = chromium.new_context(viewport={"width": 1000, "height": 640}, locale="zh-CN")
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        return Watched(page, demo_server)

    yield make
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def portal(chromium: Browser, demo_server: str) -> Iterator[Watched]:
    """The portal, opened once, with the tiles of its first view drawn."""
    context = chromium.new_context(
        viewport={"width": 1100, "height": 680},
        locale="zh-CN",
        permissions=["clipboard-read", "clipboard-write"],
    )
    page = context.new_page()
    page.set_default_timeout(60_000)
    watched = Watched(page, demo_server)
    watched.open("&asset=wuhan-buildings")
    watched.settle()
    yield watched
    context.close()
