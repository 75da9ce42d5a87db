"""Footprints to massing models (白模): walls and a flat roof, all features of a tile at once.

The one idea: rings become one flat array of edges, every edge one wall, and GEOS triangulates
every roof in one call, so no loop ever runs over features. Rings are oriented first (shells
counter-clockwise, holes clockwise, seen from above): the solid then lies on the left of every
edge, and one rule gives outward walls for shells and holes alike.

Frames: footprints in WGS 84 lon/lat degrees, heights in metres above the ellipsoid; the mesh in
east-north-up metres of a `LocalFrame`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from tiling.ellipsoid import enu_to_ecef_matrix, geodetic_to_ecef
from tiling.errors import GeometryInvalid

# Two walls that meet at less than this are one curved facade: no edge is drawn between them.
CREASE_DEG = 20.0

WALL, ROOF = 0, 1


@dataclass(frozen=True, slots=True)
class LocalFrame:
    """An east-north-up frame.

    Attributes:
        to_ecef: (4, 4) float64; local metres to WGS 84 Earth-centred metres.
    """

    to_ecef: NDArray[np.float64]

    @classmethod
    def at(cls, lon_deg: float, lat_deg: float, height_m: float) -> LocalFrame:
        """Return the frame with its origin at a geodetic position."""
        return cls(enu_to_ecef_matrix(lon_deg, lat_deg, height_m))

    def local(
        self,
        lon_deg: NDArray[np.float64],
        lat_deg: NDArray[np.float64],
        height_m: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """Return the (N, 3) float64 local metres of N geodetic positions."""
        ecef = geodetic_to_ecef(lon_deg, lat_deg, height_m)
        # float64 until the centre is taken off: float32 steps half a metre at the Earth's radius.
        local: NDArray[np.float64] = (ecef - self.to_ecef[:3, 3]) @ self.to_ecef[:3, :3]
        return local


@dataclass(frozen=True, slots=True)
class Massing:
    """The triangles of many buildings; no vertex is shared between faces, so shading is flat.

    Attributes:
        positions: (V, 3) float64, local metres, z up.
        normals: (V, 3) float64, unit, outwards.
        part: (V,) uint8, `WALL` or `ROOF`.
        feature: (V,) int64, position of the feature in the input.
        triangles: (T, 3) int64, counter-clockwise seen from outside.
        edges: (E, 2) int64, sides of triangles that are to be drawn as lines.
    """

    positions: NDArray[np.float64]
    normals: NDArray[np.float64]
    part: NDArray[np.uint8]
    feature: NDArray[np.int64]
    triangles: NDArray[np.int64]
    edges: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Rings:
    """Oriented rings without their closing points.

    Attributes:
        lonlat: (P, 2) float64 degrees.
        following: (P,) int64, the next point of the same ring; `preceding` its inverse.
        polygon: (P,) int64, the polygon of each point.
        owner: (Q,) int64, the feature of each polygon.
        polygons: (Q,) the oriented polygons themselves.
    """

    lonlat: NDArray[np.float64]
    following: NDArray[np.int64]
    preceding: NDArray[np.int64]
    polygon: NDArray[np.int64]
    owner: NDArray[np.int64]
    polygons: NDArray[np.object_]


def vertex_counts(geometry: NDArray[np.object_]) -> NDArray[np.int64]:
    """Return an upper bound of the vertices that `extrude` makes of each feature: (N,) int64."""
    # A closed ring of k + 1 coordinates has k edges: four wall vertices and one roof vertex each.
    return 5 * np.asarray(shapely.get_num_coordinates(geometry), dtype=np.int64)


def extrude(
    geometry: NDArray[np.object_],
    base_m: NDArray[np.float64],
    height_m: NDArray[np.float64],
    frame: LocalFrame,
    skirt_m: float,
) -> Massing:
    """Extrude footprints from a skirt below their base up to their roof.

    There is no floor: it can never be seen, and the skirt reaches into the ground.

    Args:
        geometry: (N,) valid polygons and multipolygons, lon/lat degrees; Z is ignored.
        base_m: (N,) ellipsoidal metres of the base.
        height_m: (N,) metres from base to roof, above zero.
        frame: the frame of the result.
        skirt_m: metres that the walls reach below the base.

    Raises:
        GeometryInvalid: a footprint cannot be triangulated.
    """
    rings = _rings(geometry)
    feature = rings.owner[rings.polygon]
    lon, lat = rings.lonlat[:, 0], rings.lonlat[:, 1]
    low = frame.local(lon, lat, base_m[feature] - skirt_m)
    high = frame.local(lon, lat, base_m[feature] + height_m[feature])
    count = len(feature)
    here, there = np.arange(count), rings.following

    walls = np.stack([low, low[there], high[there], high], axis=1).reshape(-1, 3)
    wall_normals = _unit(np.cross(low[there] - low, high - low))
    first = 4 * here
    wall_triangles = np.stack(
        [first, first + 1, first + 2, first, first + 2, first + 3], axis=1
    ).reshape(-1, 3)

    # The roof's vertices follow the walls'; one vertex a ring point, shared within the roof only.
    roof = 4 * count + here
    roof_triangles = 4 * count + _triangulate(rings)
    roof_normals = _unit(high - low)

    return Massing(
        positions=np.concatenate([walls, high]),
        normals=np.concatenate([np.repeat(wall_normals, 4, axis=0), roof_normals]),
        part=np.repeat(np.array([WALL, ROOF], dtype=np.uint8), [4 * count, count]),
        feature=np.concatenate([np.repeat(feature, 4), feature]),
        triangles=np.concatenate([wall_triangles, roof_triangles]),
        edges=_edges(first, roof, there, wall_normals, rings.preceding),
    )


def _rings(geometry: NDArray[np.object_]) -> _Rings:
    parts, owner = shapely.get_parts(shapely.force_2d(geometry), return_index=True)
    polygons = shapely.orient_polygons(shapely.remove_repeated_points(parts))
    rings, polygon_of_ring = shapely.get_rings(polygons, return_index=True)
    coordinates, ring = shapely.get_coordinates(rings, return_index=True)
    closing = np.append(ring[1:] != ring[:-1], True)
    lonlat, ring = coordinates[~closing], ring[~closing]
    count = len(ring)
    start = np.flatnonzero(np.append(True, ring[1:] != ring[:-1])) if count else np.empty(0, int)
    end = np.append(start[1:], count) - 1
    following = np.arange(1, count + 1)
    following[end] = start
    preceding = np.arange(-1, count - 1)
    preceding[start] = end
    return _Rings(lonlat, following, preceding, polygon_of_ring[ring], owner, polygons)


def _triangulate(rings: _Rings) -> NDArray[np.int64]:
    """Return (T, 3) positions in ``rings.lonlat``, counter-clockwise seen from above."""
    triangles, polygon = shapely.get_parts(
        shapely.constrained_delaunay_triangles(rings.polygons), return_index=True
    )
    bare = np.setdiff1d(np.arange(len(rings.polygons)), polygon)
    if len(bare):
        raise GeometryInvalid(
            f"{len(bare)} footprints cannot be triangulated, "
            f"the first being {shapely.to_wkt(rings.polygons[bare[0]])[:200]}",
            remedy="repair or drop footprints without area before tiling",
        )
    corners = shapely.get_coordinates(triangles).reshape(-1, 4, 2)[:, :3]
    turned = _cross2(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]) < 0
    corners[turned] = corners[turned][:, ::-1]
    # GEOS hands coordinates through untouched, so a corner is found again by its exact value.
    keys = np.concatenate([_key(rings.polygon, rings.lonlat), _key(np.repeat(polygon, 3), corners)])
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    found = first[inverse[len(rings.polygon) :]]
    return np.asarray(found.reshape(-1, 3), dtype=np.int64)


def _key(polygon: NDArray[np.int64], lonlat: NDArray[np.float64]) -> NDArray[np.void]:
    key = np.empty(len(polygon), dtype=[("polygon", "<i8"), ("lon", "<f8"), ("lat", "<f8")])
    key["polygon"] = polygon
    # Adding zero turns -0.0 into 0.0: equal coordinates must be equal keys.
    key["lon"], key["lat"] = lonlat.reshape(-1, 2).T + 0.0
    return key


def _edges(
    first: NDArray[np.int64],
    roof: NDArray[np.int64],
    following: NDArray[np.int64],
    wall_normals: NDArray[np.float64],
    preceding: NDArray[np.int64],
) -> NDArray[np.int64]:
    # A line is drawn within the triangles on its sides, so an edge where two faces meet is
    # listed once for each of them.
    crease = np.einsum("ij,ij->i", wall_normals, wall_normals[preceding]) < np.cos(
        np.radians(CREASE_DEG)
    )
    left = first[crease]
    right = first[preceding[crease]]
    pairs = [
        (first, first + 1),
        (first + 3, first + 2),
        (left, left + 3),
        (right + 1, right + 2),
        (roof, roof[following]),
    ]
    return np.concatenate([np.stack(pair, axis=1) for pair in pairs])


def _unit(vectors: NDArray[np.floating]) -> NDArray[np.float64]:
    unit: NDArray[np.float64] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def _cross2(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    cross: NDArray[np.float64] = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    return cross
