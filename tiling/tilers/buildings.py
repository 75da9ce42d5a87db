"""White-model buildings (白模): footprints with heights to 3D Tiles 1.1.

Slice: every building goes to the cell of its centroid and, by volume, to a level (`levels`).
Sort: an external sort by tile. Build: each tile becomes one glb with all attributes. Bound:
volumes are grown bottom-up from the decoded float32 content (`quadtree`), then the subtrees and
tileset.json are written.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from tiling.batches import BASE_COLUMN, HEIGHT_COLUMN, HEIGHT_SOURCE_COLUMN, FeatureBatch
from tiling.bounds import Region
from tiling.crs import TILE_REF
from tiling.ellipsoid import SEMI_MINOR_M, ecef_to_geodetic
from tiling.errors import ConfigError, NothingToTile, TilingError
from tiling.formats.glb import Mesh, PropertyTable, encode_glb
from tiling.formats.metadata import (
    CLASS_ID,
    MetadataSchema,
    SchemaBuilder,
    encode_table,
)
from tiling.formats.plain_columns import plain
from tiling.formats.subtree import BOUNDING_REGION_CLASS, TILE_CLASS, encode_subtree
from tiling.formats.tileset_json import encode_tileset
from tiling.tilers.base import Requirements, Run, TilesetInfo
from tiling.tilers.extsort import Spool, SpoolWriter
from tiling.tilers.levels import Budget, Candidates, assign_levels
from tiling.tilers.massing import ROOF, LocalFrame, Massing, extrude, vertex_counts
from tiling.tilers.pipeline import Tile, UnitResult, build_units, compress
from tiling.tilers.quadtree import (
    DEEPEST_LEVEL,
    ROOT_LEVEL,
    cell_mortons,
    content_key,
    grow,
    implicit_roots,
    subtrees,
    tile_keys,
    tile_of,
)

FEATURE_ID_COLUMN = "cim:feature_id"

# Errors in metres. At a screen-space error of 16 on a full-HD view a tile refines nearer than
# about 100 times its error: level 8 (78 km cells) at 100 km, level 12 at 6 km, level 15 at 800 m.
_LEVEL_8_ERROR_M = 1024.0
# The root refines from anywhere on the globe: the largest buildings never vanish on zoom-out.
_ROOT_ERROR_M = 2.0**19
_TILESET_ERROR_M = 2.0**20

_TILES_A_UNIT = 4
_ROWS_A_CHUNK = 20_000
# Walls a shade darker than roofs: shapes read even where the light is flat.
_WALL_COLOR, _ROOF_COLOR = (225, 225, 225, 255), (255, 255, 255, 255)


@dataclass(frozen=True, slots=True)
class _Unit:
    """Tiles ``low <= key < high`` of a spool."""

    spool: Path
    schema: Path
    low: int
    high: int
    skirt_m: float


class BuildingsTiler:
    """Turns footprints with base and height into 3D Tiles.

    Args:
        min_level: coarsest level of the global quadtree that holds buildings, at least 8.
        max_level: finest level; its cells take whatever is left, at most 20.
        skirt_m: metres that walls reach below the base, so that no building floats on a slope;
            attributes know nothing of it.
        tile_features: buildings that a tile above `max_level` holds at most, give or take half.
        tile_vertices: vertices that a tile holds at most, give or take half.

    Raises:
        ConfigError: the levels contradict each other or the skirt is negative.
    """

    kind = "buildings"
    requirements = Requirements(ref=TILE_REF, columns=(BASE_COLUMN, HEIGHT_COLUMN), heights=True)

    def __init__(
        self,
        min_level: int = ROOT_LEVEL,
        max_level: int = 18,
        skirt_m: float = 2.0,
        tile_features: int = 1000,
        tile_vertices: int = 40_000,
    ) -> None:
        if not ROOT_LEVEL <= min_level <= max_level <= DEEPEST_LEVEL:
            raise ConfigError(
                f"levels {min_level} to {max_level} of buildings: "
                f"choose {ROOT_LEVEL} <= min <= max <= {DEEPEST_LEVEL}"
            )
        if skirt_m < 0 or tile_features < 1 or tile_vertices < 1:
            raise ConfigError(
                f"skirt {skirt_m} m, {tile_features} buildings, {tile_vertices} vertices a tile: "
                "none may be negative, and a tile holds at least one"
            )
        self.min_level = min_level
        self.max_level = max_level
        self.skirt_m = skirt_m
        self.budget = Budget(tile_features, tile_vertices)

    def run(self, batches: Iterable[FeatureBatch], run: Run) -> TilesetInfo:
        """Make the tileset; what an interrupted run left in ``run.scratch`` is used.

        Raises:
            NothingToTile: there is no building.
            TilingError: a batch breaks what `requirements` ask for.
            Cancelled: asked to stop; the same call resumes.
        """
        folder, schema_path = run.scratch / "tiles", run.scratch / "schema.json"
        if not Spool.is_finished(folder):
            self._sort(batches, run, folder, schema_path)
        keys = Spool(folder).keys()
        units = [
            _Unit(folder, schema_path, int(part[0]), int(part[-1]) + 1, self.skirt_m)
            for part in np.split(keys, np.arange(_TILES_A_UNIT, len(keys), _TILES_A_UNIT))
        ]
        facts = build_units("buildings", units, _build, run)
        schema = MetadataSchema.load(orjson.loads(schema_path.read_bytes()))
        return self._bind(keys, facts, schema, run)

    def _sort(
        self, batches: Iterable[FeatureBatch], run: Run, folder: Path, schema_path: Path
    ) -> None:
        slices = run.scratch / "slices"
        run_nbytes = max(run.memory_nbytes // 8, 1 << 20)
        schema, plan = _slice(batches, run, SpoolWriter.create(slices, run_nbytes))
        level = assign_levels(plan, self.budget, self.min_level, self.max_level)
        run.progress.begin("sort", len(level))
        writer = SpoolWriter.create(folder, run_nbytes)
        done = 0
        for keys, batch in Spool(slices).chunks(_ROWS_A_CHUNK):
            writer.add(batch, tile_keys(keys, level[done : done + len(batch)]))
            done += len(batch)
            run.progress.advance(len(batch))
        partial = schema_path.with_suffix(".part")
        partial.write_bytes(orjson.dumps(schema.dump()))
        partial.rename(schema_path)
        writer.finish()
        shutil.rmtree(slices)

    def _bind(
        self,
        keys: NDArray[np.uint64],
        facts: list[dict[str, Any]],
        schema: MetadataSchema,
        run: Run,
    ) -> TilesetInfo:
        regions = np.array([region for fact in facts for region in fact["regions"]])
        levels = grow(keys, regions)
        for key, subtree in subtrees(levels):
            run.writer.put(key, compress(encode_subtree(subtree)), "gzip")
        bounds = Region(*levels[0].regions[0].tolist())
        for region in levels[0].regions[1:].tolist():
            bounds = bounds.union(Region(*region))
        classes = {CLASS_ID: schema.to_json(), BOUNDING_REGION_CLASS: TILE_CLASS}
        tileset = encode_tileset(
            implicit_roots(levels, _LEVEL_8_ERROR_M),
            _TILESET_ERROR_M,
            _ROOT_ERROR_M,
            {"id": "cim", "classes": classes},
            # The root's volume is made of whole cells; this is where the buildings are.
            {"cim:bounds": bounds.bbox3d()},
        )
        run.writer.put("tileset.json", compress(tileset), "gzip")
        return _info(keys, facts, schema, bounds)


def _slice(
    batches: Iterable[FeatureBatch], run: Run, writer: SpoolWriter
) -> tuple[MetadataSchema, Candidates]:
    """Spool every building under its deepest cell and return what the plan needs of each."""
    builder = SchemaBuilder()
    rows: list[Candidates] = []
    run.progress.begin("slice", None)
    for batch in batches:
        if len(batch):
            sliced, row = _measure(batch, builder)
            writer.add(sliced, row.deepest)
            rows.append(row)
            run.progress.advance(len(batch))
    if not rows:
        raise NothingToTile("there is no building to tile")
    writer.finish()
    plan = Candidates.joined(rows)
    # The order in which the spool hands the buildings out again.
    order = np.lexsort((plan.ids, plan.deepest))
    derived = (FEATURE_ID_COLUMN, BASE_COLUMN, HEIGHT_COLUMN, HEIGHT_SOURCE_COLUMN)
    return builder.finish(derived), plan.take(order)


def _measure(batch: FeatureBatch, builder: SchemaBuilder) -> tuple[FeatureBatch, Candidates]:
    _require(batch)
    source = {
        name: str(batch.attributes.schema.field(name).type)
        for name in batch.attributes.column_names
    }
    batch = batch.with_column(FEATURE_ID_COLUMN, pa.array(batch.ids))
    batch = FeatureBatch(batch.ref, batch.ids, batch.geometry, plain(batch.attributes))
    builder.observe(batch.attributes, source)
    centre = shapely.get_coordinates(shapely.centroid(batch.geometry))
    deepest = cell_mortons(centre[:, 0], centre[:, 1], DEEPEST_LEVEL)
    # Degrees of longitude shrink with latitude; the constant factor to m3 does not matter here.
    area = shapely.area(batch.geometry) * np.cos(np.radians(centre[:, 1]))
    volume = area * batch.column(HEIGHT_COLUMN)
    return batch, Candidates(deepest, batch.ids, volume, vertex_counts(batch.geometry))


def _require(batch: FeatureBatch) -> None:
    for name in (BASE_COLUMN, HEIGHT_COLUMN):
        if name not in batch.attributes.column_names:
            raise TilingError(f"buildings need the column {name!r}")
    base, height = batch.column(BASE_COLUMN), batch.column(HEIGHT_COLUMN)
    flat = ~(np.isfinite(base) & np.isfinite(height) & (height > 0))
    if flat.any():
        first = int(np.flatnonzero(flat)[0])
        raise TilingError(
            f"{int(flat.sum())} buildings lack a finite base or a height above zero, "
            f"the first being feature {batch.ids[first]}: base {base[first]}, "
            f"height {height[first]}"
        )
    areal = np.isin(shapely.get_type_id(batch.geometry), (3, 6)) & ~shapely.is_empty(batch.geometry)
    if not areal.all():
        first = int(np.flatnonzero(~areal)[0])
        raise TilingError(
            f"{int((~areal).sum())} features are not polygons, the first being feature "
            f"{batch.ids[first]}: {batch.geometry[first].geom_type}"
        )


def _build(unit: _Unit) -> UnitResult:
    schema = MetadataSchema.load(orjson.loads(unit.schema.read_bytes()))
    keys, batch = Spool(unit.spool).gather(unit.low, unit.high)
    tiles, regions, triangles = [], [], 0
    start = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
    for index in np.split(np.arange(len(keys)), start[1:]):
        features = batch.take(index)
        mesh, region = _mesh(features, unit.skirt_m)
        table = PropertyTable(schema, len(features), encode_table(schema, features.attributes))
        data = compress(encode_glb(mesh, table))
        tiles.append(Tile(content_key(tile_of(int(keys[index[0]]))), data, "gzip"))
        regions.append(list(region))
        triangles += len(mesh.triangles)
    return UnitResult(tiles, {"regions": regions, "features": len(batch), "triangles": triangles})


def _mesh(batch: FeatureBatch, skirt_m: float) -> tuple[Mesh, Region]:
    west, south, east, north = shapely.total_bounds(batch.geometry)
    base, height = batch.column(BASE_COLUMN), batch.column(HEIGHT_COLUMN)
    frame = LocalFrame.at((west + east) / 2, (south + north) / 2, float(base.min()))
    massing = extrude(batch.geometry, base, height, frame, skirt_m)
    positions = massing.positions.astype(np.float32)
    colors = np.array([_WALL_COLOR, _ROOF_COLOR], dtype=np.uint8)[
        (massing.part == ROOF).astype(np.intp)
    ]
    mesh = Mesh(
        positions,
        massing.normals,
        colors,
        massing.feature,
        massing.triangles,
        massing.edges,
        frame.to_ecef,
    )
    return mesh, _region(positions, frame, _longest_chord_m(massing))


def _longest_chord_m(massing: Massing) -> float:
    a, b, c = (massing.positions[massing.triangles[:, i]] for i in range(3))
    sides = np.concatenate([a - b, b - c, c - a])
    return float(np.sqrt(np.einsum("ij,ij->i", sides, sides).max()))


def _region(positions: NDArray[np.float32], frame: LocalFrame, chord_m: float) -> Region:
    """Return the volume of what a decoder will see."""
    seen = positions.astype(np.float64) @ frame.to_ecef[:3, :3].T + frame.to_ecef[:3, 3]
    lon, lat, height = ecef_to_geodetic(seen)
    # Triangles are flat and the Earth is not: the middle of a chord sags below its ends, and
    # between two places of one latitude it leans towards the pole. A millimetre for rounding.
    steep = max(1.0, float(np.abs(np.tan(np.radians(lat))).max()))
    sag_m = chord_m**2 / (8 * SEMI_MINOR_M) * steep + 1e-3
    sag_lat = np.degrees(sag_m / SEMI_MINOR_M)
    sag_lon = sag_lat / max(float(np.cos(np.radians(lat)).min()), 1e-6)
    return Region(
        float(lon.min() - sag_lon),
        float(lat.min() - sag_lat),
        float(lon.max() + sag_lon),
        float(lat.max() + sag_lat),
        float(height.min() - sag_m),
        float(height.max() + sag_m),
    )


def _info(
    keys: NDArray[np.uint64], facts: list[dict[str, Any]], schema: MetadataSchema, bounds: Region
) -> TilesetInfo:
    level = [tile_of(key).level for key in keys.tolist()]
    levels, counts = np.unique(level, return_counts=True)
    features = sum(fact["features"] for fact in facts)
    return TilesetInfo(
        bounds=bounds,
        min_level=int(levels[0]),
        max_level=int(levels[-1]),
        tiles=len(keys),
        features=features,
        metadata={
            "fields": [
                {
                    "id": p.id,
                    "name": p.name,
                    "type": p.component_type + ("[]" if p.array else ""),
                    "source_type": p.source_type,
                    "nullable": p.no_data is not None,
                }
                for p in schema.properties
            ],
            "tiles_per_level": {
                str(lv): n for lv, n in zip(levels.tolist(), counts.tolist(), strict=True)
            },
            "geometric_error_m": {
                str(lv): _LEVEL_8_ERROR_M / 2 ** (lv - ROOT_LEVEL) for lv in levels.tolist()
            },
            "triangles": sum(fact["triangles"] for fact in facts),
        },
    )
