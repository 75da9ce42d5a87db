"""Every vector format keeps the promises of `ReaderTests`."""

from __future__ import annotations

import json
import shutil
import zipfile
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import pytest
import shapely

from ingest.readers.base import ReadOptions
from ingest.readers.geoparquet import GeoParquetReader
from ingest.readers.vector import VectorReader
from tests.ingest.readers.reader_tests import ReaderTests
from tests.ingest.readers.shapefiles import Column, write_points

NAMES = ["曾都区", "随县", "广水市", "a'b\"c/d", "🏙 emoji", None, "长" * 10_000]
HEIGHTS = [12.5, 3.0, None, -1.0, 0.0, 99.25, 7.0]
GEOMETRY = np.array(
    [
        shapely.box(113 + i / 100, 31.5, 113.005 + i / 100, 31.505) if i != 4 else None
        for i in range(7)
    ]
)


def write_gdal(path: Path, driver: str, **kwargs) -> Path:
    table = pa.table(
        {
            "名称": pa.array(NAMES, pa.string()),
            "高度": pa.array(HEIGHTS, pa.float64()),
            "code": pa.array(range(421303000000, 421303000007), pa.int64()),
            "geometry": pa.array(shapely.to_wkb(GEOMETRY), pa.binary()),
        }
    )
    pyogrio.write_arrow(
        table, path, driver=driver, geometry_name="geometry", geometry_type="Polygon",
        crs="EPSG:4490", **kwargs,
    )  # fmt: skip
    return path


class VectorTests(ReaderTests):
    @pytest.fixture
    def reader_class(self):
        return VectorReader


class TestGeoPackage(VectorTests):
    @pytest.fixture
    def source(self, tmp_path):
        return write_gdal(tmp_path / "白模.gpkg", "GPKG", layer="建筑/'a'")


class TestFlatGeobuf(VectorTests):
    @pytest.fixture
    def source(self, tmp_path):
        return write_gdal(tmp_path / "白模.fgb", "FlatGeobuf", SPATIAL_INDEX="NO")


class TestFileGeodatabase(VectorTests):
    @pytest.fixture
    def source(self, tmp_path):
        return write_gdal(
            tmp_path / "城市.gdb", "OpenFileGDB", TARGET_ARCGIS_VERSION="ARCGIS_PRO_3_2_OR_LATER"
        )


class TestZippedFileGeodatabase(VectorTests):
    @pytest.fixture
    def source(self, tmp_path):
        inside = write_gdal(
            tmp_path / "城市.gdb", "OpenFileGDB", TARGET_ARCGIS_VERSION="ARCGIS_PRO_3_2_OR_LATER"
        )
        return Path(shutil.make_archive(str(inside), "zip", tmp_path, inside.name))


class TestGeoJson(VectorTests):
    @pytest.fixture
    def source(self, tmp_path):
        return write_gdal(tmp_path / "白模 #1.geojson", "GeoJSON", RFC7946="NO")


class TestGeoJsonSequence(VectorTests):
    @pytest.fixture
    def source(self, tmp_path):
        path = tmp_path / "a.geojsonl"
        path.write_text(
            "\n".join(json.dumps(f, ensure_ascii=False) for f in features()), encoding="utf-8"
        )
        return path


class TestArrayOfFeaturesWithAMark(VectorTests):
    @pytest.fixture
    def source(self, tmp_path):
        path = tmp_path / "数组.json"
        path.write_text(json.dumps(features(), ensure_ascii=False), encoding="utf-8-sig")
        return path


class TestMixedGeometryWithHeights(VectorTests):
    @pytest.fixture
    def source(self, tmp_path):
        members = features()
        members[1]["geometry"] = {"type": "Point", "coordinates": [113.2, 31.6, 20.0]}
        path = tmp_path / "mixed.geojson"
        path.write_text(json.dumps({"type": "FeatureCollection", "features": members}))
        return path


class TestCsvInGcj02(VectorTests):
    @pytest.fixture
    def options(self):
        return ReadOptions(crs="GCJ-02")

    @pytest.fixture
    def source(self):
        return Path("cim_server/demo/data/suizhou_towns_villages_gcj02.csv").resolve()


