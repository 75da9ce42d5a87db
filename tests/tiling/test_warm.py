"""The kernels' rehearsal is a city like any other."""

from __future__ import annotations

import gzip

import numpy as np
import pyarrow as pa

from tiling.batches import MESH_COLUMN, FeatureBatch
from tiling.coords import TileCoord, unmorton2
from tiling.formats.tile_reading import decode_tile
from tiling.testing.cities import synthetic_footprints
from tiling.testing.warm import warm
from tiling.tilers.building_tiles import Built, build_cell
from tiling.tilers.buildings import BuildingsTiler, sort_keys
from tiling.tilers.pipeline import Tile
from tiling.tilers.quadtree import BASE_LEVEL, DEEPEST_LEVEL


def test_a_city_of_footprints_and_models_is_rehearsed() -> None:
    warm()


def test_a_cell_without_models_is_the_same_in_a_city_with_models() -> None:
    batch = synthetic_footprints(30)
    none = pa.nulls(len(batch), pa.large_binary())
    mixed = FeatureBatch(
        batch.ref, batch.ids, batch.geometry, batch.attributes.append_column(MESH_COLUMN, none)
    )
    assert [built.data for built in tiles(mixed)] == [built.data for built in tiles(batch)]


def tiles(batch: FeatureBatch) -> list[Tile]:
    keys = sort_keys(batch)
    order = np.argsort(keys, kind="stable")
    settings = BuildingsTiler(BASE_LEVEL).settings(batch.attributes.column_names)
    cells = keys[order] >> np.uint64(2 * (DEEPEST_LEVEL - BASE_LEVEL))
    x, y = unmorton2(cells[0])
    assert (cells == cells[0]).all()
    built = Built()
    cell = TileCoord(BASE_LEVEL, int(x), int(y))
    build_cell(cell, keys[order], batch.take(order), settings, built)
    count = sum(decode_tile(gzip.decompress(tile.data)).table.num_rows for tile in built.tiles)
    assert count == len(batch)
    return built.tiles
