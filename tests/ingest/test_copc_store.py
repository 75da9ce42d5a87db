"""A COPC beside the tiles: asked for, checked, exported, served in ranges, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import laspy
import numpy as np
import pytest
from starlette.testclient import TestClient

from cim_server.app import make_app
from cim_server.settings import Settings
from ingest.workspace import Workspace
from tests.commands import Command

DATA = Path(__file__).parent.parent / "data" / "pointcloud"
ABROAD = ("--area", "world", "--kind", "pointcloud")
NAMES = ("intensity", "return_number", "number_of_returns", "classification", "user_data",
         "point_source_id", "gps_time", "red", "green", "blue")  # fmt: skip


def table(path: Path) -> np.ndarray[Any, Any]:
    points = laspy.read(path)
    columns = [points.x, points.y, points.z, *(np.asarray(points[n], float) for n in NAMES)]
    stacked = np.column_stack([np.asarray(c) for c in columns])
    return stacked[np.lexsort(stacked.T)]


def test_a_cloud_leaves_as_it_came_and_is_served_in_ranges(
    cim_here: Command, tmp_path: Path
) -> None:
    source, data = DATA / "test_noepsg_043500_629205_IGN69.laz", tmp_path / "data"
    done = cim_here(
        "ingest", source, "--id", "点云", "--crs", "EPSG:2154", "--assume-vertical", "offset:49",
        "--copc", "whole", "--data", data, *ABROAD,
    )  # fmt: skip
    assert done.code == 0, done.err
    facts = cim_here("check", "点云", "--data", data, "--json")
    assert facts.code == 0, facts.out
    for format in ("copc", "laz"):
        out = tmp_path / f"out.{format}.laz"
        assert cim_here("export", "点云", out, "--format", format, "--data", data).code == 0
        assert np.array_equal(table(out), table(source))
    with TestClient(make_app(Settings(data=data))) as client:
        (item,) = client.get("/stac/search").json()["features"]
        asset = item["assets"]["data-copc"]
        assert asset["type"] == "application/vnd.laszip+copc"
        path = asset["href"].removeprefix("http://testserver")
        whole = client.get(path).content
        assert whole == out.read_bytes()
        part = client.get(path, headers={"Range": "bytes=375-588"})
        assert (part.status_code, part.content) == (206, whole[375:589])


def test_a_file_in_feet_keeps_its_numbers_with_heights_in_metres(
    cim_here: Command, tmp_path: Path
) -> None:
    source, data = DATA / "1.2-with-color.las", tmp_path / "data"
    done = cim_here(
        "ingest", source, "--id", "pc", "--crs", "EPSG:2994", "--height-unit", "foot",
        "--assume-vertical", "ellipsoidal", "--copc", "whole", "--data", data, *ABROAD,
    )  # fmt: skip
    assert done.code == 0, done.err
    with Workspace(data).open_catalog() as catalog:
        (store,) = (s for s in catalog.version("pc").stores if s.format == "copc")
    ours, theirs = laspy.read(data / store.path), laspy.read(source)
    for axis in "XYZ":
        assert np.array_equal(np.sort(ours[axis]), np.sort(theirs[axis])), "whole numbers are kept"
    assert np.allclose(np.sort(ours.z), np.sort(theirs.z) * 0.3048, atol=1e-9)


def test_files_of_several_frames_and_formats_are_one_copc(
    cim_here: Command, tmp_path: Path
) -> None:
    folder, data = tmp_path / "in", tmp_path / "data"
    folder.mkdir()
    rng = np.random.default_rng(5)
    for number, (scale, record_format) in enumerate([(0.001, 7), (0.01, 3), (0.002, 1)]):
        header = laspy.LasHeader(point_format=record_format)
        header.scales, header.offsets = [scale] * 3, [500_000, 3_500_000 + number, 0]
        points = laspy.LasData(header)
        points.xyz = rng.uniform(0, 50, (500, 3)) + [500_000, 3_500_000, 20]
        points.intensity = np.full(500, number, np.uint16)
        points.write(folder / f"{number}.las")
    done = cim_here(
        "ingest", folder, "--id", "pc", "--crs", "EPSG:4547", "--vertical", "EPSG:5737",
        "--copc", "whole", "--data", data, "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    with Workspace(data).open_catalog() as catalog:
        (store,) = (s for s in catalog.version("pc").stores if s.format == "copc")
    ours = laspy.read(data / store.path)
    theirs = [laspy.read(path) for path in sorted(folder.iterdir())]
    for number, cloud in enumerate(theirs):
        own = ours.xyz[np.asarray(ours.intensity) == number]
        assert len(own) == 500
        low, high = own[np.lexsort(own.T)], cloud.xyz[np.lexsort(cloud.xyz.T)]
        assert np.abs(low - high).max() <= 0.0005 + 1e-9
    rounded = [f for f in done.json()["findings"] if f["rule"] == "copc-rounded"]
    assert [f["count"] for f in rounded] in ([], [500], [1000])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("epsg_4326.las", "--copc", "whole"), "coordinates are degrees.*leave --copc out"),
        (("1.2-with-color.las", "--crs", "EPSG:2994", "--copc", "most"), "neither whole nor"),
        (("1.2-with-color.las", "--crs", "EPSG:2994", "--copc", "0"), "neither whole nor"),
    ],
)
def test_what_cannot_be_a_copc_is_refused_before_work_begins(
    cim_here: Command, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    import re

    name, *rest = arguments
    done = cim_here(
        "ingest", DATA / name, "--id", "pc", "--assume-vertical", "ellipsoidal", *rest,
        "--data", tmp_path / "data", *ABROAD,
    )  # fmt: skip
    assert done.code in (2, 3)
    assert re.search(said, " ".join(done.err.split()))


def test_an_export_without_a_copc_says_how_to_get_one(cim_here: Command, tmp_path: Path) -> None:
    data = tmp_path / "data"
    cim_here(
        "ingest", DATA / "1.2-with-color.las", "--id", "pc", "--crs", "EPSG:2994",
        "--assume-vertical", "ellipsoidal", "--data", data, *ABROAD,
    )  # fmt: skip
    done = cim_here("export", "pc", tmp_path / "o.laz", "--format", "laz", "--data", data)
    assert done.code == 2
    assert "--copc whole" in done.err
