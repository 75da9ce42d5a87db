"""The project's own codec against that of the meshoptimizer project, and against noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tiling.formats.decoding import meshopt_decoded
from tiling.errors import FormatError
from tiling.formats import meshopt


def attributes(count: int, stride: int, seed: int) -> np.ndarray[Any, Any]:
    """Return bytes of which some stand still, some creep and some jump."""
    rng = np.random.default_rng(seed)
    steps = rng.integers(-3, 4, (count, stride)) * (
        rng.random((count, stride)) < rng.random(stride)
    )
    return np.cumsum(steps * rng.integers(1, 40, stride), axis=0).astype(np.uint8)


def triangles(count: int, kind: str, seed: int) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(seed)
    if kind == "strip":
        return np.arange(count)[:, None] + np.array([0, 1, 2])
    if kind == "quads":
        corner = 4 * (np.arange(count) // 2)[:, None]
        return corner + np.array([[0, 1, 2], [0, 2, 3]])[np.arange(count) % 2]
    return rng.integers(0, {"few": 5, "many": 100_000}[kind], (count, 3))


def unturned(found: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    # Of a triangle that names a vertex twice every turn is as good.
    twice = (found == np.roll(found, 1, axis=1)).any(axis=1)
    found = np.where(twice[:, None], np.sort(found, axis=1), found)
    first = found.argmin(axis=1)[:, None]
    return np.take_along_axis(found, (first + np.arange(3)) % 3, axis=1)


def test_the_reference_decoder_reads_what_is_written() -> None:
    jobs, wanted = [], []
    for count in (1, 2, 15, 16, 17, 255, 256, 257, 3000):
        for stride in (4, 8, 12, 64, 256):
            data = attributes(count, stride, count + stride)
            encoded = meshopt.encode_attributes(data)
            jobs.append({"data": encoded, "count": count, "stride": stride, "mode": "ATTRIBUTES"})
            wanted.append(data.tobytes())
            assert np.array_equal(meshopt.decode_attributes(encoded, count, stride), data)
        for kind in ("strip", "quads", "few", "many"):
            corners = triangles(count, kind, count)
            encoded = meshopt.encode_triangles(corners)
            jobs.append({"data": encoded, "count": 3 * count, "stride": 4, "mode": "TRIANGLES"})
            read = meshopt.decode_triangles(encoded, count)
            wanted.append(read.astype("<u4").tobytes())
            assert np.array_equal(unturned(read), unturned(corners))
            encoded = meshopt.encode_indices(corners.ravel())
            jobs.append({"data": encoded, "count": 3 * count, "stride": 4, "mode": "INDICES"})
            wanted.append(corners.ravel().astype("<u4").tobytes())
            assert np.array_equal(meshopt.decode_indices(encoded, 3 * count), corners.ravel())
    assert meshopt_decoded(jobs) == wanted


@given(st.binary(max_size=400), st.integers(0, 60), st.sampled_from([4, 8, 64]))
@settings(max_examples=200, deadline=None)
def test_noise_is_read_or_refused_and_nothing_else(noise: bytes, count: int, stride: int) -> None:
    for head, decode in (
        (b"\xa0", lambda data: meshopt.decode_attributes(data, count, stride)),
        (b"\xe1", lambda data: meshopt.decode_triangles(data, count)),
        (b"\xd1", lambda data: meshopt.decode_indices(data, count)),
    ):
        try:
            decode(head + noise)
        except FormatError:
            pass


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_what_is_cut_short_is_refused(cut: int) -> None:
    data = attributes(100, 8, 1)
    with pytest.raises(FormatError):
        meshopt.decode_attributes(meshopt.encode_attributes(data)[:-cut], 100, 8)
    corners = triangles(100, "many", 1)
    with pytest.raises(FormatError):
        meshopt.decode_triangles(meshopt.encode_triangles(corners)[:-cut], 100)
    with pytest.raises(FormatError):
        meshopt.decode_indices(meshopt.encode_indices(corners.ravel())[:-cut], 300)


def test_a_stride_that_no_client_knows_is_refused() -> None:
    with pytest.raises(ValueError, match="6 bytes"):
        meshopt.encode_attributes(np.zeros((3, 6), dtype=np.uint8))
