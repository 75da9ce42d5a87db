"""``python -m tiling.testing.warm``: compile every kernel of the tilers before many need it.

Numba keeps machine code beside the sources, or in the user's cache where those cannot be written,
and processes that start together each compile what none of them has compiled before. So what
starts many (a suite of tests, an image of a container) runs this first. It takes half a minute,
once.

There is no list of kernels: a small city of footprints and of models is tiled and read back, which
passes through whatever tiling passes through.
"""

from __future__ import annotations

import gzip

import numpy as np
import pyarrow as pa
import shapely

from tiling.batches import MESH_COLUMN, FeatureBatch
from tiling.coords import TileCoord, unmorton2
from tiling.formats.gltf_reading import Glb
from tiling.meshes import ROOF, FeatureMesh, encode_mesh
from tiling.testing.cities import synthetic_footprints
from tiling.tilers.building_tiles import Built, build_cell, read_prisms
from tiling.tilers.buildings import BuildingsTiler, sort_keys
from tiling.tilers.quadtree import BASE_LEVEL, DEEPEST_LEVEL


def warm() -> None:
    """Tile a small city of extruded footprints and models, and read its tiles."""
    batch = _city()
    keys = sort_keys(batch)
    order = np.argsort(keys, kind="stable")
    batch, keys = batch.take(order), keys[order]
    level = BASE_LEVEL - 4
    settings = BuildingsTiler(level, tile_features=500).settings(batch.attributes.column_names)
    cells = keys >> np.uint64(2 * (DEEPEST_LEVEL - level))
    for index in np.unique(cells):
        own = np.flatnonzero(cells == index)
        x, y = unmorton2(index)
        cell = TileCoord(level, int(x), int(y))
        built = Built()
        build_cell(cell, keys[own], batch.take(own), settings, built)
        for tile in built.tiles:
            data = gzip.decompress(tile.data)
            read_prisms(data, lambda table: np.arange(table.num_rows))
            Glb(data).primitives()


def _city() -> FeatureBatch:
    batch = synthetic_footprints(2000)
    centre = shapely.get_coordinates(shapely.centroid(batch.geometry[:50]))
    meshes = [encode_mesh(_tent(lon, lat)) for lon, lat in centre.tolist()]
    column = pa.array([*meshes, *[None] * (len(batch) - len(meshes))], pa.large_binary())
    table = batch.attributes.append_column(MESH_COLUMN, column)
    # Buildings that stand in one another have walls to be set apart.
    geometry = batch.geometry.copy()
    geometry[101:200:2] = geometry[100:200:2]
    return FeatureBatch(batch.ref, batch.ids, geometry, table)


def _tent(lon: float, lat: float) -> FeatureMesh:
    around = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0], [0, 0, 1]], dtype=float)
    vertices = around * [1e-4, 1e-4, 10.0] + [lon, lat, 30.0]
    faces = np.array([[0, 1, 4], [1, 2, 4], [2, 3, 4], [3, 0, 4]], dtype=np.uint32)
    return FeatureMesh(vertices, faces, np.full(4, ROOF, dtype=np.uint8))


if __name__ == "__main__":
    warm()
