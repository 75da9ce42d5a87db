"""The pixels of a group of sheets, cleaned: a band of them is a unit of work.

The one idea: a band is read chunk by chunk with a rim, so that spikes and voids are judged as they
would be in the raster as a whole; its blocks are compressed at once, and what was found on the way
is added up band by band. Bands are independent of each other and run in any worker.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from ingest.dem_groups import DemGroup, Placed
from ingest.dem_sheets import GroupSheets, boxes, touching
from ingest.zero_land import ZeroLand
from tiling.crs import SpatialRef, to_lonlat
from tiling.dem import DemStack
from tiling.dem.cleaning import OUTLIER_M, OUTLIER_SLOPE, fill_voids, find_outliers
from tiling.findings import MAX_SAMPLES
from tiling.tilers.dem_cog import Image, base_tiles
from tiling.tilers.pipeline import Tile, UnitResult

DEFAULT_FILL_PIXELS = 8
# A band: tall enough that few pixels of its rim are read twice, and some 8 million pixels.
BAND_ROWS, BAND_COLUMNS = 1024, 8192
# Of sheets in strips a band is as wide as they are: a strip is decoded as a whole.
STRIP_ROWS = 512
CHUNK_COLUMNS = 1024
_CACHE_NBYTES, _MOST_CACHE_NBYTES = 24 * 1024**2, 128 * 1024**2

Heights = NDArray[np.float32]
Window = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Cleaning:
    """What is done to pixels before they are stored.

    Attributes:
        fill_pixels: voids that data encloses within so many pixels are interpolated; 0: none.
        despike: whether spikes and pits are replaced by the median of their neighbours.
    """

    fill_pixels: int = DEFAULT_FILL_PIXELS
    despike: bool = False


@dataclass(slots=True)
class Tally:
    """What the pass over pixels collects.

    Attributes:
        low, high: range of heights, metres.
        valid, void: pixels with and without data in the sheets.
        outliers, filled: spikes and pits; voids that were interpolated.
        places: longitude, latitude and height of the first outliers.
        zero_land: what tells absent pixels written as 0 from land at sea level.
    """

    low: float | None = None
    high: float | None = None
    valid: int = 0
    void: int = 0
    outliers: int = 0
    filled: int = 0
    places: list[list[float]] = field(default_factory=list)
    zero_land: ZeroLand = field(default_factory=ZeroLand)

    @classmethod
    def from_json(cls, facts: dict[str, Any]) -> Tally:
        """Return what `asdict` made of a tally."""
        return cls(**{**facts, "zero_land": ZeroLand(**facts["zero_land"])})

    def add(self, other: Tally) -> None:
        """Add what another pass collected after this one."""
        for height in (other.low, other.high):
            self._see(height)
        self.valid += other.valid
        self.void += other.void
        self.outliers += other.outliers
        self.filled += other.filled
        self.places = (self.places + other.places)[:MAX_SAMPLES]
        self.zero_land.add(other.zero_land)

    def see(self, heights: Heights) -> None:
        """Widen the range."""
        self._see(float(heights.min()))
        self._see(float(heights.max()))

    def _see(self, height: float | None) -> None:
        if height is not None:
            self.low = height if self.low is None else min(self.low, height)
            self.high = height if self.high is None else max(self.high, height)


@dataclass(frozen=True, slots=True)
class Band:
    """A unit of work: a window of the group's raster, and the sheets that its pixels come from."""

    window: Window
    placed: tuple[Placed, ...]


