"""Coordinates of many points to longitude and latitude without PROJ for each.

In a square of `PATCH` units, a map projection is a polynomial of the second degree to within
a micrometre. Squares begin at multiples of their side, and each is fitted to nine places and tried
at sixteen others, alone: what becomes of a point depends on the point, never on who came with it.
Where the trial fails (at the edge of a geoid's cell, far from a projection's middle) PROJ is asked
for every point.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tiling.crs import TILE_REF, SpatialRef, transform_points
from tiling.formats.extent import axis_range
from tiling.kernels import njit

PATCH = 1024.0
# Degrees of about, and metres: a hundredth of a millimetre.
_TOLERANCE_DEG, _TOLERANCE_M = 1e-10, 1e-5
_FARTHEST = 1e8
# More patches than this between the outermost points are looked up by sorting.
_TABLE = 1 << 20
_TERMS = 9


def to_geodetic(ref: SpatialRef, xyz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return longitude, latitude (degrees, WGS 84) and ellipsoidal height of points.

    Args:
        ref: frame of the points, with a vertical datum.
        xyz: (N, 3) float64.

    Returns:
        (N, 3) float64; what has no place is not finite.

    Raises:
        SourceError, OutsideArea: see `transform_points`.
    """
    out = np.empty_like(xyz)
    if not ref.is_projected:
        _exactly(ref, xyz, np.arange(len(xyz)), out)
        return out
    cells = np.empty((len(xyz), 2), dtype=np.int64)
    usable = np.empty(len(xyz), dtype=np.bool_)
    _cells(xyz, cells, usable)
    rows = np.arange(len(xyz))
    if not usable.all():
        _exactly(ref, xyz, np.flatnonzero(~usable), out)
        rows = np.flatnonzero(usable)
        cells = cells[rows]
    if not len(rows):
        return out
    patches, owner = _patches(cells)
    fits = [_fit(ref, int(i), int(j)) for i, j in patches.tolist()]
    fitted = np.array([fit is not None for fit in fits])
    table = np.array([np.zeros((3, _TERMS)) if fit is None else fit for fit in fits])
    _evaluate(xyz, rows, cells, owner, table, out)
    if not fitted.all():
        _exactly(ref, xyz, rows[~fitted[owner]], out)
    return out


@njit(cache=True)
def _cells(xyz, cells, usable):  # type: ignore[no-untyped-def]
    for i in range(len(xyz)):
        x, y = xyz[i, 0], xyz[i, 1]
        # NaN compares false.
        usable[i] = abs(x) < _FARTHEST and abs(y) < _FARTHEST and np.isfinite(xyz[i, 2])
        if usable[i]:
            # The side is a power of two: multiplying is exact.
            cells[i, 0] = np.int64(np.floor(x * (1.0 / PATCH)))
            cells[i, 1] = np.int64(np.floor(y * (1.0 / PATCH)))


def _patches(cells: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the distinct patches, (P, 2), and the one of each point."""
    low, high = axis_range(cells)
    width, height = (high - low + 1).tolist()
    index = (cells[:, 0] - low[0]) * height + cells[:, 1] - low[1]
    if width * height > _TABLE:
        found, owner = np.unique(index, return_inverse=True)
    else:
        seen = np.zeros(width * height, dtype=bool)
        seen[index] = True
        found = np.flatnonzero(seen)
        owner = (np.cumsum(seen) - 1).take(index)
    return np.stack([found // height + low[0], found % height + low[1]], axis=1), owner


def _exactly(
    ref: SpatialRef, xyz: NDArray[np.float64], rows: NDArray[np.int64], out: NDArray[np.float64]
) -> None:
    if len(rows):
        lon, lat, height = transform_points(ref, TILE_REF, *xyz[rows].T)
        assert height is not None  # heights were given
        out[rows] = np.stack([lon, lat, height], axis=1)


@lru_cache(maxsize=8192)
def _fit(ref: SpatialRef, i: int, j: int) -> NDArray[np.float64] | None:
    """Return (3, 9) coefficients of longitude, latitude and the shift of heights; or None."""
    nodes = np.cos(np.pi * (np.arange(3) + 0.5) / 3)
    trial = np.array([-1.0, -0.35, 0.4, 1.0])
    u, v = (np.concatenate([a.ravel(), b.ravel()]) for a, b in zip(
        np.meshgrid(nodes, nodes), np.meshgrid(trial, trial), strict=True
    ))  # fmt: skip
    x, y = (i + (u + 1) / 2) * PATCH, (j + (v + 1) / 2) * PATCH
    lon, lat, shift = transform_points(ref, TILE_REF, x, y, np.zeros(len(x)))
    assert shift is not None
    values = np.stack([lon, lat, shift], axis=1)
    if not np.isfinite(values).all():
        return None
    terms = np.stack([u**a * v**b for a in range(3) for b in range(3)], axis=1)
    # Around the first value, so that no digit is lost.
    base = values[0]
    coefficients = np.linalg.solve(terms[:_TERMS], values[:_TERMS] - base)
    off = np.abs(terms[_TERMS:] @ coefficients + base - values[_TERMS:]).max(axis=0)
    if not (off <= (_TOLERANCE_DEG, _TOLERANCE_DEG, _TOLERANCE_M)).all():
        return None
    coefficients[0] += base
    fitted: NDArray[np.float64] = np.ascontiguousarray(coefficients.T)
    return fitted


@njit(cache=True)
def _evaluate(xyz, rows, cells, owner, table, out):  # type: ignore[no-untyped-def]
    for n in range(len(rows)):
        row = rows[n]
        u = 2.0 * (xyz[row, 0] * (1.0 / PATCH) - cells[n, 0]) - 1.0
        v = 2.0 * (xyz[row, 1] * (1.0 / PATCH) - cells[n, 1]) - 1.0
        for k in range(3):
            c = table[owner[n], k]
            low = c[0] + v * (c[1] + v * c[2])
            middle = c[3] + v * (c[4] + v * c[5])
            high = c[6] + v * (c[7] + v * c[8])
            out[row, k] = low + u * (middle + u * high)
        out[row, 2] += xyz[row, 2]
