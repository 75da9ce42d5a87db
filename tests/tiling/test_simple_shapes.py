"""The compiled loop against GEOS: whatever the loop draws, GEOS would have drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from tiling.tilers import vector_cells
from tiling.tilers.simple_shapes import DRAWN, HARD, encode_cells
from tiling.tilers.simplify import WORLD_M, quantum_m, tile_side_m
from tiling.tilers.vector_cells import CellContent, cell_contents

ZOOM, COLUMN, ROW = 14, 13350, 6690
UNIT = quantum_m(ZOOM)
WEST = COLUMN * tile_side_m(ZOOM) - WORLD_M / 2
NORTH = WORLD_M / 2 - ROW * tile_side_m(ZOOM)


def some_shapes(seed: int) -> Any:
    """Random shapes about the cell: no cut lies within a rounding error of half a unit."""
    rng = np.random.default_rng(seed)
    shapes: list[Any] = []
    for _ in range(6):
        reach = rng.choice([9.0, 300.0, 2700.0])
        xy = rng.uniform(-700, 4800, 2) + rng.uniform(-reach, reach, (rng.integers(3, 10), 2))
        ring = shapely.Polygon(xy)
        shapes += [shapely.Point(xy[0]), shapely.LineString(xy[:4])]
        shapes += [ring if ring.is_valid else shapely.convex_hull(ring)]
    return np.array(shapes, dtype=object)


def placed(geometry: Any) -> Any:
    """Take tile units of the cell to Web Mercator metres."""
    return shapely.transform(geometry, lambda xy: xy * (UNIT, -UNIT) + (WEST, NORTH))


def contents(geometry: Any) -> dict[tuple[int, int], CellContent]:
    rows = np.arange(len(geometry))
    return {(c.x, c.y): c for c in cell_contents(geometry, ZOOM, 0, (0, 0), rows)}


@settings(max_examples=150)
@given(st.integers(0, 2**32 - 1))
def test_the_loop_and_geos_write_the_same_bytes(seed: int) -> None:
    geometry = placed(some_shapes(seed))
    fast = contents(geometry)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vector_cells, "are_simple", lambda g, _: np.zeros(len(g), dtype=bool))
        slow = contents(geometry)
    assert fast.keys() == slow.keys()
    for cell, content in fast.items():
        assert content.rows.tolist() == slow[cell].rows.tolist()
        assert content.commands.lengths.tolist() == slow[cell].commands.lengths.tolist()
        assert content.commands.tobytes() == slow[cell].commands.tobytes()


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("POLYGON ((10 10, 20 10, 20 20, 10 20, 10 10))", DRAWN),
        # Two corners meet when rounded; a spike; a ring without area; nothing but a point.
        ("POLYGON ((0 0, 20 0, 20 20, 10.2 0.3, 0 20, 0 0))", HARD),
        ("POLYGON ((0 0, 20 0, 30 0.1, 20 0.2, 20 20, 0 0))", HARD),
        ("POLYGON ((0 0, 20 0, 20 0.2, 0 0))", HARD),
        ("POLYGON ((5 5, 5.1 5, 5.1 5.1, 5 5))", HARD),
        ("LINESTRING (5 5, 5.1 5)", HARD),
        ("LINESTRING (5 5, 9 9)", DRAWN),
        # Cut in two by the edge of the buffer.
        ("POLYGON ((4000 0, 4300 0, 4300 90, 4000 90, 4000 80, 4290 50, 4000 20, 4000 0))", HARD),
        ("LINESTRING (4000 5, 4300 9)", HARD),
    ],
)
def test_what_is_not_proven_simple_goes_to_geos(text: str, state: int) -> None:
    geometry = placed(np.array([shapely.from_wkt(text)], dtype=object))
    kinds = shapely.get_dimensions(geometry).astype(np.int64) + 1
    owner, edges = np.zeros(1, np.int64), np.array([0, 1])
    corner = np.array([WEST]), np.array([NORTH])
    (found,) = encode_cells(geometry, kinds, owner, *corner, 1 / UNIT, edges)
    assert found.states.tolist() == [state]
    assert (found.commands.lengths > 0).tolist() == [state == DRAWN]
