"""Terrain services: the heights of the DEM, as pixels and lines, in the right place."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import httpx
import mapbox_vector_tile
import numpy as np
import pytest
import rasterio
import shapely
from rasterio.errors import NotGeoreferencedWarning

from cim_server.settings import Settings
from cim_server.testing.services import ServiceTests
from tests.cim_server.conftest import City
from tiling.coords import TileCoord
from tiling.geoid import parse_vertical
from tiling.schemes import SCHEMES, WEB_MERCATOR_QUAD

GRIDS = ("WebMercatorQuad", "CGCS2000Quad")
LON, LAT = 113.37, 31.73


def cell(grid: str, zoom: int, lon: float = LON, lat: float = LAT) -> TileCoord:
    x, y = SCHEMES[grid].tile_of([lon], [lat], zoom)
    return TileCoord(zoom, int(x[0]), int(y[0]))


def tile_path(product: str, grid: str, zoom: int, ending: str = ".png") -> str:
    level, x, y = cell(grid, zoom)
    return f"/terrain/dem/{product}/tiles/{grid}/{level}/{x}/{y}{ending}"


def pixels(answer: httpx.Response) -> Any:
    assert answer.status_code == 200, answer.text
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # a PNG has no place of its own
        with rasterio.MemoryFile(answer.content) as file, file.open() as dataset:
            return dataset.read()


def dem_height(lat: np.ndarray) -> np.ndarray:
    """Heights of the conftest's DEM: they fall to the north, row by row."""
    row = np.clip((31.8 - lat) / 0.2 * 512 - 0.5, 0, 511)
    return row / 511 * 500


class TestTerrain(ServiceTests):
    found = {
        "/terrain/dem": "application/json",
        "/terrain/dem?version=1": "application/json",
        tile_path("hillshade", "WebMercatorQuad", 12): "image/png",
        tile_path("hillshade", "CGCS2000Quad", 11, ".webp"): "image/webp",
        tile_path("slope", "WebMercatorQuad", 12, "@2x.png"): "image/png",
        tile_path("terrainrgb", "WebMercatorQuad", 12): "image/png",
        tile_path("terrarium", "CGCS2000Quad", 12): "image/png",
        tile_path("contours", "WebMercatorQuad", 12, ".mvt"): (
            "application/vnd.mapbox-vector-tile"
        ),
        "/terrain/dem/terrainrgb/WebMercatorQuad/tilejson.json": "application/json",
        "/terrain/dem/contours/WebMercatorQuad/tilejson.json": "application/json",
    }
    missing = (
        "/terrain/none",
        "/terrain/image",
        "/terrain/dem?version=7",
        "/terrain/dem/hillshade/tiles/WebMercatorQuad/12/0/0.png",
        "/terrain/dem/contours/tiles/WebMercatorQuad/12/0/0.mvt",
        "/terrain/dem/hillshade/tiles/WebMercatorQuad/2/4/0.png",
        "/terrain/dem/hillshade/tiles/Nowhere/2/0/0.png",
        "/terrain/dem/aspect/tiles/WebMercatorQuad/12/3337/1660.png",
        "/terrain/dem/contours/CGCS2000Quad/tilejson.json",
        tile_path("hillshade", "WebMercatorQuad", 12, ".tif"),
    )


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("scale", [1, 2])
def test_coded_heights_are_those_of_the_dem(client: httpx.Client, grid: str, scale: int) -> None:
    zoom, size = 12, 256 * scale
    ending = ".png" if scale == 1 else "@2x.png"
    at = np.arange(size) + 0.5
    lon, lat = SCHEMES[grid].from_tile(at, at, cell(grid, zoom), extent=size)
    inside = (lon > 113.32) & (lon < 113.5)
    expected = np.where((lat > 31.6) & (lat < 31.8), dem_height(lat), 0)[:, None]
    rgb = pixels(client.get(tile_path("terrainrgb", grid, zoom, ending))).astype(np.float64)
    assert rgb.shape == (3, size, size)
    mapbox = -10000 + (rgb[0] * 65536 + rgb[1] * 256 + rgb[2]) * 0.1
    clear = (np.abs(lat - 31.6) > 1e-3) & (np.abs(lat - 31.8) > 1e-3)
    assert np.abs(mapbox - expected)[np.ix_(clear, inside)].max() < 0.1
    rgb = pixels(client.get(tile_path("terrarium", grid, zoom, ending))).astype(np.float64)
    mapzen = rgb[0] * 256 + rgb[1] + rgb[2] / 256 - 32768
    assert np.abs(mapzen - expected)[np.ix_(clear, inside)].max() < 0.02


