"""Shapefiles written byte by byte, so that encodings and damage are exactly what a test wants."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

POINT, POLYGON = 1, 5


@dataclass(frozen=True, slots=True)
class Column:
    name: bytes
    width: int
    type: bytes = b"C"
    decimals: int = 0


def write_dbf(
    path: Path,
    columns: Sequence[Column],
    rows: Sequence[Sequence[bytes]],
    *,
    language: int = 0,
    deleted: frozenset[int] = frozenset(),
) -> None:
    """Write a dBASE III table; numbers right-aligned, text left-aligned, cut at the width."""
    record = 1 + sum(c.width for c in columns)
    header = 33 + 32 * len(columns)
    out = bytearray(
        struct.pack("<BBBBIHH17xBxx", 3, 126, 1, 1, len(rows), header, record, language)
    )
    for c in columns:
        out += c.name[:11].ljust(11, b"\0") + c.type + bytes(4)
        out += bytes([c.width, c.decimals]) + bytes(14)
    out += b"\r"
    for i, row in enumerate(rows):
        out += b"*" if i in deleted else b" "
        for c, value in zip(columns, row, strict=True):
            cut = value[: c.width]
            out += cut.ljust(c.width) if c.type == b"C" else cut.rjust(c.width)
    path.write_bytes(bytes(out) + b"\x1a")


def _header(words: int, kind: int, points: Sequence[tuple[float, float]]) -> bytes:
    xs, ys = [p[0] for p in points] or [0.0], [p[1] for p in points] or [0.0]
    return struct.pack(">7i", 9994, 0, 0, 0, 0, 0, words) + struct.pack(
        "<2i8d", 1000, kind, min(xs), min(ys), max(xs), max(ys), 0, 0, 0, 0
    )


def write_points(
    folder: Path,
    stem: str,
    columns: Sequence[Column],
    rows: Sequence[Sequence[bytes]],
    *,
    cpg: str | None = None,
    prj: str | None = "GEOGCS",
    language: int = 0,
    null_shapes: frozenset[int] = frozenset(),
    deleted: frozenset[int] = frozenset(),
) -> Path:
    """Write a Shapefile of points, one per row, near Suizhou; return the path of the .shp."""
    points = [(113.0 + i * 1e-3, 31.5 + i * 1e-3) for i in range(len(rows))]
    shapes = [
        struct.pack("<i", 0) if i in null_shapes else struct.pack("<i2d", POINT, *p)
        for i, p in enumerate(points)
    ]
    shp = folder / f"{stem}.shp"
    at, body, index = 50, b"", b""
    for i, shape in enumerate(shapes):
        head = struct.pack(">2i", i + 1, len(shape) // 2)
        index += struct.pack(">2i", at, len(shape) // 2)
        body += head + shape
        at += (len(head) + len(shape)) // 2
    shp.write_bytes(_header(at, POINT, points) + body)
    shp.with_suffix(".shx").write_bytes(_header(50 + len(index) // 2, POINT, points) + index)
    write_dbf(shp.with_suffix(".dbf"), columns, rows, language=language, deleted=deleted)
    if cpg is not None:
        shp.with_suffix(".cpg").write_text(cpg, encoding="ascii")
    if prj is not None:
        shp.with_suffix(".prj").write_text(CGCS2000 if prj == "GEOGCS" else prj, encoding="utf-8")
    return shp


CGCS2000 = (
    'GEOGCS["GCS_China_Geodetic_Coordinate_System_2000",DATUM["D_China_2000",'
    'SPHEROID["CGCS2000",6378137.0,298.257222101]],PRIMEM["Greenwich",0.0],'
    'UNIT["Degree",0.0174532925199433]]'
)
