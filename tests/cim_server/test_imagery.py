"""Dynamic rasters: pixels in the right place, bound to the catalogue, bounded work."""

from __future__ import annotations

import hashlib
import io
import json
import warnings
import xml.etree.ElementTree as ET
from dataclasses import replace
from typing import Any
from urllib.parse import quote, urlencode

import httpx
import morecantile
import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning

from catalog.records import StoreRef
from cim_server.services.rasters import gdal_name
from cim_server.testing.services import ServiceTests
from tiling.mosaics import MosaicSheet, SheetIndex
from tiling.schemes import cgcs2000_quad
from tiling.tilers.image_place import wgs84_twin

GRIDS = {"WebMercatorQuad": morecantile.tms.get("WebMercatorQuad"), "CGCS2000Quad": cgcs2000_quad()}
LON, LAT = 113.37, 31.73


def tile_path(asset: str, grid: str, zoom: int, lon: float = LON, lat: float = LAT) -> str:
    tile = GRIDS[grid].tile(lon, lat, zoom)
    return f"/raster/{asset}/tiles/{grid}/{zoom}/{tile.x}/{tile.y}"


def pixels(answer: httpx.Response) -> Any:
    assert answer.status_code == 200, answer.text
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # a PNG has no place of its own
        with rasterio.MemoryFile(answer.content) as file, file.open() as dataset:
            return dataset.read()


class TestRaster(ServiceTests):
    found = {
        tile_path("image", "WebMercatorQuad", 12) + ".png": "image/png",
        tile_path("image", "CGCS2000Quad", 12) + ".jpeg": "image/jpeg",
        "/raster/image/WebMercatorQuad/tilejson.json": "application/json",
        "/raster/image/WMTSCapabilities.xml": "application/xml",
        "/raster/image/info": "application/json",
        "/raster/dem/preview.png": "image/png",
        "/raster/dem/statistics": "application/json",
        f"/raster/dem/point/{LON},{LAT}": "application/json",
        "/raster/dem/info?version=1": "application/json",
    }
    missing = (
        "/raster/none/info",
        "/raster/divisions/info",
        "/raster/image/info?version=7",
        "/raster/image/nothing",
        "/raster/image/tiles/WebMercatorQuad/12/0/0.png",
        "/raster/image/point/10,10",
    )


@pytest.mark.parametrize("grid", GRIDS)
def test_a_pixel_lies_where_the_source_has_it(client: httpx.Client, grid: str) -> None:
    # The image is red in its western half and green in its northern half, in EPSG:4490.
    tms = GRIDS[grid]
    for lon, lat, red, green in (
        (113.35, 31.75, 200, 100),
        (113.45, 31.75, 0, 100),
        (113.35, 31.65, 200, 0),
        (113.45, 31.65, 0, 0),
    ):
        zoom = 13
        image = pixels(client.get(tile_path("image", grid, zoom, lon, lat) + ".png"))
        tile = tms.tile(lon, lat, zoom)
        box = tms.xy_bounds(tile)
        x, y = (lon, lat) if grid == "CGCS2000Quad" else tms.xy(lon, lat)
        column = int((x - box.left) / (box.right - box.left) * 256)
        row = int((box.top - y) / (box.top - box.bottom) * 256)
        assert image[:, row, column].tolist()[:3] == [red, green, 0], (lon, lat)
        assert len(image) == 3 or image[3, row, column] == 255


@pytest.mark.parametrize("grid", GRIDS)
def test_far_out_the_image_is_small_in_its_place_and_of_its_colour(
    client: httpx.Client, grid: str
) -> None:
    document = client.get(f"/raster/image/{grid}/tilejson.json").json()
    assert document["minzoom"] == 0
    whole = pixels(client.get("/raster/image/preview.png"))
    share = []
    for zoom in (7, 6):  # the whole image lies in one tile of each grid
        image = pixels(client.get(tile_path("image", grid, zoom) + ".png"))
        shown = image[3] > 128
        share.append(shown.mean())
        for band in range(3):
            expected = whole[band, whole[3] > 128].mean()
            assert image[band, shown].mean() == pytest.approx(expected, abs=8)
    assert share[1] == pytest.approx(share[0] / 4, rel=0.3)
    assert pixels(client.get(tile_path("image", grid, 0) + ".png")).shape[1:] == (256, 256)


