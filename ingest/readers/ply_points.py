"""The vertices of a PLY, decoded in a worker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingest.readers.point_chunks import PointChunk
from ingest.readers.point_names import as_type, assemble
from ingest.readers.text_rows import RowRange, read_rows
from tiling.errors import SourceUnreadable


@dataclass(frozen=True, slots=True)
class PlyPoints:
    """Where the vertices of a chunk are, and what they look like; picklable.

    Attributes:
        fields: name and NumPy type of each property, in order; ``-`` where it is left out.
        where: rows of a text, or the file offset in a binary.
    """

    fields: tuple[tuple[str, str], ...]
    where: RowRange | int


def decode_ply(
    chunk: PointChunk, names: Sequence[str]
) -> tuple[NDArray[np.float64], dict[str, NDArray[Any]]]:
    """Read a chunk's points as the file has them; a `Decoder`."""
    points: PlyPoints = chunk.layout
    if isinstance(points.where, int):
        fields = _binary(chunk, points.where, points.fields)
    else:
        table = read_rows(chunk.path, points.where, chunk.count, len(points.fields), b"")
        fields = {
            name: as_type(chunk.path, name, table[:, column], kind)
            for column, (name, kind) in enumerate(points.fields)
            if name != "-"
        }
    return assemble(chunk.path, fields, names)


def _binary(
    chunk: PointChunk, at: int, fields: tuple[tuple[str, str], ...]
) -> dict[str, NDArray[Any]]:
    layout = np.dtype([(f"{n}", kind) for n, (_, kind) in enumerate(fields)])
    with chunk.path.open("rb") as file:
        file.seek(at)
        raw = file.read(chunk.count * layout.itemsize)
    if len(raw) < chunk.count * layout.itemsize:
        raise SourceUnreadable(
            "it was cut while it was read", source=chunk.path, remedy="copy it again"
        )
    records = np.frombuffer(raw, layout)
    return {
        name: records[f"{n}"].astype(np.dtype(kind).newbyteorder("="))
        for n, (name, kind) in enumerate(fields)
        if name != "-"
    }
