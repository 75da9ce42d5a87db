"""What cannot be read is refused with file, value and remedy, and nothing is printed."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import pytest
import shapely

from ingest.readers import open_source, readers
from ingest.readers.archive import unpack
from ingest.readers.base import SNIFF_NBYTES, ReadOptions
from ingest.readers.geoparquet import GeoParquetReader
from ingest.readers.vector import VectorReader
from tests.ingest.readers.shapefiles import Column, write_points
from tests.ingest.readers.test_conformance import features, write_gdal, write_geoparquet
from tiling.errors import (
    CrsMissing,
    EncodingUndecided,
    GeometryInvalid,
    SourceError,
    SourceUnreadable,
    UnknownFormat,
)

BAD = Path(__file__).resolve().parents[2] / "data" / "bad"


def read(path: Path, options: ReadOptions | None = None) -> list:
    with open_source(path, options) as reader:
        return list(reader.batches())


def write_features(path: Path, members: list, encoding: str = "utf-8", **more) -> Path:
    text = json.dumps(
        {"type": "FeatureCollection", **more, "features": members}, ensure_ascii=False
    )
    path.write_text(text, encoding=encoding)
    return path


def test_large_geojson_features_are_read_up_to_a_limit_that_is_ours_or_the_users(
    tmp_path: Path,
) -> None:
    path = write_features(tmp_path / "a.geojson", [])
    option = "OGR_GEOJSON_MAX_OBJ_SIZE"
    before = pyogrio.get_gdal_config_option(option)
    try:
        for declared, expected in ((None, 16384), ("300", 300)):
            pyogrio.set_gdal_config_options({option: declared})
            read(path)
            assert pyogrio.get_gdal_config_option(option) == expected
    finally:
        pyogrio.set_gdal_config_options({option: before})


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.shp", b"this is no shapefile at all"),
        ("a.shp", b""),
        ("a.gpkg", b"\x00" * 200),
        ("a.geojson", b"a note, not GeoJSON"),
        ("a.bin", os.urandom(256)),
        ("a.json", b'{"type": "Topology", "objects": {}}'),
        ("说明.txt", "随州".encode()),
        ("a.zip", b"not an archive"),
    ],
)
def test_garbage_and_wrong_endings_are_unknown(tmp_path, name, content) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UnknownFormat) as caught:
        open_source(path)
    message = str(caught.value)
    assert all(reader.name in message for reader in readers())
    assert name in message
    assert repr(content[:16]) in message or "is empty" in message


def test_a_missing_file_is_said_to_be_missing(tmp_path) -> None:
    with pytest.raises(SourceUnreadable, match=r"没有\.shp: there is no such file"):
        open_source(tmp_path / "没有.shp")


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.98])
@pytest.mark.parametrize(
    ("name", "driver"), [("a.gpkg", "GPKG"), ("a.fgb", "FlatGeobuf"), ("a.geojson", "GeoJSON")]
)
def test_a_file_cut_short_is_refused_in_silence(tmp_path, capfd, name, driver, keep) -> None:
    options = {"SPATIAL_INDEX": "NO"} if driver == "FlatGeobuf" else {}
    path = write_gdal(tmp_path / name, driver, **options)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(SourceError) as caught:
        read(path)
    assert name in str(caught.value)
    assert caught.value.remedy
    assert capfd.readouterr() == ("", "")


def test_parquet_cut_short_or_without_geometry_is_refused(tmp_path) -> None:
    path = write_geoparquet(tmp_path / "a.parquet", pa.array([None] * 7, pa.binary()))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(SourceUnreadable, match="cut short"):
        read(path)
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(SourceUnreadable, match="'geo' metadata") as caught:
        read(path)
    assert "GeoParquet" in caught.value.remedy


@pytest.mark.parametrize("name", sorted(p.name for p in BAD.glob("*.fgb")))
def test_flatgeobuf_that_contradicts_itself_is_refused_in_silence(name, capfd) -> None:
    with pytest.raises(SourceError) as caught:
        read(BAD / name, ReadOptions(crs="EPSG:4490"))
    assert isinstance(caught.value, SourceUnreadable | GeometryInvalid)
    assert name in str(caught.value)
    assert caught.value.remedy
    assert capfd.readouterr() == ("", "")


def test_a_layer_of_an_unreadable_type_is_listed_and_refused(tmp_path) -> None:
    path = BAD / "invalid_polyhedralsurface_of_curvepolygon.fgb"
    with open_source(path) as reader:
        assert reader.info().layers[0].geometry_type == "unsupported"
        with pytest.raises(GeometryInvalid, match="not supported") as caught:
            next(reader.batches())
    assert "ogr2ogr" in caught.value.remedy


@pytest.mark.parametrize("keep", [0.5, 0.9])
def test_a_corrupt_archive_is_refused(tmp_path, keep) -> None:
    shp = write_points(tmp_path, "a", [Column(b"n", 9, b"N")], [[b"1"]] * 50)
    path = tmp_path / "成果.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for part in tmp_path.glob("a.*"):
            archive.write(part, part.name)
    assert sum(len(b) for b in read(path)) == 50
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(SourceUnreadable, match="corrupt"):
        read(path)
    flipped = bytearray(data)
    flipped[60] ^= 0xFF
    path.write_bytes(bytes(flipped))
    with pytest.raises(SourceUnreadable, match="corrupt"):
        read(path)
    assert shp.exists()


def test_a_zipped_raster_with_notes_beside_it_is_no_vector(tmp_path) -> None:
    path = tmp_path / "dem.zip"
    for names, vector in [
        (["dem.tif", "notes.json"], False), (["a.csv"], True), (["dem.tif", "a.shp"], True),
    ]:  # fmt: skip
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(name, b"content")
        assert VectorReader.sniff(path) == vector


def test_an_archive_cannot_write_outside_its_scratch_folder(tmp_path) -> None:
    path = tmp_path / "evil.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../evil.shp", b"x")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with pytest.raises(SourceUnreadable, match="points outside"):
        unpack(path, scratch)
    assert not (tmp_path / "evil.shp").exists()


def test_names_in_archives_made_on_chinese_windows_are_read_as_gbk(tmp_path) -> None:
    shp = write_points(tmp_path, "建筑物", [Column(b"n", 9, b"N")], [[b"1"]] * 3)
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for part in tmp_path.glob("建筑物.*"):
            archive.write(part, "X" * 6 + part.suffix)
    # Six bytes of GBK in place of six ASCII ones, and no flag that says so.
    path.write_bytes(path.read_bytes().replace(b"X" * 6, "建筑物".encode("gbk")))
    shp.unlink()
    with open_source(path) as reader:
        assert [x.name for x in reader.info().layers] == ["建筑物"]
        assert reader.info().files == (path,)


def test_several_layers_are_listed_until_one_is_chosen(tmp_path) -> None:
    path = write_gdal(tmp_path / "a.gpkg", "GPKG", layer="建筑")
    write_gdal(path, "GPKG", layer="道路", append=True)
    with pytest.raises(SourceError, match="2 layers") as caught:
        read(path)
    assert "'建筑', '道路'" in caught.value.remedy
    assert sum(len(b) for b in read(path, ReadOptions(layer="道路"))) == 6
    with pytest.raises(SourceError, match="no layer '水系'"):
        read(path, ReadOptions(layer="水系"))


@pytest.mark.parametrize("encoding", ["gbk", "utf-16", "utf-8-sig", "utf-8"])
def test_geojson_in_any_encoding_is_read_the_same(tmp_path, encoding) -> None:
    members = features()[:4]
    (batch,) = read(write_features(tmp_path / "a.geojson", members, encoding))
    assert batch.attributes.column("名称").to_pylist() == [m["properties"]["名称"] for m in members]


def test_geojson_without_a_crs_is_wgs84_by_assumption_and_with_one_is_not(tmp_path) -> None:
    path = write_features(tmp_path / "a.geojson", features()[:2])
    with open_source(path) as reader:
        assert reader.info().layers[0].ref.code == "EPSG:4326"
        assert [(f.rule, f.severity) for f in reader.info().findings] == [
            ("crs-by-format", "assumption")
        ]
    with open_source(path, ReadOptions(crs="GCJ-02")) as reader:
        assert reader.info().layers[0].ref.offset == "GCJ-02"
        assert reader.info().findings == ()
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::4490"}}
    with open_source(write_features(path, features()[:2], crs=crs)) as reader:
        assert reader.info().layers[0].ref.code == "EPSG:4490"
        assert reader.info().findings == ()


def test_rows_without_geometry_are_dropped_and_counted(tmp_path) -> None:
    members = features()
    members[0]["geometry"] = {"type": "Polygon", "coordinates": []}
    with open_source(write_features(tmp_path / "a.geojson", members)) as reader:
        (batch,) = reader.batches()
        assert batch.ids.tolist() == [1, 2, 3, 5, 6]
        (found,) = [f for f in reader.findings if f.severity == "drop"]
    assert (found.rule, found.count, found.samples) == ("geometry-null", 2, (0, 4))


def test_nested_properties_become_json_text_and_are_reported(tmp_path) -> None:
    members = features()[:2]
    members[0]["properties"] |= {"业主": {"姓名": "张三"}, "层": [1, 2], "混": [1, "二"]}
    with open_source(write_features(tmp_path / "a.geojson", members)) as reader:
        (batch,) = reader.batches()
        (found,) = [f for f in reader.findings if f.rule == "nested-as-json"]
    row = batch.attributes.to_pylist()[0]
    assert json.loads(row["业主"]) == {"姓名": "张三"}
    assert json.loads(row["混"]) == [1, "二"]
    assert row["层"] == [1, 2]
    assert (found.severity, found.samples) == ("info", ("业主", "混"))


def test_features_without_any_attribute_are_read(tmp_path) -> None:
    members = [{**f, "properties": {}} for f in features()[:4]]
    (batch,) = read(write_features(tmp_path / "a.geojson", members))
    assert (len(batch), batch.attributes.num_columns) == (4, 0)


def test_an_empty_collection_has_no_features(tmp_path) -> None:
    with open_source(write_features(tmp_path / "a.geojson", [])) as reader:
        assert reader.info().layers[0].features == 0
        assert list(reader.batches()) == []


def test_arcs_and_surfaces_become_lines_and_polygons(tmp_path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        'WKT;n\n"CURVEPOLYGON(CIRCULARSTRING(0 0,1 1,2 0,1 -1,0 0))";1\n'
        '"TIN Z(((0 0 5,1 0 5,0 1 5,0 0 5)))";2\n'
        '"POLYHEDRALSURFACE Z(((0 0 1,1 0 1,0 1 1,0 0 1)),((0 0 1,1 0 1,0 0 2,0 0 1)))";3\n'
        '"POINT ZM(1 2 3 4)";4\n"POINT M(1 2 4)";5\n'
    )
    with open_source(path, ReadOptions(crs="EPSG:4490")) as reader:
        (batch,) = reader.batches()
        counted = {f.rule: f.count for f in reader.findings}
    assert counted == {"arc-linearised": 1, "measure-dropped": 2}
    assert batch.geometry[0].area == pytest.approx(np.pi, rel=1e-3)
    assert [g.geom_type for g in batch.geometry[:3]] == ["Polygon", "MultiPolygon", "MultiPolygon"]
    assert shapely.get_num_geometries(batch.geometry[2]) == 2
    assert [g.wkt for g in batch.geometry[3:]] == ["POINT Z (1 2 3)", "POINT (1 2)"]


def test_csv_keeps_leading_zeros_and_types(tmp_path) -> None:
    path = tmp_path / "点.csv"
    path.write_text("区号,经度,纬度,层数,高,日期\n0722,113.1,31.2,5,1.5,2026-01-02\n021,113,31,6,,\n",
                    encoding="gbk")  # fmt: skip
    with open_source(path) as reader, pytest.raises(CrsMissing):
        next(reader.batches())
    (batch,) = read(path, ReadOptions(crs="EPSG:4490"))
    assert batch.attributes.column("区号").to_pylist() == ["0722", "021"]
    assert batch.attributes.column("层数").to_pylist() == [5, 6]
    assert batch.attributes.column("高").to_pylist() == [1.5, None]
    assert shapely.get_x(batch.geometry).tolist() == [113.1, 113.0]


def test_csv_without_positions_is_refused_with_its_columns(tmp_path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("名称,层数\na,1\n", encoding="utf-8")
    with pytest.raises(SourceUnreadable, match="'名称', '层数'"):
        read(path)


def test_text_that_breaks_the_encoding_in_the_middle_is_refused(tmp_path) -> None:
    path = write_features(tmp_path / "a.geojson", features()[:3], "gbk")
    data = path.read_bytes()
    path.write_bytes(data.replace("随县".encode("gbk"), b"\xff\xff\xff\xff"))
    with pytest.raises(EncodingUndecided, match="a.geojson"):
        read(path)


def test_a_geopackage_with_text_that_is_not_utf8_is_refused(tmp_path) -> None:
    path = write_gdal(tmp_path / "a.gpkg", "GPKG")
    data = path.read_bytes()
    assert data.count("曾都区".encode()) == 1
    path.write_bytes(
        data.replace("曾都区".encode(), "曾都".encode("gbk") + b"\xff\xff\xff\xff\xff")
    )
    with pytest.raises(EncodingUndecided, match="not UTF-8"):
        read(path)


def test_every_format_is_recognised_from_at_most_64_kib(tmp_path) -> None:
    padding = b" " * 4_000_000
    big = {
        "a.geojson": b'{"type":"FeatureCollection","features":[' + padding + b"]}",
        "a.csv": b"lon,lat\n" + b"1,2\n" * 1_000_000,
        "a.dxf": b"0\nSECTION\n" + padding,
        "a.bin": padding,
        "a.parquet": b"PAR1" + padding,
        "a.fgb": b"fgb\x03" + padding,
        "a.zip": b"PK\x03\x04" + padding + b"a.shp",
    }
    for name, content in big.items():
        path = tmp_path / name
        path.write_bytes(content)
        for reader in (VectorReader, GeoParquetReader):
            reader.sniff(path)  # whatever is imported or cached on first use
            before = bytes_read()
            reader.sniff(path)
            assert bytes_read() - before <= SNIFF_NBYTES + 4096, (reader.name, name)


def bytes_read() -> int:
    """Return how many bytes this process has read, by Linux's own count."""
    return int(Path("/proc/self/io").read_text().split("rchar: ")[1].split("\n")[0])


def test_gdal_is_as_new_as_the_workarounds_expect() -> None:
    assert pyogrio.__gdal_version__ >= (3, 9)


@pytest.mark.parametrize(
    "name", ["a!b", "a?b%20c", "'q\"", "GeoJSON:a", "-a", "🏙 城", "x.zip", "http:a", "a\\b"]
)
def test_names_of_files_and_folders_may_hold_anything(tmp_path, name) -> None:
    folder = tmp_path / name
    folder.mkdir()
    shp = write_points(folder, name, [Column(b"n", 4, b"N")], [[b"1"], [b"2"]])
    write_features(folder / f"{name}.geojson", features()[:3])
    write_features(folder / f"{name} 2.geojson", features()[:3], "gbk")
    write_gdal(tmp_path / "plain.gpkg", "GPKG").rename(folder / f"{name}.gpkg")
    for path, expected in [
        (shp, 2), (shp.with_suffix(".geojson"), 3), (folder / f"{name} 2.geojson", 3),
        (shp.with_suffix(".gpkg"), 6),
    ]:  # fmt: skip
        with open_source(path) as reader:
            assert sum(len(b) for b in reader.batches()) == expected
            assert path in reader.info().files
