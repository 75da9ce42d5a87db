"""Mistakes of the person at the keyboard: a sentence and exit code 2 or 3, never a traceback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from ingest.executors import open_executor
from ingest.report import Report
from tests.commands import CIM
from tiling.errors import ConfigError


def squares(path: Path, **columns: Any) -> Path:
    count = len(next(iter(columns.values())))
    features = [
        {
            "type": "Feature",
            "properties": {name: values[i] for name, values in columns.items()},
            "geometry": {
                "type": "Polygon",
                "coordinates": [[[x, 31.6], [x + 0.001, 31.6], [x, 31.601], [x, 31.6]]],
            },
        }
        for i, x in enumerate(113.3 + 0.002 * i for i in range(count))
    ]
    data = {"type": "FeatureCollection", "features": features}
    path.write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return squares(tmp_path / "面.geojson", 名称=["甲", "乙"])


def test_a_report_is_written_into_folders_that_are_made(
    source: Path, tmp_path: Path, cim_here: Any
) -> None:
    report = tmp_path / "报告" / "一" / "r.json"
    data = tmp_path / "data"
    assert cim_here("ingest", source, "--id", "x", "--data", data, "--report", report).code == 0
    assert json.loads(report.read_text("utf-8"))["status"] == "ok"


def test_a_report_that_cannot_be_written_is_said_before_anything_is_published(
    source: Path, tmp_path: Path, cim_here: Any
) -> None:
    data = tmp_path / "data"
    done = cim_here("ingest", source, "--id", "x", "--data", data, "--report", tmp_path)
    assert done.code == 2
    assert "--report" in done.err
    assert not data.exists()
    with pytest.raises(ConfigError):
        Report.prepare(source / "r.json")
    Report.prepare(tmp_path / "r.json")
    assert not (tmp_path / "r.json").exists()


def test_no_source_and_a_data_folder_that_is_a_file_are_usage_errors(
    source: Path, tmp_path: Path, cim_here: Any
) -> None:
    assert "no source" in cim_here("ingest", "--id", "x", "--data", tmp_path / "d").err
    done = cim_here("list", "--data", source)
    assert (done.code, "--data" in done.err) == (2, True)


@pytest.mark.parametrize(
    "line",
    [
        'sources = "面.geojson"',
        "sources = [1]",
        "crs = 4490",
        'min_zoom = "3"',
        "max_zoom = 99",
        "max_zoom = true",
        'properties = "a"',
    ],
)
def test_a_manifest_with_a_value_of_another_type_names_the_value(
    line: str, tmp_path: Path, cim_here: Any
) -> None:
    manifest = tmp_path / "m.toml"
    manifest.write_text(f'id = "x"\n{line}\n', encoding="utf-8")
    done = cim_here("ingest", "--manifest", manifest, "--data", tmp_path / "data")
    assert done.code == 2
    assert line.split(" = ")[0] in done.err
    assert "m.toml" in done.err


def test_a_height_field_that_does_not_exist_is_refused_without_a_kind_too(
    source: Path, tmp_path: Path, cim_here: Any
) -> None:
    done = cim_here("plan", source, "--height-field", "层高", "--vertical", "EPSG:5737")
    assert done.code == 3
    assert "层高" in done.err


def test_buildings_of_several_files_must_name_their_heights_alike(
    tmp_path: Path, cim_here: Any
) -> None:
    one = squares(tmp_path / "一.geojson", 楼高=[9.0])
    two = squares(tmp_path / "二.geojson", height=[9.0])
    command = ("ingest", one, two, "--id", "x", "--vertical", "EPSG:5737")
    done = cim_here(*command, "--data", tmp_path / "data")
    assert done.code == 3
    assert "二.geojson" in done.err
    assert "楼高" in done.err


def test_exports_make_the_folder_they_are_sent_to_and_tell_the_size_of_all_parts(
    source: Path, tmp_path: Path, cim_here: Any
) -> None:
    data = tmp_path / "data"
    assert cim_here("ingest", source, "--id", "x", "--data", data).code == 0
    for name in ("pmtiles", "mbtiles", "directory", "geoparquet", "gpkg"):
        out = tmp_path / "出" / name / "x"
        done = cim_here("export", "x", out, "--format", name, "--data", data)
        assert done.code == 0, done.err
    out = tmp_path / "出" / "x.shp"
    made = cim_here("export", "x", out, "--format", "shp", "--data", data, "--json").json()
    parts = sum(out.with_suffix(s).stat().st_size for s in (".shp", ".shx", ".dbf"))
    assert made["nbytes"] == parts
    done = cim_here("export", "x", source / "x.pmtiles", "--format", "pmtiles", "--data", data)
    assert done.code == 1
    assert "cannot be written" in done.err


def _mask(_: int) -> bool:
    return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_workers_never_hear_ctrl_c_not_even_while_they_start() -> None:
    with open_executor("local", 2) as pool:
        assert all(pool.map(_mask, range(4)))
    assert not _mask(0)


@pytest.mark.parametrize(
    ("signum", "everybody"),
    [(signal.SIGINT, True), (signal.SIGTERM, True), (signal.SIGTERM, False)],
)
def test_stopping_while_workers_start_cancels_without_a_traceback(
    signum: signal.Signals, everybody: bool, tmp_path: Path
) -> None:
    with _begin_ingest(tmp_path) as process:
        (os.killpg if everybody else os.kill)(process.pid, signum)
        assert process.stderr is not None
        said = process.stderr.read()
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert "resumes" in said


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    with _begin_ingest(tmp_path) as process:
        os.kill(process.pid, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while _is_alive(process.pid):
        assert time.monotonic() < deadline, "a worker outlives its parent"
        time.sleep(0.1)


def _begin_ingest(folder: Path) -> subprocess.Popen[str]:
    source = squares(folder / "面.geojson", 名称=[f"第{i}块" for i in range(2000)])
    process = subprocess.Popen(
        [CIM, "ingest", source, "--id", "x", "--workers", "2", "--data", folder / "data"],
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        start_new_session=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "measure" in line:
            break
    time.sleep(0.3)
    return process


def _is_alive(group: int) -> bool:
    """Say whether a process of the group runs; one that waits to be reaped does not."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, of_group = stat.read_text().rpartition(")")[2].split()[:3]
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
        if int(of_group) == group and state != "Z":
            return True
    return False
