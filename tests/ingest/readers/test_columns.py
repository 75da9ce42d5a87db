"""Columns keep what they mean on their way to plain Arrow types."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.readers import open_source, readers
from ingest.readers.base import ReadOptions
from ingest.readers.columns import decode_column, plain_column, plain_type, unique_names
from tiling.findings import Findings

ROOT = Path(__file__).resolve().parents[3]
TEXT = st.none() | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@given(st.lists(TEXT), st.sampled_from(["utf-8", "gb18030"]))
def test_raw_text_is_decoded_value_by_value(values: list[str | None], name: str) -> None:
    raw = [None if v is None else v.encode(name).decode("latin-1") for v in values]
    decoded, bad = decode_column(pa.array(raw, pa.string()), name)
    assert decoded.to_pylist() == values
    assert bad == []


@given(st.lists(st.none() | st.binary(max_size=12).filter(lambda b: b"\0" not in b)))
def test_any_bytes_give_as_many_values_and_name_the_bad_ones(values: list[bytes | None]) -> None:
    raw = pa.array([None if v is None else v.decode("latin-1") for v in values], pa.string())
    decoded, bad = decode_column(raw, "utf-8")
    assert len(decoded) == len(values)
    for row, (value, text) in enumerate(zip(values, decoded.to_pylist(), strict=True)):
        assert (text is None) == (value is None)
        assert (row in bad) == (text is not None and "\ufffd" in text)


def test_characters_that_were_escaped_in_the_file_stay(tmp_path) -> None:
    lines = ["0", "SECTION", "2", "ENTITIES", "0", "TEXT", "8", "建筑", "10", "1", "20", "2"]
    lines += ["40", "1", "1", "\\U+968F州市", "0", "ENDSEC", "0", "EOF", ""]
    path = tmp_path / "a.dxf"
    path.write_bytes("\n".join(lines).encode("gbk"))
    with open_source(path, ReadOptions(crs="EPSG:4547")) as reader:
        (batch,) = reader.batches()
    row = batch.attributes.to_pylist()[0]
    assert (row["Layer"], row["Text"]) == ("建筑", "随州市")


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([1, None], pa.int64()), [1, None]),
        (pa.array(["a", None], pa.large_string()), ["a", None]),
        (pa.array(["a", "b"]).dictionary_encode(), ["a", "b"]),
        (pa.array([[1, 2], None]), [[1, 2], None]),
        (pa.array([b"\xff"], pa.large_binary()), [b"\xff"]),
    ],
)
def test_plain_values_keep_their_meaning(column: pa.Array, expected: list) -> None:
    plain = plain_column(column)
    assert plain.to_pylist() == expected
    assert plain.type == plain_type(column.type)


def test_structures_become_json_text() -> None:
    column = pa.array([{"姓名": "张三", "层": [1, 2]}, None])
    plain = plain_column(column)
    assert plain.type == pa.string() == plain_type(column.type)
    assert json.loads(plain[0].as_py()) == {"姓名": "张三", "层": [1, 2]}
    assert plain[1].as_py() is None


@given(st.lists(st.sampled_from(["", "a", "a_2", "a_3", "field_1", "名称"])))
def test_names_become_unique_and_unique_ones_stay(names: list[str]) -> None:
    findings = Findings()
    fresh = unique_names(names, findings)
    assert len(set(fresh)) == len(names)
    assert "" not in fresh
    renamed = [(a, b) for a, b in zip(names, fresh, strict=True) if a != b]
    assert findings.count("repair") == len(renamed)
    for name in set(names) - {""}:
        assert name in fresh


def test_the_docs_name_every_reader_and_every_finding_of_the_readers() -> None:
    page = (ROOT / "docs" / "data-formats.md").read_text(encoding="utf-8")
    for reader in readers():
        assert f"| {reader.name} |" in page
    mine = ("layers", "features", "dataset", "columns", "vector", "geoparquet")
    for module in mine:
        text = (ROOT / "ingest" / "readers" / f"{module}.py").read_text(encoding="utf-8")
        for line in text.splitlines():
            word = line.strip().strip('(,"').split('"')[0]
            if word.count("-") and word.islower() and f'"{word}"' in line:
                assert f"`{word}`" in page, word
