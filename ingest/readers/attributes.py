"""Attributes of objects that have no schema: the type of a column is what all its values are."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson
import pyarrow as pa

from tiling.findings import Findings

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_INT64 = range(-(2**63), 2**63)


class AttributeTypes:
    """Collects the kinds of values of each attribute, in order of first appearance."""

    def __init__(self) -> None:
        self._kinds: dict[str, set[str]] = {}

    def add(self, attributes: Mapping[str, Any]) -> None:
        """Look at the attributes of one object."""
        for name, value in attributes.items():
            kinds = self._kinds.get(name)
            if kinds is None:
                kinds = self._kinds[name] = set()
            if value is not None:
                kinds.add(_kind(value))

    def types(self, findings: Findings) -> dict[str, pa.DataType]:
        """Return the type of each attribute; what had to become text is a finding."""
        found = {}
        for name, kinds in self._kinds.items():
            found[name] = _type(kinds)
            if "json" in kinds:
                findings.add(
                    "attribute-json", "info", "nested attributes are JSON text", samples=[name]
                )
            if len(kinds) > 1 and pa.types.is_string(found[name]) and kinds != {"date", "text"}:
                findings.add(
                    "attribute-mixed",
                    "warning",
                    "attributes hold values of different kinds: taken as text",
                    samples=[f"{name}: {', '.join(sorted(kinds))}"],
                )
        return found


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int" if value in _INT64 else "text"
    if isinstance(value, float):
        return "float"
    if isinstance(value, str):
        return "date" if _is_date(value) else "text"
    return "json"


def _is_date(text: str) -> bool:
    if len(text) != 10 or not _DATE.fullmatch(text):
        return False
    try:
        datetime.date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _type(kinds: set[str]) -> pa.DataType:
    plain = {"bool": pa.bool_(), "int": pa.int64(), "float": pa.float64(), "date": pa.date32()}
    if kinds <= {"int", "float"} and kinds:
        return plain["float"] if "float" in kinds else plain["int"]
    if len(kinds) == 1:
        return plain.get(next(iter(kinds)), pa.string())
    return pa.string()


def column(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Return values as a column of the type that `AttributeTypes` decided."""
    if pa.types.is_string(kind):
        return pa.array(list(_texts(values)), kind)
    if pa.types.is_date(kind):
        days = [None if v is None else datetime.date.fromisoformat(v) for v in values]
        return pa.array(days, kind)
    if pa.types.is_floating(kind):
        return pa.array([None if v is None else float(v) for v in values], kind)
    return pa.array(values, kind)


def _texts(values: Iterable[Any]) -> Iterable[str | None]:
    for value in values:
        if value is None or isinstance(value, str):
            yield value
        elif isinstance(value, int) and not isinstance(value, bool):
            yield str(value)
        else:
            yield orjson.dumps(value).decode()
