"""Terrain of the demo, decoded by another decoder, against the DEM read by rasterio and EGM96."""

from __future__ import annotations

import io
import json
import zipfile
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
import shapely
from numpy.typing import NDArray
from quantized_mesh_tile.terrain import TerrainTile

from tests.acceptance.conftest import Assets
from tests.acceptance.geodesy import reproject, to_ecef, undulation_m
from tests.commands import DEMO_SOURCES

Floats = NDArray[np.float64]
SOURCES = {
    "hubei-terrain": ("hubei_p1511_5min.tif", 4326, 4326),
    # NAD 83 stands for WGS 84: what the file says, less a shift below a metre that nobody applies.
    "washington-terrain": ("washington_dtm.tif", 4269, 26918),
}


class Dem:
    """A DEM, bilinear between the centres of its pixels; NaN where one of the four is missing."""

    def __init__(self, name: str, geographic: int, frame: int) -> None:
        with rasterio.open(DEMO_SOURCES / name) as dataset:
            self._inverse = ~dataset.transform
            band = dataset.read(1, masked=True)
        self._values = np.where(np.ma.getmaskarray(band), np.nan, band.data.astype(np.float64))
        self._frames = (geographic, frame)

    def ellipsoidal(self, lon: Floats, lat: Floats) -> Floats:
        """Return heights above the ellipsoid: the DEM's own plus EGM96."""
        x, y = lon, lat
        if self._frames[0] != self._frames[1]:
            x, y = reproject(*self._frames, lon, lat)
        column, row = self._inverse * (x, y)
        column, row = np.asarray(column) - 0.5, np.asarray(row) - 0.5
        rows, columns = self._values.shape
        inside = (column >= 0) & (row >= 0) & (column <= columns - 1) & (row <= rows - 1)
        j = np.clip(np.floor(column).astype(int), 0, columns - 2)
        i = np.clip(np.floor(row).astype(int), 0, rows - 2)
        a, b = column - j, row - i
        v = self._values
        above = v[i, j] * (1 - a) + v[i, j + 1] * a
        below = v[i + 1, j] * (1 - a) + v[i + 1, j + 1] * a
        return np.where(inside, above * (1 - b) + below * b, np.nan) + undulation_m(lon, lat)


class Tile:
    """A decoded tile: what `quantized_mesh_tile` makes of the bytes, as arrays."""

    def __init__(self, level: int, x: int, y: int, data: bytes) -> None:
        size = 180 / 2**level
        west, south = x * size - 180, y * size - 90
        tile = TerrainTile(west=west, south=south, east=west + size, north=south + size)
        tile.fromBytesIO(io.BytesIO(data), hasLighting=True)
        self._tile = tile
        self.header: dict[str, Any] = tile.header
        self.normals = np.array(tile.vLight)
        self.triangles = np.array(tile.indices).reshape(-1, 3)
        self.lon, self.lat, self.height = np.array(tile.getVerticesCoordinates()).T

    @cached_property
    def edges(self) -> dict[str, dict[float, float]]:
        """Height by place along each edge."""
        tile = self._tile
        along = {"west": self.lat, "east": self.lat, "south": self.lon, "north": self.lon}
        index = {"west": tile.westI, "east": tile.eastI, "south": tile.southI, "north": tile.northI}
        return {
            side: dict(zip(along[side][i].tolist(), self.height[i].tolist(), strict=True))
            for side, i in ((side, np.array(index[side])) for side in along)
        }


class Tileset:
    """Every tile of a published terrain, decoded."""

    def __init__(self, path: Path) -> None:
        with zipfile.ZipFile(path) as archive:
            self.layer: dict[str, Any] = json.loads(archive.read("layer.json"))
            self.tiles: dict[tuple[int, int, int], Tile] = {}
            for name in archive.namelist():
                if name.endswith(".terrain"):
                    level, x, y = map(int, name.removesuffix(".terrain").split("/"))
                    self.tiles[level, x, y] = Tile(level, x, y, archive.read(name))

    @cached_property
    def finest(self) -> list[Tile]:
        """The tiles of the deepest level."""
        deepest = max(level for level, _, _ in self.tiles)
        return [tile for (level, _, _), tile in self.tiles.items() if level == deepest]


