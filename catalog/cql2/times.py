"""Temporal functions of CQL2: the relations of two intervals, or of moments as intervals.

Definitions: OGC 21-065r2, table 9; moments are intervals that end where they begin, dates are
their whole day (UTC).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql.elements import ColumnElement

from catalog.cql2.operands import AFTER_ALL, BEFORE_ALL, Operand, day_of
from tiling.errors import QueryInvalid

_Relation = Callable[[Any, Any, Any, Any], ColumnElement[bool]]

# s, e: start and end of the first; t, f: of the second.
TEMPORAL: Mapping[str, _Relation] = {
    "t_after": lambda s, e, t, f: s > f,
    "t_before": lambda s, e, t, f: e < t,
    "t_contains": lambda s, e, t, f: sa.and_(s < t, e > f),
    "t_disjoint": lambda s, e, t, f: sa.or_(e < t, s > f),
    "t_during": lambda s, e, t, f: sa.and_(s > t, e < f),
    "t_equals": lambda s, e, t, f: sa.and_(s == t, e == f),
    "t_finishedby": lambda s, e, t, f: sa.and_(s < t, e == f),
    "t_finishes": lambda s, e, t, f: sa.and_(s > t, e == f),
    "t_intersects": lambda s, e, t, f: sa.and_(s <= f, e >= t),
    "t_meets": lambda s, e, t, f: e == t,
    "t_metby": lambda s, e, t, f: s == f,
    "t_overlappedby": lambda s, e, t, f: sa.and_(s > t, s < f, e > f),
    "t_overlaps": lambda s, e, t, f: sa.and_(s < t, e > t, e < f),
    "t_startedby": lambda s, e, t, f: sa.and_(s == t, e > f),
    "t_starts": lambda s, e, t, f: sa.and_(s == t, e < f),
}


def temporal(op: str, first: Any, second: Any) -> ColumnElement[bool]:
    """Return the condition that two times are in a relation.

    Args:
        op: a key of `TEMPORAL`.
        first, second: an operand that is a time, or a list of two, of which ``..`` is open.

    Raises:
        QueryInvalid: something that is no time.
    """
    return TEMPORAL[op](*_ends(first), *_ends(second)).self_group()


def _ends(span: Any) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
    if isinstance(span, list):
        start, end = span
        first = sa.literal(BEFORE_ALL) if start == ".." else _ends(start)[0]
        last = sa.literal(AFTER_ALL) if end == ".." else _ends(end)[1]
        return first, last
    assert isinstance(span, Operand)
    if isinstance(span.literal, str):
        low, high = day_of(span.literal)
        return sa.literal(low), sa.literal(high)
    if span.kind != "instant":
        raise QueryInvalid(f"{span.name} is no time")
    return span.value("instant"), span.value("instant")
