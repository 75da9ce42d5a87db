"""Relief of a surface as pixels: hillshade, slope, and heights coded as colours.

Pure functions of a window of heights. Slopes come from Horn's weighted differences over the eight
neighbours (B. K. P. Horn, "Hill shading and the reflectance map", Proc. IEEE 69 (1981), the
formula that GDAL's ``gdaldem`` uses), in metres on the ellipsoid: a degree of longitude is shorter
than one of latitude, and Mercator's pixels shrink towards the poles.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from tiling.geoid import VerticalDatum, parse_vertical
from tiling.tilers.relief_window import Window, metres_per_degree

Array = NDArray[np.float64]

# Horn's differences reach one pixel.
MARGIN = 1
# Mapbox Terrain-RGB: height = -10000 + code * 0.1; Mapzen Terrarium: height = code / 256 - 32768.
_RGB_BASE_M, _RGB_STEP_M = -10000.0, 0.1
_TERRARIUM_BASE_M, _TERRARIUM_STEP_M = -32768.0, 1 / 256
_MOST = 2**24 - 1


def gradients(window: Window) -> tuple[Array, Array]:
    """Return the rise to the east and to the north, metres per metre, by Horn's formula.

    A neighbour without a height takes that of the pixel itself; a pixel without one has none.

    Args:
        window: with a margin of at least one pixel.

    Returns:
        two (rows, columns) float64 arrays over the window without one pixel of margin, NaN where
        the pixel is void.
    """
    h = window.heights
    centre = h[1:-1, 1:-1]

    def at(down: int, right: int) -> Array:
        value = h[1 + down : h.shape[0] - 1 + down, 1 + right : h.shape[1] - 1 + right]
        return np.where(np.isfinite(value), value, centre)

    nw, n, ne = at(-1, -1), at(-1, 0), at(-1, 1)
    w, e = at(0, -1), at(0, 1)
    sw, s, se = at(1, -1), at(1, 0), at(1, 1)
    east_m, north_m = metres_per_degree(window.lat[1:-1])
    # Two pixels apart, the weights 1, 2, 1 add to four. At a pole there is no east.
    across = east_m * float(window.lon[2] - window.lon[0])
    along = north_m * (window.lat[:-2] - window.lat[2:])
    to_east = (ne + 2 * e + se) - (nw + 2 * w + sw)
    to_north = (nw + 2 * n + ne) - (sw + 2 * s + se)
    with np.errstate(divide="ignore", invalid="ignore"):
        east = np.where(across[:, None] > 0, to_east / (4 * across[:, None]), 0.0)
        north = np.where(along[:, None] > 0, to_north / (4 * along[:, None]), 0.0)
    void = ~np.isfinite(centre)
    east[void] = north[void] = np.nan
    return east, north


def hillshade(
    window: Window, azimuth_deg: float = 315.0, altitude_deg: float = 45.0, exaggeration: float = 1
) -> NDArray[np.uint8]:
    """Return the brightness of the surface under a distant light.

    ``1 + 254 * max(0, cos i)``, with i between the surface's normal and the light, as ``gdaldem
    hillshade`` scales it; 0 is kept for voids.

    Args:
        window: with a margin of one pixel.
        azimuth_deg: where the light comes from, clockwise from north.
        altitude_deg: its height above the horizon.
        exaggeration: what heights are multiplied with.

    Returns:
        (rows, columns) uint8.
    """
    east, north = gradients(window)
    azimuth, altitude = math.radians(azimuth_deg), math.radians(altitude_deg)
    east *= exaggeration
    north *= exaggeration
    lit = math.sin(altitude) - math.cos(altitude) * (
        east * math.sin(azimuth) + north * math.cos(azimuth)
    )
    lit /= np.sqrt(1 + east * east + north * north)
    shade = np.rint(1 + 254 * np.clip(lit, 0, 1))
    return np.where(np.isfinite(shade), shade, 0).astype(np.uint8)


def slope_deg(window: Window) -> Array:
    """Return the steepness of the surface.

    Args:
        window: with a margin of one pixel.

    Returns:
        (rows, columns) float64 degrees from the horizontal, NaN where void.
    """
    east, north = gradients(window)
    slope: Array = np.degrees(np.arctan(np.hypot(east, north)))
    return slope


def terrain_rgb(heights: Array, void_m: Array | float = 0.0) -> NDArray[np.uint8]:
    """Code heights as Mapbox Terrain-RGB: ``-10000 + (R * 65536 + G * 256 + B) * 0.1`` metres.

    Args:
        heights: (rows, columns) metres; what lies beyond the code's range is cut to it.
        void_m: the height that voids are given: the code has no word for them.

    Returns:
        (rows, columns, 3) uint8.
    """
    return _coded(heights, void_m, _RGB_BASE_M, _RGB_STEP_M)


def terrarium(heights: Array, void_m: Array | float = 0.0) -> NDArray[np.uint8]:
    """Code heights as Mapzen Terrarium: ``R * 256 + G + B / 256 - 32768`` metres.

    Args and returns are those of `terrain_rgb`.
    """
    return _coded(heights, void_m, _TERRARIUM_BASE_M, _TERRARIUM_STEP_M)


def _coded(heights: Array, void_m: Array | float, base: float, step: float) -> NDArray[np.uint8]:
    known = np.where(np.isfinite(heights), heights, void_m)
    code = np.clip(np.rint((known - base) / step), 0, _MOST).astype(np.uint32)
    return np.stack([code >> 16, (code >> 8) & 255, code & 255], axis=-1).astype(np.uint8)


def sea_m(window: Window, vertical: VerticalDatum) -> Array | float:
    """Return the height of the sea (the EGM96 geoid) in a vertical datum: what voids are given.

    Args:
        window: the places.
        vertical: what heights are counted from.

    Returns:
        (rows, columns) float64 metres, or 0 where the datum is sea level itself.
    """
    if vertical.kind != "ellipsoidal":
        return 0.0
    return parse_vertical("EPSG:5773").separation_axes((window.lon + 180) % 360 - 180, window.lat)


def with_voids(grey: NDArray[np.uint8], known: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return grey pixels as an image: with a band of alpha if something is void.

    Args:
        grey: (rows, columns) uint8.
        known: (rows, columns) bool.

    Returns:
        (rows, columns, 1 or 2) uint8.
    """
    if known.all():
        return grey[..., None]
    return np.stack([grey, np.where(known, 255, 0).astype(np.uint8)], axis=-1)


def coloured(values: Array, low: float, high: float, ramp: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return values as colours of a ramp; voids are transparent.

    Args:
        values: (rows, columns) float64, NaN where void.
        low, high: values of the ramp's first and last colour; beyond them those stay.
        ramp: (256, 4) uint8 RGBA.

    Returns:
        (rows, columns, 4) uint8, or 3 bands where everything is known and opaque.
    """
    known = np.isfinite(values)
    index = np.clip(np.where(known, (values - low) / (high - low), 0) * 255, 0, 255)
    image: NDArray[np.uint8] = ramp[np.rint(index).astype(np.uint8)]
    image[~known] = 0
    return image[..., :3] if bool((image[..., 3] == 255).all()) else image
