"""The global CRS84 quadtree of 3D Tiles: which cell, which volume, which subtree.

A cell of level L is a square of 180 / 2**L degrees; x counts from -180, y from the south. Every
cell of `ROOT_LEVEL` that holds data is the root of an implicit quadtree, so the path of a tile
depends on its cell alone, never on the run. Volumes are grown bottom-up from the content.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiling.bounds import Region
from tiling.coords import TileCoord, morton2, unmorton2
from tiling.formats.subtree import Subtree, node_count
from tiling.formats.tileset_json import ImplicitRoot

ROOT_LEVEL = 8
DEEPEST_LEVEL = 20
SUBTREE_LEVELS = 6

_LEVEL_BITS = 5


def cell_mortons(
    lon_deg: NDArray[np.float64], lat_deg: NDArray[np.float64], level: int
) -> NDArray[np.uint64]:
    """Return the (N,) Morton indices of the cells of `level` that hold (N,) positions."""
    size = 180.0 / 2**level
    x = np.clip(np.floor((lon_deg + 180.0) / size), 0, 2 ** (level + 1) - 1)
    y = np.clip(np.floor((lat_deg + 90.0) / size), 0, 2**level - 1)
    return morton2(x.astype(np.uint64), y.astype(np.uint64))


def cell_region(cell: TileCoord) -> Region:
    """Return the rectangle of a cell, at height zero."""
    size = 180.0 / 2**cell.level
    west, south = -180.0 + cell.x * size, -90.0 + cell.y * size
    return Region(west, south, west + size, south + size)


def tile_keys(deepest: NDArray[np.uint64], level: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return sort keys of tiles: depth first, parents before children, siblings together.

    Args:
        deepest: (N,) Morton indices at `DEEPEST_LEVEL` of any place in the tile.
        level: (N,) level of the tile.
    """
    below = (2 * (DEEPEST_LEVEL - level.astype(np.int64))).astype(np.uint64)
    return (((deepest >> below) << below) << np.uint64(_LEVEL_BITS)) | level.astype(np.uint64)


def tile_of(key: int) -> TileCoord:
    """Return the global cell behind a key of `tile_keys`."""
    level = key & (2**_LEVEL_BITS - 1)
    morton = key >> (_LEVEL_BITS + 2 * (DEEPEST_LEVEL - level))
    x, y = unmorton2(np.uint64(morton))
    return TileCoord(level, int(x), int(y))


def content_key(cell: TileCoord) -> str:
    """Return the path of a cell's content."""
    root, local = _within_root(cell)
    return f"content/{root}/{local.level}/{local.x}/{local.y}.glb"


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
        regions: (N, 6) float64: west, south, east, north in degrees, lowest, highest in metres.
    """

    mortons: NDArray[np.uint64]
    contents: NDArray[np.bool_]
    regions: NDArray[np.float64]


def grow(keys: NDArray[np.uint64], regions: NDArray[np.float64]) -> list[Level]:
    """Return the levels from `ROOT_LEVEL` down, every volume holding content and children.

    Args:
        keys: (N,) distinct keys of the tiles with content.
        regions: (N, 6) volumes of that content, degrees and metres.
    """
    own_level = (keys & np.uint64(2**_LEVEL_BITS - 1)).astype(np.int64)
    deepest = keys >> np.uint64(_LEVEL_BITS)
    grown: list[Level] = []
    child_mortons = np.empty(0, dtype=np.uint64)
    child_regions = np.empty((0, 6))
    for level in range(int(own_level.max()), ROOT_LEVEL - 1, -1):
        here = own_level == level
        own = deepest[here] >> np.uint64(2 * (DEEPEST_LEVEL - level))
        every = np.concatenate([own, child_mortons >> np.uint64(2)])
        mortons, inverse = np.unique(every, return_inverse=True)
        volumes = np.concatenate([regions[here], child_regions])
        merged = np.tile([np.inf, np.inf, -np.inf, -np.inf, np.inf, -np.inf], (len(mortons), 1))
        for axis, narrow in enumerate((True, True, False, False, True, False)):
            widen = np.minimum if narrow else np.maximum
            widen.at(merged[:, axis], inverse, volumes[:, axis])
        contents = np.zeros(len(mortons), dtype=bool)
        contents[inverse[: len(own)]] = True
        grown.append(Level(mortons, contents, merged))
        child_mortons, child_regions = mortons, merged
    return grown[::-1]


def implicit_roots(levels: list[Level], root_error_m: float) -> list[ImplicitRoot]:
    """Return the implicit roots of tileset.json, in Morton order of their cells."""
    roots = []
    top = levels[0]
    for index, morton in enumerate(top.mortons.tolist()):
        x, y = (int(v) for v in unmorton2(np.uint64(morton)))
        volume = Region(*top.regions[index].tolist())
        cell = cell_region(TileCoord(ROOT_LEVEL, x, y))
        # Clients subdivide this rectangle, so it is the cell unless a building overhangs it.
        region = cell._replace(
            min_height_m=volume.min_height_m, max_height_m=volume.max_height_m
        ).union(volume)
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


def subtrees(levels: list[Level]) -> Iterator[tuple[str, Subtree]]:
    """Yield every subtree with its path, level by level."""
    for top in range(0, len(levels), SUBTREE_LEVELS):
        for morton in levels[top].mortons.tolist():
            x, y = (int(v) for v in unmorton2(np.uint64(morton)))
            root, local = _within_root(TileCoord(ROOT_LEVEL + top, x, y))
            key = f"subtrees/{root}/{local.level}.{local.x}.{local.y}.subtree"
            yield key, _subtree(levels, top, morton)


def _subtree(levels: list[Level], top: int, morton: int) -> Subtree:
    tiles = np.zeros(node_count(SUBTREE_LEVELS), dtype=bool)
    contents = np.zeros_like(tiles)
    children = np.zeros(4**SUBTREE_LEVELS, dtype=bool)
    regions = []
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
    volumes = np.concatenate(regions).copy()
    volumes[:, :4] = np.radians(volumes[:, :4])
    return Subtree(tiles, contents, children, volumes)
