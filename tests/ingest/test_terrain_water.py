"""Water in terrain, through the command: baked, on request, after an update, after a deletion."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely

from ingest.terrain_water import water_of
from ingest.workspace import Workspace
from tests.ingest.test_terrain_update import OPTIONS, current, run_cim, sheet, tiles
from tiling.coords import TileCoord
from tiling.dem import DemStack
from tiling.formats.quantized_mesh import MASK_SIDE, decode
from tiling.tilers.terrain import TerrainSpec, build_tile

LAKE = shapely.Point(113.03, 31.97).buffer(0.015)


def collection(path: Path, *shapes: shapely.Geometry) -> Path:
    features = [
        {
            "type": "Feature",
            "properties": {"name": f"湖{i}"},
            "geometry": shapely.geometry.mapping(shape),
        }
        for i, shape in enumerate(shapes)
    ]
    text = json.dumps({"type": "FeatureCollection", "features": features}, ensure_ascii=False)
    path.write_text(text, encoding="utf-8")
    return path


def done(*arguments: Any) -> None:
    outcome = run_cim(*arguments)
    assert outcome.code == 0, outcome.err


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("水")
    lakes = collection(folder / "湖.geojson", LAKE, shapely.Point(113.05, 31.95))
    lines = collection(folder / "河.geojson", shapely.LineString([(113, 32), (113.1, 31.9)]))
    first = sheet(folder / "a.tif", 113.0, 32.0, 120)
    for name, source in (("湖", lakes), ("河", lines)):
        done("ingest", source, "--id", name, "--kind", "vector", "--data", folder / "cim")
    options = (*OPTIONS, "--water", "湖")
    done("ingest", first, "--id", "dem", *options, "--data", folder / "cim")
    return folder


def masks(data: Path) -> dict[TileCoord, bytes]:
    found = {}
    for key, body in tiles(data).items():
        if key.endswith(".terrain"):
            level, x, y = (int(part) for part in key.removesuffix(".terrain").split("/"))
            mask = decode(body).water_mask
            assert mask is not None
            found[TileCoord(level, x, y)] = mask
    return found


def share_of_water(found: dict[TileCoord, bytes], level: int) -> float:
    """Return the area of water of a level, square degrees."""
    size = 180 / 2**level
    wet = sum(
        np.frombuffer(mask, np.uint8).mean() / 255
        for tile, mask in found.items()
        if tile.level == level
    )
    return float(wet) * size * size


def test_every_tile_has_a_mask_and_the_finest_hold_the_lake(folder: Path) -> None:
    data = folder / "cim"
    layer = json.loads(tiles(data)["layer.json"])
    assert layer["extensions"] == ["octvertexnormals", "watermask"]
    found = masks(data)
    deepest = max(tile.level for tile in found)
    assert share_of_water(found, deepest) == pytest.approx(LAKE.area, rel=0.01)
    assert {len(mask) for mask in found.values()} == {1, MASK_SIDE**2}
    assert run_cim("check", "dem", "--data", data).code == 0


def test_a_tile_on_request_is_the_baked_one(folder: Path) -> None:
    workspace, version = Workspace(folder / "cim"), current(folder / "cim")
    terrain = dict(version.info["terrain"])
    paths = [workspace.store_path(ref) for ref in version.stores if ref.role == "data"]
    stack, spec = DemStack.from_json(paths, terrain), TerrainSpec.from_json(terrain)
    water = water_of(workspace, version)
    baked = {key: body for key, body in tiles(folder / "cim").items() if key.endswith("n")}
    baked.pop("layer.json", None)
    for key, body in list(baked.items())[-8:]:
        level, x, y = (int(part) for part in key.removesuffix(".terrain").split("/"))
        assert build_tile(stack, spec, TileCoord(level, x, y), water) == body


def test_an_update_keeps_the_water_and_equals_a_whole_ingest(folder: Path, tmp_path: Path) -> None:
    old = sheet(tmp_path / "a.tif", 113.0, 32.0, 120)
    new = sheet(tmp_path / "b.tif", 113.02, 31.98, 30, steep=40.0)
    made = []
    for name, sources in (("whole", ((new, old),)), ("twice", ((old,), (new,)))):
        data = tmp_path / name
        source = folder / "湖.geojson"
        done("ingest", source, "--id", "湖", "--kind", "vector", "--data", data)
        for number, each in enumerate(sources):
            more = ("--update",) if number else ("--order", "given", "--water", "湖")
            done("ingest", *each, "--id", "dem", *OPTIONS, *more, "--data", data)
        made.append({k: v for k, v in tiles(data).items() if k != "layer.json"})
    assert made[0].keys() == made[1].keys()
    for key, body in made[0].items():
        assert decode(body).water_mask == decode(made[1][key]).water_mask, key


def test_tiles_stay_when_the_water_is_deleted(folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "cim"
    lakes = collection(tmp_path / "湖.geojson", LAKE)
    done("ingest", lakes, "--id", "湖", "--kind", "vector", "--data", data)
    first = sheet(tmp_path / "a.tif", 113.0, 32.0, 60)
    options = ("--id", "dem", *OPTIONS, "--water", "湖", "--data", data)
    done("ingest", first, *options)
    done("delete", "湖", "--yes", "--data", data)
    assert run_cim("check", "dem", "--data", data).code == 0
    again = run_cim("ingest", first, *options)
    assert again.code == 4 and "there is no such asset" in again.err


@pytest.mark.parametrize(
    ("asset", "kind", "said"),
    [
        ("海", "terrain", "there is no such asset"),
        ("河", "terrain", "holds no polygons"),
        ("dem", "terrain", "of kind terrain"),
        ("湖", "imagery", "--water is for terrains"),
    ],
)
def test_what_is_no_water_is_refused(folder: Path, asset: str, kind: str, said: str) -> None:
    options = [option if option != "terrain" else kind for option in OPTIONS]
    if kind == "imagery":
        options = ["--kind", kind, "--area", "world"]
    arguments = (folder / "a.tif", "--id", "other", *options, "--water", asset)
    outcome = run_cim("ingest", *arguments, "--data", folder / "cim")
    assert outcome.code in (2, 3, 4) and said in outcome.err
