"""Tiling schemes: cells and points agree, neighbours share edges, OGC and morecantile concur."""

from __future__ import annotations

import itertools
import math

import morecantile
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiling.bounds import Region
from tiling.coords import TileCoord
from tiling.schemes import (
    CGCS2000_QUAD,
    CRS84_CELLS,
    MERCATOR_MAX_LAT_DEG,
    SCHEMES,
    TMS_GEOGRAPHIC,
    WEB_MERCATOR_QUAD,
    Scheme,
    cgcs2000_quad,
)

schemes = st.sampled_from(sorted(SCHEMES.values(), key=lambda s: s.name))
levels = st.integers(0, 22)
longitudes = st.floats(-180, 180)
latitudes = st.floats(-85, 85)


def cell(scheme: Scheme, lon: float, lat: float, level: int) -> TileCoord:
    x, y = scheme.tile_of([lon], [lat], level)
    return TileCoord(level, int(x[0]), int(y[0]))


@st.composite
def tiles(draw: st.DrawFn) -> tuple[Scheme, TileCoord]:
    scheme, level = draw(schemes), draw(levels)
    columns, rows = scheme.size(level)
    x = draw(st.integers(0, columns - 1))
    return scheme, TileCoord(level, x, draw(st.integers(0, rows - 1)))


@given(scheme=schemes, lon=longitudes, lat=latitudes, level=levels)
def test_the_cell_of_a_point_holds_the_point(
    scheme: Scheme, lon: float, lat: float, level: int
) -> None:
    b = scheme.bounds(cell(scheme, lon, lat, level))
    assert b.west <= lon <= b.east
    assert b.south <= lat <= b.north


@given(tiles())
def test_the_middle_of_a_cell_belongs_to_the_cell(drawn: tuple[Scheme, TileCoord]) -> None:
    scheme, tile = drawn
    b = scheme.bounds(tile)
    assert cell(scheme, (b.west + b.east) / 2, (b.south + b.north) / 2, tile.level) == tile


@given(tiles())
def test_a_corner_shared_by_four_cells_belongs_to_the_one_with_the_highest_x_and_y(
    drawn: tuple[Scheme, TileCoord],
) -> None:
    scheme, tile = drawn
    b = scheme.bounds(tile)
    lat = b.north if scheme.north_first else b.south
    assert cell(scheme, b.west, lat, tile.level) == tile


@given(tiles())
def test_neighbours_share_their_edges_bit_for_bit(drawn: tuple[Scheme, TileCoord]) -> None:
    scheme, tile = drawn
    columns, rows = scheme.size(tile.level)
    b = scheme.bounds(tile)
    if tile.x + 1 < columns:
        assert scheme.bounds(tile._replace(x=tile.x + 1)).west == b.east
    if tile.y + 1 < rows:
        other = scheme.bounds(tile._replace(y=tile.y + 1))
        assert (other.north == b.south) if scheme.north_first else (other.south == b.north)


@given(tiles())
def test_children_fill_their_parent_exactly(drawn: tuple[Scheme, TileCoord]) -> None:
    scheme, tile = drawn
    parts = [scheme.bounds(child) for child in tile.children()]
    united = parts[0].union(parts[1]).union(parts[2]).union(parts[3])
    assert united == scheme.bounds(tile)


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=lambda s: s.name)
def test_the_roots_cover_the_extent(scheme: Scheme) -> None:
    roots = [scheme.bounds(TileCoord(0, x, 0)) for x in range(scheme.roots)]
    assert roots[0].union(roots[-1]) == pytest.approx(scheme.extent)


def test_row_zero_is_where_the_scheme_says() -> None:
    assert cell(WEB_MERCATOR_QUAD, 0, 80, 3).y == 0
    assert cell(CGCS2000_QUAD, 0, 80, 3).y == 0
    assert cell(TMS_GEOGRAPHIC, 0, 80, 3).y == 7
    assert cell(CRS84_CELLS, 0, -80, 3).y == 0


