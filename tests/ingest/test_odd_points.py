"""Files of points as they come: one dark and one bright, Chinese names in two encodings, gaps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import laspy
import numpy as np
import pytest

from ingest.workspace import Workspace
from tests.commands import Command
from tiling.formats.points_glb import decode_points, linear_colours
from tiling.stores import gzip_member, open_store

COUNT = 400
DARK, BRIGHT = 40, 60_000
# 33 bytes of UTF-8: one more than the field for a name has.
LONG = "激光雷达反射强度校正值"
NAMES = ("反射率", "偏差", LONG)
TYPES = ("float32", "int16", "uint8")


def survey(path: Path, west: float, red: int, gbk: bool) -> dict[str, Any]:
    """Write a square of points of one colour; half of them have no GPS time."""
    rng = np.random.default_rng(int(west))
    header = laspy.LasHeader(point_format=7, version="1.4")
    header.scales, header.offsets = [0.001] * 3, [560_000, 3_510_000, 0]
    places = ("a" * 9, "b" * 9, "c" * 9)
    for place, kind in zip(places, TYPES, strict=True):
        header.add_extra_dim(laspy.ExtraBytesParams(place, kind))
    las = laspy.LasData(header)
    las.x, las.y = west + rng.uniform(0, 50, COUNT), 3_510_000 + rng.uniform(0, 50, COUNT)
    las.z = rng.uniform(20, 25, COUNT)
    las.red = np.full(COUNT, red)
    las.green = rng.integers(0, red, COUNT)
    las.classification = rng.integers(2, 7, COUNT)
    las.gps_time = np.where(rng.random(COUNT) < 0.5, np.nan, 2e8 + rng.uniform(0, 60, COUNT))
    values = (rng.random(COUNT).astype("f4"), rng.integers(-9, 9, COUNT), np.arange(COUNT) % 7)
    for place, column in zip(places, values, strict=True):
        las[place] = column
    las.write(path)
    # laspy writes names in UTF-8 alone, and none that is too long.
    raw = path.read_bytes()
    for place, name in zip(places, NAMES, strict=True):
        field = place.encode().ljust(32, b"\0")
        assert raw.count(field) == 1
        text = name.encode("gbk" if gbk else "utf-8")[:32]
        raw = raw.replace(field, text.ljust(32, b"\0"))
    path.write_bytes(raw)
    return {"gps_time": np.asarray(las.gps_time), "red": np.asarray(las.red),
            "green": np.asarray(las.green)}  # fmt: skip


def ingested(cim_here: Command, folder: Path, data: Path) -> tuple[dict[str, Any], list[Any]]:
    """Return what the catalogue knows of a cloud, and its decoded tiles."""
    options = ("--crs", "EPSG:4547", "--vertical", "EPSG:5737", "--workers", "1")
    done = cim_here("ingest", folder, "--id", "pc", *options, "--data", data)
    assert done.code == 0, done.err
    with Workspace(data).open_catalog() as catalog:
        version = catalog.version("pc")
    (ref,) = version.stores
    store = open_store(Workspace(data).store_path(ref), ref.format)
    tiles = [
        decode_points(gzip_member.content(tile, key))
        for key in store.keys()
        if key.endswith(".glb") and (tile := store.get(key)) is not None
    ]
    store.close()
    return version.info, tiles


@pytest.mark.parametrize("gbk", [False, True])
def test_a_dark_flight_beside_a_bright_one_stays_dark(
    cim_here: Command, tmp_path: Path, gbk: bool
) -> None:
    folder = tmp_path / "航带 一"
    folder.mkdir()
    files = [
        survey(folder / "左（暗）.las", 560_000, DARK, gbk),
        survey(folder / "右（亮）.las", 560_050, BRIGHT, gbk),
    ]
    info, tiles = ingested(cim_here, folder, tmp_path / "data")
    assert (info["features"], info["colour_depth"]) == (2 * COUNT, 16)
    red, green = (np.concatenate([file[name] for file in files]) for name in ("red", "green"))
    known = linear_colours(np.stack([red, green, np.zeros_like(red)], axis=1), 16)
    found = np.concatenate([t.colours for t in tiles])
    assert np.array_equal(found[np.lexsort(found.T)], known[np.lexsort(known.T)])
    # Dark beside bright, not stretched to be as bright.
    assert found[:, 0].min() == linear_colours(np.full((1, 3), DARK), 16)[0, 0] < 10
    time = np.sort(np.concatenate([t.columns["gps_time"] for t in tiles]))
    expected = np.sort(np.concatenate([file["gps_time"] for file in files]))
    assert np.array_equal(np.isnan(time), np.isnan(expected))
    assert np.nanmax(np.abs(time - expected)) < 1e-5
    names = [field["name"] for field in info["fields"]]
    # GBK has room for all of it.
    assert names[-3:] == ["反射率", "偏差", LONG if gbk else LONG[:-1]]
    assert sum(info["classes"].values()) == 2 * COUNT


def test_a_dark_flight_alone_is_taken_for_one_of_8_bits(cim_here: Command, tmp_path: Path) -> None:
    folder = tmp_path / "暗"
    folder.mkdir()
    survey(folder / "左.las", 560_000, DARK, False)
    info, tiles = ingested(cim_here, folder, tmp_path / "data")
    assert info["colour_depth"] == 8
    assert tiles[0].colours[0, 0] == linear_colours(np.full((1, 3), DARK), 8)[0, 0]
    assert {"id": "EPSG:5737"}.items() <= info["datum"].items()
    assert all(-20 < undulation < -5 for undulation in info["datum"]["undulations_m"])
    assert info["constants"]["user_data"] == 0
