"""What a building of a tile measures, and what its source says that it should.

Both are taken in the tile's own frame, so that neither a projection nor the Earth's curvature
comes between them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from tests.acceptance.geodesy import to_ecef
from tests.acceptance.glb import Content

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Solid:
    """A building.

    Attributes:
        corners: (V, 3) metres.
        area_m2: of its roofs, as a plan.
        volume_m3: from its lowest point to its roofs.
    """

    corners: Floats
    area_m2: float
    volume_m3: float


def solids(content: Content) -> list[Solid]:
    """Return the buildings of a tile, by row.

    Roofs are the triangles whose corners all lie in the upper half of their building; walls, which
    may lean by a step, have none such.
    """
    # Back to whole steps: the way through Earth-centred metres costs a nanometre.
    local = np.rint(content.local / content.quantum_m) * content.quantum_m
    assert np.abs(content.local - local).max() < 1e-6
    owner = content.feature[content.triangles[:, 0]]
    assert (owner[:, None] == content.feature[content.triangles]).all(), (
        "a triangle of two features"
    )
    count = len(content.rows)
    lowest, highest = np.full(count, np.inf), np.full(count, -np.inf)
    np.minimum.at(lowest, content.feature, local[:, 2])
    np.maximum.at(highest, content.feature, local[:, 2])
    assert np.isfinite(lowest).all(), "a row without a vertex"
    triangles = local[content.triangles]
    a, b, c = triangles[:, 0], triangles[:, 1], triangles[:, 2]
    roofs = (triangles[..., 2] > ((lowest + highest) / 2)[owner, None]).all(axis=1)
    plan = np.where(roofs, np.cross(b - a, c - a)[:, 2] / 2, 0.0)
    assert (plan > -1e-9).all(), "a roof faces down"
    area = np.bincount(owner, plan, count)
    volume = np.bincount(owner, plan * (triangles[..., 2].mean(axis=1) - lowest[owner]), count)
    order = np.argsort(content.feature, kind="stable")
    parts = np.split(local[order], np.cumsum(np.bincount(content.feature, minlength=count))[:-1])
    return [Solid(*each) for each in zip(parts, area.tolist(), volume.tolist(), strict=True)]


@dataclass(frozen=True)
class Wanted:
    """What a source feature should become in a tile.

    Attributes:
        low, high: (P, 3) metres: every point of its rings at its foot and at its roof.
        area_m2: of its plan.
        perimeter_m: of all its rings.
        height_m: from foot to roof.
    """

    low: Floats
    high: Floats
    area_m2: float
    perimeter_m: float
    height_m: float


def wanted(content: Content, lonlat: Any, low_m: float | Floats, high_m: float | Floats) -> Wanted:
    """Place a (multi)polygon in longitude and latitude between two heights in a tile's frame."""
    lon, lat = shapely.get_coordinates(lonlat).T
    inverse = np.linalg.inv(content.to_ecef)
    low, high = (
        to_ecef(lon, lat, np.broadcast_to(h, lon.shape)) @ inverse[:3, :3].T + inverse[:3, 3]
        for h in (low_m, high_m)
    )
    plan = shapely.set_coordinates(shapely.from_wkb(shapely.to_wkb(lonlat)), high[:, :2])
    return Wanted(
        low,
        high,
        float(shapely.area(plan)),
        float(shapely.length(plan)),
        float((high[:, 2] - low[:, 2]).mean()),
    )


def nearest_m(these: Floats, those: Floats) -> Floats:
    """Return how far each of (N, 3) points is from the nearest of (M, 3), by the longest axis."""
    tree = shapely.STRtree(shapely.points(those[:, :2]))
    # Candidates within two decimetres in plan, then the height among them.
    if len(those) <= 512:
        apart = np.abs(these[:, None] - those[None]).max(axis=2)
        return np.asarray(apart.min(axis=1))
    found = np.full(len(these), np.inf)
    mine, theirs = tree.query(shapely.points(these[:, :2]).astype(object), "dwithin", distance=0.2)
    np.minimum.at(found, mine, np.abs(these[mine] - those[theirs]).max(axis=1))
    return found
