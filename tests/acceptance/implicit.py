"""The whole tree of an implicit tileset: every tile with its error, volume and content.

Read by the 3D Tiles specification from a function that fetches; nothing of the project.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin

import numpy as np
from numpy.typing import NDArray

from tests.acceptance.tilesets import Cell, Fetch, below, bits, cell_at, fill, subtree_parts


@dataclass(frozen=True)
class Node:
    """A tile.

    Attributes:
        root: uri template of its implicit root, which names the root.
        cell: within that root.
        error_m: geometric error.
        region: west, south, east, north in radians, lowest, highest in metres.
        uri: of its content; None without.
        metadata: of the subtree, by property id.
    """

    root: str
    cell: Cell
    error_m: float
    region: NDArray[np.float64]
    uri: str | None
    metadata: dict[str, Any]

    @property
    def parent(self) -> tuple[str, Cell] | None:
        """What `name` is of the tile above; None at the top of a root."""
        level, x, y = self.cell
        return (self.root, Cell(level - 1, x // 2, y // 2)) if level else None

    @property
    def name(self) -> tuple[str, Cell]:
        """Which tile this is."""
        return self.root, self.cell


def tree(url: str, fetch: Fetch) -> list[Node]:
    """Return every available tile of every implicit root, parents before children."""
    document = json.loads(fetch(url))
    properties = {
        name: prop
        for each in document["schema"]["classes"].values()
        for name, prop in each["properties"].items()
    }
    nodes = []
    roots = [document["root"]]
    while roots:
        tile = roots.pop()
        if "implicitTiling" in tile:
            nodes += _subtree(tile, Cell(0, 0, 0), url, fetch, properties)
        roots += tile.get("children", ())
    return sorted(nodes, key=lambda node: (node.root, node.cell))


def _subtree(
    tile: dict[str, Any], root: Cell, base: str, fetch: Fetch, properties: dict[str, Any]
) -> Iterator[Node]:
    implicit = tile["implicitTiling"]
    document, binary = subtree_parts(fetch(urljoin(base, fill(implicit["subtrees"]["uri"], root))))
    levels = implicit["subtreeLevels"]
    count = sum(4**level for level in range(levels))
    available = np.flatnonzero(bits(document, binary, document["tileAvailability"], count))
    (content,) = document["contentAvailability"]
    filled = bits(document, binary, content, count)
    (table,) = document["propertyTables"]
    assert table["count"] == len(available), "metadata is of the tiles that are available, in order"
    columns = {
        name: _numbers(document, binary, entry["values"], properties[name]).reshape(
            len(available), -1
        )
        for name, entry in table["properties"].items()
    }
    (where,) = (n for n, p in properties.items() if p.get("semantic") == "TILE_BOUNDING_REGION")
    for row, index in enumerate(available.tolist()):
        cell = cell_at(index, root)
        yield Node(
            tile["content"]["uri"],
            cell,
            tile["geometricError"] / 2**cell.level,
            columns[where][row],
            urljoin(base, fill(tile["content"]["uri"], cell)) if filled[index] else None,
            {name: values[row].tolist() for name, values in columns.items()},
        )
    deeper = bits(document, binary, document["childSubtreeAvailability"], 4**levels)
    for morton in np.flatnonzero(deeper).tolist():
        yield from _subtree(tile, below(root, levels, morton), base, fetch, properties)


_TYPES = {"FLOAT64": "<f8", "FLOAT32": "<f4", "UINT32": "<u4", "UINT64": "<u8"}


def _numbers(
    document: dict[str, Any], binary: bytes, index: int, prop: dict[str, Any]
) -> NDArray[Any]:
    view = document["bufferViews"][index]
    start = view.get("byteOffset", 0)
    return np.frombuffer(binary[start : start + view["byteLength"]], _TYPES[prop["componentType"]])
