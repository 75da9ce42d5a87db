"""Records of the ZIP format as 3TZ uses it (PKWARE APPNOTE 6.3.9, ISO/IEC 21320-1).

Packing is deterministic: the time is always the format's first, 1980-01-01, and no data
descriptors follow the entries. Zip64 records appear where the numbers need them and nowhere else.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

from tiling.errors import StoreError

STORED, DEFLATED, ZSTD = 0, 8, 93
ENCRYPTED, DESCRIPTOR, UTF8 = 1 << 0, 1 << 3, 1 << 11
MAX32, MAX16 = 0xFFFFFFFF, 0xFFFF

_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_CENTRAL = struct.Struct("<4sHHHHHHIIIHHHHHII")
_END = struct.Struct("<4sHHHHIIH")
_END64 = struct.Struct("<4sQHHIIQQQQ")
_LOCATOR64 = struct.Struct("<4sIQI")
_EXTRA = struct.Struct("<HH")
_ZIP64_TAG = 1
_DOS_TIME, _DOS_DATE = 0, 0x0021
_MADE_BY = 3 << 8 | 45  # Unix, so that the mode below is read
_MODE = 0o100644 << 16

LOCAL_NBYTES = _LOCAL.size


class Entry(NamedTuple):
    """What ZIP says about one file.

    Attributes:
        name: as it is written, bytes.
        flags, method: see APPNOTE 4.4.4 and 4.4.5.
        crc32: of the decoded content.
        packed, size: bytes in the archive and decoded.
        offset: of the local header; -1 when read from the local header itself.
        body: offset of the data after the start of the local header; -1 from the directory.
    """

    name: bytes
    flags: int
    method: int
    crc32: int
    packed: int
    size: int
    offset: int
    body: int = -1


class Directory(NamedTuple):
    """Where the central directory lies and how many entries it has."""

    offset: int
    nbytes: int
    entries: int


def pack_local(entry: Entry) -> bytes:
    """Return the local header that precedes the data."""
    needed = 20 if entry.method == DEFLATED else 10
    head = _LOCAL.pack(
        b"PK\3\4",
        needed,
        entry.flags,
        entry.method,
        _DOS_TIME,
        _DOS_DATE,
        entry.crc32,
        entry.packed,
        entry.size,
        len(entry.name),
        0,
    )
    return head + entry.name


def pack_central(entry: Entry, max32: int = MAX32) -> bytes:
    """Return the directory's record of an entry; offsets from `max32` on go to Zip64."""
    large = entry.offset >= max32
    extra = _EXTRA.pack(_ZIP64_TAG, 8) + entry.offset.to_bytes(8, "little") if large else b""
    head = _CENTRAL.pack(
        b"PK\1\2",
        _MADE_BY,
        45 if large else 20 if entry.method == DEFLATED else 10,
        entry.flags,
        entry.method,
        _DOS_TIME,
        _DOS_DATE,
        entry.crc32,
        entry.packed,
        entry.size,
        len(entry.name),
        len(extra),
        0,
        0,
        0,
        _MODE,
        MAX32 if large else entry.offset,
    )
    return head + entry.name + extra


def pack_end(directory: Directory, max32: int = MAX32) -> bytes:
    """Return the end of the archive, with the Zip64 records when they are needed."""
    offset, nbytes, entries = directory
    out = b""
    if offset >= max32 or nbytes >= max32 or entries >= MAX16:
        out += _END64.pack(b"PK\6\6", 44, 45, 45, 0, 0, entries, entries, nbytes, offset)
        out += _LOCATOR64.pack(b"PK\6\7", 0, offset + nbytes, 1)
        offset, nbytes, entries = MAX32, MAX32, MAX16
    return out + _END.pack(b"PK\5\6", 0, 0, entries, entries, nbytes, offset, 0)


def find_directory(fd: int, size: int, what: object) -> Directory:
    """Find the central directory of the archive behind a descriptor.

    Raises:
        StoreError: no ZIP, truncated, or in several parts.
    """
    tail_offset = max(0, size - _END.size - MAX16)
    tail = os.pread(fd, size - tail_offset, tail_offset)
    # The comment may hold the signature too: the true one is followed by exactly its comment.
    at = tail.rfind(b"PK\5\6")
    while at >= 0:
        if at + _END.size <= len(tail):
            record = _END.unpack_from(tail, at)
            if at + _END.size + record[7] == len(tail):
                break
        at = tail.rfind(b"PK\5\6", 0, at)
    if at < 0:
        raise StoreError(f"{what}: no ZIP archive, or truncated: it has no end record")
    found = Directory(record[6], record[5], record[4])
    end = tail_offset + at
    if MAX16 in (record[3], record[4]) or MAX32 in record[5:7]:
        found, end = _find_directory64(fd, end, what) or (found, end)
    elif record[1] or record[2] or record[3] != record[4]:
        raise StoreError(f"{what}: the archive is split over several files")
    if found.offset + found.nbytes > end:
        raise StoreError(f"{what}: the archive is damaged: its directory overlaps its end")
    return found


