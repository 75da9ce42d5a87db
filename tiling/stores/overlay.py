"""Several stores as one: a newer one answers first, and what is gone stays gone."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from tiling.stores import TileStore
from tiling.stores.base import StoredTile


class OverlayReader:
    """Reads the tiles of a version that is made of a list of stores.

    Args:
        stores: newest first; closed with this one.
        tombstones: keys that no store answers any more.
    """

    def __init__(self, stores: Sequence[TileStore], tombstones: Collection[str] = ()) -> None:
        self._stores = tuple(stores)
        self._tombstones = frozenset(tombstones)

    def get(self, key: str) -> StoredTile | None:
        """Return the tile under `key`, or None."""
        if key in self._tombstones:
            return None
        found = (store.get(key) for store in self._stores)
        return next((tile for tile in found if tile is not None), None)

    def keys(self) -> Iterator[str]:
        """Yield every key once."""
        seen = set(self._tombstones)
        for store in self._stores:
            for key in store.keys():
                if key not in seen:
                    seen.add(key)
                    yield key

    def close(self) -> None:
        """Close the stores."""
        for store in self._stores:
            store.close()
