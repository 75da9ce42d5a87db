"""Relief: Horn's slopes in true metres, exact codes, pixels that depend on their place alone."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pyproj import Geod
from rasterio.errors import NotGeoreferencedWarning

from tests.tiling.surfaces import Analytic, hills
from tiling.bounds import Region
from tiling.coords import TileCoord
from tiling.formats.png import encode_png
from tiling.geoid import ELLIPSOIDAL, parse_vertical
from tiling.schemes import CGCS2000_QUAD, WEB_MERCATOR_QUAD, Scheme
from tiling.tilers import relief
from tiling.tilers.relief_window import Window, nodes, overlaps, pixels

SCHEMES = (WEB_MERCATOR_QUAD, CGCS2000_QUAD)
HILLS = Analytic(hills)


def tile_at(scheme: Scheme, level: int, lon: float = 113.5, lat: float = 31.5) -> TileCoord:
    x, y = scheme.tile_of([lon], [lat], level)
    return TileCoord(level, int(x[0]), int(y[0]))


def read_png(data: bytes) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.MemoryFile(data) as file, file.open() as dataset:
            return np.moveaxis(dataset.read(), 0, -1)


@given(
    arrays(
        np.uint8,
        st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4)),
    )
)
@settings(max_examples=60, deadline=None)
def test_a_png_holds_its_pixels_exactly(image: np.ndarray) -> None:
    assert np.array_equal(read_png(encode_png(image)), image)


def test_every_filter_of_a_png_is_undone_by_gdal() -> None:
    rng = np.random.default_rng(1)
    slope = np.add.outer(np.arange(64), 3 * np.arange(64))
    image = np.stack([slope % 256, slope.T % 256, rng.integers(0, 256, (64, 64))], axis=-1)
    image[10:20] = 7
    assert np.array_equal(read_png(encode_png(image.astype(np.uint8))), image)


def test_what_is_no_image_is_refused() -> None:
    for shape, kind in (((2, 2), np.uint8), ((2, 2, 5), np.uint8), ((2, 2, 1), np.uint16)):
        with pytest.raises(ValueError):
            encode_png(np.zeros(shape, kind))
    with pytest.raises(ValueError):
        encode_png(np.zeros((0, 2, 1), np.uint8))


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: s.name)
@pytest.mark.parametrize("level", [11, 15])
def test_a_pixel_has_the_height_of_its_centre(scheme: Scheme, level: int) -> None:
    tile = tile_at(scheme, level)
    plane = Analytic(lambda lon, lat: 1000 * lon + 500 * lat, Region(-180, -80, 180, 80))
    window = pixels(plane, scheme, tile, 256, 2)
    at = np.arange(-2, 258) + 0.5
    lon, lat = scheme.from_tile(at, at, tile, extent=256)
    assert np.allclose(window.lon, lon, rtol=0, atol=1e-11)
    assert np.allclose(window.lat, lat, rtol=0, atol=1e-11)
    assert np.allclose(window.heights, 1000 * lon + 500 * lat[:, None], rtol=0, atol=1e-6)
    assert window.inner.shape == (256, 256)


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: s.name)
@pytest.mark.parametrize("take", [pixels, nodes])
def test_neighbours_hold_the_same_bits_where_they_overlap(scheme: Scheme, take: object) -> None:
    tile = tile_at(scheme, 14)
    east, south = tile._replace(x=tile.x + 1), tile._replace(y=tile.y + 1)
    here, right, below = (
        take(HILLS, scheme, t, 64, 3).heights  # type: ignore[operator]
        for t in (tile, east, south)
    )
    assert np.isfinite(here).all()
    assert np.array_equal(here[:, 64:], right[:, :-64])
    assert np.array_equal(here[64:], below[:-64])


def test_a_window_goes_around_the_antimeridian_and_ends_at_the_poles() -> None:
    globe = Analytic(lambda lon, lat: np.cos(np.radians(lon)) + lat, Region(-180, -90, 180, 90))
    for scheme in SCHEMES:
        for level in (0, 3):
            columns, rows = scheme.size(level)
            for tile in (TileCoord(level, 0, 0), TileCoord(level, columns - 1, rows - 1)):
                window = pixels(globe, scheme, tile, 64, 2)
                expected = np.cos(np.radians(window.lon)) + window.lat[:, None]
                assert np.isfinite(window.heights).all()
                assert np.abs(window.heights - expected).max() < 2e-2


def horn_by_loops(window: Window) -> tuple[np.ndarray, np.ndarray]:
    """The published formula, pixel by pixel, distances from PROJ's geodesics."""
    geod = Geod(ellps="WGS84")
    h, lon, lat = window.heights, window.lon, window.lat
    rows, columns = h.shape[0] - 2, h.shape[1] - 2
    east, north = np.empty((rows, columns)), np.empty((rows, columns))
    for r in range(rows):
        across = geod.inv(lon[0], lat[r + 1], lon[2], lat[r + 1])[2]
        along = geod.inv(lon[0], lat[r], lon[0], lat[r + 2])[2]
        for c in range(columns):
            a, b, cc = h[r, c : c + 3]
            d, _, f = h[r + 1, c : c + 3]
            g, hh, i = h[r + 2, c : c + 3]
            east[r, c] = ((cc + 2 * f + i) - (a + 2 * d + g)) / (4 * across)
            north[r, c] = ((a + 2 * b + cc) - (g + 2 * hh + i)) / (4 * along)
    return east, north


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: s.name)
def test_slopes_and_shades_are_horns_in_true_metres(scheme: Scheme) -> None:
    window = pixels(HILLS, scheme, tile_at(scheme, 15), 64, 1)
    east, north = horn_by_loops(window)
    expected = np.degrees(np.arctan(np.hypot(east, north)))
    assert expected.max() > 5
    assert np.abs(relief.slope_deg(window) - expected).max() < 1e-3
    for azimuth, altitude, z in ((315, 45, 1), (90, 20, 1), (200, 60, 5)):
        # The formula of gdaldem: aspect and slope, not a scalar product.
        zenith = math.radians(90 - altitude)
        slope = np.arctan(z * np.hypot(east, north))
        downhill = np.arctan2(-east, -north)  # clockwise from north
        shade = math.cos(zenith) * np.cos(slope) + math.sin(zenith) * np.sin(slope) * np.cos(
            math.radians(azimuth) - downhill
        )
        grey = 1 + 254 * np.maximum(shade, 0)
        found = relief.hillshade(window, azimuth, altitude, z).astype(float)
        assert np.abs(found - grey).max() <= 0.51


