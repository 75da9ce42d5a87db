"""The tree of a filter -> a condition inside SQL, with SQL's three-valued logic.

What is offered: Basic CQL2, Advanced Comparison Operators (LIKE, BETWEEN, IN), Case-insensitive and
Accent-insensitive Comparison, Basic Spatial Functions and Spatial Functions on the footprints,
Temporal Functions, Array Functions on lists of the owner's JSON, property against property. Not
offered: arithmetic and custom functions; they are refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.sql.elements import ColumnElement

from catalog.cql2.dialect import ArrayOp, FilterDialect
from catalog.cql2.folds import FOLDS
from catalog.cql2.operands import Kind, Operand, Queryables, literal
from catalog.cql2.places import SPATIAL, spatial
from catalog.cql2.times import TEMPORAL, temporal
from tiling.errors import QueryInvalid

Condition = ColumnElement[bool]

_COMPARE: Mapping[str, Callable[[Any, Any], Any]] = {
    "=": lambda a, b: a == b,
    "<>": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}
_ARRAYS = frozenset({"a_contains", "a_containedby", "a_equals", "a_overlaps"})


class Compiler:
    """Turns trees into conditions on one set of properties.

    Args:
        dialect: of the database.
        queryables: properties of the catalogue by name.
        json: the column with the owner's properties.
        fixed: names that the answer shows and no filter can use, with the reason.
    """

    def __init__(
        self,
        dialect: FilterDialect,
        queryables: Queryables,
        json: ColumnElement[Any],
        fixed: Mapping[str, str],
    ) -> None:
        self._dialect = dialect
        self._queryables = queryables
        self._json = json
        self._fixed = fixed

    def condition(self, tree: Any) -> Condition:
        """Return the condition of a tree.

        Raises:
            QueryInvalid: an operator that is not offered, or sides that do not fit.
        """
        if isinstance(tree, bool):
            return sa.true() if tree else sa.false()
        if not isinstance(tree, Mapping) or "op" not in tree:
            return self.operand(tree).value("boolean") == 1
        op, args = str(tree["op"]).lower(), tree.get("args", [])
        if op in ("and", "or"):
            _count(op, args, 1, None)
            join = sa.and_ if op == "and" else sa.or_
            return join(*(self.condition(arg) for arg in args)).self_group()
        if op == "not":
            _count(op, args, 1, 1)
            return sa.not_(self.condition(args[0]).self_group())
        if op in _COMPARE:
            _count(op, args, 2, 2)
            return _compared(op, self.operand(args[0]), self.operand(args[1]))
        if op == "isnull":
            _count(op, args, 1, 1)
            return _is_null(self.operand(args[0]))
        if op == "between":
            _count(op, args, 3, 3)
            value, low, high = map(self.operand, args)
            return sa.and_(_compared(">=", value, low), _compared("<=", value, high)).self_group()
        if op == "in":
            return self._in(args)
        if op == "like":
            return self._like(args)
        if op in SPATIAL:
            _count(op, args, 2, 2)
            return spatial(self._dialect, op, *(self._place(arg) for arg in args))
        if op in TEMPORAL:
            _count(op, args, 2, 2)
            return temporal(op, *(self._span(arg) for arg in args))
        if op in _ARRAYS:
            _count(op, args, 2, 2)
            return self._arrays(op, *args)
        raise QueryInvalid(f"the filter uses {tree['op']!r}, which this catalogue does not offer")

    def operand(self, node: Any) -> Operand:
        """Return one side.

        Raises:
            QueryInvalid: an operator that is not offered, or a name that means nothing.
        """
        if isinstance(node, Mapping) and "property" in node:
            return self.named(node["property"])
        if isinstance(node, Mapping) and "op" in node:
            op, args = str(node["op"]).lower(), node.get("args", [])
            if op not in FOLDS:
                raise QueryInvalid(
                    f"the filter uses {node['op']!r}, which this catalogue does not offer"
                )
            _count(op, args, 1, 1)
            return self._folded(op, self.operand(args[0]))
        return literal(node)

    def named(self, name: str) -> Operand:
        """Return a property of the assets, with or without ``properties.`` before its name.

        Raises:
            QueryInvalid: one that cannot be asked for.
        """
        bare = name.removeprefix("properties.")
        if bare in self._queryables:
            return self._queryables[bare]
        if bare in self._fixed:
            raise QueryInvalid(f"property {bare!r} cannot be asked for: {self._fixed[bare]}")
        if '"' in bare or "\0" in bare:
            raise QueryInvalid(f"property {bare!r}: no name holds such a character")
        return Operand(
            "json", None, f"property {bare!r}", json=self._dialect.json(self._json, bare)
        )

    def _in(self, args: Sequence[Any]) -> Condition:
        _count("in", args, 2, 2)
        value = self.operand(args[0])
        if not isinstance(args[1], list):
            raise QueryInvalid("IN needs a list of values")
        choices = [self.operand(each) for each in args[1]]
        by_kind: dict[Kind, list[ColumnElement[Any]]] = {}
        for choice in choices:
            kind = _common(value, choice)
            by_kind.setdefault(kind, []).append(choice.value(kind))
        if not by_kind:
            return sa.false()
        # One unknown side makes SQL's IN unknown, as it makes a chain of OR.
        return sa.or_(*(value.value(k).in_(each) for k, each in by_kind.items())).self_group()

    def _like(self, args: Sequence[Any]) -> Condition:
        _count("like", args, 2, 2)
        value, pattern = self.operand(args[0]), self.operand(args[1])
        text = pattern.literal
        if not isinstance(text, str):
            raise QueryInvalid("LIKE needs a pattern: text with % and _")
        if (len(text) - len(text.rstrip("\\"))) % 2:
            raise QueryInvalid(f"the pattern {text!r} ends with a backslash that escapes nothing")
        return value.value("text").like(text, escape="\\")

    def _place(self, node: Any) -> Any:
        if isinstance(node, Mapping) and "property" in node:
            return self.named(node["property"])
        return node

    def _span(self, node: Any) -> Any:
        if isinstance(node, Mapping) and "interval" in node:
            ends = node["interval"]
            if not isinstance(ends, list) or len(ends) != 2:
                raise QueryInvalid("an interval has two ends")
            return [end if end == ".." else self.operand(end) for end in ends]
        return self.operand(node)

    def _arrays(self, op: str, first: Any, second: Any) -> Condition:
        held = self.operand(first)
        if held.json is None or not isinstance(second, list):
            raise QueryInvalid(f"{op.upper()} compares a list of the assets with a list of values")
        wanted = [literal(each) for each in second]
        if any(each.kind not in ("text", "number", "boolean") for each in wanted):
            raise QueryInvalid(f"{op.upper()} compares text, numbers, true and false")
        return held.json.array(cast(ArrayOp, op), [each.literal for each in wanted])

    def _folded(self, op: str, value: Operand) -> Operand:
        if isinstance(value.literal, str) and value.kind == "text":
            text = FOLDS[op](value.literal)
            return Operand("text", sa.literal(text), value.name, text)
        sql = self._dialect.fold(op, value.value("text"))
        return Operand("text", sql, f"{op.upper()}({value.name})")


def _count(op: str, args: Any, least: int, most: int | None) -> None:
    if not isinstance(args, list) or len(args) < least or (most is not None and len(args) > most):
        raise QueryInvalid(f"{op.upper()} in the filter has not as many sides as it needs")


def _common(a: Operand, b: Operand) -> Kind:
    """Return the kind in which two sides can be compared."""
    for one, other in ((a, b), (b, a)):
        if one.kind == "instant" and (other.kind == "instant" or isinstance(other.literal, str)):
            return "instant"
    kinds = {a.kind, b.kind} - {"json"}
    if len(kinds) == 1 and (kind := kinds.pop()) in ("text", "number", "boolean"):
        return kind
    raise QueryInvalid(f"{a.name} and {b.name} cannot be compared: they are of different types")


def _compared(op: str, a: Operand, b: Operand) -> Condition:
    compare = _COMPARE[op]
    if a.json is not None and b.json is not None:
        kinds: tuple[Kind, ...] = ("text", "number", "boolean")
        return sa.func.coalesce(*(compare(a.value(k), b.value(k)) for k in kinds)) == sa.true()
    kind = _common(a, b)
    result: Condition = compare(a.value(kind), b.value(kind))
    return result


def _is_null(value: Operand) -> Condition:
    if value.json is not None:
        return sa.func.coalesce(value.json.type(), "null") == "null"
    if value.kind == "bounds":
        return sa.false()
    if value.sql is None or value.is_literal:
        raise QueryInvalid("IS NULL asks about a property")
    return value.sql.is_(None)
