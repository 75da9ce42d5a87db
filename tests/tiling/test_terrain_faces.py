"""The ground as it is drawn: against the triangles that another decoder reads."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from quantized_mesh_tile.terrain import TerrainTile

from tests.tiling.test_terrain import DATA, build, read_dem
from tiling.coords import TileCoord
from tiling.tilers.base import TilesetInfo
from tiling.tilers.terrain import TerrainTiler
from tiling.tilers.terrain_faces import Lattice, height_ranges, node_heights

LEVEL = 13


def cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.asarray(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0])


class Drawn:
    """Meshes of a level, triangle by triangle."""

    def __init__(self, info: TilesetInfo, store: Any) -> None:
        self.extent = info.bounds
        self.cells: int = info.metadata["terrain"]["mesh"]["cells"][-1]
        self.lattice = Lattice(LEVEL, self.cells)
        self.faces: dict[TileCoord, Any] = {}
        corners = []
        for key in store.keys():
            if not key.startswith(f"{LEVEL}/"):
                continue
            x, y = map(int, key.removesuffix(".terrain").split("/")[1:])
            data = gzip.decompress(store.get(key).data)
            self.faces[TileCoord(LEVEL, x, y)] = node_heights(data, self.cells)
            size = 180 / 2**LEVEL
            west, south = x * size - 180, y * size - 90
            tile = TerrainTile(west=west, south=south, east=west + size, north=south + size)
            tile.fromBytesIO(io.BytesIO(data), hasLighting=True)
            points = np.array(tile.getVerticesCoordinates())
            corners.append(points[np.array(tile.indices).reshape(-1, 3)])
        self.triangles = np.concatenate(corners)
        self.tree = shapely.STRtree(shapely.polygons(self.triangles[:, :, :2]))

    def height(self, points: np.ndarray) -> np.ndarray:
        """Return the heights of the triangles at (N, 2) places."""
        of, on = self.tree.query(shapely.points(points), predicate="intersects")
        first = np.unique(of, return_index=True)[1]
        a, b, c = np.moveaxis(self.triangles[on[first]], 1, 0)
        p = points[of[first]]
        area = cross(b - a, c - a)
        v, w = cross(p - a[:, :2], c - a) / area, cross(b - a, p - a[:, :2]) / area
        assert len(first) == len(points)
        return np.asarray(a[:, 2] * (1 - v - w) + b[:, 2] * v + c[:, 2] * w)


@pytest.fixture(scope="module")
def steep(tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    folder: Path = tmp_path_factory.mktemp("steep")
    tiler = TerrainTiler(min_level=LEVEL, max_level=LEVEL)
    return Drawn(*build(read_dem(DATA / "big_tujunga.tif"), folder, tiler)[:2])


def scattered(drawn: Drawn, count: int, seed: int) -> np.ndarray:
    """Turned rectangles, some with a courtyard, on tiles and across them."""
    random = np.random.default_rng(seed)
    # Not at the rim, where the mesh falls to the sea and a rounded place is metres of height.
    west, south, east, north = shapely.buffer(shapely.box(*drawn.extent[:4]), -0.012).bounds
    x, y = random.uniform(west, east, count), random.uniform(south, north, count)
    wide, deep = random.uniform(1e-4, 1e-3, (2, count))
    boxes = shapely.box(-wide, -deep, wide, deep)
    holed = shapely.difference(boxes, shapely.box(-wide / 2, -deep / 2, wide / 2, deep / 3))
    boxes = np.where(np.arange(count) % 3 == 0, holed, boxes)
    turn = random.uniform(0, np.pi, count)
    return np.array(
        [
            shapely.transform(
                box,
                lambda p, a=a, at=at: p @ [[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]] + at,
            )
            for box, a, at in zip(boxes, turn, np.column_stack([x, y]), strict=True)
        ]
    )


def test_node_heights_are_those_of_the_triangles(steep: Drawn) -> None:
    random = np.random.default_rng(1)
    step = 180 / 2**LEVEL / steep.cells
    for coord in list(steep.faces)[::9]:
        i, j = random.integers(1, steep.cells, (2, 40))
        west, south = coord.x * 180 / 2**LEVEL - 180, coord.y * 180 / 2**LEVEL - 90
        # The format rounds a place to 32767 steps; where two faces meet that is some centimetres.
        there = steep.height(np.column_stack([west + i * step, south + j * step]))
        assert np.abs(there - steep.faces[coord][j, i]).max() < 0.05


def test_no_point_of_a_footprint_is_below_its_lowest_ground(steep: Drawn) -> None:
    polygons = scattered(steep, 120, 2)
    low, high = height_ranges(polygons, steep.lattice, steep.faces.get)
    random = np.random.default_rng(3)
    for polygon, lowest, highest in zip(polygons, low, high, strict=True):
        west, south, east, north = polygon.bounds
        inside = random.uniform((west, south), (east, north), (1500, 2))
        inside = inside[shapely.contains_xy(polygon, inside)]
        outline = shapely.get_coordinates(shapely.segmentize(polygon, 1e-5))
        ground = steep.height(np.concatenate([inside, outline]))
        # 0.05 m is the rounding of places.
        assert ground.min() > lowest - 0.05
        assert ground.max() < highest + 0.05
        # And no lower than the ground is: samples lie a metre apart on the steepest slope.
        assert ground.min() < lowest + 1.5
        assert ground.max() > highest - 1.5


def test_a_polygon_is_the_lowest_of_its_parts_and_alone_as_among_others(steep: Drawn) -> None:
    polygons = scattered(steep, 40, 4)
    low, high = height_ranges(polygons, steep.lattice, steep.faces.get)
    for k in (0, 17, 39):
        alone = height_ranges(polygons[k : k + 1], steep.lattice, steep.faces.get)
        assert (alone[0][0], alone[1][0]) == (low[k], high[k])
    both = np.array([shapely.multipolygons(polygons[:2])])
    together = height_ranges(both, steep.lattice, steep.faces.get)
    assert (together[0][0], together[1][0]) == (low[:2].min(), high[:2].max())


def test_where_no_tile_is_nothing_is_drawn(steep: Drawn) -> None:
    low, high = height_ranges(np.array([shapely.box(10, 10, 10.01, 10.01)]), steep.lattice,
                              steep.faces.get)  # fmt: skip
    assert (low[0], high[0]) == (np.inf, -np.inf)
