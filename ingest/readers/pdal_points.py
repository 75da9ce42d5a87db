"""Points that PDAL streams, decoded in a worker; those before a chunk are read and left."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingest.readers.point_chunks import PointChunk
from ingest.readers.point_names import assemble, known_name
from tiling.errors import SourceUnreadable

# Points that PDAL hands over at once.
SIZE = 1 << 18
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_NAMES = {"GpsTime": "gps_time", "ScanAngleRank": "scan_angle", "Infrared": "nir"}


@dataclass(frozen=True, slots=True)
class PdalPoints:
    """Which points of a file make a chunk; picklable."""

    start: int
    count: int


def decode_pdal(
    chunk: PointChunk, names: Sequence[str]
) -> tuple[NDArray[np.float64], dict[str, NDArray[Any]]]:
    """Read a chunk's points as the file has them; a `Decoder`."""
    points: PdalPoints = chunk.layout
    end, at, taken = points.start + points.count, 0, []
    with streaming(chunk.path) as (_, blocks):
        for block in blocks:
            begin, stop = max(points.start - at, 0), min(end - at, len(block))
            if begin < stop:
                # PDAL fills the same memory again.
                taken.append(block[begin:stop].copy())
            at += len(block)
            if at >= end:
                break
    if at < end:
        raise SourceUnreadable(
            f"PDAL ends after {at} points, {end} and more are there",
            source=chunk.path,
            remedy="the file was changed while it was read: start again",
        )
    table = np.concatenate(taken)
    fields = {column_name(field): table[field] for field in table.dtype.names or ()}
    return assemble(chunk.path, fields, names)


def column_name(field: str) -> str:
    """Return the name of a column: ``ReturnNumber`` is ``return_number``."""
    snake = _NAMES.get(field) or _CAMEL.sub("_", field).lower()
    return known_name(snake)


@contextmanager
def streaming(path: Path) -> Iterator[tuple[Any, Iterator[NDArray[Any]]]]:
    """Open a file with PDAL; what it raises becomes `SourceUnreadable`.

    Yields:
        the pipeline, and blocks of points as structured arrays.
    """
    try:
        pdal = import_module("pdal")
    except ModuleNotFoundError as error:
        raise SourceUnreadable(
            f"files that end in {path.suffix} are read by PDAL, which is not installed",
            source=path,
            remedy="install the extra, pip install 'cim-server[pdal]' (it needs the PDAL library), "
            "or convert the file: pdal translate in out.laz",
        ) from error
    pipeline = pdal.Reader(str(path)).pipeline()
    if not pipeline.streamable:
        raise SourceUnreadable(
            f"PDAL reads files that end in {path.suffix} only as a whole",
            source=path,
            remedy="convert it: pdal translate in out.laz",
        )
    try:
        yield pipeline, pipeline.iterator(chunk_size=SIZE)
    except RuntimeError as error:
        raise SourceUnreadable(
            f"PDAL says: {error}", source=path, remedy="copy it again, or export it again"
        ) from error
