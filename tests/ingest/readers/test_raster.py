"""Rasters: what is read, where heights lie, and what is refused before anything is made."""

from __future__ import annotations

import pickle
import resource
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio import Affine
from rasterio.errors import NotGeoreferencedWarning

from ingest.readers import open_source
from ingest.readers.base import ReadOptions
from ingest.readers.raster import RasterReader
from tests.elevation_raster import ElevationRaster, read_elevation
from tiling.bounds import Region
from tiling.crs import TILE_REF, SpatialRef, to_lonlat
from tiling.errors import (
    CrsMissing,
    NothingToTile,
    RasterUnsupported,
    SourceError,
    SourceUnreadable,
    UnknownFormat,
)
from tiling.geoid import ELLIPSOIDAL, parse_vertical

DATA = Path(__file__).parents[2] / "data"
BAD = DATA / "bad" / "raster"
EGM96 = parse_vertical("EPSG:5773")


def write(
    path: Path,
    values: np.ndarray,
    x: float = 113.0,
    y: float = 32.0,
    step: float = 0.001,
    crs: str | None = "EPSG:4490",
    transform: Affine | None = None,
    **options: Any,
) -> Path:
    bands = values if values.ndim == 3 else values[None]
    tags = {k: options.pop(k) for k in ("scales", "offsets", "units") if k in options}
    with rasterio.open(
        path,
        "w",
        driver=options.pop("driver", "GTiff"),
        width=bands.shape[2],
        height=bands.shape[1],
        count=len(bands),
        dtype=bands.dtype,
        crs=crs,
        transform=transform or Affine(step, 0, x, 0, -step, y),
        **options,
    ) as sink:
        sink.write(bands)
        for name, value in tags.items():
            setattr(sink, name, [value])
    return path


def heights(path: Path, crs: str | None = None, vertical: Any = ELLIPSOIDAL) -> ElevationRaster:
    return read_elevation(RasterReader(path, ReadOptions(crs=crs)), vertical)


def at(source: ElevationRaster, x: float, y: float) -> float:
    return float(source.sample(np.array([float(x)]), np.array([float(y)]))[0])


def test_the_registry_opens_rasters_with_this_reader() -> None:
    reader = open_source(DATA / "raster" / "hubei_p1511_5min.tif")
    assert isinstance(reader, RasterReader)
    info = reader.info()
    assert (info.kind, info.layers[0].geometry_type, info.layers[0].features) == (
        "raster",
        "Raster",
        0,
    )
    extra = info.layers[0].extra
    assert (extra["bands"], extra["dtype"], extra["width"], extra["height"]) == (
        1,
        "float32",
        102,
        54,
    )
    assert info.layers[0].ref is not None and info.layers[0].ref.code == "EPSG:4326"
    assert len(info.fingerprint()) == 64
    with pytest.raises(RasterUnsupported, match="no features"):
        reader.batches()


@given(
    st.floats(-3, 3),
    st.floats(-3, 3),
    st.floats(-500, 5000),
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=20),
)
@settings(max_examples=30, deadline=None)
def test_a_plane_in_the_source_frame_is_reproduced_everywhere(
    tmp_path_factory: pytest.TempPathFactory, a: float, b: float, c: float, places: Any
) -> None:
    path = tmp_path_factory.mktemp("plane") / "plane.tif"
    row, column = np.mgrid[0:300, 0:280]
    write(path, a * column + b * row + c, 440000, 3508000, 2.0, "EPSG:4547")
    u, v = np.array(places).T
    column_at, row_at = u * 279, v * 299
    ref = SpatialRef.parse("EPSG:4547")
    x, y = 440000 + 2 * (column_at + 0.5), 3508000 - 2 * (row_at + 0.5)
    lon, lat = to_lonlat(ref, x, y)
    found = heights(path).sample(lon, lat)
    np.testing.assert_allclose(found, a * column_at + b * row_at + c, atol=1e-4)


def test_within_half_a_pixel_of_the_edge_the_outermost_centres_count_and_beyond_nothing_does(
    tmp_path: Path,
) -> None:
    source = heights(write(tmp_path / "a.tif", np.array([[1.0, 2.0], [3.0, 4.0]]), 113, 32, 1.0))
    assert at(source, 113.0, 32.0) == 1.0 and at(source, 115.0, 30.0) == 4.0
    assert at(source, 113.25, 31.5) == 1.0 and at(source, 114.0, 31.0) == 2.5
    assert np.isnan(at(source, 112.999, 31.5)) and np.isnan(at(source, 114.0, 29.99))
    assert source.extent.bbox2d() == [113, 30, 115, 32]
    assert (source.extent.min_height_m, source.extent.max_height_m) == (1, 4)
    assert source.resolution_deg == pytest.approx(1.0)


