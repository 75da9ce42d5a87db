"""The global CRS84 quadtree of 3D Tiles: which cell, which volume, which subtree.

A cell of level L is a square of 180 / 2**L degrees; x counts from -180, y from the south. Every
cell of `ROOT_LEVEL` that holds data is the root of an implicit quadtree, so the path of a tile
depends on its cell alone, never on the run. Volumes are grown bottom-up from the content.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from tiling.bounds import Region
from tiling.coords import TileCoord, morton2, unmorton2
from tiling.formats.subtree import Subtree, node_count
from tiling.formats.tileset_json import ImplicitRoot

ROOT_LEVEL = 8
# Cells of about 1.2 km: the coarsest that hold buildings at full detail, and what an update
# replaces as a whole.
BASE_LEVEL = 14
DEEPEST_LEVEL = 20
# One subtree a root holds every level down to the base cells: one request, not one a base cell.
SUBTREE_LEVELS = BASE_LEVEL - ROOT_LEVEL + 1


def cell_mortons(
    lon_deg: NDArray[np.float64], lat_deg: NDArray[np.float64], level: int
) -> NDArray[np.uint64]:
    """Return the (N,) Morton indices of the cells of `level` that hold (N,) positions."""
    size = 180.0 / 2**level
    x = np.clip(np.floor((lon_deg + 180.0) / size), 0, 2 ** (level + 1) - 1)
    y = np.clip(np.floor((lat_deg + 90.0) / size), 0, 2**level - 1)
    return morton2(x.astype(np.uint64), y.astype(np.uint64))


def places(geometry: NDArray[np.object_]) -> NDArray[np.float64]:
    """Return the (N, 2) places of features, degrees: the centres of their boxes.

    The cell that holds the place holds the feature.
    """
    boxes = shapely.bounds(geometry)
    middle: NDArray[np.float64] = (boxes[:, :2] + boxes[:, 2:]) / 2
    return middle


def cell_region(cell: TileCoord) -> Region:
    """Return the rectangle of a cell, at height zero."""
    size = 180.0 / 2**cell.level
    west, south = -180.0 + cell.x * size, -90.0 + cell.y * size
    return Region(west, south, west + size, south + size)


def cell_of(morton: int, level: int) -> TileCoord:
    """Return the cell of a level with a Morton index."""
    x, y = unmorton2(np.uint64(morton))
    return TileCoord(level, int(x), int(y))


def content_key(cell: TileCoord) -> str:
    """Return the path of a cell's content."""
    root, local = _within_root(cell)
    return f"content/{root}/{local.level}/{local.x}/{local.y}.glb"


def subtree_key(cell: TileCoord) -> str:
    """Return the path of the subtree whose root is a cell."""
    root, local = _within_root(cell)
    return f"subtrees/{root}/{local.level}.{local.x}.{local.y}.subtree"


def _within_root(cell: TileCoord) -> tuple[str, TileCoord]:
    depth = cell.level - ROOT_LEVEL
    x, y = cell.x >> depth, cell.y >> depth
    return f"{ROOT_LEVEL}/{x}/{y}", TileCoord(depth, cell.x - (x << depth), cell.y - (y << depth))


@dataclass(frozen=True, slots=True)
class Level:
    """The tiles of one level that exist.

    Attributes:
        mortons: (N,) uint64, global, ascending.
        contents: (N,) bool, which have content.
        regions: (N, 6) float64: west, south, east, north in radians, lowest, highest in metres.
        features: (N,) int64, source features that each tile stands for.
    """

    mortons: NDArray[np.uint64]
    contents: NDArray[np.bool_]
    regions: NDArray[np.float64]
    features: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ContentTile:
    """What the tree needs to know of a tile with content.

    Attributes:
        cell: the tile.
        region: volume of its content, or of more: four radians, two metres.
        features: source features it stands for.
    """

    cell: TileCoord
    region: tuple[float, ...]
    features: int


def grow(tiles: Iterable[ContentTile]) -> list[Level]:
    """Return the levels from `ROOT_LEVEL` down, every volume holding content and children.

    Growing what has been grown already changes nothing, so a tree may be grown again from the
    volumes of what stayed and the contents of what is new.

    Args:
        tiles: at least one, each cell once.
    """
    by_level: dict[int, list[ContentTile]] = {}
    for tile in tiles:
        by_level.setdefault(tile.cell.level, []).append(tile)
    grown: list[Level] = []
    below = Level(
        np.empty(0, dtype=np.uint64),
        np.empty(0, dtype=bool),
        np.empty((0, 6)),
        np.empty(0, dtype=np.int64),
    )
    for level in range(max(by_level), ROOT_LEVEL - 1, -1):
        below = _above(by_level.get(level, []), below)
        grown.append(below)
    return grown[::-1]


