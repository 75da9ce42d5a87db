"""Bitstreams of EXT_meshopt_compression: vertex attributes, triangles, index sequences.

Written after the extension's specification (Khronos glTF, vendor extensions): attributes are
bytes' differences to the element before, bit-packed by sixteen; triangles refer to recent edges
and vertices; index sequences are differences to one of two recent values.

The loops over bytes are compiled (`meshopt_vertices`, `meshopt_indices`); they trust no length that
the input states.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tiling.errors import FormatError
from tiling.formats import meshopt_indices, meshopt_vertices

ATTRIBUTES, TRIANGLES, INDICES = "ATTRIBUTES", "TRIANGLES", "INDICES"
_ATTRIBUTES_HEADER, _TRIANGLES_HEADER, _INDICES_HEADER = 0xA0, 0xE1, 0xD1
_GROUP = 16
_MIN_TAIL = 32
_TABLE_NBYTES, _SEQUENCE_TAIL = 16, 4
# Pairs of vertex references that follow a new vertex most often, as the reference encoder has them.
_CODE_TABLE = np.array(
    [
        0x00, 0x76, 0x87, 0x56, 0x67, 0x78, 0xA9, 0x86, 0x65, 0x89, 0x68, 0x98, 0x01, 0x69, 0, 0,
    ],
    dtype=np.uint8,
)  # fmt: skip


def encode_attributes(data: NDArray[np.uint8]) -> bytes:
    """Return vertex attributes, encoded (mode ATTRIBUTES).

    Args:
        data: (N, stride) uint8; stride a multiple of 4, at most 256.

    Raises:
        ValueError: the stride is none of these, or there is no element.
    """
    count, stride = data.shape
    if not count or stride % 4 or not 0 < stride <= 256:
        raise ValueError(f"{count} elements of {stride} bytes cannot be encoded")
    # A group of sixteen takes at most sixteen bytes, and a quarter byte in the header.
    groups = -(-count // _GROUP) + _GROUP
    out = np.zeros(1 + stride * (groups * 17 + 64) + max(stride, _MIN_TAIL), dtype=np.uint8)
    length = meshopt_vertices.encode(np.ascontiguousarray(data), out)
    return out[:length].tobytes()


def decode_attributes(data: bytes, count: int, stride: int) -> NDArray[np.uint8]:
    """Return the (count, stride) uint8 that `encode_attributes` encoded.

    Raises:
        FormatError: the data is cut short or is something else.
    """
    if stride % 4 or not 0 < stride <= 256 or count < 0:
        raise FormatError(f"vertex attributes of {stride} bytes cannot be meshopt-compressed")
    out = np.zeros((count, stride), dtype=np.uint8)
    source = np.frombuffer(data, dtype=np.uint8)
    if not len(source) or source[0] != _ATTRIBUTES_HEADER:
        raise FormatError("not meshopt-compressed vertex attributes of version 0")
    if not meshopt_vertices.decode(source, out):
        raise FormatError("meshopt-compressed vertex attributes are damaged")
    return out


def encode_triangles(triangles: NDArray[np.integer]) -> bytes:
    """Return triangles, encoded (mode TRIANGLES); corners may be rotated, the order stays.

    Args:
        triangles: (T, 3) integers below 2**32.
    """
    indices = np.ascontiguousarray(triangles, dtype=np.int64).reshape(-1)
    count = len(indices) // 3
    codes = np.empty(count, dtype=np.uint8)
    # One byte for the pair, and at most five for each of three corners.
    extra = np.empty(count * 16, dtype=np.uint8)
    length = meshopt_indices.encode_triangles(indices, codes, extra, _CODE_TABLE)
    header = bytes([_TRIANGLES_HEADER])
    return header + codes.tobytes() + extra[:length].tobytes() + _CODE_TABLE.tobytes()


def decode_triangles(data: bytes, count: int) -> NDArray[np.uint32]:
    """Return the (count, 3) uint32 triangles that `encode_triangles` encoded.

    Raises:
        FormatError: the data is cut short or is something else.
    """
    source = np.frombuffer(data, dtype=np.uint8)
    if len(source) < 1 + count + _TABLE_NBYTES or source[0] != _TRIANGLES_HEADER:
        raise FormatError("not meshopt-compressed triangles of version 1")
    out = np.zeros(count * 3, dtype=np.int64)
    if not meshopt_indices.decode_triangles(source, count, out):
        raise FormatError("meshopt-compressed triangles are damaged")
    return out.astype(np.uint32).reshape(-1, 3)


def encode_indices(values: NDArray[np.integer]) -> bytes:
    """Return a sequence of indices, encoded (mode INDICES).

    Args:
        values: (M,) integers below 2**32.
    """
    source = np.ascontiguousarray(values, dtype=np.int64)
    out = np.empty(len(source) * 5 + 1, dtype=np.uint8)
    length = meshopt_indices.encode_sequence(source, out)
    return bytes([_INDICES_HEADER]) + out[:length].tobytes() + bytes(_SEQUENCE_TAIL)


def decode_indices(data: bytes, count: int) -> NDArray[np.uint32]:
    """Return the (count,) uint32 that `encode_indices` encoded.

    Raises:
        FormatError: the data is cut short or is something else.
    """
    source = np.frombuffer(data, dtype=np.uint8)
    if len(source) < 1 + count + _SEQUENCE_TAIL or source[0] != _INDICES_HEADER:
        raise FormatError("not a meshopt-compressed index sequence of version 1")
    out = np.zeros(count, dtype=np.int64)
    if not meshopt_indices.decode_sequence(source, out):
        raise FormatError("a meshopt-compressed index sequence is damaged")
    return out.astype(np.uint32)
