"""Geometry for one zoom: simplified below a quantum, sliced into cells, rounded and kept valid.

Everything is vectorised over features; loops run over cells. Coordinates are Web Mercator metres
(EPSG:3857) until `to_tile` makes whole tile units of them (x east, y south).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray

from tiling.formats.mvt import BUFFER, EXTENT
from tiling.formats.mvt_geometry import LINE, POINT, POLYGON, geometry_kinds
from tiling.tilers.clipping import clip_by_rect

# Circumference of the sphere that Web Mercator projects from (EPSG method 1024), metres.
WORLD_M = 2 * math.pi * 6378137.0
# Tolerance in quanta: invisible, and rounding moves a vertex as far.
TOLERANCE_QUANTA = 0.75
# What is smaller than a pixel of a 512 px tile is left out, except at full detail.
PIXEL_QUANTA = 8
_STRIDE = 3
_FEWEST_POINTS = 5

Geometries = NDArray[np.object_]


class Slice(NamedTuple):
    """The features of one cell: ``rows`` (M,) ascending, ``pieces`` (M,) clipped geometries."""

    x: int
    y: int
    rows: NDArray[np.int64]
    pieces: Geometries


def tile_side_m(zoom: int) -> float:
    """Return the side of a tile in Web Mercator metres."""
    return WORLD_M / (1 << zoom)


def quantum_m(zoom: int) -> float:
    """Return the tile unit of a zoom in Web Mercator metres."""
    return tile_side_m(zoom) / EXTENT


def smallest_m(zoom: int) -> float:
    """Return the size below which a feature is left out of a zoom, Web Mercator metres."""
    return PIXEL_QUANTA * quantum_m(zoom)


def cells_of(
    x_m: NDArray[np.float64], y_m: NDArray[np.float64], zoom: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the columns and rows, (N,) int64, of the cells that hold (N,) points."""
    side, last = tile_side_m(zoom), (1 << zoom) - 1
    column = np.floor((x_m + WORLD_M / 2) / side).astype(np.int64)
    row = np.floor((WORLD_M / 2 - y_m) / side).astype(np.int64)
    return np.clip(column, 0, last), np.clip(row, 0, last)


def simplified(geometry: Geometries, zoom: int) -> Geometries:
    """Leave out vertices that no pixel of `zoom` shows.

    Args:
        geometry: (N,) Web Mercator metres.
        zoom: the zoom they are meant for.
    """
    tolerance = TOLERANCE_QUANTA * quantum_m(zoom)
    # A box or a single segment has nothing to spare.
    detailed = np.flatnonzero(shapely.get_num_coordinates(geometry) > _FEWEST_POINTS)
    result = geometry.copy()
    result[detailed] = shapely.simplify(geometry[detailed], tolerance, preserve_topology=True)
    return result


_THIN_M, _WIDER_M = 1e-6, 1e-3
# Nothing, by kind: an empty collection would have none, and no place in a tile.
_EMPTY = shapely.from_wkt(["POINT EMPTY", "POINT EMPTY", "LINESTRING EMPTY", "POLYGON EMPTY"])


def of_dimension(geometry: Geometries, kinds: NDArray[np.int64]) -> Geometries:
    """Keep, of each geometry, the parts of its kind; empty where there is none.

    Args:
        geometry: (N,) geometries, collections included.
        kinds: (N,) 1 point, 2 line, 3 polygon.
    """
    strange = np.flatnonzero(geometry_kinds(geometry) != kinds)
    if not len(strange):
        return geometry
    result = geometry.copy()
    result[strange] = _EMPTY[kinds[strange]]
    # Two rounds open a collection of multis.
    parts, owner = shapely.get_parts(geometry[strange], return_index=True)
    parts, inner = shapely.get_parts(parts, return_index=True)
    owner = owner[inner]
    part_kinds = geometry_kinds(parts)
    for kind, join in (
        (POINT, shapely.multipoints),
        (LINE, shapely.multilinestrings),
        (POLYGON, shapely.multipolygons),
    ):
        chosen = (part_kinds == kind) & (kinds[strange][owner] == kind) & ~shapely.is_empty(parts)
        if chosen.any():
            owners, indices = np.unique(owner[chosen], return_inverse=True)
            result[strange[owners]] = join(parts[chosen], indices=indices)
    return result


def thickened(
    geometry: Geometries, kinds: NDArray[np.int64]
) -> tuple[Geometries, NDArray[np.int64]]:
    """Return (N,) geometries with polygons thinner than a micrometre made wider; which ones.

    Cut at a cell's edge nothing would be left of them anywhere, and each feature must be somewhere.

    Args:
        geometry: (N,) valid geometries, Web Mercator metres.
        kinds: (N,) 1 point, 2 line, 3 polygon.
    """
    polygons = kinds == POLYGON
    thin = np.flatnonzero(polygons & (shapely.area(geometry) < _THIN_M * shapely.length(geometry)))
    if len(thin):
        geometry = geometry.copy()
        geometry[thin] = shapely.buffer(geometry[thin], _WIDER_M, quad_segs=1)
    return geometry, thin


