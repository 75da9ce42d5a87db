"""Laws of one decoded terrain tile.

The one idea: a tile is looked at as a viewer sees it, vertex by vertex, in one pass of a kernel
that shares no code with the one that made it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tiling.coords import TileCoord
from tiling.ellipsoid import FLATTENING, SEMI_MAJOR_M
from tiling.formats.quantized_mesh import QUANTA, Edges, QuantizedMesh, oct_decode
from tiling.kernels import njit
from tiling.tilers.horizon import FAR_MAGNITUDE, WGS84_RADII_M

_SLACK_M = 1e-3
_SLACK_MAGNITUDE = 1e-9
_ECCENTRICITY_2 = FLATTENING * (2 - FLATTENING)


def broken_laws(coord: TileCoord, mesh: QuantizedMesh) -> Iterator[tuple[str, str]]:
    """Yield the rule and what is wrong, for every law that a tile breaks.

    Args:
        coord: which tile it is.
        mesh: its content.
    """
    yield from _shape(mesh)
    head = mesh.header
    numbers = (*head.center, *head.sphere_center, head.sphere_radius_m, *head.horizon)
    sound = bool(np.isfinite(numbers).all())
    if not sound:
        yield "terrain-header", "a header holds NaN or infinity"
    horizon = np.array(head.horizon)
    magnitude = float(np.linalg.norm(horizon)) if sound else 1.0
    if magnitude == 0:
        yield "terrain-horizon", "the horizon point is the Earth's centre"
        sound, magnitude = False, 1.0
    normals = np.empty((0, 3))
    if mesh.oct_normals is None:
        yield "terrain-normals", "a tile has no vertex normals"
    else:
        normals = oct_decode(mesh.oct_normals)
    size = 180 / 2**coord.level
    far, cosine, upright = _measure(
        mesh.u,
        mesh.v,
        mesh.heights_m(),
        normals,
        coord.x * size - 180,
        coord.y * size - 90,
        size,
        np.array(head.sphere_center),
        horizon / magnitude,
    )
    if sound and far > head.sphere_radius_m + _SLACK_M:
        yield "terrain-sphere", "vertices lie outside the bounding sphere"
    needed = 1 / cosine if cosine > 0 else FAR_MAGNITUDE
    if sound and min(needed, FAR_MAGNITUDE) > magnitude * (1 + _SLACK_MAGNITUDE):
        yield "terrain-horizon", "the horizon point hides visible vertices"
    if upright <= 0:
        yield "terrain-normals", "a normal points into the ground"
    if mesh.water_mask is not None and len(mesh.water_mask) > 1 and len(set(mesh.water_mask)) < 2:
        yield "terrain-water", "a water mask of one value is not stored as one byte"


def _shape(mesh: QuantizedMesh) -> Iterator[tuple[str, str]]:
    total, least = _areas(mesh.u, mesh.v, mesh.triangles)
    if least == 0:
        yield "terrain-mesh", "a triangle is degenerate"
    if least < 0:
        yield "terrain-mesh", "a triangle is wound clockwise"
    if total != 2 * QUANTA * QUANTA:
        yield "terrain-mesh", "the triangles do not cover the tile exactly once"
    edges: Edges = mesh.edges
    sides = (
        ("west", edges.west, mesh.u, mesh.v, 0),
        ("south", edges.south, mesh.v, mesh.u, 0),
        ("east", edges.east, mesh.u, mesh.v, QUANTA),
        ("north", edges.north, mesh.v, mesh.u, QUANTA),
    )
    for name, index, across, along, place in sides:
        if not _lists(index, across, along, place):
            yield (
                "terrain-mesh",
                f"the {name} edge does not list the vertices on it, in order",
            )


@njit(cache=True)
def _areas(u, v, triangles):  # type: ignore[no-untyped-def]
    """Return the sum and the least of the doubled areas, counter-clockwise positive."""
    total, least = np.int64(0), np.int64(1) << 40
    for k in range(len(triangles)):
        a, b, c = triangles[k, 0], triangles[k, 1], triangles[k, 2]
        au, av = np.int64(u[a]), np.int64(v[a])
        area = (np.int64(u[b]) - au) * (np.int64(v[c]) - av)
        area -= (np.int64(u[c]) - au) * (np.int64(v[b]) - av)
        total += area
        least = min(least, area)
    return total, least


@njit(cache=True)
def _lists(index, across, along, place):  # type: ignore[no-untyped-def]
    """Say whether an edge lists the vertices at a place across it, in the order along it."""
    for k in range(len(index)):
        if across[index[k]] != place:
            return False
        if k and along[index[k]] <= along[index[k - 1]]:
            return False
    count = 0
    for k in range(len(across)):
        if across[k] == place:
            count += 1
    return count == len(index)


@njit(cache=True)
def _measure(u, v, heights, normals, west, south, size, centre, direction):  # type: ignore[no-untyped-def]
    """Return the farthest distance from a centre, the least cosine of the angle under which a
    vertex' horizon cone meets a direction (see `horizon`), and the least uprightness of normals.
    """
    far, cosine, upright = 0.0, 1.0, 1.0
    for k in range(len(u)):
        lam = math.radians(west + u[k] / QUANTA * size)
        phi = math.radians(south + v[k] / QUANTA * size)
        sin, cos = math.sin(phi), math.cos(phi)
        prime = SEMI_MAJOR_M / math.sqrt(1 - _ECCENTRICITY_2 * sin * sin)
        x = (prime + heights[k]) * cos * math.cos(lam)
        y = (prime + heights[k]) * cos * math.sin(lam)
        z = (prime * (1 - _ECCENTRICITY_2) + heights[k]) * sin
        dx, dy, dz = x - centre[0], y - centre[1], z - centre[2]
        far = max(far, dx * dx + dy * dy + dz * dz)
        sx, sy, sz = x / WGS84_RADII_M[0], y / WGS84_RADII_M[1], z / WGS84_RADII_M[2]
        length = math.sqrt(sx * sx + sy * sy + sz * sz)
        cos_alpha = (sx * direction[0] + sy * direction[1] + sz * direction[2]) / length
        sin_alpha = math.sqrt(max(0.0, 1 - cos_alpha * cos_alpha))
        # Near the direction itself the sine is better had from the cross product.
        if sin_alpha < 0.1:
            cx = sy * direction[2] - sz * direction[1]
            cy = sz * direction[0] - sx * direction[2]
            cz = sx * direction[1] - sy * direction[0]
            sin_alpha = math.sqrt(cx * cx + cy * cy + cz * cz) / length
        above = max(length, 1.0)
        sin_beta = math.sqrt(above * above - 1) / above
        cosine = min(cosine, cos_alpha / above - sin_alpha * sin_beta)
        if k < len(normals):
            up = normals[k, 0] * cos * math.cos(lam) + normals[k, 1] * cos * math.sin(lam)
            upright = min(upright, up + normals[k, 2] * sin)
    return math.sqrt(far), cosine, upright


def heights_of(mesh: QuantizedMesh) -> tuple[float, float]:
    """Return the lowest and the highest vertex, ellipsoidal metres."""
    heights: NDArray[np.float64] = mesh.heights_m()
    return float(heights.min()), float(heights.max())
