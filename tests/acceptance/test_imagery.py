"""The image of the demo: a valid COG whose pixels and place are those of the source."""

from __future__ import annotations

import io

import numpy as np
import pytest
import rasterio
from rasterio.warp import transform_bounds
from rio_cogeo.cogeo import cog_validate

from tests.acceptance.conftest import Assets
from tests.acceptance.geodesy import reproject
from tests.acceptance.serving import BASE, Client
from tests.commands import DEMO_SOURCES

SOURCE = DEMO_SOURCES / "naip_north_dakota.tif"
# For compressions that lose nothing; JPEG and WEBP may be off by a few counts.
TOLERANCE = {"deflate": 0, "zstd": 0, "lzw": 0, "jpeg": 12, "webp": 12}


def test_the_image_is_a_valid_cog(demo: Assets) -> None:
    valid, errors, warnings = cog_validate(demo.store("naip-imagery", "cog"), strict=True)
    assert (valid, errors, warnings) == (True, [], [])


def test_the_dems_beside_terrain_are_valid_cogs_of_the_same_heights(demo: Assets) -> None:
    for asset, name in (
        ("hubei-terrain", "hubei_p1511_5min.tif"),
        ("washington-terrain", "washington_dtm.tif"),
    ):
        path = demo.store(asset, "cog")
        assert cog_validate(path)[:2] == (True, [])
        with rasterio.open(path) as made, rasterio.open(DEMO_SOURCES / name) as source:
            assert made.transform == source.transform
            assert made.crs == source.crs
            kept, heights = made.read(1), source.read(1)
            # Small voids that data encloses are filled; no height that was there changes.
            known = source.read_masks(1).astype(bool) & np.isfinite(heights)
            np.testing.assert_array_equal(kept[known], heights[known])
            filled = made.read_masks(1).astype(bool) & np.isfinite(kept) & ~known
            assert filled.sum() < 0.02 * known.size
            if filled.any():
                assert heights[known].min() <= kept[filled].min()
                assert kept[filled].max() <= heights[known].max()


def test_pixels_and_place_are_those_of_the_source(demo: Assets) -> None:
    allowed = TOLERANCE[demo.named("naip-imagery")["info"]["compression"]]
    with (
        rasterio.open(demo.store("naip-imagery", "cog")) as made,
        rasterio.open(SOURCE) as source,
    ):
        assert made.crs == source.crs
        assert made.transform == source.transform
        assert (made.shape, made.count, made.dtypes) == (source.shape, source.count, source.dtypes)
        difference = np.abs(made.read().astype(int) - source.read())
        assert difference.max() <= allowed


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")  # a bare PNG
def test_a_tile_shows_the_colours_that_lie_there(demo: Assets, demo_server: Client) -> None:
    with rasterio.open(SOURCE) as source:
        west, south, east, north = transform_bounds(source.crs, "EPSG:3857", *source.bounds)
        mean = source.read([1, 2, 3]).mean(axis=(1, 2))
    zoom = demo.named("naip-imagery")["info"]["max_level"]
    half, side = np.pi * 6378137, 2 * np.pi * 6378137 / 2**zoom
    x = int(((west + east) / 2 + half) // side)
    y = int((half - (south + north) / 2) // side)
    url = f"{BASE}/raster/naip-imagery/tiles/WebMercatorQuad/{zoom}/{x}/{y}.png"
    with rasterio.open(io.BytesIO(demo_server.content(url))) as tile:
        shown = tile.read()
    assert shown.shape[1:] == (256, 256)
    assert len(shown) == 3 or (shown[3] == 255).all()  # a tile without holes needs no alpha
    # The place as PROJ has it, nearest pixel, in every tile pixel.
    columns, rows = np.meshgrid((np.arange(256) + 0.5) / 256, (np.arange(256) + 0.5) / 256)
    east_m, north_m = (x + columns) * side - half, half - (y + rows) * side
    with rasterio.open(SOURCE) as source:
        u, v = reproject(3857, 26914, east_m.ravel(), north_m.ravel())
        column, row = ~source.transform * (u, v)
        wanted = source.read([1, 2, 3])[:, np.floor(row).astype(int), np.floor(column).astype(int)]
    difference = np.abs(shown[:3].reshape(3, -1).astype(int) - wanted)
    # Resampling may take the pixel beside it, never another place.
    assert np.median(difference) <= 2
    assert difference.mean() < np.abs(wanted - mean[:, None]).mean() / 2
