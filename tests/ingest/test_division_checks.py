"""Divisions: a sound set gives no finding, damage of known size is found with that size."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Geod

from ingest.quality.divisions import Code, check_divisions
from tests.commands import DEMO_SOURCES, Command
from tiling.batches import FeatureBatch
from tiling.crs import TILE_REF
from tiling.findings import Finding, Findings

GEOD = Geod(ellps="WGS84")
WEST, SOUTH, SIDE = 113.0, 31.0, 0.1


def counties() -> dict[str, shapely.Geometry]:
    """Sixteen counties of four cities of a province, with vertices where they meet."""
    found: dict[str, shapely.Geometry] = {}
    for row in range(4):
        for column in range(4):
            city, county = 1 + row // 2 * 2 + column // 2, 1 + row % 2 * 2 + column % 2
            west, south = WEST + column * SIDE, SOUTH + row * SIDE
            found[f"42{city:02d}{county:02d}"] = shapely.box(west, south, west + SIDE, south + SIDE)
    return found


def whole() -> dict[str, shapely.Geometry]:
    """The same with their cities and province."""
    own = counties()
    found = {**own, "420000": shapely.union_all(list(own.values()))}
    for city in {key[:4] for key in own}:
        found[f"{city}00"] = shapely.union_all([g for k, g in own.items() if k[:4] == city])
    return found


def batch(divisions: dict[str, shapely.Geometry], prefix: str = "", **columns: Any) -> FeatureBatch:
    table = {"名称": [f"区划{key}" for key in divisions], "gb": [prefix + k for k in divisions]}
    return FeatureBatch(
        TILE_REF,
        np.arange(len(divisions)),
        np.array(list(divisions.values()), dtype=object),
        pa.table({**table, **columns}),
    )


def check(divisions: FeatureBatch) -> dict[str, Finding]:
    findings = Findings()
    check_divisions(divisions, findings)
    return {finding.rule: finding for finding in findings}


def area_m2(shape: shapely.Geometry) -> float:
    return abs(GEOD.geometry_area_perimeter(shape)[0])


@pytest.mark.parametrize("prefix", ["", "156"])
def test_a_sound_set_of_three_levels_has_no_finding(prefix: str) -> None:
    assert check(batch(whole(), prefix)) == {}


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("420000", "42"), ("421300", "4213"), ("421303", "421303"), ("156421303", "421303"),
        ("156420000", "42"), ("421303001", "421303001"), ("421303001000", "421303001"),
        ("421303001201", "421303001201"), ("421303000000", "421303"), ("42", "42"),
        ("421371", "421371"), (" 421303 ", "421303"),
    ],
)  # fmt: skip
def test_codes_are_read_with_and_without_the_country(text: str, key: str) -> None:
    assert Code.parse(text) == Code(key)


@pytest.mark.parametrize("text", ["", "42130", "4213031", "42130A", "随州", "000000", "1564213031"])
def test_what_is_no_code_is_none(text: str) -> None:
    assert Code.parse(text) is None


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(sorted(counties())), st.floats(0.001, 0.04), st.floats(0.001, 0.04))
def test_a_hole_is_found_with_its_area(key: str, wide: float, high: float) -> None:
    divisions = counties()
    west, south, east, north = divisions[key].bounds
    hole = shapely.box(west + 0.01, south + 0.01, west + 0.01 + wide, south + 0.01 + high)
    divisions[key] = divisions[key].difference(hole)
    found = check(batch(divisions))
    assert set(found) == {"D07-gap"}
    assert found["D07-gap"].count == 1
    told, place = str(found["D07-gap"].samples[0]).split(" m² at ")
    assert math.isclose(float(told.replace(",", "")), area_m2(hole), rel_tol=0.01)
    assert shapely.covers(hole.buffer(1e-4), shapely.Point(*map(float, place.split(", "))))


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(["420101", "420203", "420302"]), st.floats(1e-4, 0.03))
def test_an_overlap_is_found_with_its_area(key: str, by: float) -> None:
    divisions = counties()
    west, south, east, north = divisions[key].bounds
    divisions[key] = shapely.box(west, south, east + by, north)
    beyond = shapely.box(east, south, east + by, north)
    others = [g.intersection(beyond) for k, g in divisions.items() if k != key]
    expected = sum(area_m2(shape) for shape in others if shape.area)
    found = check(batch(divisions))
    if expected == 0:
        assert "D06-overlap" not in found
        return
    assert found["D06-overlap"].count == 1
    assert f"区划{key}" in str(found["D06-overlap"].samples[0])
    told = float(
        str(found["D06-overlap"].samples[0]).split(": ")[1].split(" m²")[0].replace(",", "")
    )
    assert math.isclose(told, expected, rel_tol=0.01)


def test_a_gap_too_narrow_for_a_hole_is_found() -> None:
    divisions = counties()
    west, south, east, north = divisions["420101"].bounds
    divisions["420101"] = shapely.box(west, south, east - 5e-5, north)  # five metres, open below
    assert {"D08-gap-narrow"} <= set(check(batch(divisions)))


def test_codes_that_are_wrong_repeated_or_orphaned_are_named() -> None:
    divisions = list(whole())
    names = {key: f"区划{key}" for key in divisions}
    codes = {key: key for key in divisions}
    codes["420101"], codes["420202"], codes["420303"] = "42010X", "420201", "429903"
    names["420404"] = ""
    shapes = whole()
    table = pa.table({"name": list(names.values()), "adcode": list(codes.values())})
    found = check(
        FeatureBatch(
            TILE_REF, np.arange(len(shapes)), np.array(list(shapes.values()), dtype=object), table
        )
    )
    assert found["D01-name-empty"].count == 1
    assert list(found["D03-code-format"].samples) == ["区划420101: 42010X"]
    assert "420201" in str(found["D05-code-repeated"].samples[0])
    assert list(found["D09-parent-missing"].samples) == ["区划420303 (429903)"]
    assert "D04-code-parts" not in found


def test_parts_of_one_division_are_no_repetition() -> None:
    shapes = counties()
    keys = [*shapes, "420101"]
    island = shapely.box(WEST + 1, SOUTH + 1, WEST + 1.05, SOUTH + 1.05)
    table = pa.table({"name": [f"区划{k}" for k in keys], "gb": keys})
    every = np.array([*shapes.values(), island], dtype=object)
    found = check(FeatureBatch(TILE_REF, np.arange(len(keys)), every, table))
    assert set(found) == {"D04-code-parts"}


def test_a_child_outside_its_parent_is_found_by_its_code() -> None:
    divisions = whole()
    first, second = divisions["420101"], divisions["420404"]
    divisions["420101"], divisions["420404"] = second, first
    found = check(batch(divisions))
    assert found["D10-outside-parent"].count == 2
    assert {"区划420101", "区划420404"} == {
        str(sample).split(" beyond")[0] for sample in found["D10-outside-parent"].samples
    }


def test_numbers_from_a_spreadsheet_are_codes_and_no_codes_is_said() -> None:
    sound = batch(whole())
    numbers = pa.table({"名称": sound.attributes.column("名称"),
                        "gb": [float(key) for key in whole()]})  # fmt: skip
    assert check(FeatureBatch(TILE_REF, sound.ids, sound.geometry, numbers)) == {}
    nameless = pa.table({"地类": ["a"] * 16})
    shapes = np.array(list(counties().values()), dtype=object)
    assert set(check(FeatureBatch(TILE_REF, np.arange(16), shapes, nameless))) == {
        "D02-codes-missing"
    }


def test_the_real_counties_of_suizhou_and_a_damaged_copy(cim_here: Command, tmp_path: Path) -> None:
    source = DEMO_SOURCES / "suizhou_counties_cgcs2000.geojson"

    def rules(path: Path, name: str) -> dict[str, int]:
        done = cim_here("ingest", path, "--id", name, "--kind", "divisions", "--json",
                        "--data", tmp_path / "data")  # fmt: skip
        assert done.code == 0, done.err
        return {f["rule"]: f["count"] for f in done.json()["findings"] if f["rule"][0] == "D"}

    assert rules(source, "好") == {}
    document = json.loads(source.read_text("utf-8"))
    moved = document["features"][0]
    shape = shapely.from_geojson(json.dumps(moved["geometry"]))
    shifted = shapely.transform(shape, lambda xy: xy + (0.005, 0.003))  # as GCJ-02 shifts
    moved["geometry"] = json.loads(shapely.to_geojson(shifted))
    for field in ("gb", "adcode"):
        document["features"][1]["properties"][field] = moved["properties"][field]
    damaged = tmp_path / "damaged.geojson"
    damaged.write_text(json.dumps(document), "utf-8")
    found = rules(damaged, "坏")
    assert {"D05-code-repeated", "D06-overlap"} <= set(found), found


def test_counties_of_the_province_itself_are_nobody_s_gap(
    cim_here: Command, tmp_path: Path
) -> None:
    """Hubei has four of them; in a set of two levels they are there twice."""
    sources = [DEMO_SOURCES / f"hubei_{name}_cgcs2000.geojson" for name in ("cities", "counties")]
    done = cim_here("ingest", *sources, "--id", "省", "--kind", "divisions", "--json",
                    "--max-zoom", "6", "--data", tmp_path / "data")  # fmt: skip
    assert done.code == 0, done.err
    found = {f["rule"]: f["count"] for f in done.json()["findings"] if f["rule"][0] == "D"}
    # Two lakes' worth of land that no county of the source claims.
    assert found == {"D04-code-parts": 4, "D07-gap": 2}
