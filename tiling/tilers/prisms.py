"""Prisms: buildings, or blocks of them, as an outline with a bottom and a top.

They are what coarser levels of detail are made of: read from the vertices of the finer tiles,
generalised, and written as a tile again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Prisms:
    """N upright prisms, one outline each, without holes.

    Attributes:
        lonlat: (P, 2) float64 degrees, the outlines one after the other, counter-clockwise seen
            from above, without closing points.
        start: (N + 1,) int64, where each outline begins in `lonlat`.
        bottom_m, top_m: (N,) float64, metres above the ellipsoid.
        ids: (N,) int64, id of the (most voluminous) feature in it.
        features: (N,) int64, how many features it stands for; of a feature with several outlines
            one counts 1 and the others 0, so that the sum over a tile is its number of features.
    """

    lonlat: NDArray[np.float64]
    start: NDArray[np.int64]
    bottom_m: NDArray[np.float64]
    top_m: NDArray[np.float64]
    ids: NDArray[np.int64]
    features: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def joined(cls, parts: Sequence[Prisms]) -> Prisms:
        """Return the prisms of every part, in order."""
        counts = np.concatenate([np.diff(part.start) for part in parts])
        return cls(
            np.concatenate([part.lonlat for part in parts]),
            np.concatenate([[0], np.cumsum(counts)]),
            np.concatenate([part.bottom_m for part in parts]),
            np.concatenate([part.top_m for part in parts]),
            np.concatenate([part.ids for part in parts]),
            np.concatenate([part.features for part in parts]),
        )
