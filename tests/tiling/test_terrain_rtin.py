"""Which nodes a mesh needs: beside a slow reference, and independent of the window."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from tiling.tilers.terrain_rtin import HALF_QUANTUM, SUB, classify

CELLS = 16
TOLERANCES = np.array([40, 120, 400])


def land(rows: int, columns: int, roughness: int, seed: int) -> np.ndarray:
    """Hills that are rough in places and flat in others."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:rows, 0:columns]
    hills = 9000 + 900 * np.sin(x / 11 + seed) * np.cos(y / 7)
    noise = rng.integers(-roughness, roughness + 1, (rows, columns)) * (np.sin(x / 23) > 0.3)
    spikes = (rng.random((rows, columns)) > 0.998) * rng.integers(-900, 900, (rows, columns))
    return np.clip(hills + noise + spikes, 0, 32767 * SUB).astype(np.int32)


def decoded(height: int) -> int:
    return (height + HALF_QUANTUM) // SUB * SUB


class Reference:
    """The definition, word by word, with triangles as point sets and planes as equations."""

    def __init__(self, fine: np.ndarray, x0: int, y0: int) -> None:
        self.fine, self.x0, self.y0 = fine, x0, y0
        self.error = cache(self._error)

    def scale(self, x: int, y: int) -> int:
        both = (x + self.x0) | (y + self.y0)
        return both & -both

    def triangles(self, x: int, y: int) -> list[tuple[tuple[int, int], ...]]:
        s = self.scale(x, y)
        u, v = (x + self.x0) // s, (y + self.y0) // s
        if u % 2 and v % 2:
            corners = [(x - s, y - s), (x + s, y - s), (x + s, y + s), (x - s, y + s)]

            def odd(p: tuple[int, int]) -> tuple[int, int]:
                return (p[0] + self.x0) // (2 * s) % 2, (p[1] + self.y0) // (2 * s) % 2

            a, b = [p for p in corners if odd(p) in ((0, 0), (1, 1))]
            c, d = [p for p in corners if odd(p) not in ((0, 0), (1, 1))]
        elif u % 2:
            a, b, c, d = (x - s, y), (x + s, y), (x, y + s), (x, y - s)
        else:
            a, b, c, d = (x, y - s), (x, y + s), (x - s, y), (x + s, y)
        return [(a, b, c), (a, b, d)]

    def children(self, x: int, y: int) -> list[tuple[int, int]]:
        s = self.scale(x, y)
        if (x + self.x0) // s % 2 and (y + self.y0) // s % 2:
            return [(x - s, y), (x + s, y), (x, y - s), (x, y + s)]
        h = s // 2
        return [(x + i, y + j) for i in (-h, h) for j in (-h, h)] if h else []

    def own(self, x: int, y: int) -> float:
        worst = 0.0
        s = self.scale(x, y)
        for a, b, c in self.triangles(x, y):
            matrix = np.array([[px, py, 1] for px, py in (a, b, c)], dtype=float)
            heights = [decoded(int(self.fine[py, px])) for px, py in (a, b, c)]
            plane = np.linalg.solve(matrix, heights)
            for py in range(y - s, y + s + 1):
                for px in range(x - s, x + s + 1):
                    t = np.linalg.solve(matrix.T, np.array([px, py, 1.0]))
                    if (t > -1e-9).all():
                        off = abs(plane @ [px, py, 1] - self.fine[py, px])
                        # At the corners only rounding is left, which no mesh can mend.
                        worst = max(worst, off if (t < 1 - 1e-9).all() else 0.0)
        return worst

    def _error(self, x: int, y: int) -> float:
        return max([self.own(x, y), *(self.error(i, j) for i, j in self.children(x, y))])


