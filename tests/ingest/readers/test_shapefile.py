"""Shapefiles: Chinese text in every disguise, and parts that are missing or damaged."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import shapely

from ingest.readers import open_source
from ingest.readers.base import ReadOptions
from tests.ingest.readers.shapefiles import Column, write_dbf, write_points
from tiling.errors import CrsMissing, EncodingUndecided, SourceUnreadable

BAD = Path(__file__).resolve().parents[2] / "data" / "bad"
TEXTS = ["随州市曾都区", "广水市武胜关镇", "白云大道一号楼", "Building 7", "编钟博物馆"]


def read_table(path: Path, options: ReadOptions | None = None):
    with open_source(path, options) as reader:
        info = reader.info()
        batches = list(reader.batches())
        rows = [row for b in batches for row in b.attributes.to_pylist()]
        return rows, info.layers[0], reader.findings


def write_named(folder: Path, encoding: str, texts=TEXTS, **kwargs) -> Path:
    columns = [Column("名称".encode(encoding), 40), Column("层数".encode(encoding), 4, b"N")]
    rows = [[t.encode(encoding), str(i).encode()] for i, t in enumerate(texts)]
    return write_points(folder, "白模", columns, rows, **kwargs)


@pytest.mark.parametrize(
    ("encoding", "kwargs", "decided", "confidence"),
    [
        ("gbk", {}, "GB18030", "certain"),
        ("gbk", {"language": 0x57}, "GB18030", "certain"),
        ("gbk", {"language": 0x03}, "GB18030", "certain"),
        ("gbk", {"language": 0x4D}, "GB18030", "declared"),
        ("gbk", {"cpg": "GBK"}, "GB18030", "declared"),
        ("gbk", {"cpg": "936"}, "GB18030", "declared"),
        ("utf-8", {}, "UTF-8", "certain"),
        ("utf-8", {"cpg": "UTF-8", "language": 0x4D}, "UTF-8", "declared"),
        ("gb18030", {}, "GB18030", "certain"),
    ],
)
def test_names_and_values_are_chinese_whatever_the_disguise(
    tmp_path, encoding, kwargs, decided, confidence
) -> None:
    rows, layer, _ = read_table(write_named(tmp_path, encoding, **kwargs))
    assert rows == [{"名称": t, "层数": i} for i, t in enumerate(TEXTS)]
    assert [f.name for f in layer.fields] == ["名称", "层数"]
    assert layer.encoding is not None
    assert (layer.encoding.encoding, layer.encoding.confidence) == (decided, confidence)


def test_traditional_text_in_big5_is_recognised(tmp_path) -> None:
    texts = ["臺灣總督府圖書館", "國際會議中心大廈", "縣政府辦公樓"]
    columns = [Column("名稱".encode("cp950"), 40)]
    shp = write_points(tmp_path, "a", columns, [[t.encode("cp950")] for t in texts])
    rows, layer, _ = read_table(shp)
    assert [r["名稱"] for r in rows] == texts
    assert layer.encoding.encoding == "Big5"


def test_four_byte_characters_of_gb18030_survive(tmp_path) -> None:
    texts = ["㐀𠮷镇人民政府", "随州市🏙", "曾都区东城"]
    rows, _, _ = read_table(write_named(tmp_path, "gb18030", texts))
    assert [r["名称"] for r in rows] == texts


@pytest.mark.parametrize("encoding", ["gbk", "utf-8"])
def test_a_value_cut_by_the_width_loses_only_the_cut_character(tmp_path, encoding) -> None:
    text = "随州" * 100
    columns = [Column(b"name", 253), Column(b"n", 3, b"N")]
    shp = write_points(tmp_path, "a", columns, [[text.encode(encoding), b"1"]] * 3)
    rows, _, findings = read_table(shp)
    whole = text.encode(encoding)[:253].decode(encoding, "ignore")
    assert [r["name"] for r in rows] == [whole] * 3
    assert "\ufffd" not in whole
    assert not [f for f in findings if f.rule == "text-undecodable"]


def test_a_field_name_cut_by_the_width_is_counted(tmp_path) -> None:
    name = "建筑物名称".encode()[:10]  # three characters and a third of the fourth
    rows, layer, findings = read_table(
        write_points(tmp_path, "a", [Column(name, 20)], [[t.encode()] for t in TEXTS])
    )
    assert rows[0] == {"建筑物": TEXTS[0]}
    assert [f.rule for f in findings] == ["field-name-cut"]


def test_repeated_field_names_are_told_apart_and_counted(tmp_path) -> None:
    columns = [Column(b"name", 9), Column(b"name", 9), Column(b"n", 3, b"N")]
    rows, layer, findings = read_table(
        write_points(tmp_path, "a", columns, [[b"a", b"b", b"1"], [b"c", b"d", b"2"]])
    )
    assert rows == [{"name": "a", "name_2": "b", "n": 1}, {"name": "c", "name_2": "d", "n": 2}]
    assert [(f.rule, f.count) for f in findings] == [("field-renamed", 1)]


@pytest.mark.parametrize(
    ("encoding", "cpg"), [("gbk", "UTF-8"), ("utf-8", "GBK"), ("gbk", "ISO-8859-1")]
)
def test_a_cpg_that_the_bytes_contradict_is_refused_until_the_user_decides(
    tmp_path, encoding, cpg
) -> None:
    shp = write_named(tmp_path, encoding, cpg=cpg)
    with open_source(shp) as reader, pytest.raises(EncodingUndecided) as caught:
        reader.info()
    assert "白模.dbf" in str(caught.value)
    assert "--encoding" in caught.value.remedy
    rows, layer, _ = read_table(shp, ReadOptions(encoding=encoding))
    assert [r["名称"] for r in rows] == TEXTS
    assert layer.encoding.confidence == "declared"


def test_the_only_chinese_value_at_the_end_of_a_large_table_decides(tmp_path) -> None:
    columns = [Column(b"name", 40)]
    rows = [[b"plain"]] * 5000 + [["随州市曾都区人民政府".encode("gbk")]]
    read, layer, _ = read_table(write_points(tmp_path, "a", columns, rows))
    assert read[-1] == {"name": "随州市曾都区人民政府"}
    assert layer.encoding.encoding == "GB18030"


def test_a_broken_value_among_many_is_replaced_and_counted(tmp_path) -> None:
    rows = [[t.encode("gbk")] for t in TEXTS * 30] + [[b"\xc3\xff\xff\xc3 A"]]
    read, _, findings = read_table(write_points(tmp_path, "a", [Column(b"name", 40)], rows))
    assert "\ufffd" in read[-1]["name"]
    assert sum("\ufffd" in r["name"] for r in read) == 1
    (found,) = [f for f in findings if f.rule == "text-undecodable"]
    assert (found.severity, found.count, found.samples) == ("warning", 1, (150,))


def test_types_of_the_table_survive(tmp_path) -> None:
    columns = [
        Column(b"i", 9, b"N"), Column(b"big", 18, b"N"), Column(b"f", 12, b"N", 3),
        Column(b"d", 8, b"D"), Column(b"l", 1, b"L"), Column(b"c", 5),
    ]  # fmt: skip
    rows = [
        [b"7", b"421303000000123", b"1.5", b"20260102", b"T", b"0722"],
        [b"", b"", b"", b"", b"?", b""],
    ]
    read, layer, _ = read_table(write_points(tmp_path, "a", columns, rows))
    assert [f.type for f in layer.fields] == [
        "int32", "int64", "double", "date32[day]", "bool", "string",
    ]  # fmt: skip
    assert str(read[0]["d"]) == "2026-01-02"
    assert [read[0][k] for k in ("i", "big", "f", "l", "c")] == [
        7, 421303000000123, 1.5, True, "0722",
    ]  # fmt: skip
    assert set(read[1].values()) == {None}


def test_deleted_rows_do_not_shift_the_others(tmp_path) -> None:
    columns = [Column(b"n", 4, b"N")]
    shp = write_points(
        tmp_path, "a", columns, [[str(i).encode()] for i in range(6)], deleted=frozenset({1, 4})
    )
    with open_source(shp) as reader:
        features = reader.info().layers[0].features
        (batch,) = reader.batches()
        dropped = reader.findings.count("drop")
    assert batch.attributes.column("n").to_pylist() == [0, 2, 3, 5]
    assert shapely.get_x(batch.geometry) == pytest.approx(113 + np.array([0, 2, 3, 5]) * 1e-3)
    assert features == len(batch) + dropped


def test_parts_may_be_named_in_capitals(tmp_path) -> None:
    shp = write_named(tmp_path, "gbk", cpg="GBK")
    for part in list(tmp_path.iterdir()):
        part.rename(part.with_suffix(part.suffix.upper()))
    rows, layer, _ = read_table(shp.with_suffix(".SHP"))
    assert [r["名称"] for r in rows] == TEXTS
    assert layer.ref.code == "EPSG:4490"


def test_a_folder_of_shapefiles_has_a_layer_each(tmp_path) -> None:
    write_points(tmp_path, "建筑", [Column(b"n", 4, b"N")], [[b"1"], [b"2"]])
    write_points(tmp_path, "道路", [Column(b"m", 4, b"N")], [[b"3"]])
    with open_source(tmp_path, ReadOptions(layer="道路")) as reader:
        assert sorted(x.name for x in reader.info().layers) == ["建筑", "道路"]
        (batch,) = reader.batches()
    assert batch.attributes.to_pylist() == [{"m": 3}]


@pytest.mark.parametrize("ending", [".shx", ".dbf"])
def test_a_missing_part_is_named(tmp_path, ending) -> None:
    shp = write_named(tmp_path, "gbk")
    shp.with_suffix(ending).unlink()
    before = sorted(tmp_path.iterdir())
    with open_source(shp) as reader, pytest.raises(SourceUnreadable) as caught:
        reader.info()
    assert f"白模{ending}" in caught.value.problem
    assert f"白模{ending}" in caught.value.remedy
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("ending", [".shp", ".shx", ".dbf"])
@pytest.mark.parametrize("keep", [0.5, 0.95])
def test_a_part_that_is_cut_short_is_named(tmp_path, ending, keep) -> None:
    shp = write_named(tmp_path, "gbk")
    part = shp.with_suffix(ending)
    data = part.read_bytes()
    part.write_bytes(data[: max(110, int(len(data) * keep))])
    with open_source(shp) as reader, pytest.raises(SourceUnreadable, match="damaged") as caught:
        reader.info()
    assert part.name in str(caught.value)


def test_a_table_that_claims_billions_of_rows_is_refused(tmp_path) -> None:
    shp = write_named(tmp_path, "gbk")
    dbf = bytearray(shp.with_suffix(".dbf").read_bytes())
    struct.pack_into("<I", dbf, 4, 4_000_000_000)
    shp.with_suffix(".dbf").write_bytes(bytes(dbf))
    with open_source(shp) as reader, pytest.raises(SourceUnreadable, match="4000000000 records"):
        reader.info()


def test_a_table_of_another_shapefile_is_refused(tmp_path) -> None:
    shp = write_named(tmp_path, "gbk")
    write_dbf(shp.with_suffix(".dbf"), [Column(b"n", 4, b"N")], [[b"1"]])
    with open_source(shp) as reader, pytest.raises(SourceUnreadable, match="5 shapes, but 1 rows"):
        reader.info()


@pytest.mark.parametrize("name", sorted(p.stem for p in BAD.glob("buggy*.shp")))
def test_a_record_that_claims_more_than_it_holds_is_dropped_and_counted(tmp_path, name) -> None:
    for ending in (".shp", ".shx"):
        shutil.copy(BAD / f"{name}{ending}", tmp_path)
    write_dbf(tmp_path / f"{name}.dbf", [Column(b"n", 4, b"N")], [[b"1"]])
    with open_source(tmp_path / f"{name}.shp", ReadOptions(crs="EPSG:4490")) as reader:
        assert reader.info().layers[0].features == 1
        assert list(reader.batches()) == []
        assert [(f.rule, f.count) for f in reader.findings if f.severity == "drop"] == [
            ("geometry-unreadable", 1)
        ]


def test_an_empty_shapefile_has_no_features_and_no_batches(tmp_path) -> None:
    shp = write_points(tmp_path, "a", [Column(b"n", 4, b"N")], [])
    with open_source(shp) as reader:
        layer = reader.info().layers[0]
        assert (layer.features, layer.extent) == (0, None)
        assert list(reader.batches()) == []


def test_without_a_crs_the_layer_is_shown_but_not_read(tmp_path) -> None:
    shp = write_named(tmp_path, "gbk", prj=None)
    with open_source(shp) as reader:
        assert reader.info().layers[0].ref is None
        with pytest.raises(CrsMissing, match="白模") as caught:
            next(reader.batches())
        assert "--crs EPSG:4547" in caught.value.remedy
    with open_source(shp, ReadOptions(crs="EPSG:4490+5737")) as reader:
        (batch,) = reader.batches()
        assert batch.ref.code == "EPSG:4490+5737"


def test_a_declared_crs_wins_and_the_contradiction_is_reported(tmp_path) -> None:
    with open_source(write_named(tmp_path, "gbk"), ReadOptions(crs="GCJ-02")) as reader:
        (batch,) = reader.batches()
        assert batch.ref.offset == "GCJ-02"
        (found,) = [f for f in reader.findings if f.rule == "crs-overridden"]
    assert (found.severity, "EPSG:4490" in found.message) == ("warning", True)
