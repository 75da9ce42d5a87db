"""TileJSON 3.0.0 of a version's vector tiles, from the archive's own header and metadata."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cim_server.state import Entry
from styles.maps import GEOMETRIES, MapLayer
from tiling.formats.pmtiles import TILE_TYPES
from tiling.stores.pmtiles import PmtilesReader

_KEPT = ("vector_layers", "attribution", "description", "tilestats", "promoteId")
_LABEL_SUFFIX = "_label"
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


def map_layers(metadata: Mapping[str, Any]) -> list[MapLayer]:
    """Return what a style needs to know of the layers that an archive's metadata describe."""
    entries = metadata.get("vector_layers", [])
    names = {entry["id"] for entry in entries}
    companions = {name: name + _LABEL_SUFFIX for name in names if name + _LABEL_SUFFIX in names}
    known = metadata.get("geometries", {})
    return [
        MapLayer(
            entry["id"],
            tuple(known.get(entry["id"], GEOMETRIES)),
            tuple(entry["fields"]),
            companions.get(entry["id"]),
            metadata.get("counts", {}).get(entry["id"], 0),
        )
        for entry in entries
        if entry["id"] not in companions.values()
    ]
