"""Terrain on request: the bytes that baking makes, at the address where baking puts them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import rasterio
from pyproj import Transformer
from rasterio.errors import NotGeoreferencedWarning

from cim_server.cli import main
from cim_server.settings import Settings
from cim_server.testing.services import ServiceTests
from ingest.manifest import IngestOptions
from tests.cim_server.conftest import serving
from tests.commands import Command
from tiling.errors import ConfigError
from tiling.formats.layer_json import available_tiles
from tiling.schemes import SCHEMES

DATA = Path(__file__).parent.parent / "data" / "raster"
# A real DEM in projected metres with voids, of which only the roots are baked, and a coarse one in
# degrees, baked down to level 5; each whole beside it. And a stack: the middle of the former, with
# a hole, over all of it at a quarter of the resolution.
BAKES = {"dtm": "none", "hubei": "5", "stack": "13"}
DEMS = {"dtm": DATA / "dtm.tif", "hubei": DATA / "hubei_p1511_5min.tif"}


HOLE = (100, 110)  # row and column of the DEM


def sheets(folder: Path) -> Path:
    with rasterio.open(DEMS["dtm"]) as source:
        band, profile, place = source.read(1), dict(source.profile), source.transform
    fine = band[64:192, 64:192].copy()
    fine[HOLE[0] - 64 - 8 : HOLE[0] - 64 + 8, HOLE[1] - 64 - 8 : HOLE[1] - 64 + 8] = source.nodata
    for name, values, offset, factor in (
        ("fine", fine, 64, 1),
        ("coarse", band[2::4, 2::4], 0, 4),
    ):
        transform = rasterio.Affine(
            place.a * factor, 0, place.c + offset * place.a, 0, place.e * factor,
            place.f + offset * place.e,
        )  # fmt: skip
        profile.update(driver="GTiff", width=values.shape[1], height=values.shape[0])
        with rasterio.open(folder / f"{name}.tif", "w", **{**profile, "transform": transform}) as o:
            o.write(values[None])
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("terrain")
    for name, path in {**DEMS, "stack": sheets(tmp_path_factory.mktemp("sheets"))}.items():
        for bake in ("all", BAKES[name]):
            arguments = (
                *("ingest", str(path), "--id", f"{name}-{bake}", "--kind", "terrain"),
                *("--vertical", "EPSG:5737", "--area", "world", "--data", str(data)),
                *("--bake", bake, "--workers", "1"),
            )
            with pytest.raises(SystemExit) as done:
                main(list(arguments))
            assert not done.value.code
    return data


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[httpx.Client]:
    with serving(Settings(data=folder, port=0)) as running:
        yield running


def layer(client: httpx.Client, asset: str) -> Any:
    return client.get(f"/tiles/{asset}/current/layer.json").json()


class TestTerrainOnRequest(ServiceTests):
    found = {
        "/tiles/hubei-5/current/layer.json": "application/json",
        "/tiles/hubei-5/1/layer.json": "application/json",
        "/tiles/hubei-5/1/0/1/0.terrain": "application/vnd.quantized-mesh",
        "/tiles/hubei-5/1/6/104/43.terrain": "application/vnd.quantized-mesh",
        "/tiles/hubei-5/current/6/104/43.terrain": "application/vnd.quantized-mesh",
        "/tiles/dtm-none/current/1/1/1.terrain": "application/vnd.quantized-mesh",
    }
    missing = (
        "/tiles/hubei-5/1/6/0/0.terrain",
        "/tiles/hubei-5/1/6/999/43.terrain",
        "/tiles/hubei-5/1/7/208/86.terrain",
        "/tiles/hubei-5/1/23/208/86.terrain",
        "/tiles/hubei-5/1/6/104/43.glb",
    )


@pytest.mark.parametrize(("name", "bake"), BAKES.items())
def test_every_tile_has_the_bytes_that_baking_makes(
    client: httpx.Client, name: str, bake: str
) -> None:
    whole, completed = layer(client, f"{name}-all"), layer(client, f"{name}-{bake}")
    assert completed == {**whole, "name": completed["name"]}
    tiles = list(available_tiles(whole))
    assert len(tiles) > 15
    raw = {"Accept-Encoding": "gzip"}
    for level, x, y in tiles:
        with client.stream(
            "GET", f"/tiles/{name}-all/1/{level}/{x}/{y}.terrain", headers=raw
        ) as baked:
            expected = b"".join(baked.iter_raw())
        with client.stream(
            "GET", f"/tiles/{name}-{bake}/1/{level}/{x}/{y}.terrain", headers=raw
        ) as made:
            assert made.status_code == 200, (level, x, y)
            assert made.headers["content-encoding"] == "gzip"
            assert b"".join(made.iter_raw()) == expected, (level, x, y)


@pytest.mark.parametrize(("name", "bake"), BAKES.items())
def test_what_is_stored_keeps_the_laws_of_its_kind(
    folder: Path, cim_here: Command, name: str, bake: str
) -> None:
    done = cim_here("check", f"{name}-{bake}", "--data", folder)
    assert done.code == 0, (done.out, done.err)


def test_versions_say_what_was_baked(client: httpx.Client) -> None:
    def item(asset: str) -> Any:
        return client.get(f"/stac/search?ids={asset}").json()["features"][0]

    info = item("dtm-none")["properties"]["cim:info"]
    assert info["terrain"]["baked"] == 0
    assert info["max_level"] == layer(client, "dtm-all")["maxzoom"] > 5
    assert set(info["tiles_per_level"]) == {"0"}
    nbytes = [item(f"dtm-{b}")["assets"]["tiles-3tz"]["file:size"] for b in ("none", "all")]
    assert nbytes[0] < nbytes[1]


def test_every_service_sees_the_whole_stack(client: httpx.Client) -> None:
    stores = client.get("/stac/search?ids=stack-13").json()["features"][0]["assets"]
    assert {"data-cog", "data-cog-2"} <= set(stores)
    with rasterio.open(DEMS["dtm"]) as source:
        band = source.read(1).astype(float)
        to_lonlat = Transformer.from_crs(source.crs, 4326, always_xy=True).transform
        places = {
            name: to_lonlat(*source.xy(row, column))
            for name, (row, column) in {
                "fine": (150, 90),
                "hole": HOLE,
                "coarse": (20, 130),
            }.items()
        }

    def height(name: str) -> float:
        lon, lat = places[name]
        return float(client.get(f"/terrain/stack-13/point/{lon},{lat}").json()["orthometric_m"])

    assert height("fine") == pytest.approx(band[150, 90], abs=1e-2)
    around = band[HOLE[0] - 6 : HOLE[0] + 6, HOLE[1] - 6 : HOLE[1] + 6]
    assert around.min() - 0.1 <= height("hole") <= around.max() + 0.1
    assert height("coarse") == pytest.approx(band[20, 130], abs=1.5)
    (lon0, lat0), (lon1, lat1) = places["coarse"], places["fine"]
    line = f"{lon0},{lat0};{places['hole'][0]},{places['hole'][1]};{lon1},{lat1}"
    facts = client.get(f"/terrain/stack-13/profile?line={line}").json()["properties"]
    assert facts["voids"] == 0


def pixels(answer: httpx.Response) -> Any:
    assert answer.status_code == 200, answer.text
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.MemoryFile(answer.content) as file, file.open() as dataset:
            return dataset.read()


@pytest.mark.parametrize("grid", ["WebMercatorQuad", "CGCS2000Quad"])
def test_coded_heights_are_those_of_a_real_dem(client: httpx.Client, grid: str) -> None:
    # Every pixel of a tile beside GDAL's own sampling of the source, bilinear by hand.
    with rasterio.open(DEMS["dtm"]) as source:
        band = source.read(1).astype(np.float64)
        band[band == source.nodata] = np.nan
        inverse = ~source.transform
        middle = source.xy(source.height // 2, source.width // 2)
        to_source = Transformer.from_crs(4326, source.crs, always_xy=True)
    lon, lat = to_source.transform(*middle, direction="INVERSE")
    document = client.get(f"/terrain/dtm-all/terrainrgb/{grid}/tilejson.json").json()
    zoom = document["maxzoom"]
    x, y = (int(v[0]) for v in SCHEMES[grid].tile_of([lon], [lat], zoom))
    rgb = pixels(client.get(document["tiles"][0].format(z=zoom, x=x, y=y))).astype(np.float64)
    found = -10000 + (rgb[0] * 65536 + rgb[1] * 256 + rgb[2]) * 0.1
    from tiling.coords import TileCoord

    at = np.arange(256) + 0.5
    lons, lats = SCHEMES[grid].from_tile(at, at, TileCoord(zoom, x, y), extent=256)
    east, north = to_source.transform(*np.meshgrid(lons, lats))
    columns, rows = inverse.a * east + inverse.c - 0.5, inverse.e * north + inverse.f - 0.5
    c, r = np.floor(columns).astype(int), np.floor(rows).astype(int)
    inside = (c >= 0) & (r >= 0) & (c < band.shape[1] - 1) & (r < band.shape[0] - 1)
    c, r = np.clip(c, 0, band.shape[1] - 2), np.clip(r, 0, band.shape[0] - 2)
    u, v = columns - c, rows - r
    expected = (band[r, c] * (1 - u) + band[r, c + 1] * u) * (1 - v)
    expected += (band[r + 1, c] * (1 - u) + band[r + 1, c + 1] * u) * v
    known = inside & np.isfinite(expected)
    assert known.mean() > 0.3
    off = np.abs(found - expected)[known]
    # The code's half step; and where rows of a Mercator tile fall between nodes, a little more.
    assert np.percentile(off, 99) < 0.1 and off.max() < 0.5


@pytest.mark.parametrize("text", ["some", "-1", "25", "1.5", ""])
def test_a_bake_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--bake"):
        IngestOptions(sources=(Path("x.tif"),), id="x", bake=text)


def test_bake_levels_are_understood() -> None:
    def level(text: str | None) -> int | None:
        return IngestOptions(sources=(Path("x.tif"),), id="x", bake=text).bake_level()

    assert [level(t) for t in (None, "all", "none", "0", "14")] == [None, None, 0, 0, 14]
    assert json.loads(json.dumps(IngestOptions(sources=(Path("x"),), id="x", bake="9").to_json()))[
        "bake"
    ] == ("9")
