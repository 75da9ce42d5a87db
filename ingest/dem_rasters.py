"""Groups of sheets -> Cloud Optimized GeoTIFFs of metres -> one surface.

The one idea: one bounded pass reads each window of a group with a rim, flags spikes, closes small
voids and writes a plain working file; GDAL then compresses it and adds overviews that ignore voids.
Groups are made from the lowest priority up, so a void is left open where a coarser group has data.
A finished group has a JSON file beside it: the same command finds it and goes on from there.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.features import shapes
from rasterio.io import DatasetReader
from rasterio.windows import Window

from ingest.dem_groups import DemGroup
from ingest.readers.sheets import Sheet, factor, open_raster, read_heights, reading
from tiling.crs import to_lonlat
from tiling.dem import DemLayer, DemStack
from tiling.dem.cleaning import OUTLIER_M, OUTLIER_SLOPE, fill_voids, find_outliers
from tiling.errors import NothingToTile, RasterUnsupported
from tiling.findings import MAX_SAMPLES, Finding, Findings
from tiling.tilers.base import Progress
from tiling.tilers.cog import BLOCK, GDAL_CACHE_NBYTES, LOSSLESS, finish, writing

# Values that producers write where they have no data; and what no terrain of the Earth has.
USUAL_NODATA = (-9999.0, -32768.0, -32767.0, -99999.0, 32767.0, 65535.0, 9999.0, 99999.0)
LOWEST_M, HIGHEST_M = -11_500.0, 9_000.0
DEFAULT_FILL_PIXELS = 8
INT16_VOID = -32768
_WINDOW_PIXELS = 1024 * 1024
_MAX_OPEN = 32
# Places along an axis of a raster that are asked whether anything is there, for the report.
_VOID_CELLS = 256

Heights = NDArray[np.float32]


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
class _Tally:
    """What the pass over a group collects."""

    low: float = np.inf
    high: float = -np.inf
    valid: int = 0
    void: int = 0
    outliers: int = 0
    filled: int = 0
    places: list[list[float]] = field(default_factory=list)


def make_stack(
    groups: Sequence[DemGroup],
    folder: Path,
    cleaning: Cleaning,
    progress: Progress,
    findings: Findings,
    base: DemStack | None = None,
) -> DemStack:
    """Write every group that is not there yet, and lay them over each other.

    Args:
        groups: in order of priority.
        folder: scratch of the job; receives ``dem-N.tif``.
        cleaning: what is done to pixels.
        progress: counts windows.
        findings: receives what was noticed, repaired and left void.
        base: a stack under them all: of an asset that is updated, or of a parent.

    Raises:
        NothingToTile: every pixel of every sheet is nodata.
        RasterUnsupported: a height is none of the Earth.
        SourceUnreadable: a block cannot be read.
        StoreError: the disk is full or not writable.
    """
    layers: list[DemLayer] = []
    lower = () if base is None else base.layers
    total, valid = 0, 0
    for number in range(len(groups) - 1, -1, -1):
        group = groups[number]
        path = folder / f"dem-{number:03d}.tif"
        record = path.with_suffix(".json")
        # A run that was stopped while publishing has moved rasters away.
        if not record.exists() or not (path.exists() or _is_empty(record)):
            below = DemStack([*layers, *lower]) if layers or lower else None
            _make_group(group, path, record, cleaning, below, progress)
            if below is not None:
                below.close()
        kept = json.loads(record.read_text(encoding="utf-8"))
        findings.merge(Finding.from_json(each) for each in kept["findings"])
        total, valid = total + group.pixels, valid + kept["valid"]
        if kept["layer"] is not None:
            layers.insert(0, DemLayer.from_json(path, kept["layer"]))
    if not layers:
        raise NothingToTile(
            f"all {total} pixels are nodata",
            source=groups[0].placed[0].sheet.name,
            remedy="check the export that made it, and the nodata value it declares",
        )
    stack = DemStack([*layers, *lower], beneath=0 if base is None else base.beneath)
    _report_voids(stack, findings)
    _report_seams(stack, findings)
    return stack


def _is_empty(record: Path) -> bool:
    return json.loads(record.read_text(encoding="utf-8"))["layer"] is None


def _make_group(
    group: DemGroup,
    path: Path,
    record: Path,
    cleaning: Cleaning,
    below: DemStack | None,
    progress: Progress,
) -> None:
    work, part = path.with_suffix(".work.tif"), path.with_suffix(".part.tif")
    found = Findings()
    layer: DemLayer | None = None
    try:
        tally = _write_work(group, work, cleaning, below, progress)
        _note(group, tally, cleaning, found)
        if tally.valid:
            progress.begin("cog")
            finish(work, part, {**LOSSLESS, "OVERVIEW_RESAMPLING": "AVERAGE"}, progress)
            part.rename(path)
            layer = DemLayer.describe(path, group.ref, tally.low, tally.high, group.coverage())
    finally:
        work.unlink(missing_ok=True)
        part.unlink(missing_ok=True)
    text = json.dumps(
        {
            "layer": None if layer is None else layer.to_json(),
            "valid": tally.valid,
            "findings": found.to_json(),
        },
        ensure_ascii=False,
    )
    staged = record.with_suffix(".tmp")
    staged.write_text(text, encoding="utf-8")
    staged.rename(record)


def _write_work(
    group: DemGroup, work: Path, cleaning: Cleaning, below: DemStack | None, progress: Progress
) -> _Tally:
    tally, sheets = _Tally(), _Sheets(group)
    a, b, c, d, e, f = group.transform
    whole = group.dtype == "int16"
    windows = sheets.windows()
    progress.begin("elevation", len(windows))
    options = {
        "driver": "GTiff",
        "width": group.width,
        "height": group.height,
        "count": 1,
        "dtype": group.dtype,
        "crs": group.ref.crs.to_wkt(),
        "transform": rasterio.Affine(a, b, c, d, e, f),
        "nodata": INT16_VOID if whole else np.nan,
        "tiled": True,
        "blockxsize": BLOCK,
        "blockysize": BLOCK,
        "sparse_ok": True,
        "bigtiff": "IF_SAFER",
    }
    try:
        with (
            writing(work, group.pixels * np.dtype(group.dtype).itemsize),
            # What GDAL takes by itself is a share of all memory.
            rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_NBYTES),
        ):
            with rasterio.open(work, "w", **options) as sink:
                for window in windows:
                    values = _clean(group, sheets, window, cleaning, below, tally)
                    if values is not None:
                        left, top, right, bottom = window
                        if whole:
                            values = np.where(np.isnan(values), INT16_VOID, np.rint(values))
                        sink.write(
                            values.astype(group.dtype),
                            1,
                            window=Window(left, top, right - left, bottom - top),
                        )
                    progress.advance()
    finally:
        sheets.close()
    return tally


def _clean(
    group: DemGroup,
    sheets: _Sheets,
    window: tuple[int, int, int, int],
    cleaning: Cleaning,
    below: DemStack | None,
    tally: _Tally,
) -> Heights | None:
    """Return the pixels of a window as they are stored; None when all are void."""
    reach = cleaning.fill_pixels
    rim = reach + 1
    left, top, right, bottom = window
    values = sheets.read(left - rim, top - rim, right + rim, bottom + rim)
    covered = sheets.covered(left, top, right, bottom)
    if values is None:
        tally.void += covered
        return None
    inner = np.s_[rim:-rim, rim:-rim]
    limit = max(OUTLIER_M, OUTLIER_SLOPE * group.pixel_m)
    medians = np.empty_like(values)
    find_outliers(values, limit, medians)
    rows, columns = np.nonzero(~np.isnan(medians[inner]))
    tally.outliers += len(rows)
    for j, i in zip(rows[:MAX_SAMPLES].tolist(), columns[:MAX_SAMPLES].tolist(), strict=True):
        if len(tally.places) < MAX_SAMPLES:
            lon, lat = _place(group, np.array([left + i]), np.array([top + j]))
            tally.places.append(
                [round(float(lon[0]), 6), round(float(lat[0]), 6), float(values[inner][j, i])]
            )
    if cleaning.despike:
        values = np.where(np.isnan(medians), values, medians)
    data = np.array(values[inner])
    known = np.isfinite(data)
    tally.void += covered - int(known.sum())
    if reach and not known.all():
        filled = np.empty_like(data)
        fill_voids(np.ascontiguousarray(values[1:-1, 1:-1]), reach, filled)
        rows, columns = np.nonzero(np.isfinite(filled))
        if len(rows) and below is not None:
            # What a coarser group knows is better than what is interpolated.
            lon, lat = _place(group, left + columns, top + rows)
            open_ = np.isnan(below.sample(lon, lat))
            rows, columns = rows[open_], columns[open_]
        data[rows, columns] = filled[rows, columns]
        tally.filled += len(rows)
    present = data[np.isfinite(data)]
    if not present.size:
        return None
    tally.valid += int(known.sum())
    tally.low = min(tally.low, float(present.min()))
    tally.high = max(tally.high, float(present.max()))
    return data


def _place(
    group: DemGroup, columns: NDArray[Any], rows: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    a, _, c, _, e, f = group.transform
    lon, lat = to_lonlat(group.ref, (columns + 0.5) * a + c, (rows + 0.5) * e + f)
    return np.where(lon > 180, lon - 360, lon), lat


class _Sheets:
    """The sheets of a group, read window by window; few are open at once."""

    def __init__(self, group: DemGroup) -> None:
        self._group = group
        self._boxes = np.array(
            [
                (p.column, p.row, p.column + p.sheet.width, p.row + p.sheet.height)
                for p in group.placed
            ]
        )
        self._open: OrderedDict[str, DatasetReader] = OrderedDict()

    def windows(self) -> list[tuple[int, int, int, int]]:
        """Return windows of whole blocks that sheets touch, of bounded size."""
        group = self._group
        wide = min(-(-group.width // BLOCK), _WINDOW_PIXELS // BLOCK // BLOCK) * BLOCK
        tall = max(1, _WINDOW_PIXELS // wide // BLOCK) * BLOCK
        found = []
        for top in range(0, group.height, tall):
            for left in range(0, group.width, wide):
                right, bottom = min(left + wide, group.width), min(top + tall, group.height)
                if self._touching(left, top, right, bottom).size:
                    found.append((left, top, right, bottom))
        return found

    def read(self, left: int, top: int, right: int, bottom: int) -> Heights | None:
        """Return metres, NaN where no sheet has data; None where none has any."""
        out: Heights | None = None
        for index in self._touching(left, top, right, bottom).tolist():
            placed = self._group.placed[index]
            sheet = placed.sheet
            x0, y0 = max(left, placed.column), max(top, placed.row)
            x1 = min(right, placed.column + sheet.width)
            y1 = min(bottom, placed.row + sheet.height)
            window = Window(x0 - placed.column, y0 - placed.row, x1 - x0, y1 - y0)
            dataset = self._dataset(sheet)
            with reading(sheet.name):
                values = read_heights(dataset, sheet, window)
            _refuse_impossible(sheet, values)
            if out is None:
                out = np.full((bottom - top, right - left), np.nan, dtype=np.float32)
            target = out[y0 - top : y1 - top, x0 - left : x1 - left]
            np.copyto(target, values, where=np.isnan(target), casting="same_kind")
        return out if out is not None and np.isfinite(out).any() else None

    def covered(self, left: int, top: int, right: int, bottom: int) -> int:
        """Return how many pixels of a window lie in sheets."""
        mask = np.zeros((bottom - top, right - left), dtype=bool)
        for index in self._touching(left, top, right, bottom).tolist():
            x0, y0, x1, y1 = self._boxes[index].tolist()
            mask[max(y0 - top, 0) : y1 - top, max(x0 - left, 0) : x1 - left] = True
        return int(np.count_nonzero(mask))

    def close(self) -> None:
        """Close what is open."""
        while self._open:
            self._open.popitem()[1].close()

    def _touching(self, left: int, top: int, right: int, bottom: int) -> NDArray[np.int64]:
        boxes = self._boxes
        touch = (boxes[:, 0] < right) & (boxes[:, 2] > left)
        return np.flatnonzero(touch & (boxes[:, 1] < bottom) & (boxes[:, 3] > top))

    def _dataset(self, sheet: Sheet) -> DatasetReader:
        if sheet.name in self._open:
            self._open.move_to_end(sheet.name)
        else:
            self._open[sheet.name] = open_raster(sheet.name)
            if len(self._open) > _MAX_OPEN:
                self._open.popitem(last=False)[1].close()
        return self._open[sheet.name]


def _refuse_impossible(sheet: Sheet, values: NDArray[np.floating[Any]]) -> None:
    low = float(np.fmin.reduce(values, axis=None))
    high = float(np.fmax.reduce(values, axis=None))
    for value in (low, high):
        if np.isnan(value) or (LOWEST_M <= value <= HIGHEST_M and value not in USUAL_NODATA):
            continue
        raise RasterUnsupported(
            f"a height of {value:g} m is no terrain of the Earth: it looks like nodata that "
            "the file does not declare, or like another unit",
            source=sheet.name,
            remedy=f"declare it: gdal_edit.py -a_nodata {value!r} FILE (or give the band its "
            "unit: gdal_edit.py -units ft FILE)",
        )


def _note(group: DemGroup, tally: _Tally, cleaning: Cleaning, findings: Findings) -> None:
    for sheet in (placed.sheet for placed in group.placed):
        if factor(sheet) != 1.0:
            message = f"heights in {sheet.unit} were converted to metres"
            findings.add("heights-converted", "info", message, samples=[sheet.name])
        if (sheet.scale, sheet.offset) != (1.0, 0.0):
            message = f"stored values were read as value * {sheet.scale:g} + {sheet.offset:g}"
            findings.add("heights-scaled", "info", message, samples=[sheet.name])
        if sheet.dtype in ("float64", "int32", "uint32", "int64", "uint64"):
            findings.add(
                "heights-float32",
                "info",
                f"heights of type {sheet.dtype} are kept as float32 (within 0.25 mm below 4096 m)",
                samples=[sheet.name],
            )
    findings.add(
        "raster-nodata",
        "info",
        "pixels of the elevation model hold no data",
        tally.void,
    )
    findings.add(
        "void-filled",
        "repair",
        f"void pixels enclosed by data within {cleaning.fill_pixels} pixels were interpolated "
        "(--fill-voids)",
        tally.filled,
    )
    severity, done = ("repair", "replaced by") if cleaning.despike else ("warning", "left, off")
    findings.add(
        "spike",
        severity,  # type: ignore[arg-type]
        f"spikes or pits ({done} the median of their neighbours): longitude, latitude, height"
        + ("" if cleaning.despike else "; --despike replaces them"),
        tally.outliers,
        [tuple(place) for place in tally.places],
    )


def _report_voids(stack: DemStack, findings: Findings) -> None:
    """Say where no group has data inside the boxes of the sheets."""
    extent = stack.extent
    n = _VOID_CELLS
    lon = extent.west + (np.arange(n) + 0.5) / n * (extent.east - extent.west)
    lat = extent.north - (np.arange(n) + 0.5) / n * (extent.north - extent.south)
    covered = np.zeros((n, n), dtype=bool)
    grid = [g.ravel() for g in np.meshgrid(lon, lat)]
    for layer in stack.layers:
        boxes_of = np.zeros((n, n), dtype=bool)
        for west, south, east, north in layer.coverage:
            across = (lon >= west) & (lon <= east)
            boxes_of |= ((lat >= south) & (lat <= north))[:, None] & across
        # The box of a projected sheet is wider than the sheet.
        column, row = layer.pixels(*layer.places(*grid), 0)
        width, height = layer.sizes[0]
        inside = (column >= 0) & (column <= width - 1) & (row >= 0) & (row <= height - 1)
        covered |= boxes_of & inside.reshape(n, n)
    void = np.isnan(stack.sample(*grid)).reshape(n, n) & covered
    if not void.any():
        return
    transform = rasterio.Affine(
        (extent.east - extent.west) / n, 0, extent.west, 0, -(extent.north - extent.south) / n,
        extent.north,
    )  # fmt: skip
    boxes = []
    for shape, _ in shapes(void.astype(np.uint8), void, transform=transform):
        x, y = np.array(shape["coordinates"][0]).T
        boxes.append([round(float(v), 5) for v in (x.min(), y.min(), x.max(), y.max())])
    boxes.sort(key=lambda b: (b[0] - b[2]) * (b[3] - b[1]))
    findings.add(
        "dem-void",
        "warning",
        f"areas without heights, {void.sum() / covered.sum():.1%} of what the sheets cover: west, "
        "south, east, north of the largest",
        len(boxes),
        [tuple(box) for box in boxes],
    )


def _report_seams(stack: DemStack, findings: Findings) -> None:
    if len(stack.layers) < 2:
        return
    widths = [round(width, 1) for width in stack.feathers_m[:-1]]
    findings.add(
        "dem-seams",
        "info",
        "groups of sheets fade into those below them over so many metres",
        len(widths),
        widths,
    )
