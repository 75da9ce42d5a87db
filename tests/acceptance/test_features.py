"""The features of every asset as GeoParquet: whole, valid, and equal to their sources.

Sources are read with the standard library; the files with plain pyarrow.
"""

from __future__ import annotations

import csv
import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely

from tests.acceptance.city import CRS, City
from tests.acceptance.conftest import Assets
from tests.acceptance.geodesy import reproject, to_gcj02
from tests.acceptance.serving import BASE, Client
from tests.commands import DEMO_SOURCES

GEOJSON = {
    "hubei-cities": "hubei_cities_cgcs2000",
    "hubei-counties": "hubei_counties_cgcs2000",
    "suizhou-counties": "suizhou_counties_cgcs2000",
    "shanghai-landuse": "shanghai_landuse",
    "shanghai-water": "shanghai_water",
    "shanghai-roads": "shanghai_roads",
    "shanghai-pois": "shanghai_pois",
    "shanghai-buildings": "shanghai_buildings",
    "wuhan-water": "wuhan_water",
    "wuhan-roads": "wuhan_roads",
    "wuhan-buildings": "wuhan_buildings",
}
OTHERS = {"suizhou-places", "washington-buildings"}


def geojson(name: str) -> list[dict[str, Any]]:
    document = json.loads((DEMO_SOURCES / f"{name}.geojson").read_text("utf-8-sig"))
    features: list[dict[str, Any]] = (
        document if isinstance(document, list) else document["features"]
    )
    return features


def rows_of(path: Path) -> Iterator[tuple[int, Any, dict[str, Any]]]:
    """Yield ordinal, geometry and attributes of every row."""
    with pq.ParquetFile(path) as file:
        geo = json.loads(file.metadata.metadata[b"geo"])
        for row in file.read().to_pylist():
            ordinal = row.pop("cim_feature_id")
            geometry = shapely.from_wkb(row.pop(geo["primary_column"]))
            row.pop(geo["columns"][geo["primary_column"]]["covering"]["bbox"]["xmin"][0])
            yield ordinal, geometry, row


def same(found: Any, wanted: Any) -> bool:
    return bool(found == wanted and isinstance(found, bool) == isinstance(wanted, bool))


def test_every_vector_asset_is_compared(demo: Assets) -> None:
    ids = {asset["id"] for asset in demo.of("buildings", "vector", "divisions")}
    assert ids == set(GEOJSON) | OTHERS


@pytest.mark.parametrize("asset", sorted(set(GEOJSON) | OTHERS))
def test_the_file_is_geoparquet_by_its_specification(demo: Assets, asset: str) -> None:
    path = demo.store(asset, "geoparquet")
    with pq.ParquetFile(path) as file:
        geo = json.loads(file.metadata.metadata[b"geo"])
        assert geo["version"] == "1.1.0"
        column = geo["columns"][geo["primary_column"]]
        assert column["encoding"] == "WKB"
        # No CRS is OGC:CRS84 by the specification; null would be "unknown".
        assert column.get("crs", "OGC:CRS84") is not None
        table = file.read()
        geometry = shapely.from_wkb(table.column(geo["primary_column"]).to_numpy())
        np.testing.assert_allclose(column["bbox"], shapely.total_bounds(geometry), atol=1e-9)
        assert {g.geom_type for g in geometry} == set(column["geometry_types"])
        boxes = np.array(
            [
                table.column(path[0]).combine_chunks().field(path[1]).to_numpy()
                for path in column["covering"]["bbox"].values()
            ]
        )
        names = list(column["covering"]["bbox"])
        bounds = shapely.bounds(geometry).T[
            [("xmin", "ymin", "xmax", "ymax").index(n) for n in names]
        ]
        low = np.array([n.endswith("min") for n in names])
        assert (boxes[low] <= bounds[low] + 1e-12).all()
        assert (boxes[~low] >= bounds[~low] - 1e-12).all()
        assert file.metadata.num_rows == demo.named(asset)["info"]["features"]


