"""Exports: every format holds what the features hold; what it cannot hold is counted."""

from __future__ import annotations

import datetime as dt
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyogrio
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from ingest.export_features import FORMATS, export_features
from ingest.export_text import fit_names
from tiling.batches import FeatureBatch
from tiling.crs import TILE_REF, SpatialRef
from tiling.errors import ConfigError, StoreError
from tiling.findings import Finding, Findings
from tiling.formats.geoparquet import read_geoparquet, write_geoparquet
from tiling.testing.cities import synthetic_footprints

ENDINGS = {"gpkg": "gpkg", "shp": "shp", "geojson": "geojson", "fgb": "fgb"}


def store(folder: Path, batch: FeatureBatch) -> Path:
    path = folder / "features.parquet"
    write_geoparquet([batch], path, folder / "spool", row_group_rows=100)
    return path


def export(source: Path, out: Path, format: str, encoding: str = "UTF-8") -> dict[str, Finding]:
    findings = Findings()
    rows = export_features(source, out, format, encoding=encoding, findings=findings)
    assert rows == sum(len(b) for b in read_geoparquet(source))
    assert not list(out.parent.glob(".*.part"))
    return {f.rule: f for f in findings}


def read(path: Path) -> tuple[dict[str, Any], pa.Table, Any]:
    meta, table = pyogrio.read_arrow(path)
    column = meta["geometry_name"] or "wkb_geometry"
    geometry = shapely.from_wkb(table.column(column).to_numpy())
    return meta, table.drop_columns([column]), geometry


def expected(source: Path) -> tuple[pa.Table, Any]:
    batches = list(read_geoparquet(source))
    table = pa.concat_tables([b.attributes for b in batches])
    return table, np.concatenate([b.geometry for b in batches])


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return store(tmp_path_factory.mktemp("city"), synthetic_footprints(350, seed=1))


def features(geometry: list[Any], **columns: Any) -> FeatureBatch:
    shapes = np.array(geometry, dtype=object)
    return FeatureBatch(TILE_REF, np.arange(len(shapes)), shapes, pa.table(columns))


@pytest.mark.parametrize("format", ["gpkg", "geojson"])
def test_every_feature_and_attribute_is_there(city: Path, tmp_path: Path, format: str) -> None:
    out = tmp_path / f"建筑.{ENDINGS[format]}"
    assert export(city, out, format) == {}
    meta, table, geometry = read(out)
    attributes, shapes = expected(city)
    assert table.to_pylist() == attributes.to_pylist()
    assert shapely.equals_exact(geometry, shapes, tolerance=1e-9).all()
    assert (meta["crs"], meta["geometry_type"]) == ("EPSG:4326", "Polygon")


def test_flatgeobuf_holds_the_same_in_its_own_order(city: Path, tmp_path: Path) -> None:
    export(city, tmp_path / "a.fgb", "fgb")
    _, table, geometry = read(tmp_path / "a.fgb")
    attributes, shapes = expected(city)
    found = dict(zip(table["名称"].to_pylist(), geometry, strict=True))
    wanted = dict(zip(attributes["名称"].to_pylist(), shapes, strict=True))
    assert found.keys() == wanted.keys()
    found.pop(None), wanted.pop(None)  # names are null here and there
    assert all(shapely.equals_exact(found[n], wanted[n]) for n in wanted)


@pytest.mark.parametrize("encoding", ["GBK", "GB18030", "UTF-8"])
def test_a_shapefile_is_complete_and_says_its_encoding(
    city: Path, tmp_path: Path, encoding: str
) -> None:
    found = export(city, tmp_path / "建筑.shp", "shp", encoding)
    assert {p.name for p in tmp_path.iterdir()} == {
        f"建筑.{e}" for e in ("shp", "shx", "dbf", "prj", "cpg")
    }
    assert (tmp_path / "建筑.cpg").read_text() == encoding
    raw = (tmp_path / "建筑.dbf").read_bytes()
    assert "曾都区".encode(encoding) in raw
    meta, table, geometry = read(tmp_path / "建筑.shp")
    attributes, shapes = expected(city)
    assert table["名称"].to_pylist() == attributes["名称"].to_pylist()
    if encoding != "GBK":
        assert table["用途"].to_pylist() == attributes["用途"].to_pylist()
    assert shapely.equals(geometry, shapes).all()
    assert ("text-not-encodable" in found) == (encoding == "GBK")  # the emoji of 公共设施🏛


