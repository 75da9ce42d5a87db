"""Heights or elevations, metres or not: decided on numbers, reported, never converted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.height_columns import HeightColumns, find_columns
from ingest.height_evidence import judge_height, judge_part_base, warn_of_numbers
from ingest.manifest import IngestOptions
from tests.ingest.test_mistakes import squares
from tiling.findings import Findings


def town(seed: int, ground_m: float, relief_m: float, n: int = 400) -> tuple[Any, Any]:
    """Heights of a town with low and high buildings, and the ground that they stand on."""
    random = np.random.default_rng(seed)
    height = np.round(3 + random.gamma(1.5, 8.0, n), 1)
    return height, np.round(ground_m + relief_m * random.random(n), 2)


@given(
    seed=st.integers(0, 10_000),
    ground_m=st.floats(30, 4000),
    relief_m=st.floats(0, 300),
    name=st.sampled_from(["height", "H", "高程", "elevation"]),
)
def test_a_town_above_the_sea_is_told_from_its_elevations(
    seed: int, ground_m: float, relief_m: float, name: str
) -> None:
    height, ground = town(seed, ground_m, relief_m)
    relative, absolute = (judge_height(name, h, ground) for h in (height, height + ground))
    assert relative is not None and absolute is not None
    assert (relative.mode, relative.sure) == ("relative", True)
    assert (absolute.mode, absolute.sure) == ("absolute", True)


@given(seed=st.integers(0, 10_000))
def test_near_the_sea_elevations_follow_the_ground(seed: int) -> None:
    height, ground = town(seed, 0.0, 12.0, 4000)
    for numbers, mode in ((height, "relative"), (height + ground, "absolute")):
        verdict = judge_height("height", numbers, ground)
        assert verdict is not None
        assert verdict.mode == mode or not verdict.sure


def test_on_flat_ground_near_the_sea_the_name_decides() -> None:
    height, ground = town(1, 1.0, 0.0)
    for name, mode in (("height", "relative"), ("高程", "absolute")):
        verdict = judge_height(name, height + 1.0, ground)
        assert verdict is not None
        assert (verdict.mode, verdict.sure) == (mode, False)


def test_without_ground_a_city_without_low_buildings_holds_elevations() -> None:
    height, ground = town(2, 80.0, 20.0)
    nothing = np.full(len(height), np.nan)
    for numbers, mode in ((height, "relative"), (height + ground, "absolute")):
        verdict = judge_height("height", numbers, nothing)
        assert verdict is not None and verdict.mode == mode
    assert judge_height("height", height[:5], ground[:5]) is None


@given(seed=st.integers(0, 10_000), ground_m=st.floats(100, 3000))
def test_parts_begin_below_the_top_of_their_building(seed: int, ground_m: float) -> None:
    top, ground = town(seed, ground_m, 20.0)
    part = np.round(top * 0.6, 1)
    for numbers, mode in ((part, "relative"), (part + ground, "absolute")):
        verdict = judge_part_base(numbers, top, ground)
        assert verdict is not None and (verdict.mode, verdict.sure) == (mode, True)
    assert judge_part_base(np.full(400, np.nan), top, ground) is None


def warned(**numbers: Any) -> list[str]:
    n = len(next(iter(numbers.values())))
    read = {r: np.full(n, np.nan) for r in ("height", "roof", "ground", "part_base", "floors")}
    height, roof, ground, floors = (
        "列" + role if role in numbers else None for role in ("height", "roof", "ground", "floors")
    )
    columns = HeightColumns(height, roof, ground, None, floors, "")
    findings = Findings()
    warn_of_numbers(columns, {**read, **numbers}, findings)
    return [f"{f.rule}: {f.message}" for f in findings]


@pytest.mark.parametrize(
    ("factor", "unit"),
    [(1.0, None), (1.4, None), (100.0, "centimetres"), (1 / 0.3048, "feet"), (10.0, "decimetres")],
)
def test_another_unit_is_known_by_its_storeys(factor: float, unit: str | None) -> None:
    floors = np.tile(np.arange(1.0, 31.0), 5)
    said = warned(height=floors * 3.1 * factor, floors=floors)
    assert [unit in s for s in said if unit] == ([True] if unit else [])
    assert bool(said) == bool(unit)


def test_centimetres_without_storeys_are_known_by_half_a_city_of_towers() -> None:
    height, _ = town(3, 0, 0)
    assert not warned(height=height)
    assert warned(height=height * 100)[0].startswith("height-unit")


def test_exchanged_roof_and_ground_are_warned_of_with_the_options_that_exchange_them() -> None:
    height, ground = town(4, 50.0, 20.0)
    assert not warned(roof=ground + height, ground=ground)
    (said,) = warned(roof=ground, ground=ground + height)
    assert "--roof-field 列ground --base-field 列roof" in said


def test_names_that_may_be_anything_count_for_buildings_alone() -> None:
    def height(names: list[str], loose: bool, **declared: Any) -> str | None:
        options = IngestOptions(sources=(Path("a.shp"),), id="a", **declared)
        return find_columns(names, options, "a.shp", loose).height

    assert height(["H"], loose=False) is None
    assert height(["H"], loose=True) == "H"
    assert height(["高程"], loose=True) is None  # nothing says where the ground is
    assert height(["高程"], loose=True, terrain="dem") == "高程"
    assert height(["高程", "层数"], loose=True, terrain="dem") is None  # rather the ground
    assert height(["高程", "高度"], loose=True, terrain="dem") == "高度"


def test_a_city_of_elevations_is_published_with_its_heights_and_updated_alike(
    tmp_path: Path, cim_here: Any
) -> None:
    high, ground = town(5, 60.0, 10.0, 40)
    columns = {"编码": [f"F{i}" for i in range(40)], "地面高": ground.tolist()}
    source = squares(tmp_path / "楼.geojson", **columns, 高度=(high + ground).tolist())
    data, report = tmp_path / "data", tmp_path / "r.json"
    common = ("--id", "x", "--data", data, "--report", report)
    done = cim_here(
        "ingest", source, "--kind", "buildings", "--vertical", "ellipsoidal", "--key", "编码",
        *common,
    )  # fmt: skip
    assert done.code == 0, done.err
    (path,) = data.rglob("*.parquet")
    rows = pq.read_table(path).sort_by("cim:base_m").to_pylist()
    assert [r["cim:base_m"] for r in rows] == sorted(ground.tolist())
    assert all(abs(r["高度"] - r["地面高"] - r["cim:height_m"]) < 1e-3 for r in rows)
    found = {f["rule"]: f for f in json.loads(report.read_text("utf-8"))["findings"]}
    assert found["height-mode"]["severity"] == "assumption"
    assert "--height-mode" in found["height-mode"]["message"]
    # One feature says nothing; the asset does.
    one = squares(tmp_path / "改.geojson", 编码=["F0"], 地面高=[60.0], 高度=[95.0])
    assert cim_here("ingest", one, "--update", *common).code == 0
    changed = [
        row
        for path in data.rglob("*.parquet")
        for row in pq.read_table(path).to_pylist()
        if row["高度"] == 95.0
    ]
    assert {r["cim:height_m"] for r in changed} == {35.0}
