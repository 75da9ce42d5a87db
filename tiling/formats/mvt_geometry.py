"""Geometry commands of vector tiles: MoveTo, LineTo, ClosePath over zigzag deltas.

Rings are wound as MVT 2.1 asks (exterior rings have positive area by the surveyor's formula in
tile units, holes negative) and written without their closing point; repeated points, rings
without area and lines without length are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from tiling.errors import FormatError
from tiling.formats.ragged import RaggedBytes
from tiling.formats.varint import encode_varints, zigzag

POINT, LINE, POLYGON = 1, 2, 3
_MOVE_TO, _LINE_TO, _CLOSE = 1, 2, 15
# Indexed by shapely's type id: Point, LineString, LinearRing, Polygon, the multis, collection.
_KINDS = np.array([POINT, LINE, LINE, POLYGON, POINT, LINE, POLYGON, 0], dtype=np.int64)

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Parts:
    # Lines or rings of many features, end to end.
    xy: Ints  # (M, 2)
    lengths: Ints  # (P,) points of each part
    counts: Ints  # (F,) parts of each feature


def geometry_kinds(geometry: NDArray[np.object_]) -> Ints:
    """Return 1, 2 or 3 (point, line, polygon; 0 for collections) of (N,) geometries."""
    kinds: Ints = _KINDS[shapely.get_type_id(geometry)]
    return kinds


def encode_geometry(geometry: NDArray[np.object_]) -> tuple[RaggedBytes, Ints]:
    """Encode geometries.

    Args:
        geometry: (N,) points, lines, polygons, single or multi, 2D, tile units.

    Returns:
        N rows of command bytes, empty where nothing is left of a geometry; (N,) kinds.

    Raises:
        FormatError: a geometry collection.
    """
    kinds = geometry_kinds(geometry)
    if len(kinds) and not kinds.all():
        raise FormatError("a geometry collection has no place in a vector tile: split it first")
    pieces, owners = [], []
    for kind, encode in ((POINT, _points), (LINE, _lines), (POLYGON, _polygons)):
        rows = np.flatnonzero(kinds == kind)
        if len(rows):
            pieces.append(encode(geometry[rows]))
            owners.append(rows)
    if not pieces:
        return RaggedBytes.below([]), kinds
    if len(pieces) == 1:
        return pieces[0], kinds
    return RaggedBytes.below(pieces).take(np.argsort(np.concatenate(owners))), kinds


def _points(geometry: NDArray[np.object_]) -> RaggedBytes:
    xy, owner = shapely.get_coordinates(geometry, return_index=True)
    parts = _Parts(_whole(xy), np.bincount(owner, minlength=len(geometry)), np.ones(0, np.int64))
    starts, stops = _edges(parts.lengths)
    deltas = _deltas(parts.xy, starts[parts.lengths > 0])
    sizes = np.where(parts.lengths > 0, 1 + 2 * parts.lengths, 0)
    out = np.empty(int(sizes.sum()), dtype=np.uint64)
    heads = (np.cumsum(sizes) - sizes)[parts.lengths > 0]
    out[heads] = (parts.lengths[parts.lengths > 0] << 3) | _MOVE_TO
    at = np.arange(len(deltas)) * 2 + 1 + np.repeat(np.arange(len(heads)), sizes[sizes > 0] // 2)
    out[at], out[at + 1] = deltas[:, 0], deltas[:, 1]
    return encode_varints(out).group(sizes)


def _lines(geometry: NDArray[np.object_]) -> RaggedBytes:
    parts = _read_parts(shapely.get_parts(geometry), shapely.get_num_geometries(geometry))
    parts = _select(parts, parts.lengths >= 2)
    return _commands(parts, closed=False)


def _polygons(geometry: NDArray[np.object_]) -> RaggedBytes:
    polygons = shapely.get_parts(geometry)
    rings = shapely.get_rings(polygons)
    ring_counts = shapely.get_num_interior_rings(polygons) + ~shapely.is_empty(polygons)
    polygon_counts = shapely.get_num_geometries(geometry)
    totals = np.concatenate(([0], np.cumsum(ring_counts)))
    stops = np.cumsum(polygon_counts)
    per_feature = totals[stops] - totals[stops - polygon_counts]
    parts = _open_rings(_read_parts(rings, per_feature))
    first = np.zeros(len(rings), dtype=bool)
    first[totals[:-1][ring_counts > 0]] = True
    area2 = _double_areas(parts)
    sound = (parts.lengths >= 3) & (area2 != 0)
    # Holes fall with their exterior ring.
    sound &= np.repeat(sound[first], ring_counts[ring_counts > 0])
    parts = _reverse(parts, (area2 > 0) != first)
    return _commands(_select(parts, sound), closed=True)


def _read_parts(lines: NDArray[np.object_], counts: NDArray[np.integer]) -> _Parts:
    # Rounded, without points that repeat their predecessor.
    coordinates, owner = shapely.get_coordinates(lines, return_index=True)
    xy = _whole(coordinates)
    fresh = np.ones(len(xy), dtype=bool)
    fresh[1:] = (xy[1:] != xy[:-1]).any(axis=1) | (owner[1:] != owner[:-1])
    lengths = np.bincount(owner[fresh], minlength=len(lines)).astype(np.int64)
    return _Parts(xy[fresh], lengths, np.asarray(counts, dtype=np.int64))


def _whole(xy: NDArray[np.float64]) -> Ints:
    return np.rint(xy).astype(np.int64)


def _edges(lengths: Ints) -> tuple[Ints, Ints]:
    stops = np.cumsum(lengths)
    return stops - lengths, stops


def _open_rings(parts: _Parts) -> _Parts:
    keep = np.ones(len(parts.xy), dtype=bool)
    keep[_edges(parts.lengths)[1][parts.lengths > 0] - 1] = False
    return _Parts(parts.xy[keep], np.maximum(parts.lengths - 1, 0), parts.counts)


def _double_areas(parts: _Parts) -> Ints:
    # Surveyor's formula; exact in integers. Each ring is closed by its own first point.
    starts, stops = _edges(parts.lengths)
    following = np.arange(1, len(parts.xy) + 1)
    filled = parts.lengths > 0
    following[stops[filled] - 1] = starts[filled]
    x, y = parts.xy[:, 0], parts.xy[:, 1]
    cross = x * y[following] - x[following] * y
    sums = np.concatenate(([0], np.cumsum(cross)))
    return np.asarray(sums[stops] - sums[starts])


def _reverse(parts: _Parts, chosen: NDArray[np.bool_]) -> _Parts:
    starts, stops = _edges(parts.lengths)
    index = np.arange(len(parts.xy))
    # The first point stays the first.
    first = np.repeat(starts, parts.lengths)
    mirrored = np.where(index == first, first, np.repeat(starts + stops, parts.lengths) - index)
    order = np.where(np.repeat(chosen, parts.lengths), mirrored, index)
    return _Parts(parts.xy[order], parts.lengths, parts.counts)


def _select(parts: _Parts, chosen: NDArray[np.bool_]) -> _Parts:
    owner = np.repeat(np.arange(len(parts.counts)), parts.counts)
    return _Parts(
        parts.xy[np.repeat(chosen, parts.lengths)],
        parts.lengths[chosen],
        np.bincount(owner[chosen], minlength=len(parts.counts)).astype(np.int64),
    )


def _deltas(xy: Ints, feature_starts: Ints) -> NDArray[np.uint64]:
    # The cursor starts at (0, 0) in every feature and moves on through its parts.
    deltas = np.diff(xy, axis=0, prepend=np.zeros((1, 2), dtype=np.int64))
    deltas[feature_starts] = xy[feature_starts]
    return zigzag(deltas)


def _commands(parts: _Parts, closed: bool) -> RaggedBytes:
    starts, stops = _edges(parts.lengths)
    part_starts, part_stops = _edges(parts.counts)
    filled = parts.counts > 0
    deltas = _deltas(parts.xy, starts[part_starts[filled]])
    sizes = 2 + 2 * parts.lengths + int(closed)
    out = np.empty(int(sizes.sum()), dtype=np.uint64)
    heads, ends = _edges(sizes)
    out[heads] = (1 << 3) | _MOVE_TO
    out[heads + 3] = ((parts.lengths - 1) << 3) | _LINE_TO
    if closed:
        out[ends - 1] = _CLOSE
    place = np.arange(len(parts.xy)) - np.repeat(starts, parts.lengths)
    at = np.repeat(heads, parts.lengths) + 1 + 2 * place + (place > 0)
    out[at], out[at + 1] = deltas[:, 0], deltas[:, 1]
    totals = np.concatenate(([0], ends))
    return encode_varints(out).group(totals[part_stops] - totals[part_starts])