def test_the_lit_side_is_bright_and_north_is_up() -> None:
    # Rises to the north: the southern light sees its face, the northern one its back.
    ramp = Analytic(lambda lon, lat: (lat - 31) * 40_000)
    window = pixels(ramp, WEB_MERCATOR_QUAD, tile_at(WEB_MERCATOR_QUAD, 14), 64, 1)
    south, north = (relief.hillshade(window, azimuth).mean() for azimuth in (180, 0))
    assert south > 230 > 150 > north


def test_voids_are_transparent_and_spare_their_neighbours() -> None:
    window = pixels(HILLS, CGCS2000_QUAD, tile_at(CGCS2000_QUAD, 14), 32, 1)
    holed = window.heights.copy()
    holed[10, 10] = np.nan
    window = window._replace(heights=holed)
    shade, slope = relief.hillshade(window), relief.slope_deg(window)
    assert shade[9, 9] == 0 and (np.delete(shade.ravel(), 9 * 32 + 9) > 0).all()
    assert np.isnan(slope).sum() == 1
    image = relief.with_voids(shade, np.isfinite(slope))
    assert image.shape == (32, 32, 2) and image[9, 9, 1] == 0 and image[0, 0, 1] == 255
    ramp = np.tile(np.arange(256, dtype=np.uint8)[:, None], 4)
    ramp[:, 3] = 255
    coloured = relief.coloured(slope, 0, 90, ramp)
    assert coloured.shape == (32, 32, 4) and coloured[9, 9].tolist() == [0, 0, 0, 0]
    assert relief.coloured(np.array([[0.0, 45.0, 90.0, 99.0]]), 0, 90, ramp)[0, :, 0].tolist() == [
        0,
        128,
        255,
        255,
    ]


@given(arrays(np.float64, (4, 5), elements=st.floats(-11_000, 9_000)))
def test_coded_heights_come_back(heights: np.ndarray) -> None:
    red, green, blue = np.moveaxis(relief.terrain_rgb(heights).astype(np.float64), -1, 0)
    mapbox = -10000 + (red * 65536 + green * 256 + blue) * 0.1
    assert np.abs(mapbox - np.maximum(heights, -10000)).max() <= 0.05 + 1e-9
    red, green, blue = np.moveaxis(relief.terrarium(heights).astype(np.float64), -1, 0)
    mapzen = red * 256 + green + blue / 256 - 32768
    assert np.abs(mapzen - heights).max() <= 1 / 512 + 1e-9


def test_voids_are_coded_as_the_sea() -> None:
    heights = np.array([[np.nan, 12.0]])
    assert relief.terrain_rgb(heights)[0, 0].tolist() == [1, 134, 160]
    window = Window(np.array([113.0, 113.5]), np.array([31.5]), heights, 0)
    assert relief.sea_m(window, parse_vertical("EPSG:5737")) == 0.0
    sea = np.asarray(relief.sea_m(window, ELLIPSOIDAL))
    assert sea.shape == (1, 2) and -20 < sea.min() < sea.max() < 0


def test_heights_are_counted_from_the_datum_that_is_asked_for() -> None:
    datum = parse_vertical("EPSG:5737")
    window = pixels(HILLS, WEB_MERCATOR_QUAD, tile_at(WEB_MERCATOR_QUAD, 12), 16, 0)
    above = window.above(datum)
    lon, lat = np.meshgrid(window.lon, window.lat)
    expected = window.heights - datum.separation(lon, lat)
    assert np.allclose(above.heights, expected, rtol=0, atol=1e-9)
    assert np.abs(above.heights - window.heights).min() > 5
    assert window.above(ELLIPSOIDAL) is window


def test_a_tile_that_only_touches_the_data_does_not_overlap_it() -> None:
    inside = tile_at(CGCS2000_QUAD, 10)
    assert overlaps(HILLS, CGCS2000_QUAD, inside)
    edge = CGCS2000_QUAD.bounds(inside)
    touching = Analytic(hills, Region(edge.east, edge.south, edge.east + 0.1, edge.north))
    assert not overlaps(touching, CGCS2000_QUAD, inside)
    assert overlaps(touching, CGCS2000_QUAD, inside._replace(x=inside.x + 1))
