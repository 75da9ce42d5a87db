"""Footprints to massing models (白模): walls and a flat roof, all features of a tile at once.

The one idea: rings become one flat array of points, every point has five vertices (the wall before
it, the roof, the wall behind it), and one compiled pass makes walls, roofs and lines of them.
Rings are oriented first (shells counter-clockwise, holes clockwise, seen from above): the solid
then lies on the left of every edge, and one rule gives outward walls for shells and holes alike.

Frames: footprints in WGS 84 lon/lat degrees, heights in metres above the ellipsoid; the triangles
in the integer grid of their tile.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray

from tiling.ellipsoid import enu_to_ecef_matrix
from tiling.errors import TilingError
from tiling.formats.primitive import GRID_CELLS, Grid, Primitive
from tiling.kernels import njit
from tiling.tilers.coplanar import insets
from tiling.tilers.outlines import GridRings, Outlines, place, snap
from tiling.tilers.prisms import Prisms
from tiling.tilers.triangulate import triangulate

# Two walls that meet at less than this are one curved facade: no edge is drawn between them.
CREASE_DEG = 20.0

# Normals of walls are rounded to this: nobody sees a degree and a half in a shade, and the few
# directions that are left compress to half the bytes.
_SHADE_DEG = 3.0

# What a step of a grid may be, metres.
QUANTA_M = tuple(m * 10.0**e for e in range(-2, 3) for m in (1.0, 2.0, 5.0))

# Walls a shade darker than roofs: shapes read even where the light is flat. One row for each of
# the five vertices of a point: wall before it, roof, wall behind it.
_COLORS = np.array([[225] * 3 + [255]] * 2 + [[255] * 4] + [[225] * 3 + [255]] * 2, dtype=np.uint8)


def vertex_counts(geometry: NDArray[np.object_]) -> NDArray[np.int64]:
    """Return at least as many vertices as `extrude_tile` makes of each feature: (N,) int64."""
    # A closed ring of k + 1 coordinates has k edges: four wall vertices and one roof vertex each.
    return 5 * np.asarray(shapely.get_num_coordinates(geometry), dtype=np.int64)


class Extrusion(NamedTuple):
    """A tile of extruded footprints.

    Attributes:
        grid: where it stands.
        primitive: layout ``prisms``, one row of the property table for each feature.
        inset: walls and roofs moved inwards because others are drawn in their place.
    """

    grid: Grid
    primitive: Primitive
    inset: int


def grid_at(
    lonlat: NDArray[np.float64],
    low_m: NDArray[np.float64] | float,
    high_m: NDArray[np.float64] | float,
    finest_m: float = QUANTA_M[0],
) -> Grid:
    """Return the finest grid that holds every position; the same positions give the same grid.

    Up is that of the middle of the positions, so the Earth falls away evenly to all sides.

    Args:
        lonlat: (P, 2) degrees, at least one.
        low_m, high_m: (P,) or one number, ellipsoidal metres of the lowest and highest vertex
            above each position.
        finest_m: the quantum is at least this; one of `QUANTA_M` is chosen.

    Raises:
        TilingError: no quantum is coarse enough.
    """
    frame = _middle(lonlat)
    feet, ups = place(lonlat, frame)
    low, high = (np.broadcast_to(np.asarray(m, np.float64), len(lonlat)) for m in (low_m, high_m))
    lowest, highest = _extent(feet, ups, low, high)
    return _grid(frame, lowest, highest, finest_m)


def extrude_tile(
    geometry: NDArray[np.object_],
    base_m: NDArray[np.float64],
    height_m: NDArray[np.float64],
    skirt_m: NDArray[np.float64],
    grid: Grid | None = None,
) -> tuple[Grid, Primitive]:
    """Extrude footprints at full detail; as `extrude_counted`, without the count."""
    return extrude_counted(geometry, base_m, height_m, skirt_m, grid)[:2]


def extrude_counted(
    geometry: NDArray[np.object_],
    base_m: NDArray[np.float64],
    height_m: NDArray[np.float64],
    skirt_m: NDArray[np.float64],
    grid: Grid | None = None,
) -> Extrusion:
    """Extrude footprints from a skirt below their base up to their roof, on the grid of a tile.

    Foot and roof of every wall are placed in float64 and rounded each for itself, so all vertices
    are within half a quantum of the truth, wherever the tile is and however wide. There is no
    floor. Row i of the property table is feature i.

    Args:
        geometry: (N,) polygons and multipolygons, lon/lat degrees; Z is ignored. Every feature
            gets walls, however thin it is.
        base_m: (N,) ellipsoidal metres of the base.
        height_m: (N,) metres from base to roof, above zero.
        skirt_m: (N,) metres that the walls reach below the base.
        grid: where to stand; None chooses `grid_at`.

    Raises:
        GeometryInvalid: a footprint is empty.
        TilingError: a position does not fit into `grid`.
    """
    outlines = Outlines.of(geometry)
    feature = outlines.feature
    low, high = base_m - skirt_m, base_m + height_m
    chosen, feet, tops = _positions(outlines.lonlat, low[feature], high[feature], grid)
    moved = insets(_rounded(feet), _rounded(tops), outlines.ring_start, outlines.polygon_start)
    if moved.faces:
        inwards = _bearable(tops[:, :2], moved.inwards, outlines)
        feet[:, :2] += inwards
        tops[:, :2] += inwards
        tops[:, 2] -= moved.down
    rings = GridRings(
        *snap(_rounded(feet), _rounded(tops), outlines.ring_start, outlines.polygon_start)
    )
    both = np.concatenate([rings.low, rings.high])
    assert ((both >= 0) & (both <= GRID_CELLS)).all(), "a position would wrap around"
    buried = skirt_m[outlines.owner] > 0
    return Extrusion(chosen, _primitive(rings, outlines, buried), moved.faces)


def _bearable(
    points: NDArray[np.float64], inwards: NDArray[np.float64], outlines: Outlines
) -> NDArray[np.float64]:
    """Return how far points move: not at all in a polygon that would lose its shape.

    What is thinner than the step keeps its outline, and may flicker, rather than fold over, lose
    most of its area, or reach out of its own box (and so, maybe, of the grid).
    """
    moved = np.rint(points + inwards)
    plan = np.rint(points)
    ring = np.repeat(np.arange(len(outlines.ring_start) - 1), np.diff(outlines.ring_start))
    polygon = np.repeat(np.arange(len(outlines.owner)), np.diff(outlines.polygon_start))
    before = _double_areas(plan, outlines.ring_start)
    after = _double_areas(moved, outlines.ring_start)
    kept = np.ones(len(outlines.owner), dtype=bool)
    kept[polygon[after * np.sign(before) <= np.abs(before) / 2]] = False
    first = outlines.ring_start[outlines.polygon_start[:-1]]
    of_point = polygon[ring]
    low = np.minimum.reduceat(plan, first)[of_point]
    high = np.maximum.reduceat(plan, first)[of_point]
    kept[of_point[((moved < low) | (moved > high)).any(axis=1)]] = False
    touched = np.zeros(len(kept), dtype=bool)
    touched[of_point[inwards.any(axis=1)]] = True
    kept &= ~touched | _are_simple(moved, outlines, touched & kept)
    return np.where(kept[of_point][:, None], inwards, 0.0)


def _are_simple(
    points: NDArray[np.float64], outlines: Outlines, asked: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Return which of the polygons that are asked for have no ring that crosses anything: (Q,)."""
    size = np.diff(outlines.ring_start)
    polygon = np.repeat(np.arange(len(asked)), np.diff(outlines.polygon_start))
    simple = asked.copy()
    simple[polygon[size < 3]] = False
    ring = np.flatnonzero(simple[polygon])
    if len(ring):
        wanted = np.repeat(simple[polygon], size)
        rings = shapely.linearrings(
            points[wanted], indices=np.repeat(np.arange(len(ring)), size[ring])
        )
        number = np.cumsum(simple) - 1
        simple[simple] = shapely.is_valid(shapely.polygons(rings, indices=number[polygon[ring]]))
    return simple


