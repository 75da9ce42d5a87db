"""The sheets of a group as one raster of metres, read window by window; few are open at once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.io import DatasetReader
from rasterio.windows import Window

from ingest.dem_groups import Placed
from ingest.readers.sheets import Sheet, open_raster, read_heights, reading
from tiling.errors import RasterUnsupported

# Values that producers write where they have no data; and what no terrain of the Earth has.
USUAL_NODATA = (-9999.0, -32768.0, -32767.0, -99999.0, 32767.0, 65535.0, 9999.0, 99999.0)
LOWEST_M, HIGHEST_M = -11_500.0, 9_000.0
_MAX_OPEN = 32

Heights = NDArray[np.float32]
Boxes = NDArray[np.int64]


def boxes(placed: Sequence[Placed]) -> Boxes:
    """Return (N, 4) first column and row of sheets, and those after the last."""
    return np.array(
        [(p.column, p.row, p.column + p.sheet.width, p.row + p.sheet.height) for p in placed],
        dtype=np.int64,
    ).reshape(-1, 4)


def touching(boxes: Boxes, window: tuple[int, int, int, int]) -> NDArray[np.int64]:
    """Return which boxes share pixels with a window: left, top, right, bottom."""
    left, top, right, bottom = window
    touch = (boxes[:, 0] < right) & (boxes[:, 2] > left)
    return np.flatnonzero(touch & (boxes[:, 1] < bottom) & (boxes[:, 3] > top))


class GroupSheets:
    """The sheets of a group, read window by window; few are open at once."""

    def __init__(self, placed: Sequence[Placed]) -> None:
        self._placed = tuple(placed)
        self._boxes = boxes(self._placed)
        self._open: OrderedDict[str, DatasetReader] = OrderedDict()

    def read(self, left: int, top: int, right: int, bottom: int) -> Heights | None:
        """Return metres, NaN where no sheet has data; None where none has any."""
        out: Heights | None = None
        for index in self._touching(left, top, right, bottom).tolist():
            placed = self._placed[index]
            sheet = placed.sheet
            x0, y0 = max(left, placed.column), max(top, placed.row)
            x1 = min(right, placed.column + sheet.width)
            y1 = min(bottom, placed.row + sheet.height)
            window = Window(x0 - placed.column, y0 - placed.row, x1 - x0, y1 - y0)
            dataset = self._dataset(sheet)
            with reading(sheet.name):
                values = read_heights(dataset, sheet, window)
            _refuse_impossible(sheet, values)
            if out is None:
                out = np.full((bottom - top, right - left), np.nan, dtype=np.float32)
            target = out[y0 - top : y1 - top, x0 - left : x1 - left]
            np.copyto(target, values, where=np.isnan(target), casting="same_kind")
        return out if out is not None and np.isfinite(out).any() else None

    def covered(self, left: int, top: int, right: int, bottom: int) -> int:
        """Return how many pixels of a window lie in sheets."""
        mask = np.zeros((bottom - top, right - left), dtype=bool)
        for index in self._touching(left, top, right, bottom).tolist():
            x0, y0, x1, y1 = self._boxes[index].tolist()
            mask[max(y0 - top, 0) : y1 - top, max(x0 - left, 0) : x1 - left] = True
        return int(np.count_nonzero(mask))

    def close(self) -> None:
        """Close what is open."""
        while self._open:
            self._open.popitem()[1].close()

    def _touching(self, left: int, top: int, right: int, bottom: int) -> NDArray[np.int64]:
        return touching(self._boxes, (left, top, right, bottom))

    def _dataset(self, sheet: Sheet) -> DatasetReader:
        if sheet.name in self._open:
            self._open.move_to_end(sheet.name)
        else:
            self._open[sheet.name] = open_raster(sheet.name)
            if len(self._open) > _MAX_OPEN:
                self._open.popitem(last=False)[1].close()
        return self._open[sheet.name]


def _refuse_impossible(sheet: Sheet, values: NDArray[np.floating[Any]]) -> None:
    low = float(np.fmin.reduce(values, axis=None))
    high = float(np.fmax.reduce(values, axis=None))
    for value in (low, high):
        if np.isnan(value) or (LOWEST_M <= value <= HIGHEST_M and value not in USUAL_NODATA):
            continue
        raise RasterUnsupported(
            f"a height of {value:g} m is no terrain of the Earth: it looks like nodata that "
            "the file does not declare, or like another unit",
            source=sheet.name,
            remedy=f"declare it: --nodata {value!r} (or give the band its "
            "unit: gdal_edit.py -units ft FILE)",
        )
