"""Update a part of a terrain: new sheets over those that a published asset was made of.

New sheets win where they have data, and fade into what lies under them as all sheets of a terrain
do. They become rasters of their own in front of the asset's; only the tiles that see them are made
again, into a small store in front of the asset's tiles. The specification of the meshes stays, so
the result is, byte for byte, a terrain of all these rasters with that specification; where it
cannot stay, the update is refused and says why.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

from catalog.database import Catalog
from catalog.records import Item, NewVersion, StoreRef, Version
from ingest.dem_pixels import DEFAULT_FILL_PIXELS, Cleaning
from ingest.dem_rasters import make_stack
from ingest.executors import default_workers, open_executor
from ingest.manifest import IngestOptions
from ingest.plan import Plan, make_plan
from ingest.report import Report
from ingest.terrain_water import water_of
from ingest.workspace import Workspace, file_store
from tiling.bounds import Region
from tiling.dem import DemStack
from tiling.errors import ConfigError, Conflict, TilingError
from tiling.stores import open_store
from tiling.stores.base import StoreInfo
from tiling.stores.overlay import OverlayReader
from tiling.stores.zip3tz import ThreeTzReader, ThreeTzWriter
from tiling.tilers.base import Progress, Run
from tiling.tilers.terrain import TerrainSpec
from tiling.tilers.terrain_cells import existing
from tiling.tilers.terrain_update import Updated, extended, update_tiles, widened
from tiling.validate.terrain import check_changed

# Every tile asks all rasters that lie over it.
MAX_RASTERS = 200
# What an update does not know of the whole any more.
_STALE = ("vertices_per_level", "triangles_per_level", "rmse_m", "void_share", "update")
# Said once, of the whole asset: an update keeps them.
_FIXED = ("kind", "min_zoom", "bake", "order", "parent", "water")


@dataclass(frozen=True, slots=True, kw_only=True)
class TerrainUpdating:
    """What an update of a terrain is given.

    Attributes:
        workspace: where stores rest.
        base: the version it starts from.
        declared: options that were given; see `ingest.run.update`.
        workers, executor, memory_nbytes: see `ingest.run.Resources`.
        progress, report: receive what happens.
    """

    workspace: Workspace
    base: Version
    declared: Mapping[str, Any]
    workers: int | None
    executor: str
    memory_nbytes: int
    progress: Progress
    report: Report

    @property
    def stores(self) -> tuple[StoreRef, ...]:
        """The rasters of the version, first wins."""
        return tuple(ref for ref in self.base.stores if ref.role == "data")

    def old_tiles(self) -> list[Any]:
        """Open the tile stores of the version, newest first."""
        refs = [ref for ref in self.base.stores if ref.role == "tiles"]
        return [open_store(self.workspace.store_path(ref), ref.format) for ref in refs]


def inherited(declared: Mapping[str, Any], base: Version) -> dict[str, Any]:
    """Return the options of an update: those given, and for the rest those of the base version.

    What was said of the frame and the datum of the sheets there are is assumed of new ones that do
    not say it themselves.

    Raises:
        ConfigError: an option would change the whole asset.
    """
    stored = dict(base.info.get("options", {}))
    stored.pop("rasters", None)
    for name in ("crs", "vertical"):
        told = stored.pop(name, None)
        if told is not None:
            stored[f"assume_{name}"] = told
    given = {name: value for name, value in declared.items() if value not in (None, (), "")}
    for name in _FIXED:
        if name in given and given[name] != stored.get(name, "terrain" if name == "kind" else None):
            raise ConfigError(
                f"--{name.replace('_', '-')} {given[name]} is decided when a terrain is made as a "
                "whole: leave it out, or ingest all its sheets again"
            )
    deepest = int(base.info["max_level"])
    if given.get("max_zoom", deepest) != deepest:
        raise ConfigError(
            f"--max-zoom {given['max_zoom']}: the terrain ends at level {deepest}, and an update "
            "keeps that; ingest all its sheets again for other levels"
        )
    return {**stored, **given, "kind": "terrain"}


def update_terrain(job: TerrainUpdating, item: Item, catalog: Catalog) -> Version | None:
    """Publish a version with new sheets over those of the base version.

    Returns:
        the version; None when nothing would change.

    Raises:
        ConfigError: no source, or an option of the whole asset.
        Conflict: the tiles that are there would have to be others.
        TilingError: the finished tiles break a law of their kind.
    """
    base, report = job.base, job.report
    if not job.declared.get("sources"):
        raise ConfigError("--update of a terrain needs new sheets (a source)")
    terrain = base.info.get("terrain", {})
    if not {"mesh", "dem", "baked"} <= set(terrain):
        raise Conflict(
            f"terrain {base.item_id!r} was made by an older version of this program: ingest all "
            "its sheets again"
        )
    TerrainSpec.from_json(terrain)  # refuses what another version of the program meshed
    options = IngestOptions(**inherited(job.declared, base))
    report.options = options.to_json()
    with report.step("plan"):
        plan = make_plan(options)
        report.plan = plan
        report.findings.merge(plan.findings)
    if plan.refusal is not None:
        raise plan.refusal
    key = _key(base, plan)
    pixels = sum(group.pixels for group in plan.groups)
    with job.workspace.job(key) as folder:
        workers = job.workers or default_workers(pixels // 100)
        with open_executor(job.executor, workers) as executor:
            run = Run(
                writer=ThreeTzWriter(_fresh(folder / "tiles.3tz")),
                scratch=folder,
                executor=executor,
                workers=workers,
                memory_nbytes=job.memory_nbytes,
                progress=job.progress,
                findings=report.findings,
            )
            try:
                version = _make(job, plan, run)
            finally:
                run.writer.abort()
        job.progress.advance(0)  # the last moment to stop
        if version is None:
            return None
        with report.step("publish"):
            adopted = _adopted(job, version[0])
            made = NewVersion(**version[1], stores=adopted, report=report.catalogued(), job=key)
            return catalog.publish(item, made, after=base.number)


def _key(base: Version, plan: Plan) -> str:
    declared = {
        "base": [ref.sha256 for ref in base.stores],
        "options": plan.options.to_json(),
        "sources": [info.fingerprint() for info in plan.sources],
        "software": package_version("cim-server"),
    }
    text = json.dumps(declared, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def _make(
    job: TerrainUpdating, plan: Plan, run: Run
) -> tuple[list[tuple[str, StoreInfo]], dict[str, Any]] | None:
    base, report, options = job.base, job.report, plan.options
    terrain = dict(base.info["terrain"])
    paths = [job.workspace.store_path(ref) for ref in job.stores]
    lower = DemStack.from_json(paths, terrain)
    cleaning = Cleaning(
        DEFAULT_FILL_PIXELS if options.fill_voids is None else options.fill_voids,
        bool(options.despike),
    )
    with report.step("cog"):
        stack = make_stack(plan.groups, cleaning, run, lower)
    new = len(stack.layers) - len(lower.layers)
    if len(stack.layers) > MAX_RASTERS:
        raise Conflict(
            f"after this update {base.item_id!r} would be made of {len(stack.layers)} rasters, "
            f"more than {MAX_RASTERS}: ingest all its sheets again as a whole"
        )
    data = [("data", file_store(Path(layer.path), "cog")) for layer in stack.layers[:new]]
    if [store.sha256 for _, store in data] == [ref.sha256 for ref in job.stores[:new]]:
        return None
    remedy = f"a whole bake is needed: cim ingest ALL SHEETS --id {base.item_id}"
    room = extended if "max_zoom" not in job.declared else widened
    spec = room(TerrainSpec.from_json(terrain), stack.layers[:new], remedy)
    baked = [level for level in spec.levels if level <= terrain["baked"]]
    before = OverlayReader(job.old_tiles())
    try:
        with report.step("tile"):
            water = water_of(job.workspace, base)
            updated = update_tiles(stack, new, spec, baked, before, run, water)
            tiles = run.writer.commit()
        with report.step("check"):
            _check(job, updated, tiles.path)
    finally:
        before.close()
    _note(job, lower, stack, new, updated)
    return [("tiles", tiles), *data], {
        "bounds": _bounds(spec, stack),
        "info": _info(base, spec, stack, baked, new, updated),
    }


def _bounds(spec: TerrainSpec, stack: DemStack) -> Region:
    return Region(*stack.extent[:4], *spec.height_range(spec.levels[-1]))


def _info(
    base: Version,
    spec: TerrainSpec,
    stack: DemStack,
    baked: list[int],
    new: int,
    updated: Updated,
) -> dict[str, Any]:
    info = {name: value for name, value in base.info.items() if name not in _STALE}
    counts = {str(level): int(existing(spec.areas, level).mask.sum()) for level in baked}
    errors = dict(info.get("errors_m", {}))
    for level, error_m in updated.errors_m.items():
        errors[level] = max(errors.get(level, 0.0), error_m)
    return {
        **info,
        "tiles": sum(counts.values()),
        "tiles_per_level": counts,
        "errors_m": errors,
        "resolution_deg": stack.resolution_deg,
        "terrain": {**info["terrain"], **spec.to_json(), "dem": stack.to_json()},
        "update": {
            "base": base.number,
            "rasters": new,
            "built": updated.built,
            "tiles": len(updated.changed),
        },
    }


def _note(
    job: TerrainUpdating, lower: DemStack, stack: DemStack, new: int, updated: Updated
) -> None:
    job.report.result = {"tiles_built": updated.built, "tiles_changed": len(updated.changed)}
    coarser = [
        f"{max(layer.pixel_m):.3g} m"
        for layer in stack.layers[:new]
        if layer.resolution_deg > 1.01 * lower.resolution_deg
    ]
    job.report.findings.add(
        "terrain-coarser",
        "warning",
        "new sheets are coarser than the finest that the terrain was made of, and win over them "
        "where they have data",
        len(coarser),
        coarser,
    )


def _adopted(job: TerrainUpdating, made: list[tuple[str, StoreInfo]]) -> tuple[StoreRef, ...]:
    return (*(job.workspace.adopt(store, role) for role, store in made), *job.base.stores)


def _check(job: TerrainUpdating, updated: Updated, path: Path) -> None:
    """Check the new tiles and their neighbours, as what they are together."""
    job.progress.begin("check")
    whole = OverlayReader([ThreeTzReader(path), *job.old_tiles()])
    try:
        findings, _ = check_changed(whole, updated.changed)
    finally:
        whole.close()
    job.report.findings.merge(findings)
    for finding in findings:
        if finding.severity == "error":
            raise TilingError(
                f"the updated tiles break a law of their kind: {finding.message} "
                f"({finding.count} times, e.g. {finding.samples[:3]}); nothing was published"
            )


def _fresh(path: Path) -> Path:
    # A run that was stopped before it published leaves one.
    path.unlink(missing_ok=True)
    return path
