"""COPC 1.0 files: a LAZ whose chunks are the nodes of an octree, and where each of them is.

Layout: the COPC specification 1.0 (copc.io) over ASPRS LAS 1.4-R15: header, info record, records of
the compressor, frame and columns; offset of the chunk table, chunks, chunk table; the hierarchy.
"""

from __future__ import annotations

import io
import os
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import lazrs
import numpy as np
from numpy.typing import NDArray

from tiling.errors import StoreError
from tiling.formats.las_records import LasSchema

_HEADER = struct.Struct("<4sHH16sBB32s32sHHHIIBHI5I3d3d6dQQIQ15Q")
_VLR, _EVLR = struct.Struct("<H16sHH32s"), struct.Struct("<H16sHQ32s")
_INFO = struct.Struct("<5dQQ2d11Q")
_ENTRY = np.dtype(
    [("level", "<i4"), ("x", "<i4"), ("y", "<i4"), ("z", "<i4")]
    + [("offset", "<u8"), ("nbytes", "<i4"), ("count", "<i4")]
)
_OFFSET = struct.Struct("<q")
_COMPRESSED = 0x80
_WKT, _STANDARD_TIME = 1 << 4, 1
_SOFTWARE = b"cim-server"


class Node(NamedTuple):
    """A node of the octree; its points are those of one chunk."""

    level: int
    x: int
    y: int
    z: int


@dataclass(frozen=True, slots=True)
class Cube:
    """The root of the octree, in the units of the coordinates.

    Attributes:
        low: its lowest corner.
        side: length of its sides.
    """

    low: tuple[float, float, float]
    side: float

    def spacing(self, level: int, parts: int) -> float:
        """Return the side of a level's voxels, `parts` a side of a node."""
        return self.side / 2.0**level / parts


