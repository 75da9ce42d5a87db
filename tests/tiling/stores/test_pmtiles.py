"""PMTiles keeps the laws of stores, reads what others write and is read by them."""

from __future__ import annotations

import gzip
import itertools
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pmtiles.reader import MmapSource, Reader, all_tiles
from pmtiles.tile import Compression, TileType, tileid_to_zxy, zxy_to_tileid
from pmtiles.writer import Writer

from tests.tiling.stores.store_tests import StoreTests, machine, pack
from tiling.errors import FormatError, StoreError
from tiling.formats.pmtiles import (
    MAX_ROOT_NBYTES,
    Directory,
    Header,
    pack_directories,
    tile_cells,
    tile_id,
    tile_ids,
)
from tiling.stores.base import Encoding, StoreInfo
from tiling.stores.pmtiles import PmtilesReader, PmtilesWriter

KEYS = st.integers(0, 5).flatmap(
    lambda z: st.builds(
        lambda x, y: f"{z}/{x}/{y}.mvt", st.integers(0, 2**z - 1), st.integers(0, 2**z - 1)
    )
)


class TestPmtiles(StoreTests):
    format = "pmtiles"
    writer = PmtilesWriter
    keys = KEYS
    encodings = st.just("gzip")

    def sample(self) -> list[tuple[str, bytes, Encoding]]:
        return [
            ("7/105/52.mvt", pack("曾都区".encode()), "gzip"),
            ("7/104/52.mvt", pack(b"\x1a\x00" * 400), "gzip"),
            ("6/52/26.mvt", pack(b"water"), "gzip"),
            ("9/400/200.mvt", pack(os.urandom(3000)), "gzip"),
        ]


TestPmtilesMachine = machine(TestPmtiles)


def write(path: Path, tiles: dict[str, bytes], metadata: Any = None) -> StoreInfo:
    writer = PmtilesWriter(path)
    for key, data in tiles.items():
        writer.put(key, data, "gzip")
    return writer.commit(metadata)


def level(zoom: int, different: int = 10**9) -> dict[str, bytes]:
    side = range(2**zoom)
    return {
        f"{zoom}/{x}/{y}.mvt": pack(b"%d" % ((x * 977 + y * 331) % different))
        for x, y in itertools.product(side, side)
    }


def test_the_reference_reader_reads_our_archive(tmp_path: Path) -> None:
    tiles = level(3, 7) | level(7, 300)
    metadata = {"name": "随州", "bounds": [112.7, 31.3, 114.2, 32.5], "center": [113.4, 31.9, 3]}
    info = write(tmp_path / "a.pmtiles", tiles, metadata)
    with info.path.open("rb") as file:
        source = MmapSource(file)
        reader = Reader(source)
        header = reader.header()
        assert reader.metadata() == metadata
        found = {"{}/{}/{}.mvt".format(*zxy): data for zxy, data in all_tiles(source)}
    assert found == tiles
    assert (header["tile_type"], header["tile_compression"]) == (TileType.MVT, Compression.GZIP)
    assert header["internal_compression"] == Compression.GZIP
    assert (header["min_zoom"], header["max_zoom"], header["clustered"]) == (3, 7, True)
    assert header["addressed_tiles_count"] == len(tiles) == info.tiles
    assert header["tile_contents_count"] == len(set(tiles.values()))
    assert (header["min_lon_e7"], header["max_lat_e7"]) == (1127000000, 325000000)
    assert (header["center_lon_e7"], header["center_zoom"]) == (1134000000, 3)


