"""A terrain as MapLibre draws it from coded heights, and its hillshade in the portal."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from PIL import Image
from rasterio.warp import transform

from tests.commands import DEMO_SOURCES

if TYPE_CHECKING:
    from tests.browser.conftest import Watched

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

TERRAIN = "washington-terrain"
DEM = DEMO_SOURCES / "washington_dtm.tif"

# A page whose module is the portal's own snippet; the map is kept for the test.
_RUN_SNIPPET = """async ({snippet, origin}) => {
  document.open();
  document.write(`<!doctype html><link rel="stylesheet"
    href="${origin}/static/maplibre/maplibre-gl.css">
    <style>html, body, #map { margin: 0; height: 100%; }</style><div id="map"></div>`);
  document.close();
  const code = URL.createObjectURL(
    new Blob([snippet + "\\nglobalThis.map = map;"], {type: "text/javascript"}));
  await import(code);
}"""

_LOOK = """async ({lon, lat, exaggeration}) => {
  map.setTerrain({source: "heights", exaggeration});
  map.jumpTo({center: [lon, lat], zoom: 15.2, pitch: 60, bearing: 20});
  for (let quiet = 0; quiet < 3; ) {
    await new Promise((next) => setTimeout(next, 200));
    quiet = map.areTilesLoaded() && map.loaded() ? quiet + 1 : 0;
  }
}"""


def _places() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (N, 2) longitudes and latitudes of pixels inside the DEM, and their heights.

    MapLibre reads a tile half a pixel aside: on a wall that is another height, so the places are
    those whose neighbours are within a metre, nearly all.
    """
    with rasterio.open(DEM) as source:
        band = source.read(1, masked=True)
        rows, columns = (g.ravel() for g in np.mgrid[60:200:20, 60:220:20])
        heights = np.asarray(band[rows, columns], dtype=np.float64)
        assert not np.ma.getmaskarray(band)[rows, columns].any()
        x, y = source.transform * (columns + 0.5, rows + 0.5)
        around = np.stack([band[rows + j, columns + i] for j in (-1, 0, 1) for i in (-1, 0, 1)])
        level = np.ptp(around.astype(np.float64), axis=0) < 1
        lon, lat = transform(source.crs, "EPSG:4269", x, y)
    assert level.mean() > 0.8
    rest = [np.asarray(v)[level] for v in (lon, lat, heights)]
    return np.column_stack(rest[:2]), rest[2]


def _shades(watched: Watched) -> int:
    """Return how many hillshades are on the globe and shown."""
    shown: int = watched.page.evaluate(
        """() => {
          const {imageryLayers} = window.cim.viewer.scene;
          return [...Array(imageryLayers.length).keys()].map((i) => imageryLayers.get(i))
            .filter((layer) => layer.show && /hillshade/.test(layer.imageryProvider.url ?? ""))
            .length;
        }"""
    )
    return shown


def _picture(watched: Watched, path: Path) -> NDArray[np.int64]:
    png = watched.page.screenshot(path=str(path))
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(np.int64)


def test_the_portal_s_own_snippet_stands_the_terrain_up_in_maplibre(
    new_page: Callable[[], Watched], tmp_path: Path
) -> None:
    watched = new_page()
    page = watched.page
    watched.open(f"&asset={TERRAIN}")
    page.locator(f"[data-layer={TERRAIN}] .icon-button").nth(1).click()
    page.get_by_role("tab", name="MapLibre").click()
    snippet = page.locator("dialog pre, [role=dialog] pre").inner_text()
    assert "terrainrgb" in snippet and "hillshade" in snippet
    page.goto(f"{watched.origin}/healthz")
    page.evaluate(_RUN_SNIPPET, {"snippet": snippet, "origin": watched.origin})
    places, heights = _places()
    lon, lat = places.mean(axis=0)
    look = {"lon": lon, "lat": lat}
    found = {}
    for exaggeration in (1, 3):
        page.evaluate(_LOOK, {**look, "exaggeration": exaggeration})
        found[exaggeration] = np.array(
            page.evaluate("(places) => places.map((p) => map.queryTerrainElevation(p))",
                          places.tolist())
        )  # fmt: skip
        picture = _picture(watched, tmp_path / f"maplibre-{exaggeration}.png")
    # Far more than a metre: a level plane would not pass.
    assert np.ptp(heights) > 3
    # The relief is of other tiles when the camera is higher above it: not the same to the bit.
    for exaggeration, elevations in found.items():
        off = np.abs(elevations / exaggeration - heights)
        print(f"x{exaggeration}, {len(off)} places: at most {off.max():.2f} m off the DEM, "
              f"mean {off.mean():.2f} m")  # fmt: skip
        assert off.max() < 1
    # Shaded: many greys, and they change with the height of the relief.
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 100
    assert watched.trouble == []


def test_the_hillshade_of_a_terrain_is_switched_on_in_its_details(
    new_page: Callable[[], Watched], tmp_path: Path
) -> None:
    watched = new_page()
    page = watched.page
    watched.open(f"&asset={TERRAIN}")
    page.evaluate(
        """() => {
          for (const layer of window.cim.layers.values()) {
            if (layer.asset.kind !== "terrain") layer.hide();
          }
        }"""
    )
    watched.settle()
    bare = _picture(watched, tmp_path / "bare.png")
    page.locator(f"[data-layer={TERRAIN}] .more").click()
    option = page.get_by_role("switch", name="山体阴影")
    opacity = page.locator(f"[data-layer={TERRAIN}] input[type=range]")
    assert not option.is_checked() and not opacity.is_visible()
    option.check()
    watched.settle()
    shaded = _picture(watched, tmp_path / "shaded.png")
    globe = np.s_[60:-60, 420:-140]
    changed = np.abs(shaded - bare)[globe].max(axis=-1) > 12
    assert changed.mean() > 0.05, f"only {changed.mean():.1%} of the picture changed"
    # A hillshade is grey, lit by the sun of the globe or not.
    spread = np.ptp(shaded[globe][changed], axis=-1)
    assert np.median(spread) < 25
    assert opacity.is_visible()
    opacity.fill("0")
    watched.settle()
    again = _picture(watched, tmp_path / "faded.png")
    assert (np.abs(again - bare)[globe].max(axis=-1) > 12).mean() < 0.01
    opacity.fill("100")
    assert _shades(watched) == 1
    page.evaluate(f"window.cim.layers.get('{TERRAIN}').hide()")
    watched.settle()
    assert _shades(watched) == 0
    assert watched.trouble == []
