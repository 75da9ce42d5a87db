"""Quantized-mesh 1.0 terrain tiles: bytes <-> content, nothing else.

The one idea: every coordinate of a vertex is 0 .. 32767 along its axis: ``u`` from the tile's
west to its east edge, ``v`` from south to north, ``h`` from the header's minimum to its maximum
height. Positions in the header are ECEF metres; the horizon occlusion point is in the space
scaled by the ellipsoid's radii. Layout and encodings are those of the "quantized-mesh-1.0"
specification (little-endian; zig-zag deltas; high-water-mark indices; oct-encoded normals).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiling.errors import FormatError

QUANTA = 32767
MEDIA_TYPE = "application/vnd.quantized-mesh"
HEADER = struct.Struct("<3d2f3dd3d")
_COUNT = struct.Struct("<I")
_EXTENSION = struct.Struct("<BI")
_OCT_NORMALS, _WATER_MASK, _METADATA = 1, 2, 4
# Pixels along a side of a water mask.
MASK_SIDE = 256
# Beyond this many vertices indices take four bytes; the specification's own limit.
MAX_SHORT_VERTICES = 65536

Vector = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Header:
    """The 88 bytes in front of the mesh.

    Attributes:
        center: ECEF metres of the tile's centre.
        min_height_m, max_height_m: ellipsoidal heights of ``h`` = 0 and 32767; stored as float32.
        sphere_center: ECEF metres.
        sphere_radius_m: metres.
        horizon: horizon occlusion point, ECEF divided by the ellipsoid's radii.
    """

    center: Vector
    min_height_m: float
    max_height_m: float
    sphere_center: Vector
    sphere_radius_m: float
    horizon: Vector


@dataclass(frozen=True, slots=True)
class Edges:
    """Vertices on the four edges.

    Attributes:
        west, east: (K,) uint32 vertex indices, south to north.
        south, north: (K,) uint32 vertex indices, west to east.
    """

    west: NDArray[np.uint32]
    south: NDArray[np.uint32]
    east: NDArray[np.uint32]
    north: NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class QuantizedMesh:
    """A decoded tile of N vertices and T triangles.

    Attributes:
        header: see `Header`.
        u, v, h: (N,) uint16, 0 .. 32767.
        triangles: (T, 3) uint32, counter-clockwise seen from above; vertices are numbered in the
            order of their first use.
        edges: see `Edges`.
        oct_normals: (N, 2) uint8, or None when the tile carries no normals.
        metadata: JSON of the metadata extension, or None.
        water_mask: one byte, or `MASK_SIDE` squared from the north-west corner row by row; 0 is
            land, 255 water; None when the tile carries none.
        unknown_extensions: ids of extensions that were skipped.
    """

    header: Header
    u: NDArray[np.uint16]
    v: NDArray[np.uint16]
    h: NDArray[np.uint16]
    triangles: NDArray[np.uint32]
    edges: Edges
    oct_normals: NDArray[np.uint8] | None = None
    metadata: Any = None
    unknown_extensions: tuple[int, ...] = field(default=())
    water_mask: bytes | None = None

    def heights_m(self) -> NDArray[np.float64]:
        """Return the (N,) float64 ellipsoidal heights that a decoder sees, metres."""
        low, high = self.header.min_height_m, self.header.max_height_m
        return low + self.h.astype(np.float64) / QUANTA * (high - low)


def encode(mesh: QuantizedMesh) -> bytes:
    """Return the bytes of a tile.

    Raises:
        FormatError: triangles use a vertex before its turn, or name one that does not exist.
    """
    n = len(mesh.u)
    deltas = np.concatenate([_delta_zigzag(axis) for axis in (mesh.u, mesh.v, mesh.h)])
    edges = (mesh.edges.west, mesh.edges.south, mesh.edges.east, mesh.edges.north)
    codes = _high_water(mesh.triangles.ravel(), n)
    return assemble(mesh.header, n, deltas, codes, edges, mesh.oct_normals, mesh.metadata)


def assemble(
    header: Header,
    vertices: int,
    deltas: NDArray[np.uint16],
    codes: NDArray[Any],
    edges: Sequence[NDArray[np.uint32]],
    oct_normals: NDArray[np.uint8] | None = None,
    metadata: Any = None,
) -> bytes:
    """Return the bytes of a tile whose arrays are coded already.

    Args:
        header: see `Header`.
        vertices: N.
        deltas: (3 * N,) uint16 zig-zag coded differences of u, then v, then h.
        codes: (3 * T,) high-water-mark codes of the triangles.
        edges: vertex indices of the west, south, east and north edge.
        oct_normals: (N, 2) uint8, or None.
        metadata: JSON, or None.
    """
    parts = [
        HEADER.pack(
            *header.center,
            header.min_height_m,
            header.max_height_m,
            *header.sphere_center,
            header.sphere_radius_m,
            *header.horizon,
        ),
        _COUNT.pack(vertices),
        deltas.astype("<u2", copy=False).tobytes(),
    ]
    index_type = np.dtype("<u4") if vertices > MAX_SHORT_VERTICES else np.dtype("<u2")
    position = HEADER.size + _COUNT.size + 6 * vertices
    parts.append(bytes(-position % index_type.itemsize))
    parts.append(_COUNT.pack(len(codes) // 3))
    parts.append(codes.astype(index_type, copy=False).tobytes())
    for edge in edges:
        parts.append(_COUNT.pack(len(edge)))
        parts.append(edge.astype(index_type).tobytes())
    if oct_normals is not None:
        body = np.ascontiguousarray(oct_normals, dtype=np.uint8).tobytes()
        parts += [_EXTENSION.pack(_OCT_NORMALS, len(body)), body]
    if metadata is not None:
        text = json.dumps(metadata, ensure_ascii=False).encode()
        body = _COUNT.pack(len(text)) + text
        parts += [_EXTENSION.pack(_METADATA, len(body)), body]
    return b"".join(parts)


def decode(data: bytes) -> QuantizedMesh:
    """Return the content of a tile.

    Args:
        data: the tile, decompressed.

    Raises:
        FormatError: the bytes end too early, or an index names no vertex.
    """
    cursor = _Cursor(data)
    values = HEADER.unpack(cursor.take(HEADER.size, "header"))
    header = Header(values[0:3], values[3], values[4], values[5:8], values[8], values[9:12])
    n = cursor.count("vertices", 6)
    u, v, h = (_undelta(cursor.array("<u2", n, "vertices")) for _ in range(3))
    if max(u.max(initial=0), v.max(initial=0), h.max(initial=0)) > QUANTA:
        raise FormatError(f"a vertex coordinate exceeds {QUANTA}")
    index_type = "<u4" if n > MAX_SHORT_VERTICES else "<u2"
    width = np.dtype(index_type).itemsize
    cursor.align(width)
    triangles = cursor.count("triangles", 3 * width)
    indices = _from_high_water(cursor.array(index_type, 3 * triangles, "triangles"))
    _require_in_range(indices, n, "triangle")
    edges = []
    for name in ("west", "south", "east", "north"):
        edge = cursor.array(index_type, cursor.count(f"{name} edge", width), f"{name} edge")
        _require_in_range(edge, n, f"{name} edge")
        edges.append(edge.astype(np.uint32))
    normals, metadata, water, unknown = None, None, None, []
    while not cursor.at_end():
        kind, length = _EXTENSION.unpack(cursor.take(_EXTENSION.size, "extension header"))
        body = cursor.take(length, f"extension {kind}")
        if kind == _OCT_NORMALS:
            if length != 2 * n:
                raise FormatError(f"{length} bytes of normals for {n} vertices")
            normals = np.frombuffer(body, dtype=np.uint8).reshape(n, 2)
        elif kind == _METADATA:
            metadata = _parse_metadata(body)
        elif kind == _WATER_MASK:
            if length not in (1, MASK_SIDE**2):
                raise FormatError(f"a water mask of {length} bytes: it has 1 or {MASK_SIDE**2}")
            water = bytes(body)
        else:
            unknown.append(kind)
    mesh_triangles = indices.astype(np.uint32).reshape(-1, 3)
    return QuantizedMesh(
        header, u, v, h, mesh_triangles, Edges(*edges), normals, metadata, tuple(unknown), water
    )


def with_water_mask(tile: bytes, mask: bytes) -> bytes:
    """Return a tile, which has none, with a water mask.

    Args:
        tile: the bytes of a tile; extensions stand at its end.
        mask: see `QuantizedMesh.water_mask`.
    """
    return b"".join((tile, _EXTENSION.pack(_WATER_MASK, len(mask)), mask))


def oct_encode(normals: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Encode unit vectors in two bytes each.

    Cigolle et al., "A Survey of Efficient Representations for Independent Unit Vectors" (2014),
    as Cesium's ``AttributeCompression.octEncode`` applies it.

    Args:
        normals: (N, 3) float64 unit vectors, ECEF.

    Returns:
        (N, 2) uint8.
    """
    xy = normals[:, :2] / np.abs(normals).sum(axis=1, keepdims=True)
    folded = (1.0 - np.abs(xy[:, ::-1])) * np.where(xy < 0, -1.0, 1.0)
    xy = np.where(normals[:, 2:] < 0, folded, xy)
    snorm: NDArray[np.uint8] = np.floor((np.clip(xy, -1.0, 1.0) * 0.5 + 0.5) * 255 + 0.5).astype(
        np.uint8
    )
    return snorm


