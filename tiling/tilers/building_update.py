"""A finished tileset of buildings with some base cells made again.

Written are the tiles of those cells, of the cells above them, and what leads there; everything
else is read from the tileset as it is. Because a tile is a pure function of what lies in its cell,
the result equals a tileset made as a whole, byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from tiling.batches import FeatureBatch
from tiling.coords import TileCoord
from tiling.errors import NothingToTile, StoreError
from tiling.formats.subtree import Subtree, decode_subtree
from tiling.stores.base import GetTile, PutTile
from tiling.stores.gzip_member import content
from tiling.tilers.base import Progress
from tiling.tilers.building_tiles import (
    Built,
    TileSettings,
    build_cell,
    build_parent,
    read_prisms,
)
from tiling.tilers.buildings import bind
from tiling.tilers.prisms import Prisms
from tiling.tilers.quadtree import (
    BASE_LEVEL,
    ROOT_LEVEL,
    SUBTREE_LEVELS,
    ContentTile,
    Level,
    cell_of,
    content_key,
    grow,
    subtree_key,
    subtrees,
    tiles_of,
)

FeatureIds = Callable[[pa.Table], NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class Updated:
    """The tileset after an update.

    Attributes:
        levels: the whole tree.
        built: the tiles that were made.
        tombstones: keys that are gone.
        written: keys that were written.
    """

    levels: list[Level]
    built: Built
    tombstones: frozenset[str]
    written: frozenset[str]


@dataclass(frozen=True, slots=True)
class Tree:
    """The tiles and subtrees of a tileset.

    Attributes:
        tiles: every tile with content, by its cell.
        subtrees: root cells of the subtrees.
    """

    tiles: dict[TileCoord, ContentTile]
    subtrees: frozenset[TileCoord]

    @classmethod
    def read(cls, store: GetTile) -> Tree:
        """Read the tree of a tileset of ours.

        Raises:
            StoreError: a part of it is missing.
        """
        tileset = orjson.loads(_read(store, "tileset.json"))
        tiles: dict[TileCoord, ContentTile] = {}
        found: set[TileCoord] = set()
        # The template of every implicit root names its cell: content/8/X/Y/{level}/...
        pending = []
        for root in tileset["root"]["children"]:
            _, level, x, y, *_ = root["content"]["uri"].split("/")
            pending.append(TileCoord(int(level), int(x), int(y)))
        while pending:
            cell = pending.pop()
            subtree = decode_subtree(_read(store, subtree_key(cell)), SUBTREE_LEVELS)
            found.add(cell)
            tiles.update((tile.cell, tile) for tile in tiles_of(cell, subtree))
            pending.extend(_child_subtrees(cell, subtree))
        return cls(tiles, frozenset(found))


def _read(store: GetTile, key: str) -> bytes:
    tile = store.get(key)
    if tile is None:
        raise StoreError(f"the tileset lacks {key}: check it with cim check")
    return content(tile, key)


def _child_subtrees(cell: TileCoord, subtree: Subtree) -> Iterator[TileCoord]:
    first = cell.morton() << (2 * SUBTREE_LEVELS)
    for child in np.flatnonzero(subtree.children).tolist():
        yield cell_of(first + child, cell.level + SUBTREE_LEVELS)


def update_tiles(
    store: GetTile,
    settings: TileSettings,
    touched: Collection[TileCoord],
    features: Callable[[TileCoord], tuple[NDArray[np.uint64], FeatureBatch]],
    feature_ids: FeatureIds,
    writer: PutTile,
    progress: Progress,
) -> Updated:
    """Make some base cells of a tileset again.

    Args:
        store: the tileset as it was.
        settings: with which it was made.
        touched: the base cells.
        features: base cell -> keys and features that are there now, maybe none; as `build_cell`
            takes them.
        feature_ids: see `read_prisms`.
        writer: receives what is new.
        progress: counts cells.

    Raises:
        NothingToTile: nothing would be left of the tileset.
    """
    old = Tree.read(store)
    progress.begin("update", len(touched))
    built = Built()
    shown: dict[TileCoord, Prisms] = {}
    for cell in sorted(touched, key=lambda cell: cell.morton()):
        keys, batch = features(cell)
        if len(batch):
            shown[cell] = build_cell(cell, keys, batch, settings, built)
        progress.advance()
    touched_set = frozenset(touched)
    above = _ancestors(touched_set)
    kept = {
        cell: tile
        for cell, tile in old.tiles.items()
        if cell not in above and _base(cell) not in touched_set
    }
    for level in range(BASE_LEVEL - 1, settings.min_level - 1, -1):
        for cell in sorted((c for c in above if c.level == level), key=lambda c: c.morton()):
            children = []
            for child in cell.children():
                if child in shown:
                    children.append(shown.pop(child))
                elif child in kept:
                    children.append(read_prisms(_read(store, content_key(child)), feature_ids))
            if children:
                shown[cell] = build_parent(cell, children, settings, built)
    tiles = {**kept, **{tile.cell: tile for tile in built.content}}
    if not tiles:
        raise NothingToTile("the update leaves nothing of the asset; delete it instead")
    levels = grow(tiles.values())
    written = {tile.key for tile in built.tiles}
    for tile in built.tiles:
        writer.put(tile.key, tile.data, tile.encoding)
    now = {cell for cell, _ in subtrees(levels)}
    changed = frozenset(c for c in now if c in above or _base(c) in touched_set)
    bind(levels, writer, settings, changed)
    written |= {subtree_key(cell) for cell in changed} | {"tileset.json"}
    gone = {content_key(cell) for cell in old.tiles.keys() - tiles.keys()}
    gone |= {subtree_key(cell) for cell in old.subtrees - now}
    return Updated(levels, built, frozenset(gone), frozenset(written))


def _ancestors(cells: Collection[TileCoord]) -> frozenset[TileCoord]:
    found: set[TileCoord] = set()
    for cell in cells:
        while cell.level > ROOT_LEVEL and (cell := cell.parent()) not in found:
            found.add(cell)
    return frozenset(found)


def _base(cell: TileCoord) -> TileCoord | None:
    """Return the base cell that holds a cell; None above them."""
    depth = cell.level - BASE_LEVEL
    return TileCoord(BASE_LEVEL, cell.x >> depth, cell.y >> depth) if depth >= 0 else None
