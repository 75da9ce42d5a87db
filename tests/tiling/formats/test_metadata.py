"""Every attribute of every Arrow type arrives typed, named and unharmed, null as null."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiling.errors import TilingError
from tiling.formats.glb import Mesh, PropertyTable, encode_glb
from tiling.formats.metadata import (
    MetadataSchema,
    SchemaBuilder,
    encode_table,
    identifier,
)
from tiling.formats.plain_columns import plain
from tiling.validate.gltf import Glb


def triangle() -> Mesh:
    return Mesh(
        positions=np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], dtype=np.float32),
        normals=np.tile([0.0, 0.0, 1.0], (3, 1)),
        colors=np.full((3, 4), 255, dtype=np.uint8),
        feature_ids=np.zeros(3, dtype=np.int64),
        triangles=np.array([[0, 1, 2]]),
        edges=np.empty((0, 2), dtype=np.int64),
        to_ecef=np.eye(4),
    )


def carried(*tables: pa.Table) -> tuple[MetadataSchema, list[dict[str, Any]]]:
    """Encode tables as the tiles of one run; return the schema and each tile's columns by name."""
    builder = SchemaBuilder()
    plains = [plain(table) for table in tables]
    for table in plains:
        builder.observe(table)
    schema = MetadataSchema.load(orjson.loads(orjson.dumps(builder.finish().dump())))
    names = {p.id: p.name for p in schema.properties}
    read = []
    for table in plains:
        encoded = encode_table(schema, table)
        data = encode_glb(triangle(), PropertyTable(schema, table.num_rows, encoded))
        count, columns = Glb(data).features()
        assert count == table.num_rows
        absent = {n: [None] * count for i, n in names.items() if i not in columns}
        read.append(absent | {names[i]: column.tolist() for i, column in columns.items()})
    return schema, read


def one(array: pa.Array) -> tuple[Any, list[Any]]:
    schema, (columns,) = carried(pa.table({"c": array}))
    return schema.properties[0], columns["c"]


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
    small = pa.types.is_integer(kind) and kind.bit_width == 64
    # The extremes of 64 bits beside null have a test of their own.
    values = st.integers(0, 2**62) if small else NUMBERS[kind]
    column = data.draw(st.lists(st.none() | values, min_size=1))
    try:
        prop, read = one(pa.array(column, type=kind))
    except TilingError as error:
        assert "stand for null" in str(error)
        return
    assert read == column
    assert (prop.no_data is not None) == (None in column)


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


def test_64_bits_that_fit_32_are_written_as_32() -> None:
    assert one(pa.array([1, 2**31 - 1]))[0].component_type == "INT32"
    assert one(pa.array([1, 2**32 - 1]))[0].component_type == "UINT32"
    assert one(pa.array([1, 2**40]))[0].component_type == "INT64"
    prop, read = one(pa.array([2**63, 0], type=pa.uint64()))
    assert (prop.component_type, read) == ("UINT64", [2**63, 0])


def test_a_null_widens_an_integer_that_uses_its_whole_range() -> None:
    prop, read = one(pa.array([-128, 127, None], type=pa.int8()))
    assert (prop.component_type, read) == ("INT16", [-128, 127, None])


def test_integers_without_room_for_null_are_refused_by_name() -> None:
    with pytest.raises(TilingError, match="'c'"):
        one(pa.array([-(2**63), 2**63 - 1, None]))


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
    _, (read,) = carried(table)
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
    _, (read,) = carried(table)
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
    _, (read,) = carried(table.slice(1, 2))
    assert read == {"t": ["二二", "三"], "l": [[], [2, 3]], "b": [True, True]}


def test_all_tiles_share_one_schema_though_their_values_differ() -> None:
    schema, (first, second) = carried(
        pa.table({"n": pa.array([1], pa.int32()), "t": ["x"]}),
        pa.table({"n": pa.array([2**40], pa.int64()), "t": pa.nulls(1)}),
    )
    assert first == {"n": [1], "t": ["x"]}
    assert second == {"n": [2**40], "t": [None]}
    assert [p.component_type for p in schema.properties] == ["INT64", "STRING"]


def test_a_column_that_changes_its_kind_is_refused_by_name() -> None:
    with pytest.raises(TilingError, match="层数"):
        carried(pa.table({"层数": [1]}), pa.table({"层数": ["一"]}))


def test_maps_are_refused_with_a_remedy() -> None:
    column = pa.array([[("a", 1)]], type=pa.map_(pa.string(), pa.int32()))
    with pytest.raises(TilingError, match="JSON"):
        plain(pa.table({"m": column}))


@given(st.lists(st.text(), min_size=1, max_size=6, unique=True))
def test_identifiers_are_valid_and_unique_for_any_names(names: list[str]) -> None:
    builder = SchemaBuilder()
    table = pa.table([pa.array([1])] * len(names), names=names)
    builder.observe(plain(table))
    properties = builder.finish().properties
    assert [p.name for p in properties] == names
    ids = [p.id for p in properties]
    assert len(set(ids)) == len(ids)
    assert all(i.isascii() and i.isidentifier() for i in ids)


def test_identifiers_tell_chinese_names_apart_and_keep_ascii() -> None:
    assert identifier("楼高") == "u697C_u9AD8"
    assert identifier("addr:street") == "addr_street"
    assert identifier("2层") == "_2u5C42"
    assert identifier("cim:height_m") == "cim_height_m"


def test_reserved_columns_get_their_identifier_first() -> None:
    builder = SchemaBuilder()
    builder.observe(pa.table({"cim_height_m": [1], "cim:height_m": [2]}))
    by_name = {p.name: p.id for p in builder.finish(["cim:height_m"]).properties}
    assert by_name == {"cim_height_m": "cim_height_m_2", "cim:height_m": "cim_height_m"}
