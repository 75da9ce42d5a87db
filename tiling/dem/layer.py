"""One raster of a stack: what is known of it without opening it again.

The one idea: a layer is plain data, found once when the raster is described, so it travels to
workers and into the catalogue as JSON; whoever needs pixels opens the file.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from tiling.bounds import Region
from tiling.crs import TILE_REF, SpatialRef, to_lonlat, transform_points
from tiling.dem.places import Placing, find_placing
from tiling.ellipsoid import SEMI_MAJOR_M
from tiling.errors import DatumUndeclared, OutsideArea, StoreError

Affine6 = tuple[float, float, float, float, float, float]
Box = tuple[float, float, float, float]
Array = NDArray[np.float64]

METRES_PER_DEGREE = SEMI_MAJOR_M * math.pi / 180


@dataclass(frozen=True, slots=True)
class DemLayer:
    """A single-band raster of metres, with overviews.

    Attributes:
        path: the file.
        ref: frame of the pixels; ``ref.vertical`` is what heights are counted from.
        transform: x = a * column + c, y = e * row + f as (a, 0, c, 0, e, f).
        sizes: (width, height) of the raster and of its overviews, finest first.
        nodata: value of void pixels; None when only NaN is void.
        coverage: west, south, east, north of its sheets' outer edges, degrees.
        low_m, high_m: the data's range, metres in the datum.
        pixel_deg: the longer side of a pixel, degrees.
        resolution_deg: the shorter side.
        placing: how coordinates of nodes are found.
    """

    path: str
    ref: SpatialRef
    transform: Affine6
    sizes: tuple[tuple[int, int], ...]
    nodata: float | None
    coverage: tuple[Box, ...]
    low_m: float
    high_m: float
    pixel_deg: float
    resolution_deg: float
    placing: Placing

    @classmethod
    def describe(
        cls,
        path: str | os.PathLike[str],
        ref: SpatialRef,
        low_m: float,
        high_m: float,
        coverage: Sequence[Box] = (),
    ) -> DemLayer:
        """Describe a finished raster.

        Args:
            path: the file; its band holds metres.
            ref: its frame, with a vertical datum.
            low_m, high_m: the range of its heights in that datum.
            coverage: where its sheets are, degrees; the whole raster if empty.

        Raises:
            DatumUndeclared: `ref` has no vertical datum.
            StoreError: the file cannot be opened.
        """
        if ref.vertical is None:
            raise DatumUndeclared(
                "the heights of the elevation model have no vertical datum",
                source=str(path),
                remedy="declare it: --vertical EPSG:5737, ellipsoidal, offset:METRES or grid:FILE",
            )
        with opened(str(path)) as dataset:
            a, b, c, d, e, f = tuple(dataset.transform)[:6]
            nodata = dataset.nodatavals[0]
            sizes = [(dataset.width, dataset.height)]
            count = len(dataset.overviews(1))
        for level in range(count):
            with opened(str(path), level + 1) as dataset:
                sizes.append((dataset.width, dataset.height))
        transform = (a, b, c, d, e, f)
        width, height = sizes[0]
        box = lonlat_box(ref, transform, (0, 0, width, height))
        long_side, short_side = _pixel_deg(ref, transform, width, height)
        return cls(
            path=str(path),
            ref=ref,
            transform=transform,
            sizes=tuple(sizes),
            nodata=None if nodata is None or math.isnan(nodata) else float(nodata),
            coverage=tuple(coverage) or (box,),
            low_m=low_m,
            high_m=high_m,
            pixel_deg=long_side,
            resolution_deg=short_side,
            placing=find_placing(ref, box),
        )

    @property
    def box(self) -> Box:
        """West, south, east, north of everything, degrees."""
        west, south, east, north = zip(*self.coverage, strict=True)
        return min(west), min(south), max(east), max(north)

    @property
    def pixel_m(self) -> tuple[float, float]:
        """Width and height of a pixel in the middle of the layer, metres."""
        return pixel_sides_m(self.ref, self.transform, *self.sizes[0])

    def regions(self) -> tuple[Region, ...]:
        """Return the coverage with the range of ellipsoidal heights in it.

        The separation is sampled on 33 x 33 places; what it does between them stays within half
        a metre.

        Raises:
            OutsideArea: the geoid grid covers none of it.
        """
        assert self.ref.vertical is not None
        found = []
        for west, south, east, north in self.coverage:
            lon, lat = np.meshgrid(np.linspace(west, east, 33), np.linspace(south, north, 33))
            n = self.ref.vertical.separation_axes(lon[0], lat[:, 0])
            if np.isnan(n).all():
                raise OutsideArea(
                    "the elevation model lies outside the geoid grid",
                    source=self.ref.vertical.grid or self.path,
                    remedy="name a grid that covers the data, or --vertical EPSG:5773",
                )
            low, high = float(np.nanmin(n)), float(np.nanmax(n))
            slack = 0.0 if self.ref.vertical.kind != "grid" else 0.5 + 0.1 * (high - low)
            box = (west, south, east, north)
            found.append(Region(*box, self.low_m + low - slack, self.high_m + high + slack))
        return tuple(found)

    def level_for(self, step_deg: float) -> int:
        """Return the coarsest overview whose pixels are no larger than a step; 0: the raster."""
        chosen, width = 0, self.sizes[0][0]
        for level, size in enumerate(self.sizes):
            if self.pixel_deg * width / size[0] <= step_deg:
                chosen = level
        return chosen

    def pixels(self, x: Array, y: Array, level: int) -> tuple[Array, Array]:
        """Return pixel coordinates at a level of places in `ref`; 0 is the first centre."""
        a, _, c, _, e, f = self.transform
        width, height = self.sizes[0]
        # Overviews halve upwards: their pixels are not quite twice as large.
        u, v = self.sizes[level][0] / width, self.sizes[level][1] / height
        if self.ref.is_projected:
            return (x - c) / a * u - 0.5, (y - f) / e * v - 0.5
        # Longitudes repeat: bring them to the turn in which the raster lies.
        west = min(c, c + a * width) - 1e-6 * abs(a)
        return ((x - west) % 360 + west - c) / a * u - 0.5, (y - f) / e * v - 0.5

    def places(self, lon: Array, lat: Array) -> tuple[Array, Array]:
        """Return coordinates in `ref` of places in degrees, by PROJ."""
        x, y, _ = transform_points(TILE_REF, self.ref, lon, lat)
        return x, y

    def at(self, path: str | os.PathLike[str]) -> DemLayer:
        """Return the same layer in another place on the disk."""
        return replace(self, path=str(path))

    def to_json(self) -> dict[str, Any]:
        """Return everything but the path."""
        return {
            "ref": self.ref.to_json(),
            "transform": list(self.transform),
            "sizes": [list(size) for size in self.sizes],
            "nodata": self.nodata,
            "coverage": [list(box) for box in self.coverage],
            "range_m": [self.low_m, self.high_m],
            "pixel_deg": self.pixel_deg,
            "resolution_deg": self.resolution_deg,
            "placing": self.placing.to_json(),
        }

    @classmethod
    def from_json(cls, path: str | os.PathLike[str], data: dict[str, Any]) -> DemLayer:
        """Make a layer from what `to_json` returned."""
        return cls(
            path=str(path),
            ref=SpatialRef.from_json(data["ref"]),
            transform=tuple(data["transform"]),
            sizes=tuple((w, h) for w, h in data["sizes"]),
            nodata=data["nodata"],
            coverage=tuple((w, s, e, n) for w, s, e, n in data["coverage"]),
            low_m=data["range_m"][0],
            high_m=data["range_m"][1],
            pixel_deg=data["pixel_deg"],
            resolution_deg=data["resolution_deg"],
            placing=Placing.from_json(data["placing"]),
        )


def opened(path: str, level: int = 0) -> rasterio.DatasetReader:
    """Open a raster or one of its overviews (1 is the first); the caller closes it.

    Raises:
        StoreError: it cannot be opened.
    """
    options = {"OVERVIEW_LEVEL": level - 1} if level else {}
    try:
        return rasterio.open(path, **options)
    except rasterio.errors.RasterioError as error:
        raise StoreError(
            f"{path}: the elevation model cannot be opened ({error}): check that the file is "
            "there, or ingest it again"
        ) from error


def lonlat_box(ref: SpatialRef, transform: Affine6, window: tuple[int, int, int, int]) -> Box:
    """Return west, south, east, north of pixels' outer edges, degrees.

    Args:
        ref, transform: of the raster.
        window: first column and row, and the ones after the last.
    """
    a, _, c, _, e, f = transform
    x0, x1 = sorted((c + a * window[0], c + a * window[2]))
    y0, y1 = sorted((f + e * window[1], f + e * window[3]))
    t = np.linspace(0, 1, 33)
    x, y, flat = x0 + t * (x1 - x0), y0 + t * (y1 - y0), np.ones(33)
    lon, lat = to_lonlat(
        ref,
        np.concatenate([x, x, x0 * flat, x1 * flat]),
        np.concatenate([y0 * flat, y1 * flat, y, y]),
    )
    west, east = float(lon.min()), float(lon.max())
    if west >= 180:
        west, east = west - 360, east - 360
    elif east > 180:
        # 0 .. 360 rasters cross the antimeridian, which a box cannot.
        west, east = -180.0, 180.0
    # Pixel-is-point sheets of the whole Earth reach half a pixel beyond the poles.
    return max(west, -180.0), max(float(lat.min()), -90.0), east, min(float(lat.max()), 90.0)


def pixel_sides_m(
    ref: SpatialRef, transform: Affine6, width: int, height: int
) -> tuple[float, float]:
    """Return width and height of a pixel in the middle of a raster, metres."""
    a, _, c, _, e, f = transform
    x, y = c + a * width / 2, f + e * height / 2
    lon, lat = to_lonlat(ref, np.array([x, x + a, x]), np.array([y, y, y + e]))
    sides = np.hypot((lon[1:] - lon[0]) * math.cos(math.radians(lat[0])), lat[1:] - lat[0])
    return float(sides[0]) * METRES_PER_DEGREE, float(sides[1]) * METRES_PER_DEGREE


def _pixel_deg(ref: SpatialRef, transform: Affine6, width: int, height: int) -> tuple[float, float]:
    a, _, c, _, e, f = transform
    x, y = c + a * width / 2, f + e * height / 2
    lon, lat = to_lonlat(ref, np.array([x, x + a, x]), np.array([y, y, y + e]))
    steps = np.hypot(lon[1:] - lon[0], lat[1:] - lat[0])
    return float(steps.max()), float(steps.min())