@dataclass(slots=True)
class Totals:
    """What a file says of all its points.

    Attributes:
        count: number of points.
        low, high: least and greatest stored coordinates.
        by_return: number of points of returns 1 to 15.
        times: first and last GPS time; (0, 0) without any.
    """

    count: int = 0
    low: NDArray[np.int64] = field(default_factory=lambda: np.full(3, 2**62))
    high: NDArray[np.int64] = field(default_factory=lambda: np.full(3, -(2**62)))
    by_return: NDArray[np.int64] = field(default_factory=lambda: np.zeros(15, np.int64))
    times: tuple[float, float] | None = None

    @classmethod
    def of(cls, records: NDArray[np.void]) -> Totals:
        """Return the totals of records."""
        if not len(records):
            return cls()
        stored = np.stack([records[name] for name in "xyz"]).astype(np.int64)
        returns = np.bincount(records["returns"] & 15, minlength=16)[1:16]
        times = records["gps_time"][np.isfinite(records["gps_time"])]
        span = (float(times.min()), float(times.max())) if len(times) else None
        return cls(len(records), stored.min(axis=1), stored.max(axis=1), returns, span)

    def add(self, other: Totals) -> None:
        """Add the totals of other points."""
        self.count += other.count
        self.low = np.minimum(self.low, other.low)
        self.high = np.maximum(self.high, other.high)
        self.by_return = self.by_return + other.by_return
        spans = [span for span in (self.times, other.times) if span is not None]
        if spans:
            self.times = min(s[0] for s in spans), max(s[1] for s in spans)

    def to_json(self) -> dict[str, Any]:
        """Return the totals as a JSON object."""
        return {
            "count": self.count,
            "low": self.low.tolist(),
            "high": self.high.tolist(),
            "by_return": self.by_return.tolist(),
            "times": self.times,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Totals:
        """Make totals from what `to_json` returned."""
        times = data["times"]
        low, high, by_return = (np.array(data[n], np.int64) for n in ("low", "high", "by_return"))
        return cls(
            data["count"], low, high, by_return, None if times is None else (times[0], times[1])
        )


def compressor(schema: LasSchema) -> lazrs.LazVlr:
    """Return how the chunks of a schema are compressed: each as long as its node."""
    return lazrs.LazVlr.new_for_compression(schema.record_format, schema.extra_nbytes, True)


def compress_node(records: NDArray[np.void], vlr: lazrs.LazVlr) -> bytes:
    """Return the chunk of a node's records."""
    raw = np.frombuffer(np.ascontiguousarray(records), np.uint8)
    packed = lazrs.compress_points(vlr, raw, False)
    # What comes back is a file of one chunk: the offset of its table, the chunk, the table.
    (end,) = _OFFSET.unpack_from(packed)
    return bytes(packed[_OFFSET.size : end])


class CopcWriter:
    """Writes a file node by node; complete, and in its place, when `commit` returns.

    Args:
        path: of the file; one that is there is replaced by `commit`.
        schema: of the records.
        wkt: the frame, WKT 1; empty for none.
        standard_time: whether GPS time counts from 1980 (less 1e9 s).
        cube: root of the octree.
        voxels: of a node's side; the root's spacing is its side divided by them.
    """

    def __init__(
        self, path: Path, schema: LasSchema, wkt: str, standard_time: bool, cube: Cube, voxels: int
    ) -> None:
        self._path, self._schema, self._cube = path, schema, cube
        self._standard_time = standard_time
        self._spacing = cube.spacing(0, voxels)
        self._records = self._vlrs(wkt)
        self._entries: dict[Node, tuple[int, int, int]] = {}
        self._partial = path.with_name(path.name + ".part")
        self._file = self._partial.open("wb")
        self._points_at = _HEADER.size + _VLR.size + _INFO.size + len(self._records)
        self._file.write(bytes(self._points_at + _OFFSET.size))
        self._at = self._points_at + _OFFSET.size

    def _vlrs(self, wkt: str) -> bytes:
        records = [("laszip encoded", 22204, compressor(self._schema).record_data())]
        if wkt:
            records.append(("LASF_Projection", 2112, wkt.encode() + b"\0"))
        if self._schema.extra:
            described = b"".join(each.described() for each in self._schema.extra)
            records.append(("LASF_Spec", 4, described))
        return b"".join(
            _VLR.pack(0, user.encode(), number, len(data), b"") + bytes(data)
            for user, number, data in records
        )

    def put(self, node: Node, data: bytes, count: int) -> None:
        """Write a node's chunk."""
        self._file.write(data)
        self._entries[node] = (self._at, len(data), count)
        self._at += len(data)

    def commit(self, totals: Totals) -> None:
        """Write what stands around the chunks, and put the file into its place."""
        table_at = self._at
        table = io.BytesIO()
        chunks = [(count, nbytes) for _, nbytes, count in self._entries.values()]
        lazrs.write_chunk_table(table, chunks, compressor(self._schema))
        self._file.write(table.getvalue())
        hierarchy = self._hierarchy()
        evlr_at = table_at + len(table.getvalue())
        self._file.write(_EVLR.pack(0, b"copc", 1000, len(hierarchy), b""))
        self._file.write(hierarchy)
        self._file.seek(0)
        self._file.write(self._header(totals, evlr_at))
        self._file.write(self._info(totals, evlr_at + _EVLR.size, len(hierarchy)))
        self._file.write(self._records)
        self._file.write(_OFFSET.pack(table_at))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._partial.replace(self._path)

    def abort(self) -> None:
        """Leave nothing behind, unless `commit` has returned."""
        self._file.close()
        self._partial.unlink(missing_ok=True)

    def _hierarchy(self) -> bytes:
        entries = dict(self._entries)
        # A reader walks down from the root: nodes above others are there even when they are empty.
        for node in self._entries:
            level, x, y, z = node
            while level > 0:
                level, x, y, z = level - 1, x >> 1, y >> 1, z >> 1
                entries.setdefault(Node(level, x, y, z), (0, 0, 0))
        entries.setdefault(Node(0, 0, 0, 0), (0, 0, 0))
        rows = [(*node, *entries[node]) for node in sorted(entries)]
        return np.array(rows, _ENTRY).tobytes()

    def _header(self, totals: Totals, evlr_at: int) -> bytes:
        schema = self._schema
        scales, offsets = np.array(schema.scales), np.array(schema.offsets)
        low, high = totals.low * scales + offsets, totals.high * scales + offsets
        ends = [value for axis in range(3) for value in (high[axis], low[axis])]
        return _HEADER.pack(
            b"LASF", 0, _WKT | (_STANDARD_TIME if self._standard_time else 0), bytes(16),
            1, 4, b"", _SOFTWARE, 0, 0, _HEADER.size, self._points_at,
            1 + self._records_count(), schema.record_format | _COMPRESSED, schema.dtype.itemsize,
            0, 0, 0, 0, 0, 0, *schema.scales, *schema.offsets, *ends,
            0, evlr_at, 1, totals.count, *totals.by_return.tolist(),
        )  # fmt: skip

    def _records_count(self) -> int:
        count = at = 0
        while at < len(self._records):
            at += _VLR.size + int(_VLR.unpack_from(self._records, at)[3])
            count += 1
        return count

    def _info(self, totals: Totals, hierarchy_at: int, hierarchy_nbytes: int) -> bytes:
        half = self._cube.side / 2
        centre = [low + half for low in self._cube.low]
        info = _INFO.pack(
            *centre, half, self._spacing, hierarchy_at, hierarchy_nbytes,
            *(totals.times or (0.0, 0.0)), *[0] * 11,
        )  # fmt: skip
        return _VLR.pack(0, b"copc", 1, len(info), b"") + info


@dataclass(frozen=True, slots=True)
class CopcFile:
    """What a COPC file says of itself.

    Attributes:
        path: the file.
        record_format, record_nbytes: of its points.
        count: number of points.
        scales, offsets: of the coordinates.
        cube: root of the octree.
        nodes: (offset, bytes, points) of every node that holds points.
        vlr: of the compressor.
    """

    path: Path
    record_format: int
    record_nbytes: int
    count: int
    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    cube: Cube
    nodes: dict[Node, tuple[int, int, int]]
    vlr: bytes

    @classmethod
    def open(cls, path: Path) -> CopcFile:
        """Read header, info and hierarchy.

        Raises:
            StoreError: not a COPC, or cut short.
        """
        try:
            with path.open("rb") as file:
                head = file.read(_HEADER.size + _VLR.size + _INFO.size)
                header = _HEADER.unpack_from(head)
                user = _VLR.unpack_from(head, _HEADER.size)[1].rstrip(b"\0")
                if header[0] != b"LASF" or user != b"copc":
                    raise StoreError(f"{path}: no COPC file")
                info = _INFO.unpack_from(head, _HEADER.size + _VLR.size)
                vlr = _find_vlr(file.read(header[11] - len(head)), b"laszip encoded")
                file.seek(info[5])
                rows = np.frombuffer(file.read(info[6]), _ENTRY)
        except (struct.error, ValueError) as error:
            raise StoreError(f"{path}: cut short or damaged: {error}") from error
        if vlr is None or len(rows) * _ENTRY.itemsize != info[6]:
            raise StoreError(f"{path}: cut short: its hierarchy or its compressor is missing")
        nodes = {
            Node(*map(int, row[:4])): (int(row[4]), int(row[5]), int(row[6]))
            for row in rows.tolist()
            if row[6] > 0
        }
        half = info[3]
        cube = Cube((info[0] - half, info[1] - half, info[2] - half), 2 * half)
        return cls(
            path, header[13] & 0x3F, header[14], header[36], header[21:24], header[24:27],
            cube, nodes, vlr,
        )  # fmt: skip

    def read(self, node: Node) -> NDArray[np.uint8]:
        """Return the records of a node: (N, record_nbytes) uint8.

        Raises:
            StoreError: the chunk is damaged.
        """
        offset, nbytes, count = self.nodes[node]
        with self.path.open("rb") as file:
            file.seek(offset)
            data = file.read(nbytes)
        if len(data) < nbytes:
            raise StoreError(f"{self.path}: ends within node {tuple(node)}")
        out = np.empty(count * self.record_nbytes, np.uint8)
        try:
            everything = lazrs.DecompressionSelection(lazrs.SELECTIVE_DECOMPRESS_ALL)
            lazrs.decompress_points_with_chunk_table(
                data, self.vlr, out, [(count, nbytes)], everything
            )
        except BaseException as error:
            # The decoder panics over some damage, which is no Exception to Python.
            if not isinstance(error, lazrs.LazrsError) and type(error).__name__ != "PanicException":
                raise
            raise StoreError(f"{self.path}: node {tuple(node)} is damaged: {error}") from error
        return out.reshape(count, self.record_nbytes)


def _find_vlr(records: bytes, user: bytes) -> bytes | None:
    at = 0
    while at + _VLR.size <= len(records):
        _, name, _, nbytes, _ = _VLR.unpack_from(records, at)
        at += _VLR.size
        if name.rstrip(b"\0") == user:
            return records[at : at + nbytes]
        at += nbytes
    return None
