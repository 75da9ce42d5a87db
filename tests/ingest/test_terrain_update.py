"""The law of terrain updates: new sheets over old ones equal a terrain made of all, as a whole."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio import Affine

from catalog.database import Catalog
from catalog.records import Version
from cim_server.cli import main
from ingest.whole import open_tiles
from ingest.workspace import Workspace
from tests.commands import Outcome
from tiling.bounds import Region
from tiling.coords import TileCoord
from tiling.dem import DemStack
from tiling.stores.gzip_member import content
from tiling.stores.zip3tz import ThreeTzReader
from tiling.tilers.terrain import TerrainSpec, build_tile
from tiling.tilers.terrain_cells import existing, overlaps

OPTIONS = ("--kind", "terrain", "--vertical", "EPSG:5737", "--area", "world", "--workers", "1")
STEP = 0.0005


def run_cim(*arguments: Any) -> Outcome:
    """Run the command line in this process: the same code without the start-up."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as stopped,
    ):
        main([str(a) for a in arguments])
    return Outcome(int(stopped.value.code or 0), out.getvalue(), err.getvalue())


def sheet(
    path: Path, x: float, y: float, size: int, step: float = STEP, steep: float = 60.0
) -> Path:
    """Write rolling land around 100 m whose heights depend on the place alone."""
    lon = x + (np.arange(size) + 0.5) * step
    lat = y - (np.arange(size) + 0.5) * step
    values = 100 + steep * np.sin(lon[None] * 300) * np.cos(lat[:, None] * 250)
    values[0, :3] = np.nan  # a void of its own, which the lower sheet shows through
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=size,
        height=size,
        count=1,
        dtype="float32",
        crs="EPSG:4490",
        transform=Affine(step, 0, x, 0, -step, y),
        nodata=np.nan,
    ) as sink:
        sink.write(values.astype(np.float32), 1)
    return path


def current(data: Path, asset: str = "dem") -> Version:
    with Catalog.open(f"sqlite:///{data / 'catalog.db'}") as catalog:
        return catalog.version(asset)


def tiles(data: Path, asset: str = "dem") -> dict[str, bytes]:
    store = open_tiles(Workspace(data), current(data, asset))
    try:
        return {key: content(store.get(key)) for key in store.keys()}  # type: ignore[arg-type]
    finally:
        store.close()


def ingest(data: Path, *arguments: Any, asset: str = "dem") -> dict[str, Any]:
    done = run_cim("ingest", *arguments, "--id", asset, "--data", data, "--json")
    assert done.code == 0, done.err
    report: dict[str, Any] = json.loads(done.out)
    return report


def update(data: Path, *arguments: Any) -> dict[str, Any]:
    return ingest(data, *arguments, "--update", "--workers", "1")


# First longitude of the land, and where the new sheet lies on it.
PLACES = {
    "inside": (113.0, 113.04),
    # Two pixels to the east of an edge of tiles of many levels, at 113.02734.
    "beside an edge": (113.0, 113.0285),
    "antimeridian": (179.9, 179.97),
}


@pytest.mark.parametrize("place", PLACES)
def test_an_update_equals_a_terrain_of_all_sheets(tmp_path: Path, place: str) -> None:
    x, patch = PLACES[place]
    old = sheet(tmp_path / "old.tif", x, 32.0, 200)
    new = sheet(tmp_path / "new.tif", patch, 31.96, 60, STEP * 0.9, steep=40)
    data, whole = tmp_path / "data", tmp_path / "whole"
    ingest(data, old, *OPTIONS)
    before = tiles(data)
    report = update(data, new)
    # Its title is that of the first source.
    ingest(whole, new, old, *OPTIONS, "--order", "given", "--title", "old")
    made = tiles(data)
    assert made == tiles(whole)
    changed = {k for k in made if made[k] != before.get(k)} - {"layer.json"}
    assert report["result"]["tiles_changed"] == len(changed) > 5
    assert report["result"]["tiles_built"] < len(made) or place != "inside"
    # What the store in front holds is what changed, and no more.
    store = ThreeTzReader(Workspace(data).store_path(current(data).stores[0]))
    assert set(store.keys()) == changed | {"layer.json"}
    store.close()
    kept, remade = current(data).info, current(whole).info
    assert kept["tiles_per_level"] == remade["tiles_per_level"]
    assert kept["terrain"]["dem"] == remade["terrain"]["dem"]
    assert sorted(kept["terrain"]["mesh"]["areas"]) == sorted(remade["terrain"]["mesh"]["areas"])
    done = run_cim("check", "dem", "--data", data)
    assert done.code == 0, (done.out, done.err)


