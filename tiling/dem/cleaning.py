"""What is done to the pixels of an elevation model before they are stored: spikes, pits, voids.

Every loop looks no further than its reach, so a raster cleaned window by window, each with a rim as
wide, is the raster cleaned whole.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from tiling.kernels import njit

# A pixel is a spike or a pit when it leaves the median of its eight neighbours by more than this
# slope (63 degrees) over one pixel, and by more than this height, and at most one neighbour is
# like it: a wall has others beside it, a measuring error stands alone.
OUTLIER_SLOPE = 2.0
OUTLIER_M = 5.0


@njit(cache=True)
def find_outliers(
    values: NDArray[np.float32], limit_m: float, medians: NDArray[np.float32]
) -> None:
    """Find spikes and pits; the outermost ring of pixels is not judged.

    Args:
        values: (h, w) metres; NaN is void.
        limit_m: how far a pixel may leave the median of its neighbours.
        medians: (h, w) receives that median where a pixel is a spike or a pit, else NaN.
    """
    near = np.empty(8)
    medians[:] = math.nan
    for j in range(1, values.shape[0] - 1):
        for i in range(1, values.shape[1] - 1):
            v = values[j, i]
            # Quick: nearly all pixels are close to the one on their left.
            if v != v or (
                abs(v - values[j, i - 1]) <= limit_m / 2 and _close(values, j, i, limit_m)
            ):
                continue
            n = 0
            for dj in range(-1, 2):
                for di in range(-1, 2):
                    w = values[j + dj, i + di]
                    if (dj or di) and w == w:
                        near[n] = w
                        n += 1
            if n < 5:
                continue
            known = np.sort(near[:n])
            median = 0.5 * (known[(n - 1) // 2] + known[n // 2])
            off = abs(v - median)
            if off <= limit_m:
                continue
            alike = 0
            for k in range(n):
                if abs(known[k] - v) < off / 2:
                    alike += 1
            if alike <= 1:
                medians[j, i] = median


@njit(cache=True)
def _close(values: NDArray[np.float32], j: int, i: int, limit_m: float) -> bool:
    v = values[j, i]
    return bool(
        abs(v - values[j, i - 1]) <= limit_m
        and abs(v - values[j, i + 1]) <= limit_m
        and abs(v - values[j - 1, i]) <= limit_m
        and abs(v - values[j + 1, i]) <= limit_m
        and abs(v - values[j - 1, i - 1]) <= limit_m
        and abs(v - values[j - 1, i + 1]) <= limit_m
        and abs(v - values[j + 1, i - 1]) <= limit_m
        and abs(v - values[j + 1, i + 1]) <= limit_m
    )


@njit(cache=True)
def fill_voids(values: NDArray[np.float32], reach: int, filled: NDArray[np.float32]) -> None:
    """Interpolate voids that data encloses: by inverse square distance in eight directions.

    A void is enclosed when, of the four lines through it, three meet data on both sides within
    reach. So holes and missing lines are closed and nothing grows beyond an outer edge.

    Args:
        values: (h, w) metres with a rim of `reach` pixels; NaN is void.
        reach: pixels along a line.
        filled: (h - 2 reach, w - 2 reach) receives heights, NaN where nothing is filled.
    """
    across = (0, 1, 1, 1)
    along = (1, 0, 1, -1)
    for j in range(filled.shape[0]):
        for i in range(filled.shape[1]):
            filled[j, i] = math.nan
            if values[j + reach, i + reach] == values[j + reach, i + reach]:
                continue
            total, weights, closed = 0.0, 0.0, 0
            for k in range(4):
                sides = 0
                for sign in (-1, 1):
                    for step in range(1, reach + 1):
                        v = values[
                            j + reach + sign * step * across[k], i + reach + sign * step * along[k]
                        ]
                        if v == v:
                            d2 = float(step * step * (across[k] ** 2 + along[k] ** 2))
                            total += v / d2
                            weights += 1 / d2
                            sides += 1
                            break
                if sides == 2:
                    closed += 1
                elif closed + 3 - k < 3:
                    break
            if closed >= 3:
                filled[j, i] = total / weights
