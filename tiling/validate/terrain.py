"""Laws of a finished terrain tileset.

The one idea: only what a viewer sees counts, so everything is checked on decoded tiles: the tiles
that ``layer.json`` promises are those that exist, neighbours share their edges bit for bit, spheres
and horizon points hold for the decoded vertices, and the triangles cover the tile exactly once.
"""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from tiling.coords import TileCoord
from tiling.errors import FormatError
from tiling.findings import Finding, Findings
from tiling.formats import quantized_mesh
from tiling.formats.layer_json import WATER_MASK, available_tiles
from tiling.formats.quantized_mesh import QUANTA, QuantizedMesh
from tiling.stores.base import StoredTile
from tiling.stores.zip3tz import ThreeTzReader
from tiling.validate.terrain_tile import broken_laws, heights_of

# Tiles that a process checks at once, at least; and how many such chunks there are at most: each
# reads the index of the archive, which grows with it.
_CHUNK_TILES, _MOST_CHUNKS = 1000, 64


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
    quanta: NDArray[np.uint16]
    scale: tuple[float, float]
    normals: NDArray[np.uint8] | None

    def same(self, other: _Border) -> bool:
        if self.normals is not None and other.normals is not None:
            if not np.array_equal(self.normals, other.normals):
                return False
        if not np.array_equal(self.along, other.along):
            return False
        if self.scale == other.scale:
            return np.array_equal(self.quanta, other.quanta)
        return np.array_equal(self.heights_m(), other.heights_m())

    def heights_m(self) -> NDArray[np.float64]:
        low, high = self.scale
        return low + self.quanta.astype(np.float64) / QUANTA * (high - low)


class _Chunk(NamedTuple):
    """Whole columns of tiles of one level, in order, and the column to the east of them."""

    coords: list[TileCoord]
    beside: list[TileCoord]


@dataclass(slots=True)
class _Ledger:
    """Findings and facts, gathered tile by tile."""

    findings: Findings = field(default_factory=Findings)
    tiles: int = 0
    vertices: int = 0
    triangles: int = 0
    low: float = np.inf
    high: float = -np.inf
    edges: int = 0
    masks: int = 0

    def error(self, rule: str, message: str, where: object) -> None:
        self.findings.add(rule, "error", message, 1, [str(where)])

    def add(self, other: _Ledger) -> None:
        self.findings.merge(other.findings)
        self.tiles, self.edges = self.tiles + other.tiles, self.edges + other.edges
        self.masks += other.masks
        self.vertices += other.vertices
        self.triangles += other.triangles
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)


def check_terrain(store: TerrainStore) -> tuple[list[Finding], dict[str, Any]]:
    """Check every tile of a terrain tileset.

    Args:
        store: holds ``layer.json`` and ``{z}/{x}/{y}.terrain``.

    Returns:
        findings (broken laws have the severity ``error``), and facts: ``tiles, levels, vertices,
        triangles, min_height_m, max_height_m, edges_compared``.
    """
    return _check(store, lambda chunks: (_check_chunk(store, chunk) for chunk in chunks))


def check_changed(
    store: TerrainStore, changed: Collection[TileCoord]
) -> tuple[list[Finding], dict[str, Any]]:
    """Check some tiles, their edges with all neighbours, and what ``layer.json`` promises of all.

    Args:
        store: the whole tileset.
        changed: tiles of it.
    """

    def near(chunks: Iterable[_Chunk]) -> Iterator[_Ledger]:
        present = {coord for chunk in chunks for coord in chunk.coords}
        wanted = set(changed)
        for level, column, row in changed:
            for x, y in ((-1, 0), (1, 0), (0, -1), (0, 1)):
                # The globe is round; below and above the poles nothing is present.
                around = (column + x) % 2 ** (level + 1)
                if row + y >= 0:
                    wanted.add(TileCoord(level, around, row + y))
        return (_check_chunk(store, chunk) for chunk in _chunks(wanted & present))

    return _check(store, near)


def check_terrain_archive(
    path: Path, executor: Executor, step: Callable[[int], None]
) -> tuple[list[Finding], dict[str, Any]]:
    """Check a terrain tileset in one archive on several processes; see `check_terrain`.

    Args:
        path: a 3TZ archive.
        executor: where tiles are checked.
        step: told of how many tiles were checked.
    """

    def spread(chunks: Iterable[_Chunk]) -> Iterator[_Ledger]:
        jobs = [executor.submit(_check_archived, path, chunk) for chunk in chunks]
        try:
            for job in jobs:
                ledger = job.result()
                step(ledger.tiles)
                yield ledger
        finally:
            for job in jobs:
                job.cancel()

    store = ThreeTzReader(path)
    try:
        return _check(store, spread)
    finally:
        store.close()