def test_updates_lie_over_updates_and_go_by_rollback(tmp_path: Path) -> None:
    old = sheet(tmp_path / "old.tif", 113.0, 32.0, 200)
    first = sheet(tmp_path / "first.tif", 113.03, 31.97, 60, STEP * 0.9, steep=40)
    second = sheet(tmp_path / "second.tif", 113.045, 31.96, 60, STEP * 0.8, steep=30)
    data, whole = tmp_path / "data", tmp_path / "whole"
    ingest(data, old, *OPTIONS)
    update(data, first)
    once = tiles(data)
    update(data, second)
    ingest(whole, second, first, old, *OPTIONS, "--order", "given", "--title", "old")
    assert tiles(data) == tiles(whole)
    again = update(data, second)
    assert again["result"]["unchanged"] and again["result"]["version"] == 3
    assert run_cim("rollback", "dem", "2", "--data", data).code == 0
    assert tiles(data) == once


@pytest.mark.parametrize(("patch", "steep"), [(113.04, 61), (113.095, 40)])
def test_what_a_whole_terrain_would_quantise_otherwise_keeps_the_old_range(
    tmp_path: Path, patch: float, steep: float
) -> None:
    # Higher than all before, and a larger extent, over which the sea stands otherwise.
    old = sheet(tmp_path / "old.tif", 113.0, 32.0, 200)
    new = sheet(tmp_path / "new.tif", patch, 31.96, 60, STEP * 0.9, steep=steep)
    data = tmp_path / "data"
    ingest(data, old, *OPTIONS)
    before = current(data).info["terrain"]["mesh"]
    update(data, new)
    terrain = current(data).info["terrain"]
    assert {**terrain["mesh"], "areas": 0} == {**before, "areas": 0}
    paths = [data / ref.path for ref in current(data).stores if ref.role == "data"]
    source, spec = DemStack.from_json(paths, terrain), TerrainSpec.from_json(terrain)
    made = tiles(data)
    assert len(made) == 1 + sum(int(existing(spec.areas, k).mask.sum()) for k in spec.levels)
    for key, data_of in made.items():
        if key != "layer.json":
            coord = TileCoord(*(int(n) for n in key.removesuffix(".terrain").split("/")))
            assert build_tile(source, spec, coord) == data_of, key
    source.close()


def test_what_is_made_on_request_sees_the_new_sheet(tmp_path: Path) -> None:
    old = sheet(tmp_path / "old.tif", 113.0, 32.0, 200)
    new = sheet(tmp_path / "new.tif", 113.04, 31.96, 60, STEP * 0.9, steep=40)
    data, whole = tmp_path / "data", tmp_path / "whole"
    ingest(data, old, *OPTIONS, "--bake", "8")
    update(data, new)
    ingest(whole, new, old, *OPTIONS, "--order", "given")
    version, expected = current(data), tiles(whole)
    terrain = version.info["terrain"]
    paths = [data / ref.path for ref in version.stores if ref.role == "data"]
    source, spec = DemStack.from_json(paths, terrain), TerrainSpec.from_json(terrain)
    assert all(int(key.split("/")[0]) <= 8 for key in tiles(data) if key != "layer.json")
    for level in (9, spec.levels[-1]):
        found = existing(spec.areas, level)
        for row, column in np.argwhere(found.mask):
            coord = TileCoord(level, found.x0 + int(column), found.y0 + int(row))
            key = f"{level}/{coord.x}/{coord.y}.terrain"
            assert build_tile(source, spec, coord) == expected[key], key
    source.close()


