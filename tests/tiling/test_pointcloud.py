"""Points become a lawful octree: each in one tile, within a millimetre, even at every level."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from numpy.typing import NDArray

from tiling.batches import PointBatch
from tiling.crs import TILE_REF, SpatialRef, transform_points
from tiling.ellipsoid import geodetic_to_ecef
from tiling.errors import Cancelled, NothingToTile
from tiling.findings import Finding, Findings
from tiling.formats.points_glb import (
    ERROR_M,
    DecodedPoints,
    decode_points,
    linear_colours,
    srgb_colours,
)
from tiling.stores.directory import DirectoryReader, DirectoryWriter
from tiling.stores.zip3tz import ThreeTzWriter
from tiling.tilers.base import Progress, Run, SilentProgress, TilesetInfo
from tiling.tilers.pipeline import SerialExecutor
from tiling.tilers.point_lattice import LATTICE_LEVEL, STEP_DEG, STEP_M, column_keys
from tiling.tilers.point_sampling import leaf_levels, least_distance_m, sample
from tiling.tilers.pointcloud import PointCloudTiler
from tiling.validate.pointcloud import check_pointcloud, check_pointcloud_archive

REF = SpatialRef.parse("EPSG:4547+ellipsoidal")
COUNT = 60_000


def cloud(count: int = COUNT, seed: int = 1) -> PointBatch:
    """Return a hill of 400 m with a wall on it, in no order; some points are there twice."""
    rng = np.random.default_rng(seed)
    xy = rng.uniform(0, 400, (count, 2))
    z = 40 + 20 * np.sin(xy[:, 0] / 60) + rng.normal(0, 0.05, count)
    wall = slice(0, count // 5)
    xy[wall, 0] = 200 + xy[wall, 1] * 0.1
    z[wall] += rng.uniform(0, 30, count // 5)
    xyz = np.column_stack([xy + (560_000, 3_510_000), z])
    xyz[:50] = xyz[50:100]
    columns = {
        "rgb": rng.integers(0, 256, (count, 3)).astype(np.uint16),
        "classification": rng.integers(1, 7, count).astype(np.uint8),
        "intensity": rng.integers(0, 65536, count).astype(np.uint16),
        "gps_time": np.where(rng.random(count) < 0.01, np.nan, rng.uniform(1e8, 1e8 + 60, count)),
        "user_data": np.zeros(count, dtype=np.uint8),
        # Identifies a point in the tests.
        "serial": np.arange(count, dtype=np.float32),
    }
    return PointBatch(REF, 0, xyz, columns)


def read(batch: PointBatch) -> tuple[PointBatch, Sequence[Finding]]:
    """Return a chunk that is its own points."""
    return batch, ()


def tile(
    folder: Path,
    chunks: Sequence[PointBatch],
    executor: Executor | None = None,
    progress: Progress | None = None,
    findings: Findings | None = None,
    leaf_points: int = 3000,
    column_points: int = 5000,
) -> TilesetInfo:
    """Tile into ``folder/tiles`` with small limits, so that a small cloud has many levels."""
    writer = DirectoryWriter(folder / "tiles")
    (folder / "scratch").mkdir(parents=True, exist_ok=True)
    run = Run(
        writer=writer,
        scratch=folder / "scratch",
        executor=executor or SerialExecutor(),
        workers=2,
        memory_nbytes=1 << 30,
        progress=progress or SilentProgress(),
        findings=Findings() if findings is None else findings,
    )
    try:
        info = PointCloudTiler(read, None, leaf_points, column_points).run(chunks, run)
        writer.commit()
    finally:
        writer.abort()
    return info


def parts(batch: PointBatch, count: int) -> list[PointBatch]:
    """Cut a batch."""
    return [batch.take(rows) for rows in np.array_split(np.arange(len(batch)), count)]


def decoded(data: bytes) -> bytes:
    """Return a body without its compression."""
    return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data


def files(folder: Path) -> dict[str, bytes]:
    """Return the decoded files of a tileset by key."""
    return {
        str(path.relative_to(folder / "tiles")): decoded(path.read_bytes())
        for path in sorted((folder / "tiles").rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def source() -> PointBatch:
    return cloud()


@pytest.fixture(scope="module")
def folder(source: PointBatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cloud")
    tile(folder, parts(source, 3))
    return folder


@pytest.fixture(scope="module")
def tiles(folder: Path) -> dict[str, bytes]:
    return files(folder)


@pytest.fixture(scope="module")
def contents(tiles: dict[str, bytes]) -> dict[str, DecodedPoints]:
    return {k: decode_points(data) for k, data in tiles.items() if k.endswith(".glb")}


def together(contents: dict[str, DecodedPoints], name: str) -> NDArray[Any]:
    """Return a column over all tiles in the order of the source."""
    serial = np.concatenate([c.columns["serial"] for c in contents.values()]).astype(int)
    if name == "ecef":
        values = np.concatenate([c.ecef for c in contents.values()])
    elif name == "rgb":
        values = np.concatenate([srgb_colours(c.colours) for c in contents.values()])  # type: ignore[arg-type]
    else:
        values = np.concatenate([c.columns[name] for c in contents.values()])
    out: NDArray[Any] = np.empty_like(values)
    out[serial] = values
    return out


def ecef_of(batch: PointBatch) -> NDArray[np.float64]:
    lon, lat, height = transform_points(batch.ref, TILE_REF, *batch.xyz.T)
    return geodetic_to_ecef(lon, lat, height)


def test_every_point_is_in_one_tile(contents: dict[str, DecodedPoints]) -> None:
    serial = np.concatenate([c.columns["serial"] for c in contents.values()])
    assert np.array_equal(np.sort(serial), np.arange(COUNT))


def test_no_point_moves_by_more_than_is_stated(
    source: PointBatch, contents: dict[str, DecodedPoints]
) -> None:
    off = np.linalg.norm(together(contents, "ecef") - ecef_of(source), axis=1)
    # The lattice adds a hundredth of the quantum.
    assert off.max() <= ERROR_M + 2e-5
    assert ERROR_M < 0.001


def test_colours_and_measurements_are_those_of_the_source(
    source: PointBatch, contents: dict[str, DecodedPoints]
) -> None:
    for name in ("rgb", "classification", "intensity"):
        assert np.array_equal(together(contents, name), source.columns[name]), name
    times, known = together(contents, "gps_time"), source.columns["gps_time"]
    assert np.array_equal(np.isnan(times), np.isnan(known))
    # Single precision of a minute.
    assert np.nanmax(np.abs(times - known)) < 1e-5


def test_a_column_that_says_nothing_is_left_out_and_told(
    source: PointBatch, contents: dict[str, DecodedPoints], tmp_path: Path
) -> None:
    assert all("user_data" not in c.columns for c in contents.values())
    findings = Findings()
    tile(tmp_path, parts(source, 2), findings=findings)
    assert [f.message for f in findings if f.rule == "column-constant"] == [
        "user_data is 0 at every point: it is left out of tiles"
    ]


def test_the_laws_of_the_tileset_hold(folder: Path) -> None:
    store = DirectoryReader(folder / "tiles")
    findings, facts = check_pointcloud(store)
    assert findings == []
    assert facts["features"] == COUNT
    assert facts["tiles"] > 30 and facts["subtrees"] > 1


@pytest.mark.parametrize("cuts", [1, 17])
def test_neither_order_nor_chunks_show_in_the_bytes(
    source: PointBatch, tiles: dict[str, bytes], tmp_path: Path, cuts: int
) -> None:
    shuffled = source.take(np.random.default_rng(cuts).permutation(COUNT))
    tile(tmp_path, parts(shuffled, cuts))
    assert files(tmp_path) == tiles


def test_processes_give_the_bytes_of_one(
    source: PointBatch, tiles: dict[str, bytes], tmp_path: Path
) -> None:
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as executor:
        tile(tmp_path, parts(source, 6), executor)
    assert files(tmp_path) == tiles


class StopAfter(SilentProgress):
    """Cancels after so many steps."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def advance(self, amount: int = 1) -> None:
        """Count down."""
        self.left -= amount
        if self.left < 0:
            raise Cancelled("stopped by the test")


