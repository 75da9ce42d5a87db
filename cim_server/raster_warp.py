"""Pixels of a raster under a map tile: one window read, one interpolation.

GDAL's warper makes a transformer for every tile, which for CGCS2000 frames costs more than
everything else together. Here places are computed once: in a geographic or Web Mercator raster
columns follow from longitude and rows from latitude, so two vectors say it all; in other frames
a lattice of places is projected and interpolated (error below 0.05 pixel). The window is read from
the coarsest overview that is not coarser than the tile, as it lies in the file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.windows import Window

from cim_server.open_rasters import OpenRasters, RasterFacts
from tiling.coords import TileCoord
from tiling.schemes import Scheme

# Cells of the lattice along a tile's edge; coarse tiles are bent more.
_CELLS, _COARSE_CELLS, _COARSE_LEVEL = 16, 48, 8
# Slack in choosing an overview: sizes are rounded up, so factors are not exactly powers of two.
_SLACK = 1.01
_TINY = 2
_EPSILON = 1e-4


class Pixels(NamedTuple):
    """Part of an image.

    Attributes:
        values: (bands, rows, columns) in the raster's own type or float32.
        opacity: (rows, columns) uint8, 0 where there is no pixel.
    """

    values: NDArray[Any]
    opacity: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class _Places:
    """Where output pixels lie in a raster, in pixels of its full resolution.

    Attributes:
        columns, rows: vectors when the axes are separable, else lattices over the output.
        shape: rows and columns of the output.
        separable: which of both.
    """

    columns: NDArray[np.float64]
    rows: NDArray[np.float64]
    shape: tuple[int, int]
    separable: bool

    def within(self, window: _Frame) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return columns and rows in the pixels of what was read: vectors, or (rows, columns)."""
        columns = (self.columns * window.scale[0] - window.origin[0]) * window.shrink[0]
        rows = (self.rows * window.scale[1] - window.origin[1]) * window.shrink[1]
        if self.separable:
            return columns, rows
        return _spread(columns, self.shape), _spread(rows, self.shape)


@dataclass(frozen=True, slots=True)
class _Frame:
    """From the full resolution to the array that was read: x, y of each factor and offset."""

    scale: tuple[float, float]
    origin: tuple[int, int]
    shrink: tuple[float, float]


def _spread(lattice: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.float32]:
    """Interpolate a lattice to (rows, columns), float32: places in a window are small numbers."""
    (low, high, share), (left, right, part) = (
        _even(count, cells - 1) for count, cells in zip(shape, lattice.shape, strict=True)
    )
    tall = lattice[low] + (lattice[high] - lattice[low]) * share[:, None]
    tall = tall.astype(np.float32)
    begin = np.take(tall, left, axis=1)
    spread: NDArray[np.float32] = begin + (np.take(tall, right, axis=1) - begin) * part
    return spread


def _even(count: int, cells: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.float32]]:
    at = np.linspace(0.0, cells, count)
    first = np.minimum(at.astype(np.int32), cells - 1)
    return first, first + 1, (at - first).astype(np.float32)


def tile_pixels(
    rasters: OpenRasters,
    facts: RasterFacts,
    scheme: Scheme,
    tile: TileCoord,
    size: int,
    bands: tuple[int, ...],
    nearest: bool = False,
) -> Pixels | None:
    """Return a raster's pixels under a tile, None when it does not reach there.

    Args:
        rasters: lends handles.
        facts: of the raster.
        scheme, tile: the tile.
        size: pixels along its edge.
        bands: bands wanted, from 1.
        nearest: take the nearest pixel (classes, palettes) instead of interpolating.
    """
    box = facts.bounds
    (left, right), (top, bottom) = scheme.to_tile(
        [box.west, box.east], [min(box.north, 89.999999), max(box.south, -89.999999)], tile, size
    )
    x0, x1 = max(0, math.floor(left)), min(size, math.ceil(right))
    y0, y1 = max(0, math.floor(top)), min(size, math.ceil(bottom))
    if x0 >= x1 or y0 >= y1:
        return None
    places = _places(facts, scheme, tile, size, (x0, x1, y0, y1))
    found = _sample(rasters, facts, places, bands, nearest)
    if found is None:
        return None
    if found.opacity.shape == (size, size):
        return found
    values = np.zeros((len(bands), size, size), found.values.dtype)
    opacity = np.zeros((size, size), np.uint8)
    values[:, y0:y1, x0:x1], opacity[y0:y1, x0:x1] = found
    return Pixels(values, opacity)


def _places(
    facts: RasterFacts, scheme: Scheme, tile: TileCoord, size: int, part: tuple[int, int, int, int]
) -> _Places:
    x0, x1, y0, y1 = part
    px, py = np.arange(x0, x1) + 0.5, np.arange(y0, y1) + 0.5
    shape = (len(py), len(px))
    if facts.axes != "other":
        lon, _ = scheme.from_tile(px, np.zeros_like(px), tile, size)
        _, lat = scheme.from_tile(np.zeros_like(py), py, tile, size)
        return _Places(*facts.columns_rows(lon, lat), shape, separable=True)
    cells = _CELLS if tile.level >= _COARSE_LEVEL else _COARSE_CELLS
    xs, ys = np.linspace(px[0], px[-1], cells + 1), np.linspace(py[0], py[-1], cells + 1)
    lon, lat = scheme.from_tile(*np.meshgrid(xs, ys), tile, size)
    return _Places(*facts.columns_rows(lon, lat), shape, separable=False)


