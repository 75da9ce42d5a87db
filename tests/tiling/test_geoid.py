"""Vertical datums: control values of NGA, grids of every kind, and refusals."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import pickle
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from rasterio.transform import Affine

from tiling.errors import DatumUndeclared, OutsideArea, SourceError, SourceUnreadable
from tiling.geoid import ELLIPSOIDAL, VerticalDatum, parse_vertical
from tiling.geoid_grid import bundled_egm96

# The test points that NGA publishes beside its own EGM96 interpolation program (which is a
# spline, hence some centimetres of difference to bilinear interpolation on 15').
NGA_CONTROL = [
    (269.7791550, 38.6281550, -31.628),
    (305.0211140, -14.6212170, -2.969),
    (102.4487290, 46.8743190, -43.575),
    (133.8747120, -23.6174460, 15.871),
    (359.9995000, 38.6254730, 50.066),
    (0.0023000, -0.4667440, 17.329),
]

longitudes = st.floats(-180, 180)
latitudes = st.floats(-90, 90)


def separation(datum: VerticalDatum, lon: float, lat: float) -> float:
    return float(datum.separation(np.array([lon]), np.array([lat]))[0])


@pytest.mark.parametrize(("lon", "lat", "undulation"), NGA_CONTROL)
def test_egm96_meets_the_published_control_values_to_a_decimetre(
    lon: float, lat: float, undulation: float
) -> None:
    assert separation(parse_vertical("EPSG:5773"), lon, lat) == pytest.approx(undulation, abs=0.1)


@pytest.mark.parametrize(
    ("place", "lon", "lat", "undulation"),
    # Interpolated from Debian's egm96_15.gtx (proj-data 9.1.1), another copy of the same model.
    [("Suizhou", 113.3826, 31.6903, -18.854), ("Beijing", 116.4, 39.9, -9.920)],
)
def test_egm96_agrees_with_the_grid_of_proj_in_china(
    place: str, lon: float, lat: float, undulation: float
) -> None:
    assert separation(parse_vertical("EPSG:5773"), lon, lat) == pytest.approx(undulation, abs=0.01)


def test_the_bundled_grid_is_the_original_file_bit_for_bit() -> None:
    packed = (resources.files("tiling") / "data" / "WW15MGH.DAC.xz").read_bytes()
    digest = hashlib.sha256(lzma.decompress(packed)).hexdigest()
    assert digest == "9dcaf4efd6857aaa2e1e2e2c574d3f5264eacf47024cdcd5291c40ddad5e5acc"


@given(lon=longitudes, lat=latitudes, turns=st.integers(-2, 2))
def test_the_geoid_is_periodic_in_longitude(lon: float, lat: float, turns: int) -> None:
    datum = parse_vertical("EPSG:5773")
    here, there = separation(datum, lon, lat), separation(datum, lon + 360.0 * turns, lat)
    assert there == pytest.approx(here, abs=1e-6)


@given(lon=longitudes)
def test_the_geoid_has_one_value_at_each_pole(lon: float) -> None:
    datum = parse_vertical("EPSG:5773")
    assert separation(datum, lon, 90.0) == pytest.approx(13.61, abs=1e-9)
    assert separation(datum, lon, -90.0) == pytest.approx(-29.53, abs=1e-9)


@given(lon=longitudes, lat=st.floats(-89.9, 89.9))
def test_the_geoid_is_continuous(lon: float, lat: float) -> None:
    # The steepest step between two nodes is some ten metres over 0.25 degrees.
    datum, step = parse_vertical("EPSG:5773"), 1e-7
    here = separation(datum, lon, lat)
    assert separation(datum, lon + step, lat) == pytest.approx(here, abs=1e-4)
    assert separation(datum, lon, lat + step) == pytest.approx(here, abs=1e-4)


def test_nodes_of_the_grid_are_met_exactly() -> None:
    grid = bundled_egm96()
    rows, columns = np.meshgrid(np.arange(0, 721, 7), np.arange(0, 1440, 11), indexing="ij")
    lon, lat = columns.ravel() * 0.25, rows.ravel() * 0.25 - 90.0
    assert np.array_equal(grid.interpolate(lon, lat), grid.values[rows.ravel(), columns.ravel()])


def test_the_national_datum_says_that_it_is_approximated_and_egm96_does_not() -> None:
    national, egm96 = parse_vertical("EPSG:5737"), parse_vertical("EPSG:5773")
    assert "EGM96" in national.approximated
    assert egm96.approximated == ""
    assert separation(national, 113.3826, 31.6903) == separation(egm96, 113.3826, 31.6903)


def test_heights_of_1956_lie_29_millimetres_above_those_of_1985() -> None:
    old, new = parse_vertical("EPSG:5736"), parse_vertical("EPSG:5737")
    difference = separation(old, 120.0, 36.0) - separation(new, 120.0, 36.0)
    assert difference == pytest.approx(-0.029)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("1985国家高程基准", "EPSG:5737"),
        ("大地高", "ellipsoidal"),
        ("egm96", "EPSG:5773"),
        ("epsg:5737", "EPSG:5737"),
        (" Ellipsoidal ", "ellipsoidal"),
    ],
)
def test_datums_are_known_by_their_usual_names(name: str, code: str) -> None:
    assert parse_vertical(name).code == code


@given(metres=st.floats(-500, 500))
def test_an_offset_is_the_separation_everywhere(metres: float) -> None:
    datum = parse_vertical(f"offset:{metres!r}")
    values = datum.separation(np.array([0.0, 113.0]), np.array([0.0, 31.0]))
    assert np.array_equal(values, [metres, metres])


def test_ellipsoidal_heights_are_their_own_reference() -> None:
    assert not ELLIPSOIDAL.separation(np.array([0.0, 113.0]), np.array([0.0, 31.0])).any()


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("EPSG:3855", "grid:FILE"),
        ("EPSG:5714", "EPSG:5773"),
        ("EPSG:4547", "declare one of"),
        ("", "declare one of"),
        ("offset:", "offset:METRES"),
        ("offset:nan", "offset:METRES"),
        ("offset:十米", "offset:METRES"),
        ("grid:", "grid:FILE"),
        ("grid:/nowhere/似大地水准面.gtx", "grid:FILE"),
    ],
)
def test_a_datum_that_cannot_be_computed_is_refused_with_a_remedy(text: str, word: str) -> None:
    with pytest.raises(SourceError, match=word) as refusal:
        parse_vertical(text)
    assert refusal.value.remedy


def test_no_unknown_datum_passes_as_a_known_one() -> None:
    with pytest.raises(DatumUndeclared):
        parse_vertical("EPSG:57370")


def city_grid() -> np.ndarray:
    """An invented quasi-geoid of a city: rows from north to south, every 0.05 degrees."""
    rows, columns = np.mgrid[0:25, 0:33]
    return (-19.0 + 0.02 * rows + 0.05 * columns + 0.001 * rows * columns).astype(np.float32)


WEST, NORTH, STEP = 112.6, 32.6, 0.05


def write_gtx(path: Path, values: np.ndarray) -> None:
    south = NORTH - STEP * (values.shape[0] - 1)
    header = np.array([south, WEST, STEP, STEP], ">f8").tobytes()
    header += np.array(values.shape, ">i4").tobytes()
    path.write_bytes(header + values[::-1].astype(">f4").tobytes())


def write_tif(path: Path, values: np.ndarray) -> None:
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=values.shape[0],
        width=values.shape[1],
        count=1,
        dtype="float32",
        nodata=-32768.0,
        crs="EPSG:4490",
        transform=Affine(STEP, 0, WEST - STEP / 2, 0, -STEP, NORTH + STEP / 2),
    ) as file:
        file.write(values, 1)


def write_grid(path: Path, values: np.ndarray) -> None:
    if path.suffix == ".gtx":
        write_gtx(path, values)
    elif path.suffix == ".tif":
        write_tif(path, values)
    else:
        write_asc(path, values)


def write_asc(path: Path, values: np.ndarray) -> None:
    south = NORTH - STEP * (values.shape[0] - 1)
    lines = [
        f"ncols {values.shape[1]}",
        f"nrows {values.shape[0]}",
        f"xllcenter {WEST!r}",
        f"yllcenter {south!r}",
        f"cellsize {STEP!r}",
        "NODATA_value -32768",
        *(" ".join(f"{v:.6f}" for v in row) for row in values),
    ]
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("suffix", [".gtx", ".tif", ".asc"])
def test_a_citys_own_grid_is_interpolated_bilinearly(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"随州似大地水准面{suffix}"
    write_grid(path, city_grid())
    datum = parse_vertical(f"grid:{path}")
    # The surface is bilinear itself, so bilinear interpolation gives it back everywhere.
    columns, rows = np.array([0.0, 3.25, 32.0, 16.5]), np.array([0.0, 7.75, 24.0, 24.0])
    expected = -19.0 + 0.02 * rows + 0.05 * columns + 0.001 * rows * columns
    found = datum.separation(WEST + STEP * columns, NORTH - STEP * rows)
    assert np.abs(found - expected).max() < 1e-4
    assert datum.code == f"grid:{path.name}"


@pytest.mark.parametrize("suffix", [".gtx", ".tif", ".asc"])
@pytest.mark.parametrize(("lon", "lat"), [(112.5, 32.0), (114.3, 32.0), (113.0, 31.3), (-70, 32)])
def test_a_point_beyond_a_citys_grid_is_refused(
    tmp_path: Path, suffix: str, lon: float, lat: float
) -> None:
    path = tmp_path / f"grid{suffix}"
    write_grid(path, city_grid())
    datum = parse_vertical(f"grid:{path}")
    with pytest.raises(OutsideArea, match="1 of 2 points"):
        datum.separation(np.array([113.0, lon]), np.array([32.0, lat]))


def test_a_hole_in_a_citys_grid_is_refused(tmp_path: Path) -> None:
    values = city_grid()
    values[10, 10] = -32768.0
    write_tif(tmp_path / "hole.tif", values)
    datum = parse_vertical(f"grid:{tmp_path / 'hole.tif'}")
    with pytest.raises(OutsideArea):
        separation(datum, WEST + STEP * 10.5, NORTH - STEP * 10.5)


def test_a_global_grid_from_180_west_wraps_around(tmp_path: Path) -> None:
    # 1-degree nodes from 180 W; the value is the longitude's cosine, periodic by nature.
    lon = np.arange(-180.0, 180.0)
    values = np.tile(10 * np.cos(np.radians(lon)), (181, 1))
    header = (
        np.array([-90.0, -180.0, 1.0, 1.0], ">f8").tobytes() + np.array([181, 360], ">i4").tobytes()
    )
    (tmp_path / "globe.gtx").write_bytes(header + values.astype(">f4").tobytes())
    datum = parse_vertical(f"grid:{tmp_path / 'globe.gtx'}")
    for place in (179.5, -180.0, 180.0, 359.75, 0.0, 113.4):
        exact = 10 * np.cos(np.radians(place))
        assert separation(datum, place, 31.0) == pytest.approx(exact, abs=2e-3)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:20],
        lambda data: data[:-4],
        lambda data: gzip.compress(data),
        lambda data: data[:40] + b"\x7f\x00\x00\x00" * ((len(data) - 40) // 4),
        lambda data: np.array([0, 0, -1, 1], ">f8").tobytes() + data[32:],
        lambda data: b"",
    ],
)
def test_a_damaged_grid_is_refused_before_any_work(tmp_path: Path, damage) -> None:  # type: ignore[no-untyped-def]
    write_gtx(tmp_path / "whole.gtx", city_grid())
    broken = tmp_path / "broken.gtx"
    broken.write_bytes(damage((tmp_path / "whole.gtx").read_bytes()))
    with pytest.raises(SourceUnreadable, match=r"broken\.gtx"):
        parse_vertical(f"grid:{broken}")


def test_a_raster_of_elevations_is_no_geoid_grid(tmp_path: Path) -> None:
    write_tif(tmp_path / "dem.tif", city_grid() + 1000.0)
    with pytest.raises(SourceUnreadable, match="undulations"):
        parse_vertical(f"grid:{tmp_path / 'dem.tif'}")


def test_a_truncated_tif_grid_is_refused(tmp_path: Path) -> None:
    write_tif(tmp_path / "whole.tif", city_grid())
    data = (tmp_path / "whole.tif").read_bytes()
    (tmp_path / "half.tif").write_bytes(data[: len(data) // 2])
    with pytest.raises(SourceUnreadable, match=r"half\.tif"):
        parse_vertical(f"grid:{tmp_path / 'half.tif'}")


@pytest.mark.parametrize("text", ["ellipsoidal", "EPSG:5737", "EPSG:5736", "offset:-18.85"])
def test_datums_survive_json_and_pickling(text: str) -> None:
    datum = parse_vertical(text)
    assert VerticalDatum.from_json(datum.to_json()) == datum
    copy = pickle.loads(pickle.dumps(datum))
    assert copy == datum
    assert hash(copy) == hash(datum)


def test_coordinates_that_are_nan_have_no_separation() -> None:
    values = parse_vertical("EPSG:5773").separation([np.nan, 113.0], [31.0, 31.0])
    assert np.isnan(values[0])
    assert np.isfinite(values[1])
