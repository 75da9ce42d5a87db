"""Spatial functions of CQL2 on the footprints of assets, which are boxes of lon/lat degrees."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import orjson
import shapely
from shapely.errors import ShapelyError
from sqlalchemy.sql.elements import ColumnElement

from catalog.cql2.dialect import FilterDialect
from catalog.cql2.operands import Operand
from tiling.errors import QueryInvalid

MAX_VERTICES = 10_000

_Predicate = Callable[[shapely.Geometry, shapely.Geometry], bool]

# Whether the footprint (first) is so related to the geometry of the filter (second).
SPATIAL: Mapping[str, _Predicate] = {
    "s_intersects": lambda a, b: bool(shapely.intersects(b, a)),
    "s_disjoint": lambda a, b: bool(shapely.disjoint(b, a)),
    "s_equals": lambda a, b: bool(shapely.equals(a, b)),
    "s_touches": lambda a, b: bool(shapely.touches(b, a)),
    "s_within": lambda a, b: bool(shapely.contains(b, a)),
    "s_contains": lambda a, b: bool(shapely.within(b, a)),
    "s_overlaps": lambda a, b: bool(shapely.overlaps(b, a)),
    "s_crosses": lambda a, b: bool(shapely.crosses(b, a)),
}
_TURNED = {"s_within": "s_contains", "s_contains": "s_within"}
_TYPES = frozenset(
    ("Point", "MultiPoint", "LineString", "MultiLineString", "Polygon", "MultiPolygon")
    + ("GeometryCollection",)
)


def spatial(dialect: FilterDialect, op: str, first: Any, second: Any) -> ColumnElement[bool]:
    """Return the condition that the footprint and a geometry are in a relation.

    Args:
        dialect: of the database.
        op: a key of `SPATIAL`.
        first, second: the property ``geometry`` and a GeoJSON geometry or a bbox, in any order.

    Raises:
        QueryInvalid: another property, two geometries, or no valid geometry.
    """
    if isinstance(second, Operand):
        first, second, op = second, first, _TURNED.get(op, op)
    if not isinstance(first, Operand) or isinstance(second, Operand) or first.kind != "bounds":
        raise QueryInvalid(f"{op.upper()} compares the property 'geometry' with a geometry")
    assert first.sql is not None
    bounds = list(first.sql.clauses)
    return dialect.relation(op, shapely.to_wkb(read_geometry(second)), bounds)


def read_geometry(data: Any) -> shapely.Geometry:
    """Read a GeoJSON geometry or ``{"bbox": [...]}``.

    Raises:
        QueryInvalid: not one, not valid, empty, or of more than 10,000 vertices.
    """
    if isinstance(data, Mapping) and set(data) == {"bbox"}:
        return _box(data["bbox"])
    if not isinstance(data, Mapping) or data.get("type") not in _TYPES:
        raise QueryInvalid(f"{str(data)[:80]} is no GeoJSON geometry")
    try:
        geometry = shapely.from_geojson(orjson.dumps(dict(data)).decode())
    except (ShapelyError, TypeError) as error:
        raise QueryInvalid(f"the geometry of the filter is none: {error}") from error
    if geometry is None or geometry.is_empty or not geometry.is_valid:
        raise QueryInvalid("the geometry of the filter is empty or not valid")
    if shapely.get_num_coordinates(geometry) > MAX_VERTICES:
        raise QueryInvalid(f"the geometry of the filter has more than {MAX_VERTICES} vertices")
    return geometry


def _box(bbox: Any) -> shapely.Geometry:
    if not isinstance(bbox, list) or len(bbox) not in (4, 6):
        raise QueryInvalid(f"bbox {bbox} is not made of 4 or 6 numbers")
    west, south = float(bbox[0]), float(bbox[1])
    east, north = (float(v) for v in (bbox[2:4] if len(bbox) == 4 else bbox[3:5]))
    if not (-180 <= west <= 180 and -180 <= east <= 180 and -90 <= south <= north <= 90):
        raise QueryInvalid(f"bbox {bbox} is not west, south, east, north in degrees")
    if west <= east:
        return shapely.box(west, south, east, north)
    parts = [shapely.box(west, south, 180, north), shapely.box(-180, south, east, north)]
    return shapely.union_all(parts)


def extent_of(tree: Any) -> tuple[float, float, float, float] | None:
    """Return a box that the footprint of every match touches, None for the whole world.

    Only what must hold of every match is looked at, so that an index can be asked first.
    """
    if not isinstance(tree, Mapping) or "op" not in tree:
        return None
    op, args = str(tree["op"]).lower(), tree.get("args", [])
    if op == "and":
        found = [extent for arg in args if (extent := extent_of(arg)) is not None]
        return min(found, key=lambda b: (b[2] - b[0]) * (b[3] - b[1])) if found else None
    if op not in SPATIAL or op == "s_disjoint":
        return None
    for arg in args:
        if isinstance(arg, Mapping) and "property" not in arg:
            west, south, east, north = read_geometry(arg).bounds
            return west, south, east, north
    return None


@lru_cache(maxsize=16)
def _prepared(wkb: bytes) -> shapely.Geometry:
    geometry = shapely.from_wkb(wkb)
    shapely.prepare(geometry)
    return geometry


def relates(op: str, wkb: bytes, west: float, south: float, east: float, north: float) -> int:
    """Say whether a footprint is in a relation to a geometry: the function ``cim_spatial``."""
    return int(SPATIAL[op](footprint(west, south, east, north), _prepared(wkb)))


def footprint(west: float, south: float, east: float, north: float) -> shapely.Geometry:
    """Return a box as the geometry it is: an asset of one place is a point, not an empty box."""
    if west < east and south < north:
        return shapely.box(west, south, east, north)
    if west == east and south == north:
        return shapely.Point(west, south)
    return shapely.LineString([(west, south), (east, north)])
