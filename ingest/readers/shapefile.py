"""The parts of a Shapefile: all there, as long as they claim, and in which encoding.

GDAL opens a Shapefile whose parts are missing or cut short, and yields fewer features or none.
So the parts are checked here first, against the ESRI Shapefile Technical Description (1998):
headers of 100 bytes, lengths in 16-bit words, index records of 8 bytes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ingest.encoding import LDID_CODECS, EncodingDecision, decide
from tiling.errors import SourceUnreadable

MAGIC = b"\x00\x00\x27\x0a"
_HEADER_NBYTES = 100
_SAMPLE_ROWS = 2_000
_SCAN_NBYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class DbfField:
    """A column of a DBF: raw name, type letter, offset in the record and width, in bytes."""

    raw_name: bytes
    type: str
    offset: int
    width: int


@dataclass(frozen=True, slots=True)
class DbfHeader:
    """The header of a DBF (dBASE III and IV): where the records lie and how they are cut."""

    records: int
    header_nbytes: int
    record_nbytes: int
    language: int
    fields: tuple[DbfField, ...]


@dataclass(frozen=True, slots=True)
class Shapefile:
    """A Shapefile whose parts were checked."""

    shp: Path
    shx: Path
    dbf: Path
    prj: Path | None
    cpg: Path | None
    header: DbfHeader

    @property
    def files(self) -> tuple[Path, ...]:
        """Every part that is read."""
        parts = (self.shp, self.shx, self.dbf, self.prj, self.cpg)
        return tuple(p for p in parts if p is not None)

    @classmethod
    def open(cls, shp: Path) -> Shapefile:
        """Find and check the parts beside `shp`; their endings may be in any case.

        Raises:
            SourceUnreadable: a part is missing, cut short, or disagrees with another.
        """
        parts = _siblings(shp)
        for ending, holds in ((".shx", "the index"), (".dbf", "the attributes")):
            if ending not in parts:
                raise SourceUnreadable(
                    f"{shp.stem}{ending} ({holds}) is missing beside it",
                    source=shp,
                    remedy=f"copy {shp.stem}{ending} into the same folder; a Shapefile is "
                    "at least .shp + .shx + .dbf",
                )
        header = read_dbf_header(parts[".dbf"])
        found = cls(shp, parts[".shx"], parts[".dbf"], parts.get(".prj"), parts.get(".cpg"), header)
        found._check_lengths()
        return found

    def _check_lengths(self) -> None:
        for path in (self.shp, self.shx):
            head = _head(path)
            if len(head) < _HEADER_NBYTES or head[:4] != MAGIC:
                raise _damaged(path, "its header is not one of a Shapefile")
            claimed = 2 * struct.unpack_from(">i", head, 24)[0]
            if claimed < _HEADER_NBYTES or claimed > (size := path.stat().st_size):
                raise _damaged(path, f"its header claims {claimed} bytes, the file has {size}")
        shapes = len(self.content_words())
        if shapes != self.header.records:
            raise _damaged(
                self.shx, f"{shapes} shapes, but {self.header.records} rows in {self.dbf.name}"
            )

    def content_words(self) -> NDArray[np.int32]:
        """Return the length of each record in 16-bit words, from the index: (N,) int32.

        A null shape takes two words (its type code), everything else more.
        """
        raw = np.fromfile(self.shx, dtype=">i4", offset=_HEADER_NBYTES)
        return raw[: len(raw) // 2 * 2].reshape(-1, 2)[:, 1].astype(np.int32)

    def deleted_rows(self) -> int:
        """Return how many rows are marked as deleted; they are never read."""
        return sum(int((block[:, 0] == ord("*")).sum()) for block in self._record_blocks())

    def encoding(self, override: str | None) -> EncodingDecision:
        """Decide the encoding of names and values: ``.cpg``, then language byte, then bytes.

        Raises:
            EncodingUndecided: declaration and bytes contradict each other.
        """
        declared, by = None, ""
        if self.cpg is not None and (text := self.cpg.read_bytes()[:64].split(b"\n")[0].strip()):
            declared, by = text.decode("ascii", "replace"), self.cpg.name
        elif (language := LDID_CODECS.get(self.header.language)) is not None:
            declared, by = language, f"language byte 0x{self.header.language:02X}"
        return decide(
            self.text_sample(),
            declared=declared,
            declared_by=by,
            override=override,
            source=self.dbf,
        )

    def text_sample(self) -> list[bytes]:
        """Return raw field names and non-ASCII text values from all over the table."""
        texts = [f for f in self.header.fields if f.type == "C"]
        values = [f.raw_name for f in self.header.fields]
        for block in self._record_blocks():
            for each in texts:
                column = block[:, each.offset : each.offset + each.width]
                rows = np.flatnonzero((column & 0x80).any(axis=1))
                step = max(1, len(rows) // _SAMPLE_ROWS)
                values += [column[r].tobytes().rstrip(b" \0") for r in rows[::step]]
        return values

    def _record_blocks(self) -> list[NDArray[np.uint8]]:
        head, count = self.header, self.header.records
        if count == 0 or head.record_nbytes == 0:
            return []
        data = np.memmap(self.dbf, dtype=np.uint8, mode="r", offset=head.header_nbytes)
        records = data[: count * head.record_nbytes].reshape(count, head.record_nbytes)
        rows = max(1, _SCAN_NBYTES // head.record_nbytes)
        return [records[start : start + rows] for start in range(0, count, rows)]


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEADER_NBYTES)


def _siblings(shp: Path) -> dict[str, Path]:
    parts: dict[str, Path] = {}
    for path in sorted(shp.parent.iterdir()):
        if path.stem == shp.stem:
            parts.setdefault(path.suffix.lower(), path)
        elif path.name.lower() == f"{shp.name.lower()}.cpg":
            parts.setdefault(".cpg", path)
    return parts


def _damaged(path: Path, what: str) -> SourceUnreadable:
    return SourceUnreadable(
        f"damaged Shapefile: {what}",
        source=path,
        remedy="copy or export it again; all parts must come from the same export",
    )


def read_dbf_header(dbf: Path) -> DbfHeader:
    """Read the header of a DBF and check that the file is as long as it claims.

    Raises:
        SourceUnreadable: it is cut short or its numbers contradict each other.
    """
    with dbf.open("rb") as file:
        head = file.read(32)
        if len(head) < 32:
            raise _damaged(dbf, f"{len(head)} bytes are no DBF header")
        records, header_nbytes, record_nbytes = struct.unpack_from("<IHH", head, 4)
        descriptors = file.read(max(0, header_nbytes - 32))
    fields = _fields(descriptors)
    needed = header_nbytes + records * record_nbytes
    size = dbf.stat().st_size
    if size < needed or record_nbytes < 1 + sum(f.width for f in fields):
        raise _damaged(
            dbf,
            f"its header claims {records} records of {record_nbytes} bytes ({needed} bytes "
            f"in all), the file has {size}",
        )
    return DbfHeader(records, header_nbytes, record_nbytes, head[29], fields)


def _fields(descriptors: bytes) -> tuple[DbfField, ...]:
    fields, offset = [], 1  # the first byte of a record is its deletion mark
    for at in range(0, len(descriptors) - 31, 32):
        if descriptors[at] in (0x0D, 0x00):
            break
        entry = descriptors[at : at + 32]
        letter, width = chr(entry[11]), entry[16]
        if letter == "C":
            width += entry[17] << 8  # Clipper and FoxPro keep the high byte of the width here
        fields.append(DbfField(entry[:11].split(b"\0")[0], letter, offset, width))
        offset += width
    return tuple(fields)
