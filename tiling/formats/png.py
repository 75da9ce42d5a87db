"""PNG of 8-bit pixels, written with libdeflate: lossless, the same bytes for the same pixels.

Rows are filtered as the PNG specification (W3C, third edition, §9 and §12.7) suggests: of the
filters None, Sub, Up and Paeth each row takes the one whose output has the smallest sum of
absolute values. All rows are tried at once, so a tile costs a few NumPy passes.
"""

from __future__ import annotations

import struct
import zlib

import deflate
import numpy as np
from numpy.typing import NDArray

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Colour type by the number of bands: grey, grey + alpha, RGB, RGBA.
_COLOUR = {1: 0, 2: 4, 3: 2, 4: 6}
_LEVEL, _FAST_LEVEL = 6, 1
# Filter type bytes of the candidates, in the order in which `_filtered` stacks them.
_FILTERS = np.array([0, 1, 2, 4], dtype=np.uint8)


def encode_png(pixels: NDArray[np.uint8], fast: bool = False) -> bytes:
    """Return a PNG file.

    Args:
        pixels: (rows, columns, bands) uint8, row 0 at the top; 1 band is grey, 2 grey and alpha,
            3 RGB, 4 RGBA.
        fast: for images made on request: the filter Up for every row and little effort, a tenth
            larger and ten times faster.

    Raises:
        ValueError: another type or number of bands, or no pixel at all.
    """
    if pixels.ndim != 3 or pixels.dtype != np.uint8 or pixels.shape[2] not in _COLOUR:
        raise ValueError(f"pixels of shape {pixels.shape} and type {pixels.dtype} are no image")
    rows, columns, bands = pixels.shape
    if not rows or not columns:
        raise ValueError("an image without pixels")
    header = struct.pack(">IIBBBBB", columns, rows, 8, _COLOUR[bands], 0, 0, 0)
    if fast:
        body = deflate.zlib_compress(_up(pixels).tobytes(), _FAST_LEVEL)
    else:
        body = deflate.zlib_compress(_filtered(pixels).tobytes(), _LEVEL)
    chunks = ((b"IHDR", header), (b"IDAT", bytes(body)), (b"IEND", b""))
    return _SIGNATURE + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _up(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return (rows, 1 + columns * bands) bytes: each row less the one above it."""
    rows = pixels.reshape(len(pixels), -1)
    out = np.empty((rows.shape[0], 1 + rows.shape[1]), dtype=np.uint8)
    out[:, 0] = 2
    out[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=out[1:, 1:])
    return out


def _filtered(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return (rows, 1 + columns * bands) bytes: each row behind the type of its filter."""
    rows, columns, bands = pixels.shape
    around = np.zeros((rows + 1, columns + 1, bands), dtype=np.int16)
    around[1:, 1:] = pixels
    left, up, corner = around[1:, :-1], around[:-1, 1:], around[:-1, :-1]
    wide = around[1:, 1:]
    # Paeth's predictor: of left, up and corner the one nearest to left + up - corner.
    to_left, to_up = np.abs(up - corner), np.abs(left - corner)
    to_corner = np.abs(left + up - 2 * corner)
    paeth = np.where(to_up <= to_corner, up, corner)
    paeth = np.where((to_left <= to_up) & (to_left <= to_corner), left, paeth)
    candidates = np.empty((4, rows, columns * bands), dtype=np.uint8)
    for k, predicted in enumerate((None, left, up, paeth)):
        residual = wide if predicted is None else wide - predicted
        candidates[k] = residual.astype(np.uint8).reshape(rows, -1)
    # The bytes as signed numbers: the measure of the specification.
    cost = np.abs(candidates.view(np.int8).astype(np.int16)).sum(axis=2, dtype=np.int64)
    best = cost.argmin(axis=0)
    out = np.empty((rows, 1 + columns * bands), dtype=np.uint8)
    out[:, 0] = _FILTERS[best]
    out[:, 1:] = candidates[best, np.arange(rows)]
    return out
