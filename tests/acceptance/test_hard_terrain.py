"""Terrain where it is hard: the laws of `test_terrain`, by its decoder, through the command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.transform import from_origin

from tests.acceptance.conftest import Assets
from tests.acceptance.geodesy import undulation_m
from tests.acceptance.test_terrain import (
    Tileset,
    test_headers_tell_the_truth_about_what_they_head,
    test_layer_json_promises_the_tiles_that_exist_and_no_other,
    test_neighbours_share_their_edges_bit_for_bit,
    test_normals_have_length_one_and_point_up,
)
from tests.commands import DEMO_SOURCES, Command

# Collected here once more, with the terrains of this module.
__all__ = [
    "test_headers_tell_the_truth_about_what_they_head",
    "test_layer_json_promises_the_tiles_that_exist_and_no_other",
    "test_neighbours_share_their_edges_bit_for_bit",
    "test_normals_have_length_one_and_point_up",
]

STEEP = Path(__file__).parent.parent / "data" / "raster" / "big_tujunga.tif"


def _write(
    path: Path, values: NDArray[Any], west: float, north: float, step: float, **more: Any
) -> Path:
    rows, columns = values.shape
    with rasterio.open(
        path, "w", driver="GTiff", width=columns, height=rows, count=1, dtype=values.dtype,
        crs="EPSG:4326", transform=from_origin(west, north, step, step), **more,
    ) as sink:  # fmt: skip
        sink.write(values, 1)
    return path


def _hills(rows: int, columns: int) -> NDArray[np.int16]:
    y, x = np.mgrid[:rows, :columns]
    hills = 900 + 600 * np.sin(x / 7) * np.cos(y / 9)
    return hills.astype(np.int16)


def _half_void(path: Path) -> Path:
    with rasterio.open(DEMO_SOURCES / "hubei_p1511_5min.tif") as source:
        values = source.read(1).astype(np.int16)[:48, :64]
        transform = source.transform
    values[:, : values.shape[1] // 2] = -32768
    values[10:13, -20:-14] = -32768
    return _write(path, values, transform.c, transform.f, transform.a, nodata=-32768)


def _two_halves(path: Path) -> Path:
    """Write sheets to either side of the antimeridian into a folder; their hills go on."""
    folder = path.parent / "sheets"
    folder.mkdir()
    hills = _hills(40, 80)
    _write(folder / "east.tif", hills[:, :40], 179.6, -16.0, 0.01)
    _write(folder / "west.tif", hills[:, 40:], -180.0, -16.0, 0.01)
    return folder


CASES: dict[str, Callable[[Path], Path]] = {
    "half void": _half_void,
    "steep": lambda path: STEEP,
    "flat sea": lambda path: _write(path, np.zeros((60, 60), np.int16), 121.5, 30.5, 0.01),
    "antimeridian": _two_halves,
    "pole": lambda path: _write(path, _hills(40, 200), 10.0, 90.0, 0.1),
}


@pytest.fixture(scope="module", params=CASES)
def published(
    request: pytest.FixtureRequest, cim: Command, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Assets]:
    folder = tmp_path_factory.mktemp("hard")
    source = CASES[request.param](folder / "dem.tif")
    options = ["--kind", "terrain", "--vertical", "EPSG:5773", "--area", "world"]
    data = folder / "data"
    done = cim("ingest", source, "--id", "dem", *options, "--data", data)
    assert done.code == 0, done.err
    assert cim("check", "dem", "--data", data).code == 0
    return request.param, Assets(data, tuple(cim("list", "--data", data, "--json").json()))


@pytest.fixture(scope="module")
def terrain(published: tuple[str, Assets]) -> Tileset:
    return Tileset(published[1].store("dem", "3tz"))


def test_no_level_is_off_by_more_than_a_viewer_assumes(published: tuple[str, Assets]) -> None:
    info = published[1].named("dem")["info"]
    for level, error in info["errors_m"].items():
        assert error <= info["geometric_error_m"][level], level


def test_every_height_is_of_the_data_or_of_the_sea(
    published: tuple[str, Assets], terrain: Tileset
) -> None:
    low, high = {
        "half void": (-1.0, 3500.0),
        "steep": (-1.0, 1700.0),
        "flat sea": (-0.05, 0.05),
        "antimeridian": (-1.0, 1500.0),
        "pole": (-1.0, 1500.0),
    }[published[0]]
    deepest = max(level for level, _, _ in terrain.tiles)
    quantum = published[1].named("dem")["info"]["quantum_m"][str(deepest)]
    for (level, _, _), tile in terrain.tiles.items():
        if level == deepest:
            above = tile.height - undulation_m(tile.lon, tile.lat)
            assert low - quantum <= above.min() and above.max() <= high + quantum


def test_a_sheet_across_the_antimeridian_is_refused_and_says_where(
    cim_here: Command, tmp_path: Path
) -> None:
    source = _write(tmp_path / "dem.tif", _hills(60, 100), 179.5, -16.0, 0.01)
    options = ["--kind", "terrain", "--vertical", "EPSG:5773", "--area", "world"]
    done = cim_here("ingest", source, "--id", "dem", *options, "--data", tmp_path / "data")
    assert done.code == 3
    assert "dem.tif" in done.err and "180.5" in done.err
    assert "antimeridian" in done.err and "name both" in done.err


def test_both_sides_of_the_antimeridian_have_tiles(
    published: tuple[str, Assets], terrain: Tileset
) -> None:
    if published[0] != "antimeridian":
        return
    deepest = max(level for level, _, _ in terrain.tiles)
    columns = {x for level, x, _ in terrain.tiles if level == deepest}
    assert {0, 2 * 2**deepest - 1} <= columns
