"""Looks at a published city from given places and says what that cost.

The portal as `cim serve` serves it, in headless Chromium; the tests and the benchmarks share it.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pyarrow.parquet as pq
import pyproj
from playwright.sync_api import Browser, sync_playwright

from tests.browser.conftest import SOFTWARE_WEBGL, Watched
from tests.commands import CIM

# What Cesium knows of the one tileset on the globe.
_STATISTICS = """() => {
  const {primitives} = window.cim.viewer.scene;
  for (let i = 0; i < primitives.length; i += 1) {
    const tileset = primitives.get(i);
    const known = tileset.statistics ?? tileset._statistics;
    if (tileset.root === undefined || known === undefined) continue;
    return {
      selected: known.selected,
      loaded: known.numberOfTilesWithContentReady,
      features: known.numberOfFeaturesSelected,
      triangles: known.numberOfTrianglesSelected,
      memory: tileset.totalMemoryUsageInBytes,
      pending: known.numberOfPendingRequests + known.numberOfTilesProcessing,
      levels: tileset._selectedTiles.map((tile) => tile.geometricError),
    };
  }
  return null;
}"""

_FRAME_MS = """async frames => {
  const {scene} = window.cim.viewer;
  const started = performance.now();
  for (let i = 0; i < frames; i += 1) {
    scene.requestRender();
    scene.render();
  }
  const gl = scene.context._gl;
  gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(4));
  return (performance.now() - started) / frames;
}"""


@dataclass(frozen=True)
class Eye:
    """Where a view is seen from.

    Attributes:
        lon_deg, lat_deg, height_m: WGS 84, above the ellipsoid.
        heading_deg: 0 is north.
        pitch_deg: -90 is straight down.
    """

    lon_deg: float
    lat_deg: float
    height_m: float
    heading_deg: float = 0.0
    pitch_deg: float = -90.0


@dataclass(frozen=True)
class Sight:
    """What a view took.

    Attributes:
        seconds: from setting the camera until every tile is drawn.
        last_tile_s: the same until the last tile's response.
        requests, nbytes: of tiles, encoded as sent.
        selected, triangles, features: tiles on the screen and what is in them.
        errors_m: geometric errors of the tiles on the screen.
        memory_mb: of Cesium's tiles, on the graphics card and off it.
        frame_ms: one frame in software.
    """

    seconds: float
    last_tile_s: float
    requests: int
    nbytes: int
    selected: int
    triangles: int
    features: int
    errors_m: tuple[float, ...]
    memory_mb: float
    frame_ms: float


@contextmanager
def serving(data: Path, log: Path) -> Iterator[str]:
    """Serve a data folder; gives the origin."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with log.open("wb") as output:
        command = [CIM, "serve", "--data", data, "--port", str(port)]
        server = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            origin = f"http://127.0.0.1:{port}"
            for _ in range(300):
                assert server.poll() is None, f"the server ended: {log.read_text()}"
                try:
                    urllib.request.urlopen(f"{origin}/healthz", timeout=5).close()
                    break
                except URLError:
                    time.sleep(0.1)
            yield origin
        finally:
            server.terminate()
            server.wait(20)


@contextmanager
def browsing() -> Iterator[Browser]:
    """Chromium with WebGL 2 in software."""
    executable = shutil.which("chromium") or shutil.which("chromium-browser")
    assert executable, "chromium is not installed: run `make setup` as root, or install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=SOFTWARE_WEBGL)
        yield browser
        browser.close()


