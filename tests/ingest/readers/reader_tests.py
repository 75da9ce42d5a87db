"""What every vector reader promises; a reader proves itself by subclassing `ReaderTests`."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import shapely

from ingest.readers import open_source, readers
from ingest.readers.base import ReadOptions, SourceReader
from tiling.errors import FieldInvalid
from tiling.findings import Findings


class ReaderTests:
    """Subclass it and give the fixtures `reader_class`, `source` and (where needed) `options`.

    The source has at least three features with geometry and two fields.
    """

    @pytest.fixture
    def reader_class(self) -> type[SourceReader]:
        raise AssertionError("the subclass says which reader it tests")

    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        raise AssertionError("the subclass says what is read")

    @pytest.fixture
    def options(self) -> ReadOptions:
        return ReadOptions()

    def test_only_this_reader_recognises_it(self, reader_class, source) -> None:
        assert [r for r in readers() if r.sniff(source)] == [reader_class]

    def test_rows_are_yielded_or_counted_as_dropped(self, source, options) -> None:
        with open_source(source, options) as reader:
            layer = the_layer(reader, options)
            kept = sum(len(b) for b in reader.batches())
            assert kept >= 3
            assert layer.features == kept + reader.findings.count("drop")

    def test_the_size_of_chunks_is_irrelevant(self, source, options) -> None:
        whole, findings = read_all(source, options)
        small, small_findings = read_all(source, options, max_nbytes=1)
        assert len(small) > len(whole)
        assert_same_features(small, whole)
        assert small_findings.to_json() == findings.to_json()

    def test_reading_twice_gives_the_same(self, source, options) -> None:
        with open_source(source, options) as reader:
            first, counted = list(reader.batches()), reader.findings.to_json()
            second = list(reader.batches())
            assert_same_features(first, second)
            assert reader.findings.to_json() == counted

    def test_ids_ascend_and_do_not_depend_on_a_region(self, source, options) -> None:
        whole, _ = read_all(source, options)
        ids = np.concatenate([b.ids for b in whole])
        geometry = np.concatenate([b.geometry for b in whole])
        assert (np.diff(ids) > 0).all()
        region = tuple(shapely.bounds(geometry[1]).tolist())
        part, _ = read_all(source, options, region=region)
        touched = shapely.intersects(shapely.box(*region), shapely.envelope(geometry))
        assert np.concatenate([b.ids for b in part]).tolist() == ids[touched].tolist()
        assert 1 <= touched.sum()

    def test_columns_come_in_the_order_asked_for(self, source, options) -> None:
        whole, _ = read_all(source, options)
        names = whole[0].attributes.column_names
        wanted = names[:2][::-1]
        part, _ = read_all(source, options, columns=wanted)
        assert [b.attributes.column_names for b in part] == [wanted] * len(part)
        assert part[0].attributes.equals(whole[0].attributes.select(wanted))
        assert np.array_equal(part[0].ids, whole[0].ids)
        bare, _ = read_all(source, options, columns=())
        assert bare[0].attributes.num_columns == 0
        assert_same_geometry(bare, whole)

    def test_an_unknown_column_is_refused_with_the_known_ones(self, source, options) -> None:
        with open_source(source, options) as reader:
            known = the_layer(reader, options).fields[0].name
            with pytest.raises(FieldInvalid, match="no field '没有'") as caught:
                next(iter(reader.batches(columns=["没有"])))
            assert known in caught.value.remedy

    def test_fields_are_those_of_the_batches(self, source, options) -> None:
        with open_source(source, options) as reader:
            fields = the_layer(reader, options).fields
            for batch in reader.batches():
                schema = batch.attributes.schema
                assert [(f.name, str(f.type)) for f in schema] == [(f.name, f.type) for f in fields]

    def test_the_extent_and_z_are_those_of_the_geometry(self, source, options) -> None:
        with open_source(source, options) as reader:
            layer = the_layer(reader, options)
            geometry = np.concatenate([b.geometry for b in reader.batches()])
        assert layer.extent == pytest.approx(shapely.total_bounds(geometry), abs=1e-12)
        assert layer.has_z == bool(shapely.has_z(geometry).any())

    def test_the_fingerprint_moves_with_the_file_and_changes_with_a_byte(
        self, source, options, tmp_path
    ) -> None:
        with open_source(source, options) as reader:
            info = reader.info()
        copied = tmp_path / "elsewhere" / source.name
        copy_source(source, info.files, copied)
        with open_source(copied, options) as reader:
            other = reader.info()
        assert other.fingerprint() == info.fingerprint()
        assert info.nbytes == sum(f.stat().st_size for f in info.files)
        with other.files[0].open("ab") as file:
            file.write(b" ")
        assert other.fingerprint() != info.fingerprint()

    def test_options_and_info_travel_between_processes(self, source, options) -> None:
        assert pickle.loads(pickle.dumps(options)) == options
        with open_source(source, options) as reader:
            info = reader.info()
        assert pickle.loads(pickle.dumps(info)) == info

    def test_a_reader_may_be_closed_early_and_twice(self, source, options) -> None:
        reader = open_source(source, options)
        batches = reader.batches(max_nbytes=1)
        next(batches)
        batches.close()
        reader.close()
        reader.close()


def the_layer(reader: SourceReader, options: ReadOptions):
    layers = [x for x in reader.info().layers if options.layer in (None, x.name)]
    return next(x for x in layers if x.geometry_type is not None)


def read_all(source: Path, options: ReadOptions, **kwargs) -> tuple[list, Findings]:
    with open_source(source, options) as reader:
        return list(reader.batches(**kwargs)), reader.findings


def assert_same_features(some: list, others: list) -> None:
    assert_same_geometry(some, others)
    some_rows = [row for b in some for row in b.attributes.to_pylist()]
    assert some_rows == [row for b in others for row in b.attributes.to_pylist()]
    assert {b.attributes.schema.to_string() for b in some} == {
        b.attributes.schema.to_string() for b in others
    }


def assert_same_geometry(some: list, others: list) -> None:
    assert np.array_equal(
        np.concatenate([b.ids for b in some]), np.concatenate([b.ids for b in others])
    )
    a = shapely.to_wkb(np.concatenate([b.geometry for b in some]))
    assert np.array_equal(a, shapely.to_wkb(np.concatenate([b.geometry for b in others])))
    assert len({b.ref for b in [*some, *others]}) == 1


def copy_source(source: Path, files: tuple[Path, ...], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target)
        return
    for file in files:
        shutil.copy(file, target.parent / file.name)
