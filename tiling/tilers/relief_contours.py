"""Contour lines of a grid of heights: marching squares over all cells and all levels at once.

The one idea: where a level crosses an edge of the grid is a pure function of the edge's two
heights, so the lines of neighbouring tiles meet at the same point of their common edge. Pieces
are found by arrays, one row for each (cell, level) that cross, and chained to lines.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from tiling.errors import TilingError
from tiling.formats.mvt import EXTENT, LayerContent, encode_tile
from tiling.kernels import njit

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

LAYER = "contours"
# Every so many lines one is drawn stronger.
INDEX_EVERY = 5
# What one tile may hold: a sheer wall at a fine interval is a mistake, not a map.
MAX_PIECES = 400_000

# Metres between two lines, by the level of a Web Mercator tile; the last one holds for finer.
_INTERVALS_M: tuple[float, ...] = (
    *(2000.0,) * 6,
    *(1000.0, 1000.0, 500.0, 200.0, 200.0, 100.0),  # levels 6 to 11
    *(50.0, 20.0, 10.0, 5.0, 2.0, 1.0),  # levels 12 to 17
)

# Pieces of a cell by which of its corners are high (1 sw, 2 se, 4 ne, 8 nw): pairs of edges
# (0 south, 1 east, 2 north, 3 west), the high ground to the left. Saddles have two pieces; which
# corners they join is decided by the mean of the four.
_PIECES = np.full((18, 2, 2), -1, dtype=np.int64)
for _case, _pairs in {
    1: [(0, 3)],
    2: [(1, 0)],
    3: [(1, 3)],
    4: [(2, 1)],
    5: [(0, 3), (2, 1)],
    6: [(2, 0)],
    7: [(2, 3)],
    8: [(3, 2)],
    9: [(0, 2)],
    10: [(1, 0), (3, 2)],
    11: [(1, 2)],
    12: [(3, 1)],
    13: [(0, 1)],
    14: [(3, 0)],
    16: [(0, 1), (2, 3)],  # 5 with a high middle
    17: [(1, 2), (3, 0)],  # 10 with a high middle
}.items():
    _PIECES[_case, : len(_pairs)] = _pairs


class Contours(NamedTuple):
    """N lines of equal height.

    Attributes:
        heights: (N,) float64, metres.
        lines: (N,) shapely LineStrings in units of cells: x to the east from the first column, y
            down from the first row; closed lines end where they begin.
    """

    heights: Array
    lines: NDArray[np.object_]


def interval_m(level: int) -> float:
    """Return the metres between two contour lines in tiles of a Web Mercator level."""
    return _INTERVALS_M[min(level, len(_INTERVALS_M) - 1)]


def contours(heights: Array, interval: float) -> Contours:
    """Trace the lines at every multiple of an interval.

    A node exactly on a level counts as above it. Cells with a void corner have no lines.

    Args:
        heights: (rows, columns) float64 metres at the nodes, NaN where void; 2 x 2 or more.
        interval: metres between two lines, above 0.

    Raises:
        TilingError: the interval makes more than `MAX_PIECES` pieces of line.
    """
    north, south = heights[:-1], heights[1:]
    corners = np.stack([south[:, :-1], south[:, 1:], north[:, 1:], north[:, :-1]], axis=-1)
    low, high = corners.min(axis=-1), corners.max(axis=-1)  # NaN where a corner is
    # The multiples k * interval with low < k * interval <= high.
    with np.errstate(invalid="ignore"):
        first, last = np.floor(low / interval) + 1, np.floor(high / interval)
        count = np.where(np.isfinite(low), last - first + 1, 0)
    total = float(count.sum())
    if total > MAX_PIECES:
        raise TilingError(
            f"lines every {interval:g} m are {total:,.0f} pieces in one tile, more than "
            f"{MAX_PIECES:,}: ask for a larger interval"
        )
    if not total:
        return Contours(np.empty(0), np.empty(0, dtype=object))
    row, column = np.nonzero(count > 0)
    repeats = count[row, column].astype(np.int64)
    row, column = np.repeat(row, repeats), np.repeat(column, repeats)
    nth = np.arange(len(row)) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    multiple = (np.nan_to_num(first[row, column]) + nth).astype(np.int64)
    chosen = corners[row, column]
    pieces = _pieces(chosen, row, column, multiple, interval, heights.shape[1])
    return _joined(pieces, interval)


class _Pieces(NamedTuple):
    """M straight pieces, high ground to their left.

    Attributes:
        multiple: (M,) of the interval they lie on.
        begin, end: (M,) names of the crossings they go from and to.
        ends: (M, 2, 2) float64, the places of these.
    """

    multiple: Ints
    begin: Ints
    end: Ints
    ends: Array


def _pieces(
    corners: Array, row: Ints, column: Ints, multiple: Ints, interval: float, across: int
) -> _Pieces:
    level: Array = multiple.astype(np.float64) * interval
    above = corners >= level[:, None]
    case = above @ np.array([1, 2, 4, 8])
    middle = corners.mean(axis=-1) >= level
    case = np.where((case == 5) & middle, 16, np.where((case == 10) & middle, 17, case))
    points = _crossings(corners, row, column, level)
    # A crossing is named by its level and its edge: even numbers lie on rows, odd on columns.
    node = row * across + column
    edges = 2 * np.stack([node + across, node + 1, node, node], axis=-1) + [0, 1, 0, 1]
    names = multiple[:, None] * (2 * (int(row.max()) + 2) * across) + edges
    pairs = _PIECES[case]
    found, which = np.nonzero(pairs[:, :, 0] >= 0)
    chosen = pairs[found, which]
    begin, end = names[found, chosen[:, 0]], names[found, chosen[:, 1]]
    return _Pieces(multiple[found], begin, end, points[found[:, None], chosen])


def _crossings(corners: Array, row: Ints, column: Ints, level: Array) -> Array:
    """Return (M, 4, 2): where the level crosses the south, east, north and west edge of a cell.

    An edge is always walked from the west or from the north, whichever of its two cells asks: so
    both get the same bits.
    """
    sw, se, ne, nw = corners.T
    with np.errstate(all="ignore"):  # edges that no level crosses divide by nothing
        south, north = (level - sw) / (se - sw), (level - nw) / (ne - nw)
        east, west = (level - ne) / (se - ne), (level - nw) / (sw - nw)
    x, y = column.astype(np.float64), row.astype(np.float64)
    points = np.empty((len(row), 4, 2))
    points[:, 0, 0], points[:, 0, 1] = x + south, y + 1
    points[:, 1, 0], points[:, 1, 1] = x + 1, y + east
    points[:, 2, 0], points[:, 2, 1] = x + north, y
    points[:, 3, 0], points[:, 3, 1] = x, y + west
    return points


def _joined(pieces: _Pieces, interval: float) -> Contours:
    # High ground to the left: where one piece ends at most one begins.
    by_begin = np.argsort(pieces.begin, kind="stable")
    at = np.searchsorted(pieces.begin[by_begin], pieces.end)
    after = by_begin[np.minimum(at, len(by_begin) - 1)]
    after = np.where(pieces.begin[after] == pieces.end, after, -1)
    order, line = chain(after)
    ends, multiple = pieces.ends[order], pieces.multiple[order]
    # A level that touches a corner makes pieces without length.
    long = (ends[:, 0] != ends[:, 1]).any(axis=1)
    ends, multiple, line = ends[long], multiple[long], line[long]
    if not len(line):
        return Contours(np.empty(0), np.empty(0, dtype=object))
    first = np.concatenate([[True], line[1:] != line[:-1]])
    number = np.cumsum(first) - 1
    place = np.arange(len(line)) + number + 1
    points = np.empty((len(line) + int(number[-1]) + 1, 2))
    points[place] = ends[:, 1]
    points[place[first] - 1] = ends[first, 0]
    owner = np.empty(len(points), dtype=np.int64)
    owner[place], owner[place[first] - 1] = number, number[first]
    return Contours(multiple[first] * interval, shapely.linestrings(points, indices=owner))


@njit(cache=True)
def chain(after: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Put links into the order of their chains.

    Args:
        after: (M,) int64, the link that follows each, -1 for none; none follows two.

    Returns:
        (M,) int64 links, chain by chain, those that end before those that go around; and (M,)
        int64, the number of the chain of each.
    """
    count = len(after)
    follows = np.zeros(count, dtype=np.bool_)
    for i in range(count):
        if after[i] >= 0:
            follows[after[i]] = True
    seen = np.zeros(count, dtype=np.bool_)
    order, line = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.int64)
    n = chains = 0
    for rings in (False, True):
        for i in range(count):
            if seen[i] or (follows[i] and not rings):
                continue
            j = i
            while j >= 0 and not seen[j]:
                seen[j] = True
                order[n], line[n] = j, chains
                n += 1
                j = after[j]
            chains += 1
    return order, line


