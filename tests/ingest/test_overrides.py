"""What a manifest says of single features: matched as text, later ones win, all is counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from ingest.overrides import NUMBERS, Override, apply_overrides, note_unmatched
from tests.ingest.test_mistakes import squares
from tiling.batches import FeatureBatch
from tiling.crs import TILE_REF
from tiling.errors import ConfigError
from tiling.findings import Findings


def batch(**columns: Any) -> FeatureBatch:
    n = len(next(iter(columns.values())))
    x = 113.3 + 0.001 * np.arange(n)
    return FeatureBatch(
        TILE_REF, np.arange(n), shapely.box(x, 31.7, x + 0.0002, 31.7002), pa.table(columns)
    )


def table(match: dict[str, Any], **values: Any) -> Override:
    return Override.from_table({"match": match, **values})


keys = st.sampled_from(["甲", "乙", "1", "", "🏠"])
codes = st.one_of(st.none(), st.integers(0, 2))
said = st.dictionaries(st.sampled_from(NUMBERS), st.floats(1, 100), min_size=1)


@given(
    rows=st.lists(st.tuples(st.one_of(st.none(), keys), codes), min_size=1, max_size=12),
    overrides=st.lists(
        st.tuples(
            st.fixed_dictionaries({}, optional={"名": keys, "号": st.integers(0, 2)}).filter(bool),
            said,
        ),
        max_size=8,
    ),
)
def test_the_last_override_that_matches_wins_value_by_value(
    rows: list[tuple[str | None, int | None]],
    overrides: list[tuple[dict[str, Any], dict[str, float]]],
) -> None:
    names, numbers = zip(*rows, strict=True)
    source = batch(名=pa.array(names, pa.string()), 号=pa.array(numbers, pa.int32()))
    tables = [table(match, **values) for match, values in overrides]
    made = apply_overrides(tables, source, Findings())
    for i, (name, number) in enumerate(rows):
        expected: dict[str, float] = {}
        for match, values in overrides:
            if all({"名": name, "号": number}[k] == v for k, v in match.items()):
                expected.update(values)
        got = {k: v[i] for k, v in made.numbers.items() if np.isfinite(v[i])}
        assert got == expected


def test_numbers_match_however_they_are_written() -> None:
    source = batch(楼号=pa.array([1.0, 2.5, None]), 编号=pa.array([7, 8, 9]))
    tables = [table({"楼号": 1}, height=10), table({"楼号": "2.5", "编号": "8"}, height=20)]
    assert apply_overrides(tables, source, Findings()).numbers["height"].tolist()[:2] == [10, 20]


def test_what_matches_nothing_is_reported_over_all_batches() -> None:
    tables = [table({"n": v}, drop=True) for v in ("a", "b", "c")]
    findings = Findings()
    apply_overrides(tables, batch(n=["a", "x"]), findings)
    apply_overrides(tables, batch(n=["a", "b"]), findings)
    note_unmatched(tables, findings)
    assert [(f.rule, f.count, f.samples) for f in findings] == [
        ("override-matched", 2, ()),
        ("override-matched", 1, ()),
        ("override-unmatched", 1, ("n = 'c'",)),
    ]


@pytest.mark.parametrize(
    "written",
    [
        {},
        {"match": {}, "drop": True},
        {"match": "A-1", "drop": True},
        {"match": {"编码": "A-1"}},
        {"match": {"编码": "A-1"}, "height": "12"},
        {"match": {"编码": "A-1"}, "height": True},
        {"match": {"编码": "A-1"}, "height": 0},
        {"match": {"编码": "A-1"}, "roof": float("nan")},
        {"match": {"编码": "A-1"}, "colour": "red"},
        {"match": {"编码": "A-1"}, "drop": 1},
        {"match": {"编码": "A-1"}, "drop": False},
        {"match": {"编码": "A-1"}, "drop": True, "height": 3},
        {"match": {"编码": [1]}, "height": 3},
    ],
)
def test_a_table_that_says_nothing_possible_is_a_usage_error(written: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="overrides"):
        Override.from_table(written)


MANIFEST = """
id = "x"
sources = ["楼.geojson"]
vertical = "ellipsoidal"
[[overrides]]
match = { "编码" = "甲" }
height = 33
base = 5
[[overrides]]
match = { "编码" = "乙" }
drop = true
[[overrides]]
match = { "编码" = "丙" }
roof = 20
[[overrides]]
match = { "编码" = "丁" }
floors = 4
[[overrides]]
match = { "编码" = "无" }
height = 4
"""


def test_a_manifest_overrides_the_columns_of_a_city(tmp_path: Path, cim_here: Any) -> None:
    squares(tmp_path / "楼.geojson", 编码=[*"甲乙丙丁戊"], height=[-9, 9, 9, None, 9])
    (tmp_path / "m.toml").write_text(MANIFEST, encoding="utf-8")
    data, report = tmp_path / "data", tmp_path / "r.json"
    done = cim_here("ingest", "--manifest", tmp_path / "m.toml", "--data", data, "--report", report)
    assert done.code == 0, done.err
    (path,) = data.rglob("*.parquet")
    rows = pq.read_table(path).sort_by("编码").to_pylist()
    assert {
        r["编码"]: (r["cim:base_m"], r["cim:height_m"], r["cim:height_source"]) for r in rows
    } == {
        "甲": (5.0, 33.0, "override"),
        "丙": (0.0, 20.0, "override"),
        "丁": (0.0, 12.0, "override"),
        "戊": (0.0, 9.0, "field"),
    }
    found = {f["rule"]: f for f in json.loads(report.read_text("utf-8"))["findings"]}
    assert found["override-dropped"]["count"] == 1
    assert found["override-unmatched"]["samples"] == ["编码 = '无'"]


def test_an_override_by_a_column_that_is_missing_is_refused(tmp_path: Path, cim_here: Any) -> None:
    squares(tmp_path / "楼.geojson", 代码=["甲"], height=[9])
    (tmp_path / "m.toml").write_text(MANIFEST, encoding="utf-8")
    done = cim_here("ingest", "--manifest", tmp_path / "m.toml", "--data", tmp_path / "d")
    assert done.code == 3
    assert "'编码'" in done.err and "代码" in done.err
