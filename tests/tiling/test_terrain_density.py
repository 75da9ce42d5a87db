"""How dense the nodes of a terrain must lie: the kernel against its formula."""

from __future__ import annotations

import numpy as np

from tiling.tilers.terrain_density import largest_off


def bilinear(nodes: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    i, j = np.floor(x).astype(int), np.floor(y).astype(int)
    a, b = x - i, y - j
    south = nodes[j, i] * (1 - a) + nodes[j, i + 1] * a
    north = nodes[j + 1, i] * (1 - a) + nodes[j + 1, i + 1] * a
    return south * (1 - b) + north * b


def test_the_largest_distance_from_a_bilinear_surface_is_that_of_the_formula() -> None:
    rng = np.random.default_rng(3)
    nodes = rng.normal(300, 20, (9, 13))
    x, y = rng.uniform(0, 12, 500), rng.uniform(0, 8, 500)
    heights = bilinear(nodes, x, y) + rng.normal(0, 5, 500)
    expected = np.abs(bilinear(nodes, x, y) - heights)
    assert largest_off(nodes, x, y, heights) == np.max(expected)
    # No surface is where a node is void.
    nodes[4, 5] = np.nan
    known = np.isfinite(bilinear(nodes, x, y))
    assert 0 < known.sum() < 500
    assert largest_off(nodes, x, y, heights) == np.max(expected[known])


def test_a_place_on_the_last_node_has_a_surface() -> None:
    nodes = np.arange(6.0).reshape(2, 3)
    places = np.array([2.0]), np.array([1.0])
    assert largest_off(nodes, *places, np.array([5.0])) == 0
    assert largest_off(nodes, *places, np.array([7.5])) == 2.5
