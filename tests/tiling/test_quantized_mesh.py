"""Quantized-mesh tiles and layer.json: round trips, an independent decoder, hostile bytes."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from quantized_mesh_tile.terrain import TerrainTile

from tiling.bounds import Region
from tiling.coords import TileCoord
from tiling.errors import FormatError
from tiling.formats import quantized_mesh as qm
from tiling.formats.layer_json import available_tiles, layer_json, rectangles

REAL_TILE = Path(__file__).parent.parent / "data" / "raster" / "tile.octvertexnormals.terrain"
HEADER = qm.Header((1.0, 2.0, 3.0), -12.0, 345.0, (4.0, 5.0, 6.0), 7.5, (0.25, -0.5, 1.0))


def edges_of(u: np.ndarray, v: np.ndarray) -> qm.Edges:
    def along(mask: np.ndarray, order: np.ndarray) -> np.ndarray:
        index = np.flatnonzero(mask)
        return index[np.argsort(order[index], kind="stable")].astype(np.uint32)

    edge = qm.QUANTA
    return qm.Edges(along(u == 0, v), along(v == 0, u), along(u == edge, v), along(v == edge, u))


def first_use_order(triangles: np.ndarray) -> np.ndarray:
    vertices, first = np.unique(triangles.ravel(), return_index=True)
    return vertices[np.argsort(first)]


def make_mesh(vertices: int, triangles: int, seed: int, normals: bool = True) -> qm.QuantizedMesh:
    rng = np.random.default_rng(seed)
    raw = rng.integers(0, vertices, (triangles, 3))
    order = first_use_order(raw)
    number = np.zeros(vertices, dtype=np.uint32)
    number[order] = np.arange(len(order))
    n = len(order)
    u, v, h = rng.integers(0, qm.QUANTA + 1, (3, n)).astype(np.uint16)
    u[: n // 3], v[n // 4 : n // 2] = 0, qm.QUANTA
    oct_normals = rng.integers(0, 256, (n, 2)).astype(np.uint8) if normals else None
    return qm.QuantizedMesh(HEADER, u, v, h, number[raw], edges_of(u, v), oct_normals)


def assert_same(a: qm.QuantizedMesh, b: qm.QuantizedMesh) -> None:
    assert a.header == b.header
    for name in ("u", "v", "h", "triangles", "oct_normals"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    for name in ("west", "south", "east", "north"):
        np.testing.assert_array_equal(getattr(a.edges, name), getattr(b.edges, name))


@given(st.integers(3, 60), st.integers(1, 120), st.integers(0, 2**31), st.booleans())
@settings(max_examples=60, deadline=None)
def test_decoding_an_encoded_mesh_gives_it_back(
    vertices: int, triangles: int, seed: int, normals: bool
) -> None:
    mesh = make_mesh(vertices, triangles, seed, normals)
    assert_same(qm.decode(qm.encode(mesh)), mesh)


def test_an_independent_decoder_reads_the_same_mesh() -> None:
    mesh = make_mesh(400, 900, 7)
    tile = TerrainTile(west=0, south=0, east=1, north=1)
    tile.fromBytesIO(io.BytesIO(qm.encode(mesh)), hasLighting=True)
    assert tile.u == mesh.u.tolist() and tile.v == mesh.v.tolist() and tile.h == mesh.h.tolist()
    assert tile.indices == mesh.triangles.ravel().tolist()
    assert tile.westI == mesh.edges.west.tolist() and tile.northI == mesh.edges.north.tolist()
    np.testing.assert_allclose(tile.vLight, qm.oct_decode(mesh.oct_normals), atol=1e-9)


def test_a_tile_of_another_producer_is_read_as_the_independent_decoder_reads_it() -> None:
    data = REAL_TILE.read_bytes()
    mesh = qm.decode(data)
    tile = TerrainTile(west=0, south=0, east=1, north=1)
    tile.fromBytesIO(io.BytesIO(data), hasLighting=True)
    assert tile.u == mesh.u.tolist() and tile.h == mesh.h.tolist()
    assert tile.indices == mesh.triangles.ravel().tolist()
    assert tile.eastI == mesh.edges.east.tolist()
    assert mesh.header.horizon[0] == tile.header["horizonOcclusionPointX"]
    assert qm.encode(mesh) == data


def test_more_than_65536_vertices_take_aligned_32_bit_indices() -> None:
    n = 65_541
    triangles = np.arange(n - n % 3, dtype=np.uint32).reshape(-1, 3)
    count = triangles.size
    u = (np.arange(count) % (qm.QUANTA + 1)).astype(np.uint16)
    mesh = qm.QuantizedMesh(HEADER, u, u, u, triangles, edges_of(u, u))
    data = qm.encode(mesh)
    start = qm.HEADER.size + 4 + 6 * count
    assert count % 2 == 1, "the case needs padding"
    assert data[start : start + 2] == b"\0\0"
    assert int.from_bytes(data[start + 2 : start + 6], "little") == len(triangles)
    np.testing.assert_array_equal(qm.decode(data).triangles, triangles)


def test_vertices_out_of_their_turn_are_refused() -> None:
    u = np.zeros(3, dtype=np.uint16)
    triangles = np.array([[0, 2, 1]], dtype=np.uint32)
    with pytest.raises(FormatError, match="number them by first use"):
        qm.encode(qm.QuantizedMesh(HEADER, u, u, u, triangles, edges_of(u, u)))


def test_every_truncation_is_a_format_error() -> None:
    mesh = make_mesh(20, 30, 3, normals=False)
    data = qm.encode(mesh)
    for length in range(len(data)):
        with pytest.raises(FormatError):
            qm.decode(data[:length])


@given(st.binary(min_size=0, max_size=400))
@settings(max_examples=200, deadline=None)
def test_arbitrary_bytes_never_fail_in_another_way(tail: bytes) -> None:
    data = qm.encode(make_mesh(12, 14, 1))[: 88 + len(tail) // 3] + tail
    try:
        qm.decode(data)
    except FormatError:
        pass


@given(hnp.arrays(np.float64, (40, 3), elements=st.floats(-1, 1)))
def test_oct_encoding_keeps_directions_within_a_degree(vectors: np.ndarray) -> None:
    vectors = vectors[np.linalg.norm(vectors, axis=1) > 1e-3]
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    decoded = qm.oct_decode(qm.oct_encode(vectors))
    np.testing.assert_allclose(np.linalg.norm(decoded, axis=1), 1.0, atol=1e-12)
    assert ((decoded * vectors).sum(axis=1) > np.cos(np.radians(1.0))).all()


@given(hnp.arrays(np.bool_, st.tuples(st.integers(0, 9), st.integers(0, 9))))
def test_rectangles_cover_exactly_the_true_cells_once(mask: np.ndarray) -> None:
    seen = np.zeros(mask.shape, dtype=int)
    for r in rectangles(mask, 100, 200):
        rows = slice(r["startY"] - 200, r["endY"] - 199)
        seen[rows, r["startX"] - 100 : r["endX"] - 99] += 1
    np.testing.assert_array_equal(seen, mask.astype(int))


def test_layer_json_lists_what_a_viewer_will_ask_for() -> None:
    available = [
        [{"startX": 0, "startY": 0, "endX": 1, "endY": 0}],
        [],
        rectangles(np.ones((2, 1), bool), 6, 2),
    ]
    layer = layer_json(available, Region(113, 31, 114, 32), attribution="测绘院 © 2024")
    assert layer["maxzoom"] == 2 and layer["scheme"] == "tms"
    assert list(available_tiles(layer)) == [
        TileCoord(0, 0, 0),
        TileCoord(0, 1, 0),
        TileCoord(2, 6, 2),
        TileCoord(2, 6, 3),
    ]
    with pytest.raises(FormatError):
        list(available_tiles({"available": [[{"startX": 0}]]}))
