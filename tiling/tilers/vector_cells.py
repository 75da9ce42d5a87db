"""What lies in each cell of a zoom, as geometry commands in tile units.

Simple shapes go through the compiled loop of `simple_shapes`, all cells at once; the others are cut
by halves and repaired by GEOS (`simplify.slices`, `simplify.to_tile`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray

from tiling.formats.mvt import EXTENT
from tiling.formats.mvt_geometry import POLYGON, encode_geometry, geometry_kinds
from tiling.formats.ragged import RaggedBytes
from tiling.tilers.simple_shapes import HARD, CellShapes, are_simple, encode_cells
from tiling.tilers.simplify import (
    WORLD_M,
    Geometries,
    Slice,
    Span,
    clip_to_cell,
    slices,
    spans,
    tile_side_m,
    to_tile,
)

Ints = NDArray[np.int64]
_Cell = tuple[int, int]


class CellContent(NamedTuple):
    """The features of a cell.

    Attributes:
        x, y: the cell.
        rows: (M,) int64, ascending: which features.
        commands: M rows of geometry; empty where a shape collapsed when rounded.
    """

    x: int
    y: int
    rows: Ints
    commands: RaggedBytes


def cell_contents(
    geometry: Geometries, zoom: int, level: int, cell: _Cell, rows: Ints
) -> Iterator[CellContent]:
    """Cut features into the cells of a zoom, each with its buffer, and encode them.

    Args:
        geometry: (N,) Web Mercator metres.
        zoom: of the cells wanted.
        level, cell: only cells within this one are given.
        rows: (N,) int64, ascending: what to call the geometries.

    Yields:
        cells that hold anything, row by row from the north.
    """
    if not len(geometry):
        return
    span = spans(shapely.bounds(geometry), zoom, level, cell)
    simple = are_simple(geometry, span.counts)
    easy = _easy_cells(geometry, np.flatnonzero(simple), span, zoom)
    others = np.flatnonzero(~simple)
    cuts = {
        (cut.y, cut.x): cut
        for cut in slices(geometry[others], zoom, level, cell, others)
        if len(others)
    }
    for y, x in sorted(easy.keys() | cuts.keys()):
        content = _content(geometry, rows, zoom, (x, y), easy.get((y, x)), cuts.get((y, x)))
        if len(content.rows):
            yield content


def _easy_cells(
    geometry: Geometries, simple: Ints, span: Span, zoom: int
) -> dict[_Cell, CellShapes]:
    if not len(simple):
        return {}
    owner, columns, lines, edges = span.take(simple).pairs()
    side = tile_side_m(zoom)
    shapes = encode_cells(
        geometry[simple],
        geometry_kinds(geometry[simple]),
        owner,
        np.asarray(columns * side - WORLD_M / 2, dtype=np.float64),
        np.asarray(WORLD_M / 2 - lines * side, dtype=np.float64),
        EXTENT / side,
        edges,
    )
    cells = zip(lines[edges[:-1]].tolist(), columns[edges[:-1]].tolist(), strict=True)
    return {
        place: CellShapes(simple[shape.rows], shape.states, shape.commands)
        for place, shape in zip(cells, shapes, strict=True)
    }


def _content(
    geometry: Geometries,
    names: Ints,
    zoom: int,
    cell: _Cell,
    easy: CellShapes | None,
    cut: Slice | None,
) -> CellContent:
    rows: list[Ints] = []
    commands: list[RaggedBytes] = []
    pieces: list[Geometries] = []
    hard_rows: list[Ints] = []
    if easy is not None:
        drawn = np.flatnonzero(easy.states != HARD)
        rows.append(easy.rows[drawn])
        commands.append(RaggedBytes(easy.commands.data, easy.commands.lengths[drawn]))
        hard = easy.rows[easy.states == HARD]
        if len(hard):
            clipped, held = clip_to_cell(geometry[hard], *cell, zoom)
            hard_rows.append(hard[held])
            pieces.append(clipped[held])
    if cut is not None:
        hard_rows.append(cut.rows)
        pieces.append(cut.pieces)
    if pieces:
        rows.append(np.concatenate(hard_rows))
        shapes = to_tile(np.concatenate(pieces), zoom, *cell)
        # Rings begin at their westernmost point here as in the loop: where a shape was cut before
        # must not show.
        areas = np.flatnonzero(geometry_kinds(shapes) == POLYGON)
        shapes[areas] = shapely.normalize(shapes[areas])
        commands.append(encode_geometry(shapes)[0])
    if len(rows) == 1:
        return CellContent(*cell, names[rows[0]], commands[0])
    every = np.concatenate(rows)
    order = np.argsort(every)
    return CellContent(*cell, names[every[order]], RaggedBytes.below(commands).take(order))
