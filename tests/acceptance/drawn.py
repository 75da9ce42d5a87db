"""The heights of decoded terrain meshes at places: what a viewer draws there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import shapely
from numpy.typing import NDArray

from tests.acceptance.test_terrain import Tile

Floats = NDArray[np.float64]


def drawn_m(tiles: Sequence[Tile], lon: Floats, lat: Floats) -> Floats:
    """Return the ellipsoidal height of the faces at places, metres; NaN where there is none.

    Args:
        tiles: of one level.
        lon, lat: (N,) degrees.
    """
    corners = np.concatenate(
        [np.column_stack([tile.lon, tile.lat, tile.height])[tile.triangles] for tile in tiles]
    )
    tree = shapely.STRtree(shapely.polygons(corners[:, :, :2]))
    place, face = tree.query(shapely.points(lon, lat), predicate="intersects")
    a, b, c = np.moveaxis(corners[face], 1, 0)
    normal = np.cross(b - a, c - a)
    x, y = lon[place] - a[:, 0], lat[place] - a[:, 1]
    heights = np.full(len(lon), np.nan)
    heights[place] = a[:, 2] - (normal[:, 0] * x + normal[:, 1] * y) / normal[:, 2]
    return heights
