"""Stores kept open: least recently used first out, by the digest that names their content."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Set
from pathlib import Path

import anyio.to_thread

from catalog.records import StoreRef
from tiling.stores import open_store
from tiling.stores.base import GetTile


class OpenStores:
    """Open readers; used on the event loop only, so that none is closed while it reads.

    Args:
        data: folder that store paths are relative to.
        limit: most stores open at once.
    """

    def __init__(self, data: Path, limit: int) -> None:
        self._data = data
        self._limit = limit
        self._open: OrderedDict[str, GetTile] = OrderedDict()
        self._opening: dict[str, asyncio.Task[None]] = {}
        self.opened = 0
        self.hits = 0

    def __len__(self) -> int:
        return len(self._open)

    def get(self, ref: StoreRef) -> GetTile | None:
        """Return the reader of a store that is open already."""
        found = self._open.get(ref.sha256)
        if found is not None:
            self.hits += 1
            self._open.move_to_end(ref.sha256)
        return found

    async def open(self, ref: StoreRef) -> GetTile:
        """Open a store in a thread; requests that come meanwhile wait for the same opening.

        Raises:
            StoreError: missing or damaged.
        """
        while True:
            task = self._opening.get(ref.sha256)
            if task is None:
                task = asyncio.create_task(self._open_one(ref))
                self._opening[ref.sha256] = task
                task.add_done_callback(lambda _: self._opening.pop(ref.sha256, None))
            # A client that leaves must not cancel what others wait for.
            await asyncio.shield(task)
            # Others may have been opened, and this one closed, before we came to run again.
            found = self._open.get(ref.sha256)
            if found is not None:
                return found

    async def _open_one(self, ref: StoreRef) -> None:
        # Reading the index of a large archive takes milliseconds to tenths of a second.
        reader = await anyio.to_thread.run_sync(open_store, self._data / ref.path, ref.format)
        self.opened += 1
        self._open[ref.sha256] = reader
        while len(self._open) > self._limit:
            _, oldest = self._open.popitem(last=False)
            oldest.close()

    def keep_only(self, digests: Set[str]) -> None:
        """Close the stores that nothing refers to any more."""
        for digest in [d for d in self._open if d not in digests]:
            self._open.pop(digest).close()

    def close(self) -> None:
        """Close every store."""
        self.keep_only(frozenset())
