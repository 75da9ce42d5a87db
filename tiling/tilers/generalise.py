"""Coarser levels of a city: prisms to fewer prisms, true to an error in metres.

Large prisms keep their outline, simplified. Small ones are gathered in square cells of the side
of the error; what shares a cell and is of about one height becomes one block: the least rectangle
around it, shrunk to the area of what it stands for, so that a built-up cell does not turn into a
slab and volumes stay. A block that would stray from what it stands for by more than the error is
made of smaller cells, in the end of single prisms. A tower among low houses keeps its own block.

Everything depends on the values alone: prisms are sorted before anything is added up.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from tiling.coords import TileCoord, morton2
from tiling.kernels import njit
from tiling.tilers.blocks import rectangles
from tiling.tilers.prisms import Prisms

# What a tile may hold; above it the tolerance is raised until it fits.
MOST_PRISMS = 5_000
MOST_TRIANGLES = 60_000
_RAISE = 1.5

# Outlines are simplified by this part of the error.
_SIMPLIFY = 0.25
# At a screen-space error of 16 a tile's error is at most 16 pixels: what is lower and narrower
# than a pixel, and stands for few, is left out.
_PIXEL = 1 / 16
_FEW = 10
# Cells of blocks that stray are halved this often, then their prisms stand alone.
_HALVINGS = 2

# WGS 84, metres for a degree of latitude at the equator (a circle is enough for clustering).
_METRES_A_DEGREE = 111_320.0


@dataclass(frozen=True, slots=True)
class _Flat:
    """Prisms in canonical order, in metres from the corner of a cell.

    Attributes:
        xy: (P, 2) float64 metres.
        start: (N + 1,) int64.
        centre: (N, 2) float64 centroids.
        radius: (N,) float64, from the centroid to the farthest point.
        area: (N,) float64 m2.
        bottom, top: (N,) float64 m.
        ids, features: (N,) int64.
    """

    xy: NDArray[np.float64]
    start: NDArray[np.int64]
    centre: NDArray[np.float64]
    radius: NDArray[np.float64]
    area: NDArray[np.float64]
    bottom: NDArray[np.float64]
    top: NDArray[np.float64]
    ids: NDArray[np.int64]
    features: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: NDArray[np.int64]) -> _Flat:
        """Return some prisms."""
        xy, start = _gathered(self.xy, self.start, rows)
        return _Flat(
            xy,
            start,
            self.centre[rows],
            self.radius[rows],
            self.area[rows],
            self.bottom[rows],
            self.top[rows],
            self.ids[rows],
            self.features[rows],
        )

    @classmethod
    def made(
        cls,
        xy: NDArray[np.float64],
        start: NDArray[np.int64],
        bottom: NDArray[np.float64],
        top: NDArray[np.float64],
        ids: NDArray[np.int64],
        features: NDArray[np.int64],
    ) -> _Flat:
        """Return prisms in the order that depends on their values alone."""
        centre, radius, area = _measured(xy, start)
        flat = cls(xy, start, centre, radius, area, bottom, top, ids, features)
        # A tenth of a millimetre, and 2**31 of them to either side of the corner.
        cell = np.floor(flat.centre * 1e4).astype(np.int64) + (1 << 31)
        morton = morton2(*cell.astype(np.uint64).T)
        return flat.take(np.lexsort((flat.area, top, bottom, ids, morton)))


def generalise(prisms: Prisms, cell: TileCoord, error_m: float) -> Prisms:
    """Return the prisms of the tile `cell`, whose geometric error is `error_m`.

    Outlines stay within the error of those they stand for, tops too; volumes and the sum of
    features are kept. Only a tile that would hold more than `MOST_PRISMS` or `MOST_TRIANGLES` is
    made with a larger tolerance.

    Args:
        prisms: those of the children, in any order.
        cell: of the global quadtree; blocks are gathered in a raster that starts at its corner.
        error_m: metres.
    """
    if not len(prisms):
        return prisms
    corner, scale = _local(cell)
    flat = _Flat.made(
        (prisms.lonlat - corner) * scale,
        prisms.start,
        prisms.bottom_m,
        prisms.top_m,
        prisms.ids,
        prisms.features,
    )
    tolerance = error_m
    while True:
        coarse = _coarse(flat, tolerance)
        if len(coarse) <= MOST_PRISMS and _triangles(coarse) <= MOST_TRIANGLES:
            break
        tolerance *= _RAISE
    return Prisms(
        coarse.xy / scale + corner,
        coarse.start,
        coarse.bottom,
        coarse.top,
        coarse.ids,
        coarse.features,
    )


def _local(cell: TileCoord) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the south-west corner (lon, lat) of a cell and metres a degree in its middle."""
    size = 180.0 / 2**cell.level
    corner = np.array([-180.0 + cell.x * size, -90.0 + cell.y * size])
    east = _METRES_A_DEGREE * np.cos(np.radians(corner[1] + size / 2))
    return corner, np.array([east, _METRES_A_DEGREE])


