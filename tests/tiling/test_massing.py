"""Massing models enclose area times height, and look outwards."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
import shapely.affinity
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tiling.batches import BASE_COLUMN, HEIGHT_COLUMN
from tiling.ellipsoid import ecef_to_geodetic, enu_to_ecef_matrix, geodetic_to_ecef
from tiling.errors import GeometryInvalid, TilingError
from tiling.formats.primitive import Grid, Primitive
from tiling.testing.cities import synthetic_footprints
from tiling.tilers.massing import (
    QUANTA_M,
    Extrusion,
    extrude_counted,
    extrude_tile,
    grid_at,
    vertex_counts,
)
from tiling.tilers.outlines import convex_hull, place
from tiling.tilers.prisms import prisms_of

LON, LAT = 113.38, 31.69

# Metres per degree at the frame's origin, from the principal radii of WGS 84.
_S = np.sin(np.radians(LAT))
_W2 = 1 - 0.0066943799901413165 * _S**2
EAST_M = np.radians(6378137.0 / np.sqrt(_W2)) * np.cos(np.radians(LAT))
NORTH_M = np.radians(6378137.0 * (1 - 0.0066943799901413165) / _W2**1.5)


def lonlat(geometry: NDArray[np.object_] | shapely.Geometry) -> NDArray[np.object_]:
    """Turn metres around the origin into degrees."""
    moved = shapely.transform(geometry, lambda xy: xy / [EAST_M, NORTH_M] + [LON, LAT])
    return np.atleast_1d(np.asarray(moved, dtype=object))


SQUARE = shapely.box(-20, -10, 20, 10)
ELL = shapely.Polygon([(0, 0), (30, 0), (30, 10), (10, 10), (10, 40), (0, 40)])
HOLED = shapely.Polygon(SQUARE.exterior, [shapely.box(-5, -5, 5, 5).exterior])
TWO = shapely.MultiPolygon([SQUARE, shapely.box(50, 50, 60, 70)])
SHAPES = [SQUARE, ELL, HOLED, TWO]


def tile(
    *shapes: shapely.Geometry, height: float | list[float] = 10.0, skirt: float = 0.0
) -> Extrusion:
    n = len(shapes)
    geometry = np.array([lonlat(shape)[0] for shape in shapes], dtype=object)
    heights = np.broadcast_to(np.asarray(height, dtype=np.float64), n)
    return extrude_counted(geometry, np.zeros(n), heights, np.full(n, skirt))


def roofs(primitive: Primitive) -> NDArray[np.bool_]:
    """(T,) which triangles are roofs."""
    return np.asarray(primitive.triangles[:, 0] % 5 == 2)


def decoded(grid: Grid, primitive: Primitive) -> NDArray[np.float64]:
    """(T, 3, 3) metres from the middle of the grid, as a decoder has them."""
    return primitive.positions[primitive.triangles].astype(np.float64) * grid.quantum_m


def roof_areas(grid: Grid, primitive: Primitive) -> NDArray[np.float64]:
    own = roofs(primitive)
    a, b, c = np.moveaxis(decoded(grid, primitive)[own], 1, 0)
    area = np.cross(b - a, c - a)[:, 2] / 2
    rows = primitive.feature_ids[primitive.triangles[own, 0]]
    return np.asarray(np.bincount(rows, weights=area), dtype=np.float64)


def volumes(grid: Grid, primitive: Primitive) -> NDArray[np.float64]:
    """Divergence theorem from the middle of each feature's foot; what a floor adds is nothing.

    For a floor in the plane of the origin the flux of the position through it is zero.
    """
    corners = decoded(grid, primitive)
    owner = primitive.feature_ids[primitive.triangles[:, 0]]
    vertex_owner = primitive.feature_ids
    foot = np.full(int(owner.max()) + 1, np.inf)
    np.minimum.at(foot, vertex_owner, primitive.positions[:, 2] * grid.quantum_m)
    a, b, c = np.moveaxis(corners, 1, 0)
    area = np.cross(b - a, c - a) / 2
    flux = area[:, 2] * ((a + b + c)[:, 2] / 3 - foot[owner])
    return np.asarray(np.bincount(owner, weights=flux), dtype=np.float64)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("reverse", [False, True])
def test_volume_and_roof_are_those_of_the_prism(shape: shapely.Geometry, reverse: bool) -> None:
    grid, primitive, _ = tile(shape.reverse() if reverse else shape)
    slack = shape.length * grid.quantum_m
    assert abs(roof_areas(grid, primitive)[0] - shape.area) <= slack
    thick = slack * 10 + shape.area * grid.quantum_m
    assert abs(volumes(grid, primitive)[0] - shape.area * 10) <= thick


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("reverse", [False, True])
def test_walls_face_the_outside(shape: shapely.Geometry, reverse: bool) -> None:
    grid, primitive, _ = tile(shape.reverse() if reverse else shape)
    walls = ~roofs(primitive)
    middle = decoded(grid, primitive)[walls].mean(axis=1)[:, :2]
    step = primitive.normals[primitive.triangles[walls, 0]][:, :2] / 127 * 0.05
    corner = primitive.positions[:, :2].min(axis=0) * grid.quantum_m
    middle += np.array(shape.bounds[:2]) - corner
    assert not shapely.contains_xy(shape, middle + step).any()
    assert shapely.contains_xy(shape, middle - step).all()


def test_many_at_once_are_the_same_as_one_by_one() -> None:
    geometry = lonlat(np.array(SHAPES, dtype=object))
    n = len(geometry)
    base, height, skirt = np.zeros(n), np.linspace(5, 50, n), np.zeros(n)
    # They overlap, and what overlaps stands back; far apart nothing does.
    apart = np.array(
        [shapely.affinity.translate(g, i * 0.003) for i, g in enumerate(geometry)], dtype=object
    )
    grid, together = extrude_tile(apart, base, height, skirt)
    for i in range(n):
        one = slice(i, i + 1)
        _, alone = extrude_tile(apart[one], base[one], height[one], skirt[one], grid)
        own = together.feature_ids == i
        np.testing.assert_array_equal(alone.positions, together.positions[own])
        np.testing.assert_array_equal(alone.normals, together.normals[own])
        faces = together.triangles[own[together.triangles[:, 0]]] - np.flatnonzero(own)[0]
        np.testing.assert_array_equal(alone.triangles, faces)


def test_the_skirt_lowers_the_walls_and_leaves_the_roof() -> None:
    grid, skirted, _ = tile(SQUARE, skirt=2.0)
    # The same grid for both: what moves is the foot alone.
    one = np.ones(1)
    _, plain = extrude_tile(lonlat(SQUARE), 0 * one, 10 * one, 0 * one, grid)
    foot, roof = (z(plain.positions[:, 2]).astype(int) for z in (np.min, np.max))
    assert skirted.positions[:, 2].max() == roof
    assert abs((foot - int(skirted.positions[:, 2].min())) * grid.quantum_m - 2) <= grid.quantum_m


def test_a_round_tower_has_no_upright_edges() -> None:
    grid, primitive, _ = tile(shapely.Point(0, 0).buffer(20, quad_segs=16))
    heights = primitive.positions[primitive.edges][:, :, 2].astype(int)
    assert len(heights) and (np.abs(np.diff(heights, axis=1)) * grid.quantum_m < 1).all()


def test_repeated_points_and_z_change_nothing() -> None:
    ring = np.repeat(shapely.get_coordinates(SQUARE), 2, axis=0)
    doubled = shapely.Polygon(np.column_stack([ring, np.full(len(ring), 7.0)]))
    np.testing.assert_array_equal(
        tile(doubled).primitive.positions, tile(SQUARE).primitive.positions
    )


def test_vertex_counts_are_never_exceeded() -> None:
    made = np.bincount(tile(*SHAPES).primitive.feature_ids)
    assert (made <= vertex_counts(lonlat(np.array(SHAPES, dtype=object)))).all()


def test_every_decoded_building_has_its_area_and_volume() -> None:
    batch = synthetic_footprints(400, 3, LON, LAT)
    base, height = batch.column(BASE_COLUMN), batch.column(HEIGHT_COLUMN)
    grid, primitive = extrude_tile(batch.geometry, base, height, np.zeros(400))
    flat = shapely.transform(batch.geometry, lambda xy: (xy - [LON, LAT]) * [EAST_M, NORTH_M])
    slack = shapely.length(flat) * grid.quantum_m + 1e-4 * shapely.area(flat)
    areas = roof_areas(grid, primitive)
    assert (np.abs(areas - shapely.area(flat)) <= slack).all()
    expected = shapely.area(flat) * height
    rounding = slack * height + shapely.area(flat) * grid.quantum_m
    assert (np.abs(volumes(grid, primitive) - expected) <= rounding).all()


@pytest.mark.parametrize("lat", [31.69, 0.0, -75.0])
@pytest.mark.parametrize("extent_deg", [0.01, 0.7])
def test_vertices_are_within_half_a_quantum_of_the_truth(lat: float, extent_deg: float) -> None:
    rng = np.random.default_rng(2)
    n = 300
    corner = np.stack([LON + rng.random(n) * extent_deg, lat + rng.random(n) * extent_deg], axis=1)
    size = 4e-4
    geometry = shapely.box(*corner.T, *(corner + size).T)
    base, height = rng.uniform(0, 50, n), rng.uniform(3, 200, n)
    grid, primitive = extrude_tile(geometry, base, height, np.full(n, 1.5))
    got = grid.ecef(primitive.positions).reshape(n, 4, 5, 3)
    for i in range(n):
        ring = shapely.get_coordinates(geometry[i])[:4]
        for vertex, m in ((0, base[i] - 1.5), (4, base[i] - 1.5), (2, base[i] + height[i])):
            truth = geodetic_to_ecef(ring[:, 0], ring[:, 1], m)
            apart = np.abs((got[i][:, None, vertex] - truth) @ grid.to_ecef[:3, :3]).max(axis=2)
            # The ring begins and turns as it pleases: every vertex has its truth.
            assert (apart.min(axis=1) <= grid.quantum_m / 2 + 1e-6).all()


def test_walls_close_around_the_roof_and_only_the_floor_is_open() -> None:
    grid, primitive, _ = tile(*SHAPES)
    places = np.unique(primitive.positions, axis=0, return_inverse=True)[1].reshape(-1)
    sides = places[primitive.triangles][:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)
    forth = set(map(tuple, sides.tolist()))
    open_sides = np.array([(a, b) for a, b in forth if (b, a) not in forth])
    heights = np.zeros(places.max() + 1)
    heights[places] = primitive.positions[:, 2]
    # What has no neighbour is the lower end of a wall.
    middle = primitive.positions[:, 2].mean()
    assert len(open_sides) == len(primitive.positions) // 5
    assert (heights[open_sides] < middle).all()


def test_normals_agree_with_the_winding_on_the_grid() -> None:
    grid, primitive, _ = tile(*SHAPES)
    a, b, c = np.moveaxis(decoded(grid, primitive), 1, 0)
    flat = np.cross(b - a, c - a)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    for corner in range(3):
        normal = primitive.normals[primitive.triangles[:, corner]] / 127
        assert ((flat * normal).sum(axis=1) > 0.98).all()


def test_edges_on_the_grid_are_sides_of_triangles() -> None:
    for skirt, lines in ((0.0, 12), (2.0, 8)):
        _, primitive, _ = tile(SQUARE, skirt=skirt)
        pairs = primitive.triangles[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)
        sides = set(map(tuple, np.sort(pairs, axis=1).tolist()))
        assert set(map(tuple, np.sort(primitive.edges, axis=1).tolist())) <= sides
        ends = primitive.positions[primitive.edges].astype(np.int64) @ [1 << 40, 1 << 20, 1]
        # Under ground no line is drawn.
        assert len(np.unique(np.sort(ends, axis=1), axis=0)) == lines


def test_footprints_finer_than_the_grid_still_stand() -> None:
    slivers = [
        shapely.Polygon([(0, 0), (30, 0.001), (30, 0.002)]),
        shapely.box(40, 0, 40.001, 0.001),
        shapely.Polygon([(0, 5), (9, 5), (9, 5.001), (4, 5.0005), (0, 5.001)]),
        shapely.Polygon(
            shapely.box(50, 0, 60, 10).exterior, [shapely.box(55, 5, 55.001, 5.001).exterior]
        ),
    ]
    _, primitive, _ = tile(*slivers)
    walls = ~roofs(primitive)
    owner = primitive.feature_ids[primitive.triangles[:, 0]]
    assert np.unique(owner[walls]).tolist() == [0, 1, 2, 3]
    assert np.unique(owner[~walls]).tolist() == [0, 1, 2, 3]


def test_a_grid_coarser_than_the_buildings_loses_none() -> None:
    batch = synthetic_footprints(900, 8, LON, LAT)
    zero = np.zeros(900)
    far = grid_at(np.array([[LON - 0.3, LAT - 0.3], [LON + 0.5, LAT + 0.5]]), -400.0, 400.0)
    assert far.quantum_m == 2.0
    grid, primitive = extrude_tile(batch.geometry, zero, batch.column(HEIGHT_COLUMN), zero, far)
    flat = shapely.transform(batch.geometry, lambda xy: (xy - [LON, LAT]) * [EAST_M, NORTH_M])
    areas = roof_areas(grid, primitive)
    assert len(areas) == 900
    assert (areas > 0).all()
    assert (np.abs(areas - shapely.area(flat)) <= 2 * shapely.length(flat)).all()
    ids = np.arange(900)
    found = prisms_of(grid, [primitive], ids, np.ones(900, dtype=np.int64))
    assert found.ids.tolist() == ids.tolist()


@given(st.integers(3, 40), st.integers(0, 2**32 - 1), st.sampled_from([0.05, 0.3, 2.0, 30.0]))
def test_any_footprint_has_walls_and_a_roof(corners: int, seed: int, size: float) -> None:
    rng = np.random.default_rng(seed)
    angle = np.sort(rng.uniform(0, 2 * np.pi, corners))
    reach = rng.uniform(0.05, 1, corners) * size
    star = shapely.Polygon(np.stack([reach * np.cos(angle), reach * np.sin(angle)], axis=1))
    if not star.is_valid or star.area == 0:
        return
    grid, primitive, _ = tile(star, shapely.box(500, 0, 900, 500))
    assert np.unique(primitive.feature_ids).tolist() == [0, 1]
    area = roof_areas(grid, primitive)[0]
    assert 0 < area <= star.area + star.length * grid.quantum_m + grid.quantum_m**2
    assert area >= star.area * 0.9999 - star.length * grid.quantum_m


def test_islands_in_courtyards_and_long_outlines_keep_their_area() -> None:
    island = shapely.MultiPolygon([HOLED, shapely.box(-2, -2, 2, 2)])
    angle = np.linspace(0, 2 * np.pi, 20_000, endpoint=False)
    reach = 200 + 10 * np.sin(50 * angle)
    long = shapely.Polygon(np.stack([reach * np.cos(angle) + 400, reach * np.sin(angle)], axis=1))
    grid, primitive, _ = tile(island, long)
    for area, shape in zip(roof_areas(grid, primitive), (island, long), strict=True):
        assert abs(area - shape.area) <= shape.length * grid.quantum_m + 1e-4 * shape.area


def test_grids_are_the_finest_that_hold_everything() -> None:
    for extent_deg in (0.0001, 0.004, 0.01, 0.1, 0.7):
        spread = np.array([[LON, LAT], [LON + extent_deg, LAT + extent_deg]])
        grid = grid_at(spread, -10.0, 90.0)
        span = max(extent_deg * NORTH_M, 100.0)
        finer = [q for q in QUANTA_M if q < grid.quantum_m]
        assert grid.quantum_m * 65_535 >= span
        assert not finer or finer[-1] * 65_535 < span * 1.01
        lon, lat, height = ecef_to_geodetic(grid.to_ecef[:3, 3])
        assert lon <= LON and lat <= LAT and height <= -10


def test_a_grid_can_be_given_and_is_never_left() -> None:
    own, _, _ = tile(SQUARE)
    geometry, one = lonlat(SQUARE), np.ones(1)
    wide = grid_at(np.array([[LON - 0.01, LAT - 0.01], [LON + 0.01, LAT + 0.01]]), -5.0, 50.0)
    grid, primitive = extrude_tile(geometry, 0 * one, 10 * one, 0 * one, wide)
    assert grid is wide
    assert roof_areas(grid, primitive)[0] == pytest.approx(SQUARE.area, rel=0.01)
    with pytest.raises(TilingError, match="steps"):
        extrude_tile(geometry, 0 * one, 900 * one, 0 * one, own)


def test_empty_footprints_are_refused() -> None:
    with pytest.raises(GeometryInvalid, match="empty"):
        tile(SQUARE, shapely.Polygon())
    with pytest.raises(GeometryInvalid, match="empty"):
        tile(shapely.MultiPolygon(), TWO)
    assert roof_areas(*tile(TWO)[:2])[0] == pytest.approx(TWO.area, rel=0.01)


def coplanar_walls(primitive: Primitive) -> int:
    """Count pairs of axis-parallel walls in one plane that overlap, in plain Python."""
    walls = primitive.positions[primitive.triangles[~roofs(primitive)][::2]].astype(int)
    owner = primitive.feature_ids[primitive.triangles[~roofs(primitive)][::2, 0]]
    count = 0
    for i in range(len(walls)):
        for j in range(i):
            (a, b, top), (c, d, other) = walls[i], walls[j]
            u, v = (b - a)[:2], (d - c)[:2]
            if owner[i] == owner[j] or u @ v <= 0:
                continue
            length = np.hypot(*u)
            apart = [abs(u[0] * (p - a)[1] - u[1] * (p - a)[0]) / length for p in (c, d)]
            along = sorted([(c - a)[:2] @ u / length, (d - a)[:2] @ u / length])
            shared = min(length, along[1]) - max(0, along[0])
            tall = min(top[2], other[2]) - max(a[2], c[2])
            count += max(apart) < 0.5 and shared > 2 and tall > 0
    return count


PODIUM, TOWER = shapely.box(0, 0, 40, 30), shapely.box(0, 10, 15, 30)


def test_walls_that_parts_share_are_set_apart() -> None:
    for shapes, heights, faces in (
        ((PODIUM, TOWER), [12.0, 50.0], 2),
        ((SQUARE, SQUARE), [12.0, 50.0], 4),
        ((SQUARE, SQUARE), [12.0, 12.0], 5),
        ((SQUARE, SQUARE, SQUARE), [9.0, 12.0, 15.0], 8),
        ((PODIUM, shapely.box(40, 0, 60, 30)), [12.0, 50.0], 0),
        ((PODIUM, shapely.box(100, 0, 140, 30)), [12.0, 12.0], 0),
    ):
        extrusion = tile(*shapes, height=heights)
        assert coplanar_walls(extrusion.primitive) == 0
        # Buildings in a row share the planes of their fronts but no part of them.
        assert extrusion.inset == faces, (shapes, heights)
        grid, primitive = extrusion[:2]
        for area, shape in zip(roof_areas(grid, primitive), shapes, strict=True):
            assert abs(area - shape.area) <= 3 * 2 * shape.length * grid.quantum_m


def test_turned_walls_of_different_lengths_are_set_apart() -> None:
    for angle in (13.0, 45.0, 77.7):
        shapes = [shapely.affinity.rotate(s, angle, origin=(3.3, 4.4)) for s in (PODIUM, TOWER)]
        extrusion = tile(*shapes, height=[12.0, 50.0])
        assert extrusion.inset == 2
        grid, primitive = extrusion[:2]
        walls = primitive.positions[primitive.triangles[~roofs(primitive)]].astype(int)
        owner = primitive.feature_ids[primitive.triangles[~roofs(primitive), 0]]
        outer = shapely.Polygon(primitive.positions[primitive.feature_ids == 1][2::5, :2])
        inner = shapely.Polygon(primitive.positions[primitive.feature_ids == 0][2::5, :2])
        assert len(walls) == len(owner)
        # The tower, larger in volume, keeps its walls; the podium's foot recedes behind them.
        assert inner.boundary.intersection(outer.exterior).length < outer.length / 2


def test_roofs_in_one_plane_are_set_apart() -> None:
    extrusion = tile(PODIUM, shapely.box(10, 5, 20, 15), height=[12.0, 12.0])
    tops = [
        extrusion.primitive.positions[extrusion.primitive.feature_ids == i, 2].max() for i in (0, 1)
    ]
    assert tops[0] - tops[1] == 2
    assert extrusion.inset == 1
    courtyard = tile(HOLED, shapely.box(-2, -2, 2, 2), height=[12.0, 12.0])
    assert courtyard.inset == 0


def test_placing_is_the_textbook_formula() -> None:
    rng = np.random.default_rng(0)
    where = np.stack([rng.uniform(-180, 180, 50), rng.uniform(-90, 90, 50)], axis=1)
    frame = enu_to_ecef_matrix(LON, LAT, 0.0)
    feet, ups = place(where, frame)
    for h in (-400.0, 0.0, 8848.0):
        ecef = geodetic_to_ecef(where[:, 0], where[:, 1], np.full(50, h))
        expected = (ecef - frame[:3, 3]) @ frame[:3, :3]
        np.testing.assert_allclose(feet + h * ups, expected, atol=1e-7)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=40))
def test_hulls_are_those_of_geos(points: list[tuple[int, int]]) -> None:
    xy = np.array(sorted(points), dtype=np.int64)
    corners = convex_hull(xy[:, 0], xy[:, 1])
    expected = shapely.convex_hull(shapely.multipoints(xy.astype(float)))
    assert set(map(tuple, xy[corners].tolist())) == {
        (int(x), int(y)) for x, y in shapely.get_coordinates(expected).tolist()
    }
    if len(corners) > 2:
        assert shapely.Polygon(xy[corners]).exterior.is_ccw
