"""Tiles computed on request, kept in memory: weighed in bytes, least recently used first out.

Keys name the content that a tile is made from (digests of stores, parameters), so nothing here can
grow stale: what is published anew has other digests, and the old falls out for want of use.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable

from tiling.stores.base import StoredTile

# What a tile weighs beside its bytes: the key, the record, a place in the order.
_OVERHEAD_NBYTES = 1024


class ComputedTiles:
    """A cache with single flight: who asks for what is being made waits for it.

    Used on the event loop only.

    Args:
        limit_nbytes: what all kept tiles may weigh.
    """

    def __init__(self, limit_nbytes: int) -> None:
        self._limit = limit_nbytes
        self._kept: OrderedDict[Hashable, StoredTile | None] = OrderedDict()
        self._making: dict[Hashable, asyncio.Task[StoredTile | None]] = {}
        self.nbytes = 0
        self.hits = 0
        self.misses = 0

    def __len__(self) -> int:
        return len(self._kept)

    async def get(
        self, key: Hashable, make: Callable[[], Awaitable[StoredTile | None]]
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
        # A client that leaves must not cancel what others wait for.
        return await asyncio.shield(task)

    async def _make(
        self, key: Hashable, make: Callable[[], Awaitable[StoredTile | None]]
    ) -> StoredTile | None:
        tile = await make()
        self._keep(key, tile)
        return tile

    def _made(self, key: Hashable, task: asyncio.Task[StoredTile | None]) -> None:
        self._making.pop(key, None)
        if not task.cancelled():
            # Whoever waited was told; if all have left, nobody is there to be.
            task.exception()

    def _keep(self, key: Hashable, tile: StoredTile | None) -> None:
        weight = _weight(tile)
        if weight > self._limit:
            return
        self._kept[key] = tile
        self.nbytes += weight
        while self.nbytes > self._limit:
            self.nbytes -= _weight(self._kept.popitem(last=False)[1])


def _weight(tile: StoredTile | None) -> int:
    return _OVERHEAD_NBYTES + (0 if tile is None else len(tile.data))