def test_cut_field_names_are_listed_and_stay_unique(tmp_path: Path) -> None:
    names = [
        "很长的字段名称一",
        "很长的字段名称二",
        "cim:height_m",
        "cim:height_source",
        "Name",
        "name",
    ]
    source = store(tmp_path, features([shapely.Point(1, 2)], **{n: [n] for n in names}))
    found = export(source, tmp_path / "a.shp", "shp", "GBK")["field-name-truncated"]
    assert (found.severity, found.count) == ("repair", 5)
    assert found.samples[0] == "很长的字段名称一 -> 很长的字段"
    _, table, _ = read(tmp_path / "a.shp")
    assert table.column_names == [
        "很长的字段",
        "很长的字_2",
        "cim_height",
        "cim_heig_2",
        "Name",
        "name_2",
    ]
    assert list(table.to_pylist()[0].values()) == names


def test_long_texts_are_cut_between_characters_and_counted(tmp_path: Path) -> None:
    texts = ["汉" * 5000, "字" * 85, "short", None, "a汉" * 64]
    source = store(tmp_path, features([shapely.Point(i, 1) for i in range(5)], t=texts, i=range(5)))
    found = export(source, tmp_path / "a.shp", "shp")
    assert found["text-truncated"].count == 3
    _, table, _ = read(tmp_path / "a.shp")
    rows = {row["i"]: row["t"] for row in table.to_pylist()}
    assert rows == {0: "汉" * 84, 1: "字" * 84, 2: "short", 3: None, 4: "a汉" * 63 + "a"}


def test_types_that_a_format_lacks_become_what_it_has(tmp_path: Path) -> None:
    columns = {
        "list": [["甲", "乙"]],
        "u": pa.array([2**64 - 1], pa.uint64()),
        "when": pa.array([dt.datetime(2024, 5, 6, 7, 8, 9)], pa.timestamp("ms")),
        "time": [dt.time(7, 8)],
        "dict": pa.array(["住宅"]).dictionary_encode(),
        "f16": pa.array(np.array([1.5], np.float16)),
        "none": pa.nulls(1),
        "raw": [b"\x01"],
        "flag": [True],
    }
    source = store(tmp_path, features([shapely.Point(1, 2)], **columns))
    for format, ending in ENDINGS.items():
        found = export(source, tmp_path / f"{format}.{ending}", format)
        _, table, _ = read(tmp_path / f"{format}.{ending}")
        row = table.to_pylist()[0]
        assert row["u"] == str(2**64 - 1)
        assert row["list"] in ('["甲","乙"]', ["甲", "乙"])
        assert (row["dict"], row["f16"], row["none"], bool(row["flag"])) == (
            "住宅",
            1.5,
            None,
            True,
        )
        assert "07:08" in str(row["time"]) and "2024-05-06 07:08:09" in str(row["when"])
        assert ("raw" in row) == (format == "gpkg") == ("field-left-out" not in found)


def test_attributes_called_like_keys_are_attributes(tmp_path: Path) -> None:
    columns = {"fid": [9, 9], "FID": ["x", "y"], "geom": ["g", "h"], "ogc_fid": [1.5, 2.5]}
    source = store(tmp_path, features([shapely.Point(1, 2), shapely.Point(1, 3)], **columns))
    for format in ("gpkg", "geojson", "fgb", "shp"):
        out = tmp_path / f"{format}.{ENDINGS[format]}"
        export(source, out, format)
        _, table, _ = read(out)
        rows = sorted(tuple(row.values()) for row in table.to_pylist())
        assert rows == [(9, "x", "g", 1.5), (9, "y", "h", 2.5)]


def test_single_and_multi_geometries_share_a_layer(tmp_path: Path) -> None:
    box = shapely.box(0, 0, 1, 1)
    source = store(tmp_path, features([box, shapely.MultiPolygon([box])], n=[1, 2]))
    for format, ending in ENDINGS.items():
        export(source, tmp_path / f"a.{ending}", format)
        meta, _, geometry = read(tmp_path / f"a.{ending}")
        assert meta["geometry_type"] in ("MultiPolygon", "Polygon", "Unknown")
        assert shapely.equals(geometry, box).all()


