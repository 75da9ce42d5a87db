"""A tileset as 3D Tiles 1.0: b3dm with batch tables under an explicit tileset.json.

For viewers that know neither glb contents nor implicit tiling nor compressed vertices. Places,
volumes, levels of detail and attributes stay what they are; only the packing changes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson

from tiling.coords import TileCoord, unmorton2
from tiling.errors import StoreError
from tiling.formats.b3dm import batched_glb, encode_b3dm
from tiling.formats.subtree import decode_subtree, node_count
from tiling.formats.tile_reading import decode_tile
from tiling.stores import open_store
from tiling.stores.directory import DirectoryWriter
from tiling.stores.gzip_member import content
from tiling.tilers.base import Progress

# Which numbers of a region are lower limits: west, south, east, north, lowest, highest.
_LOW = np.array([True, True, False, False, True, False])


def export_b3dm(source: Path, out: Path, progress: Progress) -> None:
    """Write a folder of 3D Tiles 1.0.

    Args:
        source: the 3TZ of a buildings asset.
        out: the folder; it appears when it is complete.
        progress: counts tiles.

    Raises:
        StoreError: the archive lacks a file that it promises.
    """
    store = open_store(source, "3tz")
    writer = DirectoryWriter(out)
    progress.begin("export")

    def read(key: str) -> bytes:
        tile = store.get(key)
        if tile is None:
            raise StoreError(f"{source}: {key} is missing")
        return content(tile)

    def convert(tile: dict[str, Any]) -> dict[str, Any]:
        made = {k: v for k, v in tile.items() if k not in ("implicitTiling", "children", "content")}
        if "implicitTiling" in tile:
            return made | _explicit(tile, read, put)
        if "content" in tile:
            made["content"] = {"uri": put(tile["content"]["uri"])}
        if "children" in tile:
            made["children"] = [convert(child) for child in tile["children"]]
            regions = np.array([child["boundingVolume"]["region"] for child in made["children"]])
            low, high = regions.min(axis=0), regions.max(axis=0)
            made["boundingVolume"] = {"region": np.where(_LOW, low, high).tolist()}
        return made

    def put(key: str) -> str:
        name = key.removesuffix(".glb") + ".b3dm"
        writer.put(name, _b3dm(read(key)))
        progress.advance()
        return name

    try:
        document = orjson.loads(read("tileset.json"))
        tileset = {
            "asset": {**document["asset"], "version": "1.0"},
            "geometricError": document["geometricError"],
            "root": convert(document["root"]),
        }
        writer.put("tileset.json", orjson.dumps(tileset))
        writer.commit()
    finally:
        writer.abort()
        store.close()


def _b3dm(glb: bytes) -> bytes:
    tile = decode_tile(glb)
    # Under the names that the columns have in the source; null stays null.
    table = {name: tile.table.column(name).to_pylist() for name in tile.table.column_names}
    return encode_b3dm(batched_glb(tile), table, tile.table.num_rows)


def _explicit(tile: dict[str, Any], read: Any, put: Any) -> dict[str, Any]:
    """Return the explicit form of an implicit root: its content and children."""
    implicit = tile["implicitTiling"]
    levels: int = implicit["subtreeLevels"]
    nodes: dict[TileCoord, dict[str, Any]] = {}
    pending = [TileCoord(0, 0, 0)]
    while pending:
        top = pending.pop()
        subtree = decode_subtree(read(_fill(implicit["subtrees"]["uri"], top)), levels)
        available = np.flatnonzero(subtree.tiles)
        for node, region in zip(available.tolist(), subtree.regions.tolist(), strict=True):
            coord = _coord(node, top)
            nodes[coord] = {
                "boundingVolume": {"region": region},
                "geometricError": tile["geometricError"] / 2**coord.level,
            }
            if subtree.contents[node]:
                nodes[coord]["content"] = {"uri": put(_fill(tile["content"]["uri"], coord))}
        for morton in np.flatnonzero(subtree.children).tolist():
            x, y = unmorton2(np.uint64(morton))
            pending.append(
                TileCoord(
                    top.level + levels, (top.x << levels) + int(x), (top.y << levels) + int(y)
                )
            )
    for coord in sorted(nodes):
        if coord.level:
            nodes[coord.parent()].setdefault("children", []).append(nodes[coord])
    for node in nodes.values():
        if "children" not in node:
            # Full detail: there is nothing that is missing from it.
            node["geometricError"] = 0.0
    root = nodes[TileCoord(0, 0, 0)]
    # Around what is there: an implicit root has to name its whole cell.
    kept = ("boundingVolume", "content", "children")
    return {key: root[key] for key in kept if key in root}


def _fill(template: str, coord: TileCoord) -> str:
    filled = template.replace("{level}", str(coord.level))
    return filled.replace("{x}", str(coord.x)).replace("{y}", str(coord.y))


def _coord(node: int, top: TileCoord) -> TileCoord:
    depth = 0
    while node >= node_count(depth + 1):
        depth += 1
    x, y = unmorton2(np.uint64(node - node_count(depth)))
    return TileCoord(top.level + depth, (top.x << depth) + int(x), (top.y << depth) + int(y))
