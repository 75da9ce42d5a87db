"""Which coordinate comes first: reference systems say one thing, files often do another."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tiling.crs import TILE_REF, SpatialRef, transform_points
from tiling.findings import Findings

_STRAY_DEG = 1.0


def is_northing_first(
    ref: SpatialRef, low: NDArray[np.float64], high: NDArray[np.float64], findings: Findings
) -> bool:
    """Say whether latitude or northing comes before longitude or easting.

    The order of the reference system is taken, unless only the other one lies where the system is
    meant for.

    Args:
        ref: the frame.
        low, high: (2,) or more, the range of the coordinates as the file has them.
        findings: receives when the file does not keep to its reference system.
    """
    axes = ref.crs.axis_info
    stated = len(axes) > 1 and axes[0].direction in ("north", "south")
    middle = (low[:2] + high[:2]) / 2
    if _fits(ref, middle, stated) or not _fits(ref, middle, not stated):
        return stated
    first = "longitude or easting" if stated else "latitude or northing"
    findings.add(
        "axis-order",
        "assumption",
        f"{first} comes first, against the order of {ref.horizontal_code}",
    )
    return not stated


def _fits(ref: SpatialRef, middle: NDArray[np.float64], swapped: bool) -> bool:
    x, y = middle[::-1] if swapped else middle
    if ref.crs.is_geographic and not (abs(x) <= 360 and abs(y) <= 90):
        return False
    area = ref.crs.area_of_use
    if area is None or area.west > area.east:
        return True
    lon, lat = transform_points(ref.with_vertical(None), TILE_REF.with_vertical(None), x, y)[:2]
    return bool(
        area.west - _STRAY_DEG <= lon <= area.east + _STRAY_DEG
        and area.south - _STRAY_DEG <= lat <= area.north + _STRAY_DEG
    )
