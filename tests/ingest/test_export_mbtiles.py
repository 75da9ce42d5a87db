"""MBTiles: what the archive holds, in a file that GDAL opens and reads alike."""

from __future__ import annotations

import gzip
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import mapbox_vector_tile
import numpy as np
import pyarrow as pa
import pyogrio
import pytest
import shapely

from ingest.export_mbtiles import APPLICATION_ID, export_mbtiles
from tiling.batches import FeatureBatch
from tiling.crs import TILE_REF
from tiling.errors import StoreError
from tiling.findings import Findings
from tiling.stores.pmtiles import PmtilesReader, PmtilesWriter
from tiling.tilers.base import Run, SilentProgress
from tiling.tilers.pipeline import SerialExecutor
from tiling.tilers.vector import VectorTiler


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve counties in a row and a lake so large that many of its tiles are alike."""
    folder = tmp_path_factory.mktemp("mbtiles")
    west = 113 + 0.02 * np.arange(12)
    shapes = [*shapely.box(west, 31.5, west + 0.02, 31.52), shapely.box(113, 31.6, 114, 32.2)]
    table = pa.table(
        {
            "名称": [f"县{i}" for i in range(12)] + [""],
            "人口": pa.array([2**40 + i for i in range(12)] + [None], pa.int64()),
            "低": [-1.5 * i for i in range(13)],
            "城区": [i % 2 == 0 for i in range(13)],
        }
    )
    geometry = np.array(shapes, dtype=object)
    batch = FeatureBatch(TILE_REF, np.arange(13), geometry, table)
    writer = PmtilesWriter(folder / "tiles.pmtiles")
    run = Run(
        writer, folder / "scratch", SerialExecutor(), 1, 1 << 30, SilentProgress(), Findings()
    )
    info = VectorTiler(layer="区划", min_zoom=5, max_zoom=12).run([batch], run)
    return writer.commit(info.metadata).path


@pytest.fixture(scope="module")
def exported(archive: Path) -> Path:
    out = archive.with_name("区划.mbtiles")
    export_mbtiles(archive, out, SilentProgress())
    assert [p.name for p in out.parent.glob("*.part")] == []
    return out


def rows(path: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as database:
        return database.execute(query).fetchall()


def test_every_tile_is_there_as_it_was_with_rows_counted_from_the_south(
    archive: Path, exported: Path
) -> None:
    found = {
        f"{z}/{x}/{2**z - 1 - y}.mvt": data
        for z, x, y, data in rows(exported, "SELECT * FROM tiles")
    }
    with PmtilesReader(archive) as reader:
        expected = {key: tile.data for key in reader.keys() if (tile := reader.get(key))}
    assert found == expected
    assert all(data.startswith(b"\x1f\x8b") for data in found.values())


def test_tiles_of_equal_bytes_rest_once(exported: Path) -> None:
    ((tiles, different),) = rows(exported, "SELECT count(*), count(DISTINCT tile_data) FROM tiles")
    ((images,),) = rows(exported, "SELECT count(*) FROM images")
    assert images == different < tiles


def test_the_metadata_are_those_of_the_specification(exported: Path) -> None:
    assert rows(exported, "PRAGMA application_id") == [(APPLICATION_ID,)]
    found = dict(rows(exported, "SELECT name, value FROM metadata"))
    assert (found["name"], found["format"]) == ("区划", "pbf")
    assert (found["minzoom"], found["maxzoom"]) == ("5", "12")
    west, south, east, north = map(float, found["bounds"].split(","))
    assert (west, south, east, north) == pytest.approx((113, 31.5, 114, 32.2), abs=1e-6)
    lon, lat, zoom = map(float, found["center"].split(","))
    assert west < lon < east and south < lat < north and zoom == 5
    (layer,) = json.loads(found["json"])["vector_layers"]
    assert layer["id"] == "区划"
    assert layer["fields"] == {
        "名称": "String", "人口": "Number", "低": "Number", "城区": "Boolean",
    }  # fmt: skip


def test_gdal_reads_from_it_the_features_of_the_source(exported: Path) -> None:
    meta, table = pyogrio.read_arrow(exported, layer="区划", CLIP="YES")
    assert meta["crs"] == "EPSG:3857"
    shapes = shapely.from_wkb(table.column(meta["geometry_name"] or "wkb_geometry").to_numpy())
    assert shapely.is_valid(shapes).all()
    found: dict[int, dict[str, Any]] = {}
    for row in table.select(["mvt_id", "名称", "人口", "低", "城区"]).to_pylist():
        identity = row.pop("mvt_id")
        assert found.setdefault(identity, row) == row
    assert sorted(found) == list(range(13))
    assert found[12] == {"名称": "", "人口": None, "低": -18.0, "城区": True}
    assert found[5] == {"名称": "县5", "人口": 2**40 + 5, "低": -7.5, "城区": False}


def test_two_decoders_that_are_not_ours_read_a_tile_alike(archive: Path, tmp_path: Path) -> None:
    several = 0
    with PmtilesReader(archive) as reader:
        tiles = [t for key in reader.keys() if key.startswith("9/") and (t := reader.get(key))]
    for number, tile in enumerate(tiles):
        data = gzip.decompress(tile.data)
        path = tmp_path / f"{number}.mvt"
        path.write_bytes(data)
        meta, table = pyogrio.read_arrow(path, CLIP="NO")
        theirs = table.column(meta["geometry_name"] or "wkb_geometry").to_numpy()
        features = mapbox_vector_tile.decode(data)["区划"]["features"]  # both turn y upwards
        several += len(features) > 1
        for feature, shape in zip(features, shapely.from_wkb(theirs), strict=True):
            own = shapely.geometry.shape(feature["geometry"])
            assert own.is_valid and shapely.equals(own, shape)
    assert several


def test_a_file_that_cannot_be_written_is_an_error_of_the_store(
    archive: Path, tmp_path: Path
) -> None:
    with pytest.raises(StoreError, match="cannot be written"):
        export_mbtiles(archive, tmp_path / "nowhere" / "x.mbtiles", SilentProgress())
