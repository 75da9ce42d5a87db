"""Where an image lies on the globe, how fine it is there, and at which zooms it shows."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.io import DatasetReader

from tiling.bounds import Region
from tiling.crs import SpatialRef, to_lonlat
from tiling.ellipsoid import SEMI_MAJOR_M
from tiling.errors import RasterUnsupported
from tiling.tilers.cog import shown

_EDGE_POINTS = 33


def wgs84_twin(crs: CRS | None) -> str | None:
    """Return the WGS 84 frame that stands in for a CGCS2000 frame, None for other frames.

    The ellipsoids differ by 0.1 mm in the polar radius; the datums agree to centimetres, within
    what EPSG calls a null transformation. GDAL makes a transformation to Web Mercator of the twin
    a hundred times faster.
    """
    if crs is None or not any(n in crs.to_wkt() for n in ("China_2000", "CGCS2000", "China 2000")):
        return None
    if crs.is_geographic:
        return "EPSG:4326"
    terms = crs.to_dict()
    if terms.get("proj") != "tmerc":
        return None
    terms.pop("ellps", None)
    terms.pop("no_defs", None)
    return " ".join(f"+{k}={v}" for k, v in {**terms, "datum": "WGS84"}.items())


class Place(NamedTuple):
    """Where an image lies.

    Attributes:
        bounds: degrees.
        outline: (K, 2) lon/lat degrees of its outer edge, closed, counter-clockwise for an image
            whose rows run southwards.
        min_zoom, max_zoom: of WebMercatorQuad, at which it shows.
        resolution_m: metres on the ground of a pixel at the middle, the coarser of both sides.
    """

    bounds: Region
    outline: NDArray[np.float64]
    min_zoom: int
    max_zoom: int
    resolution_m: float


def image_place(source: DatasetReader) -> Place:
    """Return where an open image with a CRS and a straight geotransform lies.

    Raises:
        RasterUnsupported: it reaches beyond where its CRS can be placed on the globe.
    """
    ref = SpatialRef.parse(source.crs.to_wkt())
    a, _, c, _, e, f = tuple(source.transform)[:6]
    t = np.linspace(0, 1, _EDGE_POINTS)
    x, y = c + t * a * source.width, f + t * e * source.height
    flat = np.ones_like(t[1:])
    # Down the left side, along the bottom, up the right side, back along the top.
    lon, lat = to_lonlat(
        ref,
        np.concatenate([x[:1], x[0] * flat, x[1:], x[-1] * flat, x[-2::-1]]),
        np.concatenate([y[:1], y[1:], y[-1] * flat, y[-2::-1], y[0] * flat]),
    )
    if not (np.isfinite(lon).all() and np.isfinite(lat).all()):
        raise RasterUnsupported(
            f"the image reaches beyond where {ref.code} can be placed on the globe",
            source=shown(source.name),
            remedy="check --crs, or cut the image to the area of its CRS",
        )
    lon, lat = np.clip(lon, -180.0, 180.0), np.clip(lat, -90.0, 90.0)
    bounds = Region(float(lon.min()), float(lat.min()), float(lon.max()), float(lat.max()))
    x0, y0 = c + a * source.width / 2, f + e * source.height / 2
    lons, lats = to_lonlat(ref, np.array([x0, x0 + a, x0]), np.array([y0, y0, y0 + e]))
    # A degree of longitude is the same everywhere in Web Mercator; the height of a pixel there
    # grows with latitude just as its width does.
    step = math.hypot(float(lons[1] - lons[0]), float(lats[1] - lats[0]))
    finest = min(max(math.ceil(math.log2(360 / 256 / step) - 0.25), 0), 24)
    spread = math.ceil(math.log2(max(source.width, source.height, 256) / 256))
    east = (lons[1:] - lons[0]) * math.cos(math.radians(float(lats[0])))
    north = lats[1:] - lats[0]
    resolution_m = float(np.hypot(east, north).max()) * math.radians(1) * SEMI_MAJOR_M
    outline = np.column_stack([lon, lat])
    return Place(bounds, outline, max(0, finest - spread), finest, resolution_m)
