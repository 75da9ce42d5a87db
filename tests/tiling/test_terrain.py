"""Terrain: the laws of a tileset, on real and on awkward elevation models."""

from __future__ import annotations

import gzip
import io
import json
import multiprocessing
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.warp
import rasterio.windows
import shapely
from quantized_mesh_tile.terrain import TerrainTile
from rasterio import Affine

from ingest.readers.base import ReadOptions
from ingest.readers.raster import RasterReader
from tests.elevation_raster import read_elevation
from tests.tiling.sampled import ElevationTerrain
from tiling.bounds import Region
from tiling.coords import TileCoord
from tiling.errors import Cancelled, ConfigError, DatumUndeclared
from tiling.findings import Findings
from tiling.formats import quantized_mesh
from tiling.geoid import ELLIPSOIDAL, VerticalDatum, parse_vertical
from tiling.stores.base import StoredTile
from tiling.stores.zip3tz import ThreeTzReader, ThreeTzWriter
from tiling.tilers.base import Run, SilentProgress, TilesetInfo
from tiling.tilers.pipeline import SerialExecutor
from tiling.tilers.terrain import TerrainSpec, TerrainTiler, build_tile, level_for, specify
from tiling.tilers.terrain_cells import existing
from tiling.validate.terrain import check_terrain, check_terrain_archive

DATA = Path(__file__).parent.parent / "data" / "raster"
EGM96 = parse_vertical("EPSG:5773")


def read_dem(
    path: Path, vertical: VerticalDatum = EGM96, crs: str | None = None
) -> ElevationTerrain:
    return ElevationTerrain(read_elevation(RasterReader(path, ReadOptions(crs=crs)), vertical))


def write_dem(
    path: Path,
    values: np.ndarray,
    west: float,
    north: float,
    step: float,
    crs: str = "EPSG:4490",
    **options: Any,
) -> Path:
    rows, columns = values.shape
    transform = Affine(step, 0, west, 0, -step, north)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=columns,
        height=rows,
        count=1,
        dtype=values.dtype,
        crs=crs,
        transform=transform,
        **options,
    ) as sink:
        sink.write(values, 1)
    return path


def build(
    source: ElevationTerrain,
    folder: Path,
    tiler: TerrainTiler | None = None,
    executor: Executor | None = None,
    progress: Any = None,
) -> tuple[TilesetInfo, ThreeTzReader, Findings, str]:
    folder.mkdir(parents=True, exist_ok=True)
    findings = Findings()
    writer = ThreeTzWriter(folder / "tiles.3tz")
    run = Run(
        writer,
        folder / "scratch",
        executor or SerialExecutor(),
        2,
        2 << 30,
        progress or SilentProgress(),
        findings,
    )
    try:
        info = (tiler or TerrainTiler()).run(source, run)
        store = writer.commit(info.metadata)
    finally:
        writer.abort()
    return info, ThreeTzReader(store.path), findings, store.sha256


def broken_laws(store: Any) -> list[str]:
    return [
        f"{f.rule}: {f.message} {f.samples}"
        for f in check_terrain(store)[0]
        if f.severity == "error"
    ]


def decode(store: ThreeTzReader, level: int, x: int, y: int) -> TerrainTile:
    """Decode with the independent decoder."""
    stored = store.get(f"{level}/{x}/{y}.terrain")
    assert stored is not None and stored.encoding == "gzip"
    size = 180 / 2**level
    west, south = x * size - 180, y * size - 90
    tile = TerrainTile(west=west, south=south, east=west + size, north=south + size)
    tile.fromBytesIO(io.BytesIO(gzip.decompress(stored.data)), hasLighting=True)
    return tile


@pytest.fixture(scope="module")
def hubei(tmp_path_factory: pytest.TempPathFactory) -> Any:
    source = read_dem(DATA / "hubei_p1511_5min.tif")
    return source, *build(source, tmp_path_factory.mktemp("hubei"))


