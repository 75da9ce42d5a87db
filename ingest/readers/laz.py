"""LAZ: which of its variants this is, where its chunks lie, and how a range of them is decoded.

LAZ points come in chunks that are decoded one after another; a chunk table at the end of the file
says how long each is. lazrs decodes them; what it would panic, hang or run out of memory over is
checked here first. Layout: LASzip VLR and chunk table as in Isenburg, "LASzip: lossless
compression of LiDAR data" (2013), and the LASzip sources' laszip.hpp.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import lazrs
import numpy as np
from numpy.typing import NDArray

from ingest.readers.las_header import LasHeader
from tiling.errors import SourceUnreadable

# Types of the parts of a record, and the versions of their coding that lazrs decodes.
_ITEMS = {
    0: ("bytes", (1, 2)),
    6: ("point 10", (1, 2)),
    7: ("GPS time 11", (1, 2)),
    8: ("RGB 12", (1, 2)),
    9: ("wave packet 13", (1, 2)),
    10: ("point 14", (3,)),
    11: ("RGB 14", (3,)),
    12: ("RGB and NIR 14", (3,)),
    13: ("wave packet 14", (3,)),
    14: ("bytes 14", (3,)),
}
# Layers of each part in layered chunks; bytes have one each.
_LAYERS = {10: 9, 11: 1, 12: 2, 13: 1}
_VARIABLE = 0xFFFFFFFF
_UNCHUNKED = 1
# LASzip writes 50 000 points a chunk; equal points take about a bit each.
_MOST_IN_A_CHUNK, _MOST_IN_A_BYTE = 1 << 25, 1024
_REMEDY = "copy it again from where it came; a copy that fails here too needs a new export"
_REWRITE = "write it again as LAS, or as LAZ 1.4 by LASzip 3"


@dataclass(frozen=True, slots=True)
class LazRange:
    """Where consecutive points of a LAZ file are; picklable.

    Attributes:
        record: the LASzip record, as lazrs takes it.
        at: file offset of the first chunk that holds any of them.
        chunks: points and bytes of each such chunk.
        skip: points of the first chunk that come before the first one wanted.
    """

    record: bytes
    at: int
    chunks: tuple[tuple[int, int], ...]
    skip: int


@dataclass(frozen=True, slots=True)
class LazCoding:
    """How a file's points are packed.

    Attributes:
        record: the LASzip record, as lazrs takes it.
        ends: (C,) int64; ordinal of the point after each chunk's last.
        edges: (C + 1,) int64; file offsets where chunks begin, and where the last ends.
    """

    record: bytes
    ends: NDArray[np.int64]
    edges: NDArray[np.int64]

    def range(self, start: int, end: int) -> LazRange:
        """Return where the points from `start` to before `end` are."""
        first = int(np.searchsorted(self.ends, start, side="right"))
        last = int(np.searchsorted(self.ends, end, side="left"))
        points = np.diff(self.ends, prepend=0)[first : last + 1].tolist()
        nbytes = np.diff(self.edges)[first : last + 1].tolist()
        begin = int(self.ends[first - 1]) if first else 0
        chunks = tuple(zip(points, nbytes, strict=True))
        return LazRange(self.record, int(self.edges[first]), chunks, start - begin)


def coding(path: Path, header: LasHeader) -> LazCoding:
    """Look at how a LAZ file is packed, and check its chunk table.

    Raises:
        SourceUnreadable: the variant is not known to lazrs, or the chunk table lies.
    """
    found = header.find("laszip encoded", 22204)
    if not found:
        raise _refused(path, "it is marked as LAZ, and the LASzip record is missing")
    record = found[0]
    compressor, chunk_size = _check_record(path, record, header)
    if not header.count:
        return LazCoding(record, np.zeros(0, np.int64), np.zeros(1, np.int64))
    if compressor == _UNCHUNKED:
        edges = np.array([header.points_at, header.points_end])
        return _plausible(path, LazCoding(_as_one_chunk(record), np.array([header.count]), edges))
    with path.open("rb") as file:
        table_at = _check_table(path, file, header, chunk_size)
        file.seek(header.points_at)
        with panics(path):
            table = lazrs.read_chunk_table(file, lazrs.LazVlr(record))
    most = header.points_end
    if any(
        size > most or not 0 < points <= max(header.count, chunk_size) for points, size in table
    ):
        raise _refused(path, "its chunk table lists chunks larger than the file")
    counts, sizes = np.array(table, dtype=np.int64).reshape(-1, 2).T
    if chunk_size != _VARIABLE:
        counts = np.full(len(sizes), chunk_size)
        counts[-1] = header.count - chunk_size * (len(sizes) - 1)
    ends, edges = counts.cumsum(), header.points_at + 8 + np.append(0, sizes.cumsum())
    if counts[-1] <= 0 or (sizes <= 0).any() or ends[-1] != header.count:
        raise _refused(
            path, f"its chunk table counts {int(ends[-1])} points, its header {header.count}"
        )
    if edges[-1] > table_at:
        raise _refused(
            path,
            f"its chunk table says that points end at byte {int(edges[-1])}, and begins itself at "
            f"{table_at}",
        )
    return _plausible(path, LazCoding(record, ends, edges))


def _plausible(path: Path, coding: LazCoding) -> LazCoding:
    """Refuse chunks that would fill the memory: nothing packs points as densely as they claim."""
    counts, sizes = np.diff(coding.ends, prepend=0), np.diff(coding.edges)
    bad = np.flatnonzero((counts > _MOST_IN_A_CHUNK) | (counts > _MOST_IN_A_BYTE * sizes))
    if bad.size:
        raise _refused(
            path,
            f"its chunk {int(bad[0])} claims {int(counts[bad[0]])} points in "
            f"{int(sizes[bad[0]])} bytes",
            "if that is true, write it again in chunks of 50000 points, as LASzip does by itself",
        )
    return coding


def _as_one_chunk(record: bytes) -> bytes:
    """Return the record of a file without chunks as that of a file of one, which lazrs decodes."""
    return struct.pack("<H", 2) + record[2:12] + struct.pack("<I", _VARIABLE - 1) + record[16:]


def decode(path: Path, where: LazRange, count: int, selection: int) -> memoryview:
    """Return the records of consecutive points.

    Args:
        path: the file.
        where: from `LazCoding.range`.
        count: number of points.
        selection: lazrs bits of the columns wanted; others are left zero in point formats 6 to 10.

    Returns:
        memoryview: `count` records of the uncompressed layout.

    Raises:
        SourceUnreadable: the data is damaged.
    """
    with path.open("rb") as file:
        file.seek(where.at)
        packed = file.read(sum(nbytes for _, nbytes in where.chunks))
    _check_layers(path, where, packed)
    with panics(path):
        size = lazrs.LazVlr(where.record).item_size()
        records = bytearray(sum(points for points, _ in where.chunks) * size)
        lazrs.decompress_points_with_chunk_table(
            packed,
            where.record,
            records,
            list(where.chunks),
            lazrs.DecompressionSelection(selection),
        )
    return memoryview(records)[where.skip * size : (where.skip + count) * size]


def _check_layers(path: Path, where: LazRange, packed: bytes) -> None:
    """Compare the sizes of layers with those of their chunks, before lazrs makes room for them.

    A layered chunk is: its first point as it is, its number of points, the size of each layer
    (unsigned, four bytes each), the layers.
    """
    layered = struct.unpack_from("<H", where.record)[0] == 3
    kinds = struct.iter_unpack("<3H", where.record[34:][: 6 * where.record[32]])
    layers = [(_LAYERS.get(kind, size), size) for kind, size, _ in kinds]
    raw, count = sum(size for _, size in layers), sum(layer for layer, _ in layers)
    at = 0
    for points, nbytes in where.chunks:
        chunk, at = packed[at : at + nbytes], at + nbytes
        short = len(chunk) < nbytes or (layered and nbytes < raw + 4 + 4 * count)
        if not short and layered:
            stated, *sizes = struct.unpack_from(f"<{1 + count}I", chunk, raw)
            short = stated != points or raw + 4 + 4 * count + sum(sizes) > nbytes
        if short:
            raise _refused(
                path, f"its compressed points are damaged in the chunk of {nbytes} bytes"
            )


class panics:
    """Turn what lazrs raises into `SourceUnreadable`; its panics are no `Exception`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        if kind is None:
            return
        if issubclass(kind, lazrs.LazrsError) or kind.__name__ == "PanicException":
            assert isinstance(error, BaseException)
            raise _refused(self._path, f"its compressed points are damaged: {error}") from error


