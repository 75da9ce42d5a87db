"""The faces of terrain meshes under polygons: the ground as it is drawn, not as it was measured.

The one idea: a mesh is right triangles that were split at the middle of their hypotenuses, so
inside a cell of nodes it bends along one diagonal at most, which rises in cells whose column and
row add up to an even number and falls in the others. The heights of all nodes on a mesh's faces
are therefore the whole mesh, and its lowest and highest points in a polygon lie at nodes inside
and where the outline crosses the rows, columns and diagonals of nodes: both are exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray

from tiling.coords import TileCoord
from tiling.formats.quantized_mesh import QUANTA, decode
from tiling.kernels import njit

Array = NDArray[np.float64]
Faces = Callable[[TileCoord], NDArray[np.float32] | None]


class Lattice(NamedTuple):
    """Where the nodes of a level lie.

    Attributes:
        level: of its tiles.
        cells: of nodes along the edge of a tile.
    """

    level: int
    cells: int

    @property
    def per_degree(self) -> float:
        """Cells in a degree."""
        return math.ldexp(self.cells, self.level) / 180


def node_heights(data: bytes, cells: int) -> NDArray[np.float32]:
    """Return the heights of a mesh at every node of its tile.

    Args:
        data: a quantized-mesh tile that `terrain_mesh` made, uncompressed.
        cells: of nodes along its edge.

    Returns:
        (cells + 1, cells + 1) float32 ellipsoidal metres, rows from the south.
    """
    mesh = decode(data)
    column = np.rint(mesh.u.astype(np.float64) * (cells / QUANTA)).astype(np.int64)
    row = np.rint(mesh.v.astype(np.float64) * (cells / QUANTA)).astype(np.int64)
    heights = np.full((cells + 1, cells + 1), np.nan, dtype=np.float32)
    _spread(column, row, mesh.heights_m(), mesh.triangles.astype(np.int64), heights)
    return heights


def tiles_under(polygons: NDArray[np.object_], lattice: Lattice) -> NDArray[np.int64]:
    """Return the (N, 4) first column, first row, last column and last row of tiles below each."""
    bounds = shapely.bounds(polygons) + np.array([180.0, 90.0, 180.0, 90.0])
    return np.asarray(np.floor(bounds * (lattice.per_degree / lattice.cells)), dtype=np.int64)


def height_ranges(
    polygons: NDArray[np.object_], lattice: Lattice, faces: Faces
) -> tuple[Array, Array]:
    """Return the lowest and highest points of the meshes below polygons.

    Args:
        polygons: (N,) polygons and multipolygons in lon/lat degrees.
        lattice: see `Lattice`.
        faces: a tile's `node_heights`, None where there is none.

    Returns:
        (N,) lowest and (N,) highest ellipsoidal heights, metres: of what lies on tiles; ``inf``
        and ``-inf`` where nothing does.
    """
    spans = tiles_under(polygons, lattice)
    wide = (spans[:, 2:] - spans[:, :2] + 1).prod(axis=1)
    owner = np.repeat(np.arange(len(polygons)), wide)
    nth = np.arange(len(owner)) - np.repeat(np.cumsum(wide) - wide, wide)
    across = (spans[:, 2] - spans[:, 0] + 1)[owner]
    keys = np.unique(_key(spans[owner, 0] + nth % across, spans[owner, 1] + nth // across))
    found = [(key, faces(_coord(lattice.level, int(key)))) for key in keys]
    there = [(key, heights) for key, heights in found if heights is not None]
    low, high = np.full(len(polygons), np.inf), np.full(len(polygons), -np.inf)
    if there:
        known = np.array([key for key, _ in there], dtype=np.int64)
        stacked = np.stack([heights for _, heights in there])
        segments, starts = _segments(polygons, lattice.per_degree)
        _ranges(segments, starts, known, stacked, low, high)
    return low, high


def _segments(polygons: NDArray[np.object_], per_degree: float) -> tuple[Array, NDArray[np.int64]]:
    """Return (S, 4) pieces of outlines in units of nodes, and the (N + 1,) first of each."""
    parts, part_of = shapely.get_parts(polygons, return_index=True)
    rings, ring_of = shapely.get_rings(parts, return_index=True)
    points, point_of = shapely.get_coordinates(rings, return_index=True)
    points = (points + [180.0, 90.0]) * per_degree
    joined = point_of[1:] == point_of[:-1]
    segments = np.hstack([points[:-1], points[1:]])[joined]
    owner = part_of[ring_of[point_of[:-1][joined]]]
    return segments, np.searchsorted(owner, np.arange(len(polygons) + 1))


def _key(x: NDArray[np.int64], y: NDArray[np.int64]) -> NDArray[np.int64]:
    return (y << 32) | x


def _coord(level: int, key: int) -> TileCoord:
    return TileCoord(level, key & 0xFFFFFFFF, key >> 32)


@njit(cache=True)
def _spread(column, row, heights, triangles, out):  # type: ignore[no-untyped-def]
    """Write the heights of every node on the faces of a mesh."""
    for k in range(len(triangles)):
        a, b, c = triangles[k, 0], triangles[k, 1], triangles[k, 2]
        ax, ay, bx, by, cx, cy = column[a], row[a], column[b], row[b], column[c], row[c]
        area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
        for j in range(min(ay, by, cy), max(ay, by, cy) + 1):
            for i in range(min(ax, bx, cx), max(ax, bx, cx) + 1):
                u = (bx - i) * (cy - j) - (cx - i) * (by - j)
                v = (cx - i) * (ay - j) - (ax - i) * (cy - j)
                w = area - u - v
                if u >= 0 and v >= 0 and w >= 0:
                    out[j, i] = (u * heights[a] + v * heights[b] + w * heights[c]) / area


@njit(cache=True)
def _height(x, y, keys, nodes):  # type: ignore[no-untyped-def]
    """Return the height of the mesh at a place in units of nodes, NaN where no tile is."""
    cells = nodes.shape[1] - 1
    i, j = int(math.floor(x)), int(math.floor(y))
    key = ((j // cells) << 32) | (i // cells)
    at = np.searchsorted(keys, key)
    if at == len(keys) or keys[at] != key:
        return math.nan
    a, b = x - i, y - j
    p, q = j % cells, i % cells
    sw, se = nodes[at, p, q], nodes[at, p, q + 1]
    nw, ne = nodes[at, p + 1, q], nodes[at, p + 1, q + 1]
    if (i + j) % 2 == 0:
        if a >= b:
            return sw + a * (se - sw) + b * (ne - se)
        return sw + b * (nw - sw) + a * (ne - nw)
    if a + b <= 1:
        return sw + a * (se - sw) + b * (nw - sw)
    return ne + (1 - a) * (nw - ne) + (1 - b) * (se - ne)


@njit(cache=True)
def _take(height, k, low, high):  # type: ignore[no-untyped-def]
    # Neither comparison holds for NaN.
    if height < low[k]:
        low[k] = height
    if height > high[k]:
        high[k] = height


@njit(cache=True)
def _ranges(segments, starts, keys, nodes, low, high):  # type: ignore[no-untyped-def]
    """Write the lowest and highest points below each polygon: its outline, then nodes inside."""
    for k in range(len(low)):
        own = segments[starts[k] : starts[k + 1]]
        for s in range(len(own)):
            x0, y0, x1, y1 = own[s]
            _take(_height(x0, y0, keys, nodes), k, low, high)
            # Columns, rows, falling and rising diagonals.
            for from_, to in ((x0, x1), (y0, y1), (x0 + y0, x1 + y1), (x0 - y0, x1 - y1)):
                first, last = math.ceil(min(from_, to)), math.floor(max(from_, to))
                for line in range(int(first), int(last) + 1):
                    if from_ == to:
                        continue
                    t = (line - from_) / (to - from_)
                    x = min(max(x0 + t * (x1 - x0), min(x0, x1)), max(x0, x1))
                    y = min(max(y0 + t * (y1 - y0), min(y0, y1)), max(y0, y1))
                    _take(_height(x, y, keys, nodes), k, low, high)
        if len(own):
            _inside(own, k, keys, nodes, low, high)


@njit(cache=True)
def _inside(own, k, keys, nodes, low, high):  # type: ignore[no-untyped-def]
    """Take the nodes inside a polygon: between odd and even crossings of each row."""
    crossings = np.empty(len(own))
    south = min(own[:, 1].min(), own[:, 3].min())
    north = max(own[:, 1].max(), own[:, 3].max())
    for row in range(int(math.ceil(south)), int(math.floor(north)) + 1):
        n = 0
        for s in range(len(own)):
            x0, y0, x1, y1 = own[s]
            if (y0 <= row) != (y1 <= row):
                crossings[n] = x0 + (row - y0) / (y1 - y0) * (x1 - x0)
                n += 1
        ordered = np.sort(crossings[:n])
        for pair in range(0, n - 1, 2):
            for column in range(
                int(math.ceil(ordered[pair])), int(math.floor(ordered[pair + 1])) + 1
            ):
                _take(_height(float(column), float(row), keys, nodes), k, low, high)