def _span(values: NDArray[np.float64]) -> tuple[float, float]:
    return float(values.min()), float(values.max())


def _sample(
    rasters: OpenRasters,
    facts: RasterFacts,
    places: _Places,
    bands: tuple[int, ...],
    nearest: bool,
) -> Pixels | None:
    width, height = facts.levels[0]
    step = _step(places)
    # Of an image as small as a pixel or two the middles of pixels may all lie outside.
    if places.shape[1] <= _TINY:
        places = replace(places, columns=np.clip(places.columns, 0.0, width))
    if places.shape[0] <= _TINY:
        places = replace(places, rows=np.clip(places.rows, 0.0, height))
    (c0, c1), (r0, r1) = _span(places.columns), _span(places.rows)
    if c1 < 0 or r1 < 0 or c0 > width or r0 > height:
        return None
    level = max(
        (k for k, (w, h) in enumerate(facts.levels) if max(width / w, height / h) <= step * _SLACK),
        default=0,
    )
    w, h = facts.levels[level]
    # Coarser than the coarsest overview: GDAL averages blocks of n x n pixels while reading.
    n = max(1, 2 ** math.floor(math.log2(max(1.0, step * w / width))))
    left, right = _window(c0 * w / width, c1 * w / width, w, n)
    top, bottom = _window(r0 * h / height, r1 * h / height, h, n)
    window = Window(left, top, right - left, bottom - top)
    shape = -(-(bottom - top) // n), -(-(right - left) // n)
    with rasters.lent(facts.path, level) as dataset:
        how = {"window": window, "resampling": Resampling.nearest if nearest else _REDUCE}
        values = dataset.read(list(bands), out_shape=(len(bands), *shape), **how)
        opacity = None
        if facts.alpha:
            opacity = dataset.read(facts.alpha, out_shape=shape, **how)
        elif facts.masked:
            # All bands must have a value: no half pixels.
            masks = dataset.read_masks(list(bands), out_shape=(len(bands), *shape), window=window)
            opacity = masks.min(axis=0)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        finite = np.isfinite(values).all(axis=0)
        opacity = np.where(finite, 255 if opacity is None else opacity, 0).astype(np.uint8)
    if opacity is not None and opacity.dtype != np.uint8:
        opacity = (opacity > 0).astype(np.uint8) * np.uint8(255)
    shrink = shape[1] / (right - left), shape[0] / (bottom - top)
    frame = _Frame((w / width, h / height), (left, top), shrink)
    columns, rows = places.within(frame)
    edges = _Places(np.array([0.0, width]), np.array([0.0, height]), (0, 0), True).within(frame)
    inside_c, inside_r = (
        (at >= edge[0]) & (at <= edge[1]) for at, edge in zip((columns, rows), edges, strict=True)
    )
    inside = inside_r[:, None] & inside_c if places.separable else inside_r & inside_c
    whole = opacity is None or bool((opacity == 255).all())
    if nearest or not whole:
        return _irregular(values, opacity, columns, rows, places.separable, inside, nearest)
    blend = _bilinear_axes if places.separable else _bilinear
    return Pixels(blend(values, columns, rows), inside.astype(np.uint8) * np.uint8(255))


_REDUCE = Resampling.average


def _step(places: _Places) -> float:
    """Return the raster's pixels between two output pixels, the smaller of both directions."""
    down, across = places.shape
    c, r = places.columns, places.rows
    if places.separable:
        spans = (abs(c[-1] - c[0]), across), (abs(r[-1] - r[0]), down)
    else:
        spans = (
            (math.hypot(c[0, -1] - c[0, 0], r[0, -1] - r[0, 0]), across),
            (math.hypot(c[-1, 0] - c[0, 0], r[-1, 0] - r[0, 0]), down),
        )
    steps = [span / (count - 1) for span, count in spans if count > 1]
    # A single output pixel shows the whole raster.
    return max(1e-9, float(min(steps, default=1e9)))


def _window(low: float, high: float, limit: int, n: int) -> tuple[int, int]:
    """Return the pixels that interpolation between `low` and `high` may touch, in steps of n."""
    first = max(0, (math.floor(low) - 1) // n * n)
    last = min(limit, -(-(math.ceil(high) + 1) // n) * n)
    return min(first, limit - 1), max(last, min(first, limit - 1) + 1)


def _pair(
    at: NDArray[Any], count: int
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[Any]]:
    """Return the two pixels between whose middles places lie, and the weight of the second."""
    u = np.clip(at - at.dtype.type(0.5), 0, count - 1)
    first = np.minimum(u.astype(np.int32), max(count - 2, 0))
    return first, np.minimum(first + 1, count - 1), u - first.astype(u.dtype)


def _bilinear_axes(
    values: NDArray[Any], columns: NDArray[np.float64], rows: NDArray[np.float64]
) -> NDArray[Any]:
    """Interpolate along rows, then along columns; bytes in 16-bit integers."""
    r0, r1, v = _pair(rows, values.shape[1])
    c0, c1, u = _pair(columns, values.shape[2])
    if values.dtype == np.uint8:
        down = np.rint(v * 128).astype(np.uint16)[None, :, None]
        right = np.rint(u * 128).astype(np.uint16)[None, None, :]
        wide = values.astype(np.uint16)
        tall = wide[:, r0] * (128 - down)
        tall += wide[:, r1] * down
        tall += 64
        tall >>= 7
        out = np.take(tall, c0, axis=2) * (128 - right)
        out += np.take(tall, c1, axis=2) * right
        out += 64
        out >>= 7
        shallow: NDArray[Any] = out.astype(np.uint8)
        return shallow
    deep = values.astype(np.float32)
    below, beside = v.astype(np.float32)[None, :, None], u.astype(np.float32)[None, None, :]
    rows_done = deep[:, r0] * (1 - below) + deep[:, r1] * below
    mixed: NDArray[Any] = (
        np.take(rows_done, c0, axis=2) * (1 - beside) + np.take(rows_done, c1, axis=2) * beside
    )
    return mixed


def _bilinear(
    values: NDArray[Any], columns: NDArray[np.float32], rows: NDArray[np.float32]
) -> NDArray[Any]:
    bands, height, width = values.shape
    r0, r1, v = _pair(rows, height)
    c0, c1, u = _pair(columns, width)
    upper_row, lower_row = r0 * np.int32(width), r1 * np.int32(width)
    corners = upper_row + c0, upper_row + c1, lower_row + c0, lower_row + c1
    if values.dtype == np.uint8 and bands <= 4:
        return _bilinear_bytes(values, corners, u, v)
    flat = values.reshape(bands, -1)
    a, b, c, d = (np.take(flat, at, axis=1).astype(np.float32) for at in corners)
    v32, u32 = v.astype(np.float32), u.astype(np.float32)
    upper = a + (b - a) * u32
    lower = c + (d - c) * u32
    out: NDArray[Any] = upper + (lower - upper) * v32
    if values.dtype == np.uint8:
        out = np.rint(out).astype(np.uint8)
    return out


def _bilinear_bytes(
    values: NDArray[np.uint8],
    corners: tuple[NDArray[np.int32], ...],
    u: NDArray[Any],
    v: NDArray[Any],
) -> NDArray[np.uint8]:
    """Interpolate up to four bands of bytes at once, as the four bytes of 32-bit words.

    Two bytes apart there is room for a product of eight bits each: 255 * 256 < 2**16.
    """
    bands, height, width = values.shape
    packed = np.zeros((height, width, 4), np.uint8)
    packed[..., :bands] = values.transpose(1, 2, 0)
    words = packed.view(np.uint32).reshape(-1)
    a, b, c, d = (np.take(words, at) for at in corners)
    right = np.rint(u * 256).astype(np.uint32)
    down = np.rint(v * 256).astype(np.uint32)
    left, up = np.uint32(256) - right, np.uint32(256) - down
    out = np.zeros_like(a)
    half, low = np.uint32(0x00800080), np.uint32(0x00FF00FF)
    for shift in (np.uint32(0), np.uint32(8)):
        q, p, s, r = ((word >> shift) & low for word in (b, a, d, c))
        upper = ((p * left + q * right + half) >> np.uint32(8)) & low
        lower = ((r * left + s * right + half) >> np.uint32(8)) & low
        out |= (((upper * up + lower * down + half) >> np.uint32(8)) & low) << shift
    unpacked = out.view(np.uint8).reshape(*out.shape, 4)[..., :bands]
    apart: NDArray[np.uint8] = np.ascontiguousarray(unpacked.transpose(2, 0, 1))
    return apart


def _irregular(
    values: NDArray[Any],
    opacity: NDArray[np.uint8] | None,
    columns: NDArray[Any],
    rows: NDArray[Any],
    separable: bool,
    inside: NDArray[np.bool_],
    nearest: bool,
) -> Pixels:
    """Take the nearest pixel, and interpolate only where all four neighbours exist."""
    if separable:
        columns, rows = np.meshgrid(columns, rows)
    bands, height, width = values.shape
    row = np.clip(rows.astype(np.int32), 0, height - 1)
    column = np.clip(columns.astype(np.int32), 0, width - 1)
    near = values[:, row, column]
    seen = inside.astype(np.uint8) * np.uint8(255)
    if opacity is None:
        return Pixels(near, seen)
    shown = np.where(inside, opacity[row, column], 0).astype(np.uint8)
    if nearest:
        return Pixels(near, shown)
    r0, r1, _ = _pair(rows, height)
    c0, c1, _ = _pair(columns, width)
    full = opacity > 0
    whole = full[r0, c0] & full[r0, c1] & full[r1, c0] & full[r1, c1]
    known = np.where(full, values, 0)
    mixed = _bilinear(known, columns, rows)
    return Pixels(np.where(whole, mixed, near.astype(mixed.dtype)), shown)
