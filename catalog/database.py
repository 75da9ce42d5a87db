"""The catalogue in a database: which assets exist, their history, who may see them.

One writer at a time: every change is one transaction that takes the write lock before it reads, so
two processes publishing the same asset get two numbers, and a reader sees a change whole or not at
all. The change log entry is part of the transaction it tells of.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import sqlalchemy as sa

from catalog import events, migrations, published, search
from catalog.access import EVERYTHING, AccessFilter
from catalog.engine import migrating, open_engine, reading, writing
from catalog.queryables import queryables, schema_of, stated
from catalog.records import (
    Change,
    Collection,
    Item,
    Kind,
    NewVersion,
    Role,
    StoreRef,
    Version,
    utc_now,
)
from catalog.schema import collections, items, numbers, stores, versions
from catalog.search import Extent, SearchPage, SearchQuery
from tiling.bounds import Region
from tiling.errors import Conflict, NotFound, RecordInvalid

_ITEM_COLUMNS = [items.c[name] for name in Item.__dataclass_fields__]


class Catalog:
    """An open catalogue; safe to share between threads, to be opened anew in each process."""

    def __init__(self, engine: sa.Engine, clock: Callable[[], datetime]) -> None:
        self._engine = engine
        self._clock = clock
        self._extents: tuple[int, AccessFilter, dict[str, Extent]] | None = None

    @classmethod
    def open(cls, url: str | Path, *, clock: Callable[[], datetime] = utc_now) -> Catalog:
        """Open a catalogue, making or migrating it when needed.

        Args:
            url: path of an SQLite file (its folder must exist), ``sqlite:///path``, or
                ``postgresql+psycopg://…``.
            clock: says what time it is, with a zone.

        Raises:
            ConfigError: another database, or one that cannot hold a catalogue.
            CatalogError: the file is damaged, cannot be opened, or is newer than this program.
        """
        catalog = cls(open_engine(url), clock)
        try:
            with reading(catalog._engine) as connection:
                revision = migrations.revision(connection)
            if not migrations.is_head(revision):
                with migrating(catalog._engine) as connection:
                    migrations.upgrade(connection)
        except BaseException:
            catalog.close()
            raise
        return catalog

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def __enter__(self) -> Catalog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _now(self) -> datetime:
        now = self._clock()
        if now.tzinfo is None:
            raise RecordInvalid(f"the clock says {now} without a zone")
        return now

    # Collections

    def ensure_collections(self, wanted: Sequence[Collection]) -> None:
        """Add collections, or bring those that exist up to date; parents before children."""
        with writing(self._engine) as connection:
            start = connection.scalar(sa.select(sa.func.count()).select_from(collections)) or 0
            for offset, collection in enumerate(wanted):
                row = {name: getattr(collection, name) for name in Collection.__dataclass_fields__}
                where = collections.c.id == collection.id
                changed = connection.execute(collections.update().where(where).values(row))
                if not changed.rowcount:
                    row["position"] = start + offset
                    connection.execute(collections.insert().values(row))

    def collections(self) -> list[Collection]:
        """Return every collection, in the order in which they were added."""
        columns = [collections.c[name] for name in Collection.__dataclass_fields__]
        query = sa.select(*columns).order_by(collections.c.position)
        with reading(self._engine) as connection:
            return [Collection(*row) for row in connection.execute(query)]

    def collection(self, collection_id: str) -> Collection:
        """Return one collection.

        Raises:
            NotFound: there is none.
        """
        for collection in self.collections():
            if collection.id == collection_id:
                return collection
        raise NotFound(f"there is no collection {collection_id!r}")

    # Changes

    def publish(self, item: Item, version: NewVersion, *, after: int | None = None) -> Version:
        """Make a version current, and the asset if it is new, in one transaction.

        Args:
            item: what the owner says about the asset; replaces what was said before.
            version: the version; its stores must be committed already.
            after: number of the version that must still be current; None: any may be.

        Raises:
            NotFound: the collection does not exist, or the asset that was to be updated.
            Conflict: the asset exists and is of another kind, or another version has become
                current.
        """
        now = self._now()
        with writing(self._engine) as connection:
            if after is not None and (current := _item(connection, item.id).current) != after:
                raise Conflict(
                    f"version {current} of {item.id!r} was published meanwhile, this one was made "
                    f"from version {after}: run the same command again"
                )
            if not self._upsert(connection, item, now):
                events.append(connection, now, "create", item.id, None, {"item": item.metadata()})
            number = _next_number(connection, item.id)
            made = _insert_version(connection, item.id, number, now, version)
            connection.execute(
                items.update().where(items.c.id == item.id).values(current=number, updated=now)
            )
            published.show(connection, _item(connection, item.id), made)
            detail = events.publish_detail(item, version)
            events.append(connection, now, "publish", item.id, number, detail)
        return made

    def update(self, item: Item) -> Item:
        """Replace what is said about an asset (title, description, properties, collection).

        Raises:
            NotFound: the asset or the collection does not exist.
            Conflict: the asset is of another kind.
        """
        now = self._now()
        with writing(self._engine) as connection:
            _item(connection, item.id)
            self._upsert(connection, item, now)
            events.append(connection, now, "update", item.id, None, {"item": item.metadata()})
            after = _item(connection, item.id)
            if after.current is not None:
                shown = _version(connection, item.id, after.current)
                published.show(connection, after, shown)
            return after

    def rollback(self, item_id: str, number: int) -> Version:
        """Make an earlier (or later) version current; the versions themselves stay.

        Raises:
            NotFound: the asset or the version does not exist.
        """
        now = self._now()
        with writing(self._engine) as connection:
            before = _item(connection, item_id).current
            chosen = _version(connection, item_id, number)
            connection.execute(
                items.update().where(items.c.id == item_id).values(current=number, updated=now)
            )
            published.show(connection, _item(connection, item_id), chosen)
            events.append(connection, now, "rollback", item_id, number, {"from": before})
        return chosen

    def delete(self, item_id: str) -> list[StoreRef]:
        """Delete an asset with all its versions; its numbers are never used again.

        Returns:
            the stores that no other asset refers to, by path: their files can be removed.

        Raises:
            NotFound: the asset does not exist.
        """
        now = self._now()
        with writing(self._engine) as connection:
            _item(connection, item_id)
            theirs = _stores(connection, versions.c.item_id == item_id)
            ended = [number for _, number in theirs]
            mine = {store.path: store for group in theirs.values() for store in group}
            published.hide(connection, item_id)
            for table in (stores, versions):
                connection.execute(table.delete().where(table.c.item_id == item_id))
            connection.execute(items.delete().where(items.c.id == item_id))
            still = set(connection.scalars(sa.select(stores.c.path).distinct()))
            orphans = [mine[path] for path in sorted(mine.keys() - still)]
            detail = {
                "versions": sorted(ended),
                "stores": [store.to_json() for store in orphans],
            }
            events.append(connection, now, "delete", item_id, None, detail)
        return orphans

    def _upsert(self, connection: sa.Connection, item: Item, now: datetime) -> bool:
        """Write the item's metadata; say whether it existed."""
        known = connection.scalar(
            sa.select(collections.c.id).where(collections.c.id == item.collection)
        )
        if known is None:
            raise NotFound(f"asset {item.id}: there is no collection {item.collection!r}")
        row = item.metadata() | {"updated": now}
        kind = connection.scalar(sa.select(items.c.kind).where(items.c.id == item.id))
        if kind is None:
            connection.execute(items.insert().values(row | {"created": now}))
            return False
        if kind != item.kind:
            raise Conflict(
                f"asset {item.id} holds {kind}, not {item.kind}; use another id, or delete it first"
            )
        connection.execute(items.update().where(items.c.id == item.id).values(row))
        return True

    # Reading

    def item(self, item_id: str, access: AccessFilter = EVERYTHING) -> Item:
        """Return one asset.

        Raises:
            NotFound: there is none, or none that may be seen.
        """
        with reading(self._engine) as connection:
            return _item(connection, item_id, access)

    def items(
        self,
        collection: str | None = None,
        kind: Kind | None = None,
        access: AccessFilter = EVERYTHING,
    ) -> list[Item]:
        """Return the assets of a collection, of a kind, or all of them, by id."""
        query = sa.select(*_ITEM_COLUMNS).where(access.condition()).order_by(items.c.id)
        if collection is not None:
            query = query.where(items.c.collection == collection)
        if kind is not None:
            query = query.where(items.c.kind == kind)
        with reading(self._engine) as connection:
            return [Item(*row) for row in connection.execute(query)]

    def versions(self, item_id: str) -> list[Version]:
        """Return the versions of an asset, newest first.

        Raises:
            NotFound: the asset does not exist.
        """
        with reading(self._engine) as connection:
            _item(connection, item_id)
            return _versions(connection, versions.c.item_id == item_id)

    def version(self, item_id: str, number: int | None = None) -> Version:
        """Return one version of an asset; the current one when `number` is None.

        Raises:
            NotFound: the asset or the version does not exist.
        """
        with reading(self._engine) as connection:
            item = _item(connection, item_id)
            return _version(connection, item_id, item.current if number is None else number)

    def search(self, query: SearchQuery, access: AccessFilter = EVERYTHING) -> SearchPage:
        """Return one page of the published assets that match.

        Raises:
            QueryInvalid: the token is not one of this catalogue.
        """
        with reading(self._engine) as connection:
            ids, after, matched = search.page(connection, query, access)
            by_id = _current(connection, ids)
        return SearchPage([by_id[item_id] for item_id in ids], after, matched)

    def extents(self, access: AccessFilter = EVERYTHING) -> dict[str, Extent]:
        """Return where and when the published assets lie, by collection."""
        with reading(self._engine) as connection:
            # Every page of the collections asks, and only a change can change the answer.
            known, sequence = self._extents, events.last(connection)
            if known is None or known[:2] != (sequence, access):
                known = self._extents = sequence, access, search.extents(connection, access)
            return known[2]

    def queryables(self, collection: str | None = None) -> dict[str, dict[str, Any]]:
        """Return what filters can ask for: names with the JSON Schema of their values."""
        with reading(self._engine) as connection:
            known = queryables(connection.dialect.name)
            kept = {name: schema_of(name, operand) for name, operand in known.items()}
            return kept | stated(connection, collection)

    def current_stores(
        self, role: Role, access: AccessFilter = EVERYTHING, item_id: str | None = None
    ) -> dict[tuple[str, str, int], list[StoreRef]]:
        """Return the stores of a role in the current versions of all assets, or of one.

        Returns:
            (asset, collection, version) -> stores, newest first; by asset.
        """
        columns = [stores.c[name] for name in StoreRef.__dataclass_fields__]
        current = sa.and_(stores.c.item_id == items.c.id, stores.c.number == items.c.current)
        query = (
            sa.select(items.c.id, items.c.collection, stores.c.number, *columns)
            .select_from(items.join(stores, current))
            .where(access.condition(), stores.c.role == role)
            .order_by(items.c.id, stores.c.position)
        )
        if item_id is not None:
            query = query.where(items.c.id == item_id)
        found: dict[tuple[str, str, int], list[StoreRef]] = {}
        with reading(self._engine) as connection:
            for asset, collection, number, *fields in connection.execute(query):
                found.setdefault((asset, collection, number), []).append(StoreRef(*fields))
        return found

    def changes(self, after: int = 0, limit: int = 1000) -> list[Change]:
        """Return at most `limit` changes with ``seq > after``, oldest first."""
        with reading(self._engine) as connection:
            return events.read(connection, after, limit)

    def sequence(self) -> int:
        """Return the seq of the newest change, 0 for none: cheap, for noticing changes."""
        with reading(self._engine) as connection:
            return events.last(connection)


