"""COPC: every point once with everything measured, nodes where they belong, read by strangers."""

from __future__ import annotations

import io
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import copclib
import laspy
import numpy as np
import pytest
from numpy.typing import NDArray

from tiling.batches import PointBatch
from tiling.crs import SpatialRef
from tiling.errors import NothingToTile, StoreError
from tiling.findings import Findings
from tiling.formats.copc import CopcFile, CopcWriter, Node
from tiling.formats.las_records import LasSchema
from tiling.tilers.base import Run, SilentProgress
from tiling.tilers.copc import CopcPlan, CopcTiler
from tiling.tilers.pipeline import SerialExecutor
from tiling.tilers.point_sampling import VOXELS
from tiling.validate.copc import check_copc

REF = SpatialRef.parse("EPSG:4547+5737")
SCALES, OFFSETS = (0.001, 0.001, 0.001), (500_000.0, 3_500_000.0, 0.0)
COLUMNS = {
    "intensity": ("uint16", 1, None, ""),
    "return_number": ("uint8", 1, None, ""),
    "number_of_returns": ("uint8", 1, None, ""),
    "classification": ("uint8", 1, None, ""),
    "withheld": ("uint8", 1, None, ""),
    "scan_angle": ("float32", 1, None, ""),
    "gps_time": ("float64", 1, None, ""),
    "rgb": ("uint16", 3, None, ""),
    "偏差": ("float64", 1, None, "到平面的距离"),
    "normal": ("float32", 3, None, ""),
    "echo": ("int16", 1, -1.0, ""),
}
SCHEMA = LasSchema.of(COLUMNS, SCALES, OFFSETS)


def cloud(count: int, seed: int = 1, side: float = 60.0) -> tuple[NDArray[Any], dict[str, Any]]:
    """A rough ground with a wall on it, in whole millimetres."""
    dice = np.random.default_rng(seed)
    xy = dice.uniform(0, side, (count, 2))
    z = 3 * np.sin(xy[:, 0] / 9) + dice.normal(0, 0.02, count)
    wall = dice.random(count) < 0.2
    xy[wall, 0], z[wall] = side / 2, dice.uniform(0, 20, int(wall.sum()))
    steps = np.rint(np.column_stack([xy, z]) * 1000)
    xyz = steps * SCALES + OFFSETS
    angles = dice.integers(-30_000, 30_001, count)
    columns = {
        "intensity": dice.integers(0, 65536, count, np.uint16),
        "return_number": dice.integers(1, 16, count).astype(np.uint8),
        "number_of_returns": dice.integers(1, 16, count).astype(np.uint8),
        "classification": dice.integers(0, 256, count).astype(np.uint8),
        "withheld": dice.integers(0, 2, count).astype(np.uint8),
        "scan_angle": (angles * 0.006).astype(np.float32),
        "gps_time": dice.uniform(0, 1e9, count),
        "rgb": dice.integers(0, 65536, (count, 3), np.uint16),
        "偏差": dice.normal(size=count),
        "normal": dice.normal(size=(count, 3)).astype(np.float32),
        "echo": dice.integers(-1, 99, count).astype(np.int16),
    }
    return xyz, columns


Chunk = tuple[NDArray[Any], dict[str, Any]]


def read(chunk: Chunk) -> PointBatch:
    return PointBatch(REF, 0, *chunk)


def cut(whole: Chunk, pieces: int) -> list[Chunk]:
    rows = np.array_split(np.arange(len(whole[0])), pieces)
    return [(whole[0][r], {n: v[r] for n, v in whole[1].items()}) for r in rows]


def write(
    folder: Path,
    chunks: Sequence[Chunk],
    spacing: float | None = None,
    executor: Any = None,
    column_points: int = 4000,
) -> tuple[Path, Findings]:
    folder.mkdir(exist_ok=True)
    everything = np.concatenate([xyz for xyz, _ in chunks])
    low, high = everything.min(axis=0).tolist(), everything.max(axis=0).tolist()
    plan = CopcPlan.of(SCHEMA, (*low, *high), spacing)
    path, findings = folder / "cloud.copc.laz", Findings()
    writer = CopcWriter(path, SCHEMA, REF.to_wkt1(), True, plan.cube, VOXELS)
    run = Run(
        writer=None,  # type: ignore[arg-type]
        scratch=folder,
        executor=executor or SerialExecutor(),
        workers=2,
        memory_nbytes=1 << 30,
        progress=SilentProgress(),
        findings=findings,
    )
    try:
        CopcTiler(read, column_points, 1500).run(chunks, plan, writer, run)
    finally:
        writer.abort()
    return path, findings


@pytest.fixture(scope="module")
def whole() -> Chunk:
    return cloud(30_000)


