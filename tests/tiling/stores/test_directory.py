"""Folders keep the laws of stores, hold decoded files, and do not let anybody out."""

import gzip
import hashlib
import os
import socket
from pathlib import Path

import pytest

from tests.tiling.stores.store_tests import StoreTests, machine, pack
from tiling.errors import StoreError
from tiling.stores import open_store
from tiling.stores.directory import DirectoryReader, DirectoryWriter, directory_sha256


class TestDirectory(StoreTests):
    format = "directory"
    writer = DirectoryWriter


TestDirectoryMachine = machine(TestDirectory)


def test_the_files_are_decoded_and_any_program_reads_them(tmp_path: Path) -> None:
    writer = DirectoryWriter(tmp_path / "tiles")
    writer.put("子/0.json", pack(b"{}"), "gzip")
    info = writer.commit({"名称": "光谷"})
    assert (tmp_path / "tiles" / "子" / "0.json").read_text() == "{}"
    assert (tmp_path / "tiles" / "metadata.json").read_text("utf-8") == '{"名称": "光谷"}'
    assert info.nbytes == 2 + len('{"名称": "光谷"}'.encode())
    assert info.tiles == 2


def test_the_digest_is_that_of_the_sorted_listing_whatever_the_order(tmp_path: Path) -> None:
    puts = [("b.bin", b"2"), ("a/c.bin", b"33"), ("a.bin", b"1")]
    digests = []
    for n, order in enumerate((puts, puts[::-1])):
        writer = DirectoryWriter(tmp_path / str(n))
        for key, data in order:
            writer.put(key, data)
        digests.append(writer.commit().sha256)
    lines = "".join(
        f"{hashlib.sha256(data).hexdigest()}  {len(data)}  {key}\n" for key, data in sorted(puts)
    )
    assert set(digests) == {hashlib.sha256(lines.encode()).hexdigest()}
    assert directory_sha256(tmp_path / "0") == digests[0]
    (tmp_path / "0" / "a.bin").write_bytes(b"X")
    assert directory_sha256(tmp_path / "0") != digests[0]


def test_damaged_gzip_is_refused_when_it_is_put(tmp_path: Path) -> None:
    writer = DirectoryWriter(tmp_path / "tiles")
    body = pack(b"content" * 100)
    for n, broken in enumerate((body[:-3], body[:-1] + b"X", body + b"tail", body + body, b"no")):
        with pytest.raises(StoreError, match=f"tiles: {n}.glb"):
            writer.put(f"{n}.glb", broken, "gzip")
    writer.abort()


def test_a_key_is_not_file_and_folder_at_once(tmp_path: Path) -> None:
    writer = DirectoryWriter(tmp_path / "tiles")
    writer.put("a", b"1")
    with pytest.raises(StoreError, match="tiles"):
        writer.put("a/b", b"2")
    writer.abort()


def test_links_that_leave_the_folder_do_not_exist(tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text("secret")
    root = tmp_path / "tiles"
    (root / "in").mkdir(parents=True)
    (root / "in" / "a.json").write_text("a")
    (root / "out.json").symlink_to(tmp_path / "secret.json")
    (root / "up").symlink_to(tmp_path)
    (root / "same.json").symlink_to(root / "in" / "a.json")
    (tmp_path / "tiles-beside").mkdir()
    (tmp_path / "tiles-beside" / "b.json").write_text("secret")
    (root / "beside.json").symlink_to(tmp_path / "tiles-beside" / "b.json")
    reader = DirectoryReader(root)
    for key in ("out.json", "up/secret.json", "beside.json"):
        assert reader.get(key) is None
    same = reader.get("same.json")
    assert same is not None and same.data == b"a"
    assert list(reader.keys()) == ["same.json", "in/a.json"]


def test_a_folder_is_no_tile(tmp_path: Path) -> None:
    (tmp_path / "tiles" / "content").mkdir(parents=True)
    assert DirectoryReader(tmp_path / "tiles").get("content") is None


def test_foreign_files_compressed_for_a_server_are_sent_as_gzip(tmp_path: Path) -> None:
    body = gzip.compress(b"mesh" * 100)
    for name in ("0.terrain", "0.bin", "0.glb.gz"):
        (tmp_path / name).write_bytes(body)
    reader = DirectoryReader(tmp_path)
    found = {key: reader.get(key) for key in reader.keys()}
    assert {key: tile.encoding for key, tile in found.items() if tile} == {
        "0.terrain": "gzip",
        "0.bin": None,
        "0.glb.gz": None,
    }


def test_a_file_that_cannot_be_read_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the address of a socket is shorter than many a temporary path
    with socket.socket(socket.AF_UNIX) as unreadable:
        unreadable.bind("a.glb")
    with pytest.raises(StoreError, match="a.glb: No such device"):
        DirectoryReader(tmp_path).get("a.glb")


def test_names_that_are_not_utf8_are_told(tmp_path: Path) -> None:
    with open(os.path.join(os.fsencode(tmp_path), "光谷.glb".encode("gbk")), "wb"):
        pass
    with pytest.raises(StoreError, match="is no key"):
        list(DirectoryReader(tmp_path).keys())


def test_an_unknown_format_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="format 'rar'; known: 3tz, directory, pmtiles"):
        open_store(tmp_path, "rar")
