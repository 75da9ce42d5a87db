"""Where the nodes of a lattice lie in the frame of a raster, without asking PROJ for each.

The one idea: control points lie on one fixed lattice over the globe, 180 / 2**k degrees apart, and
coordinates between them are cubic (Lagrange through four). A node's coordinates therefore depend
on its place alone. The spacing is chosen once per raster, by measuring against PROJ.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tiling.crs import TILE_REF, SpatialRef, transform_points
from tiling.dem.kernels import from_controls

Array = NDArray[np.float64]

# What interpolated coordinates may be off, a fifth of what a node may.
_TOLERANCE_M = 0.001
_COARSEST, _FINEST = 10, 18
_SAMPLES = 4000
_METRES_PER_DEGREE = 111_320.0
# Nodes to a control spacing, along an axis, from which control points pay off.
_WORTHWHILE = 4


class Placing(NamedTuple):
    """How degrees become coordinates.

    Attributes:
        kind: ``same``: they are; ``controls``: between control points; ``each``: by PROJ.
        level: control points lie 180 / 2**level degrees apart.
    """

    kind: Literal["same", "controls", "each"]
    level: int = 0

    def to_json(self) -> list[Any]:
        """Return it as a JSON array."""
        return [self.kind, self.level]

    @classmethod
    def from_json(cls, data: list[Any]) -> Placing:
        """Make it from what `to_json` returned."""
        return cls(data[0], data[1])


def find_placing(ref: SpatialRef, box: tuple[float, float, float, float]) -> Placing:
    """Choose how nodes within a box are placed: the widest spacing that errs less than 1 mm.

    Args:
        ref: frame of the raster.
        box: west, south, east, north, degrees.
    """
    # Places without a pattern, the same ones every time.
    random = np.random.default_rng(0).random((2, _SAMPLES))
    lon = box[0] + random[0] * (box[2] - box[0])
    lat = box[1] + random[1] * (box[3] - box[1])
    x, y, _ = transform_points(TILE_REF, ref, lon, lat)
    if np.array_equal(x, lon) and np.array_equal(y, lat):
        return Placing("same")
    unit = float(ref.crs.axis_info[0].unit_conversion_factor)
    metres = unit if ref.is_projected else _METRES_PER_DEGREE
    for level in range(_COARSEST, _FINEST + 1):
        near_x, near_y = _between(ref, lon, lat, level)
        error = max(np.abs(near_x - x).max(), np.abs(near_y - y).max()) * metres
        if error < _TOLERANCE_M:
            return Placing("controls", level)
    return Placing("each")


def place_nodes(
    ref: SpatialRef, placing: Placing, lon: Array, lat: Array, step_deg: float
) -> tuple[Array, Array]:
    """Return coordinates of the nodes of a lattice.

    Args:
        ref: frame of the coordinates, not of kind ``same``.
        placing: how.
        lon: (n,) degrees of the columns.
        lat: (m,) degrees of the rows.
        step_deg: distance of the nodes.

    Returns:
        x and y, (m, n) float64 in units of `ref`; not finite where the projection cannot reach.
    """
    spacing = 180 / 2**placing.level
    if placing.kind == "each" or step_deg * _WORTHWHILE > spacing:
        # Whether nodes are dense enough is a question of the step alone, so windows agree.
        grid_lon, grid_lat = np.meshgrid(lon, lat)
        x, y, _ = transform_points(TILE_REF, ref, grid_lon.ravel(), grid_lat.ravel())
        return x.reshape(grid_lon.shape), y.reshape(grid_lon.shape)
    ix, wx = _cubic((lon + 180) / spacing)
    iy, wy = _cubic((lat + 90) / spacing)
    first_x, first_y = int(ix.min()), int(iy.min())
    xs, ys = _controls(
        ref,
        np.arange(first_x, int(ix.max()) + 4) * spacing - 180,
        np.arange(first_y, int(iy.max()) + 4) * spacing - 90,
    )
    out_x, out_y = np.empty((len(lat), len(lon))), np.empty((len(lat), len(lon)))
    from_controls(xs, ys, ix - first_x, wx, iy - first_y, wy, out_x, out_y)
    return out_x, out_y


def _cubic(position: Array) -> tuple[NDArray[np.int64], Array]:
    """Return the first of four control points around each position, and their weights."""
    cell = np.floor(position)
    t = position - cell
    weights = np.stack(
        [
            -t * (t - 1) * (t - 2) / 6,
            (t + 1) * (t - 1) * (t - 2) / 2,
            -(t + 1) * t * (t - 2) / 2,
            (t + 1) * t * (t - 1) / 6,
        ],
        axis=1,
    )
    return cell.astype(np.int64) - 1, weights


def _controls(ref: SpatialRef, lon: Array, lat: Array) -> tuple[Array, Array]:
    grid_lon, grid_lat = np.meshgrid(lon, np.clip(lat, -90, 90))
    x, y, _ = transform_points(TILE_REF, ref, grid_lon.ravel(), grid_lat.ravel())
    return x.reshape(grid_lon.shape), y.reshape(grid_lon.shape)


def _between(ref: SpatialRef, lon: Array, lat: Array, level: int) -> tuple[Array, Array]:
    """Return interpolated coordinates of (n,) places of any order, for measuring."""
    spacing = 180 / 2**level
    ix, wx = _cubic((lon + 180) / spacing)
    iy, wy = _cubic((lat + 90) / spacing)
    cells, which = np.unique(np.stack([ix, iy], axis=1), axis=0, return_inverse=True)
    offset = np.arange(4)
    at_lon = np.broadcast_to((cells[:, :1, None] + offset) * spacing - 180, (len(cells), 4, 4))
    at_lat = np.broadcast_to(
        (cells[:, 1:, None] + offset[:, None]) * spacing - 90, (len(cells), 4, 4)
    )
    x, y, _ = transform_points(TILE_REF, ref, at_lon.ravel(), np.clip(at_lat.ravel(), -90, 90))
    shape = (len(cells), 4, 4)
    weights = wy[:, :, None] * wx[:, None, :]
    which = which.ravel()
    near_x = (x.reshape(shape)[which] * weights).sum(axis=(1, 2))
    near_y = (y.reshape(shape)[which] * weights).sum(axis=(1, 2))
    return near_x, near_y
