"""Keyset paging in any order: whatever is published meanwhile, nothing that stays is skipped.

A page's token holds the values of its last row in the order of the sort, its id at the end. What
has no value comes last, in either direction.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql.elements import ColumnElement

from catalog.cql2.conditions import Compiler
from catalog.queryables import ALWAYS
from tiling.errors import QueryInvalid

MAX_KEYS = 8


@dataclass(frozen=True, slots=True)
class SortKey:
    """A property by which assets are sorted."""

    name: str
    descending: bool = False


@dataclass(frozen=True, slots=True)
class Order:
    """An order of assets that no two share a place in."""

    columns: tuple[ColumnElement[Any], ...]
    descending: tuple[bool, ...]
    nullable: tuple[bool, ...]

    @classmethod
    def of(cls, keys: Sequence[SortKey], compiler: Compiler) -> Order:
        """Return the order of sort keys, made complete by the id.

        A property of the owner's JSON is two columns, as databases do not agree how numbers and
        texts compare: numbers (true and false are 1 and 0) come first, then texts.

        Raises:
            QueryInvalid: a property that cannot be sorted by, or too many.
        """
        if len(keys) > MAX_KEYS:
            raise QueryInvalid(f"more than {MAX_KEYS} properties to sort by")
        complete = [*keys] if any(key.name == "id" for key in keys) else [*keys, SortKey("id")]
        columns = [(c, k) for k in complete for c in _columns(k.name, compiler)]
        return cls(
            tuple(column for column, _ in columns),
            tuple(key.descending for _, key in columns),
            tuple(key.name.removeprefix("properties.") not in ALWAYS for _, key in columns),
        )

    def on(self, columns: Sequence[ColumnElement[Any]]) -> Order:
        """Return the same order on columns that hold the values of these."""
        return replace(self, columns=tuple(columns))

    def _keys(self) -> Iterator[tuple[ColumnElement[Any], bool, bool]]:
        return zip(self.columns, self.descending, self.nullable, strict=True)

    def clauses(self) -> list[ColumnElement[Any]]:
        """Return what follows ORDER BY."""
        found: list[ColumnElement[Any]] = []
        for column, descending, nullable in self._keys():
            if nullable:  # said of others it would keep the database from using an index
                found.append(column.is_(None))
            found.append(column.desc() if descending else column.asc())
        return found

    def after(self, token: str) -> ColumnElement[bool]:
        """Return the condition of the rows behind a page.

        Raises:
            QueryInvalid: the token is none of this order.
        """
        alternatives = []
        same: list[ColumnElement[bool]] = []
        values = _read(token, len(self.columns))
        for (column, descending, nullable), value in zip(self._keys(), values, strict=True):
            if value is not None:
                beyond = column < value if descending else column > value
                if nullable:
                    beyond = sa.or_(beyond, column.is_(None))
                alternatives.append(sa.and_(*same, beyond))
            same.append(column.is_(None) if value is None else column == value)
        return sa.or_(sa.false(), *alternatives)


def token_of(values: Sequence[Any]) -> str:
    """Return the token of the page behind a row with these values of the sort's columns."""
    text = json.dumps(list(values), ensure_ascii=False, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _read(token: str, count: int) -> list[Any]:
    try:
        padded = token.encode("ascii") + b"=" * (-len(token) % 4)
        values = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (UnicodeError, binascii.Error, ValueError) as error:
        raise QueryInvalid(f"{token[:80]!r} is no token of this catalogue") from error
    if (
        not isinstance(values, list)
        or len(values) != count
        or not all(value is None or isinstance(value, str | int | float) for value in values)
        or any(isinstance(value, int) and abs(value) >= 2**63 for value in values)
    ):
        raise QueryInvalid(f"{token[:80]!r} is no token of a search in this order")
    return values


def _columns(name: str, compiler: Compiler) -> list[ColumnElement[Any]]:
    operand = compiler.named(name)
    if operand.json is not None:
        number, truth = operand.json.as_kind("number"), operand.json.as_kind("boolean")
        return [sa.func.coalesce(number, truth), operand.json.as_kind("text")]
    if operand.sql is None or operand.kind == "bounds":
        raise QueryInvalid(f"{operand.name} cannot be sorted by")
    return [operand.sql]