def test_twice_the_pixels_for_dense_screens(client: httpx.Client) -> None:
    path = tile_path("image", "WebMercatorQuad", 12)
    assert pixels(client.get(path + ".png")).shape[1:] == (256, 256)
    assert pixels(client.get(path + "@2x.png")).shape[1:] == (512, 512)
    assert pixels(client.get(path + "@2x")).shape[1:] == (512, 512)


def test_deep_images_use_their_stored_range(client: httpx.Client) -> None:
    grey = pixels(client.get("/raster/image-16bit/preview.png?max_size=512"))
    assert grey.dtype == np.uint8
    assert grey[0].min() == 0 and grey[0].max() == 255
    chosen = pixels(client.get("/raster/image-16bit/preview.png?rescale=0,60000"))
    assert chosen[0].max() < 40


def test_a_dem_is_shown_over_its_own_range_and_gives_heights(client: httpx.Client) -> None:
    shown = pixels(client.get("/raster/dem/preview.png"))
    assert shown.dtype == np.uint8 and shown[0].max() == 255
    assert shown[-1].min() == 0, "nodata is transparent"
    point = client.get(f"/raster/dem/point/{LON},{LAT}").json()
    row = (31.8 - LAT) / 0.2 * 512
    assert point["values"][0] == pytest.approx(row / 511 * 500, abs=1.0)


def test_algorithms_and_expressions_keep_their_own_range(client: httpx.Client) -> None:
    coded = pixels(client.get("/raster/dem/preview.png?algorithm=terrainrgb")).astype(int)
    height_m = -10000 + (coded[0] * 65536 + coded[1] * 256 + coded[2]) * 0.1
    assert height_m[-1, -1] == pytest.approx(500, abs=1)
    doubled = client.get("/raster/image/preview.png?expression=b1%2B0&rescale=0,200")
    assert pixels(doubled)[0].max() == 255


def test_info_names_the_crs_of_the_file(client: httpx.Client) -> None:
    assert client.get("/raster/image/info").json()["crs"].endswith("/EPSG/0/4490")


def test_tilejson_leads_to_tiles(client: httpx.Client) -> None:
    for grid in GRIDS:
        document = client.get(f"/raster/image/{grid}/tilejson.json").json()
        assert document["bounds"] == pytest.approx([113.3, 31.6, 113.5, 31.8], abs=1e-6)
        zoom = document["minzoom"]
        tile = GRIDS[grid].tile(LON, LAT, zoom)
        url = document["tiles"][0].format(z=zoom, x=tile.x, y=tile.y)
        assert client.get(url).status_code == 200


@pytest.mark.parametrize(
    "query",
    [
        {"url": "/etc/passwd"},
        {"url": "http://169.254.169.254/latest"},
        {"dst_crs": "/etc/passwd"},
        {"dst_crs": "http://127.0.0.1:1/x.prj"},
        {"dst_crs": "+proj=merc"},
        {"max_size": "1000000"},
        {"width": "100000", "height": "100000"},
        {"width": "-1"},
        {"algorithm": "contours"},
        {"expression": "b1" + "*b1" * 200},
        {"expression": "__import__('os')"},
        {"expression": "b9"},
        {"expression": "b1A"},
        {"bidx": "9"},
        {"rescale": "1"},
        {"colormap_name": "none"},
        {"colormap": "{"},
        {"nodata": "x"},
    ],
    ids=str,
)
def test_a_parameter_that_asks_too_much_is_refused(
    client: httpx.Client, query: dict[str, str]
) -> None:
    answer = client.get(f"/raster/image/preview.png?{urlencode(query)}")
    assert answer.status_code == 400, (answer.status_code, answer.text[:200])
    assert answer.headers["content-type"] == "application/problem+json"
    assert "/stores/" not in answer.text


@pytest.mark.parametrize("path", ["/statistics?histogram_bins=100000000", "/info.geojson?crs=/etc"])
def test_expensive_or_file_parameters_are_refused_elsewhere_too(
    client: httpx.Client, path: str
) -> None:
    assert client.get(f"/raster/image{path}").status_code == 400


