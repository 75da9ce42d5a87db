"""Heights from the pixel to the mesh: through the datum, and level by level.

Tiles are decoded by another decoder; heights are rasterio's pixels and the raw EGM96 file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.transform import from_origin

from tests.acceptance.conftest import Assets
from tests.acceptance.drawn import drawn_m
from tests.acceptance.geodesy import reproject, undulation_m
from tests.acceptance.test_hard_terrain import STEEP
from tests.acceptance.test_terrain import Tileset
from tests.commands import DEMO_SOURCES, Command

Floats = NDArray[np.float64]
_SIDE, _PIXEL_M = 120, 5.0


def _flat() -> NDArray[np.float32]:
    return np.full((_SIDE, _SIDE), 87.35, np.float32)


def _hills() -> NDArray[np.float32]:
    y, x = np.mgrid[:_SIDE, :_SIDE]
    return (140 + 40 * np.sin(x / 11) * np.cos(y / 13)).astype(np.float32)


def _published(cim: Command, source: Path, vertical: str, data: Path) -> tuple[Any, Tileset]:
    options = ["--kind", "terrain", "--vertical", vertical, "--area", "world", "--data", data]
    done = cim("ingest", source, "--id", "dem", *options)
    assert done.code == 0, done.err
    assets = Assets(data, tuple(cim("list", "--data", data, "--json").json()))
    return assets.named("dem")["info"], Tileset(assets.store("dem", "3tz"))


@pytest.mark.parametrize("shape", ["flat", "hills"])
def test_heights_of_1985_reach_the_tiles_within_a_centimetre(
    shape: str, cim: Command, tmp_path: Path
) -> None:
    values = _flat() if shape == "flat" else _hills()
    # Suizhou, beside the central meridian of 114 degrees.
    west, north = 441_300.0, 3_509_700.0
    source = tmp_path / "高程.tif"
    with rasterio.open(
        source, "w", driver="GTiff", width=_SIDE, height=_SIDE, count=1, dtype="float32",
        crs="EPSG:4547", transform=from_origin(west, north, _PIXEL_M, _PIXEL_M),
    ) as sink:  # fmt: skip
        sink.write(values, 1)
    info, terrain = _published(cim, source, "EPSG:5737", tmp_path / "data")
    # Beyond the outermost centres the ground falls to the sea.
    inner = np.s_[3:-3]
    rows, columns = (g[inner, inner].ravel() for g in np.mgrid[:_SIDE, :_SIDE])
    lon, lat = reproject(
        4547, 4490, west + (columns + 0.5) * _PIXEL_M, north - (rows + 0.5) * _PIXEL_M
    )
    expected = values[rows, columns].astype(np.float64) + undulation_m(lon, lat)
    error = np.abs(drawn_m(terrain.finest, lon, lat) - expected)
    deepest = str(info["max_level"])
    allowed_m = 0.01
    if shape == "hills":
        allowed_m += info["errors_m"][deepest] + info["quantum_m"][deepest]
    print(f"{shape}: {len(error)} pixels: at most {error.max():.4f} m of {allowed_m:.4f} m")
    # N is -20 m here: a datum that was left out, or taken twice, would be seen.
    assert np.abs(undulation_m(lon, lat)).min() > 10
    assert error.max() <= allowed_m


@pytest.fixture(scope="module", params=["washington", "tujunga"])
def case(
    request: pytest.FixtureRequest, cim: Command, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Any, Tileset, Path]:
    if request.param == "washington":
        demo: Assets = request.getfixturevalue("demo")
        tileset = Tileset(demo.store("washington-terrain", "3tz"))
        info = demo.named("washington-terrain")["info"]
        return request.param, info, tileset, DEMO_SOURCES / "washington_dtm.tif"
    data = tmp_path_factory.mktemp("tujunga") / "data"
    return request.param, *_published(cim, STEEP, "EPSG:5773", data), STEEP


def _pixels(path: Path) -> tuple[Floats, Floats, Floats]:
    """Return longitude, latitude and ellipsoidal height of pixels inside a DEM, 10,000 or so."""
    with rasterio.open(path) as dataset:
        band = dataset.read(1, masked=True)
        affine, frame = dataset.transform, dataset.crs.to_epsg()
    heights = np.where(np.ma.getmaskarray(band), np.nan, band.data.astype(np.float64))
    step = max(1, int(np.sqrt(band.size / 10_000)))
    rows, columns = (g.ravel() for g in np.mgrid[: band.shape[0] : step, : band.shape[1] : step])
    known = np.isfinite(heights[rows, columns])
    rows, columns = rows[known], columns[known]
    x, y = affine * (columns + 0.5, rows + 0.5)
    # NAD 83 stands for WGS 84, see `test_terrain.SOURCES`.
    lon, lat = reproject(frame, 4269 if frame == 26918 else 4326, x, y)
    return lon, lat, heights[rows, columns] + undulation_m(lon, lat)


def test_no_level_is_off_by_more_than_its_geometric_error(
    case: tuple[str, Any, Tileset, Path],
) -> None:
    name, info, terrain, source = case
    lon, lat, heights = _pixels(source)
    levels = sorted({level for level, _, _ in terrain.tiles})
    assert len(heights) > 5000 and len(levels) > 8
    for level in levels:
        tiles = [tile for (z, _, _), tile in terrain.tiles.items() if z == level]
        error = np.abs(drawn_m(tiles, lon, lat) - heights)
        allowed = info["geometric_error_m"][str(level)]
        print(f"{name} level {level}: {np.nanmax(error):.3f} of {allowed:.3f} m, "
              f"stated {info['errors_m'].get(str(level))}")  # fmt: skip
        assert np.isfinite(error).all()
        assert error.max() <= allowed, level
        # What is stated is measured at other places of the same surface.
        assert error.max() <= 1.05 * info["errors_m"][str(level)] + 0.01, level
