"""What is at a place, and which feature has an id: the same as the source says."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import shapely
from pyproj import Geod

from cim_server.testing.services import ServiceTests
from ingest.manifest import IngestOptions
from ingest.run import Resources, ingest
from ingest.workspace import Workspace
from tests.cim_server.conftest import City, serving
from tests.commands import DEMO_SOURCES
from tiling.tilers.base import SilentProgress

GEOD = Geod(ellps="WGS84")
SQUARES = 400


def squares() -> list[dict[str, Any]]:
    """Squares side by side, a hole in some, a line and a point on each; types that JSON lacks."""
    features = []
    for n in range(SQUARES):
        west, south = 113.3 + n % 20 * 0.001, 31.6 + n // 20 * 0.001
        shape = shapely.box(west, south, west + 0.001, south + 0.001)
        if n % 7 == 0:
            shape = shape.difference(shapely.Point(west + 0.0005, south + 0.0005).buffer(0.0001))
        features.append((shape, {"名称": f"地块 {n}", "n": n, "ratio": n / 7, "day": "2026-01-02"}))
    return [
        {"type": "Feature", "geometry": json.loads(shapely.to_geojson(g)), "properties": p}
        for g, p in features
    ]


def publish(data: Path, name: str, path: Path, **options: Any) -> None:
    declared = IngestOptions(sources=(path,), id=name, **options)
    ingest(declared, Workspace(data), Resources(workers=1), SilentProgress())


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> City:
    folder = tmp_path_factory.mktemp("features")
    path = folder / "squares.geojson"
    document = {"type": "FeatureCollection", "features": squares()}
    path.write_text(json.dumps(document, ensure_ascii=False), "utf-8")
    publish(folder / "data", "地块", path, kind="vector")
    publish(folder / "data", "道路", DEMO_SOURCES / "wuhan_roads.geojson", kind="vector")
    return City(folder / "data")


@pytest.fixture(scope="module")
def client(city: City) -> Iterator[httpx.Client]:
    with serving(city.settings()) as running:
        yield running


class TestFeatures(ServiceTests):
    found = {
        "/features/地块/at?lon=113.3005&lat=31.6015": "application/geo+json",
        "/features/地块/items/3": "application/geo+json",
        "/features/地块/items/3?version=1": "application/geo+json",
    }
    missing = (
        "/features/地块/items/400",
        "/features/none/items/1",
        "/features/none/at?lon=1&lat=1",
        "/features/地块/items/3?version=2",
    )


def at(client: httpx.Client, asset: str, **query: Any) -> list[dict[str, Any]]:
    answer = client.get(f"/features/{asset}/at", params=query)
    assert answer.status_code == 200, answer.text
    features: list[dict[str, Any]] = answer.json()["features"]
    return features


def test_a_place_lies_in_the_polygons_that_hold_it(client: httpx.Client) -> None:
    source = [(shapely.from_geojson(json.dumps(f["geometry"])), f["properties"]) for f in squares()]
    places = np.random.default_rng(1).uniform([113.299, 31.599], [113.321, 31.621], (60, 2))
    edges = [(113.301, 31.6015), (113.301, 31.601), (113.3005, 31.6005)]
    for lon, lat in [*places.tolist(), *edges]:
        found = at(client, "地块", lon=lon, lat=lat)
        here = shapely.Point(lon, lat)
        expected = {p["n"] for g, p in source if g.intersects(here)}
        assert {f["properties"]["n"] for f in found} == expected
        assert all(f["distance_m"] == 0 for f in found)


def test_a_feature_comes_back_as_it_was_read(client: httpx.Client) -> None:
    source = squares()
    for n in (0, 3, 7, 399):
        feature = client.get(f"/features/地块/items/{n}").json()
        assert feature["properties"] == source[n]["properties"] | {
            "day": feature["properties"]["day"]
        }
        assert feature["properties"]["day"].startswith("2026-01-02")
        ours = shapely.from_geojson(json.dumps(feature["geometry"]))
        theirs = shapely.from_geojson(json.dumps(source[n]["geometry"]))
        assert ours.equals(theirs)
        (here,) = [link["href"] for link in feature["links"] if link["rel"] == "self"]
        assert client.get(here).json() == feature


def test_lines_are_found_within_a_radius_the_nearest_first(client: httpx.Client) -> None:
    roads = json.loads((DEMO_SOURCES / "wuhan_roads.geojson").read_text("utf-8"))["features"]
    lines = [shapely.from_geojson(json.dumps(f["geometry"])) for f in roads]
    middle = shapely.centroid(shapely.GeometryCollection(lines))
    radius = 150.0
    found = at(client, "道路", lon=middle.x, lat=middle.y, radius=radius, limit=100)
    assert found
    away = [f["distance_m"] for f in found]
    assert away == sorted(away)
    for feature in found:
        line = shapely.from_geojson(json.dumps(feature["geometry"]))
        # Along the ellipsoid, by a densified line.
        steps = line.interpolate(np.linspace(0, 1, 4000), normalized=True)
        lon, lat = shapely.get_x(steps), shapely.get_y(steps)
        own = np.full(len(lon), middle.x), np.full(len(lon), middle.y)
        _, _, true = GEOD.inv(*own, lon, lat)
        assert math.isclose(feature["distance_m"], true.min(), rel_tol=0.01, abs_tol=1.0)
    assert at(client, "道路", lon=middle.x, lat=middle.y, radius=radius, limit=1) == found[:1]
    assert at(client, "道路", lon=100, lat=10, radius=radius) == []


@pytest.mark.parametrize(
    "path",
    [
        "/features/地块/at?lon=1",
        "/features/地块/at?lon=181&lat=0",
        "/features/地块/at?lon=nan&lat=0",
        "/features/地块/at?lon=1&lat=1&radius=-1",
        "/features/地块/at?lon=1&lat=1&radius=1e9",
        "/features/地块/at?lon=1&lat=1&limit=0",
        "/features/地块/at?lon=1&lat=1&color=red",
        "/features/地块/items/abc",
        "/features/地块/items/-1",
        "/features/地块/items/9999999999999999999999",
    ],
)
def test_meaningless_requests_are_400_problems(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 400, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