def test_we_read_the_archive_of_the_reference_writer(tmp_path: Path) -> None:
    path = tmp_path / "theirs.pmtiles"
    tiles = {tileid_to_zxy(i): pack(b"%d" % (i % 90)) for i in range(30_000)}
    with path.open("wb") as file:
        writer = Writer(file)
        for zxy, data in tiles.items():
            writer.write_tile(zxy_to_tileid(*zxy), data)
        header = {"tile_type": TileType.MVT, "tile_compression": Compression.GZIP}
        writer.finalize(header, {"name": "他们的"})
    with PmtilesReader(path) as reader:
        assert reader.metadata["name"] == "他们的"
        assert sorted(reader.keys()) == sorted("{}/{}/{}.mvt".format(*zxy) for zxy in tiles)
        for zxy in list(tiles)[::97]:
            tile = reader.get("{}/{}/{}.mvt".format(*zxy))
            assert tile is not None and tile.data == tiles[zxy]


def test_the_order_of_the_puts_never_shows(tmp_path: Path) -> None:
    tiles = level(5, 40)
    first = write(tmp_path / "a.pmtiles", tiles)
    second = write(tmp_path / "b.pmtiles", dict(reversed(tiles.items())))
    assert first.path.read_bytes() == second.path.read_bytes()


def test_equal_tiles_rest_once_and_runs_of_them_are_one_entry(tmp_path: Path) -> None:
    tiles = dict.fromkeys(level(6), pack(b"sea"))
    info = write(tmp_path / "a.pmtiles", tiles)
    with PmtilesReader(info.path) as reader:
        header = reader.header
        assert (header.addressed_tiles, header.tile_entries, header.tile_contents) == (4096, 1, 1)
        assert set(reader.keys()) == set(tiles)


def test_many_tiles_go_into_leaf_directories_that_are_parsed_once(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    tiles = {k: pack(rng.bytes(int(rng.integers(8, 60)))) for k in level(8)}
    info = write(tmp_path / "a.pmtiles", tiles)
    with PmtilesReader(info.path) as reader:
        assert reader.header.root_length <= MAX_ROOT_NBYTES
        assert reader.header.leaves_length > 0
        for key, data in tiles.items():
            tile = reader.get(key)
            assert tile is not None and tile.data == data
        # Far from 83 ms, which parsing the directories on every get costs; generous, because
        # machines are shared. Measured: about 10 µs.
        best = min(_seconds(reader, list(tiles)[:2000]) for _ in range(3))
        assert best / 2000 < 1e-3


def _seconds(reader: PmtilesReader, keys: list[str]) -> float:
    start = time.perf_counter()
    for key in keys:
        reader.get(key)
    return time.perf_counter() - start


def test_bounds_default_to_those_of_the_tiles(tmp_path: Path) -> None:
    info = write(tmp_path / "a.pmtiles", {"1/1/0.mvt": pack(b"x")})
    with PmtilesReader(info.path) as reader:
        header = reader.header
        assert (header.west, header.south, header.east) == (0.0, 0.0, 180.0)
        assert header.north == pytest.approx(85.0511288, abs=1e-6)


@pytest.mark.parametrize(
    ("key", "encoding", "word"),
    [
        ("1/0/0.png", "gzip", "others"),
        ("1/0/0.mvt", None, "others"),
        ("1/2/0.mvt", "gzip", "cannot be a tile"),
        ("01/0/0.mvt", "gzip", "cannot be a tile"),
        ("32/0/0.mvt", "gzip", "cannot be a tile"),
        ("1/0/0.terrain", "gzip", "cannot be a tile"),
    ],
)
def test_a_tile_that_does_not_fit_is_refused(
    tmp_path: Path, key: str, encoding: Encoding, word: str
) -> None:
    writer = PmtilesWriter(tmp_path / "a.pmtiles")
    writer.put("0/0/0.mvt", pack(b"x"), "gzip")
    with pytest.raises(StoreError, match=word):
        writer.put(key, pack(b"y"), encoding)
    writer.abort()


def test_an_archive_without_tiles_is_not_written(tmp_path: Path) -> None:
    writer = PmtilesWriter(tmp_path / "a.pmtiles")
    with pytest.raises(StoreError, match="no tile"):
        writer.commit()
    writer.abort()
    assert list(tmp_path.iterdir()) == []


def test_an_archive_cut_anywhere_is_refused_or_fails_clearly(tmp_path: Path) -> None:
    info = write(tmp_path / "a.pmtiles", level(3))
    whole = info.path.read_bytes()
    cut = tmp_path / "cut.pmtiles"
    for size in {*range(0, len(whole), 37), len(whole) - 1}:
        cut.write_bytes(whole[:size])
        with pytest.raises(StoreError, match=r"cut\.pmtiles"):
            PmtilesReader(cut)


@settings(max_examples=150)
@given(data=st.data())
def test_a_damaged_archive_gives_tiles_or_a_store_error(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("hostile")
    raw = bytearray(write(folder / "a.pmtiles", level(3)).path.read_bytes())
    head = len(raw) - sum(map(len, level(3).values()))
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, head - 1))] = data.draw(st.integers(0, 255))
    (folder / "b.pmtiles").write_bytes(raw)
    try:
        with PmtilesReader(folder / "b.pmtiles") as reader:
            for key in itertools.islice(reader.keys(), 100):
                reader.get(key)
    except StoreError:
        pass


