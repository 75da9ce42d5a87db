"""The laws of a published version: its files are what the catalogue says, its tiles are right."""

from __future__ import annotations

import hashlib
from typing import Any

import pyarrow.parquet as pq

from catalog.records import Item, StoreRef, Version
from ingest.make import CHECKS
from ingest.readers import open_source
from ingest.workspace import Workspace
from tiling.errors import StoreError
from tiling.findings import Findings
from tiling.stores import open_store
from tiling.validate.foreign import check_foreign


def check_version(
    workspace: Workspace, item: Item, version: Version
) -> tuple[Findings, dict[str, Any]]:
    """Check every store of a version.

    Returns:
        findings (severity ``error`` where a law is broken), and facts such as counts.
    """
    findings = Findings()
    facts: dict[str, Any] = {}
    for ref in version.stores:
        path = workspace.store_path(ref)
        if not path.exists():
            findings.add("store-missing", "error", f"{ref.path} is missing")
            continue
        if _sha256(workspace, ref) != ref.sha256:
            findings.add("store-altered", "error", f"{ref.path} is not what was published")
            continue
        facts.update(_check_store(workspace, item, version, ref, findings))
    return findings, facts


def _sha256(workspace: Workspace, ref: StoreRef) -> str:
    with workspace.store_path(ref).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_store(
    workspace: Workspace, item: Item, version: Version, ref: StoreRef, findings: Findings
) -> dict[str, Any]:
    path = workspace.store_path(ref)
    try:
        if ref.role == "tiles":
            store = open_store(path, ref.format)
            try:
                check = check_foreign if version.info.get("imported") else CHECKS[item.kind]  # type: ignore[index]
                found, facts = check(store)
            finally:
                store.close()
            findings.merge(found)
            expected = version.info["features"]
            if "features" in facts and facts["features"] != expected:
                findings.add(
                    "features-missing",
                    "error",
                    f"the catalogue says {expected} features, the tiles hold {facts['features']}",
                )
            return facts
        if ref.format == "geoparquet":
            rows = pq.read_metadata(path).num_rows
            if rows != version.info["features"]:
                findings.add(
                    "features-missing",
                    "error",
                    f"the catalogue says {version.info['features']} features, "
                    f"{ref.path} holds {rows}",
                )
            return {"geoparquet_rows": rows}
        with open_source(path) as reader:
            layer = reader.info().layers[0]
        return {"raster": f"{layer.extra['width']} × {layer.extra['height']}"}
    except StoreError as error:
        findings.add("store-unreadable", "error", str(error))
        return {}
