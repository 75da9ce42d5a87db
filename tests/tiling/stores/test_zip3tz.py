"""3TZ keeps the laws of stores and the letter of the format, and stays calm with hostile files."""

import gzip
import hashlib
import io
import os
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.tiling.stores.store_tests import StoreTests, machine, pack
from tiling.errors import StoreError
from tiling.stores import zip_records
from tiling.stores.base import Encoding, StoredTile
from tiling.stores.directory import DirectoryReader, DirectoryWriter
from tiling.stores.gzip_member import content, decode, join, split
from tiling.stores.zip3tz import INDEX_NAME, ThreeTzReader, ThreeTzWriter


class TestThreeTz(StoreTests):
    format = "3tz"
    writer = ThreeTzWriter


TestThreeTzMachine = machine(TestThreeTz)


def write(path: Path, tiles: dict[str, bytes], encoding: Encoding = None) -> Path:
    writer = ThreeTzWriter(path)
    for key, data in tiles.items():
        writer.put(key, pack(data) if encoding == "gzip" else data, encoding)
    writer.commit()
    return path


def foreign(path: Path, tiles: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in tiles.items():
            archive.writestr(name, data)
    return path


def read(path: Path, key: str) -> bytes | None:
    reader = ThreeTzReader(path)
    tile = reader.get(key)
    reader.close()
    return None if tile is None else content(tile)


TILES = {"tileset.json": b"{}", "内容/0.glb": b"glTF" * 500, "a.subtree": os.urandom(700)}


# The letter of the format


def test_any_zip_program_reads_it(tmp_path: Path) -> None:
    path = write(tmp_path / "a.3tz", TILES, "gzip")
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [*TILES, INDEX_NAME]
        assert {name: archive.read(name) for name in TILES} == TILES
        for entry in archive.infolist():
            assert entry.date_time == (1980, 1, 1, 0, 0, 0)
            assert not entry.flag_bits & 8
        assert archive.getinfo(INDEX_NAME).compress_type == zipfile.ZIP_STORED
        assert archive.getinfo(INDEX_NAME).comment == b""


def test_the_index_is_sorted_and_points_at_local_headers(tmp_path: Path) -> None:
    tiles = {f"content/{n}.glb": bytes([n]) * n for n in range(200)}
    path = write(tmp_path / "a.3tz", tiles)
    raw = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        index = archive.read(INDEX_NAME)
        offsets = {i.filename: i.header_offset for i in archive.infolist()}
    records = [struct.unpack_from("<QQQ", index, at) for at in range(0, len(index), 24)]
    assert len(records) == len(tiles)
    assert records == sorted(records)
    for key in tiles:
        high, low = struct.unpack("<QQ", hashlib.md5(key.encode()).digest())
        assert (high, low, offsets[key]) in records
        assert raw[offsets[key] : offsets[key] + 4] == b"PK\3\4"


def test_deflate_streams_are_neither_made_nor_unmade(tmp_path: Path) -> None:
    # A stream that no compressor of today would make: stored blocks inside of deflate.
    maker = zlib.compressobj(0, zlib.DEFLATED, 31)
    odd = maker.compress(b"as it is " * 100) + maker.flush()
    writer = ThreeTzWriter(tmp_path / "a.3tz")
    writer.put("a.glb", odd, "gzip")
    writer.commit()
    assert split(odd, "odd").deflate in (tmp_path / "a.3tz").read_bytes()
    reader = ThreeTzReader(tmp_path / "a.3tz")
    tile = reader.get("a.glb")
    reader.close()
    assert tile is not None and tile.encoding == "gzip"
    assert tile.data[10:] == odd[10:]


@pytest.mark.parametrize("name", ["b.3tz", "x.3tz/y.glb", INDEX_NAME])
def test_names_that_the_format_forbids_are_refused(tmp_path: Path, name: str) -> None:
    writer = ThreeTzWriter(tmp_path / "a.3tz")
    with pytest.raises(StoreError, match="does not allow"):
        writer.put(name, b"")
    writer.abort()


def test_metadata_rests_beside_the_tiles(tmp_path: Path) -> None:
    writer = ThreeTzWriter(tmp_path / "a.3tz")
    info = writer.commit({"名称": "光谷", "a": 1})
    assert info.tiles == 1
    assert read(info.path, "metadata.json") == '{"a": 1, "名称": "光谷"}'.encode()


def test_an_archive_without_tiles_is_valid(tmp_path: Path) -> None:
    path = write(tmp_path / "a.3tz", {})
    reader = ThreeTzReader(path)
    assert list(reader.keys()) == []
    assert reader.get("tileset.json") is None
    reader.close()


def test_more_than_65535_entries_use_zip64(tmp_path: Path) -> None:
    count = 66_000
    path = write(tmp_path / "a.3tz", {f"{n}.glb": b"%d" % n for n in range(count)})
    with zipfile.ZipFile(path) as archive:
        assert len(archive.infolist()) == count + 1
    reader = ThreeTzReader(path)
    assert sum(1 for _ in reader.keys()) == count
    for n in (0, 65_534, 65_535, 65_536, count - 1):
        tile = reader.get(f"{n}.glb")
        assert tile is not None and tile.data == b"%d" % n
    reader.close()


def test_offsets_beyond_the_32_bit_limit_use_zip64(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The limit is lowered to 1,000 bytes; readers only see fields that say "look into Zip64".
    def small(function: object) -> object:
        return lambda value: function(value, 1000)  # type: ignore[operator]

    monkeypatch.setattr("tiling.stores.zip3tz.pack_central", small(zip_records.pack_central))
    monkeypatch.setattr("tiling.stores.zip3tz.pack_end", small(zip_records.pack_end))
    tiles = {f"{n}.glb": os.urandom(300) for n in range(20)}
    path = write(tmp_path / "a.3tz", tiles)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in tiles} == tiles
    assert {key: read(path, key) for key in tiles} == tiles


@pytest.mark.slow
def test_an_archive_of_more_than_4_gib_is_read(tmp_path: Path) -> None:
    # A hole in a sparse file stands for 5 GiB of tiles between the first entry and the second.
    gap = 5 << 30
    path = tmp_path / "big.3tz"
    first, second = b"first" * 100, b"second" * 100
    entries = [
        zip_records.Entry(name, 0, 0, zlib.crc32(body), len(body), len(body), offset)
        for name, body, offset in ((b"a.glb", first, 0), (b"b.glb", second, gap))
    ]
    central = b"".join(zip_records.pack_central(entry) for entry in entries)
    with path.open("wb") as file:
        for entry, body in zip(entries, (first, second), strict=True):
            file.seek(entry.offset)
            file.write(zip_records.pack_local(entry) + body)
        directory = zip_records.Directory(file.tell(), len(central), 2)
        file.write(central + zip_records.pack_end(directory))
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
    assert read(path, "a.glb") == first
    assert read(path, "b.glb") == second


def test_memory_is_not_needed_for_the_tiles(tmp_path: Path) -> None:
    script = (
        "import os, resource, sys; from pathlib import Path\n"
        "from tiling.stores.zip3tz import ThreeTzWriter\n"
        "w = ThreeTzWriter(Path(sys.argv[1])); w.put('0.glb', bytes(1000))\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for n in range(1, 300): w.put(f'{n}.glb', os.urandom(500_000))\n"
        "w.commit()\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "a.3tz")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert (tmp_path / "a.3tz").stat().st_size > 149_000_000
    assert int(done.stdout) < 20_000  # kilobytes


# archive = directory


keys = st.builds("{}/{}.glb".format, st.sampled_from(["0", "内容"]), st.integers(0, 50))


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.dictionaries(keys, st.tuples(TestThreeTz.contents, st.booleans())))
def test_archive_equals_directory(
    tmp_path_factory: pytest.TempPathFactory, tiles: dict[str, tuple[bytes, bool]]
) -> None:
    folder = tmp_path_factory.mktemp("s")
    archive, directory = ThreeTzWriter(folder / "a.3tz"), DirectoryWriter(folder / "a")
    for key, (data, packed) in tiles.items():
        for writer in (archive, directory):
            writer.put(key, pack(data) if packed else data, "gzip" if packed else None)
    metadata = {"n": len(tiles)}
    assert archive.commit(metadata).tiles == directory.commit(metadata).tiles
    one, other = ThreeTzReader(folder / "a.3tz"), DirectoryReader(folder / "a")
    assert sorted(one.keys()) == sorted(other.keys())
    for key in other.keys():
        a, b = one.get(key), other.get(key)
        assert a is not None and b is not None
        assert (content(a), a.media_type) == (content(b), b.media_type)
    one.close()


# Foreign archives


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_plain_zip_is_read_through_its_directory(tmp_path: Path, method: int) -> None:
    path = foreign(tmp_path / "a.zip", TILES | {"folder/": b""}, method)
    reader = ThreeTzReader(path)
    assert sorted(reader.keys()) == sorted(TILES)
    for key, data in TILES.items():
        tile = reader.get(key)
        assert tile is not None and content(tile) == data
    assert reader.get("nothing") is None
    assert reader.get(INDEX_NAME) is None
    reader.close()


class Pipe(io.RawIOBase):
    """A file that cannot seek, so that zipfile writes data descriptors."""

    def __init__(self) -> None:
        self.written = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self.written += data
        return len(data)


def test_sizes_behind_the_data_are_taken_from_the_directory(tmp_path: Path) -> None:
    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:  # type: ignore[call-overload]
        archive.writestr("0.glb", b"glTF" * 100)
    path = tmp_path / "a.zip"
    path.write_bytes(pipe.written)
    assert read(path, "0.glb") == b"glTF" * 100


def test_gbk_names_without_a_flag_are_read(tmp_path: Path) -> None:
    raw = foreign(tmp_path / "a.zip", {"AAAA.glb": b"x"}).read_bytes()
    path = tmp_path / "b.zip"
    path.write_bytes(raw.replace(b"AAAA", "光谷".encode("gbk")))
    assert read(path, "光谷.glb") == b"x"
    path.write_bytes(raw.replace(b"AAAA", b"\xff\xff\xff\xff"))
    with pytest.raises(StoreError, match="neither UTF-8 nor GB 18030"):
        ThreeTzReader(path)


def indexed(path: Path, entries: list[tuple[bytes, bytes, int, bytes]], key: str) -> Path:
    """An archive by another writer: (name, body, method, content) and an index for one key."""
    out, central = bytearray(), b""
    for name, body, method, decoded in entries:
        entry = zip_records.Entry(
            name, 0, method, zlib.crc32(decoded), len(body), len(decoded), len(out)
        )
        central += zip_records.pack_central(entry)
        out += zip_records.pack_local(entry) + body
    index = hashlib.md5(key.encode()).digest() + bytes(8)
    entry = zip_records.Entry(
        INDEX_NAME.encode(), 0, 0, zlib.crc32(index), len(index), len(index), len(out)
    )
    out += zip_records.pack_local(entry) + index
    central += zip_records.pack_central(entry)
    directory = zip_records.Directory(len(out), len(central), len(entries) + 1)
    path.write_bytes(bytes(out) + central + zip_records.pack_end(directory))
    return path


def zstd(data: bytes) -> bytes:
    return bytes(pa.Codec("zstd").compress(data, asbytes=True))


def test_zstandard_entries_are_read(tmp_path: Path) -> None:
    data = b"glTF" * 1000
    path = indexed(tmp_path / "a.3tz", [(b"a.glb", zstd(data), 93, data)], "a.glb")
    assert read(path, "a.glb") == data
    broken = indexed(tmp_path / "b.3tz", [(b"a.glb", zstd(data)[:-4], 93, data)], "a.glb")
    with pytest.raises(StoreError, match="damaged"):
        read(broken, "a.glb")


@pytest.mark.parametrize("name", [b"/a/b.glb", b"a\\b.glb", b"\\a\\b.glb"])
def test_foreign_spellings_of_a_name_are_normalised_as_the_format_says(
    tmp_path: Path, name: bytes
) -> None:
    path = indexed(tmp_path / "a.3tz", [(name, b"x", 0, b"x")], "a/b.glb")
    assert read(path, "a/b.glb") == b"x"
    reader = ThreeTzReader(path)
    assert list(reader.keys()) == ["a/b.glb"]
    reader.close()


def test_an_index_for_other_names_finds_nothing(tmp_path: Path) -> None:
    path = indexed(tmp_path / "a.3tz", [(b"real.glb", b"x", 0, b"x")], "fake.glb")
    assert read(path, "fake.glb") is None


def test_an_unsorted_index_is_sorted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.3tz", TILES)
    raw = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        index = archive.read(INDEX_NAME)
    shuffled = np.frombuffer(index, dtype="V24")[::-1].tobytes()
    assert shuffled != index
    crc = struct.pack("<I", zlib.crc32(index))
    raw = raw.replace(index, shuffled).replace(crc, struct.pack("<I", zlib.crc32(shuffled)))
    path.write_bytes(raw)
    assert {key: read(path, key) for key in TILES} == TILES


# Hostile and damaged archives


@pytest.mark.parametrize("name", ["../x.glb", "/etc/passwd", "a/../../x", "..\\x", "a//b"])
def test_names_that_leave_the_archive_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreError, match="hostile"):
        ThreeTzReader(foreign(tmp_path / "a.zip", {name: b"x"}))
    if not name.startswith("/"):
        path = indexed(tmp_path / "a.3tz", [(name.encode(), b"x", 0, b"x")], "a")
        reader = ThreeTzReader(path)
        with pytest.raises(StoreError, match="hostile"):
            list(reader.keys())
        reader.close()


