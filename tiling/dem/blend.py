"""Layers laid under each other: a weighted mean in which upper layers cover lower ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Blend:
    """What layers have contributed so far: a weighted mean, upper layers covering lower ones."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.left = np.ones(shape)  # what upper layers let through
        self._sum = np.zeros(shape)
        self._first = np.full(shape, np.nan)
        self._parts = np.zeros(shape, dtype=np.int16)

    def lay(
        self,
        where: NDArray[np.int64],
        heights: Array,
        weights: Callable[[NDArray[np.int64]], Array],
        last: bool,
    ) -> None:
        """Lay heights (all finite) under what is there, at flat positions."""
        weight = np.ones(len(where))
        # The weight of the lowest layer matters only where others shine through.
        part = np.flatnonzero(self._parts[where] > 0) if last else np.arange(len(where))
        if len(part):
            weight[part] = _positive(weights(part))
        self._add(where, heights, weight)

    def lay_window(
        self,
        window: tuple[slice, slice],
        heights: Array,
        weights: Callable[[], Array],
        last: bool,
    ) -> None:
        """Lay heights (NaN: void) under what is there, in a window."""
        data = np.isfinite(heights) & (self.left[window] > 0)
        if not data.any():
            return
        if last and not self._parts[window][data].any():
            weight = np.ones(int(data.sum()))
        else:
            weight = _positive(weights()[data])
        rows, columns = np.nonzero(data)
        flat = (rows + (window[0].start or 0)) * self.left.shape[1]
        self._add(flat + columns + (window[1].start or 0), heights[data], weight)

    def _add(self, where: NDArray[np.int64], heights: Array, weight: Array) -> None:
        left, total = self.left.reshape(-1), self._sum.reshape(-1)
        first, parts = self._first.reshape(-1), self._parts.reshape(-1)
        total[where] += left[where] * weight * heights
        left[where] *= 1 - weight
        fresh = where[parts[where] == 0]
        first[fresh] = heights[parts[where] == 0]
        parts[where] += 1

    def complete(self) -> bool:
        """Say whether nothing below can be seen."""
        return not np.count_nonzero(self.left)

    def heights(self) -> Array:
        """Return the surface; NaN where no layer had data."""
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = self._sum / (1 - self.left)
        # Where one layer alone has data its own bits count, whatever its weight.
        return np.where(self._parts > 1, mean, self._first)


def _positive(weights: Array) -> Array:
    # Where a layer has data it counts, however little: below it there may be nothing.
    return np.where(weights > 1e-6, weights, 1e-6)
