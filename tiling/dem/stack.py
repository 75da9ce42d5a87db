"""Layers over each other as one surface of ellipsoidal heights: the first with data wins.

The one idea: every step from a node to its height depends on the node's place and on the step
alone: the overview is chosen by the step, coordinates come from a fixed lattice of control points,
and the weight of a layer is the distance of the place to the edge of the layer's own data. So any
window of a lattice has the same bits, and neighbouring tiles share their edges.

Between centres of pixels heights are bilinear; within half a pixel of the outer edge the outermost
centres count. A place has a height when the pixel it lies in has one. Near the edge of its data
(and around its voids) a layer fades into those below it, over a few of their pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiling.batches import Lattice
from tiling.bounds import Region
from tiling.crs import TILE_REF, SpatialRef
from tiling.dem.blend import Blend
from tiling.dem.blocks import CACHE_NBYTES, Block, Blocks
from tiling.dem.centres import pixel_centres
from tiling.dem.kernels import bilinear, feather_weights
from tiling.dem.layer import Box, DemLayer
from tiling.dem.places import place_nodes
from tiling.errors import OutsideArea

Array = NDArray[np.float64]

# Width of a seam in pixels of the coarser layer, and at most as a share of the finer one's extent.
FEATHER_PIXELS = 3.0
_FEATHER_SHARE = 1 / 16
# Pixels of the overview from which weights are taken, to the width of a seam.
_PIXELS_A_FEATHER = 6
_FEATHER_BLOCK = 256
# Nodes that are computed at once: the pixels under them take some megabytes.
_STRIP_NODES = 1 << 18
# Degrees by which a node may lie outside a layer through rounding.
_SLACK_DEG = 1e-9


class DemStack:
    """A `tiling.batches.TerrainSource` over rasters; picklable, opens files when asked.

    Args:
        layers: in order of priority, at least one.
        cache_nbytes: the most that decoded blocks may take in a process.
        beneath: how many of them, the last, only fill what the others leave void around them: the
            terrain is not there for their sake, and is no larger and no finer because of them.
    """

    def __init__(
        self, layers: Sequence[DemLayer], cache_nbytes: int = CACHE_NBYTES, beneath: int = 0
    ) -> None:
        if not layers:
            raise ValueError("a stack has at least one layer")
        self.layers = tuple(layers)
        self.beneath = beneath
        self._cache_nbytes = cache_nbytes
        self._boxes = [layer.box for layer in self.layers]
        self.feathers_m = tuple(_feathers(self.layers, self._boxes))
        self._blocks = Blocks(cache_nbytes)
        self._coverage: tuple[Region, ...] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"layers": self.layers, "nbytes": self._cache_nbytes, "beneath": self.beneath}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["layers"], state["nbytes"], state["beneath"])  # type: ignore[misc]

    @property
    def ref(self) -> SpatialRef:
        """The frame of what `sample` takes and returns: degrees, ellipsoidal metres."""
        return TILE_REF

    @property
    def own(self) -> tuple[DemLayer, ...]:
        """The layers that are not beneath the others."""
        return self.layers[: len(self.layers) - self.beneath]

    @property
    def coverage(self) -> tuple[Region, ...]:
        """The places of the sheets and the range of ellipsoidal heights of their layers."""
        if self._coverage is None:
            self._coverage = tuple(r for layer in self.own for r in layer.regions())
        return self._coverage

    @property
    def extent(self) -> Region:
        """The place of everything, and the range of ellipsoidal heights found there."""
        whole = self.coverage[0]
        for region in self.coverage[1:]:
            whole = whole.union(region)
        low, high = whole.min_height_m, whole.max_height_m
        for layer in self.layers[len(self.own) :]:
            for region in layer.regions():
                low, high = min(low, region.min_height_m), max(high, region.max_height_m)
        return Region(*whole[:4], low, high)

    @property
    def resolution_deg(self) -> float:
        """The shorter side of the finest pixel, degrees."""
        return min(layer.resolution_deg for layer in self.own)

    def close(self) -> None:
        """Close files and forget blocks; asking again opens them again."""
        self._blocks.close()

    def to_json(self) -> dict[str, Any]:
        """Return the stack without the paths of its rasters."""
        layers: dict[str, Any] = {"layers": [layer.to_json() for layer in self.layers]}
        return {**layers, "beneath": self.beneath} if self.beneath else layers

    @classmethod
    def from_json(
        cls, paths: Sequence[Any], data: dict[str, Any], cache_nbytes: int = CACHE_NBYTES
    ) -> DemStack:
        """Make a stack from what `to_json` returned, or a version's ``info["terrain"]``.

        Args:
            paths: of the rasters, in order of priority.
            data: the JSON object, or one that holds it as ``dem``.
            cache_nbytes: see the class.
        """
        kept = data.get("dem", data)
        layers = zip(paths, kept["layers"], strict=True)
        made = [DemLayer.from_json(path, each) for path, each in layers]
        return cls(made, cache_nbytes, kept.get("beneath", 0))

    def heights(self, lattice: Lattice) -> Array:
        """Return the ellipsoidal heights of the nodes of a lattice; see the class.

        Returns:
            (rows, columns) float64 metres, row 0 southernmost; NaN where no layer has data.

        Raises:
            OutsideArea: a layer's geoid grid does not reach as far as its data.
            StoreError: a block cannot be read.
        """
        step = lattice.step_deg
        # Nodes are counted from -180, -90, so that a place has one name in every window.
        i = round((lattice.west_deg + 180) / step) + np.arange(lattice.columns)
        j = round((lattice.south_deg + 90) / step) + np.arange(lattice.rows)
        lon: Array = i.astype(np.float64) * step - 180
        lat: Array = j.astype(np.float64) * step - 90
        out = np.full((lattice.rows, lattice.columns), np.nan)
        strip = max(1, _STRIP_NODES // max(1, lattice.columns))
        for start in range(0, lattice.rows, strip):
            self._strip(lon, lat[start : start + strip], step, out[start : start + strip])
        return out

    def sample(self, lon_deg: Array, lat_deg: Array) -> Array:
        """Return the ellipsoidal heights at places, from the finest pixels.

        Args:
            lon_deg, lat_deg: (N,) degrees, in any order.

        Returns:
            (N,) float64 metres; NaN where no layer has data.

        Raises:
            OutsideArea, StoreError: see `heights`.
        """
        lon, lat = np.asarray(lon_deg, np.float64), np.asarray(lat_deg, np.float64)
        surface = Blend(lon.shape)
        for index, layer in enumerate(self.layers):
            west, south, east, north = self._boxes[index]
            near = (lon >= west - _SLACK_DEG) & (lon <= east + _SLACK_DEG)
            near &= (lat >= south - _SLACK_DEG) & (lat <= north + _SLACK_DEG)
            where = np.flatnonzero(near & (surface.left > 0))
            if not len(where):
                continue
            x, y = layer.places(lon[where], lat[where])
            heights = self._scattered(index, x, y, 0, self._pixels)
            data = np.isfinite(heights)
            where, x, y, heights = where[data], x[data], y[data], heights[data]
            assert layer.ref.vertical is not None
            heights += layer.ref.vertical.separation(lon[where], lat[where])
            surface.lay(
                where,
                heights,
                lambda part, index=index, x=x, y=y: self._scattered(  # type: ignore[misc]
                    index, x[part], y[part], self._feather_level(index), self._weights
                ),
                last=index == len(self.layers) - 1,
            )
        return surface.heights()

    def pixels(self, region: Region, limit: int) -> tuple[Array, Array, Array]:
        """Return pixels inside a region; see `tiling.batches.PixelSource`."""
        lon, lat = pixel_centres(self.layers, region, limit)
        heights = self.sample(lon, lat)
        data = np.isfinite(heights)
        return lon[data], lat[data], heights[data]

    def _strip(self, lon: Array, lat: Array, step: float, out: Array) -> None:
        surface: Blend | None = None
        reached = [k for k, box in enumerate(self._boxes) if _overlap(box, lon, lat)]
        for order, index in enumerate(reached):
            layer = self.layers[index]
            window = _inside(self._boxes[index], lon, lat)
            x, y = self._places(layer, lon[window[1]], lat[window[0]], step)
            heights = self._at(index, x, y, layer.level_for(step), self._pixels)
            if not np.isfinite(heights).any():
                continue
            self._add_separation(layer, lon[window[1]], lat[window[0]], heights)
            alone = surface is None and order == len(reached) - 1
            if alone:
                # Nothing else reaches the window: the sum of one part, and no weight matters.
                out[window] = heights
                return
            surface = surface or Blend(out.shape)
            surface.lay_window(
                window,
                heights,
                lambda index=index, x=x, y=y: self._at(  # type: ignore[misc]
                    index, x, y, self._feather_level(index), self._weights
                ),
                last=order == len(reached) - 1,
            )
            if surface.complete():
                break
        if surface is not None:
            out[:] = surface.heights()

    def _places(self, layer: DemLayer, lon: Array, lat: Array, step: float) -> tuple[Array, Array]:
        """Return coordinates of nodes: (n,), (m,) where rows are rows; else (m, n) both."""
        if layer.placing.kind == "same":
            return lon, lat
        return place_nodes(layer.ref, layer.placing, lon, lat, step)

    def _at(
        self, index: int, x: Array, y: Array, level: int, pixels: Callable[..., Block]
    ) -> Array:
        """Interpolate what `pixels` returns at the nodes of a lattice."""
        layer = self.layers[index]
        width, height = layer.sizes[level]
        column, row = layer.pixels(x, y, level)
        shape = column.shape if column.ndim == 2 else (len(row), len(column))
        out = np.full(shape, np.nan)
        bounds = _bounds(column, row, width, height)
        if bounds is None:
            return out
        window = pixels(index, level, bounds)
        if column.ndim == 1:
            column, row = column[None], row[:, None]
        bilinear(window, bounds[0], bounds[1], width, height, column, row, out)
        return out

    def _scattered(
        self, index: int, x: Array, y: Array, level: int, pixels: Callable[..., Block]
    ) -> Array:
        """Interpolate what `pixels` returns at places in any order, block by block."""
        layer = self.layers[index]
        width, height = layer.sizes[level]
        column, row = layer.pixels(x, y, level)
        out = np.full(len(column), np.nan)
        known = np.flatnonzero(np.isfinite(column) & np.isfinite(row))
        block = np.floor(row[known] / _FEATHER_BLOCK) * 2**32 + column[known] // _FEATHER_BLOCK
        order = known[np.argsort(block, kind="stable")]
        cuts = np.flatnonzero(np.diff(np.sort(block))) + 1
        for part in np.split(order, cuts):
            bounds = _bounds(column[part], row[part], width, height)
            if bounds is None:
                continue
            window = pixels(index, level, bounds)
            found = np.empty((1, len(part)))
            places = column[part][None], row[part][None]
            bilinear(window, bounds[0], bounds[1], width, height, *places, found)
            out[part] = found[0]
        return out

    def _pixels(self, index: int, level: int, bounds: tuple[int, int, int, int]) -> Block:
        return self._blocks.window(index, self.layers[index], level, bounds)

    def _weights(self, index: int, level: int, bounds: tuple[int, int, int, int]) -> Block:
        left, top, right, bottom = bounds
        size = _FEATHER_BLOCK
        out = np.empty((bottom - top, right - left), dtype=np.float32)
        for down in range(top // size, -(-bottom // size)):
            y0, y1 = max(top, down * size), min(bottom, (down + 1) * size)
            for across in range(left // size, -(-right // size)):
                x0, x1 = max(left, across * size), min(right, (across + 1) * size)
                key = (index, -1 - level, down, across)
                block = self._blocks.get(
                    key,
                    lambda down=down, across=across: self._feather(  # type: ignore[misc]
                        index, level, down, across
                    ),
                )
                y, x = down * size, across * size
                out[y0 - top : y1 - top, x0 - left : x1 - left] = block[
                    y0 - y : y1 - y, x0 - x : x1 - x
                ]
        return out

    def _feather(self, index: int, level: int, down: int, across: int) -> Block:
        layer, width = self.layers[index], self.feathers_m[index]
        scale = layer.sizes[0][0] / layer.sizes[level][0]
        step_x, step_y = (side * scale for side in layer.pixel_m)
        pixel = max(step_x, step_y)
        margin_x = math.ceil((width + pixel) / step_x)
        margin_y = math.ceil((width + pixel) / step_y)
        size = _FEATHER_BLOCK
        x, y = across * size, down * size
        bounds = (x - margin_x, y - margin_y, x + size + margin_x, y + size + margin_y)
        window = self._blocks.window(index, layer, level, bounds)
        out = np.empty((size, size), dtype=np.float32)
        feather_weights(window, margin_x, margin_y, step_x, step_y, width, out)
        return out

    def _feather_level(self, index: int) -> int:
        """Return the overview from which a layer's weights are taken; the step plays no part."""
        layer = self.layers[index]
        pixel = max(layer.pixel_m) * _PIXELS_A_FEATHER
        width = layer.sizes[0][0]
        chosen = 0
        for level, size in enumerate(layer.sizes):
            if pixel * width / size[0] <= self.feathers_m[index]:
                chosen = level
        return chosen

    def _add_separation(self, layer: DemLayer, lon: Array, lat: Array, heights: Array) -> None:
        vertical = layer.ref.vertical
        assert vertical is not None
        if vertical.kind != "grid":
            heights += vertical.offset_m
            return
        data = np.isfinite(heights)
        heights += vertical.separation_axes(lon, lat)
        lost = data & np.isnan(heights)
        if lost.any():
            j, i = np.argwhere(lost)[0]
            raise OutsideArea(
                f"{int(lost.sum())} places with heights lie outside the geoid grid, the first at "
                f"{lon[i]:.6f} E, {lat[j]:.6f} N",
                source=vertical.grid or vertical.code,
                remedy="name a grid that covers the data, or --vertical EPSG:5773",
            )


