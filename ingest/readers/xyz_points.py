"""Rows of text as points, decoded in a worker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingest.readers.point_chunks import PointChunk
from ingest.readers.point_names import as_type, assemble
from ingest.readers.text_rows import RowRange, read_rows


@dataclass(frozen=True, slots=True)
class TextPoints:
    """Where the rows of a chunk are, and what they hold; picklable.

    Attributes:
        fields: name and NumPy type of each column, in order; ``-`` where it is left out.
        delimiter: what parts the columns; blanks and tabs if empty.
        where: the rows.
    """

    fields: tuple[tuple[str, str], ...]
    delimiter: bytes
    where: RowRange


def decode_text(
    chunk: PointChunk, names: Sequence[str]
) -> tuple[NDArray[np.float64], dict[str, NDArray[Any]]]:
    """Read a chunk's points as the file has them; a `Decoder`."""
    points: TextPoints = chunk.layout
    width = len(points.fields)
    table = read_rows(chunk.path, points.where, chunk.count, width, points.delimiter)
    wanted = {*"xyz", *names, *(("red", "green", "blue") if "rgb" in names else ())}
    fields = {
        name: as_type(chunk.path, name, table[:, column], kind)
        for column, (name, kind) in enumerate(points.fields)
        if name in wanted
    }
    return assemble(chunk.path, fields, names)
