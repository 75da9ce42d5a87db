"""What a person sees and does in the portal, in a real browser on the demo's data."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pyproj
import pytest
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import MemoryFile

if TYPE_CHECKING:
    from tests.browser.conftest import Watched

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

CITY = "wuhan-buildings"
CHINESE = re.compile(r"[\u4e00-\u9fff]{2,}")

# Looks for a building with a Chinese name on a grid of pixels of the globe.
FIND_NAMED_BUILDING = """async () => {
  const {scene, canvas} = window.cim.viewer;
  for (let y = 40; y < canvas.clientHeight - 60; y += 8)
    for (let x = 140; x < canvas.clientWidth - 420; x += 8) {
      const found = scene.pick({x, y});
      const name = found?.getProperty?.("name");
      if (/[\\u4e00-\\u9fff]{2,}/.test(name ?? "")) return {x, y, name};
    }
  return null;
}"""


def descend(watched: Watched, above_m: float) -> None:
    """Look down steeply on the middle of the city: only there is every building itself."""
    bounds, heights = watched.page.evaluate(
        f"(({{bounds, heights}}) => [bounds, heights])(window.cim.layers.get('{CITY}').asset)"
    )
    west, south, east, north = bounds
    to_ecef = pyproj.Transformer.from_crs(4979, 4978, always_xy=True)
    eye = to_ecef.transform((west + east) / 2, (south + north) / 2, heights[0] + above_m)
    watched.page.evaluate(
        """([x, y, z]) => {
          window.cim.viewer.camera.setView({
            destination: {x, y, z}, orientation: {heading: 0, pitch: -1.2, roll: 0},
          });
          window.cim.viewer.scene.requestRender();
        }""",
        eye,
    )
    watched.settle()


def pixels(watched: Watched) -> NDArray[np.uint8]:
    """The middle of the globe as it is on the screen, (height, width, 3)."""
    box = watched.globe_box()
    clip = {"x": box["x"] + 130, "y": box["y"] + 60, "width": box["width"] - 190, "height": 400}
    png = watched.page.screenshot(clip=clip)  # type: ignore[arg-type]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with MemoryFile(png) as file, file.open() as image:
            return np.moveaxis(image.read([1, 2, 3]), 0, -1)


def colors(image: NDArray[np.uint8]) -> int:
    """How many colours an image has, neighbours of one or two steps taken as one."""
    coarse = (image >> 2).reshape(-1, 3).astype(np.int64)
    return len(np.unique(coarse @ np.array([1 << 16, 1 << 8, 1])))


def test_every_asset_of_the_catalogue_is_a_layer_that_loads(portal: Watched) -> None:
    shown = portal.page.evaluate(
        "[...window.cim.layers.values()].map(({asset, state, error}) => [asset.id, state, error])"
    )
    catalogued = portal.page.request.get(f"{portal.origin}/stac/search?limit=1000").json()
    assert {asset for asset, *_ in shown} == {item["id"] for item in catalogued["features"]}
    assert [row for row in shown if row[1] == "failed" or row[2]] == []
    assert portal.page.locator("[data-layer]").count() == len(shown)


def test_exactly_one_terrain_is_used_at_a_time(portal: Watched) -> None:
    radios = portal.page.locator("input[name=terrain]")
    assert radios.count() >= 1
    assert portal.page.locator("input[name=terrain]:checked").count() == 1
    provider = portal.page.evaluate("window.cim.viewer.scene.terrainProvider.hasVertexNormals")
    assert provider is True


def test_the_rendered_city_is_not_an_empty_globe(portal: Watched) -> None:
    portal.settle()
    city = pixels(portal)
    portal.page.evaluate(f"window.cim.layers.get('{CITY}').hide()")
    portal.settle()
    bare = pixels(portal)
    portal.page.evaluate(f"window.cim.layers.get('{CITY}').show()")
    portal.settle()
    again = pixels(portal)
    changed = np.abs(city.astype(int) - bare).max(axis=-1) > 12
    assert changed.mean() > 0.03, f"only {changed.mean():.1%} of the picture is city"
    assert colors(city) > 300
    assert colors(city) > colors(bare)
    restored = np.abs(city.astype(int) - again).max(axis=-1) > 12
    assert restored.mean() < 0.01, "the city does not come back as it was"


def test_the_white_model_has_shaded_faces_in_the_colours_of_its_legend(portal: Watched) -> None:
    portal.page.wait_for_selector(".legend:not([hidden])")
    swatches = portal.page.locator(".legend .swatch").count()
    style = portal.page.request.get(f"{portal.origin}/styles/buildings.json").json()
    assert swatches == len(style["color"]["conditions"]) - 1  # what has no height has no swatch
    lights = pixels(portal).max(axis=-1)
    assert np.percentile(lights, 99.5) - np.percentile(lights, 0.5) > 80


def test_a_click_on_a_building_shows_its_chinese_name(portal: Watched) -> None:
    descend(portal, 500)
    found = portal.page.evaluate(FIND_NAMED_BUILDING)
    assert found, "no building with a Chinese name is in view"
    before = pixels(portal)
    box = portal.globe_box()
    portal.page.mouse.click(box["x"] + found["x"], box["y"] + found["y"])
    panel = portal.page.locator(".attributes")
    panel.wait_for()
    assert panel.locator("h2").inner_text() == found["name"]
    row = panel.locator("tr", has_text=found["name"])
    assert CHINESE.search(row.first.inner_text())
    assert panel.locator("[data-property=cim_height_m] td").inner_text().replace(".", "").isdigit()
    portal.settle()
    assert (pixels(portal) != before).any(), "the picked building is not highlighted"
    portal.page.keyboard.press("Escape")
    panel.wait_for(state="hidden")


def test_a_click_beside_buildings_reads_the_division_from_its_tile(portal: Watched) -> None:
    portal.page.evaluate("window.cim.layers.get('hubei-cities').flyTo(0)")
    portal.settle()
    box = portal.globe_box()
    middle = {"x": box["width"] / 2, "y": box["height"] / 2}
    portal.page.mouse.click(box["x"] + middle["x"], box["y"] + middle["y"])
    panel = portal.page.locator(".attributes")
    panel.wait_for()
    assert re.search(r"[市区县州]$", panel.locator("h2").inner_text())
    portal.page.keyboard.press("Escape")


def test_names_of_divisions_stand_on_the_map(portal: Watched) -> None:
    portal.page.evaluate("window.cim.layers.get('hubei-cities').flyTo(0)")
    portal.settle()
    texts = portal.page.evaluate(
        """() => {
          const {primitives} = window.cim.viewer.scene;
          const texts = [];
          for (let i = 0; i < primitives.length; i++) {
            const group = primitives.get(i);
            for (let k = 0; k < group.length; k++) texts.push(group.get(k).text ?? "");
          }
          return texts;
        }"""
    )
    assert any(re.fullmatch(r"[\u4e00-\u9fff]+[市区县州]", text) for text in texts), texts


def test_the_map_shows_the_same_layers_at_the_same_place(portal: Watched) -> None:
    page = portal.page
    shown = "[...window.cim.layers.values()].map(({asset, visible}) => [asset.id, visible])"
    before = page.evaluate(shown)
    page.locator("input[name=view][value='3d']").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("window.cim.view() === '2d'")
    assert "view=2d" in page.url
    portal.settle()
    assert page.evaluate(shown) == before
    states = dict(page.evaluate("[...cim.layers.values()].map((l) => [l.asset.id, l.state])"))
    for asset, visible in before:
        cloud = asset == "autzen-points"
        assert states[asset] == ("on" if visible and not cloud else "off"), asset
        assert page.locator(f"#layer-{asset}").is_disabled() is cloud
    west, south, east, north = page.evaluate("cim.layers.get('hubei-cities').asset.bounds")
    middle = page.evaluate("cim.map.getCenter()")
    assert west < middle["lng"] < east and south < middle["lat"] < north
    names = page.evaluate(
        """() => cim.map.queryRenderedFeatures().filter(({layer}) => layer.type === "symbol")
          .map(({properties}) => properties.name)"""
    )
    assert {"十堰市", "襄阳市"} <= set(names)


def test_a_click_on_the_map_tells_every_attribute_of_the_division(portal: Watched) -> None:
    page = portal.page
    canvas = page.locator(".map-canvas canvas").bounding_box()
    assert canvas is not None
    with page.expect_response(re.compile(r"/features/[^/]+/at\?")) as asked:
        page.mouse.click(canvas["x"] + canvas["width"] / 2, canvas["y"] + canvas["height"] / 2)
    panel = page.locator(".attributes")
    panel.wait_for()
    features = asked.value.json()["features"]
    title = panel.locator("h2").inner_text()
    (picked,) = [each for each in features if each["properties"]["name"] == title]
    for name, value in picked["properties"].items():
        assert panel.locator(f"[data-property='{name}'] td").inner_text() == str(value)
    assert page.evaluate("cim.map.getSource('cim-picked')._data.geojson.features.length") == 1
    page.keyboard.press("Escape")


def test_a_click_on_a_footprint_tells_the_building_and_the_globe_comes_back(
    portal: Watched,
) -> None:
    page = portal.page
    page.evaluate(f"cim.layers.get('{CITY}').flyTo(0)")
    page.evaluate("cim.map.jumpTo({zoom: 16})")
    portal.settle()
    found = page.evaluate(
        """(city) => {
          for (let y = 60; y < 600; y += 8)
            for (let x = 140; x < 600; x += 8) {
              const [top] = cim.map.queryRenderedFeatures([x, y]);
              const name = top?.source === city && top.properties.name;
              if (name) return {x, y, name};
            }
        }""",
        CITY,
    )
    picked = page.evaluate("({x, y}) => cim.pick(x, y)", found)
    assert picked["title"] == found["name"]
    assert {"cim:height_m", "name"} <= {each["id"] for each in picked["attributes"]}
    page.evaluate("cim.layers.get('hubei-cities').flyTo(0)")
    page.evaluate("cim.setView('3d')")
    portal.settle()
    assert "view=" not in page.url
    assert page.locator(".globe").is_visible() and not page.locator(".map").is_visible()
    assert page.evaluate(f"cim.layers.get('{CITY}').state") == "on"


def test_a_visit_to_the_map_loads_no_globe(new_page: Callable[[], Watched]) -> None:
    watched = new_page()
    asked: list[str] = []
    watched.page.on("request", lambda request: asked.append(request.url))
    watched.open("&view=2d&asset=suizhou-counties")
    watched.settle()
    assert not any("globe_view" in url or "/cesium/" in url for url in asked)
    assert watched.page.evaluate("cim.layers.get('suizhou-counties').state") == "on"
    assert watched.trouble == []


def test_the_status_bar_reads_coordinates_to_a_tenth_of_a_metre(portal: Watched) -> None:
    portal.page.evaluate(f"window.cim.layers.get('{CITY}').flyTo(0)")
    portal.settle()
    box = portal.globe_box()
    portal.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    portal.page.mouse.move(box["x"] + box["width"] / 2 + 2, box["y"] + box["height"] / 2)
    portal.page.wait_for_function(
        "document.querySelector('.globe .position').textContent.includes('CGCS2000')"
    )
    said = portal.page.locator(".globe .position").inner_text()
    read = re.search(r"CGCS2000\s+(\d+\.\d{6})°E\s+(\d+\.\d{6})°N\s+椭球高 (-?\d+\.\d) m", said)
    assert read, said
    west, south, east, north = portal.page.evaluate(f"window.cim.layers.get('{CITY}').asset.bounds")
    assert west < float(read[1]) < east
    assert south < float(read[2]) < north


def test_the_language_switches_and_is_remembered(portal: Watched) -> None:
    page = portal.page
    assert page.locator("h1").inner_text() == "城市信息模型 CIM 平台"
    assert page.evaluate("document.documentElement.lang") == "zh-CN"
    page.locator(".language").click()
    assert page.locator("h1").inner_text() == "City Information Model Platform"
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.evaluate("localStorage.getItem('cim.language')") == "en"
    assert not CHINESE.search(page.locator(".legend").inner_text())
    page.locator(".language").click()
    assert page.locator("h1").inner_text() == "城市信息模型 CIM 平台"


@pytest.mark.parametrize("layer", [CITY, "hubei-terrain", "hubei-cities", "naip-imagery"])
def test_the_addresses_of_an_asset_answer_and_can_be_copied(portal: Watched, layer: str) -> None:
    page = portal.page
    row = page.locator(f"[data-layer={layer}]")
    row.locator(".icon-button").nth(1).click()
    dialog = page.locator("dialog[open]")
    dialog.wait_for()
    for name in ("urlCurrent", "urlVersion", "urlStac"):
        url = dialog.locator(f"[data-address={name}] input").input_value()
        assert url.startswith(portal.origin)
        assert page.request.get(url).status == 200, url
    current = dialog.locator("[data-address=urlCurrent] input").input_value()
    assert current != dialog.locator("[data-address=urlVersion] input").input_value()
    dialog.locator("[data-address=urlCurrent] button").click()
    page.wait_for_selector(".copy.done")
    assert page.evaluate("navigator.clipboard.readText()") == current
    for tab in dialog.locator("[role=tab]").all():
        tab.click()
        assert portal.origin in dialog.locator("#snippet").inner_text()
    page.keyboard.press("Escape")
    dialog.wait_for(state="detached")


def test_the_search_box_narrows_the_layers(portal: Watched) -> None:
    page = portal.page
    page.locator("#search").fill("随州")
    visible = page.locator("[data-layer]:visible")
    ids = [row.get_attribute("data-layer") for row in visible.all()]
    assert "suizhou-counties" in ids
    assert CITY not in ids
    page.locator("#search").fill("没有这样的图层")
    assert visible.count() == 0
    assert page.locator(".hint").is_visible()
    page.locator("#search").fill("")
    assert page.locator(f"[data-layer={CITY}]").is_visible()


def test_layers_are_switched_and_faded_with_the_keyboard(portal: Watched) -> None:
    page = portal.page
    switch = page.locator(f"#layer-{CITY}")
    switch.focus()
    page.keyboard.press("Space")
    assert page.evaluate(f"window.cim.layers.get('{CITY}').visible") is False
    page.keyboard.press("Space")
    assert page.evaluate(f"window.cim.layers.get('{CITY}').visible") is True
    more = page.locator(f"[data-layer={CITY}] .more")
    more.focus()
    page.keyboard.press("Enter")
    assert more.get_attribute("aria-expanded") == "true"
    slider = page.locator(f"[data-layer={CITY}] input[type=range]")
    slider.focus()
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    opacity = page.evaluate(f"window.cim.layers.get('{CITY}').opacity")
    assert opacity == pytest.approx(0.97)
    page.evaluate(f"window.cim.layers.get('{CITY}').setOpacity(1)")


def test_every_control_has_a_name_for_screen_readers(portal: Watched) -> None:
    nameless: list[Any] = portal.page.evaluate(
        """() => [...document.querySelectorAll("button, input, [role=tab], [role=application]")]
          .filter(control => control.checkVisibility())
          .filter(control => !(control.getAttribute("aria-label") || control.textContent.trim()
                               || control.labels?.[0]?.textContent.trim()))
          .map(control => control.outerHTML)"""
    )
    assert nameless == []


def test_nothing_is_asked_of_any_other_host(portal: Watched) -> None:
    assert portal.hosts == {portal.origin.removeprefix("http://")}


def test_no_request_failed_and_the_console_is_clean(portal: Watched) -> None:
    # Runs after the tests above on the same page: their tiles, clicks and flights count.
    portal.settle()
    assert portal.trouble == []


def test_an_unreachable_catalogue_is_said_in_words_and_tried_again(
    new_page: Callable[[], Watched],
) -> None:
    watched = new_page()
    page = watched.page
    page.route("**/stac/**", lambda route: route.abort())
    page.goto(f"{watched.origin}/?msaa=1")
    notice = page.locator(".notice")
    page.get_by_text("无法连接服务器").wait_for()
    page.locator(".language").click()
    assert "cannot be reached" in notice.inner_text()
    page.unroute("**/stac/**")
    notice.get_by_role("button").click()
    page.wait_for_selector("[data-layer]")


def test_an_empty_catalogue_says_how_to_begin(new_page: Callable[[], Watched]) -> None:
    watched = new_page()
    page = watched.page
    nothing = {"type": "FeatureCollection", "features": [], "links": []}
    page.route("**/stac/search*", lambda route: route.fulfill(json=nothing))
    page.goto(f"{watched.origin}/?msaa=1")
    page.get_by_text("目录中还没有资产").wait_for()
    assert "cim ingest" in page.locator(".notice").inner_text()
    assert watched.trouble == []


def test_a_layer_that_fails_says_so_in_its_row_and_can_be_retried(
    new_page: Callable[[], Watched],
) -> None:
    watched = new_page()
    page = watched.page
    broken = f"**/tiles/{CITY}/current/tileset.json"
    page.route(broken, lambda route: route.fulfill(status=500, json={"title": "broken"}))
    watched.open()
    row = page.locator(f"[data-layer={CITY}]")
    row.locator(".layer-error").wait_for()
    assert row.get_attribute("data-state") == "failed"
    page.unroute(broken)
    row.locator(".layer-error button").click()
    page.wait_for_selector(f"[data-layer={CITY}][data-state=on]")