def test_an_entry_twice_is_refused(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate"):
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.writestr("a.glb", b"1")
            archive.writestr("a.glb", b"2")
    with pytest.raises(StoreError, match="occurs twice"):
        ThreeTzReader(tmp_path / "a.zip")


def test_other_methods_and_encryption_are_refused(tmp_path: Path) -> None:
    path = foreign(tmp_path / "a.zip", {"a.glb": b"x" * 100}, zipfile.ZIP_LZMA)
    with pytest.raises(StoreError, match="method 14; use deflate"):
        read(path, "a.glb")
    raw = bytearray(foreign(tmp_path / "b.zip", {"a.glb": b"x"}, zipfile.ZIP_STORED).read_bytes())
    raw[raw.index(b"PK\1\2") + 8] |= 1
    (tmp_path / "b.zip").write_bytes(raw)
    with pytest.raises(StoreError, match="encrypted"):
        read(tmp_path / "b.zip", "a.glb")


def test_a_bomb_is_never_inflated(tmp_path: Path) -> None:
    zeros = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = b"".join(zeros.compress(bytes(1 << 20)) for _ in range(64)) + zeros.flush()
    # It claims to be small; the truth is 64 MiB.
    path = indexed(tmp_path / "a.3tz", [(b"a.glb", body, 8, b"small")], "a.glb")
    reader = ThreeTzReader(path)
    tile = reader.get("a.glb")
    reader.close()
    assert tile is not None and len(tile.data) == len(body) + 18
    with pytest.raises(StoreError, match="refused as a bomb"):
        decode(tile.data, tile.encoding, "a.glb", limit=1 << 20)
    with pytest.raises(StoreError, match="damaged"):
        content(tile)
    claims = zip_records.Entry(b"a.glb", 0, 93, 0, 10, 1 << 31, 0)
    with pytest.raises(StoreError, match="refused as a bomb"):
        ThreeTzReader(path)._tile("a.glb", claims, bytes(10))


@pytest.mark.parametrize("claimed", [2_000, 1 << 31])
def test_an_entry_that_claims_more_than_the_archive_holds_is_told(
    tmp_path: Path, claimed: int
) -> None:
    path = indexed(tmp_path / "a.3tz", [(b"a.glb", b"body", 8, b"content")], "a.glb")
    raw = bytearray(path.read_bytes())
    struct.pack_into("<I", raw, 18, claimed)  # the compressed size in the local header
    path.write_bytes(raw)
    with pytest.raises(StoreError, match="a.glb is truncated"):
        read(path, "a.glb")


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.3tz"
    for data in (b"", b"PK", b"glTF" * 100, os.urandom(100_000), b"PK\5\6" * 50):
        path.write_bytes(data)
        with pytest.raises(StoreError, match="a.3tz"):
            ThreeTzReader(path)
    with pytest.raises(StoreError, match="cannot be opened"):
        ThreeTzReader(tmp_path / "none.3tz")


def survives(path: Path, tiles: dict[str, bytes]) -> None:
    """Whatever the bytes are: the right content, nothing, or a StoreError."""
    try:
        reader = ThreeTzReader(path)
    except StoreError:
        return
    try:
        for key, data in tiles.items():
            try:
                tile = reader.get(key)
                assert tile is None or content(tile) == data
            except StoreError:
                continue
        try:
            list(reader.keys())
        except StoreError:
            return
    finally:
        reader.close()


@pytest.fixture(scope="module", params=["3tz", "deflated 3tz", "zip"])
def healthy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("healthy") / "a.3tz"
    if request.param == "zip":
        foreign(path, TILES)
    else:
        write(path, TILES, "gzip" if "deflated" in request.param else None)
    return path.read_bytes()


def test_truncation_anywhere_is_noticed(tmp_path: Path, healthy: bytes) -> None:
    path = tmp_path / "cut.3tz"
    for length in range(0, len(healthy), 13):
        path.write_bytes(healthy[:length])
        with pytest.raises(StoreError):
            ThreeTzReader(path)


@settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_damage_anywhere_is_noticed(tmp_path: Path, healthy: bytes, data: st.DataObject) -> None:
    raw = bytearray(healthy)
    # Half of the damage goes to the records at the end, where it does most.
    low = data.draw(st.sampled_from([0, max(0, len(raw) - 400)]))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(low, len(raw) - 1))
        raw[at] = data.draw(st.sampled_from([0, 1, 0x7F, 0xFF, raw[at] ^ 1, raw[at] ^ 0x80]))
    path = tmp_path / "damaged.3tz"
    path.write_bytes(raw)
    survives(path, TILES)