@pytest.fixture(scope="module")
def path(whole: Chunk, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("copc"), cut(whole, 3))[0]


def sorted_rows(columns: Sequence[NDArray[Any]]) -> NDArray[Any]:
    table = np.column_stack([np.asarray(c, np.float64) for c in columns])
    return table[np.lexsort(table.T)]


def as_laspy_reads(path: Path) -> NDArray[Any]:
    points = laspy.read(path)
    angles = np.round(np.asarray(points.scan_angle) * np.float64(0.006), 9)
    extra = [points[n] for n in ("偏差", "normal_0", "normal_1", "normal_2", "echo")]
    return sorted_rows(
        [points.x, points.y, points.z, points.intensity, points.return_number,
         points.number_of_returns, points.classification, points.withheld, angles,
         points.gps_time, points.red, points.green, points.blue, *extra]
    )  # fmt: skip


def as_given(whole: Chunk) -> NDArray[Any]:
    xyz, columns = whole
    values = [*xyz.T]
    for name, column in columns.items():
        if name == "scan_angle":
            column = np.round(np.rint(column.astype(float) / 0.006) * 0.006, 9)
        values += [column] if column.ndim == 1 else list(column.T)
    return sorted_rows(values)


def test_every_point_is_there_once_with_everything_measured(whole: Chunk, path: Path) -> None:
    assert np.array_equal(as_laspy_reads(path), as_given(whole))


def test_strangers_read_the_octree_and_find_every_point_in_its_node(path: Path) -> None:
    theirs = copclib.FileReader(str(path))
    assert theirs.ValidateSpatialBounds(verbose=False)
    nodes = theirs.GetAllNodes()
    assert len(nodes) > 40
    assert sum(node.point_count for node in nodes) == 30_000
    with laspy.CopcReader.open(path) as reader:
        assert reader.header.parse_crs().to_epsg() is None  # compound: both parts are there
        assert [c.name for c in reader.header.parse_crs().sub_crs_list] == [
            "CGCS2000 / 3-degree Gauss-Kruger CM 114E",
            "Yellow Sea 1985 height",
        ]
        assert len(reader.query()) == 30_000
        corner = laspy.copc.Bounds(np.array(OFFSETS), np.array(OFFSETS) + [10, 10, 100])
        inside = reader.query(bounds=corner)
        coarse = reader.query(level=0)
    xyz = laspy.read(path).xyz
    lies = (xyz <= np.array(OFFSETS) + [10, 10, 100]).all(axis=1) & (xyz >= OFFSETS).all(axis=1)
    assert len(inside) == lies.sum() > 0
    assert 0 < len(coarse) < 15_000


def test_our_own_check_agrees(path: Path) -> None:
    findings, facts = check_copc(path)
    assert findings == []
    assert facts["copc_points"] == 30_000


def test_every_level_is_as_sparse_as_its_spacing(path: Path) -> None:
    file = CopcFile.open(path)
    divided = {Node(n.level - 1, n.x >> 1, n.y >> 1, n.z >> 1) for n in file.nodes}
    for level in range(3):
        spacing = file.cube.spacing(level, VOXELS)
        # Leaves hold whatever is left.
        shown = [n for n in file.nodes if n.level <= level and n in divided]
        assert shown
        records = [file.read(node)[:, :12] for node in shown]
        stored = np.ascontiguousarray(np.concatenate(records)).view("<i4").astype(float) * 0.001
        order = np.lexsort(np.floor(stored / spacing).T)
        # Points of one voxel would be neighbours in this order.
        near = np.linalg.norm(np.diff(stored[order], axis=0), axis=1)
        assert near.min() > 0.69 * spacing


@pytest.mark.parametrize(("pieces", "processes"), [(1, False), (7, False), (3, True)])
def test_chunks_and_workers_do_not_change_a_byte(
    whole: Chunk, path: Path, tmp_path: Path, pieces: int, processes: bool
) -> None:
    if processes:
        with ProcessPoolExecutor(2) as pool:
            other, _ = write(tmp_path / "a", cut(whole, pieces), executor=pool)
    else:
        other, _ = write(tmp_path / "a", cut(whole, pieces)[::-1])
    assert other.read_bytes() == path.read_bytes()


def test_an_interrupted_run_resumes_to_the_same_bytes(
    whole: Chunk, path: Path, tmp_path: Path
) -> None:
    class Stops(SerialExecutor):
        left = 9

        def submit(self, *args: Any, **kwargs: Any) -> Any:
            if not Stops.left:
                raise KeyboardInterrupt
            Stops.left -= 1
            return super().submit(*args, **kwargs)

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "a", cut(whole, 3), executor=Stops())
    assert not (tmp_path / "a" / "cloud.copc.laz").exists()
    assert write(tmp_path / "a", cut(whole, 3))[0].read_bytes() == path.read_bytes()


