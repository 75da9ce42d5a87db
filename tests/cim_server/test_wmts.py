"""WMTS as GDAL reads it: every raster a layer, both grids, by address and by key-value."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any
from urllib.parse import quote, urlencode

import httpx
import numpy as np
import pytest
import rasterio

from cim_server.services.raster_tiles import GRIDS
from cim_server.testing.services import ServiceTests
from tiling.bounds import Region

NAMES = {"w": "http://www.opengis.net/wmts/1.0", "o": "http://www.opengis.net/ows/1.1"}
AREA = Region(113.3, 31.6, 113.5, 31.8)
TILE = {
    "SERVICE": "WMTS",
    "REQUEST": "GetTile",
    "VERSION": "1.0.0",
    "LAYER": "image",
    "STYLE": "default",
    "FORMAT": "image/png",
    "TILEMATRIXSET": "CGCS2000Quad",
    "TILEMATRIX": "9",
}


def cell(grid: str, level: int) -> dict[str, str]:
    tile = next(GRIDS[grid].tiles_in(AREA, level))
    return {"TILEMATRIX": str(level), "TILECOL": str(tile.x), "TILEROW": str(tile.y)}


def kvp(**changed: str | None) -> str:
    keys = {**TILE, **cell("CGCS2000Quad", 12), **changed}
    return "/wmts?" + urlencode({k: v for k, v in keys.items() if v is not None})


class TestWmts(ServiceTests):
    found = {
        "/wmts?SERVICE=WMTS&REQUEST=GetCapabilities": "application/xml",
        "/wmts/1.0.0/WMTSCapabilities.xml": "application/xml",
        kvp(): "image/png",
    }
    missing = ("/wmts/2.0.0/WMTSCapabilities.xml",)


def places(dataset: Any, grid: str, lon: float, lat: float) -> tuple[float, float]:
    if grid == "CGCS2000Quad":
        return lon, lat
    radius = 6378137.0
    return radius * np.radians(lon), radius * np.arctanh(np.sin(np.radians(lat)))


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("address", ["/wmts?", "/wmts/1.0.0/WMTSCapabilities.xml"])
def test_gdal_finds_georeference_and_pixels(client: httpx.Client, grid: str, address: str) -> None:
    url = f"{client.base_url}{address}"
    if address.endswith("?"):
        url += "SERVICE=WMTS&REQUEST=GetCapabilities"
    with rasterio.open(f"WMTS:{url},layer=image,tilematrixset={grid}") as dataset:
        assert dataset.crs.to_epsg() == {"CGCS2000Quad": 4490, "WebMercatorQuad": 3857}[grid]
        west, north = places(dataset, grid, AREA.west, AREA.north)
        east, south = places(dataset, grid, AREA.east, AREA.south)
        pixel = dataset.res[0]
        # The extent is that of the image, to a pixel: axes are not exchanged, nor scales Chinese.
        assert dataset.bounds.left == pytest.approx(west, abs=2 * pixel)
        assert dataset.bounds.top == pytest.approx(north, abs=2 * pixel)
        assert dataset.bounds.right == pytest.approx(east, abs=2 * pixel)
        assert dataset.bounds.bottom == pytest.approx(south, abs=2 * pixel)
        assert pixel == pytest.approx((east - west) / 512, rel=1.0)
        for lon, lat, red, green in (
            (113.35, 31.75, 200, 100),
            (113.45, 31.75, 0, 100),
            (113.35, 31.65, 200, 0),
            (113.45, 31.65, 0, 0),
        ):
            values = next(dataset.sample([places(dataset, grid, lon, lat)]))
            assert values[:3].tolist() == [red, green, 0], (lon, lat)


def test_every_raster_is_a_layer_with_its_title_and_reach(client: httpx.Client) -> None:
    root = ET.fromstring(client.get("/wmts/1.0.0/WMTSCapabilities.xml").content)
    layers = {
        layer.findtext("o:Identifier", "", NAMES): layer
        for layer in root.findall("w:Contents/w:Layer", NAMES)
    }
    assert set(layers) == {"dem", "image", "image-16bit"}
    assert layers["image"].findtext("o:Title", "", NAMES) == "随州 image"
    for name, scheme in GRIDS.items():
        links = layers["image"].findall("w:TileMatrixSetLink", NAMES)
        link = next(k for k in links if k.findtext("w:TileMatrixSet", "", NAMES) == name)
        rows = link.findall("w:TileMatrixSetLimits/w:TileMatrixLimits", NAMES)
        for row in (rows[0], rows[-1]):
            level = int(row.findtext("w:TileMatrix", "", NAMES))
            reach = scheme.tile_range(AREA, level)
            said = [
                int(row.findtext(f"w:{tag}", "", NAMES))
                for tag in ("MinTileCol", "MinTileRow", "MaxTileCol", "MaxTileRow")
            ]
            assert said == pytest.approx([*reach[1:]], abs=1), level


def test_both_ways_give_the_same_tile(client: httpx.Client) -> None:
    numbers = cell("CGCS2000Quad", 12)
    path = f"/raster/image/tiles/CGCS2000Quad/12/{numbers['TILECOL']}/{numbers['TILEROW']}.png"
    assert client.get(kvp()).content == client.get(path).content
    lower = kvp().replace("LAYER", "layer").replace("TILEROW", "TileRow")
    assert client.get(lower).status_code == 200, "names of parameters have no case"


@pytest.mark.parametrize(
    ("changed", "code", "locator", "status"),
    [
        ({"REQUEST": None}, "MissingParameterValue", "REQUEST", 400),
        ({"REQUEST": "GetFeatureInfo"}, "OperationNotSupported", "REQUEST", 501),
        ({"SERVICE": "WMS"}, "InvalidParameterValue", "SERVICE", 400),
        ({"LAYER": None}, "MissingParameterValue", "LAYER", 400),
        ({"LAYER": "none"}, "InvalidParameterValue", "LAYER", 400),
        ({"LAYER": "divisions"}, "InvalidParameterValue", "LAYER", 400),
        ({"LAYER": "../image"}, "InvalidParameterValue", "LAYER", 400),
        ({"LAYER": "/vsicurl/http://127.0.0.1/x"}, "InvalidParameterValue", "LAYER", 400),
        ({"FORMAT": "image/tiff"}, "InvalidParameterValue", "FORMAT", 400),
        ({"STYLE": "red"}, "InvalidParameterValue", "STYLE", 400),
        ({"TILEMATRIXSET": "EPSG:3857"}, "InvalidParameterValue", "TILEMATRIXSET", 400),
        ({"TILEMATRIX": "99"}, "InvalidParameterValue", "TILEMATRIX", 400),
        ({"TILEMATRIX": "-1"}, "InvalidParameterValue", "TILEMATRIX", 400),
        ({"TILEROW": "999999999"}, "TileOutOfRange", "TILECOL", 400),
        ({"TILEROW": "0"}, "TileOutOfRange", "TILECOL", 400),
        ({"TILEROW": "²"}, "InvalidParameterValue", "TILEROW", 400),
    ],
    ids=str,
)
def test_errors_are_ogc_exceptions(
    client: httpx.Client, changed: dict[str, str | None], code: str, locator: str, status: int
) -> None:
    answer = client.get(kvp(**changed))
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/xml"
    (found,) = ET.fromstring(answer.content)
    assert (found.attrib["exceptionCode"], found.attrib["locator"]) == (code, locator)
    assert found.findtext("o:ExceptionText", "", NAMES)
    assert "/stores/" not in answer.text


def test_a_title_that_is_markup_stays_text(own_city: Any, serve: Any) -> None:
    ref = own_city.cog("x", np.full((3, 64, 64), 9, np.uint8), "EPSG:4490")
    own_city.publish("影像1", "imagery", ref, title='<影像> & "正射"')
    with serve(own_city.settings()) as client:
        for path in (
            "/wmts?REQUEST=GetCapabilities",
            f"/raster/{quote('影像1')}/WMTSCapabilities.xml",
        ):
            root = ET.fromstring(client.get(path).content)
            titles = [e.text for e in root.findall(".//w:Layer/o:Title", NAMES)]
            assert '<影像> & "正射"' in titles
