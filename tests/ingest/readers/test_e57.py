"""E57: scans in their poses, as another reading of libE57 gives them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pye57
import pytest
from pye57 import libe57

from ingest.readers import open_source
from ingest.readers.base import ReadOptions
from ingest.readers.points import chunk_findings, read_chunk
from tiling.errors import CrsMissing, SourceError

OPTIONS = ReadOptions(crs="EPSG:4547")
TURNED = np.array([np.cos(0.4), 0.1, -0.2, np.sin(0.4)])
TURNED /= np.linalg.norm(TURNED)
STATION = np.array([441000.0, 3507000.0, 80.0])


def a_scan(count: int, seed: int, colours: bool = True) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    scan = {f"cartesian{axis}": rng.normal(0, 20, count) for axis in "XYZ"}
    scan["intensity"] = rng.random(count).astype(np.float32)
    scan["rowIndex"], scan["columnIndex"] = np.divmod(np.arange(count, dtype=np.uint16), 10)
    if colours:
        for name in ("colorRed", "colorGreen", "colorBlue"):
            scan[name] = rng.integers(0, 256, count).astype(np.uint8)
    return scan


def write(path: Path, *scans: dict[str, np.ndarray]) -> Path:
    with pye57.E57(str(path), mode="w") as file:
        for number, scan in enumerate(scans):
            station = STATION + [number * 10, 0, 0]
            file.write_scan_raw(scan, rotation=TURNED, translation=station)
    return path


def read(path: Path, max_points: int = 10_000) -> tuple[np.ndarray, dict[str, np.ndarray], dict]:
    with open_source(path, OPTIONS) as reader:
        chunks = reader.chunks(max_points)
    batches = [read_chunk(chunk) for chunk in chunks]
    said: dict[str, int] = {}
    for chunk, batch in zip(chunks, batches, strict=True):
        for finding in chunk_findings(chunk, batch):
            said[finding.rule] = said.get(finding.rule, 0) + finding.count
    names = batches[0].columns
    columns = {name: np.concatenate([b.columns[name] for b in batches]) for name in names}
    return np.concatenate([b.xyz for b in batches]), columns, said


@pytest.mark.parametrize("max_points", [1000, 170, 10_000])
def test_scans_stand_in_their_poses_whatever_the_chunks(tmp_path: Path, max_points: int) -> None:
    scans = a_scan(500, 1), a_scan(300, 2)
    path = write(tmp_path / "扫描.e57", *scans)
    xyz, columns, said = read(path, max_points)
    with pye57.E57(str(path)) as file:
        theirs = [file.read_scan(n, ignore_missing_fields=True) for n in range(2)]
    want = np.concatenate([np.stack([t[f"cartesian{a}"] for a in "XYZ"], 1) for t in theirs])
    assert xyz == pytest.approx(want, abs=1e-8) and not said
    assert columns["rgb"].dtype == np.uint8
    reds = np.concatenate([scan["colorRed"] for scan in scans])
    assert np.array_equal(columns["rgb"][:, 0], reds)
    assert np.array_equal(columns["intensity"], np.concatenate([s["intensity"] for s in scans]))
    assert np.array_equal(columns["row_index"], np.concatenate([s["rowIndex"] for s in scans]))


def test_invalid_points_are_left_out_and_counted(tmp_path: Path) -> None:
    scan = a_scan(100, 3)
    scan["cartesianInvalidState"] = np.zeros(100, np.int8)
    scan["cartesianInvalidState"][::7] = 2
    xyz, columns, said = read(write(tmp_path / "a.e57", scan), 40)
    assert len(xyz) == len(columns["rgb"]) == 85 and said == {"points-invalid": 15}


def test_scans_may_lack_what_others_have(tmp_path: Path) -> None:
    path = write(tmp_path / "a.e57", a_scan(10, 1), a_scan(20, 2, colours=False))
    xyz, columns, _ = read(path)
    assert len(xyz) == 30 and not columns["rgb"][10:].any() and columns["rgb"][:10].any()
    with open_source(path, OPTIONS) as reader:
        assert ("column-missing", 20) in [(f.rule, f.count) for f in reader.info().findings]


def test_spherical_coordinates_are_range_azimuth_and_elevation(tmp_path: Path) -> None:
    path = tmp_path / "a.e57"
    reach, azimuth, elevation = np.array([10.0, 5.0]), np.array([0.5, -2.0]), np.array([0.25, -1.0])
    with pye57.E57(str(path), mode="w") as file:
        image = file.image_file
        scan, prototype = libe57.StructureNode(image), libe57.StructureNode(image)
        buffers = libe57.VectorSourceDestBuffer()
        fields = {
            "sphericalRange": reach,
            "sphericalAzimuth": azimuth,
            "sphericalElevation": elevation,
        }
        for name, values in fields.items():
            prototype.set(name, libe57.FloatNode(image, 0.0))
            buffers.append(libe57.SourceDestBuffer(image, name, values, 2, True, True))
        points = libe57.CompressedVectorNode(image, prototype, libe57.VectorNode(image, True))
        scan.set("guid", libe57.StringNode(image, "{1}"))
        scan.set("points", points)
        file.data3d.append(scan)
        writer = points.writer(buffers)
        writer.write(2)
        writer.close()
    xyz, _, _ = read(path)
    assert np.linalg.norm(xyz, axis=1) == pytest.approx(reach)
    assert np.arctan2(xyz[:, 1], xyz[:, 0]) == pytest.approx(azimuth)
    assert np.arcsin(xyz[:, 2] / reach) == pytest.approx(elevation)


def test_bounds_are_those_of_the_placed_points_and_a_frame_is_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "a.e57", a_scan(500, 1))
    xyz, _, _ = read(path)
    with open_source(path) as reader:
        info = reader.info()
        assert info.points.bounds == (*xyz.min(axis=0), *xyz.max(axis=0))
        assert info.layers[0].ref is None
        with pytest.raises(CrsMissing):
            reader.chunks()


@pytest.mark.parametrize("seed", range(12))
def test_a_damaged_file_is_refused(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    raw = bytearray(write(tmp_path / "a.e57", a_scan(5000, 1)).read_bytes())
    if seed % 3 == 0:
        raw = raw[: int(rng.integers(8, len(raw)))]
    else:
        at = int(rng.integers(8, len(raw) - 64))
        raw[at : at + 32] = rng.integers(0, 256, 32).astype(np.uint8).tobytes()
    (tmp_path / "a.e57").write_bytes(raw)
    with pytest.raises(SourceError) as caught:
        read(tmp_path / "a.e57")
    assert caught.value.source.endswith("a.e57")
