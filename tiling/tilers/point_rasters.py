"""Rasters from points: what lies in each cell, gathered piece by piece in any order.

The one idea: heights are counted in whole millimetres, so sums are exact and do not depend on the
order in which pieces arrive; a worker reduces its points to the cells they touch, and whoever owns
the raster adds these up in files, so that memory follows the pieces and not the raster.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tiling.batches import PointBatch
from tiling.errors import TilingError

MAX_CELLS = 1 << 32
# Low and high noise, ASPRS LAS Specification 1.4-R15, table 17.
NOISE_CLASSES = (7, 18)
GROUND_CLASS = 2


class CellGrid(NamedTuple):
    """Cells of a north-up raster: (row, column) from the north-west corner.

    Attributes:
        west, north: outer corner, in the units of the frame; multiples of `cell`, so that rasters
            of neighbouring clouds fit each other.
        cell: side of a cell in these units.
        columns, rows: size.
    """

    west: float
    north: float
    cell: float
    columns: int
    rows: int

    @classmethod
    def over(cls, bounds: tuple[float, float, float, float], cell: float) -> CellGrid:
        """Return the cells that cover (xmin, ymin, xmax, ymax).

        Raises:
            TilingError: there would be more than `MAX_CELLS`.
        """
        xmin, ymin, xmax, ymax = bounds
        left, bottom = math.floor(xmin / cell), math.floor(ymin / cell)
        right, top = math.floor(xmax / cell) + 1, math.floor(ymax / cell) + 1
        columns, rows = right - left, top - bottom
        if columns * rows > MAX_CELLS:
            raise TilingError(
                f"cells of {cell:g} make a raster of {columns} by {rows}, more than {MAX_CELLS:,} "
                "cells: choose larger ones"
            )
        return cls(left * cell, top * cell, cell, columns, rows)

    def places(self, xy: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the flat positions, (N,) int64, of the cells that hold (N, 2) points.

        A point on an edge belongs to the cell east or north of it. What lies outside by rounding
        is taken into the outermost cells.
        """
        # The corner is a multiple of the cell: whole cells are counted from zero, never from it.
        left, top = round(self.west / self.cell), round(self.north / self.cell)
        column = np.floor(xy[:, 0] / self.cell).astype(np.int64) - left
        row = top - 1 - np.floor(xy[:, 1] / self.cell).astype(np.int64)
        column, row = column.clip(0, self.columns - 1), row.clip(0, self.rows - 1)
        return np.asarray(row * self.columns + column, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class PointRule:
    """Which points are counted as what.

    Attributes:
        ground: classes that are the ground.
        noise: classes that are nothing; withheld points are nothing either.
    """

    ground: tuple[int, ...] = (GROUND_CLASS,)
    noise: tuple[int, ...] = NOISE_CLASSES

    # What is read of a source beside coordinates, as far as it has it.
    columns = ("classification", "return_number", "withheld")


class Cells(NamedTuple):
    """Points by cell: (K,) flat positions, ascending; how many; sums and tops in millimetres."""

    place: NDArray[np.int64]
    points: NDArray[np.uint32]
    sum_mm: NDArray[np.int64]
    top_mm: NDArray[np.int32]


class Reduced(NamedTuple):
    """What a piece of a cloud holds.

    Attributes:
        ground: points of the ground.
        surface: first returns.
        points: every point that counts.
        classes: class -> (points, lowest and highest in metres), noise included.
        left_out: points that are noise or withheld.
    """

    ground: Cells
    surface: Cells
    points: Cells
    classes: dict[int, tuple[int, float, float]]
    left_out: int


def reduce_points(batch: PointBatch, grid: CellGrid, rule: PointRule) -> Reduced:
    """Reduce points to the cells they touch.

    Args:
        batch: points in the frame of the grid, with those of ``rule.columns`` that there are.
            Without classes there is no ground; without return numbers all are first returns.
    """
    count = len(batch)
    kinds = _column(batch, "classification", count)
    kept = ~np.isin(kinds, rule.noise) & (_column(batch, "withheld", count) == 0)
    first = kept & (_column(batch, "return_number", count) <= 1)
    place = grid.places(batch.xyz[:, :2])
    # Heights of the Earth in millimetres fit 32 bits hundreds of times.
    height_mm = np.rint(batch.xyz[:, 2] * 1000.0).astype(np.int64)
    ground = kept & np.isin(kinds, rule.ground)
    return Reduced(
        _cells(place[ground], height_mm[ground]),
        _cells(place[first], height_mm[first]),
        _cells(place[kept], height_mm[kept]),
        _classes(kinds, batch.xyz[:, 2]) if "classification" in batch.columns else {},
        int(count - kept.sum()),
    )


def _column(batch: PointBatch, name: str, count: int) -> NDArray[Any]:
    return np.asarray(batch.columns.get(name, np.zeros(count, dtype=np.uint8)))


def _cells(place: NDArray[np.int64], height_mm: NDArray[np.int64]) -> Cells:
    order = np.argsort(place, kind="stable")
    place, height_mm = place[order], height_mm[order]
    starts = np.flatnonzero(np.diff(place, prepend=-1))
    if not len(starts):
        none = np.zeros(0, dtype=np.int64)
        return Cells(none, none.astype(np.uint32), none, none.astype(np.int32))
    return Cells(
        place[starts],
        np.diff(starts, append=len(place)).astype(np.uint32),
        np.add.reduceat(height_mm, starts),
        np.maximum.reduceat(height_mm, starts).astype(np.int32),
    )


def _classes(
    kinds: NDArray[Any], heights: NDArray[np.float64]
) -> dict[int, tuple[int, float, float]]:
    found = {}
    for kind in np.unique(kinds).tolist():
        of_kind = heights[kinds == kind]
        found[int(kind)] = (len(of_kind), float(of_kind.min()), float(of_kind.max()))
    return found


def joined_classes(
    a: Mapping[int, tuple[int, float, float]], b: Mapping[int, tuple[int, float, float]]
) -> dict[int, tuple[int, float, float]]:
    """Add up `Reduced.classes` of two pieces."""
    joined = dict(a)
    for kind, (count, low, high) in b.items():
        known = joined.get(kind, (0, math.inf, -math.inf))
        joined[kind] = (known[0] + count, min(known[1], low), max(known[2], high))
    return dict(sorted(joined.items()))


class CellFile:
    """Sums, counts and tops of every cell, in files that the system may page out.

    Attributes:
        grid: the cells.
    """

    def __init__(self, grid: CellGrid, folder: Path, parts: Collection[str]) -> None:
        """Make empty files, sparse until they are filled.

        Args:
            grid: the cells.
            folder: where the files lie; it exists.
            parts: which of `Cells` to keep: ``points``, ``sum_mm``, ``top_mm``.
        """
        self.grid = grid
        dtypes = {"points": np.uint32, "sum_mm": np.int64, "top_mm": np.int32}
        self._parts: dict[str, np.memmap[Any, Any]] = {
            name: np.memmap(folder / name, dtypes[name], "w+", shape=(grid.rows, grid.columns))
            for name in parts
        }

    def add(self, cells: Cells) -> None:
        """Add the points of a piece; the order of pieces does not matter."""
        for name, part in self._parts.items():
            flat, values = part.reshape(-1), getattr(cells, name)
            if name == "top_mm":
                # Files begin as zeros; the offset tells an empty cell from one at sea level.
                flat[cells.place] = np.maximum(flat[cells.place], _lifted(values))
            else:
                flat[cells.place] += values
            # The pages are in the file; whether they stay in memory too is for the system to say.
            part._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]

    def count(self, rows: slice, columns: slice) -> NDArray[np.uint32]:
        """Return how many points cells hold, (h, w) uint32."""
        return np.asarray(self._parts["points"][rows, columns])

    def mean_m(self, rows: slice, columns: slice) -> NDArray[np.float32]:
        """Return mean heights, (h, w) float32 metres; NaN where there is no point."""
        count = self.count(rows, columns).astype(np.float64)
        with np.errstate(invalid="ignore"):
            mean = self._parts["sum_mm"][rows, columns] / 1000.0 / count
        return np.asarray(mean, dtype=np.float32)

    def top_m(self, rows: slice, columns: slice) -> NDArray[np.float32]:
        """Return greatest heights, (h, w) float32 metres; NaN where there is no point."""
        top = np.asarray(self._parts["top_mm"][rows, columns])
        heights = (top.astype(np.int64) - _LIFT_MM) / 1000.0
        return np.where(top == 0, np.nan, heights).astype(np.float32)


_LIFT_MM = 1_000_000_000


def _lifted(height_mm: NDArray[np.int32]) -> NDArray[np.int32]:
    return np.asarray(np.clip(height_mm, 1 - _LIFT_MM, _LIFT_MM) + _LIFT_MM, dtype=np.int32)