@pytest.mark.parametrize(("roughness", "corner"), [(6, (0, 0)), (30, (1, 2)), (300, (-1, 3))])
def test_a_node_is_needed_as_the_definition_says(roughness: int, corner: tuple[int, int]) -> None:
    side = 3 * CELLS + 1
    fine = land(side, side, roughness, 3)
    x0, y0 = corner[0] * CELLS, corner[1] * CELLS
    found = classify(fine, x0, y0, CELLS, TOLERANCES)
    reference = Reference(fine, x0, y0)
    seen = np.zeros(4, dtype=int)
    for y in range(CELLS, 2 * CELLS + 1):
        for x in range(CELLS, 2 * CELLS + 1):
            if (x + x0) % CELLS == 0 and (y + y0) % CELLS == 0:
                continue
            error = reference.error(x, y)
            wanted = int((error > TOLERANCES + 1e-6).sum())
            seen[wanted] += 1
            assert found[y, x] == wanted, (x, y, error)
    assert (seen > 0).sum() >= 3


@pytest.mark.parametrize("roughness", [3, 25, 200])
def test_what_lies_beyond_a_halo_of_one_tile_changes_nothing(roughness: int) -> None:
    # One tile inside a wide land, and the same with everything beyond its halo torn up.
    side = 7 * CELLS + 1
    fine = land(side, side, roughness, 5)
    whole = classify(fine, 0, 0, CELLS, TOLERANCES)
    rng = np.random.default_rng(9)
    inside = np.s_[3 * CELLS : 4 * CELLS + 1, 3 * CELLS : 4 * CELLS + 1]
    halo = np.s_[2 * CELLS + 1 : 5 * CELLS, 2 * CELLS + 1 : 5 * CELLS]
    torn = rng.integers(0, 32767 * SUB, fine.shape).astype(np.int32)
    torn[halo] = fine[halo]
    np.testing.assert_array_equal(classify(torn, 0, 0, CELLS, TOLERANCES)[inside], whole[inside])
    window = np.s_[2 * CELLS : 5 * CELLS + 1, 2 * CELLS : 5 * CELLS + 1]
    alone = classify(fine[window].copy(), 2 * CELLS, 2 * CELLS, CELLS, TOLERANCES)
    own = np.s_[CELLS : 2 * CELLS + 1, CELLS : 2 * CELLS + 1]
    # The corners of tiles are vertices of every mesh; of what size they decide is not asked.
    expected, found = whole[inside].copy(), alone[own].copy()
    expected[::CELLS, ::CELLS] = found[::CELLS, ::CELLS] = 0
    np.testing.assert_array_equal(found, expected)
    assert 0 < np.count_nonzero(found) < found.size


def test_half_of_that_halo_would_not_do() -> None:
    # A spike three quarters of a tile beyond the edge forces a vertex on it.
    side = 3 * CELLS + 1
    flat = np.full((side, side), 8000, dtype=np.int32)
    spiked = flat.copy()
    spiked[CELLS + CELLS // 4 + 1, 2 * CELLS + 3 * CELLS // 4 + 1] = 90000
    inside = np.s_[CELLS : 2 * CELLS + 1, CELLS : 2 * CELLS + 1]
    calm, stirred = (classify(f, 0, 0, CELLS, TOLERANCES)[inside] for f in (flat, spiked))
    assert not calm.any()
    assert stirred[:, -1].any()


def test_levels_of_one_spacing_share_their_decisions() -> None:
    side = 3 * CELLS + 1
    fine = land(side, side, 40, 8)
    together = classify(fine, 0, 0, CELLS, TOLERANCES)
    inside: Any = np.s_[CELLS : 2 * CELLS + 1, CELLS : 2 * CELLS + 1]
    for k, tolerance in enumerate(TOLERANCES):
        alone = classify(fine, 0, 0, CELLS, np.array([tolerance]))
        np.testing.assert_array_equal(alone[inside] > 0, together[inside] > k)
    # A finer level has smaller tiles: fewer sizes of triangles, the same decisions below.
    quarter = CELLS // 4
    small = np.s_[CELLS - quarter : CELLS + 2 * quarter + 1]
    fewer = classify(
        fine[small, small].copy(), CELLS - quarter, CELLS - quarter, quarter, TOLERANCES[:1]
    )
    own: Any = np.s_[quarter : 2 * quarter + 1, quarter : 2 * quarter + 1]
    expected = together[CELLS : CELLS + quarter + 1, CELLS : CELLS + quarter + 1] > 0
    found = fewer[own] > 0
    expected[::quarter, ::quarter] = found[::quarter, ::quarter] = False
    np.testing.assert_array_equal(found, expected)