def test_hillshade_looks_from_where_it_is_told_and_voids_are_transparent(
    client: httpx.Client,
) -> None:
    # The DEM rises to the south: a face that looks north.
    path = tile_path("hillshade", "WebMercatorQuad", 12)
    north = pixels(client.get(path + "?azimuth=0"))
    south = pixels(client.get(path + "?azimuth=180"))
    assert north[0, 128, 128] > south[0, 128, 128] > 0
    steep = pixels(client.get(path + "?azimuth=180&exaggeration=50"))
    assert steep[0, 128, 128] < south[0, 128, 128]
    corner = cell("WebMercatorQuad", 13, 113.301, 31.799)
    hole = pixels(
        client.get(f"/terrain/dem/hillshade/tiles/WebMercatorQuad/13/{corner.x}/{corner.y}.png")
    )
    assert hole.shape[0] == 2 and hole[1].min() == 0


def test_slope_has_the_colour_of_its_degrees(client: httpx.Client) -> None:
    # 500 m over 0.2 degrees of latitude.
    path = tile_path("slope", "CGCS2000Quad", 13)
    slope = np.degrees(np.arctan(500 / 511 * 512 / (0.2 * 110_870)))
    grey = pixels(client.get(f"{path}?rescale=0,5&colormap_name=gray"))
    assert grey.shape[0] == 3
    assert abs(int(grey[0, 100, 100]) - slope / 5 * 255) < 2


def test_contours_lie_on_their_heights(client: httpx.Client) -> None:
    tile = cell("WebMercatorQuad", 12)
    answer = client.get(tile_path("contours", "WebMercatorQuad", 12, ".mvt"))
    assert answer.headers["content-encoding"] == "gzip"
    layer = mapbox_vector_tile.decode(answer.content, default_options={"y_coord_down": True})
    features = layer["contours"]["features"]
    assert {f["properties"]["height"] for f in features} == {50, 100, 150}
    for feature in features:
        xy = shapely.get_coordinates(shapely.geometry.shape(feature["geometry"]))
        lat = WEB_MERCATOR_QUAD.from_tile(xy[:, 0], xy[:, 1], tile)[1]
        assert np.abs(dem_height(lat) - feature["properties"]["height"]).max() < 0.1
        assert feature["properties"]["index"] == (feature["properties"]["height"] % 250 == 0)
    path = tile_path("contours", "WebMercatorQuad", 12, ".mvt")
    plain = client.get(path, headers={"Accept-Encoding": "identity"})
    assert plain.content == answer.content and "content-encoding" not in plain.headers
    finer = client.get(path + "?interval=2.5")
    count = len(mapbox_vector_tile.decode(finer.content)["contours"]["features"])
    assert count > 5 * len(features)


