"""A reader of vector tiles in a PMTiles archive: `pmtiles` and `mapbox_vector_tile`."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mapbox_vector_tile
import numpy as np
import shapely
from numpy.typing import NDArray
from pmtiles.reader import MmapSource, Reader, all_tiles

from tests.acceptance.geodesy import WORLD_HALF_M


@dataclass(frozen=True)
class Piece:
    """A feature as one tile shows it.

    Attributes:
        layer: its name.
        id: feature id.
        tile: zoom, column, row.
        geometry: EPSG:3857 metres.
        attributes: as decoded; null is absent.
    """

    layer: str
    id: int
    tile: tuple[int, int, int]
    geometry: Any
    attributes: dict[str, Any]


def side_m(zoom: int) -> float:
    """Return the side of a tile."""
    return 2 * WORLD_HALF_M / 2**zoom


def box(tile: tuple[int, int, int]) -> Any:
    """Return the tile without its buffer: a polygon in EPSG:3857."""
    zoom, x, y = tile
    side = side_m(zoom)
    west, north = x * side - WORLD_HALF_M, WORLD_HALF_M - y * side
    return shapely.box(west, north - side, west + side, north)


def pieces(archive: Path, zoom: int, extent: int) -> Iterator[Piece]:
    """Yield every feature of every tile of a zoom."""
    with archive.open("rb") as file:
        for tile, data in all_tiles(MmapSource(file)):
            if tile[0] == zoom:
                yield from _read(tile, gzip.decompress(data), extent)


def header(archive: Path) -> dict[str, Any]:
    """Return the header of a PMTiles archive."""
    with archive.open("rb") as file:
        found: dict[str, Any] = Reader(MmapSource(file)).header()
        return found


def _read(tile: tuple[int, int, int], data: bytes, extent: int) -> Iterator[Piece]:
    west, _, _, north = box(tile).bounds
    quantum = side_m(tile[0]) / extent

    def place(xy: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.column_stack([west + xy[:, 0] * quantum, north - xy[:, 1] * quantum])

    # Tile coordinates count downwards; turned here, so that nobody else's rounding enters.
    options = {"y_coord_down": True}
    for name, layer in mapbox_vector_tile.decode(data, default_options=options).items():
        assert (layer["extent"], layer["version"]) == (extent, 2)
        for feature in layer["features"]:
            geometry = shapely.transform(shapely.geometry.shape(feature["geometry"]), place)
            yield Piece(name, feature["id"], tile, geometry, feature["properties"])