def test_mixed_geometries_are_refused_for_shapefiles_with_the_remedy(tmp_path: Path) -> None:
    source = store(tmp_path, features([shapely.Point(1, 2), shapely.box(0, 0, 1, 1)], n=[1, 2]))
    with pytest.raises(ConfigError, match="Point, Polygon; use gpkg"):
        export(source, tmp_path / "a.shp", "shp")
    assert not (tmp_path / "a.shp").exists()
    for format in ("gpkg", "geojson", "fgb"):
        export(source, tmp_path / f"a.{format}", format)
        assert {g.geom_type for g in read(tmp_path / f"a.{format}")[2]} == {"Point", "Polygon"}


def test_a_projected_frame_is_named_in_the_file(tmp_path: Path) -> None:
    batch = features([shapely.Point(441464.178, 3507677.309)], n=[1])
    batch = FeatureBatch(SpatialRef.parse("EPSG:4547"), batch.ids, batch.geometry, batch.attributes)
    export(store(tmp_path, batch), tmp_path / "a.gpkg", "gpkg")
    assert read(tmp_path / "a.gpkg")[0]["crs"] == "EPSG:4547"


def test_geoparquet_is_handed_out_as_it_rests(city: Path, tmp_path: Path) -> None:
    export(city, tmp_path / "a.parquet", "geoparquet")
    assert (tmp_path / "a.parquet").read_bytes() == city.read_bytes()


def test_geojson_is_json_with_chinese_as_it_is(city: Path, tmp_path: Path) -> None:
    export(city, tmp_path / "a.geojson", "geojson")
    text = (tmp_path / "a.geojson").read_text("utf-8")
    assert "曾都区" in text and len(json.loads(text)["features"]) == 350


def test_unknown_formats_and_encodings_are_refused(city: Path, tmp_path: Path) -> None:
    for arguments in (("xlsx", "UTF-8"), ("shp", "klingon")):
        with pytest.raises(ConfigError, match=arguments[0] if arguments[0] == "xlsx" else "kling"):
            export(city, tmp_path / "a.x", *arguments)
    assert list(tmp_path.iterdir()) == []
    assert set(FORMATS) >= set(ENDINGS)


def test_a_damaged_store_leaves_no_file(city: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.parquet"
    raw = bytearray(city.read_bytes())
    raw[200:4000] = b"\xff" * 3800
    broken.write_bytes(raw)
    with pytest.raises(StoreError, match="broken"):
        export(broken, tmp_path / "a.gpkg", "gpkg")
    assert [p.name for p in tmp_path.iterdir()] == ["broken.parquet"]


def test_drivers_warn_into_the_report_and_not_onto_the_screen(city: Path, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        export(city, tmp_path / "a.shp", "shp", "GBK")


@given(
    st.lists(st.text("很长abcABC:_1", min_size=1, max_size=14), max_size=30, unique=True),
    st.sampled_from(["GBK", "UTF-8"]),
)
def test_fitted_names_fit_and_are_unique(names: list[str], encoding: str) -> None:
    fitted = fit_names(names, 10, encoding)
    assert list(fitted) == names
    assert len({n.casefold() for n in fitted.values()}) == len(names)
    assert all(0 < len(n.encode(encoding)) <= 10 for n in fitted.values())
    for name, new in fitted.items():
        if len(name.encode(encoding)) <= 10 and ":" not in name and "_" not in new:
            assert new == name


def test_numbers_that_geojson_does_not_have_become_null_and_are_counted(tmp_path: Path) -> None:
    places = [shapely.Point(113 + i, 31) for i in range(4)]
    source = store(tmp_path, features(places, v=[1.5, float("nan"), float("inf"), None]))
    found = export(source, tmp_path / "a.geojson", "geojson")
    assert (found["number-left-out"].severity, found["number-left-out"].count) == ("drop", 2)
    assert "gdal-warning" not in found
    written = json.loads((tmp_path / "a.geojson").read_text("utf-8"))["features"]
    values = [f["properties"]["v"] for f in written]
    assert sorted(values, key=str) == [1.5, None, None, None]