def _triangles(flat: _Flat) -> int:
    # Of n points: two for each wall, n - 2 for the roof.
    return 3 * len(flat.xy) - 2 * len(flat)


def _coarse(flat: _Flat, error: float) -> _Flat:
    large = flat.radius > error / 2
    kept = _simplified(flat.take(np.flatnonzero(large)), error * _SIMPLIFY)
    parts = [kept, *_blocks(flat.take(np.flatnonzero(~large)), error)]
    points = np.cumsum([0] + [len(part.xy) for part in parts])
    starts = [part.start[1:] + before for part, before in zip(parts, points, strict=False)]
    joined = _Flat.made(
        np.concatenate([part.xy for part in parts]),
        np.concatenate([[0], *starts]),
        np.concatenate([part.bottom for part in parts]),
        np.concatenate([part.top for part in parts]),
        np.concatenate([part.ids for part in parts]),
        np.concatenate([part.features for part in parts]),
    )
    return _without_specks(joined, error * _PIXEL)


def _simplified(flat: _Flat, tolerance: float) -> _Flat:
    if not len(flat):
        return flat
    rings = shapely.linearrings(
        flat.xy, indices=np.repeat(np.arange(len(flat)), np.diff(flat.start))
    )
    polygons = shapely.simplify(shapely.polygons(rings), tolerance, preserve_topology=True)
    # Outlines read from a grid may touch themselves.
    broken = np.flatnonzero(~shapely.is_valid(polygons) | shapely.is_empty(polygons))
    for row in broken.tolist():
        parts = shapely.get_parts(shapely.make_valid(polygons[row]))
        areas = shapely.area(parts)
        whole = parts[int(areas.argmax())] if len(parts) and areas.max() > 0 else polygons[row]
        polygons[row] = shapely.Polygon(shapely.get_exterior_ring(whole))
    polygons = shapely.orient_polygons(polygons)
    points, owner = shapely.get_coordinates(polygons, return_index=True)
    last = np.append(owner[1:] != owner[:-1], True)
    counts = np.bincount(owner[~last], minlength=len(flat))
    start = np.concatenate([[0], np.cumsum(counts)])
    return _Flat(
        points[~last],
        start,
        flat.centre,
        flat.radius,
        flat.area,
        flat.bottom,
        flat.top,
        flat.ids,
        flat.features,
    )


def _blocks(flat: _Flat, error: float) -> list[_Flat]:
    """Return the blocks of small prisms."""
    made = []
    side = error
    for halving in range(_HALVINGS + 2):
        if not len(flat):
            break
        alone = halving > _HALVINGS
        key = np.arange(len(flat)) if alone else _clusters(flat, side, error)
        flat = flat.take(np.argsort(key, kind="stable"))
        members = np.concatenate([[0], np.cumsum(np.bincount(key))])
        corners, stray = rectangles(flat.xy, flat.start, members, flat.area)
        good = (stray <= error) | alone
        xy = corners[good].reshape(-1, 2)
        made.append(
            _Flat(
                xy,
                4 * np.arange(int(good.sum()) + 1),
                *_measured(xy, 4 * np.arange(good.sum() + 1)),
                *(
                    values[good]
                    for values in _summed(
                        members, flat.area, flat.bottom, flat.top, flat.ids, flat.features
                    )
                ),
            )
        )
        flat = flat.take(np.flatnonzero(np.repeat(~good, np.diff(members))))
        side /= 2
    return made