@pytest.mark.parametrize("steps", [2, 8, 15])
def test_a_stopped_run_goes_on_to_the_same_bytes(
    source: PointBatch, tiles: dict[str, bytes], tmp_path: Path, steps: int
) -> None:
    with pytest.raises(Cancelled):
        tile(tmp_path, parts(source, 6), progress=StopAfter(steps))
    left = {p: p.stat().st_mtime_ns for p in (tmp_path / "scratch").rglob("*.*") if p.is_file()}
    assert left
    tile(tmp_path, parts(source, 6))
    assert files(tmp_path) == tiles
    # What was finished was not made again.
    assert all(p.stat().st_mtime_ns == when for p, when in left.items())


def nearest(
    queries: NDArray[np.float64], points: NDArray[np.float64], every: int = 0
) -> NDArray[np.float64]:
    """Return the distance of each query to the nearest point, by trying all.

    With `every`, of each so many points to the nearest other one.
    """
    if every:
        queries = queries[::every]
    out = np.empty(len(queries))
    middle = points.mean(axis=0)
    others = (points - middle).astype(np.float32)
    for start in range(0, len(queries), 256):
        part = (queries[start : start + 256] - middle).astype(np.float32)
        squared = ((part[:, None, :] - others[None, :, :]) ** 2).sum(axis=2)
        if every:
            rows = np.arange(len(part))
            squared[rows, every * (start + rows)] = np.inf
        out[start : start + 256] = np.sqrt(squared.min(axis=1))
    return out


