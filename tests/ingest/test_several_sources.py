"""Several files, no two of which have the same columns, as one asset."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import shapely
from pyogrio.raw import write_arrow

from tiling.tilers.extsort import common_type

V = ["--vertical", "EPSG:5737"]


def district(folder: Path, name: str, row: int, **columns: Any) -> Path:
    """A shapefile in GBK with three houses of 10 m."""
    west = 441_000 + 40 * np.arange(3)
    wkb = shapely.to_wkb(shapely.box(west, 3_507_000 + 40 * row, west + 10, 3_507_010 + 40 * row))
    path = folder / f"{name}.shp"
    write_arrow(
        pa.table({**columns, "geometry": pa.array(wkb, pa.binary())}),
        str(path),
        driver="ESRI Shapefile",
        geometry_type="Polygon",
        geometry_name="geometry",
        crs="EPSG:4547",
        encoding="GBK",
    )
    path.with_suffix(".cpg").unlink()
    return path


@pytest.fixture
def districts(tmp_path: Path) -> list[Path]:
    keys = [[f"{d}-{i}" for i in range(3)] for d in "甲乙丙"]
    whole = pa.array([9, 12, 15], pa.int32())
    return [
        district(tmp_path, "曾都区", 0, 编码=keys[0], 楼高=[9.5, 12.0, 15.5], 楼层=whole),
        district(
            tmp_path, "随县", 1, 编码=keys[1], 楼高=["9", "12.5", ""], 备注=["甲级", "", "镇"]
        ),
        district(tmp_path, "广水市", 2, 编码=keys[2], 楼高=whole, 楼层=whole),
    ]


def test_columns_that_some_files_lack_are_null_there_and_types_widen_with_a_report(
    tmp_path: Path, districts: list[Path], cim_here: Any
) -> None:
    data, report = tmp_path / "data", tmp_path / "r.json"
    done = cim_here(
        "ingest", *districts, "--id", "x", "--key", "编码", *V, "--data", data, "--report", report
    )
    assert done.code == 0, done.err
    found = json.loads(report.read_text("utf-8"))["findings"]
    told = {f["message"]: f["samples"] for f in found if f["rule"].startswith("column-")}
    assert told == {
        "1 of 3 sources have no column '楼层': null there": ["随县.shp"],
        "2 of 3 sources have no column '备注': null there": ["曾都区.shp", "广水市.shp"],
        "column '楼高' is double or int32 or string, depending on the source: taken as string": [],
    }
    stores = cim_here("show", "x", "--data", data, "--json").json()["versions"][0]["stores"]
    path = next(s["path"] for s in stores if s["role"] == "features")
    table = pa.parquet.read_table(data / path).sort_by("编码").to_pylist()
    by_key = {row["编码"]: row for row in table}
    assert len(by_key) == 9
    assert [by_key[f"乙-{i}"]["cim:height_m"] for i in (0, 1)] == [9.0, 12.5]
    assert [by_key[f"丙-{i}"]["楼高"] for i in range(3)] == ["9", "12", "15"]
    assert by_key["甲-1"]["楼高"] == "12" and by_key["甲-0"]["cim:height_m"] == 9.5
    assert by_key["乙-0"]["楼层"] is None and by_key["乙-0"]["备注"] == "甲级"
    assert by_key["丙-0"]["备注"] is None and by_key["丙-0"]["cim:layer"] == "广水市"
    assert cim_here("check", "x", "--data", data).code == 0


def test_a_file_that_calls_its_heights_otherwise_is_refused_by_name(
    tmp_path: Path, districts: list[Path], cim_here: Any
) -> None:
    other = district(tmp_path, "高新区", 3, 编码=list("子丑寅"), height=[9.0, 9.0, 9.0])
    done = cim_here("plan", *districts, other, *V)
    assert done.code == 3
    assert "高新区.shp" in done.err and "'height'" in done.err


def test_keys_are_text_in_all_files_or_numbers_in_all(
    tmp_path: Path, districts: list[Path], cim_here: Any
) -> None:
    other = district(tmp_path, "高新区", 3, 编码=pa.array([1, 2, 3], pa.int32()), 楼高=[9.0] * 3)
    done = cim_here("plan", *districts, other, *V, "--key", "编码")
    assert done.code == 3
    assert "高新区.shp" in done.err and "numbers" in done.err


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        (pa.int16(), pa.int32(), pa.int32()),
        (pa.int32(), pa.float64(), pa.float64()),
        (pa.null(), pa.date32(), pa.date32()),
        (pa.float64(), pa.string(), pa.string()),
        (pa.date32(), pa.string(), pa.string()),
        (pa.bool_(), pa.int32(), pa.string()),
    ],
)
def test_types_widen_to_text_at_last(one: pa.DataType, other: pa.DataType, both: Any) -> None:
    assert common_type(one, other) == common_type(other, one) == both
