"""Images and DEMs as COG: pixels, masks, bands and ranges survive; failures leave nothing."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio import Affine
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning
from rio_cogeo.cogeo import cog_validate

from ingest.readers.raster import RasterReader
from tiling.bounds import Region
from tiling.crs import SpatialRef, to_lonlat
from tiling.errors import (
    Cancelled,
    ConfigError,
    CrsMissing,
    NothingToTile,
    RasterUnsupported,
    SourceUnreadable,
)
from tiling.findings import Findings
from tiling.tilers.base import SilentProgress, TilesetInfo
from tiling.tilers.imagery import Compression, ImageryTiler

DATA = Path(__file__).parent.parent / "data"
R, G, B, A = ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha


def write(
    path: Path, bands: np.ndarray, crs: str | None = "EPSG:4547", interp: Any = None, **options: Any
) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(
            path,
            "w",
            driver="GTiff",
            width=bands.shape[2],
            height=bands.shape[1],
            count=len(bands),
            dtype=bands.dtype,
            crs=crs,
            transform=Affine(0.5, 0, 440000, 0, -0.5, 3508000),
            **options,
        ) as sink:
            if interp:
                sink.colorinterp = interp
            sink.write(bands)
    return path


def smooth(
    bands: int, rows: int, columns: int, dtype: Any = np.uint8, scale: int = 1
) -> np.ndarray:
    y, x = np.mgrid[0:rows, 0:columns]
    layers = [127 + 100 * np.sin(x / 90 + k) * np.cos(y / 70 - k) for k in range(bands)]
    return (np.array(layers) * scale).astype(dtype)


def make(path: str | Path, out: Path, **wish: Any) -> tuple[TilesetInfo, Findings]:
    findings = Findings()
    info = ImageryTiler(Compression(**wish)).run(path, out, SilentProgress(), findings)
    assert cog_validate(str(out), strict=True) == (True, [], [])
    assert [p.name for p in out.parent.iterdir() if p.name.startswith(out.name + ".")] == []
    json.dumps(info.metadata, allow_nan=False)
    return info, findings


def test_a_photograph_becomes_jpeg_and_keeps_its_place_and_colours(tmp_path: Path) -> None:
    image = smooth(3, 700, 900)
    info, findings = make(write(tmp_path / "正射.tif", image, interp=[R, G, B]), tmp_path / "o.tif")
    with rasterio.open(tmp_path / "o.tif") as cog:
        assert cog.compression.name == "jpeg" and cog.overviews(1) == [2]
        assert cog.transform == Affine(0.5, 0, 440000, 0, -0.5, 3508000)
        assert np.abs(cog.read().astype(int) - image).mean() < 1.5
        assert (cog.dataset_mask() == 255).all()
    assert [f.rule for f in findings] == ["compression"]
    assert info.metadata["crs"] == "EPSG:4547" and info.metadata["rescale"] is None
    lon, lat = to_lonlat(SpatialRef.parse("EPSG:4547"), [440000, 440450], [3507650, 3508000])
    inner = Region(*sorted(lon)[:1], *sorted(lat)[:1], *sorted(lon)[1:], *sorted(lat)[1:])
    assert info.bounds.contains(inner, slack_deg=1e-5)
    # 0.5 m at latitude 31.7: zoom 18 has 0.508 m there.
    assert (info.min_level, info.max_level) == (16, 18)


def test_a_large_image_is_written_by_a_process_of_its_own_and_stops_when_asked(
    tmp_path: Path,
) -> None:
    image = smooth(1, 2100, 2100, np.uint16)
    path = write(tmp_path / "a.tif", image)
    with pytest.raises(Cancelled):
        ImageryTiler().run(path, tmp_path / "o.tif", _Stop(), Findings())
    assert [p.name for p in tmp_path.iterdir()] == ["a.tif"]
    make(path, tmp_path / "o.tif")
    with rasterio.open(tmp_path / "o.tif") as cog:
        np.testing.assert_array_equal(cog.read(), image)
    bad = bytearray(path.read_bytes())
    path.write_bytes(bad[: len(bad) // 2])
    with pytest.raises(SourceUnreadable, match=r"a\.tif"):
        make(path, tmp_path / "p.tif")


def test_alpha_becomes_the_mask_of_a_jpeg(tmp_path: Path) -> None:
    source = DATA / "raster" / "alpha.tif"
    info, findings = make(source, tmp_path / "o.tif", codec="jpeg")
    with rasterio.open(source) as src, rasterio.open(tmp_path / "o.tif") as cog:
        assert cog.count == 3 and cog.compression.name == "jpeg"
        np.testing.assert_array_equal(cog.dataset_mask() > 0, src.read(4) > 0)
        opaque = src.read(4) == 255
        assert np.abs(cog.read().astype(int) - src.read((1, 2, 3)))[:, opaque].mean() < 6
        partial = (src.read(4) > 0) & ~opaque
    assert info.metadata["masked"] is True
    (repair,) = [f for f in findings if f.rule == "alpha-thresholded"]
    assert repair.count == np.count_nonzero(partial)


def test_half_transparent_pixels_stay_so_in_webp(tmp_path: Path) -> None:
    source = DATA / "raster" / "alpha.tif"
    info, findings = make(source, tmp_path / "o.tif")
    with rasterio.open(source) as src, rasterio.open(tmp_path / "o.tif") as cog:
        assert cog.colorinterp == (R, G, B, A) and cog.compression.name == "webp"
        np.testing.assert_array_equal(cog.read(4), src.read(4))
    assert (info.metadata["bands"], info.metadata["compression"]) == (3, "webp")
    assert {f.rule for f in findings} == {"compression"}


@pytest.mark.parametrize("opaque", [1, 255])
def test_an_alpha_band_that_is_opaque_everywhere_is_left_out(tmp_path: Path, opaque: int) -> None:
    image = smooth(4, 300, 300)
    image[3] = opaque
    info, findings = make(write(tmp_path / "a.tif", image, interp=[R, G, B, A]), tmp_path / "o.tif")
    with rasterio.open(tmp_path / "o.tif") as cog:
        assert (cog.count, cog.compression.name) == (3, "jpeg")
    assert info.metadata["masked"] is False
    assert {f.rule for f in findings} == {"compression", "alpha-opaque"}


def test_sixteen_bits_are_kept_and_a_display_range_is_stored_per_band(tmp_path: Path) -> None:
    source = DATA / "raster" / "RGBA.uint16.tif"
    info, findings = make(source, tmp_path / "o.tif")
    with rasterio.open(source) as src, rasterio.open(tmp_path / "o.tif") as cog:
        present = src.read(4) > 0
        np.testing.assert_array_equal(cog.read()[:, present], src.read((1, 2, 3))[:, present])
        assert cog.compression.name == "deflate"
    # The file's order is blue, green, red.
    assert info.metadata["display_bands"] == [3, 2, 1]
    assert len(info.metadata["rescale"]) == 3
    assert "display-range" in {f.rule for f in findings}


def test_the_display_range_is_the_2nd_to_98th_percentile_of_the_valid_pixels(
    tmp_path: Path,
) -> None:
    ramp = np.broadcast_to(np.arange(1, 1501, dtype=np.uint16) * 10, (1, 1200, 1500)).copy()
    ramp[:, :600] = 0
    info, _ = make(write(tmp_path / "a.tif", ramp, nodata=0), tmp_path / "o.tif")
    ((low, high),) = info.metadata["rescale"]
    assert low == pytest.approx(300, abs=25) and high == pytest.approx(14_710, abs=25)


def test_red_green_blue_and_infrared_stay_four_lossless_bands(tmp_path: Path) -> None:
    image = smooth(4, 300, 520)
    undefined = ColorInterp.undefined
    path = write(tmp_path / "a.tif", image, interp=[R, G, B, undefined])
    info, findings = make(path, tmp_path / "o.tif")
    with rasterio.open(tmp_path / "o.tif") as cog:
        np.testing.assert_array_equal(cog.read(), image)
        assert A not in cog.colorinterp
    assert info.metadata["bands"] == 4 and info.metadata["display_bands"] == [1, 2, 3]
    assert [f.rule for f in findings] == ["compression"]


def test_bands_without_a_colour_are_assumed_and_the_report_says_so(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", smooth(3, 60, 60), photometric="MINISBLACK")
    info, findings = make(path, tmp_path / "o.tif")
    assert [f.rule for f in findings] == ["bands-assumed", "compression"]
    assert info.metadata["colorinterp"] == ["red", "green", "blue"]


def test_nodata_of_a_photograph_becomes_a_mask_that_compression_cannot_blur(tmp_path: Path) -> None:
    image = np.maximum(smooth(3, 600, 600), 1)
    image[:, 100:300, 200:500] = 0
    image[0, 400:420] = 0  # one band at the nodata value is still a colour
    make(write(tmp_path / "a.tif", image, nodata=0, interp=[R, G, B]), tmp_path / "o.tif")
    with rasterio.open(tmp_path / "o.tif") as cog:
        expected = np.ones((600, 600), bool)
        expected[100:300, 200:500] = False
        np.testing.assert_array_equal(cog.dataset_mask() > 0, expected)
        assert cog.nodata is None


@pytest.mark.parametrize("how", ["nodata", "mask", "alpha", "uint16", "nan"])
def test_overviews_are_not_darkened_by_pixels_that_are_not_there(tmp_path: Path, how: str) -> None:
    dtype = {"uint16": np.uint16, "nan": np.float32}.get(how, np.uint8)
    count = 1 if how in ("uint16", "nan") else 3
    image = np.full((count, 1200, 1200), 200, dtype)
    there = np.add.outer(np.arange(1200), np.arange(1200)) > 1101
    image[:, ~there] = np.nan if how == "nan" else 0
    interp, nodata = [R, G, B][:count], 0 if how in ("nodata", "uint16") else None
    if how == "alpha":
        image, interp = np.concatenate([image, there[None] * np.uint8(255)]), [R, G, B, A]
    path = write(tmp_path / "a.tif", image, interp=None if count == 1 else interp, nodata=nodata)
    if how == "mask":
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as sink:
            sink.write_mask(there)
    make(path, tmp_path / "o.tif")
    with rasterio.open(tmp_path / "o.tif", overview_level=1) as cog:
        values, seen = cog.read(1).astype(float), cog.read_masks(1) > 0
    assert seen.shape == (300, 300) and 0.4 < seen.mean() < 0.65
    # JPEG rings at the border of a mask; an average with what is not there would show as 50 to 150.
    inside = np.zeros_like(seen)
    inside[1:-1, 1:-1] = seen[:-2, 1:-1] & seen[1:-1, :-2] & seen[1:-1, 1:-1]
    assert np.abs(values[inside] - 200).max() < (25 if count == 3 else 0.01)


@pytest.mark.parametrize("tile", [0, 5, 11])
@pytest.mark.parametrize("bands", [1, 3])
def test_one_damaged_block_anywhere_is_met_before_anything_is_finished(
    tmp_path: Path, tile: int, bands: int
) -> None:
    noise = np.random.default_rng(5).integers(0, 255, (bands, 700, 1000), dtype=np.uint8)
    layout = {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate"}
    path = write(tmp_path / "a.tif", noise, **layout)
    with rasterio.open(path) as source:
        place = source.get_tag_item(f"BLOCK_OFFSET_{tile % 4}_{tile // 4}", "TIFF", bidx=1)
    content = bytearray(path.read_bytes())
    content[int(place) : int(place) + 400] = b"\xff" * 400
    path.write_bytes(content)
    with pytest.raises(SourceUnreadable, match=r"a\.tif"):
        make(path, tmp_path / "o.tif")
    assert [p.name for p in tmp_path.iterdir()] == ["a.tif"]


def test_a_stated_error_is_kept_and_nodata_stays_nodata(tmp_path: Path) -> None:
    heights = smooth(1, 600, 700, np.float32) / 3
    heights[:, 100:200] = -9999
    path = write(tmp_path / "a.tif", heights, nodata=-9999)
    info, _ = make(path, tmp_path / "o.tif", codec="lerc", max_error=0.25)
    with rasterio.open(tmp_path / "o.tif") as cog:
        there = cog.dataset_mask() > 0
        np.testing.assert_array_equal(there, heights[0] != -9999)
        error = np.abs(cog.read(1) - heights[0])[there].max()
    assert 0.01 < error <= 0.25
    assert (info.metadata["compression"], info.metadata["max_error"]) == ("lerc", 0.25)


@pytest.mark.parametrize("codec", ["deflate", "zstd", "webp"])
def test_a_photograph_can_be_kept_without_loss(tmp_path: Path, codec: str) -> None:
    image = smooth(3, 200, 300)
    wish = {"codec": codec, "quality": 100 if codec == "webp" else None}
    make(write(tmp_path / "a.tif", image, interp=[R, G, B]), tmp_path / "o.tif", **wish)
    with rasterio.open(tmp_path / "o.tif") as cog:
        assert cog.compression.name == codec
        np.testing.assert_array_equal(cog.read(), image)


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"codec": "jpeg2000"}, "not one of auto"),
        ({"codec": "jpeg", "quality": 0}, "between 1 and 100"),
        ({"codec": "deflate", "quality": 80}, "says nothing to deflate"),
        ({"codec": "lerc", "max_error": -1.0}, "from 0 up"),
        ({"codec": "jpeg", "max_error": 1.0}, "belongs to --compress lerc"),
    ],
)
def test_a_compression_that_means_nothing_is_refused(wish: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Compression(**wish)


def test_a_codec_that_cannot_hold_the_image_is_refused_with_another(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", smooth(1, 30, 30, np.uint16))
    with pytest.raises(RasterUnsupported, match="one band of uint16 cannot be kept as jpeg"):
        make(path, tmp_path / "o.tif", codec="jpeg")
    with pytest.raises(ConfigError, match="needs --max-error"):
        make(path, tmp_path / "o.tif", codec="lerc")


def test_a_palette_keeps_its_colours_and_is_never_averaged(tmp_path: Path) -> None:
    classes = np.random.default_rng(1).integers(0, 5, (1, 700, 700), dtype=np.uint8)
    path = tmp_path / "a.tif"
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=700,
        height=700,
        count=1,
        dtype="uint8",
        crs="EPSG:4490",
        transform=Affine(1e-5, 0, 113, 0, -1e-5, 32),
    ) as sink:
        sink.write(classes)
        sink.write_colormap(1, {k: (k * 50, 255 - k * 50, 7, 255) for k in range(5)})
    info, _ = make(path, tmp_path / "o.tif")
    with rasterio.open(tmp_path / "o.tif") as cog:
        np.testing.assert_array_equal(cog.read(), classes)
        assert cog.colormap(1)[3] == (150, 105, 7, 255)
        assert set(np.unique(cog.read(1, out_shape=(350, 350)))) <= set(range(5))
    assert info.metadata["colorinterp"] == ["palette"] and info.metadata["crs"] == "EPSG:4490"


def test_a_grey_image_and_a_masked_one_stay_as_they_are(tmp_path: Path) -> None:
    image = smooth(1, 530, 540)
    path = write(tmp_path / "a.tif", image)
    mask = np.zeros((530, 540), np.uint8)
    mask[50:, 60:] = 255
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as sink:
        sink.write_mask(mask)
    info, _ = make(path, tmp_path / "o.tif")
    with rasterio.open(tmp_path / "o.tif") as cog:
        np.testing.assert_array_equal(cog.dataset_mask(), mask)
        np.testing.assert_array_equal(cog.read(1)[mask > 0], image[0][mask > 0])
    assert info.metadata["display_bands"] == [1]


def test_the_same_image_gives_the_same_bytes_however_it_is_stored(tmp_path: Path) -> None:
    image = smooth(3, 1100, 1300)
    digests = set()
    layouts: list[dict[str, Any]] = [
        {"tiled": False},
        {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "lzw"},
    ]
    for k, layout in enumerate([*layouts, layouts[0]]):
        out = tmp_path / f"o{k}.tif"
        make(write(tmp_path / f"a{k}.tif", image, interp=[R, G, B], **layout), out)
        digests.add(hashlib.sha256(out.read_bytes()).hexdigest())
    assert len(digests) == 1


def test_sheets_of_an_image_become_one_and_alpha_lets_the_sheet_below_show(tmp_path: Path) -> None:
    folder = tmp_path / "图幅"
    folder.mkdir()
    first, second = np.full((4, 64, 64), 200, np.uint8), np.full((4, 64, 64), 90, np.uint8)
    first[3], second[3] = 255, 255
    first[3, :, 32:] = 0
    write(folder / "1.tif", first, interp=[R, G, B, A])
    write(folder / "2.tif", second, interp=[R, G, B, A])
    make(RasterReader(folder).dataset_path(), tmp_path / "o.tif")
    with rasterio.open(tmp_path / "o.tif") as cog:
        assert np.abs(cog.read(1)[5, [10, 50]].astype(int) - [200, 90]).max() < 4
        assert (cog.dataset_mask() == 255).all()
    write(folder / "3.tif", np.ones((1, 9, 9), np.uint16))
    with pytest.raises(RasterUnsupported, match="cannot be joined"):
        RasterReader(folder).dataset_path()


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("byte_truncated.tif", SourceUnreadable, "Read error"),
        ("unknown_compression.tif", SourceUnreadable, "65535"),
        ("excessive-memory-TIFFFillTile.tif", SourceUnreadable, "Too large"),
        ("all-nodata.tif", NothingToTile, "every pixel"),
        ("float_nan.tif", CrsMissing, "--crs"),
    ],
)
def test_a_bad_image_is_refused_and_leaves_nothing(
    tmp_path: Path, name: str, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        make(DATA / "bad" / "raster" / name, tmp_path / "o.tif")
    assert list(tmp_path.iterdir()) == []


def test_a_rotated_image_is_refused_with_gdalwarp(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", smooth(3, 20, 20))
    with rasterio.open(path, "r+") as sink:
        sink.transform = Affine(0.5, 0.1, 440000, 0.1, -0.5, 3508000)
    with pytest.raises(RasterUnsupported, match="gdalwarp"):
        make(path, tmp_path / "o.tif")


class _Stop(SilentProgress):
    def advance(self, amount: int = 1) -> None:
        raise Cancelled("stopped by the user")


def test_a_cancelled_image_leaves_nothing(tmp_path: Path) -> None:
    alpha = smooth(4, 100, 100)  # the mask is made in steps
    path = write(tmp_path / "a.tif", alpha, interp=[R, G, B, A])
    with pytest.raises(Cancelled):
        ImageryTiler().run(path, tmp_path / "o.tif", _Stop(), Findings())
    assert [p.name for p in tmp_path.iterdir()] == ["a.tif"]


_FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from tiling.errors import StoreError
from tiling.findings import Findings
from tiling.tilers.base import SilentProgress
from tiling.tilers.imagery import ImageryTiler
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
limit = int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
source, out = Path(sys.argv[1]), Path(sys.argv[2])
try:
    ImageryTiler().run(source, out, SilentProgress(), Findings())
except StoreError as error:
    assert "cannot be written" in str(error) and "free space" in str(error)
else:
    raise SystemExit("no error")
"""


@pytest.mark.parametrize("share", [0.2, 0.97])
def test_a_full_disk_is_a_clear_error_and_leaves_nothing(tmp_path: Path, share: float) -> None:
    noise = np.random.default_rng(2).integers(0, 255, (4, 600, 600), dtype=np.uint8)
    path = write(tmp_path / "a.tif", noise)
    make(path, tmp_path / "o.tif")
    # Files may not grow beyond a part of what the result needs.
    limit = int((tmp_path / "o.tif").stat().st_size * share)
    (tmp_path / "o.tif").unlink()
    arguments = [sys.executable, "-c", _FULL_DISK, path, tmp_path / "o.tif", str(limit)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["a.tif"]
