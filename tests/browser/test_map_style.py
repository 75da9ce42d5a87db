"""The style of a vector tileset as MapLibre draws it: borders, names, fonts, edges of tiles."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from tests.browser.conftest import Watched
from tests.commands import DEMO_SOURCES

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

COUNTIES = {"asset": "suizhou-counties", "lon": 113.4, "lat": 31.85, "zoom": 7.6}

# Without fonts of the machine everything is written with the server's.
_OPEN = """async ({origin, asset, lon, lat, zoom, ownFonts}) => {
  if (!globalThis.maplibre) {
    document.open();
    document.write(`<!doctype html><link rel="stylesheet"
      href="${origin}/static/maplibre/maplibre-gl.css">
      <style>html, body, #map { margin: 0; height: 100%; }</style><div id="map"></div>`);
    document.close();
    globalThis.maplibre = await import(`${origin}/static/maplibre/maplibre-gl.mjs`);
  }
  if (globalThis.map instanceof maplibre.Map) map.remove();
  const style = `${origin}/tiles/${asset}/current/style.json`;
  globalThis.map = new maplibre.Map({
    container: "map", style, center: [lon, lat], zoom, fadeDuration: 0,
    attributionControl: false, ...(ownFonts ? {} : {localIdeographFontFamily: false}),
  });
  map.on("error", (event) => console.error(event.error?.message));
  await map.once("idle");
}"""

_NAMES = """() => map.queryRenderedFeatures()
  .filter((feature) => feature.layer.type === "symbol").map((feature) => feature.properties.name)"""

_ONLY = """async (types) => {
  for (const {id, type} of map.getStyle().layers) {
    map.setLayoutProperty(id, "visibility", types.includes(type) ? "visible" : "none");
  }
  await map.once("idle");
}"""


@pytest.fixture(scope="module")
def page(chromium: Browser, demo_server: str) -> Iterator[Watched]:
    context = chromium.new_context(viewport={"width": 1024, "height": 640}, locale="zh-CN")
    watched = Watched(context.new_page(), demo_server)
    watched.page.set_default_timeout(60_000)
    watched.page.goto(f"{demo_server}/healthz")
    yield watched
    context.close()


def show(watched: Watched, path: Path | None = None, **place: Any) -> NDArray[np.int64]:
    """Open a style and return the picture, (height, width, 3)."""
    watched.page.evaluate(_OPEN, {"origin": watched.origin, "ownFonts": True, **place})
    return picture(watched, path)


def picture(watched: Watched, path: Path | None = None) -> NDArray[np.int64]:
    png = watched.page.screenshot(**({} if path is None else {"path": str(path)}))
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(np.int64)


def purple(image: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Where borders are, on paper."""
    return (image[..., 2] - image[..., 1]) > 25


def test_divisions_have_their_borders_and_each_its_name_once(page: Watched, tmp_path: Path) -> None:
    named = show(page, tmp_path / "named.png", **COUNTIES)
    assert sorted(page.page.evaluate(_NAMES)) == ["广水市", "曾都区", "随县"]
    page.page.evaluate(_ONLY, ["background", "fill", "line"])
    bare = picture(page, tmp_path / "bare.png")
    # Nine characters of 12 px, of strokes and halos; not nine empty boxes, which are thin.
    ink = (np.abs(named - bare).max(axis=2) > 40).sum()
    assert ink > 9 * 40
    border = purple(bare)
    assert 800 < border.sum() < 0.05 * border.size

    asked: list[str] = []
    page.page.on("request", lambda request: asked.append(request.url))
    served = show(page, tmp_path / "served.png", **COUNTIES, ownFonts=False)
    assert sum("/styles/fonts/Noto%20Sans%20SC%20Regular," in url for url in asked) >= 5
    again = (np.abs(served - bare).max(axis=2) > 40).sum()
    assert 0.6 * ink < again < 1.6 * ink, "the server's characters are not what they should be"


def test_borders_are_drawn_where_the_source_has_them_and_nowhere_else(
    page: Watched, tmp_path: Path
) -> None:
    """Four tiles meet in the middle: no border breaks at their edges, none runs along them."""
    zoom, column, row = 8, 208, 104
    lat = np.degrees(np.arctan(np.sinh(np.pi * (1 - 2 * row / 2**zoom))))
    place = {"lon": 360 * column / 2**zoom - 180, "lat": float(lat), "zoom": zoom}
    show(page, asset="hubei-counties", **place)
    page.page.evaluate(_ONLY, ["background", "line"])
    drawn = purple(picture(page, tmp_path / "edges.png"))

    height, width = drawn.shape
    truth = Image.new("1", (width, height))
    pen = ImageDraw.Draw(truth)
    source = json.loads((DEMO_SOURCES / "hubei_counties_cgcs2000.geojson").read_text("utf-8"))
    for feature in source["features"]:
        for ring in (ring for polygon in _polygons(feature["geometry"]) for ring in polygon):
            lon, lat_deg = np.asarray(ring, dtype=np.float64).T[:2]
            x = (lon / 360 + 0.5) * 2**zoom - column
            y = (0.5 - np.arcsinh(np.tan(np.radians(lat_deg))) / (2 * np.pi)) * 2**zoom - row
            pixels = np.column_stack([512 * x + width / 2, 512 * y + height / 2])
            pen.line([tuple(pixel) for pixel in pixels.tolist()], fill=1)
    wanted = np.asarray(truth)
    assert wanted.sum() > 5000
    missing, added = wanted & ~_wider(drawn), drawn & ~_wider(wanted)
    assert (missing.sum(), added.sum()) == (0, 0)


def _polygons(geometry: dict[str, Any]) -> list[Any]:
    coordinates = geometry["coordinates"]
    return [coordinates] if geometry["type"] == "Polygon" else coordinates


def _wider(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return a mask with the pixels up to two away."""
    image = Image.fromarray(mask.astype(np.uint8)).filter(ImageFilter.MaxFilter(5))
    return np.asarray(image).astype(bool)


def test_nothing_failed_and_no_other_host_was_asked(page: Watched) -> None:
    assert page.trouble == []
    assert page.hosts == {page.origin.removeprefix("http://")}
