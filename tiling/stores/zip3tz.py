"""3TZ: a whole tileset in one ZIP with an index (3D Tiles Archive Format 1.3).

The last entry, ``@3dtilesIndex1@``, holds (MD5 of the key, offset of its local header) records of
24 bytes, sorted by the MD5 read as two little-endian 64-bit numbers. A tile costs one binary search
in memory and one read. Deflated entries leave as gzip bodies without recompression
(`tiling.stores.gzip_member`). The same tiles in the same order give the same bytes.

Terrain uses the same archive with ``layer.json`` in place of ``tileset.json``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import zlib
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiling.errors import StoreError
from tiling.stores import gzip_member, staging
from tiling.stores.base import Encoding, StoredTile, StoreInfo, media_type
from tiling.stores.gzip_member import MAX_CONTENT_NBYTES, GzipMember
from tiling.stores.keys import check_key
from tiling.stores.zip_records import (
    DEFLATED,
    DESCRIPTOR,
    ENCRYPTED,
    LOCAL_NBYTES,
    MAX32,
    STORED,
    UTF8,
    ZSTD,
    Directory,
    Entry,
    find_directory,
    last_entry,
    pack_central,
    pack_end,
    pack_local,
    parse_local,
    read_directory,
)

INDEX_NAME = "@3dtilesIndex1@"
METADATA_KEY = "metadata.json"
_INDEX_RECORD = np.dtype([("high", "<u8"), ("low", "<u8"), ("offset", "<u8")])
_FIRST_READ_NBYTES = 1 << 20


class ThreeTzWriter:
    """Writes one archive from front to back; see `PutTile`.

    Args:
        path: where the archive shall rest; it is written to ``<path>.part`` beside it, and what an
            interrupted run left there is overwritten.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._part = staging.staged(self.path)
        self._sha256 = hashlib.sha256()
        self._offset = 0
        self._digests = bytearray()
        self._seen: set[bytes] = set()
        self._offsets = array("Q")
        with staging.told(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._part.open("wb", buffering=1 << 20)
            # The directory comes last in the file; a million records need not wait in memory.
            self._central = tempfile.SpooledTemporaryFile(8 << 20, dir=str(self.path.parent))
        self._open = True

    def put(self, key: str, data: bytes, encoding: Encoding = None) -> None:
        """Add a tile; one gzip member is stored as the deflate stream it holds.

        The CRC and size are taken from the member's trailer, not computed again.

        Raises:
            StoreError: the key is hostile or was put before, the data is not what `encoding` says,
                the disk is full, or the writer is closed.
        """
        self._check_open()
        check_key(key, self.path)
        if ".3tz" in key or key == INDEX_NAME:
            raise StoreError(f"{self.path}: 3TZ does not allow the name {key!r}")
        name = key.encode()
        digest = _digest(name)
        if digest in self._seen:
            raise StoreError(f"{self.path}: {key} was put twice")
        if encoding == "gzip":
            body, crc32, size = gzip_member.split(data, f"{self.path}: {key}")
            entry = Entry(name, UTF8, DEFLATED, crc32, len(body), size, self._offset)
        else:
            gzip_member.check_plain(key, data, f"{self.path}: {key}")
            body = data
            crc32 = zlib.crc32(data)
            entry = Entry(name, UTF8, STORED, crc32, len(data), len(data), self._offset)
        if entry.packed >= MAX32 or entry.size >= MAX32:
            raise StoreError(f"{self.path}: {key} is larger than the 4 GiB that 3TZ allows")
        self._seen.add(digest)
        self._digests += digest
        self._offsets.append(self._offset)
        self._write_entry(entry, body)

    def commit(self, metadata: Mapping[str, Any] | None = None) -> StoreInfo:
        """Write index and directory, flush to disk and rename into place.

        Args:
            metadata: JSON that is kept as the entry ``metadata.json``.

        Raises:
            StoreError: the disk is full, or another store rests at the path already.
        """
        self._check_open()
        if metadata:
            self.put(METADATA_KEY, metadata_json(metadata))
        tiles = len(self._offsets)
        index = self._index()
        self._write_entry(
            Entry(
                INDEX_NAME.encode(), 0, STORED, zlib.crc32(index), len(index), len(index),
                self._offset,
            ),
            index,
        )  # fmt: skip
        with staging.told(self.path):
            directory = Directory(self._offset, self._central.tell(), tiles + 1)
            self._central.seek(0)
            while piece := self._central.read(1 << 20):
                self._write(piece)
            self._write(pack_end(directory))
            self._file.flush()
            os.fsync(self._file.fileno())
            self._close()
            sha256 = self._sha256.hexdigest()
            if not staging.place(self._part, self.path, sha256, staging.file_sha256):
                self._part.unlink()
        return StoreInfo(self.path, "3tz", sha256, self._offset, tiles)

    def abort(self) -> None:
        """Drop what was written; calling it after `commit` does nothing."""
        if self._open:
            # On a full disk the rest of the buffer cannot be flushed; it is dropped anyway.
            with contextlib.suppress(OSError):
                self._close()
            self._file.close()
            self._part.unlink(missing_ok=True)

    def _index(self) -> bytes:
        index = np.empty(len(self._offsets), dtype=_INDEX_RECORD)
        digests = np.frombuffer(bytes(self._digests), dtype="<u8").reshape(-1, 2)
        index["high"], index["low"] = digests[:, 0], digests[:, 1]
        index["offset"] = np.frombuffer(self._offsets, dtype=np.uint64)
        data: bytes = index[np.lexsort((index["low"], index["high"]))].tobytes()
        return data

    def _write_entry(self, entry: Entry, body: bytes) -> None:
        with staging.told(self.path):
            self._write(pack_local(entry))
            self._write(body)
            self._central.write(pack_central(entry))

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._sha256.update(data)
        self._offset += len(data)

    def _check_open(self) -> None:
        if not self._open:
            raise StoreError(f"{self.path}: the writer is closed")

    def _close(self) -> None:
        self._open = False
        self._central.close()
        self._file.close()


class ThreeTzReader:
    """Reads an archive, ours or foreign; safe to share between threads.

    An archive without the index, or a plain ZIP, is read through its central directory. Entries may
    be stored, deflated or Zstandard; nothing but Zstandard is ever decompressed here.

    Args:
        path: the archive.

    Raises:
        StoreError: no archive, truncated, damaged, or with names that leave it.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        try:
            self._descriptor: _Descriptor | None = _Descriptor(self.path)
        except OSError as error:
            raise StoreError(f"{self.path}: cannot be opened: {error.strerror}") from error
        fd = self._descriptor.fd
        self._size = os.fstat(fd).st_size
        self._directory = find_directory(fd, self._size, self.path)
        self._entries: dict[str, Entry] = {}
        self._high = self._low = self._offset = self._extent = np.empty(0, dtype=np.uint64)
        index = last_entry(fd, self._directory, INDEX_NAME.encode(), self.path)
        self._indexed = index is not None
        if index is None:
            self._read_entries(fd)
        else:
            self._read_index(fd, index)

    def _read_index(self, fd: int, entry: Entry) -> None:
        raw = self._body(fd, entry)
        if entry.method != STORED or len(raw) % _INDEX_RECORD.itemsize:
            raise StoreError(f"{self.path}: its index is no table of 24-byte records")
        if zlib.crc32(raw) != entry.crc32:
            raise StoreError(f"{self.path}: its index is damaged (CRC)")
        index = np.frombuffer(raw, dtype=_INDEX_RECORD)
        order = np.lexsort((index["low"], index["high"]))
        self._high, self._low, self._offset = (
            np.ascontiguousarray(index[name][order]) for name in ("high", "low", "offset")
        )
        if len(index) and int(self._offset.max()) >= self._directory.offset:
            raise StoreError(f"{self.path}: its index points outside of the archive")
        self._extent = _extents(self._offset, self._directory.offset)

    def _read_entries(self, fd: int) -> None:
        for entry in read_directory(fd, self._directory, self.path):
            key = self._key(entry)
            if key is None:
                continue
            if key in self._entries:
                raise StoreError(f"{self.path}: {key} occurs twice")
            self._entries[key] = entry

    def get(self, key: str) -> StoredTile | None:
        """Return the tile under `key`, or None.

        Raises:
            StoreError: the archive is damaged there, or the reader is closed.
        """
        descriptor = self._opened()
        if not self._indexed:
            entry = self._entries.get(key)
            if entry is None:
                return None
            return self._tile(key, entry, self._body(descriptor.fd, entry))
        try:
            name = key.encode()
        except UnicodeEncodeError:
            return None
        digest = _digest(name)
        high = np.uint64(int.from_bytes(digest[:8], "little"))
        low = np.uint64(int.from_bytes(digest[8:], "little"))
        i = int(np.searchsorted(self._high, high))
        while i < len(self._high) and self._high[i] == high:
            if self._low[i] == low:
                found = self._read_local(descriptor.fd, key, name, i)
                if found is not None:
                    return found
            i += 1
        return None

    def keys(self) -> Iterator[str]:
        """Yield every key once, in the order of the archive.

        Raises:
            StoreError: a name that leaves the archive, or a damaged directory.
        """
        descriptor = self._opened()
        for entry in read_directory(descriptor.fd, self._directory, self.path):
            key = self._key(entry)
            if key is not None:
                yield key

    def close(self) -> None:
        """Release the file; requests that are under way still finish."""
        self._descriptor = None

    def _opened(self) -> _Descriptor:
        descriptor = self._descriptor
        if descriptor is None:
            raise StoreError(f"{self.path}: the reader is closed")
        return descriptor

    def _key(self, entry: Entry) -> str | None:
        """Return the key of an entry, None for folders and the index."""
        name = _normal(entry.name)
        if name.endswith(b"/") or name == INDEX_NAME.encode():
            return None
        key = _text(name, self.path)
        if entry.name.startswith((b"/", b"\\")) and not self._indexed:
            raise StoreError(f"{self.path}: hostile archive: {key!r} is an absolute path")
        return check_key(key, f"{self.path}: hostile archive")

    def _read_local(self, fd: int, key: str, name: bytes, i: int) -> StoredTile | None:
        # One read fetches header and data: entries lie back to back, so the next offset says how
        # much belongs to this one. An index that lies about it only costs a second read.
        offset, extent = int(self._offset[i]), int(self._extent[i])
        block = os.pread(fd, min(extent, _FIRST_READ_NBYTES), offset)
        entry = parse_local(block, f"{self.path}: {key}")
        if _normal(entry.name) != name:
            return None  # an MD5 collision, or an index made for other names
        if entry.flags & DESCRIPTOR and not entry.packed and entry.crc32 == 0 and entry.size == 0:
            raise StoreError(
                f"{self.path}: {key} keeps its size behind its data, which 3TZ forbids; "
                "pack the archive again"
            )
        end = entry.body + entry.packed
        if offset + end > self._directory.offset:
            raise StoreError(f"{self.path}: {key} is truncated")
        if end > len(block):
            block += os.pread(fd, end - len(block), offset + len(block))
        return self._tile(key, entry, block[entry.body : end])

    def _body(self, fd: int, entry: Entry) -> bytes:
        what = f"{self.path}: {entry.name!r}"
        head = parse_local(os.pread(fd, LOCAL_NBYTES, entry.offset), what)
        start = entry.offset + head.body
        if start + entry.packed > self._directory.offset:
            raise StoreError(f"{what} is truncated")
        return os.pread(fd, entry.packed, start)

    def _tile(self, key: str, entry: Entry, body: bytes) -> StoredTile:
        what = f"{self.path}: {key}"
        if entry.flags & ENCRYPTED:
            raise StoreError(f"{what} is encrypted; pack the archive again without a password")
        if len(body) != entry.packed:
            raise StoreError(f"{what} is truncated")
        etag = f"{entry.crc32:08x}-{entry.size:x}-{entry.packed:x}"
        if entry.method == DEFLATED:
            member = GzipMember(body, entry.crc32, entry.size & MAX32)
            return StoredTile(gzip_member.join(member), media_type(key), "gzip", etag)
        if entry.method == ZSTD:
            body = _unzstd(body, entry.size, what)
        elif entry.method != STORED:
            raise StoreError(f"{what} is compressed by method {entry.method}; use deflate")
        if len(body) != entry.size or zlib.crc32(body) != entry.crc32:
            raise StoreError(f"{what} is damaged (size or CRC)")
        return StoredTile(body, media_type(key), None, etag)


class _Descriptor:
    """An open file that is closed when the last request that uses it lets go.

    Closing it at once could hand the number to another file while a thread still reads from it.
    """

    def __init__(self, path: Path) -> None:
        self.fd = -1
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)


def metadata_json(metadata: Mapping[str, Any]) -> bytes:
    """Return metadata as the bytes that stores keep under ``metadata.json``."""
    return json.dumps(dict(metadata), ensure_ascii=False, sort_keys=True).encode()


def _digest(name: bytes) -> bytes:
    return hashlib.md5(name, usedforsecurity=False).digest()


def _normal(name: bytes) -> bytes:
    return name.replace(b"\\", b"/").lstrip(b"/")


def _text(name: bytes, path: Path) -> str:
    # Windows tools in China write GBK names without saying so; UTF-8 is never valid by chance.
    for encoding in ("utf-8", "gb18030"):
        try:
            return name.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise StoreError(f"{path}: the name {name[:200]!r} is neither UTF-8 nor GB 18030")


def _extents(offsets: NDArray[np.uint64], end: int) -> NDArray[np.uint64]:
    """Return how far it is from each offset to the next larger one, or to the end."""
    if not len(offsets):
        return offsets
    ascending = np.append(np.unique(offsets), np.uint64(end))
    after: NDArray[np.uint64] = ascending[np.searchsorted(ascending, offsets, side="right")]
    return after - offsets


def _unzstd(body: bytes, size: int, what: str) -> bytes:
    import pyarrow as pa  # archives of our own hold no Zstandard

    if size > MAX_CONTENT_NBYTES:
        raise StoreError(f"{what} claims {size} bytes; refused as a bomb")
    try:
        content: bytes = pa.Codec("zstd").decompress(body, decompressed_size=size, asbytes=True)
    except (pa.ArrowInvalid, OSError) as error:
        raise StoreError(f"{what}: the Zstandard stream is damaged: {error}") from error
    return content
