"""Every attribute of every Arrow type arrives typed, named and unharmed, null as null."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiling.errors import TilingError
from tiling.formats.glb import encode_tile
from tiling.formats.gltf_reading import Glb
from tiling.formats.metadata import identifier, property_ids
from tiling.formats.plain_columns import plain
from tiling.formats.primitive import Grid, Primitive

TRIANGLE = Primitive(
    positions=np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], dtype=np.uint16),
    normals=np.tile(np.array([0, 0, 127], dtype=np.int8), (3, 1)),
    colors=None,
    feature_ids=np.zeros(3, dtype=np.uint32),
    triangles=np.array([[0, 1, 2]], dtype=np.uint32),
    edges=np.empty((0, 2), dtype=np.uint32),
)


def carried(table: pa.Table) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """Encode a table as a tile; return its properties and its columns, both by name."""
    table = plain(table)
    ids = property_ids(table.column_names)
    glb = Glb(encode_tile(Grid(np.eye(4), 0.01), [TRIANGLE], table, ids))
    count, columns = glb.features()
    assert count == table.num_rows
    extension = glb.document["extensions"]["EXT_structural_metadata"]
    properties = extension["schema"]["classes"]["feature"]["properties"]
    assert {i: p["name"] for i, p in properties.items()} == {i: n for n, i in ids.items()}
    absent = {name: [None] * count for name, i in ids.items() if i not in columns}
    read = absent | {p["name"]: columns[i].tolist() for i, p in properties.items() if i in columns}
    return {p["name"]: p for p in properties.values()}, read


def one(array: pa.Array) -> tuple[dict[str, Any], list[Any]]:
    properties, columns = carried(pa.table({"c": array}))
    return properties["c"], columns["c"]


NUMBERS = {
    pa.int8(): st.integers(-(2**7), 2**7 - 1),
    pa.uint8(): st.integers(0, 2**8 - 1),
    pa.int16(): st.integers(-(2**15), 2**15 - 1),
    pa.uint16(): st.integers(0, 2**16 - 1),
    pa.int32(): st.integers(-(2**31), 2**31 - 1),
    pa.uint32(): st.integers(0, 2**32 - 1),
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.uint64(): st.integers(0, 2**64 - 1),
    pa.float32(): st.floats(width=32, allow_nan=False),
    pa.float64(): st.floats(allow_nan=False),
    pa.bool_(): st.booleans(),
    pa.string(): st.text(),
}


@given(st.data())
def test_values_and_nulls_of_every_type_come_back(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(list(NUMBERS)))
    wide = pa.types.is_integer(kind) and kind.bit_width == 64
    # What no double holds has a test of its own.
    values = st.integers(0, 2**53) if wide else NUMBERS[kind]
    column = data.draw(st.lists(st.none() | values, min_size=1))
    try:
        prop, read = one(pa.array(column, type=kind))
    except TilingError as error:
        assert "stand for null" in str(error)
        return
    assert read == column
    assert ("noData" in prop) == (None in column)


@given(st.data())
def test_lists_come_back_with_null_as_null(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from([pa.int16(), pa.float64(), pa.string(), pa.bool_()]))
    column = data.draw(st.lists(st.none() | st.lists(NUMBERS[kind], max_size=3), min_size=1))
    _, read = one(pa.array(column, type=pa.list_(kind)))
    assert read == column


def test_nan_is_a_value_and_not_a_null() -> None:
    _, read = one(pa.array([float("nan"), None, 1.5], from_pandas=False))
    assert np.isnan(read[0])
    assert read[1:] == [None, 1.5]


def test_integers_are_as_narrow_as_the_tile_allows() -> None:
    for values, component in (
        ([1, 200], "UINT8"),
        ([-1, 100], "INT8"),
        ([1, 2**16 - 1], "UINT16"),
        ([1, 2**32 - 1], "UINT32"),
        ([-1, 2**31 - 1], "INT32"),
        ([1, 2**40 + 1], "FLOAT64"),
    ):
        prop, read = one(pa.array(values, pa.int64()))
        assert (prop["componentType"], read) == (component, values)


def test_integers_that_no_double_holds_become_text() -> None:
    prop, read = one(pa.array([2**63, 1, None], type=pa.uint64()))
    assert (prop["type"], read) == ("STRING", [str(2**63), "1", None])


def test_a_null_widens_an_integer_that_uses_its_whole_range() -> None:
    prop, read = one(pa.array([0, 255, None], type=pa.uint8()))
    assert (prop["componentType"], read) == ("UINT16", [0, 255, None])


def test_single_precision_is_used_where_it_is_exact() -> None:
    assert one(pa.array([0.5, 3.0]))[0]["componentType"] == "FLOAT32"
    assert one(pa.array([0.1, 3.0]))[0]["componentType"] == "FLOAT64"
    prop, read = one(pa.array([0.1, None]))
    assert (prop["componentType"], read) == ("FLOAT64", [0.1, None])


def test_few_texts_that_repeat_become_an_enum() -> None:
    column = ["住宅", None, "商业", "住宅", "(null)"] * 8
    prop, read = one(pa.array(column))
    assert (prop["type"], read) == ("ENUM", column)
    assert prop["noData"] not in ("住宅", "商业", "(null)")


def test_texts_that_do_not_repeat_or_are_empty_stay_texts() -> None:
    assert one(pa.array([f"{i}号" for i in range(40)]))[0]["type"] == "STRING"
    prop, read = one(pa.array(["", "一"] * 20))
    assert (prop["type"], read) == ("STRING", ["", "一"] * 20)


def test_text_that_uses_the_usual_null_words_keeps_them() -> None:
    column = ["", "\u0000", "(null)", None, "武汉🏙"]
    assert one(pa.array(column))[1] == column


def test_dates_and_times_are_iso_texts() -> None:
    utc = dt.datetime(2024, 2, 29, 23, 59, 58, 120_000, tzinfo=dt.UTC)
    table = pa.table(
        {
            "日期": pa.array([dt.date(2024, 2, 29), None]),
            "时刻": pa.array([utc, utc], type=pa.timestamp("ms", tz="Asia/Shanghai")),
            "local": pa.array([dt.datetime(2024, 1, 1), None], type=pa.timestamp("us")),
            "time": pa.array([dt.time(8, 30), None]),
        }
    )
    _, read = carried(table)
    assert read["日期"] == ["2024-02-29", None]
    assert read["时刻"] == ["2024-02-29T23:59:58.12Z"] * 2
    assert read["local"] == ["2024-01-01T00:00:00", None]
    assert read["time"] == ["08:30:00", None]


def test_rarer_types_keep_their_content() -> None:
    table = pa.table(
        {
            "decimal": pa.array([Decimal("1.25"), None], type=pa.decimal128(10, 2)),
            "exact": pa.array([Decimal("123456789012345678.25")] * 2, type=pa.decimal128(30, 2)),
            "dictionary": pa.array(["砖混", None]).dictionary_encode(),
            "binary": pa.array([b"\x00\xff", None]),
            "half": pa.array([np.float16(0.5), np.float16(2)]),
            "nothing": pa.nulls(2),
            "structure": pa.array([{"a": 1, "b": "x"}, None]),
            "bool": pa.array([True, None]),
            "nested": pa.array([[[1, 2], []], None]),
            "records": pa.array([[{"名": "东"}], []]),
            "duration": pa.array([90, None], type=pa.duration("s")),
        }
    )
    _, read = carried(table)
    assert read == {
        "decimal": [1.25, None],
        "exact": ["123456789012345678.25"] * 2,
        "dictionary": ["砖混", None],
        "binary": ["00ff", None],
        "half": [0.5, 2.0],
        "nothing": [None, None],
        "structure.a": [1, None],
        "structure.b": ["x", None],
        "bool": [1, None],
        "nested": ["[[1,2],[]]", None],
        "records": ['[{"名":"东"}]', "[]"],
        "duration": [90, None],
    }


def test_a_slice_of_a_table_is_encoded_as_itself() -> None:
    table = pa.table(
        {"t": ["一", "二二", "三", None], "l": [[1], [], [2, 3], None], "b": [True] * 4}
    )
    _, read = carried(table.slice(1, 2))
    assert read == {"t": ["二二", "三"], "l": [[], [2, 3]], "b": [True, True]}


def test_maps_are_refused_with_a_remedy() -> None:
    column = pa.array([[("a", 1)]], type=pa.map_(pa.string(), pa.int32()))
    with pytest.raises(TilingError, match="JSON"):
        plain(pa.table({"m": column}))


@given(st.lists(st.text(), min_size=1, max_size=6, unique=True))
def test_identifiers_are_valid_and_unique_for_any_names(names: list[str]) -> None:
    ids = property_ids(names)
    assert list(ids) == names
    assert len(set(ids.values())) == len(ids)
    assert all(i.isascii() and i.isidentifier() for i in ids.values())


def test_identifiers_tell_chinese_names_apart_and_keep_ascii() -> None:
    assert identifier("楼高") == "u697C_u9AD8"
    assert identifier("addr:street") == "addr_street"
    assert identifier("2层") == "_2u5C42"
    assert identifier("cim:height_m") == "cim_height_m"


def test_reserved_columns_get_their_identifier_first() -> None:
    ids = property_ids(["cim_height_m", "cim:height_m"], ["cim:height_m"])
    assert ids == {"cim_height_m": "cim_height_m_2", "cim:height_m": "cim_height_m"}
