"""The global octree of point clouds: paths, volumes grown from the content, subtrees.

Cells are those of `tiling.tilers.point_lattice`; x counts from -180, y from the south, z from the
lowest. Every cell of `ROOT_LEVEL` that holds points is the root of an implicit octree. Refinement
is ADD: a tile and everything above it are shown together, so a tile stands for what it and
its children hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tiling.coords import TileCoord
from tiling.formats.subtree import Subtree, node_count
from tiling.formats.tileset_json import ImplicitRoot
from tiling.tilers.point_lattice import HIGHEST_M, LOWEST_M, ROOT_LEVEL
from tiling.tilers.quadtree import cell_region, degrees

# Levels 9 to 13, 14 to 18, 19 to 23, ...: two requests lead to most leaves.
SUBTREE_LEVELS = 5
BRANCHING = 8


class Cell(NamedTuple):
    """A cell of the octree."""

    level: int
    x: int
    y: int
    z: int

    def within_root(self) -> tuple[str, Cell]:
        """Return the name of the cell's root, and the cell counted from there."""
        depth = self.level - ROOT_LEVEL
        x, y = self.x >> depth, self.y >> depth
        local = Cell(depth, self.x - (x << depth), self.y - (y << depth), self.z)
        return f"{ROOT_LEVEL}/{x}/{y}", local


def content_key(cell: Cell) -> str:
    """Return the path of a cell's content."""
    root, local = cell.within_root()
    return f"content/{root}/{local.level}/{local.x}/{local.y}/{local.z}.glb"


def subtree_key(root: str, local: Cell) -> str:
    """Return the path of the subtree whose root is a cell, counted from the root."""
    return f"subtrees/{root}/{local.level}.{local.x}.{local.y}.{local.z}.subtree"


@dataclass(frozen=True, slots=True)
class PointTile:
    """What the tree needs to know of a tile with content.

    Attributes:
        cell: the tile.
        region: volume of its content: four radians, two metres.
        points: how many it holds.
    """

    cell: Cell
    region: tuple[float, ...]
    points: int


@dataclass(frozen=True, slots=True)
class OctreeLevel:
    """The tiles of one level below one root that exist.

    Attributes:
        mortons: (N,) int64 counted from the root, ascending; x in the lowest bits.
        contents: (N,) bool, which have content.
        regions: (N, 6) float64, four radians and two metres.
        points: (N,) int64, points of each tile and all below.
    """

    mortons: NDArray[np.int64]
    contents: NDArray[np.bool_]
    regions: NDArray[np.float64]
    points: NDArray[np.int64]


def grow(tiles: Iterable[PointTile]) -> dict[str, list[OctreeLevel]]:
    """Return the levels of each root from the root down, volumes holding content and children."""
    roots: dict[str, dict[int, list[tuple[int, PointTile]]]] = {}
    for tile in tiles:
        root, local = tile.cell.within_root()
        morton = _morton(local)
        roots.setdefault(root, {}).setdefault(local.level, []).append((morton, tile))
    return {root: _grown(levels) for root, levels in sorted(roots.items(), key=_west_first)}


def _west_first(item: tuple[str, object]) -> tuple[int, ...]:
    return tuple(int(part) for part in item[0].split("/"))


def _morton(cell: Cell) -> int:
    found = 0
    for bit in range(cell.level):
        for axis, value in enumerate((cell.x, cell.y, cell.z)):
            found |= (value >> bit & 1) << (3 * bit + axis)
    return found


def _grown(by_level: dict[int, list[tuple[int, PointTile]]]) -> list[OctreeLevel]:
    empty = np.empty(0, dtype=np.int64)
    below = OctreeLevel(empty, np.empty(0, dtype=bool), np.empty((0, 6)), empty)
    grown = []
    for level in range(max(by_level), -1, -1):
        below = _above(by_level.get(level, []), below)
        grown.append(below)
    return grown[::-1]


