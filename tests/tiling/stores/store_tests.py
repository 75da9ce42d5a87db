"""What every store promises: subclass `StoreTests`, and make a machine of it for hypothesis.

class TestMyStore(StoreTests):
    format = "mine"
    writer = MyWriter

TestMyStoreMachine = machine(TestMyStore)
"""

from __future__ import annotations

import gzip
import multiprocessing
import os
import resource
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tiling.errors import StoreError
from tiling.stores import TileStore, open_store
from tiling.stores.base import Encoding, GetTile, ListTiles, PutTile, StoredTile, media_type
from tiling.stores.gzip_member import content

HOSTILE_KEYS = [
    "",
    "/etc/passwd",
    "../x.glb",
    "a/../../x.glb",
    "./a.glb",
    "a//b.glb",
    "a/",
    "a\\b.glb",
    "..\\x.glb",
    "a\0.glb",
    "a\n.glb",
    "\ud800.glb",
    "x" * 300 + ".glb",
]

Puts = list[tuple[str, bytes, Encoding]]


def pack(data: bytes) -> bytes:
    return gzip.compress(data, 6, mtime=0)


class StoreTests:
    """The laws. Subclasses say how the store is made and what its keys look like."""

    format: ClassVar[str]
    writer: ClassVar[Callable[[Path], PutTile]]
    never_overwrites: ClassVar[bool] = True
    keys: ClassVar[st.SearchStrategy[str]] = st.builds(
        "{}/{}/{}/{}.{}".format,
        st.sampled_from(["content", "内容", "a b", "emoji🏙️"]),
        st.integers(0, 3),
        st.integers(0, 3),
        st.integers(0, 3),
        st.sampled_from(["glb", "terrain", "json", "subtree", "bin"]),
    )
    contents: ClassVar[st.SearchStrategy[bytes]] = st.binary(max_size=200).filter(
        lambda data: data[:2] != b"\x1f\x8b"
    )
    encodings: ClassVar[st.SearchStrategy[Encoding]] = st.sampled_from([None, "gzip"])

    def sample(self) -> Puts:
        """Some tiles in the order in which they are put; at least three."""
        return [
            ("tileset.json", pack('{"名称": "光谷"}'.encode()), "gzip"),
            ("content/0/0/0.glb", b"glTF" + bytes(range(256)) * 40, None),
            ("content/内容/1.glb", pack(b"glTF" * 5000), "gzip"),
            ("0/0/0.terrain", pack(os.urandom(3000)), "gzip"),
            ("empty.bin", b"", None),
            ("empty2.bin", pack(b""), "gzip"),
        ]

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "城市" / f"store.{self.format}"

    def fill(self, path: Path, puts: Puts) -> Any:
        writer = type(self).writer(path)
        for key, data, encoding in puts:
            writer.put(key, data, encoding)
        return writer.commit()

    def open(self, path: Path) -> TileStore:
        return open_store(path, self.format)

    def test_what_is_put_is_got(self, path: Path) -> None:
        puts = self.sample()
        self.fill(path, puts)
        reader = self.open(path)
        for key, data, encoding in puts:
            tile = reader.get(key)
            assert tile is not None
            assert content(tile) == content(StoredTile(data, "", encoding, ""))
            assert tile.media_type == media_type(key)
        reader.close()

    def test_keys_lists_every_key_once(self, path: Path) -> None:
        puts = self.sample()
        self.fill(path, puts)
        reader = self.open(path)
        assert sorted(reader.keys()) == sorted(key for key, _, _ in puts)
        assert isinstance(reader, GetTile) and isinstance(reader, ListTiles)
        reader.close()

    def test_what_is_missing_is_none(self, path: Path) -> None:
        puts = self.sample()
        self.fill(path, puts)
        reader = self.open(path)
        for key, _, _ in puts:
            for near in (key + "x", key[1:], key.upper(), f"/{key}", f"x/../{key}", f"./{key}"):
                assert near == key or reader.get(near) is None
        for key in HOSTILE_KEYS:
            assert reader.get(key) is None
        reader.close()

    def test_hostile_keys_are_refused(self, path: Path) -> None:
        writer = type(self).writer(path)
        for key in HOSTILE_KEYS:
            with pytest.raises(StoreError):
                writer.put(key, b"x", None)
        writer.abort()
        assert not path.exists()

    def test_nothing_is_visible_before_the_commit(self, path: Path) -> None:
        writer = type(self).writer(path)
        for key, data, encoding in self.sample():
            writer.put(key, data, encoding)
            assert not path.exists()
        info = writer.commit()
        assert path.exists()
        assert (info.path, info.format, info.tiles) == (path, self.format, len(self.sample()))
        assert [p.name for p in path.parent.iterdir()] == [path.name]

    def test_an_abort_leaves_nothing(self, path: Path) -> None:
        writer = type(self).writer(path)
        key, data, encoding = self.sample()[0]
        writer.put(key, data, encoding)
        writer.abort()
        writer.abort()
        assert list(path.parent.iterdir()) == []
        assert self.fill(path, self.sample()).tiles == len(self.sample())

    def test_an_abort_after_the_commit_does_nothing(self, path: Path) -> None:
        writer = type(self).writer(path)
        key, data, encoding = self.sample()[0]
        writer.put(key, data, encoding)
        writer.commit()
        writer.abort()
        reader = self.open(path)
        assert reader.get(key) is not None
        reader.close()

    def test_a_key_is_put_once(self, path: Path) -> None:
        writer = type(self).writer(path)
        key, data, encoding = self.sample()[0]
        writer.put(key, data, encoding)
        with pytest.raises(StoreError, match="twice"):
            writer.put(key, data, encoding)
        assert writer.commit().tiles == 1

    def test_a_committed_writer_takes_nothing_more(self, path: Path) -> None:
        writer = type(self).writer(path)
        puts = self.sample()
        writer.put(*puts[0])
        writer.commit()
        with pytest.raises(StoreError):
            writer.put(*puts[1])
        with pytest.raises(StoreError):
            writer.commit()

    def test_the_same_tiles_give_the_same_bytes(self, path: Path) -> None:
        puts = self.sample()
        first = self.fill(path, puts)
        second = self.fill(path.with_name("again." + self.format), puts)
        assert (first.sha256, first.nbytes) == (second.sha256, second.nbytes)
        if path.is_file():
            assert path.read_bytes() == second.path.read_bytes()
            assert first.nbytes == path.stat().st_size

    def test_what_a_killed_run_left_is_dropped(self, path: Path) -> None:
        puts = self.sample()
        process = _spawn(_put_and_die, type(self).writer, path, puts)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert not path.exists()
        self.fill(path, puts[1:])
        reader = self.open(path)
        assert sorted(reader.keys()) == sorted(key for key, _, _ in puts[1:])
        reader.close()
        assert [p.name for p in path.parent.iterdir()] == [path.name]

    def test_the_same_store_can_be_committed_again_and_no_other_over_it(self, path: Path) -> None:
        puts = self.sample()
        first = self.fill(path, puts)
        assert self.fill(path, puts) == first
        if self.never_overwrites:
            with pytest.raises(StoreError, match="other content"):
                self.fill(path, puts[1:])
            reader = self.open(path)
            assert reader.get(puts[0][0]) is not None
            reader.close()

    def test_the_etag_follows_the_content(self, path: Path) -> None:
        (key, data, encoding), (_, other, other_encoding) = self.sample()[1:3]
        if encoding != other_encoding:
            other = pack(other) if encoding == "gzip" else content(
                StoredTile(other, "", other_encoding, "")
            )  # fmt: skip
        etags = []
        for n, body in enumerate((data, data, other)):
            store = path.with_name(f"{n}.{self.format}")
            self.fill(store, [(key, body, encoding)])
            reader = self.open(store)
            tile = reader.get(key)
            assert tile is not None
            etags.append(tile.etag)
            reader.close()
        assert etags[0] == etags[1] != etags[2]
        assert all('"' not in etag for etag in etags)

    def test_threads_share_a_reader(self, path: Path) -> None:
        puts = self.sample()
        self.fill(path, puts)
        reader = self.open(path)
        expected = {key: reader.get(key) for key, _, _ in puts}
        wrong: list[str] = []

        def read() -> None:
            for _ in range(100):
                wrong.extend(key for key in expected if reader.get(key) != expected[key])

        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        reader.close()
        assert wrong == []

    def test_a_reader_closed_under_its_readers_fails_clearly(self, path: Path) -> None:
        puts = self.sample()
        self.fill(path, puts)
        reader = self.open(path)
        odd: list[object] = []

        def read() -> None:
            try:
                while True:
                    if reader.get(puts[0][0]) is None:
                        odd.append(None)
            except StoreError:
                return
            except BaseException as error:
                odd.append(error)

        thread = threading.Thread(target=read)
        thread.start()
        reader.close()
        thread.join()
        assert odd == []
        with pytest.raises(StoreError, match="closed"):
            reader.get(puts[0][0])
        reader.close()

    def test_a_full_disk_is_told_and_leaves_nothing_visible(self, path: Path) -> None:
        puts = [(key, os.urandom(100_000), None) for key, _, _ in self.sample()]
        if all(encoding == "gzip" for _, _, encoding in self.sample()):
            puts = [(key, pack(data), "gzip") for key, data, _ in puts]  # type: ignore[misc]
        process = _spawn(_fill_the_disk, type(self).writer, path, puts)
        process.join()
        assert process.exitcode == 0
        assert not path.exists()

    def test_a_body_that_is_not_coded_as_it_says_is_refused(self, path: Path) -> None:
        key, data, encoding = self.sample()[0]
        plain = content(StoredTile(data, "", encoding, ""))
        writer = type(self).writer(path)
        with pytest.raises(StoreError, match=key):
            writer.put(key, plain, "gzip")
        with pytest.raises(StoreError, match="encoding 'gzip'"):
            writer.put(key, pack(plain), None)
        writer.abort()

    def test_a_missing_store_is_told(self, path: Path) -> None:
        with pytest.raises(StoreError, match=path.name):
            self.open(path)


