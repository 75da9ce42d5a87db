"""The feature index: found is what is there, once; update = rebuild; same rows, same bytes."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.feature_index import (
    CODE_NAMES,
    NAME_NAMES,
    FeatureIndex,
    FeatureIndexWriter,
    field_among,
)
from tiling.errors import QueryInvalid, StoreError


def rows(*features: tuple[int, str | None, str | None, int]) -> pa.Table:
    ids, codes, names, cells = (
        (list(c) for c in zip(*features, strict=True)) if features else [[]] * 4
    )
    lon = 113.0 + np.array(ids, dtype=np.float64) * 1e-4
    lat = np.full(len(ids), 31.7)
    return pa.table(
        {
            "id": pa.array(ids, pa.int64()),
            "code": pa.array(codes, pa.string()),
            "name": pa.array(names, pa.string()),
            "cell": pa.array(cells, pa.uint64()),
            "west": lon - 1e-5,
            "south": lat - 1e-5,
            "east": lon + 1e-5,
            "north": lat + 1e-5,
            "lon": lon,
            "lat": lat,
            "base_m": np.where(np.array(ids) % 2 == 0, 21.5, np.nan),
            "height_m": np.full(len(ids), 9.25),
        }
    )


def write(path: Path, *tables: pa.Table, cells: Any = None) -> Path:
    writer = FeatureIndexWriter(path)
    for table in tables:
        writer.add(table)
    return writer.finish(None if cells is None else np.array(cells, dtype=np.uint64))


CITY = (
    (4, "421303001", "光谷中心", 10),
    (7, "421303002", None, 10),
    (12, "4213%3_1", "光谷中心A座", 11),
    (13, None, "😀 塔", 12),
)


@pytest.fixture
def city(tmp_path: Path) -> Path:
    return write(tmp_path / "城 市#1?.sqlite", rows(*CITY))


def test_a_code_a_name_and_an_id_find_their_feature(city: Path) -> None:
    with FeatureIndex.open([city]) as index:
        for text, by, feature in (
            ("421303001", "code", 4),
            (" 421303001 ", "code", 4),
            ("😀 塔", "name", 13),
            ("7", "id", 7),
        ):
            (hit,) = index.find(text)
            assert (hit.id, hit.matched, hit.exact) == (feature, by, True)
        assert index.find("42130300") == index.find("谷中心") == index.find("99") == []
        assert index.count() == 4
        assert index.cells().tolist() == [10, 11, 12]


def test_positions_keep_a_centimetre_and_boxes_never_shrink(city: Path) -> None:
    with FeatureIndex.open([city]) as index:
        even, odd = index.get(4), index.get(13)
        assert even is not None and odd is not None and index.get(5) is None
        assert even.lon == pytest.approx(113.0004, abs=1e-7)
        assert even.bbox[0] <= 113.0004 - 1e-5 + 1e-9 and even.bbox[2] >= 113.0004 + 1e-5 - 1e-9
        assert (even.base_m, even.height_m, odd.base_m) == (21.5, 9.25, None)


def test_exact_matches_come_before_what_only_begins_so(city: Path) -> None:
    with FeatureIndex.open([city]) as index:
        found = [(h.id, h.exact) for h in index.find("光谷中心", prefix=True)]
        assert found == [(4, True), (12, False)]
        assert [h.id for h in index.find("4213", prefix=True)] == [12, 4, 7]
        assert [h.id for h in index.find("4213", prefix=True, limit=1, offset=1)] == [4]


@pytest.mark.parametrize("text", ["%", "_", "4213_3001", "'; DROP TABLE features; --", "*", "\\"])
def test_wildcards_and_sql_are_plain_text(city: Path, text: str) -> None:
    with FeatureIndex.open([city]) as index:
        assert index.find(text, prefix=True) == []
        assert [h.id for h in index.find("4213%", prefix=True)] == [12]


@pytest.mark.parametrize(
    "how",
    [
        {"text": ""},
        {"text": "　"},
        {"text": "a\0b"},
        {"text": "\udcff"},
        {"text": "x" * 10_000},
        {"text": "a", "limit": 0},
        {"text": "a", "offset": -1},
        {"text": "a", "by": ("shape",)},
        {"text": "a", "by": ()},
    ],
)
def test_a_search_that_means_nothing_is_refused(city: Path, how: dict[str, Any]) -> None:
    with FeatureIndex.open([city]) as index, pytest.raises(QueryInvalid):
        index.find(how.pop("text"), **how)


def test_whole_numbers_are_looked_up_as_they_are_written(tmp_path: Path) -> None:
    table = rows(*CITY[:2])
    table = table.set_column(1, "code", pa.array([4201.0, None]))
    table = table.set_column(2, "name", pa.array([None, None]))
    with FeatureIndex.open([write(tmp_path / "a.sqlite", table)]) as index:
        assert [h.code for h in index.find("4201")] == ["4201"]


names = st.one_of(st.none(), st.text("ab中😀\uffff%", min_size=1, max_size=3))
features = st.lists(st.tuples(names, names, st.integers(0, 5)), max_size=25)


def table_of(found: list[tuple[str | None, str | None, int]], first: int) -> list[Any]:
    numbered = [(first + i, code, name, cell) for i, (code, name, cell) in enumerate(found)]
    return sorted(numbered, key=lambda f: f[3])


@settings(max_examples=40, deadline=None)
@given(old=features, new=features, gone=st.sets(st.integers(0, 5)), text=names.filter(bool))
def test_an_update_answers_as_a_rebuild_does(
    tmp_path_factory: pytest.TempPathFactory, old: Any, new: Any, gone: set[int], text: str
) -> None:
    folder = tmp_path_factory.mktemp("index")
    before, change = table_of(old, 0), table_of(new, 100)
    replaced = gone | {f[3] for f in change}
    after = sorted([f for f in before if f[3] not in replaced] + change, key=lambda f: f[3])
    base = write(folder / "base.sqlite", rows(*before))
    overlay = write(folder / "overlay.sqlite", rows(*change), cells=sorted(replaced))
    whole = write(folder / "whole.sqlite", rows(*after))
    with FeatureIndex.open([overlay, base]) as updated, FeatureIndex.open([whole]) as rebuilt:
        assert updated.count() == rebuilt.count() == len(after)
        assert updated.cells().tolist() == rebuilt.cells().tolist()
        found = updated.find(text, prefix=True, limit=1000)
        assert found == rebuilt.find(text, prefix=True, limit=1000)
        beginning = {f[0] for f in after if any(v and v.startswith(text) for v in f[1:3])}
        assert {h.id for h in found} == beginning


@settings(max_examples=20, deadline=None)
@given(found=features, size=st.integers(1, 7))
def test_the_same_rows_make_the_same_bytes_however_they_are_cut(
    tmp_path_factory: pytest.TempPathFactory, found: Any, size: int
) -> None:
    folder = tmp_path_factory.mktemp("index")
    table = rows(*table_of(found, 0))
    pieces = [table.slice(i, size) for i in range(0, table.num_rows, size)]
    once, cut = write(folder / "1.sqlite", table), write(folder / "2.sqlite", *pieces)
    assert once.read_bytes() == cut.read_bytes()


def test_rows_out_of_order_or_outside_the_replaced_cells_are_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ascend"):
        write(tmp_path / "a.sqlite", rows(*CITY[2:]), rows(*CITY[:2]))
    with pytest.raises(ValueError, match="replace"):
        write(tmp_path / "b.sqlite", rows(*CITY), cells=[10, 11])


def test_files_that_are_no_index_are_refused_by_name(tmp_path: Path) -> None:
    for name, content in (("missing", None), ("text", b"no database" * 500), ("empty", b"")):
        path = tmp_path / f"{name}.sqlite"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(StoreError, match=name):
            FeatureIndex.open([path])
    other = tmp_path / "other.sqlite"
    sqlite3.connect(other).execute("CREATE TABLE t (a)").connection.close()
    with pytest.raises(StoreError, match="no feature index"):
        FeatureIndex.open([other])


def test_well_known_columns_are_found_in_their_order_and_any_case() -> None:
    assert field_among(["BM", "统一编码", "Name"], CODE_NAMES) == "统一编码"
    assert field_among(["BM", "Name"], NAME_NAMES) == "Name"
    assert field_among(["高度"], CODE_NAMES) is None