def _refused(path: Path, problem: str, remedy: str = _REMEDY) -> SourceUnreadable:
    return SourceUnreadable(problem, source=path, remedy=remedy)


def _check_record(path: Path, record: bytes, header: LasHeader) -> tuple[int, int]:
    if len(record) < 34:
        raise _refused(path, f"its LASzip record has {len(record)} bytes; it needs 34 and more")
    compressor, coder = struct.unpack_from("<HH", record)
    chunk_size, items = struct.unpack_from("<I", record, 12)[0], record[34:]
    if compressor not in (_UNCHUNKED, 2, 3) or coder != 0:
        raise _refused(
            path, f"LAZ compressor {compressor} with coder {coder} is not known", _REWRITE
        )
    number = struct.unpack_from("<H", record, 32)[0]
    if not number or len(items) < 6 * number:
        raise _refused(path, f"its LASzip record of {len(record)} bytes lists {number} items")
    nbytes = 0
    for at in range(number):
        kind, size, version = struct.unpack_from("<3H", items, 6 * at)
        name, versions = _ITEMS.get(kind, (f"item type {kind}", ()))
        if version not in versions:
            raise _refused(path, f"{name} in LAZ coding version {version} is not known", _REWRITE)
        nbytes += size
    if nbytes != header.record_nbytes:
        raise _refused(
            path,
            f"its LASzip record describes {nbytes} bytes a point, its header "
            f"{header.record_nbytes}",
        )
    if not chunk_size and compressor != _UNCHUNKED:
        raise _refused(path, "its LASzip record says that chunks hold no points")
    return int(compressor), int(chunk_size)


