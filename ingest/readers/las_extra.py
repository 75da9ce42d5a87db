"""Extra bytes: columns that producers add to LAS records, with types, scales and no-data values.

Layout: ASPRS LAS Specification 1.4-R15, table 24 (192 bytes a column). A file may hold several
records of such descriptions; they follow one another.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingest.readers.las_header import RECORD_NBYTES, LasHeader
from ingest.readers.point_chunks import PointColumn
from tiling.errors import SourceUnreadable
from tiling.findings import Findings

_NBYTES = 192
_TYPES = ("", "<u1", "<i1", "<u2", "<i2", "<u4", "<i4", "<u8", "<i8", "<f4", "<f8")
_NO_DATA, _SCALED, _MOVED = 1, 8, 16


@dataclass(frozen=True, slots=True)
class ExtraBytes:
    """A column that a producer added to the records.

    Attributes:
        column: as it is read.
        stored: NumPy type of one value in the record.
        at: byte offset in the record.
        scale, offset: (k,) each; None where values are taken as they are.
        no_data: the stored value that says nothing was measured.
    """

    column: PointColumn
    stored: str
    at: int
    scale: tuple[float, ...] | None
    offset: tuple[float, ...] | None
    no_data: tuple[float, ...] | None

    @property
    def field(self) -> Any:
        """The type of the field in a structured NumPy type."""
        return (self.stored, (self.column.width,)) if self.column.width > 1 else self.stored


def describe_extra_bytes(
    path: Path, header: LasHeader, taken: set[str], findings: Findings
) -> tuple[ExtraBytes, ...]:
    """Read the descriptions of a file's extra bytes.

    Args:
        path: the file, for messages.
        header: its header.
        taken: names that other columns have; a column of such a name gets `` (extra)`` behind it.
        findings: receives what is left out.

    Raises:
        SourceUnreadable: extra bytes are described that the records do not have.
    """
    at, found = RECORD_NBYTES[header.record_format], []
    names = {*taken, "xyz"}
    described = b"".join(header.find("LASF_Spec", 4))
    for begin in range(0, len(described) - _NBYTES + 1, _NBYTES):
        raw = described[begin : begin + _NBYTES]
        kind, width = _type(raw[2])
        nbytes = raw[3] if kind == 0 else np.dtype(_TYPES[kind]).itemsize * width
        if raw[2] > 30 or at + nbytes > header.record_nbytes:
            raise SourceUnreadable(
                f"its extra bytes {_name(raw)!r} of type {raw[2]} would end at byte {at + nbytes} "
                f"of records of {header.record_nbytes}",
                source=path,
                remedy="write the file again with the extra bytes described as they are, or "
                "without their description",
            )
        if kind:
            extra = _column(raw, at, kind, width, names)
            names.add(extra.column.name)
            found.append(extra)
        else:
            message = f"extra bytes {_name(raw)!r} have no type and are left out"
            findings.add("extra-bytes-untyped", "drop", message, samples=[path.name])
        at += nbytes
    if at < header.record_nbytes:
        message = "bytes at the end of each record that nothing describes are left out"
        samples = [f"{path.name}: {header.record_nbytes - at} bytes"]
        findings.add("extra-bytes-undescribed", "drop", message, samples=samples)
    return tuple(found)


def scaled(stored: NDArray[Any], extra: ExtraBytes) -> NDArray[Any]:
    """Return stored values as the column says: scaled ones as float64, no-data as NaN."""
    if extra.scale is None or extra.offset is None:
        return np.ascontiguousarray(stored)
    # One number, or as many as the column is wide.
    one = len(extra.scale) == 1
    scale, offset = np.array(extra.scale), np.array(extra.offset)
    values: NDArray[Any] = stored * (scale[0] if one else scale) + (offset[0] if one else offset)
    if extra.no_data is not None:
        no_data = np.array(extra.no_data).astype(stored.dtype)
        values[stored == (no_data[0] if one else no_data)] = np.nan
    return values


def _type(number: int) -> tuple[int, int]:
    """Return the type of one value and how many there are; 11-30 are vectors of older files."""
    return (number, 1) if number <= 10 else ((number - 1) % 10 + 1, (number - 1) // 10 + 1)


def _name(raw: bytes) -> str:
    return decoded(raw[4:36])


def decoded(raw: bytes) -> str:
    """Return text of a fixed width: UTF-8, or GBK where it is not that."""
    text = raw.split(b"\0", 1)[0]
    try:
        return text.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        # Writers cut text that is too long at the last byte, in the middle of a character.
        if len(text) == len(raw) and error.reason == "unexpected end of data" and error.start:
            return text[: error.start].decode("utf-8").strip()
        return text.decode("gb18030", "replace").strip()


def _column(raw: bytes, at: int, kind: int, width: int, names: set[str]) -> ExtraBytes:
    stored, options = _TYPES[kind], raw[3]
    scale = struct.unpack_from(f"<{width}d", raw, 112) if options & _SCALED else (1.0,) * width
    offset = struct.unpack_from(f"<{width}d", raw, 136) if options & _MOVED else (0.0,) * width
    is_scaled = bool(options & (_SCALED | _MOVED)) and (scale, offset) != (
        (1.0,) * width,
        (0.0,) * width,
    )
    # The no-data value is stored in eight bytes, of the kind of the values.
    wide = "d" if kind > 8 else "qQ"[kind % 2]
    no_data = struct.unpack_from(f"<{width}{wide}", raw, 40) if options & _NO_DATA else None
    name = _name(raw) or f"extra at {at}"
    while name in names:
        name += " (extra)"
    column = PointColumn(
        name,
        "float64" if is_scaled else np.dtype(stored).name,
        width,
        None if no_data is None or is_scaled or len(set(no_data)) > 1 else no_data[0],
        decoded(raw[160:192]),
    )
    return ExtraBytes(
        column,
        stored,
        at,
        tuple(scale) if is_scaled else None,
        tuple(offset) if is_scaled else None,
        no_data,
    )
