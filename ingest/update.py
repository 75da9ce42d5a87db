"""Update a block of a city: changed, added and deleted features into a new version.

Only the base cells that hold a change are made again, and above them the tiles that show them; the
rest of the city stays in the stores it rests in. What is written is a small store of each role
that lies before the older ones. Tiles are pure functions of what lies in their cells, so the
result is, byte for byte, that of making the whole city again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from catalog.database import Catalog
from catalog.feature_index import FeatureIndex
from catalog.records import Item, NewVersion, Version
from ingest.building_rows import features_in_cells
from ingest.building_stores import write_features, write_index
from ingest.feature_keys import Identify
from ingest.manifest import IngestOptions
from ingest.plan import Plan
from ingest.prepare import ResolveHeights, prepare
from ingest.report import Report
from ingest.workspace import Workspace, file_store
from tiling.areas import parse_area
from tiling.batches import FeatureBatch
from tiling.bounds import Region
from tiling.coords import TileCoord
from tiling.crs import TILE_REF
from tiling.errors import ConfigError, Conflict, FieldInvalid, NotFound, TilingError
from tiling.findings import Findings
from tiling.formats.geoparquet import write_none
from tiling.formats.geoparquet_footer import attribute_schema
from tiling.stores import open_store
from tiling.stores.base import StoreInfo
from tiling.stores.overlay import OverlayReader
from tiling.stores.zip3tz import ThreeTzReader, ThreeTzWriter
from tiling.tilers.base import Progress
from tiling.tilers.building_tiles import TileSettings
from tiling.tilers.building_update import Updated, update_tiles
from tiling.tilers.buildings import sort_keys
from tiling.tilers.buildings import summary as tree_summary
from tiling.tilers.extsort import Spool, SpoolWriter
from tiling.tilers.quadtree import (
    BASE_LEVEL,
    DEEPEST_LEVEL,
    cell_mortons,
    cell_of,
    places,
)
from tiling.validate.tileset3d import ContentFacts, Promise, check_contents, check_tileset

# Base cells that an area may cover; whoever names more means the whole city.
_MAX_AREA_CELLS = 250_000


@dataclass(frozen=True, slots=True)
class Deletions:
    """What is to go.

    Attributes:
        keys: keys of features, as text.
        area: ``west,south,east,north``: every feature that the sources do not hold and the centre
            of whose box lies there.
    """

    keys: tuple[str, ...] = ()
    area: str | None = None

    def __bool__(self) -> bool:
        return bool(self.keys or self.area)


@dataclass(frozen=True, slots=True, kw_only=True)
class Updating:
    """What an update is given; see `ingest.make.Making`.

    Attributes:
        base: the version it starts from.
        plan: of the changed and added features; None: there are only deletions.
        deletions: what is to go.
        resolve: adds heights; None without a plan.
    """

    workspace: Workspace
    base: Version
    plan: Plan | None
    deletions: Deletions
    folder: Path
    executor: Executor
    workers: int
    memory_nbytes: int
    progress: Progress
    report: Report
    resolve: ResolveHeights | None

    @property
    def settings(self) -> TileSettings:
        """How the tileset is made."""
        return TileSettings(**self.base.info["tiler"])

    def paths(self, role: str) -> list[Path]:
        """Return the files of a role, newest first."""
        return [self.workspace.store_path(s) for s in self.base.stores if s.role == role]


def base_version(catalog: Catalog, item_id: str) -> tuple[Item, Version]:
    """Return the published version that an update starts from.

    Raises:
        NotFound: there is none.
        Conflict: it cannot be updated in part.
    """
    item = catalog.item(item_id)
    if item.current is None:
        raise NotFound(f"asset {item_id!r} has no published version to update")
    version = catalog.version(item_id)
    if item.kind != "buildings" or "tiler" not in version.info:
        raise Conflict(
            f"asset {item_id!r} ({item.kind}) cannot be updated in part: ingest it again as a whole"
        )
    if version.info["tiler"].get("key") is None:
        raise Conflict(
            f"asset {item_id!r} was ingested without --key, so its features cannot be told apart "
            "from version to version: ingest it once as a whole with --key COLUMN"
        )
    return item, version


def inherited(options: Mapping[str, Any], base: Version) -> dict[str, Any]:
    """Return the options of an update: those given, and for the rest those of the base version."""
    stored = dict(base.info.get("options", {}))
    key = stored.get("key")
    given = {name: value for name, value in options.items() if value is not None}
    if given.get("key", key) != key:
        raise ConfigError(f"--key {given['key']!r}: the asset's features are known by {key!r}")
    return {**stored, **given}


def update_key(
    base: Version, options: IngestOptions | None, deletions: Deletions, plan: Plan | None
) -> str:
    """Return the name of the job that makes this change to this version."""
    declared = {
        "base": [ref.sha256 for ref in base.stores],
        "tombstones": sorted(base.tombstones),
        "options": None if options is None else options.to_json(),
        "sources": [] if plan is None else [info.fingerprint() for info in plan.sources],
        "deletions": [sorted(deletions.keys), deletions.area],
    }
    text = json.dumps(declared, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def make_update(job: Updating) -> NewVersion | None:
    """Make the stores of the new version, still in the job's folder until they are adopted.

    Returns:
        the version, its new stores already among the committed ones; None: nothing changed.
    """
    settings = job.settings
    assert settings.key is not None  # base_version saw to it
    identify = Identify(settings.key, _name(job))
    changes = _changes(job, identify)
    with job.report.step("match"):
        rows, cells, counts = _rows(job, identify, changes)
    job.report.findings.merge(counts.findings)
    if counts.unchanged:
        return None
    spool = _sorted(job, rows)
    with job.report.step("tile"):
        updated, tiles = _tiles(job, settings, identify, cells, spool)
    with job.report.step("features"):
        names = spool.schema().names if spool is not None else []
        info = job.base.info
        code, name = info.get("code_field"), info.get("name_field")
        parquet, index = job.folder / "features.parquet", job.folder / "index.db"
        if spool is not None:
            write_features(spool.folder, parquet, cells.tolist())
        else:
            # The cells that the file replaces are empty now.
            write_none(job.paths("features")[-1], parquet, {"cells": cells.tolist()})
        write_index(
            None if spool is None else spool.folder,
            index,
            code if code in names else None,
            name if name in names else None,
            cells,
        )
    adopted = [
        job.workspace.adopt(tiles, "tiles"),
        job.workspace.adopt(file_store(parquet, "geoparquet"), "features"),
        job.workspace.adopt(file_store(index, "sqlite"), "index"),
    ]
    bounds, facts = tree_summary(updated.levels)
    features = int(info["features"]) + counts.added - counts.deleted
    total = int(updated.levels[0].features.sum())
    if total != features:
        raise TilingError(
            f"the update should leave {features} features, its tiles hold {total}; "
            "nothing was published"
        )
    kept = {k: v for k, v in info.items() if k not in _STALE}
    job.report.result = {
        "changed": counts.changed,
        "added": counts.added,
        "deleted": counts.deleted,
    }
    return NewVersion(
        bounds=bounds,
        stores=(*adopted, *job.base.stores),
        info={
            **kept,
            **facts,
            "features": features,
            "update": {
                "base": job.base.number,
                "changed": counts.changed,
                "added": counts.added,
                "deleted": counts.deleted,
                "cells": len(cells),
                "tiles": len(updated.built.tiles),
            },
        },
        tombstones=tuple(
            sorted((frozenset(job.base.tombstones) | updated.tombstones) - updated.written)
        ),
    )


# What an update does not know of the whole any more.
_STALE = ("triangles", "tiles_nbytes", "full_detail_nbytes", "update")


def _name(job: Updating) -> str:
    return job.base.item_id if job.plan is None else str(job.plan.sources[0].path)


def _changes(job: Updating, identify: Identify) -> FeatureBatch | None:
    if job.plan is None:
        return None
    if identify.column not in {f.name for layer in job.plan.layers for f in layer.fields}:
        raise FieldInvalid(
            f"there is no column {identify.column!r}, by which the features of "
            f"{job.base.item_id!r} are known",
            source=_name(job),
            remedy="give the changed features their keys",
        )
    seen = Findings()
    try:
        with job.report.step("read"):
            prepared = prepare(
                job.plan,
                job.folder / "changes",
                job.memory_nbytes,
                job.executor,
                job.workers,
                job.progress,
                seen,
                job.resolve,
                sort_keys,
                identify,
            )
    finally:
        job.report.findings.merge(seen)
    job.report.shifts.extend(prepared.shifts)
    identify.check_unique(prepared)
    _, batch = prepared.spool.gather(0, 1 << 63)
    return batch


@dataclass(frozen=True, slots=True)
class _Counts:
    changed: int
    added: int
    deleted: int
    unchanged: bool
    findings: Findings


def _rows(
    job: Updating, identify: Identify, changes: FeatureBatch | None
) -> tuple[list[FeatureBatch], NDArray[np.uint64], _Counts]:
    """Return the features that the touched base cells hold from now on, and those cells."""
    findings = Findings()
    new = np.empty(0, dtype=np.int64) if changes is None else changes.ids
    listed = _listed_ids(identify, job.deletions.keys)
    both = np.intersect1d(listed, new)
    if len(both):
        raise ConfigError(f"{len(both)} features are both changed and deleted, e.g. {both[0]}")
    index = FeatureIndex.open(job.paths("index"))
    try:
        known = {int(i): index.get(int(i)) for i in np.concatenate([new, listed]).tolist()}
    finally:
        index.close()
    unknown = [
        key for key, i in zip(job.deletions.keys, listed.tolist(), strict=True) if known[i] is None
    ]
    findings.add(
        "deleted-unknown", "warning", "to be deleted, but not in the asset", len(unknown), unknown
    )
    cells = [hit.cell for hit in known.values() if hit is not None]
    parts = [np.array(cells, dtype=np.uint64)]
    if changes is not None:
        parts.append(_base_cells(changes))
    area = None
    if job.deletions.area is not None:
        area = parse_area(job.deletions.area)
        parts.append(_area_cells(area))
    touched = np.unique(np.concatenate(parts))
    old = features_in_cells(job.paths("features"), touched)
    gone = np.concatenate([new, listed])
    kept, deleted, replaced = [], 0, 0
    for batch in old:
        leaves = np.isin(batch.ids, gone)
        replaced += int(np.isin(batch.ids, new).sum())
        deleted += int(np.isin(batch.ids, listed).sum())
        if area is not None:
            inside = _inside(batch, area) & ~leaves
            deleted += int(inside.sum())
            leaves |= inside
        kept.append(batch.take(~leaves))
    unchanged = deleted == 0 and (
        changes is None or (replaced == len(changes) and _same(old, changes))
    )
    rows = [batch for batch in kept if len(batch)]
    if changes is not None:
        rows.append(_conformed(job, changes, old, findings))
    # Only cells that hold a feature, or held one, have anything to be made again.
    full = [_base_cells(batch) for batch in (*old, *rows)]
    touched = np.unique(np.concatenate([*full, np.empty(0, dtype=np.uint64)]))
    added = len(new) - replaced
    return rows, touched, _Counts(replaced, added, deleted, unchanged, findings)


def _listed_ids(identify: Identify, keys: Sequence[str]) -> NDArray[np.int64]:
    if not keys:
        return np.empty(0, dtype=np.int64)
    text = pa.chunked_array([pa.array(keys, pa.string())])
    try:
        # Keys that are whole numbers are their own ids.
        return identify.ids(text.cast(pa.int64()))
    except pa.ArrowInvalid:
        return identify.ids(text)


def _base_cells(batch: FeatureBatch) -> NDArray[np.uint64]:
    return sort_keys(batch) >> np.uint64(2 * (DEEPEST_LEVEL - BASE_LEVEL))


def _area_cells(area: Region) -> NDArray[np.uint64]:
    size = 180.0 / 2**BASE_LEVEL
    columns = np.arange(np.floor((area.west + 180) / size), np.floor((area.east + 180) / size) + 1)
    rows = np.arange(np.floor((area.south + 90) / size), np.floor((area.north + 90) / size) + 1)
    if len(columns) * len(rows) > _MAX_AREA_CELLS:
        raise ConfigError(
            f"--delete-area covers {len(columns) * len(rows)} cells: that is no block; ingest the "
            "whole again instead"
        )
    lon, lat = np.meshgrid((columns + 0.5) * size - 180, (rows + 0.5) * size - 90)
    return cell_mortons(lon.ravel(), lat.ravel(), BASE_LEVEL)


def _inside(batch: FeatureBatch, area: Region) -> NDArray[np.bool_]:
    lon, lat = places(batch.geometry).T
    return np.asarray(
        (lon >= area.west) & (lon <= area.east) & (lat >= area.south) & (lat <= area.north)
    )


def _same(old: Sequence[FeatureBatch], changes: FeatureBatch) -> bool:
    """Say whether every changed feature is just what it was."""
    before = [batch.take(np.isin(batch.ids, changes.ids)) for batch in old]
    ids = np.concatenate([batch.ids for batch in before])
    if len(ids) != len(changes):
        return False
    order, wanted = np.argsort(ids), np.argsort(changes.ids)
    geometry = np.concatenate([batch.geometry for batch in before])[order]
    if not (shapely.to_wkb(geometry) == shapely.to_wkb(changes.geometry[wanted])).all():
        return False
    table = pa.concat_tables([batch.attributes for batch in before])
    names = changes.attributes.column_names
    if any(name not in table.column_names for name in names):
        return False
    after = changes.attributes.take(pa.array(wanted)).combine_chunks()
    return bool(table.select(names).take(pa.array(order)).combine_chunks().equals(after))


def _conformed(
    job: Updating, changes: FeatureBatch, old: Sequence[FeatureBatch], findings: Findings
) -> FeatureBatch:
    """Return the changes with the columns of the asset, in their order and types."""
    wanted = attribute_schema(job.paths("features")[-1])
    extra = [n for n in changes.attributes.column_names if n not in wanted.names]
    if extra:
        raise FieldInvalid(
            f"it has columns that {job.base.item_id!r} lacks: {', '.join(extra)}",
            source=_name(job),
            remedy="leave them out, or ingest the asset again as a whole",
        )
    missing = [n for n in wanted.names if n not in changes.attributes.column_names]
    message = "columns that the changed features lack are null"
    findings.add("column-missing", "warning", message, len(missing), missing)
    columns = []
    for column in wanted:
        if column.name in missing:
            columns.append(pa.nulls(len(changes), column.type))
            continue
        try:
            columns.append(changes.attributes.column(column.name).cast(column.type))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise FieldInvalid(
                f"column {column.name!r} does not fit that of {job.base.item_id!r} "
                f"({column.type}): {error}",
                source=_name(job),
                remedy="bring it into that type, or ingest the asset again as a whole",
            ) from error
    return replace(changes, attributes=pa.table(columns, names=wanted.names))


def _sorted(job: Updating, rows: Sequence[FeatureBatch]) -> Spool | None:
    rows = [batch for batch in rows if len(batch)]
    if not rows:
        return None
    writer = SpoolWriter.create(job.folder / "rows", job.memory_nbytes // 8)
    for batch in rows:
        writer.add(batch, sort_keys(batch))
    return writer.finish()


def _tiles(
    job: Updating,
    settings: TileSettings,
    identify: Identify,
    cells: NDArray[np.uint64],
    spool: Spool | None,
) -> tuple[Updated, StoreInfo]:
    below = 2 * (DEEPEST_LEVEL - BASE_LEVEL)
    empty = FeatureBatch(
        TILE_REF, np.empty(0, np.int64), np.empty(0, object), pa.table({"": pa.nulls(0)})
    )

    def features(cell: TileCoord) -> tuple[NDArray[np.uint64], FeatureBatch]:
        if spool is None:
            return np.empty(0, np.uint64), empty
        low = cell.morton() << below
        return spool.gather(low, low + (1 << below))

    before = OverlayReader(
        [open_store(path, "3tz") for path in job.paths("tiles")], job.base.tombstones
    )
    path = job.folder / "tiles.3tz"
    path.unlink(missing_ok=True)
    writer = ThreeTzWriter(path)
    try:
        updated = update_tiles(
            before,
            settings,
            [cell_of(morton, BASE_LEVEL) for morton in cells.tolist()],
            features,
            lambda table: identify.ids(table.column(identify.column)),
            writer,
            job.progress,
        )
        store = writer.commit()
    finally:
        writer.abort()
        before.close()
    _check(job, updated, store.path)
    return updated, store


def _check(job: Updating, updated: Updated, path: Path) -> None:
    """Check the new tiles, and the structure of the whole with them."""
    whole = OverlayReader(
        [ThreeTzReader(path), *(open_store(p, "3tz") for p in job.paths("tiles"))],
        (frozenset(job.base.tombstones) | updated.tombstones) - updated.written,
    )

    def new_contents(promises: Sequence[Promise], key: str) -> list[ContentFacts]:
        new = [promise for promise in promises if promise.key in updated.written]
        return [check_contents(whole, new, key)]

    try:
        findings, _ = check_tileset(whole, new_contents)
    finally:
        whole.close()
    job.report.findings.merge(findings)
    for finding in findings:
        if finding.severity == "error":
            raise TilingError(
                f"the updated tiles break a law of their kind: {finding.message} "
                f"({finding.count} times, e.g. {finding.samples[:3]}); nothing was published"
            )
