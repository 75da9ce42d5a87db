"""The main job through the real binary: ingest, interrupt, resume, publish, roll back, export."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import signal
import sqlite3
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyogrio
import pytest
import rasterio
import shapely
from rasterio.transform import from_origin

from ingest.workspace import Workspace
from tests.commands import CIM, DEMO_SOURCES, Command
from tests.postgres import Server
from tiling.testing.cities import synthetic_footprints

FOOTPRINTS = ["--kind", "buildings", "--vertical", "EPSG:5737", "--bad-heights", "default"]


def write_city(path: Path, count: int, seed: int = 3) -> Path:
    city = synthetic_footprints(count, seed=seed, lon=113.38, lat=31.69)
    table = city.attributes.append_column(
        "geometry", pa.array(shapely.to_wkb(city.geometry), type=pa.binary())
    )
    pyogrio.write_arrow(
        table, path, geometry_name="geometry", geometry_type="Unknown", crs="EPSG:4490"
    )
    return path


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_city(tmp_path_factory.mktemp("city") / "城市.fgb", 3000)


def stores(cim: Command, data: Path, asset: str) -> list[tuple[str, str]]:
    shown = cim("show", asset, "--data", data, "--json").json()
    newest = max(shown["versions"], key=lambda v: v["version"])
    return [(s["role"], s["sha256"]) for s in newest["stores"]]


def listing(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_equal_input_gives_equal_bytes_whatever_the_number_of_workers(
    cim: Command, city: Path, tmp_path: Path
) -> None:
    for kind in (["--kind", "vector"], FOOTPRINTS):
        made = []
        for workers in ("1", "2"):
            data = tmp_path / f"{kind[1]}-{workers}"
            options = ["--id", "c", *kind, "--data", data, "--workers", workers]
            done = cim("ingest", city, *options, "--memory", "128MB" if workers == "2" else "2GB")
            assert done.code == 0, done.err
            made.append(stores(cim, data, "c"))
        assert made[0] == made[1]


def test_killed_at_any_moment_it_leaves_nothing_visible_and_resumes_to_the_same_bytes(
    cim: Command, city: Path, tmp_path: Path
) -> None:
    whole = tmp_path / "whole"
    started = time.monotonic()
    assert cim("ingest", city, "--id", "c", *FOOTPRINTS, "--data", whole).code == 0
    lasts = time.monotonic() - started
    data = tmp_path / "killed"
    command = [CIM, "ingest", city, "--id", "c", *FOOTPRINTS, "--data", data]
    killed = 0
    for share in (0.35, 0.6, 0.85):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(lasts * share)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            if data.exists() and cim("list", "--data", data, "--json").json():
                # It goes on where it was killed, so it may be done, and on its way out, by now.
                assert cim("check", "c", "--data", data).code == 0
                break
            killed += 1
            assert not list((data / "stores").rglob("*.3tz")) if (data / "stores").exists() else 1
    assert killed
    assert cim("ingest", city, "--id", "c", *FOOTPRINTS, "--data", data).code == 0
    assert stores(cim, data, "c") == stores(cim, whole, "c")
    assert not any((data / "jobs").iterdir())
    reports = []
    for folder in (data, whole):
        with Workspace(folder).open_catalog() as catalog:
            reports.append(catalog.version("c").report)
    assert reports[0] == reports[1]


def test_interrupting_cancels_cleanly_with_code_130(city: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    command = [CIM, "ingest", city, "--id", "c", *FOOTPRINTS, "--data", data]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, encoding="utf-8")
    assert process.stderr is not None
    for line in process.stderr:
        if "read" in line:
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err


def test_the_same_command_twice_changes_nothing(cim: Command, city: Path, tmp_path: Path) -> None:
    options = [city, "--id", "c", "--kind", "vector", "--data", tmp_path]
    assert cim("ingest", *options).code == 0
    before = listing(tmp_path / "stores")
    again = cim("ingest", *options, "--json").json()
    assert again["result"]["unchanged"] is True
    assert again["result"]["version"] == 1
    assert listing(tmp_path / "stores") == before


def test_versions_roll_back_and_deleting_frees_the_files(
    cim: Command, city: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    other = write_city(tmp_path / "新.fgb", 50, seed=4)
    for source in (city, other):
        assert cim("ingest", source, "--id", "c", "--kind", "vector", "--data", data).code == 0
    found = cim("versions", "c", "--data", data, "--json").json()
    assert [(v["version"], v["current"]) for v in found] == [(2, True), (1, False)]
    assert cim("rollback", "c", "1", "--data", data).code == 0
    assert cim("show", "c", "--data", data, "--json").json()["current"] == 1
    assert cim("rollback", "c", "9", "--data", data).code == 4
    assert cim("delete", "c", "--data", data).code == 0
    assert listing(data / "stores") == []
    assert cim("show", "c", "--data", data).code == 4
    assert cim("list", "--data", data, "--json").json() == []


def test_the_catalogue_rests_in_postgresql_when_told_so(
    cim: Command, postgres: Server, tmp_path: Path
) -> None:
    env, data = {"CIM_DATABASE_URL": postgres.new_database()}, tmp_path / "data"
    city = write_city(tmp_path / "城.geojson", 40)
    common = ("--kind", "vector", "--crs", "EPSG:4326")
    assert not cim("ingest", city, "--id", "城", "--data", data, *common, env=env).code
    assert not (data / "catalog.db").exists()
    (shown,) = cim("list", "--json", "--data", data, env=env).json()
    assert shown["id"] == "城"
    assert not cim("check", "城", "--data", data, env=env).code
    nobody = {"CIM_DATABASE_URL": "postgresql://cim:geheim@127.0.0.1:9/cim"}
    refused = cim("list", "--data", data, env=nobody)
    assert refused.code == 1
    assert "127.0.0.1:9/cim" in refused.err
    assert "geheim" not in refused.out + refused.err


def test_an_asset_of_another_kind_is_a_conflict(cim: Command, city: Path, tmp_path: Path) -> None:
    assert cim("ingest", city, "--id", "c", "--kind", "vector", "--data", tmp_path).code == 0
    done = cim("ingest", city, "--id", "c", *FOOTPRINTS, "--data", tmp_path)
    assert done.code == 4
    assert "vector" in done.err


def test_a_mistyped_data_folder_is_missing_not_empty(cim: Command, tmp_path: Path) -> None:
    for arguments in (["list"], ["show", "a"], ["check", "a"], ["versions", "a"]):
        done = cim(*arguments, "--data", tmp_path / "typo")
        assert done.code == 4
        assert "typo" in done.err
    assert not (tmp_path / "typo").exists()


def test_usage_errors_are_code_2(cim: Command, city: Path, tmp_path: Path) -> None:
    for arguments in (
        ["ingest", city, "--id", "a/b"],
        ["ingest", city, "--id", "a", "--memory", "many"],
        ["ingest", city, "--id", "a", "--min-zoom", "9", "--max-zoom", "3"],
        ["ingest", city, "--id", "a", "--kind", "castle"],
        ["ingest", city, "--id", "a", "--executor", "cloud"],
        ["nonsense"],
    ):
        done = cim(*arguments, "--data", tmp_path)
        assert done.code == 2, (arguments, done.err)
        assert "Traceback" not in done.err


def test_published_features_leave_in_every_exchange_format(cim: Command, tmp_path: Path) -> None:
    data = tmp_path / "data"
    source = DEMO_SOURCES / "suizhou_counties_cgcs2000.geojson"
    assert cim("ingest", source, "--id", "县", "--kind", "divisions", "--data", data).code == 0
    wanted = {f["properties"]["name"] for f in json.loads(source.read_text("utf-8"))["features"]}
    for name, options in {
        "out.gpkg": ["--format", "gpkg"],
        "out.geojson": ["--format", "geojson"],
        "out.shp": ["--format", "shp", "--encoding", "GBK"],
    }.items():
        out = tmp_path / name
        done = cim("export", "县", out, *options, "--data", data)
        assert done.code == 0, done.err
        options = {"encoding": "GBK"} if name.endswith(".shp") else {}
        assert set(pyogrio.read_arrow(out, **options)[1].column("name").to_pylist()) == wanted
    assert cim("export", "县", tmp_path / "out.gpkg", "--format", "gpkg", "--data", data).code == 4
    folder, archive = tmp_path / "tiles", tmp_path / "out.mbtiles"
    assert cim("export", "县", folder, "--format", "directory", "--data", data).code == 0
    assert cim("export", "县", archive, "--format", "mbtiles", "--data", data).code == 0
    with sqlite3.connect(archive) as database:
        count = database.execute("SELECT count(*) FROM tiles").fetchone()[0]
    database.close()
    assert count == len(list(folder.rglob("*.mvt")))
    wrong = cim("export", "县", tmp_path / "x", "--format", "cog", "--data", data)
    assert wrong.code == 2
    assert "geoparquet" in wrong.err


def test_an_altered_store_is_found(cim: Command, tmp_path: Path) -> None:
    source = DEMO_SOURCES / "suizhou_counties_cgcs2000.geojson"
    assert cim("ingest", source, "--id", "s", "--kind", "divisions", "--data", tmp_path).code == 0
    assert cim("check", "s", "--data", tmp_path).code == 0
    store = next((tmp_path / "stores").rglob("*.pmtiles"))
    content = bytearray(store.read_bytes())
    content[len(content) // 2] ^= 0xFF
    store.write_bytes(content)
    done = cim("check", "s", "--data", tmp_path, "--json")
    assert done.code == 1
    assert done.json()["findings"][0]["rule"] == "store-altered"


def test_a_full_disk_is_said_and_loses_nothing(city: Path, tmp_path: Path) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    first = DEMO_SOURCES / "suizhou_counties_cgcs2000.geojson"
    script = " ".join(
        [
            f"mount -t tmpfs -o size=2500k tmpfs {shlex.quote(str(mount))} &&",
            f"{CIM} ingest {first} --id s --kind divisions --data {mount} >/dev/null 2>&1 &&",
            f"{CIM} ingest {shlex.quote(str(city))} --id c {' '.join(FOOTPRINTS)}",
            f"--data {mount}; echo code=$?;",
            f"{CIM} list --data {mount} --json; {CIM} check s --data {mount}; echo check=$?",
        ]
    )
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert "code=3" in done.stdout, done.stdout + done.stderr
    assert "disk is full" in done.stderr
    assert "remedy" in done.stderr
    assert "Traceback" not in done.stderr
    assert '"id": "s"' in done.stdout and '"id": "c"' not in done.stdout
    assert "check=0" in done.stdout


def test_buildings_stand_on_the_terrain_that_is_named(cim: Command, tmp_path: Path) -> None:
    data = tmp_path / "data"
    dem = tmp_path / "dem.tif"
    slope = np.add.outer(np.arange(80.0), np.arange(80.0)).astype(np.float32) + 40
    with rasterio.open(
        dem, "w", driver="GTiff", height=80, width=80, count=1, dtype="float32",
        crs="EPSG:4490", transform=from_origin(113.37, 31.71, 0.0005, 0.0005),
    ) as dataset:  # fmt: skip
        dataset.write(slope, 1)
    box = shapely.box(113.3801, 31.6901, 113.3806, 31.6906)
    source = tmp_path / "楼.geojson"
    feature = {
        "type": "Feature",
        "properties": {"name": "坡上楼", "height": 30},
        "geometry": shapely.geometry.mapping(box),
    }
    source.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}), "utf-8")
    up = ["--vertical", "EPSG:5773", "--data", data]
    assert cim("ingest", dem, "--id", "dem", "--kind", "terrain", *up).code == 0
    options = ["--id", "b", "--kind", "buildings", "--terrain", "dem", "--data", data]
    done = cim("ingest", source, *options)
    assert done.code == 0, done.err
    out = tmp_path / "b.parquet"
    assert cim("export", "b", out, "--format", "geoparquet", "--data", data).code == 0
    import pyarrow.parquet as pq

    from tiling.geoid import parse_vertical

    made = pq.read_table(out).to_pylist()[0]
    # Bilinear between pixel centres; the slope is a plane, so the answer is exact.
    corners = shapely.get_coordinates(box)
    columns = (corners[:, 0] - 113.37) / 0.0005 - 0.5
    rows = (31.71 - corners[:, 1]) / 0.0005 - 0.5
    separation = parse_vertical("EPSG:5773").separation(corners[:, 0], corners[:, 1])
    assert made["cim:base_m"] == pytest.approx((40 + columns + rows + separation).min(), abs=0.01)
    missing = cim("ingest", source, "--id", "d", "--kind", "buildings", "--terrain", "no",
                  "--data", data)  # fmt: skip
    assert missing.code == 4


def test_sources_in_gbk_keep_their_names(cim: Command, tmp_path: Path) -> None:
    data = tmp_path / "data"
    path = tmp_path / "楼房.shp"
    names: Any = np.array(["曾都区炎帝大道一号", "随州市编钟大厦"], dtype=object)
    boxes = shapely.box([113.38, 113.39], 31.69, [113.381, 113.391], 31.691)
    pyogrio.raw.write(
        path, shapely.to_wkb(boxes), field_data=[names, np.array([12.0, 30.0])],
        fields=["名称", "楼高"], geometry_type="Polygon", crs="EPSG:4490",
        driver="ESRI Shapefile", encoding="GBK",
    )  # fmt: skip
    path.with_suffix(".cpg").unlink()
    report = tmp_path / "r.json"
    done = cim("ingest", path, "--id", "g", *FOOTPRINTS, "--data", data, "--report", report)
    assert done.code == 0, done.err
    source = json.loads(report.read_text("utf-8"))["plan"]["sources"][0]
    assert source["encoding"]["name"].upper().startswith("GB")
    out = tmp_path / "o.geojson"
    assert cim("export", "g", out, "--format", "geojson", "--data", data).code == 0
    made = [f["properties"] for f in json.loads(out.read_text("utf-8"))["features"]]
    assert {p["名称"] for p in made} == set(names)


def test_a_job_that_is_running_is_not_started_twice(
    cim: Command, city: Path, tmp_path: Path
) -> None:
    command = [CIM, "ingest", city, "--id", "c", *FOOTPRINTS, "--data", tmp_path]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, encoding="utf-8")
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if "read" in line:
                break
        os.kill(process.pid, signal.SIGSTOP)
        second = cim("ingest", city, "--id", "c", *FOOTPRINTS, "--data", tmp_path)
        assert second.code == 4
        assert "already running" in second.err
    finally:
        os.kill(process.pid, signal.SIGCONT)
        process.kill()
        process.communicate()


def test_the_stores_are_what_the_catalogue_says(cim: Command, demo_data: Path) -> None:
    for asset in cim("list", "--data", demo_data, "--json").json():
        for version in asset["versions"]:
            for store in version["stores"]:
                content = (demo_data / store["path"]).read_bytes()
                assert hashlib.sha256(content).hexdigest() == store["sha256"]
                assert len(content) == store["bytes"]