def test_a_place_has_a_height_when_the_pixel_it_lies_in_has_one(tmp_path: Path) -> None:
    z = np.array([[10.0, -9999], [10.0, 30.0]], np.float32)
    source = heights(write(tmp_path / "a.tif", z, 113, 32, 1.0, nodata=-9999))
    assert at(source, 113.9, 31.5) == 10.0  # beside the hole: the hole has no weight
    assert np.isnan(at(source, 114.1, 31.5))  # in the hole
    assert not np.isnan(at(source, 114.4, 30.6))


def test_nan_is_nodata_whether_declared_or_not(tmp_path: Path) -> None:
    z = np.array([[np.nan, 5], [5, 5]], np.float32)
    for name, nodata in (("a.tif", None), ("b.tif", np.nan)):
        source = heights(write(tmp_path / name, z, 113, 32, 1.0, nodata=nodata))
        assert np.isnan(at(source, 113.5, 31.5)) and at(source, 114.5, 30.5) == 5


def hgt(folder: Path, name: str, values: np.ndarray) -> Path:
    path = folder / name
    path.write_bytes(values.astype(">i2").tobytes())
    return path


def test_hgt_pixels_are_points_on_whole_degrees(tmp_path: Path) -> None:
    row, column = np.mgrid[0:1201, 0:1201]
    path = hgt(tmp_path, "N31E113.hgt", row + column)
    source = heights(path, vertical=EGM96)
    assert at(source, 113.0, 32.0) == 0
    assert at(source, 114.0, 31.0) == pytest.approx(2400)
    assert at(source, 113.5, 31.5) == pytest.approx(1200)
    assert at(source, 113 + 0.25 / 1200, 32.0) == pytest.approx(0.25)
    assert source.extent.west == pytest.approx(113 - 0.5 / 1200)


def test_hgt_sheets_join_without_a_seam_and_the_shared_column_comes_from_the_first(
    tmp_path: Path,
) -> None:
    row, column = np.mgrid[0:1201, 0:1201]
    hgt(tmp_path, "N31E113.hgt", column)
    hgt(tmp_path, "N31E114.hgt", column + 1200)
    source = heights(tmp_path)
    lon = np.linspace(113.2, 114.8, 5001)
    np.testing.assert_allclose(
        source.sample(lon, np.full(5001, 31.3)), (lon - 113) * 1200, atol=1e-6
    )


def test_the_earlier_sheet_wins_where_sheets_overlap(tmp_path: Path) -> None:
    write(tmp_path / "1-先.tif", np.full((10, 10), 1, np.float32), nodata=-1)
    z = np.full((10, 10), 2, np.float32)
    write(tmp_path / "2-后.tif", z, 113.005)
    source = heights(tmp_path)
    assert [at(source, lon, 31.995) for lon in (113.0021, 113.0081, 113.0131)] == [1, 1, 2]
    with rasterio.open(RasterReader(tmp_path).dataset_path()) as mosaic:
        np.testing.assert_array_equal(mosaic.read(1)[0], [1.0] * 10 + [2.0] * 5)
        assert mosaic.bounds == pytest.approx((113, 31.99, 113.015, 32))


def test_several_files_are_one_mosaic_in_the_order_they_were_given(tmp_path: Path) -> None:
    a = write(tmp_path / "a.tif", np.full((10, 10), 1, np.float32))
    b = write(tmp_path / "b.tif", np.full((10, 10), 2, np.float32), 113.005)
    joined = RasterReader.joined([RasterReader(b), RasterReader(a)])
    source = read_elevation(joined, ELLIPSOIDAL)
    assert [at(source, lon, 31.995) for lon in (113.0021, 113.0081, 113.0131)] == [1, 2, 2]
    assert joined.info().files == (b, a)
    far = write(tmp_path / "c.tif", np.ones((4, 4)), 440000, 3508000, 2, "EPSG:4547")
    with pytest.raises(RasterUnsupported, match="different frames"):
        RasterReader.joined([RasterReader(a), RasterReader(far)])


def test_sheets_off_the_common_grid_are_asked_next(tmp_path: Path) -> None:
    write(tmp_path / "fine.tif", np.full((10, 10), 1, np.float32))
    write(tmp_path / "z-coarse.tif", np.full((10, 10), 2, np.float32), 112.9951, 32.0051, 0.0037)
    source = heights(tmp_path)
    assert at(source, 113.005, 31.995) == 1 and at(source, 113.02, 31.98) == 2
    assert source.resolution_deg == pytest.approx(0.001)
    assert len(source.coverage) == 2


