"""Subtrees of implicit tilesets made elsewhere: quadtrees and octrees, JSON or binary."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tiling.errors import FormatError
from tiling.validate.contents import parse_json

Scheme = Literal["QUADTREE", "OCTREE"]
Cell = tuple[int, int, int, int]  # level, x, y, z

_MAX_NODES = 1 << 24
_VARIABLE = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class Implicit:
    """A checked ``implicitTiling``."""

    scheme: Scheme
    levels: int
    depth: int
    subtrees: str

    @property
    def dimensions(self) -> int:
        """Two for quadtrees, three for octrees."""
        return 2 if self.scheme == "QUADTREE" else 3

    def check_template(self, template: Any) -> str:
        """Return an address with variables.

        Raises:
            FormatError: a variable is missing or unknown.
        """
        if not isinstance(template, str):
            raise FormatError(f"the address of implicit contents is {template!r}")
        wanted = {"level", "x", "y", "z"} if self.scheme == "OCTREE" else {"level", "x", "y"}
        if set(_VARIABLE.findall(template)) != wanted:
            raise FormatError(f"{template!r} must hold just the variables {sorted(wanted)}")
        return template


def parse_implicit(value: Any) -> Implicit:
    """Check an ``implicitTiling`` object.

    Raises:
        FormatError: a member is missing or means nothing.
    """
    try:
        scheme, levels = value["subdivisionScheme"], value["subtreeLevels"]
        # ``maximumLevel`` is what the extension before 3D Tiles 1.1 said.
        depth = (
            value["availableLevels"] if "availableLevels" in value else value["maximumLevel"] + 1
        )
        template = value["subtrees"]["uri"]
    except (KeyError, TypeError) as error:
        raise FormatError(f"implicitTiling is damaged: {error!r}") from error
    if scheme not in ("QUADTREE", "OCTREE"):
        raise FormatError(f"subdivisionScheme {scheme!r} is neither QUADTREE nor OCTREE")
    if not all(type(v) is int and 1 <= v <= 64 for v in (levels, depth)):
        raise FormatError(f"subtreeLevels {levels!r} and availableLevels {depth!r}")
    found = Implicit(scheme, levels, depth, template)
    if 2 ** (found.dimensions * levels) > _MAX_NODES:
        raise FormatError(f"subtrees of {levels} levels hold more than {_MAX_NODES} tiles")
    found.check_template(template)
    return found


def fill(template: str, cell: Cell) -> str:
    """Put a cell into an address."""
    values = dict(zip(("level", "x", "y", "z"), cell, strict=True))
    return _VARIABLE.sub(lambda match: str(values[match[1]]), template)


@dataclass(frozen=True, slots=True)
class ForeignSubtree:
    """What a subtree says is there.

    Attributes:
        contents: for each content of a tile, its cells.
        tiles: number of tiles.
        children: roots of the subtrees below.
        deepest: the lowest level of a tile.
    """

    contents: tuple[tuple[Cell, ...], ...]
    tiles: int
    children: tuple[Cell, ...]
    deepest: int


def read_subtree(
    data: bytes, implicit: Implicit, top: Cell, fetch: Callable[[str], bytes]
) -> ForeignSubtree:
    """Read a subtree.

    Args:
        data: JSON or binary.
        implicit: the tiling it belongs to.
        top: the cell of its root.
        fetch: returns the file that one of its buffers names.

    Raises:
        FormatError: damaged, or availability that contradicts itself.
    """
    document, binary = _split(data)
    branching = 2**implicit.dimensions
    nodes = (branching**implicit.levels - 1) // (branching - 1)
    try:
        buffers = [
            fetch(buffer["uri"]) if "uri" in buffer else binary[: buffer["byteLength"]]
            for buffer in document.get("buffers", [])
        ]
        tiles = _bits(document, buffers, document["tileAvailability"], nodes)
        stated = document.get("contentAvailability", [])
        stated = [stated] if isinstance(stated, dict) else stated
        contents = [_bits(document, buffers, each, nodes) for each in stated]
        below = _bits(
            document, buffers, document["childSubtreeAvailability"], branching**implicit.levels
        )
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise FormatError(f"a subtree is damaged: {error!r}") from error
    if any((content & ~tiles).any() for content in contents):
        raise FormatError("a subtree has content where it has no tile")
    found = tuple(tuple(_cells(np.flatnonzero(c), top, implicit)) for c in contents)
    here = np.flatnonzero(tiles)
    last = int(here[-1]) if len(here) else 0
    deepest = next(_cells(np.array([last]), top, implicit))[0]
    children = tuple(_cells(np.flatnonzero(below) + nodes, top, implicit))
    return ForeignSubtree(found, len(here), children, deepest)


def _split(data: bytes) -> tuple[dict[str, Any], bytes]:
    if data[:4] != b"subt":
        return parse_json(data)[0], b""
    if len(data) < 24:
        raise FormatError("a subtree is truncated")
    version, json_nbytes, binary_nbytes = struct.unpack_from("<I2Q", data, 4)
    start = 24 + json_nbytes
    if version != 1 or start + binary_nbytes > len(data):
        raise FormatError(f"a subtree of {len(data)} bytes claims {start} + {binary_nbytes}")
    return parse_json(data[24:start])[0], data[start : start + binary_nbytes]


def _bits(
    document: dict[str, Any], buffers: list[bytes], stated: dict[str, Any], count: int
) -> NDArray[np.bool_]:
    if "constant" in stated:
        return np.full(count, bool(stated["constant"]))
    view = document["bufferViews"][stated.get("bitstream", stated.get("bufferView"))]
    start = view.get("byteOffset", 0)
    data = buffers[view["buffer"]][start : start + view["byteLength"]]
    if len(data) != view["byteLength"] or len(data) < -(-count // 8):
        raise FormatError(f"an availability of {len(data)} bytes cannot hold {count} bits")
    packed = np.frombuffer(data, np.uint8)
    return np.unpackbits(packed, bitorder="little")[:count].astype(bool)


def _cells(nodes: NDArray[np.int64], top: Cell, implicit: Implicit) -> Iterator[Cell]:
    """Yield the cells of nodes in level order, Morton order within a level."""
    dimensions = implicit.dimensions
    for node in nodes.tolist():
        depth, first = 0, 0
        while node - first >= 1 << (dimensions * depth):
            first += 1 << (dimensions * depth)
            depth += 1
        local = [0, 0, 0]
        for bit in range(depth):
            for axis in range(dimensions):
                local[axis] |= ((node - first) >> (bit * dimensions + axis) & 1) << bit
        level, x, y, z = top
        yield (
            level + depth,
            (x << depth) + local[0],
            (y << depth) + local[1],
            (z << depth) + local[2],
        )
