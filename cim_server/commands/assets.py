"""Assets and their versions: ``cim list``, ``show``, ``versions``, ``rollback``, ``delete``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from catalog.records import Item, StoreRef, Version
from cim_server.commands.data_folder import DEFAULT_DATA, DataOption, existing
from cim_server.commands.printed import JsonOption, emit
from tiling.errors import Conflict


def _item_json(item: Item, versions: Sequence[Version]) -> dict[str, Any]:
    return {
        "id": item.id,
        "kind": item.kind,
        "collection": item.collection,
        "title": item.title,
        "description": item.description,
        "current": item.current,
        "created": item.created,
        "updated": item.updated,
        "properties": dict(item.properties),
        "versions": [_version_json(v) for v in versions],
    }


def _store_json(ref: StoreRef) -> dict[str, Any]:
    return {
        "role": ref.role,
        "format": ref.format,
        "path": ref.path,
        "sha256": ref.sha256,
        "bytes": ref.nbytes,
        "media_type": ref.media_type,
    }


def _version_json(version: Version) -> dict[str, Any]:
    return {
        "version": version.number,
        "created": version.created,
        "bbox": version.bounds.bbox3d(),
        "stores": [_store_json(ref) for ref in version.stores],
        "info": dict(version.info),
    }


def list_command(data: DataOption = DEFAULT_DATA, as_json: JsonOption = False) -> None:
    """List the assets."""
    with existing(data).open_catalog() as catalog:
        found = [(item, catalog.versions(item.id)) for item in catalog.items()]
    if as_json:
        emit([_item_json(item, versions) for item, versions in found])
        return
    for item, versions in found:
        size = sum(ref.nbytes for v in versions if v.number == item.current for ref in v.stores)
        print(f"{item.id}\t{item.kind}\tv{item.current}\t{size:,} bytes\t{item.title}")


def show_command(id: str, data: DataOption = DEFAULT_DATA, as_json: JsonOption = False) -> None:
    """Show one asset: metadata, versions, stores, findings."""
    with existing(data).open_catalog() as catalog:
        item, versions = catalog.item(id), catalog.versions(id)
    if as_json:
        emit(_item_json(item, versions))
        return
    print(f"{item.id}: {item.title}\nkind {item.kind}, collection {item.collection}")
    for name, value in item.properties.items():
        print(f"{name}: {value}")
    for version in versions:
        mark = "*" if version.number == item.current else " "
        print(f"{mark} version {version.number}, {version.created:%Y-%m-%d %H:%M:%S %Z}")
        print(f"    bbox {', '.join(f'{v:.7g}' for v in version.bounds.bbox3d())}")
        for ref in version.stores:
            print(f"    {ref.role}: {ref.path} ({ref.nbytes:,} bytes)")
        for finding in version.report.get("findings", ()):
            print(f"    {finding['severity']}: {finding['message']} ({finding['count']})")


def versions_command(id: str, data: DataOption = DEFAULT_DATA, as_json: JsonOption = False) -> None:
    """List the versions of an asset, newest first."""
    with existing(data).open_catalog() as catalog:
        item, versions = catalog.item(id), catalog.versions(id)
    if as_json:
        emit([{**_version_json(v), "current": v.number == item.current} for v in versions])
        return
    for version in versions:
        mark = "*" if version.number == item.current else " "
        size = sum(ref.nbytes for ref in version.stores)
        print(f"{mark} {version.number}\t{version.created:%Y-%m-%dT%H:%M:%SZ}\t{size:,} bytes")


def rollback_command(
    id: str, version: int, data: DataOption = DEFAULT_DATA, as_json: JsonOption = False
) -> None:
    """Make an earlier version the current one."""
    with existing(data).open_catalog() as catalog:
        restored = catalog.rollback(id, version)
    if as_json:
        emit(_version_json(restored))
    else:
        print(f"{id}: version {restored.number} is current")


def delete_command(
    id: str,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    data: DataOption = DEFAULT_DATA,
    as_json: JsonOption = False,
) -> None:
    """Delete an asset, its versions, and the files nobody else uses."""
    workspace = existing(data)
    with workspace.open_catalog() as catalog:
        item = catalog.item(id)
        if not yes and sys.stdin.isatty():
            typer.confirm(f"delete {item.id} ({item.title}) and all its versions?", abort=True)
        from ingest.terrain_parent import children

        if found := children(catalog, id):
            raise Conflict(
                f"{id!r} surrounds {', '.join(found)} (--parent): ingest these again without it, "
                "or delete them first"
            )
        orphans: list[StoreRef] = catalog.delete(id)
    freed = workspace.remove_stores(orphans)
    if as_json:
        emit({"id": id, "deleted": True, "freed_nbytes": freed})
    else:
        print(f"{id}: deleted, {freed:,} bytes freed")
