"""What is known of a point cloud before its points are read, and the pieces workers read it in.

A `PointChunk` is a description, not data: it is pickled to a worker, which decodes it with
`ingest.readers.points.read_chunk`. Chunks carry everything that decoding needs; frames are changed
elsewhere. Coordinates that a chunk yields have their easting or longitude first and heights in
metres, whatever unit the file measures heights in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiling.crs import SpatialRef

Bounds = tuple[float, float, float, float, float, float]

# What a worker reads at once when nobody says otherwise: some 100 MB decoded.
CHUNK_POINTS = 1_000_000


@dataclass(frozen=True, slots=True)
class PointOptions:
    """What the user declares about points; picklable.

    Attributes:
        height_unit: ``metre``, ``foot`` or ``us-foot``; wins over what files state.
        columns: of text files, the name of each column, ``x``, ``y`` and ``z`` among them, ``-``
            for one that is left out.
        drop_withheld: whether points with the withheld flag are left out.
        colour_depth: 8 or 16 bits in 16-bit colour fields; None: decided over the points.
    """

    height_unit: str | None = None
    columns: tuple[str, ...] = ()
    drop_withheld: bool = False
    colour_depth: int | None = None


@dataclass(frozen=True, slots=True)
class PointColumn:
    """Something measured at every point.

    Attributes:
        name: of the LAS specification where it has one, in snake case; ``rgb`` for colours.
        dtype: NumPy name of the type of one value, e.g. ``uint16``.
        width: values a point has: 1, or k where the column is (N, k).
        no_data: the value that says nothing was measured; None where there is none.
        description: of the source, for people.
    """

    name: str
    dtype: str
    width: int = 1
    no_data: float | None = None
    description: str = ""

    def filled(self, count: int) -> NDArray[Any]:
        """Return `count` rows of what stands for "not measured": no_data, NaN, or 0."""
        rows = self.empty(count)
        missing = self.no_data
        if missing is None:
            missing = np.nan if rows.dtype.kind == "f" else 0
        rows[...] = missing
        return rows

    def empty(self, count: int) -> NDArray[Any]:
        """Return `count` rows that hold nothing yet: (N,), or (N, width)."""
        return np.empty((count,) if self.width == 1 else (count, self.width), self.dtype)


@dataclass(frozen=True, slots=True)
class PointFacts:
    """What the headers of a point cloud say.

    Attributes:
        count: number of points.
        columns: what `read_chunk` yields when it is asked for everything.
        bounds: (xmin, ymin, zmin, xmax, ymax, zmax) in the first file's frame, heights in metres;
            None for an empty cloud.
        scale: the finest quantum of the coordinates, in the file's units; None for floats.
        colour: type of the colours, ``uint8`` or ``uint16``; None where there are none. Whether
            16-bit fields hold 8-bit values is decided over the points: `ColourEvidence`.
        files: number of files.
        formats: how many files there are of each format, e.g. ``{"LAS 1.4, format 7, LAZ": 12}``.
    """

    count: int
    columns: tuple[PointColumn, ...]
    bounds: Bounds | None
    scale: tuple[float, float, float] | None
    colour: str | None
    files: int
    formats: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the facts as plans and reports show them."""
        return {
            "points": self.count,
            "columns": {c.name: c.dtype + (f" x {c.width}" * (c.width > 1)) for c in self.columns},
            "described": {c.name: c.description for c in self.columns if c.description},
            "bounds": None if self.bounds is None else list(self.bounds),
            "scale": None if self.scale is None else list(self.scale),
            "colour": self.colour,
            "files": self.files,
            "formats": dict(self.formats),
        }


@dataclass(frozen=True, slots=True)
class PointChunk:
    """Consecutive points of one file; picklable.

    Attributes:
        path: the file.
        format: which decoder reads it; a key of `ingest.readers.points.DECODERS`.
        first: ordinal of the first point in the whole source.
        start: ordinal of the first point in the file.
        count: number of points.
        ref: frame of the coordinates that `read_chunk` returns.
        columns: the source's columns; what the file lacks is filled.
        bounds: what the file's header says of all its points, in the units of `ref`, heights in
            metres; None where it says nothing.
        z_unit_m: metres in the file's unit of height.
        geocentric: the file holds ECEF metres; they are decoded to longitude, latitude, height.
        layout: what the decoder of `format` needs to know of the file.
        drop_withheld: whether points with the withheld flag are left out.
    """

    path: Path
    format: str
    first: int
    start: int
    count: int
    ref: SpatialRef
    columns: tuple[PointColumn, ...]
    bounds: Bounds | None
    z_unit_m: float
    geocentric: bool
    layout: Any
    drop_withheld: bool = False