def _double_areas(
    points: NDArray[np.float64], ring_start: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return twice the signed area of each ring; 0 for a ring without points."""
    following: NDArray[np.int64] = np.arange(1, len(points) + 1, dtype=np.int64)
    filled = np.diff(ring_start) > 0
    following[ring_start[1:][filled] - 1] = ring_start[:-1][filled]
    # From a corner of all, so that products stay exact.
    x, y = (points - points.min(axis=0)).T
    cross = x * y[following] - x[following] * y
    ring = np.repeat(np.arange(len(ring_start) - 1), np.diff(ring_start))
    areas = np.bincount(ring, cross, minlength=len(ring_start) - 1)
    return areas.astype(np.float64)


def prism_tile(prisms: Prisms, finest_m: float = QUANTA_M[0]) -> tuple[Grid, Primitive]:
    """Return a tile of prisms; row i of the property table is prism i.

    The feet of prisms are taken to be under ground: no line is drawn along them.

    Args:
        prisms: at least one.
        finest_m: as in `grid_at`.

    Raises:
        TilingError: the prisms lie too far apart for any grid.
    """
    rings = np.arange(len(prisms) + 1, dtype=np.int64)
    outlines = Outlines(prisms.lonlat, prisms.start, rings, rings[:-1])
    count = np.diff(prisms.start)
    low, high = np.repeat(prisms.bottom_m, count), np.repeat(prisms.top_m, count)
    grid, feet, tops = _positions(prisms.lonlat, low, high, None, finest_m)
    snapped = GridRings(*snap(_rounded(feet), _rounded(tops), prisms.start, rings))
    return grid, _primitive(snapped, outlines, np.ones(len(prisms), dtype=bool))


def _middle(lonlat: NDArray[np.float64]) -> NDArray[np.float64]:
    lon, lat = ((lonlat.min(axis=0) + lonlat.max(axis=0)) / 2).tolist()
    return enu_to_ecef_matrix(lon, lat, 0.0)


def _grid(
    frame: NDArray[np.float64],
    lowest: NDArray[np.float64],
    highest: NDArray[np.float64],
    finest_m: float,
) -> Grid:
    span = float((highest - lowest).max())
    for quantum in QUANTA_M:
        # A step to spare on every side: slivers are widened by one.
        if quantum >= finest_m and span <= (GRID_CELLS - 3) * quantum:
            to_ecef = frame.copy()
            to_ecef[:3, 3] += frame[:3, :3] @ (lowest - quantum)
            return Grid(to_ecef, quantum)
    raise TilingError(f"a tile spans {span / 1000:.0f} km: no grid is that coarse")


def _positions(
    lonlat: NDArray[np.float64],
    low_m: NDArray[np.float64],
    high_m: NDArray[np.float64],
    grid: Grid | None,
    finest_m: float = QUANTA_M[0],
) -> tuple[Grid, NDArray[np.float64], NDArray[np.float64]]:
    """Return the grid and the (P, 3) positions of feet and tops in it, not yet rounded."""
    frame = _middle(lonlat) if grid is None else grid.to_ecef
    feet, ups = place(lonlat, frame)
    lowest, highest = _extent(feet, ups, low_m, high_m)
    if grid is None:
        chosen = _grid(frame, lowest, highest, finest_m)
        corner = lowest - chosen.quantum_m
    else:
        chosen, corner = grid, np.zeros(3)
        edge = np.array([lowest, highest]) / grid.quantum_m
        if edge.min() < 0.5 or edge.max() > GRID_CELLS - 1.5:
            raise TilingError(
                f"buildings reach from {edge.min():.0f} to {edge.max():.0f} steps in a grid of "
                f"{GRID_CELLS} steps of {grid.quantum_m} m"
            )
    low = (feet + ups * low_m[:, None] - corner) / chosen.quantum_m
    high = (feet + ups * high_m[:, None] - corner) / chosen.quantum_m
    return chosen, low, high


def _rounded(positions: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.rint(positions).astype(np.int64)


@njit(cache=True)
def _extent(
    feet: NDArray[np.float64],
    ups: NDArray[np.float64],
    low_m: NDArray[np.float64],
    high_m: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    lowest = np.full(3, np.inf)
    highest = np.full(3, -np.inf)
    for i in range(len(feet)):
        for k in range(3):
            a = feet[i, k] + ups[i, k] * low_m[i]
            b = feet[i, k] + ups[i, k] * high_m[i]
            lowest[k] = min(lowest[k], a, b)
            highest[k] = max(highest[k], a, b)
    return lowest, highest


def _primitive(rings: GridRings, outlines: Outlines, buried: NDArray[np.bool_]) -> Primitive:
    """Return walls and roofs; `buried`: (Q,) bool, polygons whose foot gets no line."""
    triangles, start = triangulate(
        np.ascontiguousarray(rings.high[:, :2]),
        rings.ring_start,
        rings.polygon_start,
        outlines.lonlat[rings.source],
    )
    positions, normals, features, faces, edges = _assembled(
        rings.low,
        rings.high,
        rings.ring_start,
        rings.polygon_start,
        outlines.owner,
        buried,
        triangles,
        start,
    )
    colors = np.tile(_COLORS, (len(rings.low), 1))
    return Primitive(positions, normals, colors, features, faces, edges, "prisms")


@njit(cache=True)
def _assembled(  # type: ignore[no-untyped-def]
    low, high, ring_start, polygon_start, owner, buried, roofs, roof_start
):
    """Return positions, normals, features, triangles and edges, five vertices a point."""
    count = len(low)
    positions = np.empty((5 * count, 3), dtype=np.uint16)
    normals = np.zeros((5 * count, 3), dtype=np.int8)
    features = np.empty(5 * count, dtype=np.uint32)
    faces = np.empty((2 * count + len(roofs), 3), dtype=np.uint32)
    edges = np.empty((5 * count, 2), dtype=np.uint32)
    following = np.empty(count, dtype=np.int64)
    outward = np.empty((count, 2))
    shade = np.empty((count, 2), dtype=np.int8)
    turn = np.radians(_SHADE_DEG)
    f = e = 0
    least = np.cos(np.radians(CREASE_DEG))
    for polygon in range(len(polygon_start) - 1):
        first = ring_start[polygon_start[polygon]]
        for ring in range(polygon_start[polygon], polygon_start[polygon + 1]):
            begin, end = ring_start[ring], ring_start[ring + 1]
            for i in range(begin, end):
                j = i + 1 if i + 1 < end else begin
                following[i] = j
                dx = float(high[j, 0] - high[i, 0])
                dy = float(high[j, 1] - high[i, 1])
                if dx == 0 and dy == 0:
                    dx, dy = float(low[j, 0] - low[i, 0]), float(low[j, 1] - low[i, 1])
                length = np.hypot(dx, dy)
                outward[i, 0], outward[i, 1] = dy / length, -dx / length
                heading = np.rint(np.arctan2(-dx, dy) / turn) * turn
                shade[i, 0] = np.int8(np.rint(127 * np.cos(heading)))
                shade[i, 1] = np.int8(np.rint(127 * np.sin(heading)))
            for i in range(begin, end):
                j, h = following[i], i - 1 if i > begin else end - 1
                v, w = 5 * i, 5 * j
                for k in range(3):
                    positions[v, k] = positions[v + 4, k] = low[i, k]
                    positions[v + 1, k] = positions[v + 2, k] = positions[v + 3, k] = high[i, k]
                for k in range(2):
                    normals[v, k] = normals[v + 1, k] = shade[h, k]
                    normals[v + 3, k] = normals[v + 4, k] = shade[i, k]
                normals[v + 2, 2] = 127
                for k in range(5):
                    features[v + k] = owner[polygon]
                faces[f, 0], faces[f, 1], faces[f, 2] = v + 4, w, w + 1
                faces[f + 1, 0], faces[f + 1, 1], faces[f + 1, 2] = v + 4, w + 1, v + 3
                f += 2
                if not buried[polygon]:
                    edges[e, 0], edges[e, 1] = v + 4, w
                    e += 1
                edges[e, 0], edges[e, 1] = v + 3, w + 1
                e += 1
                if outward[i, 0] * outward[h, 0] + outward[i, 1] * outward[h, 1] < least:
                    edges[e, 0], edges[e, 1] = v, v + 1
                    edges[e + 1, 0], edges[e + 1, 1] = v + 4, v + 3
                    e += 2
        for t in range(roof_start[polygon], roof_start[polygon + 1]):
            for k in range(3):
                a, b = roofs[t, k], roofs[t, (k + 1) % 3]
                faces[f, k] = 5 * a + 2
                # Only sides of triangles can be drawn as lines.
                if following[a] == b and first <= a:
                    edges[e, 0], edges[e, 1] = 5 * a + 2, 5 * b + 2
                    e += 1
            f += 1
    return positions, normals, features, faces, edges[:e].copy()