# The gzip member


@given(st.binary(max_size=2000), st.integers(0, 9))
def test_a_member_taken_apart_and_joined_decodes_to_the_same(data: bytes, level: int) -> None:
    member = split(gzip.compress(data, level), "x")
    assert member.size == len(data) and member.crc32 == zlib.crc32(data)
    assert gzip.decompress(join(member)) == data
    assert decode(join(member), "gzip", "x") == data


def test_headers_with_a_name_an_extra_field_and_a_comment_are_skipped() -> None:
    plain = pack(b"content")
    head = plain[:3] + bytes([2 | 4 | 8 | 16]) + plain[4:10]
    odd = head + b"\x03\x00abc" + "名.glb\0".encode() + b"comment\0" + b"hh" + plain[10:]
    assert split(odd, "x") == split(plain, "x")
    for broken in (odd[:14], head + b"\xff\xff" + bytes(20), b"PK" + plain[2:], plain[:17]):
        with pytest.raises(StoreError):
            split(broken, "x")


def test_content_of_exactly_the_limit_is_taken() -> None:
    assert decode(pack(bytes(1000)), "gzip", "x", limit=1000) == bytes(1000)
    with pytest.raises(StoreError, match="bomb"):
        decode(pack(bytes(1001)), "gzip", "x", limit=1000)
    assert content(StoredTile(b"raw", "", None, "")) == b"raw"
