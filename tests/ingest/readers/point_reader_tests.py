"""What every reader of points promises; a reader proves itself by subclassing it."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from ingest.readers import open_source, readers
from ingest.readers.base import ReadOptions
from ingest.readers.point_files import PointFilesReader
from ingest.readers.points import read_chunk
from tiling.batches import PointBatch
from tiling.errors import CrsMissing, SourceError

OPTIONS = ReadOptions(crs="EPSG:4547")


class PointReaderTests:
    """Subclass it and give the fixtures `reader_class` and `source`.

    The source is a file of at least ten valid points, two columns, and no frame.
    """

    @pytest.fixture
    def reader_class(self) -> type[PointFilesReader]:
        raise AssertionError("the subclass says which reader it tests")

    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        raise AssertionError("the subclass says what is read")

    def test_only_this_reader_recognises_it(self, reader_class, source) -> None:
        assert [r for r in readers() if r.sniff(source)] == [reader_class]

    def test_the_facts_are_those_of_the_points(self, source) -> None:
        with open_source(source, OPTIONS) as reader:
            info = reader.info()
        whole = read(source)
        facts = info.points
        assert (info.kind, facts.count, facts.files) == ("pointcloud", len(whole), 1)
        assert info.layers[0].features == len(whole) >= 10
        tolerance = max(map(abs, facts.scale or (0,)))
        stated = np.array(facts.bounds)
        true = np.concatenate([whole.xyz.min(axis=0), whole.xyz.max(axis=0)])
        assert np.abs(stated - true).max() <= tolerance
        held = {name: (v.dtype.name, v.shape[1:]) for name, v in whole.columns.items()}
        assert held == {c.name: (c.dtype, (c.width,) if c.width > 1 else ()) for c in facts.columns}

    def test_the_size_of_chunks_is_irrelevant(self, source) -> None:
        whole = read(source)
        for max_points in (1, 3, len(whole) - 1, len(whole)):
            assert_same(read(source, max_points), whole)

    def test_chunks_are_small_and_follow_one_another(self, source) -> None:
        with open_source(source, OPTIONS) as reader:
            chunks = reader.chunks(3)
        assert all(0 < chunk.count <= 3 for chunk in chunks)
        ends = np.cumsum([chunk.count for chunk in chunks])
        assert [c.first for c in chunks] == [c.start for c in chunks] == [0, *ends[:-1]]

    def test_columns_are_read_as_asked_for(self, source) -> None:
        with open_source(source, OPTIONS) as reader:
            (chunk,) = reader.chunks()
        whole = read_chunk(chunk)
        names = list(whole.columns)
        assert list(read_chunk(chunk, ()).columns) == []
        part = read_chunk(chunk, names[:2][::-1])
        assert list(part.columns) == names[:2][::-1]
        assert np.array_equal(part.xyz, whole.xyz)
        for name, values in part.columns.items():
            assert np.array_equal(values, whole.columns[name], equal_nan=values.dtype.kind == "f")
        with pytest.raises(KeyError):
            read_chunk(chunk, ["没有"])

    def test_points_are_no_features_and_need_a_frame(self, source) -> None:
        with open_source(source) as reader:
            assert reader.info().layers[0].ref is None
            with pytest.raises(CrsMissing):
                reader.chunks()
            with pytest.raises(SourceError, match="no features"):
                next(iter(reader.batches()))

    def test_a_folder_of_two_is_one_cloud(self, source, tmp_path) -> None:
        folder = tmp_path / "folder"
        folder.mkdir()
        for name in ("a", "b"):
            shutil.copy(source, folder / f"{name}{source.suffix}")
        whole, both = read(source), read(folder)
        assert np.array_equal(both.xyz, np.concatenate([whole.xyz, whole.xyz]))

    def test_the_fingerprint_changes_with_a_byte(self, source, tmp_path) -> None:
        with open_source(source) as reader:
            before = reader.info().fingerprint()
        assert pickle.loads(pickle.dumps(OPTIONS)) == OPTIONS
        moved = Path(shutil.copy(source, tmp_path / f"moved{source.suffix}"))
        moved.rename(source)
        with open_source(source) as reader:
            info = reader.info()
            assert info.fingerprint() == before
        with source.open("ab") as file:
            file.write(b"\n")
        assert info.fingerprint() != before


def read(source: Path, max_points: int = 1_000_000) -> PointBatch:
    """Return all points of a source, each chunk as a worker reads it."""
    with open_source(source, OPTIONS) as reader:
        chunks = reader.chunks(max_points)
    batches = [read_chunk(pickle.loads(pickle.dumps(chunk))) for chunk in chunks]
    columns = {
        name: np.concatenate([b.columns[name] for b in batches]) for name in batches[0].columns
    }
    return PointBatch(batches[0].ref, 0, np.concatenate([b.xyz for b in batches]), columns)


def assert_same(a: PointBatch, b: PointBatch) -> None:
    """Compare points bit for bit, columns and their types too."""
    assert np.array_equal(a.xyz, b.xyz) and list(a.columns) == list(b.columns)
    for name, values in a.columns.items():
        assert values.dtype == b.columns[name].dtype
        assert np.array_equal(values, b.columns[name], equal_nan=values.dtype.kind == "f")
