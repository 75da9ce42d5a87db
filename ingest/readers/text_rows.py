"""Rows of numbers in text files: found without keeping them, parsed many at once.

A file is indexed by where every so many rows begin, so that a worker reads its rows alone. Lines
are those of the file, counted from 1 in messages.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv

from tiling.errors import SourceUnreadable

_BLOCK_NBYTES = 1 << 24
_EVERY = 4096
_SPACE, _NEWLINE = 32, 10


@dataclass(frozen=True, slots=True)
class RowRange:
    """Where consecutive rows are; picklable.

    Attributes:
        at, nbytes: which bytes of the file hold them.
        skip: rows at the beginning of those bytes that come before the first one wanted.
        line: number of the line at `at`, from 1.
    """

    at: int
    nbytes: int
    skip: int
    line: int


@dataclass(frozen=True, slots=True)
class RowIndex:
    """Where rows begin.

    Attributes:
        count: number of rows.
        offsets: (B,) int64; file offset of every `_EVERY`-th row.
        end: file offset after the last row.
        line: number of the line of the first row, from 1.
    """

    count: int
    offsets: NDArray[np.int64]
    end: int
    line: int

    def range(self, start: int, end: int) -> RowRange:
        """Return where the rows from `start` to before `end` are."""
        first, last = start // _EVERY, -(-end // _EVERY)
        at = int(self.offsets[first])
        stop = int(self.offsets[last]) if last < len(self.offsets) else self.end
        return RowRange(at, stop - at, start - first * _EVERY, self.line + first * _EVERY)


def index_rows(path: Path, begin: int, line: int, count: int | None = None) -> RowIndex:
    """Find the rows of a file.

    Args:
        path: the file.
        begin: where the first row begins.
        line: number of its line.
        count: how many rows there must be; None for all, blank lines at the end left out.

    Raises:
        SourceUnreadable: there are fewer.
    """
    end = _last_mark(path, begin)
    offsets, rows = [np.array([begin], np.int64)], 0
    with path.open("rb") as file:
        file.seek(begin)
        at = begin
        while at < end:
            block = np.frombuffer(file.read(min(_BLOCK_NBYTES, end - at)), np.uint8)
            breaks = np.flatnonzero(block == _NEWLINE)
            # The rows that begin after these line breaks are rows + 1, rows + 2, ...
            offsets.append(breaks[(-rows - 1) % _EVERY :: _EVERY] + at + 1)
            rows += len(breaks)
            at += len(block)
    rows += end > begin
    found = np.concatenate(offsets)
    if count is not None:
        if rows < count:
            raise SourceUnreadable(
                f"its header counts {count} points, and {rows} rows follow",
                source=path,
                remedy="copy it again from where it came",
            )
        rows = count
    return RowIndex(rows, found, end, line)


def _last_mark(path: Path, begin: int) -> int:
    """Return the offset after the last byte that is not blank."""
    end = path.stat().st_size
    with path.open("rb") as file:
        while end > begin:
            at = max(begin, end - 4096)
            file.seek(at)
            tail = file.read(end - at).rstrip()
            if tail:
                return at + len(tail)
            end = at
    return begin


def read_rows(
    path: Path, where: RowRange, count: int, width: int, delimiter: bytes
) -> NDArray[np.float64]:
    """Parse rows of numbers.

    Args:
        path: the file.
        where: from `RowIndex.range`.
        count: number of rows.
        width: numbers in a row.
        delimiter: what parts them; blanks and tabs if empty.

    Returns:
        (count, width) float64.

    Raises:
        SourceUnreadable: a row that has more or fewer numbers, or something else; with its line.
    """
    with path.open("rb") as file:
        file.seek(where.at)
        raw = file.read(where.nbytes)
    begin = 0
    for _ in range(where.skip):
        begin = raw.index(b"\n", begin) + 1
    raw = raw[begin:]
    table = _quick(raw, width, delimiter)
    if table is None or len(table) < count:
        table = _thorough(path, raw, where.line + where.skip, count, width, delimiter)
    return table[:count]


def _quick(raw: bytes, width: int, delimiter: bytes) -> NDArray[np.float64] | None:
    """Parse rows by Arrow; None where it wants them otherwise, or where one is at fault."""
    if not delimiter:
        # One blank or tab between numbers is the usual case; Arrow takes no more than one.
        delimiter = b"\t" if b"\t" in raw[:200] else b" "
    names = [str(column) for column in range(width)]
    try:
        table = csv.read_csv(
            pa.py_buffer(raw),
            csv.ReadOptions(use_threads=False, column_names=names, block_size=1 << 22),
            csv.ParseOptions(
                delimiter=chr(delimiter[0]), quote_char=False, ignore_empty_lines=False
            ),
            csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.float64()), null_values=[], check_utf8=False
            ),
        )
    except pa.ArrowInvalid:
        return None
    return np.stack([table.column(name).to_numpy() for name in names], axis=1)


def _thorough(
    path: Path, raw: bytes, line: int, count: int, width: int, delimiter: bytes
) -> NDArray[np.float64]:
    """Parse rows however they are spaced, and name the line of one that is at fault."""
    blank = b"\t\r" + delimiter
    text = raw.translate(bytes.maketrans(blank, b" " * len(blank)))
    rows = _rows_of(text)[: count + 1]
    text, raw = text[: rows[-1]], raw[: rows[-1]]
    marks = np.frombuffer(text, np.uint8) > _SPACE
    begins = marks & ~np.concatenate([[False], marks[:-1]])
    uneven = np.add.reduceat(begins, rows[:-1]) != width
    if delimiter:
        parts = np.add.reduceat(np.frombuffer(raw, np.uint8) == delimiter[0], rows[:-1])
        uneven |= parts != width - 1
    if uneven.any():
        row = int(np.flatnonzero(uneven)[0])
        raise _unreadable(path, line + row, raw[rows[row] : rows[row + 1]], width)
    try:
        with warnings.catch_warnings():
            # Text that is no number ends the parsing with a warning and the numbers before it.
            warnings.simplefilter("error", DeprecationWarning)
            values = np.fromstring(text, dtype=np.float64, sep=" ")
    except (ValueError, DeprecationWarning) as error:
        row = _first_bad(text, rows)
        raise _unreadable(path, line + row, raw[rows[row] : rows[row + 1]], width) from error
    return values.reshape(-1, width)


def _rows_of(text: bytes) -> NDArray[np.int64]:
    """Return where rows begin, and the end of the last."""
    breaks = np.flatnonzero(np.frombuffer(text, np.uint8) == _NEWLINE) + 1
    ends = breaks if text.endswith(b"\n") else np.append(breaks, len(text))
    return np.append(np.zeros(1, np.int64), ends.astype(np.int64))


def _first_bad(text: bytes, rows: NDArray[np.int64]) -> int:
    for row in range(len(rows) - 1):
        try:
            [float(each) for each in text[rows[row] : rows[row + 1]].split()]
        except ValueError:
            return row
    return 0


def _unreadable(path: Path, line: int, raw: bytes, width: int) -> SourceUnreadable:
    shown = raw[:80].decode("utf-8", "replace").strip()
    return SourceUnreadable(
        f"line {line} does not hold {width} numbers: {shown!r}",
        source=path,
        remedy="correct or remove the line; numbers are written with a point, like 12.5",
    )
