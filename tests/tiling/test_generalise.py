"""Coarser levels stay within their error, lose nobody, and depend on the values alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tiling.batches import BASE_COLUMN, HEIGHT_COLUMN
from tiling.coords import TileCoord, unmorton2
from tiling.testing.cities import synthetic_footprints
from tiling.tilers.blocks import rectangles
from tiling.tilers.generalise import MOST_PRISMS, MOST_TRIANGLES, generalise
from tiling.tilers.massing import extrude_tile, prism_tile
from tiling.tilers.outlines import Outlines
from tiling.tilers.prisms import Prisms, prisms_of
from tiling.tilers.quadtree import cell_mortons

LON, LAT = 113.38, 31.69
SCALE = np.array([111_320.0 * np.cos(np.radians(LAT)), 111_320.0])
ERRORS = {level: 1024.0 / 2 ** (level - 8) for level in range(8, 14)}
REAL = Path(__file__).parent.parent / "data" / "wuhan_buildings.geojson"


def cell_at(level: int, lon: float = LON, lat: float = LAT) -> TileCoord:
    morton = cell_mortons(np.array([lon]), np.array([lat]), level)[0]
    x, y = unmorton2(np.uint64(morton))
    return TileCoord(level, int(x), int(y))


def metres(prisms: Prisms) -> NDArray[np.object_]:
    owner = np.repeat(np.arange(len(prisms)), np.diff(prisms.start))
    rings = shapely.linearrings((prisms.lonlat - [LON, LAT]) * SCALE, indices=owner)
    return np.asarray(shapely.polygons(rings))


def volume(prisms: Prisms) -> float:
    return float((shapely.area(metres(prisms)) * (prisms.top_m - prisms.bottom_m)).sum())


def boxes(corners: NDArray[np.float64], top_m: NDArray[np.float64] | float = 10.0) -> Prisms:
    """Prisms over (N, 4) west, south, east, north in metres, standing at height zero."""
    n = len(corners)
    west, south, east, north = corners.T
    ring = np.stack([west, south, east, south, east, north, west, north], axis=1)
    return Prisms(
        ring.reshape(-1, 2) / SCALE + [LON, LAT],
        4 * np.arange(n + 1),
        np.zeros(n),
        np.broadcast_to(np.asarray(top_m, dtype=np.float64), n).copy(),
        np.arange(n),
        np.ones(n, dtype=np.int64),
    )


def synthetic(n: int, seed: int = 0, flat: bool = False) -> Prisms:
    batch = synthetic_footprints(n, seed, LON, LAT)
    base = np.zeros(n) if flat else batch.column(BASE_COLUMN)
    tile = extrude_tile(batch.geometry, base, batch.column(HEIGHT_COLUMN), np.full(n, 2.0))
    return prisms_of(tile[0], [tile[1]], batch.ids, np.ones(n, dtype=np.int64))


def real() -> Prisms:
    geometry = shapely.get_parts(shapely.from_geojson(REAL.read_text("utf-8")))
    geometry = geometry[np.isin(shapely.get_type_id(geometry), (3, 6))]
    n = len(geometry)
    height = np.random.default_rng(0).uniform(3, 120, n)
    tile = extrude_tile(geometry, np.full(n, 20.0), height, np.full(n, 2.0))
    return prisms_of(tile[0], [tile[1]], np.arange(n), np.ones(n, dtype=np.int64))


def permuted(prisms: Prisms, order: NDArray[np.int64]) -> Prisms:
    pieces = [prisms.lonlat[prisms.start[i] : prisms.start[i + 1]] for i in order]
    return Prisms(
        np.concatenate(pieces),
        np.concatenate([[0], np.cumsum([len(p) for p in pieces])]),
        prisms.bottom_m[order],
        prisms.top_m[order],
        prisms.ids[order],
        prisms.features[order],
    )


def distances(a: Prisms, b: Prisms) -> NDArray[np.float64]:
    """Return how far places on the outlines of `a` are from the nearest outline of `b`, metres."""
    rings = shapely.segmentize(shapely.get_exterior_ring(metres(a)), 2.0)
    tree = shapely.STRtree(shapely.get_exterior_ring(metres(b)))
    places = shapely.points(shapely.get_coordinates(rings))
    _, found = tree.query_nearest(places, return_distance=True, all_matches=False)
    return np.asarray(found)


@pytest.mark.parametrize("level", ERRORS)
def test_outlines_stay_within_the_error(level: int) -> None:
    fine = synthetic(2500)
    coarse = generalise(fine, cell_at(level), ERRORS[level])
    assert distances(coarse, fine).max() <= ERRORS[level]
    assert distances(fine, coarse).max() <= ERRORS[level]


@pytest.mark.parametrize("level", ERRORS)
def test_a_real_town_stays_within_the_error(level: int) -> None:
    fine = real()
    lon, lat = fine.lonlat.mean(axis=0)
    coarse = generalise(fine, cell_at(level, lon, lat), ERRORS[level])
    assert coarse.features.sum() == fine.features.sum()
    assert distances(coarse, fine).max() <= ERRORS[level]
    # Specks are left out: nobody can see them.
    seen = permuted(fine, np.flatnonzero(shapely.area(metres(fine)) > (ERRORS[level] / 16) ** 2))
    assert len(seen) == 0 or distances(seen, coarse).max() <= ERRORS[level]
    assert volume(coarse) == pytest.approx(volume(fine), rel=0.25)


def test_level_upon_level_keeps_volumes_and_features() -> None:
    prisms = synthetic(4000, flat=True)
    whole = volume(prisms)
    sizes = [len(prisms)]
    for level in range(13, 7, -1):
        prisms = generalise(prisms, cell_at(level), ERRORS[level])
        grid, primitive = prism_tile(prisms)
        prisms = prisms_of(grid, [primitive], prisms.ids, prisms.features)
        assert prisms.features.sum() == 4000
        assert volume(prisms) == pytest.approx(whole, rel=0.1)
        sizes.append(len(prisms))
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 20


@pytest.mark.parametrize("level", [8, 10, 12, 13])
def test_the_order_of_the_prisms_does_not_matter(level: int) -> None:
    fine = synthetic(800)
    order = np.random.default_rng(level).permutation(len(fine))
    straight = generalise(fine, cell_at(level), ERRORS[level])
    shuffled = generalise(permuted(fine, order), cell_at(level), ERRORS[level])
    for name in ("lonlat", "start", "bottom_m", "top_m", "ids", "features"):
        np.testing.assert_array_equal(getattr(straight, name), getattr(shuffled, name))


@given(st.integers(0, 2**32 - 1), st.sampled_from([1.0, 40.0, 600.0]), st.integers(1, 60))
@settings(max_examples=60)
def test_nobody_is_lost_whatever_the_prisms(seed: int, size: float, n: int) -> None:
    rng = np.random.default_rng(seed)
    corner = rng.uniform(-50, 4000, (n, 2))
    fine = boxes(
        np.concatenate([corner, corner + rng.uniform(0, size, (n, 2))], axis=1),
        rng.uniform(0.5, 400, n),
    )
    for level, error in ERRORS.items():
        coarse = generalise(fine, cell_at(level), error)
        assert 1 <= len(coarse) <= n
        assert coarse.features.sum() == n
        assert set(coarse.ids.tolist()) <= set(range(n))
        assert (coarse.top_m > coarse.bottom_m).all()
        assert coarse.top_m.max() <= fine.top_m.max() + 1e-9
        polygons = metres(coarse)
        assert shapely.is_valid(polygons).all()
        assert (shapely.area(polygons) > 0).all()
        assert shapely.is_ccw(shapely.get_exterior_ring(polygons)).all()


def test_a_thin_tower_among_houses_stays() -> None:
    side = np.arange(10) * 12.0
    west, south = (axis.ravel() for axis in np.meshgrid(side, side))
    houses = np.stack([west, south, west + 9, south + 9], axis=1)
    top = np.full(100, 6.0)
    top[37] = 320.0
    for level in (13, 12, 11, 10):
        coarse = generalise(boxes(houses, top), cell_at(level), ERRORS[level])
        assert 320.0 - coarse.top_m.max() < 1e-6
        assert 37 in coarse.ids.tolist()
        assert coarse.features.sum() == 100


def test_a_village_is_seen_from_afar() -> None:
    rng = np.random.default_rng(4)
    corner = rng.uniform(0, 400, (60, 2))
    coarse = generalise(
        boxes(np.concatenate([corner, corner + 9], axis=1), 6.0), cell_at(8), ERRORS[8]
    )
    assert len(coarse) >= 1
    assert volume(coarse) == pytest.approx(60 * 81 * 6.0, rel=0.05)


def test_what_is_dropped_is_counted_with_its_neighbour() -> None:
    far = np.array(
        [[0, 0, 300, 300], [5000, 0, 5400, 300], [310, 5, 315, 9.0], [4900, 9, 4903, 14]]
    )
    coarse = generalise(boxes(far, np.array([60.0, 70.0, 3.0, 3.0])), cell_at(11), ERRORS[11])
    assert coarse.features[np.argsort(coarse.ids)].tolist() == [2, 2]


def test_large_outlines_are_simplified_and_keep_their_area() -> None:
    angle = np.linspace(0, 2 * np.pi, 2000, endpoint=False)
    reach = 400 + 20 * np.sin(90 * angle)
    xy = np.stack([reach * np.cos(angle), reach * np.sin(angle)], axis=1)
    ring = Prisms(
        xy / SCALE + [LON, LAT],
        np.array([0, 2000]),
        np.zeros(1),
        np.full(1, 30.0),
        np.array([3]),
        np.array([1]),
    )
    coarse = generalise(ring, cell_at(10), ERRORS[10])
    assert len(coarse.lonlat) < 40
    assert volume(coarse) == pytest.approx(volume(ring), rel=0.1)


def test_pathological_tiles_fit_all_the_same() -> None:
    rng = np.random.default_rng(9)
    corner = rng.uniform(0, 4000, (12_000, 2))
    crowd = boxes(
        np.concatenate([corner, corner + rng.uniform(30, 60, (12_000, 2))], axis=1),
        rng.uniform(3, 400, 12_000),
    )
    coarse = generalise(crowd, cell_at(13), ERRORS[13])
    assert len(coarse) <= MOST_PRISMS
    assert len(prism_tile(coarse)[1].triangles) <= MOST_TRIANGLES
    assert coarse.features.sum() == 12_000


def test_no_prisms_are_no_prisms() -> None:
    assert len(generalise(Prisms.none(), cell_at(12), 64.0)) == 0


def test_blocks_are_the_rectangles_of_geos_shrunk_to_their_area() -> None:
    rng = np.random.default_rng(6)
    shapes = []
    for _ in range(40):
        xy = rng.uniform(0, 100, (4, 2))
        shapes.append(shapely.convex_hull(shapely.multipoints(xy)))
    outlines = Outlines.of(np.array(shapes, dtype=object))
    members = np.arange(0, 41, 2)
    corners, stray = rectangles(outlines.lonlat, outlines.ring_start, members, shapely.area(shapes))
    for k, block in enumerate(shapely.polygons(corners)):
        pair = shapely.union_all(shapes[2 * k : 2 * k + 2])
        whole = shapely.minimum_rotated_rectangle(pair)
        wanted = min(whole.area, sum(s.area for s in shapes[2 * k : 2 * k + 2]))
        assert block.area == pytest.approx(wanted, rel=1e-3)
        assert shapely.distance(block.centroid, whole.centroid) < 0.01
        outline = shapely.union_all([s.exterior for s in shapes[2 * k : 2 * k + 2]])
        assert shapely.hausdorff_distance(block.exterior, outline, densify=0.02) <= stray[k] + 1e-9
