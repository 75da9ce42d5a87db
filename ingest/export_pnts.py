"""A point cloud as 3D Tiles 1.0: pnts under an explicit tileset.json.

For viewers that know neither glb contents nor implicit tiling nor compressed vertices. Places,
volumes, levels and properties stay what they are; only the packing changes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson

from tiling.errors import StoreError
from tiling.formats.pnts import encode_pnts
from tiling.formats.points_glb import decode_points, srgb_colours
from tiling.formats.subtree import decode_subtree, node_count
from tiling.stores import open_store
from tiling.stores.directory import DirectoryWriter
from tiling.stores.gzip_member import content
from tiling.tilers.base import Progress
from tiling.tilers.octree import BRANCHING, Cell, cell_at


def export_pnts(source: Path, out: Path, progress: Progress) -> None:
    """Write a folder of 3D Tiles 1.0.

    Args:
        source: the 3TZ of a pointcloud asset.
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

    def put(key: str) -> str:
        name = key.removesuffix(".glb") + ".pnts"
        points = decode_points(read(key))
        rgb = None if points.colours is None else srgb_colours(points.colours)
        writer.put(name, encode_pnts(points.ecef, rgb, points.columns))
        progress.advance()
        return name

    try:
        document = orjson.loads(read("tileset.json"))
        root = document["root"]
        roots = [_explicit(tile, read, put) for tile in root["children"]]
        regions = np.array([tile["boundingVolume"]["region"] for tile in roots])
        west, south, _, _, low, _ = regions.min(axis=0).tolist()
        _, _, east, north, _, high = regions.max(axis=0).tolist()
        tileset = {
            "asset": {**document["asset"], "version": "1.0"},
            "geometricError": document["geometricError"],
            "root": {
                "boundingVolume": {"region": [west, south, east, north, low, high]},
                "geometricError": root["geometricError"],
                "refine": "ADD",
                "children": roots,
            },
        }
        writer.put("tileset.json", orjson.dumps(tileset))
        writer.commit()
    finally:
        writer.abort()
        store.close()


def _explicit(tile: dict[str, Any], read: Any, put: Any) -> dict[str, Any]:
    """Return the explicit form of an implicit root: its content and children."""
    implicit = tile["implicitTiling"]
    levels: int = implicit["subtreeLevels"]
    nodes: dict[Cell, dict[str, Any]] = {}
    pending = [Cell(0, 0, 0, 0)]
    while pending:
        top = pending.pop()
        subtree = decode_subtree(read(_fill(implicit["subtrees"]["uri"], top)), levels, BRANCHING)
        available = np.flatnonzero(subtree.tiles)
        for node, region in zip(available.tolist(), subtree.regions.tolist(), strict=True):
            depth = 0
            while node >= node_count(depth + 1, BRANCHING):
                depth += 1
            cell = _below(top, cell_at(node - node_count(depth, BRANCHING), depth))
            nodes[cell] = {
                "boundingVolume": {"region": region},
                "geometricError": tile["geometricError"] / 2**cell.level,
            }
            if subtree.contents[node]:
                nodes[cell]["content"] = {"uri": put(_fill(tile["content"]["uri"], cell))}
        for morton in np.flatnonzero(subtree.children).tolist():
            pending.append(_below(top, cell_at(morton, levels)))
    for cell in sorted(nodes):
        if cell.level:
            parent = Cell(cell.level - 1, cell.x >> 1, cell.y >> 1, cell.z >> 1)
            nodes[parent].setdefault("children", []).append(nodes[cell])
    for node in nodes.values():
        if "children" not in node:
            # There is nothing that is missing from a leaf.
            node["geometricError"] = 0.0
    return nodes[Cell(0, 0, 0, 0)]


def _below(top: Cell, local: Cell) -> Cell:
    depth = local.level
    return Cell(
        top.level + depth,
        (top.x << depth) + local.x,
        (top.y << depth) + local.y,
        (top.z << depth) + local.z,
    )


def _fill(template: str, cell: Cell) -> str:
    for name, value in zip(("level", "x", "y", "z"), cell, strict=True):
        template = template.replace(f"{{{name}}}", str(value))
    return template
