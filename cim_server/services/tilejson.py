"""TileJSON 3.0.0 of a version's vector tiles, from the archive's own header and metadata."""

from __future__ import annotations

from typing import Any

from cim_server.state import Entry
from tiling.formats.pmtiles import TILE_TYPES
from tiling.stores.pmtiles import PmtilesReader

_KEPT = ("vector_layers", "attribution", "description", "tilestats", "promoteId")
_ENDINGS = {number: name for name, number in TILE_TYPES.items()}


def ending(reader: PmtilesReader) -> str:
    """Return the ending of the archive's tile keys, e.g. ``mvt``."""
    return _ENDINGS[reader.header.tile_type]


def tilejson(entry: Entry, reader: PmtilesReader, url: str) -> dict[str, Any]:
    """Return the document.

    Args:
        entry: the version.
        reader: its newest archive.
        url: absolute URL template of the tiles, with ``{z}``, ``{x}``, ``{y}``.
    """
    header, metadata = reader.header, reader.metadata
    west, south, east, north = entry.bounds[:4]
    low = min(header.min_zoom, int(entry.info.get("min_level", header.min_zoom)))
    high = max(header.max_zoom, int(entry.info.get("max_level", header.max_zoom)))
    document: dict[str, Any] = {
        "tilejson": "3.0.0",
        "name": entry.title,
        "version": f"{entry.number}.0.0",
        "scheme": "xyz",
        "tiles": [url],
        "minzoom": low,
        "maxzoom": high,
        "bounds": [west, south, east, north],
        "center": [(west + east) / 2, (south + north) / 2, low],
        "vector_layers": [],
    }
    document.update({name: metadata[name] for name in _KEPT if name in metadata})
    return document
