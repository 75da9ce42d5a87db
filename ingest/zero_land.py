"""Is land at exactly 0 m land, or are absent pixels written as 0? Decided on counts of pixels.

The one idea: the sea meets land at its own height, absent pixels meet it at a cliff. Zeros are
suspected where they are many, lie together, are walled nearly everywhere by heights that no shore
has, and where the rest of the land has next to nothing so low. Counts are added up window by
window, so memory is bounded and neither windows nor workers change the answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# A shore is lower than half a pixel beside the water's edge, or than 10 m where pixels are small;
# beyond 100 m nothing is near, however coarse the pixels are.
_SLOPE, _LEAST_M, _MOST_M = 0.5, 10.0, 100.0
_SHARE, _CLIFFS, _NEAR = 0.01, 0.95, 0.01
# A square of 40 x 40 pixels has 160 sides.
_COMPACT = 10


@dataclass(slots=True)
class ZeroLand:
    """Counts of pixels.

    Attributes:
        zeros: pixels of exactly 0.
        shores: pairs of neighbours of which one is 0 and the other is not.
        cliffs: those pairs of which the other is farther from 0 than a shore.
        near: pixels that are not 0 and no farther from it than a shore.
    """

    zeros: int = 0
    shores: int = 0
    cliffs: int = 0
    near: int = 0

    def add(self, other: ZeroLand) -> None:
        """Add what was counted elsewhere."""
        self.zeros += other.zeros
        self.shores += other.shores
        self.cliffs += other.cliffs
        self.near += other.near

    def count(self, heights: NDArray[Any], pixel_m: float) -> None:
        """Count a window.

        Args:
            heights: (rows + 1, columns + 1), metres, NaN where void: the window, and the next row
                and column, whose pixels are counted as neighbours alone.
            pixel_m: side of a pixel.
        """
        limit = shore_m(pixel_m)
        far = np.abs(heights)
        own = far[:-1, :-1]
        zeros = int(np.count_nonzero(own == 0))
        self.zeros += zeros
        self.near += int(np.count_nonzero(own <= limit)) - zeros
        zero = far == 0
        if not zero.any():
            return
        for beside in (np.s_[:-1, 1:], np.s_[1:, :-1]):
            # The other of a pair with one 0 is the sum of both; NaN compares to nothing.
            other = far[beside] + own
            shore = (zero[beside] != zero[:-1, :-1]) & (other > 0)
            self.shores += int(np.count_nonzero(shore))
            self.cliffs += int(np.count_nonzero(shore & (other > limit)))

    def is_suspect(self, valid: int) -> bool:
        """Say whether zeros look like absent pixels, among `valid` pixels with data."""
        rest = valid - self.zeros
        return (
            self.zeros > _SHARE * valid
            and 0 < self.shores * _COMPACT <= self.zeros
            and self.cliffs >= _CLIFFS * self.shores
            and self.near <= _NEAR * rest
        )


def shore_m(pixel_m: float) -> float:
    """Return how far from 0 m land beside the water is at most, metres."""
    return min(max(_SLOPE * pixel_m, _LEAST_M), _MOST_M)
