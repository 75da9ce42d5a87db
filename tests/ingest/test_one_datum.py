"""Datums and grids of an ingest: one for all its sources, and known by content."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyogrio
import pytest
import rasterio
import shapely

from tests.commands import Command


def footprints(path: Path, crs: str) -> Path:
    table = pa.table(
        {
            "height": [12.0],
            "地面高": [50.0],
            "geometry": shapely.to_wkb([shapely.box(113.38, 31.69, 113.381, 31.691)]),
        }
    )
    pyogrio.write_arrow(table, path, geometry_name="geometry", geometry_type="Polygon", crs=crs)
    return path


def grid(path: Path, separation_m: float) -> None:
    with rasterio.open(
        path, "w", driver="GTiff", width=40, height=40, count=1, dtype="float32",
        crs="EPSG:4326", transform=rasterio.Affine(0.1, 0, 112.0, 0, -0.1, 33.0),
    ) as dataset:  # fmt: skip
        dataset.write(np.full((1, 40, 40), separation_m, np.float32))


def test_sources_of_different_datums_are_not_one_asset(cim_here: Command, tmp_path: Path) -> None:
    first = footprints(tmp_path / "一.gpkg", "EPSG:4326+5773")
    second = footprints(tmp_path / "二.gpkg", "EPSG:4326")
    options = ["--kind", "buildings", "--id", "b", "--data", tmp_path / "data"]
    done = cim_here("ingest", first, second, *options, "--assume-vertical", "EPSG:5737")
    assert done.code == 3, done.err
    assert "二.gpkg" in done.err
    assert "remedy" in done.err
    assert cim_here("ingest", first, second, *options, "--vertical", "EPSG:5737").code == 0


def test_another_grid_under_the_same_name_is_another_ingest(
    cim_here: Command, tmp_path: Path
) -> None:
    source, geoid = footprints(tmp_path / "楼.gpkg", "EPSG:4490"), tmp_path / "似大地水准面.tif"
    options = ["--kind", "buildings", "--id", "b", "--data", tmp_path / "data", "--json"]
    bottoms = []
    for separation, version in ((-18.0, 1), (-19.0, 2)):
        grid(geoid, separation)
        made = cim_here("ingest", source, *options, "--vertical", f"grid:{geoid}")
        assert made.code == 0, made.err
        assert made.json()["result"]["version"] == version
        bottoms.append(made.json()["result"]["bbox"][2])
    assert bottoms[1] - bottoms[0] == pytest.approx(-1.0, abs=0.01)


def test_a_failed_overwrite_keeps_the_file_that_was_there(
    cim_here: Command, tmp_path: Path
) -> None:
    data, out = tmp_path / "data", tmp_path / "楼.geojson"
    source = footprints(tmp_path / "楼.gpkg", "EPSG:4490")
    options = ["--kind", "buildings", "--id", "b", "--data", data, "--vertical", "EPSG:5737"]
    assert cim_here("ingest", source, *options).code == 0
    export = ["export", "b", out, "--format", "geojson", "--data", data, "--overwrite"]
    assert cim_here(*export).code == 0
    before = out.read_bytes()
    assert cim_here(*export).code == 0
    assert out.read_bytes() == before
    store = next((data / "stores").rglob("*.parquet"))
    store.write_bytes(store.read_bytes()[:100])
    assert cim_here(*export).code != 0
    assert out.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "楼.geojson", "楼.gpkg"]
