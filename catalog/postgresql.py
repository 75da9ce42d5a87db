"""The catalogue in PostgreSQL with PostGIS: one writer by an advisory lock, jsonb, GiST."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.sql.elements import ColumnElement

from catalog.cql2.dialect import ArrayOp, Plain
from catalog.schema import published
from tiling.errors import ConfigError

DRIVER = "postgresql+psycopg"
# Any number that no other program on this database is likely to take: "CIM" and the catalogue.
_WRITE_LOCK = 0x43494D01
_TYPES: Mapping[Plain, str] = {"text": "string", "number": "number", "boolean": "boolean"}
# ST_... of SPATIAL's names.
_RELATIONS = {
    "s_intersects": sa.func.ST_Intersects,
    "s_disjoint": sa.func.ST_Disjoint,
    "s_equals": sa.func.ST_Equals,
    "s_touches": sa.func.ST_Touches,
    "s_within": sa.func.ST_Within,
    "s_contains": sa.func.ST_Contains,
    "s_overlaps": sa.func.ST_Overlaps,
    "s_crosses": sa.func.ST_Crosses,
}
_CREATE = (
    "create it with CREATE DATABASE name TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' "
    "LC_CTYPE 'C.UTF-8'"
)


def open_engine(url: sa.URL, busy_seconds: float, serializer: Callable[[Any], str]) -> sa.Engine:
    """Return an engine for a database that keeps text as the catalogue needs it.

    Raises:
        ConfigError: psycopg is not installed, PostGIS is not there and cannot be made, or the
            database sorts text by a language.
    """
    try:
        engine = sa.create_engine(url, json_serializer=serializer, pool_pre_ping=True)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{shown(url)}: the driver {error.name!r} is missing; pip install cim-server[postgis]"
        ) from error

    @sa.event.listens_for(engine, "connect")
    def connected(connection: Any, _record: object) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"SET lock_timeout = '{int(busy_seconds * 1000)}ms'")
            cursor.execute("SET TIME ZONE 'UTC'")
        connection.commit()

    return engine


def check(connection: sa.Connection) -> None:
    """Check that a database keeps and compares text as every other catalogue does.

    Raises:
        ConfigError: it does not, or PostGIS cannot be had.
    """
    where = shown(connection.engine.url)
    # What a server before 15 does not know of itself is null.
    encoding, collate, provider = connection.execute(
        sa.text(
            "SELECT pg_encoding_to_char(encoding), datcollate, to_jsonb(d) ->> 'datlocprovider' "
            "FROM pg_database d WHERE datname = current_database()"
        )
    ).one()
    by_language = provider == "i" or collate not in ("C", "POSIX", "C.UTF-8", "C.utf8")
    if encoding != "UTF8" or by_language:
        raise ConfigError(
            f"{where}: encoding {encoding}, collation {collate}"
            f"{' by ICU' if provider == 'i' else ''}: times, codes and pages follow "
            f"the order of code points; {_CREATE}"
        )
    if not connection.scalar(sa.text("SELECT count(*) FROM pg_extension WHERE extname='postgis'")):
        raise ConfigError(f"{where}: PostGIS is missing; CREATE EXTENSION postgis as its owner")


def shown(url: sa.URL) -> str:
    """Return a URL as messages show it."""
    return url.render_as_string(hide_password=True)


def lock_for_writing(connection: sa.Connection) -> None:
    """Take the write lock, which the end of the transaction gives back."""
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_WRITE_LOCK)))


@dataclass(frozen=True, slots=True)
class PostgresJson:
    """A property in a jsonb column, see `catalog.cql2.dialect.JsonProperty`."""

    column: ColumnElement[Any]
    name: str

    @property
    def _value(self) -> ColumnElement[Any]:
        return sa.cast(self.column, JSONB)[self.name]

    def type(self) -> ColumnElement[Any]:
        """Return the name of its type."""
        return sa.func.jsonb_typeof(self._value)

    def as_kind(self, kind: Plain) -> ColumnElement[Any]:
        """Return it as text, number or boolean."""
        text = sa.cast(self.column, JSONB)[self.name].astext
        value = {
            "text": text,
            "number": sa.cast(text, sa.Double),
            "boolean": sa.cast(sa.cast(text, sa.Boolean), sa.Integer),
        }[kind]
        return sa.case((self.type() == _TYPES[kind], value))

    def array(self, op: ArrayOp, wanted: Sequence[str | float | bool]) -> ColumnElement[bool]:
        """Compare it with a list of values."""

        def is_in(values: Sequence[Any]) -> ColumnElement[Any]:
            return sa.cast(sa.literal(orjson.dumps(list(values)).decode(), sa.Text), JSONB)

        whole = is_in(wanted)
        found = {
            "a_contains": self._value.op("@>", is_comparison=True)(whole),
            "a_containedby": self._value.op("<@", is_comparison=True)(whole),
            "a_equals": sa.and_(
                self._value.op("@>", is_comparison=True)(whole),
                self._value.op("<@", is_comparison=True)(whole),
            ),
            "a_overlaps": sa.or_(
                sa.false(),
                *(self._value.op("@>", is_comparison=True)(is_in([value])) for value in wanted),
            ),
        }[op]
        return sa.case((self.type() == "array", found)) == sa.true()


class Postgres:
    """PostgreSQL's words, see `catalog.dialects.Dialect`."""

    def json(self, column: ColumnElement[Any], name: str) -> PostgresJson:
        """Return a property of a JSON column."""
        return PostgresJson(column, name)

    def fold(self, op: str, text: ColumnElement[Any]) -> ColumnElement[Any]:
        """Return text without regard to case, or without accents."""
        if op == "casei":
            upper = sa.func.upper(sa.collate(text, "und-x-icu"))
            return sa.collate(sa.func.lower(sa.collate(upper, "und-x-icu")), "C")
        apart = sa.func.normalize(text, sa.text("NFD"))
        bare = sa.func.regexp_replace(apart, "[\u0300-\u036f]+", "", "g")
        return sa.func.normalize(bare, sa.text("NFC"), type_=sa.String)

    def relation(
        self, op: str, wkb: bytes, bounds: Sequence[ColumnElement[Any]]
    ) -> ColumnElement[bool]:
        """Compare boxes with a geometry."""
        west, south, east, north = bounds
        low, high = sa.func.ST_MakePoint(west, south), sa.func.ST_MakePoint(east, north)
        footprint = sa.case(
            (sa.and_(west < east, south < north), sa.func.ST_MakeEnvelope(*bounds)),
            (sa.and_(west == east, south == north), low),
            else_=sa.func.ST_MakeLine(low, high),
        )
        found: ColumnElement[bool] = _RELATIONS[op](footprint, sa.func.ST_GeomFromWKB(wkb))
        return found

    def near(
        self,
        boxes: Sequence[tuple[float, float, float, float]],
        first_day: float | None,
        last_day: float | None,
    ) -> tuple[sa.FromClause, sa.FromClause, list[ColumnElement[bool]]]:
        """Ask the GiST index: every match is among its rows, others may be."""
        found: list[ColumnElement[bool]] = []
        for west, south, east, north in boxes:
            if west <= east:
                found.append(_box(*_bounds()).op("&&")(_box(west, south, east, north)))
        return published, published, found

    def placed(self, connection: sa.Connection, row: int, box: Mapping[str, float]) -> None:
        """Do nothing: PostgreSQL keeps its indices itself."""

    def displaced(self, connection: sa.Connection, row: int) -> None:
        """Do nothing: PostgreSQL keeps its indices itself."""

    def stated(self, column: ColumnElement[Any]) -> tuple[sa.FromClause, Any, Any]:
        """Return the members of a JSON column as rows: their table, names and types."""
        each = sa.func.jsonb_each(column).table_valued("key", "value").lateral()
        return published.join(each, sa.true()), each.c.key, sa.func.jsonb_typeof(each.c.value)


def _bounds() -> tuple[Any, Any, Any, Any]:
    p = published.c
    return p.west, p.south, p.east, p.north


def _box(west: Any, south: Any, east: Any, north: Any) -> ColumnElement[Any]:
    # As the index of the migration says it, or it is not used.
    low, high = sa.func.point(west, south), sa.func.point(east, north)
    return sa.func.box(low, high)
