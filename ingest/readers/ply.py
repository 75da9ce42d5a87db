"""PLY: the vertices of a polygon file as points; text or binary, properties of any name.

Layout: Turk, "The PLY Polygon File Format" (1994). A property that is named like one of LAS is
that; any other keeps its name. Faces are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ingest.readers.base import SNIFF_NBYTES
from ingest.readers.ply_points import PlyPoints
from ingest.readers.point_file import Cut, PointFile
from ingest.readers.point_files import PointFilesReader
from ingest.readers.point_names import known_name, points_of
from ingest.readers.text_rows import RowIndex, index_rows
from tiling.errors import SourceUnreadable
from tiling.findings import Findings

_TYPES = {
    **dict.fromkeys(("char", "int8"), "i1"),
    **dict.fromkeys(("uchar", "uint8"), "u1"),
    **dict.fromkeys(("short", "int16"), "i2"),
    **dict.fromkeys(("ushort", "uint16"), "u2"),
    **dict.fromkeys(("int", "int32"), "i4"),
    **dict.fromkeys(("uint", "uint32"), "u4"),
    **dict.fromkeys(("float", "float32"), "f4"),
    **dict.fromkeys(("double", "float64"), "f8"),
}
_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
_REMEDY = "export it again as binary PLY with the vertices first"


@dataclass(frozen=True, slots=True)
class _Element:
    """An element of the header: how many there are, and name and type of each property."""

    name: str
    count: int
    properties: tuple[tuple[str, str], ...]

    @property
    def nbytes(self) -> int | None:
        """Size of all of them in a binary file; None where lists make it unknown."""
        if any(kind == "list" for _, kind in self.properties):
            return None
        return self.count * sum(np.dtype(kind).itemsize for _, kind in self.properties)


class PlyReader(PointFilesReader):
    """Reads PLY; see `ingest.readers.point_files.PointFilesReader`."""

    name = "ply"
    suffixes = (".ply",)

    @classmethod
    def knows(cls, path: Path) -> bool:
        """Say whether the file begins as PLY does."""
        with path.open("rb") as file:
            return file.read(4) in (b"ply\n", b"ply\r")

    def describe(self, path: Path, findings: Findings) -> PointFile:
        """Read a file's header, and count the rows of a text.

        Raises:
            SourceUnreadable: it is no PLY, or shorter than its header says.
            FieldInvalid: its vertices have no x, y or z.
        """
        order, elements, begin = _header(path)
        at, line = begin, 1
        for element in elements:
            if element.name == "vertex":
                break
            nbytes = element.nbytes
            if nbytes is None and order:
                raise _refused(path, f"lists of {element.name!r} come before the vertices")
            at, line = at + (nbytes or 0), line + element.count
        else:
            raise _refused(path, "it has no vertices")
        if any(kind == "list" for _, kind in element.properties):
            raise _refused(path, "its vertices hold lists")
        others = sum(other.count for other in elements if other is not element)
        message = "faces and other elements are left out; the vertices are the points"
        findings.add("elements-dropped", "drop", message, others, [path.name])
        names = [known_name(name) for name, _ in element.properties]
        columns, _ = points_of(path, names, [kind for _, kind in element.properties])
        fields = tuple(zip(names, (order + kind for _, kind in element.properties), strict=True))
        where: RowIndex | int = at
        if not order:
            with path.open("rb") as file:
                head = file.read(begin).count(b"\n")
            where = index_rows(path, begin, head + 1, line - 1 + element.count)
        elif path.stat().st_size < at + (element.nbytes or 0):
            raise _refused(
                path,
                f"it is truncated: its header counts {element.count} vertices, {element.nbytes} "
                f"bytes, and {path.stat().st_size - at} bytes follow",
                "copy it again from where it came",
            )
        label = "PLY, text" if not order else "PLY, binary"
        known = (fields, where, line - 1)
        return PointFile(path, label, element.count, columns, None, None, None, known)

    def cut(self, file: PointFile) -> Cut:
        """Say how the points are cut: anywhere."""
        fields, where, before = file.known
        if isinstance(where, RowIndex):
            return Cut("ply", lambda a, b: PlyPoints(fields, where.range(before + a, before + b)))
        nbytes = sum(np.dtype(kind).itemsize for _, kind in fields)
        return Cut("ply", lambda a, b: PlyPoints(fields, where + a * nbytes))


def _header(path: Path) -> tuple[str, list[_Element], int]:
    """Return the byte order, the elements, and where the data begins."""
    with path.open("rb") as file:
        head = file.read(SNIFF_NBYTES)
    end = head.find(b"end_header")
    newline = head.find(b"\n", end)
    if end < 0 or newline < 0:
        raise _refused(path, f"its header does not end within {SNIFF_NBYTES} bytes")
    order, elements = None, []
    for line in head[:end].decode("utf-8", "replace").splitlines():
        match line.split():
            case ["format", name, _] if name in _ORDERS:
                order = _ORDERS[name]
            case ["element", name, count] if count.isdecimal():
                elements.append(_Element(name, int(count), ()))
            case ["property", "list", _, _, name] if elements:
                last = elements.pop()
                elements.append(_Element(last.name, last.count, (*last.properties, (name, "list"))))
            case ["property", kind, name] if elements and kind in _TYPES:
                last, field = elements.pop(), (name, _TYPES[kind])
                elements.append(_Element(last.name, last.count, (*last.properties, field)))
            case ["ply"] | ["comment", *_] | ["obj_info", *_] | []:
                pass
            case _:
                raise _refused(path, f"its header says {line[:60]!r}")
    if order is None:
        raise _refused(path, "its header states no format")
    return order, elements, newline + 1


def _refused(path: Path, problem: str, remedy: str = _REMEDY) -> SourceUnreadable:
    return SourceUnreadable(problem, source=path, remedy=remedy)
