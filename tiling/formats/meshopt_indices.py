"""Compiled loops of `meshopt`: triangles and index sequences, both version 1.

A triangle is one byte where it shares an edge with one of the last sixteen edges, or is made of
recent vertices or of the next unused one; what is neither follows as a difference to the last such
index.
"""

from __future__ import annotations

import numpy as np

from tiling.kernels import njit


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
def encode_triangles(indices, codes, extra, table):  # type: ignore[no-untyped-def]
    """Write triangles; return the length of what follows their codes.

    Args:
        indices: (3 T,) int64.
        codes: (T,) uint8, filled.
        extra: (16 T,) uint8, filled as far as needed.
        table: (16,) uint8, the pairs that have a code of their own.
    """
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
def decode_triangles(source, count, out):  # type: ignore[no-untyped-def]
    """Fill `out`, (3 `count`,) int64, from a stream with its header; return whether it fits.

    The stream is at least 17 + `count` bytes long.
    """
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
def encode_sequence(values, out):  # type: ignore[no-untyped-def]
    """Write (M,) int64 indices to `out`, (5 M + 1,) uint8; return the length."""
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
def decode_sequence(source, out):  # type: ignore[no-untyped-def]
    """Fill `out`, (M,) int64, from a stream with its header and tail; return whether it fits."""
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
