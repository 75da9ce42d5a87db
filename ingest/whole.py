"""A version of several stores as one file, for whoever wants a file.

An update publishes small stores that lie before the older ones. Whatever leaves the house is made
of all of them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from catalog.records import StoreRef, Version
from ingest.building_rows import read_features
from ingest.workspace import ENDINGS, Workspace
from tiling.formats.geoparquet import write_geoparquet
from tiling.stores import TileStore, open_store
from tiling.stores.overlay import OverlayReader
from tiling.stores.zip3tz import ThreeTzWriter
from tiling.tilers.base import Progress


def open_tiles(workspace: Workspace, version: Version) -> TileStore:
    """Open the tiles of a version, whatever the number of its stores.

    Raises:
        StoreError: a store is missing or damaged.
    """
    refs = [ref for ref in version.stores if ref.role == "tiles"]
    stores = [open_store(workspace.store_path(ref), ref.format) for ref in refs]
    if len(stores) == 1 and not version.tombstones:
        # Keeps what the format knows beyond tiles, such as the metadata of PMTiles.
        return stores[0]
    return OverlayReader(stores, version.tombstones)


@contextmanager
def whole_store(
    workspace: Workspace, version: Version, ref: StoreRef, beside: Path, progress: Progress
) -> Iterator[Path]:
    """Give one file that holds all a version has in the role of a store.

    Args:
        workspace: of the version.
        version: the version.
        ref: its newest store of the role.
        beside: the folder in which the file is put together when there are several stores.
        progress: counts tiles or features.
    """
    paths = [workspace.store_path(s) for s in version.stores if s.role == ref.role]
    if len(paths) == 1 and not version.tombstones:
        yield paths[0]
        return
    with tempfile.TemporaryDirectory(prefix=".cim-", dir=beside) as folder:
        path = Path(folder) / f"whole{ENDINGS[ref.format]}"
        progress.begin("join")
        if ref.format == "cog":
            from ingest.whole_raster import whole_raster

            refs = [s for s in version.stores if s.role == ref.role]
            whole_raster(workspace, version, refs, path, progress)
        elif ref.format == "geoparquet":
            write_geoparquet(read_features(paths), path, Path(folder) / "sorted")
        else:
            _join_tiles(open_tiles(workspace, version), path, progress)
        yield path


def _join_tiles(store: TileStore, path: Path, progress: Progress) -> None:
    writer = ThreeTzWriter(path)
    try:
        for key in sorted(store.keys()):
            tile = store.get(key)
            assert tile is not None  # the store has just listed it
            writer.put(key, tile.data, tile.encoding)
            progress.advance()
        writer.commit()
    finally:
        writer.abort()
        store.close()