def _spawn(target: Callable[..., None], *args: object) -> Any:
    process = multiprocessing.get_context("spawn").Process(target=target, args=args)
    process.start()
    return process


def _put_and_die(writer: Callable[[Path], PutTile], path: Path, puts: Puts) -> None:
    staged = writer(path)
    for put in puts:
        staged.put(*put)
    os.kill(os.getpid(), signal.SIGKILL)


def _fill_the_disk(writer: Callable[[Path], PutTile], path: Path, puts: Puts) -> None:
    # A limit on the size of files stands for the end of the disk; Python ignores its signal.
    limit = 150_000 if len(puts[0][1]) > 50_000 else 50_000
    staged = writer(path)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    with pytest.raises(StoreError, match=path.name):
        for key, data, encoding in puts:
            staged.put(key, data * 2 if encoding is None else data, encoding)
        staged.commit()
    staged.abort()


def machine(tests: type[StoreTests]) -> Any:
    """Return a hypothesis state machine: any sequence of calls, against a dict as the model."""

    class Machine(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.folder = Path(tempfile.mkdtemp())
            self.count = 0
            self.start()

        @initialize()
        def start(self) -> None:
            if self.count:
                self.store.abort()
            self.count += 1
            self.path = self.folder / f"{self.count}.{tests.format}"
            self.store = tests.writer(self.path)
            self.model: dict[str, bytes] = {}

        @rule(key=tests.keys, data=tests.contents, encoding=tests.encodings)
        def put(self, key: str, data: bytes, encoding: Encoding) -> None:
            body = pack(data) if encoding == "gzip" else data
            if key in self.model:
                with pytest.raises(StoreError, match="twice"):
                    self.store.put(key, body, encoding)
            else:
                self.store.put(key, body, encoding)
                self.model[key] = data

        @rule()
        def abort(self) -> None:
            self.store.abort()
            assert not self.path.exists()
            self.start()

        @precondition(lambda self: self.model)
        @rule()
        def commit(self) -> None:
            info = self.store.commit()
            assert info.tiles == len(self.model)
            reader = open_store(self.path, tests.format)
            assert sorted(reader.keys()) == sorted(self.model)
            for key, data in self.model.items():
                tile = reader.get(key)
                assert tile is not None
                assert content(tile) == data
            reader.close()
            self.start()

        @invariant()
        def nothing_is_visible(self) -> None:
            assert not self.path.exists()

        def teardown(self) -> None:
            self.store.abort()
            shutil.rmtree(self.folder)

    Machine.__name__ = f"{tests.__name__}Machine"
    case = Machine.TestCase
    case.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
    return case
