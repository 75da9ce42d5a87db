"""Point records of LAS: their layout, and their columns as arrays.

Layout: ASPRS LAS Specification 1.4-R15, tables 8-24. Coordinates are stored integers times a scale
plus an offset, computed in float64 as the specification says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import lazrs
import numpy as np
from numpy.typing import NDArray

from ingest.readers.las_extra import ExtraBytes, decoded, describe_extra_bytes, scaled
from ingest.readers.las_header import LasHeader
from ingest.readers.point_chunks import PointColumn
from tiling.findings import Findings

_XYZ = [("x", "<i4"), ("y", "<i4"), ("z", "<i4"), ("intensity", "<u2")]
_OLD = [("flags", "u1"), ("class", "u1"), ("angle", "i1"), ("user", "u1"), ("source", "<u2")]
_NEW = [
    ("flags", "u1"),
    ("more", "u1"),
    ("class", "u1"),
    ("user", "u1"),
    ("angle", "<i2"),
    ("source", "<u2"),
    ("time", "<f8"),
]
_TIME, _NIR = [("time", "<f8")], [("nir", "<u2")]
_RGB = [("red", "<u2"), ("green", "<u2"), ("blue", "<u2")]
_FIELDS: tuple[list[tuple[str, str]], ...] = (
    _XYZ + _OLD,
    _XYZ + _OLD + _TIME,
    _XYZ + _OLD + _RGB,
    _XYZ + _OLD + _TIME + _RGB,
    _XYZ + _OLD + _TIME,
    _XYZ + _OLD + _TIME + _RGB,
    _XYZ + _NEW,
    _XYZ + _NEW + _RGB,
    _XYZ + _NEW + _RGB + _NIR,
    _XYZ + _NEW,
    _XYZ + _NEW + _RGB + _NIR,
)
WAVEFORM_FORMATS = (4, 5, 9, 10)

# Units of the scan angle of formats 6 and up.
_ANGLE_DEG = 0.006

_LAYER = {
    "xyz": lazrs.SELECTIVE_DECOMPRESS_XY_RETURNS_CHANNEL | lazrs.SELECTIVE_DECOMPRESS_Z,
    "classification": lazrs.SELECTIVE_DECOMPRESS_CLASSIFICATION,
    "synthetic": lazrs.SELECTIVE_DECOMPRESS_FLAGS,
    "key_point": lazrs.SELECTIVE_DECOMPRESS_FLAGS,
    "withheld": lazrs.SELECTIVE_DECOMPRESS_FLAGS,
    "overlap": lazrs.SELECTIVE_DECOMPRESS_FLAGS,
    "scan_direction_flag": lazrs.SELECTIVE_DECOMPRESS_FLAGS,
    "edge_of_flight_line": lazrs.SELECTIVE_DECOMPRESS_FLAGS,
    "intensity": lazrs.SELECTIVE_DECOMPRESS_INTENSITY,
    "scan_angle": lazrs.SELECTIVE_DECOMPRESS_SCAN_ANGLE,
    "user_data": lazrs.SELECTIVE_DECOMPRESS_USER_DATA,
    "point_source_id": lazrs.SELECTIVE_DECOMPRESS_POINT_SOURCE_ID,
    "gps_time": lazrs.SELECTIVE_DECOMPRESS_GPS_TIME,
    "rgb": lazrs.SELECTIVE_DECOMPRESS_RGB,
    "nir": lazrs.SELECTIVE_DECOMPRESS_NIR,
    "return_number": 0,
    "number_of_returns": 0,
    "scanner_channel": 0,
}

Records = NDArray[np.void]


@dataclass(frozen=True, slots=True)
class LasLayout:
    """How the records of a file are read; picklable.

    Attributes:
        record_format, record_nbytes: as in the header.
        scales, offsets: of the coordinates.
        standard_time: as in the header.
        classes: names of classes that the file itself gives, ``64 桥面; 65 电塔``.
        extra: columns of extra bytes.
    """

    record_format: int
    record_nbytes: int
    scales: tuple[float, float, float]
    offsets: tuple[float, float, float]
    standard_time: bool
    classes: str
    extra: tuple[ExtraBytes, ...]

    @classmethod
    def of(cls, path: Path, header: LasHeader, findings: Findings) -> LasLayout:
        """Read the layout from a header.

        Raises:
            SourceUnreadable: extra bytes are described that the records do not have.
        """
        extra = describe_extra_bytes(path, header, set(_NEW_READ), findings)
        return cls(
            header.record_format,
            header.record_nbytes,
            header.scales,
            header.offsets,
            header.standard_time,
            _classes(header),
            extra,
        )

    @property
    def columns(self) -> tuple[PointColumn, ...]:
        """The columns that the records hold, in the order of the specification."""
        return _columns(self.record_format, self.standard_time, self.classes, self.extra)

    def selection(self, names: Sequence[str]) -> int:
        """Return the lazrs bits of the layers that hold the coordinates and these columns."""
        bits = int(_LAYER["xyz"])
        for name in names:
            bits |= int(_LAYER.get(name, lazrs.SELECTIVE_DECOMPRESS_ALL_EXTRA_BYTES))
        return bits

    def records(self, raw: bytes | bytearray | memoryview) -> Records:
        """Return raw bytes as a structured array."""
        fields = _FIELDS[self.record_format]
        names = [field[0] for field in fields]
        types = [field[1] for field in fields]
        offsets = np.concatenate([[0], np.cumsum([np.dtype(t).itemsize for t in types])])[:-1]
        layout = np.dtype(
            {
                "names": [*names, *(f"extra {i}" for i in range(len(self.extra)))],
                "formats": [*types, *(extra.field for extra in self.extra)],
                "offsets": [*offsets.tolist(), *(extra.at for extra in self.extra)],
                "itemsize": self.record_nbytes,
            }
        )
        return np.frombuffer(raw, layout)

    def xyz(self, records: Records, out: NDArray[np.float64]) -> None:
        """Write the coordinates into an (N, 3) array."""
        for axis, name in enumerate("xyz"):
            np.multiply(records[name], self.scales[axis], out=out[:, axis])
            out[:, axis] += self.offsets[axis]

    def column(self, records: Records, name: str) -> NDArray[Any]:
        """Return a column by name; (N,) or (N, k), a copy.

        Raises:
            KeyError: there is no such column.
        """
        for number, extra in enumerate(self.extra):
            if extra.column.name == name:
                return scaled(records[f"extra {number}"], extra)
        read = (_NEW_READ if self.record_format >= 6 else _OLD_READ)[name]
        return read(records)


def _classes(header: LasHeader) -> str:
    """Return the classification lookup: a number and 15 bytes of text for each class."""
    table = b"".join(header.find("LASF_Spec", 0)[:1])
    rows = (table[at : at + 16] for at in range(0, len(table) - 15, 16))
    named = {row[0]: decoded(row[1:]) for row in rows}
    return "; ".join(f"{number} {name}" for number, name in sorted(named.items()) if name)


def _plain(field: str) -> Callable[[Records], NDArray[Any]]:
    return lambda records: np.ascontiguousarray(records[field])


def _bits(field: str, shift: int, mask: int) -> Callable[[Records], NDArray[Any]]:
    return lambda records: (records[field] >> shift) & np.uint8(mask)


def _colours(records: Records) -> NDArray[Any]:
    # A channel at a time: NumPy copies fields of three values one value at a time.
    rgb = np.empty((len(records), 3), np.uint16)
    for channel, name in enumerate(("red", "green", "blue")):
        rgb[:, channel] = records[name]
    return rgb


_BOTH: dict[str, Callable[[Records], NDArray[Any]]] = {
    "intensity": _plain("intensity"),
    "user_data": _plain("user"),
    "point_source_id": _plain("source"),
    "gps_time": _plain("time"),
    "rgb": _colours,
    "nir": _plain("nir"),
}
_OLD_READ: dict[str, Callable[[Records], NDArray[Any]]] = {
    **_BOTH,
    "return_number": _bits("flags", 0, 7),
    "number_of_returns": _bits("flags", 3, 7),
    "scan_direction_flag": _bits("flags", 6, 1),
    "edge_of_flight_line": _bits("flags", 7, 1),
    "classification": _bits("class", 0, 31),
    "synthetic": _bits("class", 5, 1),
    "key_point": _bits("class", 6, 1),
    "withheld": _bits("class", 7, 1),
    "scan_angle": lambda records: records["angle"].astype(np.float32),
}
_NEW_READ: dict[str, Callable[[Records], NDArray[Any]]] = {
    **_BOTH,
    "return_number": _bits("flags", 0, 15),
    "number_of_returns": _bits("flags", 4, 15),
    "synthetic": _bits("more", 0, 1),
    "key_point": _bits("more", 1, 1),
    "withheld": _bits("more", 2, 1),
    "overlap": _bits("more", 3, 1),
    "scanner_channel": _bits("more", 4, 3),
    "scan_direction_flag": _bits("more", 6, 1),
    "edge_of_flight_line": _bits("more", 7, 1),
    "classification": _plain("class"),
    "scan_angle": lambda records: (records["angle"] * _ANGLE_DEG).astype(np.float32),
}


@lru_cache(maxsize=64)
def _columns(
    record_format: int, standard_time: bool, classes: str, extra: tuple[ExtraBytes, ...]
) -> tuple[PointColumn, ...]:
    new = record_format >= 6
    names = [
        ("intensity", "uint16"),
        ("return_number", "uint8"),
        ("number_of_returns", "uint8"),
        ("classification", "uint8"),
        ("synthetic", "uint8"),
        ("key_point", "uint8"),
        ("withheld", "uint8"),
        *([("overlap", "uint8"), ("scanner_channel", "uint8")] if new else []),
        ("scan_direction_flag", "uint8"),
        ("edge_of_flight_line", "uint8"),
        ("scan_angle", "float32"),
        ("user_data", "uint8"),
        ("point_source_id", "uint16"),
    ]
    fields = [field[0] for field in _FIELDS[record_format]]
    said = {"classification": classes}
    columns = [PointColumn(n, dtype, description=said.get(n, "")) for n, dtype in names]
    if "time" in fields:
        since = "6 January 1980, less 1e9" if standard_time else "the week's beginning"
        seconds = f"GPS seconds since {since}"
        columns.append(PointColumn("gps_time", "float64", description=seconds))
    if "red" in fields:
        columns.append(PointColumn("rgb", "uint16", 3))
    if "nir" in fields:
        columns.append(PointColumn("nir", "uint16"))
    return (*columns, *(each.column for each in extra))
