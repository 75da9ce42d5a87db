"""Which building is drawn from how far: every building gets the level of its tile.

The one idea: going down from the roots, each cell keeps the most voluminous buildings that fit
its budget and hands the rest to its children, so a view from afar shows what shapes the skyline
and every building is present exactly once (ADD refinement).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tiling.tilers.quadtree import DEEPEST_LEVEL

# A cell whose rest exceeds its budget by less than this takes all: no tiles of three buildings.
_SLACK = 1.5


@dataclass(frozen=True, slots=True)
class Budget:
    """What a tile may hold.

    Attributes:
        features: buildings.
        vertices: vertices of their mesh; one building may exceed it alone.
    """

    features: int
    vertices: int


class Candidates(NamedTuple):
    """What the choice of a level needs of N features, 32 bytes each.

    Attributes:
        deepest: (N,) uint64, Morton index of the feature's cell at `DEEPEST_LEVEL`.
        ids: (N,) int64; breaks ties of volume, so that the order of the input never shows.
        volume: (N,) float64, importance in any unit.
        vertices: (N,) int64, vertices of the feature's mesh.
    """

    deepest: NDArray[np.uint64]
    ids: NDArray[np.int64]
    volume: NDArray[np.float64]
    vertices: NDArray[np.int64]

    @classmethod
    def joined(cls, parts: Sequence[Candidates]) -> Candidates:
        """Return the features of every part, in order."""
        return cls(
            np.concatenate([part.deepest for part in parts]),
            np.concatenate([part.ids for part in parts]),
            np.concatenate([part.volume for part in parts]),
            np.concatenate([part.vertices for part in parts]),
        )

    def take(self, index: NDArray[np.intp]) -> Candidates:
        """Return the features at (M,) positions."""
        return Candidates(
            self.deepest[index], self.ids[index], self.volume[index], self.vertices[index]
        )


def assign_levels(
    features: Candidates, budget: Budget, min_level: int, max_level: int
) -> NDArray[np.uint8]:
    """Return the level of each of N features: (N,) uint8.

    Args:
        features: N features.
        budget: of a tile; cells of `max_level` take whatever is left.
        min_level, max_level: levels that may hold tiles.
    """
    deepest, ids, volume, vertices = features
    level_of = np.full(len(deepest), max_level, dtype=np.uint8)
    rest = np.lexsort((ids, -volume))
    for level in range(min_level, max_level):
        cell = deepest[rest] >> np.uint64(2 * (DEEPEST_LEVEL - level))
        grouped = rest[np.argsort(cell, kind="stable")]
        taken = _take(
            deepest[grouped] >> np.uint64(2 * (DEEPEST_LEVEL - level)), vertices[grouped], budget
        )
        level_of[grouped[taken]] = level
        kept = np.zeros(len(deepest), dtype=bool)
        kept[grouped[~taken]] = True
        rest = rest[kept[rest]]
        if not len(rest):
            break
    return level_of


def _take(
    cell: NDArray[np.uint64], vertices: NDArray[np.int64], budget: Budget
) -> NDArray[np.bool_]:
    """Say which of the features, grouped by cell and most important first, a cell takes."""
    start = np.flatnonzero(np.append(True, cell[1:] != cell[:-1]))
    size = np.diff(np.append(start, len(cell)))
    group = np.repeat(np.arange(len(start)), size)
    rank = np.arange(len(cell)) - start[group]
    running = np.cumsum(vertices)
    before = running - vertices
    used = running - before[start][group]
    total = used[start + size - 1]
    whole = (size <= _SLACK * budget.features) & (total <= _SLACK * budget.vertices)
    # Ranks are taken as a prefix: a smaller building never overtakes one that did not fit.
    fits = (rank < budget.features) & ((used <= budget.vertices) | (rank == 0))
    taken: NDArray[np.bool_] = fits | whole[group]
    return taken
