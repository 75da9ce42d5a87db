"""Clouds of any shape, anywhere: every point comes out once, where it was, lawfully."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.tiling.test_pointcloud import files, parts, tile
from tiling.batches import PointBatch
from tiling.crs import SpatialRef
from tiling.ellipsoid import geodetic_to_ecef
from tiling.formats.points_glb import ERROR_M, decode_points, srgb_colours
from tiling.stores.directory import DirectoryReader
from tiling.validate.pointcloud import check_pointcloud

REF = SpatialRef.parse("EPSG:4326+ellipsoidal")
# A corner of four root cells, and one of eight cells of every level below.
ROOT_DEG = 180 / 2**9
CORNER = (320 * ROOT_DEG, 90 * ROOT_DEG)
DEGREE_M = 111_000.0
Points = NDArray[np.float64]


def batch(xyz: Points, seed: int = 0) -> PointBatch:
    """Return points (longitude, latitude, height) with colours, classes and numbers."""
    rng, count = np.random.default_rng(seed), len(xyz)
    columns = {
        "rgb": rng.integers(0, 256, (count, 3)).astype(np.uint16),
        "classification": rng.integers(0, 19, count).astype(np.uint8),
        "serial": np.arange(count, dtype=np.float32),
    }
    return PointBatch(REF, 0, xyz, columns)


def holds(source: PointBatch, cuts: int) -> None:
    """Say that tiles hold exactly these points, keep the laws, and do not show the cuts."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "a"
        small = {"leaf_points": 40, "column_points": 90}
        tile(folder, parts(source, cuts), **small)  # type: ignore[arg-type]
        found, _ = check_pointcloud(DirectoryReader(folder / "tiles"))
        assert found == []
        made = files(folder)
        other = Path(name) / "b"
        shuffled = source.take(np.random.default_rng(cuts).permutation(len(source)))
        tile(other, [shuffled], **small)  # type: ignore[arg-type]
        assert files(other) == made
    tiles = [decode_points(data) for key, data in made.items() if key.endswith(".glb")]
    ecef = np.concatenate([t.ecef for t in tiles])
    assert len(ecef) == len(source)
    if len(source) == 1:  # Columns that are the same everywhere are left out.
        order = np.zeros(1, dtype=int)
    else:
        order = np.argsort(np.concatenate([t.columns["serial"] for t in tiles]))
        kinds = source.columns["classification"]
        if len(np.unique(kinds)) > 1:
            told = np.concatenate([t.columns["classification"] for t in tiles])
            assert np.array_equal(told[order], kinds)
    colours = np.concatenate([srgb_colours(t.colours) for t in tiles if t.colours is not None])
    assert np.array_equal(colours[order], source.columns["rgb"])
    there = geodetic_to_ecef(*source.xyz.T)
    # The lattice adds a fiftieth of a millimetre at most.
    assert np.linalg.norm(ecef[order] - there, axis=1).max() <= ERROR_M + 4e-5


@st.composite
def clouds(draw: st.DrawFn) -> PointBatch:
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    count = draw(st.integers(1, 150))
    middle = draw(st.sampled_from([(114.3, 30.5), (0.0, 0.0), CORNER, (-72.0, -53.1), (10, 83.0)]))
    sizes = [draw(st.sampled_from([0.0, 0.003, 2.0, 80.0, 20_000.0])) for _ in range(2)]
    height = draw(st.sampled_from([0.0, 0.01, 60.0, 3000.0]))
    xyz = np.empty((count, 3))
    for axis in range(2):
        xyz[:, axis] = middle[axis] + rng.uniform(-0.5, 0.5, count) * sizes[axis] / DEGREE_M
    xyz[:, 2] = rng.uniform(-0.5, 0.5, count) * height
    if draw(st.booleans()):
        xyz = xyz[rng.integers(0, max(count // 3, 1), count)]
    return batch(xyz, seed)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(clouds(), st.integers(1, 4))
def test_points_in_are_points_out(source: PointBatch, cuts: int) -> None:
    holds(source, min(cuts, len(source)))


def spread(rng: np.random.Generator, size: tuple[float, float, float]) -> Points:
    """Return 300 points of a box around nothing: degrees and metres, given in metres."""
    xyz: Points = rng.uniform(-0.5, 0.5, (300, 3)) * size / (DEGREE_M, DEGREE_M, 1)
    return xyz


def wrapped(xyz: Points) -> Points:
    xyz[:, 0] = (xyz[:, 0] + 360) % 360 - 180
    return xyz


SHAPES: dict[str, Callable[[np.random.Generator], Points]] = {
    "one point": lambda rng: np.array([[114.3, 30.5, 12.0]]),
    "equal points": lambda rng: np.tile([114.3, 30.5, 12.0], (300, 1)),
    "a wall": lambda rng: spread(rng, (0, 80, 40)) + (114.3, 30.5, 0),
    "a mast": lambda rng: spread(rng, (0, 0, 300)) + (114.3, 30.5, 0),
    "a floor": lambda rng: spread(rng, (200, 200, 0)) + (114.3, 30.5, 0),
    "two clouds far apart": lambda rng: np.concatenate(
        [spread(rng, (9, 9, 9)) + (114.3, 30.5, 0), spread(rng, (9, 9, 9)) + (87.6, 43.8, 900)]
    ),
    "two clouds side by side": lambda rng: np.concatenate(
        [
            spread(rng, (50, 50, 9)) + (114.3, 30.5, 0),
            spread(rng, (50, 50, 9)) + (114.3005, 30.5, 0),
        ]
    ),
    "across root cells": lambda rng: spread(rng, (100, 100, 30)) + (*CORNER, 0),
    "on the corner of root cells": lambda rng: np.array([[*CORNER, 5.0]]),
    "across the antimeridian": lambda rng: wrapped(spread(rng, (100, 100, 30))),
    "on the antimeridian": lambda rng: np.array([[180.0, 0.1, 5.0], [-180.0, 0.1, 5.0]]),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_clouds_of_hard_shapes_are_clouds(shape: str) -> None:
    holds(batch(SHAPES[shape](np.random.default_rng(1))), 1 if shape.startswith("o") else 3)