def slices(
    geometry: Geometries,
    target: int,
    zoom: int = 0,
    cell: tuple[int, int] = (0, 0),
    rows: NDArray[np.int64] | None = None,
) -> Iterator[Slice]:
    """Cut features into the cells of a zoom, each with its buffer.

    Few levels at a time: a long coastline is cut by large cells first, so that small cells never
    see all of it.

    Args:
        geometry: (N,) Web Mercator metres.
        target: the zoom of the cells wanted.
        zoom, cell: only cells within this one are given.
        rows: (N,) what to call the geometries; their positions unless given.

    Yields:
        cells that hold anything, in (row, column) order of each step.
    """
    if rows is None:
        rows = np.arange(len(geometry))
    step = min(target, zoom + _STRIDE)
    bounds = shapely.bounds(geometry)
    owner, columns, lines, edges = spans(bounds, step, zoom, cell).pairs()
    for start, stop in pairwise(edges.tolist()):
        x, y = int(columns[start]), int(lines[start])
        members = owner[start:stop]
        pieces, held = clip_to_cell(geometry[members], x, y, step, bounds[members])
        if not held.any():
            continue
        found = Slice(x, y, rows[members[held]], pieces[held])
        if step == target:
            yield found
        else:
            yield from slices(found.pieces, target, step, (x, y), found.rows)


class Span(NamedTuple):
    """The cells that the boxes of (N,) geometries reach, buffers included.

    Attributes:
        x0, y0: (N,) int64, the first column and row.
        wide: (N,) int64, columns; meaningless where `counts` is 0.
        counts: (N,) int64, cells.
    """

    x0: NDArray[np.int64]
    y0: NDArray[np.int64]
    wide: NDArray[np.int64]
    counts: NDArray[np.int64]

    def take(self, rows: NDArray[np.int64]) -> Span:
        """Return the spans at (M,) positions."""
        return Span(*(column[rows] for column in self))

    def pairs(
        self,
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return geometry, column and row of every pair, by cell; and where each cell begins.

        Returns:
            three of (P,) int64, sorted by row, column and geometry; (C + 1,) int64.
        """
        owner = np.repeat(np.arange(len(self.counts)), self.counts)
        place = np.arange(len(owner)) - np.repeat(np.cumsum(self.counts) - self.counts, self.counts)
        columns = self.x0[owner] + place % self.wide[owner]
        lines = self.y0[owner] + place // self.wide[owner]
        order = np.lexsort((owner, columns, lines))
        owner, columns, lines = owner[order], columns[order], lines[order]
        changes = np.flatnonzero((np.diff(columns) != 0) | (np.diff(lines) != 0)) + 1
        edges = np.concatenate(([0], changes, [len(owner)])) if len(owner) else np.zeros(1)
        return owner, columns, lines, edges.astype(np.int64)


def spans(
    bounds: NDArray[np.float64], level: int, zoom: int = 0, cell: tuple[int, int] = (0, 0)
) -> Span:
    """Return which cells of `level` within a cell of `zoom` boxes reach.

    Args:
        bounds: (N, 4) float64, west, south, east, north, metres; NaN of what is empty.
    """
    within, margin = 1 << (level - zoom), tile_side_m(level) * BUFFER / EXTENT
    empty = np.isnan(bounds[:, 0])
    filled = np.where(empty[:, None], 0.0, bounds)
    x0, y0 = cells_of(filled[:, 0] - margin, filled[:, 3] + margin, level)
    x1, y1 = cells_of(filled[:, 2] + margin, filled[:, 1] - margin, level)
    x0, x1 = np.maximum(x0, cell[0] * within), np.minimum(x1, cell[0] * within + within - 1)
    y0, y1 = np.maximum(y0, cell[1] * within), np.minimum(y1, cell[1] * within + within - 1)
    wide, high = np.maximum(x1 - x0 + 1, 0), np.maximum(y1 - y0 + 1, 0)
    return Span(x0, y0, wide, np.where(empty, 0, wide * high))


def clip_to_cell(
    geometry: Geometries,
    x: int,
    y: int,
    zoom: int,
    bounds: NDArray[np.float64] | None = None,
) -> tuple[Geometries, NDArray[np.bool_]]:
    """Clip (N,) geometries to a cell and its buffer; also return which are not empty then.

    Args:
        bounds: (N, 4) of the geometries, if they are known.
    """
    if bounds is None:
        bounds = shapely.bounds(geometry)
    side = tile_side_m(zoom)
    margin = side * BUFFER / EXTENT
    west, north = x * side - WORLD_M / 2 - margin, WORLD_M / 2 - y * side + margin
    east, south = west + side + 2 * margin, north - side - 2 * margin
    inside = (bounds[:, :2] >= (west, south)).all(1) & (bounds[:, 2:] <= (east, north)).all(1)
    cut = np.flatnonzero(~inside)
    if not len(cut):
        return geometry, np.ones(len(geometry), dtype=bool)
    pieces = geometry.copy()
    clipped = clip_by_rect(geometry[cut], west, south, east, north)
    pieces[cut] = of_dimension(clipped, geometry_kinds(geometry[cut]))
    return pieces, ~shapely.is_empty(pieces)


def to_tile(pieces: Geometries, zoom: int, x: int, y: int) -> Geometries:
    """Return (N,) geometries in whole tile units, polygons valid; empty where nothing is left.

    Rounding alone leaves most polygons valid and is ten times faster than snap rounding, which
    therefore sees only those that rounding broke.
    """
    side = tile_side_m(zoom)
    west, north = x * side - WORLD_M / 2, WORLD_M / 2 - y * side
    scale = np.array([EXTENT / side, -EXTENT / side])

    def local(xy: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray((xy - (west, north)) * scale)

    def whole(xy: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.rint(local(xy))

    rounded = np.asarray(shapely.transform(pieces, whole), dtype=object)
    kinds = geometry_kinds(pieces)
    broken = np.flatnonzero((kinds == POLYGON) & ~shapely.is_valid(rounded))
    if len(broken):
        exact = shapely.make_valid(shapely.transform(pieces[broken], local), method="structure")
        exact = of_dimension(np.asarray(exact, dtype=object), kinds[broken])
        snapped = shapely.set_precision(exact, 1.0, mode="valid_output")
        rounded[broken] = of_dimension(snapped, kinds[broken])
    return rounded
