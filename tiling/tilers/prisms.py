"""Prisms: buildings, or blocks of them, as an outline with a bottom and a top.

They are what coarser levels of detail are made of: read from the vertices of the finer tiles,
generalised, and written as a tile again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tiling.ellipsoid import FLATTENING, SEMI_MAJOR_M, SEMI_MINOR_M
from tiling.errors import TilingError
from tiling.formats.primitive import Grid, Primitive
from tiling.kernels import njit
from tiling.tilers.outlines import double_area, widened

_E2 = FLATTENING * (2.0 - FLATTENING)
_EP2 = _E2 / (1.0 - _E2)


@dataclass(frozen=True, slots=True)
class Prisms:
    """N upright prisms, one outline each, without holes.

    Attributes:
        lonlat: (P, 2) float64 degrees, the outlines one after the other, counter-clockwise seen
            from above, without closing points.
        start: (N + 1,) int64, where each outline begins in `lonlat`.
        bottom_m, top_m: (N,) float64, metres above the ellipsoid.
        ids: (N,) int64, id of the (most voluminous) feature in it.
        features: (N,) int64, how many features it stands for; of a feature with several outlines
            one counts 1 and the others 0, so that the sum over a tile is its number of features.
    """

    lonlat: NDArray[np.float64]
    start: NDArray[np.int64]
    bottom_m: NDArray[np.float64]
    top_m: NDArray[np.float64]
    ids: NDArray[np.int64]
    features: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def joined(cls, parts: Sequence[Prisms]) -> Prisms:
        """Return the prisms of every part, in order."""
        counts = np.concatenate([np.diff(part.start) for part in parts])
        return cls(
            np.concatenate([part.lonlat for part in parts]),
            np.concatenate([[0], np.cumsum(counts)]),
            np.concatenate([part.bottom_m for part in parts]),
            np.concatenate([part.top_m for part in parts]),
            np.concatenate([part.ids for part in parts]),
            np.concatenate([part.features for part in parts]),
        )

    @classmethod
    def none(cls) -> Prisms:
        """Return no prisms."""
        whole, real = np.empty(0, dtype=np.int64), np.empty(0)
        return cls(np.empty((0, 2)), np.zeros(1, dtype=np.int64), real, real, whole, whole)


def _thin(
    primitives: Sequence[Primitive],
    rows: NDArray[np.int64],
    frame: NDArray[np.float64],
    step: float,
) -> _Solids:
    """Return the hulls of rows.

    Raises:
        TilingError: one of them has no vertex.
    """
    positions = np.concatenate([p.positions for p in primitives])
    row = np.concatenate([p.feature_ids for p in primitives]).astype(np.int64)
    chosen = np.flatnonzero(np.isin(row, rows))
    missing = np.setdiff1d(rows, row[chosen])
    if len(missing):
        raise TilingError(f"{len(missing)} rows of a tile have no vertex, the first: {missing[0]}")
    order = chosen[np.argsort(row[chosen], kind="stable")]
    return _Solids(*_hulls(positions[order], row[order], frame, step))


class _Solids(NamedTuple):
    """N outlines of one or more primitives.

    Attributes:
        lonlat, start, bottom_m, top_m: as in `Prisms`.
        row: (N,) int64, row of the property table.
        area: (N,) int64, twice the area in grid steps.
    """

    lonlat: NDArray[np.float64]
    start: NDArray[np.int64]
    bottom_m: NDArray[np.float64]
    top_m: NDArray[np.float64]
    row: NDArray[np.int64]
    area: NDArray[np.int64]


def prisms_of(
    grid: Grid,
    primitives: Sequence[Primitive],
    ids: NDArray[np.int64],
    features: NDArray[np.int64],
) -> Prisms:
    """Read the prisms of a tile from its decoded content; depends on nothing else.

    Of layout ``prisms`` every shell becomes one, holes are dropped; of layout ``mesh`` the convex
    hull of the vertices of each feature, from the lowest to the highest.

    Args:
        grid: the grid of the tile.
        primitives: with vertices in the order in which they were written.
        ids: (F,) int64, id of each row of the property table.
        features: (F,) int64, how many features each row stands for; of several outlines of a row
            the largest carries it, the others 0.

    Raises:
        TilingError: a row of the table has no vertex.
    """
    frame, quantum = grid.to_ecef, grid.quantum_m
    solids = [
        _Solids(*_shells(p.positions, p.feature_ids, p.triangles, frame, quantum))
        for p in primitives
        if p.layout == "prisms"
    ]
    meshes = [p for p in primitives if p.layout == "mesh"]
    if meshes:
        positions = np.concatenate([p.positions for p in meshes])
        row = np.concatenate([p.feature_ids for p in meshes]).astype(np.int64)
        order = np.argsort(row, kind="stable")
        solids.append(_Solids(*_hulls(positions[order], row[order], frame, quantum)))
    row = np.concatenate([s.row for s in solids]) if solids else np.empty(0, dtype=np.int64)
    bare = np.flatnonzero(np.bincount(row, minlength=len(ids)) == 0)
    if len(bare):
        # Outlines thinner than the grid may read as holes; their hulls have an area.
        solids.append(_thin(primitives, bare, frame, quantum))
        row = np.concatenate([s.row for s in solids])
    if not len(row):
        return Prisms.none()
    counts = np.concatenate([np.diff(s.start) for s in solids])
    carried = np.zeros(len(row), dtype=np.int64)
    area = np.concatenate([s.area for s in solids])
    # Largest first within each row; of equals the first.
    order = np.lexsort((-area, row))
    leading = order[np.append(True, row[order][1:] != row[order][:-1])]
    carried[leading] = features[row[leading]]
    return Prisms(
        np.concatenate([s.lonlat for s in solids]),
        np.concatenate([[0], np.cumsum(counts)]),
        np.concatenate([s.bottom_m for s in solids]),
        np.concatenate([s.top_m for s in solids]),
        ids[row],
        carried,
    )


@njit(cache=True)
def geodetic(
    x: float, y: float, z: float, frame: NDArray[np.float64], quantum: float
) -> tuple[float, float, float]:
    """Return longitude, latitude (degrees) and height (metres) of a grid position.

    Bowring's formula of 1976 with the reduced latitude's tangent, without iterating: within
    1e-9 degrees and a micrometre up to 10 km above the ellipsoid.
    """
    e, n, u = x * quantum, y * quantum, z * quantum
    ex = frame[0, 0] * e + frame[0, 1] * n + frame[0, 2] * u + frame[0, 3]
    ey = frame[1, 0] * e + frame[1, 1] * n + frame[1, 2] * u + frame[1, 3]
    ez = frame[2, 0] * e + frame[2, 1] * n + frame[2, 2] * u + frame[2, 3]
    rho = np.sqrt(ex * ex + ey * ey)
    # Sine and cosine of the reduced latitude, then of the latitude.
    a, b = ez, (1.0 - FLATTENING) * rho
    length = np.sqrt(a * a + b * b)
    sin_b, cos_b = a / length, b / length
    a = ez + _EP2 * SEMI_MINOR_M * sin_b**3
    b = rho - _E2 * SEMI_MAJOR_M * cos_b**3
    length = np.sqrt(a * a + b * b)
    sin_lat, cos_lat = a / length, b / length
    height = rho * cos_lat + ez * sin_lat - SEMI_MAJOR_M * np.sqrt(1.0 - _E2 * sin_lat * sin_lat)
    return np.degrees(np.arctan2(ey, ex)), np.degrees(np.arctan2(a, b)), height


@njit(cache=True)
def _shells(  # type: ignore[no-untyped-def]
    positions, feature_ids, triangles, frame, quantum
):
    """Return the fields of `_Solids` of a primitive of layout ``prisms``."""
    count = len(positions) // 5
    following = np.full(count, -1, dtype=np.int64)
    for t in range(len(triangles)):
        for k in range(3):
            # A wall's lower triangle has the foot of its start and, next, that of its end.
            v, w = triangles[t, k], triangles[t, (k + 1) % 3]
            if v % 5 == 4 and w % 5 == 0:
                following[v // 5] = w // 5
    roof = np.empty((count, 2), dtype=np.int64)
    for i in range(count):
        roof[i, 0] = positions[5 * i + 2, 0]
        roof[i, 1] = positions[5 * i + 2, 1]
    lonlat = np.empty((count, 2))
    start = np.zeros(count + 1, dtype=np.int64)
    bottom, top = np.empty(count), np.empty(count)
    row = np.empty(count, dtype=np.int64)
    areas = np.empty(count, dtype=np.int64)
    made = points = begin = 0
    for i in range(count):
        if following[i] == i + 1:
            continue
        area = double_area(roof, begin, i + 1)
        if area > 0:
            low = high = 0.0
            for k in range(begin, i + 1):
                v = positions[5 * k]
                low += geodetic(float(v[0]), float(v[1]), float(v[2]), frame, quantum)[2]
                v = positions[5 * k + 2]
                lon, lat, height = geodetic(float(v[0]), float(v[1]), float(v[2]), frame, quantum)
                high += height
                lonlat[points, 0], lonlat[points, 1] = lon, lat
                points += 1
            # Rounding evens out over the corners.
            bottom[made] = low / (i + 1 - begin)
            top[made] = high / (i + 1 - begin)
            row[made] = feature_ids[5 * begin]
            areas[made] = area
            made += 1
            start[made] = points
        begin = i + 1
    return (
        lonlat[:points].copy(),
        start[: made + 1].copy(),
        bottom[:made].copy(),
        top[:made].copy(),
        row[:made].copy(),
        areas[:made].copy(),
    )


@njit(cache=True)
def _hulls(positions, row, frame, quantum):  # type: ignore[no-untyped-def]
    """Return the fields of `_Solids` of vertices sorted by row."""
    count = len(positions)
    # Widened hulls have a corner or two more than the mesh has vertices.
    lonlat = np.empty((3 * count, 2))
    start = np.zeros(count + 1, dtype=np.int64)
    bottom, top = np.empty(count), np.empty(count)
    rows = np.empty(count, dtype=np.int64)
    areas = np.empty(count, dtype=np.int64)
    made = points = begin = 0
    for i in range(count):
        if i + 1 < count and row[i + 1] == row[i]:
            continue
        low, high = np.inf, -np.inf
        for k in range(begin, i + 1):
            v = positions[k]
            height = geodetic(float(v[0]), float(v[1]), float(v[2]), frame, quantum)[2]
            low, high = min(low, height), max(high, height)
        hull = widened(
            positions[begin : i + 1, 0].astype(np.int64),
            positions[begin : i + 1, 1].astype(np.int64),
        )
        for k in range(len(hull)):
            z = float(positions[begin + hull[k, 2], 2])
            lon, lat, _ = geodetic(float(hull[k, 0]), float(hull[k, 1]), z, frame, quantum)
            lonlat[points, 0], lonlat[points, 1] = lon, lat
            points += 1
        bottom[made], top[made] = low, high
        rows[made] = row[begin]
        areas[made] = double_area(hull, 0, len(hull))
        made += 1
        start[made] = points
        begin = i + 1
    return (
        lonlat[:points].copy(),
        start[: made + 1].copy(),
        bottom[:made].copy(),
        top[:made].copy(),
        rows[:made].copy(),
        areas[:made].copy(),
    )
