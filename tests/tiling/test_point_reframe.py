"""Points reframed by patches stand where PROJ puts them, whoever came with them."""

from __future__ import annotations

import numpy as np
import pytest

from tiling.crs import TILE_REF, SpatialRef, transform_points
from tiling.tilers import point_reframe
from tiling.tilers.point_reframe import PATCH, to_geodetic

FRAMES = [
    ("EPSG:4547+5737", 560_000, 3_510_000),
    ("EPSG:4526+ellipsoidal", 38_560_000, 3_510_000),
    ("EPSG:2154+ellipsoidal", 770_500, 6_277_500),
    ("EPSG:3857+5773", 12_600_000, 3_700_000),
    ("EPSG:2994+ellipsoidal", 637_000, 850_000),
    ("EPSG:4490+5737", 113, 31),
]


@pytest.mark.parametrize(("code", "x", "y"), FRAMES)
def test_points_stand_where_proj_puts_them(code: str, x: float, y: float) -> None:
    ref = SpatialRef.parse(code)
    rng = np.random.default_rng(1)
    reach = 1.0 if code.startswith("EPSG:4490") else 60_000.0
    xyz = np.column_stack([x + rng.random(20_000) * reach, y + rng.random(20_000) * reach,
                           rng.normal(50, 20, 20_000)])  # fmt: skip
    lon, lat, height = transform_points(ref, TILE_REF, *xyz.T)
    assert height is not None
    found = to_geodetic(ref, xyz)
    off = np.abs(found - np.stack([lon, lat, height], axis=1)).max(axis=0)
    # Two hundredths of a millimetre: the trial of a patch is at sixteen places.
    assert (off < (2e-10, 2e-10, 2e-5)).all(), off


def test_a_point_has_one_place_whoever_came_with_it() -> None:
    ref = SpatialRef.parse("EPSG:4547+5737")
    rng = np.random.default_rng(2)
    xyz = np.array([560_000, 3_510_000, 50]) + rng.random((5000, 3)) * (50_000, 50_000, 9)
    whole = to_geodetic(ref, xyz)
    assert np.array_equal(to_geodetic(ref, xyz[::-7]), whole[::-7])
    # With one far away the patches are too many for a table.
    far = np.vstack([xyz, [9e7, 9e7, 0]])
    assert np.array_equal(to_geodetic(ref, far)[:-1], whole)


def test_what_a_polynomial_cannot_hold_is_asked_of_proj(monkeypatch: pytest.MonkeyPatch) -> None:
    ref = SpatialRef.parse("EPSG:4547+5737")
    asked = []
    exactly = point_reframe._exactly

    def counting(*arguments: object) -> None:
        asked.append(len(arguments[2]))  # type: ignore[arg-type]
        exactly(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(point_reframe, "_exactly", counting)
    # A cell of the geoid ends at 114.25 degrees; a line along the parallel crosses it.
    x = np.linspace(500_000, 550_000, 1000)
    xyz = np.column_stack([x, np.full(1000, 3_500_000.0), np.zeros(1000)])
    to_geodetic(ref, xyz)
    assert 0 < sum(asked) < 500 * PATCH / 1024


def test_what_has_no_place_is_not_finite() -> None:
    ref = SpatialRef.parse("EPSG:4547+ellipsoidal")
    xyz = np.array([[np.nan, 3.5e6, 1], [560_000, 3.5e6, np.nan], [1e300, 1e300, 0]])
    assert not np.isfinite(to_geodetic(ref, xyz)).all(axis=1).any()
