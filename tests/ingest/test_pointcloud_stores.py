"""A LAZ becomes a published, lawful tileset; the same command again changes nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.commands import Command
from tiling.crs import SpatialRef, transform_points
from tiling.formats.points_glb import decode_points
from tiling.stores import gzip_member, open_store

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
    import laspy

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
