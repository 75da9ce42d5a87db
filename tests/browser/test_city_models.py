"""CityJSON and CityGML samples in a real browser: drawn in their colours, named when clicked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.browser.test_city import picture
from tests.browser.views import Eye, Visit, browsing, look, serving, visiting
from tests.commands import Command

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

SAMPLES = Path(__file__).parent.parent / "data" / "city"
MODELS = {
    "delft": (SAMPLES / "delft.city.json", "offset:43"),
    "yokosuka": (SAMPLES / "52397519_bldg_6697_op.gml", "offset:36"),
}

# Walks a grid of pixels; gives the property ids and values of what is hit first.
_PICK = """step => {
  const {scene, canvas} = window.cim.viewer;
  for (let y = 60; y < canvas.clientHeight - 60; y += step)
    for (let x = 60; x < canvas.clientWidth - 60; x += step) {
      const hit = scene.pick({x, y});
      if (hit?.getProperty)
        return Object.fromEntries(hit.getPropertyIds().map((id) => [id, hit.getProperty(id)]));
    }
  return null;
}"""


@pytest.fixture(scope="module")
def data(cim: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("models")
    for asset, (source, vertical) in MODELS.items():
        options = ("--area", "world", "--assume-vertical", vertical, "--data", data)
        done = cim("ingest", source, "--id", asset, *options)
        assert done.code == 0, done.err
    return data


@pytest.fixture(scope="module")
def visit(data: Path) -> Iterator[Visit]:
    with serving(data, data / "server.log") as origin, browsing() as browser:
        with visiting(browser, origin, 900, 560) as visit:
            visit.watched.open()
            yield visit


def before_the_largest(data: Path, rows: int) -> Eye:
    """Return where the largest building is seen in full; assets differ in their number of rows."""
    (path,) = (p for p in data.rglob("*.parquet") if pq.read_metadata(p).num_rows == rows)
    table = pq.read_table(path, columns=["bbox", "cim:base_m", "cim:height_m"])
    box = table["bbox"].combine_chunks()
    west, south, east, north = (
        box.field(name).to_numpy().astype(float) for name in ("xmin", "ymin", "xmax", "ymax")
    )
    height = table["cim:height_m"].to_numpy()
    row = int(np.argmax((east - west) * (north - south) * height))
    size_m = 111_320 * float(north[row] - south[row]) + float(height[row])
    low = float(table["cim:base_m"][row].as_py())
    # From the south, looking down by half a right angle.
    lat = float(south[row] + north[row]) / 2 - size_m / 111_320
    return Eye(float(west[row] + east[row]) / 2, lat, low + size_m, 0.0, -45.0)


@pytest.mark.parametrize("asset", MODELS)
def test_a_city_model_is_drawn_in_its_colours_and_says_what_it_is(
    data: Path, visit: Visit, asset: str
) -> None:
    features = visit.watched.page.evaluate(
        "async asset => (await (await fetch(`stac/search?ids=${asset}`)).json())"
        '.features[0].properties["cim:info"].features',
        asset,
    )
    look(visit, before_the_largest(data, features))
    seen: Any = picture(visit).astype(int)
    red, green, blue = seen[..., 0], seen[..., 1], seen[..., 2]
    roofs = (red > green + 30) & (red > blue + 30)
    assert roofs.mean() > 0.02, "no roof in the colour of roofs"
    hit = visit.watched.page.evaluate(_PICK, 12)
    assert hit is not None
    assert hit["cim_height_source"] == "shape"
    assert len([value for value in hit.values() if value not in (None, "")]) > 6
    assert visit.watched.trouble == []
