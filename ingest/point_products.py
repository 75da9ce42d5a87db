"""The products of a point cloud: gathered piece by piece, written one by one.

Each product is written beside its target and renamed, so a target is whole or is not there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely
from numpy.typing import NDArray
from rasterio.features import shapes

from tiling.crs import SpatialRef, to_lonlat
from tiling.dem.cleaning import fill_voids
from tiling.errors import FieldInvalid
from tiling.findings import Findings
from tiling.tilers.base import Progress
from tiling.tilers.cog import BLOCK, LOSSLESS, block_windows, finish, writing
from tiling.tilers.point_rasters import CellFile, CellGrid, PointRule, Reduced, joined_classes

# A footprint is drawn in blocks of so many cells a side.
FOOTPRINT_CELLS = 4
_VOID = float("nan")
# What each product needs of which points.
_GATHERED = {
    "dtm": ("ground", ("points", "sum_mm")),
    "dsm": ("surface", ("top_mm",)),
    "density": ("points", ("points",)),
    "footprint": ("points", ("points",)),
}

Heights = Callable[[slice, slice], NDArray[np.float32]]


class PointProducts:
    """What a pass over points gathers, and the files that are written of it.

    Attributes:
        ref: frame of the products, in metres.
        grid: their cells.
        findings: receives what was left out, interpolated and left void.
    """

    def __init__(
        self,
        ref: SpatialRef,
        grid: CellGrid,
        targets: dict[str, Path],
        scratch: Path,
        rule: PointRule,
        fill_cells: int,
        findings: Findings,
    ) -> None:
        """Make what gathers.

        Args:
            ref, grid, findings: see the attributes.
            targets: where each wanted product goes: ``dtm``, ``dsm``, ``density``, ``footprint``,
                ``classes``.
            scratch: a folder for the cells.
            rule: which points are the ground, which are nothing.
            fill_cells: voids that ground encloses within so many cells are interpolated.
        """
        self.ref, self.grid, self.findings = ref, grid, findings
        self._targets, self._scratch = targets, scratch
        self._rule, self._fill_cells = rule, fill_cells
        self._files: dict[str, CellFile] = {}
        for name, parts in (_GATHERED[product] for product in targets if product in _GATHERED):
            if name not in self._files:
                (scratch / name).mkdir()
                self._files[name] = CellFile(grid, scratch / name, parts)
        self._classes: dict[int, tuple[int, float, float]] = {}
        self._points = self._ground = self._left_out = 0

    def add(self, reduced: Reduced) -> None:
        """Take a piece of the cloud; the order of pieces does not matter."""
        for name, file in self._files.items():
            file.add(getattr(reduced, name))
        self._classes = joined_classes(self._classes, reduced.classes)
        self._points += int(reduced.points.points.sum())
        self._ground += int(reduced.ground.points.sum())
        self._left_out += reduced.left_out

    def write(self, progress: Progress) -> dict[str, dict[str, Any]]:
        """Write every product; returns facts by name.

        Raises:
            FieldInvalid: a terrain model is wanted and no point is ground.
            StoreError: the disk is full or not writable.
        """
        message = "points are noise or withheld, and part of no product"
        self.findings.add("points-left-out", "info", message, self._left_out)
        if "dtm" in self._targets and not self._ground:
            there = ", ".join(str(kind) for kind in self._classes) or "none"
            raise FieldInvalid(
                f"no point is of class {', '.join(map(str, self._rule.ground))}, the ground "
                f"(classes there are: {there})",
                remedy="classify the cloud first, or say which classes are the ground: --ground",
            )
        writers: dict[str, Callable[[Path, Progress], dict[str, Any]]] = {
            "dtm": self._write_dtm,
            "dsm": self._write_dsm,
            "density": self._write_density,
            "footprint": self._write_footprint,
            "classes": self._write_classes,
        }
        written = {}
        for name, path in self._targets.items():
            with _staged(path) as part:
                facts = writers[name](part, progress)
            written[name] = {"path": str(path), "nbytes": path.stat().st_size, **facts}
        return written

    def _write_dtm(self, part: Path, progress: Progress) -> dict[str, Any]:
        rim = self._fill_cells
        held = filled = 0

        def heights(rows: slice, columns: slice) -> NDArray[np.float32]:
            nonlocal held, filled
            around = self._ground_around(rows, columns, rim)
            inner = around[rim : around.shape[0] - rim, rim : around.shape[1] - rim].copy()
            held += int(np.count_nonzero(~np.isnan(inner)))
            if rim:
                closed = np.empty_like(inner)
                fill_voids(around, rim, closed)
                gaps = np.isnan(inner) & ~np.isnan(closed)
                inner[gaps] = closed[gaps]
                filled += int(gaps.sum())
            return inner

        self._write_raster(part, heights, progress)
        void = self.grid.rows * self.grid.columns - held - filled
        message = "cells without ground were interpolated from the ground around them"
        self.findings.add("ground-interpolated", "repair", message, filled)
        self.findings.add("ground-void", "info", "cells of the terrain model hold no ground", void)
        return {"cells": held, "interpolated": filled, "void": void}

    def _ground_around(self, rows: slice, columns: slice, rim: int) -> NDArray[np.float32]:
        top, left = max(0, rows.start - rim), max(0, columns.start - rim)
        bottom = min(self.grid.rows, rows.stop + rim)
        right = min(self.grid.columns, columns.stop + rim)
        known = self._files["ground"].mean_m(slice(top, bottom), slice(left, right))
        shape = (rows.stop - rows.start + 2 * rim, columns.stop - columns.start + 2 * rim)
        around = np.full(shape, _VOID, dtype=np.float32)
        row, column = top - rows.start + rim, left - columns.start + rim
        around[row : row + known.shape[0], column : column + known.shape[1]] = known
        return around

    def _write_dsm(self, part: Path, progress: Progress) -> dict[str, Any]:
        self._write_raster(part, self._files["surface"].top_m, progress)
        return {}

    def _write_density(self, part: Path, progress: Progress) -> dict[str, Any]:
        file, area = self._files["points"], self.grid.cell**2

        def density(rows: slice, columns: slice) -> NDArray[np.float32]:
            return (file.count(rows, columns) / area).astype(np.float32)

        self._write_raster(part, density, progress, nodata=None)
        return {}

    def _write_raster(
        self, part: Path, values: Heights, progress: Progress, nodata: float | None = _VOID
    ) -> None:
        grid, work = self.grid, self._scratch / "work.tif"
        profile = {
            "driver": "GTiff",
            "width": grid.columns,
            "height": grid.rows,
            "count": 1,
            "dtype": "float32",
            "crs": _crs_of(self.ref),
            "transform": rasterio.Affine(grid.cell, 0, grid.west, 0, -grid.cell, grid.north),
            "nodata": nodata,
            "tiled": True,
            "blockxsize": BLOCK,
            "blockysize": BLOCK,
            "bigtiff": "IF_SAFER",
        }
        windows = list(block_windows(grid.columns, grid.rows))
        progress.begin("raster", len(windows))
        with (
            writing(work, grid.columns * grid.rows * 4),
            rasterio.open(work, "w", **profile) as out,
        ):
            for window in windows:
                out.write(values(*window.toslices()), 1, window=window)
                progress.advance()
        try:
            finish(work, part, {**LOSSLESS, "OVERVIEW_RESAMPLING": "AVERAGE"}, progress)
        finally:
            work.unlink()

    def _write_footprint(self, part: Path, progress: Progress) -> dict[str, Any]:
        grid, file, step = self.grid, self._files["points"], FOOTPRINT_CELLS
        held = np.zeros((-(-grid.rows // step), -(-grid.columns // step)), dtype=np.uint8)
        for top in range(0, grid.rows, step * BLOCK):
            rows = slice(top, min(grid.rows, top + step * BLOCK))
            row, column = np.nonzero(file.count(rows, slice(0, grid.columns)))
            held[(row + top) // step, column // step] = 1
            progress.advance(0)
        side = grid.cell * step
        place = rasterio.Affine(side, 0, grid.west, 0, -side, grid.north)
        found = [shapely.geometry.shape(g) for g, _ in shapes(held, held == 1, 8, place)]
        # Closed by a block, so that a wet roof leaves no hole.
        whole = shapely.union_all(found).buffer(side, join_style="mitre")
        whole = whole.buffer(-side, join_style="mitre").simplify(side)
        lonlat = shapely.transform(whole, lambda xy: np.stack(to_lonlat(self.ref, *xy.T), axis=1))
        area = round(float(whole.area), 1)
        feature = {
            "type": "Feature",
            "geometry": shapely.geometry.mapping(lonlat),
            "properties": {"area_m2": area, "points": self._points},
        }
        _write_json(part, {"type": "FeatureCollection", "features": [feature]})
        return {"area_m2": area}

    def _write_classes(self, part: Path, progress: Progress) -> dict[str, Any]:
        classes = {
            str(kind): {"points": count, "lowest_m": low, "highest_m": high}
            for kind, (count, low, high) in self._classes.items()
        }
        _write_json(part, {"crs": self.ref.code, "classes": classes})
        return {"classes": classes}


def _crs_of(ref: SpatialRef) -> rasterio.CRS:
    """Return the frame for GDAL, with its datum where that has a code."""
    code = ref.vertical.code if ref.vertical is not None else ""
    if code.startswith("EPSG:") and ref.horizontal_code.startswith("EPSG:"):
        return rasterio.CRS.from_user_input(f"{ref.horizontal_code}+{code.removeprefix('EPSG:')}")
    return rasterio.CRS.from_wkt(ref.crs.to_wkt())


@contextmanager
def _staged(path: Path) -> Iterator[Path]:
    part = path.with_name(f"{path.name}.part")
    try:
        yield part
        part.rename(path)
    finally:
        part.unlink(missing_ok=True)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
