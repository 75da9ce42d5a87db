"""Point clouds in a real browser: their colours, classes and heights, and what a click tells."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import laspy
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from cim_server.cli import main
from ingest.workspace import Workspace
from tests.browser.test_standing import MESH_HEIGHTS
from tests.browser.views import Eye, Visit, browsing, look, serving, visiting
from tests.commands import DEMO_SOURCES
from tiling.crs import TILE_REF, SpatialRef, transform_points
from tiling.ellipsoid import ecef_to_geodetic
from tiling.formats.points_glb import decode_points
from tiling.stores import gzip_member, open_store

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

DATA = Path(__file__).parent.parent / "data" / "pointcloud"
# 25 m of Villeneuve: cars, ground, trees and a roof, classified, without colours.
CLASSIFIED = DATA / "ign_classified.laz"
COLOURED = DEMO_SOURCES / "autzen.laz"
CLASSES = {1: "#cfd3d8", 2: "#b08d57", 5: "#2f8f46", 6: "#e05a3c"}
RED, BLUE = (200, 40, 30), (30, 60, 190)
# CesiumJS takes 2.2 for the exponent of sRGB.
NEAR = 12
HEIGHT_M = 100.0
FRAME = SpatialRef.parse("EPSG:4547+5737")
SURVEYED = SpatialRef.parse("EPSG:2154+5737")
MIDDLE = (560_060.0, 3_510_060.0)
_GLOBE_ALONE = ".view > :not(.globe), .globe > :not(.cesium-widget) { visibility: hidden }"
# The point at each pixel.
_PICK = """async (pixels) => {
  const found = [];
  for (const [x, y] of pixels) {
    const picked = await window.cim.pick(x, y);
    found.push(Object.fromEntries((picked?.attributes ?? []).map(({id, value}) => [id, value])));
  }
  return found;
}"""


def rgb(css: str) -> NDArray[np.int64]:
    return np.array([int(css[at : at + 2], 16) for at in (1, 3, 5)])


def slab(path: Path) -> Path:
    """Write a level square of 120 m: red ground in the west, blue buildings in the east."""
    x, y = (g.ravel() for g in np.meshgrid(np.arange(0, 120, 0.5), np.arange(0, 120, 0.5)))
    header = laspy.LasHeader(point_format=7, version="1.4")
    header.scales, header.offsets = [0.001] * 3, [560_000, 3_510_000, 0]
    las = laspy.LasData(header)
    las.x, las.y, las.z = 560_000 + x, 3_510_000 + y, np.full(len(x), HEIGHT_M)
    east = x > 60
    for channel, name in enumerate(("red", "green", "blue")):
        las[name] = np.where(east, BLUE[channel], RED[channel])
    las.classification = np.where(east, 6, 2)
    las.write(path)
    return path


def run(*arguments: str | Path) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([str(a) for a in arguments])
    assert not stopped.value.code


@dataclass(frozen=True)
class Clouds:
    """A data folder, and the portal on it."""

    data: Path
    visit: Visit

    def fly(self, asset: str) -> NDArray[np.int64]:
        self.visit.watched.page.evaluate(f"window.cim.layers.get('{asset}').flyTo(0)")
        return self.shown()

    def change(self, asset: str, look: dict[str, Any]) -> NDArray[np.int64]:
        self.visit.watched.page.evaluate(
            "async ([id, look]) => window.cim.layers.get(id).setLook(look)", [asset, look]
        )
        return self.shown()

    def shown(self) -> NDArray[np.int64]:
        """Return the pixels of the globe once everything is drawn: (height, width, 3)."""
        self.visit.watched.settle()
        box = self.visit.watched.globe_box()
        page = self.visit.watched.page
        picture = page.screenshot(clip=box, style=_GLOBE_ALONE)  # type: ignore[arg-type]
        return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")).astype(np.int64)


@pytest.fixture(scope="module")
def clouds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clouds]:
    folder = tmp_path_factory.mktemp("clouds")
    data = folder / "data"
    ground, options = folder / "ground.tif", ("--data", data, "--area", "world", "--workers", "1")
    run("derive", CLASSIFIED, "--vertical", "EPSG:5737", "--dtm", ground, "--cell", "0.5")
    run("ingest", ground, "--id", "ground", "--kind", "terrain", *options)
    run("ingest", CLASSIFIED, "--id", "classified", "--vertical", "EPSG:5737", *options)
    run("ingest", COLOURED, "--id", "coloured", "--assume-vertical", "EPSG:5773", *options)
    square = slab(folder / "点云.las")
    run("ingest", square, "--id", "slab", "--crs", "EPSG:4547", "--vertical", "EPSG:5737", *options)
    with (
        serving(data, folder / "log.txt") as origin,
        browsing() as browser,
        visiting(browser, origin, 800, 440) as visit,
    ):
        visit.watched.open("&asset=classified")
        yield Clouds(data, visit)
        assert visit.watched.trouble == []


def count(pixels: NDArray[np.int64], colour: Any) -> int:
    return int((np.abs(pixels - np.array(colour)).max(axis=2) <= NEAR).sum())


def test_points_have_their_colours_their_classes_and_their_height(clouds: Clouds) -> None:
    lon, lat, height = transform_points(FRAME, TILE_REF, *(np.array([v]) for v in MIDDLE),
                                        np.array([HEIGHT_M]))  # fmt: skip
    assert height is not None
    look(clouds.visit, Eye(float(lon[0]), float(lat[0]), float(height[0]) + 150))
    own = clouds.shown()
    ground, building = rgb(CLASSES[2]), rgb(CLASSES[6])
    assert count(own, RED) > 10_000 and count(own, BLUE) > 10_000
    assert count(own, ground) == count(own, building) == 0
    classes = clouds.change("slab", {"colouring": "class"})
    assert count(classes, ground) > 10_000 and count(classes, building) > 10_000
    assert count(classes, RED) == count(classes, BLUE) == 0
    # North is up: what lies in the west is on the left.
    west, east = (
        np.nonzero(np.abs(classes - colour).max(axis=2) <= NEAR)[1].mean()
        for colour in (ground, building)
    )
    assert west < east
    box = clouds.visit.watched.globe_box()
    (found,) = clouds.visit.watched.page.evaluate(_PICK, [[box["width"] / 2, box["height"] / 2]])
    # The heights of the source, not those of the ellipsoid 30 m below.
    assert found["point:elevation"] == f"{HEIGHT_M:.3f} m"
    assert abs(float(found["point:height"].split()[0]) - float(height[0])) < 0.002


def test_a_real_cloud_without_colours_is_drawn_in_its_classes(clouds: Clouds) -> None:
    before = clouds.fly("classified")
    for value, colour in CLASSES.items():
        assert count(before, rgb(colour)) > 300, value
    page = clouds.visit.watched.page
    legend = page.locator("[data-legend=classified]")
    assert legend.locator("li").count() == 6
    roof = legend.locator("li", has=page.locator("[data-class='6']"))
    assert roof.inner_text().split("\n") == ["6 建筑物", "11,061"]
    page.locator("#class-classified-6").uncheck()
    hidden = clouds.shown()
    assert count(hidden, rgb(CLASSES[6])) == 0
    assert count(hidden, rgb(CLASSES[2])) > 300
    page.evaluate("window.cim.setLanguage('en')")
    assert "6 Building" in legend.inner_text()
    page.evaluate("window.cim.setLanguage('zh')")
    page.locator("#class-classified-6").check()


def test_a_real_cloud_is_drawn_in_its_own_colours(clouds: Clouds) -> None:
    pixels = clouds.fly("coloured")
    las = laspy.read(COLOURED)
    own = np.stack([las.red, las.green, las.blue], axis=1).astype(np.int64)
    known = np.unique(own // 8 @ [1 << 10, 1 << 5, 1])
    middle = pixels[200:480, 250:550].reshape(-1, 3)
    drawn = middle // 8 @ [1 << 10, 1 << 5, 1]
    assert len(np.unique(drawn)) > 200
    assert np.isin(drawn, known).mean() > 0.95
    both = clouds.change("coloured", {"hidden": [1]})
    # Trees and grass are not classified here: the ground alone stays.
    lost = (np.abs(both - pixels).max(axis=2) > NEAR).mean()
    assert 0.1 < lost < 0.9


def test_points_grow_and_their_edges_darken_on_request(clouds: Clouds) -> None:
    pixels = clouds.fly("classified")
    page = clouds.visit.watched.page
    page.locator("[data-layer=classified] .more").click()
    roof = rgb(CLASSES[6])
    small = clouds.change("classified", {"size": 0.5})
    assert count(small, roof) < count(pixels, roof)
    assert page.locator("[data-layer=classified] [data-option=point-size]").count() == 1
    page.locator("[data-layer=classified] [data-option=point-edges]").check()
    edges = clouds.change("classified", {"size": 1})
    assert edges.mean() < pixels.mean() - 3
    page.locator("[data-layer=classified] [data-option=point-edges]").uncheck()


def test_a_click_tells_what_was_measured_at_the_point_that_is_drawn(clouds: Clouds) -> None:
    page = clouds.visit.watched.page
    pixels = clouds.fly("classified")
    middle = np.array(pixels.shape[:2]) / 2
    sought = []
    for value, colour in CLASSES.items():
        there = np.argwhere(np.abs(pixels - rgb(colour)).max(axis=2) <= NEAR)
        # The legend covers a corner of the globe, the panel its right.
        there = there[np.argsort(np.abs(there - middle).max(axis=1))]
        sought += [(x, y, value) for y, x in there[: len(there) // 2 : len(there) // 30].tolist()]
    found = page.evaluate(_PICK, [[x, y] for x, y, _ in sought])
    told = [int(point.get("classification", "-1").split()[0]) for point in found]
    right = np.array(told) == np.array([value for *_, value in sought])
    assert len(right) > 30 and right.mean() > 0.95
    # Each of them is a point of the file, with everything the file says of it.
    las = laspy.read(CLASSIFIED)
    lon, lat, _ = transform_points(SURVEYED, TILE_REF, las.x, las.y, np.zeros(len(las.x)))
    for point in (point for point in found if point):
        x, y = map(float, point["point:place"].split(", "))
        z = float(point["point:elevation"].removesuffix(" m"))
        metres = np.stack([(lon - x) * 80_500, (lat - y) * 111_000, las.z - z])
        near = np.linalg.norm(metres, axis=0)
        row = int(near.argmin())
        assert near[row] < 0.002
        assert point["intensity"] == las.intensity[row]
        assert point["return_number"] == las.return_number[row]
        assert abs(point["gps_time"] - las.gps_time[row]) < 1e-3
    box = clouds.visit.watched.globe_box()
    x, y = next((x, y) for x, y, value in sought if value == 6)
    page.keyboard.press("Escape")
    page.mouse.click(box["x"] + x, box["y"] + y)
    panel = page.locator(".attributes")
    panel.wait_for()
    assert panel.locator("h2").inner_text() == "点 · 建筑物"
    text = panel.inner_text()
    for words in ("1985 国家高程基准", "强度", "回波序号", "GPS 时间", "椭球高"):
        assert words in text
    page.evaluate("window.cim.setLanguage('en')")
    assert panel.locator("h2").inner_text() == "Point · Building"
    page.evaluate("window.cim.setLanguage('zh')")
    page.keyboard.press("Escape")


def test_the_ground_of_a_cloud_lies_on_the_terrain_that_was_made_of_it(clouds: Clouds) -> None:
    with Workspace(clouds.data).open_catalog() as catalog:
        info = catalog.version("ground").info
        (ref,) = catalog.version("classified").stores
    store = open_store(Workspace(clouds.data).store_path(ref), ref.format)
    tiles = [
        decode_points(gzip_member.content(tile, key))
        for key in store.keys()
        if key.endswith(".glb") and (tile := store.get(key)) is not None
    ]
    store.close()
    ecef = np.concatenate([t.ecef[t.columns["classification"] == 2] for t in tiles])
    lon, lat, height = ecef_to_geodetic(ecef)
    assert len(lon) == 6181
    some = slice(None, None, 40)
    places = np.stack([lon[some], lat[some]], axis=1).tolist()
    page = clouds.visit.watched.page
    drawn = np.array(page.evaluate(MESH_HEIGHTS, [info["max_level"], places]))
    away = np.abs(drawn - height[some])
    # Cells of the DTM are means of half a metre. The geoid lies 50 m above the ellipsoid here.
    assert np.median(away) < 0.05
    assert np.percentile(away, 95) < 0.3
    assert height.min() > 60
