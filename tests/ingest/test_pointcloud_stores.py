"""A LAZ becomes a published, lawful tileset; the same command again changes nothing."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import laspy
import numpy as np
import orjson
import pytest

from ingest.workspace import Workspace
from tests.commands import CIM, Command
from tests.test_dask import scheduler  # noqa: F401  (a fixture)
from tiling.crs import SpatialRef, transform_points
from tiling.formats.pnts import decode_pnts
from tiling.formats.points_glb import decode_points, srgb_colours
from tiling.stores import gzip_member, open_store
from tiling.stores.directory import DirectoryReader
from tiling.validate.foreign import check_foreign

DATA = Path(__file__).parent.parent / "data" / "pointcloud"
ABROAD = ("--area", "-180,-90,180,90", "--assume-vertical", "ellipsoidal")


@pytest.mark.parametrize(
    ("name", "crs"),
    [
        ("1.2-with-color.copc.laz", "EPSG:2994"),
        ("test_noepsg_043500_629205_IGN69.laz", "EPSG:2154"),
    ],
)
def test_a_file_is_published_and_keeps_the_laws(
    cim_here: Command, tmp_path: Path, name: str, crs: str
) -> None:
    ingest = (
        "ingest", DATA / name, "--id", "pc", "--crs", crs, *ABROAD, "--data", tmp_path, "--json",
    )  # fmt: skip
    made = cim_here(*ingest)
    assert made.code == 0, made.err
    facts = cim_here("check", "pc", "--data", tmp_path, "--json")
    assert facts.code == 0, facts.out
    report = made.json()
    assert report["result"]["kind"] == "pointcloud"
    assert report["result"]["features"] > 1000
    again = cim_here(*ingest)
    assert again.json()["result"]["unchanged"]


def test_points_stand_where_the_file_says(cim_here: Command, tmp_path: Path) -> None:
    source = DATA / "1.2-with-color.las"
    done = cim_here(
        "ingest", source, "--id", "pc", "--crs", "EPSG:2994", *ABROAD, "--data", tmp_path, "--json",
        "--height-unit", "foot",
    )  # fmt: skip
    assert done.code == 0, done.err
    (path,) = (Path(s["path"]) for s in done.json()["result"]["stores"])
    store = open_store(tmp_path / path, "3tz")
    decoded = []
    for key in store.keys():
        if key.endswith(".glb"):
            tile = store.get(key)
            assert tile is not None
            decoded.append(decode_points(gzip_member.content(tile, key)))
    store.close()
    ecef = np.concatenate([d.ecef for d in decoded])
    las = laspy.read(source)
    # An oracle of its own: PROJ's whole way from feet to Earth-centred metres.
    lon, lat, height = transform_points(
        SpatialRef.parse("EPSG:2994+ellipsoidal"),
        SpatialRef.parse("EPSG:4326+ellipsoidal"),
        las.x,
        las.y,
        np.asarray(las.z) * 0.3048,
    )
    from pyproj import Transformer

    xyz = Transformer.from_crs(4979, 4978, always_xy=True).transform(lon, lat, height)
    there = np.stack(xyz, axis=1)
    assert len(ecef) == len(there)
    near = [np.linalg.norm(there - point, axis=1).min() for point in ecef[::97]]
    assert max(near) < 0.001


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three hundred thousand points of four flight lines, with the classes of a city."""
    rng = np.random.default_rng(2)
    count = 300_000
    header = laspy.LasHeader(point_format=7, version="1.4")
    header.scales, header.offsets = [0.001] * 3, [560_000, 3_510_000, 0]
    las = laspy.LasData(header)
    along = np.arange(count) % (count // 4) / (count / 4)
    las.x = 560_000 + 50 * (np.arange(count) * 4 // count) + rng.uniform(0, 60, count)
    las.y = 3_510_000 + along * 200
    las.z = 40 + 5 * np.sin(along * 20) + rng.normal(0, 0.05, count)
    for name in ("red", "green", "blue"):
        las[name] = rng.integers(0, 256, count) * 257
    las.classification = rng.integers(1, 7, count)
    las.intensity = rng.integers(0, 65_536, count)
    las.gps_time = 1e8 + np.arange(count) * 1e-5
    path = tmp_path_factory.mktemp("survey") / "航带.las"
    las.write(path)
    return path


SURVEY = ("--id", "pc", "--crs", "EPSG:4547", "--vertical", "EPSG:5737")


def tiles_of(data: Path) -> tuple[str, list[dict[str, object]]]:
    """Return the sha256 of the tiles, and what the report of the version found."""
    with Workspace(data).open_catalog() as catalog:
        version = catalog.version("pc")
    return version.stores[0].sha256, version.report["findings"]


@pytest.fixture(scope="module")
def published(cim: Command, survey: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("published")
    done = cim("ingest", survey, *SURVEY, "--data", data, "--workers", "2")
    assert done.code == 0, done.err
    return data


def test_a_cluster_gives_the_bytes_of_processes(
    cim: Command,
    survey: Path,
    published: Path,
    scheduler: str,  # noqa: F811
    tmp_path: Path,
) -> None:
    done = cim("ingest", survey, *SURVEY, "--data", tmp_path, "--executor", f"dask:{scheduler}")
    assert done.code == 0, done.err
    assert tiles_of(tmp_path) == tiles_of(published)


def test_killed_at_any_step_it_resumes_to_the_same_bytes(
    cim: Command, survey: Path, published: Path, tmp_path: Path
) -> None:
    command = [CIM, "ingest", survey, *SURVEY, "--data", tmp_path, "--workers", "1"]
    for sign in ("sorted/*.json", "tiles/*.part"):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and not list((tmp_path / "jobs").glob(f"*/{sign}")):
            time.sleep(0.002)
        process.kill()
        process.wait()
        # Nothing is visible, and what was finished is still there.
        assert not cim("list", "--data", tmp_path, "--json").json()
        assert list((tmp_path / "jobs").glob(f"*/{sign}"))
    assert cim("ingest", survey, *SURVEY, "--data", tmp_path).code == 0
    assert tiles_of(tmp_path) == tiles_of(published)
    assert not any((tmp_path / "jobs").iterdir())


def test_pnts_hold_the_same_points(cim_here: Command, published: Path, tmp_path: Path) -> None:
    out = tmp_path / "old"
    done = cim_here("export", "pc", out, "--format", "3dtiles-1.0", "--data", published)
    assert done.code == 0, done.err
    findings, _ = check_foreign(DirectoryReader(out))
    assert [f for f in findings if f.severity in ("error", "warning")] == []
    (path,) = (published / "stores").rglob("*.3tz")
    store = open_store(path, "3tz")
    total = 0
    for file in sorted(out.rglob("*.pnts")):
        key = str(file.relative_to(out)).replace(".pnts", ".glb")
        tile = store.get(key)
        assert tile is not None
        points = decode_points(gzip_member.content(tile, key))
        ecef, rgb, columns = decode_pnts(file.read_bytes())
        total += len(ecef)
        assert np.abs(ecef - points.ecef).max() < 1e-4
        assert points.colours is not None
        assert rgb is not None and np.array_equal(rgb, srgb_colours(points.colours))
        for name, values in points.columns.items():
            assert np.array_equal(values, columns[name]), name
    store.close()
    assert total == 300_000
    document = orjson.loads((out / "tileset.json").read_bytes())
    assert document["asset"]["version"] == "1.0" and document["root"]["refine"] == "ADD"
