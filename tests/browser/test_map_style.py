"""The style of a vector tileset as MapLibre draws it: borders, and each name once."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from tests.browser.conftest import Watched

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

_OPEN = """async ({origin, asset, lon, lat, zoom}) => {
  document.open();
  document.write(`<!doctype html><link rel="stylesheet"
    href="${origin}/static/maplibre/maplibre-gl.css">
    <style>html, body, #map { margin: 0; height: 100%; }</style><div id="map"></div>`);
  document.close();
  const {Map} = await import(`${origin}/static/maplibre/maplibre-gl.mjs`);
  const style = `${origin}/tiles/${asset}/current/style.json`;
  globalThis.map = new Map({container: "map", style, center: [lon, lat], zoom, fadeDuration: 0,
                            attributionControl: false});
  map.on("error", (event) => console.error(event.error?.message));
  await map.once("load");
  for (let quiet = 0; quiet < 3; ) {
    await new Promise((next) => setTimeout(next, 200));
    quiet = map.areTilesLoaded() && map.loaded() ? quiet + 1 : 0;
  }
}"""

_NAMES = """() => map.queryRenderedFeatures()
  .filter((feature) => feature.layer.type === "symbol").map((feature) => feature.properties.name)"""


def _picture(watched: Watched, path: Path) -> np.ndarray:
    png = watched.page.screenshot(path=str(path))
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(np.int64)


def test_divisions_have_their_borders_and_each_its_name_once(
    new_page: Callable[[], Watched], tmp_path: Path
) -> None:
    watched = new_page()
    page = watched.page
    page.goto(f"{watched.origin}/healthz")
    place = {"asset": "suizhou-counties", "lon": 113.4, "lat": 31.85, "zoom": 7.6}
    page.evaluate(_OPEN, {"origin": watched.origin, **place})
    assert sorted(page.evaluate(_NAMES)) == ["广水市", "曾都区", "随县"]
    named = _picture(watched, tmp_path / "named.png")
    page.evaluate(
        """async () => {
          for (const {id, type} of map.getStyle().layers) {
            if (type === "symbol") map.setLayoutProperty(id, "visibility", "none");
          }
          await map.once("idle");
        }"""
    )
    bare = _picture(watched, tmp_path / "bare.png")
    # Nine characters of 12 px, of strokes and halos; not nine empty boxes, which are thin.
    assert (np.abs(named - bare).max(axis=2) > 40).sum() > 9 * 40
    border = (bare[..., 2] - bare[..., 1]) > 25  # purple on paper
    assert 800 < border.sum() < 0.05 * border.size
    assert watched.trouble == []
    assert watched.hosts == {watched.origin.removeprefix("http://")}