@pytest.mark.parametrize("asset", sorted(GEOJSON))
def test_features_of_geojson_are_all_there_with_every_attribute(demo: Assets, asset: str) -> None:
    source = geojson(GEOJSON[asset])
    seen = set()
    for ordinal, geometry, row in rows_of(demo.store(asset, "geoparquet")):
        seen.add(ordinal)
        wanted = source[ordinal]["properties"]
        for name in wanted.keys() | row.keys():
            if name.startswith("cim:"):
                continue
            assert same(row.get(name), wanted.get(name)), (asset, ordinal, name)
        shape = shapely.geometry.shape(source[ordinal]["geometry"])
        assert shapely.hausdorff_distance(geometry, shape) < 1e-7, (asset, ordinal)
    areas = {"Polygon", "MultiPolygon"}
    kept = {
        ordinal
        for ordinal, feature in enumerate(source)
        if not asset.endswith("-buildings") or feature["geometry"]["type"] in areas
    }
    # Points and lines among buildings are labels and walls; everything else is there.
    assert seen == kept
    assert len(seen) == demo.named(asset)["info"]["features"]


def test_what_was_left_out_is_counted(demo: Assets, demo_server: Client) -> None:
    with (DEMO_SOURCES / "suizhou_towns_villages_gcj02.csv").open(encoding="utf-8-sig") as file:
        counts = {"suizhou-places": sum(1 for _ in csv.DictReader(file))}
    counts |= {asset: len(geojson(name)) for asset, name in GEOJSON.items()}
    for asset, count in counts.items():
        found = demo_server.get(f"{BASE}/stac/search?ids={asset}").json()["features"][0]
        dropped = found["properties"]["cim:quality"].get("drop", 0)
        assert count - dropped == demo.named(asset)["info"]["features"], asset


def test_places_of_a_csv_keep_their_codes_as_text(demo: Assets) -> None:
    source = DEMO_SOURCES / "suizhou_towns_villages_gcj02.csv"
    with source.open(encoding="utf-8-sig", newline="") as file:
        wanted = list(csv.DictReader(file))
    found = {o: row for o, _, row in rows_of(demo.store("suizhou-places", "geoparquet"))}
    assert found
    for ordinal, row in found.items():
        for name, text in wanted[ordinal].items():
            if name is None:
                continue
            value = row.get(name)
            if isinstance(value, bool):
                value = "ft"[value]
            # Numbers are numbers, unless a leading zero says that they are codes.
            if isinstance(value, (int, float)):
                assert value == float(text) and not text.startswith("0"), (ordinal, name)
            else:
                assert (value or "") == (text or ""), (ordinal, name)


def test_the_surveyed_city_is_equal_to_its_source(city: City, white_model: Assets) -> None:
    found = list(rows_of(white_model.store("suizhou", "geoparquet")))
    assert sorted(ordinal for ordinal, _, _ in found) == list(range(len(city.rows)))
    for ordinal, geometry, row in found:
        for name, value in city.rows[ordinal].items():
            kept = row[name]
            kept = kept.date() if isinstance(kept, dt.datetime) else kept
            assert kept == value, (ordinal, name)
        outline = shapely.transform(
            city.outlines[ordinal],
            lambda xy: np.column_stack(reproject(CRS, 4490, xy[:, 0], xy[:, 1])),
        )
        # A nanodegree is a tenth of a millimetre.
        assert shapely.hausdorff_distance(geometry, outline) < 1e-9


def test_places_of_an_internet_map_are_shifted_back_to_a_millimetre(demo: Assets) -> None:
    found = [(g, row) for _, g, row in rows_of(demo.store("suizhou-places", "geoparquet"))]
    lon, lat = shapely.get_coordinates([g for g, _ in found]).T
    shown = np.array([[row["longitude_gcj02"], row["latitude_gcj02"]] for _, row in found])
    forth = np.stack(to_gcj02(lon, lat), axis=1)
    assert np.abs(forth - shown).max() < 1e-8
    assert np.abs(np.stack([lon, lat], axis=1) - shown).min() > 1e-3