def test_no_endpoint_takes_a_url(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    rasters = {p: o for p, o in paths.items() if p.startswith("/raster")}
    assert len(rasters) >= 8
    for path, operations in rasters.items():
        assert path.startswith("/raster/{asset}/")
        for operation in operations.values():
            assert "url" not in {p["name"] for p in operation.get("parameters", [])}, path


WMTS = {"w": "http://www.opengis.net/wmts/1.0", "o": "http://www.opengis.net/ows/1.1"}


def test_wmts_states_origins_in_axis_order_and_ogc_scales(client: httpx.Client) -> None:
    root = ET.fromstring(client.get("/raster/image/WMTSCapabilities.xml").content)
    assert root.findtext(".//w:Layer/o:Identifier", namespaces=WMTS) == "image"
    sets = {
        s.findtext("o:Identifier", namespaces=WMTS): s
        for s in root.findall("w:Contents/w:TileMatrixSet", WMTS)
    }
    assert set(sets) == set(GRIDS)
    first = sets["CGCS2000Quad"].find("w:TileMatrix", WMTS)
    assert first is not None
    assert first.findtext("w:TopLeftCorner", namespaces=WMTS) == "90.0 -180.0"
    scale = float(first.findtext("w:ScaleDenominator", "", WMTS))
    assert scale == pytest.approx(279541132.0143589, rel=1e-9)
    crs = sets["CGCS2000Quad"].findtext("o:SupportedCRS", namespaces=WMTS)
    assert crs == "urn:ogc:def:crs:EPSG::4490"
    template = root.find(".//w:ResourceURL[@format='image/png']", WMTS)
    assert template is not None
    url = template.attrib["template"]
    tile = GRIDS["CGCS2000Quad"].tile(LON, LAT, 12)
    for name, value in (
        ("TileMatrixSet", "CGCS2000Quad"),
        ("TileMatrix", 12),
        ("TileCol", tile.x),
        ("TileRow", tile.y),
    ):
        url = url.replace("{" + name + "}", str(value))
    assert client.get(url).status_code == 200


@pytest.mark.parametrize("grid", GRIDS)
def test_gdal_reads_the_wmts_and_finds_the_pixels(client: httpx.Client, grid: str) -> None:
    url = f"{client.base_url}/raster/image/WMTSCapabilities.xml"
    with rasterio.open(f"WMTS:{url},layer=image,tilematrixset={grid}") as dataset:
        # GDAL answers in the order that PROJ thinks in, longitude first.
        x, y = GRIDS[grid].xy(113.35, 31.75) if grid == "WebMercatorQuad" else (113.35, 31.75)
        values = next(dataset.sample([(x, y)]))
    assert abs(int(values[0]) - 200) < 8 and abs(int(values[1]) - 100) < 8


def test_a_known_image_is_not_rendered_again(client: httpx.Client) -> None:
    path = tile_path("image", "WebMercatorQuad", 12) + ".png"
    etag = client.get(path).headers["etag"]
    again = client.get(path, headers={"If-None-Match": etag})
    assert again.status_code == 304
    other = client.get(path + "?bidx=2", headers={"If-None-Match": etag})
    assert other.status_code == 200
    assert client.get(path + "?version=1").headers["cache-control"].endswith("immutable")


@given(st.sampled_from([4547, 4526, 4546, 4490, 4508]), st.floats(-1, 1), st.floats(25, 40))
@settings(max_examples=30, deadline=None)
def test_the_wgs84_twin_of_a_cgcs2000_frame_is_equal_to_the_millimetre(
    code: int, off_deg: float, lat: float
) -> None:
    from rasterio.warp import transform

    twin = wgs84_twin(CRS.from_epsg(code))
    assert twin is not None
    meridian = {4547: 114, 4526: 114, 4546: 111, 4508: 111}.get(code, 114)
    lon = meridian + off_deg
    (x,), (y,) = transform("EPSG:4490", CRS.from_epsg(code), [lon], [lat])
    (x2,), (y2,) = transform("EPSG:4326", CRS.from_user_input(twin), [lon], [lat])
    tolerance = 1e-3 if code != 4490 else 1e-9
    assert abs(x - x2) < tolerance and abs(y - y2) < tolerance


def test_other_frames_have_no_twin() -> None:
    for code in (4326, 3857, 32649, 4610, 4214):
        assert wgs84_twin(CRS.from_epsg(code)) is None
    assert wgs84_twin(None) is None


def test_a_path_that_the_vrt_syntax_cannot_hold_is_opened_as_it_is(tmp_path: Any) -> None:
    folder = tmp_path / "a?b&c 随州"
    folder.mkdir()
    path = folder / "x.tif"
    profile = {"driver": "GTiff", "width": 1, "height": 1, "count": 1, "dtype": "uint8"}
    transform = rasterio.Affine(1, 0, 113, 0, -1, 32)
    with rasterio.open(path, "w", crs="EPSG:4490", transform=transform, **profile) as dataset:
        dataset.write(np.ones((1, 1, 1), np.uint8))
    with rasterio.open(gdal_name(str(path))) as dataset:
        assert dataset.read()[0, 0, 0] == 1


def test_statistics_are_json(client: httpx.Client) -> None:
    body = json.load(io.BytesIO(client.get("/raster/dem/statistics").content))
    assert body["b1"]["max"] == pytest.approx(500, abs=1)


def test_without_an_ending_the_client_says_what_it_takes(client: httpx.Client) -> None:
    path = tile_path("image", "WebMercatorQuad", 13)
    for accept, media_type in (
        ("image/avif,image/webp,*/*", "image/webp"),
        ("image/png", "image/png"),
        ("*/*", "image/jpeg"),
    ):
        answer = client.get(path, headers={"Accept": accept})
        assert answer.headers["content-type"] == media_type
        assert "Accept" in answer.headers["vary"]


def test_a_tile_is_rendered_once(client: httpx.Client) -> None:
    def counts() -> dict[str, float]:
        lines = client.get("/metrics").text.splitlines()
        named = (line.partition("{")[0::2] for line in lines if line.startswith("cim_computed"))
        return {name: float(rest.split()[-1]) for name, rest in named}

    path = tile_path("image", "WebMercatorQuad", 14) + ".webp?rescale=0,123"
    before = counts()
    first, second = client.get(path), client.get(path)
    after = counts()
    assert first.content == second.content
    assert after["cim_computed_misses_total"] == before["cim_computed_misses_total"] + 1
    assert after["cim_computed_hits_total"] == before["cim_computed_hits_total"] + 1


@pytest.mark.parametrize(
    "asset",
    [
        "..%2F..%2Fetc%2Fpasswd",
        "%2Fvsicurl%2Fhttp%3A%2F%2F127.0.0.1%3A1%2Fx.tif",
        "http%3A%2F%2F127.0.0.1%3A1%2Fx.tif",
        "image%00",
        "image.tif",
        "stores%2Fimage.tif",
        "vrt:%2F%2Fx",
        "WMTS:http%3A%2F%2F127.0.0.1",
        "%3CVRTDataset%3E",
    ],
)
def test_an_id_that_looks_like_a_file_is_only_an_unknown_id(
    client: httpx.Client, asset: str
) -> None:
    for path in ("tiles/WebMercatorQuad/12/3337/1667.png", "info", "WMTSCapabilities.xml"):
        answer = client.get(f"/raster/{asset}/{path}")
        assert answer.status_code == 404, (path, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("url=/etc/passwd", 400),
        ("style=none", 400),
        ("expression=9**9**9**9*b1", 400),
        ("bidx=9", 400),
        ("bidx=1,2", 400),
        ("rescale=1", 400),
        ("version=x", 400),
        ("version=7", 404),
        ("tilesize=300", 400),
    ],
)
def test_a_tile_that_asks_too_much_is_refused(
    client: httpx.Client, query: str, status: int
) -> None:
    answer = client.get(f"{tile_path('image', 'WebMercatorQuad', 13)}.png?{query}")
    assert answer.status_code == status, answer.text
    assert "/stores/" not in answer.text