def _above(own: list[tuple[int, PointTile]], children: OctreeLevel) -> OctreeLevel:
    here = np.array([morton for morton, _ in own], dtype=np.int64)
    volumes = np.array([tile.region for _, tile in own]).reshape(-1, 6)
    counts = np.array([tile.points for _, tile in own], dtype=np.int64)
    mortons, inverse = np.unique(np.concatenate([here, children.mortons >> 3]), return_inverse=True)
    volumes = np.concatenate([volumes, children.regions])
    merged = np.tile([np.inf, np.inf, -np.inf, -np.inf, np.inf, -np.inf], (len(mortons), 1))
    for axis, low in enumerate((True, True, False, False, True, False)):
        widen = np.minimum if low else np.maximum
        widen.at(merged[:, axis], inverse, volumes[:, axis])
    contents = np.zeros(len(mortons), dtype=bool)
    contents[inverse[: len(own)]] = True
    points = np.zeros(len(mortons), dtype=np.int64)
    np.add.at(points, inverse, np.concatenate([counts, children.points]))
    return OctreeLevel(mortons, contents, merged, points)


def implicit_roots(roots: dict[str, list[OctreeLevel]], root_error_m: float) -> list[ImplicitRoot]:
    """Return the implicit roots of tileset.json."""
    found = []
    for root, levels in roots.items():
        level, x, y = (int(part) for part in root.split("/"))
        # Clients subdivide this volume, so it is the whole cell; and decoded points may lie a
        # millimetre beyond.
        region = (
            cell_region(TileCoord(level, x, y))
            ._replace(min_height_m=LOWEST_M, max_height_m=HIGHEST_M)
            .union(degrees(levels[0].regions[0]))
        )
        found.append(
            ImplicitRoot(
                region=region,
                geometric_error_m=root_error_m,
                content=f"content/{root}/{{level}}/{{x}}/{{y}}/{{z}}.glb",
                subtrees=f"subtrees/{root}/{{level}}.{{x}}.{{y}}.{{z}}.subtree",
                subtree_levels=SUBTREE_LEVELS,
                available_levels=len(levels),
                refine="ADD",
                scheme="OCTREE",
            )
        )
    return found


def subtrees(root: str, levels: list[OctreeLevel]) -> Iterator[tuple[str, Subtree]]:
    """Yield every subtree of a root with its path, level by level."""
    for top in range(0, len(levels), SUBTREE_LEVELS):
        for morton in levels[top].mortons.tolist():
            yield subtree_key(root, cell_at(morton, top)), _subtree(levels, top, morton)


def cell_at(morton: int, level: int) -> Cell:
    """Return the cell of a level, counted from its root, with a Morton index."""
    x, y, z = (
        sum((morton >> (3 * bit + axis) & 1) << bit for bit in range(level)) for axis in range(3)
    )
    return Cell(level, x, y, z)


def _subtree(levels: list[OctreeLevel], top: int, morton: int) -> Subtree:
    tiles = np.zeros(node_count(SUBTREE_LEVELS, BRANCHING), dtype=bool)
    contents = np.zeros_like(tiles)
    children = np.zeros(BRANCHING**SUBTREE_LEVELS, dtype=bool)
    regions, points = [], []
    for depth, level in enumerate(levels[top : top + SUBTREE_LEVELS + 1]):
        span = np.array([morton << (3 * depth), (morton + 1) << (3 * depth)])
        low, high = np.searchsorted(level.mortons, span)
        nodes = level.mortons[low:high] - (morton << (3 * depth))
        if depth == SUBTREE_LEVELS:
            children[nodes] = True
            break
        nodes = nodes + node_count(depth, BRANCHING)
        tiles[nodes] = True
        contents[nodes] = level.contents[low:high]
        regions.append(level.regions[low:high])
        points.append(level.points[low:high])
    return Subtree(
        tiles,
        contents,
        children,
        np.concatenate(regions),
        np.concatenate(points).astype(np.uint32),
    )