def _item(connection: sa.Connection, item_id: str, access: AccessFilter = EVERYTHING) -> Item:
    query = sa.select(*_ITEM_COLUMNS).where(items.c.id == item_id, access.condition())
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFound(f"there is no asset {item_id!r}")
    return Item(*row)


def _version(connection: sa.Connection, item_id: str, number: int | None) -> Version:
    where = sa.and_(versions.c.item_id == item_id, versions.c.number == number)
    for version in _versions(connection, where):
        return version
    raise NotFound(f"asset {item_id!r} has no version {number}")


def _versions(connection: sa.Connection, where: sa.ColumnElement[bool]) -> list[Version]:
    rows = connection.execute(
        versions.select().where(where).order_by(versions.c.item_id, versions.c.number.desc())
    ).all()
    if not rows:
        return []
    theirs = _stores(connection, where)
    return [
        Version(
            row.item_id,
            row.number,
            row.created,
            Region(row.west, row.south, row.east, row.north, row.min_height_m, row.max_height_m),
            tuple(theirs[row.item_id, row.number]),
            row.info,
            row.report,
            row.job,
            tuple(row.tombstones),
        )
        for row in rows
    ]


def _current(connection: sa.Connection, ids: list[str]) -> dict[str, tuple[Item, Version]]:
    """Return assets with their current versions."""
    rows = connection.execute(sa.select(*_ITEM_COLUMNS).where(items.c.id.in_(ids)))
    found = {row.id: Item(*row) for row in rows}
    # Said so that SQLite uses its indices; for pairs in a list it reads the whole table.
    current = sa.select(items.c.current).where(items.c.id == versions.c.item_id).scalar_subquery()
    where = sa.and_(versions.c.item_id.in_(ids), versions.c.number == current)
    return {v.item_id: (found[v.item_id], v) for v in _versions(connection, where)}


