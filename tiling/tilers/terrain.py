"""DEM -> quantized-mesh terrain: meshes that adapt to the land, alike at the edges of tiles.

The one idea: the height of a node, and whether a mesh needs it, are pure functions of its level and
its place on the globe, and all tiles of a level are quantised on one common range. Neighbours
therefore share their edges bit for bit, whatever worker made them, and a tile made on demand
(`build_tile`) is the baked tile. Node longitudes and latitudes are multiples of a power-of-two
fraction of 180 degrees, exact in binary, so a node of a parent is a node of its children.

Heights are ellipsoidal metres. Where the DEM says nothing the surface is mean sea level (the
EGM96 geoid), so the globe is covered down from the two root tiles; the two rings of nodes next to
data take the mean of their neighbours with data instead, so that no cell that holds data falls
off a cliff. Rows count from the south (TMS).
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tiling.batches import PixelSource, TerrainSource
from tiling.bounds import Region
from tiling.coords import TileCoord
from tiling.crs import TILE_REF
from tiling.errors import ConfigError
from tiling.findings import Findings
from tiling.formats import layer_json
from tiling.formats.quantized_mesh import QUANTA, with_water_mask
from tiling.tilers import terrain_surface
from tiling.tilers.base import Requirements, Run, TilesetInfo
from tiling.tilers.pipeline import Tile, UnitResult, build_units, compress
from tiling.tilers.terrain_cells import available_levels, existing, overlaps
from tiling.tilers.terrain_mesh import Sheet, encode_tile
from tiling.tilers.terrain_probes import probe
from tiling.tilers.terrain_rtin import SQUARE, classify
from tiling.tilers.terrain_spec import (
    DEEPEST_LEVEL,
    TerrainSpec,
    geometric_error_m,
    level_for,
    specify,
)

if TYPE_CHECKING:  # polygons and their libraries are for terrains with water
    from tiling.tilers.terrain_water import WaterAreas

__all__ = ["TerrainSpec", "TerrainTiler", "build_tile", "geometric_error_m", "level_for", "specify"]

# Nodes along the edge of a unit of work: with its halo some 60 MB of arrays.
_UNIT_NODES = 2048


@dataclass(frozen=True, slots=True)
class TerrainTiler:
    """Makes a terrain tileset from an elevation source.

    Attributes:
        min_level: levels between 0 and this one are left out; the roots always exist.
        max_level: deepest level; None chooses it from the resolution of the source.
        bake: deepest level whose tiles a run makes, the roots always; deeper ones are left to
            `build_tile`. None makes all.
        name, attribution, parent_url: see `layer_json.layer_json`.
        water: where water is; tiles carry masks of it.
    """

    min_level: int = 0
    max_level: int | None = None
    bake: int | None = None
    name: str = ""
    attribution: str = ""
    parent_url: str = ""
    water: WaterAreas | None = None

    @property
    def requirements(self) -> Requirements:
        """What the source must be: heights of a known datum; any horizontal frame will do."""
        return Requirements(TILE_REF, heights=True)

    def levels(self, source: TerrainSource) -> tuple[int, ...]:
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

    def baked(self, source: TerrainSource) -> tuple[int, ...]:
        """Return those of the levels whose tiles a run makes."""
        levels = self.levels(source)
        return tuple(k for k in levels if self.bake is None or k <= max(self.bake, levels[0]))

    def run(self, source: TerrainSource, run: Run) -> TilesetInfo:
        """Build every tile and ``layer.json``.

        Args:
            source: heights; it travels to the workers. The meshes of one that is a `PixelSource`
                are measured against its pixels.
            run: where tiles, progress and findings go.

        Returns:
            what was made; ``metadata["terrain"]`` is the JSON of the `TerrainSpec`, and under
            ``baked`` the deepest level that was made. ``layer.json`` tells of these levels alone.

        Raises:
            Cancelled: asked to stop.
        """
        # A worker looks at pixels: this process compiles nothing and keeps no blocks.
        spec = run.executor.submit(specify, source, self.levels(source)).result()
        baked = self.baked(source)
        units = [unit for band in _bands(spec, baked) for unit in _units(spec, band)]
        facts = build_units("terrain", units, partial(_build, source, spec, self.water), run)
        layer = self._layer_json(source, spec, baked)
        run.writer.put("layer.json", compress(layer), "gzip")
        return _summary(source, spec, baked, facts, run)

    def _layer_json(
        self, source: TerrainSource, spec: TerrainSpec, baked: tuple[int, ...]
    ) -> bytes:
        content = layer_json.layer_json(
            available_levels(spec.areas, baked),
            source.extent,
            name=self.name,
            attribution=self.attribution,
            parent_url=self.parent_url,
            water=self.water is not None,
        )
        return json.dumps(content, ensure_ascii=False, indent=1).encode()


def build_tile(
    source: TerrainSource, spec: TerrainSpec, coord: TileCoord, water: WaterAreas | None = None
) -> bytes:
    """Return a tile, uncompressed: the very bytes that a run over the source bakes.

    Args:
        source: the heights that `spec` was made for.
        spec: see `TerrainSpec`.
        coord: a tile that exists (`TerrainSpec.has`).
        water: where water is, as of the run.

    Raises:
        ConfigError: the level is none of the tileset's.
    """
    if coord.level not in spec.levels:
        raise ConfigError(f"the terrain has no level {coord.level}: there are {spec.levels}")
    sheet, _ = _sheet(source, spec, (coord.level,), coord.x, coord.y, (1, 1))
    data, _, _ = _encode(sheet, spec, coord, 0, water)
    return data


def build_near(
    source: TerrainSource,
    spec: TerrainSpec,
    baked: Sequence[int],
    near: Callable[[int], Sequence[Region]],
    run: Run,
    water: WaterAreas | None = None,
) -> list[dict[str, Any]]:
    """Build the tiles that overlap regions into the run's store, and few others beside them.

    Args:
        source, spec, water: see `build_tile`.
        baked: the levels, rising.
        near: the regions, given a level; they are asked for the first of levels on the same nodes.
        run: where tiles, progress and findings go.

    Returns:
        facts of the units of work, see `worst_errors`.
    """
    jobs: list[tuple[TerrainSpec, _Unit]] = []
    for band in _bands(spec, baked):
        part = replace(spec, areas=overlaps(spec.areas, near(band[0]), band[0]))
        jobs += [(part, unit) for unit in _units(part, band)]
    return build_units("terrain", jobs, partial(_build_job, source, water), run)


def worst_errors(facts: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return per level by how much meshes leave the pixels of their source at most, metres."""
    worst: dict[str, float] = {}
    for fact in facts:
        for level, values in fact.get("levels", {}).items():
            worst[level] = max(worst.get(level, 0.0), values[3])
    return worst


