"""LAS, LAZ and COPC against laspy's own reading; every version, every point format."""

from __future__ import annotations

import pickle
from pathlib import Path

import laspy
import numpy as np
import pytest

from ingest.readers import open_source
from ingest.readers.base import ReadOptions
from ingest.readers.point_chunks import PointChunk
from ingest.readers.points import read_chunk
from tiling.batches import PointBatch
from tiling.errors import SourceUnreadable

DATA = Path(__file__).parents[2] / "data" / "pointcloud"
UNREADABLE = {
    "pdrf7-v4-1.4.laz": "coding version 4",
    "pdrf9-1.5.laz": "coding version 4",
    "pdrf10-1.5.laz": "coding version 4",
    "simple-laszip-compressor-version-1.2r0.laz": "pointwise, without chunks",
    "bad_vlr_count.las": "announces 3 variable length records",
    "1.2-no-points.las": "counts 1065 points",
}
EMPTY = {"no-points.las"}
READABLE = sorted(
    p.name
    for p in DATA.glob("*.la[sz]")
    if p.name not in UNREADABLE.keys() | EMPTY and not p.name.endswith(".copc.laz")
)


def chunks_of(path: Path, max_points: int = 1_000_000) -> list[PointChunk]:
    with open_source(path, ReadOptions(crs="EPSG:4547")) as reader:
        return reader.chunks(max_points)


def read_all(path: Path, max_points: int = 1_000_000) -> PointBatch:
    batches = [read_chunk(pickle.loads(pickle.dumps(c))) for c in chunks_of(path, max_points)]
    assert [b.first for b in batches] == np.cumsum([0, *(len(b) for b in batches)])[:-1].tolist()
    columns = {
        name: np.concatenate([b.columns[name] for b in batches]) for name in batches[0].columns
    }
    return PointBatch(batches[0].ref, 0, np.concatenate([b.xyz for b in batches]), columns)


def laspy_column(points: laspy.LasData, name: str) -> np.ndarray:
    if name == "rgb":
        return np.stack([points.red, points.green, points.blue], axis=1)
    if name == "scan_angle":
        old = points.point_format.id < 6
        angle = points.scan_angle_rank if old else points.scan_angle * 0.006
        return np.asarray(angle, np.float32)
    return np.asarray(points[name])


@pytest.mark.parametrize("name", READABLE)
def test_every_version_and_format_reads_as_laspy_reads_it(name: str) -> None:
    ours, theirs = read_all(DATA / name), laspy.read(DATA / name)
    assert np.array_equal(ours.xyz, theirs.xyz)
    assert len(ours) == len(theirs.points)
    for column, values in ours.columns.items():
        assert np.array_equal(values, laspy_column(theirs, column), equal_nan=values.dtype == "f8")


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_file_that_lies_or_is_of_an_unknown_variant_is_refused_with_what_is_wrong(
    name: str,
) -> None:
    with pytest.raises(SourceUnreadable, match=UNREADABLE[name]) as caught:
        chunks_of(DATA / name)
    assert caught.value.source.endswith(name) and caught.value.remedy
