"""Protocol Buffers varints (LEB128, seven bits a byte, least significant first), arrays at a time.

https://protobuf.dev/programming-guides/encoding/ — the same encoding serves vector tiles and the
directories of PMTiles.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tiling.errors import FormatError
from tiling.formats.ragged import RaggedBytes

_MAX_BYTES = 10


def zigzag(values: ArrayLike) -> NDArray[np.uint64]:
    """Map signed to unsigned so that small magnitudes stay small: 0, -1, 1, -2 -> 0, 1, 2, 3.

    Args:
        values: (N,) int64.

    Returns:
        (N,) uint64.
    """
    v = np.asarray(values, dtype=np.int64)
    return ((v << np.int64(1)) ^ (v >> np.int64(63))).view(np.uint64)


def unzigzag(values: ArrayLike) -> NDArray[np.int64]:
    """Return the signed (N,) int64 that `zigzag` mapped to (N,) uint64."""
    v = np.asarray(values, dtype=np.uint64)
    return (v >> np.uint64(1)).view(np.int64) ^ -(v & np.uint64(1)).view(np.int64)


def encode_varints(values: ArrayLike) -> RaggedBytes:
    """Encode each value as a varint.

    Args:
        values: (N,) uint64.

    Returns:
        N rows of 1 to 10 bytes.
    """
    v = np.ascontiguousarray(values, dtype=np.uint64)
    lengths = np.ones(len(v), dtype=np.int64)
    rest = v >> np.uint64(7)
    while rest.any():
        lengths += rest != 0
        rest >>= np.uint64(7)
    starts = np.cumsum(lengths) - lengths
    data = np.empty(int(lengths.sum()), dtype=np.uint8)
    for place in range(int(lengths.max(initial=0))):
        rows = np.flatnonzero(lengths > place)
        septet = (v[rows] >> np.uint64(7 * place)) & np.uint64(0x7F)
        more = (lengths[rows] > place + 1).astype(np.uint64) << np.uint64(7)
        data[starts[rows] + place] = (septet | more).astype(np.uint8)
    return RaggedBytes(data, lengths)


def decode_varints(data: bytes | NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Decode a buffer that holds nothing but varints.

    Args:
        data: the bytes; ``(M,)`` uint8 is taken as it is.

    Returns:
        (N,) uint64.

    Raises:
        FormatError: the last varint is cut off, or one is longer than 64 bits.
    """
    raw = np.frombuffer(data, dtype=np.uint8) if isinstance(data, bytes) else data
    if len(raw) == 0:
        return np.empty(0, dtype=np.uint64)
    stops = np.flatnonzero(raw < 0x80) + 1
    if len(stops) == 0 or stops[-1] != len(raw):
        raise FormatError(f"the last of the varints in {len(raw)} bytes is cut off")
    starts = np.concatenate(([0], stops[:-1]))
    lengths = stops - starts
    if int(lengths.max()) > _MAX_BYTES:
        raise FormatError(f"a varint of {int(lengths.max())} bytes exceeds 64 bits")
    values = np.zeros(len(starts), dtype=np.uint64)
    for place in range(int(lengths.max())):
        rows = np.flatnonzero(lengths > place)
        septet = raw[starts[rows] + place].astype(np.uint64) & np.uint64(0x7F)
        values[rows] |= septet << np.uint64(7 * place)
    return values
