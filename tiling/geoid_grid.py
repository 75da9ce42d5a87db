"""Grids of geoid undulations: read once, kept, interpolated bilinearly.

Every format becomes one layout: float64 metres, rows from south to north, columns from west to
east, node-registered. Grids around the whole globe are periodic in longitude.
"""

from __future__ import annotations

import itertools
import lzma
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tiling.errors import OutsideArea, SourceUnreadable

_EGM96_SHAPE = (721, 1440)
_GTX_HEADER_NBYTES = 40
# VDatum's value for "no data" in .gtx files.
_GTX_NODATA = -88.8888
_MAX_UNDULATION_M = 200.0
# Runs of places between the same columns of a grid, from which they are all taken at once.
_MANY_RUNS = 32
_SUFFIXES = ".gtx, .tif, .asc, .dac"


@dataclass(frozen=True, slots=True)
class GeoidGrid:
    """A grid of undulations.

    Attributes:
        name: for messages.
        west_deg, south_deg: longitude and latitude of the first node (of its centre).
        step_lon_deg, step_lat_deg: positive spacing of the nodes.
        values: (rows, columns) float64 metres, south to north, west to east; NaN is no data.
    """

    name: str
    west_deg: float
    south_deg: float
    step_lon_deg: float
    step_lat_deg: float
    values: NDArray[np.float64]

    @property
    def periodic(self) -> bool:
        """Whether the columns go around the globe without a repeated last column."""
        return bool(abs(self.values.shape[1] * self.step_lon_deg - 360.0) < self.step_lon_deg / 100)

    def interpolate(
        self, lon_deg: NDArray[np.float64], lat_deg: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Interpolate bilinearly.

        Args:
            lon_deg: (N,) float64 degrees, any multiple of 360 added.
            lat_deg: (N,) float64 degrees.

        Returns:
            (N,) float64 metres; NaN only where a coordinate is NaN.

        Raises:
            OutsideArea: a point lies outside the grid or where it has no data.
        """
        rows, columns = self.values.shape
        known = np.isfinite(lon_deg) & np.isfinite(lat_deg)
        # A billionth of a step of slack: edge nodes must not fall out through rounding.
        x = np.mod(np.where(known, lon_deg, 0.0) - self.west_deg, 360.0) / self.step_lon_deg
        y = (np.where(known, lat_deg, self.south_deg) - self.south_deg) / self.step_lat_deg
        period = 360.0 / self.step_lon_deg
        x = np.where(x > period - 1e-6, 0.0, x) if not self.periodic else x
        inside = (y > -1e-6) & (y < rows - 1 + 1e-6)
        if not self.periodic:
            inside &= x < columns - 1 + 1e-6
        i = np.clip(np.floor(y), 0, rows - 2).astype(np.intp)
        if self.periodic:
            j = np.floor(x).astype(np.intp) % columns
            fx = x - np.floor(x)
        else:
            j = np.clip(np.floor(x), 0, columns - 2).astype(np.intp)
            fx = np.clip(x - j, 0.0, 1.0)
        k = (j + 1) % columns
        fy = np.clip(y - i, 0.0, 1.0)
        v = self.values
        south = v[i, j] * (1 - fx) + v[i, k] * fx
        north = v[i + 1, j] * (1 - fx) + v[i + 1, k] * fx
        result: NDArray[np.float64] = south * (1 - fy) + north * fy
        bad = known & ~(inside & np.isfinite(result))
        if bad.any():
            at = int(np.flatnonzero(bad)[0])
            raise OutsideArea(
                f"{int(bad.sum())} of {bad.size} points lie outside the geoid grid, the first at "
                f"{lon_deg.flat[at]:.6f} E, {lat_deg.flat[at]:.6f} N",
                source=self.name,
                remedy="name a grid that covers the data, or --vertical EPSG:5773",
            )
        return np.where(known, result, np.nan)

    def interpolate_axes(
        self, lon_deg: NDArray[np.float64], lat_deg: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Interpolate bilinearly where meridians cross parallels.

        Args:
            lon_deg: (n,) float64 degrees, any multiple of 360 added.
            lat_deg: (m,) float64 degrees.

        Returns:
            (m, n) float64 metres; NaN outside the grid.
        """
        rows, columns = self.values.shape
        x = np.mod(lon_deg - self.west_deg, 360.0) / self.step_lon_deg
        y = (lat_deg - self.south_deg) / self.step_lat_deg
        if self.periodic:
            j = np.floor(x).astype(np.intp) % columns
            fx = x - np.floor(x)
            beyond_x = np.zeros(len(x), dtype=bool)
        else:
            x = np.where(x > 360.0 / self.step_lon_deg - 1e-6, 0.0, x)
            j = np.clip(np.floor(x), 0, columns - 2).astype(np.intp)
            fx = np.clip(x - j, 0.0, 1.0)
            beyond_x = x >= columns - 1 + 1e-6
        i = np.clip(np.floor(y), 0, rows - 2).astype(np.intp)
        fy = np.clip(y - i, 0.0, 1.0)[:, None]
        beyond_y = ~((y > -1e-6) & (y < rows - 1 + 1e-6))
        # The few columns of the grid that are needed, brought to the parallels first.
        used, position = np.unique(np.stack([j, (j + 1) % columns]), return_inverse=True)
        position = position.reshape(2, -1)
        near = self.values[i[:, None], used] * (1 - fy) + self.values[i[:, None] + 1, used] * fy
        found: NDArray[np.float64] = np.empty((len(lat_deg), len(lon_deg)))
        # Between two columns of the grid lie many meridians, or few.
        cuts = [0, *(np.flatnonzero(np.diff(j)) + 1).tolist(), len(j)]
        if len(cuts) > _MANY_RUNS:
            found[:] = near[:, position[0]] * (1 - fx) + near[:, position[1]] * fx
        else:
            for first, last in itertools.pairwise(cuts):
                west, east = position[:, first : first + 1]
                part = np.s_[:, first:last]
                np.multiply(near[:, west], 1 - fx[first:last], out=found[part])
                found[part] += near[:, east] * fx[first:last]
        if beyond_x.any() or beyond_y.any():
            found[:, beyond_x] = np.nan
            found[beyond_y] = np.nan
        return found


@lru_cache(maxsize=1)
def bundled_egm96() -> GeoidGrid:
    """Return the EGM96 15' grid that ships with the package (US NGA, public domain)."""
    packed = (resources.files("tiling") / "data" / "WW15MGH.DAC.xz").read_bytes()
    return _from_dac(lzma.decompress(packed), "EGM96 15' (WW15MGH.DAC)")


def load_grid(path: str) -> GeoidGrid:
    """Read a user's grid.

    Args:
        path: ``.gtx``, ``.tif``/``.tiff`` (PROJ's geoid GeoTIFFs), ``.asc``, ``.dac``.

    Raises:
        SourceUnreadable: missing, damaged, of an unknown kind, or no grid of undulations.
    """
    file = Path(path)
    if not file.is_file():
        raise SourceUnreadable(
            "the geoid grid does not exist", source=path, remedy="name an existing file: grid:FILE"
        )
    # Another grid may come to lie under the same name while a process lives.
    status = file.stat()
    return _read_grid(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=8)
def _read_grid(path: str, _mtime_ns: int, _nbytes: int) -> GeoidGrid:
    file = Path(path)
    suffix = file.suffix.lower()
    if suffix == ".gtx":
        grid = _from_gtx(file.read_bytes(), path)
    elif suffix == ".dac":
        grid = _from_dac(file.read_bytes(), path)
    elif suffix in (".tif", ".tiff", ".asc"):
        grid = _from_raster(path)
    else:
        raise SourceUnreadable(
            f"a geoid grid of kind {suffix!r} is unknown", source=path, remedy=f"use {_SUFFIXES}"
        )
    return _checked(grid)


def _from_dac(data: bytes, name: str) -> GeoidGrid:
    rows, columns = _EGM96_SHAPE
    if len(data) != rows * columns * 2:
        raise SourceUnreadable(
            f"{len(data)} bytes, where an EGM96 .DAC file has {rows * columns * 2}",
            source=name,
            remedy=f"use {_SUFFIXES}",
        )
    values = np.frombuffer(data, dtype=">i2").reshape(rows, columns)[::-1] / 100.0
    return GeoidGrid(name, 0.0, -90.0, 0.25, 0.25, np.ascontiguousarray(values))


def _from_gtx(data: bytes, name: str) -> GeoidGrid:
    # NOAA VDatum: south, west, step lat, step lon (4 big-endian doubles), rows, columns (2 int32).
    if len(data) < _GTX_HEADER_NBYTES:
        raise SourceUnreadable("truncated .gtx header", source=name, remedy="fetch the file again")
    south, west, step_lat, step_lon = np.frombuffer(data, dtype=">f8", count=4).tolist()
    rows, columns = np.frombuffer(data, dtype=">i4", count=2, offset=32).tolist()
    if rows < 2 or columns < 2 or len(data) != _GTX_HEADER_NBYTES + rows * columns * 4:
        raise SourceUnreadable(
            f"a .gtx header of {rows} x {columns} nodes does not fit {len(data)} bytes",
            source=name,
            remedy="fetch the file again",
        )
    values = np.frombuffer(data, dtype=">f4", offset=_GTX_HEADER_NBYTES).reshape(rows, columns)
    cleaned = np.where(np.abs(values - _GTX_NODATA) < 1e-3, np.nan, values).astype(np.float64)
    return GeoidGrid(name, west, south, step_lon, step_lat, cleaned)


def _from_raster(path: str) -> GeoidGrid:
    # Imported here: most runs use the bundled grid and need no GDAL.
    import rasterio
    from rasterio.errors import RasterioError

    try:
        with rasterio.open(path) as dataset:
            transform = dataset.transform
            geographic = dataset.crs is None or dataset.crs.is_geographic
            band = dataset.read(1, masked=True)
            scale, offset = dataset.scales[0], dataset.offsets[0]
    except (RasterioError, ValueError) as error:
        raise SourceUnreadable(
            f"not a readable raster ({error})", source=path, remedy="fetch the file again"
        ) from error
    if not geographic or transform.b or transform.d or transform.a <= 0 or transform.e >= 0:
        raise SourceUnreadable(
            "a geoid grid must be a north-up raster in degrees of longitude and latitude",
            source=path,
            remedy="warp it to EPSG:4490 or EPSG:4326 first",
        )
    values = band.astype(np.float64).filled(np.nan)
    return GeoidGrid(
        path,
        transform.c + transform.a / 2,
        transform.f + transform.e * (values.shape[0] - 0.5),
        transform.a,
        -transform.e,
        np.ascontiguousarray(values[::-1]) * scale + offset,
    )


def _checked(grid: GeoidGrid) -> GeoidGrid:
    sane = (
        np.isfinite([grid.west_deg, grid.south_deg]).all()
        and grid.step_lon_deg > 0
        and grid.step_lat_deg > 0
        and grid.south_deg >= -90.0 - grid.step_lat_deg
        and grid.south_deg + grid.step_lat_deg * (grid.values.shape[0] - 1)
        <= 90.0 + grid.step_lat_deg
        and min(grid.values.shape) >= 2
    )
    known = grid.values[np.isfinite(grid.values)]
    if not sane or known.size == 0 or np.abs(known).max() > _MAX_UNDULATION_M:
        raise SourceUnreadable(
            "not a grid of geoid undulations: nodes must lie in degrees on the globe and values "
            f"within +-{_MAX_UNDULATION_M:.0f} m",
            source=grid.name,
            remedy=f"use {_SUFFIXES} with undulations in metres",
        )
    return grid
