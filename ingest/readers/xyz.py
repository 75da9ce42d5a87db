"""Points as text: XYZ, PTS, TXT, ASC and CSV; delimited by blanks, tabs, commas or semicolons.

What the columns are is said by the user, by a line of names, or by the format (PTS); three columns
are x, y and z. Anything else is refused rather than guessed. A CSV with named columns is a table of
features, unless `--point-columns` says that it is a cloud.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ingest.readers.point_file import Cut, PointFile
from ingest.readers.point_files import PointFilesReader
from ingest.readers.point_names import known_name, points_of
from ingest.readers.text_rows import index_rows
from ingest.readers.xyz_points import TextPoints
from tiling.errors import FieldInvalid, SourceUnreadable
from tiling.findings import Findings

_HEAD_NBYTES = 16 * 1024
_TYPES = {
    **dict.fromkeys(("classification", "return_number", "number_of_returns"), "u1"),
    **dict.fromkeys(("red", "green", "blue", "point_source_id"), "u2"),
    "intensity": "f4",
}
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|nan|[+-]?inf", re.IGNORECASE)
# Columns of Leica's PTS, by their number; the first line is the number of points.
_PTS = {
    3: "x y z",
    4: "x y z intensity",
    6: "x y z red green blue",
    7: "x y z intensity red green blue",
}


@dataclass(frozen=True, slots=True)
class _Head:
    """What the first lines say.

    Attributes:
        begin: file offset of the first row.
        line: number of its line, from 1.
        delimiter: what parts its columns.
        row: its columns.
        names: of the columns, where a line says them.
        count: of the points, where a line says it.
    """

    begin: int
    line: int
    delimiter: bytes
    row: tuple[str, ...]
    names: tuple[str, ...]
    count: int | None


class XyzReader(PointFilesReader):
    """Reads delimited text; see `ingest.readers.point_files.PointFilesReader`."""

    name = "xyz"
    suffixes = (".xyz", ".pts", ".xyzrgb", ".xyzi")

    def endings(self) -> tuple[str, ...]:
        """Return what files of a folder are named; more where the user says what they hold."""
        return (*self.suffixes, *((".txt", ".csv", ".asc") if self.options.points.columns else ()))

    @classmethod
    def sniff(cls, path: Path) -> bool:
        """Say whether this is rows of three numbers and more, and named as such texts are."""
        if path.is_dir():
            return super().sniff(path)
        # Elevation grids in text share endings, not their first lines.
        named = path.suffix.lower() in (*cls.suffixes, ".txt", ".asc", ".neu")
        return named and path.is_file() and cls.knows(path)

    @classmethod
    def knows(cls, path: Path) -> bool:
        """Say whether the first lines end in a row of three numbers and more."""
        try:
            return _head(path) is not None
        except UnicodeDecodeError:
            return False

    def describe(self, path: Path, findings: Findings) -> PointFile:
        """Look at the first lines, and count the rows.

        Raises:
            FieldInvalid: nothing says what the columns are.
            SourceUnreadable: it does not begin with rows of numbers, or has fewer than it says.
        """
        head = _head(path)
        if head is None:
            raise SourceUnreadable(
                "it does not begin with rows of three numbers and more",
                source=path,
                remedy="remove what comes before them, or begin such lines with #",
            )
        names = self._names(path, head)
        types = [_TYPES.get(name, "f8") for name in names]
        columns, _ = points_of(path, names, types)
        index = index_rows(path, head.begin, head.line)
        if head.count is not None and head.count != index.count:
            raise SourceUnreadable(
                f"its first line counts {head.count} points, and {index.count} rows follow",
                source=path,
                remedy="copy it again, or remove the first line if it says something else",
            )
        fields = tuple(zip(names, types, strict=True))
        label = f"text, {len(names)} columns"
        known = (fields, head.delimiter, index)
        return PointFile(path, label, index.count, columns, None, None, None, known)

    def _names(self, path: Path, head: _Head) -> list[str]:
        declared, width = self.options.points.columns, len(head.row)
        names: Sequence[str] = declared or head.names
        if declared and len(declared) != width:
            raise FieldInvalid(
                f"--point-columns names {len(declared)} columns, its rows have {width}",
                source=path,
                remedy="name them all, with - for one that is left out",
            )
        if not names and (width == 3 or path.suffix.lower() == ".pts"):
            names = _PTS.get(width, "").split()
        if len(names) != width:
            raise FieldInvalid(
                f"nothing says what its {width} columns are, e.g. {' '.join(head.row)[:80]!r}",
                source=path,
                remedy="name them in order: --point-columns x,y,z,intensity,red,green,blue "
                "(- for one that is left out)",
            )
        return [name if name == "-" else known_name(name) for name in names]

    def cut(self, file: PointFile) -> Cut:
        """Say how the points are cut: anywhere."""
        fields, delimiter, index = file.known
        return Cut("xyz", lambda a, b: TextPoints(fields, delimiter, index.range(a, b)))


def _head(path: Path) -> _Head | None:
    """Look at the first lines; None where no row of three numbers and more is among them.

    Raises:
        UnicodeDecodeError: this is no text.
    """
    with path.open("rb") as file:
        raw = file.read(_HEAD_NBYTES)
    if b"\0" in raw:
        return None
    at = 3 if raw.startswith(b"\xef\xbb\xbf") else 0
    names: tuple[str, ...] = ()
    count = None
    for number, line in enumerate(raw[at:].splitlines(keepends=True)):
        text = _decoded(line).strip()
        delimiter, row = _split(text)
        if len(row) >= 3 and all(map(_NUMBER.fullmatch, row)):
            return _Head(at, number + 1, delimiter, row, names, count)
        bare = text.lstrip("#/ ")
        if len(row) == 1 and row[0].isdecimal():
            count = int(row[0])
        elif text and bare == text and (names or number > 20):
            return None  # prose, or rows that are no numbers
        elif len(found := _split(bare)[1]) >= 3:
            names = found
        elif bare == text and text:
            return None
        at += len(line)
    return None


def _decoded(line: bytes) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        return line.decode("gb18030")


def _split(text: str) -> tuple[bytes, tuple[str, ...]]:
    """Part a line at semicolons, commas or blanks: the first of these that it holds."""
    for mark in ";,":
        if mark in text:
            return mark.encode(), tuple(part.strip() for part in text.split(mark))
    return b"", tuple(text.split())
