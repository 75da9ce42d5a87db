"""What every level shows is even: measured on real clouds and on a made one, as numbers."""

from __future__ import annotations

from pathlib import Path

import laspy
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.commands import DEMO_SOURCES
from tests.tiling.test_pointcloud import files, nearest, parts, tile
from tiling.batches import PointBatch
from tiling.crs import SpatialRef
from tiling.ellipsoid import ecef_to_geodetic
from tiling.formats.points_glb import ERROR_M, decode_points
from tiling.tilers.octree import Cell
from tiling.tilers.point_lattice import ROOT_LEVEL
from tiling.tilers.point_sampling import VOXELS, least_distance_m, spacing_m

DATA = Path(__file__).parent.parent / "data" / "pointcloud"
LEAF_POINTS = 700
Tiles = dict[Cell, NDArray[np.float64]]
# A level, what it shows, and what the source holds there: Earth-centred metres.
View = tuple[int, NDArray[np.float64], NDArray[np.float64]]


def real(path: Path, crs: str, foot_m: float = 1.0) -> PointBatch:
    las = laspy.read(path)
    xyz = np.stack([las.x, las.y, np.asarray(las.z) * foot_m], axis=1)
    return PointBatch(SpatialRef.parse(f"{crs}+ellipsoidal"), 0, xyz, {})


@pytest.fixture(scope="module", params=["ign", "autzen"])
def views(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[View]:
    source = {
        "ign": lambda: real(DATA / "ign_classified.laz", "EPSG:2154"),
        "autzen": lambda: real(DEMO_SOURCES / "autzen.laz", "EPSG:2994", 0.3048),
    }[request.param]()
    folder = tmp_path_factory.mktemp(request.param)
    tile(folder, parts(source, 2), leaf_points=LEAF_POINTS, column_points=30_000)
    found: Tiles = {}
    for key, data in files(folder).items():
        if key.endswith(".glb"):
            _, root, x, y, *local = (int(p) for p in key[:-4].replace("content", "0").split("/"))
            depth, lx, ly, lz = local
            cell = Cell(root + depth, (x << depth) + lx, (y << depth) + ly, lz)
            found[cell] = decode_points(data).ecef
    return _views(found)


def _parents(cells: list[Cell]) -> set[Cell]:
    return {Cell(c.level - 1, c.x >> 1, c.y >> 1, c.z >> 1) for c in cells}


def _views(tiles: Tiles) -> list[View]:
    """Return what each level shows, leaves left out.

    A leaf shows whatever is left, as dense as it is; and where a source is hardly denser than
    a level there is nothing to choose among.
    """
    divided = _parents(list(tiles))
    found = []
    for level in range(ROOT_LEVEL, max(cell.level for cell in tiles)):
        shown = [p for c, p in tiles.items() if c.level <= level and c in divided]
        there = [p for c, p in tiles.items() if c.level > level or c in divided]
        if sum(map(len, shown)) < 60 or not there:
            continue
        source = np.concatenate(there)
        apart = np.median(nearest(source, source, every=max(1, len(source) // 200)))
        if 3 * apart < spacing_m(level):
            found.append((level, np.concatenate(shown), source))
    assert len(found) > 3
    return found


def test_points_of_a_level_stand_as_far_apart_as_is_stated(views: list[View]) -> None:
    for level, shown, _ in views:
        shrink = float(np.cos(np.radians(ecef_to_geodetic(shown)[1].mean())))
        away = nearest(shown, shown, every=max(1, len(shown) // 800))
        # Beside a leaf, which shows all it has, one of its points may stand nearer.
        least = least_distance_m(level, shrink) * 0.99 - 2 * ERROR_M
        assert (away < least).sum() <= 0.002 * len(away), level
        # A random part of a surface has 0.52, a lattice 0.
        assert away.std() / away.mean() < 0.33, level


def test_no_place_of_the_source_is_far_from_what_a_level_shows(views: list[View]) -> None:
    for level, shown, there in views:
        away = nearest(there[:: max(1, len(there) // 800)], shown)
        assert np.percentile(away, 99) < spacing_m(level), level
        assert away.max() < 2 * spacing_m(level), level


@pytest.mark.parametrize("views", ["autzen"], indirect=True)
def test_the_borders_of_cells_do_not_show(views: list[View]) -> None:
    """As much of the source is shown within two voxels of a border as farther inside."""
    compared = 0
    for level, shown, there in views:
        near, inside = (np.array(_bands(points, level), dtype=float) for points in (shown, there))
        if near.min() < 100:
            continue
        share = near / inside
        compared += 1
        assert 0.8 < share[0] / share[1] < 1.25, level
    assert compared


def _bands(points: NDArray[np.float64], level: int) -> tuple[int, int]:
    """Count the points up to two voxels from the sides of their cells, and from four to twelve."""
    lon, lat, _ = ecef_to_geodetic(points)
    voxels = np.stack([lon + 180, lat + 90]) / (180 / 2**level) % 1 * VOXELS
    away = np.minimum(voxels, VOXELS - voxels).min(axis=0)
    return int((away < 2).sum()), int(((away > 4) & (away < 12)).sum())
