"""Stores: where tiles rest. One kind of store per file, one line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from tiling.errors import StoreError
from tiling.stores.base import GetTile, ListTiles
from tiling.stores.directory import DirectoryReader
from tiling.stores.pmtiles import PmtilesReader
from tiling.stores.zip3tz import ThreeTzReader


class TileStore(GetTile, ListTiles, Protocol):
    """A store that is open for reading."""


STORES: Mapping[str, Callable[[Path], TileStore]] = {
    "3tz": ThreeTzReader,
    "directory": DirectoryReader,
    "pmtiles": PmtilesReader,
}


def open_store(path: Path, format: str) -> TileStore:
    """Open a store for reading.

    Args:
        path: the file or folder.
        format: a key of `STORES`, as `StoreInfo.format` has it.

    Raises:
        StoreError: no such format, or the store is missing or damaged.
    """
    try:
        reader = STORES[format]
    except KeyError:
        known = ", ".join(STORES)
        raise StoreError(f"{path}: no store is of format {format!r}; known: {known}") from None
    return reader(path)
