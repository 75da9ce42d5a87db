"""What stands on either side of a comparison: properties and literals, and what they can be.

A property of the catalogue has a type. A property that only the owner's JSON has may hold anything:
it is taken as text, number or boolean, as the other side demands, and is unknown (null) where it
holds something else. So ``NOT (floors > 3)`` leaves out an asset whose floors are the text "many".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.sql.elements import ColumnElement

from catalog.cql2.dialect import JsonProperty
from catalog.records import parse_time
from catalog.schema import Instant
from tiling.errors import QueryInvalid, RecordInvalid

Kind = Literal["text", "number", "boolean", "instant", "json", "array", "geometry", "bounds"]

BEFORE_ALL, AFTER_ALL = "", "~"
"""Stand for open ends among instants, which are text of fixed width beginning with a digit."""

_DAY = timedelta(days=1) - timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Operand:
    """One side.

    Attributes:
        kind: what it is.
        sql: its value; None of JSON, geometries and literals that are not one value.
        literal: of literals, what the filter says.
        json: of properties that only the owner's JSON has.
        name: as messages show it.
    """

    kind: Kind
    sql: ColumnElement[Any] | None
    name: str
    literal: Any = None
    json: JsonProperty | None = None

    @property
    def is_literal(self) -> bool:
        """Whether the filter itself says the value."""
        return self.literal is not None

    def value(self, kind: Kind) -> ColumnElement[Any]:
        """Return it as a value of a kind.

        Raises:
            QueryInvalid: it is of another kind.
        """
        if self.json is not None and kind in ("text", "number", "boolean"):
            return self.json.as_kind(kind)
        if self.kind == "text" and kind == "instant" and isinstance(self.literal, str):
            return instant_literal(self.literal)
        if self.kind != kind or self.sql is None:
            raise QueryInvalid(f"{self.name} is {_said(self.kind)}, not {_said(kind)}")
        return self.sql


Queryables = Mapping[str, Operand]


def _said(kind: Kind) -> str:
    return {
        "text": "text",
        "number": "a number",
        "boolean": "true or false",
        "instant": "a time",
        "json": "of no type that the catalogue knows",
        "array": "a list",
        "geometry": "a geometry",
        "bounds": "the footprint",
    }[kind]


def column(name: str, kind: Kind, sql: ColumnElement[Any]) -> Operand:
    """Return a property with a column or expression of its own; times as their text."""
    if kind == "instant":
        sql = sa.type_coerce(sql, sa.String)
    return Operand(kind, sql, f"property {name!r}")


def literal(value: Any) -> Operand:
    """Return what the filter says: text, a number, true or false, or a time.

    Raises:
        QueryInvalid: anything else.
    """
    shown = f"{value!r}" if isinstance(value, str) else str(value)
    if isinstance(value, bool):
        return Operand("boolean", sa.literal(int(value)), shown, value)
    if isinstance(value, int | float):
        return Operand("number", sa.literal(float(value)), shown, value)
    if isinstance(value, str):
        if "\0" in value:
            raise QueryInvalid(f"the text {value!r} holds a NUL")
        return Operand("text", sa.literal(value), shown, value)
    if isinstance(value, Mapping) and len(value) == 1:
        for name in ("date", "timestamp"):
            if isinstance(value.get(name), str):
                return Operand("instant", instant_literal(value[name]), value[name], value[name])
    raise QueryInvalid(f"{shown[:80]} is no literal that a filter can hold here")


def instant_literal(text: str) -> ColumnElement[Any]:
    """Return a time as the catalogue keeps it; a date is its first moment.

    Raises:
        QueryInvalid: neither a date nor a time with a zone.
    """
    return sa.literal(instant_text(_moment(text)))


def day_of(text: str) -> tuple[str, str]:
    """Return the first and last moment of a date, or a time twice, as the catalogue keeps them.

    Raises:
        QueryInvalid: neither a date nor a time with a zone.
    """
    first = _moment(text)
    return instant_text(first), instant_text(first + _DAY if _is_date(text) else first)


def instant_text(moment: datetime) -> str:
    """Return an aware time as the catalogue keeps it."""
    kept = Instant().process_bind_param(moment, None)  # type: ignore[arg-type]
    assert kept is not None
    return kept


def _is_date(text: str) -> bool:
    return len(text) == 10


def _moment(text: str) -> datetime:
    try:
        if _is_date(text):
            return datetime.combine(datetime.fromisoformat(text).date(), time(), UTC)
        return parse_time(text)
    except (ValueError, RecordInvalid) as error:
        raise QueryInvalid(f"{text!r} is neither a date nor a time with a zone") from error