@given(tiles())
def test_counting_from_the_north_turns_only_grids_that_count_from_the_south(
    drawn: tuple[Scheme, TileCoord],
) -> None:
    scheme, tile = drawn
    north = scheme.from_north(tile)
    assert north.y == (tile.y if scheme.north_first else 2**tile.level - 1 - tile.y)


@given(lon=longitudes, lat=st.floats(-89.9, 89.9), level=levels)
def test_terrain_and_imagery_grids_are_the_same_cells_upside_down(
    lon: float, lat: float, level: int
) -> None:
    # Shared edges aside: both are half-open, but towards opposite sides.
    tms, quad = cell(TMS_GEOGRAPHIC, lon, lat, level), cell(CGCS2000_QUAD, lon, lat, level)
    span = 180.0 / 2**level
    if (lat + 90.0) % span != 0.0:
        assert TMS_GEOGRAPHIC.from_north(tms) == quad


def test_cells_of_the_global_quadtree_measure_180_degrees_over_a_power_of_two() -> None:
    assert CRS84_CELLS.size(8) == (512, 256)
    b = CRS84_CELLS.bounds(cell(CRS84_CELLS, 113.3826, 31.6903, 8))
    assert b.east - b.west == b.north - b.south == 0.703125
    assert (b.west, b.south) == (161 * 0.703125, 45 * 0.703125)


@given(drawn=tiles(), px=st.floats(-100, 4196), py=st.floats(-100, 4196))
def test_pixels_of_a_tile_round_trip(drawn: tuple[Scheme, TileCoord], px: float, py: float) -> None:
    scheme, tile = drawn
    lon, lat = scheme.from_tile([px], [py], tile)
    x, y = scheme.to_tile(lon, lat, tile)
    # Far out in longitude a degree of 180 has 2**-45 of resolution: a millionth of a pixel.
    assert (float(x[0]), float(y[0])) == pytest.approx((px, py), abs=2e-3)


@given(tiles())
def test_pixels_count_right_and_down_from_the_north_west_corner(
    drawn: tuple[Scheme, TileCoord],
) -> None:
    scheme, tile = drawn
    b = scheme.bounds(tile)
    x, y = scheme.to_tile([b.west, b.east], [b.north, b.south], tile, 256)
    if scheme.projection == "mercator" or abs(b.south) < 90:
        assert x == pytest.approx([0, 256], abs=1e-3)
        assert y == pytest.approx([0, 256], abs=1e-3)


@given(
    scheme=schemes,
    level=st.integers(0, 9),
    west=st.floats(-180, 170),
    south=st.floats(-80, 70),
    width=st.floats(0, 5),
    height=st.floats(0, 5),
)
def test_cells_of_a_region_cover_it_and_no_cell_merely_touches_it(
    scheme: Scheme, level: int, west: float, south: float, width: float, height: float
) -> None:
    region = Region(west, south, west + width, south + height)
    found = scheme.tile_range(region, level)
    corners = [
        scheme.bounds(TileCoord(level, x, y))
        for x in (found.min_x, found.max_x)
        for y in (found.min_y, found.max_y)
    ]
    united = corners[0]
    for b in corners:
        united = united.union(b)
        assert b.west < region.east or (b.west == region.west == region.east)
        assert b.south < region.north or b.south <= region.south
        assert b.north > region.south or b.north >= region.north
        assert b.east > region.west or b.east == scheme.extent.east
    assert united.contains(region)


def test_a_region_that_is_a_cell_gets_that_cell_alone() -> None:
    for scheme in SCHEMES.values():
        tile = cell(scheme, 113.3826, 31.6903, 12)
        assert list(scheme.tiles_in(scheme.bounds(tile), 12)) == [tile]