def test_a_leaf_that_points_to_itself_is_refused(tmp_path: Path) -> None:
    one = np.array([1], dtype=np.uint64)
    leaf = Directory(one * 0, one * 0, one, one * 0).to_bytes()
    leaf = Directory(one * 0, one * 0, one * np.uint64(len(leaf)), one * 0).to_bytes()
    root, metadata = leaf, gzip.compress(b"{}")
    start = 127 + len(root) + len(metadata)
    header = Header(
        root_offset=127, root_length=len(root), metadata_offset=127 + len(root),
        metadata_length=len(metadata), leaves_offset=start, leaves_length=len(leaf),
        data_offset=start + len(leaf), data_length=0, addressed_tiles=1, tile_entries=1,
        tile_contents=1, clustered=True, internal_compression=2, tile_compression=2, tile_type=1,
        min_zoom=0, max_zoom=0, bounds=(0, 0, 1, 1), center=(0, 0, 0),
    )  # fmt: skip
    path = tmp_path / "loop.pmtiles"
    path.write_bytes(header.to_bytes() + root + metadata + leaf)
    with PmtilesReader(path) as reader:
        with pytest.raises(StoreError, match="nested"):
            reader.get("0/0/0.mvt")
        with pytest.raises(StoreError, match="nested"):
            list(reader.keys())


@pytest.mark.parametrize("nbytes", [b"", b"\x00", b"\x01\x00\x00\x00", b"\x02\x00\x00\x01\x01"])
def test_a_directory_of_the_wrong_size_is_a_format_error(nbytes: bytes) -> None:
    with pytest.raises(FormatError):
        Directory.from_bytes(nbytes, 1)


@given(st.integers(0, 26).flatmap(lambda z: st.tuples(st.just(z), *[st.integers(0, 2**z - 1)] * 2)))
def test_tile_ids_are_those_of_the_reference(cell: tuple[int, int, int]) -> None:
    zoom, x, y = cell
    expected = zxy_to_tileid(zoom, x, y)
    assert tile_id(zoom, x, y) == expected == int(tile_ids(zoom, [x], [y])[0])
    assert tuple(int(v[0]) for v in tile_cells(np.array([expected], np.uint64))) == cell


@given(
    st.lists(
        st.tuples(st.integers(1, 2**40), st.integers(0, 2**50), st.integers(1, 2**31)),
        min_size=1,
        max_size=60,
    )
)
def test_directories_survive_the_round_trip(rows: list[tuple[int, int, int]]) -> None:
    deltas, offsets, lengths = np.array(rows, dtype=np.uint64).T
    entries = Directory(np.cumsum(deltas), offsets, lengths, np.ones_like(deltas))
    root, leaves = pack_directories(entries)
    back = Directory.from_bytes(root, 2)
    assert leaves == b""
    for name in ("ids", "offsets", "lengths", "runs"):
        assert np.array_equal(getattr(back, name), getattr(entries, name))
