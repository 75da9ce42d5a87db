"""The laws of a published version: its files are what the catalogue says, its tiles are right."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from catalog.feature_index import FeatureIndex
from catalog.records import Item, StoreRef, Version
from ingest.building_rows import read_features
from ingest.readers import open_source
from ingest.whole import open_tiles
from ingest.workspace import Workspace
from tiling.errors import StoreError
from tiling.findings import Finding, Findings
from tiling.formats.geoparquet_footer import feature_count
from tiling.mosaics import SheetIndex
from tiling.validate.copc import check_copc
from tiling.validate.foreign import check_foreign
from tiling.validate.pointcloud import check_pointcloud
from tiling.validate.terrain import check_terrain
from tiling.validate.tileset3d import check_tileset
from tiling.validate.vectortiles import check_vector_tiles

Check = Callable[[Any], tuple[list[Finding], dict[str, Any]]]
CHECKS: Mapping[str, Check] = {
    "buildings": check_tileset,
    "terrain": check_terrain,
    "pointcloud": check_pointcloud,
    "vector": check_vector_tiles,
    "divisions": check_vector_tiles,
}


def check_version(
    workspace: Workspace, item: Item, version: Version
) -> tuple[Findings, dict[str, Any]]:
    """Check every store of a version, and what they are together.

    Returns:
        findings (severity ``error`` where a law is broken), and facts such as counts.
    """
    findings = Findings()
    facts: dict[str, Any] = {}
    whole = all([_is_intact(workspace, ref, findings) for ref in version.stores])
    if not whole:
        return findings, facts
    for role in dict.fromkeys(ref.role for ref in version.stores):
        refs = [ref for ref in version.stores if ref.role == role]
        try:
            facts.update(_check_role(workspace, item, version, refs, findings))
        except StoreError as error:
            findings.add("store-unreadable", "error", str(error))
    return findings, facts


def _is_intact(workspace: Workspace, ref: StoreRef, findings: Findings) -> bool:
    path = workspace.store_path(ref)
    if not path.exists():
        findings.add("store-missing", "error", f"{ref.path} is missing")
        return False
    with path.open("rb") as file:
        intact = hashlib.file_digest(file, "sha256").hexdigest() == ref.sha256
    if not intact:
        findings.add("store-altered", "error", f"{ref.path} is not what was published")
    return intact


def _check_role(
    workspace: Workspace, item: Item, version: Version, refs: list[StoreRef], findings: Findings
) -> dict[str, Any]:
    paths = [workspace.store_path(ref) for ref in refs]
    if refs[0].role == "tiles":
        store = open_tiles(workspace, version)
        try:
            laws = check_foreign if version.info.get("imported") else CHECKS[item.kind]
            found, facts = laws(store)
        finally:
            store.close()
        findings.merge(found)
        if "features" in facts:
            _count(version, facts["features"], "the tiles hold", findings)
        return facts
    if refs[0].role == "sheets":
        sheets = SheetIndex.open(paths[0]).sheets
        held = {ref.sha256 for ref in version.stores if ref.role == "data"}
        lost = [sheet.name for sheet in sheets if sheet.store not in held]
        message = "sheets of the index have no store"
        findings.add("sheet-missing", "error", message, len(lost), lost)
        return {"sheets": len(sheets)}
    if refs[0].role == "water":  # another asset's, and checked with it
        return {"water_polygons": sum(feature_count(path) for path in paths)}
    if refs[0].format == "geoparquet":
        rows = sum(len(batch) for batch in read_features(paths))
        _count(version, rows, f"{refs[0].path} holds", findings)
        return {"geoparquet_rows": rows}
    if refs[0].format == "sqlite":
        index = FeatureIndex.open(paths)
        try:
            rows = index.count()
        finally:
            index.close()
        _count(version, rows, f"{refs[0].path} holds", findings)
        return {"indexed": rows}
    if refs[0].format == "copc":
        found, facts = check_copc(paths[0])
        findings.merge(found)
        return facts
    with open_source(paths[0]) as reader:
        layer = reader.info().layers[0]
    return {"raster": f"{layer.extra['width']} × {layer.extra['height']}"}


def _count(version: Version, found: int, what: str, findings: Findings) -> None:
    expected = version.info["features"]
    if found != expected:
        message = f"the catalogue says {expected} features, {what} {found}"
        findings.add("features-missing", "error", message)