class TestDxf(VectorTests):
    @pytest.fixture
    def options(self):
        return ReadOptions(crs="EPSG:4547")

    @pytest.fixture
    def source(self, tmp_path):
        path = tmp_path / "总平面.dxf"
        path.write_bytes(write_dxf(["建筑", "道路", "0"]).encode("gbk"))
        return path


class TestGbkShapefile(VectorTests):
    @pytest.fixture
    def source(self, tmp_path):
        columns = [Column("名称".encode("gbk"), 20), Column("高度".encode("gbk"), 10, b"N", 2)]
        rows = [[f"随州市第{i}号楼".encode("gbk"), f"{i}.25".encode()] for i in range(9)]
        return write_points(tmp_path, "白模", columns, rows, null_shapes=frozenset({4}))


class TestRealShapefile(VectorTests):
    @pytest.fixture
    def source(self):
        return Path("cim_server/demo/data/washington_buildings.shp").resolve()


class TestZippedShapefile(VectorTests):
    @pytest.fixture
    def source(self, tmp_path):
        columns = [Column("名称".encode("gbk"), 20), Column(b"n", 4, b"N")]
        rows = [[f"曾都区{i}".encode("gbk"), str(i).encode()] for i in range(5)]
        shp = write_points(tmp_path, "建筑物", columns, rows)
        path = tmp_path / "成果.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for part in sorted(tmp_path.glob("建筑物.*")):
                archive.write(part, f"成果/{part.name}")
        shp.unlink()
        return path


def write_dxf(layers: list[str]) -> str:
    """Return a DXF of AutoCAD 2000 with one line on each layer."""
    lines = ["0", "SECTION", "2", "HEADER", "9", "$ACADVER", "1", "AC1015"]
    lines += ["9", "$DWGCODEPAGE", "3", "ANSI_936", "0", "ENDSEC", "0", "SECTION", "2", "ENTITIES"]
    for i, layer in enumerate(layers):
        x = 440_000 + 10 * i
        lines += ["0", "LINE", "8", layer, "10", f"{x}", "20", "3500000", "30", "0"]
        lines += ["11", f"{x + 5}", "21", "3500005", "31", "0"]
    return "\n".join([*lines, "0", "ENDSEC", "0", "EOF", ""])


class GeoParquetTests(ReaderTests):
    @pytest.fixture
    def reader_class(self):
        return GeoParquetReader


def write_geoparquet(path: Path, column: pa.Array, **geo) -> Path:
    table = pa.table(
        {
            "名称": pa.array(NAMES, pa.string()),
            "建成": pa.array([date(2020, 1, i + 1) for i in range(7)]),
            "tags": pa.array([{"k": i} for i in range(7)]),
            "geometry": column,
        }
    )
    meta = {
        "version": "1.1.0",
        "primary_column": "geometry",
        "columns": {"geometry": {"encoding": "WKB", "geometry_types": [], **geo}},
    }
    table = table.replace_schema_metadata({"geo": json.dumps(meta)})
    pq.write_table(table, path, row_group_size=3)
    return path


class TestGeoParquet(GeoParquetTests):
    @pytest.fixture
    def source(self, tmp_path):
        column = pa.array(shapely.to_wkb(GEOMETRY), pa.binary())
        return write_geoparquet(tmp_path / "白模.parquet", column)


class TestGeoParquetWithNativeGeometry(GeoParquetTests):
    @pytest.fixture
    def source(self, tmp_path):
        rings = [
            None if g is None else [[dict(zip("xy", c, strict=True)) for c in g.exterior.coords]]
            for g in GEOMETRY
        ]
        return write_geoparquet(tmp_path / "n.parquet", pa.array(rings), encoding="polygon")


def features() -> list[dict]:
    return [
        {
            "type": "Feature",
            "properties": {"名称": name, "高度": height},
            "geometry": None if geometry is None else json.loads(shapely.to_geojson(geometry)),
        }
        for name, height, geometry in zip(NAMES, HEIGHTS, GEOMETRY, strict=True)
    ]
