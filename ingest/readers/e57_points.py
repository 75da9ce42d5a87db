"""The scans of an E57, decoded in a worker.

libE57 reads a scan from its beginning only, so the points before a chunk are read and left.
Spherical coordinates are range (metres), azimuth and elevation (radians); see ASTM E2807-11, 8.4.4.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pye57 import libe57

from ingest.readers.point_chunks import PointChunk
from ingest.readers.point_names import assemble, known_name
from tiling.errors import SourceUnreadable

CARTESIAN = ("cartesianX", "cartesianY", "cartesianZ")
SPHERICAL = ("sphericalRange", "sphericalAzimuth", "sphericalElevation")
INVALID = ("cartesianInvalidState", "sphericalInvalidState")
_BLOCK_POINTS = 1 << 16
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")


@dataclass(frozen=True, slots=True)
class ScanPart:
    """Consecutive points of one scan; picklable.

    Attributes:
        scan: number of the scan, from 0.
        start, count: which of its points.
    """

    scan: int
    start: int
    count: int


def decode_e57(
    chunk: PointChunk, names: Sequence[str]
) -> tuple[NDArray[np.float64], dict[str, NDArray[Any]]]:
    """Read a chunk's points as the file has them, invalid ones left out; a `Decoder`."""
    parts: tuple[ScanPart, ...] = chunk.layout
    wanted = {column.name: column for column in chunk.columns if column.name in names}
    coordinates: list[NDArray[np.float64]] = []
    columns: dict[str, list[NDArray[Any]]] = {name: [] for name in wanted}
    with reading(chunk.path) as file:
        scans = file.root()["data3D"]
        for part in parts:
            xyz, found = _part(chunk.path, file, scans[part.scan], part, names)
            coordinates.append(xyz)
            for name, column in wanted.items():
                values = found.get(name)
                columns[name].append(column.filled(len(xyz)) if values is None else values)
    return np.concatenate(coordinates), {n: np.concatenate(v) for n, v in columns.items()}


@contextmanager
def reading(path: Path) -> Iterator[Any]:
    """Open a file with libE57, and turn what it raises into `SourceUnreadable`."""
    try:
        file = libe57.ImageFile(str(path), "r")
        try:
            yield file
        finally:
            file.close()
    except libe57.E57Exception as error:
        raise SourceUnreadable(
            f"libE57 says: {str(error).strip().splitlines()[0]}",
            source=path,
            remedy="copy it again from where it came, or export it again",
        ) from error


def fields_of(scan: Any) -> dict[str, str]:
    """Return the NumPy type of each field of a scan's points, by the name E57 gives it."""
    prototype = libe57.StructureNode(scan["points"].prototype())
    nodes = (prototype.get(index) for index in range(prototype.childCount()))
    return {node.elementName(): _type(node) for node in nodes}


def column_name(field: str) -> str:
    """Return the name of a column: ``colorRed`` is ``red``, ``rowIndex`` is ``row_index``."""
    known = known_name(field)
    return known if known != field else _CAMEL.sub("_", field).lower()


def pose_of(scan: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a scan's (3, 3) rotation and (3,) translation; the identity where it has no pose.

    Raises:
        ValueError: its quaternion is no rotation.
    """
    rotation, translation = np.eye(3), np.zeros(3)
    if not scan.isDefined("pose"):
        return rotation, translation
    pose = scan["pose"]
    if pose.isDefined("rotation"):
        w, x, y, z = (float(pose["rotation"][axis].value()) for axis in "wxyz")
        norm = np.sqrt(w * w + x * x + y * y + z * z)
        if not 0.5 < norm < 2:
            raise ValueError(f"the quaternion {w}, {x}, {y}, {z}")
        w, x, y, z = (each / norm for each in (w, x, y, z))
        rotation = np.array(
            [
                [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
                [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
                [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
            ]
        )
    if pose.isDefined("translation"):
        translation = np.array([float(pose["translation"][axis].value()) for axis in "xyz"])
    return rotation, translation


def _type(node: Any) -> str:
    if node.type() == libe57.NodeType.E57_FLOAT:
        single = libe57.FloatNode(node).precision() == libe57.FloatPrecision.E57_SINGLE
        return "f4" if single else "f8"
    if node.type() == libe57.NodeType.E57_INTEGER:
        whole = libe57.IntegerNode(node)
        return str(np.result_type(*map(np.min_scalar_type, (whole.minimum(), whole.maximum()))))
    return "f8"  # integers with a scale and an offset, which libE57 applies


def _part(
    path: Path, file: Any, scan: Any, part: ScanPart, names: Sequence[str]
) -> tuple[NDArray[np.float64], dict[str, NDArray[Any]]]:
    types = fields_of(scan)
    axes = CARTESIAN if set(CARTESIAN) <= types.keys() else SPHERICAL
    colours = ("red", "green", "blue") if "rgb" in names else ()
    read = {
        field: "f8" if field in axes else kind
        for field, kind in types.items()
        if field in (*axes, *INVALID) or column_name(field) in (*names, *colours)
    }
    fields = _records(path, file, scan, part, read)
    state = fields.pop(f"{'cartesian' if axes == CARTESIAN else 'spherical'}InvalidState", None)
    if state is not None:
        fields = {name: values[state == 0] for name, values in fields.items()}
    local = np.stack([fields.pop(axis) for axis in axes], axis=1)
    if axes == SPHERICAL:
        local = _from_spherical(local)
    rotation, translation = pose_of(scan)
    # Term by term: a matrix product rounds differently for different numbers of points.
    x, y, z = local.T
    placed = [
        row[0] * x + row[1] * y + row[2] * z + shift
        for row, shift in zip(rotation, translation, strict=True)
    ]
    named = {column_name(field): values for field, values in fields.items()}
    return assemble(path, {**named, **dict(zip("xyz", placed, strict=True))}, names)


def _records(
    path: Path, file: Any, scan: Any, part: ScanPart, types: Mapping[str, str]
) -> dict[str, NDArray[Any]]:
    size = min(_BLOCK_POINTS, part.start + part.count)
    blocks = {field: np.empty(size, kind) for field, kind in types.items()}
    buffers = libe57.VectorSourceDestBuffer()
    for field, block in blocks.items():
        buffers.append(libe57.SourceDestBuffer(file, field, block, size, True, True))
    found = {field: np.empty(part.count, kind) for field, kind in types.items()}
    reader, at, end = scan["points"].reader(buffers), 0, part.start + part.count
    try:
        while at < end:
            got = reader.read()
            if not got:
                raise SourceUnreadable(
                    f"scan {part.scan} ends after {at} points, {end} and more are announced",
                    source=path,
                    remedy="copy it again from where it came",
                )
            begin, stop = max(part.start - at, 0), min(end - at, got)
            if begin < stop:
                to = at + begin - part.start
                for field, block in blocks.items():
                    found[field][to : to + stop - begin] = block[begin:stop]
            at += got
    finally:
        reader.close()
    return found


def _from_spherical(rae: NDArray[np.float64]) -> NDArray[np.float64]:
    reach, azimuth, elevation = rae.T
    flat = reach * np.cos(elevation)
    return np.stack(
        [flat * np.cos(azimuth), flat * np.sin(azimuth), reach * np.sin(elevation)], axis=1
    )