def test_sheets_of_a_mosaic_lie_in_order_and_far_out_the_overview_shows(
    own_city: Any, serve: Any
) -> None:
    colours = (40, 90, 160)
    refs = [
        own_city.cog(f"sheet-{c}", np.full((3, 512, 512), c, np.uint8), "EPSG:4490")
        for c in colours[:2]
    ]
    overview = own_city.cog("whole", np.full((3, 64, 64), colours[2], np.uint8), "EPSG:4490")
    west, east = 113.3, 113.5
    # The first sheet is said to cover the western half alone.
    sheets = [
        MosaicSheet(
            name=f"{i}.tif", store=ref.sha256, source="s", recipe="r", crs="EPSG:4490", width=512,
            height=512, resolution_m=40.0, date=None,
            outline=np.array([(x, y) for x, y in (
                (west, 31.6), (right, 31.6), (right, 31.8), (west, 31.8), (west, 31.6))]),
        )
        for i, (ref, right) in enumerate(zip(refs, (113.4, east), strict=True))
    ]  # fmt: skip
    path = own_city.data / "stores" / "sheets.parquet"
    SheetIndex(sheets).write(path)
    sha = hashlib.sha256(path.read_bytes()).hexdigest()
    index = StoreRef(
        "sheets", "geoparquet", "stores/sheets.parquet", sha, path.stat().st_size,
        "application/vnd.apache.parquet",
    )  # fmt: skip
    whole = replace(overview, role="overview")
    facts = {"mosaic": {"index": "sheets", "overview": "overview", "overview_resolution_m": 320.0}}
    facts["mosaic"]["sheets"] = 2
    own_city.publish("镶嵌", "imagery", *refs, index, whole, info=facts)
    with serve(own_city.settings()) as client:
        asset = quote("镶嵌")

        def colour(lon: float, zoom: int) -> int:
            path = tile_path(asset, "CGCS2000Quad", zoom, lon) + ".png"
            return int(np.median(pixels(client.get(path))[0]))

        assert colour(113.32, 14) == colours[0]
        assert colour(113.48, 14) == colours[1]
        far = pixels(client.get(tile_path(asset, "CGCS2000Quad", 7) + ".png"))
        assert set(np.unique(far[0, far[3] > 0])) == {colours[2]}
        assert client.get(f"/raster/{asset}/preview.png").status_code == 200


