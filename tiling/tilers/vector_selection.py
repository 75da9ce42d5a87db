"""Which feature is drawn at which zoom, decided on all features at once, on cells of the world.

- Lines and polygons are drawn from the zoom on at which they are as large as a pixel.
- Smaller polygons are collected like dust: along a Z-order curve within a block of 64 x 64 pixels
  their areas add up, and whenever a pixel is full, the feature that filled it is drawn as that
  pixel. So a city of footprints stays as dark from afar as it is, and keeps its shape.
- Points stay while there is room: of those in a cell of 32 x 32 pixels the most important, and
  somewhat more of them where they are denser. What is drawn at a zoom is drawn at all that follow.

Neither tiles nor units of work nor the order in which features came enter, so none of them shows.
Pixels are those of tiles of 512 x 512.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray

from tiling.coords import morton2
from tiling.formats.mvt_geometry import LINE, POINT, POLYGON
from tiling.tilers.simplify import WORLD_M, smallest_m

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Masks = NDArray[np.uint32]

# Pixels of zoom z are the cells of level z + 9; places are kept to level 31.
_PIXEL_LEVELS, _PLACE_LEVEL = 9, 31
_BLOCK_BITS, _CELL_BITS = 6, 5
# A cell of this many points shows all of them.
_FREE_POINTS = 8
_AREA_UNITS = 100  # a square metre
_FILE = "outlines.npy"
_RECORD = np.dtype(
    [
        ("key", "<u8"),
        ("id", "<i8"),
        ("layer", "<i2"),
        ("kind", "u1"),
        ("size", "<f8"),
        ("x", "<u4"),
        ("y", "<u4"),
        ("rank", "<f8"),
    ]
)


@dataclass(frozen=True, slots=True)
class Outlines:
    """What is known of each of N features before any is drawn, ordered by (key, id).

    Attributes:
        records: (N,) of ``key`` and ``id`` as in the spool, ``layer`` (a number), ``kind``
            (1 point, 2 line, 3 polygon), ``size`` (side of the square of equal area, or longer
            side of the box, Web Mercator metres), ``x`` and ``y`` (cell of level 31 of the place
            that stands for it) and ``rank`` (the larger, the more important).
    """

    records: NDArray[np.void]

    @staticmethod
    def of(
        keys: NDArray[np.uint64],
        ids: Ints,
        layers: Ints,
        kinds: Ints,
        size_m: Floats,
        place_m: Floats,
        rank: Floats,
    ) -> NDArray[np.void]:
        """Return (N,) records of a batch; `place_m` is (2, N), Web Mercator metres."""
        records = np.empty(len(ids), dtype=_RECORD)
        records["key"], records["id"], records["layer"] = keys, ids, layers
        records["kind"], records["size"], records["rank"] = kinds, size_m, rank
        cells = float(1 << _PLACE_LEVEL) / WORLD_M
        last = (1 << _PLACE_LEVEL) - 1
        records["x"] = np.clip((place_m[0] + WORLD_M / 2) * cells, 0, last)
        records["y"] = np.clip((WORLD_M / 2 - place_m[1]) * cells, 0, last)
        return records

    @classmethod
    def gathered(cls, parts: list[NDArray[np.void]]) -> Outlines:
        """Return the records of all batches in the order of a spool."""
        every = np.concatenate(parts)
        return cls(every[np.lexsort((every["id"], every["key"]))])

    def save(self, folder: Path) -> None:
        """Write the records beside a spool."""
        np.save(folder / _FILE, self.records)

    @classmethod
    def load(cls, folder: Path) -> Outlines:
        """Read what `save` wrote."""
        return cls(np.load(folder / _FILE))


class Selection(NamedTuple):
    """Who is drawn when.

    Attributes:
        shown: (N,) uint32, bit z is set if the feature is drawn at zoom z.
        dust: (N,) uint32, bit z is set if it is drawn there as a pixel, for its neighbours too.
        dropped: rule -> zoom -> how many features are not drawn by it.
        pixels: zoom -> how many pixels stand for collected polygons.
    """

    shown: Masks
    dust: Masks
    dropped: dict[str, dict[str, int]]
    pixels: dict[str, int]


def spread(ids: Ints) -> Floats:
    """Return (N,) even numbers in 0 .. 1 without pattern: who stays when points are thinned."""
    # 2**64 / golden ratio: Fibonacci hashing, then a round of splitmix64.
    mixed = ids.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(29)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    return (mixed >> np.uint64(11)).astype(np.float64) / float(1 << 53)


def pixels_at(places_m: Floats, zoom: int) -> NDArray[np.object_]:
    """Return the pixels of a zoom that hold (2, N) places: squares, Web Mercator metres."""
    side = smallest_m(zoom)
    west = np.floor((places_m[0] + WORLD_M / 2) / side) * side - WORLD_M / 2
    south = WORLD_M / 2 - (np.floor((WORLD_M / 2 - places_m[1]) / side) + 1) * side
    return np.asarray(shapely.box(west, south, west + side, south + side), dtype=object)


def select(outlines: Outlines, zooms: Mapping[int, tuple[int, int]]) -> Selection:
    """Decide who is drawn at which zoom.

    Args:
        outlines: all features.
        zooms: the lowest zoom, and that of full detail, of each layer.

    Returns:
        what is decided, in the order of the records.
    """
    records = outlines.records
    most = max(zooms) + 1
    low, high = np.zeros(most, dtype=np.int64), np.zeros(most, dtype=np.int64)
    for layer, (first, last) in zooms.items():
        low[layer], high[layer] = first, last
    low, high = low[records["layer"]], high[records["layer"]]
    shown = np.left_shift(np.uint32(1), high.astype(np.uint32))
    dust = np.zeros(len(records), dtype=np.uint32)
    dropped: dict[str, dict[str, int]] = {
        "smaller_than_a_pixel": {},
        "collected": {},
        "thinned": {},
    }
    pixels: dict[str, int] = {}
    kinds, size = records["kind"], records["size"]
    curve = _Curve(records)
    stays = np.zeros(len(records), dtype=bool)  # points of lower zooms
    for zoom in range(int(low.min()), int(high.max())):
        bit = np.uint32(1 << zoom)
        drawn = (low <= zoom) & (zoom < high)
        large = drawn & (kinds != POINT) & (size >= smallest_m(zoom))
        small = drawn & (kinds != POINT) & ~large
        shown[large] |= bit
        lines, areas = small & (kinds == LINE), small & (kinds == POLYGON)
        _count(dropped["smaller_than_a_pixel"], zoom, int(lines.sum()))
        if areas.any():
            full = curve.full_pixels(areas, zoom)
            shown[full] |= bit
            dust[full] |= bit
            _count(dropped["collected"], zoom, int(areas.sum()) - len(full))
            _count(pixels, zoom, len(full))
        points = drawn & (kinds == POINT)
        if points.any():
            kept = curve.kept_points(points, stays & points, zoom)
            stays[kept] = True
            shown[kept] |= bit
            _count(dropped["thinned"], zoom, int(points.sum()) - len(kept))
    return Selection(shown, dust, dropped, pixels)


class _Curve:
    """The features along a Z-order curve through each layer."""

    def __init__(self, records: NDArray[np.void]) -> None:
        place = morton2(records["x"], records["y"])
        # Layers first; within a place by id.
        self.order = np.lexsort((records["id"], place, records["layer"]))
        self.place = place[self.order]
        self.layer = records["layer"][self.order].astype(np.int64)
        self.size = records["size"][self.order]
        # The place of each feature when all are sorted by importance.
        ids = records["id"][self.order]
        by_importance = np.lexsort((ids, spread(ids), -records["rank"][self.order]))
        self.importance = np.empty(len(ids), dtype=np.int64)
        self.importance[by_importance] = np.arange(len(ids))

    def full_pixels(self, chosen: NDArray[np.bool_], zoom: int) -> Ints:
        """Return those of the chosen polygons at which a pixel is full."""
        at = np.flatnonzero(chosen[self.order])
        # Whole numbers, because sums of them do not depend on what was summed before.
        area = np.rint(np.square(self.size[at]) * _AREA_UNITS).astype(np.int64)
        pixel = round(smallest_m(zoom) ** 2 * _AREA_UNITS)
        starts = self._starts(at, zoom, _BLOCK_BITS)
        total = np.cumsum(area)
        before = (total - area)[starts]
        # Half a pixel is there from the start: what is left at the end of a block evens out.
        within = total - np.repeat(before, np.diff(starts, append=len(at))) + pixel // 2
        fills = within // pixel > (within - area) // pixel
        return np.asarray(self.order[at[fills]])

    def kept_points(self, chosen: NDArray[np.bool_], stay: NDArray[np.bool_], zoom: int) -> Ints:
        """Return those of the chosen points that stay, `stay` among them."""
        at = np.flatnonzero(chosen[self.order])
        starts = self._starts(at, zoom, _CELL_BITS)
        counts = np.diff(starts, append=len(at))
        room = _FREE_POINTS + np.where(
            counts > _FREE_POINTS,
            np.floor(2 * np.log2(np.maximum(counts, 1) / _FREE_POINTS)),
            0,
        ).astype(np.int64)
        cell = np.repeat(np.arange(len(starts)), counts)
        sort = np.lexsort((self.importance[at], cell))
        position = np.empty(len(at), dtype=np.int64)
        position[sort] = np.arange(len(at)) - np.repeat(starts, counts)
        kept = (position < room[cell]) | stay[self.order[at]]
        return np.asarray(self.order[at[kept]])

    def _starts(self, at: Ints, zoom: int, bits: int) -> Ints:
        # Where along the curve each cell of 2**bits pixels a side begins.
        levels = max(0, _PLACE_LEVEL - (zoom + _PIXEL_LEVELS - bits))
        cell, layer = self.place[at] >> np.uint64(2 * levels), self.layer[at]
        changes = (np.diff(cell) != 0) | (np.diff(layer) != 0)
        return np.concatenate(([0], np.flatnonzero(changes) + 1)).astype(np.int64)


def _count(counts: dict[str, int], zoom: int, amount: int) -> None:
    if amount:
        counts[str(zoom)] = counts.get(str(zoom), 0) + amount
