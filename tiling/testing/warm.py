"""``python -m tiling.testing.warm``: compile every kernel of the tilers before many need it.

Numba keeps machine code beside the sources, or in the user's cache where those cannot be written,
and processes that start together each compile what none of them has compiled before. So what
starts many (a suite of tests, an image of a container) runs this first. It takes half a minute,
once.

There is no list of kernels: a small city of footprints and of models is tiled and read back, a
hill is meshed and drawn, and a small cloud of points becomes tiles, which passes through whatever
tiling passes through.
"""

from __future__ import annotations

import gzip
import math
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import rasterio
import shapely
from numpy.typing import NDArray

from tiling.batches import MESH_COLUMN, FeatureBatch, Lattice, PointBatch
from tiling.bounds import Region
from tiling.coords import TileCoord, unmorton2
from tiling.crs import SpatialRef
from tiling.dem import DemLayer, DemStack
from tiling.dem.cleaning import fill_voids, find_outliers
from tiling.findings import Findings
from tiling.formats.gltf_reading import Glb
from tiling.formats.mvt_geometry import POLYGON
from tiling.formats.mvt_layer import code_attributes, write_layer
from tiling.meshes import ROOF, FeatureMesh, encode_mesh
from tiling.stores.directory import DirectoryReader, DirectoryWriter
from tiling.testing.cities import synthetic_footprints
from tiling.tilers.base import Run, SilentProgress
from tiling.tilers.building_tiles import Built, build_cell, read_prisms
from tiling.tilers.buildings import BuildingsTiler, sort_keys
from tiling.tilers.pipeline import SerialExecutor
from tiling.tilers.pointcloud import PointCloudTiler
from tiling.tilers.quadtree import BASE_LEVEL, DEEPEST_LEVEL
from tiling.tilers.relief_contours import contours
from tiling.tilers.terrain import TerrainTiler, level_for
from tiling.tilers.vector_cells import cell_contents
from tiling.validate.pointcloud import check_pointcloud


def warm() -> None:
    """Tile a city of footprints and models, a cloud of points and a hill, and read them."""
    _warm_terrain()
    _warm_points()
    _warm_dem()
    contours(np.add.outer(np.arange(4.0), np.arange(4.0)), 1.5)
    batch = _city()
    _warm_vector(batch)
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


def _warm_vector(batch: FeatureBatch) -> None:
    """Encode a vector tile of a city; that its degrees are taken for metres is all one here."""
    rows = np.arange(len(batch.ids))
    (cell,) = cell_contents(batch.geometry, 0, 0, (0, 0), rows)
    kinds = np.full(len(rows), POLYGON)
    coded = code_attributes(pa.table({"n": rows}), len(rows))
    write_layer("city", batch.ids, kinds, cell.commands, coded, cell.rows)


def _warm_dem() -> None:
    """Lay two small rasters over each other, one in degrees and one in metres."""
    with TemporaryDirectory() as folder:
        layers = []
        for crs, x, y, step in (
            ("EPSG:4547", 441000.0, 3508000.0, 10.0),
            ("EPSG:4490", 113.37, 31.7, 1e-3),
        ):
            path = Path(folder) / f"{crs[5:]}.tif"
            with rasterio.open(
                path,
                "w",
                driver="GTiff",
                width=64,
                height=64,
                count=1,
                dtype="float32",
                crs=crs,
                transform=rasterio.Affine(step, 0, x, 0, -step, y),
            ) as sink:
                sink.write(np.full((1, 64, 64), 50, np.float32))
            layers.append(DemLayer.describe(path, SpatialRef.parse(f"{crs}+5737"), 50, 50))
        pixels = np.full((8, 8), 50, np.float32)
        find_outliers(pixels, 5.0, np.empty_like(pixels))
        fill_voids(pixels, 2, np.empty((4, 4), np.float32))
        stack = DemStack(layers)
        level = level_for(stack.resolution_deg)
        step = 180 / 2**level / 64
        west, south = math.floor(113.37 / step) * step, math.floor(31.69 / step) * step
        stack.heights(Lattice(west, south, step, 80, 80))
        stack.sample(np.array([113.38]), np.array([31.69]))
        stack.close()


class _Hill:
    """A hill of 40 m with a void beside it, on the equator."""

    extent = Region(0.0, 0.0, 0.02, 0.02, 0.0, 50.0)
    coverage = (extent,)
    resolution_deg = 1e-3

    def heights(self, lattice: Lattice) -> NDArray[np.float64]:
        """Return heights, none west of a meridian."""
        lon = lattice.west_deg + np.arange(lattice.columns) * lattice.step_deg
        lat = lattice.south_deg + np.arange(lattice.rows) * lattice.step_deg
        hill = 20 + 20 * np.sin(lon / 2e-3)[None, :] * np.cos(lat / 3e-3)[:, None]
        return np.where(lon[None, :] > 0.005, hill, np.nan)

    def pixels(
        self, region: Region, limit: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Return one place, on the ground."""
        return np.array([0.01]), np.array([0.01]), np.array([0.0])


def _warm_terrain() -> None:
    source = _Hill()
    with TemporaryDirectory() as name:
        folder = Path(name)
        writer = DirectoryWriter(folder / "tiles")
        run = Run(writer, folder, SerialExecutor(), 1, 1 << 30, SilentProgress(), Findings())
        TerrainTiler(min_level=level_for(source.resolution_deg) - 1).run(source, run)
        writer.abort()


def _warm_points() -> None:
    """Tile a cloud of two levels with bytes, short and wide columns, and check its tiles."""
    rng = np.random.default_rng(1)
    count = 2000
    xyz = rng.uniform(0, 100, (count, 3)) + (441_000.0, 3_508_000.0, 0.0)
    columns: dict[str, NDArray[Any]] = {
        "rgb": rng.integers(0, 256, (count, 3)).astype(np.uint16),
        "classification": rng.integers(1, 7, count).astype(np.uint8),
        "intensity": rng.integers(0, 65536, count).astype(np.uint16),
        "gps_time": rng.uniform(0, 60, count),
    }
    batch = PointBatch(SpatialRef.parse("EPSG:4547+ellipsoidal"), 0, xyz, columns)
    with TemporaryDirectory() as name:
        folder = Path(name)
        writer = DirectoryWriter(folder / "store")
        run = Run(writer, folder, SerialExecutor(), 1, 1 << 30, SilentProgress(), Findings())
        tiler = PointCloudTiler[PointBatch](lambda chunk: (chunk, ()), None, 400, 1000)
        tiler.run([batch], run)
        writer.commit()
        check_pointcloud(DirectoryReader(folder / "store"))


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