def _stores(
    connection: sa.Connection, where: sa.ColumnElement[bool]
) -> dict[tuple[str, int], list[StoreRef]]:
    columns = [stores.c[name] for name in StoreRef.__dataclass_fields__]
    order = (stores.c.item_id, stores.c.number, stores.c.position)
    same = sa.and_(versions.c.item_id == stores.c.item_id, versions.c.number == stores.c.number)
    query = (
        sa.select(stores.c.item_id, stores.c.number, *columns)
        .select_from(versions.join(stores, same))
        .where(where)
        .order_by(*order)
    )
    found: dict[tuple[str, int], list[StoreRef]] = {}
    for item_id, number, *fields in connection.execute(query):
        found.setdefault((item_id, number), []).append(StoreRef(*fields))
    return found


def _next_number(connection: sa.Connection, item_id: str) -> int:
    where = numbers.c.item_id == item_id
    last = connection.scalar(sa.select(numbers.c.last).where(where))
    if last is None:
        connection.execute(numbers.insert().values(item_id=item_id, last=1))
        return 1
    connection.execute(numbers.update().where(where).values(last=last + 1))
    return int(last) + 1


def _insert_version(
    connection: sa.Connection, item_id: str, number: int, now: datetime, new: NewVersion
) -> Version:
    made = Version(
        item_id, number, now, new.bounds, new.stores, new.info, new.report, new.job, new.tombstones
    )
    connection.execute(
        versions.insert().values(
            item_id=item_id,
            number=number,
            created=now,
            **{name: float(value) for name, value in new.bounds._asdict().items()},
            info=dict(new.info),
            report=dict(new.report),
            job=new.job,
            tombstones=list(new.tombstones),
        )
    )
    rows = [
        {"item_id": item_id, "number": number, "position": i, **store.to_json()}
        for i, store in enumerate(new.stores)
    ]
    connection.execute(stores.insert(), rows)
    return replace(made, bounds=Region(*(float(v) for v in new.bounds)))
