"""Sheets of an elevation model, grouped: what shares frame, pixel grid and datum is one raster.

The one idea: groups are decided from headers alone, so the dry run shows what the ingest makes.
Groups come in order of priority: finer ones first, then newer ones, then as they were named; with
``--order newest`` newer ones, then finer ones; with ``given`` as they were named. In a group newer
sheets win, unless the order is given.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ingest.manifest import Order
from ingest.readers.sheets import Affine6, Sheet, factor
from tiling.crs import SpatialRef, to_lonlat
from tiling.dem.layer import Box, lonlat_box, pixel_sides_m
from tiling.errors import RasterUnsupported

MAX_GROUPS = 200
_MAX_SIDE = 2**31 - 1
# Tolerance, in pixels, of what counts as the same grid.
_SAME_GRID = 0.01
# Overlapping boxes of more sheets than these are joined where they make rectangles.
_FEW = 16
# What GDAL says of a file without a geotransform.
_NOWHERE = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
# A tenth of a millimetre.
_SAME_PLACE_DEG = 1e-9
_SMALL_INTEGERS = ("int8", "uint8", "int16")


@dataclass(frozen=True, slots=True)
class DemSheet:
    """A sheet and what is known beside its header.

    Attributes:
        sheet: the file.
        ref: its frame; ``ref.vertical`` is what its heights are counted from.
        date: ``YYYY-MM-DD`` as declared or as the file says; empty when neither.
        position: among all sheets, as they were named.
    """

    sheet: Sheet
    ref: SpatialRef
    date: str
    position: int


@dataclass(frozen=True, slots=True)
class Placed:
    """A sheet on the grid of its group: its first column and row there."""

    sheet: Sheet
    column: int
    row: int


@dataclass(frozen=True, slots=True)
class DemGroup:
    """Sheets that become one raster; earlier ones win where they overlap.

    Attributes:
        ref: frame, with the vertical datum.
        transform, width, height: of the raster.
        placed: the sheets.
        pixel_m: the longer side of a pixel in the middle, metres.
        date: of the newest sheet.
    """

    ref: SpatialRef
    transform: Affine6
    width: int
    height: int
    placed: tuple[Placed, ...]
    pixel_m: float
    date: str

    @property
    def dtype(self) -> str:
        """``int16`` where that holds every sheet's metres, else ``float32``."""
        sheets = [placed.sheet for placed in self.placed]
        whole = all(
            s.dtype in _SMALL_INTEGERS and (s.scale, s.offset) == (1.0, 0.0) and factor(s) == 1.0
            for s in sheets
        )
        return "int16" if whole else "float32"

    @property
    def pixels(self) -> int:
        """How many pixels the sheets have."""
        return sum(p.sheet.width * p.sheet.height for p in self.placed)

    def coverage(self) -> tuple[Box, ...]:
        """Return west, south, east, north of the sheets, degrees; many sheets are joined."""
        windows = [
            (p.column, p.row, p.column + p.sheet.width, p.row + p.sheet.height) for p in self.placed
        ]
        if len(windows) > _FEW:
            windows = _joined(windows)
        return tuple(lonlat_box(self.ref, self.transform, window) for window in windows)

    def to_json(self) -> dict[str, Any]:
        """Return what the dry run shows."""
        return {
            "sheets": len(self.placed),
            "first": self.placed[0].sheet.name,
            "crs": self.ref.code,
            "pixel_m": round(self.pixel_m, 3),
            "size": [self.width, self.height],
            "date": self.date or None,
            "dtype": self.dtype,
            "nbytes": self.pixels * np.dtype(self.dtype).itemsize * 4 // 3,
        }


def group_sheets(sheets: Iterable[DemSheet], order: Order = "finest") -> tuple[DemGroup, ...]:
    """Group sheets and put the groups into order of priority.

    Raises:
        RasterUnsupported: a sheet lies nowhere or has no date where dates decide, too many grids,
            or a grid too large for one raster.
    """
    found: list[tuple[DemSheet, list[tuple[DemSheet, Placed]]]] = []
    same: dict[tuple[SpatialRef, SpatialRef], bool] = {}
    chosen = sorted(sheets, key=_priority(order))
    if order == "newest" and not chosen[-1].date:
        raise RasterUnsupported(
            "nothing says when the sheet was made, so --order newest cannot place it",
            source=chosen[-1].sheet.name,
            remedy="say it in the manifest: [[rasters]] date = 2024-05-01, or choose another order",
        )
    for each in chosen:
        if each.sheet.transform == _NOWHERE:
            raise RasterUnsupported(
                "the raster has no geotransform: nothing says where its pixels lie",
                source=each.sheet.name,
                remedy="georeference it: gdal_translate -a_ullr W N E S IN OUT, or gdalwarp for "
                "GCPs",
            )
        for anchor, members in found:
            pair = anchor.ref, each.ref
            if pair not in same:
                same[pair] = _same_frame(anchor, each)
            if not same[pair]:
                continue
            at = place_on_grid(each.sheet, anchor.sheet)
            if at is not None:
                members.append((each, Placed(each.sheet, *at)))
                break
        else:
            found.append((each, [(each, Placed(each.sheet, 0, 0))]))
    if len(found) > MAX_GROUPS:
        raise RasterUnsupported(
            f"the sheets lie on {len(found)} different pixel grids, more than {MAX_GROUPS}",
            source=chosen[0].sheet.name,
            remedy="bring them onto one grid first: gdalbuildvrt -tap -tr X Y ALL.vrt SHEETS",
        )
    groups = [_group([p for _, p in members], members) for _, members in found]
    if order == "given":
        return tuple(groups)
    # A hair of difference between frames is no finer pixel: compare to two digits.
    fine = [float(f"{group.pixel_m:.2g}") for group in groups]
    new = [newest_first(group.date) for group in groups]
    first, second = (new, fine) if order == "newest" else (fine, new)
    return tuple(groups[i] for i in sorted(range(len(groups)), key=lambda i: (first[i], second[i])))


