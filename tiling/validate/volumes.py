"""Bounding volumes of 3D Tiles made elsewhere: checked, and brought to degrees and metres."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiling.bounds import Region
from tiling.ellipsoid import SEMI_MINOR_M, ecef_to_geodetic
from tiling.errors import FormatError

_LENGTHS = {"box": 12, "sphere": 4, "region": 6}
_S2 = "3DTILES_bounding_volume_S2"
# Between the deepest mines and what flies.
_LOWEST_M, _HIGHEST_M = -12_000.0, 100_000.0


def check_volume(volume: Any) -> str:
    """Return the kind of a bounding volume.

    Raises:
        FormatError: it has none that is known, or numbers that mean nothing.
    """
    if not isinstance(volume, dict):
        raise FormatError(f"a bounding volume is {volume!r}")
    kind = next((name for name in _LENGTHS if name in volume), None)
    if kind is None:
        if isinstance(volume.get("extensions"), dict) and _S2 in volume["extensions"]:
            return _S2
        raise FormatError("a bounding volume is neither box, sphere nor region")
    numbers = _numbers(volume[kind], _LENGTHS[kind], f"a bounding {kind}")
    if kind == "sphere" and numbers[3] < 0:
        raise FormatError(f"a bounding sphere of radius {numbers[3]}")
    if kind == "region":
        west, south, east, north, low, high = numbers
        slack = 1e-6
        if not (
            max(abs(west), abs(east)) <= math.pi + slack
            and -math.pi / 2 - slack <= south <= north <= math.pi / 2 + slack
            and low <= high
        ):
            raise FormatError(f"a bounding region of no place: {numbers.tolist()}")
    return kind


def check_transform(values: Any) -> NDArray[np.float64]:
    """Return the (4, 4) matrix of a tile's ``transform``.

    Raises:
        FormatError: not sixteen numbers, not affine, or not invertible.
    """
    matrix = _numbers(values, 16, "a transform").reshape(4, 4).T
    if not np.allclose(matrix[3], (0, 0, 0, 1), atol=1e-9):
        raise FormatError(f"a transform is not affine: last row {matrix[3].tolist()}")
    if abs(np.linalg.det(matrix[:3, :3])) < 1e-18:
        raise FormatError("a transform cannot be inverted: it makes everything flat")
    return matrix


def volume_region(volume: dict[str, Any], transform: NDArray[np.float64]) -> Region | None:
    """Return the place of a checked volume; None when it lies nowhere near the ground.

    Args:
        volume: box, sphere or region; regions ignore the transform, as 3D Tiles says.
        transform: (4, 4) float64, from the tile to Earth-centred metres.

    Returns:
        WGS 84 degrees and metres; of boxes the extent of their corners, of spheres of the cube
        around them along the place's own axes. None for other kinds too.
    """
    kind = check_volume(volume)
    if kind == "region":
        return Region.from_3dtiles(volume["region"])
    if kind == _S2:
        return None
    numbers = np.array(volume[kind], np.float64)
    centre = transform[:3, :3] @ numbers[:3] + transform[:3, 3]
    if np.linalg.norm(centre) < SEMI_MINOR_M / 2:
        return None
    signs = np.array(np.meshgrid(*[[-1.0, 1.0]] * 3)).reshape(3, -1).T
    lon0, lat0, height0 = (float(v) for v in ecef_to_geodetic(centre))
    if not _LOWEST_M < height0 < _HIGHEST_M:
        return None
    if kind == "box":
        axes = numbers[3:].reshape(3, 3) @ transform[:3, :3].T
        lon, lat, height = ecef_to_geodetic(centre + signs @ axes)
        low, high = float(height.min()), float(height.max())
        west, east = float(lon.min()), float(lon.max())
        south, north = float(lat.min()), float(lat.max())
    else:
        radius = float(numbers[3] * np.linalg.norm(transform[:3, :3], axis=0).max())
        reach = math.degrees(radius / SEMI_MINOR_M)
        across = reach / max(math.cos(math.radians(lat0)), 0.01)
        west, east, south, north = lon0 - across, lon0 + across, lat0 - reach, lat0 + reach
        low, high = height0 - radius, height0 + radius
    return Region(
        max(west, -180.0), max(south, -90.0), min(east, 180.0), min(north, 90.0), low, high
    )


def _numbers(values: Any, count: int, what: str) -> NDArray[np.float64]:
    if not isinstance(values, list) or len(values) != count:
        raise FormatError(f"{what} must be {count} numbers, is {str(values)[:80]}")
    if not all(type(v) in (int, float) and math.isfinite(v) for v in values):
        raise FormatError(f"{what} holds something that is no number: {str(values)[:200]}")
    return np.array(values, np.float64)