# No multiples of the millimetres that coordinates are stored in: which voxel has a border is moot.
@pytest.mark.parametrize(
    ("spacing", "column_points"), [(0.31417, 4000), (2.0173, 100), (41.3, 4000), (900.7, 4000)]
)
def test_thinned_every_voxel_that_held_points_holds_one(
    whole: Chunk, tmp_path: Path, spacing: float, column_points: int
) -> None:
    path, findings = write(tmp_path / "a", cut(whole, 2), spacing, column_points=column_points)
    xyz = laspy.read(path).xyz
    (left,) = [finding.count for finding in findings if finding.rule == "copc-thinned"]
    assert left == 30_000 - len(xyz)
    assert check_copc(path)[0] == []
    low = np.array(CopcFile.open(path).cube.low)

    def voxels(points: NDArray[Any]) -> NDArray[Any]:
        return np.unique(np.floor((points - low) / spacing + 1e-7), axis=0)

    assert len(voxels(xyz)) == len(xyz)
    # Of voxels that points touch from below, some may hold none to the rounding.
    assert 0 <= len(voxels(whole[0])) - len(xyz) <= 2


def test_one_point_and_equal_points_are_files_too(tmp_path: Path) -> None:
    xyz, columns = cloud(1)
    for count in (1, 20_000):
        every = {name: np.repeat(values, count, 0) for name, values in columns.items()}
        path, _ = write(tmp_path / str(count), [(np.repeat(xyz, count, axis=0), every)])
        assert len(laspy.read(path)) == count
        assert check_copc(path)[0] == []


def test_no_points_are_refused_and_leave_no_file(tmp_path: Path) -> None:
    xyz, columns = cloud(5)
    plan = CopcPlan.of(SCHEMA, (*xyz.min(axis=0).tolist(), *xyz.max(axis=0).tolist()), None)
    writer = CopcWriter(tmp_path / "c.copc.laz", SCHEMA, "", False, plan.cube, VOXELS)
    run = Run(None, tmp_path, SerialExecutor(), 1, 1, SilentProgress(), Findings())  # type: ignore[arg-type]
    empty = xyz[:0], {n: v[:0] for n, v in columns.items()}
    with pytest.raises(NothingToTile):
        CopcTiler(read).run([empty], plan, writer, run)
    writer.abort()
    assert list(tmp_path.glob("c.*")) == []


def test_damage_is_noticed(path: Path, tmp_path: Path) -> None:
    data = path.read_bytes()
    node = max(CopcFile.open(path).nodes.values(), key=lambda entry: entry[1])
    damaged = tmp_path / "damaged.copc.laz"
    cuts = {"hierarchy": data[:-40], "head": data[:300], "empty": b"", "other": b"PK" * 400}
    for cut_short in cuts.values():
        damaged.write_bytes(cut_short)
        assert check_copc(damaged)[0] != []
        with pytest.raises(StoreError):
            CopcFile.open(damaged)
    broken = bytearray(data)
    broken[node[0] : node[0] + node[1]] = bytes(node[1])
    damaged.write_bytes(broken)
    assert check_copc(damaged)[0] != []


def test_columns_the_standard_has_otherwise_are_kept_beside_it() -> None:
    schema = LasSchema.of(
        {"intensity": ("float32", 1, None, ""), "x" * 40: ("uint8", 1, None, ""),
         "x" * 41: ("uint8", 1, None, ""), "rgb": ("uint8", 3, None, "")},
        SCALES, OFFSETS,
    )  # fmt: skip
    assert [e.name for e in schema.extra] == ["intensity (2)", "x" * 32, "x" * 28 + " (2)"]
    rgb = np.array([[0, 127, 255]], np.uint8)
    one = np.zeros(1)
    packed = schema.pack(
        np.array([OFFSETS]),
        {"intensity": one, "x" * 40: one, "x" * 41: one, "rgb": rgb},
    )
    assert [int(packed[n][0]) for n in ("red", "green", "blue")] == [0, 127 * 257, 65535]


def test_descriptions_of_columns_are_those_of_the_standard(path: Path) -> None:
    with laspy.open(io.BytesIO(path.read_bytes())) as file:
        dimensions = {d.name: d for d in file.header.point_format.extra_dimensions}
    assert dimensions["偏差"].description == "到平面的距离"
    (echo,) = [extra for extra in SCHEMA.extra if extra.name == "echo"]
    raw = echo.described()
    assert (len(raw), raw[2], raw[3]) == (192, 4, 1)  # int16, and a value that says "not measured"
    assert int.from_bytes(raw[40:48], "little", signed=True) == -1
