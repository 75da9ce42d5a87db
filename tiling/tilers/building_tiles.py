"""Tiles of buildings: features to full detail, full detail to coarser levels.

Both directions of the work are pure functions of what lies in a cell: `build_cell` makes the tiles
of a cell from its features, `build_parent` a tile from what its four children show. A tile's
content is therefore the same whether a city was tiled at once or a block at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from tiling.batches import (
    BASE_COLUMN,
    HEIGHT_COLUMN,
    MESH_COLUMN,
    SKIRT_COLUMN,
    FeatureBatch,
)
from tiling.coords import TileCoord
from tiling.ellipsoid import SEMI_MINOR_M
from tiling.formats.extent import axis_range, geodetic_range
from tiling.formats.glb import encode_tile
from tiling.formats.plain_columns import plain
from tiling.formats.primitive import Grid, Primitive
from tiling.formats.tile_reading import decode_tile
from tiling.meshes import mesh_nbytes
from tiling.tilers.generalise import generalise
from tiling.tilers.massing import extrude_counted, grid_at, prism_tile, vertex_counts
from tiling.tilers.mesh_tile import mesh_extent, mesh_primitives
from tiling.tilers.pipeline import Tile, compress
from tiling.tilers.prisms import Prisms, prisms_of
from tiling.tilers.quadtree import DEEPEST_LEVEL, ROOT_LEVEL, ContentTile, content_key

FEATURE_ID_COLUMN = "cim:feature_id"
FEATURES_COLUMN = "cim:features"
FEATURE_CLASS, BLOCK_CLASS = "feature", "block"

# Errors in metres. At a screen-space error of 16 on a full-HD view a tile refines nearer than
# about 60 times its error: level 8 (78 km cells) at 60 km, level 13 at 2 km.
ROOT_ERROR_M = 1024.0
# Above it a region is bounded vertex by vertex; below, by the box of its vertices.
_BOX_M = 4000.0
# Column of ours -> whether tiles show it.
_HIDDEN = (SKIRT_COLUMN, MESH_COLUMN)


def geometric_error_m(level: int) -> float:
    """Return the geometric error of the tiles of a level, metres."""
    return ROOT_ERROR_M / float(2 ** (level - ROOT_LEVEL))


@dataclass(frozen=True, slots=True)
class TileSettings:
    """How a tileset is made; part of what a version remembers, so that an update makes the same.

    Attributes:
        base_level: coarsest level that holds buildings at full detail.
        max_level: finest level; its tiles take whatever is left.
        min_level: coarsest level with content.
        tile_features: buildings that a tile above `max_level` holds at most.
        tile_vertices: vertices that it holds at most, roughly.
        property_ids: column -> id of its property in the tiles.
        key: column from which the ids of features were made; None: ordinals, which tiles carry.
    """

    base_level: int
    max_level: int
    min_level: int
    tile_features: int
    tile_vertices: int
    property_ids: dict[str, str]
    key: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return JSON from which the constructor makes equal settings."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(slots=True)
class Built:
    """Tiles under construction.

    Attributes:
        tiles: encoded tiles.
        content: the same tiles as the tree sees them.
        leaves: how many of them hold full detail, and the bytes of those.
        inset: walls and roofs that were set apart from others in their plane.
    """

    tiles: list[Tile] = field(default_factory=list)
    content: list[ContentTile] = field(default_factory=list)
    features: int = 0
    triangles: int = 0
    leaf_nbytes: int = 0
    nbytes: int = 0
    inset: int = 0

    def facts(self) -> dict[str, Any]:
        """Return what is known of the tiles as JSON."""
        return {
            "tiles": [[*tile.cell, list(tile.region), tile.features] for tile in self.content],
            "features": self.features,
            "triangles": self.triangles,
            "leaf_nbytes": self.leaf_nbytes,
            "nbytes": self.nbytes,
            "inset": self.inset,
        }


def content_tiles(facts: Iterable[dict[str, Any]]) -> list[ContentTile]:
    """Return the tiles that facts tell of."""
    return [
        ContentTile(TileCoord(level, x, y), tuple(region), features)
        for fact in facts
        for level, x, y, region, features in fact["tiles"]
    ]


def build_cell(
    cell: TileCoord,
    keys: NDArray[np.uint64],
    batch: FeatureBatch,
    settings: TileSettings,
    built: Built,
) -> Prisms:
    """Make the tiles of a cell and everything below it.

    Args:
        cell: the cell.
        keys: (N,) uint64, ascending Morton indices at `DEEPEST_LEVEL`.
        batch: the N features of the cell, at least one, ordered by (key, id).
        settings: of the tileset.
        built: receives the tiles, finer ones first.

    Returns:
        what the cell's tile shows.
    """
    if cell.level >= settings.base_level and (
        cell.level >= settings.max_level or _fits(batch, settings)
    ):
        return _build_leaf(cell, batch, settings, built)
    below = np.uint64(2 * (DEEPEST_LEVEL - cell.level - 1))
    edges = np.searchsorted(
        keys >> below, np.arange(5, dtype=np.uint64) + np.uint64(4 * cell.morton())
    )
    children = []
    for child, low, high in zip(
        cell.children(), edges[:-1].tolist(), edges[1:].tolist(), strict=True
    ):
        if high > low:
            part = batch.take(np.arange(low, high))
            children.append(build_cell(child, keys[low:high], part, settings, built))
    return build_parent(cell, children, settings, built)


def _fits(batch: FeatureBatch, settings: TileSettings) -> bool:
    if len(batch) > settings.tile_features:
        return False
    vertices = int(vertex_counts(batch.geometry).sum())
    if MESH_COLUMN in batch.attributes.column_names:
        # A vertex of a mesh takes some 24 bytes in its record and becomes several in a tile.
        vertices += mesh_nbytes(batch.attributes.column(MESH_COLUMN)) // 24
    return vertices <= settings.tile_vertices


def _build_leaf(
    cell: TileCoord, batch: FeatureBatch, settings: TileSettings, built: Built
) -> Prisms:
    grid, primitives, inset = _leaf_content(batch)
    built.inset += inset
    table = plain(
        batch.attributes.drop_columns(
            [name for name in _HIDDEN if name in batch.attributes.column_names]
        )
    )
    if settings.key is None:
        table = table.append_column(FEATURE_ID_COLUMN, pa.array(batch.ids))
    data = encode_tile(grid, primitives, table, settings.property_ids, FEATURE_CLASS)
    _add(built, cell, data, grid, primitives, len(batch), leaf=True)
    return prisms_of(grid, primitives, batch.ids, np.ones(len(batch), dtype=np.int64))


def _leaf_content(batch: FeatureBatch) -> tuple[Grid, list[Primitive], int]:
    base, height = batch.column(BASE_COLUMN), batch.column(HEIGHT_COLUMN)
    names = batch.attributes.column_names
    skirt = batch.column(SKIRT_COLUMN) if SKIRT_COLUMN in names else np.zeros(len(batch))
    if MESH_COLUMN not in names or batch.attributes.column(MESH_COLUMN).null_count == len(batch):
        grid, primitive, inset = extrude_counted(batch.geometry, base, height, skirt)
        return grid, [primitive], inset
    meshes = batch.attributes.column(MESH_COLUMN)
    own = np.asarray(meshes.is_valid().to_numpy())
    lonlat, low, high = mesh_extent(meshes)
    plain_rows = np.flatnonzero(~own)
    corners = shapely.get_coordinates(batch.geometry[plain_rows])
    if len(plain_rows):
        low = min(low, float((base - skirt)[plain_rows].min()))
        high = max(high, float((base + height)[plain_rows].max()))
    grid = grid_at(np.concatenate([lonlat, corners]), low, high)
    primitives = mesh_primitives(meshes, np.flatnonzero(own), grid)
    inset = 0
    if len(plain_rows):
        _, primitive, inset = extrude_counted(
            batch.geometry[plain_rows],
            base[plain_rows],
            height[plain_rows],
            skirt[plain_rows],
            grid,
        )
        rows = plain_rows.astype(np.uint32)[primitive.feature_ids]
        primitives.append(replace(primitive, feature_ids=rows))
    return grid, primitives, inset


def build_parent(
    cell: TileCoord, children: Sequence[Prisms], settings: TileSettings, built: Built
) -> Prisms:
    """Make the tile of a cell from what its children show, in their order; at least one.

    Above the coarsest level with content nothing is made, and what the children show is handed on.
    """
    prisms = Prisms.joined(children)
    if cell.level < settings.min_level:
        return prisms
    prisms = generalise(prisms, cell, geometric_error_m(cell.level))
    grid, primitive = prism_tile(prisms)
    table = pa.table(
        {
            FEATURE_ID_COLUMN: pa.array(prisms.ids),
            FEATURES_COLUMN: pa.array(prisms.features),
            # Styles colour by height, near and far.
            HEIGHT_COLUMN: pa.array(np.round(prisms.top_m - prisms.bottom_m, 1)),
        }
    )
    data = encode_tile(grid, [primitive], table, settings.property_ids, BLOCK_CLASS)
    _add(built, cell, data, grid, [primitive], int(prisms.features.sum()), leaf=False)
    return prisms_of(grid, [primitive], prisms.ids, prisms.features)


def read_prisms(data: bytes, feature_ids: Any) -> Prisms:
    """Return what a finished tile shows: just what building it returned.

    Args:
        data: the glb.
        feature_ids: table of a tile without ids of its own -> (N,) int64.
    """
    tile = decode_tile(data)
    names = tile.table.column_names
    ids = tile.table.column(FEATURE_ID_COLUMN) if FEATURE_ID_COLUMN in names else None
    rows = (
        np.asarray(ids.to_numpy()).astype(np.int64) if ids is not None else feature_ids(tile.table)
    )
    counts = (
        np.asarray(tile.table.column(FEATURES_COLUMN).to_numpy()).astype(np.int64)
        if FEATURES_COLUMN in names
        else np.ones(len(rows), dtype=np.int64)
    )
    return prisms_of(tile.grid, tile.primitives, rows, counts)


def _add(
    built: Built,
    cell: TileCoord,
    data: bytes,
    grid: Grid,
    primitives: Sequence[Primitive],
    features: int,
    *,
    leaf: bool,
) -> None:
    packed = compress(data)
    built.tiles.append(Tile(content_key(cell), packed, "gzip"))
    built.content.append(ContentTile(cell, tuple(_region(grid, primitives)), features))
    built.triangles += sum(len(p.triangles) for p in primitives)
    built.nbytes += len(packed)
    if leaf:
        built.features += features
        built.leaf_nbytes += len(packed)


def _region(grid: Grid, primitives: Sequence[Primitive]) -> list[float]:
    """Return the volume of what a decoder will see: four radians, two metres."""
    ranges = [axis_range(p.positions) for p in primitives]
    low = np.min([lowest for lowest, _ in ranges], axis=0).astype(np.float64)
    high = np.max([highest for _, highest in ranges], axis=0).astype(np.float64)
    chord_m = float(np.linalg.norm(high - low)) * grid.quantum_m
    if chord_m <= _BOX_M:
        # The corners of the box: longitude and the greatest height are extreme there, latitude
        # and the least height but for the sag of a chord as long as the box.
        picks = np.array(np.meshgrid(*np.stack([low, high], axis=1))).reshape(3, -1).T
    else:
        picks = np.concatenate([p.positions for p in primitives]).astype(np.float64)
        chord_m = max(_longest_side_m(grid, p) for p in primitives)
    west, south, east, north, lowest, highest = geodetic_range(grid.ecef(picks))
    # Triangles are flat and the Earth is not: the middle of a chord sags below its ends, and
    # between two places of one latitude it leans towards the pole. A millimetre for rounding.
    polar = np.radians(max(abs(south), abs(north)))
    steep = max(1.0, float(np.tan(polar)))
    sag_m = chord_m**2 / (8 * SEMI_MINOR_M) * steep + 1e-3
    sag_lat = np.degrees(sag_m / SEMI_MINOR_M)
    sag_lon = sag_lat / max(float(np.cos(polar)), 1e-6)
    corners = np.radians([west - sag_lon, south - sag_lat, east + sag_lon, north + sag_lat])
    return [*corners.tolist(), lowest - sag_m, highest + sag_m]


def _longest_side_m(grid: Grid, primitive: Primitive) -> float:
    corners = primitive.positions.astype(np.float64)[primitive.triangles]
    sides = corners - np.roll(corners, 1, axis=1)
    return float(np.sqrt((sides**2).sum(axis=2).max())) * grid.quantum_m