def _clusters(flat: _Flat, side: float, error: float) -> NDArray[np.int64]:
    """Return (N,) the cluster of each prism: those of one cell whose tops are within the error."""
    column, row = (np.floor(flat.centre / side).astype(np.int64) + (1 << 30)).T
    _, cell = np.unique(column << 31 | row, return_inverse=True)
    lowest = np.full(int(cell.max()) + 1, np.inf)
    np.minimum.at(lowest, cell, flat.top)
    band = np.minimum((flat.top - lowest[cell]) // error, (1 << 20) - 1).astype(np.int64)
    _, cluster = np.unique(cell << 20 | band, return_inverse=True)
    return np.asarray(cluster, dtype=np.int64)


def _without_specks(flat: _Flat, pixel: float) -> _Flat:
    """Drop what nobody sees; what it stands for is counted with the nearest that stays."""
    speck = (flat.area < pixel**2) & (flat.top - flat.bottom < pixel) & (flat.features <= _FEW)
    if speck.all():
        speck[int(np.argmax(flat.area * (flat.top - flat.bottom)))] = False
    kept, dropped = np.flatnonzero(~speck), np.flatnonzero(speck)
    stays = flat.take(kept)
    heirs = _nearest(flat.centre[dropped], stays.centre)
    np.add.at(stays.features, heirs, flat.features[dropped])
    return stays


@njit(cache=True)
def _measured(
    xy: NDArray[np.float64], start: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return centroid (N, 2), greatest distance from it (N,) and area (N,) of N rings."""
    count = len(start) - 1
    centre = np.empty((count, 2))
    radius = np.zeros(count)
    area = np.empty(count)
    for ring in range(count):
        first, last = start[ring], start[ring + 1]
        x0, y0 = xy[first, 0], xy[first, 1]
        twice = sx = sy = mx = my = 0.0
        for i in range(first, last):
            j = i + 1 if i + 1 < last else first
            xi, yi = xy[i, 0] - x0, xy[i, 1] - y0
            xj, yj = xy[j, 0] - x0, xy[j, 1] - y0
            cross = xi * yj - xj * yi
            twice += cross
            sx += (xi + xj) * cross
            sy += (yi + yj) * cross
            mx += xi
            my += yi
        # Without area to speak of, the mean of the points has to do.
        if twice > 1e-6:
            centre[ring, 0] = x0 + sx / (3.0 * twice)
            centre[ring, 1] = y0 + sy / (3.0 * twice)
        else:
            centre[ring, 0] = x0 + mx / (last - first)
            centre[ring, 1] = y0 + my / (last - first)
        area[ring] = max(0.0, twice / 2.0)
        for i in range(first, last):
            away = np.hypot(xy[i, 0] - centre[ring, 0], xy[i, 1] - centre[ring, 1])
            radius[ring] = max(radius[ring], away)
    return centre, radius, area


@njit(cache=True)
def _gathered(
    xy: NDArray[np.float64], start: NDArray[np.int64], rows: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    begins = np.zeros(len(rows) + 1, dtype=np.int64)
    for k in range(len(rows)):
        begins[k + 1] = begins[k] + start[rows[k] + 1] - start[rows[k]]
    out = np.empty((begins[-1], 2))
    for k in range(len(rows)):
        for i in range(begins[k + 1] - begins[k]):
            out[begins[k] + i, 0] = xy[start[rows[k]] + i, 0]
            out[begins[k] + i, 1] = xy[start[rows[k]] + i, 1]
    return out, begins


@njit(cache=True)
def _summed(  # type: ignore[no-untyped-def]
    members, area, bottom, top, ids, features
):
    """Return bottom, top, id and features of every cluster."""
    count = len(members) - 1
    low, high = np.full(count, np.inf), np.zeros(count)
    leader, total = np.empty(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
    for c in range(count):
        weight, best = 0.0, -1.0
        for n in range(members[c], members[c + 1]):
            low[c] = min(low[c], bottom[n])
            # Slivers count a little, so that a cluster of them has a height.
            share = area[n] + 1e-6
            weight += share
            high[c] += share * top[n]
            total[c] += features[n]
            volume = area[n] * (top[n] - bottom[n])
            if volume > best or (volume == best and ids[n] < leader[c]):
                best, leader[c] = volume, ids[n]
        high[c] /= weight
    return low, high, leader, total


@njit(cache=True)
def _nearest(places: NDArray[np.float64], kept: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return (D,) which of the (K, 2) places is nearest to each of (D, 2); of equals the first."""
    heirs = np.zeros(len(places), dtype=np.int64)
    for d in range(len(places)):
        nearest = np.inf
        for k in range(len(kept)):
            dx, dy = places[d, 0] - kept[k, 0], places[d, 1] - kept[k, 1]
            if dx * dx + dy * dy < nearest:
                nearest, heirs[d] = dx * dx + dy * dy, k
    return heirs
