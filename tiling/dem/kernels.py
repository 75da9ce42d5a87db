"""The loops of a stack: interpolation between pixels, and how far pixels lie from voids.

Compiled without fast-math, so every sum is taken in the order written here: equal input gives
equal bits whatever window it is asked in. NaN is void, in pixels and in heights.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from tiling.kernels import njit

# Pixels by which a place may lie outside through rounding.
SLACK = 1e-6


@njit(cache=True)
def bilinear(
    window: NDArray[np.float32],
    left: int,
    top: int,
    width: int,
    height: int,
    columns: NDArray[np.float64],
    rows: NDArray[np.float64],
    out: NDArray[np.float64],
) -> None:
    """Interpolate at the nodes of a lattice.

    Args:
        window: (h, w) float32 pixels; NaN is void.
        left, top: column and row of the window's first pixel in its raster.
        width, height: of the raster.
        columns: (m, n) pixel coordinates, 0 at the centre of the first; or (1, n) where columns
            of nodes are columns of pixels.
        rows: (m, n) likewise; or (m, 1).
        out: (m, n) receives heights, NaN where there is none.
    """
    own_columns, own_rows = int(columns.shape[0] > 1), int(rows.shape[1] > 1)
    for j in range(out.shape[0]):
        for i in range(out.shape[1]):
            column, row = columns[j * own_columns, i], rows[j, i * own_rows]
            out[j, i] = _pixel(window, left, top, width, height, column, row)


@njit(cache=True)
def _pixel(
    window: NDArray[np.float32],
    left: int,
    top: int,
    width: int,
    height: int,
    column: float,
    row: float,
) -> float:
    # Written so that NaN and infinite coordinates are outside.
    if not (column >= -0.5 - SLACK and column <= width - 0.5 + SLACK):
        return math.nan
    if not (row >= -0.5 - SLACK and row <= height - 0.5 + SLACK):
        return math.nan
    # Within half a pixel of the outer edge the outermost centres count.
    x = min(max(column, 0.0), width - 1.0)
    y = min(max(row, 0.0), height - 1.0)
    i, j = int(x), int(y)
    fx, fy = x - i, y - j
    right, below = min(i + 1, width - 1) - left, min(j + 1, height - 1) - top
    i, j = i - left, j - top
    nw, ne = float(window[j, i]), float(window[j, right])
    sw, se = float(window[below, i]), float(window[below, right])
    if nw == nw and ne == ne and sw == sw and se == se:
        north = nw + fx * (ne - nw)
        south = sw + fx * (se - sw)
        return north + fy * (south - north)
    # A place has a height when the pixel it lies in has one; voids beside it have no weight.
    if fy < 0.5:
        own = nw if fx < 0.5 else ne
    else:
        own = sw if fx < 0.5 else se
    if own != own:
        return math.nan
    weights, total = 0.0, 0.0
    if nw == nw:
        w = (1 - fx) * (1 - fy)
        weights, total = weights + w, total + w * nw
    if ne == ne:
        w = fx * (1 - fy)
        weights, total = weights + w, total + w * ne
    if sw == sw:
        w = (1 - fx) * fy
        weights, total = weights + w, total + w * sw
    if se == se:
        w = fx * fy
        weights, total = weights + w, total + w * se
    return total / weights


@njit(cache=True)
def from_controls(
    xs: NDArray[np.float64],
    ys: NDArray[np.float64],
    ix: NDArray[np.int64],
    wx: NDArray[np.float64],
    iy: NDArray[np.int64],
    wy: NDArray[np.float64],
    out_x: NDArray[np.float64],
    out_y: NDArray[np.float64],
) -> None:
    """Interpolate coordinates cubically between control points.

    Args:
        xs, ys: (a, b) coordinates of the control points.
        ix, iy: (n,), (m,) first of the four control columns and rows of a node.
        wx, wy: (n, 4), (m, 4) their weights.
        out_x, out_y: (m, n) receive the coordinates of the nodes.
    """
    count = xs.shape[1]
    tx, ty = np.empty(count), np.empty(count)
    for j in range(iy.shape[0]):
        k = iy[j]
        a, b, c, d = wy[j, 0], wy[j, 1], wy[j, 2], wy[j, 3]
        for i in range(count):
            tx[i] = a * xs[k, i] + b * xs[k + 1, i] + c * xs[k + 2, i] + d * xs[k + 3, i]
            ty[i] = a * ys[k, i] + b * ys[k + 1, i] + c * ys[k + 2, i] + d * ys[k + 3, i]
        for i in range(ix.shape[0]):
            k = ix[i]
            a, b, c, d = wx[i, 0], wx[i, 1], wx[i, 2], wx[i, 3]
            out_x[j, i] = a * tx[k] + b * tx[k + 1] + c * tx[k + 2] + d * tx[k + 3]
            out_y[j, i] = a * ty[k] + b * ty[k + 1] + c * ty[k + 2] + d * ty[k + 3]


@njit(cache=True)
def feather_weights(
    window: NDArray[np.float32],
    margin_x: int,
    margin_y: int,
    step_x: float,
    step_y: float,
    width: float,
    out: NDArray[np.float32],
) -> None:
    """Weigh pixels by their distance to the nearest void: 0 beside it, 1 from `width` on.

    Args:
        window: pixels, NaN void, with a margin that is at least as wide as the feather.
        margin_x, margin_y: columns and rows of the margin.
        step_x, step_y: metres of a pixel.
        width: of the feather, metres.
        out: (h - 2 margin_y, w - 2 margin_x) receives smoothstep weights.
    """
    h, w = window.shape
    far = margin_x + 1
    # Pixels to the nearest void in the row, then the shortest way over the rows.
    across = np.empty((h, out.shape[1]))
    for j in range(h):
        run = far
        for i in range(w):
            run = 0 if window[j, i] != window[j, i] else min(run + 1, far)
            if margin_x <= i < w - margin_x:
                across[j, i - margin_x] = run
        run = far
        for i in range(w - 1, -1, -1):
            run = 0 if window[j, i] != window[j, i] else min(run + 1, far)
            if margin_x <= i < w - margin_x:
                across[j, i - margin_x] = min(across[j, i - margin_x], run)
    pixel = max(step_x, step_y)
    for j in range(out.shape[0]):
        for i in range(out.shape[1]):
            best = 1e300
            for k in range(j, j + 2 * margin_y + 1):
                dx = across[k, i] * step_x
                dy = (k - j - margin_y) * step_y
                best = min(best, dx * dx + dy * dy)
            # A pixel beside a void counts nothing: the edge lies somewhere within it.
            t = min(max((math.sqrt(best) - pixel) / width, 0.0), 1.0)
            out[j, i] = t * t * (3 - 2 * t)
