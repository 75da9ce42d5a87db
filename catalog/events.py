"""The change log: what happened to which asset, in the order in which it became visible.

Append-only (the database itself refuses to update or delete its rows), written in the transaction
of the change it tells of. Each entry carries enough to repeat the change elsewhere: `replay` folds
the log into the state of the catalogue, which is how a receiver of the log follows the city.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from catalog.records import Action, Change, Item, NewVersion, StoreRef, Version
from catalog.schema import changes
from tiling.bounds import Region
from tiling.errors import CatalogError


def append(
    connection: sa.Connection,
    time: datetime,
    action: Action,
    item_id: str,
    version: int | None,
    detail: Mapping[str, Any],
) -> None:
    """Add an entry within the caller's transaction, which holds the write lock."""
    connection.execute(
        changes.insert().values(
            # Counted here: sequences of databases leave gaps where a transaction was undone.
            seq=last(connection) + 1,
            time=time,
            action=action,
            item_id=item_id,
            version=version,
            detail=dict(detail),
        )
    )


def read(connection: sa.Connection, after: int, limit: int) -> list[Change]:
    """Return at most `limit` entries with ``seq > after``, oldest first."""
    query = changes.select().where(changes.c.seq > after).order_by(changes.c.seq).limit(limit)
    return [Change(*row) for row in connection.execute(query)]


def last(connection: sa.Connection) -> int:
    """Return the seq of the newest entry, 0 for an empty log."""
    return int(connection.scalar(sa.select(sa.func.max(changes.c.seq))) or 0)


def publish_detail(item: Item, version: NewVersion) -> dict[str, Any]:
    """Return what a publish entry records: all of the version but its report and info."""
    return {
        "item": item.metadata(),
        "bounds": list(version.bounds),
        "stores": [store.to_json() for store in version.stores],
        "tombstones": list(version.tombstones),
        "job": version.job,
    }


@dataclass(slots=True)
class Followed:
    """An asset as the change log tells it.

    Attributes:
        item: the record.
        versions: by number; without info and report, which the log does not carry.
    """

    item: Item
    versions: dict[int, Version] = field(default_factory=dict)


def replay(log: Iterable[Change], state: dict[str, Followed] | None = None) -> dict[str, Followed]:
    """Fold entries into the state of the catalogue.

    Args:
        log: entries in order.
        state: what earlier entries left; it is changed in place. None for the beginning.

    Returns:
        the living assets by id.

    Raises:
        CatalogError: an entry speaks of an asset or version that the ones before did not make.
    """
    assets = {} if state is None else state
    for change in log:
        if change.action == "create":
            assets[change.item_id] = Followed(_item(change, change.time, None))
            continue
        try:
            _apply(assets, change)
        except KeyError as error:
            raise CatalogError(
                f"change {change.seq} ({change.action} of {change.item_id}) does not follow from "
                f"the changes before it: {error} is unknown; read the log from its beginning"
            ) from error
    return assets


def _apply(assets: dict[str, Followed], change: Change) -> None:
    if change.action == "delete":
        del assets[change.item_id]
        return
    asset = assets[change.item_id]
    current = asset.item.current
    if change.action == "publish":
        current = _number(change)
        asset.versions[current] = _version(change, current)
    elif change.action == "rollback":
        current = _number(change)
        asset.versions[current]  # a KeyError tells that the log has a hole
        asset.item = _moved(asset.item, change.time, current)
        return
    asset.item = _item(change, asset.item.created, current)


def _number(change: Change) -> int:
    if change.version is None:
        raise CatalogError(f"change {change.seq} ({change.action}) names no version")
    return change.version


def _item(change: Change, created: datetime, current: int | None) -> Item:
    return Item(**change.detail["item"], created=created, updated=change.time, current=current)


def _moved(item: Item, time: datetime, current: int) -> Item:
    return Item(**item.metadata(), created=item.created, updated=time, current=current)


def _version(change: Change, number: int) -> Version:
    detail = change.detail
    return Version(
        item_id=change.item_id,
        number=number,
        created=change.time,
        bounds=Region(*detail["bounds"]),
        stores=tuple(StoreRef.from_json(store) for store in detail["stores"]),
        job=detail["job"],
        tombstones=tuple(detail["tombstones"]),
    )