def _check_archived(path: Path, chunk: _Chunk) -> _Ledger:
    store = ThreeTzReader(path)
    try:
        return _check_chunk(store, chunk)
    finally:
        store.close()


def _check(
    store: TerrainStore, spread: Callable[[Iterable[_Chunk]], Iterable[_Ledger]]
) -> tuple[list[Finding], dict[str, Any]]:
    ledger = _Ledger()
    present = _listed(store.keys(), ledger)
    layer = _load_layer(store, ledger)
    if layer is not None:
        _check_available(layer, present, ledger)
    for found in spread(_chunks(present)):
        ledger.add(found)
    if layer is not None:
        _check_masks(layer, ledger)
    facts = {
        "tiles": ledger.tiles,
        "levels": sorted({coord.level for coord in present}),
        "vertices": ledger.vertices,
        "triangles": ledger.triangles,
        "min_height_m": ledger.low if ledger.tiles else None,
        "max_height_m": ledger.high if ledger.tiles else None,
        "edges_compared": ledger.edges,
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


def _check_masks(layer: dict[str, Any], ledger: _Ledger) -> None:
    wanted = ledger.tiles if WATER_MASK in layer.get("extensions", []) else 0
    if ledger.masks != wanted:
        ledger.error(
            "terrain-water",
            f"{ledger.masks} of {ledger.tiles} tiles have a water mask, {wanted} should",
            "layer.json",
        )


def _key(coord: TileCoord) -> str:
    return f"{coord.level}/{coord.x}/{coord.y}.terrain"


def _chunks(present: set[TileCoord]) -> Iterator[_Chunk]:
    """Cut a tileset into runs of whole columns."""
    enough = max(_CHUNK_TILES, len(present) // _MOST_CHUNKS)
    for _, level in itertools.groupby(sorted(present), key=lambda coord: coord.level):
        own: list[TileCoord] = []
        for _, column in itertools.groupby(level, key=lambda coord: coord.x):
            own += column
            if len(own) >= enough:
                yield _Chunk(own, _beside(own[-1], present))
                own = []
        if own:
            yield _Chunk(own, _beside(own[-1], present))


def _beside(last: TileCoord, present: set[TileCoord]) -> list[TileCoord]:
    # The globe is round: the last column's neighbour is the first.
    x = (last.x + 1) % 2 ** (last.level + 1)
    rows = range(2**last.level)
    if len(rows) > len(present):
        return [c for c in present if c.level == last.level and c.x == x]
    return [c for y in rows if (c := TileCoord(last.level, x, y)) in present]


def _check_chunk(store: TerrainStore, chunk: _Chunk) -> _Ledger:
    """Check tiles column by column, and their edges with the column after."""
    ledger = _Ledger()
    east: dict[tuple[int, int], _Border] = {}
    north: tuple[TileCoord, _Border] | None = None
    for coord in chunk.coords:
        mesh = _decode(store, coord, ledger)
        if mesh is None:
            continue
        _check_tile(coord, mesh, ledger)
        west, south, east_edge, north_edge = _borders(mesh)
        _compare(east.get((coord.x - 1, coord.y)), west, coord, ledger)
        if north is not None and north[0] == TileCoord(coord.level, coord.x, coord.y - 1):
            _compare(north[1], south, coord, ledger)
        east[coord.x, coord.y] = east_edge
        north = (coord, north_edge)
    for coord in chunk.beside:
        mine = east.get((chunk.coords[-1].x, coord.y))
        mesh = None if mine is None else _decode(store, coord, ledger)
        if mesh is not None:
            _compare(mine, _borders(mesh)[0], coord, ledger)
    return ledger


def _compare(mine: _Border | None, other: _Border, coord: TileCoord, ledger: _Ledger) -> None:
    if mine is None:
        return
    ledger.edges += 1
    if not mine.same(other):
        ledger.error("terrain-edge", "an edge differs from its neighbour's", _key(coord))


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
    head = mesh.header
    scale = (head.min_height_m, head.max_height_m)

    def border(index: NDArray[np.uint32], along: NDArray[np.uint16]) -> _Border:
        normals = None if mesh.oct_normals is None else mesh.oct_normals[index]
        return _Border(along[index], mesh.h[index], scale, normals)

    edges = mesh.edges
    return (
        border(edges.west, mesh.v),
        border(edges.south, mesh.u),
        border(edges.east, mesh.v),
        border(edges.north, mesh.u),
    )


def _check_tile(coord: TileCoord, mesh: QuantizedMesh, ledger: _Ledger) -> None:
    ledger.tiles += 1
    ledger.masks += mesh.water_mask is not None
    ledger.vertices += len(mesh.u)
    ledger.triangles += len(mesh.triangles)
    low, high = heights_of(mesh)
    ledger.low, ledger.high = min(ledger.low, low), max(ledger.high, high)
    for rule, message in broken_laws(coord, mesh):
        ledger.error(rule, message, _key(coord))
