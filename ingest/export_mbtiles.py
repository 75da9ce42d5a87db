"""Vector tiles as MBTiles 1.3: one SQLite file, rows counted from the south.

Tiles of equal bytes rest once: ``map`` says which of ``images`` a tile is, and ``tiles``, the
table that clients read, is a view of both. Written after
https://github.com/mapbox/mbtiles-spec/blob/master/1.3/spec.md.
"""

from __future__ import annotations

import gzip
import json
import sqlite3
from contextlib import closing
from hashlib import sha256
from pathlib import Path

from tiling.errors import StoreError, StoreFull
from tiling.stores.pmtiles import PmtilesReader
from tiling.tilers.base import Progress

# "MPBX", by which `file` and others know MBTiles among SQLite files.
APPLICATION_ID = 0x4D504258

_SCHEMA = f"""
PRAGMA application_id = {APPLICATION_ID};
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
CREATE TABLE metadata (name TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE images (tile_id TEXT NOT NULL PRIMARY KEY, tile_data BLOB NOT NULL);
CREATE TABLE map (
    zoom_level INTEGER NOT NULL, tile_column INTEGER NOT NULL, tile_row INTEGER NOT NULL,
    tile_id TEXT NOT NULL, PRIMARY KEY (zoom_level, tile_column, tile_row)
) WITHOUT ROWID;
CREATE VIEW tiles AS
    SELECT zoom_level, tile_column, tile_row, tile_data FROM map JOIN images USING (tile_id);
"""


def export_mbtiles(source: Path, out: Path, progress: Progress) -> None:
    """Write the tiles of a PMTiles archive as MBTiles.

    Args:
        source: an archive of vector tiles.
        out: the file, made under another name and renamed when it is complete.
        progress: counts tiles.

    Raises:
        StoreError: the source is damaged, or `out` cannot be written; `StoreFull` without space.
    """
    partial = out.with_name(out.name + ".part")
    partial.unlink(missing_ok=True)
    try:
        with PmtilesReader(source) as store, closing(sqlite3.connect(partial)) as database:
            # No journal: what is not complete is never renamed.
            database.executescript(_SCHEMA)
            database.executemany("INSERT INTO metadata VALUES (?, ?)", _metadata(store, out.stem))
            progress.begin("export")
            for key in store.keys():
                _insert(database, store, key)
                progress.advance()
            database.commit()
        partial.replace(out)
    except sqlite3.Error as error:
        full = error.sqlite_errorcode == sqlite3.SQLITE_FULL
        raise (StoreFull if full else StoreError)(f"{out} cannot be written: {error}") from error
    finally:
        partial.unlink(missing_ok=True)


def _insert(database: sqlite3.Connection, store: PmtilesReader, key: str) -> None:
    z, x, y = (int(part) for part in key.rpartition(".")[0].split("/"))
    tile = store.get(key)
    assert tile is not None  # the store has just listed it
    data = tile.data if tile.encoding == "gzip" else gzip.compress(tile.data, mtime=0)
    name = sha256(data).hexdigest()
    database.execute("INSERT OR IGNORE INTO images VALUES (?, ?)", (name, data))
    database.execute("INSERT INTO map VALUES (?, ?, ?, ?)", (z, x, 2**z - 1 - y, name))


def _metadata(store: PmtilesReader, name: str) -> list[tuple[str, str]]:
    header, metadata = store.header, store.metadata
    west, south, east, north = header.west, header.south, header.east, header.north
    rows = {
        "name": name,
        "format": "pbf",
        "minzoom": str(header.min_zoom),
        "maxzoom": str(header.max_zoom),
        "bounds": ",".join(f"{v:.7f}" for v in (west, south, east, north)),
        "center": f"{(west + east) / 2:.7f},{(south + north) / 2:.7f},{header.min_zoom}",
        "attribution": str(metadata.get("attribution", "")),
        "type": "overlay",
        "version": "2",
        "json": json.dumps({"vector_layers": metadata["vector_layers"]}, ensure_ascii=False),
    }
    return [(key, value) for key, value in rows.items() if value]