def is_index(heights: Array, interval: float) -> NDArray[np.bool_]:
    """Say which lines are index contours: multiples of five intervals.

    Args:
        heights: (N,) metres, as `contours` returned them.
        interval: metres between two lines.
    """
    multiple = np.rint(heights / interval).astype(np.int64)
    return np.asarray(multiple % INDEX_EVERY == 0)


def encode_contours(found: Contours, interval: float, cells: int, margin: int) -> bytes:
    """Return the lines as a vector tile with one layer, ``contours``.

    Attributes of a line: ``height`` in metres (a whole number where it is one) and ``index``,
    whether it is drawn stronger.

    Args:
        found: lines in cells of the window.
        interval: metres between two of them.
        cells: cells along the tile's edge.
        margin: cells of the window beyond each edge of the tile.

    Returns:
        the bytes; empty when there is no line.
    """
    scale = EXTENT / cells
    lines = shapely.transform(found.lines, lambda xy: (xy - margin) * scale)
    whole = bool((np.rint(found.heights) == found.heights).all())
    heights = pa.array(found.heights.astype(np.int64) if whole else found.heights)
    table = pa.table({"height": heights, "index": pa.array(is_index(found.heights, interval))})
    ids = np.arange(1, len(lines) + 1, dtype=np.int64)
    return encode_tile([LayerContent(LAYER, ids, lines, table)])[0]
