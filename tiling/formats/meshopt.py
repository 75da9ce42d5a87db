"""Bitstreams of EXT_meshopt_compression: vertex attributes, triangles, index sequences.

Written after the extension's specification (Khronos glTF, vendor extensions): attributes are
bytes' differences to the element before, bit-packed by sixteen; triangles refer to recent edges
and vertices; index sequences are differences to one of two recent values.

The kernels are compiled; they trust no length that the input states.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from tiling.errors import FormatError

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
    length = _encode_attributes(np.ascontiguousarray(data), out)
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
    if not _decode_attributes(source, out):
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
    length = _encode_triangles(indices, codes, extra, _CODE_TABLE)
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
    if not _decode_triangles(source, count, out):
        raise FormatError("meshopt-compressed triangles are damaged")
    return out.astype(np.uint32).reshape(-1, 3)


def encode_indices(values: NDArray[np.integer]) -> bytes:
    """Return a sequence of indices, encoded (mode INDICES).

    Args:
        values: (M,) integers below 2**32.
    """
    source = np.ascontiguousarray(values, dtype=np.int64)
    out = np.empty(len(source) * 5 + 1, dtype=np.uint8)
    length = _encode_indices(source, out)
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
    if not _decode_indices(source, out):
        raise FormatError("a meshopt-compressed index sequence is damaged")
    return out.astype(np.uint32)


@njit(cache=True)
def _block_elements(stride):  # type: ignore[no-untyped-def]
    return min((8192 // stride) & ~15, 256)


@njit(cache=True)
def _encode_attributes(data, out):  # type: ignore[no-untyped-def]
    count, stride = data.shape
    step = _block_elements(stride)
    out[0] = 0xA0
    pos = 1
    last = data[0].copy()
    deltas = np.zeros(256 + 16, dtype=np.uint8)
    for start in range(0, count, step):
        length = min(step, count - start)
        groups = (length + 15) // 16
        for k in range(stride):
            before = np.int64(last[k])
            for i in range(length):
                value = np.int64(data[start + i, k])
                delta = (value - before) & 0xFF
                deltas[i] = ((delta << 1) & 0xFF) ^ (0xFF if delta & 0x80 else 0)
                before = value
            for i in range(length, groups * 16):
                deltas[i] = 0
            header = pos
            pos += (groups + 3) // 4
            for i in range(header, pos):
                out[i] = 0
            for group in range(groups):
                first = group * 16
                zero, over2, over4 = True, 0, 0
                for i in range(first, first + 16):
                    zero = zero and deltas[i] == 0
                    over2 += deltas[i] >= 3
                    over4 += deltas[i] >= 15
                mode = 3
                if zero:
                    mode = 0
                elif 4 + over2 <= 8 + over4 and 4 + over2 < 16:
                    mode = 1
                elif 8 + over4 < 16:
                    mode = 2
                out[header + group // 4] |= mode << ((group % 4) * 2)
                if mode == 3:
                    for i in range(first, first + 16):
                        out[pos] = deltas[i]
                        pos += 1
                elif mode > 0:
                    bits = 2 if mode == 1 else 4
                    limit = (1 << bits) - 1
                    per_byte = 8 // bits
                    for i in range(first, first + 16, per_byte):
                        packed = 0
                        for j in range(per_byte):
                            small = int(deltas[i + j])
                            packed = (packed << bits) | (small if small < limit else limit)
                        out[pos] = packed
                        pos += 1
                    for i in range(first, first + 16):
                        if deltas[i] >= limit:
                            out[pos] = deltas[i]
                            pos += 1
            last[k] = data[start + length - 1, k]
    for _ in range(stride, 32):
        out[pos] = 0
        pos += 1
    for k in range(stride):
        out[pos] = data[0, k]
        pos += 1
    return pos


@njit(cache=True)
def _decode_attributes(source, out):  # type: ignore[no-untyped-def]
    count, stride = out.shape
    tail = max(stride, 32)
    end = len(source) - tail
    if end < 1:
        return False
    step = _block_elements(stride)
    last = source[len(source) - stride :].copy()
    deltas = np.zeros(256 + 16, dtype=np.uint8)
    pos = 1
    for start in range(0, count, step):
        length = min(step, count - start)
        groups = (length + 15) // 16
        for k in range(stride):
            header = pos
            pos += (groups + 3) // 4
            if pos > end:
                return False
            for group in range(groups):
                first = group * 16
                mode = (source[header + group // 4] >> ((group % 4) * 2)) & 3
                if mode == 0:
                    for i in range(first, first + 16):
                        deltas[i] = 0
                elif mode == 3:
                    if pos + 16 > end:
                        return False
                    for i in range(first, first + 16):
                        deltas[i] = source[pos]
                        pos += 1
                else:
                    bits = 2 if mode == 1 else 4
                    limit = (1 << bits) - 1
                    per_byte = 8 // bits
                    packed_at = pos
                    pos += 16 // per_byte
                    if pos > end:
                        return False
                    for i in range(16):
                        packed = np.int64(source[packed_at + i // per_byte])
                        value = (packed >> (8 - bits - bits * (i % per_byte))) & limit
                        if value == limit:
                            if pos >= end:
                                return False
                            value = np.int64(source[pos])
                            pos += 1
                        deltas[first + i] = value
            before = np.int64(last[k])
            for i in range(length):
                delta = np.int64(deltas[i])
                before = (before + ((delta >> 1) ^ -(delta & 1))) & 0xFF
                out[start + i, k] = before
            last[k] = before
    return pos == end


@njit(cache=True)
def _find_vertex(fifo, offset, vertex):  # type: ignore[no-untyped-def]
    for i in range(16):
        if fifo[(offset - 1 - i) & 15] == vertex:
            return i
    return -1


@njit(cache=True)
def _find_edge(fifo, offset, a, b, c):  # type: ignore[no-untyped-def]
    for i in range(16):
        at = (offset - 1 - i) & 15
        x, y = fifo[at, 0], fifo[at, 1]
        if x == a and y == b:
            return i * 4
        if x == b and y == c:
            return i * 4 + 1
        if x == c and y == a:
            return i * 4 + 2
    return -1


@njit(cache=True)
def _put_difference(out, pos, value, last):  # type: ignore[no-untyped-def]
    delta = value - last
    rest = ((delta << 1) ^ (delta >> 63)) & 0xFFFFFFFF
    return _put_varint(out, pos, rest)


@njit(cache=True)
def _put_varint(out, pos, rest):  # type: ignore[no-untyped-def]
    while rest > 127:
        out[pos] = (rest & 127) | 128
        rest >>= 7
        pos += 1
    out[pos] = rest
    return pos + 1


@njit(cache=True)
def _encode_triangles(indices, codes, extra, table):  # type: ignore[no-untyped-def]
    edges = np.full((16, 2), -1, dtype=np.int64)
    vertices = np.full(16, -1, dtype=np.int64)
    edge_at = vertex_at = 0
    following = last = 0
    pos = 0
    for i in range(len(codes)):
        a, b, c = indices[3 * i], indices[3 * i + 1], indices[3 * i + 2]
        found = _find_edge(edges, edge_at, a, b, c)
        if found >= 0 and found >> 2 < 15:
            turn = found & 3
            if turn == 1:
                a, b, c = b, c, a
            elif turn == 2:
                a, b, c = c, a, b
            recent = _find_vertex(vertices, vertex_at, c)
            code = 15
            if 1 <= recent < 13:
                code = recent
            elif c == following:
                following += 1
                code = 0
            if code == 15:
                if c + 1 == last:
                    code, last = 13, c
                elif c == last + 1:
                    code, last = 14, c
            codes[i] = (found >> 2) << 4 | code
            if code == 15:
                pos = _put_difference(extra, pos, c, last)
                last = c
            if code == 0 or code >= 13:
                vertices[vertex_at] = c
                vertex_at = (vertex_at + 1) & 15
            edges[edge_at, 0], edges[edge_at, 1] = c, b
            edge_at = (edge_at + 1) & 15
            edges[edge_at, 0], edges[edge_at, 1] = a, c
            edge_at = (edge_at + 1) & 15
            continue
        if b == following:
            a, b, c = b, c, a
        elif c == following:
            a, b, c = c, a, b
        restart = a == 0 and b == 1 and c == 2 and following > 0
        if restart:
            following = 0
            vertices[:] = -1
        recent_b = _find_vertex(vertices, vertex_at, b)
        recent_c = _find_vertex(vertices, vertex_at, c)
        code_a = 15
        if a == following:
            following += 1
            code_a = 0
        code_b = 15
        if 0 <= recent_b < 14:
            code_b = recent_b + 1
        elif b == following:
            following += 1
            code_b = 0
        code_c = 15
        if 0 <= recent_c < 14:
            code_c = recent_c + 1
        elif c == following:
            following += 1
            code_c = 0
        pair = code_b << 4 | code_c
        known = -1
        for j in range(14):
            if table[j] == pair:
                known = j
                break
        if code_a == 0 and known >= 0 and not restart:
            codes[i] = 0xF0 | known
        else:
            codes[i] = 0xF0 | 14 | code_a
            extra[pos] = pair
            pos += 1
        if code_a == 15:
            pos = _put_difference(extra, pos, a, last)
            last = a
        if code_b == 15:
            pos = _put_difference(extra, pos, b, last)
            last = b
        if code_c == 15:
            pos = _put_difference(extra, pos, c, last)
            last = c
        if code_a == 0 or code_a == 15:
            vertices[vertex_at] = a
            vertex_at = (vertex_at + 1) & 15
        if code_b == 0 or code_b == 15:
            vertices[vertex_at] = b
            vertex_at = (vertex_at + 1) & 15
        if code_c == 0 or code_c == 15:
            vertices[vertex_at] = c
            vertex_at = (vertex_at + 1) & 15
        for x, y in ((b, a), (c, b), (a, c)):
            edges[edge_at, 0], edges[edge_at, 1] = x, y
            edge_at = (edge_at + 1) & 15
    return pos


@njit(cache=True)
def _get_varint(source, pos, end):  # type: ignore[no-untyped-def]
    value = np.int64(0)
    for shift in range(0, 35, 7):
        if pos >= end:
            return np.int64(0), np.int64(-1)
        byte = np.int64(source[pos])
        pos += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & 0xFFFFFFFF, np.int64(pos)
    return np.int64(0), np.int64(-1)


@njit(cache=True)
def _get_difference(source, pos, end, last):  # type: ignore[no-untyped-def]
    value, pos = _get_varint(source, pos, end)
    return (last + ((value >> 1) ^ -(value & 1))) & 0xFFFFFFFF, pos


@njit(cache=True)
def _decode_triangles(source, count, out):  # type: ignore[no-untyped-def]
    edges = np.full((16, 2), -1, dtype=np.int64)
    vertices = np.full(16, -1, dtype=np.int64)
    edge_at = vertex_at = 0
    following = np.int64(0)
    last = np.int64(0)
    pos = np.int64(1 + count)
    end = len(source) - 16
    table = source[end:]
    for i in range(count):
        code = np.int64(source[1 + i])
        if code < 0xF0:
            at = (edge_at - 1 - (code >> 4)) & 15
            a, b = edges[at, 0], edges[at, 1]
            low = code & 15
            if low == 0:
                c = following
                following += 1
            elif low < 13:
                c = vertices[(vertex_at - 1 - low) & 15]
            elif low < 15:
                c = last + (1 if low == 14 else -1)
                last = c
            else:
                c, pos = _get_difference(source, pos, end, last)
                if pos < 0:
                    return False
                last = c
            if low == 0 or low >= 13:
                vertices[vertex_at] = c
                vertex_at = (vertex_at + 1) & 15
            edges[edge_at, 0], edges[edge_at, 1] = c, b
            edge_at = (edge_at + 1) & 15
            edges[edge_at, 0], edges[edge_at, 1] = a, c
            edge_at = (edge_at + 1) & 15
        else:
            if code < 0xFE:
                pair = np.int64(table[code & 15])
                code_a = 0
            else:
                if pos >= end:
                    return False
                pair = np.int64(source[pos])
                pos += 1
                code_a = 0 if code == 0xFE else 15
                if pair == 0 and code_a == 0:
                    following = np.int64(0)
            code_b, code_c = pair >> 4, pair & 15
            a = np.int64(0)
            b = np.int64(0)
            c = np.int64(0)
            if code_a == 0:
                a = following
                following += 1
            if code_b == 0:
                b = following
                following += 1
            elif code_b < 15:
                b = vertices[(vertex_at - code_b) & 15]
            if code_c == 0:
                c = following
                following += 1
            elif code_c < 15:
                c = vertices[(vertex_at - code_c) & 15]
            if code_a == 15:
                a, pos = _get_difference(source, pos, end, last)
                if pos < 0:
                    return False
                last = a
            if code_b == 15:
                b, pos = _get_difference(source, pos, end, last)
                if pos < 0:
                    return False
                last = b
            if code_c == 15:
                c, pos = _get_difference(source, pos, end, last)
                if pos < 0:
                    return False
                last = c
            vertices[vertex_at] = a
            vertex_at = (vertex_at + 1) & 15
            if code_b == 0 or code_b == 15:
                vertices[vertex_at] = b
                vertex_at = (vertex_at + 1) & 15
            if code_c == 0 or code_c == 15:
                vertices[vertex_at] = c
                vertex_at = (vertex_at + 1) & 15
            for x, y in ((b, a), (c, b), (a, c)):
                edges[edge_at, 0], edges[edge_at, 1] = x, y
                edge_at = (edge_at + 1) & 15
        if a < 0 or b < 0 or c < 0:
            return False
        out[3 * i], out[3 * i + 1], out[3 * i + 2] = a, b, c
    return pos == end


@njit(cache=True)
def _encode_indices(values, out):  # type: ignore[no-untyped-def]
    recent = np.zeros(2, dtype=np.int64)
    current = 0
    pos = 0
    for value in values:
        if abs(value - recent[current]) >= 30:
            current ^= 1
        delta = value - recent[current]
        zigzag = ((delta << 1) ^ (delta >> 63)) & 0xFFFFFFFF
        pos = _put_varint(out, pos, zigzag << 1 | current)
        recent[current] = value
    return pos


@njit(cache=True)
def _decode_indices(source, out):  # type: ignore[no-untyped-def]
    recent = np.zeros(2, dtype=np.int64)
    pos = np.int64(1)
    end = len(source) - 4
    for i in range(len(out)):
        value, pos = _get_varint(source, pos, end)
        if pos < 0:
            return False
        current = value & 1
        value >>= 1
        recent[current] = (recent[current] + ((value >> 1) ^ -(value & 1))) & 0xFFFFFFFF
        out[i] = recent[current]
    return pos == end
