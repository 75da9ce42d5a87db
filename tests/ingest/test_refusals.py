"""Refusals that name the mistake: where the data lies, which features, and everything at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

BAD = Path(__file__).parent.parent / "data" / "bad"
V = ["--vertical", "EPSG:5737"]


def squares(path: Path, *corners: tuple[float, float], crs: str = "", **columns: Any) -> Path:
    size = 0.001 if abs(corners[0][0]) < 360 else 20.0
    features = [
        {
            "type": "Feature",
            "properties": {name: values[i] for name, values in columns.items()},
            "geometry": {
                "type": "Polygon",
                "coordinates": [
                    [[x, y], [x + size, y], [x + size, y + size], [x, y + size], [x, y]]
                ],
            },
        }
        for i, (x, y) in enumerate(corners)
    ]
    data: dict[str, Any] = {"type": "FeatureCollection", "features": features}
    if crs:
        name = f"urn:ogc:def:crs:{crs.replace(':', '::')}"
        data["crs"] = {"type": "name", "properties": {"name": name}}
    path.write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
    return path


def raster(path: Path, values: np.ndarray, **profile: Any) -> Path:
    rows, columns = values.shape
    profile = {
        "driver": "GTiff",
        "crs": "EPSG:4490",
        "transform": from_origin(113.3, 31.8, 0.001, 0.001),
        **profile,
    }
    with rasterio.open(
        path, "w", width=columns, height=rows, count=1, dtype=values.dtype, **profile
    ) as dataset:
        dataset.write(values, 1)
    return path


HERE = [(113.3 + 0.002 * i, 31.6) for i in range(5)]


def test_features_without_a_place_are_named(tmp_path: Path, cim_here: Any) -> None:
    places = [*HERE, (0.0, 0.0)]
    source = squares(tmp_path / "点.geojson", *places, 名称=list("甲乙丙丁戊己"))
    done = cim_here("plan", source)
    assert done.code == 3
    assert "1 of 6 features lie outside" in done.err
    assert "numbers 5, counted from 0" in done.err
    assert "missing coordinates" in done.err


def test_a_missing_zone_prefix_is_remedied_with_the_meridian_that_was_declared(
    tmp_path: Path, cim_here: Any
) -> None:
    source = squares(tmp_path / "带.geojson", (441464.0, 3507677.0), crs="EPSG:4526", a=[1])
    done = cim_here("plan", source)
    assert done.code == 3
    assert "without a zone prefix" in done.err
    assert "remedy: --crs EPSG:4547\n" in done.err
    assert cim_here("plan", source, "--crs", "EPSG:4547").code == 0


@pytest.mark.parametrize(
    ("first", "guess"),
    [("38441464.2,3507677.3", "EPSG:4526"), ("113.38,31.69", "EPSG:4490")],
)
def test_what_has_no_frame_is_told_what_its_coordinates_look_like(
    first: str, guess: str, tmp_path: Path, cim_here: Any
) -> None:
    source = tmp_path / "点.csv"
    source.write_text(f"名称,x,y\n学校,{first}\n", encoding="gbk")
    done = cim_here("plan", source)
    assert done.code == 3
    assert f"--crs {guess}" in done.err
    assert cim_here("plan", source, "--crs", guess).code == 0


def test_every_refusal_is_told_at_once(tmp_path: Path, cim_here: Any) -> None:
    source = squares(tmp_path / "反.geojson", (31.6, 113.3), height=[9])
    done = cim_here("ingest", source, "--id", "x", "--data", tmp_path / "data")
    assert done.code == 3
    assert "vertical datum" in done.err
    assert "also refused" in done.err
    assert "x and y are exchanged" in done.err


def test_a_layer_of_an_exotic_type_is_refused_for_its_type(cim_here: Any) -> None:
    source = BAD / "invalid_polyhedralsurface_of_curvepolygon.fgb"
    done = cim_here("plan", source)
    assert done.code == 3
    assert "geometry type" in done.err


def test_a_refused_ingest_leaves_no_scratch(tmp_path: Path, cim_here: Any) -> None:
    source = squares(tmp_path / "高.geojson", *HERE[:2], height=[-10, 9])
    data = tmp_path / "data"
    done = cim_here("ingest", source, "--id", "x", "--kind", "buildings", *V, "--data", data)
    assert done.code == 3
    assert list((data / "jobs").iterdir()) == []


def test_what_a_job_left_after_publishing_goes_with_the_next_run(
    tmp_path: Path, cim_here: Any
) -> None:
    source = squares(tmp_path / "面.geojson", *HERE)
    data, report = tmp_path / "data", tmp_path / "report.json"
    command = ("ingest", source, "--id", "x", "--data", data, "--report", report)
    assert cim_here(*command).code == 0
    shown = cim_here("show", "x", "--data", data, "--json").json()
    assert shown["current"] == 1
    from catalog.database import Catalog

    with Catalog.open(f"sqlite:///{data / 'catalog.db'}") as catalog:
        key = catalog.version("x").job
    left = data / "jobs" / str(key)
    left.mkdir(parents=True)
    (left / "tiles.pmtiles").write_bytes(b"left")
    assert cim_here(*command).code == 0
    assert json.loads(report.read_text("utf-8"))["result"]["unchanged"]
    assert not left.exists()


def test_a_dem_whose_nodata_is_nan_is_published_with_a_report_in_json(
    tmp_path: Path, cim_here: Any
) -> None:
    heights = np.full((40, 40), 80.0)
    heights[:5] = np.nan
    source = raster(tmp_path / "高程.tif", heights, nodata=np.nan)
    report = tmp_path / "report.json"
    done = cim_here(
        *("ingest", source, "--id", "x", *V, "--data", tmp_path / "data", "--report", report)
    )
    assert done.code == 0, done.err

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    written = json.loads(report.read_text("utf-8"), parse_constant=refuse)
    assert written["plan"]["sources"][0]["extra"]["nodata"] == "nan"


def test_a_truncated_hgt_sheet_is_told_from_an_unknown_format(
    tmp_path: Path, cim_here: Any
) -> None:
    source = tmp_path / "N31E113.hgt"
    source.write_bytes(b"\0\x64" * 5000)
    done = cim_here("plan", source, *V)
    assert done.code == 3
    assert "truncated" in done.err


def test_vertical_datums_are_reported_only_where_heights_enter(
    tmp_path: Path, cim_here: Any
) -> None:
    source = squares(tmp_path / "面.geojson", *HERE, 名称=list("甲乙丙丁戊"))
    plan = cim_here("plan", source, "--assume-vertical", "EPSG:5737", "--json").json()
    assert plan["kind"] == "vector"
    assert not [f for f in plan["findings"] if f["rule"].startswith("vertical")]


def test_footprints_with_heights_are_buildings_though_they_carry_a_division_code(
    tmp_path: Path, cim_here: Any
) -> None:
    codes = ["421303"] * 5
    houses = squares(tmp_path / "楼.geojson", *HERE, 楼高=[9.0] * 5, adcode=codes)
    districts = squares(tmp_path / "区.geojson", *HERE, adcode=codes)
    assert cim_here("plan", houses, *V, "--json").json()["kind"] == "buildings"
    assert cim_here("plan", districts, "--json").json()["kind"] == "divisions"


def test_a_key_that_no_column_holds_is_refused_with_the_columns_there_are(
    tmp_path: Path, cim_here: Any
) -> None:
    houses = squares(tmp_path / "楼.geojson", *HERE, 楼高=[9.0] * 5, 编码=list("甲乙丙丁戊"))
    done = cim_here("plan", houses, *V, "--key", "编号")
    assert done.code == 3
    assert "'编号'" in done.err and "编码" in done.err
    assert cim_here("plan", houses, *V, "--key", "编码").code == 0
    # Vector tiles have keys too, for the ids of their features; clouds of points have none.
    assert cim_here("plan", houses, "--kind", "vector", "--key", "编码").code == 0
    cloud = BAD.parent / "pointcloud" / "1.2-with-color.las"
    done = cim_here("plan", cloud, *V, "--crs", "EPSG:4547", "--area", "world", "--key", "编码")
    assert done.code == 3
    assert "have no key" in done.err
