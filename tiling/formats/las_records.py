"""Point records of LAS 1.4, formats 6 to 8: columns to bytes.

Layout: ASPRS LAS Specification 1.4-R15, tables 15 to 18, and 24 for columns beyond the standard's.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Units of the scan angle.
ANGLE_DEG = 0.006
# Of one column's description.
EXTRA_NBYTES = 192
_BASE: tuple[tuple[str, str], ...] = (
    ("x", "<i4"),
    ("y", "<i4"),
    ("z", "<i4"),
    ("intensity", "<u2"),
    ("returns", "u1"),
    ("flags", "u1"),
    ("classification", "u1"),
    ("user_data", "u1"),
    ("scan_angle", "<i2"),
    ("point_source_id", "<u2"),
    ("gps_time", "<f8"),
)
_COLOUR = (("red", "<u2"), ("green", "<u2"), ("blue", "<u2"))
_INFRARED = (("nir", "<u2"),)
# Column -> field, bits to the left, greatest value.
_BITS: Mapping[str, tuple[str, int, int]] = {
    "return_number": ("returns", 0, 15),
    "number_of_returns": ("returns", 4, 15),
    "synthetic": ("flags", 0, 1),
    "key_point": ("flags", 1, 1),
    "withheld": ("flags", 2, 1),
    "overlap": ("flags", 3, 1),
    "scanner_channel": ("flags", 4, 3),
    "scan_direction_flag": ("flags", 6, 1),
    "edge_of_flight_line": ("flags", 7, 1),
}
_PLAIN: Mapping[str, str] = {
    "intensity": "uint16",
    "classification": "uint8",
    "user_data": "uint8",
    "point_source_id": "uint16",
    "gps_time": "float64",
    "nir": "uint16",
}
# The codes of table 25.
_CODES = {
    name: code
    for code, name in enumerate(
        ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")
        + ("float32", "float64"),
        start=1,
    )
}
_NO_DATA = 1


@dataclass(frozen=True, slots=True)
class ExtraColumn:
    """A column beyond the standard's.

    Attributes:
        name: in the file, at most 32 bytes of UTF-8.
        column: of the source.
        part: which of its values, where a point has several.
        dtype: NumPy name, e.g. ``uint16``.
        no_data: the value that says nothing was measured; None where there is none.
        description: for people; as much as 32 bytes hold.
    """

    name: str
    column: str
    part: int
    dtype: str
    no_data: float | None = None
    description: str = ""

    def described(self) -> bytes:
        """Return the column's description: 192 bytes."""
        options = 0 if self.no_data is None else _NO_DATA
        kind = "d" if self.dtype.startswith("f") else ("Q" if self.dtype.startswith("u") else "q")
        value = self.no_data or 0
        no_data = struct.pack(f"<{kind}", value if kind == "d" else int(value))
        return (
            struct.pack("<2xBB32s4x", _CODES[self.dtype], options, fitting(self.name))
            + no_data
            + bytes(112)
            + struct.pack("<32s", fitting(self.description))
        )


def fitting(text: str, nbytes: int = 32) -> bytes:
    """Return as many whole characters of a text as fit, in UTF-8."""
    return text.encode()[:nbytes].decode(errors="ignore").encode()


