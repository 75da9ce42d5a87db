"""The points of a column become tiles, and what coarser tiles may choose from.

A column is a square of the ground with everything above it. `build_column` sorts its points,
decides which level shows each (`point_sampling`), encodes a tile for every cell that shows some,
and returns those that the column above chooses from.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiling.ellipsoid import (
    FLATTENING,
    SEMI_MAJOR_M,
    enu_to_ecef_matrix,
)
from tiling.formats.extent import axis_range
from tiling.formats.points_glb import (
    ERROR_M,
    QUANTUM_M,
    PointColumnType,
    encode_points,
    linear_colours,
)
from tiling.kernels import njit
from tiling.tilers.octree import Cell, PointTile, content_key
from tiling.tilers.pipeline import Tile, compress
from tiling.tilers.point_lattice import (
    KEY_BITS,
    LATTICE_LEVEL,
    LOWEST_M,
    STEP_DEG,
    STEP_M,
    cell_size_m,
)
from tiling.tilers.point_sampling import cells_of, leaf_levels, sample
from tiling.tilers.point_spool import RGB, corner, in_order, places_of

_GZIP_LEVEL = 1


@dataclass(frozen=True, slots=True)
class PointSettings:
    """What the tiles of a tileset depend on besides their points; picklable.

    Attributes:
        start: the coarsest level with content.
        leaf_points: points that a tile shows at most where it could be divided.
        columns: source column, its place in a column of several values (0 elsewhere), property.
        colour_depth: bits of the source's colours; 0 without colours.
        alone: the finest level with all points in one column.
    """

    start: int
    leaf_points: int
    columns: tuple[tuple[str, int, PointColumnType], ...]
    colour_depth: int
    alone: int


@dataclass(slots=True)
class BuiltColumn:
    """What building a column gave.

    Attributes:
        tiles: finished.
        facts: of each tile: four numbers of the cell, six of the region, points, bytes.
        handed: records that the column above chooses from; places count from this one's corner.
    """

    tiles: list[Tile] = field(default_factory=list)
    facts: list[list[float]] = field(default_factory=list)
    handed: NDArray[Any] | None = None


def point_tiles(facts: list[list[float]]) -> Iterator[PointTile]:
    """Return what the tree needs of the facts of tiles."""
    for level, x, y, z, *region, points, _ in facts:
        yield PointTile(Cell(int(level), int(x), int(y), int(z)), tuple(region), int(points))


def build_column(
    records: NDArray[Any],
    column: int,
    level: int,
    deepest: int,
    settings: PointSettings,
    divided: bool,
) -> BuiltColumn:
    """Make the tiles of a column.

    Args:
        records: points in any order, places from the column's corner.
        column: Morton index.
        level: of the column, at least ``settings.start``.
        deepest: the finest level with tiles.
        settings: of the tileset.
        divided: the column was divided before, and these points are what its parts handed over:
            all of them may be shown at `deepest`, and none of its cells is a leaf.
    """
    records, keys = in_order(records, level)
    places = places_of(records)
    origin = corner(column, level)
    middle_deg = (origin[1] + (1 << (LATTICE_LEVEL - level - 1))) * STEP_DEG - 90.0
    shrink = math.cos(math.radians(middle_deg))
    if divided:
        levels = np.full(len(keys), deepest, dtype=np.int8)
    else:
        levels = leaf_levels(keys, level, deepest, settings.leaf_points)
    top = max(level - 1, settings.start)
    alone = level <= settings.alone
    sample(places, keys, levels, level, int(levels.max()) - 1, top, shrink, alone)
    built = BuiltColumn()
    order = np.argsort(levels, kind="stable")
    found, starts = np.unique(levels[order], return_index=True)
    for here, rows in zip(found.tolist(), np.split(order, starts[1:]), strict=True):
        if here < level:
            built.handed = records.take(rows)
            continue
        cells = keys[rows] >> np.uint64(3 * (KEY_BITS - (here - level)))
        firsts = np.flatnonzero(np.concatenate([[True], cells[1:] != cells[:-1]]))
        where = cells_of(keys[rows[firsts]], here - level)
        for (x, y, z), own in zip(where.tolist(), np.split(rows, firsts[1:]), strict=True):
            side = LATTICE_LEVEL - here
            cell = Cell(here, (origin[0] >> side) + x, (origin[1] >> side) + y, z)
            _add_tile(built, cell, records.take(own), places.take(own, axis=0), origin, settings)
    return built


def _add_tile(
    built: BuiltColumn,
    cell: Cell,
    records: NDArray[Any],
    places: NDArray[np.uint32],
    origin: tuple[int, int],
    settings: PointSettings,
) -> None:
    size_deg, size_m = 180.0 / 2**cell.level, cell_size_m(cell.level)
    frame = enu_to_ecef_matrix(
        (cell.x + 0.5) * size_deg - 180.0,
        (cell.y + 0.5) * size_deg - 90.0,
        (cell.z + 0.5) * size_m + LOWEST_M,
    )
    corner_deg = np.array([origin[0] * STEP_DEG - 180.0, origin[1] * STEP_DEG - 90.0])
    steps = np.empty((len(places), 3), dtype=np.int32)
    _to_steps(places, corner_deg, frame, np.array(QUANTUM_M), steps)
    colours = None
    if settings.colour_depth:
        colours = linear_colours(records[RGB], settings.colour_depth)
    values = []
    for name, part, kind in settings.columns:
        column = records[name]
        values.append((kind, column[:, part] if column.ndim == 2 else column))
    data = compress(encode_points(frame, steps, colours, values), _GZIP_LEVEL)
    built.tiles.append(Tile(content_key(cell), data, "gzip"))
    region = _region(places, corner_deg)
    built.facts.append([*map(float, cell), *region, float(len(places)), float(len(data))])


def _region(places: NDArray[np.uint32], corner_deg: NDArray[np.float64]) -> list[float]:
    """Return the volume of points as a client decodes them: radians and metres."""
    low, high = (bound.astype(np.float64) for bound in axis_range(places))
    # Decoded points lie within the error of their places; a degree of latitude is never shorter
    # than 110.5 km, and one of longitude as much shorter as the cosine of the latitude says.
    south, north = low[1] * STEP_DEG + corner_deg[1], (high[1] + 1) * STEP_DEG + corner_deg[1]
    slack = ERROR_M / 110_500.0
    across = slack / max(math.cos(math.radians(max(abs(south), abs(north)))), 1e-6)
    west = low[0] * STEP_DEG + corner_deg[0] - across
    east = (high[0] + 1) * STEP_DEG + corner_deg[0] + across
    radians = [math.radians(v) for v in (west, south - slack, east, north + slack)]
    bottom, top = low[2] * STEP_M + LOWEST_M, (high[2] + 1) * STEP_M + LOWEST_M
    return [*radians, bottom - ERROR_M, top + ERROR_M]


@njit(cache=True)
def _to_steps(places, corner_deg, frame, quantum, steps):  # type: ignore[no-untyped-def]
    """Write the nearest steps, east, north and up of a frame's origin, of places on the lattice."""
    e2 = FLATTENING * (2.0 - FLATTENING)
    radian = np.pi / 180.0
    for i in range(len(places)):
        # The middle of a step of the lattice stands for all of it.
        lon = (corner_deg[0] + (places[i, 0] + 0.5) * STEP_DEG) * radian
        lat = (corner_deg[1] + (places[i, 1] + 0.5) * STEP_DEG) * radian
        height = LOWEST_M + (places[i, 2] + 0.5) * STEP_M
        sin_lat, cos_lat = np.sin(lat), np.cos(lat)
        vertical = SEMI_MAJOR_M / np.sqrt(1.0 - e2 * sin_lat * sin_lat)
        x = (vertical + height) * cos_lat * np.cos(lon) - frame[0, 3]
        y = (vertical + height) * cos_lat * np.sin(lon) - frame[1, 3]
        z = (vertical * (1.0 - e2) + height) * sin_lat - frame[2, 3]
        for k in range(3):
            local = x * frame[0, k] + y * frame[1, k] + z * frame[2, k]
            steps[i, k] = np.int32(np.round(local / quantum[k]))
