"""A version of several rasters as one Cloud Optimized GeoTIFF, in bounded memory.

A terrain of several groups leaves as its surface, at the finest pixels and in the frame and datum
of its first group; an image of many sheets as their mosaic, as an ingest without ``--mosaic
sheets`` would have made it.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from catalog.records import StoreRef, Version
from ingest.readers.mosaic import mosaic_vrt
from ingest.readers.sheets import describe
from ingest.workspace import Workspace
from tiling.crs import TILE_REF, SpatialRef, to_lonlat, transform_points
from tiling.dem import DemLayer, DemStack
from tiling.errors import ConfigError, StoreFull
from tiling.findings import Findings
from tiling.mosaics import SheetIndex
from tiling.stores.directory import DirectoryWriter
from tiling.tilers.base import Progress, Run
from tiling.tilers.codecs import Compression
from tiling.tilers.dem_cog import CogWriter, Image, base_tiles, overview_parts
from tiling.tilers.imagery import ImageryTiler
from tiling.tilers.pipeline import SerialExecutor, UnitResult, build_parts, pour

# Rows and columns of a piece; its coordinates and heights take some 40 MB.
_PIECE = 1024
_MAX_SIDE = 2**31 - 1


def whole_raster(
    workspace: Workspace,
    version: Version,
    refs: Sequence[StoreRef],
    path: Path,
    progress: Progress,
) -> None:
    """Write what the rasters of a version show together.

    Args:
        workspace: of the version.
        version: the version.
        refs: its rasters, in order of priority.
        path: the file to make; scratch lies beside it.
        progress: tells the size first, then counts pieces.

    Raises:
        ConfigError: they cannot be one raster; the message says what can be done.
        StoreFull: there is no room for it.
        SourceUnreadable, StoreError: a raster is damaged or missing.
    """
    paths = [workspace.store_path(ref) for ref in refs]
    if "dem" in version.info.get("terrain", {}):
        stack = DemStack.from_json(paths, version.info["terrain"])
        if len(stack.own) == 1:
            shutil.copyfile(stack.own[0].path, path)
        else:
            _surface(DemStack(stack.own), path, progress)
        return
    index = next((ref for ref in version.stores if ref.role == "sheets"), None)
    if index is None:
        raise ConfigError(
            f"version {version.number} of {version.item_id!r} has {len(refs)} rasters and does not "
            "say how they lie over each other: ingest it again"
        )
    _mosaic(workspace, version, SheetIndex.open(workspace.store_path(index)), path, progress)


def _mosaic(
    workspace: Workspace, version: Version, index: SheetIndex, path: Path, progress: Progress
) -> None:
    frames = sorted({sheet.crs for sheet in index.sheets})
    if len(frames) > 1:
        raise ConfigError(
            f"the sheets of {version.item_id!r} have {len(frames)} frames ({', '.join(frames)}): "
            "no single raster holds their pixels as they are. Ingest the sheets of one frame as an "
            "asset of their own, or warp them first (gdalwarp -t_srs)"
        )
    stores = {ref.sha256: ref for ref in version.stores}
    sheets = [describe(str(workspace.store_path(stores[sheet.store]))) for sheet in index.sheets]
    vrt = mosaic_vrt(sheets, sheets[0].crs_wkt)
    asked = version.info.get("options", {})
    wanted = Compression(
        asked.get("compress") or "auto", asked.get("quality"), asked.get("max_error")
    )
    ImageryTiler(wanted).run(vrt, path, progress, Findings())


@dataclass(frozen=True, slots=True)
class _Surface:
    """Computes pieces of a surface on the grid of its first layer."""

    stack: DemStack
    image: Image

    def __call__(self, piece: tuple[int, int]) -> UnitResult:
        left, top = piece
        rim = self.image.rim(0)
        right, bottom = min(left + _PIECE, self.image.width), min(top + _PIECE, self.image.height)
        columns = np.arange(max(left - rim, 0), right)
        rows = np.arange(max(top - rim, 0), bottom)
        a, _, c, _, e, f = self.image.transform
        x, y = (each.ravel() for each in np.meshgrid((columns + 0.5) * a + c, (rows + 0.5) * e + f))
        lon, lat = to_lonlat(self.image.ref, x, y)
        lon = np.where(lon > 180, lon - 360, lon)
        heights = self.stack.sample(lon, lat)
        vertical = self.image.ref.vertical
        assert vertical is not None  # every layer has one
        known = np.isfinite(heights)
        heights[known] -= vertical.separation(lon[known], lat[known])
        if not known.any():
            return UnitResult([])
        pixels = heights.astype(np.float32).reshape(len(rows), len(columns))
        return UnitResult(list(base_tiles(self.image, pixels, left, top, rim)))


def _surface(stack: DemStack, path: Path, progress: Progress) -> None:
    image = _image_over(stack.layers, path.parent / "plane")
    needed = image.width * image.height * 4
    free = shutil.disk_usage(path.parent).free
    progress.begin(f"join {image.width} x {image.height} pixels")
    if needed > free:
        raise StoreFull(
            f"the surface has {image.width} x {image.height} pixels, up to {needed:,} bytes; "
            f"{free:,} are free in {path.parent}: name a file on another disk"
        )
    unused = DirectoryWriter(path.parent / "tiles")
    run = Run(unused, path.parent, SerialExecutor(), 1, needed, progress, Findings())
    pieces = [
        (left, top)
        for top in range(0, image.height, _PIECE)
        for left in range(0, image.width, _PIECE)
    ]
    base = build_parts("pieces/0", pieces, _Surface(stack, image), run, "surface")
    overviews = overview_parts(image, "pieces", run)
    stack.close()
    writer = CogWriter(image, path)
    try:
        for parts in (*reversed(overviews), base):
            for part in parts:
                pour(part, writer.put, run.findings)
        writer.commit()
    finally:
        writer.abort()


def _image_over(layers: Sequence[DemLayer], planes: Path) -> Image:
    """Return the grid of the first layer, as large as all layers need."""
    first = layers[0]
    a, _, c, _, e, f = first.transform
    place = partial(_columns_and_rows, first.ref, first.transform)
    corners = np.concatenate([place(box) for layer in layers for box in layer.coverage])
    own = np.array([[0, 0], first.sizes[0]], dtype=np.float64)
    corners = np.concatenate([corners, own])
    left, top = np.floor(corners.min(axis=0) + 1e-6).astype(np.int64).tolist()
    right, bottom = np.ceil(corners.max(axis=0) - 1e-6).astype(np.int64).tolist()
    if max(right - left, bottom - top) > _MAX_SIDE:
        raise ConfigError(
            f"at the finest pixels the surface would have {right - left} x {bottom - top} pixels: "
            "export the rasters of distant places as assets of their own"
        )
    transform = (a, 0.0, c + left * a, 0.0, e, f + top * e)
    return Image(right - left, bottom - top, "float32", first.ref, transform, str(planes))


def _columns_and_rows(
    ref: SpatialRef,
    transform: tuple[float, float, float, float, float, float],
    box: tuple[float, float, float, float],
) -> NDArray[np.float64]:
    """Return (K, 2) pixel coordinates along the edge of a box in degrees."""
    west, south, east, north = box
    t = np.linspace(0, 1, 33)
    lon = np.concatenate([west + t * (east - west)] * 2 + [np.full(33, west), np.full(33, east)])
    side = south + t * (north - south)
    lat = np.concatenate([np.full(33, south), np.full(33, north), side, side])
    x, y, _ = transform_points(TILE_REF, ref, lon, lat)
    a, _, c, _, e, f = transform
    return np.stack([(x - c) / a, (y - f) / e], axis=1)
