"""The databases that can hold a catalogue, by the name SQLAlchemy gives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.sql.elements import ColumnElement

from catalog.cql2.dialect import FilterDialect
from catalog.postgresql import Postgres
from catalog.sqlite import Sqlite

Box = tuple[float, float, float, float]


class Dialect(FilterDialect, Protocol):
    """How a database says what the catalogue needs beside plain SQL."""

    def near(
        self, boxes: Sequence[Box], first_day: float | None, last_day: float | None
    ) -> tuple[sa.FromClause, sa.FromClause, list[ColumnElement[bool]]]:
        """Return what an index knows of places and days, never leaving out a match.

        Returns:
            the table to count candidates in, the one to read them from, and the conditions.
        """

    def placed(self, connection: sa.Connection, row: int, box: Mapping[str, float]) -> None:
        """Put the box of a row of ``published`` into the index."""

    def displaced(self, connection: sa.Connection, row: int) -> None:
        """Take the box of a row out of the index."""

    def stated(self, column: ColumnElement[Any]) -> tuple[sa.FromClause, Any, Any]:
        """Return the members of a JSON column of ``published``: their table, names and types."""


DIALECTS: Mapping[str, Dialect] = {"sqlite": Sqlite(), "postgresql": Postgres()}


def dialect_of(connection: sa.Connection) -> Dialect:
    """Return the words of a connection's database."""
    return DIALECTS[connection.dialect.name]
