"""One file of a point cloud, as its header describes it, and how it is cut."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingest.readers.point_chunks import Bounds, PointColumn
from tiling.point_frames import PointFrame


@dataclass(frozen=True, slots=True)
class PointFile:
    """What the header of one file says.

    Attributes:
        path: the file.
        label: its format, for people.
        count: number of points.
        columns: what its points have.
        bounds: (xmin, ymin, zmin, xmax, ymax, zmax) as stated, in the file's own units; None when
            they are not stated.
        scale: quantum of the coordinates, in the file's own units; None for floats.
        frame: as stated by the file or by the user; None when nobody does.
        known: what the family keeps for cutting and decoding.
    """

    path: Path
    label: str
    count: int
    columns: tuple[PointColumn, ...]
    bounds: Bounds | None
    scale: tuple[float, float, float] | None
    frame: PointFrame | None
    known: Any


@dataclass(frozen=True, slots=True)
class Cut:
    """How a file's points are cut.

    Attributes:
        decoder: a key of `ingest.readers.points.DECODERS`.
        layout: what the decoder needs for the points from one ordinal to before another.
        ends: (C,) int64; ordinals after which cutting is cheap, the last one the file's count;
            None where any cut is as good.
    """

    decoder: str
    layout: Callable[[int, int], Any]
    ends: NDArray[np.int64] | None = None
