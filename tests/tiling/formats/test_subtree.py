"""A subtree says the same after writing and reading, and nothing else is taken for one."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tiling.errors import FormatError
from tiling.formats.subtree import Subtree, decode_subtree, encode_subtree, node_count

LEVELS = 3


@st.composite
def subtrees(draw: st.DrawFn) -> Subtree:
    tiles = draw(arrays(bool, node_count(LEVELS)))
    contents = draw(arrays(bool, node_count(LEVELS))) & tiles
    children = draw(arrays(bool, 4**LEVELS))
    regions = draw(
        arrays(float, (int(tiles.sum()), 6), elements=st.floats(-1e4, 1e4, allow_nan=False))
    )
    features = draw(arrays(np.uint32, int(tiles.sum())))
    return Subtree(tiles, contents, children, regions, features)


@given(subtrees())
def test_reading_gives_what_was_written(subtree: Subtree) -> None:
    read = decode_subtree(encode_subtree(subtree), LEVELS)
    np.testing.assert_array_equal(read.tiles, subtree.tiles)
    np.testing.assert_array_equal(read.contents, subtree.contents)
    np.testing.assert_array_equal(read.children, subtree.children)
    np.testing.assert_array_equal(read.regions, subtree.regions)
    np.testing.assert_array_equal(read.features, subtree.features)


def sample() -> Subtree:
    tiles = np.zeros(node_count(LEVELS), dtype=bool)
    tiles[[0, 2, 9]] = True
    children = np.zeros(4**LEVELS, dtype=bool)
    children[17] = True
    features = np.array([7, 5, 2], dtype=np.uint32)
    return Subtree(tiles, tiles.copy(), children, np.arange(18.0).reshape(3, 6), features)


def test_the_json_keeps_the_schema_and_every_part_its_alignment(schema_errors: Any) -> None:
    data = encode_subtree(sample())
    magic, version, text, binary = struct.unpack_from("<4sIQQ", data)
    assert (magic, version) == (b"subt", 1)
    assert text % 8 == binary % 8 == 0
    assert len(data) == 24 + text + binary
    document = orjson.loads(data[24 : 24 + text])
    assert schema_errors("3d-tiles/Subtree/subtree.schema.json", document) == []
    assert all(view["byteOffset"] % 8 == 0 for view in document["bufferViews"])
    assert document["tileAvailability"]["availableCount"] == 3


def test_bits_count_level_by_level_and_from_the_least_significant_bit() -> None:
    data = encode_subtree(sample())
    text = struct.unpack_from("<Q", data, 8)[0]
    document = orjson.loads(data[24 : 24 + text])
    view = document["bufferViews"][document["tileAvailability"]["bitstream"]]
    start = 24 + text + view["byteOffset"]
    assert data[start : start + view["byteLength"]] == bytes([0b101, 0b10, 0])


def test_full_and_empty_availability_are_constants() -> None:
    full = np.ones(node_count(LEVELS), dtype=bool)
    none = np.zeros(4**LEVELS, dtype=bool)
    counts = np.zeros(len(full), dtype=np.uint32)
    subtree = Subtree(full, full, none, np.zeros((len(full), 6)), counts)
    data = encode_subtree(subtree)
    document = orjson.loads(data[24 : 24 + struct.unpack_from("<Q", data, 8)[0]])
    assert document["tileAvailability"] == {"constant": 1}
    assert document["childSubtreeAvailability"] == {"constant": 0}


@given(st.binary(max_size=64))
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        decode_subtree(data, LEVELS)


@given(st.integers(0, 400))
def test_a_truncated_subtree_is_refused(length: int) -> None:
    data = encode_subtree(sample())
    with pytest.raises(FormatError):
        decode_subtree(data[: min(length, len(data) - 1)], LEVELS)


def test_counts_that_lie_are_refused() -> None:
    data = encode_subtree(sample())
    lying = data.replace(b'"availableCount":3', b'"availableCount":4')
    assert lying != data
    with pytest.raises(FormatError, match="availableCount"):
        decode_subtree(lying, LEVELS)