@pytest.fixture(scope="module")
def dtm(tmp_path_factory: pytest.TempPathFactory) -> Any:
    source = read_dem(DATA / "dtm.tif")
    return source, *build(source, tmp_path_factory.mktemp("dtm"), TerrainTiler(max_level=16))


@pytest.fixture(scope="module")
def crop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The 96 x 96 pixels of a 2 m terrain around its highest wall."""
    with rasterio.open(DATA / "dtm.tif") as dem:
        window = rasterio.windows.Window(180, 0, 96, 96)
        values, transform = dem.read(1, window=window), dem.window_transform(window)
        path = tmp_path_factory.mktemp("crop") / "walls.tif"
        profile = {**dem.profile, "width": 96, "height": 96, "transform": transform}
    with rasterio.open(path, "w", **profile) as sink:
        sink.write(values, 1)
    return path


@pytest.fixture(scope="module")
def walls(crop: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    source = read_dem(crop)
    return source, *build(source, tmp_path_factory.mktemp("walls"))


@pytest.fixture(scope="module")
def tujunga(tmp_path_factory: pytest.TempPathFactory) -> Any:
    source = read_dem(DATA / "big_tujunga.tif")
    return source, *build(source, tmp_path_factory.mktemp("tujunga"))


@pytest.mark.parametrize("name", ["hubei", "dtm", "tujunga"])
def test_a_real_dem_breaks_no_law(name: str, request: pytest.FixtureRequest) -> None:
    _, info, store, _, _ = request.getfixturevalue(name)
    findings, facts = check_terrain(store)
    assert [f for f in findings if f.severity == "error"] == []
    assert facts["tiles"] == info.tiles == sum(info.metadata["tiles_per_level"].values())
    assert facts["edges_compared"] > 10
    assert facts["levels"] == list(range(info.max_level + 1))


def test_nodes_lie_on_dem_plus_geoid_within_a_quantum(hubei: Any) -> None:
    source, info, store, _, _ = hubei
    level = info.max_level
    found = existing(source.coverage, level)
    size = 180 / 2**level
    compared = 0
    for row, column in np.argwhere(found.mask):
        x, y = found.x0 + int(column), found.y0 + int(row)
        tile = decode(store, level, x, y)
        # The nodes as they were asked for; the decoder sees them within half a quantum of the tile.
        i, j = np.rint(np.array([tile.u, tile.v]) / quantized_mesh.QUANTA * 64)
        lon = x * size - 180 + i * size / 64
        lat = y * size - 90 + j * size / 64
        truth = source.raster.sample(lon, lat) + EGM96.separation(lon, lat)
        heights = np.array([c[2] for c in tile.getVerticesCoordinates()])
        inside = np.isfinite(truth)
        compared += int(inside.sum())
        off = np.abs(heights - truth)[inside].max(initial=0)
        quantum = info.metadata["quantum_m"][str(level)]
        # Heights are rounded to a sixteenth of a quantum before they are rounded to one.
        assert off <= quantum * (1 / 2 + 1 / 32) + 1e-6
    assert compared > 300


def heights_on_mesh(
    store: ThreeTzReader, area: Region, level: int, lon: np.ndarray, lat: np.ndarray
) -> np.ndarray:
    """Return the heights of a level's triangles at places, as the independent decoder sees them."""
    found = existing((area,), level)
    corners = []
    for row, column in np.argwhere(found.mask):
        tile = decode(store, level, found.x0 + int(column), found.y0 + int(row))
        corners.append(np.array(tile.getTrianglesCoordinates()))
    triangles = np.concatenate(corners)
    tree = shapely.STRtree(shapely.polygons(triangles[:, :, :2]))
    place, hit = tree.query(shapely.points(lon, lat), predicate="intersects")
    a, b, c = (triangles[hit, k] for k in range(3))
    p = np.column_stack([lon[place], lat[place]])
    det = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (c[:, 0] - a[:, 0]) * (b[:, 1] - a[:, 1])
    s = (
        (p[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (c[:, 0] - a[:, 0]) * (p[:, 1] - a[:, 1])
    ) / det
    t = (
        (b[:, 0] - a[:, 0]) * (p[:, 1] - a[:, 1]) - (p[:, 0] - a[:, 0]) * (b[:, 1] - a[:, 1])
    ) / det
    heights = np.full(len(lon), np.nan)
    heights[place] = a[:, 2] + s * (b[:, 2] - a[:, 2]) + t * (c[:, 2] - a[:, 2])
    return heights


@pytest.mark.parametrize("name", ["hubei", "tujunga"])
def test_every_pixel_lies_within_the_stated_error(
    name: str, request: pytest.FixtureRequest
) -> None:
    source, info, store, _, _ = request.getfixturevalue(name)
    lon, lat, truth = source.pixels(source.extent, 100_000)
    for level in (info.max_level, info.max_level - 1, info.max_level - 3):
        error = np.abs(heights_on_mesh(store, source.extent, level, lon, lat) - truth).max()
        stated = info.metadata["errors_m"][str(level)]
        assert stated <= info.metadata["geometric_error_m"][str(level)]
        # A vertex is off its node by up to half of 1/32767 of the tile's width.
        assert stated * 0.98 - 0.2 <= error <= stated * 1.02 + 0.2


@pytest.mark.parametrize(("name", "pixels"), [("walls", 9167), ("tujunga", 96 * 96)])
def test_no_pixel_of_any_level_is_off_by_more_than_a_viewer_assumes(
    name: str, pixels: int, crop: Path, request: pytest.FixtureRequest
) -> None:
    source, info, store, findings, _ = request.getfixturevalue(name)
    with rasterio.open(DATA / "big_tujunga.tif" if name == "tujunga" else crop) as dem:
        values = dem.read(1, masked=True)
        rows, columns = np.nonzero(~np.ma.getmaskarray(values))
        x, y = dem.xy(rows, columns)
        lon, lat = map(np.array, rasterio.warp.transform(dem.crs, "EPSG:4326", x, y))
    truth = values[rows, columns].data + EGM96.separation(lon, lat)
    assert len(truth) == pixels
    levels = range(info.max_level + 1)
    errors = [
        np.abs(heights_on_mesh(store, source.extent, level, lon, lat) - truth).max()
        for level in levels
    ]
    assert [k for k in levels if not errors[k] <= 6378137 * np.pi / 130 / 2**k] == []
    assert not [f for f in findings if f.rule == "terrain-error"]


@pytest.mark.parametrize("name", ["hubei", "tujunga", "dtm"])
def test_no_level_is_off_by_more_than_a_viewer_assumes(
    name: str, request: pytest.FixtureRequest
) -> None:
    _, info, _, findings, _ = request.getfixturevalue(name)
    for level, error in info.metadata["errors_m"].items():
        assert error <= info.metadata["geometric_error_m"][level]
    assert not [f for f in findings if f.rule == "terrain-error"]


def test_errors_shrink_with_the_level(dtm: Any) -> None:
    _, info, _, _, _ = dtm
    rmse = [info.metadata["rmse_m"][str(k)] for k in range(10, info.max_level + 1)]
    assert rmse == sorted(rmse, reverse=True)
    assert rmse[-1] < 0.1


def test_more_than_a_viewer_assumes_is_reported(tmp_path: Path) -> None:
    # Steps of 50 m between pixels of 1 m: no density of nodes follows these.
    steps = np.where(np.arange(64) // 8 % 2, 50, 0) + np.zeros((64, 1))
    path = write_dem(tmp_path / "steps.tif", steps.astype(np.float32), 113, 32, 1e-5)
    tiler = TerrainTiler(min_level=19)
    info, _, findings, _ = build(read_dem(path, ELLIPSOIDAL), tmp_path / "out", tiler)
    errors, allowed = info.metadata["errors_m"], info.metadata["geometric_error_m"]
    over = [k for k in errors if errors[k] > allowed[k]]
    said = [f.message for f in findings if f.rule == "terrain-error"]
    assert over and sum(f.count for f in findings if f.rule == "terrain-error") == len(over)
    assert any(f"level {over[0]} " in message for message in said)


def test_rough_land_gets_nodes_denser_than_its_pixels_and_smooth_land_does_not(
    hubei: Any, tujunga: Any
) -> None:
    smooth, rough = (TerrainSpec.from_json(f[1].metadata["terrain"]) for f in (hubei, tujunga))
    assert (smooth.cells_along[-1], rough.cells_along[-1]) == (64, 256)


def test_flat_land_costs_two_triangles_and_the_round_earth_more(tmp_path: Path) -> None:
    path = write_dem(tmp_path / "flat.tif", np.full((320, 320), 50, np.float32), 113, 32, 0.001)
    source = read_dem(path, ELLIPSOIDAL)
    info, store, _, _ = build(source, tmp_path / "out")
    found = existing(source.coverage, info.max_level)
    # Three tiles from the rim, where the land falls to the sea.
    inner = decode(store, info.max_level, found.x0 + 3, found.y0 + 3)
    assert len(inner.indices) == 2 * 3
    # Squares of 64 cells are the largest: a coarser tile of 256 has sixteen, wherever it lies.
    path = write_dem(tmp_path / "wide.tif", np.full((450, 450), 50, np.float32), 113, 32, 0.002)
    source = read_dem(path, ELLIPSOIDAL)
    spec = specify(source, TerrainTiler().levels(source))
    data = build_tile(source, spec, TileCoord(9, 834, 345))
    assert len(quantized_mesh.decode(data).triangles) == 2 * 16
    # A root tile is half a turn high: 32 edges to it, some 600 km long, bend by 7 km each.
    assert len(decode(store, 0, 1, 0).indices) >= 2 * 32 * 32 * 3


def test_outside_the_data_lies_the_sea_and_the_report_says_so(hubei: Any) -> None:
    _, info, store, findings, _ = hubei
    tile = decode(store, 0, 0, 0)  # the western hemisphere
    lon, lat, heights = np.array(tile.getVerticesCoordinates()).T
    sea = EGM96.separation(lon, lat)
    assert np.abs(heights - sea).max() < 0.6  # the geoid's slope over half a quantum of 180 degrees
    (void,) = [f for f in findings if f.rule == "terrain-void"]
    assert void.severity == "assumption" and void.count > 0
    assert 0 < info.metadata["void_share"] < 1


def test_layer_json_promises_what_the_archive_holds(hubei: Any) -> None:
    _, info, store, _, _ = hubei
    layer = json.loads(gzip.decompress(store.get("layer.json").data))
    assert layer["available"][0] == [{"startX": 0, "startY": 0, "endX": 1, "endY": 0}]
    assert len(layer["available"]) == info.max_level + 1
    assert layer["bounds"] == pytest.approx([108, 29, 116.5, 33.5], abs=1e-6)


def test_the_flat_sea_is_the_geoid_in_data_and_void_alike(tmp_path: Path) -> None:
    path = write_dem(tmp_path / "sea.tif", np.zeros((40, 40), np.int16), 122, 30, 0.01)
    info, store, _, _ = build(read_dem(path), tmp_path / "out")
    assert broken_laws(store) == []
    level = info.max_level
    found = existing(read_dem(path).coverage, level)
    lon, lat, heights = np.array(
        decode(store, level, found.x0, found.y0).getVerticesCoordinates()
    ).T
    assert (
        np.abs(heights - EGM96.separation(lon, lat)).max() < info.metadata["quantum_m"][str(level)]
    )


def test_heights_that_are_ellipsoidal_stay_as_they_are(tmp_path: Path) -> None:
    path = write_dem(tmp_path / "flat.tif", np.full((30, 30), 50, np.float32), 113, 32, 0.01)
    info, store, _, _ = build(read_dem(path, ELLIPSOIDAL), tmp_path / "out")
    level = info.max_level
    found = existing(read_dem(path).coverage, level)
    tile = decode(store, level, found.x0 + 1, found.y0 + 1)
    heights = np.array([c[2] for c in tile.getVerticesCoordinates()])
    assert np.abs(heights - 50).min() <= info.metadata["quantum_m"][str(level)]
    slopes = np.array(tile.vLight)[np.abs(heights - 50) < 0.01]
    up = np.array(
        [
            np.cos(np.radians(31.85)) * np.cos(np.radians(113.2)),
            np.cos(np.radians(31.85)) * np.sin(np.radians(113.2)),
            np.sin(np.radians(31.85)),
        ]
    )
    assert np.median(slopes @ up) > 0.999


def test_the_whole_globe_with_poles_and_antimeridian_breaks_no_law(tmp_path: Path) -> None:
    y, x = np.mgrid[0:90, 0:180]
    globe = (2000 * np.sin(x / 180 * 2 * np.pi * 3) * np.cos(y / 20) - 500).astype(np.float32)
    path = write_dem(tmp_path / "globe.tif", globe, -180, 90, 2.0, "EPSG:4326")
    info, store, _, _ = build(read_dem(path), tmp_path / "out")
    assert broken_laws(store) == []
    level = info.max_level
    for k, error in info.metadata["errors_m"].items():
        assert error <= info.metadata["geometric_error_m"][k]
    west, east = decode(store, level, 0, 1), decode(store, level, 2 ** (level + 1) - 1, 1)
    left = {west.v[i]: west.h[i] for i in west.westI}
    right = {east.v[i]: east.h[i] for i in east.eastI}
    assert left == right and len(set(left.values())) > 5


def test_a_dem_that_crosses_the_antimeridian_is_found_on_both_sides(tmp_path: Path) -> None:
    path = write_dem(
        tmp_path / "pacific.tif", np.full((20, 40), 900, np.float32), 178, 10, 0.1, "EPSG:4326"
    )
    source = read_dem(path, ELLIPSOIDAL)
    heights = source.raster.sample(np.array([179.0, -179.0, -177.0, 177.0]), np.full(4, 9.0))
    np.testing.assert_array_equal(heights, [900, 900, np.nan, np.nan])
    _, store, _, _ = build(source, tmp_path / "out", TerrainTiler(max_level=4))
    assert broken_laws(store) == []


def test_parallel_equals_serial_byte_for_byte(tmp_path: Path) -> None:
    source = read_dem(DATA / "dtm.tif")
    tiler = TerrainTiler(min_level=12, max_level=15)
    _, _, _, serial = build(source, tmp_path / "serial", tiler)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        _, _, _, parallel = build(source, tmp_path / "parallel", tiler, pool)
        checked = check_terrain_archive(tmp_path / "parallel" / "tiles.3tz", pool, lambda _: None)
    assert parallel == serial
    with closing(ThreeTzReader(tmp_path / "serial" / "tiles.3tz")) as store:
        assert checked == check_terrain(store)


def test_how_the_file_is_cut_into_blocks_and_sheets_does_not_matter(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    z = rng.normal(300, 40, (300, 330)).astype(np.float32)
    striped = write_dem(tmp_path / "striped.tif", z, 113, 32, 0.001, nodata=-9999)
    tiled = write_dem(
        tmp_path / "tiled.tif",
        z,
        113,
        32,
        0.001,
        nodata=-9999,
        tiled=True,
        blockxsize=64,
        blockysize=64,
        compress="deflate",
    )
    folder = tmp_path / "图幅"
    folder.mkdir()
    for i, (r, c) in enumerate([(0, 0), (0, 200), (120, 0), (120, 200)]):
        part = z[r : 120 if r == 0 else 300, c : 200 if c == 0 else 330]
        write_dem(
            folder / f"第{i}幅.tif", part, 113 + c * 0.001, 32 - r * 0.001, 0.001, nodata=-9999
        )
    tiler = TerrainTiler(min_level=8, max_level=10)
    shas = []
    for path in (striped, tiled, folder):
        source = read_dem(path)
        source.raster.coverage = (source.raster.extent,)
        shas.append(build(source, tmp_path / f"out-{path.stem}", tiler)[1:])
    tiles = []
    for store, _, _ in shas:
        keys = [k for k in store.keys() if k.endswith(".terrain")]
        tiles.append({k: gzip.decompress(store.get(k).data) for k in keys})
    assert tiles[0] == tiles[1]
    assert tiles[0].keys() == tiles[2].keys()
    for key, tile in tiles[0].items():
        mesh, other = quantized_mesh.decode(tile), quantized_mesh.decode(tiles[2][key])
        assert np.abs(mesh.heights_m() - other.heights_m()).max() < 0.03


@pytest.mark.parametrize("name", ["hubei", "dtm"])
def test_a_tile_made_alone_is_the_baked_tile(name: str, request: pytest.FixtureRequest) -> None:
    source, info, store, _, _ = request.getfixturevalue(name)
    spec = TerrainSpec.from_json(json.loads(json.dumps(info.metadata["terrain"])))
    made = 0
    for key in store.keys():
        if key.endswith(".terrain"):
            coord = TileCoord(*map(int, key.removesuffix(".terrain").split("/")))
            if coord.level % 3 == info.max_level % 3 or coord.level == info.max_level - 1:
                made += 1
                assert spec.has(coord)
                assert build_tile(source, spec, coord) == gzip.decompress(store.get(key).data)
    assert made > 10
    assert not spec.has(TileCoord(info.max_level, 0, 0))
    with pytest.raises(ConfigError, match="no level"):
        build_tile(source, spec, TileCoord(info.max_level + 1, 0, 0))


def test_scattered_sheets_get_tiles_where_they_are_and_nowhere_else(tmp_path: Path) -> None:
    folder = tmp_path / "sheets"
    folder.mkdir()
    z = np.full((50, 50), 10, np.float32)
    write_dem(folder / "a.tif", z, 113.0, 31.0, 0.001)
    write_dem(folder / "b.tif", z, 114.0, 32.0, 0.001)
    source = read_dem(folder)
    info, store, _, _ = build(source, tmp_path / "out")
    assert broken_laws(store) == []
    whole = existing((source.extent,), info.max_level).mask.sum()
    assert info.metadata["tiles_per_level"][str(info.max_level)] < whole / 10


class _StopAfter(SilentProgress):
    def __init__(self, steps: int) -> None:
        self.steps = steps

    def advance(self, amount: int = 1) -> None:
        self.steps -= amount
        if self.steps < 0:
            raise Cancelled("stopped by the user")


def test_a_cancelled_run_leaves_nothing_visible_and_resumes_to_the_same_bytes(
    tmp_path: Path, hubei: Any
) -> None:
    source, _, _, _, whole = hubei
    with pytest.raises(Cancelled):
        build(source, tmp_path / "run", progress=_StopAfter(2))
    assert not (tmp_path / "run" / "tiles.3tz").exists()
    assert list((tmp_path / "run" / "scratch").rglob("*.part"))
    assert build(source, tmp_path / "run")[3] == whole


def test_void_in_the_middle_is_a_hole_to_the_sea_but_its_rim_holds(tmp_path: Path) -> None:
    z = np.full((200, 200), 500, np.float32)
    z[60:140, 60:140] = -9999
    path = write_dem(tmp_path / "hole.tif", z, 113, 32, 0.001, nodata=-9999)
    source = read_dem(path, ELLIPSOIDAL)
    info, store, _, _ = build(source, tmp_path / "out")
    assert broken_laws(store) == []
    # Every pixel with data, the rim included, lies on the surface.
    assert info.metadata["errors_m"][str(info.max_level)] < 0.1


def test_levels_follow_the_resolution_and_are_checked() -> None:
    assert level_for(180 / 64) == 0
    assert level_for(180 / 64 / 2**9) == 9
    assert level_for(180 / 64 / 2**9 * 0.99) == 10
    source = read_dem(DATA / "hubei_p1511_5min.tif")
    assert TerrainTiler().levels(source)[-1] == 6
    assert TerrainTiler(min_level=4).levels(source) == (0, 4, 5, 6)
    with pytest.raises(ConfigError, match="levels 8 to 6"):
        TerrainTiler(min_level=8).levels(source)


def test_left_out_levels_leave_gaps_that_availability_tells(tmp_path: Path) -> None:
    source = read_dem(DATA / "hubei_p1511_5min.tif")
    _, store, _, _ = build(source, tmp_path, TerrainTiler(min_level=5))
    layer = json.loads(gzip.decompress(store.get("layer.json").data))
    assert [bool(a) for a in layer["available"]] == [True, False, False, False, False, True, True]
    assert broken_laws(store) == []


def test_heights_without_a_datum_are_refused() -> None:
    raster = read_dem(DATA / "hubei_p1511_5min.tif").raster
    raster.ref = raster.ref.with_vertical(None)
    with pytest.raises(DatumUndeclared, match="--vertical"):
        ElevationTerrain(raster)


class _Tampered:
    """A store with some tiles replaced or hidden."""

    def __init__(self, store: ThreeTzReader, changes: dict[str, bytes | None]) -> None:
        self.store, self.changes = store, changes

    def keys(self) -> Any:
        return (k for k in self.store.keys() if self.changes.get(k, b"") is not None)

    def get(self, key: str) -> StoredTile | None:
        if key in self.changes:
            data = self.changes[key]
            return None if data is None else StoredTile(data, "", None, "")
        return self.store.get(key)


@pytest.mark.parametrize(
    ("rule", "tamper"),
    [
        ("terrain-edge", lambda m: replace(m, h=np.where(m.u == 0, m.h ^ 1, m.h))),
        (
            "terrain-sphere",
            lambda m: replace(
                m, header=replace(m.header, sphere_radius_m=m.header.sphere_radius_m * 0.9)
            ),
        ),
        (
            "terrain-horizon",
            lambda m: replace(
                m, header=replace(m.header, horizon=tuple(0.99 * c for c in m.header.horizon))
            ),
        ),
        (
            "terrain-header",
            lambda m: replace(m, header=replace(m.header, horizon=(np.nan, 0.0, 0.0))),
        ),
        ("terrain-mesh", lambda m: replace(m, triangles=m.triangles[:-1])),
        (
            "terrain-mesh",
            lambda m: replace(m, u=np.where(m.u == 512, m.u - 512, m.u).astype(np.uint16)),
        ),
        ("terrain-normals", lambda m: replace(m, oct_normals=None)),
        (
            "terrain-normals",
            lambda m: replace(
                m, oct_normals=quantized_mesh.oct_encode(-quantized_mesh.oct_decode(m.oct_normals))
            ),
        ),
        ("terrain-format", None),
        ("terrain-available", "hide"),
    ],
)
def test_the_check_notices(hubei: Any, rule: str, tamper: Any) -> None:
    source, info, store, _, _ = hubei
    found = existing(source.coverage, info.max_level)
    key = f"{info.max_level}/{found.x0 + 1}/{found.y0 + 1}.terrain"
    body = gzip.decompress(store.get(key).data)
    if tamper is None:
        changed: bytes | None = body[: len(body) // 2]
    elif tamper == "hide":
        changed = None
    else:
        changed = quantized_mesh.encode(tamper(quantized_mesh.decode(body)))
    rules = {
        f.rule for f in check_terrain(_Tampered(store, {key: changed}))[0] if f.severity == "error"
    }
    assert rule in rules


def test_bounds_are_those_of_the_data(dtm: Any) -> None:
    source, info, _, _, _ = dtm
    assert info.bounds.bbox2d() == source.extent.bbox2d()
    assert info.bounds.contains(source.extent)