def test_sheets_of_different_frames_are_no_one_image(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", np.ones((4, 4)))
    write(tmp_path / "b.tif", np.ones((4, 4)), 440000, 3508000, 2, "EPSG:4547")
    reader = RasterReader(tmp_path)
    assert [ref.code for ref in reader.refs if ref] == ["EPSG:4490", "EPSG:4547"]
    with pytest.raises(RasterUnsupported, match="different frames: EPSG:4490") as caught:
        reader.dataset_path()
    assert str(caught.value.source).endswith("b.tif") and "gdalwarp" in caught.value.remedy


def test_a_zip_holds_one_sheet_or_several_with_chinese_names(
    tmp_path: Path,
) -> None:
    inner = write(tmp_path / "高程模型.tif", np.full((4, 4), 7, np.float32))
    path = tmp_path / "成果.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(inner, "成果/高程模型.tif")
        archive.writestr("成果/说明.txt", "1985国家高程基准")
    reader = open_source(path)
    assert isinstance(reader, RasterReader)
    assert at(read_elevation(reader, ELLIPSOIDAL), 113.002, 31.998) == 7
    assert reader.info().files == (path,)
    with zipfile.ZipFile(path, "a") as archive:
        archive.write(inner, "second.tif")
    assert len(RasterReader(path).sheets) == 2
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(SourceUnreadable, match="archive"):
        RasterReader(path).info()


def test_scale_offset_and_feet_become_metres_and_the_report_says_so(tmp_path: Path) -> None:
    z = np.array([[100, 200], [300, 400]], np.int16)
    path = write(tmp_path / "a.tif", z, 113, 32, 1.0, scales=0.1, offsets=5.0, units="ft")
    reader = RasterReader(path)
    source = read_elevation(reader, ELLIPSOIDAL)
    assert at(source, 113.5, 31.5) == pytest.approx(15 * 0.3048)
    assert {f.rule for f in reader.findings} == {"heights-converted", "heights-scaled"}
    write(path, z, units="fathom")
    with pytest.raises(RasterUnsupported, match="fathom"):
        read_elevation(RasterReader(path), ELLIPSOIDAL)


def test_an_ascii_grid_takes_its_frame_from_the_user(tmp_path: Path) -> None:
    path = tmp_path / "格网.asc"
    path.write_text(
        "ncols 2\nnrows 2\nxllcorner 440000\nyllcorner 3508000\ncellsize 10\nNODATA_value -9999\n"
        "1 2\n3 -9999\n"
    )
    reader = open_source(path)
    assert isinstance(reader, RasterReader) and reader.info().layers[0].ref is None
    with pytest.raises(CrsMissing, match="--crs"):
        read_elevation(reader, ELLIPSOIDAL)
    source = heights(path, "EPSG:4547")
    lon, lat = to_lonlat(
        SpatialRef.parse("EPSG:4547"), [440005.0, 440015.0], [3508015.0, 3508005.0]
    )
    np.testing.assert_array_equal(source.sample(lon, lat), [1, np.nan])


def test_a_declared_frame_wins_and_a_contradiction_is_reported(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", np.ones((4, 4)), 38440000, 3508000, 2, "EPSG:4547")
    reader = RasterReader(path, ReadOptions(crs="EPSG:4526"))
    assert reader.info().layers[0].ref == SpatialRef.parse("EPSG:4526")
    assert "crs-overridden" in {f.rule for f in reader.findings}
    with rasterio.open(reader.dataset_path()) as dataset:
        assert SpatialRef.parse(dataset.crs.to_wkt()).code == "EPSG:4526"
        assert dataset.transform == Affine(2, 0, 38440000, 0, -2, 3508000)


def test_a_vrt_whose_sheet_is_missing_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", np.ones((4, 4)))
    write(tmp_path / "b.tif", np.ones((4, 4)), 113.004)
    vrt = tmp_path / "mosaic.vrt"
    vrt.write_text(RasterReader(tmp_path).dataset_path())
    reader = open_source(vrt)
    assert isinstance(reader, RasterReader)
    assert at(read_elevation(reader, ELLIPSOIDAL), 113.006, 31.998) == 1
    assert {f.name for f in reader.info().files} == {"mosaic.vrt", "a.tif", "b.tif"}
    (tmp_path / "b.tif").unlink()
    with pytest.raises(SourceUnreadable, match="b.tif"):
        read_elevation(RasterReader(vrt), ELLIPSOIDAL)


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("byte_truncated.tif", SourceUnreadable, "Read error"),
        ("corrupted_deflate_singlestrip.tif", SourceUnreadable, "Decoding error"),
        ("excessive-memory-TIFFFillTile.tif", SourceUnreadable, "Too large tile byte count"),
        ("huge4GB.tif", SourceUnreadable, "Read error"),
        ("image_width_above_32bit.tif", SourceUnreadable, "2147483648"),
        ("toomanyblocks.tif", SourceUnreadable, "60000"),
        ("unknown_compression.tif", SourceUnreadable, "65535"),
        ("rotated.tif", RasterUnsupported, "rotated"),
    ],
)
def test_a_damaged_or_absurd_file_is_refused_with_its_name_and_a_remedy(
    name: str, error: type[SourceError], words: str
) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(error, match=words) as caught:
        heights(BAD / name, "EPSG:4547")
    assert caught.value.remedy and str(caught.value.source).endswith(name)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000


