"""Elevation at a place and along a line: both datums, honest voids, clear limits."""

from __future__ import annotations

import csv
import io
from typing import Any

import httpx
import numpy as np
import pytest
from pyproj import Geod

from cim_server.testing.services import ServiceTests
from tests.cim_server.test_terrain import dem_height
from tiling.geoid import parse_vertical

LINE = "113.35,31.65;113.4,31.7;113.45,31.7"
DATUM = parse_vertical("EPSG:5737")


class TestElevation(ServiceTests):
    found = {
        "/terrain/dem/point/113.4,31.7": "application/json",
        "/terrain/dem/point/10,10?version=1": "application/json",
        f"/terrain/dem/profile?line={LINE}": "application/geo+json",
        f"/terrain/dem/profile?line={LINE}&format=csv&samples=5": "text/csv",
    }
    missing = (
        "/terrain/none/point/113.4,31.7",
        "/terrain/divisions/point/113.4,31.7",
        f"/terrain/none/profile?line={LINE}",
        "/terrain/dem/point/113.4,31.7?version=9",
    )


def test_a_point_has_a_height_in_both_datums(client: httpx.Client) -> None:
    body = client.get("/terrain/dem/point/113.4,31.7").json()
    assert body["orthometric_m"] == pytest.approx(dem_height(np.array(31.7)), abs=1e-3)
    separation = float(DATUM.separation(113.4, 31.7))
    assert body["separation_m"] == pytest.approx(separation, abs=2e-3)
    assert body["ellipsoidal_m"] - body["orthometric_m"] == pytest.approx(separation, abs=2e-3)
    assert body["datums"]["orthometric"]["code"] == "EPSG:5737"
    assert "decimetres" in body["datums"]["orthometric"]["approximated"]
    assert "grid" not in body["datums"]["orthometric"]
    assert body["reason"] is None


@pytest.mark.parametrize(
    ("place", "reason"),
    [("10,10", "outside the elevation model"), ("113.302,31.798", "a void of the elevation model")],
)
def test_where_nothing_is_known_the_answer_is_null_and_says_why(
    client: httpx.Client, place: str, reason: str
) -> None:
    body = client.get(f"/terrain/dem/point/{place}").json()
    assert (body["orthometric_m"], body["ellipsoidal_m"], body["separation_m"]) == (None,) * 3
    assert body["reason"] == reason


def test_a_profile_is_what_points_along_it_say(client: httpx.Client) -> None:
    feature = client.get(f"/terrain/dem/profile?line={LINE}&samples=21").json()
    facts, line = feature["properties"], feature["geometry"]["coordinates"]
    assert len(line) == len(facts["distance_m"]) == len(facts["orthometric_m"]) == 21
    for place, height, ellipsoidal in list(
        zip(line, facts["orthometric_m"], facts["ellipsoidal_m"], strict=True)
    )[::5]:
        body = client.get(f"/terrain/dem/point/{place[0]},{place[1]}").json()
        assert body["orthometric_m"] == pytest.approx(height, abs=2e-3)
        assert body["ellipsoidal_m"] == pytest.approx(ellipsoidal, abs=2e-3)
    lon, lat = np.array([p.split(",") for p in LINE.split(";")], dtype=float).T
    assert facts["length_m"] == pytest.approx(Geod(ellps="WGS84").line_length(lon, lat), abs=0.5)
    assert facts["max_m"] == pytest.approx(float(dem_height(np.array(31.65))), abs=0.1)
    # Down to the north, then level along the parallel.
    assert facts["descent_m"] == pytest.approx(facts["max_m"] - facts["min_m"], abs=0.1)
    assert facts["ascent_m"] < 0.5 and facts["voids"] == 0


def test_a_posted_line_and_csv_say_the_same(client: httpx.Client) -> None:
    points = [[float(v) for v in p.split(",")] for p in LINE.split(";")]
    geometry = {"type": "LineString", "coordinates": [[*p, 12.0] for p in points]}
    expected = client.get(f"/terrain/dem/profile?line={LINE}&spacing=500").json()
    for body in (geometry, {"type": "Feature", "properties": {}, "geometry": geometry}):
        answer = client.post("/terrain/dem/profile?spacing=500", json=body)
        assert answer.json() == expected
        assert answer.headers["cache-control"] == "no-store"
    assert expected["properties"]["spacing_m"] <= 500
    text = client.post("/terrain/dem/profile?spacing=500&format=csv", json=geometry).text
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [float(r["orthometric_m"]) for r in rows] == expected["properties"]["orthometric_m"]
    assert [float(r["distance_m"]) for r in rows] == expected["properties"]["distance_m"]


def test_a_line_that_leaves_the_data_has_gaps(client: httpx.Client) -> None:
    path = "/terrain/dem/profile?line=113.2,31.7;113.4,31.7&samples=9"
    facts = client.get(path).json()["properties"]
    assert facts["voids"] == 4 and facts["orthometric_m"][:4] == [None] * 4
    assert None not in facts["orthometric_m"][4:]
    rows = list(csv.DictReader(io.StringIO(client.get(path + "&format=csv").text)))
    assert [r["ellipsoidal_m"] == "" for r in rows] == [True] * 4 + [False] * 5
    nowhere = client.get("/terrain/dem/profile?line=10,10;11,10").json()["properties"]
    assert (nowhere["min_m"], nowhere["ascent_m"], nowhere["voids"]) == (None, 0.0, 256)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("", "line"),
        ("line=113.3", "list of places"),
        ("line=113.3,31.7", "1 places"),
        ("line=113.3,31.7;113.3,31.7", "0 km"),
        ("line=113.3,31.7;a,b", "list of places"),
        ("line=31.7,113.3;31.8,113.4", "31.7,113.3"),
        ("line=113.3,31.7;nan,31.8", "nan"),
        ("line=-179,0;179,0", "km long"),
        (f"line={LINE}&samples=1", "samples"),
        (f"line={LINE}&samples=10001", "samples"),
        (f"line={LINE}&samples=5&spacing=5", "exclude"),
        (f"line={LINE}&spacing=0.01", "10,000 is the most"),
        (f"line={LINE}&format=xml", "format"),
    ],
)
def test_a_line_that_makes_no_sense_is_refused_with_the_reason(
    client: httpx.Client, query: str, said: str
) -> None:
    answer = client.get(f"/terrain/dem/profile?{query}")
    assert answer.status_code == 400, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert said in answer.json()["detail"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        {"type": "Point", "coordinates": [113, 31]},
        {"type": "LineString"},
        {"type": "LineString", "coordinates": [[113], [114, 31]]},
        {"type": "LineString", "coordinates": [["a", "b"], [114, 31]]},
        {"type": "Feature", "geometry": None},
        {"type": "LineString", "coordinates": [[113, 31]] * 6000},
    ],
    ids=lambda b: str(b)[:60],
)
def test_a_body_that_is_no_line_is_refused(client: httpx.Client, body: Any) -> None:
    answer = client.post("/terrain/dem/profile", json=body)
    assert answer.status_code == 400, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("place", ["200,10", "113,95", "a,b", "nan,10"])
def test_a_place_off_the_globe_is_refused(client: httpx.Client, place: str) -> None:
    assert client.get(f"/terrain/dem/point/{place}").status_code == 400
