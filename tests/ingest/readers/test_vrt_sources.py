"""A raster never leads GDAL to the network or out of its own folder."""

from __future__ import annotations

import http.server
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.shutil import copy
from rasterio.transform import from_origin

from ingest.readers.raster import RasterReader
from ingest.readers.sheets import open_raster
from tiling.errors import RasterUnsupported, SourceError, SourceUnreadable, UnknownFormat

VRT = """<VRTDataset rasterXSize="20" rasterYSize="20"{kind}><SRS>EPSG:4490</SRS>
<GeoTransform>113, 0.1, 0, 32, 0, -0.1</GeoTransform>
<VRTRasterBand dataType="Byte" band="1">{more}<SimpleSource>
<SourceFilename relativeToVRT="{relative}">{name}</SourceFilename><SourceBand>1</SourceBand>
</SimpleSource></VRTRasterBand></VRTDataset>"""


def write(path: Path) -> Path:
    with rasterio.open(
        path, "w", driver="GTiff", width=20, height=20, count=1, dtype="uint8",
        crs="EPSG:4490", transform=from_origin(113, 32, 0.1, 0.1),
    ) as sink:  # fmt: skip
        sink.write(np.full((1, 20, 20), 7, np.uint8))
    return path


def vrt(path: Path, name: str, relative: int = 1, kind: str = "", more: str = "") -> Path:
    path.write_text(VRT.format(name=name, relative=relative, kind=kind, more=more), "utf-8")
    return path


class Counter(http.server.BaseHTTPRequestHandler):
    asked = 0

    def do_GET(self) -> None:
        Counter.asked += 1
        self.send_error(404)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    Counter.asked = 0
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Counter)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_vrt_over_files_beside_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "图幅").mkdir()
    inner = write(tmp_path / "图幅" / "a.tif")
    copy(inner, tmp_path / "图幅" / "b.vrt", driver="VRT")
    for name, relative in [("图幅/a.tif", 1), (str(inner), 0), ("图幅/b.vrt", 1)]:
        with open_raster(str(vrt(tmp_path / "m.vrt", name, relative))) as dataset:
            assert (dataset.read() == 7).all()


@pytest.mark.parametrize(
    "name",
    [
        "/vsicurl/http://ADDRESS/a.tif",
        "http://ADDRESS/a.tif",
        "/vsis3/bucket/a.tif",
        "/vsizip/{/vsicurl/http://ADDRESS/a.zip}/a.tif",
        "&lt;GDAL_WMS&gt;&lt;ServerUrl&gt;http://ADDRESS&lt;/ServerUrl&gt;&lt;/GDAL_WMS&gt;",
        "WMTS:http://ADDRESS/",
    ],
)
@pytest.mark.parametrize("relative", [0, 1])
def test_a_vrt_never_reaches_the_network(
    tmp_path: Path, address: str, name: str, relative: int
) -> None:
    path = vrt(tmp_path / "m.vrt", name.replace("ADDRESS", address), relative)
    with pytest.raises(SourceError, match=r"m\.vrt"):
        RasterReader(path).info()
    assert Counter.asked == 0


def test_files_outside_the_folder_of_a_vrt_are_not_opened(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    outside = write(tmp_path / "secret.tif")
    (folder / "link.tif").symlink_to(outside)
    vrt(folder / "inner.vrt", "../secret.tif")
    names = [("../secret.tif", 1), (str(outside), 0), ("link.tif", 1), ("inner.vrt", 1)]
    names += [(str(folder / ".." / "secret.tif"), 0), ("secret.tif", 0)]
    for name, relative in names:
        with pytest.raises(RasterUnsupported, match="not a file in its own folder") as caught:
            open_raster(str(vrt(folder / "m.vrt", name, relative)))
        assert "relativeToVRT" in caught.value.remedy
    with pytest.raises(SourceUnreadable, match=r"'none\.tif', which is not there"):
        open_raster(str(vrt(folder / "m.vrt", "none.tif")))


def test_a_vrt_that_computes_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.tif")
    warped = vrt(tmp_path / "m.vrt", "a.tif", kind=' subClass="VRTWarpedDataset"')
    with pytest.raises(RasterUnsupported, match="VRTWarpedDataset"):
        open_raster(str(warped))
    code = "<PixelFunctionLanguage>Python</PixelFunctionLanguage>"
    with pytest.raises(RasterUnsupported, match="function of pixels"):
        open_raster(str(vrt(tmp_path / "m.vrt", "a.tif", more=code)))


def test_a_text_that_is_a_web_service_is_no_raster_whatever_its_name(
    tmp_path: Path, address: str
) -> None:
    text = f"<GDAL_WMS><Service name='TMS'><ServerUrl>http://{address}/</ServerUrl></Service>"
    text += "<DataWindow><SizeX>9</SizeX><SizeY>9</SizeY></DataWindow></GDAL_WMS>"
    (tmp_path / "a.tif").write_text(text)
    with pytest.raises(UnknownFormat):
        RasterReader(tmp_path).info()
    with pytest.raises(RasterUnsupported, match="no raster file"):
        open_raster(str(vrt(tmp_path / "m.vrt", "a.tif")))
    write(tmp_path / "a.tif")
    (tmp_path / "a.tif.ovr").write_text(text)
    with pytest.raises(RasterUnsupported, match=r"a\.tif\.ovr"):
        open_raster(str(tmp_path / "a.tif"))
    assert Counter.asked == 0


def test_overviews_that_metadata_place_elsewhere_are_refused(tmp_path: Path, address: str) -> None:
    path = write(tmp_path / "a.tif")
    for name in (f"/vsicurl/http://{address}/o.tif", "../o.tif"):
        with rasterio.open(path, "r+") as sink:
            sink.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=name)
        with pytest.raises(RasterUnsupported, match="outside its folder"):
            RasterReader(path).info()
    assert Counter.asked == 0


def test_a_vrt_in_an_archive_is_not_followed(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(vrt(tmp_path / "m.vrt", str(write(tmp_path / "a.tif")), 0), "m.vrt")
    with pytest.raises(UnknownFormat):
        RasterReader(tmp_path / "a.zip").info()
