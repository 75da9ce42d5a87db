"""Contour lines: on their height, closed or ending at an edge, meeting those of the next tile."""

from __future__ import annotations

import mapbox_vector_tile
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tests.tiling.surfaces import Analytic, hills
from tiling.coords import TileCoord
from tiling.errors import TilingError
from tiling.schemes import WEB_MERCATOR_QUAD
from tiling.tilers.relief_contours import chain, contours, encode_contours, interval_m, is_index
from tiling.tilers.relief_window import nodes

HILLS = Analytic(hills)
TILE = TileCoord(14, 13357, 6663)


def height_on_edges(heights: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Linear along the edges of the grid, on which every vertex of a line lies."""
    c, r = np.floor(x).astype(int), np.floor(y).astype(int)
    c, r = np.minimum(c, heights.shape[1] - 2), np.minimum(r, heights.shape[0] - 2)
    tx, ty = x - c, y - r
    top = heights[r, c] + tx * (heights[r, c + 1] - heights[r, c])
    low = heights[r + 1, c] + tx * (heights[r + 1, c + 1] - heights[r + 1, c])
    return top + ty * (low - top)


@given(
    arrays(np.float64, (7, 6), elements=st.floats(-50, 50)),
    st.sampled_from([0.5, 3.0, 10.0]),
)
@settings(max_examples=100, deadline=None)
def test_every_vertex_lies_on_its_height_and_on_an_edge(grid: np.ndarray, step: float) -> None:
    found = contours(grid, step)
    for height, line in zip(found.heights, found.lines, strict=True):
        assert height / step == round(height / step)
        xy = shapely.get_coordinates(line)
        on_edge = (np.abs(xy - np.rint(xy)) < 1e-9).any(axis=1)
        assert on_edge.all()
        assert np.abs(height_on_edges(grid, *xy.T) - height).max() < 1e-6


@given(arrays(np.float64, (6, 6), elements=st.floats(-9, 9)))
@settings(max_examples=100, deadline=None)
def test_a_line_closes_or_ends_at_the_border_of_the_grid(grid: np.ndarray) -> None:
    # Off the levels: a node exactly on one may join several lines.
    grid = np.where(np.abs(grid - np.rint(grid)) < 1e-3, grid + 0.01, grid)
    for line in contours(grid, 1.0).lines:
        if not line.is_closed:
            for x, y in (line.coords[0], line.coords[-1]):
                assert x in (0, 5) or y in (0, 5)


def chained_by_steps(after: list[int]) -> list[list[int]]:
    """The chains of `chain`, one link at a time."""
    heads = [i for i in range(len(after)) if i not in after]
    chains, seen = [], set()
    for i in [*heads, *range(len(after))]:
        links = []
        while i >= 0 and i not in seen:
            seen.add(i)
            links.append(i)
            i = after[i]
        if links:
            chains.append(links)
    return chains


@given(st.permutations(range(12)), st.sets(st.integers(0, 11)))
def test_links_are_put_into_the_order_of_their_chains(after: list[int], last: set[int]) -> None:
    after = [-1 if i in last else j for i, j in enumerate(after)]
    order, line = chain(np.array(after))
    found = [order[line == k].tolist() for k in range(line.max() + 1)]
    assert found == chained_by_steps(after)
    assert (np.diff(line) >= 0).all()


@given(arrays(np.float64, (6, 7), elements=st.floats(-9, 9)))
@settings(max_examples=60, deadline=None)
def test_lines_are_those_that_geos_merges(grid: np.ndarray) -> None:
    grid = np.where(np.abs(grid - np.rint(grid)) < 1e-3, grid + 0.01, grid)
    found = contours(grid, 1.0)
    for height in np.unique(found.heights):
        lines = found.lines[found.heights == height]
        pairs = np.concatenate([np.stack([c[:-1], c[1:]], 1) for c in map(coordinates, lines)])
        merged = shapely.get_parts(shapely.line_merge(shapely.multilinestrings(pairs)))
        assert len(merged) == len(lines)
        assert sorted(shapely.length(merged)) == pytest.approx(sorted(shapely.length(lines)))


def coordinates(line: shapely.LineString) -> np.ndarray:
    return shapely.get_coordinates(line)


@given(arrays(np.float64, (5, 5), elements=st.floats(-4, 4)))
@settings(max_examples=60, deadline=None)
def test_lines_keep_high_and_low_ground_apart(grid: np.ndarray) -> None:
    found = contours(grid, 100.0)  # the level 0 alone
    high = grid >= 0
    # Whether two neighbouring nodes are parted is whether a line crosses the edge between them.
    lines = shapely.union_all(found.lines) if len(found.lines) else shapely.LineString()
    for r in range(5):
        for c in range(4):
            if min(abs(grid[r, c]), abs(grid[r, c + 1])) < 1e-6:
                continue
            edge = shapely.LineString([(c, r), (c + 1, r)]).buffer(1e-9)
            assert edge.intersects(lines) == (high[r, c] != high[r, c + 1])


def test_a_cone_has_a_ring_for_each_level() -> None:
    y, x = np.mgrid[-20:21, -20:21]
    found = contours(100.0 - np.hypot(x, y) * 4 + 0.05, 10.0)
    rings = {h: line for h, line in zip(found.heights, found.lines, strict=True) if line.is_closed}
    assert set(rings) >= {30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0}
    for height, ring in rings.items():
        radius = np.hypot(*(shapely.get_coordinates(ring) - 20).T)
        assert np.abs(radius - (100.05 - height) / 4).max() < 0.3
    assert is_index(np.array([0.0, 10, 40, 50, -50, -60]), 10).tolist() == [1, 0, 0, 1, 1, 0]


def test_voids_have_no_lines_and_flat_land_has_none() -> None:
    grid = np.add.outer(np.arange(9.0), np.arange(9.0)) + 0.5
    grid[4, 4] = np.nan
    box = shapely.box(3, 3, 5, 5).buffer(-1e-9)
    assert not any(line.intersects(box) for line in contours(grid, 1).lines)
    assert len(contours(np.full((5, 5), 20.0), 10).lines) == 0
    assert len(contours(np.full((5, 5), np.nan), 10).lines) == 0


def test_an_interval_that_draws_too_much_is_refused() -> None:
    wall = np.tile([0.0, 8000.0], (200, 1))
    with pytest.raises(TilingError, match=r"lines every 0\.1 m"):
        contours(wall, 0.1)


def test_the_interval_gets_finer_with_the_level() -> None:
    steps = [interval_m(level) for level in range(25)]
    assert steps == sorted(steps, reverse=True) and steps[14] == 10 and steps[24] == 1


def decoded(tile: TileCoord) -> list[tuple[float, bool, shapely.Geometry]]:
    window = nodes(HILLS, WEB_MERCATOR_QUAD, tile, 128, 2)
    data = encode_contours(contours(window.heights, 10.0), 10.0, 128, 2)
    layer = mapbox_vector_tile.decode(data, default_options={"y_coord_down": True})["contours"]
    assert layer["extent"] == 4096
    return [
        (f["properties"]["height"], f["properties"]["index"], shapely.geometry.shape(f["geometry"]))
        for f in layer["features"]
    ]


def test_lines_meet_those_of_the_neighbour_to_the_unit() -> None:
    for east, south in ((1, 0), (0, 1)):
        border = shapely.LineString([(4096 * east, 4096 * south), (4096, 4096)])
        opposite = shapely.affinity.translate(border, -4096 * east, -4096 * south)
        crossings: list[set[tuple[float, float, float]]] = []
        for tile, line in (
            (TILE, border),
            (TILE._replace(x=TILE.x + east, y=TILE.y + south), opposite),
        ):
            found = set()
            for height, _, shape in decoded(tile):
                for point in shapely.get_parts(shape.intersection(line)):
                    if point.geom_type == "Point":
                        found.add((height, point.x % 4096, point.y % 4096))
            crossings.append(found)
        assert len(crossings[0]) > 5
        assert crossings[0] == crossings[1]


def test_a_contour_tile_tells_the_height_of_the_ground() -> None:
    features = decoded(TILE)
    assert {index for _, index, _ in features} == {True, False}
    for height, index, shape in features:
        assert index == (height % 50 == 0)
        xy = shapely.get_coordinates(shape)
        lon, lat = WEB_MERCATOR_QUAD.from_tile(xy[:, 0], xy[:, 1], TILE)
        # A unit is half a metre, slopes reach one in two, and cells are 15 m wide.
        assert np.abs(hills(lon, lat) - height).max() < 1.0
        assert xy.min() >= -64 and xy.max() <= 4160
