"""Features with a three-dimensional shape of their own: the record of a mesh in a column.

A reader puts one record a feature into `MESH_COLUMN`; null means that the footprint is extruded.
Records hold everything the shape needs, images included, so that a feature can rest in a file and
be tiled again. Layout, little-endian: magic, counts, then the arrays one after the other.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tiling.errors import FormatError
from tiling.formats.primitive import Texture

WALL, ROOF, GROUND, OTHER = 0, 1, 2, 3
_MAGIC = b"CIM1"
_HEADER = struct.Struct("<4sIIII")  # magic, vertices, triangles, images, flags
_IMAGE = struct.Struct("<IB")  # length, place in _MEDIA_TYPES
_MEDIA_TYPES = ("image/jpeg", "image/png")
_COLORS, _UV = 1, 2

Shift = Callable[
    [NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]],
    tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]],
]


@dataclass(frozen=True, slots=True)
class FeatureMesh:
    """The shape of a feature.

    Attributes:
        vertices: (V, 3) float64, in the frame of the batch: x or longitude, y or latitude, metres.
        triangles: (T, 3) uint32, counter-clockwise from outside.
        surfaces: (T,) uint8, `WALL`, `ROOF`, `GROUND` or `OTHER`.
        colors: (T, 4) uint8, linear RGBA; None: those of the surfaces.
        uv: (T, 3, 2) float32, glTF texture coordinates (v downwards); None without images.
        image: (T,) int32, place in `images`, -1 for none; None without images.
        images: encoded images.
    """

    vertices: NDArray[np.float64]
    triangles: NDArray[np.uint32]
    surfaces: NDArray[np.uint8]
    colors: NDArray[np.uint8] | None = None
    uv: NDArray[np.float32] | None = None
    image: NDArray[np.int32] | None = None
    images: tuple[Texture, ...] = ()


def encode_mesh(mesh: FeatureMesh) -> bytes:
    """Return the record of a mesh; equal meshes give equal bytes."""
    flags = (_COLORS if mesh.colors is not None else 0) | (_UV if mesh.uv is not None else 0)
    parts = [
        _HEADER.pack(_MAGIC, len(mesh.vertices), len(mesh.triangles), len(mesh.images), flags),
        np.ascontiguousarray(mesh.vertices, "<f8").tobytes(),
        np.ascontiguousarray(mesh.triangles, "<u4").tobytes(),
        np.ascontiguousarray(mesh.surfaces, np.uint8).tobytes(),
    ]
    if mesh.colors is not None:
        parts.append(np.ascontiguousarray(mesh.colors, np.uint8).tobytes())
    if mesh.uv is not None:
        assert mesh.image is not None  # they go together
        parts.append(np.ascontiguousarray(mesh.uv, "<f4").tobytes())
        parts.append(np.ascontiguousarray(mesh.image, "<i4").tobytes())
    for texture in mesh.images:
        parts.append(_IMAGE.pack(len(texture.data), _MEDIA_TYPES.index(texture.media_type)))
        parts.append(texture.data)
    return b"".join(parts)


def decode_mesh(data: bytes) -> FeatureMesh:
    """Return the mesh of a record.

    Raises:
        FormatError: not a record, or one cut short.
    """
    try:
        magic, vertices, triangles, images, flags = _HEADER.unpack_from(data)
        if magic != _MAGIC:
            raise FormatError(f"not the record of a mesh: {magic!r}")
        cut = _Cut(data, _HEADER.size)
        points = cut.array("<f8", vertices * 3).reshape(-1, 3)
        corners = cut.array("<u4", triangles * 3).reshape(-1, 3)
        surfaces = cut.array("u1", triangles)
        colors = cut.array("u1", triangles * 4).reshape(-1, 4) if flags & _COLORS else None
        uv = cut.array("<f4", triangles * 6).reshape(-1, 3, 2) if flags & _UV else None
        image = cut.array("<i4", triangles) if flags & _UV else None
        textures = tuple(cut.image() for _ in range(images))
    except (struct.error, ValueError, IndexError) as error:
        raise FormatError(f"the record of a mesh is damaged: {error}") from error
    if len(corners) and int(corners.max()) >= vertices:
        raise FormatError(f"a triangle of a mesh names vertex {corners.max()} of {vertices}")
    return FeatureMesh(points, corners, surfaces, colors, uv, image, textures)


class _Cut:
    def __init__(self, data: bytes, at: int) -> None:
        self.data, self.at = data, at

    def array(self, dtype: str, count: int) -> NDArray:  # type: ignore[type-arg]
        values = np.frombuffer(self.data, dtype, count, self.at)
        self.at += values.nbytes
        return values

    def image(self) -> Texture:
        length, kind = _IMAGE.unpack_from(self.data, self.at)
        start = self.at + _IMAGE.size
        self.at = start + length
        if self.at > len(self.data):
            raise ValueError("an image is cut short")
        return Texture(self.data[start : self.at], _MEDIA_TYPES[kind])


def decode_meshes(column: pa.ChunkedArray) -> Iterator[FeatureMesh | None]:
    """Yield the mesh of each row, None for null."""
    for value in column:
        yield None if not value.is_valid else decode_mesh(value.as_py())


def transform_meshes(column: pa.ChunkedArray, shift: Shift) -> pa.Array:
    """Return a column whose vertices were moved, all of them in one call.

    Args:
        column: of records.
        shift: (V,) x, y, z -> the same in another frame.
    """
    meshes = list(decode_meshes(column))
    own = [mesh for mesh in meshes if mesh is not None]
    if not own:
        return pa.array([None] * len(meshes), pa.large_binary())
    every = np.concatenate([mesh.vertices for mesh in own])
    moved = np.stack(shift(every[:, 0], every[:, 1], every[:, 2]), axis=1)
    parts = iter(np.split(moved, np.cumsum([len(mesh.vertices) for mesh in own])[:-1]))
    return pa.array(
        [
            None if mesh is None else encode_mesh(replace(mesh, vertices=next(parts)))
            for mesh in meshes
        ],
        pa.large_binary(),
    )


def mesh_heights(column: pa.ChunkedArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the lowest and the highest z of each row, (N,) each; NaN for null."""
    low, high = np.full((2, len(column)), np.nan)
    for row, mesh in enumerate(decode_meshes(column)):
        if mesh is not None and len(mesh.vertices):
            low[row], high[row] = mesh.vertices[:, 2].min(), mesh.vertices[:, 2].max()
    return low, high


def mesh_nbytes(column: pa.ChunkedArray) -> int:
    """Return the bytes of vertices and triangles in a column, images left out, roughly."""
    total = 0
    for value in column:
        if value.is_valid:
            _, vertices, triangles, _, _ = _HEADER.unpack_from(value.as_py())
            total += 24 * vertices + 12 * triangles
    return total
