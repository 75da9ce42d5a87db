"""The catalogue in an SQLite file: pragmas, an R*Tree, JSON functions, and functions of our own."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql.elements import ColumnElement

from catalog.cql2.dialect import ArrayOp, Plain
from catalog.cql2.folds import fold_accents, fold_case
from catalog.cql2.places import relates
from catalog.schema import published, published_boxes
from tiling.errors import CatalogError

# What filters need and SQLite does not have.
_FUNCTIONS: tuple[tuple[str, int, Callable[..., Any]], ...] = (
    ("cim_casei", 1, fold_case),
    ("cim_accenti", 1, fold_accents),
    ("cim_spatial", 6, relates),
)
_TYPES: Mapping[Plain, tuple[str, ...]] = {
    "text": ("text",),
    "number": ("integer", "real"),
    "boolean": ("true", "false"),
}


def open_engine(path: Path, busy_seconds: float, serializer: Callable[[Any], str]) -> sa.Engine:
    """Return an engine whose transactions begin as deferred ones, for reading."""
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=str(path)),
        connect_args={"timeout": busy_seconds},
        json_serializer=serializer,
    )
    sa.event.listen(engine, "connect", _connected)
    sa.event.listen(engine, "begin", _begun)
    return engine


def _connected(connection: sqlite3.Connection, _record: object) -> None:
    # We say BEGIN ourselves: the driver's own idea of transactions leaves out DDL and reads.
    connection.isolation_level = None
    for pragma in (
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
        # As SQL has it; SQLite's own LIKE takes "a" for "A", though not "ä" for "Ä".
        "case_sensitive_like = ON",
    ):
        connection.execute(f"PRAGMA {pragma}").close()
    for name, arguments, function in _FUNCTIONS:
        connection.create_function(name, arguments, function, deterministic=True)


def _begun(connection: sa.Connection) -> None:
    # IMMEDIATE takes the write lock before the first read: a transaction that reads first and
    # writes later could only fail when another one wrote in between.
    writes = connection.get_execution_options().get("cim_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def without_references(connection: sa.Connection) -> None:
    """Turn the checks of foreign keys off, which SQLite does only outside of a transaction."""
    raw = connection.connection.dbapi_connection
    assert raw is not None
    raw.cursor().execute("PRAGMA foreign_keys = OFF").close()


def check_references(connection: sa.Connection) -> None:
    """Check all references at once.

    Raises:
        CatalogError: some lead nowhere.
    """
    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
    if broken:
        raise CatalogError(
            f"{connection.engine.url.database}: the migration would break {len(broken)} "
            f"references, the first in table {broken[0][0]}; nothing was changed"
        )


@dataclass(frozen=True, slots=True)
class SqliteJson:
    """A property in a JSON column, see `catalog.cql2.dialect.JsonProperty`."""

    column: ColumnElement[Any]
    name: str

    @property
    def _path(self) -> str:
        return f'$."{self.name}"'

    def type(self) -> ColumnElement[Any]:
        """Return the name of its type."""
        return sa.func.json_type(self.column, self._path)

    def as_kind(self, kind: Plain) -> ColumnElement[Any]:
        """Return it as text, number or boolean."""
        value = sa.func.json_extract(self.column, self._path)
        return sa.case((self.type().in_(_TYPES[kind]), value))

    def array(self, op: ArrayOp, wanted: Sequence[str | float | bool]) -> ColumnElement[bool]:
        """Compare it with a list of values."""
        each = sa.func.json_each(self.column, self._path).table_valued("value", "type")

        def is_value(value: str | float | bool) -> ColumnElement[bool]:
            kind: Plain = "number"
            if isinstance(value, str | bool):
                kind = "text" if isinstance(value, str) else "boolean"
            same = each.c.value == (int(value) if isinstance(value, bool) else value)
            return sa.and_(each.c.type.in_(_TYPES[kind]), same)

        def holds(condition: ColumnElement[bool]) -> ColumnElement[bool]:
            return sa.exists(sa.select(sa.literal(1)).select_from(each).where(condition))

        is_one = sa.or_(sa.false(), *map(is_value, wanted))
        has_all = sa.and_(sa.true(), *(holds(is_value(value)) for value in wanted))
        no_other = sa.not_(holds(sa.not_(is_one)))
        found = {
            "a_contains": has_all,
            "a_containedby": no_other,
            "a_equals": sa.and_(has_all, no_other),
            "a_overlaps": holds(is_one),
        }[op]
        return sa.case((self.type() == "array", found)) == sa.true()


class Sqlite:
    """SQLite's words, see `catalog.dialects.Dialect`."""

    def json(self, column: ColumnElement[Any], name: str) -> SqliteJson:
        """Return a property of a JSON column."""
        return SqliteJson(column, name)

    def fold(self, op: str, text: ColumnElement[Any]) -> ColumnElement[Any]:
        """Return text without regard to case, or without accents."""
        return getattr(sa.func, f"cim_{op}")(text, type_=sa.String)  # type: ignore[no-any-return]

    def relation(
        self, op: str, wkb: bytes, bounds: Sequence[ColumnElement[Any]]
    ) -> ColumnElement[bool]:
        """Compare boxes with a geometry."""
        return sa.func.cim_spatial(op, wkb, *bounds, type_=sa.Integer) == 1

    def near(
        self,
        boxes: Sequence[tuple[float, float, float, float]],
        first_day: float | None,
        last_day: float | None,
    ) -> tuple[sa.FromClause, sa.FromClause, list[ColumnElement[bool]]]:
        """Ask the R*Tree: every match is among its rows, others may be."""
        b = published_boxes.c
        found: list[ColumnElement[bool]] = []
        for west, south, east, north in boxes:
            if west <= east:
                found += [b.west <= east, b.east >= west]
            found += [b.south <= north, b.north >= south]
        if first_day is not None:
            found.append(b.last_day >= first_day)
        if last_day is not None:
            found.append(b.first_day <= last_day)
        joined = published_boxes.join(published, published.c.row == b.row)
        return published_boxes, joined, found

    def placed(self, connection: sa.Connection, row: int, box: Mapping[str, float]) -> None:
        """Put the box of a row of ``published`` into the index."""
        connection.execute(published_boxes.insert().values(row=row, **box))

    def displaced(self, connection: sa.Connection, row: int) -> None:
        """Take the box of a row out of the index."""
        connection.execute(published_boxes.delete().where(published_boxes.c.row == row))

    def stated(self, column: ColumnElement[Any]) -> tuple[sa.FromClause, Any, Any]:
        """Return the members of a JSON column as rows: their table, names and types."""
        each = sa.func.json_each(column).table_valued("key", "type")
        return published.join(each, sa.true()), each.c.key, each.c.type