@dataclass(frozen=True, slots=True)
class BandMaker:
    """Cleans and compresses bands; picklable.

    Attributes:
        image: the raster that is made.
        pixel_m: the longer side of a pixel, metres.
        cleaning: what is done to pixels.
        below: what lies below the group; it is asked before a void is interpolated.
        cache_nbytes: of decoded blocks that GDAL keeps.
    """

    image: Image
    pixel_m: float
    cleaning: Cleaning
    below: DemStack | None
    cache_nbytes: int

    @classmethod
    def of(
        cls, group: DemGroup, image: Image, cleaning: Cleaning, below: DemStack | None
    ) -> BandMaker:
        """Make the maker of a group's bands."""
        rows = STRIP_ROWS + 2 * cleaning.fill_pixels + 2
        strips = [p.sheet.width for p in group.placed if _in_strips(p)]
        needed = rows * max(strips, default=0) * np.dtype(group.placed[0].sheet.dtype).itemsize
        cache = min(max(_CACHE_NBYTES, needed * 5 // 4), _MOST_CACHE_NBYTES)
        return cls(image, group.pixel_m, cleaning, below, cache)

    def bands(self, placed: Sequence[Placed]) -> list[Band]:
        """Return the bands that sheets touch."""
        all_boxes = boxes(placed)
        strips = any(_in_strips(p) for p in placed)
        tall = STRIP_ROWS if strips else BAND_ROWS
        wide = self.image.width if strips else BAND_COLUMNS
        rim = self.cleaning.fill_pixels + 1 + self.image.rim(0)
        found = []
        for top in range(0, self.image.height, tall):
            for left in range(0, self.image.width, wide):
                right, bottom = (
                    min(left + wide, self.image.width),
                    min(top + tall, self.image.height),
                )
                if not touching(all_boxes, (left, top, right, bottom)).size:
                    continue
                reach = left - rim, top - rim, right + rim, bottom + rim
                near = tuple(placed[i] for i in touching(all_boxes, reach).tolist())
                found.append(Band((left, top, right, bottom), near))
        return found

    def __call__(self, band: Band) -> UnitResult:
        """Return the blocks of a band; its facts are a `Tally`, once the blocks are taken."""
        facts: dict[str, Any] = {}
        return UnitResult(self._tiles(band, facts), facts)

    def _tiles(self, band: Band, facts: dict[str, Any]) -> Iterator[Tile]:
        left, top, right, bottom = band.window
        tally, sheets, rim = Tally(), GroupSheets(band.placed), self.image.rim(0)
        try:
            with rasterio.Env(GDAL_CACHEMAX=self.cache_nbytes):
                for column in range(left, right, CHUNK_COLUMNS):
                    chunk = column, top, min(column + CHUNK_COLUMNS, right), bottom
                    pixels = self._clean(sheets, chunk, rim, tally)
                    if pixels is not None:
                        yield from base_tiles(self.image, pixels, column, top, rim)
        finally:
            sheets.close()
            if self.below is not None:
                self.below.close()
        facts.update(asdict(tally))

    def _clean(
        self, sheets: GroupSheets, window: Window, beside: int, tally: Tally
    ) -> Heights | None:
        """Return the pixels of a window as they are stored, and some beside it.

        Args:
            sheets: where they come from.
            window: left, top, right, bottom.
            beside: columns on the left and rows above that are wanted too, inside the image.
            tally: counts what is in the window proper.

        Returns:
            None when all are void.
        """
        reach = self.cleaning.fill_pixels
        rim = reach + 1
        right, bottom = window[2:]
        left, top = max(window[0] - beside, 0), max(window[1] - beside, 0)
        own = np.s_[window[1] - top :, window[0] - left :]
        values = sheets.read(left - rim, top - rim, right + rim, bottom + rim)
        covered = sheets.covered(*window)
        if values is None:
            tally.void += covered
            return None
        inner = np.s_[rim:-rim, rim:-rim]
        limit = max(OUTLIER_M, OUTLIER_SLOPE * self.pixel_m)
        medians = np.empty_like(values)
        find_outliers(values, limit, medians)
        self._note_outliers(values[inner][own], medians[inner][own], window, tally)
        seen = np.s_[
            rim + window[1] - top : -rim + 1 or None, rim + window[0] - left : -rim + 1 or None
        ]
        tally.zero_land.count(values[seen], self.pixel_m)
        if self.cleaning.despike:
            values = np.where(np.isnan(medians), values, medians)
        data = np.array(values[inner])
        known = np.isfinite(data)
        tally.void += covered - int(known[own].sum())
        tally.valid += int(known[own].sum())
        if reach and not known.all():
            filled = np.empty_like(data)
            fill_voids(np.ascontiguousarray(values[1:-1, 1:-1]), reach, filled)
            rows, columns = np.nonzero(np.isfinite(filled))
            if len(rows) and self.below is not None:
                # What a coarser group knows is better than what is interpolated.
                open_ = np.isnan(self.below.sample(*self._place(left + columns, top + rows)))
                rows, columns = rows[open_], columns[open_]
            data[rows, columns] = filled[rows, columns]
            tally.filled += int(((rows >= window[1] - top) & (columns >= window[0] - left)).sum())
        present = data[own][np.isfinite(data[own])]
        if present.size:
            tally.see(present)
        return data if np.isfinite(data).any() else None

    def _note_outliers(
        self, values: Heights, medians: Heights, window: Window, tally: Tally
    ) -> None:
        rows, columns = np.nonzero(~np.isnan(medians))
        tally.outliers += len(rows)
        room = MAX_SAMPLES - len(tally.places)
        for j, i in zip(rows[:room].tolist(), columns[:room].tolist(), strict=True):
            lon, lat = self._place(np.array([window[0] + i]), np.array([window[1] + j]))
            place = round(float(lon[0]), 6), round(float(lat[0]), 6), float(values[j, i])
            tally.places.append(list(place))

    def _place(
        self, columns: NDArray[Any], rows: NDArray[Any]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        a, _, c, _, e, f = self.image.transform
        ref: SpatialRef = self.image.ref
        lon, lat = to_lonlat(ref, (columns + 0.5) * a + c, (rows + 0.5) * e + f)
        return np.where(lon > 180, lon - 360, lon), lat


def _in_strips(placed: Placed) -> bool:
    return placed.sheet.block[1] >= placed.sheet.width > CHUNK_COLUMNS
