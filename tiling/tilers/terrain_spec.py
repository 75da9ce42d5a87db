"""What the bytes of a terrain tile depend on beside the heights: decided once, kept as JSON.

The one idea: nothing is decided while a tile is made. Which levels and areas exist, how dense the
nodes of a level lie, how far its mesh may leave them and on which range of heights it is quantised
are settled from the source's extent alone; so a tile made on demand is the baked tile.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiling.batches import TerrainSource
from tiling.bounds import Region
from tiling.coords import TileCoord
from tiling.ellipsoid import SEMI_MAJOR_M
from tiling.errors import ConfigError
from tiling.formats.quantized_mesh import QUANTA
from tiling.geoid import parse_vertical
from tiling.tilers.terrain_cells import existing
from tiling.tilers.terrain_density import PixelSamples
from tiling.tilers.terrain_rtin import HALF_QUANTUM, SQUARE, SUB

DEEPEST_LEVEL = 22
# Cells of nodes along an edge of a tile of the deepest level, unless pixels between nodes ask for
# more; of coarser ones, as far as the deeper level's nodes allow; and of those that would be
# further off than a viewer assumes otherwise, at walls.
FEWEST_CELLS, USUAL_CELLS, MOST_CELLS = 64, 256, 512
SEA_LEVEL = parse_vertical("EPSG:5773")
# Counts up with every change that changes the bytes of a tile: tiles that are made on request
# stand beside baked ones, and must be as theirs.
MESHER = 4
# Of a level's geometric error, what the mesh may leave its nodes by; the rest is for what lies
# between nodes. Measured on steep mountains; see docs/terrain.md.
NODE_SHARE = 0.6
# The same of the deepest level, which viewers stretch over all that they zoom in further.
FINEST_SHARE = 0.3
# And what a chord may lie below the bend of the Earth.
BEND_SHARE = 0.1
# What the pixels between nodes may take before nodes lie denser, and what stays in any case.
_BETWEEN_SHARE = 0.5
_LEAST_SHARE = 0.15
# Samples of heights that a viewer assumes along the edge of a tile.
_ASSUMED_SAMPLES = 65
# Room above and below the land for sheets that an update lays over it: a share of its relief, and
# at least so many metres. The steps of heights grow with it, by a fifth where relief is great.
_HEADROOM_SHARE, _LEAST_HEADROOM_M = 0.1, 10.0

Array = NDArray[np.float64]


def geometric_error_m(level: int) -> float:
    """Return the geometric error that Cesium assumes for a level, metres.

    ``TerrainProvider.getEstimatedLevelZeroGeometricErrorForAHeightmap`` with 65 samples and two
    root tiles, halved per level.
    """
    return math.ldexp(SEMI_MAJOR_M * 2 * math.pi * 0.25 / (_ASSUMED_SAMPLES * 2), -level)


def level_for(resolution_deg: float) -> int:
    """Return the first level whose nodes are no further apart than the pixels of the source."""
    level = math.ceil(math.log2(180 / FEWEST_CELLS / resolution_deg) - 1e-9)
    return min(max(level, 0), DEEPEST_LEVEL)


@dataclass(frozen=True, slots=True)
class TerrainSpec:
    """Levels, places, densities, tolerances and ranges of a terrain tileset.

    Attributes:
        levels: the levels that exist, rising.
        areas: where data is; tiles exist where these are, and the two roots.
        cells_along: per level, the cells of nodes along an edge of a tile; nodes of a level are
            nodes of the next.
        tolerances_m: per level, by how much its mesh may leave its nodes.
        ranges_m: per level, the ellipsoidal heights between which it is quantised.
    """

    levels: tuple[int, ...]
    areas: tuple[Region, ...]
    cells_along: tuple[int, ...]
    tolerances_m: tuple[float, ...]
    ranges_m: tuple[tuple[float, float], ...]

    def cells(self, level: int) -> int:
        """Return how many cells of nodes lie along an edge of a tile."""
        return self.cells_along[self.levels.index(level)]

    def step_deg(self, level: int) -> float:
        """Return the distance of two nodes."""
        return math.ldexp(180.0, -level) / self.cells(level)

    def stride(self, level: int) -> int:
        """Return how many nodes apart slopes are measured: as far as 64 cells to a tile lie."""
        return self.cells(level) // FEWEST_CELLS

    def height_range(self, level: int) -> tuple[float, float]:
        """Return the heights of 0 and `QUANTA`."""
        return self.ranges_m[self.levels.index(level)]

    def tolerance(self, level: int) -> int:
        """Return the tolerance in steps of the integer heights, see `terrain_rtin`."""
        low, high = self.height_range(level)
        step_m = (high - low) / QUANTA / SUB
        # Heights were rounded to a step; nothing is asked that the format cannot hold.
        steps = math.floor(self.tolerances_m[self.levels.index(level)] / step_m) - 1
        return min(max(steps, HALF_QUANTUM), QUANTA * SUB)

    def longest(self, level: int) -> float:
        """Return the longest edge of a triangle, in nodes.

        Its sagitta is `BEND_SHARE`, and no triangle is larger than half of a square of `SQUARE`.
        """
        angle = math.sqrt(8 * BEND_SHARE * geometric_error_m(level) / SEMI_MAJOR_M)
        # Hypotenuses are the square root of 2 of such a square's sides long, or at least twice.
        return min(math.degrees(angle) / self.step_deg(level), 1.5 * SQUARE)

    def has(self, coord: TileCoord) -> bool:
        """Say whether a tile exists."""
        if coord.level not in self.levels:
            return False
        return bool(existing(self.areas, coord.level, within=coord).mask.any())

    def to_json(self) -> dict[str, Any]:
        """Return the specification as a JSON object of one member, ``mesh``."""
        return {
            "mesh": {
                "mesher": MESHER,
                "levels": list(self.levels),
                "areas": [list(area) for area in self.areas],
                "cells": list(self.cells_along),
                "tolerances_m": list(self.tolerances_m),
                "ranges_m": [list(pair) for pair in self.ranges_m],
            }
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> TerrainSpec:
        """Make a specification from what `to_json` returned; other members are left alone.

        Raises:
            ConfigError: the member is missing, from an older version of this program.
        """
        mesh = data.get("mesh")
        if not isinstance(mesh, dict) or mesh.get("mesher") != MESHER:
            raise ConfigError(
                "the terrain was made by another version of this program, whose meshes differ: "
                "ingest it again"
            )
        return cls(
            tuple(mesh["levels"]),
            tuple(Region(*area) for area in mesh["areas"]),
            tuple(mesh["cells"]),
            tuple(mesh["tolerances_m"]),
            tuple((low, high) for low, high in mesh["ranges_m"]),
        )


def specify(source: TerrainSource, levels: Sequence[int]) -> TerrainSpec:
    """Decide how a source is meshed.

    Args:
        source: its extent, coverage and resolution are looked at, and some of its pixels.
        levels: rising levels.
    """
    areas = tuple(source.coverage)
    density = _Density(source)
    chosen: dict[int, tuple[int, float]] = {}
    deeper: int | None = None
    for level in reversed(levels):
        chosen[level] = density.choose(level, levels[-1], deeper)
        deeper = chosen[level][0]
    ranges: list[tuple[float, float]] = []
    before = 0.0
    for level in levels:
        step = math.ldexp(180.0, -level) / chosen[level][0]
        # Levels that lie on the same nodes are quantised alike.
        ranges.append(ranges[-1] if step == before else _height_range(source.extent, areas, level))
        before = step
    cells, tolerances = zip(*(chosen[level] for level in levels), strict=True)
    return TerrainSpec(tuple(levels), areas, cells, tolerances, tuple(ranges))


class _Density:
    """Chooses how dense the nodes of the levels lie, the deepest first.

    Args:
        source: whose pixels are looked at.
    """

    def __init__(self, source: TerrainSource) -> None:
        self._source = source
        self._samples = PixelSamples.of(source)
        self._lost: dict[float, float] = {}

    def choose(self, level: int, finest: int, deeper: int | None) -> tuple[int, float]:
        """Return the cells along an edge of a tile and by how much a mesh may leave its nodes.

        Args:
            level: the level.
            finest: the deepest.
            deeper: the cells of the next deeper level, None for the deepest.
        """
        allowed = geometric_error_m(level)
        # Nodes of a level are nodes of the deeper ones, and at most as dense.
        most = MOST_CELLS if deeper is None else min(2 * deeper, MOST_CELLS)
        cells = FEWEST_CELLS if deeper is None else min(most, USUAL_CELLS)
        while cells < min(most, USUAL_CELLS) and self._share(level, cells) > _BETWEEN_SHARE:
            cells *= 2
        share = FINEST_SHARE if level == finest else NODE_SHARE
        while cells < most and self._share(level, cells) > 1 - share / 2:
            cells *= 2
        left = min(share, max(1 - self._share(level, cells), _LEAST_SHARE))
        return cells, left * allowed

    def _share(self, level: int, cells: int) -> float:
        """Return what lies between nodes, of what a level may be off."""
        step = math.ldexp(180.0, -level) / cells
        if step not in self._lost:
            self._lost[step] = self._samples.between_nodes_m(self._source, step)
        return self._lost[step] / geometric_error_m(level)


def _height_range(extent: Region, areas: Sequence[Region], level: int) -> tuple[float, float]:
    # Whole metres are exact in the header's float32.
    found = existing(areas, level)
    size = 180 / 2**level
    west, south = found.x0 * size - 180, found.y0 * size - 90
    rows, columns = found.mask.shape
    lon = np.linspace(west, west + columns * size, 257)
    lat = np.linspace(south, south + rows * size, 257)
    sea = SEA_LEVEL.separation(*(axis.ravel() for axis in np.meshgrid(lon, lat)))
    # The geoid is smooth: what it does between these points stays within a tenth of its spread.
    margin = 0.5 + 0.1 * float(np.ptp(sea))
    sea_low, sea_high = float(sea.min()) - margin, float(sea.max()) + margin
    # The fill beside data carries its height above the sea to where the sea stands otherwise.
    carried = sea_high - sea_low
    relief = extent.max_height_m - extent.min_height_m
    room = carried + max(_LEAST_HEADROOM_M, _HEADROOM_SHARE * relief)
    bottom = min(extent.min_height_m - room, sea_low)
    top = max(extent.max_height_m + room, sea_high)
    return float(math.floor(bottom)), float(math.floor(top) + 1)
