"""What filters need of a database and every database says in its own words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

from sqlalchemy.sql.elements import ColumnElement

Plain = Literal["text", "number", "boolean"]
ArrayOp = Literal["a_contains", "a_containedby", "a_equals", "a_overlaps"]


class JsonProperty(Protocol):
    """A property in a JSON column."""

    def type(self) -> ColumnElement[Any]:
        """Return the name of its type: ``null`` where it is stated so, NULL where it is absent."""

    def as_kind(self, kind: Plain) -> ColumnElement[Any]:
        """Return it as text, number (double) or boolean (1, 0); NULL where it is another type."""

    def array(self, op: ArrayOp, wanted: Sequence[str | float | bool]) -> ColumnElement[bool]:
        """Compare it with a list of values; NULL where it is no list."""


class FilterDialect(Protocol):
    """How a database says what filters need."""

    def json(self, column: ColumnElement[Any], name: str) -> JsonProperty:
        """Return a property of a JSON column."""

    def fold(self, op: str, text: ColumnElement[Any]) -> ColumnElement[Any]:
        """Return text as `catalog.cql2.folds.FOLDS` folds it."""

    def relation(
        self, op: str, wkb: bytes, bounds: Sequence[ColumnElement[Any]]
    ) -> ColumnElement[bool]:
        """Compare boxes (west, south, east, north) with a geometry, see `places.SPATIAL`."""