def test_tilejson_is_what_maplibre_reads_and_leads_to_tiles(client: httpx.Client) -> None:
    for grid in GRIDS:
        address = f"/terrain/dem/terrainrgb/{grid}/tilejson.json?tilesize=512&version=1"
        document = client.get(address).json()
        assert (document["encoding"], document["tileSize"]) == ("mapbox", 512)
        assert document["cim:vertical"]["code"] == "EPSG:5737"
        zoom = document["maxzoom"]
        pixel = 360 / SCHEMES[grid].size(zoom)[0] / 512
        assert pixel <= 0.2 / 512 < 2 * pixel
        url = document["tiles"][0]
        assert url.endswith("@2x.png?version=1")
        tile = cell(grid, zoom)
        image = client.get(url.format(z=zoom, x=tile.x, y=tile.y))
        assert pixels(image).shape == (3, 512, 512)
        assert "immutable" in image.headers["cache-control"]
    document = client.get("/terrain/dem/contours/WebMercatorQuad/tilejson.json?interval=5").json()
    assert document["tiles"][0].endswith(".mvt?interval=5")
    assert document["vector_layers"][0]["fields"] == {"height": "Number", "index": "Boolean"}


def test_every_link_of_the_description_is_answered(client: httpx.Client) -> None:
    proxied = {"X-Forwarded-Host": "cim.example.cn", "X-Forwarded-Prefix": "/base"}
    document = client.get("/terrain/dem", headers=proxied).json()
    assert document["vertical"]["code"] == "EPSG:5737" and document["version"] == 1
    assert all(link["href"].startswith("http://cim.example.cn/base/") for link in document["links"])
    for link in client.get("/terrain/dem").json()["links"]:
        href = link["href"].replace("{lon}", "113.4").replace("{lat}", "31.7")
        href += "?line=113.4,31.7;113.41,31.7" if link["rel"] == "profile" else ""
        assert client.get(href).status_code == 200, link


@pytest.mark.parametrize(
    "path",
    [
        tile_path("terrainrgb", "WebMercatorQuad", 12, ".webp"),
        tile_path("hillshade", "WebMercatorQuad", 12) + "?azimuth=400",
        tile_path("hillshade", "WebMercatorQuad", 12) + "?exaggeration=nan",
        tile_path("slope", "WebMercatorQuad", 12) + "?rescale=5",
        tile_path("slope", "WebMercatorQuad", 12) + "?rescale=5,1",
        tile_path("slope", "WebMercatorQuad", 12) + "?colormap_name=none",
        tile_path("slope", "WebMercatorQuad", 12) + "?colormap_name=nlcd",
        tile_path("contours", "WebMercatorQuad", 12, ".mvt") + "?interval=0",
        "/terrain/dem/hillshade/tiles/WebMercatorQuad/25/0/0.png",
        "/terrain/dem/hillshade/tiles/WebMercatorQuad/1/-1/0.png",
        "/terrain/dem/hillshade/WebMercatorQuad/tilejson.json?tilesize=300",
    ],
)
def test_what_makes_no_sense_is_a_problem_that_says_so(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 400, (answer.status_code, answer.text)
    assert answer.headers["content-type"] == "application/problem+json"
    assert len(answer.json()["detail"]) > 10 and "/stores/" not in answer.text


def test_the_same_raster_under_another_datum_is_another_answer(
    own_city: City, serve: Callable[[Settings], AbstractContextManager[httpx.Client]]
) -> None:
    heights = np.full((1, 64, 64), 50, np.float32)
    dem = own_city.cog("dem", heights, "EPSG:4490")

    def publish(datum: str) -> None:
        facts = {"vertical": parse_vertical(datum).to_json(), "resolution_deg": 0.2 / 64}
        own_city.publish("dem", "terrain", dem, info=facts)

    publish("EPSG:5737")
    paths = ("/terrain/dem/point/113.4,31.7", tile_path("terrarium", "WebMercatorQuad", 11))
    with serve(own_city.settings()) as client:
        first = [client.get(path) for path in paths]
        publish("ellipsoidal")
        deadline = time.monotonic() + 20
        while client.get("/terrain/dem").json()["version"] == 1:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        for path, old in zip(paths, first, strict=True):
            new = client.get(path, headers={"If-None-Match": old.headers["etag"]})
            assert new.status_code == 200, path
        point = client.get(paths[0]).json()
        assert point["ellipsoidal_m"] == 50 and first[0].json()["orthometric_m"] == 50
        assert point["datums"]["orthometric"]["code"] == "EPSG:5773"
