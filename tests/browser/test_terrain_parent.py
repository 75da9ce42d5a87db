"""A city over its province, as CesiumJS loads the two: each tile from the terrain that has it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.browser.views import Visit, browsing, serving, visiting
from tests.commands import Command
from tests.ingest.test_terrain_update import OPTIONS, STEP, sheet
from tiling.geoid import parse_vertical

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

# In the city, and in the province alone.
CITY, LAND = (113.2, 32.0), (113.35, 31.85)

# The deepest tile that the shown terrain promises at a place, and the height of the place in it.
_HEIGHT = """async ([lon, lat]) => {
  const provider = window.cim.viewer.scene.terrainProvider;
  const place = {longitude: lon * Math.PI / 180, latitude: lat * Math.PI / 180, height: 0};
  const level = provider.availability.computeMaximumLevelAtPosition(place);
  const {x, y} = provider.tilingScheme.positionToTileXY(place, level);
  const tile = await provider.requestTileGeometry(x, y, level);
  const rectangle = provider.tilingScheme.tileXYToRectangle(x, y, level);
  return [level, tile.interpolateHeight(rectangle, place.longitude, place.latitude)];
}"""


@pytest.fixture(scope="module")
def data(cim: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    sources = {
        "province": (sheet(folder / "province.tif", 112.9, 32.3, 300, 4 * STEP), ()),
        "city": (sheet(folder / "city.tif", 113.17, 32.03, 120), ("--parent", "province")),
    }
    for asset, (source, more) in sources.items():
        done = cim("ingest", source, "--id", asset, *OPTIONS, *more, "--data", folder / "cim")
        assert done.code == 0, done.err
    return folder / "cim"


@pytest.fixture(scope="module")
def visit(data: Path) -> Iterator[Visit]:
    with serving(data, data / "server.log") as origin, browsing() as browser:
        with visiting(browser, origin, 700, 500) as visit:
            visit.watched.open("&asset=city")
            for step in ("get('province').hide()", "get('city').show()"):
                visit.watched.page.evaluate(f"window.cim.layers.{step}")
            yield visit


@pytest.mark.parametrize(("place", "asset"), [(CITY, "city"), (LAND, "province")])
def test_cesium_takes_each_tile_from_the_terrain_that_has_it(
    visit: Visit, place: tuple[float, float], asset: str
) -> None:
    asked: list[str] = []

    def note(request: Any) -> None:
        asked.append(request.url)

    page = visit.watched.page
    page.on("request", note)
    level, height = page.evaluate(_HEIGHT, place)
    page.remove_listener("request", note)
    assert any(f"/tiles/{asset}/current/{level}/" in url for url in asked), asked
    lon, lat = place
    datum = parse_vertical("EPSG:5737").separation(np.array([lon]), np.array([lat]))
    land = 100 + 60 * np.sin(lon * 300) * np.cos(lat * 250) + float(datum[0])
    assert height == pytest.approx(land, abs=4)
    # The province ends two levels above the city.
    assert level == {"city": 13, "province": 11}[asset]
    assert not visit.watched.trouble