def test_points_of_two_columns_keep_their_distance() -> None:
    """Columns are sampled alone, so nothing but the guard at their sides keeps points apart."""
    rng = np.random.default_rng(3)
    column, width = 18, 2 ** (LATTICE_LEVEL - 18)
    level, shrink = 18, 0.85
    found = []
    for side in range(2):
        places = rng.integers(0, width, (8_000, 3)).astype(np.uint32)
        places[:, 2] //= 64
        keys = column_keys(places, column)
        order = np.argsort(keys)
        places, keys = places[order], keys[order]
        levels = np.full(len(keys), level + 1, dtype=np.int8)
        sample(places, keys, levels, column, level, level, shrink)
        kept = places[levels == level].astype(np.float64)
        assert len(kept) > 2000
        kept[:, 0] += side * width
        found.append(kept * STEP_M * (shrink, 1, 1))
    across = nearest(found[0], found[1])
    assert across.min() >= least_distance_m(level, shrink) * 0.999


def test_leaves_are_the_coarsest_cells_that_hold_few_enough() -> None:
    rng = np.random.default_rng(4)
    places = (rng.random((5000, 3)) ** 3 * 2**22).astype(np.uint32)
    keys = np.sort(column_keys(places, 18))
    levels = leaf_levels(keys, 18, 28, 100)
    for here in np.unique(levels):
        cells, counts = np.unique(
            keys[levels == here] >> np.uint64(3 * (17 - (int(here) - 18))), return_counts=True
        )
        assert counts.max() <= 100 or here == 28
        # All of a cell, not what others have left of it.
        every = keys >> np.uint64(3 * (17 - (int(here) - 18)))
        assert np.isin(every, cells).sum() == counts.sum()
        if here > 18:
            parents = np.unique(cells >> np.uint64(3))
            above = keys >> np.uint64(3 * (17 - (int(here) - 19)))
            assert all((above == parent).sum() > 100 for parent in parents)


def test_the_khronos_validator_finds_nothing_in_any_tile(folder: Path, gltf_issues: Any) -> None:
    paths = sorted((folder / "tiles").rglob("*.glb"))
    plain = []
    for path in paths:
        target = folder / "plain" / path.relative_to(folder / "tiles")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(decoded(path.read_bytes()))
        plain.append(target)
    assert not any(gltf_issues(plain).values())