def test_a_range_counts_and_lists_the_same_cells() -> None:
    found = TMS_GEOGRAPHIC.tile_range(Region(112.7, 31.3, 114.2, 32.5), 12)
    listed = list(found.tiles())
    assert len(listed) == len(set(listed)) == found.cells
    assert all(tile in found for tile in listed)
    assert TileCoord(12, found.max_x + 1, found.min_y) not in found
    assert TileCoord(11, found.min_x, found.min_y) not in found


@given(drawn=tiles())
def test_a_cell_outside_the_grid_has_no_bounds(drawn: tuple[Scheme, TileCoord]) -> None:
    scheme, tile = drawn
    columns, rows = scheme.size(tile.level)
    for bad in (tile._replace(x=columns), tile._replace(y=rows), tile._replace(x=-1)):
        with pytest.raises(ValueError, match="outside"):
            scheme.bounds(bad)


@given(lon=longitudes, lat=latitudes, level=levels)
def test_web_mercator_agrees_with_morecantile(lon: float, lat: float, level: int) -> None:
    reference = morecantile.tms.get("WebMercatorQuad")
    tile = cell(WEB_MERCATOR_QUAD, lon, lat, level)
    other = reference.bounds(morecantile.Tile(tile.x, tile.y, tile.level))
    assert WEB_MERCATOR_QUAD.bounds(tile).bbox2d() == pytest.approx(list(other), abs=1e-9)


def test_web_mercator_keeps_points_beyond_its_edge_in_its_outer_rows() -> None:
    assert pytest.approx(85.0511287798066) == MERCATOR_MAX_LAT_DEG
    assert cell(WEB_MERCATOR_QUAD, 180, 90, 5) == TileCoord(5, 31, 0)
    assert cell(WEB_MERCATOR_QUAD, -180, -90, 5) == TileCoord(5, 0, 31)


@pytest.mark.parametrize(
    ("resolution", "level"), [(0.703125, 0), (0.7, 1), (0.3515625, 1), (0.0003515, 11), (1e-4, 13)]
)
def test_the_level_for_a_resolution_is_the_coarsest_that_keeps_it(
    resolution: float, level: int
) -> None:
    found = CGCS2000_QUAD.level_for(resolution)
    assert found == level
    assert 180 / 2**found / 256 <= resolution * 1.001


def test_a_resolution_must_be_positive() -> None:
    for bad in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="resolution"):
            CGCS2000_QUAD.level_for(bad)


def test_the_cgcs2000_matrix_set_is_worldcrs84quad_with_latitude_first() -> None:
    ours, world = cgcs2000_quad(17), morecantile.tms.get("WorldCRS84Quad")
    for mine, theirs in itertools.islice(zip(ours, world, strict=False), 18):
        assert mine.scaleDenominator == pytest.approx(theirs.scaleDenominator, rel=1e-11)
        assert mine.cellSize == pytest.approx(theirs.cellSize, rel=1e-15)
        assert (mine.matrixWidth, mine.matrixHeight) == (theirs.matrixWidth, theirs.matrixHeight)
        assert mine.pointOfOrigin == (90.0, -180.0)
    assert ours.matrix(0).scaleDenominator == pytest.approx(279541132.0143589, rel=1e-13)


@given(lon=longitudes, lat=latitudes, level=st.integers(0, 17))
def test_the_cgcs2000_matrix_set_and_the_scheme_are_one_grid(
    lon: float, lat: float, level: int
) -> None:
    tile = cell(CGCS2000_QUAD, lon, lat, level)
    theirs = cgcs2000_quad(17).xy_bounds(morecantile.Tile(tile.x, tile.y, level))
    assert CGCS2000_QUAD.bounds(tile).bbox2d() == pytest.approx(list(theirs), abs=1e-9)


def test_the_matrix_set_survives_its_own_json() -> None:
    ours = cgcs2000_quad()
    again = morecantile.TileMatrixSet.model_validate_json(ours.model_dump_json(exclude_none=True))
    assert again.tile(113.3826, 31.6903, 15) == ours.tile(113.3826, 31.6903, 15)
    assert "EPSG/0/4490" in ours.model_dump_json()