class Terrain(Tileset):
    """A terrain asset of the demo."""

    def __init__(self, demo: Assets, asset: str) -> None:
        self.info: dict[str, Any] = demo.named(asset)["info"]
        self.dem = Dem(*SOURCES[asset])
        super().__init__(demo.store(asset, "3tz"))


@pytest.fixture(scope="module", params=sorted(SOURCES))
def terrain(request: pytest.FixtureRequest, demo: Assets) -> Terrain:
    return Terrain(demo, request.param)


def test_the_finest_vertices_are_heights_of_the_dem_above_the_ellipsoid(terrain: Terrain) -> None:
    stated_m = terrain.info["errors_m"][str(terrain.info["max_level"])]
    errors = []
    for tile in terrain.finest:
        error = tile.height - terrain.dem.ellipsoidal(tile.lon, tile.lat)
        errors.append(error[np.isfinite(error)])
    error = np.abs(np.concatenate(errors))
    print(f"{len(error)} vertices: at most {error.max():.4f} m, mean {error.mean():.4f} m")
    assert len(error) > 400
    assert error.max() <= stated_m
    # A vertex is the DEM's own surface: all that is lost is the rounding of the format. Its
    # longitudes too are rounded to the format's 32767 steps, by half of one at most.
    quantum_m = terrain.info["quantum_m"][str(terrain.info["max_level"])]
    assert np.median(error) <= quantum_m
    assert error.mean() < stated_m / 10


def test_the_finest_faces_are_within_the_stated_error(terrain: Terrain) -> None:
    stated_m = terrain.info["errors_m"][str(terrain.info["max_level"])]
    errors = []
    for tile in terrain.finest:
        lon, lat, height = (
            v[tile.triangles].mean(axis=1) for v in (tile.lon, tile.lat, tile.height)
        )
        error = height - terrain.dem.ellipsoidal(lon, lat)
        # Faces beside the data are drawn down to the sea; those whose corners are data count.
        corners = terrain.dem.ellipsoidal(tile.lon, tile.lat)
        inside = np.isfinite(corners[tile.triangles]).all(axis=1) & np.isfinite(error)
        errors.append(error[inside])
    error = np.concatenate(errors)
    print(f"{len(error)} faces: at most {np.abs(error).max():.4f} m, stated {stated_m:.4f} m")
    assert np.abs(error).max() <= stated_m
    assert (
        np.sqrt((error**2).mean()) <= terrain.info["rmse_m"][str(terrain.info["max_level"])] * 1.5
    )


def test_heights_are_ellipsoidal_and_not_above_the_sea(terrain: Terrain) -> None:
    for tile in terrain.finest:
        undulation = undulation_m(tile.lon, tile.lat)
        above_sea = terrain.dem.ellipsoidal(tile.lon, tile.lat) - undulation
        known = np.isfinite(above_sea) & (np.abs(undulation) > 5)
        lifted = tile.height[known] - above_sea[known]
        # The geoid lies below the ellipsoid in both places: sea heights would make this zero.
        assert (np.abs(lifted - undulation[known]) < 0.5).all()
        assert (lifted < -4).all()


def test_neighbours_share_their_edges_bit_for_bit(terrain: Tileset) -> None:
    pairs = 0
    for (level, x, y), tile in terrain.tiles.items():
        columns = 2 * 2**level
        for (i, j), here, there in (((1, 0), "east", "west"), ((0, 1), "north", "south")):
            neighbour = terrain.tiles.get((level, (x + i) % columns, y + j))
            if neighbour is None or (x + i) % columns == x:
                continue
            pairs += 1
            assert tile.edges[here] == neighbour.edges[there], (level, x, y, here)
            assert len(tile.edges[here]) >= 2
    assert pairs >= 8


def test_layer_json_promises_the_tiles_that_exist_and_no_other(terrain: Tileset) -> None:
    assert terrain.layer["format"] == "quantized-mesh-1.0"
    assert (terrain.layer["scheme"], terrain.layer["projection"]) == ("tms", "EPSG:4326")
    promised = {
        (level, x, y)
        for level, rectangles in enumerate(terrain.layer["available"])
        for r in rectangles
        for x in range(r["startX"], r["endX"] + 1)
        for y in range(r["startY"], r["endY"] + 1)
    }
    assert promised == set(terrain.tiles)


