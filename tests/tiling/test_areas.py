"""The location check: it refuses what lies elsewhere and names the mistake behind it."""

from __future__ import annotations

import numpy as np
import pyproj
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiling.areas import CHINA, WORLD, CrsGuess, check_area, explain, parse_area, suggest_crs
from tiling.bounds import Region
from tiling.errors import ConfigError, OutsideArea

SUIZHOU = Region(112.7, 31.3, 114.2, 32.5)

# Somewhere in mainland China, away from the declared area's border.
lons, lats = st.floats(80, 130), st.floats(20, 50)


def project(code: str, lon: float, lat: float) -> tuple[float, float]:
    x, y = pyproj.Transformer.from_crs(4490, code, always_xy=True).transform(lon, lat)
    return float(x), float(y)


def codes(guesses: tuple[CrsGuess, ...]) -> list[str]:
    return [g.code for g in guesses]


@pytest.mark.parametrize(
    ("text", "area"),
    [
        ("china", CHINA),
        (" World ", WORLD),
        ("中国", CHINA),
        ("112.7,31.3,114.2,32.5", SUIZHOU),
        ("112.7, 31.3, 114.2, 32.5", SUIZHOU),
    ],
)
def test_areas_are_named_or_given_by_their_edges(text: str, area: Region) -> None:
    assert parse_area(text) == area


@pytest.mark.parametrize(
    "text",
    ["", "湖北", "1,2,3", "114,31,112,32", "112,32,114,31", "nan,0,1,1", "0,0,1,91", "a,b,c,d"],
)
def test_anything_else_is_no_area(text: str) -> None:
    with pytest.raises(ConfigError, match="area"):
        parse_area(text)


@given(lon=lons, lat=lats)
def test_what_lies_in_china_passes(lon: float, lat: float) -> None:
    check_area([lon], [lat], CHINA)


def test_the_borders_of_the_area_belong_to_it() -> None:
    check_area([SUIZHOU.west, SUIZHOU.east], [SUIZHOU.south, SUIZHOU.north], SUIZHOU)


def test_no_coordinates_lie_nowhere_else() -> None:
    check_area([], [], CHINA)


@given(lon=lons, lat=lats)
def test_swapped_axes_are_caught_and_named(lon: float, lat: float) -> None:
    with pytest.raises(OutsideArea, match="exchanged") as refusal:
        check_area([lat], [lon], CHINA, "行政区.shp")
    assert refusal.value.source == "行政区.shp"
    assert "exchange x and y" in refusal.value.remedy


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_coordinates_that_are_not_finite_are_outside(bad: float) -> None:
    with pytest.raises(OutsideArea, match="1 of 2"):
        check_area([113.0, bad], [31.0, 31.0], WORLD)


def test_the_refusal_counts_and_shows_the_first() -> None:
    with pytest.raises(OutsideArea, match=r"2 of 3 .* 4\.900000, 52\.370000"):
        check_area([113.0, 4.9, 5.0], [31.0, 52.37, 52.0], CHINA)


def test_missing_coordinates_are_recognised() -> None:
    with pytest.raises(OutsideArea, match="missing"):
        check_area([0.0, 113.0], [0.0, 31.0], CHINA)


def test_a_zone_prefix_that_the_declared_crs_lacks_is_named_with_the_right_code() -> None:
    # 38441464 read as EPSG:4547 has no place on Earth: PROJ answers inf.
    with pytest.raises(OutsideArea, match="zone 38") as refusal:
        check_area([np.inf], [np.inf], CHINA, raw=([38441464.178], [3507677.309]))
    assert refusal.value.remedy == "--crs EPSG:4526"


def test_metres_labelled_degrees_are_recognised() -> None:
    with pytest.raises(OutsideArea) as refusal:
        check_area([441464.178], [3507677.309], SUIZHOU)
    assert refusal.value.remedy == "--crs EPSG:4547"


def test_over_all_of_china_the_meridian_cannot_be_told_and_the_rule_is_named() -> None:
    assert len(suggest_crs([441464.178], [3507677.309])) > 5
    diagnosis, remedy = explain([441464.178], [3507677.309])
    assert "without a zone prefix" in diagnosis
    assert "4534" in remedy


@given(zone=st.integers(25, 45), across=st.floats(-1.4, 1.4), lat=st.floats(20, 50))
def test_three_degree_zones_are_told_by_their_prefix(zone: int, across: float, lat: float) -> None:
    lon = 3 * zone + across
    code = f"EPSG:{4513 + zone - 25}"
    assert f"zone {zone}" in pyproj.CRS(code).name
    x, y = project(code, lon, lat)
    area = Region(lon - 1, lat - 1, lon + 1, lat + 1)
    assert codes(suggest_crs([x], [y], area)) == [code]
    assert suggest_crs([y], [x], area) == (
        CrsGuess(code, True, f"x and y are exchanged: {explain([x], [y], area)[0]}"),
    )


@given(zone=st.integers(13, 23), across=st.floats(-2.9, 2.9), lat=st.floats(20, 50))
def test_six_degree_zones_are_told_by_their_prefix(zone: int, across: float, lat: float) -> None:
    lon = 6 * zone - 3 + across
    code = f"EPSG:{4491 + zone - 13}"
    assert f"zone {zone}" in pyproj.CRS(code).name
    x, y = project(code, lon, lat)
    assert codes(suggest_crs([x], [y], Region(lon - 1, lat - 1, lon + 1, lat + 1))) == [code]


@given(meridian=st.integers(25, 45), across=st.floats(-1.4, 1.4), lat=st.floats(20, 50))
def test_the_declared_area_tells_the_meridian_of_eastings_without_prefix(
    meridian: int, across: float, lat: float
) -> None:
    lon = 3 * meridian + across
    code = f"EPSG:{4534 + meridian - 25}"
    assert f"CM {3 * meridian}E" in pyproj.CRS(code).name
    x, y = project(code, lon, lat)
    found = codes(suggest_crs([x], [y], Region(lon - 0.5, lat - 0.5, lon + 0.5, lat + 0.5)))
    assert found == [code]


def test_web_mercator_is_recognised() -> None:
    assert codes(suggest_crs([12621693.3], [3722726.0], SUIZHOU)) == ["EPSG:3857"]


@pytest.mark.parametrize(("x", "y"), [(1e9, 5.0), (-122.4, 37.8), (np.nan, np.nan), (200.0, 300.0)])
def test_where_nothing_fits_nothing_is_guessed(x: float, y: float) -> None:
    assert suggest_crs([x], [y]) == ()
    assert "--area" in explain([x], [y])[1]
