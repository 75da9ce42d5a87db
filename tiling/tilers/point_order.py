"""The order of points by keys of 64 bits: a radix sort, eleven bits at a time.

Only bits in which keys differ are looked at, and there are few of them in the keys of a column.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tiling.kernels import njit

_DIGIT_BITS = 11


def by_key(keys: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.uint32]]:
    """Return keys in ascending order, and the rows they came from; equal ones keep their order.

    Args:
        keys: (N,) uint64, fewer than 2**32.
    """
    ordered, rows = keys, np.arange(len(keys), dtype=np.uint32)
    if not len(keys):
        return ordered, rows
    differ = int(np.bitwise_or.reduce(keys) ^ np.bitwise_and.reduce(keys))
    spare = np.empty_like(keys), np.empty_like(rows)
    for shift in range(0, differ.bit_length(), _DIGIT_BITS):
        if not (differ >> shift) & ((1 << _DIGIT_BITS) - 1):
            continue
        into = spare
        # The caller's keys stay as they are.
        spare = (np.empty_like(keys) if ordered is keys else ordered), rows
        _by_digit(ordered, rows, np.uint64(shift), *into)
        ordered, rows = into
    return ordered, rows


@njit(cache=True)
def _by_digit(keys, rows, shift, keys_out, rows_out):  # type: ignore[no-untyped-def]
    """Put keys and rows into the order of one digit, those of equal digits as they come."""
    size = 1 << _DIGIT_BITS
    mask = np.uint64(size - 1)
    ends = np.zeros(size + 1, dtype=np.int64)
    for i in range(len(keys)):
        ends[np.int64((keys[i] >> shift) & mask) + 1] += 1
    for k in range(size):
        ends[k + 1] += ends[k]
    for i in range(len(keys)):
        digit = np.int64((keys[i] >> shift) & mask)
        at = ends[digit]
        ends[digit] = at + 1
        keys_out[at] = keys[i]
        rows_out[at] = rows[i]
