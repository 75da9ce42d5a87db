"""What a glb tile is made of: an integer grid and the triangles in it.

Vertices are integers in the grid of their tile, so whatever is computed from them (volumes, errors,
coarser levels) is computed from what a decoder will see.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tiling.formats.extent import placed

# How the vertices of a primitive lie. ``prisms``: five for each point of an outline, as
# `tiling.tilers.massing` puts them, so that outlines can be read back; ``mesh``: any.
Layout = Literal["prisms", "mesh"]

GRID_CELLS = 65_535


@dataclass(frozen=True, slots=True)
class Grid:
    """Integers 0 to `GRID_CELLS` on each axis; integer (0, 0, 0) is the frame's origin.

    Attributes:
        to_ecef: (4, 4) float64; east-north-up metres of the grid to WGS 84 Earth-centred metres.
        quantum_m: metres of one step, equal on all axes.
    """

    to_ecef: NDArray[np.float64]
    quantum_m: float

    def ecef(self, positions: NDArray[np.integer]) -> NDArray[np.float64]:
        """Return the (N, 3) float64 Earth-centred metres of (N, 3) grid positions."""
        return placed(positions.astype(np.float64) * self.quantum_m, self.to_ecef)

    def local(self, ecef: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the (N, 3) float64 grid positions, not yet rounded, of Earth-centred metres."""
        local: NDArray[np.float64] = (ecef - self.to_ecef[:3, 3]) @ self.to_ecef[:3, :3]
        return local / self.quantum_m


@dataclass(frozen=True, slots=True)
class Texture:
    """An encoded image.

    Attributes:
        data: JPEG or PNG.
        media_type: ``image/jpeg`` or ``image/png``.
    """

    data: bytes
    media_type: str


@dataclass(frozen=True, slots=True)
class Primitive:
    """Triangles of many features in the grid of a tile.

    Attributes:
        positions: (V, 3) uint16, z up.
        normals: (V, 3) int8, unit vectors times 127, z up.
        colors: (V, 4) uint8, linear RGBA; None: white.
        feature_ids: (V,) uint32, rows of the property table.
        triangles: (T, 3) uint32, counter-clockwise from outside.
        edges: (E, 2) uint32, sides of triangles to be drawn as lines; may be empty.
        layout: how the vertices lie.
        uv: (V, 2) float32, glTF texture coordinates (v downwards); None without texture.
        texture: the image behind `uv`; None without.
    """

    positions: NDArray[np.uint16]
    normals: NDArray[np.int8]
    colors: NDArray[np.uint8] | None
    feature_ids: NDArray[np.uint32]
    triangles: NDArray[np.uint32]
    edges: NDArray[np.uint32]
    layout: Layout = "mesh"
    uv: NDArray[np.float32] | None = None
    texture: Texture | None = None
