"""The surface of a stack of rasters: where its heights come from, and that windows agree."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio import Affine

from tiling.batches import Lattice
from tiling.crs import TILE_REF, SpatialRef, to_lonlat, transform_points
from tiling.dem import DemLayer, DemStack
from tiling.dem.places import find_placing, place_nodes
from tiling.errors import DatumUndeclared, OutsideArea, StoreError

LEVEL_STEP = {level: 180 / 2**level / 64 for level in range(23)}
Array = NDArray[Any]


def dem(
    path: Path,
    values: Array,
    x: float = 113.0,
    y: float = 32.0,
    step: float = 0.001,
    crs: str = "EPSG:4490+ellipsoidal",
    nodata: float | None = None,
    overviews: bool = True,
) -> DemLayer:
    """A tiled GeoTIFF as a layer; voids are NaN, or `nodata`."""
    ref = SpatialRef.parse(crs)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=values.shape[1],
        height=values.shape[0],
        count=1,
        dtype=values.dtype,
        crs=crs.split("+")[0],
        transform=Affine(step, 0, x, 0, -step, y),
        nodata=nodata,
        tiled=True,
        blockxsize=512,
        blockysize=512,
    ) as sink:
        sink.write(values, 1)
    if overviews and max(values.shape) > 256:
        with rasterio.open(path, "r+") as sink:
            sink.build_overviews([2, 4, 8], rasterio.enums.Resampling.average)
    data = values[np.isfinite(values) & (values != nodata)].astype(np.float64)
    return DemLayer.describe(path, ref, float(data.min()), float(data.max()))


def hills(rows: int, columns: int, voids: float = 0.0, seed: int = 0) -> Array:
    random = np.random.default_rng(seed)
    row, column = np.mgrid[0:rows, 0:columns]
    z = 200 + 80 * np.sin(column / 37) * np.cos(row / 23) + random.random((rows, columns))
    z[random.random((rows, columns)) < voids] = np.nan
    return z.astype(np.float32)


def around(stack: DemStack, level: int, columns: int, rows: int) -> Lattice:
    """A lattice of a level centred on a stack."""
    box, step = stack.extent, LEVEL_STEP[level]
    i = round((box.west + box.east) / 2 / step) - columns // 2
    j = round((box.south + box.north) / 2 / step) - rows // 2
    return Lattice(i * step, j * step, step, columns, rows)


def part(lattice: Lattice, i: int, j: int, columns: int, rows: int) -> Lattice:
    step = lattice.step_deg
    return Lattice(lattice.west_deg + i * step, lattice.south_deg + j * step, step, columns, rows)


@pytest.fixture(scope="module")
def stacks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, DemStack]:
    folder = tmp_path_factory.mktemp("dem")
    x, y, _ = transform_points(TILE_REF, SpatialRef.parse("EPSG:4547"), [113.3], [31.7])
    metres = dem(folder / "metres.tif", hills(900, 700, 0.02), x[0], y[0], 12.0, "EPSG:4547+5737")
    degrees = dem(folder / "degrees.tif", hills(500, 800, 0.02), 113.25, 31.72, 0.0002)
    coarse = dem(
        folder / "coarse.tif",
        np.where(np.isnan(hills(300, 300, 0.01)), -9999, hills(300, 300)).astype(np.int16),
        113.2,
        31.8,
        0.001,
        "EPSG:4326+5773",
        -9999,
    )
    return {
        "degrees": DemStack([degrees]),
        "metres": DemStack([metres]),
        "stack": DemStack([metres, degrees, coarse]),
    }


@pytest.mark.parametrize("name", ["degrees", "metres", "stack"])
@given(
    st.integers(8, 16),
    st.integers(-3, 90),
    st.integers(-3, 90),
    st.integers(1, 64),
    st.integers(1, 64),
)
@settings(max_examples=40, deadline=None)
def test_a_node_has_the_same_bits_in_every_window(
    stacks: dict[str, DemStack], name: str, level: int, i: int, j: int, columns: int, rows: int
) -> None:
    stack = stacks[name]
    whole = around(stack, level, 160, 160)
    window = stack.heights(part(whole, i, j, columns, rows))
    # Nodes before the first of the whole are asked for as a window of a larger one.
    larger = stack.heights(part(whole, -3, -3, 170, 170))
    expected = larger[j + 3 : j + 3 + rows, i + 3 : i + 3 + columns]
    assert window.tobytes() == expected.tobytes()
    assert np.isfinite(stack.heights(whole)).any()


def test_a_plane_is_reproduced_at_every_step_in_any_frame(tmp_path: Path) -> None:
    row, column = np.mgrid[0:512, 0:512]
    z = (100 + 0.5 * column + 0.25 * row).astype(np.float32)
    layer = dem(tmp_path / "a.tif", z, 440000, 3508000, 5.0, "EPSG:4547+ellipsoidal")
    stack = DemStack([layer])
    used = set()
    for level in (12, 13, 14, 16, 18):
        lattice = around(stack, level, 40, 40)
        heights = stack.heights(lattice)
        lon = lattice.west_deg + np.arange(40) * lattice.step_deg
        lat = lattice.south_deg + np.arange(40) * lattice.step_deg
        x, y, _ = transform_points(TILE_REF, layer.ref, *(g.ravel() for g in np.meshgrid(lon, lat)))
        expected = 100 + 0.5 * ((x - 440000) / 5 - 0.5) + 0.25 * ((3508000 - y) / 5 - 0.5)
        inner = (np.abs(x - 441280) < 1200) & (np.abs(y - 3506720) < 1200)
        assert inner.sum() > 20
        np.testing.assert_allclose(heights.ravel()[inner], expected[inner], atol=2e-3)
        used.add(layer.level_for(lattice.step_deg))
    assert len(used) >= 3


@pytest.mark.parametrize(
    ("crs", "box"),
    [
        ("EPSG:4547", (112.6, 31.2, 114.3, 32.6)),
        ("EPSG:4526", (113.2, 31.5, 113.6, 31.9)),
        ("EPSG:3857", (100, -60, 120, 60)),
        ("EPSG:32650", (114, 0, 120, 84)),
        ("GCJ-02", (113.0, 31.0, 113.5, 31.5)),
        ("EPSG:3031", (0, -85, 90, -70)),
    ],
)
def test_coordinates_between_control_points_are_those_of_proj_to_five_millimetres(
    crs: str, box: tuple[float, float, float, float]
) -> None:
    ref = SpatialRef.parse(crs)
    placing = find_placing(ref, box)
    step = LEVEL_STEP[17]
    random = np.random.default_rng(1)
    worst = 0.0
    for _ in range(20):
        i = round((box[0] + random.random() * (box[2] - box[0])) / step) + np.arange(60)
        j = round((box[1] + random.random() * (box[3] - box[1])) / step) + np.arange(50)
        lon, lat = i * step, j * step
        x, y = place_nodes(ref, placing, lon, lat, step)
        grid = [g.ravel() for g in np.meshgrid(lon, lat)]
        true_x, true_y, _ = transform_points(TILE_REF, ref, *grid)
        worst = max(worst, np.abs(x.ravel() - true_x).max(), np.abs(y.ravel() - true_y).max())
    metres = 1.0 if ref.is_projected else 111_320.0
    assert worst * metres < 0.005
    assert placing.kind == "controls"


def test_cgcs2000_degrees_are_taken_as_they_are() -> None:
    assert find_placing(SpatialRef.parse("EPSG:4490"), (100, 20, 120, 50)).kind == "same"


def test_heights_are_ellipsoidal_to_a_centimetre(tmp_path: Path) -> None:
    z = np.full((300, 300), 50, np.float32)
    for crs in ("EPSG:4490+5737", "EPSG:4490+offset:-18.9", "EPSG:4490+ellipsoidal"):
        layer = dem(tmp_path / "a.tif", z, crs=crs)
        stack = DemStack([layer])
        lattice = around(stack, 11, 250, 80)
        lon = lattice.west_deg + np.arange(250) * lattice.step_deg
        lat = lattice.south_deg + np.arange(80) * lattice.step_deg
        grid = [g.ravel() for g in np.meshgrid(lon, lat)]
        assert layer.ref.vertical is not None
        expected = 50 + layer.ref.vertical.separation(*grid).reshape(80, 250)
        heights = stack.heights(lattice)
        data = np.isfinite(heights)
        assert 3000 < data.sum() < data.size
        np.testing.assert_allclose(heights[data], expected[data], atol=1e-6)
        low, high = stack.extent[4:]
        assert low <= heights[data].min() and heights[data].max() <= high < low + 3


def test_within_half_a_pixel_of_the_edge_the_outermost_centres_count_and_beyond_nothing_does(
    tmp_path: Path,
) -> None:
    stack = DemStack([dem(tmp_path / "a.tif", np.array([[1, 2], [3, 4]], np.float32), 113, 32, 1)])
    lon = np.array([113.0, 115.0, 113.25, 114.0, 112.999, 114.0])
    lat = np.array([32.0, 30.0, 31.5, 31.0, 31.5, 29.99])
    np.testing.assert_array_equal(stack.sample(lon, lat), [1, 4, 1, 2.5, np.nan, np.nan])
    step = LEVEL_STEP[4]
    lattice = Lattice(112.5, 29.53125, step, 17, 17)
    heights = stack.heights(lattice)
    lon, lat = 112.5 + np.arange(17) * step, 29.53125 + np.arange(17) * step
    grid_lon, grid_lat = np.meshgrid(lon, lat)
    assert stack.layers[0].level_for(step) == 0
    np.testing.assert_array_equal(heights.ravel(), stack.sample(grid_lon.ravel(), grid_lat.ravel()))


def test_a_place_has_a_height_when_the_pixel_it_lies_in_has_one(tmp_path: Path) -> None:
    z = np.array([[10, -9999], [10, 30]], np.int16)
    stack = DemStack([dem(tmp_path / "a.tif", z, 113, 32, 1, nodata=-9999)])
    found = stack.sample(np.array([113.9, 114.1, 114.4]), np.array([31.5, 31.5, 30.6]))
    assert found[0] == 10 and np.isnan(found[1]) and np.isfinite(found[2])


def test_a_raster_of_0_to_360_degrees_is_found_on_both_sides(tmp_path: Path) -> None:
    z = np.tile(np.arange(36, dtype=np.float32), (18, 1))
    stack = DemStack([dem(tmp_path / "a.tif", z, 0, 90, 10)])
    found = stack.sample(np.array([5.0, 175.0, -175.0, -5.0]), np.zeros(4))
    np.testing.assert_array_equal(found, [0, 17, 18, 35])
    lattice = Lattice(-180, -45, 45 / 64, 512, 20)
    assert np.isfinite(stack.heights(lattice)).all()
    assert stack.heights(lattice)[0, 0] == pytest.approx(17.5)


def test_a_stack_travels_as_json_and_as_a_pickle(stacks: dict[str, DemStack]) -> None:
    stack = stacks["stack"]
    lattice = around(stack, 14, 50, 50)
    paths = [layer.path for layer in stack.layers]
    again = DemStack.from_json(paths, {"dem": stack.to_json(), "spec": None})
    for other in (again, pickle.loads(pickle.dumps(stack))):
        assert other.heights(lattice).tobytes() == stack.heights(lattice).tobytes()
        assert (other.extent, other.coverage) == (stack.extent, stack.coverage)
        assert other.resolution_deg == stack.resolution_deg
    stack.close()
    assert stack.heights(lattice).tobytes() == again.heights(lattice).tobytes()


def test_blocks_stay_within_their_budget(tmp_path: Path) -> None:
    layer = dem(tmp_path / "a.tif", hills(2600, 2600), step=0.0001)
    small, large = DemStack([layer], cache_nbytes=3 << 20), DemStack([layer])
    lattice = around(small, 15, 1500, 1500)
    assert small.heights(lattice).tobytes() == large.heights(lattice).tobytes()
    kept = small._blocks
    assert kept._nbytes == sum(b.nbytes for b in kept._blocks.values()) <= 3 << 20


def test_what_is_missing_or_undeclared_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DatumUndeclared, match="no vertical datum"):
        dem(tmp_path / "a.tif", hills(4, 4), crs="EPSG:4490")
    layer = dem(tmp_path / "a.tif", hills(40, 40))
    stack = DemStack([layer])
    (tmp_path / "a.tif").unlink()
    with pytest.raises(StoreError, match=r"a\.tif"):
        stack.heights(around(stack, 10, 4, 4))


def test_data_beyond_a_users_geoid_grid_is_refused(tmp_path: Path) -> None:
    grid = tmp_path / "geoid.tif"
    with rasterio.open(
        grid, "w", driver="GTiff", width=4, height=4, count=1, dtype="float32",
        crs="EPSG:4326", transform=Affine(0.1, 0, 112.9, 0, -0.1, 32.05),
    ) as sink:  # fmt: skip
        sink.write(np.full((1, 4, 4), -18, np.float32))
    layer = dem(tmp_path / "a.tif", hills(400, 400), crs=f"EPSG:4490+grid:{grid}")
    with pytest.raises(OutsideArea, match="geoid grid"):
        DemStack([layer]).heights(Lattice(113.0625, 31.640625, LEVEL_STEP[10], 120, 120))


def two_plains(
    folder: Path, fine: float, coarse: float, voids: tuple[slice, slice] | None = None
) -> DemStack:
    z = np.full((400, 400), fine, np.float32)
    if voids:
        z[voids] = np.nan
    return DemStack(
        [
            dem(folder / "fine.tif", z, 113.1, 31.9, 0.0001),
            dem(folder / "coarse.tif", np.full((300, 300), coarse, np.float32), 113, 32, 0.001),
        ]
    )


def test_the_first_layer_wins_and_fades_into_the_next_without_a_step(tmp_path: Path) -> None:
    stack = two_plains(tmp_path, 100.0, 110.0)
    lon = np.linspace(113.09, 113.12, 3001)
    heights = stack.sample(lon, np.full(3001, 31.88))
    assert (heights[lon < 113.1] == 110).all() and (heights[lon > 113.105] == 100).all()
    fading = (lon > 113.1) & (lon < 113.105)
    assert (np.diff(heights) <= 1e-9).all()
    # A smoothstep over three pixels of 0.001 degrees: nowhere steeper than 1.5 times the mean.
    share = np.diff(heights)[fading[1:]] / np.diff(lon)[0]
    assert share.min() > -1.7 * 10 / 0.0025
    assert stack.feathers_m[0] == pytest.approx(min(3 * 111.3, 400 * 9.45 / 16), rel=0.01)


def test_voids_of_the_finer_layer_are_filled_from_the_coarser_one(tmp_path: Path) -> None:
    stack = two_plains(tmp_path, 100.0, 110.0, np.s_[180:220, 180:220])
    lon, lat = np.meshgrid(np.linspace(113.119, 113.121, 20), np.linspace(31.879, 31.881, 20))
    assert (stack.sample(lon.ravel(), lat.ravel()) == 110).all()
    lattice = around(DemStack([stack.layers[0]]), 16, 200, 200)
    heights = stack.heights(lattice)
    assert heights.min() == 100 and heights.max() == 110
    # No step at the edge of the void, where the layers differ by ten metres.
    assert np.abs(np.diff(heights, axis=0)).max() < 1.5


def test_where_one_layer_alone_has_data_its_own_bits_count(tmp_path: Path) -> None:
    z = hills(400, 400)
    fine = dem(tmp_path / "fine.tif", z, 113.1, 31.9, 0.0001)
    void = np.full((300, 300), np.nan, np.float32)
    void[0, 0] = 5
    below = dem(tmp_path / "coarse.tif", void, 113, 32, 0.001)
    lattice = around(DemStack([fine]), 16, 120, 120)
    alone, both = DemStack([fine]).heights(lattice), DemStack([fine, below]).heights(lattice)
    assert alone.tobytes() == both.tobytes()


def test_frames_and_datums_may_differ_between_layers(tmp_path: Path) -> None:
    ref = SpatialRef.parse("EPSG:4547")
    x, y, _ = transform_points(TILE_REF, ref, [113.1], [31.9])
    fine = dem(
        tmp_path / "fine.tif", np.full((400, 400), 68.9, np.float32), x[0], y[0], 10.0,
        "EPSG:4547+offset:-18.9",
    )  # fmt: skip
    coarse = dem(tmp_path / "c.tif", np.full((300, 300), 50, np.float32), 113, 32, 0.001)
    stack = DemStack([fine, coarse])
    heights = stack.heights(around(stack, 13, 300, 300))
    np.testing.assert_allclose(heights[np.isfinite(heights)], 50.0, atol=1e-5)
    lon, lat = to_lonlat(ref, x + 2000, y - 2000)
    assert stack.sample(lon, lat)[0] == pytest.approx(50.0, abs=1e-5)