def _above(own: list[ContentTile], children: Level) -> Level:
    own_mortons = np.array([tile.cell.morton() for tile in own], dtype=np.uint64)
    own_regions = np.array([tile.region for tile in own]).reshape(-1, 6)
    every = np.concatenate([own_mortons, children.mortons >> np.uint64(2)])
    mortons, inverse = np.unique(every, return_inverse=True)
    volumes = np.concatenate([own_regions, children.regions])
    merged = np.tile([np.inf, np.inf, -np.inf, -np.inf, np.inf, -np.inf], (len(mortons), 1))
    for axis, narrow in enumerate((True, True, False, False, True, False)):
        widen = np.minimum if narrow else np.maximum
        widen.at(merged[:, axis], inverse, volumes[:, axis])
    contents = np.zeros(len(mortons), dtype=bool)
    contents[inverse[: len(own)]] = True
    features = np.zeros(len(mortons), dtype=np.int64)
    np.add.at(features, inverse[len(own) :], children.features)
    features[inverse[: len(own)]] = [tile.features for tile in own]
    return Level(mortons, contents, merged, features)


def degrees(region: NDArray[np.float64]) -> Region:
    """Return a row of `Level.regions` as a `Region`."""
    return Region(*np.degrees(region[:4]).tolist(), *region[4:].tolist())


def implicit_roots(levels: list[Level], root_error_m: float) -> list[ImplicitRoot]:
    """Return the implicit roots of tileset.json, in Morton order of their cells."""
    roots = []
    top = levels[0]
    for index, morton in enumerate(top.mortons.tolist()):
        cell = cell_of(morton, ROOT_LEVEL)
        x, y = cell.x, cell.y
        volume = degrees(top.regions[index])
        # Clients subdivide this rectangle, so it is the cell unless a building overhangs it.
        region = (
            cell_region(cell)
            ._replace(min_height_m=volume.min_height_m, max_height_m=volume.max_height_m)
            .union(volume)
        )
        depth = max(d for d, level in enumerate(levels) if _span(level, morton, d) != (0, 0))
        roots.append(
            ImplicitRoot(
                region=region,
                geometric_error_m=root_error_m,
                content=f"content/{ROOT_LEVEL}/{x}/{y}/{{level}}/{{x}}/{{y}}.glb",
                subtrees=f"subtrees/{ROOT_LEVEL}/{x}/{y}/{{level}}.{{x}}.{{y}}.subtree",
                subtree_levels=SUBTREE_LEVELS,
                available_levels=depth + 1,
            )
        )
    return roots


def _span(level: Level, ancestor: int, depth: int) -> tuple[int, int]:
    """Return the slice of `level` below `ancestor`, `depth` levels up; (0, 0) when empty."""
    low, high = np.searchsorted(
        level.mortons,
        np.array([ancestor << (2 * depth), (ancestor + 1) << (2 * depth)], dtype=np.uint64),
    )
    return (int(low), int(high)) if high > low else (0, 0)


def subtrees(levels: list[Level]) -> Iterator[tuple[TileCoord, Subtree]]:
    """Yield every subtree with its root cell, level by level."""
    for top in range(0, len(levels), SUBTREE_LEVELS):
        for morton in levels[top].mortons.tolist():
            yield cell_of(morton, ROOT_LEVEL + top), _subtree(levels, top, morton)


def _subtree(levels: list[Level], top: int, morton: int) -> Subtree:
    tiles = np.zeros(node_count(SUBTREE_LEVELS), dtype=bool)
    contents = np.zeros_like(tiles)
    children = np.zeros(4**SUBTREE_LEVELS, dtype=bool)
    regions, features = [], []
    for depth, level in enumerate(levels[top : top + SUBTREE_LEVELS + 1]):
        low, high = _span(level, morton, depth)
        nodes = (level.mortons[low:high] - np.uint64(morton << (2 * depth))).astype(np.int64)
        if depth == SUBTREE_LEVELS:
            children[nodes] = True
            break
        nodes += node_count(depth)
        tiles[nodes] = True
        contents[nodes] = level.contents[low:high]
        regions.append(level.regions[low:high])
        features.append(level.features[low:high])
    return Subtree(
        tiles,
        contents,
        children,
        np.concatenate(regions),
        np.concatenate(features).astype(np.uint32),
    )


def tiles_of(root: TileCoord, subtree: Subtree) -> list[ContentTile]:
    """Return the tiles with content of a subtree, with the volumes it states.

    Args:
        root: the cell of its root.
        subtree: as `_subtree` made it.
    """
    found = []
    available = np.flatnonzero(subtree.tiles)
    for row, node in enumerate(available.tolist()):
        if not subtree.contents[node]:
            continue
        depth = 0
        while node >= node_count(depth + 1):
            depth += 1
        morton = (root.morton() << (2 * depth)) + node - node_count(depth)
        region = tuple(subtree.regions[row].tolist())
        features = int(subtree.features[row])
        found.append(ContentTile(cell_of(morton, root.level + depth), region, features))
    return found
