"""Where water is in a terrain tile: the mask of quantized-mesh's extension 2.

The one idea: a pixel of the mask is water when its centre lies in a water polygon, so the mask is a
pure function of the tile and the polygons, whoever makes it. Polygons that hold no centre of a
pixel are never looked at, so a tile of half the globe costs little more than one of a lake.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.features import rasterize
from rasterio.transform import from_bounds

from tiling.coords import TileCoord
from tiling.formats.geoparquet import read_group
from tiling.formats.geoparquet_footer import group_boxes
from tiling.formats.mvt_geometry import POLYGON, geometry_kinds
from tiling.formats.quantized_mesh import MASK_SIDE
from tiling.tilers.clipping import clip_by_rect

LAND, WATER = 0, 255
_LAND, _WATER = bytes([LAND]), bytes([WATER])
# Row groups of polygons that a process keeps decoded.
_KEPT_GROUPS = 16

Geometries = NDArray[np.object_]


@dataclass(frozen=True, slots=True)
class WaterAreas:
    """Water polygons at rest; picklable.

    Attributes:
        path: a features file (`tiling.formats.geoparquet`) in longitude and latitude.
    """

    path: str

    def mask(self, coord: TileCoord) -> bytes:
        """Return the mask of a tile.

        Args:
            coord: level, column and row, from the south.

        Returns:
            one byte where all of it is land (0) or water (255), else `MASK_SIDE` squared of them,
            row by row from the north-west corner.

        Raises:
            StoreError: the file cannot be read.
        """
        size = 180 / 2**coord.level
        west, south = coord.x * size - 180, coord.y * size - 90
        box = (west, south, west + size, south + size)
        found = list(_opened(self.path).polygons(box))
        shapes = np.concatenate(found) if found else np.empty(0, dtype=object)
        if not len(shapes):
            return _LAND
        # What is burnt is clipped to little more than the tile: an ocean has many vertices.
        rim = size / MASK_SIDE
        shapes = clip_by_rect(shapes, box[0] - rim, box[1] - rim, box[2] + rim, box[3] + rim)
        shapes = shapes[shapely.get_dimensions(shapes) == 2]
        if not len(shapes):
            return _LAND
        mask = rasterize(
            shapes.tolist(),
            out_shape=(MASK_SIDE, MASK_SIDE),
            transform=from_bounds(*box, MASK_SIDE, MASK_SIDE),
            fill=LAND,
            default_value=WATER,
            dtype=np.uint8,
        )
        low, high = int(mask.min()), int(mask.max())
        if low == high:
            return _LAND if high == LAND else _WATER
        return bytes(mask.tobytes())


class _Polygons:
    """The polygons of a features file, a row group at a time; those asked for lately are kept."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self.boxes = group_boxes(self.path)
        self._kept: OrderedDict[int, tuple[Geometries, NDArray[np.float64]]] = OrderedDict()

    def polygons(self, box: tuple[float, float, float, float]) -> list[Geometries]:
        """Return polygons whose own boxes hold the centre of a pixel of the mask of a box."""
        low = (self.boxes[:, 0] <= box[2]) & (self.boxes[:, 1] <= box[3])
        near = np.flatnonzero(low & (self.boxes[:, 2] >= box[0]) & (self.boxes[:, 3] >= box[1]))
        found = []
        for group in near.tolist():
            geometry, bounds = self._group(group)
            step = (box[2] - box[0]) / MASK_SIDE
            first = np.ceil((bounds[:, :2] - box[:2]) / step - 0.5)
            last = np.floor((bounds[:, 2:] - box[:2]) / step - 0.5)
            first, last = np.maximum(first, 0), np.minimum(last, MASK_SIDE - 1)
            held = (last >= first).all(axis=1)
            if held.any():
                found.append(geometry[held])
        return found

    def _group(self, group: int) -> tuple[Geometries, NDArray[np.float64]]:
        if group in self._kept:
            self._kept.move_to_end(group)
        else:
            geometry = read_group(self.path, group).geometry
            geometry = geometry[geometry_kinds(geometry) == POLYGON]
            self._kept[group] = geometry, shapely.bounds(geometry)
            if len(self._kept) > _KEPT_GROUPS:
                self._kept.popitem(last=False)
        return self._kept[group]


@lru_cache(maxsize=2)
def _opened(path: str) -> _Polygons:
    # Stores are named by their content and never change.
    return _Polygons(path)