@dataclass
class Visit:
    """A page, and the tiles that it asked for.

    Attributes:
        watched: the page and its trouble.
        answers: when each response with a tile came (monotonic seconds), its encoded bytes.
    """

    watched: Watched
    answers: list[tuple[float, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.watched.page.on("response", self._heard)

    def _heard(self, response: Any) -> None:
        if "/tiles/" in response.url:
            nbytes = int(response.headers.get("content-length", 0))
            self.answers.append((time.monotonic(), nbytes))


@contextmanager
def visiting(
    browser: Browser, origin: str, width: int = 1280, height: int = 720
) -> Iterator[Visit]:
    """Give a page of its own, not yet opened; its cache is empty."""
    context = browser.new_context(viewport={"width": width, "height": height}, locale="zh-CN")
    page = context.new_page()
    page.set_default_timeout(120_000)
    try:
        yield Visit(Watched(page, origin))
    finally:
        context.close()


def views_of(parquet: Path) -> dict[str, Eye]:
    """Return where to look at a city from: all of it, 30 and 5 km up, a drone's view, a street.

    The street runs along the western wall of the building nearest to the middle; the eye is two
    metres above where that building stands.
    """
    table = pq.read_table(parquet, columns=["bbox", "cim:base_m", "cim:height_m"])
    box = table["bbox"].combine_chunks()
    west, south, east, north = (
        box.field(name).to_numpy().astype(float) for name in ("xmin", "ymin", "xmax", "ymax")
    )
    lon, lat = (west.min() + east.max()) / 2, (south.min() + north.max()) / 2
    near = int(np.argmin((west - lon) ** 2 + (south - lat) ** 2))
    base = float(table["cim:base_m"][near].as_py())
    metre = 1 / (111_320 * np.cos(np.radians(lat)))
    wide = 111_320 * max(north.max() - south.min(), (east.max() - west.min()) * 0.85)
    beside = float(west[near]) - metre, float(south[near])
    return {
        "whole": Eye(lon, lat, max(1.2 * wide, 1500.0) + base),
        "30 km": Eye(lon, lat, 30_000.0),
        "5 km": Eye(lon, lat - 4000 / 111_320, 5000.0, 0.0, -50.0),
        "drone": Eye(*beside, base + 250.0, 30.0, -25.0),
        "street": Eye(*beside, base + 2.0, -6.0, 6.0),
    }


def arrive(visit: Visit, limit_s: float = 240) -> Sight:
    """Open the portal, which looks at the city by itself."""
    started = time.monotonic()
    visit.watched.open()
    return _settled(visit, started, 0, limit_s)


def look(visit: Visit, eye: Eye, limit_s: float = 240) -> Sight:
    """Set the camera of an opened portal."""
    x, y, z = pyproj.Transformer.from_crs(4979, 4978, always_xy=True).transform(
        eye.lon_deg, eye.lat_deg, eye.height_m
    )
    known = len(visit.answers)
    started = time.monotonic()
    visit.watched.page.evaluate(
        """([x, y, z, heading, pitch]) => {
          window.cim.viewer.camera.setView({
            destination: {x, y, z}, orientation: {heading, pitch, roll: 0},
          });
          window.cim.viewer.scene.requestRender();
        }""",
        [x, y, z, *np.radians([eye.heading_deg, eye.pitch_deg]).tolist()],
    )
    return _settled(visit, started, known, limit_s)


def _settled(visit: Visit, started: float, known: int, limit_s: float) -> Sight:
    page = visit.watched.page
    visit.watched.settle(int(limit_s))
    seconds = time.monotonic() - started
    answers = visit.answers[known:]
    cesium: Mapping[str, Any] | None = page.evaluate(_STATISTICS)
    assert cesium is not None, "no tileset is on the globe"
    assert cesium["pending"] == 0
    return Sight(
        seconds=round(seconds, 2),
        last_tile_s=round(max((at for at, _ in answers), default=started) - started, 2),
        requests=len(answers),
        nbytes=sum(nbytes for _, nbytes in answers),
        selected=cesium["selected"],
        triangles=cesium["triangles"],
        features=cesium["features"],
        errors_m=tuple(sorted(set(cesium["levels"]))),
        memory_mb=round(cesium["memory"] / 2**20, 1),
        frame_ms=round(page.evaluate(_FRAME_MS, 3), 1),
    )