def test_tilejson_and_wmts_agree_on_the_finest_level(client: httpx.Client) -> None:
    names = {"w": "http://www.opengis.net/wmts/1.0", "o": "http://www.opengis.net/ows/1.1"}
    document = ET.fromstring(client.get("/raster/image/WMTSCapabilities.xml").content)
    for link in document.iterfind(".//w:TileMatrixSetLink", names):
        grid = link.findtext("w:TileMatrixSet", "", names)
        level = max(int(e.text or "") for e in link.iterfind(".//w:TileMatrix", names))
        said = client.get(f"/raster/image/{grid}/tilejson.json").json()
        assert said["maxzoom"] == level
        tile = GRIDS[grid].tile(LON, LAT, level)
        url = said["tiles"][0].format(z=level, x=tile.x, y=tile.y)
        assert client.get(url).status_code == 200


def ring(*corners: tuple[float, float]) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": [[*corners, corners[0]]]}


def test_a_polygon_is_cut_out(client: httpx.Client) -> None:
    triangle = ring((113.35, 31.65), (113.45, 31.65), (113.35, 31.75))
    for body in (triangle, {"type": "Feature", "properties": {}, "geometry": triangle}):
        answer = client.post("/raster/image/crop.png", json=body, params={"max_size": 200})
        image = pixels(answer)
        assert answer.headers["content-type"] == "image/png"
        assert image.shape == (4, 200, 200)
        assert (image[3] > 0).mean() == pytest.approx(0.5, abs=0.02)
        assert image[3, 150, 20] == 255 and image[3, 20, 150] == 0
        box = "/raster/image/bbox/113.35,31.65,113.45,31.75.png"
        whole = pixels(client.get(box, params={"max_size": 200}))
        np.testing.assert_array_equal(image[:3, 150, 20], whole[:3, 150, 20])
    assert client.post("/raster/dem/crop.webp", json=triangle).status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"type": "Point", "coordinates": [113.4, 31.7]}, 400, "'Point' cannot be cut out"),
        ({"type": "Feature", "geometry": None}, 400, "cannot be cut out"),
        (
            {"type": "Polygon", "coordinates": [["a"]]},
            400,
            "coordinates are not those of a Polygon",
        ),
        ({"type": "Polygon"}, 400, "coordinates are not those of a Polygon"),
        (ring((113.3, 31.6), (113.5, 31.8), (113.5, 31.6), (113.3, 31.8)), 400, "not valid"),
        (ring((500, 0), (501, 0), (501, 1)), 400, "not degrees"),
        (ring((10, 10), (11, 10), (11, 11)), 404, "beside the raster"),
        (ring(*((113.3 + i * 1e-6, 31.6) for i in range(10_001))), 400, "10002 vertices"),
    ],
)
def test_a_polygon_that_cannot_be_cut_is_refused(
    client: httpx.Client, body: Any, status: int, said: str
) -> None:
    answer = client.post("/raster/image/crop.png", json=body)
    assert answer.status_code == status
    assert said in answer.json()["detail"]
