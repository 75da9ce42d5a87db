"""The order of keys is that of NumPy's stable sort."""

from __future__ import annotations

import numpy as np
import pytest

from tiling.tilers.point_order import by_key


@pytest.mark.parametrize("bits", [0, 1, 10, 11, 12, 33, 52, 64])
def test_keys_stand_in_the_order_of_a_stable_sort(bits: int) -> None:
    rng = np.random.default_rng(bits)
    for count in (0, 1, 2, 5000):
        keys = rng.integers(0, 2**64, count, dtype=np.uint64) >> np.uint64(min(64 - bits, 63))
        # Equal keys, and bits in which none differs, are frequent.
        keys[::3] = keys[:1]
        keys |= np.uint64(1 << 20)
        before = keys.copy()
        ordered, rows = by_key(keys)
        expected = np.argsort(before, kind="stable")
        assert rows.tolist() == expected.tolist()
        assert ordered.tolist() == before[expected].tolist()
        assert keys.tolist() == before.tolist()


def test_floats_that_are_not_negative_stand_in_the_order_of_their_bits() -> None:
    values = np.array([3.5, 0.0, 1e-300, np.inf, 7.0, 1e300, 3.5])
    _, rows = by_key(values.view(np.uint64))
    assert rows.tolist() == np.argsort(values, kind="stable").tolist()
