"""A city over its province: whole at its border, and the province's where it has nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.commands import Outcome
from tests.ingest.test_terrain_update import OPTIONS, STEP, current, ingest, run_cim, sheet, tiles
from tiling.coords import TileCoord
from tiling.formats.quantized_mesh import QUANTA, decode
from tiling.geoid import parse_vertical
from tiling.schemes import TMS_GEOGRAPHIC
from tiling.tilers.terrain import geometric_error_m


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A province of 0.6 degrees, and a city of a tenth of that in its middle, of the same land."""
    folder = tmp_path_factory.mktemp("sheets")
    return (
        sheet(folder / "province.tif", 112.9, 32.3, 300, 4 * STEP),
        sheet(folder / "city.tif", 113.17, 32.03, 120),
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, sources: tuple[Path, Path]) -> Path:
    folder = tmp_path_factory.mktemp("data")
    province, city = sources
    ingest(folder, province, *OPTIONS, asset="省")
    ingest(folder, city, *OPTIONS, "--parent", "省", asset="city")
    ingest(folder, city, *OPTIONS, asset="alone")
    return folder


def layer(data: Path, asset: str) -> Any:
    return json.loads(tiles(data, asset)["layer.json"])


def inside(tile: TileCoord) -> bool:
    west, south, east, north = TMS_GEOGRAPHIC.bounds(tile)[:4]
    return west > 112.95 and east < 113.45 and south > 31.75 and north < 32.25


def errors(data: Path, asset: str) -> dict[TileCoord, NDArray[np.float64]]:
    """Return by how much the vertices of tiles inside the province leave the land."""
    datum = parse_vertical("EPSG:5737")
    found = {}
    for key, body in tiles(data, asset).items():
        if key == "layer.json":
            continue
        tile = TileCoord(*(int(n) for n in key.removesuffix(".terrain").split("/")))
        if not inside(tile):
            continue
        mesh = decode(body)
        west, south, east, north = TMS_GEOGRAPHIC.bounds(tile)[:4]
        lon = west + mesh.u / QUANTA * (east - west)
        lat = south + mesh.v / QUANTA * (north - south)
        land = 100 + 60 * np.sin(lon * 300) * np.cos(lat * 250) + datum.separation(lon, lat)
        found[tile] = np.abs(mesh.heights_m() - land)
    return found


def test_tiles_of_the_city_continue_into_the_province(data: Path) -> None:
    with_parent, alone = errors(data, "city"), errors(data, "alone")
    assert len(with_parent) > 20 and with_parent.keys() == alone.keys()
    for tile, error in with_parent.items():
        # Overviews of either raster flatten the hills of coarse levels.
        assert error.max() < max(2.0, geometric_error_m(tile.level)), tile
    # Without a parent the city ends in a cliff.
    assert max(error.max() for error in alone.values()) > 60


def test_the_city_has_its_own_levels_and_places_and_names_its_parent(data: Path) -> None:
    city, alone = layer(data, "city"), layer(data, "alone")
    assert city.pop("parentUrl") == "../../%E7%9C%81/current"
    assert city == alone
    own, parents = (
        [ref.sha256 for ref in current(data, asset).stores if ref.role == "data"]
        for asset in ("city", "省")
    )
    assert own[1:] == parents
    assert run_cim("check", "city", "--data", data).code == 0


def refused(*arguments: Any) -> Outcome:
    done = run_cim(*arguments)
    assert done.code in (2, 4), done
    return done


def test_a_parent_is_a_terrain_that_is_there_and_no_circle(
    data: Path, sources: tuple[Path, Path]
) -> None:
    province, city = sources

    def parent(source: Path, asset: str, named: str) -> str:
        given = ("--id", asset, "--parent", named, "--data", data)
        return refused("ingest", source, *OPTIONS, *given).err

    assert "no such asset" in parent(city, "new", "nowhere")
    assert "surround itself" in parent(city, "new", "new")
    assert "省 -> city -> 省" in parent(province, "省", "city")
    assert "'省' surrounds city" in refused("delete", "省", "--yes", "--data", data).err


def test_an_update_of_the_city_keeps_its_parent(tmp_path: Path, sources: tuple[Path, Path]) -> None:
    province, city = sources
    new = sheet(tmp_path / "new.tif", 113.18, 32.02, 40, STEP * 0.9, steep=40)
    made, whole = tmp_path / "data", tmp_path / "whole"
    for folder in (made, whole):
        ingest(folder, province, *OPTIONS, asset="p")
    ingest(made, city, *OPTIONS, "--parent", "p")
    ingest(made, new, "--update")
    named = ("--order", "given", "--title", "city", "--parent", "p")
    ingest(whole, new, city, *OPTIONS, *named)
    assert tiles(made) == tiles(whole)
    assert current(made).info["terrain"] == {
        **current(whole).info["terrain"],
        "mesh": current(made).info["terrain"]["mesh"],
    }