def test_headers_tell_the_truth_about_what_they_head(terrain: Tileset) -> None:
    radii = np.array([6378137.0, 6378137.0, 6356752.3142451793])
    for key, tile in terrain.tiles.items():
        h = tile.header
        assert h["minimumHeight"] <= tile.height.min() and tile.height.max() <= h["maximumHeight"]
        points = to_ecef(tile.lon, tile.lat, tile.height)
        centre = np.array([h[f"boundingSphereCenter{axis}"] for axis in "XYZ"])
        far = np.linalg.norm(points - centre, axis=1).max()
        assert far <= h["boundingSphereRadius"] * (1 + 1e-9) + 1e-3, key
        # A camera on the ray to the occlusion point sees past the horizon: no vertex is higher.
        occludee = np.array([h[f"horizonOcclusionPoint{axis}"] for axis in "XYZ"])
        scaled = points / radii
        length = np.linalg.norm(scaled, axis=1)
        direction = occludee / np.linalg.norm(occludee)
        cos = scaled @ direction / length
        # Beyond a quarter of the globe no such point exists, and the format has no word for that.
        if key[0] == 0:
            continue
        tall = np.sqrt(np.maximum(length**2 - 1, 0))
        sin = np.sqrt(np.maximum(1 - cos**2, 0))
        needed = 1 / (cos / length - sin * tall / length)
        assert np.linalg.norm(occludee) >= needed.max() * (1 - 1e-9), key


def test_normals_have_length_one_and_point_up(terrain: Tileset) -> None:
    for key, tile in terrain.tiles.items():
        normals = tile.normals
        assert len(normals) == len(tile.lon)
        assert np.abs(np.linalg.norm(normals, axis=1) - 1).max() < 1e-6, key
        lon, lat = np.radians(tile.lon), np.radians(tile.lat)
        up = np.column_stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])
        # A cliff is as steep as the data says; the ground is never seen from below.
        assert (normals * up).sum(axis=1).min() > -0.02, key


def test_buildings_stand_on_the_lowest_ground_measured_or_drawn(demo: Assets) -> None:
    terrain = Terrain(demo, "washington-terrain")
    drawn = np.concatenate(
        [
            np.column_stack([tile.lon, tile.lat, tile.height])[tile.triangles]
            for tile in terrain.finest
        ]
    )
    tree = shapely.STRtree(shapely.polygons(drawn[:, :, :2]))
    dem = terrain.dem
    table = pq.read_table(demo.store("washington-buildings", "geoparquet"))
    footprints = shapely.from_wkb(table.column("geometry").to_numpy())
    bases = table.column("cim:base_m").to_numpy()
    off_dem, off_drawn = [], []
    for footprint, base in zip(footprints, bases, strict=True):
        # Every 10 cm of the outline.
        lon, lat = shapely.get_coordinates(shapely.segmentize(footprint, 1e-6)).T
        ground = dem.ellipsoidal(lon, lat)
        of, on = tree.query(shapely.points(lon, lat), predicate="intersects")
        if not np.isfinite(ground).all():
            continue
        a, b, c = np.moveaxis(drawn[on], 1, 0)
        normal = np.cross(b - a, c - a)
        x, y = lon[of] - a[:, 0], lat[of] - a[:, 1]
        faces = a[:, 2] - (normal[:, 0] * x + normal[:, 1] * y) / normal[:, 2]
        off_dem.append(base - ground.min())
        off_drawn.append(base - faces.min())
    print(f"{len(off_dem)} buildings: {min(off_dem):.3f} .. {max(off_dem):.3f} m off the DEM")
    print(f"{min(off_drawn):.3f} .. {max(off_drawn):.3f} m off the meshes of the finest level")
    assert len(off_dem) > 60
    assert max(off_dem) < 0.25
    assert max(off_drawn) < 0.01
    # And not sunk: below the lower of both by what the ground does inside the walls.
    below = np.maximum(off_dem, off_drawn)
    assert below.min() > -1.0
    assert np.median(np.abs(below)) < 0.02
