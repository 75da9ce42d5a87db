"""What filters and sorts can ask of the published assets: the properties of their STAC items."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from catalog.cql2.conditions import Compiler
from catalog.cql2.operands import JsonProperty, Operand, column
from catalog.schema import collections, published

_p = published.c
_LEVEL = "cim:level"
# What the owner says about an asset comes before what its collection says.
_level = sa.func.coalesce(
    JsonProperty(_p.properties, _LEVEL).as_kind("number"),
    sa.select(collections.c.level).where(collections.c.id == _p.collection).scalar_subquery(),
)

QUERYABLES = {
    operand.name.partition("'")[2].rstrip("'"): operand
    for operand in (
        column("id", "text", _p.id),
        column("collection", "text", _p.collection),
        column("title", "text", _p.title),
        column("description", "text", _p.description),
        column("cim:kind", "text", _p.kind),
        column(_LEVEL, "number", _level),
        column("version", "text", sa.cast(_p.number, sa.String)),
        column("created", "instant", _p.created),
        column("updated", "instant", _p.updated),
        column("datetime", "instant", _p.datetime),
        column("start_datetime", "instant", _p.start_datetime),
        column("end_datetime", "instant", _p.end_datetime),
        column("geometry", "bounds", sa.tuple_(_p.west, _p.south, _p.east, _p.north)),
    )
}

# What every asset has, so that an order need not say where those without it belong.
ALWAYS = frozenset(
    ("id", "collection", "title", "description", "cim:kind", "version", "created", "updated")
)

COMPILER = Compiler(
    QUERYABLES,
    _p.properties,
    {
        "cim:category": "ask for the collection",
        "cim:quality": "it belongs to the report of a version",
        "cim:info": "it belongs to the tiles of a version",
        "proj:code": "it is derived for each answer; ask for cim:source_crs",
        "bbox": "ask for the geometry",
    },
)

_SCHEMAS: dict[str, dict[str, Any]] = {
    "text": {"type": "string"},
    "number": {"type": "number"},
    "boolean": {"type": "boolean"},
    "instant": {"type": "string", "format": "date-time"},
    "bounds": {"$ref": "https://geojson.org/schema/Geometry.json"},
}
_JSON_TYPES = {
    "text": "string",
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
    each = sa.func.json_each(_p.properties).table_valued("key", "type")
    query = (
        sa.select(each.c.key, each.c.type).select_from(published.join(each, sa.true())).distinct()
    )
    if collection is not None:
        query = query.where(_p.collection == collection)
    types: dict[str, set[str]] = {}
    for key, kind in connection.execute(query):
        types.setdefault(key, set()).add(_JSON_TYPES[kind])
    found: dict[str, dict[str, Any]] = {}
    for name, kinds in sorted(types.items()):
        if name not in QUERYABLES:
            one = sorted(kinds)
            found[name] = {"title": name, "type": one[0] if len(one) == 1 else one}
    return found