def _check_table(path: Path, file: BinaryIO, header: LasHeader, chunk_size: int) -> int:
    """Check how long the chunk table says it is; return where it is."""
    nbytes = path.stat().st_size
    begin = header.points_at + 8
    file.seek(header.points_at)
    table_at = _int64(file.read(8))
    if table_at == -1:
        # Writers that could not go back put the offset at the very end.
        file.seek(max(nbytes - 8, 0))
        table_at = _int64(file.read(8))
    if not begin <= table_at <= nbytes - 8:
        raise _refused(
            path,
            f"it is truncated or was not finished: its chunk table should be at byte {table_at} "
            f"of {nbytes}",
        )
    file.seek(table_at)
    chunks = int(struct.unpack("<II", file.read(8))[1])
    # The first point of each chunk is stored as it is.
    most = (table_at - begin) // header.record_nbytes
    fixed = chunk_size != _VARIABLE
    expected = -(-header.count // chunk_size) if fixed else chunks
    if not 0 < chunks <= most or chunks != expected:
        raise _refused(
            path,
            f"its chunk table lists {chunks} chunks for {header.count} points in "
            f"{table_at - begin} bytes"
            + (f"; chunks of {chunk_size} points would be {expected}" if fixed else ""),
        )
    return table_at


def _int64(raw: bytes) -> int:
    return int.from_bytes(raw, "little", signed=True) if len(raw) == 8 else -2