def oct_decode(encoded: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the (N, 3) float64 unit vectors of (N, 2) uint8 oct-encoded ones."""
    xy = encoded.astype(np.float64) / 255 * 2.0 - 1.0
    z = 1.0 - np.abs(xy).sum(axis=1)
    folded = (1.0 - np.abs(xy[:, ::-1])) * np.where(xy < 0, -1.0, 1.0)
    xy = np.where(z[:, None] < 0, folded, xy)
    vectors = np.column_stack([xy, z])
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def _parse_metadata(body: bytes) -> Any:
    try:
        return json.loads(body[_COUNT.size :])
    except ValueError as error:
        raise FormatError(f"the metadata extension is not JSON: {error}") from error


def _delta_zigzag(values: NDArray[np.uint16]) -> NDArray[np.uint16]:
    signed = np.concatenate([np.zeros(1, dtype=np.int32), values.astype(np.int32)])
    delta = signed[1:] - signed[:-1]
    return np.asarray((delta << 1) ^ (delta >> 31)).astype(np.uint16)


def _undelta(encoded: NDArray[Any]) -> NDArray[np.uint16]:
    code = encoded.astype(np.int64)
    return np.cumsum((code >> 1) ^ -(code & 1)).astype(np.uint16)


def _high_water(indices: NDArray[np.uint32], vertices: int) -> NDArray[np.int64]:
    flat = indices.astype(np.int64)
    if not len(flat):
        return flat
    _require_in_range(flat, vertices, "triangle")
    mark = np.concatenate([[0], np.maximum.accumulate(flat)[:-1] + 1])
    code = mark - flat
    if code.min() < 0:
        at = int(np.argmin(code))
        raise FormatError(
            f"vertex {flat[at]} is used before vertex {mark[at]}: number them by first use"
        )
    return np.asarray(code)


def _from_high_water(codes: NDArray[Any]) -> NDArray[np.int64]:
    # The mark rises by one at every zero code, so it is the count of zeros seen before.
    zero = codes == 0
    mark = np.cumsum(zero) - zero
    return np.asarray(mark - codes.astype(np.int64))


def _require_in_range(indices: NDArray[Any], vertices: int, what: str) -> None:
    if len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < vertices:
        raise FormatError(f"a {what} index lies outside the {vertices} vertices of the tile")


class _Cursor:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, nbytes: int, what: str) -> bytes:
        end = self._at + nbytes
        if end > len(self._data):
            raise FormatError(f"the tile ends at byte {len(self._data)}, inside its {what}")
        part = self._data[self._at : end]
        self._at = end
        return part

    def count(self, what: str, width: int) -> int:
        (number,) = _COUNT.unpack(self.take(_COUNT.size, f"number of {what}"))
        if number * width > len(self._data) - self._at:
            raise FormatError(f"{number} {what} do not fit into a tile of {len(self._data)} bytes")
        return int(number)

    def array(self, dtype: str, number: int, what: str) -> NDArray[Any]:
        width = np.dtype(dtype).itemsize
        return np.frombuffer(self.take(number * width, what), dtype=dtype)

    def align(self, width: int) -> None:
        self.take(-self._at % width, "padding")

    def at_end(self) -> bool:
        return self._at == len(self._data)
