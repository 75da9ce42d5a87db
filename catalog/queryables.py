"""What filters and sorts can ask of the published assets: the properties of their STAC items."""

from __future__ import annotations

from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql.elements import ColumnElement

from catalog.cql2.conditions import Compiler
from catalog.cql2.operands import Kind, Operand, column
from catalog.dialects import DIALECTS, dialect_of
from catalog.schema import collections, published

# What every asset has, so that an order need not say where those without it belong.
ALWAYS = frozenset(
    ("id", "collection", "title", "description", "cim:kind", "version", "created", "updated")
)

_FIXED = {
    "cim:category": "ask for the collection",
    "cim:quality": "it belongs to the report of a version",
    "cim:info": "it belongs to the tiles of a version",
    "proj:code": "it is derived for each answer; ask for cim:source_crs",
    "bbox": "ask for the geometry",
}
_p = published.c
_LEVEL = "cim:level"


@cache
def compiler(database: str) -> Compiler:
    """Return what turns filters into conditions on ``published``, in the words of a database."""
    return Compiler(DIALECTS[database], queryables(database), _p.properties, _FIXED)


@cache
def queryables(database: str) -> dict[str, Operand]:
    """Return the properties that the catalogue itself keeps, by name."""
    # What the owner says about an asset comes before what its collection says.
    level = sa.func.coalesce(
        DIALECTS[database].json(_p.properties, _LEVEL).as_kind("number"),
        sa.select(collections.c.level).where(collections.c.id == _p.collection).scalar_subquery(),
    )
    kept: tuple[tuple[str, Kind, ColumnElement[Any]], ...] = (
        ("id", "text", _p.id),
        ("collection", "text", _p.collection),
        ("title", "text", _p.title),
        ("description", "text", _p.description),
        ("cim:kind", "text", _p.kind),
        (_LEVEL, "number", level),
        ("version", "text", sa.cast(_p.number, sa.String)),
        ("created", "instant", _p.created),
        ("updated", "instant", _p.updated),
        ("datetime", "instant", _p.datetime),
        ("start_datetime", "instant", _p.start_datetime),
        ("end_datetime", "instant", _p.end_datetime),
        ("geometry", "bounds", sa.tuple_(_p.west, _p.south, _p.east, _p.north)),
    )
    return {name: column(name, kind, sql) for name, kind, sql in kept}


_SCHEMAS: dict[str, dict[str, Any]] = {
    "text": {"type": "string"},
    "number": {"type": "number"},
    "boolean": {"type": "boolean"},
    "instant": {"type": "string", "format": "date-time"},
    "bounds": {"$ref": "https://geojson.org/schema/Geometry.json"},
}
_JSON_TYPES = {
    "text": "string",
    "string": "string",
    "number": "number",
    "boolean": "boolean",
    "integer": "number",
    "real": "number",
    "true": "boolean",
    "false": "boolean",
    "array": "array",
    "object": "object",
    "null": "null",
}


def schema_of(name: str, operand: Operand) -> dict[str, Any]:
    """Return the JSON Schema of a property that the catalogue itself keeps."""
    return {"title": name, **_SCHEMAS[operand.kind]}


def stated(connection: sa.Connection, collection: str | None) -> dict[str, dict[str, Any]]:
    """Return the properties that owners state, with a JSON Schema of the types they use.

    Args:
        connection: to read with.
        collection: whose assets are looked at; None: all.
    """
    source, key, kind = dialect_of(connection).stated(_p.properties)
    query = sa.select(key, kind).select_from(source).distinct()
    if collection is not None:
        query = query.where(_p.collection == collection)
    types: dict[str, set[str]] = {}
    for name, type_name in connection.execute(query):
        types.setdefault(name, set()).add(_JSON_TYPES[type_name])
    found: dict[str, dict[str, Any]] = {}
    for name, kinds in sorted(types.items()):
        if name not in queryables(connection.dialect.name):
            one = sorted(kinds)
            found[name] = {"title": name, "type": one[0] if len(one) == 1 else one}
    return found
