"""One terrain tile: from the nodes that are needed to the bytes of a quantized mesh.

The one idea: two triangles are split until no node on a hypotenuse is needed, in the order of a
Sierpinski curve, so neighbours in the list are neighbours on the ground and differences are small.
Vertices are numbered as they are met, which is the order that the format's indices want.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tiling.coords import TileCoord
from tiling.ellipsoid import FLATTENING, SEMI_MAJOR_M
from tiling.formats import quantized_mesh
from tiling.formats.quantized_mesh import QUANTA
from tiling.kernels import njit
from tiling.tilers.horizon import enclose
from tiling.tilers.terrain_rtin import HALF_QUANTUM, SUB

_ECCENTRICITY_2 = FLATTENING * (2 - FLATTENING)

Array = NDArray[np.float64]


class Sheet(NamedTuple):
    """Heights over some tiles of one spacing, and which nodes are needed.

    Attributes:
        x0, y0: place of ``fine[0, 0]`` on the globe's grid of nodes.
        step_deg: between nodes.
        low_m, high_m: ellipsoidal heights of 0 and of `QUANTA` quanta.
        fine: (rows, columns) int32 heights, `SUB` to a quantum.
        classes: (rows, columns) uint8, see `terrain_rtin.classify`.
    """

    x0: int
    y0: int
    step_deg: float
    low_m: float
    high_m: float
    fine: NDArray[np.int32]
    classes: NDArray[np.uint8]


class _Room(NamedTuple):
    """Arrays that every tile of a size is made in."""

    number: NDArray[np.int32]
    nodes: NDArray[np.int32]
    codes: NDArray[np.uint16]
    wide_codes: NDArray[np.uint32]
    edges: NDArray[np.uint32]
    deltas: NDArray[np.uint16]
    normals: NDArray[np.uint8]
    points: Array
    places: NDArray[np.int64]


@cache
def _room(cells: int) -> _Room:
    n = (cells + 1) ** 2
    return _Room(
        np.full((cells + 1, cells + 1), -1, dtype=np.int32),
        np.empty((n, 2), dtype=np.int32),
        np.empty(6 * cells * cells, dtype=np.uint16),
        np.empty(6 * cells * cells, dtype=np.uint32),
        np.empty((4, cells + 1), dtype=np.uint32),
        np.empty(3 * n, dtype=np.uint16),
        np.empty((n, 2), dtype=np.uint8),
        np.empty((n, 3)),
        np.rint(np.arange(cells + 1) * (QUANTA / cells)).astype(np.int64),
    )


def encode_tile(
    sheet: Sheet, coord: TileCoord, cells: int, rank: int, longest: float, stride: int
) -> tuple[bytes, int, int]:
    """Return the bytes of a tile, uncompressed, and its numbers of vertices and triangles.

    Args:
        sheet: heights that reach `stride` nodes beyond the tile.
        coord: the tile.
        cells: nodes along its edge.
        rank: nodes whose class is above this are needed.
        longest: hypotenuses longer than this, in nodes, are split in any case.
        stride: nodes to either side between which slopes are measured, for the normals.
    """
    room = _room(cells)
    west, south = coord.x * cells - sheet.x0, coord.y * cells - sheet.y0
    vertices, triangles = _mesh(
        sheet.classes,
        south,
        west,
        cells,
        rank,
        longest * longest,
        (coord.x + coord.y) % 2 == 0,
        room.number,
        room.nodes,
        room.codes,
        room.wide_codes,
    )
    counts = _edges(room.number, room.edges)
    per_metre = QUANTA * SUB / (sheet.high_m - sheet.low_m)
    _normals(
        sheet.fine,
        south,
        west,
        sheet.x0,
        sheet.y0,
        sheet.step_deg,
        stride,
        per_metre,
        room.nodes[:vertices],
        room.normals,
    )
    size = 180 / 2**coord.level
    header = _vertices(
        sheet.fine,
        south,
        west,
        coord.x * size - 180,
        coord.y * size - 90,
        size,
        sheet.low_m,
        (sheet.high_m - sheet.low_m) / QUANTA,
        room.nodes[:vertices],
        room.places,
        room.deltas,
        room.points,
    )
    numbers = header.tolist()
    head = quantized_mesh.Header(
        center=tuple(numbers[0:3]),
        min_height_m=sheet.low_m,
        max_height_m=sheet.high_m,
        sphere_center=tuple(numbers[3:6]),
        sphere_radius_m=numbers[6],
        horizon=tuple(numbers[7:10]),
    )
    wide = vertices > quantized_mesh.MAX_SHORT_VERTICES
    codes: NDArray[Any] = room.wide_codes if wide else room.codes
    data = quantized_mesh.assemble(
        head,
        vertices,
        room.deltas[: 3 * vertices],
        codes[: 3 * triangles],
        [room.edges[k, : counts[k]] for k in range(4)],
        room.normals[:vertices],
    )
    return data, vertices, triangles


@njit(cache=True)
def _mesh(classes, south, west, cells, rank, longest_2, rising, number, nodes, codes, wide):  # type: ignore[no-untyped-def]
    """Triangulate; return the numbers of vertices and triangles."""
    number[:, :] = -1
    stack = np.empty((64, 6), dtype=np.int64)
    # Hypotenuse from a to b, right angle at c, counter-clockwise.
    if rising:
        _push(stack, 0, 0, 0, cells, cells, 0, cells)
        _push(stack, 1, cells, cells, 0, 0, cells, 0)
    else:
        _push(stack, 0, cells, 0, 0, cells, 0, 0)
        _push(stack, 1, 0, cells, cells, 0, cells, cells)
    depth = 2
    vertices, indices = 0, 0
    while depth:
        depth -= 1
        ax, ay, bx, by = stack[depth, 0], stack[depth, 1], stack[depth, 2], stack[depth, 3]
        cx, cy = stack[depth, 4], stack[depth, 5]
        if abs(ax - cx) + abs(ay - cy) > 1:
            mx, my = (ax + bx) >> 1, (ay + by) >> 1
            across, up = bx - ax, by - ay
            if classes[south + my, west + mx] > rank or across * across + up * up > longest_2:
                _push(stack, depth, bx, by, cx, cy, mx, my)
                _push(stack, depth + 1, cx, cy, ax, ay, mx, my)
                depth += 2
                continue
        for x, y in ((ax, ay), (bx, by), (cx, cy)):
            index = number[y, x]
            if index < 0:
                index = vertices
                number[y, x] = index
                nodes[vertices, 0] = x
                nodes[vertices, 1] = y
                code = 0
                vertices += 1
            else:
                code = vertices - index
            codes[indices] = code & 0xFFFF
            wide[indices] = code
            indices += 1
    return vertices, indices // 3


@njit(cache=True)
def _push(stack, depth, ax, ay, bx, by, cx, cy):  # type: ignore[no-untyped-def]
    stack[depth, 0], stack[depth, 1] = ax, ay
    stack[depth, 2], stack[depth, 3] = bx, by
    stack[depth, 4], stack[depth, 5] = cx, cy


@njit(cache=True)
def _edges(number, edges):  # type: ignore[no-untyped-def]
    """List the vertices on the west, south, east and north edge; return how many each has."""
    last = number.shape[0] - 1
    counts = np.zeros(4, dtype=np.int64)
    for k in range(last + 1):
        along = (number[k, 0], number[0, k], number[k, last], number[last, k])
        for side in range(4):
            if along[side] >= 0:
                edges[side, counts[side]] = along[side]
                counts[side] += 1
    return counts


@njit(cache=True)
def _zigzag(delta):  # type: ignore[no-untyped-def]
    return ((delta << 1) ^ (delta >> 31)) & 0xFFFF


@njit(cache=True)
def _radians(node, step, start):  # type: ignore[no-untyped-def]
    return math.radians(start + node * step)


@njit(cache=True)
def _normals(fine, south, west, x0, y0, step, stride, per_metre, nodes, normals):  # type: ignore[no-untyped-def]
    """Write the oct-encoded normals of the vertices.

    Slopes are central differences along the meridian and the parallel (radii of curvature of the
    ellipsoid at height 0). A place has one name for both tiles of an edge: longitudes run to the
    antimeridian once, and beyond a pole there is nothing.
    """
    around = round(360 / step)
    top = round(180 / step)
    for k in range(len(nodes)):
        i, j = nodes[k, 0] + west, nodes[k, 1] + south
        x, y = (x0 + i) % around, y0 + j
        above, below = min(y + stride, top), max(y - stride, 0)
        phi, lam = _radians(y, step, -90.0), _radians(x, step, -180.0)
        sin, cos = math.sin(phi), math.cos(phi)
        w2 = 1 - _ECCENTRICITY_2 * sin * sin
        prime = SEMI_MAJOR_M / math.sqrt(w2)
        meridian = prime * (1 - _ECCENTRICITY_2) / w2
        slope_e = 0.0
        if 0 < y < top:
            rise = (fine[j, i + stride] - fine[j, i - stride]) / per_metre
            slope_e = rise / (2 * stride * math.radians(step) * prime * cos)
        rise = (fine[j + above - y, i] - fine[j + below - y, i]) / per_metre
        slope_n = rise / ((above - below) * math.radians(step) * meridian)
        sin_l, cos_l = math.sin(lam), math.cos(lam)
        nx = slope_e * sin_l + slope_n * sin * cos_l + cos * cos_l
        ny = -slope_e * cos_l + slope_n * sin * sin_l + cos * sin_l
        nz = -slope_n * cos + sin
        # Cigolle et al. 2014; see `quantized_mesh.oct_encode`. It needs no unit length.
        total = abs(nx) + abs(ny) + abs(nz)
        u, v = nx / total, ny / total
        if nz < 0:
            u, v = (
                (1 - abs(v)) * (-1.0 if u < 0 else 1.0),
                (1 - abs(u)) * (-1.0 if v < 0 else 1.0),
            )
        normals[k, 0] = int(math.floor((min(max(u, -1.0), 1.0) * 0.5 + 0.5) * 255 + 0.5))
        normals[k, 1] = int(math.floor((min(max(v, -1.0), 1.0) * 0.5 + 0.5) * 255 + 0.5))


@njit(cache=True)
def _vertices(fine, south, west, lon0, lat0, size, low, quantum, nodes, places, deltas, points):  # type: ignore[no-untyped-def]
    """Write the differences of u, v and h; return centre, sphere and horizon point."""
    n = len(nodes)
    m = len(places)
    columns, rows = np.empty((m, 2)), np.empty((m, 3))
    for k in range(m):
        lam = math.radians(lon0 + places[k] / QUANTA * size)
        phi = math.radians(lat0 + places[k] / QUANTA * size)
        columns[k, 0], columns[k, 1] = math.cos(lam), math.sin(lam)
        rows[k, 0], rows[k, 1] = math.cos(phi), math.sin(phi)
        rows[k, 2] = SEMI_MAJOR_M / math.sqrt(1 - _ECCENTRICITY_2 * rows[k, 1] * rows[k, 1])
    before_u, before_v, before_h = 0, 0, 0
    lowest, highest = QUANTA, 0
    for k in range(n):
        i, j = nodes[k, 0], nodes[k, 1]
        u, v = places[i], places[j]
        h = (fine[south + j, west + i] + HALF_QUANTUM) // SUB
        lowest, highest = min(lowest, h), max(highest, h)
        deltas[k] = _zigzag(u - before_u)
        deltas[n + k] = _zigzag(v - before_v)
        deltas[2 * n + k] = _zigzag(h - before_h)
        before_u, before_v, before_h = u, v, h
        height = low + h * quantum
        prime = rows[j, 2]
        points[k, 0] = (prime + height) * rows[j, 0] * columns[i, 0]
        points[k, 1] = (prime + height) * rows[j, 0] * columns[i, 1]
        points[k, 2] = (prime * (1 - _ECCENTRICITY_2) + height) * rows[j, 1]
    header = np.empty(10)
    lam, phi = math.radians(lon0 + size / 2), math.radians(lat0 + size / 2)
    height = low + (lowest + highest) / 2 * quantum
    prime = SEMI_MAJOR_M / math.sqrt(1 - _ECCENTRICITY_2 * math.sin(phi) ** 2)
    header[0] = (prime + height) * math.cos(phi) * math.cos(lam)
    header[1] = (prime + height) * math.cos(phi) * math.sin(lam)
    header[2] = (prime * (1 - _ECCENTRICITY_2) + height) * math.sin(phi)
    header[3:10] = enclose(points[:n], header[:3])
    return header
