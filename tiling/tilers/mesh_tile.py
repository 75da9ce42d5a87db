"""Meshes of features as primitives of a tile: flat faces, colours, edges, one texture atlas.

Every face keeps its own normal, so no vertex is shared between faces that do not lie in one plane.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tiling.ellipsoid import geodetic_to_ecef
from tiling.errors import TilingError
from tiling.formats.primitive import GRID_CELLS, Grid, Primitive, Texture
from tiling.meshes import OTHER, FeatureMesh, decode_meshes
from tiling.tilers.atlas import pack

# Two faces that meet at less than this are one curved surface: no edge is drawn between them.
CREASE_DEG = 20.0
# Linear RGBA of walls, roofs, grounds and the rest, where a feature has no colours of its own.
SURFACE_COLORS = np.array(
    [(225, 225, 225, 255), (180, 95, 80, 255), (150, 145, 135, 255), (235, 235, 235, 255)],
    dtype=np.uint8,
)


def mesh_extent(column: pa.ChunkedArray) -> tuple[NDArray[np.float64], float, float]:
    """Return longitude and latitude of every vertex, (P, 2) degrees, and the range of heights.

    Args:
        column: of records in degrees and ellipsoidal metres; nulls are passed over.
    """
    own = [mesh.vertices for mesh in decode_meshes(column) if mesh is not None]
    if not own:
        return np.empty((0, 2)), np.inf, -np.inf
    every = np.concatenate(own)
    return every[:, :2], float(every[:, 2].min()), float(every[:, 2].max())


def mesh_primitives(column: pa.ChunkedArray, rows: NDArray[np.intp], grid: Grid) -> list[Primitive]:
    """Return meshes in the grid of a tile: what has no texture, and what has.

    Args:
        column: of records in degrees and ellipsoidal metres.
        rows: the rows to take, none of them null; they become feature ids.
        grid: holds every vertex.

    Raises:
        TilingError: a vertex lies beyond the grid.
    """
    meshes = list(decode_meshes(column.take(pa.array(rows))))
    faces = _Faces.of([mesh for mesh in meshes if mesh is not None], rows, grid)
    textured = faces.image >= 0
    primitives = []
    if not textured.all():
        primitives.append(faces.primitive(np.flatnonzero(~textured), None, None))
    if textured.any():
        chosen = np.flatnonzero(textured)
        texture, uv = pack(faces.images, faces.uv[chosen], faces.image[chosen])
        primitives.append(faces.primitive(chosen, texture, uv))
    return primitives


class _Faces:
    """T triangles of many features on the grid.

    Attributes:
        corners: (T, 3, 3) int64, grid positions.
        normals: (T, 3) float64, unit.
        colors: (T, 4) uint8.
        feature: (T,) int64.
        uv: (T, 3, 2) float32; `image`: (T,) int32, -1 for none; `images`: what they refer to.
    """

    def __init__(
        self,
        corners: NDArray[np.int64],
        colors: NDArray[np.uint8],
        feature: NDArray[np.int64],
        uv: NDArray[np.float32],
        image: NDArray[np.int32],
        images: list[Texture],
    ) -> None:
        across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        length = np.linalg.norm(across.astype(np.float64), axis=1)
        # What has no area on the grid cannot be seen.
        kept = length > 0
        self.corners = corners[kept]
        self.normals = across[kept] / length[kept, None]
        self.colors, self.feature = colors[kept], feature[kept]
        self.uv, self.image, self.images = uv[kept], image[kept], images

    @classmethod
    def of(cls, meshes: list[FeatureMesh], rows: NDArray[np.intp], grid: Grid) -> _Faces:
        vertices = np.concatenate([mesh.vertices for mesh in meshes])
        exact = grid.local(geodetic_to_ecef(vertices[:, 0], vertices[:, 1], vertices[:, 2]))
        positions = np.rint(exact).astype(np.int64)
        if positions.min() < 0 or positions.max() > GRID_CELLS:
            raise TilingError("a shape reaches beyond the grid of its tile")
        first = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes)])
        images: list[Texture] = []
        corners, colors, uv, image = [], [], [], []
        for mesh, start in zip(meshes, first.tolist(), strict=False):
            count = len(mesh.triangles)
            corners.append(mesh.triangles.astype(np.int64) + start)
            own = SURFACE_COLORS[np.minimum(mesh.surfaces, len(SURFACE_COLORS) - 1)]
            colors.append(own if mesh.colors is None else mesh.colors)
            if mesh.uv is None or mesh.image is None:
                uv.append(np.zeros((count, 3, 2), np.float32))
                image.append(np.full(count, -1, np.int32))
            else:
                uv.append(mesh.uv)
                image.append(np.where(mesh.image >= 0, mesh.image + len(images), -1))
            images.extend(mesh.images)
        counts = [len(mesh.triangles) for mesh in meshes]
        feature = np.repeat(np.arange(len(meshes)), counts)
        placed = positions[np.concatenate(corners)]
        across = np.cross(placed[:, 1] - placed[:, 0], placed[:, 2] - placed[:, 0])
        # What is finer than the grid is shown as one step of it: every feature can be seen.
        bare = np.setdiff1d(np.arange(len(meshes)), feature[across.any(axis=1)])
        at = np.minimum(positions[first[bare]], GRID_CELLS - 1)
        steps = np.array([(0, 0, 0), (1, 0, 0), (0, 1, 0)])
        return cls(
            np.concatenate([placed, at[:, None] + steps]),
            np.concatenate([*colors, np.tile(SURFACE_COLORS[OTHER], (len(bare), 1))]),
            rows.astype(np.int64)[np.concatenate([feature, bare])],
            np.concatenate([*uv, np.zeros((len(bare), 3, 2), np.float32)]),
            np.concatenate([*image, np.full(len(bare), -1)]).astype(np.int32),
            images,
        )

    def primitive(
        self, chosen: NDArray[np.intp], texture: Texture | None, uv: NDArray[np.float32] | None
    ) -> Primitive:
        """Return the primitive of some faces; vertices that are equal in everything are one."""
        count = len(chosen)
        normals = np.rint(self.normals[chosen] * 127).astype(np.int8)
        colors = self.colors[chosen]
        if texture is not None:
            # The image says the colour.
            colors = np.full_like(colors, 255)
        record = np.zeros(
            3 * count,
            dtype=[("f", "<u4"), ("p", "<u2", 3), ("n", "i1", 3), ("c", "u1", 4), ("t", "<f4", 2)],
        )
        record["f"] = np.repeat(self.feature[chosen], 3)
        record["p"] = self.corners[chosen].reshape(-1, 3)
        record["n"] = np.repeat(normals, 3, axis=0)
        record["c"] = np.repeat(colors, 3, axis=0)
        if uv is not None:
            record["t"] = uv.reshape(-1, 2)
        raw = record.view(np.dtype((np.void, record.dtype.itemsize)))
        _, first, inverse = np.unique(raw, return_index=True, return_inverse=True)
        # In the order of first use: neighbours in space stay neighbours in the file.
        order = np.argsort(first, kind="stable")
        rank = np.empty(len(order), dtype=np.int64)
        rank[order] = np.arange(len(order))
        vertices = record[first[order]]
        triangles = rank[inverse.ravel()].reshape(-1, 3)
        return Primitive(
            positions=np.ascontiguousarray(vertices["p"]),
            normals=np.ascontiguousarray(vertices["n"]),
            colors=None if texture is not None else np.ascontiguousarray(vertices["c"]),
            feature_ids=np.ascontiguousarray(vertices["f"]),
            triangles=triangles.astype(np.uint32),
            edges=self._edges(chosen, triangles).astype(np.uint32),
            layout="mesh",
            uv=None if uv is None else np.ascontiguousarray(vertices["t"]),
            texture=texture,
        )

    def _edges(self, chosen: NDArray[np.intp], triangles: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the sides of triangles where faces meet at an angle, or end."""
        corners = self.corners[chosen]
        key = (corners[..., 0] << 32) | (corners[..., 1] << 16) | corners[..., 2]
        start, end = key, np.roll(key, -1, axis=1)
        low, high = np.minimum(start, end).ravel(), np.maximum(start, end).ravel()
        feature = np.repeat(self.feature[chosen], 3)
        order = np.lexsort((high, low, feature))
        same = (
            (low[order][1:] == low[order][:-1])
            & (high[order][1:] == high[order][:-1])
            & (feature[order][1:] == feature[order][:-1])
        )
        group = np.concatenate([[0], np.cumsum(~same)])
        normals = np.repeat(self.normals[chosen], 3, axis=0)[order]
        # Faces of one side lie in one plane when their normals' sum is as long as they are many.
        sums = np.stack([np.bincount(group, weights=normals[:, i]) for i in range(3)], axis=1)
        members = np.bincount(group)
        flat = np.linalg.norm(sums, axis=1) > members * np.cos(np.radians(CREASE_DEG / 2))
        drawn = ~((members >= 2) & flat)[group]
        sides = np.stack([triangles, np.roll(triangles, -1, axis=1)], axis=2).reshape(-1, 2)
        return np.sort(sides[np.sort(order[drawn])], axis=1)
