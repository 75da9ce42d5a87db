"""Small chunks are read together, and nothing else changes."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from ingest.readers.base import ReadOptions
from ingest.readers.las import LasReader
from ingest.readers.point_chunks import PointChunk
from ingest.readers.point_groups import grouped, read_group
from ingest.readers.points import chunk_findings, read_chunk
from tiling.findings import Findings

DATA = Path(__file__).parent.parent.parent / "data" / "pointcloud"


@pytest.fixture(scope="module")
def chunks(tmp_path_factory: pytest.TempPathFactory) -> list[PointChunk]:
    folder = tmp_path_factory.mktemp("files")
    for number in range(6):
        shutil.copy(DATA / "1.2-with-color.las", folder / f"{number}.las")
    return LasReader(folder, ReadOptions(crs="EPSG:2994+ellipsoidal")).chunks()


def test_groups_hold_every_chunk_in_order_and_few_points(chunks: list[PointChunk]) -> None:
    each = chunks[0].count
    for most, sizes in ((2 * each, [2, 2, 2]), (6 * each, [6]), (1, [1] * 6), (4 * each, [4, 2])):
        groups = list(grouped(chunks, most))
        assert [len(group) for group in groups] == sizes
        assert [chunk for group in groups for chunk in group] == chunks


def test_a_group_has_one_frame(chunks: list[PointChunk]) -> None:
    (other,) = LasReader(
        DATA / "1.2-with-color.las", ReadOptions(crs="EPSG:2992+ellipsoidal")
    ).chunks()
    assert [len(group) for group in grouped([*chunks, other], 10**9)] == [6, 1]


def test_a_group_is_its_chunks_one_after_the_other(chunks: list[PointChunk]) -> None:
    batch, found = read_group(tuple(chunks))
    batches = [read_chunk(chunk) for chunk in chunks]
    assert (batch.ref, batch.first, len(batch)) == (
        chunks[0].ref,
        0,
        sum(chunk.count for chunk in chunks),
    )
    assert (batch.xyz == np.concatenate([one.xyz for one in batches])).all()
    for name, values in batch.columns.items():
        apart = np.concatenate([one.columns[name] for one in batches])
        assert values.dtype == apart.dtype and np.array_equal(values, apart)
    findings = Findings()
    for chunk, one in zip(chunks, batches, strict=True):
        findings.merge(chunk_findings(chunk, one))
    assert found == tuple(findings)
