"""One ingest, from plan to published version.

Everything is written into the job's folder, whose name comes from the content of the sources and
the options: the same command finds what an interrupted run left and goes on from there. Only when
every store is complete and checked are they moved to their final names and the catalogue told.
"""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version as package_version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog.database import Catalog
from catalog.records import Item, NewVersion, Version, standard_collections, utc_now
from ingest.executors import default_workers, open_executor
from ingest.height_rule import HeightRule
from ingest.make import MAKERS, Made, Maker, Making
from ingest.manifest import IngestOptions
from ingest.plan import Plan, make_plan
from ingest.report import Report
from ingest.workspace import Workspace
from tiling.errors import CimError, ConfigError, Conflict, NotFound, SourceError, StoreFull
from tiling.findings import Findings
from tiling.geoid import ELLIPSOIDAL
from tiling.stores.staging import file_sha256
from tiling.tilers.base import Progress

if TYPE_CHECKING:
    from ingest.heights import HeightResolver
    from ingest.update import Deletions


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What a run may use.

    Attributes:
        memory_nbytes: budget of the whole process tree.
        workers: processes; None: as many as pay off.
        executor: ``local`` or ``dask:URL``.
        height_rule: what stands in for missing heights of buildings.
    """

    memory_nbytes: int = 2 * 2**30
    workers: int | None = None
    executor: str = "local"
    height_rule: HeightRule = HeightRule()


def ingest(
    options: IngestOptions, workspace: Workspace, resources: Resources, progress: Progress
) -> Report:
    """Take sources to a published version of an asset.

    Returns:
        the report; ``result["unchanged"]`` is true when the current version holds just this.

    Raises:
        CimError: refused, failed or cancelled. The report of it is in ``error.report``, and
            nothing that was published has changed.
    """
    report = Report(options.to_json())
    with _failing_with(report, workspace), workspace.open_catalog() as catalog:
        _ingest(options, workspace, resources, progress, report, catalog)
    return report


def update(
    declared: Mapping[str, Any],
    deletions: Deletions,
    workspace: Workspace,
    resources: Resources,
    progress: Progress,
) -> Report:
    """Change some features of a published asset into a new version of it.

    Args:
        declared: options of `IngestOptions` that were given; what is left out is as it was when
            the asset was made. ``sources`` hold the changed and added features, if there are any.
        deletions: what is to go.

    Returns:
        the report, as `ingest` does.

    Raises:
        IngestFailed: refused, failed or cancelled; nothing that was published has changed.
    """
    report = Report(dict(declared))
    with _failing_with(report, workspace), workspace.open_catalog() as catalog:
        _update(declared, deletions, workspace, resources, progress, report, catalog)
    return report


@contextmanager
def _failing_with(report: Report, workspace: Workspace) -> Iterator[None]:
    """Hand on a failure together with the report of it."""
    try:
        yield
    except Exception as error:
        # Libraries report a full disk in errors of their own; what else they raise is a defect.
        cause = _full(workspace) if _is_disk_full(error) else error
        if not isinstance(cause, CimError):
            raise
        report.fail(cause)
        raise IngestFailed(cause, report) from error


def _update(
    declared: Mapping[str, Any],
    deletions: Deletions,
    workspace: Workspace,
    resources: Resources,
    progress: Progress,
    report: Report,
    catalog: Catalog,
) -> None:
    item = catalog.item(declared["id"])
    if item.kind == "terrain" and item.current is not None:
        _update_terrain(item, declared, deletions, workspace, resources, progress, report, catalog)
        return
    from ingest.update import Updating, base_version, inherited, make_update, update_key

    item, base = base_version(catalog, declared["id"])
    plan = None
    if declared.get("sources"):
        options = IngestOptions(**inherited({**declared, "kind": "buildings"}, base))
        report.options = options.to_json()
        with report.step("plan"):
            plan = make_plan(options)
            report.plan = plan
            report.findings.merge(plan.findings)
        if plan.refusal is not None:
            raise plan.refusal
    elif not deletions:
        raise ConfigError("--update needs changed features (a source), --delete or --delete-area")
    key = update_key(base, None if plan is None else plan.options, deletions, plan)
    with workspace.job(key) as folder:
        workers = resources.workers or default_workers(plan.features if plan is not None else 0)
        with open_executor(resources.executor, workers) as executor:
            resolve = None
            if plan is not None:
                resolve = _resolver(plan, workspace, catalog, resources.height_rule)
            version = make_update(
                Updating(
                    workspace=workspace,
                    base=base,
                    plan=plan,
                    deletions=deletions,
                    folder=folder,
                    executor=executor,
                    workers=workers,
                    memory_nbytes=resources.memory_nbytes,
                    progress=progress,
                    report=report,
                    resolve=resolve,
                )
            )
        progress.advance(0)  # the last moment to stop
        if version is None:
            report.result = _result(item.kind, base, unchanged=True)
            return
        with report.step("publish"):
            version = replace(version, report=report.catalogued(), job=key)
            published = catalog.publish(item, version, after=base.number)
    report.result = {**_result(item.kind, published, unchanged=False), **report.result}


def _update_terrain(
    item: Item,
    declared: Mapping[str, Any],
    deletions: Deletions,
    workspace: Workspace,
    resources: Resources,
    progress: Progress,
    report: Report,
    catalog: Catalog,
) -> None:
    from ingest.terrain_update import TerrainUpdating, update_terrain

    if deletions:
        raise ConfigError("--delete, --delete-file and --delete-area are for buildings")
    base = catalog.version(item.id)
    job = TerrainUpdating(
        workspace=workspace,
        base=base,
        declared=declared,
        workers=resources.workers,
        executor=resources.executor,
        memory_nbytes=resources.memory_nbytes,
        progress=progress,
        report=report,
    )
    made = update_terrain(job, item, catalog)
    published = _result(item.kind, made or base, unchanged=made is None)
    report.result = {**published, **report.result}


def _is_disk_full(error: BaseException | None) -> bool:
    # Libraries wrap the cause, and some keep only its text.
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if any(text in str(error) for text in ("No space left", "disk is full")):
            return True
        error = error.__cause__ or error.__context__
    return False


def _full(workspace: Workspace) -> StoreFull:
    return StoreFull(
        f"the disk is full: {workspace.root} could not be written\n"
        "  remedy: free space (cim plan estimates how much is needed) and run the same command "
        "again; it resumes, and nothing that was published has changed"
    )


class IngestFailed(Exception):
    """Carries the report of a failed ingest beside its cause.

    Attributes:
        cause: why it failed.
        report: what was found until then.
    """

    def __init__(self, cause: CimError, report: Report) -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.report = report


def _ingest(
    options: IngestOptions,
    workspace: Workspace,
    resources: Resources,
    progress: Progress,
    report: Report,
    catalog: Catalog,
) -> None:
    catalog.ensure_collections(standard_collections())
    with report.step("plan"):
        plan = make_plan(options)
        report.plan = plan
        report.findings.merge(plan.findings)
    if plan.refusal is not None:
        raise plan.refusal
    catalog.collection(plan.collection)
    for option, given in (("--parent", options.parent), ("--water", options.water)):
        if given is not None and plan.kind != "terrain":
            raise ConfigError(f"{option} is for terrains, the sources make an asset of {plan.kind}")
    previous = _previous(catalog, options.id, plan)
    with report.step("fingerprint"):
        key = job_key(plan, workspace, catalog, resources)
    if previous is not None and previous.job == key:
        workspace.drop_job(key)
        report.result = _result(plan.kind, previous, unchanged=True)
        return
    if not plan.imported and plan.kind not in MAKERS:
        raise ConfigError(f"{plan.kind} assets can be planned, not yet made")
    with workspace.job(key) as folder:
        workers = resources.workers or default_workers(_work_units(plan))
        with open_executor(resources.executor, workers) as executor:
            making = _making(
                plan, workspace, catalog, folder, resources, workers, executor, progress, report
            )
            if plan.options.parent is not None:
                from ingest.terrain_parent import open_parent

                parent = open_parent(workspace, catalog, options.id, plan.options.parent)
                making = replace(making, parent=parent)
            if plan.options.water is not None:
                from ingest.terrain_water import open_water

                water = open_water(workspace, catalog, plan.options.water)
                making = replace(making, water=water)
            if plan.kind == "imagery":
                from ingest.mosaic_assets import known_sheets

                making = replace(making, known_sheets=known_sheets(workspace, previous))
            made = _maker(plan)(making)
        progress.advance(0)  # the last moment to stop
        with report.step("publish"):
            published = _publish(plan, workspace, catalog, made, report, key)
    report.result = _result(plan.kind, published, unchanged=False)


def _maker(plan: Plan) -> Maker:
    if plan.imported:
        from ingest.tileset_import import make_imported

        return make_imported
    return MAKERS[plan.kind]


def _previous(catalog: Catalog, item_id: str, plan: Plan) -> Version | None:
    try:
        item = catalog.item(item_id)
    except NotFound:
        return None
    if item.kind != plan.kind:
        raise Conflict(
            f"asset {item_id!r} exists and is of kind {item.kind}, not {plan.kind}: "
            "choose another --id, or delete it first (cim delete)"
        )
    return catalog.version(item_id) if item.current is not None else None


def job_key(plan: Plan, workspace: Workspace, catalog: Catalog, resources: Resources) -> str:
    """Return the name of the job: equal input, options and software give equal keys."""
    declared = plan.options.to_json()
    # A source of which several layers are taken is there once for each.
    prints = {info.path: info for info in plan.sources}
    declared["sources"] = [info.fingerprint() for info in prints.values()]
    if plan.options.terrain is not None:
        from ingest.ground import terrain_state

        declared["terrain"] = terrain_state(catalog, plan.options.terrain)
    if plan.options.parent is not None:
        from ingest.terrain_parent import open_parent

        parent = open_parent(workspace, catalog, plan.options.id, plan.options.parent)
        declared["parent"] = [store.sha256 for store in parent.stores]
    if plan.options.water is not None:
        from ingest.terrain_water import open_water

        declared["water"] = open_water(workspace, catalog, plan.options.water).sha256
    if plan.kind == "buildings":
        declared["height_rule"] = repr(resources.height_rule)
    grids = {ref.vertical.grid for ref in plan.refs if ref.vertical and ref.vertical.grid}
    # Another grid may come to lie under the same name.
    declared["grids"] = sorted(file_sha256(Path(grid)) for grid in grids)
    declared["software"] = package_version("cim-server")
    canonical = json.dumps(declared, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:20]


def _work_units(plan: Plan) -> int:
    if plan.features or plan.imported:
        return plan.features
    return sum(int(x.extra["width"]) * int(x.extra["height"]) for x in plan.layers) // 100


def _making(
    plan: Plan,
    workspace: Workspace,
    catalog: Catalog,
    folder: Path,
    resources: Resources,
    workers: int,
    executor: Executor,
    progress: Progress,
    report: Report,
) -> Making:
    seen = Findings()
    resolver = None
    if plan.columns is not None:
        resolver = _resolver(plan, workspace, catalog, resources.height_rule)
    return Making(
        plan=plan,
        folder=folder,
        executor=executor,
        workers=workers,
        memory_nbytes=resources.memory_nbytes,
        progress=progress,
        report=report,
        resolve_heights=resolver,
        seen=seen,
        root=workspace.root,
    )


def _resolver(
    plan: Plan, workspace: Workspace, catalog: Catalog, rule: HeightRule
) -> HeightResolver:
    from ingest.heights import HeightResolver

    assert plan.columns is not None
    ground = None
    if plan.options.terrain is not None:
        from ingest.ground import open_ground

        ground = open_ground(workspace, catalog, plan.options.terrain)
    return HeightResolver(
        columns=plan.columns,
        rule=rule,
        # The plan refuses an undeclared datum wherever an elevation enters.
        vertical=plan.refs[0].vertical or ELLIPSOIDAL,
        ground=ground,
        policy=plan.options.bad_heights,
        source=str(plan.sources[0].path),
        findings=Findings(),
        overrides=plan.options.feature_overrides(),
    )


def _publish(
    plan: Plan,
    workspace: Workspace,
    catalog: Catalog,
    made: Made,
    report: Report,
    key: str,
) -> Version:
    errors = [f for f in report.findings if f.severity == "error"]
    if errors:
        raise SourceError(
            f"{errors[0].message} ({errors[0].count})",
            source=plan.sources[0].path,
            remedy="see the findings in the report (--report FILE.json)",
        )
    adopted = tuple(workspace.adopt(store, role) for role, store in made.stores)
    stores = adopted + made.kept
    info: dict[str, Any] = {
        **made.info.metadata,
        "min_level": made.info.min_level,
        "max_level": made.info.max_level,
        "tiles": made.info.tiles,
        "features": made.info.features,
        "attribution": plan.options.attribution,
        # What an update of the asset takes over.
        "options": _lasting(plan.options),
    }
    now = utc_now()
    item = Item(
        id=plan.options.id,
        collection=plan.collection,
        kind=plan.kind,
        title=plan.title,
        description=plan.options.description,
        properties=_properties(plan),
        created=now,
        updated=now,
        current=None,
    )
    return catalog.publish(
        item,
        NewVersion(
            bounds=made.info.bounds,
            stores=stores,
            info=info,
            report=report.catalogued(),
            job=key,
        ),
    )


def _lasting(options: IngestOptions) -> dict[str, Any]:
    passing = ("sources", "id", "properties", "attribution")
    return {k: v for k, v in options.to_json().items() if k not in passing}


def _properties(plan: Plan) -> dict[str, Any]:
    properties = dict(plan.options.properties)
    ref = plan.refs[0]
    if ref.vertical is not None:
        properties.setdefault("cim:vertical_datum", ref.vertical.code)
    properties.setdefault("cim:source_crs", ref.code)
    if plan.options.attribution:
        properties.setdefault("attribution", plan.options.attribution)
    return properties


def _result(kind: str, version: Version, unchanged: bool) -> dict[str, Any]:
    return {
        "id": version.item_id,
        "kind": kind,
        "version": version.number,
        "unchanged": unchanged,
        "bbox": version.bounds.bbox3d(),
        "tiles": version.info["tiles"],
        "features": version.info["features"],
        "stores": [ref.to_json() for ref in version.stores],
    }