def _find_directory64(fd: int, end: int, what: object) -> tuple[Directory, int] | None:
    locator = os.pread(fd, _LOCATOR64.size, max(0, end - _LOCATOR64.size))
    if len(locator) < _LOCATOR64.size or locator[:4] != b"PK\6\7":
        return None  # the numbers happen to equal the limits of plain ZIP
    offset = _LOCATOR64.unpack(locator)[2]
    if offset > end:
        raise StoreError(f"{what}: the archive is damaged: its Zip64 end lies outside")
    record = os.pread(fd, _END64.size, offset)
    if len(record) < _END64.size or record[:4] != b"PK\6\6":
        raise StoreError(f"{what}: the archive is damaged: it has no Zip64 end record")
    fields = _END64.unpack(record)
    return Directory(fields[9], fields[8], fields[7]), offset


def read_directory(fd: int, directory: Directory, what: object) -> Iterator[Entry]:
    """Yield every entry of the central directory, reading a piece at a time.

    Raises:
        StoreError: the directory is damaged.
    """
    position, end = directory.offset, directory.offset + directory.nbytes
    buffer, at = b"", 0
    for _ in range(directory.entries):
        if len(buffer) - at < _CENTRAL.size + 3 * MAX16 and position < end:
            piece = os.pread(fd, min(1 << 20, end - position), position)
            buffer, at = buffer[at:] + piece, 0
            position += len(piece)
        entry, at = parse_central(buffer, at, what)
        yield entry


def last_entry(fd: int, directory: Directory, name: bytes, what: object) -> Entry | None:
    """Return the last entry of the central directory if it is called `name`."""
    nbytes = min(directory.nbytes, _CENTRAL.size + len(name) + 64)
    tail = os.pread(fd, nbytes, directory.offset + directory.nbytes - nbytes)
    at = tail.rfind(b"PK\1\2")
    if at < 0:
        return None
    try:
        entry, end = parse_central(tail, at, what)
    except StoreError:
        return None  # the signature was part of something else: this is no index entry
    return entry if entry.name == name and end == len(tail) else None


def parse_central(buffer: bytes, at: int, what: object) -> tuple[Entry, int]:
    """Return the entry whose directory record begins at `at`, and where the next one does.

    Raises:
        StoreError: there is no such record.
    """
    if len(buffer) - at < _CENTRAL.size or buffer[at : at + 4] != b"PK\1\2":
        raise StoreError(f"{what}: the archive's directory is damaged or truncated")
    fields = _CENTRAL.unpack_from(buffer, at)
    flags, method, crc32, packed, size = fields[3], fields[4], *fields[7:10]
    name_at = at + _CENTRAL.size
    extra_at = name_at + fields[10]
    end = extra_at + fields[11] + fields[12]
    if end > len(buffer):
        raise StoreError(f"{what}: the archive's directory is damaged or truncated")
    offset = fields[16]
    if MAX32 in (packed, size, offset):
        extra = buffer[extra_at : extra_at + fields[11]]
        size, packed, offset = _zip64_values(extra, size, packed, offset, what)
    return Entry(buffer[name_at:extra_at], flags, method, crc32, packed, size, offset), end


def _zip64_values(extra: bytes, size: int, packed: int, offset: int, what: object) -> list[int]:
    values = [size, packed, offset]
    at = 0
    while at + 4 <= len(extra):
        tag, length = _EXTRA.unpack_from(extra, at)
        if tag == _ZIP64_TAG:
            body = extra[at + 4 : at + 4 + length]
            for i, value in enumerate(values):
                if value == MAX32 and len(body) >= 8:
                    values[i], body = int.from_bytes(body[:8], "little"), body[8:]
            return values
        at += 4 + length
    raise StoreError(f"{what}: the archive is damaged: a Zip64 field is missing")


def parse_local(buffer: bytes, what: object) -> Entry:
    """Return the entry whose local header `buffer` begins with.

    Raises:
        StoreError: there is no local header.
    """
    if len(buffer) < _LOCAL.size or buffer[:4] != b"PK\3\4":
        raise StoreError(f"{what}: the archive is damaged: no entry where one should begin")
    _, _, flags, method, _, _, crc32, packed, size, name, extra = _LOCAL.unpack_from(buffer)
    return Entry(
        buffer[_LOCAL.size : _LOCAL.size + name],
        flags,
        method,
        crc32,
        packed,
        size,
        -1,
        _LOCAL.size + name + extra,
    )
