"""Laws of a finished terrain tileset.

The one idea: only what a viewer sees counts, so everything is checked on decoded tiles: the tiles
that ``layer.json`` promises are those that exist, neighbours share their edges bit for bit, spheres
and horizon points hold for the decoded vertices, and the triangles cover the tile exactly once.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from tiling.coords import TileCoord
from tiling.ellipsoid import geodetic_to_ecef
from tiling.errors import FormatError
from tiling.findings import Finding, Findings
from tiling.formats import quantized_mesh
from tiling.formats.layer_json import available_tiles
from tiling.formats.quantized_mesh import QUANTA, QuantizedMesh
from tiling.stores.base import StoredTile
from tiling.tilers.horizon import FAR_MAGNITUDE, WGS84_RADII_M, occlusion_magnitude

_SLACK_M = 1e-3
_SLACK_MAGNITUDE = 1e-9


class TerrainStore(Protocol):
    """What is checked: a store that can be listed and read."""

    def get(self, key: str) -> StoredTile | None:
        """Return the tile under `key`, or None."""
        ...

    def keys(self) -> Iterator[str]:
        """Yield every key once."""
        ...


class _Border(NamedTuple):
    """An edge as a decoder sees it: place along the edge, height, and normal of each vertex."""

    along: NDArray[np.uint16]
    heights: NDArray[np.float64]
    normals: NDArray[np.uint8] | None

    def same(self, other: _Border) -> bool:
        if self.normals is not None and other.normals is not None:
            if not np.array_equal(self.normals, other.normals):
                return False
        return np.array_equal(self.along, other.along) and np.array_equal(
            self.heights, other.heights
        )


@dataclass(slots=True)
class _Ledger:
    """Findings and facts, gathered tile by tile."""

    findings: Findings = field(default_factory=Findings)
    tiles: int = 0
    vertices: int = 0
    triangles: int = 0
    low: float = np.inf
    high: float = -np.inf
    sound: dict[bytes, tuple[str, ...]] = field(default_factory=dict)

    def error(self, rule: str, message: str, where: object) -> None:
        self.findings.add(rule, "error", message, 1, [str(where)])


def check_terrain(store: TerrainStore) -> tuple[list[Finding], dict[str, Any]]:
    """Check every tile of a terrain tileset.

    Args:
        store: holds ``layer.json`` and ``{z}/{x}/{y}.terrain``.

    Returns:
        findings (broken laws have the severity ``error``), and facts: ``tiles, levels, vertices,
        triangles, min_height_m, max_height_m, edges_compared``.
    """
    ledger = _Ledger()
    present = _listed(store.keys(), ledger)
    layer = _load_layer(store, ledger)
    if layer is not None:
        _check_available(layer, present, ledger)
    compared = 0
    for level in sorted({coord.level for coord in present}):
        compared += _check_level(store, sorted(c for c in present if c.level == level), ledger)
    facts = {
        "tiles": ledger.tiles,
        "levels": sorted({coord.level for coord in present}),
        "vertices": ledger.vertices,
        "triangles": ledger.triangles,
        "min_height_m": ledger.low if ledger.tiles else None,
        "max_height_m": ledger.high if ledger.tiles else None,
        "edges_compared": compared,
    }
    return list(ledger.findings), facts


def _listed(keys: Iterable[str], ledger: _Ledger) -> set[TileCoord]:
    found = set()
    for key in keys:
        if key.endswith(".json"):
            continue
        parts = key.removesuffix(".terrain").split("/")
        if not key.endswith(".terrain") or len(parts) != 3 or not all(p.isdigit() for p in parts):
            ledger.error("terrain-key", "a file is neither JSON nor a terrain tile", key)
            continue
        found.add(TileCoord(*(int(p) for p in parts)))
    return found


def _load_layer(store: TerrainStore, ledger: _Ledger) -> dict[str, Any] | None:
    body = _body(store, "layer.json")
    try:
        layer = None if body is None else json.loads(body)
    except ValueError:
        layer = None
    if not isinstance(layer, dict):
        ledger.error("terrain-layer", "layer.json is missing or no JSON object", "layer.json")
        return None
    return layer


def _body(store: TerrainStore, key: str) -> bytes | None:
    tile = store.get(key)
    if tile is None:
        return None
    return gzip.decompress(tile.data) if tile.encoding == "gzip" else tile.data


def _check_available(layer: dict[str, Any], present: set[TileCoord], ledger: _Ledger) -> None:
    try:
        promised = list(available_tiles(layer))
    except FormatError as error:
        ledger.error("terrain-available", str(error), "layer.json")
        return
    if len(promised) != len(set(promised)):
        ledger.error("terrain-available", "rectangles of `available` overlap", "layer.json")
    for coord in sorted(set(promised) - present):
        ledger.error("terrain-available", "a tile is promised but does not exist", _key(coord))
    for coord in sorted(present - set(promised)):
        ledger.error("terrain-available", "a tile exists but is not promised", _key(coord))
    for coord in (TileCoord(0, 0, 0), TileCoord(0, 1, 0)):
        if coord not in present:
            ledger.error("terrain-roots", "a root tile is missing", _key(coord))
    for coord in sorted(present):
        if coord.level and coord.parent() not in present:
            ledger.findings.add(
                "terrain-orphan", "info", "a tile has no parent tile", 1, [_key(coord)]
            )


def _key(coord: TileCoord) -> str:
    return f"{coord.level}/{coord.x}/{coord.y}.terrain"


def _check_level(store: TerrainStore, coords: list[TileCoord], ledger: _Ledger) -> int:
    """Check the tiles of a level, column by column; return how many edges were compared."""
    if not coords:
        return 0
    columns = 2 ** (coords[0].level + 1)
    east: dict[tuple[int, int], _Border] = {}
    first: dict[int, _Border] = {}
    north: tuple[TileCoord, _Border] | None = None
    compared = 0
    for coord in coords:
        mesh = _decode(store, coord, ledger)
        if mesh is None:
            continue
        _check_tile(coord, mesh, ledger)
        west, south, east_edge, north_edge = _borders(mesh)
        if coord.x == 0:
            first[coord.y] = west
        pairs = [(east.pop((coord.x - 1, coord.y), None), west)]
        if north is not None and north[0] == TileCoord(coord.level, coord.x, coord.y - 1):
            pairs.append((north[1], south))
        if coord.x == columns - 1:
            # The globe is round: the last column's neighbour is the first.
            pairs.append((first.get(coord.y), east_edge))
        for mine, other in pairs:
            if mine is None:
                continue
            compared += 1
            if not mine.same(other):
                ledger.error("terrain-edge", "an edge differs from its neighbour's", _key(coord))
        east[coord.x, coord.y] = east_edge
        north = (coord, north_edge)
        # Only the column to the west can still be a neighbour.
        east = {k: v for k, v in east.items() if k[0] >= coord.x - 1}
    return compared


def _decode(store: TerrainStore, coord: TileCoord, ledger: _Ledger) -> QuantizedMesh | None:
    body = _body(store, _key(coord))
    if body is None:
        ledger.error("terrain-missing", "a listed tile cannot be read", _key(coord))
        return None
    try:
        return quantized_mesh.decode(body)
    except FormatError as error:
        ledger.error("terrain-format", f"a tile does not decode: {error}", _key(coord))
        return None


def _borders(mesh: QuantizedMesh) -> tuple[_Border, _Border, _Border, _Border]:
    heights = mesh.heights_m()

    def border(index: NDArray[np.uint32], along: NDArray[np.uint16]) -> _Border:
        normals = None if mesh.oct_normals is None else mesh.oct_normals[index]
        return _Border(along[index], heights[index], normals)

    edges = mesh.edges
    return (
        border(edges.west, mesh.v),
        border(edges.south, mesh.u),
        border(edges.east, mesh.v),
        border(edges.north, mesh.u),
    )


def _check_tile(coord: TileCoord, mesh: QuantizedMesh, ledger: _Ledger) -> None:
    where = _key(coord)
    ledger.tiles += 1
    ledger.vertices += len(mesh.u)
    ledger.triangles += len(mesh.triangles)
    for message in _topology(mesh, ledger):
        ledger.error("terrain-mesh", message, where)
    heights = mesh.heights_m()
    ledger.low = min(ledger.low, float(heights.min()))
    ledger.high = max(ledger.high, float(heights.max()))
    size = 180 / 2**coord.level
    west, south = coord.x * size - 180, coord.y * size - 90
    lon, lat = west + mesh.u / QUANTA * size, south + mesh.v / QUANTA * size
    points = geodetic_to_ecef(lon, lat, heights)
    _check_volumes(mesh, points, where, ledger)
    if mesh.oct_normals is None:
        ledger.error("terrain-normals", "a tile has no vertex normals", where)
        return
    normals = quantized_mesh.oct_decode(mesh.oct_normals)
    up = points / WGS84_RADII_M**2
    if ((normals * up).sum(axis=1) <= 0).any():
        ledger.error("terrain-normals", "a normal points into the ground", where)


def _check_volumes(
    mesh: QuantizedMesh, points: NDArray[np.float64], where: str, ledger: _Ledger
) -> None:
    head = mesh.header
    numbers = (*head.center, *head.sphere_center, head.sphere_radius_m, *head.horizon)
    if not np.isfinite(numbers).all():
        ledger.error("terrain-header", "a header holds NaN or infinity", where)
        return
    distance = np.linalg.norm(points - np.array(head.sphere_center), axis=1)
    if distance.max() > head.sphere_radius_m + _SLACK_M:
        ledger.error("terrain-sphere", "vertices lie outside the bounding sphere", where)
    horizon = np.array(head.horizon)
    magnitude = float(np.linalg.norm(horizon))
    if magnitude == 0:
        ledger.error("terrain-horizon", "the horizon point is the Earth's centre", where)
        return
    needed = occlusion_magnitude(points, horizon / magnitude)
    if min(needed, FAR_MAGNITUDE) > magnitude * (1 + _SLACK_MAGNITUDE):
        ledger.error("terrain-horizon", "the horizon point hides visible vertices", where)


def _topology(mesh: QuantizedMesh, ledger: _Ledger) -> tuple[str, ...]:
    edges = mesh.edges
    parts = (mesh.u, mesh.v, mesh.triangles, edges.west, edges.south, edges.east, edges.north)
    key = b"".join(part.tobytes() for part in parts)
    # Regular grids share one topology, which needs to be looked at once.
    if key not in ledger.sound:
        if len(ledger.sound) > 16:
            ledger.sound.clear()
        ledger.sound[key] = tuple(_broken(mesh))
    return ledger.sound[key]


def _broken(mesh: QuantizedMesh) -> Iterator[str]:
    u, v = mesh.u.astype(np.int64), mesh.v.astype(np.int64)
    a, b, c = mesh.triangles.T
    area = (u[b] - u[a]) * (v[c] - v[a]) - (u[c] - u[a]) * (v[b] - v[a])
    if (area == 0).any():
        yield "a triangle is degenerate"
    if (area < 0).any():
        yield "a triangle is wound clockwise"
    if int(area.sum()) != 2 * QUANTA * QUANTA:
        yield "the triangles do not cover the tile exactly once"
    found = quantized_mesh.edges_of(mesh.u, mesh.v)
    for name in ("west", "south", "east", "north"):
        if not np.array_equal(getattr(found, name), getattr(mesh.edges, name)):
            yield f"the {name} edge does not list the vertices on it, in order"
