"""Water masks against shapely, and through an independent decoder."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from quantized_mesh_tile import TerrainTile

from tests.tiling.sampled import ElevationTerrain
from tests.tiling.test_terrain import read_dem, write_dem
from tiling.batches import FeatureBatch
from tiling.coords import TileCoord
from tiling.crs import TILE_REF
from tiling.errors import FormatError
from tiling.formats.geoparquet import read_group, write_geoparquet
from tiling.formats.geoparquet_footer import group_boxes
from tiling.formats.quantized_mesh import MASK_SIDE, decode, with_water_mask
from tiling.geoid import ELLIPSOIDAL
from tiling.tilers.terrain import build_tile, specify
from tiling.tilers.terrain_water import WaterAreas

LAKE = shapely.Point(113.4, 31.7).buffer(0.05).difference(shapely.Point(113.41, 31.7).buffer(0.01))


def water(folder: Path, shapes: list[shapely.Geometry], rows: int = 2) -> WaterAreas:
    batch = FeatureBatch(
        TILE_REF,
        np.arange(len(shapes)),
        np.array(shapes, dtype=object),
        pa.table({"name": [f"湖{i}" for i in range(len(shapes))]}),
    )
    path = folder / "water.parquet"
    write_geoparquet([batch], path, folder / "spool", row_group_rows=rows)
    return WaterAreas(str(path))


def centres(coord: TileCoord) -> tuple[np.ndarray, np.ndarray]:
    size = 180 / 2**coord.level
    along = (np.arange(MASK_SIDE) + 0.5) * size / MASK_SIDE
    lon = coord.x * size - 180 + along
    lat = (coord.y + 1) * size - 90 - along  # from the north
    return np.meshgrid(lon, lat)


def tile_at(lon: float, lat: float, level: int) -> TileCoord:
    size = 180 / 2**level
    return TileCoord(level, int((lon + 180) / size), int((lat + 90) / size))


@given(st.integers(8, 14), st.floats(113.33, 113.47), st.floats(31.63, 31.77))
@settings(max_examples=25, deadline=None)
def test_a_pixel_is_water_when_its_centre_is(
    tmp_path_factory: pytest.TempPathFactory, level: int, lon: float, lat: float
) -> None:
    river = shapely.LineString([(113.3, 31.6), (113.5, 31.8)]).buffer(0.004)
    coord = tile_at(lon, lat, level)
    mask = water(tmp_path_factory.mktemp("water"), [LAKE, river]).mask(coord)
    x, y = centres(coord)
    both = shapely.union(LAKE, river)
    shapely.prepare(both)
    wet = shapely.contains_xy(both, x, y)
    if len(mask) == 1:
        assert wet.all() if mask == b"\xff" else not wet.any()
        return
    pixels = np.frombuffer(mask, np.uint8).reshape(MASK_SIDE, MASK_SIDE)
    assert set(np.unique(pixels)) == {0, 255}
    # On a border a centre may be taken for either side.
    sure = shapely.distance(both.boundary, shapely.points(x, y)) > 1e-9
    np.testing.assert_array_equal((pixels == 255)[sure], wet[sure])


def test_a_tile_is_one_byte_where_all_is_land_or_water(tmp_path: Path) -> None:
    sea = water(tmp_path, [shapely.box(100, 20, 120, 40), shapely.Point(0, 0)])
    assert sea.mask(tile_at(110.3, 30.3, 9)) == b"\xff"
    assert sea.mask(tile_at(-50.0, -30.0, 9)) == b"\x00"
    assert len(sea.mask(TileCoord(0, 1, 0))) == MASK_SIDE**2


def test_row_groups_are_read_one_by_one(tmp_path: Path) -> None:
    lakes = [shapely.Point(113 + i / 10, 31).buffer(0.02) for i in range(7)]
    path = Path(water(tmp_path, lakes).path)
    boxes = group_boxes(path)
    assert len(boxes) == 4
    for group, box in enumerate(boxes):
        bounds = shapely.total_bounds(read_group(path, group).geometry)
        # Stored in single precision, rounded outwards.
        np.testing.assert_allclose(box, bounds, atol=2e-5)


@pytest.fixture
def hill(tmp_path: Path) -> ElevationTerrain:
    values = (100 + 50 * np.hypot(*np.mgrid[-1:1:64j, -1:1:64j])).astype(np.float32)
    return read_dem(write_dem(tmp_path / "hill.tif", values, 113.0, 32.0, 0.005), ELLIPSOIDAL)


def test_masks_are_read_by_another_decoder_and_by_ours(
    hill: ElevationTerrain, tmp_path: Path
) -> None:
    spec, coord = specify(hill, range(10)), tile_at(113.16, 31.84, 9)
    areas = water(tmp_path, [shapely.Point(113.16, 31.84).buffer(0.03)])
    plain, wet = build_tile(hill, spec, coord), build_tile(hill, spec, coord, areas)
    assert wet == with_water_mask(plain, areas.mask(coord))
    assert decode(plain).water_mask is None
    mask = decode(wet).water_mask
    assert mask is not None and len(mask) == MASK_SIDE**2
    other = TerrainTile()
    other.fromBytesIO(io.BytesIO(wet), hasLighting=True, hasWatermask=True)
    theirs = np.array(other.watermask, dtype=np.uint8).ravel()
    np.testing.assert_array_equal(theirs, np.frombuffer(mask, np.uint8))


def test_a_mask_of_another_size_is_refused(hill: ElevationTerrain) -> None:
    tile = build_tile(hill, specify(hill, (0,)), TileCoord(0, 1, 0))
    with pytest.raises(FormatError, match="water mask of 4 bytes"):
        decode(with_water_mask(tile, bytes(4)))
