"""Spheres and horizon points of terrain tiles, beside the formulas in NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from tiling.ellipsoid import geodetic_to_ecef
from tiling.tilers.horizon import FAR_MAGNITUDE, WGS84_RADII_M, bounds_of


def tile(west: float, south: float, size: float, low: float, high: float) -> np.ndarray:
    rng = np.random.default_rng(4)
    lon, lat = np.meshgrid(np.linspace(west, west + size, 17), np.linspace(south, south + size, 17))
    heights = rng.uniform(low, high, lon.size)
    return geodetic_to_ecef(lon.ravel(), lat.ravel(), heights)


def centre(west: float, south: float, size: float) -> np.ndarray:
    middle = np.array([west + size / 2]), np.array([south + size / 2]), np.array([0.0])
    return geodetic_to_ecef(*middle)[0]


@pytest.mark.parametrize(
    "place",
    [
        (113.0, 31.0, 0.01, 20.0, 60.0),
        (86.0, 27.0, 1.4, 300.0, 8800.0),
        (-180.0, -90.0, 11.25, -60.0, 4000.0),
        (168.75, 78.75, 11.25, -10.0, 5.0),
        (112.5, 22.5, 45.0, -110.0, 80.0),
    ],
)
def test_the_point_is_the_least_from_which_no_vertex_is_seen_too_late(
    place: tuple[float, float, float, float, float],
) -> None:
    points = tile(*place)
    found = bounds_of(points, centre(*place[:3]))
    assert np.isfinite(found).all()
    far = np.linalg.norm(points - found[:3], axis=1).max()
    assert far <= found[3] <= far + 0.01
    scaled = points / WGS84_RADII_M
    length = np.linalg.norm(scaled, axis=1)
    magnitude = np.linalg.norm(found[4:])
    alpha = np.arccos(np.clip(scaled @ (found[4:] / magnitude) / length, -1, 1))
    beta = np.arccos(1 / np.maximum(length, 1))
    # Of all the vertices' cones the one that meets the ray farthest out decides.
    needed = (1 / np.cos(alpha + beta)).max()
    assert magnitude == pytest.approx(needed, rel=1e-9)
    # Whoever sees a vertex sees the point: cameras all around, from a plane's height to a moon's.
    rng = np.random.default_rng(8)
    directions = rng.normal(size=(4000, 3))
    cameras = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    cameras *= rng.choice([1.002, 1.2, 3.0, 60.0], 4000)[:, None]
    high = scaled * (np.maximum(length, 1) / length)[:, None]
    sees_vertex = np.array([[visible(c, v) for v in high[::29]] for c in cameras]).any(axis=1)
    sees_point = np.array([visible(c, found[4:]) for c in cameras])
    assert sees_vertex.any()
    assert not (sees_vertex & ~sees_point).any()


def visible(camera: np.ndarray, target: np.ndarray) -> bool:
    """Say whether the unit sphere leaves the line between two points free."""
    along = target - camera
    t = np.clip(-(camera @ along) / (along @ along), 0, 1)
    return bool(np.linalg.norm(camera + t * along) >= 1 - 1e-12)


def test_a_root_tile_has_a_point_far_out_and_no_nan() -> None:
    found = bounds_of(tile(0.0, -90.0, 180.0, -100.0, 100.0), centre(0.0, -90.0, 180.0))
    assert np.isfinite(found).all()
    assert np.linalg.norm(found[4:]) == pytest.approx(FAR_MAGNITUDE)


def test_a_tile_below_the_ellipsoid_is_taken_as_on_it() -> None:
    found = bounds_of(tile(35.0, 31.0, 0.1, -430.0, -400.0), centre(35.0, 31.0, 0.1))
    assert np.linalg.norm(found[4:]) >= 1
