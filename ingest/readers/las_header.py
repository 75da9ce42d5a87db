"""The header of LAS 1.0-1.5 and what follows it, checked before any library sees the file.

LAZ libraries trust headers: some loop for minutes over a count that lies, others panic. So every
number that says where something is or how much of it there is gets compared with the size of the
file first. Layout: ASPRS LAS Specification 1.4-R15, tables 3, 7 and 12 (little-endian).
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ingest.readers.point_chunks import Bounds
from tiling.errors import SourceUnreadable

SIGNATURE = b"LASF"
# Bytes of a record of each point data record format, extra bytes not counted.
RECORD_NBYTES = (20, 28, 26, 34, 57, 63, 30, 36, 38, 59, 67)
_HEADER_NBYTES = {0: 227, 1: 227, 2: 227, 3: 235, 4: 375, 5: 375}
_VLR, _EVLR = struct.Struct("<H16sHH32s"), struct.Struct("<H16sHQ32s")
# Who defines records that are used here.
_WANTED = ("LASF_Projection", "LASF_Spec", "laszip encoded", "copc")
# Waveform packets, and the hierarchy of a COPC.
_LARGE = (65535, 1000)
_MOST_RECORDS = 50_000
_REMEDY = "copy it again from where it came; a copy that fails here too needs a new export"


@dataclass(frozen=True, slots=True)
class Vlr:
    """A variable length record: who defined it, its number there, and its content."""

    user: str
    number: int
    data: bytes


@dataclass(frozen=True, slots=True)
class LasHeader:
    """What the header says, found possible.

    Attributes:
        version: (1, 4) etc.
        wkt: whether the frame is stated as WKT.
        standard_time: whether GPS time counts from 1980 (less 1e9 s) or from the week's start.
        record_format: 0 to 10.
        record_nbytes: size of a point record, extra bytes included.
        compressed: whether this is LAZ.
        count: number of points.
        points_at: file offset of the points.
        points_end: file offset where points end at the latest.
        scales, offsets: coordinate = stored integer * scale + offset.
        bounds: (xmin, ymin, zmin, xmax, ymax, zmax); None where they mean nothing.
        vlrs: records before and after the points.
        surplus_nbytes: bytes after the points that no record accounts for; 0 for LAZ.
    """

    version: tuple[int, int]
    wkt: bool
    standard_time: bool
    record_format: int
    record_nbytes: int
    compressed: bool
    count: int
    points_at: int
    points_end: int
    scales: tuple[float, float, float]
    offsets: tuple[float, float, float]
    bounds: Bounds | None
    vlrs: tuple[Vlr, ...]
    surplus_nbytes: int

    def find(self, user: str, number: int) -> list[bytes]:
        """Return the content of every record of that kind."""
        return [v.data for v in self.vlrs if v.user == user and v.number == number]

    @property
    def label(self) -> str:
        """``LAS 1.4, format 7``; with ``LAZ`` when compressed."""
        major, minor = self.version
        packed = ", LAZ" if self.compressed else ""
        return f"LAS {major}.{minor}, format {self.record_format}{packed}"


def read_header(path: Path) -> LasHeader:
    """Read and check a file's header and records; reads no points.

    Raises:
        SourceUnreadable: the file is too short, or a number in it cannot be true.
    """
    nbytes = path.stat().st_size
    with path.open("rb") as file:
        return _Check(path, nbytes).header(file)


@dataclass(frozen=True, slots=True)
class _Check:
    path: Path
    nbytes: int

    def refuse(self, problem: str, remedy: str = _REMEDY) -> SourceUnreadable:
        return SourceUnreadable(problem, source=self.path, remedy=remedy)

    def header(self, file: BinaryIO) -> LasHeader:
        head = file.read(375)
        version = self._version(head)
        size, points_at, vlr_count, kind, record_nbytes, legacy = struct.unpack_from(
            "<HIIBHI", head, 94
        )
        least = _HEADER_NBYTES[version[1]]
        if not least <= size <= points_at <= self.nbytes:
            raise self.refuse(
                f"its header says it has {size} bytes and that points begin at {points_at}, in a "
                f"file of {self.nbytes} bytes (a LAS {version[0]}.{version[1]} header has {least})"
            )
        record_format, compressed = self._record_format(kind, record_nbytes)
        scales, offsets = self._scales(head)
        evlr_at, evlr_count, count = 0, 0, legacy
        if version[1] >= 4:
            evlr_at, evlr_count, count = struct.unpack_from("<QIQ", head, 235)
            if legacy and count != legacy:
                raise self.refuse(f"its header counts {legacy} points in one place, {count} in two")
        file.seek(size)
        vlrs = self._vlrs(file, vlr_count, size, points_at)
        end = self.nbytes
        if evlr_count:
            if not points_at <= evlr_at <= self.nbytes:
                raise self.refuse(
                    f"its header says that {evlr_count} extended records begin at byte {evlr_at} "
                    f"of {self.nbytes}"
                )
            end = evlr_at
            vlrs += self._evlrs(file, evlr_count, evlr_at)
        if version[1] >= 3:
            waves_at = struct.unpack_from("<Q", head, 227)[0]
            if points_at <= waves_at < end and waves_at:
                end = waves_at
        surplus = 0
        if not compressed:
            surplus = self._count_fits(count, record_nbytes, end - points_at)
        return LasHeader(
            version,
            bool(head[6] & 16),
            bool(head[6] & 1),
            record_format,
            record_nbytes,
            compressed,
            count,
            points_at,
            end,
            scales,
            offsets,
            _bounds(head),
            tuple(vlrs),
            surplus,
        )

    def _version(self, head: bytes) -> tuple[int, int]:
        if not head.startswith(SIGNATURE):
            raise self.refuse(f"it begins with {head[:4]!r}, LAS files with b'LASF'")
        if len(head) < 227:
            raise self.refuse(f"it ends after {self.nbytes} bytes, inside its header of 227 bytes")
        version = head[24], head[25]
        if version[0] != 1 or version[1] not in _HEADER_NBYTES:
            raise self.refuse(
                f"it is LAS {version[0]}.{version[1]}; LAS 1.0 to 1.5 are known",
                "export it as LAS 1.4",
            )
        if len(head) < _HEADER_NBYTES[version[1]]:
            raise self.refuse(f"it ends after {self.nbytes} bytes, inside its header")
        return version

    def _record_format(self, kind: int, record_nbytes: int) -> tuple[int, bool]:
        # LAZ writers set the highest bit; the second highest was used by a trial version.
        record_format, packing = kind & 0x3F, kind >> 6
        if record_format >= len(RECORD_NBYTES) or packing in (1, 3):
            raise self.refuse(
                f"point data record format {kind} is not known: 0 to 10 are, LAZ adds 128",
                "export it as LAS 1.4, format 6 to 8",
            )
        least = RECORD_NBYTES[record_format]
        if record_nbytes < least:
            raise self.refuse(
                f"its records have {record_nbytes} bytes; those of point format {record_format} "
                f"have at least {least}"
            )
        return record_format, packing == 2

    def _scales(self, head: bytes) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        numbers = struct.unpack_from("<6d", head, 131)
        sx, sy, sz, ox, oy, oz = numbers
        for axis, scale, offset in zip("xyz", numbers[:3], numbers[3:], strict=True):
            if not math.isfinite(scale) or scale == 0 or not math.isfinite(scale * 2**31 + offset):
                raise self.refuse(
                    f"coordinates along {axis} have the scale {scale} and the offset {offset}: "
                    "no coordinate can be computed"
                )
        return (sx, sy, sz), (ox, oy, oz)

    def _vlrs(self, file: BinaryIO, count: int, at: int, end: int) -> list[Vlr]:
        self._few(count)
        found = []
        for number in range(count):
            head = file.read(54) if at + 54 <= end else b""
            _, user, record, nbytes, _ = _VLR.unpack(head) if head else (0, b"", 0, 0, b"")
            if not head or at + 54 + nbytes > end:
                raise self.refuse(
                    f"its header announces {count} variable length records before byte {end}, "
                    f"where points begin; record {number + 1} would reach beyond"
                )
            if _text(user) in _WANTED:
                found.append(Vlr(_text(user), record, file.read(nbytes)))
            at += 54 + nbytes
            file.seek(at)
        return found

    def _evlrs(self, file: BinaryIO, count: int, at: int) -> list[Vlr]:
        self._few(count)
        found = []
        for number in range(count):
            file.seek(at)
            head = file.read(60)
            _, user, record, nbytes, _ = (
                _EVLR.unpack(head) if len(head) == 60 else (0, b"", 0, 0, 0)
            )
            if len(head) < 60 or at + 60 + nbytes > self.nbytes:
                raise self.refuse(
                    f"its header announces {count} extended records from byte {at}; record "
                    f"{number + 1} reaches beyond the end of the file at {self.nbytes}"
                )
            # Waveforms and the hierarchy of a COPC may be large, and nothing here needs them.
            if _text(user) in _WANTED and nbytes <= 1 << 24 and record not in _LARGE:
                found.append(Vlr(_text(user), record, file.read(nbytes)))
            at += 60 + nbytes
        return found

    def _few(self, count: int) -> None:
        if count > _MOST_RECORDS:
            raise self.refuse(f"its header announces {count} records; {_MOST_RECORDS} are believed")

    def _count_fits(self, count: int, record_nbytes: int, room: int) -> int:
        if count * record_nbytes > room:
            raise self.refuse(
                f"it is truncated or lies: its header counts {count} points of {record_nbytes} "
                f"bytes, and there is room for {room // record_nbytes}"
            )
        if not count and room >= record_nbytes:
            raise self.refuse(
                f"its header counts no points, and {room} bytes of points follow: the program "
                "that wrote it was stopped",
                "write it again, or have its header repaired (lasinfo -repair)",
            )
        return room - count * record_nbytes


def _bounds(head: bytes) -> Bounds | None:
    xmax, xmin, ymax, ymin, zmax, zmin = struct.unpack_from("<6d", head, 179)
    pairs = ((xmin, xmax), (ymin, ymax), (zmin, zmax))
    if not all(math.isfinite(low) and math.isfinite(high) and low <= high for low, high in pairs):
        return None
    return xmin, ymin, zmin, xmax, ymax, zmax


def _text(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode("ascii", "replace")
