"""The points of LAS and LAZ, decoded in a worker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingest.readers.las_records import LasLayout
from ingest.readers.laz import LazRange, decode
from ingest.readers.point_chunks import PointChunk
from tiling.errors import SourceUnreadable

_BLOCK_POINTS = 8192


@dataclass(frozen=True, slots=True)
class PackedPoints:
    """Where the points of a chunk are, and what they look like; picklable.

    Attributes:
        layout: of its records.
        where: the range of a LAZ, or the file offset in a LAS.
    """

    layout: LasLayout
    where: LazRange | int


def decode_las(
    chunk: PointChunk, names: Sequence[str]
) -> tuple[NDArray[np.float64], dict[str, NDArray[Any]]]:
    """Read a chunk's points as the file has them; a `Decoder`."""
    packed: PackedPoints = chunk.layout
    layout = packed.layout
    raw: bytes | memoryview
    if isinstance(packed.where, int):
        raw = _plain(chunk, packed.where, layout.record_nbytes)
    else:
        raw = decode(chunk.path, packed.where, chunk.count, layout.selection(names))
    records = layout.records(raw)
    held = {column.name: column for column in layout.columns if column.name in names}
    xyz = np.empty((len(records), 3))
    columns = {name: column.empty(len(records)) for name, column in held.items()}
    # A block at a time, so that records come from the cache for every column but the first.
    for begin in range(0, len(records), _BLOCK_POINTS):
        block = records[begin : begin + _BLOCK_POINTS]
        here = slice(begin, begin + len(block))
        layout.xyz(block, xyz[here])
        for name, values in columns.items():
            values[here] = layout.column(block, name)
    return xyz, columns


def _plain(chunk: PointChunk, at: int, nbytes: int) -> bytes:
    with chunk.path.open("rb") as file:
        file.seek(at)
        raw = file.read(chunk.count * nbytes)
    if len(raw) < chunk.count * nbytes:
        raise SourceUnreadable(
            f"it ends {chunk.count * nbytes - len(raw)} bytes early: it was cut while it was read",
            source=chunk.path,
            remedy="copy it again from where it came",
        )
    return raw
