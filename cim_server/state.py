"""What a running server holds: the catalogue's present state in memory, and open stores.

Tile requests never ask the database: they read a `Snapshot`, which a background task replaces when
the change log has grown. So what is published shows within `Settings.poll_s` without a restart,
and every request sees one consistent state.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import anyio
import anyio.to_thread

from catalog.database import Catalog
from catalog.feature_index import OpenIndexes
from catalog.records import Item, StoreRef, Version
from cim_server.cache import OpenStores
from cim_server.computed import ComputedTiles
from cim_server.metrics import Metrics
from cim_server.open_rasters import OpenRasters
from cim_server.settings import Settings
from cim_server.workers import WorkerPool
from tiling.bounds import Region
from tiling.errors import CimError, NotFound
from tiling.stores.base import GetTile, StoredTile

T = TypeVar("T")
CURRENT = "current"
_CATALOGUE_THREADS = 4
_log = logging.getLogger("cim_server.state")


@dataclass(frozen=True, slots=True)
class Entry:
    """One version of an asset, ready to be served.

    Attributes:
        asset: id.
        number: the version.
        kind: of the asset, e.g. ``terrain``.
        title: of the asset.
        bounds: WGS 84 degrees and ellipsoidal metres.
        stores: every store, newest first.
        tiles: those with role ``tiles``, newest first.
        tombstones: keys that are gone although an older store holds them.
        info: the tiler's facts.
    """

    asset: str
    number: int
    kind: str
    title: str
    bounds: Region
    stores: tuple[StoreRef, ...]
    tiles: tuple[StoreRef, ...]
    tombstones: frozenset[str]
    info: Mapping[str, Any]

    @classmethod
    def of(cls, item: Item, version: Version) -> Entry:
        """Make an entry from the catalogue's records."""
        return cls(
            item.id,
            version.number,
            item.kind,
            item.title,
            version.bounds,
            version.stores,
            tuple(s for s in version.stores if s.role == "tiles"),
            frozenset(version.tombstones),
            version.info,
        )


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The catalogue at one moment.

    Attributes:
        sequence: seq of the newest change in it.
        current: asset id -> number of the published version.
        entries: (asset id, number as text) -> version; the current one also under ``current``.
    """

    sequence: int = -1
    current: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    entries: Mapping[tuple[str, str], Entry] = field(default_factory=lambda: MappingProxyType({}))

    @classmethod
    def read(cls, catalog: Catalog) -> Snapshot:
        """Read the whole catalogue; blocks."""
        # The sequence comes first: a change during the reading is then read again, never missed.
        sequence = catalog.sequence()
        current: dict[str, int] = {}
        entries: dict[tuple[str, str], Entry] = {}
        for item in catalog.items():
            try:
                versions = catalog.versions(item.id)
            except NotFound:
                continue  # deleted while we were reading; the next poll sees a newer sequence
            for version in versions:
                entry = Entry.of(item, version)
                entries[item.id, str(version.number)] = entry
                if version.number == item.current:
                    entries[item.id, CURRENT] = entry
                    current[item.id] = version.number
        return cls(sequence, MappingProxyType(current), MappingProxyType(entries))

    def digests(self) -> frozenset[str]:
        """Return the sha256 of every store in it."""
        return frozenset(s.sha256 for entry in self.entries.values() for s in entry.stores)


class State:
    """Everything the services share; used on the event loop only.

    Args:
        settings: of the server.
        catalog: an open catalogue; closed by `close`.
    """

    def __init__(self, settings: Settings, catalog: Catalog) -> None:
        self.settings = settings
        self.catalog = catalog
        self.metrics = Metrics(os.getpid())
        self.snapshot = Snapshot()
        self.stores = OpenStores(settings.data, settings.open_stores)
        self.indexes = OpenIndexes(settings.data, settings.open_stores)
        self.workers = WorkerPool(settings.cpu_workers)
        self.computed = ComputedTiles(settings.tile_cache)
        self.rasters = OpenRasters()
        self.refresh_error = ""
        self._catalogue_threads = anyio.CapacityLimiter(_CATALOGUE_THREADS)

    async def in_catalogue_thread(self, work: Callable[..., T], *args: Any) -> T:
        """Run a blocking call on the catalogue beside the event loop and apart from GDAL."""
        return await anyio.to_thread.run_sync(work, *args, limiter=self._catalogue_threads)

    async def refresh(self) -> bool:
        """Take over the catalogue's present state; say whether anything had changed.

        Raises:
            CatalogError: the catalogue cannot be read.
        """
        if await self.in_catalogue_thread(self.catalog.sequence) == self.snapshot.sequence:
            return False
        self.snapshot = await self.in_catalogue_thread(Snapshot.read, self.catalog)
        self.stores.keep_only(self.snapshot.digests())
        self.computed.keep_only(self.snapshot.digests())
        await self.in_catalogue_thread(self.indexes.keep_only, self.snapshot.digests())
        rasters = frozenset(
            str(self.path_of(ref))
            for entry in self.snapshot.entries.values()
            for ref in entry.stores
            if ref.format == "cog"
        )
        await self.in_catalogue_thread(self.rasters.keep_only, rasters)
        return True

    async def follow(self) -> None:
        """Refresh for ever, every `Settings.poll_s` seconds."""
        while True:
            await asyncio.sleep(self.settings.poll_s)
            try:
                await self.refresh()
            except CimError as error:
                # What was published stays visible; /healthz reports the trouble until it is over.
                if not self.refresh_error:
                    _log.error("cannot read the catalogue: %s", error)
                self.refresh_error = str(error)
            else:
                self.refresh_error = ""

    def following_ended(self, task: asyncio.Task[None]) -> None:
        """Let /healthz fail when `follow` has ended by a defect: data would grow old unnoticed."""
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.critical("no longer follows the catalogue; restart the server", exc_info=error)
            self.refresh_error = "no longer follows the catalogue"

    def entry(self, asset: str, version: str) -> Entry:
        """Return a version by its number (as the text in a URL) or ``current``.

        Raises:
            NotFound: no such asset or version.
        """
        found = self.snapshot.entries.get((asset, version))
        if found is None:
            if asset not in self.snapshot.current:
                raise NotFound(f"there is no asset {asset!r}")
            raise NotFound(f"asset {asset!r} has no version {version!r}")
        return found

    def path_of(self, ref: StoreRef) -> Path:
        """Return the file of a store."""
        return self.settings.data / ref.path

    async def reader(self, ref: StoreRef) -> GetTile:
        """Return an open store; the first time it is opened in a thread.

        Raises:
            StoreError: missing or damaged.
        """
        found = self.stores.get(ref)
        return found if found is not None else await self.stores.open(ref)

    async def tile(self, entry: Entry, key: str) -> StoredTile | None:
        """Return a tile from the newest store that has it, or None.

        A local read takes 20 to 100 microseconds, less than handing it to a thread would, so it
        runs on the event loop.
        """
        if key in entry.tombstones:
            return None
        for ref in entry.tiles:
            tile = (await self.reader(ref)).get(key)
            if tile is not None:
                return tile
        return None

    def close(self) -> None:
        """Close the stores and the catalogue; end the workers."""
        self.workers.close()
        self.rasters.close()
        self.stores.close()
        self.indexes.close()
        self.catalog.close()
