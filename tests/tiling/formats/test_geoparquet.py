"""GeoParquet at rest: what goes in comes out, sorted by place, and others can read it."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from tiling.batches import FeatureBatch
from tiling.crs import TILE_REF, SpatialRef
from tiling.errors import NothingToTile, StoreError
from tiling.formats.geoparquet import read_geoparquet, write_geoparquet
from tiling.formats.geoparquet_footer import feature_count, geometry_types, group_boxes
from tiling.testing.cities import synthetic_footprints


def together(batches: Any) -> FeatureBatch:
    parts = list(batches)
    whole = FeatureBatch(
        parts[0].ref,
        np.concatenate([p.ids for p in parts]),
        np.concatenate([p.geometry for p in parts]),
        pa.concat_tables([p.attributes for p in parts]),
    )
    return whole.take(np.argsort(whole.ids))


def rich() -> FeatureBatch:
    geometry = np.array(
        [shapely.Point(113.3, 31.6), shapely.box(113, 31, 114, 32), shapely.Point(112, 30)],
        dtype=object,
    )
    table = pa.table(
        {
            "名称": ["曾都区", None, "😀" * 3000],
            "geometry": ["an attribute", "called", "geometry"],
            "BBOX": [1, 2, 3],
            "cim_feature_id": [7, 8, 9],
            "date": [dt.date(2024, 1, 2), None, dt.date(1949, 10, 1)],
            "when": pa.array([dt.datetime(2024, 1, 2, 3)] * 3, pa.timestamp("ms")),
            "list": [["a"], None, []],
            "u": pa.array([2**64 - 1, 0, None], pa.uint64()),
            "raw": [b"\x00", None, b""],
            "f32": pa.array([1.5, None, float("nan")], pa.float32()),
        }
    )
    return FeatureBatch(TILE_REF, np.array([5, 1, 3]), geometry, table)


@pytest.fixture(scope="module")
def city() -> FeatureBatch:
    return synthetic_footprints(3000, seed=9)


@pytest.fixture(scope="module")
def city_file(city: FeatureBatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("city")
    path = folder / "city.parquet"
    assert write_geoparquet([city], path, folder / "spool", row_group_rows=200) == 3000
    return path


def test_features_come_back_with_type_and_value(tmp_path: Path) -> None:
    batch = rich()
    path = tmp_path / "a.parquet"
    write_geoparquet([batch], path, tmp_path / "spool")
    back, expected = together(read_geoparquet(path)), batch.take(np.argsort(batch.ids))
    assert back.ids.tolist() == expected.ids.tolist()
    assert shapely.equals_exact(back.geometry, expected.geometry).all()
    assert back.attributes.schema.equals(expected.attributes.schema)
    plain = [n for n in back.attributes.column_names if n != "f32"]
    assert back.attributes.select(plain).equals(expected.attributes.select(plain))
    assert str(back.column("f32").tolist()) == str(expected.column("f32").tolist())
    assert back.ref == TILE_REF


def test_own_columns_give_way_to_attributes(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_geoparquet([rich()], path, tmp_path / "spool")
    names = set(pq.read_schema(path).names)
    assert {"geometry", "geometry_2", "BBOX", "bbox_2", "cim_feature_id_2"} <= names


def test_the_metadata_is_that_of_geoparquet_1_1(city: FeatureBatch, city_file: Path) -> None:
    geo = json.loads(pq.read_metadata(city_file).metadata[b"geo"])
    column = geo["columns"]["geometry"]
    assert (geo["version"], geo["primary_column"]) == ("1.1.0", "geometry")
    assert column["encoding"] == "WKB"
    assert column["geometry_types"] == ["Polygon"] == geometry_types(city_file)
    assert column["bbox"] == pytest.approx(shapely.total_bounds(city.geometry))
    assert column["covering"]["bbox"]["ymax"] == ["bbox", "ymax"]
    assert "crs" not in column  # OGC:CRS84: longitude first
    assert pq.read_metadata(city_file).row_group(0).column(0).compression == "ZSTD"
    assert feature_count(city_file) == 3000


def test_a_projected_frame_is_written_and_read(tmp_path: Path) -> None:
    batch = replace(rich(), ref=SpatialRef.parse("EPSG:4547"))
    path = tmp_path / "a.parquet"
    write_geoparquet([batch], path, tmp_path / "spool")
    geo = json.loads(pq.read_metadata(path).metadata[b"geo"])
    assert geo["columns"]["geometry_2"]["crs"]["id"]["code"] == 4547
    assert together(read_geoparquet(path)).ref.horizontal_code == "EPSG:4547"


def test_heights_of_geometries_are_kept(tmp_path: Path) -> None:
    geometry = np.array([shapely.Point(113, 31, 85.25), shapely.Point(113, 32)], dtype=object)
    batch = FeatureBatch(TILE_REF, np.arange(2), geometry, pa.table({"n": [1, 2]}))
    path = tmp_path / "a.parquet"
    write_geoparquet([batch], path, tmp_path / "spool")
    assert geometry_types(path) == ["Point", "Point Z"]
    assert shapely.get_z(together(read_geoparquet(path)).geometry)[0] == 85.25


def test_the_size_of_the_batches_does_not_show(
    city: FeatureBatch, city_file: Path, tmp_path: Path
) -> None:
    path = tmp_path / "b.parquet"
    write_geoparquet(city.split(50_000), path, tmp_path / "spool", row_group_rows=200)
    assert path.read_bytes() == city_file.read_bytes()


def test_a_finished_sort_is_not_repeated(
    city: FeatureBatch, city_file: Path, tmp_path: Path
) -> None:
    path = tmp_path / "b.parquet"
    write_geoparquet([city], path, tmp_path / "spool", row_group_rows=200)
    path.unlink()
    write_geoparquet(iter([]), path, tmp_path / "spool", row_group_rows=200)
    assert path.read_bytes() == city_file.read_bytes()


@given(st.tuples(*[st.floats(0, 1)] * 4))
def test_a_box_gives_the_features_that_touch_it_and_no_other(
    city: FeatureBatch, city_file: Path, corners: tuple[float, float, float, float]
) -> None:
    west, south, east, north = shapely.total_bounds(city.geometry)
    x, y = sorted(corners[:2]), sorted(corners[2:])
    box = (
        west + x[0] * (east - west),
        south + y[0] * (north - south),
        west + x[1] * (east - west),
        south + y[1] * (north - south),
    )
    bounds = shapely.bounds(city.geometry)
    expected = (
        (bounds[:, 0] <= box[2])
        & (bounds[:, 2] >= box[0])
        & (bounds[:, 1] <= box[3])
        & (bounds[:, 3] >= box[1])
    )
    found = [i for batch in read_geoparquet(city_file, bbox=box) for i in batch.ids]
    assert sorted(found) == np.flatnonzero(expected).tolist()


def test_row_groups_elsewhere_are_not_read(
    city: FeatureBatch, city_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    original = pq.ParquetFile.read_row_group

    def counting(self: Any, group: int, *args: Any, **options: Any) -> Any:
        read.append(group)
        return original(self, group, *args, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counting)
    bounds = shapely.bounds(city.geometry[0])
    list(read_geoparquet(city_file, bbox=bounds))
    assert pq.ParquetFile(city_file).num_row_groups >= 15
    assert 1 <= len(read) <= 3


def test_only_the_columns_asked_for_are_given(city_file: Path) -> None:
    batch = next(read_geoparquet(city_file, columns=["名称"]))
    assert batch.attributes.column_names == ["名称"]
    assert next(read_geoparquet(city_file, columns=[])).attributes.num_columns == 0
    with pytest.raises(StoreError, match="没有"):
        next(read_geoparquet(city_file, columns=["没有"]))


def test_nothing_to_write_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    with pytest.raises(NothingToTile, match=r"a\.parquet"):
        write_geoparquet([], path, tmp_path / "spool")
    assert not path.exists()


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "a.parquet"
    with pytest.raises(StoreError, match="nowhere"):
        write_geoparquet([rich()], path, tmp_path / "spool")


def test_damaged_and_foreign_files_are_store_errors(city_file: Path, tmp_path: Path) -> None:
    raw = city_file.read_bytes()
    cut, foreign = tmp_path / "cut.parquet", tmp_path / "foreign.parquet"
    for size in (0, 3, 100, len(raw) // 2, len(raw) - 1):
        cut.write_bytes(raw[:size])
        with pytest.raises(StoreError, match=r"cut\.parquet"):
            list(read_geoparquet(cut))
    pq.write_table(pa.table({"a": [1]}), foreign)
    for read in (lambda p: list(read_geoparquet(p)), geometry_types):
        with pytest.raises(StoreError, match=r"foreign\.parquet"):
            read(foreign)
    with pytest.raises(StoreError):
        feature_count(tmp_path / "missing.parquet")


def test_a_file_that_is_replaced_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    for round_, west in enumerate((10.0, 100.0)):
        shapes = np.array([shapely.box(west, 30, west + 1, 31)], dtype=object)
        batch = FeatureBatch(TILE_REF, np.array([round_]), shapes, pa.table({"n": [round_]}))
        write_geoparquet([batch], path, tmp_path / f"spool{round_}")
        assert group_boxes(path).tolist() == [[west, 30, west + 1, 31]]
        (found,) = read_geoparquet(path, (west, 30, west + 0.5, 31))
        assert found.ids.tolist() == [round_]
        with pytest.raises(ValueError, match="read-only"):
            group_boxes(path)[0, 0] = 0
