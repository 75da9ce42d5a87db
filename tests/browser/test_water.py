"""Water in terrain as CesiumJS decodes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser.views import browsing, serving, visiting
from tests.commands import Command
from tests.ingest.test_terrain_update import OPTIONS, sheet
from tests.ingest.test_terrain_water import LAKE, collection

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

# The mask of the deepest tile at a place: its size, and the value at the place.
_MASK = """async ([lon, lat]) => {
  const provider = window.cim.viewer.scene.terrainProvider;
  const place = {longitude: lon * Math.PI / 180, latitude: lat * Math.PI / 180, height: 0};
  const level = provider.availability.computeMaximumLevelAtPosition(place);
  const {x, y} = provider.tilingScheme.positionToTileXY(place, level);
  const mask = (await provider.requestTileGeometry(x, y, level)).waterMask;
  const side = Math.sqrt(mask.length);
  const {west, north, width, height} = provider.tilingScheme.tileXYToRectangle(x, y, level);
  const column = Math.floor((place.longitude - west) / width * side);
  const row = Math.floor((north - place.latitude) / height * side);
  return [mask.length, mask[row * side + column]];
}"""


def test_cesium_sees_water_where_the_polygons_are(cim: Command, tmp_path: Path) -> None:
    data = tmp_path / "cim"
    lake = collection(tmp_path / "湖.geojson", LAKE)
    land = sheet(tmp_path / "a.tif", 113.0, 32.0, 120)
    water = ("--id", "湖", "--kind", "vector")
    assert not cim("ingest", lake, *water, "--data", data).code
    terrain = ("--id", "dem", *OPTIONS, "--water", "湖")
    assert not cim("ingest", land, *terrain, "--data", data).code
    with serving(data, data / "server.log") as origin, browsing() as browser:
        with visiting(browser, origin, 700, 500) as visit:
            visit.watched.open("&asset=dem")
            page = visit.watched.page
            assert page.evaluate("window.cim.viewer.scene.terrainProvider.hasWaterMask")
            west, _, east, _ = LAKE.bounds
            middle = LAKE.centroid
            for lon, lat, wet in (
                (middle.x, middle.y, 255),
                (west + 0.0004, middle.y, 255),
                (west - 0.0004, middle.y, 0),
                (east + 0.0004, middle.y, 0),
            ):
                size, value = page.evaluate(_MASK, [lon, lat])
                assert (size, value) in ((1, wet), (256**2, wet)), (lon, lat)
            assert not visit.watched.trouble
