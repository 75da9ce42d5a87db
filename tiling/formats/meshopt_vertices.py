"""Compiled loops of `meshopt`: vertex attributes, version 0.

Elements are cut into blocks; in a block, every byte of the element is a row of differences to the
element before, in groups of sixteen of 0, 2, 4 or 8 bits each. The first element stands at the end.
"""

from __future__ import annotations

import numpy as np

from tiling.kernels import njit


@njit(cache=True)
def _block_elements(stride):  # type: ignore[no-untyped-def]
    return min((8192 // stride) & ~15, 256)


@njit(cache=True)
def encode(data, out):  # type: ignore[no-untyped-def]
    """Write (N, stride) uint8 to `out`, long enough for the worst case; return the length."""
    count, stride = data.shape
    step = _block_elements(stride)
    out[0] = 0xA0
    pos = 1
    last = data[0].copy()
    # A byte of every element, the one of the element before the block first.
    plain = np.zeros(1 + 256, dtype=np.uint8)
    deltas = np.zeros(256 + 16, dtype=np.uint8)
    for start in range(0, count, step):
        length = min(step, count - start)
        groups = (length + 15) // 16
        for k in range(stride):
            plain[0] = last[k]
            for i in range(length):
                plain[i + 1] = data[start + i, k]
            last[k] = plain[length]
            some = np.uint8(0)
            for i in range(length):
                delta = np.uint8(plain[i + 1] - plain[i])
                delta = np.uint8(np.uint8(delta << 1) ^ np.uint8(0 - np.uint8(delta >> 7)))
                deltas[i] = delta
                some |= delta
            header = pos
            pos += (groups + 3) // 4
            for i in range(header, pos):
                out[i] = 0
            if some == 0:
                continue
            for i in range(length, groups * 16):
                deltas[i] = 0
            for group in range(groups):
                first = group * 16
                some, over2, over4 = np.uint8(0), np.uint8(0), np.uint8(0)
                for i in range(first, first + 16):
                    some |= deltas[i]
                    over2 = np.uint8(over2 + np.uint8(deltas[i] >= 3))
                    over4 = np.uint8(over4 + np.uint8(deltas[i] >= 15))
                mode = 3
                if some == 0:
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
    for _ in range(stride, 32):
        out[pos] = 0
        pos += 1
    for k in range(stride):
        out[pos] = data[0, k]
        pos += 1
    return pos


@njit(cache=True)
def decode(source, out):  # type: ignore[no-untyped-def]
    """Fill `out`, (N, stride) uint8, from a stream with its header; return whether it fits."""
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
            some = np.uint8(0)
            for i in range(header, pos):
                some |= source[i]
            if some == 0:
                for i in range(length):
                    out[start + i, k] = last[k]
                continue
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
            before = last[k]
            for i in range(length):
                delta = deltas[i]
                step_back = np.uint8(0 - np.uint8(delta & 1))
                before = np.uint8(before + np.uint8(np.uint8(delta >> 1) ^ step_back))
                out[start + i, k] = before
            last[k] = before
    return pos == end
