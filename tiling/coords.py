"""Tile coordinates and their Morton (Z-order) keys.

A coordinate is (level, x, y); which row is north belongs to the scheme
(`tiling.schemes`), not to the coordinate.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


class TileCoord(NamedTuple):
    """A cell of a quadtree: ``level`` from 0 at the root, ``x`` and ``y`` in 0 .. 2**level - 1."""

    level: int
    x: int
    y: int

    def parent(self) -> TileCoord:
        """Return the cell one level up."""
        return TileCoord(self.level - 1, self.x >> 1, self.y >> 1)

    def children(self) -> Iterator[TileCoord]:
        """Yield the four cells one level down, in Morton order."""
        for dy in (0, 1):
            for dx in (0, 1):
                yield TileCoord(self.level + 1, 2 * self.x + dx, 2 * self.y + dy)

    def morton(self) -> int:
        """Return the Morton index of the cell within its level (x in the even bits)."""
        return int(morton2(np.uint64(self.x), np.uint64(self.y)))


def _spread(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    # Interleave zeros: the classic "binary magic numbers" bit spread for 32 -> 64 bits.
    v = values & np.uint64(0xFFFFFFFF)
    for shift, mask in (
        (16, 0x0000FFFF0000FFFF),
        (8, 0x00FF00FF00FF00FF),
        (4, 0x0F0F0F0F0F0F0F0F),
        (2, 0x3333333333333333),
        (1, 0x5555555555555555),
    ):
        v = (v | (v << np.uint64(shift))) & np.uint64(mask)
    return v


def _gather(keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    v = keys & np.uint64(0x5555555555555555)
    for shift, mask in (
        (1, 0x3333333333333333),
        (2, 0x0F0F0F0F0F0F0F0F),
        (4, 0x00FF00FF00FF00FF),
        (8, 0x0000FFFF0000FFFF),
        (16, 0x00000000FFFFFFFF),
    ):
        v = (v | (v >> np.uint64(shift))) & np.uint64(mask)
    return v


def morton2(x: ArrayLike, y: ArrayLike) -> NDArray[np.uint64]:
    """Interleave the bits of two coordinates below 2**32.

    Args:
        x: (N,) unsigned integers; they take the even bits.
        y: (N,) unsigned integers; they take the odd bits.

    Returns:
        (N,) uint64 keys.
    """
    xs = _spread(np.asarray(x, dtype=np.uint64))
    ys = _spread(np.asarray(y, dtype=np.uint64))
    return xs | (ys << np.uint64(1))


def unmorton2(keys: ArrayLike) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return the (x, y) that `morton2` interleaved: two (N,) uint64 arrays."""
    k = np.asarray(keys, dtype=np.uint64)
    return _gather(k), _gather(k >> np.uint64(1))
