from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from tiling.batches import FeatureBatch
from tiling.crs import TILE_REF
from tiling.tilers.extsort import Spool, SpoolWriter


def batch(ids: np.ndarray) -> FeatureBatch:
    points = shapely.points(ids * 0.001 + 110.0, ids * 0.001 + 30.0)
    names = pa.array([f"地块{i}" if i % 3 else None for i in ids.tolist()], type=pa.string())
    return FeatureBatch(TILE_REF, ids, points, pa.table({"name": names}))


def spool(folder: Path, keys: np.ndarray, cuts: list[int], run_nbytes: int) -> Spool:
    ids = np.arange(len(keys), dtype=np.int64)
    writer = SpoolWriter.create(folder, run_nbytes)
    for part in np.split(ids, sorted({c for c in cuts if 0 < c < len(keys)})):
        writer.add(batch(part), keys[part])
    return writer.finish()


@settings(max_examples=30, deadline=None)
@given(
    keys=st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 3), min_size=1, max_size=60),
    cuts=st.lists(st.integers(1, 59), max_size=5),
    run_nbytes=st.sampled_from([1, 2_000, 10**9]),
    max_rows=st.integers(1, 70),
)
def test_chunk_and_run_sizes_never_show(
    tmp_path_factory: pytest.TempPathFactory,
    keys: list[int],
    cuts: list[int],
    run_nbytes: int,
    max_rows: int,
) -> None:
    wanted = np.array(keys, dtype=np.uint64)
    made = spool(tmp_path_factory.mktemp("spool"), wanted, cuts, run_nbytes)
    chunks = list(made.chunks(max_rows))
    got_keys = np.concatenate([k for k, _ in chunks])
    got_ids = np.concatenate([b.ids for _, b in chunks])
    order = np.lexsort((np.arange(len(wanted)), wanted))
    assert np.array_equal(got_keys, wanted[order])
    assert np.array_equal(got_ids, order)
    for _, part in chunks:
        assert part.attributes.equals(batch(part.ids).attributes)
        assert shapely.equals(part.geometry, batch(part.ids).geometry).all()


def test_a_range_gives_what_lies_in_it_and_the_last_key_too(tmp_path: Path) -> None:
    keys = np.array([5, 2**64 - 1, 7, 5, 0], dtype=np.uint64)
    made = spool(tmp_path, keys, [2], 1)
    assert made.gather(5, 7)[1].ids.tolist() == [0, 3]
    assert made.gather(2**64 - 1, 2**64)[1].ids.tolist() == [1]
    assert len(made.gather(8, 9)[1]) == 0
    assert made.keys().tolist() == [0, 5, 7, 2**64 - 1]


def test_an_interrupted_spool_is_not_finished_and_is_started_anew(tmp_path: Path) -> None:
    writer = SpoolWriter.create(tmp_path / "s", 1)
    writer.add(batch(np.arange(3)), np.arange(3, dtype=np.uint64))
    assert not Spool.is_finished(tmp_path / "s")
    made = spool(tmp_path / "s", np.zeros(2, dtype=np.uint64), [], 10**9)
    assert made.rows == 2
    assert Spool.is_finished(tmp_path / "s")
