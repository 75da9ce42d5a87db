"""A city of eight thousand buildings in a real browser: from above, from a drone, in a street."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import MemoryFile

from benchmarks import city
from tests.browser.views import (
    Eye,
    Sight,
    Visit,
    arrive,
    browsing,
    look,
    serving,
    views_of,
    visiting,
)
from tests.commands import Command

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

COUNT = 8000
OPTIONS = ["--kind", "buildings", "--vertical", "EPSG:5737", "--key", city.CODE]

_GLOBE_ALONE = ".view > :not(.globe), .globe > :not(.cesium-widget) { visibility: hidden }"

# Walks a grid of pixels; gives the named values of each building that is hit.
_PICK = """([names, step]) => {
  const {scene, canvas} = window.cim.viewer;
  const {fields} = window.cim.layers.get("city").asset;
  const ids = names.map((name) => fields.find((field) => field.name === name).id);
  const found = [];
  for (let y = 80; y < canvas.clientHeight - 80; y += step)
    for (let x = 80; x < canvas.clientWidth - 80; x += step) {
      const hit = scene.pick({x, y});
      if (hit?.getProperty) found.push(ids.map((id) => hit.getProperty(id) ?? null));
    }
  return found;
}"""


@pytest.fixture(scope="module")
def data(cim: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = city.footprints(tmp_path_factory.mktemp("source"), COUNT)
    folder = tmp_path_factory.mktemp("data")
    done = cim("ingest", source, "--id", "city", *OPTIONS, "--data", folder)
    assert done.code == 0, done.err
    return folder


@pytest.fixture(scope="module")
def eyes(data: Path) -> dict[str, Eye]:
    (parquet,) = (data / "stores").rglob("*.parquet")
    return views_of(parquet)


@pytest.fixture(scope="module")
def visit(data: Path) -> Iterator[Visit]:
    log = data / "server.log"
    with serving(data, log) as origin, browsing() as browser:
        with visiting(browser, origin, 900, 560) as visit:
            arrive(visit)
            yield visit


@pytest.fixture(scope="module")
def sights(visit: Visit, eyes: dict[str, Eye]) -> dict[str, tuple[Sight, NDArray[np.uint8]]]:
    """What every view took, and its picture."""
    return {name: (look(visit, eye), picture(visit)) for name, eye in eyes.items()}


def picture(visit: Visit) -> NDArray[np.uint8]:
    """Return the globe as it is on the screen, (height, width, 3)."""
    box = visit.watched.globe_box()
    clip = {"x": box["x"] + 120, "y": box["y"] + 40, "width": box["width"] - 240, "height": 420}
    # Tools that lie over the globe would be taken for buildings.
    png = visit.watched.page.screenshot(clip=clip, style=_GLOBE_ALONE)  # type: ignore[arg-type]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with MemoryFile(png) as file, file.open() as image:
            return np.moveaxis(image.read([1, 2, 3]), 0, -1)


def town(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return which pixels are neither the bare globe nor the sky: lighter, darker or edges."""
    bare = np.array([104, 110, 93])
    return np.asarray(np.abs(image.astype(int) - bare).max(axis=-1) > 18)


def test_nothing_fails_from_the_whole_city_to_the_street(
    visit: Visit, sights: dict[str, tuple[Sight, NDArray[np.uint8]]]
) -> None:
    assert visit.watched.trouble == []
    assert len(sights) == 5
    for sight, _ in sights.values():
        assert sight.selected > 0


def test_the_nearer_the_finer(sights: dict[str, tuple[Sight, NDArray[np.uint8]]]) -> None:
    coarsest = [max(sights[name][0].errors_m) for name in ("30 km", "5 km", "drone")]
    assert coarsest == sorted(coarsest, reverse=True) and len(set(coarsest)) == 3
    assert min(sights["street"][0].errors_m) == min(sights["drone"][0].errors_m)


def test_the_city_is_never_gone_and_has_no_holes(
    sights: dict[str, tuple[Sight, NDArray[np.uint8]]],
) -> None:
    shown = town(sights["whole"][1])
    rows, columns = np.flatnonzero(shown.any(axis=1)), np.flatnonzero(shown.any(axis=0))
    inside = shown[rows[0] : rows[-1], columns[0] : columns[-1]]
    # A sixth of the ground is built over; a missing tile would leave a tenth of the view empty.
    size = min(inside.shape) // 8
    cells = inside[: inside.shape[0] // size * size, : inside.shape[1] // size * size]
    cells = cells.reshape(cells.shape[0] // size, size, cells.shape[1] // size, size)
    share = cells.mean(axis=(1, 3))
    assert share.min() > 0.25 * np.median(share)
    assert town(sights["30 km"][1]).sum() > 50, "the city is gone from afar"
    assert town(sights["street"][1]).mean() > 0.3


def test_every_building_can_be_clicked_and_says_what_the_source_says(
    visit: Visit, eyes: dict[str, Eye]
) -> None:
    look(visit, eyes["drone"])
    source = {row[city.CODE]: row for rows in city.chunks(COUNT) for row in rows.table.to_pylist()}
    names = [city.CODE, "名称", "用途", "楼层", "年份", city.HEIGHT]
    hits = visit.watched.page.evaluate(_PICK, [names, 40])
    # Far away, where buildings are pixels, blocks stand for them.
    single = [hit for hit in hits if hit[0] is not None]
    assert len(single) > 30
    for hit in single:
        assert hit == [source[hit[0]][name] for name in names]
    assert any(hit[1] is None for hit in single) and any(hit[1] for hit in single)
