"""How far a mesh lies from the source's own pixels, measured.

The one idea: nothing that made the mesh is asked again. Pixels are looked up where they lie, the
triangle above each is found by walking down the hierarchy, and its plane is compared.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tiling.batches import PixelSource
from tiling.bounds import Region
from tiling.formats.quantized_mesh import QUANTA
from tiling.kernels import njit
from tiling.tilers.terrain_mesh import Sheet
from tiling.tilers.terrain_rtin import SQUARE, SUB, decoded

# Every pixel of a unit up to this many; larger units are measured in squares evenly spread.
_LIMIT = 300_000
_SQUARES = 5

Array = NDArray[np.float64]


class Probes(NamedTuple):
    """N places where the source's own height is known.

    Attributes:
        lon, lat: (N,) float64 degrees.
        heights: (N,) float64, ellipsoidal metres.
    """

    lon: Array
    lat: Array
    heights: Array

    def compare(
        self,
        sheet: Sheet,
        cells: int,
        rank: int,
        longest: float,
        tiles: NDArray[np.bool_],
    ) -> tuple[float, float, int]:
        """Return the largest error, the sum of squares and the count over the probes.

        Args:
            sheet: the surface with a halo of `SQUARE` nodes around the tiles; see
                `terrain_mesh.encode_tile`, also for `rank` and `longest`.
            cells: along the edge of a tile.
            tiles: (rows, columns) which tiles of the sheet exist.
        """
        halo = SQUARE
        first_x, first_y = (sheet.x0 + halo) // cells, (sheet.y0 + halo) // cells
        worst, squares, count = _compare(
            (self.lon + 180) / sheet.step_deg - sheet.x0 - halo,
            (self.lat + 90) / sheet.step_deg - sheet.y0 - halo,
            (self.heights - sheet.low_m) / (sheet.high_m - sheet.low_m) * (QUANTA * SUB),
            sheet.fine[halo:, halo:],
            sheet.classes[halo:, halo:],
            tiles,
            (first_x + first_y) & 1,
            cells,
            rank,
            longest * longest,
        )
        unit = (sheet.high_m - sheet.low_m) / (QUANTA * SUB)
        return worst * unit, squares * unit * unit, count


def probe(source: PixelSource, region: Region, extent: Region, pixel_deg: float) -> Probes:
    """Choose pixels inside a region.

    Args:
        source: names its pixels.
        region: degrees.
        extent: where the source has data.
        pixel_deg: size of a pixel.
    """
    found = [source.pixels(r, _LIMIT) for r in squares(region, extent, pixel_deg, _LIMIT)[0]]
    if not found:
        return Probes(np.empty(0), np.empty(0), np.empty(0))
    return Probes(*(np.concatenate(axis) for axis in zip(*found, strict=True)))


def squares(
    region: Region, extent: Region, pixel_deg: float, limit: int
) -> tuple[list[Region], bool]:
    """Choose parts of a region that hold about a number of pixels.

    Args:
        region: degrees.
        extent: where the source has data.
        pixel_deg: size of a pixel.
        limit: about how many pixels at most.

    Returns:
        the parts, and whether they are all of it.
    """
    west, south = max(region.west, extent.west), max(region.south, extent.south)
    east, north = min(region.east, extent.east), min(region.north, extent.north)
    if not (west < east and south < north):
        return [], True
    if (east - west) * (north - south) <= limit * pixel_deg * pixel_deg:
        return [Region(west, south, east, north)], True
    side = math.sqrt(limit) / _SQUARES * pixel_deg
    parts = []
    for j in range(_SQUARES):
        for i in range(_SQUARES):
            x = west + (i + 0.5) / _SQUARES * (east - west)
            y = south + (j + 0.5) / _SQUARES * (north - south)
            parts.append(
                Region(
                    max(x - side / 2, west),
                    max(y - side / 2, south),
                    min(x + side / 2, east),
                    min(y + side / 2, north),
                )
            )
    return parts, False


@njit(cache=True)
def _compare(xs, ys, heights, fine, classes, tiles, odd, cells, rank, longest_2):  # type: ignore[no-untyped-def]
    worst, squares, count = 0.0, 0.0, 0
    rows, columns = tiles.shape
    for k in range(len(xs)):
        x, y = xs[k], ys[k]
        if x < 0 or y < 0 or x > columns * cells or y > rows * cells:
            continue
        tx, ty = min(int(x) // cells, columns - 1), min(int(y) // cells, rows - 1)
        if not tiles[ty, tx]:
            continue
        left, bottom = tx * cells, ty * cells
        u, v = x - left, y - bottom
        # Hypotenuse from a to b, right angle at c: the triangle of the tile's two that holds it.
        if (tx + ty + odd) & 1 == 0:
            ax, ay, bx, by = cells, cells, 0, 0
            cx, cy = (cells, 0) if u > v else (0, cells)
        else:
            ax, ay, bx, by = 0, cells, cells, 0
            cx, cy = (cells, cells) if u + v > cells else (0, 0)
        while abs(ax - cx) + abs(ay - cy) > 1:
            mx, my = (ax + bx) >> 1, (ay + by) >> 1
            across, up = bx - ax, by - ay
            needed = classes[bottom + my, left + mx] > rank
            if not needed and across * across + up * up <= longest_2:
                break
            # The half on the side of a or of b: which way from the right angle's bisector?
            nearer = (u - mx) * (ax - bx) + (v - my) * (ay - by) >= 0
            if nearer:
                bx, by = ax, ay
            ax, ay, bx, by, cx, cy = cx, cy, bx, by, mx, my
        za = decoded(np.int64(fine[bottom + ay, left + ax]))
        zb = decoded(np.int64(fine[bottom + by, left + bx]))
        zc = decoded(np.int64(fine[bottom + cy, left + cx]))
        # Legs are perpendicular and equally long.
        leg_2 = (ax - cx) ** 2 + (ay - cy) ** 2
        s = ((u - cx) * (ax - cx) + (v - cy) * (ay - cy)) / leg_2
        t = ((u - cx) * (bx - cx) + (v - cy) * (by - cy)) / leg_2
        off = abs(zc + s * (za - zc) + t * (zb - zc) - heights[k])
        worst = max(worst, off)
        squares += off * off
        count += 1
    return worst, squares, count