def note_errors(worst: Mapping[str, float], findings: Findings) -> None:
    """Warn of levels that are further off their source than viewers assume."""
    for level, error_m in worst.items():
        allowed = geometric_error_m(int(level))
        if error_m > allowed:
            findings.add(
                "terrain-error",
                "warning",
                f"level {level} is off the elevation model by up to {error_m:.2f} m, "
                f"more than the {allowed:.2f} m that a viewer assumes",
            )


class _Unit(NamedTuple):
    """The tiles of some levels below (and including) one ancestor; all lie on the same nodes."""

    ancestor: TileCoord
    levels: tuple[int, ...]


def _bands(spec: TerrainSpec, levels: Sequence[int]) -> list[tuple[int, ...]]:
    bands: list[tuple[int, ...]] = []
    for level in levels:
        if bands and spec.step_deg(bands[-1][0]) == spec.step_deg(level):
            bands[-1] = (*bands[-1], level)
        else:
            bands.append((level,))
    return bands


def _units(spec: TerrainSpec, band: tuple[int, ...]) -> Iterator[_Unit]:
    up = int(math.log2(_UNIT_NODES // spec.cells(band[0])))
    level = max(0, band[0] - up)
    found = existing(spec.areas, level)
    for row, column in np.argwhere(found.mask):
        yield _Unit(TileCoord(level, found.x0 + int(column), found.y0 + int(row)), band)


def _sheet(
    source: TerrainSource,
    spec: TerrainSpec,
    levels: tuple[int, ...],
    x: int,
    y: int,
    shape: tuple[int, int],
) -> tuple[Sheet, int]:
    """Return the surface over a rectangle of tiles of the first level, and its void nodes."""
    level = levels[0]
    cells = spec.cells(level)
    low, high = spec.height_range(level)
    window = terrain_surface.Window(
        level,
        cells,
        x * cells - SQUARE,
        y * cells - SQUARE,
        shape[1] * cells + 2 * SQUARE + 1,
        shape[0] * cells + 2 * SQUARE + 1,
    )
    fine, voids = terrain_surface.sample(source, window, SQUARE, low, high)
    # The deepest level is the strictest.
    tolerances = np.array([spec.tolerance(k) for k in reversed(levels)], dtype=np.int64)
    classes = classify(fine, window.x0, window.y0, SQUARE, tolerances)
    sheet = Sheet(window.x0, window.y0, spec.step_deg(level), low, high, fine, classes)
    return sheet, voids


def _encode(
    sheet: Sheet, spec: TerrainSpec, coord: TileCoord, rank: int, water: WaterAreas | None
) -> tuple[bytes, int, int]:
    level = coord.level
    data, vertices, triangles = encode_tile(
        sheet, coord, spec.cells(level), rank, spec.longest(level), spec.stride(level)
    )
    if water is not None:
        data = with_water_mask(data, water.mask(coord))
    return data, vertices, triangles


def _build_job(
    source: TerrainSource, water: WaterAreas | None, job: tuple[TerrainSpec, _Unit]
) -> UnitResult:
    spec, unit = job
    return _build(source, spec, water, unit)


def _build(
    source: TerrainSource, spec: TerrainSpec, water: WaterAreas | None, unit: _Unit
) -> UnitResult:
    levels = unit.levels
    first = existing(spec.areas, levels[0], within=unit.ancestor)
    rows, columns = np.nonzero(first.mask)
    if not len(rows):
        return UnitResult([], {})
    x0, y0 = first.x0 + int(columns.min()), first.y0 + int(rows.min())
    shape = (int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1)
    sheet, voids = _sheet(source, spec, levels, x0, y0, shape)
    cells = spec.cells(levels[0])
    nodes = (shape[0] * cells + 1) * (shape[1] * cells + 1)
    facts: dict[str, Any] = {"nodes": nodes, "voids": voids, "levels": {}}
    size = 180 / 2 ** levels[0]
    west, south = x0 * size - 180, y0 * size - 90
    region = Region(west, south, west + shape[1] * size, south + shape[0] * size)
    probes = None
    if isinstance(source, PixelSource):
        probes = probe(source, region, source.extent, source.resolution_deg)
    tiles: list[Tile] = []
    for level in levels:
        rank = len(levels) - 1 - levels.index(level)
        deeper = level - levels[0]
        corner = TileCoord(level, x0 << deeper, y0 << deeper)
        mask = np.zeros((shape[0] << deeper, shape[1] << deeper), dtype=bool)
        found = existing(spec.areas, level, within=unit.ancestor)
        vertices = triangles = 0
        for row, column in np.argwhere(found.mask):
            coord = TileCoord(level, found.x0 + int(column), found.y0 + int(row))
            mask[coord.y - corner.y, coord.x - corner.x] = True
            data, n, t = _encode(sheet, spec, coord, rank, water)
            vertices, triangles = vertices + n, triangles + t
            tiles.append(Tile(f"{level}/{coord.x}/{coord.y}.terrain", compress(data), "gzip"))
        error = (0.0, 0.0, 0)
        if probes is not None:
            error = probes.compare(sheet, spec.cells(level), rank, spec.longest(level), mask)
        facts["levels"][str(level)] = [int(mask.sum()), vertices, triangles, *error]
    return UnitResult(tiles, facts)


def _summary(
    source: TerrainSource,
    spec: TerrainSpec,
    baked: tuple[int, ...],
    facts: Sequence[dict[str, Any]],
    run: Run,
) -> TilesetInfo:
    sums: dict[str, Counter[str]] = {str(k): Counter() for k in baked}
    worst: dict[str, float] = {str(k): 0.0 for k in baked}
    last = str(baked[-1])
    nodes = voids = 0
    for fact in facts:
        for level, (tiles, vertices, triangles, error, square, count) in fact.get(
            "levels", {}
        ).items():
            sums[level].update(
                tiles=tiles, vertices=vertices, triangles=triangles, square=square, count=count
            )
            worst[level] = max(worst[level], error)
            if level == last:
                nodes, voids = nodes + fact["nodes"], voids + fact["voids"]
    share = voids / nodes
    run.findings.add(
        "terrain-void",
        "assumption",
        f"{share:.1%} of the nodes of level {last} lie outside the data of the elevation model "
        "and are set to mean sea level (EGM96), or beside data to the mean of their neighbours",
        count=voids,
    )
    note_errors(worst, run.findings)
    low, high = spec.height_range(spec.levels[-1])
    extent = source.extent
    return TilesetInfo(
        bounds=Region(*extent[:4], low, high),
        min_level=spec.levels[0],
        max_level=spec.levels[-1],
        tiles=sum(c["tiles"] for c in sums.values()),
        metadata={
            "tiles_per_level": {k: c["tiles"] for k, c in sums.items()},
            "vertices_per_level": {k: c["vertices"] for k, c in sums.items()},
            "triangles_per_level": {k: c["triangles"] for k, c in sums.items()},
            "errors_m": worst,
            "rmse_m": {k: math.sqrt(c["square"] / max(1, c["count"])) for k, c in sums.items()},
            "geometric_error_m": {str(k): geometric_error_m(k) for k in spec.levels},
            "quantum_m": {
                str(k): (high - low) / QUANTA
                for k, (low, high) in zip(spec.levels, spec.ranges_m, strict=True)
            },
            "void_share": share,
            "resolution_deg": source.resolution_deg,
            "terrain": {**spec.to_json(), "baked": baked[-1]},
        },
    )