def place_on_grid(sheet: Sheet, anchor: Sheet) -> tuple[int, int] | None:
    """Return column and row of a sheet on another's pixel grid; None if it is on its own."""
    a, _, c, _, e, f = anchor.transform
    a2, _, c2, _, e2, f2 = sheet.transform
    column, row = (c2 - c) / a, (f2 - f) / e
    drift = max(abs(a2 / a - 1) * sheet.width, abs(e2 / e - 1) * sheet.height)
    off = max(abs(column - round(column)), abs(row - round(row)))
    if drift + off > _SAME_GRID:
        return None
    return round(column), round(row)


def decided_by(groups: Sequence[DemGroup], order: Order) -> str:
    """Say which rule put the groups into their order."""
    if order == "given":
        return "as given"
    if order == "newest":
        return "newer sheets first, then finer pixels"
    sizes = {float(f"{group.pixel_m:.2g}") for group in groups}
    if len(sizes) == len(groups):
        return "finer pixels first"
    if len({group.date for group in groups}) > 1:
        return "finer pixels first, then newer sheets"
    return "finer pixels first, then as given, for no dates are known"


def _same_frame(a: DemSheet, b: DemSheet) -> bool:
    """Say whether two frames give the same places: formats name one frame in different words."""
    if a.ref == b.ref:
        return True
    if a.ref.vertical != b.ref.vertical or a.ref.is_projected != b.ref.is_projected:
        return False
    west, south, east, north = a.sheet.bounds
    x, y = np.array([west, east, west, east]), np.array([south, south, north, north])
    return all(
        np.allclose(one, two, rtol=0, atol=_SAME_PLACE_DEG)
        for one, two in zip(to_lonlat(a.ref, x, y), to_lonlat(b.ref, x, y), strict=True)
    )


def _priority(order: Order) -> Any:
    if order == "given":
        return lambda each: each.position
    return lambda each: (newest_first(each.date), each.position)


def newest_first(date: str) -> tuple[int, ...]:
    """Return what sorts dates, the newest first and what has none last."""
    return tuple(-ord(c) for c in date) if date else (0,)


def _group(placed: list[Placed], members: list[tuple[DemSheet, Placed]]) -> DemGroup:
    left, top = min(p.column for p in placed), min(p.row for p in placed)
    right = max(p.column + p.sheet.width for p in placed)
    bottom = max(p.row + p.sheet.height for p in placed)
    a, b, c, d, e, f = placed[0].sheet.transform
    ref = members[0][0].ref
    if max(right - left, bottom - top) > _MAX_SIDE:
        raise RasterUnsupported(
            f"the sheets lie so far apart that their raster would have {right - left} x "
            f"{bottom - top} pixels",
            source=placed[0].sheet.name,
            remedy="ingest them as assets of their own, or check the frame of the odd one",
        )
    transform = (a, b, c + left * a, d, e, f + top * e)
    return DemGroup(
        ref,
        transform,
        right - left,
        bottom - top,
        tuple(Placed(p.sheet, p.column - left, p.row - top) for p in placed),
        max(pixel_sides_m(ref, transform, right - left, bottom - top)),
        max(each.date for each, _ in members),
    )


def _joined(windows: list[tuple[int, int, int, int]]) -> list[tuple[int, int, int, int]]:
    """Join windows that stand side by side, then those on top of each other; overlaps too."""
    for axis in (0, 1):
        other = 1 - axis
        windows = sorted(set(windows), key=lambda w: (w[other], w[other + 2], w[axis]))
        joined: list[tuple[int, int, int, int]] = []
        for window in windows:
            last = joined[-1] if joined else None
            if (
                last is not None
                and (last[other], last[other + 2]) == (window[other], window[other + 2])
                and window[axis] <= last[axis + 2]
            ):
                joined[-1] = (
                    min(last[0], window[0]),
                    min(last[1], window[1]),
                    max(last[2], window[2]),
                    max(last[3], window[3]),
                )
            else:
                joined.append(window)
        windows = joined
    return windows
