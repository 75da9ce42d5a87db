"""A CQL2 filter on the rows of an Arrow table, with SQL's three-valued logic.

What is offered: AND, OR, NOT, comparisons of properties and literals, BETWEEN, IN, LIKE, IS NULL,
CASEI, ACCENTI; text, numbers, booleans, dates and times. Everything else is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from catalog.cql2.folds import FOLDS
from catalog.cql2.tree import Tree
from tiling.errors import QueryInvalid

_COMPARE: Mapping[str, Callable[[Any, Any], Any]] = {
    "=": pc.equal,
    "<>": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}
_SIDES = {"not": 1, "isnull": 1, "between": 3, "in": 2, "like": 2}


class RowFilter:
    """Says which rows fulfil a filter.

    Args:
        tree: of the filter, as `catalog.cql2.tree` reads it.
        schema: every attribute that a table may have; what a table lacks is null in it.
        most_rows: rows that it looks at in all, so that a request is bounded.

    Attributes:
        columns: the attributes that the filter names.

    Raises:
        QueryInvalid: an attribute that is not there, an operator that is not offered, or sides
            that cannot be compared.
    """

    def __init__(self, tree: Tree, schema: pa.Schema, most_rows: int) -> None:
        self._tree = tree
        self._schema = schema
        self._left = most_rows
        self.columns: Sequence[str] = sorted(_named(tree))
        if unknown := [name for name in self.columns if name not in schema.names]:
            raise QueryInvalid(
                f"there is no property {unknown[0]!r}; there are {', '.join(schema.names)}"
            )
        # Types are found wrong here, before anything is read.
        self.mask(schema.empty_table())

    def mask(self, table: pa.Table) -> NDArray[np.bool_]:
        """Return which of N rows fulfil the filter: (N,) bool.

        Raises:
            QueryInvalid: with these it has looked at more rows than it may.
        """
        self._left -= len(table)
        if self._left < 0:
            raise QueryInvalid("the tile covers too many features to look at; zoom in")
        found = self._condition(self._tree, table)
        if isinstance(found, pa.Scalar):
            return np.full(len(table), found.as_py() is True)
        return np.asarray(pc.fill_null(found, False), dtype=bool)

    def _condition(self, node: Any, table: pa.Table) -> Any:
        if isinstance(node, bool):
            return pa.scalar(node)
        if not isinstance(node, Mapping) or "op" not in node:
            value = self._operand(node, table)
            if _kind(value) != "true or false":
                raise QueryInvalid(f"{_shown(node)} is {_kind(value)}, not a condition")
            return value
        op, args = str(node["op"]).lower(), node.get("args", [])
        wanted = _SIDES.get(op, 2 if op in _COMPARE else None)
        if not isinstance(args, list) or not args or wanted not in (None, len(args)):
            raise QueryInvalid(f"{op.upper()} in the filter has not as many sides as it needs")
        if op in ("and", "or"):
            join = pc.and_kleene if op == "and" else pc.or_kleene
            found = self._condition(args[0], table)
            for each in args[1:]:
                found = join(found, self._condition(each, table))
            return found
        if op == "not":
            return pc.invert(self._condition(args[0], table))
        if op == "isnull":
            return pc.is_null(self._operand(args[0], table))
        if op in _COMPARE:
            return self._compared(op, args, table)
        if op == "between":
            low = self._compared(">=", [args[0], args[1]], table)
            return pc.and_kleene(low, self._compared("<=", [args[0], args[2]], table))
        if op == "in":
            return self._in(args, table)
        if op == "like":
            return self._like(args, table)
        raise QueryInvalid(f"the filter uses {node['op']!r}, which live tiles do not offer")

    def _in(self, args: Sequence[Any], table: pa.Table) -> Any:
        if not isinstance(args[1], list):
            raise QueryInvalid("IN needs a list of values")
        found: Any = pa.scalar(False)
        for each in args[1]:
            found = pc.or_kleene(found, self._compared("=", [args[0], each], table))
        return found

    def _like(self, args: Sequence[Any], table: pa.Table) -> Any:
        value, pattern = (self._operand(each, table) for each in args)
        if not isinstance(pattern, pa.Scalar) or _kind(pattern) != "text":
            raise QueryInvalid("LIKE needs a pattern: text with % and _")
        text = pattern.as_py()
        if (len(text) - len(text.rstrip("\\"))) % 2:
            raise QueryInvalid(f"the pattern {text!r} ends with a backslash that escapes nothing")
        if _kind(value) != "text":
            raise QueryInvalid(f"{_shown(args[0])} is {_kind(value)}, not text")
        return pc.match_like(value, text)

    def _compared(self, op: str, args: Sequence[Any], table: pa.Table) -> Any:
        one, other = (self._operand(each, table) for each in args)
        if _kind(one) != _kind(other):
            raise QueryInvalid(
                f"{_shown(args[0])} is {_kind(one)} and {_shown(args[1])} is {_kind(other)}: "
                "they cannot be compared"
            )
        return _COMPARE[op](one, other)

    def _operand(self, node: Any, table: pa.Table) -> Any:
        if isinstance(node, Mapping) and "property" in node:
            return self._column(str(node["property"]), table)
        if isinstance(node, Mapping) and str(node.get("op", "")).lower() in FOLDS:
            op, args = str(node["op"]).lower(), node.get("args", [])
            if not isinstance(args, list) or len(args) != 1:
                raise QueryInvalid(f"{op.upper()} in the filter has not as many sides as it needs")
            value = self._operand(args[0], table)
            if _kind(value) != "text":
                raise QueryInvalid(f"{op.upper()}({_shown(args[0])}) asks for text")
            return _folded(op, value)
        if isinstance(node, Mapping) and "op" in node:
            raise QueryInvalid(f"the filter uses {node['op']!r}, which live tiles do not offer")
        if isinstance(node, Mapping):
            return _moment(node)
        if type(node) in (str, bool):
            return pa.scalar(node)
        if type(node) in (int, float):
            return pa.scalar(float(node))
        raise QueryInvalid(f"{_shown(node)} is no literal that a filter can hold here")

    def _column(self, name: str, table: pa.Table) -> Any:
        kind = self._schema.field(name).type
        if name not in table.column_names:
            column: Any = pa.nulls(len(table), kind)
        else:
            column = table.column(name)
            kind = column.type
        if pa.types.is_dictionary(kind):
            column = pc.cast(column, kind.value_type)
        elif pa.types.is_decimal(kind) or pa.types.is_integer(kind):
            # Literals are doubles.
            column = pc.cast(column, pa.float64(), safe=False)
        elif pa.types.is_temporal(kind) and not pa.types.is_time(kind):
            column = pc.cast(column, pa.timestamp("us"), safe=False)
        return column


def _folded(op: str, value: Any) -> Any:
    # By distinct text. Arrow's own lower case is another: of "ß", "İ" and the "Σ" that ends a word.
    if isinstance(value, pa.Scalar):
        return pa.scalar(FOLDS[op](value.as_py()), pa.string())
    if isinstance(value, pa.ChunkedArray):
        value = value.combine_chunks()
    coded = pc.dictionary_encode(value)
    texts = pa.array([FOLDS[op](text) for text in coded.dictionary.to_pylist()], pa.string())
    return texts.take(coded.indices)


def _moment(node: Mapping[str, Any]) -> pa.Scalar:
    for key in ("date", "timestamp"):
        if isinstance(node.get(key), str):
            try:
                moment = datetime.fromisoformat(node[key])
            except ValueError as error:
                raise QueryInvalid(f"{node[key]!r} is neither a date nor a time") from error
            if moment.tzinfo is not None:
                moment = (moment - (moment.utcoffset() or moment - moment)).replace(tzinfo=None)
            return pa.scalar(moment, pa.timestamp("us"))
    raise QueryInvalid(f"{_shown(node)} is no literal that a filter can hold here")


def _kind(value: Any) -> str:
    kind = value.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "text"
    if pa.types.is_boolean(kind):
        return "true or false"
    if pa.types.is_floating(kind):
        return "a number"
    return "a time" if pa.types.is_timestamp(kind) else str(kind)


def _shown(node: Any) -> str:
    if isinstance(node, Mapping) and "property" in node:
        return f"property {node['property']!r}"
    return f"{node!r}"[:80]


def _named(node: Any) -> set[str]:
    if isinstance(node, Mapping):
        if "property" in node:
            return {str(node["property"])}
        return set().union(*(_named(each) for each in node.values()))
    if isinstance(node, list):
        return set().union(*(_named(each) for each in node))
    return set()
