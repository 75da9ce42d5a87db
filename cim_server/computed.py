"""Tiles computed on request, kept in memory: weighed in bytes, least recently used first out.

Keys name the content that a tile is made from (digests of stores, parameters), so nothing here can
grow stale: what is published anew has other digests. What was made of a store that the catalogue
has dropped is dropped with it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, defaultdict
from collections.abc import Awaitable, Callable, Hashable, Set
from typing import NamedTuple

from tiling.stores.base import StoredTile

# What a tile weighs beside its bytes: the key, the record, a place in the order.
_OVERHEAD_NBYTES = 1024


class TileKey(NamedTuple):
    """Names a computed tile by what it is made of, so that it can go with it.

    Attributes:
        digests: sha256 of every store that it is made of, separated by spaces.
        what: everything else that its bytes depend on.
    """

    digests: str
    what: Hashable


class ComputedTiles:
    """A cache with single flight: who asks for what is being made waits for it.

    Used on the event loop only.

    Args:
        limit_nbytes: what all kept tiles may weigh; with 0 nothing is kept, but who asks at the
            same time still shares the work.

    Attributes:
        hits: requests answered from memory.
        misses: tiles made.
        shared: requests that waited for a tile that another was having made.
        nbytes: weight of what is kept.
    """

    def __init__(self, limit_nbytes: int) -> None:
        self._limit = limit_nbytes
        self._kept: OrderedDict[TileKey, StoredTile | None] = OrderedDict()
        self._of: defaultdict[str, set[TileKey]] = defaultdict(set)
        self._making: dict[TileKey, asyncio.Task[StoredTile | None]] = {}
        self.nbytes = 0
        self.hits = 0
        self.misses = 0
        self.shared = 0

    def __len__(self) -> int:
        return len(self._kept)

    async def get(
        self, key: TileKey, make: Callable[[], Awaitable[StoredTile | None]]
    ) -> StoredTile | None:
        """Return a kept tile, or make it; failures are not kept.

        Args:
            key: everything that the tile depends on.
            make: makes it; None (kept too) says that there is no such tile.
        """
        if key in self._kept:
            self.hits += 1
            self._kept.move_to_end(key)
            return self._kept[key]
        task = self._making.get(key)
        if task is None:
            self.misses += 1
            task = asyncio.ensure_future(self._make(key, make))
            self._making[key] = task
            task.add_done_callback(lambda done: self._made(key, done))
        else:
            self.shared += 1
        # A client that leaves must not cancel what others wait for.
        return await asyncio.shield(task)

    async def _make(
        self, key: TileKey, make: Callable[[], Awaitable[StoredTile | None]]
    ) -> StoredTile | None:
        tile = await make()
        self._keep(key, tile)
        return tile

    def _made(self, key: TileKey, task: asyncio.Task[StoredTile | None]) -> None:
        self._making.pop(key, None)
        if not task.cancelled():
            # Whoever waited was told; if all have left, nobody is there to be.
            task.exception()

    def _keep(self, key: TileKey, tile: StoredTile | None) -> None:
        weight = _weight(tile)
        if weight > self._limit:
            return
        self._kept[key] = tile
        self._of[key.digests].add(key)
        self.nbytes += weight
        while self.nbytes > self._limit:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: TileKey) -> None:
        self.nbytes -= _weight(self._kept.pop(key))
        family = self._of[key.digests]
        family.discard(key)
        if not family:
            del self._of[key.digests]

    def keep_only(self, digests: Set[str]) -> None:
        """Drop what was made of a store that nothing refers to any more."""
        for family in [f for f in self._of if not set(f.split()) <= digests]:
            for key in list(self._of[family]):
                self._drop(key)


def _weight(tile: StoredTile | None) -> int:
    return _OVERHEAD_NBYTES + (0 if tile is None else len(tile.data))