def test_an_update_that_would_change_every_tile_is_refused(tmp_path: Path) -> None:
    old = sheet(tmp_path / "old.tif", 113.0, 32.0, 100)
    data = tmp_path / "data"
    ingest(data, old, *OPTIONS)
    before = current(data)
    fine = sheet(tmp_path / "fine.tif", 113.02, 31.98, 60, STEP / 4)
    high = sheet(tmp_path / "high.tif", 113.02, 31.98, 40, steep=500)

    def refused(*arguments: Any) -> str:
        done = run_cim("ingest", *arguments, "--id", "dem", "--update", "--data", data)
        assert done.code != 0
        return done.err

    level = before.info["max_level"]
    message = refused(fine)
    assert "whole bake is needed" in message and f"--max-zoom {level}" in message
    assert "quantised" in refused(high)
    assert "decided when a terrain is made" in refused(fine, "--bake", "3")
    assert "needs new sheets" in refused()
    assert "for buildings" in refused("--delete-area", "113,31,114,32")
    assert current(data) == before
    # Told to keep the levels, it does.
    report = update(data, fine, "--max-zoom", level)
    assert report["result"]["tiles_changed"] > 0
    assert current(data).info["max_level"] == level


def test_there_is_room_for_a_sheet_a_little_above_and_below_the_others(tmp_path: Path) -> None:
    old = sheet(tmp_path / "old.tif", 113.0, 32.0, 100, steep=0)
    data = tmp_path / "data"
    ingest(data, old, *OPTIONS)
    with rasterio.open(old) as source:
        heights, profile = source.read(1), source.profile
    for name, change in (("higher", 9), ("lower", -9)):
        with rasterio.open(tmp_path / f"{name}.tif", "w", **profile) as sink:
            sink.write(heights + np.float32(change), 1)
        assert update(data, tmp_path / f"{name}.tif")["result"]["tiles_changed"] > 0


def test_a_sheet_without_a_frame_is_taken_as_the_others_were(tmp_path: Path) -> None:
    old = sheet(tmp_path / "old.tif", 113.0, 32.0, 100)
    new = sheet(tmp_path / "new.tif", 113.02, 31.98, 20, steep=50)
    with rasterio.open(new, "r+") as sink:
        sink.crs = rasterio.CRS()
    data = tmp_path / "data"
    ingest(data, old, *OPTIONS, "--crs", "EPSG:4490")
    report = update(data, new)
    rules = {finding["rule"] for finding in report["findings"]}
    assert {"crs-assumed", "vertical-assumed"} <= rules


def test_a_tile_overlaps_the_same_areas_in_part_as_in_whole() -> None:
    areas = (Region(10.0, 10.0, 11.3, 10.9, 0, 1), Region(11.1, 10.2, 14.0, 12.0, 0, 1))
    near = [Region(11.2, 10.5, 11.9, 11.0, 0, 0)]
    for level in range(5, 10):
        part = existing(overlaps(areas, near, level), level)
        whole, asked = existing(areas, level), existing(near, level)
        wanted = np.zeros_like(whole.mask)
        rows = slice(asked.y0 - whole.y0, asked.y0 - whole.y0 + asked.mask.shape[0])
        columns = slice(asked.x0 - whole.x0, asked.x0 - whole.x0 + asked.mask.shape[1])
        wanted[rows, columns] = whole.mask[rows, columns]
        found = np.argwhere(part.mask) + (part.y0 - whole.y0, part.x0 - whole.x0)
        assert found.tolist() == np.argwhere(wanted).tolist(), level
