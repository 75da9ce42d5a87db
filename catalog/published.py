"""The table of what is published: written with every change, in its transaction; searched alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from catalog.dialects import dialect_of
from catalog.records import Item, Version, data_interval
from catalog.schema import published

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = timedelta(days=1)


def show(connection: sa.Connection, item: Item, version: Version) -> None:
    """Make an asset found, in this version and no other."""
    hide(connection, item.id)
    row = _row(item, version)
    result = connection.execute(published.insert().values(row))
    assert result.inserted_primary_key is not None
    box = {name: row[name] for name in ("west", "east", "south", "north")}
    box |= {"first_day": days(row["first"]), "last_day": days(row["last"])}
    dialect_of(connection).placed(connection, result.inserted_primary_key[0], box)


def hide(connection: sa.Connection, item_id: str) -> None:
    """Make an asset found no more."""
    where = published.c.id == item_id
    number = connection.scalar(sa.select(published.c.row).where(where))
    if number is not None:
        dialect_of(connection).displaced(connection, number)
        connection.execute(published.delete().where(where))


def days(moment: datetime) -> float:
    """Return days since 1970, as the R*Tree counts them."""
    return (moment - _EPOCH) / _DAY


def words_of(item: Item) -> str:
    """Return the text in which the words of a search are looked up, case folded."""
    parts = [item.id, item.title, item.description]
    parts.extend(str(value) for value in item.properties.values())
    return "\n".join(parts).casefold()


def _row(item: Item, version: Version) -> dict[str, Any]:
    span = data_interval(item.properties)
    first, last = (version.created, version.created) if span is None else span
    shown: dict[str, datetime | None] = {"start_datetime": None, "end_datetime": None}
    if item.properties.get("start_datetime") is None:
        shown["datetime"] = first
    else:
        shown |= {"datetime": None, "start_datetime": first, "end_datetime": last}
    return {
        "id": item.id,
        "collection": item.collection,
        "kind": item.kind,
        "number": version.number,
        "title": item.title,
        "description": item.description or item.title,
        "created": item.created,
        "updated": item.updated,
        **shown,
        "first": first,
        "last": last,
        **{name: float(value) for name, value in version.bounds._asdict().items()},
        "words": words_of(item),
        "properties": dict(item.properties),
    }