def _feathers(layers: Sequence[DemLayer], boxes: Sequence[Box]) -> list[float]:
    widths = []
    for index, layer in enumerate(layers):
        own = max(layer.pixel_m)
        below = [
            max(layers[k].pixel_m)
            for k in range(index + 1, len(layers))
            if _boxes_overlap(boxes[index], boxes[k])
        ]
        width = FEATHER_PIXELS * max(own, below[0] if below else own)
        sides = [n * side for n, side in zip(layer.sizes[0], layer.pixel_m, strict=True)]
        widths.append(max(own, min(width, min(sides) * _FEATHER_SHARE)))
    return widths


def _boxes_overlap(a: Box, b: Box) -> bool:
    return a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3]


def _overlap(box: Box, lon: Array, lat: Array) -> bool:
    rows, columns = _inside(box, lon, lat)
    return bool(rows.stop > rows.start and columns.stop > columns.start)


def _inside(box: Box, lon: Array, lat: Array) -> tuple[slice, slice]:
    west, south, east, north = box
    columns = np.searchsorted(lon, [west - _SLACK_DEG, east + _SLACK_DEG], side="right")
    rows = np.searchsorted(lat, [south - _SLACK_DEG, north + _SLACK_DEG], side="right")
    return slice(int(rows[0]), int(rows[1])), slice(int(columns[0]), int(columns[1]))


def _bounds(column: Array, row: Array, width: int, height: int) -> tuple[int, int, int, int] | None:
    """Return the pixels that interpolation at some places may touch; None: they lie outside."""
    c0, c1, r0, r1 = _ends(column, row)
    if not math.isfinite(c0 + c1 + r0 + r1):
        # Coordinates are infinite where a projection does not reach.
        known = np.isfinite(column) & np.isfinite(row)
        if not known.any():
            return None
        c0, c1, r0, r1 = _ends(column[known], row[known])
    left, right = max(c0, 0.0), min(c1, width - 1.0)
    top, bottom = max(r0, 0.0), min(r1, height - 1.0)
    if c1 < -1 or r1 < -1 or c0 > width or r0 > height:
        return None
    left, top = min(left, width - 1.0), min(top, height - 1.0)
    return (
        int(left),
        int(top),
        min(int(max(right, left)) + 2, width),
        min(int(max(bottom, top)) + 2, height),
    )


def _ends(column: Array, row: Array) -> tuple[float, float, float, float]:
    return float(column.min()), float(column.max()), float(row.min()), float(row.max())