@dataclass(frozen=True, slots=True)
class LasSchema:
    """What records hold, and what their whole numbers mean; picklable.

    Attributes:
        record_format: 6, 7 (colours) or 8 (colours and infrared).
        scales, offsets: coordinate = stored number * scale + offset.
        extra: columns beyond the standard's, in the order of the records.
    """

    record_format: int
    scales: tuple[float, float, float]
    offsets: tuple[float, float, float]
    extra: tuple[ExtraColumn, ...] = ()

    @classmethod
    def of(
        cls,
        columns: Mapping[str, tuple[str, int, float | None, str]],
        scales: tuple[float, float, float],
        offsets: tuple[float, float, float],
    ) -> LasSchema:
        """Return the narrowest schema that keeps columns as they are.

        Args:
            columns: name -> NumPy name of the type, values a point has, no-data value, description.
            scales, offsets: of the coordinates.
        """
        standard = {
            name
            for name, (dtype, width, *_) in columns.items()
            if (name in _BITS and dtype == "uint8" and width == 1)
            or (_PLAIN.get(name) == dtype and width == 1)
            or (name == "scan_angle" and dtype == "float32" and width == 1)
            or (name == "rgb" and dtype in ("uint8", "uint16") and width == 3)
        }
        taken = {name for name, _ in (*_BASE, *_COLOUR, *_INFRARED)} | set(_BITS)
        extra: list[ExtraColumn] = []
        for name, (dtype, width, no_data, description) in columns.items():
            if name in standard:
                continue
            for part in range(width):
                wanted = name if width == 1 else f"{name}_{part}"
                own = _free(wanted, taken)
                taken.add(own)
                stored = "uint8" if dtype == "bool" else dtype
                extra.append(ExtraColumn(own, name, part, stored, no_data, description))
        record_format = 8 if "nir" in standard else 7 if "rgb" in standard else 6
        return cls(record_format, scales, offsets, tuple(extra))

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of a record, without gaps."""
        fields = [*_BASE]
        if self.record_format >= 7:
            fields += _COLOUR
        if self.record_format == 8:
            fields += _INFRARED
        extra = [
            (f"extra {i}", np.dtype(each.dtype).newbyteorder("<").str)
            for i, each in enumerate(self.extra)
        ]
        return np.dtype([*fields, *extra])

    @property
    def extra_nbytes(self) -> int:
        """Bytes of a record beyond the standard's."""
        return sum(np.dtype(each.dtype).itemsize for each in self.extra)

    def pack(
        self, xyz: NDArray[np.float64], columns: Mapping[str, NDArray[Any]]
    ) -> NDArray[np.void]:
        """Return points as records.

        Args:
            xyz: (N, 3) float64; each coordinate must fit 32 bits when scaled.
            columns: (N,) or (N, k) by name, of the types the schema was made for. Bits and whole
                numbers are kept; 8-bit colours fill their 16 bits (255 becomes 65535), as the
                standard asks.
        """
        records = np.zeros(len(xyz), self.dtype)
        for axis, name in enumerate("xyz"):
            stored = np.rint((xyz[:, axis] - self.offsets[axis]) / self.scales[axis])
            records[name] = stored.astype(np.int32)
        special = {extra.column for extra in self.extra}
        for name, values in columns.items():
            if name in special:
                continue
            if name in _BITS:
                field, shift, most = _BITS[name]
                records[field] |= (np.minimum(values, most) << shift).astype(np.uint8)
            elif name == "scan_angle":
                records[name] = np.rint(values / ANGLE_DEG).astype(np.int16)
            elif name == "rgb":
                wide = values if values.dtype == np.uint16 else values.astype(np.uint16) * 257
                for channel, colour in enumerate(("red", "green", "blue")):
                    records[colour] = wide[:, channel]
            else:
                records[name] = values
        for number, extra in enumerate(self.extra):
            values = columns[extra.column]
            records[f"extra {number}"] = values if values.ndim == 1 else values[:, extra.part]
        return records

    def xyz(self, records: NDArray[np.void]) -> NDArray[np.float64]:
        """Return the coordinates of records as a reader computes them: (N, 3) float64."""
        out = np.empty((len(records), 3))
        for axis, name in enumerate("xyz"):
            out[:, axis] = records[name] * self.scales[axis] + self.offsets[axis]
        return out


def _free(wanted: str, taken: set[str]) -> str:
    """Return a name for a column that no other has and that fits its field."""
    name = fitting(wanted).decode()
    number = 1
    while name in taken:
        number += 1
        tail = f" ({number})"
        name = fitting(wanted, 32 - len(tail)).decode() + tail
    return name
