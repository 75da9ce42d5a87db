"""Frames: parsing, the two steps of a transformation, ECEF, and the shifts of internet maps."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pyarrow as pa
import pyproj
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from tiling.batches import FeatureBatch
from tiling.crs import (
    TILE_REF,
    SpatialRef,
    bd09_to_cgcs2000,
    cgcs2000_to_bd09,
    cgcs2000_to_gcj02,
    describe_shift,
    ecef_to_geodetic,
    enu_to_ecef_matrix,
    gcj02_to_cgcs2000,
    geodetic_to_ecef,
    reframe,
    transform_points,
)
from tiling.errors import CrsMissing, DatumUndeclared, OutsideArea, SourceError
from tiling.geoid import ELLIPSOIDAL, parse_vertical

SUIZHOU = (113.3826, 31.6903)
ORACLES = {
    code: pyproj.Transformer.from_crs(4326, code, always_xy=True)
    for code in ("EPSG:4547", "EPSG:4526", "EPSG:4490", "EPSG:3857", "EPSG:32649")
}
GEOCENTRIC = pyproj.Transformer.from_crs(4979, 4978, always_xy=True)

ESRI_GEOGCS = (
    'GEOGCS["GCS_China_Geodetic_Coordinate_System_2000",DATUM["D_China_2000",'
    'SPHEROID["CGCS2000",6378137.0,298.257222101]],PRIMEM["Greenwich",0.0],'
    'UNIT["Degree",0.0174532925199433]]'
)


def esri_gauss_kruger(name: str, false_easting: float, meridian: float) -> str:
    return (
        f'PROJCS["{name}",{ESRI_GEOGCS},PROJECTION["Gauss_Kruger"],'
        f'PARAMETER["False_Easting",{false_easting}],PARAMETER["False_Northing",0.0],'
        f'PARAMETER["Central_Meridian",{meridian}],PARAMETER["Scale_Factor",1.0],'
        'PARAMETER["Latitude_Of_Origin",0.0],UNIT["Meter",1.0]]'
    )


def distance_m(a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    return np.linalg.norm(geodetic_to_ecef(*a, 0.0) - geodetic_to_ecef(*b, 0.0), axis=-1)


def batch(ref: SpatialRef, *geometries: shapely.Geometry) -> FeatureBatch:
    array = np.empty(len(geometries), dtype=object)
    array[:] = geometries
    names = [f"楼栋{i}🏢" for i in range(len(geometries))]
    return FeatureBatch(ref, np.arange(100, 100 + len(array)), array, pa.table({"名称": names}))


# Parsing


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("EPSG:4547", "EPSG:4547"),
        ("epsg:4547", "EPSG:4547"),
        (" 4547\n", "EPSG:4547"),
        ("EPSG:4490+5737", "EPSG:4490+5737"),
        ("EPSG:4547 + EPSG:5773", "EPSG:4547+5773"),
        ("EPSG:4547+ellipsoidal", "EPSG:4547+ellipsoidal"),
        ("EPSG:4547+offset:-18.5", "EPSG:4547+offset:-18.5"),
        ("gcj02", "GCJ-02"),
        ("BD-09", "BD-09"),
        ("GCJ-02+5737", "GCJ-02+5737"),
        ("EPSG:4979", "EPSG:4326+ellipsoidal"),
        ("EPSG:4480", "EPSG:4490+ellipsoidal"),
        ("+proj=longlat +datum=WGS84 +no_defs", "EPSG:4326"),
        (ESRI_GEOGCS, "EPSG:4490"),
        ("\ufeff" + ESRI_GEOGCS + "\r\n", "EPSG:4490"),
        (esri_gauss_kruger("CGCS2000_3_Degree_GK_CM_114E", 500000.0, 114.0), "EPSG:4547"),
        (esri_gauss_kruger("CGCS2000_3_Degree_GK_Zone_38", 38500000.0, 114.0), "EPSG:4526"),
        (esri_gauss_kruger("随州市2000", 500000.0, 114.0), "EPSG:4547"),
    ],
)
def test_frames_are_understood_however_they_are_written(text: str, code: str) -> None:
    ref = SpatialRef.parse(text)
    assert ref.code == code
    assert ref.note == ""
    assert SpatialRef.parse(ref.code) == ref


@pytest.mark.parametrize("code", ["EPSG:4547", "EPSG:4490+5737", "EPSG:3857", "GCJ-02"])
def test_wkt_with_its_datum_is_the_same_frame_as_the_code(code: str) -> None:
    ref = SpatialRef.parse(code)
    if ref.offset is None:
        assert SpatialRef.parse(pyproj.CRS(code).to_wkt()) == ref


def test_a_compound_wkt_of_esri_is_taken_apart() -> None:
    horizontal = esri_gauss_kruger("CGCS2000_3_Degree_GK_CM_114E", 500000.0, 114.0)
    vertical = (
        'VERTCS["Yellow_Sea_1985",VDATUM["Yellow_Sea_1985"],PARAMETER["Vertical_Shift",0.0],'
        'PARAMETER["Direction",1.0],UNIT["Meter",1.0]]'
    )
    assert SpatialRef.parse(f"{horizontal},{vertical}").code == "EPSG:4547+5737"


def test_a_local_plane_keeps_its_own_parameters() -> None:
    # A city's independent frame: its own meridian and false origin, and no EPSG code.
    ref = SpatialRef.parse(esri_gauss_kruger("随州独立坐标系", 50000.0, 113.4))
    assert ref.code == "随州独立坐标系"
    x, y, _ = transform_points(TILE_REF, ref, [113.4], [31.7])
    assert x[0] == pytest.approx(50000.0, abs=1e-6)
    assert y[0] > 3_500_000


def test_an_embedded_vertical_datum_that_cannot_be_computed_is_dropped_aloud() -> None:
    ref = SpatialRef.parse("EPSG:4326+3855")
    assert ref.vertical is None
    assert "EGM2008" in ref.note
    assert ref.note in describe_shift(ref, TILE_REF).assumptions


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "EPSG:999999",
        "不存在的坐标系",
        "EPSG:5773",
        "EPSG:4978",
        "EPSG:4490+4547",
        'LOCAL_CS["未知",UNIT["m",1]]',
        'ENGCRS["x",EDATUM["y"],CS[Cartesian,2],AXIS["x",east],AXIS["y",north],'
        'LENGTHUNIT["metre",1]]',
        "PROJCS[",
    ],
)
def test_what_places_nothing_on_the_map_is_refused_with_a_remedy(text: str) -> None:
    with pytest.raises(CrsMissing) as refusal:
        SpatialRef.parse(text)
    assert refusal.value.remedy


@pytest.mark.parametrize(
    "text",
    [
        "EPSG:4547",
        "EPSG:4490+5737",
        "GCJ-02",
        "EPSG:4547+offset:-18.85",
        "EPSG:4326+3855",
        "+proj=tmerc +lon_0=113.4 +x_0=50000 +ellps=GRS80 +units=m",
        "+proj=tmerc +lon_0=114 +x_0=500000 +ellps=krass +towgs84=15.8,-154.4,-82.3,0,0,0,0",
        esri_gauss_kruger("随州独立坐标系", 50000.0, 113.4),
    ],
)
def test_frames_survive_json_and_pickling_and_stay_equal(text: str) -> None:
    ref = SpatialRef.parse(text)
    for copy in (
        SpatialRef.from_json(json.loads(json.dumps(ref.to_json()))),
        pickle.loads(pickle.dumps(ref)),
    ):
        assert copy == ref
        assert hash(copy) == hash(ref)
        assert copy.note == ref.note


# The horizontal step


@pytest.mark.parametrize(
    ("code", "easting"), [("EPSG:4547", 441464.178), ("EPSG:4526", 38441464.178)]
)
def test_suizhou_lies_where_the_tables_say(code: str, easting: float) -> None:
    x, y, z = transform_points(TILE_REF, SpatialRef.parse(code), [SUIZHOU[0]], [SUIZHOU[1]])
    assert (x[0], y[0]) == pytest.approx((easting, 3507677.309), abs=5e-4)
    assert z is None


@given(
    code=st.sampled_from(sorted(ORACLES)),
    lon=st.floats(110, 118),
    lat=st.floats(20, 45),
)
def test_positions_are_those_of_pyproj_and_round_trip(code: str, lon: float, lat: float) -> None:
    ref = SpatialRef.parse(code)
    x, y, _ = transform_points(TILE_REF, ref, [lon], [lat])
    oracle = ORACLES[code].transform(lon, lat)
    assert (x[0], y[0]) == pytest.approx(oracle, abs=1e-6)
    back = transform_points(ref, TILE_REF, x, y)[:2]
    assert distance_m(back, (np.array([lon]), np.array([lat])))[0] < 1e-6


def test_cgcs2000_and_wgs84_are_taken_as_equal_and_the_record_says_so() -> None:
    source = SpatialRef.parse("EPSG:4490")
    x, y, _ = transform_points(source, TILE_REF, [SUIZHOU[0]], [SUIZHOU[1]])
    assert (x[0], y[0]) == SUIZHOU
    record = describe_shift(source, TILE_REF)
    assert record.null_shift
    assert any("taken as equal" in text for text in record.assumptions)
    assert "Ballpark" in record.operation
    assert json.loads(json.dumps(record.to_json()))["null_shift"] is True


def test_a_step_within_one_datum_is_no_null_shift() -> None:
    record = describe_shift(SpatialRef.parse("EPSG:3857"), TILE_REF)
    assert not record.null_shift
    assert record.assumptions == ()


@pytest.mark.parametrize("code", ["EPSG:4610", "EPSG:2383", "EPSG:4555"])
def test_datums_without_a_known_shift_are_refused_rather_than_left_unshifted(code: str) -> None:
    # PROJ would apply nothing at all, without a word: a hundred metres off.
    with pytest.raises(SourceError, match="no datum shift") as refusal:
        transform_points(SpatialRef.parse(code), TILE_REF, [113.0], [31.0])
    assert "towgs84" in refusal.value.remedy


def test_local_parameters_make_an_old_datum_usable() -> None:
    text = "+proj=longlat +a=6378140 +rf=298.257 +towgs84=24,-123,-94,0,0,0,0 +no_defs"
    ref = SpatialRef.parse(text)
    x, y, _ = transform_points(ref, TILE_REF, [SUIZHOU[0]], [SUIZHOU[1]])
    moved = distance_m((x, y), (np.array([SUIZHOU[0]]), np.array([SUIZHOU[1]])))[0]
    assert 20 < moved < 200
    assert not describe_shift(ref, TILE_REF).null_shift


def test_an_operation_used_outside_its_area_is_recorded_as_a_doubt() -> None:
    record = describe_shift(SpatialRef.parse("EPSG:4214"), TILE_REF, SUIZHOU)
    assert any("lies outside" in text for text in record.assumptions)
    assert "not at this place" in record.accuracy_note


# The vertical step


@given(
    source=st.sampled_from(["5737", "5773", "5736", "offset:-18.85", "ellipsoidal"]),
    lon=st.floats(112, 115),
    lat=st.floats(30, 33),
    height=st.floats(-100, 3000),
)
def test_heights_move_by_the_separation_and_come_back(
    source: str, lon: float, lat: float, height: float
) -> None:
    ref = SpatialRef.parse(f"EPSG:4547+{source}")
    x, y, _ = transform_points(TILE_REF, ref, [lon], [lat])
    _, _, h = transform_points(ref, TILE_REF, x, y, [height])
    assert h is not None and ref.vertical is not None
    assert h[0] - height == pytest.approx(ref.vertical.separation([lon], [lat])[0], abs=1e-6)
    _, _, back = transform_points(TILE_REF, ref, [lon], [lat], h)
    assert back is not None
    assert back[0] == pytest.approx(height, abs=1e-6)


def test_a_national_height_at_suizhou_becomes_ellipsoidal() -> None:
    # PROJ answers 100.0 here, claiming its best operation: the trap this module exists for.
    ref = SpatialRef.parse("EPSG:4490+5737")
    _, _, h = transform_points(ref, TILE_REF, [SUIZHOU[0]], [SUIZHOU[1]], [100.0])
    assert h is not None
    assert h[0] == pytest.approx(100.0 - 18.854, abs=0.01)
    record = describe_shift(ref, TILE_REF)
    assert "heights from EPSG:5737 to ellipsoidal" in record.operation
    assert any("EGM96" in text for text in record.assumptions)


@pytest.mark.parametrize(
    ("source", "target"), [("EPSG:4547", "EPSG:4326+ellipsoidal"), ("EPSG:4490+5737", "EPSG:4326")]
)
def test_heights_without_a_datum_on_one_side_are_refused(source: str, target: str) -> None:
    with pytest.raises(DatumUndeclared, match="vertical datum") as refusal:
        transform_points(SpatialRef.parse(source), SpatialRef.parse(target), [113], [31], [5.0])
    assert "--vertical" in refusal.value.remedy


def test_heights_that_nobody_asks_about_stay() -> None:
    bare = SpatialRef.parse("EPSG:4490")
    _, _, z = transform_points(bare, TILE_REF.with_vertical(None), [113], [31], [5.0])
    assert z is not None
    assert z[0] == 5.0


# Features


def test_a_batch_is_reframed_with_its_heights_and_comes_back() -> None:
    ref = SpatialRef.parse("EPSG:4547+5737")
    e, n = 441464.178, 3507677.309
    ring = [(e, n, 50), (e + 20, n, 50), (e + 20, n + 10, 51), (e, n + 10, 50), (e, n, 50)]
    there = batch(ref, shapely.Polygon(ring), shapely.box(e, n, e + 5, n + 5), shapely.Point())
    moved, record = reframe(there, TILE_REF)
    assert moved.ref == TILE_REF
    assert moved.attributes is there.attributes
    assert list(shapely.has_z(moved.geometry)) == [True, False, False]
    assert shapely.get_coordinates(moved.geometry)[0] == pytest.approx(SUIZHOU, abs=1e-8)
    z = shapely.get_coordinates(moved.geometry[0], include_z=True)[:, 2]
    assert z == pytest.approx(np.array([50, 50, 51, 50, 50]) - 18.854, abs=0.01)
    assert record.null_shift
    back, _ = reframe(moved, ref)
    original = shapely.get_coordinates(there.geometry, include_z=True)
    found = shapely.get_coordinates(back.geometry, include_z=True)
    assert np.nanmax(np.abs(found - original)) < 1e-6
    assert np.array_equal(np.isnan(found), np.isnan(original))


def test_heights_of_an_undeclared_datum_are_kept_and_the_result_claims_none() -> None:
    moved, record = reframe(
        batch(SpatialRef.parse("EPSG:4490"), shapely.Point(113, 31, 7)), TILE_REF
    )
    assert moved.ref.vertical is None
    assert shapely.get_z(moved.geometry)[0] == 7
    assert any("not declared" in text for text in record.assumptions)


def test_flat_geometry_needs_no_vertical_datum() -> None:
    moved, record = reframe(batch(SpatialRef.parse("EPSG:4490"), shapely.Point(113, 31)), TILE_REF)
    assert moved.ref == TILE_REF
    assert not any("heights" in text for text in record.assumptions)


def test_an_empty_batch_is_reframed_to_an_empty_batch() -> None:
    moved, _ = reframe(batch(SpatialRef.parse("EPSG:4547")), TILE_REF)
    assert len(moved) == 0
    assert moved.ref == TILE_REF


@pytest.mark.parametrize(
    ("code", "x", "y", "word"),
    [
        ("EPSG:4547", 38441464.178, 3507677.309, "--crs EPSG:4526"),
        ("EPSG:4490", 31.69, 113.38, "exchange x and y"),
        ("EPSG:4547", 3507677.309, 441464.178, "exchange x and y"),
        # Kunming: northings read as eastings fall into the South China Sea, inside China's box.
        ("EPSG:4542", 2_770_000.0, 570_000.0, "exchange x and y"),
        ("EPSG:4547", float("nan"), 3507677.309, "--crs"),
        ("EPSG:4526", 441464.178, 3507677.309, "4534"),
    ],
)
def test_coordinates_without_a_place_are_refused_and_the_mistake_is_named(
    code: str, x: float, y: float, word: str
) -> None:
    lon = 101.0 if code == "EPSG:4542" else 113.0
    good = shapely.Point(*transform_points(TILE_REF, SpatialRef.parse(code), lon, 31.0)[:2])
    with pytest.raises(OutsideArea, match="feature 101") as refusal:
        reframe(batch(SpatialRef.parse(code), good, shapely.Point(x, y)), TILE_REF, "房屋.shp")
    assert str(refusal.value).startswith("房屋.shp: 1 of 2 features")
    assert word in refusal.value.remedy


# Internet maps

inside_box = {"lon": st.floats(72.5, 137.3), "lat": st.floats(1.3, 55.3)}


@given(**inside_box)
def test_gcj02_round_trips_within_a_millimetre(lon: float, lat: float) -> None:
    here = np.array([lon]), np.array([lat])
    assert distance_m(gcj02_to_cgcs2000(*cgcs2000_to_gcj02(*here)), here)[0] < 1e-3


@given(**inside_box)
def test_bd09_round_trips_within_a_millimetre(lon: float, lat: float) -> None:
    here = np.array([lon]), np.array([lat])
    assert distance_m(bd09_to_cgcs2000(*cgcs2000_to_bd09(*here)), here)[0] < 1e-3


def test_the_shift_at_suizhou_is_as_published() -> None:
    lon, lat = np.array([SUIZHOU[0]]), np.array([SUIZHOU[1]])
    x, y = cgcs2000_to_gcj02(lon, lat)
    east, north, _ = np.linalg.inv(enu_to_ecef_matrix(*SUIZHOU, 0.0))[:3] @ np.append(
        geodetic_to_ecef(x, y, 0.0)[0], 1.0
    )
    assert (east, north) == pytest.approx((589, -208), abs=1)


def test_outside_china_gcj02_is_no_shift() -> None:
    lon, lat = np.array([-122.4, 2.35, 151.2]), np.array([37.8, 48.86, -33.9])
    assert np.array_equal(cgcs2000_to_gcj02(lon, lat), (lon, lat))
    assert np.array_equal(gcj02_to_cgcs2000(lon, lat), (lon, lat))


@pytest.mark.parametrize("frame", ["GCJ-02", "BD-09"])
def test_a_shifted_frame_is_a_source_like_any_other(frame: str) -> None:
    ref = SpatialRef.parse(frame)
    x, y, _ = transform_points(TILE_REF, ref, [SUIZHOU[0]], [SUIZHOU[1]])
    here = np.array([SUIZHOU[0]]), np.array([SUIZHOU[1]])
    assert 300 < distance_m((x, y), here)[0] < 2000
    moved, record = reframe(batch(ref, shapely.Point(x[0], y[0])), TILE_REF)
    found = shapely.get_coordinates(moved.geometry).T
    assert distance_m((found[0], found[1]), here)[0] < 1e-3
    assert frame in record.operation


# Earth-centred coordinates


@given(lon=st.floats(-180, 180), lat=st.floats(-90, 90), h=st.floats(-11000, 100000))
def test_ecef_agrees_with_proj_and_round_trips(lon: float, lat: float, h: float) -> None:
    p = geodetic_to_ecef([lon], [lat], [h])
    assert p.dtype == np.float64
    assert p[0] == pytest.approx(GEOCENTRIC.transform(lon, lat, h), abs=2e-8)
    x, y, z = ecef_to_geodetic(p)
    assert np.linalg.norm(geodetic_to_ecef(x, y, z) - p) < 1e-8
    assert z[0] == pytest.approx(h, abs=1e-8)
    assert y[0] == pytest.approx(lat, abs=1e-12)


def test_the_poles_and_the_equator_have_no_singularity() -> None:
    p = np.array([[0, 0, 6356752.314245179], [0, 0, -6356752.314245179], [6378137.0, 0, 0]])
    lon, lat, h = ecef_to_geodetic(p)
    assert lat == pytest.approx([90, -90, 0])
    assert h == pytest.approx([0, 0, 0], abs=1e-8)
    assert np.isfinite(lon).all()


@given(lon=st.floats(-180, 180), lat=st.floats(-90, 90), h=st.floats(-500, 9000))
def test_the_local_frame_is_a_rotation_with_its_origin_in_place(
    lon: float, lat: float, h: float
) -> None:
    m = enu_to_ecef_matrix(lon, lat, h)
    assert m[:3, :3].T @ m[:3, :3] == pytest.approx(np.identity(3), abs=1e-12)
    assert np.linalg.det(m[:3, :3]) == pytest.approx(1.0)
    assert m[:3, 3] == pytest.approx(geodetic_to_ecef(lon, lat, h))
    assert (m @ [0, 0, 10, 1])[:3] == pytest.approx(geodetic_to_ecef(lon, lat, h + 10), abs=1e-6)


def test_east_and_north_of_the_local_frame_point_east_and_north() -> None:
    m = enu_to_ecef_matrix(*SUIZHOU, 50.0)
    east, north = (m @ [1, 0, 0, 1])[:3], (m @ [0, 1, 0, 1])[:3]
    lon, lat, _ = ecef_to_geodetic(np.array([east, north]))
    assert lon[0] > SUIZHOU[0] and lat[0] == pytest.approx(SUIZHOU[1], abs=1e-9)
    assert lat[1] > SUIZHOU[1] and lon[1] == pytest.approx(SUIZHOU[0], abs=1e-9)


def test_tiles_are_wgs84_with_ellipsoidal_heights() -> None:
    assert TILE_REF.code == "EPSG:4326+ellipsoidal"
    assert TILE_REF.vertical == ELLIPSOIDAL == parse_vertical("ellipsoidal")
    assert not TILE_REF.is_projected
    assert SpatialRef.parse("EPSG:4547").is_projected
