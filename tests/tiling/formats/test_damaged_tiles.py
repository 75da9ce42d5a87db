"""Tiles that lie: read or refused, never another exception, never an index into nowhere."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.tiling.formats.test_glb import GRID, primitive
from tiling.errors import FormatError
from tiling.formats.glb import encode_tile, packed
from tiling.formats.gltf_reading import Glb
from tiling.formats.metadata import property_ids
from tiling.formats.plain_columns import plain
from tiling.formats.tile_reading import TileContent, decode_tile

# What a document does not expect, wherever it stands.
ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 2, 3, 5, 8, 255, 65536, 2**31, 2**40, 2**63, 1.5, -1e308),
    *("", "x", "INT8", "UINT64", "ENUM", "STRING", "BOOLEAN", "SCALAR", "VEC3", "MAT4", "INDICES"),
    *([], {}, [0], [[]], {"a": 1}, [None] * 3),
)


@pytest.fixture(scope="module")
def tile() -> bytes:
    """A tile with every kind of column."""
    table = pa.table(
        {
            "用途": ["住宅", "商业", None, "住宅"] * 8,
            "层": [3, None, 1, 2] * 8,
            "在用": [True, False] * 16,
            "别名": [["东"], None, ["西", "北"], []] * 8,
            "编码": [f"A-{i}" for i in range(32)],
            "单价": [0.1 * i for i in range(32)],
            "空": pa.nulls(32),
        }
    )
    source = replace(primitive(96), feature_ids=(np.arange(96) % 32).astype(np.uint32))
    return encode_tile(GRID, [source], plain(table), property_ids(table.column_names))


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value of a document but its root."""
    children = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, child in children:
        yield (*path, key)
        yield from places(child, (*path, key))


def changed(document: dict[str, Any], path: tuple[Any, ...], odd: Any) -> dict[str, Any]:
    made = copy.deepcopy(document)
    at: Any = made
    for key in path[:-1]:
        at = at[key]
    if odd is Ellipsis:
        del at[path[-1]]
    else:
        at[path[-1]] = copy.deepcopy(odd)
    return made


def read(data: bytes) -> TileContent | None:
    for look in (lambda: Glb(data).primitives(), lambda: Glb(data).features()):
        try:
            look()
        except FormatError:
            pass
    try:
        return decode_tile(data)
    except FormatError:
        return None


def assert_sound(content: TileContent) -> None:
    for part in content.primitives:
        vertices = len(part.positions)
        assert part.positions.shape == part.normals.shape == (vertices, 3)
        assert (part.positions.dtype.name, part.normals.dtype.name) == ("uint16", "int8")
        assert part.feature_ids.shape == (vertices,)
        assert part.feature_ids.max(initial=0) < content.table.num_rows
        assert part.triangles.max(initial=0) < vertices
        assert part.edges.max(initial=0) < vertices


def test_a_document_with_anything_anywhere_is_read_or_refused(tile: bytes) -> None:
    whole = Glb(tile)
    binary = tile[-whole.document["buffers"][0]["byteLength"] :]
    paths = list(places(whole.document))
    rng = random.Random(20)
    refused = 0
    for _ in range(2500):
        odd = rng.choice((Ellipsis, *ODD))
        content = read(packed(changed(whole.document, rng.choice(paths), odd), binary))
        if content is None:
            refused += 1
        else:
            assert_sound(content)
    assert refused > 1000


def test_a_changed_byte_of_the_binary_is_read_or_refused(tile: bytes) -> None:
    whole = Glb(tile)
    nbytes = whole.document["buffers"][0]["byteLength"]
    rng = random.Random(21)
    for _ in range(1000):
        data = bytearray(tile)
        data[len(tile) - 1 - rng.randrange(nbytes)] = rng.randrange(256)
        content = read(bytes(data))
        if content is not None:
            assert_sound(content)


def test_a_corner_that_is_no_vertex_is_refused() -> None:
    source = primitive(6)
    wrong = replace(source, triangles=source.triangles + 1)
    table = pa.table({"a": [1, 2]})
    with pytest.raises(FormatError, match="corner is 6, of 6"):
        decode_tile(encode_tile(GRID, [wrong], table, {"a": "a"}))


def test_a_feature_that_is_no_row_is_refused() -> None:
    table = pa.table({"a": [1]})
    with pytest.raises(FormatError, match="feature id is 1, of 1"):
        decode_tile(encode_tile(GRID, [primitive(6)], table, {"a": "a"}))


def test_a_node_that_is_its_own_child_is_refused(tile: bytes) -> None:
    whole = Glb(tile)
    binary = tile[-whole.document["buffers"][0]["byteLength"] :]
    endless = changed(whole.document, ("nodes", 1), {"children": [1]})
    with pytest.raises(FormatError, match="recursion"):
        Glb(packed(endless, binary)).primitives()
