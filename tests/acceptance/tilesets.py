"""Walk a 3D Tiles tileset as a client does: relative URIs, templates, availability bits.

Knows the specification and a function that fetches; nothing of the project.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import urljoin

import numpy as np
from numpy.typing import NDArray

Fetch = Callable[[str], bytes]


@dataclass(frozen=True)
class Found:
    """Something that a tileset leads to.

    Attributes:
        url: absolute.
        kind: ``tileset``, ``subtree`` or ``content``.
        data: its bytes.
        error_m: geometric error of the tile.
    """

    url: str
    kind: str
    data: bytes
    error_m: float


class Cell(NamedTuple):
    """A tile of an implicit quadtree, counted within that quadtree."""

    level: int
    x: int
    y: int


def walk(url: str, fetch: Fetch) -> Iterator[Found]:
    """Yield the tileset and everything that it says is available."""
    data = fetch(url)
    document = json.loads(data)
    yield Found(url, "tileset", data, document["geometricError"])
    yield from _tile(document["root"], url, fetch)


def _tile(tile: dict[str, Any], base: str, fetch: Fetch) -> Iterator[Found]:
    if "implicitTiling" in tile:
        yield from _subtree(tile, Cell(0, 0, 0), base, fetch)
        return
    if "content" in tile:
        target = urljoin(base, tile["content"]["uri"])
        yield Found(target, "content", fetch(target), tile["geometricError"])
    for child in tile.get("children", ()):
        yield from _tile(child, base, fetch)


def fill(template: str, cell: Cell) -> str:
    for name, value in cell._asdict().items():
        template = template.replace(f"{{{name}}}", str(value))
    return template


def _subtree(tile: dict[str, Any], root: Cell, base: str, fetch: Fetch) -> Iterator[Found]:
    implicit = tile["implicitTiling"]
    assert implicit["subdivisionScheme"] == "QUADTREE"
    url = urljoin(base, fill(implicit["subtrees"]["uri"], root))
    data = fetch(url)
    yield Found(url, "subtree", data, tile["geometricError"] / 2**root.level)
    document, binary = subtree_parts(data)
    levels = implicit["subtreeLevels"]
    count = sum(4**level for level in range(levels))
    (content,) = document["contentAvailability"]
    available = bits(document, binary, document["tileAvailability"], count)
    filled = bits(document, binary, content, count)
    assert not (filled & ~available).any(), f"{url}: content of tiles that are not available"
    for index in np.flatnonzero(filled).tolist():
        cell = cell_at(index, root)
        assert cell.level < implicit["availableLevels"], f"{url}: {cell} is below the last level"
        target = urljoin(base, fill(tile["content"]["uri"], cell))
        yield Found(target, "content", fetch(target), tile["geometricError"] / 2**cell.level)
    deeper = bits(document, binary, document["childSubtreeAvailability"], 4**levels)
    for morton in np.flatnonzero(deeper).tolist():
        yield from _subtree(tile, below(root, levels, morton), base, fetch)


def subtree_parts(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the JSON and the binary chunk of a subtree."""
    magic, version, json_nbytes, binary_nbytes = struct.unpack_from("<4sIQQ", data)
    assert (magic, version) == (b"subt", 1)
    assert len(data) == 24 + json_nbytes + binary_nbytes
    return json.loads(data[24 : 24 + json_nbytes]), data[24 + json_nbytes :]


def bits(
    document: dict[str, Any], binary: bytes, availability: dict[str, int], count: int
) -> NDArray[np.bool_]:
    if "constant" in availability:
        return np.full(count, availability["constant"] == 1)
    view = document["bufferViews"][availability["bitstream"]]
    packed = np.frombuffer(binary, np.uint8, view["byteLength"], view.get("byteOffset", 0))
    bits = np.unpackbits(packed, bitorder="little")[:count].astype(bool)
    assert availability["availableCount"] == bits.sum()
    return bits


def cell_at(index: int, root: Cell) -> Cell:
    level = 0
    while index >= 4**level:
        index -= 4**level
        level += 1
    return below(root, level, index)


def below(root: Cell, levels: int, morton: int) -> Cell:
    x = sum((morton >> (2 * bit) & 1) << bit for bit in range(levels))
    y = sum((morton >> (2 * bit + 1) & 1) << bit for bit in range(levels))
    return Cell(root.level + levels, (root.x << levels) + x, (root.y << levels) + y)