def test_every_json_keeps_its_schema(tiles: dict[str, bytes], schema_errors: Any) -> None:
    assert schema_errors("3d-tiles/tileset.schema.json", orjson.loads(tiles["tileset.json"])) == []
    for key, data in tiles.items():
        if key.endswith(".subtree"):
            length = int.from_bytes(data[8:16], "little")
            document = orjson.loads(data[24 : 24 + length])
            assert schema_errors("3d-tiles/Subtree/subtree.schema.json", document) == []
        elif key.endswith(".glb"):
            length = int.from_bytes(data[12:16], "little")
            document = orjson.loads(data[20 : 20 + length])
            extension = document["extensions"]["EXT_structural_metadata"]
            path = "gltf/EXT_structural_metadata/schema/glTF.EXT_structural_metadata.schema.json"
            assert schema_errors("gltf/core/glTF.schema.json", document) == []
            assert schema_errors(path, extension) == []


def test_a_broken_law_is_found(tiles: dict[str, bytes], tmp_path: Path) -> None:
    victim = next(key for key in tiles if key.endswith(".glb"))
    for name, data in tiles.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name != victim:
            path.write_bytes(gzip.compress(data, mtime=0))
    findings, _ = check_pointcloud(DirectoryReader(tmp_path))
    assert {"tile-missing", "points-count"} <= {f.rule for f in findings}


def test_an_interrupted_check_goes_on_from_its_journal(
    tiles: dict[str, bytes], tmp_path: Path
) -> None:
    writer = ThreeTzWriter(tmp_path / "tiles.3tz")
    # One tile holds points that its volume does not.
    first, second = [key for key in tiles if key.endswith(".glb")][:2]
    for key, data in tiles.items():
        writer.put(key, gzip.compress(tiles[second] if key == first else data, mtime=0), "gzip")
    path = writer.commit().path
    journal = tmp_path / "check"
    done: list[int] = []
    whole = check_pointcloud_archive(path, _Counting(), done.append, journal)
    assert any(finding.severity == "error" for finding in whole[0])
    notes = sorted(journal.iterdir())
    assert len(notes) == len(done) > 2
    notes[1].unlink()
    counting, again = _Counting(), []
    assert check_pointcloud_archive(path, counting, again.append, journal) == whole
    assert (counting.submitted, again) == (1, done)
    assert check_pointcloud_archive(path, SerialExecutor(), again.append) == whole


class _Counting(SerialExecutor):
    """Counts its jobs."""

    submitted = 0

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        self.submitted += 1
        return super().submit(fn, *args, **kwargs)


def test_points_without_a_place_are_dropped_and_counted(tmp_path: Path) -> None:
    batch = cloud(1000)
    batch.xyz[3, 2] = 1e9
    batch.xyz[4, 0] = np.nan
    findings = Findings()
    info = tile(tmp_path, [batch], findings=findings)
    assert info.features == 998
    assert [(f.rule, f.count) for f in findings if f.severity == "drop"] == [
        ("points-without-place", 2)
    ]


def test_nothing_to_tile_is_refused(tmp_path: Path) -> None:
    batch = cloud(100)
    batch.xyz[:, 2] = np.nan
    with pytest.raises(NothingToTile):
        tile(tmp_path, [batch])


def test_each_8_bit_colour_can_be_told_again() -> None:
    every = np.repeat(np.arange(256, dtype=np.uint16)[:, None], 3, axis=1)
    assert np.array_equal(srgb_colours(linear_colours(every, 8)), every)
    wide = linear_colours(every * 257, 16)
    assert np.array_equal(wide, linear_colours(every, 8))


def test_one_point_is_a_cloud(tmp_path: Path) -> None:
    info = tile(tmp_path, [cloud(100).take(np.array([7]))])
    assert (info.features, info.tiles) == (1, 1)
    assert check_pointcloud(DirectoryReader(tmp_path / "tiles"))[0] == []


def test_steps_of_the_lattice_are_a_fiftieth_of_a_millimetre() -> None:
    assert STEP_M < 2e-5 and STEP_DEG * 111_694 < 2e-5
