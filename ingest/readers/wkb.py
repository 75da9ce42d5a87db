"""WKB columns -> shapely geometries, with everything a reader may meet in between.

Well-known binary begins with a byte order and a type code (OGC 06-103r4, clause 8.2.3); ISO codes
put Z, M and ZM in the thousands, EWKB in the high bits. Surfaces that GEOS lacks
(PolyhedralSurface, TIN) have the layout of a MultiPolygon, so changing their codes is lossless.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

GEOMETRY_TYPES = {
    0: "Geometry",
    1: "Point",
    2: "LineString",
    3: "Polygon",
    4: "MultiPoint",
    5: "MultiLineString",
    6: "MultiPolygon",
    7: "GeometryCollection",
    8: "CircularString",
    9: "CompoundCurve",
    10: "CurvePolygon",
    11: "MultiCurve",
    12: "MultiSurface",
    15: "PolyhedralSurface",
    16: "TIN",
    17: "Triangle",
}
CURVES = (8, 9, 10, 11, 12)
SURFACES = (15, 16, 17)
_POLYGON, _MULTIPOLYGON = 3, 6


@dataclass(frozen=True, slots=True)
class Decoded:
    """What became of N rows of WKB.

    Attributes:
        geometry: (N,) object array; None where there is none.
        null: (N,) bool, no geometry or an empty one.
        unreadable: (N,) bool, bytes that GEOS cannot take even after closing rings.
        repaired: (N,) bool, rings that were closed.
        linearised: (N,) bool, arcs that became lines.
        measured: (N,) bool, M values that were dropped.
    """

    geometry: NDArray[np.object_]
    null: NDArray[np.bool_]
    unreadable: NDArray[np.bool_]
    repaired: NDArray[np.bool_]
    linearised: NDArray[np.bool_]
    measured: NDArray[np.bool_]


def type_codes(column: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return base type codes and Z flags of a binary column without parsing geometries.

    Args:
        column: (N,) Arrow binary or large_binary, WKB.

    Returns:
        (N,) int64 base codes (-1 for null or fewer than five bytes) and (N,) bool.
    """
    values = column.cast(pa.large_binary())
    n = len(values)
    codes = np.full(n, -1, dtype=np.int64)
    has_z = np.zeros(n, dtype=bool)
    if n == 0 or values.buffers()[2] is None:
        return codes, has_z
    offsets = np.frombuffer(values.buffers()[1], dtype=np.int64)[values.offset :][: n + 1]
    data = np.frombuffer(values.buffers()[2], dtype=np.uint8)
    valid = values.is_valid().to_numpy(zero_copy_only=False) & (np.diff(offsets) >= 5)
    start = offsets[:-1][valid]
    head = data[start[:, None] + np.arange(1, 5)]
    little = data[start] == 1
    raw = np.where(little, _as_uint32(head, "<u4"), _as_uint32(head, ">u4")).astype(np.int64)
    iso = raw & 0x0FFFFFFF
    codes[valid] = iso % 1000
    has_z[valid] = ((raw & 0x80000000) != 0) | np.isin(iso // 1000, (1, 3))
    return codes, has_z


def _as_uint32(head: NDArray[np.uint8], dtype: str) -> NDArray[np.uint32]:
    return np.ascontiguousarray(head).view(dtype).reshape(-1).astype(np.uint32)


def decode_wkb(
    column: pa.Array, linearise: Callable[[NDArray[np.bool_]], NDArray[np.object_]]
) -> Decoded:
    """Turn a WKB column into geometries.

    Args:
        column: (N,) Arrow binary.
        linearise: given an (N,) mask of rows with arcs, returns their WKB with lines instead.
    """
    codes, _ = type_codes(column)
    wkb = np.asarray(column.to_numpy(zero_copy_only=False), dtype=object)
    missing = column.is_null().to_numpy(zero_copy_only=False)
    curved = np.isin(codes, CURVES)
    surface = np.isin(codes, SURFACES)
    if curved.any() or surface.any():
        wkb = wkb.copy()
        if curved.any():
            wkb[curved] = linearise(curved)
        wkb[surface] = [polygons_of_surface(bytes(v)) for v in wkb[surface]]
    geometry = np.asarray(shapely.from_wkb(wkb, on_invalid="ignore"), dtype=object)
    broken = shapely.is_missing(geometry) & ~missing
    if broken.any():
        geometry[broken] = shapely.from_wkb(wkb[broken], on_invalid="fix")
    unreadable = shapely.is_missing(geometry) & ~missing
    geometry, measured = _without_measures(geometry)
    empty = shapely.is_empty(geometry)
    return Decoded(
        geometry, missing | empty, unreadable, broken & ~unreadable, curved & ~missing, measured
    )


def _without_measures(
    geometry: NDArray[np.object_],
) -> tuple[NDArray[np.object_], NDArray[np.bool_]]:
    measured = np.asarray(shapely.has_m(geometry), dtype=bool)
    if measured.any():
        has_z = shapely.has_z(geometry)
        flat, tall = measured & ~has_z, measured & has_z
        geometry[flat] = shapely.force_2d(geometry[flat])
        # Of four dimensions GEOS writes the first three: x, y, z.
        geometry[tall] = shapely.from_wkb(shapely.to_wkb(geometry[tall], output_dimension=3))
    return geometry, measured


def polygons_of_surface(wkb: bytes) -> bytes:
    """Rewrite a PolyhedralSurface, TIN or Triangle (ISO WKB) as a MultiPolygon or Polygon."""
    out = bytearray(wkb)
    order = "<" if wkb[0] == 1 else ">"
    (code,) = struct.unpack_from(order + "I", wkb, 1)
    if code % 1000 == 17:
        struct.pack_into(order + "I", out, 1, code - 17 + _POLYGON)
        return bytes(out)
    struct.pack_into(order + "I", out, 1, code - code % 1000 + _MULTIPOLYGON)
    dimensions = 2 + (code // 1000 in (1, 3)) + (code // 1000 in (2, 3))
    (members,) = struct.unpack_from(order + "I", wkb, 5)
    at = 9
    for _ in range(members):
        inner = "<" if wkb[at] == 1 else ">"
        struct.pack_into(inner + "I", out, at + 1, code - code % 1000 + _POLYGON)
        (rings,) = struct.unpack_from(inner + "I", wkb, at + 5)
        at += 9
        for _ in range(rings):
            (points,) = struct.unpack_from(inner + "I", wkb, at)
            at += 4 + points * dimensions * 8
    return bytes(out)


def summarise_types(codes: set[int]) -> str | None:
    """Return the one name for a set of base type codes: a ``Multi`` form covers its single one."""
    linear = {_LINEAR.get(c, c) for c in codes if c >= 0}
    if not linear:
        return None
    if len(linear) == 1:
        return GEOMETRY_TYPES[linear.pop()]
    for single, multi in ((1, 4), (2, 5), (3, 6)):
        if linear == {single, multi}:
            return GEOMETRY_TYPES[multi]
    return "Geometry"


_LINEAR = {8: 2, 9: 2, 10: 3, 11: 5, 12: 6, 15: 6, 16: 6, 17: 3}
