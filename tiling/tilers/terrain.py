"""DEM -> quantized-mesh terrain: a regular grid of 65 x 65 nodes in every tile.

The one idea: the height of a node is a pure function of its level and its place on the globe, and
all tiles of a level quantise it on one common range. Neighbours therefore share their edges bit
for bit, whatever worker made them. Node longitudes and latitudes are multiples of
180 / 2**level / 64 degrees, exact in binary, so a node of a parent is a node of its children.

Heights are ellipsoidal metres. Where the DEM says nothing the surface is mean sea level (the
EGM96 geoid), so the globe is covered down from the two root tiles; the two rings of nodes next to
data take the mean of their neighbours with data instead, so that no cell that holds data falls
off a cliff. Rows count from the south (TMS).
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tiling.batches import ElevationSource
from tiling.bounds import Region
from tiling.coords import TileCoord
from tiling.crs import TILE_REF
from tiling.ellipsoid import SEMI_MAJOR_M, geodetic_to_ecef
from tiling.errors import ConfigError, DatumUndeclared
from tiling.formats import layer_json, quantized_mesh
from tiling.formats.quantized_mesh import QUANTA
from tiling.tilers import terrain_surface
from tiling.tilers.base import Requirements, Run, TilesetInfo
from tiling.tilers.horizon import bounding_sphere, horizon_occlusion_point
from tiling.tilers.pipeline import Tile, UnitResult, build_units, compress
from tiling.tilers.terrain_cells import coverage_of, existing
from tiling.tilers.terrain_surface import CELLS, HALO, NODES, SEA_LEVEL, Probes

DEEPEST_LEVEL = 22
# Four levels of a subtree, at most 8 x 8 + 4 x 4 + 2 x 2 + 1 tiles: about 20 MB of arrays.
_UNIT_LEVELS = 4

Array = NDArray[np.float64]


def geometric_error_m(level: int) -> float:
    """Return the geometric error that Cesium assumes for a level, metres.

    ``TerrainProvider.getEstimatedLevelZeroGeometricErrorForAHeightmap`` with 65 samples and two
    root tiles, halved per level.
    """
    return math.ldexp(SEMI_MAJOR_M * 2 * math.pi * 0.25 / (NODES * 2), -level)


def level_for(resolution_deg: float) -> int:
    """Return the first level whose nodes are no further apart than the pixels of the source."""
    level = math.ceil(math.log2(180 / CELLS / resolution_deg) - 1e-9)
    return min(max(level, 0), DEEPEST_LEVEL)


@dataclass(frozen=True, slots=True)
class TerrainTiler:
    """Makes a terrain tileset from an elevation source.

    Attributes:
        min_level: levels between 0 and this one are left out; the roots always exist.
        max_level: deepest level; None chooses it from the resolution of the source.
        name, attribution: texts of ``layer.json``.
    """

    min_level: int = 0
    max_level: int | None = None
    name: str = ""
    attribution: str = ""

    @property
    def requirements(self) -> Requirements:
        """What the source must be: heights of a known datum; any horizontal frame will do."""
        return Requirements(TILE_REF, heights=True)

    def levels(self, source: ElevationSource) -> tuple[int, ...]:
        """Return the levels that a run over `source` would make.

        Raises:
            ConfigError: the levels asked for are out of order or out of range.
        """
        last = level_for(source.resolution_deg) if self.max_level is None else self.max_level
        if not 0 <= self.min_level <= last <= DEEPEST_LEVEL:
            raise ConfigError(
                f"terrain levels {self.min_level} to {last}: they must rise and lie in "
                f"0 .. {DEEPEST_LEVEL}"
            )
        return tuple(sorted({0, *range(self.min_level, last + 1)}))

    def count_tiles(self, source: ElevationSource) -> int:
        """Return how many tiles a run over `source` would make."""
        areas = coverage_of(source)
        return sum(int(existing(areas, level).mask.sum()) for level in self.levels(source))

    def run(self, source: ElevationSource, run: Run) -> TilesetInfo:
        """Build every tile and ``layer.json``.

        Args:
            source: heights; ``source.ref.vertical`` must be known. It travels to the workers.
            run: where tiles, progress and findings go.

        Raises:
            DatumUndeclared: the source does not say what its heights are counted from.
            Cancelled: asked to stop.
        """
        if source.ref.vertical is None:
            raise DatumUndeclared(
                "the heights of the elevation model have no vertical datum",
                remedy="declare it: --vertical EPSG:5737, ellipsoidal, offset:METRES or grid:FILE",
            )
        levels = self.levels(source)
        areas = coverage_of(source)
        job = _Job(source, areas, levels, tuple(_height_range(source, areas, k) for k in levels))
        units = [u for band in _bands(levels) for u in _units(areas, band)]
        facts = build_units("terrain", units, partial(_build, job), run)
        layer = self._layer_json(source, areas, levels)
        run.writer.put("layer.json", compress(layer), "gzip")
        return _summary(job, facts, run)

    def _layer_json(
        self, source: ElevationSource, areas: Sequence[Region], levels: Sequence[int]
    ) -> bytes:
        available: list[list[layer_json.Rectangle]] = [[] for _ in range(levels[-1] + 1)]
        for level in levels:
            found = existing(areas, level)
            available[level] = layer_json.rectangles(found.mask, found.x0, found.y0)
        content = layer_json.layer_json(
            available, source.extent, name=self.name, attribution=self.attribution
        )
        return json.dumps(content, ensure_ascii=False, indent=1).encode()


@dataclass(frozen=True, slots=True)
class _Job:
    """What every unit of a run shares; travels to the workers."""

    source: ElevationSource
    areas: tuple[Region, ...]
    levels: tuple[int, ...]
    ranges: tuple[tuple[float, float], ...]

    def height_range(self, level: int) -> tuple[float, float]:
        return self.ranges[self.levels.index(level)]


class _Unit(NamedTuple):
    """The tiles of some levels below (and including) one ancestor."""

    ancestor: TileCoord
    levels: tuple[int, ...]


def _bands(levels: Sequence[int]) -> list[tuple[int, ...]]:
    # Counted from the deepest level, so that the many deep units are full and the crown is small.
    bands: list[tuple[int, ...]] = []
    for level in reversed(levels):
        if bands and bands[-1][0] == level + 1 and len(bands[-1]) < _UNIT_LEVELS:
            bands[-1] = (level, *bands[-1])
        else:
            bands.append((level,))
    return bands[::-1]


def _units(areas: Sequence[Region], band: tuple[int, ...]) -> Iterator[_Unit]:
    found = existing(areas, band[0])
    for row, column in np.argwhere(found.mask):
        yield _Unit(TileCoord(band[0], found.x0 + int(column), found.y0 + int(row)), band)


def _height_range(source: ElevationSource, areas: Sequence[Region], level: int) -> tuple[int, int]:
    # Whole metres are exact in the header's float32. The separation is smooth: what it does
    # between the points of the lattice stays within a tenth of its spread and half a metre.
    assert source.ref.vertical is not None
    extent = source.extent
    lon, lat = terrain_surface.lattice(extent.west, extent.south, extent.east, extent.north, 129)
    data = np.isfinite(source.sample(lon, lat))
    inside = data if data.any() else np.ones_like(data)
    low, high = _widened(source.ref.vertical.separation(lon[inside], lat[inside]))
    found = existing(areas, level)
    size = 180 / 2**level
    west, south = found.x0 * size - 180, found.y0 * size - 90
    rows, columns = found.mask.shape
    lon, lat = terrain_surface.lattice(west, south, west + columns * size, south + rows * size, 257)
    sea_low, sea_high = _widened(SEA_LEVEL.separation(lon, lat))
    # The fill beside data carries its height above the sea to where the sea stands otherwise.
    carried = sea_high - sea_low
    bottom = min(low + extent.min_height_m - carried, sea_low)
    top = max(high + extent.max_height_m + carried, sea_high)
    return math.floor(bottom), math.floor(top) + 1


def _widened(values: Array) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    margin = 0.5 + 0.1 * (high - low) if high > low else 0.0
    return low - margin, high + margin


def _build(job: _Job, unit: _Unit) -> UnitResult:
    tiles: list[Tile] = []
    facts: dict[str, Any] = {"tiles": {}, "nodes": {}, "voids": {}, "errors": {}}
    probes: Probes | None = None
    for level in unit.levels:
        found = existing(job.areas, level, within=unit.ancestor)
        if not found.mask.any():
            continue
        surface = terrain_surface.sample(job.source, found, level)
        low, high = job.height_range(level)
        quantised = terrain_surface.quantise(surface, low, high)
        decoded = low + quantised / QUANTA * (high - low)
        normals = terrain_surface.normals(surface)
        if probes is None:
            probes = terrain_surface.probe(job.source, surface)
        key = str(level)
        facts["errors"][key] = probes.compare(surface, decoded)
        inner = surface.data[HALO:-HALO, HALO:-HALO]
        facts["nodes"][key], facts["voids"][key] = inner.size, int(inner.size - inner.sum())
        facts["tiles"][key] = int(found.mask.sum())
        for row, column in np.argwhere(found.mask):
            coord = TileCoord(level, found.x0 + int(column), found.y0 + int(row))
            window = np.s_[
                row * CELLS : row * CELLS + NODES, column * CELLS : column * CELLS + NODES
            ]
            data = _encode(coord, quantised[window], normals[window], (low, high))
            path = f"{coord.level}/{coord.x}/{coord.y}.terrain"
            tiles.append(Tile(path, compress(data), "gzip"))
    return UnitResult(tiles, facts)


class _Grid(NamedTuple):
    """The part of a tile that is the same for all: which node is which vertex."""

    order: NDArray[np.int64]
    u: NDArray[np.uint16]
    v: NDArray[np.uint16]
    triangles: NDArray[np.uint32]
    edges: quantized_mesh.Edges


@cache
def _grid() -> _Grid:
    node = np.arange(NODES * NODES).reshape(NODES, NODES)
    sw, se, nw, ne = node[:-1, :-1], node[:-1, 1:], node[1:, :-1], node[1:, 1:]
    triangles = np.stack([sw, se, nw, nw, se, ne], axis=-1).reshape(-1, 3)
    order = quantized_mesh.first_use_order(triangles)
    vertex = np.empty(len(order), dtype=np.uint32)
    vertex[order] = np.arange(len(order), dtype=np.uint32)
    across = np.rint(np.arange(NODES) * (QUANTA / CELLS)).astype(np.uint16)
    u, v = across[order % NODES], across[order // NODES]
    return _Grid(order, u, v, vertex[triangles], quantized_mesh.edges_of(u, v))


def _encode(
    coord: TileCoord,
    heights: NDArray[np.uint16],
    normals: NDArray[np.uint8],
    height_range: tuple[float, float],
) -> bytes:
    grid = _grid()
    low, high = height_range
    size = 180 / 2**coord.level
    west, south = coord.x * size - 180, coord.y * size - 90
    h = heights.ravel()[grid.order]
    points = geodetic_to_ecef(
        west + grid.u / QUANTA * size,
        south + grid.v / QUANTA * size,
        low + h / QUANTA * (high - low),
    )
    middle = float(low + np.median(h) / QUANTA * (high - low))
    center = geodetic_to_ecef(
        np.array([west + size / 2]), np.array([south + size / 2]), np.array([middle])
    )[0]
    sphere, radius = bounding_sphere(points)
    header = quantized_mesh.Header(
        center=_vector(center),
        min_height_m=low,
        max_height_m=high,
        sphere_center=_vector(sphere),
        sphere_radius_m=radius,
        horizon=_vector(horizon_occlusion_point(points, center)),
    )
    return quantized_mesh.encode(
        quantized_mesh.QuantizedMesh(
            header,
            grid.u,
            grid.v,
            h,
            grid.triangles,
            grid.edges,
            normals.reshape(-1, 2)[grid.order],
        )
    )


def _vector(values: Array) -> tuple[float, float, float]:
    x, y, z = values.tolist()
    return x, y, z


def _summary(job: _Job, facts: Sequence[dict[str, Any]], run: Run) -> TilesetInfo:
    tiles: Counter[str] = Counter()
    nodes: Counter[str] = Counter()
    voids: Counter[str] = Counter()
    squares: Counter[str] = Counter()
    probes: Counter[str] = Counter()
    worst: dict[str, float] = {}
    for fact in facts:
        tiles.update(fact["tiles"])
        nodes.update(fact["nodes"])
        voids.update(fact["voids"])
        for level, (error, square, count) in fact["errors"].items():
            worst[level] = max(worst.get(level, 0.0), error)
            squares[level] += square
            probes[level] += count
    levels = [str(level) for level in job.levels]
    last = levels[-1]
    share = voids[last] / nodes[last]
    run.findings.add(
        "terrain-void",
        "assumption",
        f"{share:.1%} of the nodes of level {last} lie outside the data of the elevation model "
        "and are set to mean sea level (EGM96), or beside data to the mean of their neighbours",
        count=voids[last],
    )
    vertical = job.source.ref.vertical
    assert vertical is not None
    low, high = job.ranges[-1]
    extent = job.source.extent
    return TilesetInfo(
        bounds=Region(*extent[:4], low, high),
        min_level=job.levels[0],
        max_level=job.levels[-1],
        tiles=sum(tiles.values()),
        metadata={
            "tiles_per_level": {k: tiles[k] for k in levels},
            "errors_m": {k: worst[k] for k in levels},
            "rmse_m": {k: math.sqrt(squares[k] / max(1, probes[k])) for k in levels},
            "geometric_error_m": {k: geometric_error_m(int(k)) for k in levels},
            "quantum_m": {
                str(k): (high - low) / QUANTA
                for k, (low, high) in zip(job.levels, job.ranges, strict=True)
            },
            "void_share": share,
            "vertical": vertical.to_json(),
            "resolution_deg": job.source.resolution_deg,
        },
    )
