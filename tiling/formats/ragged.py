"""Rows of bytes of unequal length in one buffer: how messages are assembled without a row loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class RaggedBytes:
    """N rows of bytes, end to end.

    Attributes:
        data: (sum of lengths,) uint8.
        lengths: (N,) int64, bytes of each row.
    """

    data: NDArray[np.uint8]
    lengths: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.lengths)

    def tobytes(self) -> bytes:
        """Return all rows end to end."""
        return self.data.tobytes()

    def group(self, counts: ArrayLike) -> RaggedBytes:
        """Join consecutive rows: row i of the result holds the next ``counts[i]`` rows.

        Args:
            counts: (M,) int64 whose sum is N; zero makes an empty row.
        """
        stops = np.cumsum(np.asarray(counts, dtype=np.int64))
        ends = np.concatenate(([0], np.cumsum(self.lengths)))[np.concatenate(([0], stops))]
        return RaggedBytes(self.data, np.diff(ends))

    def take(self, rows: NDArray[np.int64]) -> RaggedBytes:
        """Return the rows at (M,) positions, in that order."""
        starts = np.cumsum(self.lengths) - self.lengths
        lengths = self.lengths[rows]
        return RaggedBytes(self.data[_spans(starts[rows], lengths)], lengths)

    @classmethod
    def constant(cls, value: bytes, rows: int) -> RaggedBytes:
        """Return `rows` rows that all hold `value`."""
        one = np.frombuffer(value, dtype=np.uint8)
        return cls(np.tile(one, rows), np.full(rows, len(value), dtype=np.int64))

    @classmethod
    def fixed(cls, values: NDArray[np.generic]) -> RaggedBytes:
        """Return the little-endian bytes of each of (N,) numbers."""
        width = values.dtype.itemsize
        data = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<")).view(np.uint8)
        return cls(data, np.full(len(values), width, dtype=np.int64))

    @classmethod
    def text(cls, values: pa.Array) -> RaggedBytes:
        """Return the UTF-8 bytes of a string array without nulls."""
        import pyarrow as pa  # only text needs Arrow
        import pyarrow.compute as pc

        array = pc.cast(values, pa.large_string())
        if len(array) == 0:
            return cls(np.empty(0, dtype=np.uint8), np.empty(0, dtype=np.int64))
        _, offsets_buffer, data_buffer = array.buffers()
        offsets = np.frombuffer(offsets_buffer, dtype=np.int64)
        offsets = offsets[array.offset : array.offset + len(array) + 1]
        raw = np.frombuffer(data_buffer or b"", dtype=np.uint8)[offsets[0] : offsets[-1]]
        return cls(raw, np.diff(offsets))

    @classmethod
    def beside(cls, columns: Sequence[RaggedBytes]) -> RaggedBytes:
        """Join columns of N rows each, row by row."""
        lengths: NDArray[np.int64] = np.stack([c.lengths for c in columns]).sum(axis=0)
        data = np.empty(int(lengths.sum()), dtype=np.uint8)
        cursor = np.cumsum(lengths) - lengths
        for column in columns:
            data[_spans(cursor, column.lengths)] = column.data
            cursor = cursor + column.lengths
        return cls(data, lengths)

    @classmethod
    def below(cls, parts: Sequence[RaggedBytes]) -> RaggedBytes:
        """Return the rows of all parts, one part after the other."""
        return cls(
            np.concatenate([np.empty(0, dtype=np.uint8), *(p.data for p in parts)]),
            np.concatenate([np.empty(0, dtype=np.int64), *(p.lengths for p in parts)]),
        )


def _spans(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    # Positions starts[i] .. starts[i] + lengths[i] - 1 of every row, end to end.
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(int(lengths.sum()), dtype=np.int64)