def test_no_frame_is_refused_with_the_option_to_declare_one() -> None:
    with pytest.raises(CrsMissing, match="--crs EPSG:4547"):
        heights(BAD / "float_nan.tif")
    assert RasterReader(BAD / "float_nan.tif").info().layers[0].ref is None


@pytest.mark.parametrize("value", [-9999, -32768, 32767, -3.4028235e38])
def test_nodata_that_the_file_forgot_to_declare_is_refused(tmp_path: Path, value: float) -> None:
    z = np.full((9, 9), 55, np.float32)
    z[2, 3] = value
    with pytest.raises(RasterUnsupported, match="--nodata"):
        heights(write(tmp_path / "a.tif", z))


def test_several_bands_complex_numbers_and_strange_drivers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RasterUnsupported, match="3 bands"):
        heights(write(tmp_path / "a.tif", np.ones((3, 4, 4), np.float32)))
    with pytest.raises(RasterUnsupported, match="complex"):
        heights(write(tmp_path / "b.tif", np.ones((4, 4), np.complex64)))
    path = tmp_path / "c.png.tif"
    write(path, np.ones((2, 2), np.uint8), crs=None, driver="PNG")
    with pytest.raises(UnknownFormat, match="no raster driver"):
        heights(path)
    path.write_text("not a raster")
    with pytest.raises(UnknownFormat, match="gdal_translate"):
        heights(path)


def test_a_frame_without_a_place_is_refused(tmp_path: Path) -> None:
    with pytest.warns(NotGeoreferencedWarning):
        path = write(tmp_path / "a.tif", np.ones((4, 4)), transform=Affine.identity())
    with pytest.raises(RasterUnsupported, match="no geotransform"):
        heights(path)


def test_an_empty_folder_and_a_missing_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(NothingToTile, match="no raster"):
        RasterReader(tmp_path).info()
    with pytest.raises(SourceUnreadable, match="no such file"):
        RasterReader(tmp_path / "无.tif").info()


def test_a_pickled_source_opens_its_files_again(tmp_path: Path) -> None:
    source = heights(write(tmp_path / "a.tif", np.full((4, 4), 3, np.float32)))
    assert at(source, 113.002, 31.998) == 3
    again = pickle.loads(pickle.dumps(source))
    assert at(again, 113.002, 31.998) == 3
    assert again.extent == source.extent and again.ref == source.ref
    source.close()
    assert at(source, 113.002, 31.998) == 3


def test_pixel_centres_are_every_pixel_or_an_even_stride(tmp_path: Path) -> None:
    z = np.arange(10_000, dtype=np.float32).reshape(100, 100) / 10
    source = heights(write(tmp_path / "a.tif", z, 440000, 3508000, 2.0, "EPSG:4547"))
    lon, lat = source.pixel_centres(source.extent, 10_000)
    np.testing.assert_allclose(np.sort(source.sample(lon, lat)), np.arange(10_000) / 10, atol=1e-3)
    some, _ = source.pixel_centres(source.extent, 500)
    assert 300 < len(some) <= 700
    none, _ = source.pixel_centres(Region(0, 0, 1, 1), 500)
    assert len(none) == 0


def test_sniffing_goes_by_content(tmp_path: Path) -> None:
    (tmp_path / "a.shp").write_bytes(b"\0\0\x27\x0a")
    (tmp_path / "text.tif").write_text("hello")
    tif = write(tmp_path / "a.dat", np.ones((2, 2)))
    assert RasterReader.sniff(tif)
    assert not RasterReader.sniff(tmp_path / "a.shp") and not RasterReader.sniff(
        tmp_path / "text.tif"
    )
    assert RasterReader.sniff(hgt(tmp_path, "n31e113.HGT", np.zeros(4)))
    assert not RasterReader.sniff(tmp_path / "missing.tif")
    assert TILE_REF.vertical is ELLIPSOIDAL
