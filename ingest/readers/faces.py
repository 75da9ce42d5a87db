"""Faces of city models, polygons with holes in space, to triangles and footprints.

One idea: the faces of a whole batch are worked on at once. Each is laid into its own plane
(Newell's normal), put on a grid fine enough for it, and triangulated there in integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from ingest.readers.crops import Pictures
from tiling.findings import Findings
from tiling.formats.primitive import Texture
from tiling.meshes import GROUND, ROOF, WALL, FeatureMesh, encode_mesh

UNKNOWN = 255  # a face that says nothing about what it is: its slope says it
_GRID = 2**20 - 2
_FLAT_M = 0.1  # a face that leaves its plane by more is not flat
_MIN_AREA_M2 = 1e-6
# Steeper than this, seen by the vertical part of its normal, a face is a wall.
_WALL_NZ = 0.1
# Footprints of more faces than this are hulls: their union would take minutes and say no more.
_MAX_UNION = 20_000


@dataclass(frozen=True, slots=True)
class Faces:
    """F polygons of one surface or solid.

    Attributes:
        points: (V, 3) float64, x or longitude first, metres of height last.
        corners: (C,) int64 into `points`, ring after ring, counter-clockwise from outside.
        rings: (R,) int64, corners of each ring; closing points may be repeated.
        shells: (F,) int64, rings of each face; the shell first.
        surface: (F,) uint8, `WALL`, `ROOF`, `GROUND`, `OTHER` or `UNKNOWN`.
        color: (F, 4) uint8 linear RGBA, alpha 0 for none; None: no face has one.
        uv: (C, 2) float32, v upwards; None without textures.
        image: (F,) int32 into the images of the source, -1 for none; None without textures.
    """

    points: NDArray[np.float64]
    corners: NDArray[np.int64]
    rings: NDArray[np.int64]
    shells: NDArray[np.int64]
    surface: NDArray[np.uint8]
    color: NDArray[np.uint8] | None = None
    uv: NDArray[np.float32] | None = None
    image: NDArray[np.int32] | None = None

    def compact(self) -> Faces:
        """Return the same faces with only the points they use, equal ones once."""
        used, corners = np.unique(self.corners, return_inverse=True)
        points = np.ascontiguousarray(self.points[used] + 0.0)
        raw = points.view(np.dtype((np.void, 24))).ravel()
        _, first, place = np.unique(raw, return_index=True, return_inverse=True)
        return Faces(
            points[first],
            place.ravel()[corners.ravel()].astype(np.int64),
            self.rings,
            self.shells,
            self.surface,
            self.color,
            self.uv,
            self.image,
        )


@dataclass(frozen=True, slots=True)
class Triangles:
    """T triangles of the faces of a batch.

    Attributes:
        points: (V, 3) float64 of all features, one after the other.
        point_start: (N + 1,) int64, where the points of each feature begin.
        corners: (T, 3) int64 into `points`.
        start: (N + 1,) int64, where the triangles of each feature begin.
        surface: (T,) uint8.
        color: (T, 4) uint8; alpha 0: none.
        uv: (T, 3, 2) float32, v downwards; `image`: (T,) int32, -1 for none.
    """

    points: NDArray[np.float64]
    point_start: NDArray[np.int64]
    corners: NDArray[np.int64]
    start: NDArray[np.int64]
    surface: NDArray[np.uint8]
    color: NDArray[np.uint8]
    uv: NDArray[np.float32]
    image: NDArray[np.int32]

    def record(self, row: int, pictures: Pictures) -> bytes | None:
        """Return the mesh record of a feature; None when it has no triangles.

        Args:
            row: of the feature.
            pictures: those at hand.
        """
        own = slice(self.start[row], self.start[row + 1])
        if own.start == own.stop:
            return None
        first = self.point_start[row]
        points = self.points[first : self.point_start[row + 1]]
        color, image = self.color[own], self.image[own]
        colored = bool((color[:, 3] > 0).any())
        if colored:
            # Lazily, since the server imports readers but never tilers.
            from tiling.tilers.mesh_tile import SURFACE_COLORS

            color = np.where(color[:, 3:] > 0, color, SURFACE_COLORS[self.surface[own]])
        uv = self.uv[own].copy()
        place = np.full(len(image), -1, np.int32)
        cut: list[Texture] = []
        for number in np.unique(image[image >= 0]).tolist():
            if number in pictures.images:
                rows = image == number
                texture, uv[rows] = pictures.part(number, uv[rows])
                place[rows] = len(cut)
                cut.append(texture)
        return encode_mesh(
            FeatureMesh(
                vertices=points,
                triangles=(self.corners[own] - first).astype(np.uint32),
                surfaces=self.surface[own],
                colors=color if colored else None,
                uv=uv if cut else None,
                image=place if cut else None,
                images=tuple(cut),
            )
        )

    def outline(self, row: int) -> shapely.Geometry | None:
        """Return the footprint of a feature: its grounds, or all that is seen from above.

        None when nothing of it covers any ground.
        """
        own = slice(self.start[row], self.start[row + 1])
        corners = self.points[self.corners[own]][:, :, :2]
        ground = self.surface[own] == GROUND
        for chosen in (corners[ground], corners):
            a, b, c = np.moveaxis(chosen, 1, 0)
            side, other = b - a, c - a
            area = np.abs(side[:, 0] * other[:, 1] - side[:, 1] * other[:, 0])
            flat = chosen[area > 1e-9 * area.max(initial=0.0)]
            if not len(flat):
                continue
            if len(flat) > _MAX_UNION:
                return shapely.convex_hull(shapely.multipoints(flat.reshape(-1, 2)))
            found = _union(shapely.polygons(flat))
            if shapely.get_dimensions(found) == 2 and not shapely.is_empty(found):
                return found
        return None


def _union(triangles: NDArray[np.object_]) -> shapely.Geometry:
    """Unite triangles, which seldom overlap."""
    try:
        # Three times as fast as what is right for overlaps too; whether there are any shows in
        # the area.
        found = shapely.coverage_union_all(triangles)
    except shapely.GEOSException:
        return shapely.union_all(triangles)
    area = float(shapely.area(triangles).sum())
    if shapely.is_valid(found) and abs(shapely.area(found) - area) <= 1e-9 * area:
        return found
    return shapely.union_all(triangles)


def triangulated(
    features: Sequence[Sequence[Faces]], degrees: bool, findings: Findings, ids: Sequence[str]
) -> Triangles:
    """Triangulate the faces of N features.

    Args:
        features: the faces of each; pieces are `compact`.
        degrees: whether x and y are degrees.
        findings: receives how many faces had no area or were not flat.
        ids: names of the features, for the findings.
    """
    every = _joined(features)
    kept, face_of = _cleaned(every)
    corners, rings, shells = kept
    xyz = _metres(every.points[every.corners[corners]], rings, shells, degrees)
    normal, keep = _planes(xyz, rings, shells)
    if not keep.all():
        in_ring = np.repeat(keep, shells)
        in_corner = np.repeat(in_ring, rings)
        corners, rings, shells = corners[in_corner], rings[in_ring], shells[keep]
        xyz, normal, face_of = xyz[in_corner], normal[keep], face_of[keep]
    lost = np.ones(len(every.shells), dtype=bool)
    lost[face_of] = False
    findings.add(
        "face-degenerate",
        "repair",
        "faces without area are left out",
        int(lost.sum()),
        dict.fromkeys(ids[i] for i in every.owner[lost].tolist()),
    )
    plane, bent, corners = _laid(xyz, normal, rings, shells, corners)
    findings.add(
        "face-bent",
        "info",
        f"faces leave their plane by more than {_FLAT_M} m: triangulated in their mean plane",
        int(bent.sum()),
        dict.fromkeys(ids[i] for i in every.owner[face_of[bent]].tolist()),
    )
    cut, per_face = _cut(plane, rings, shells)
    face = np.repeat(face_of, per_face)
    surface = _by_slope(every.surface[face_of], normal)
    counts = np.bincount(every.owner[face], minlength=len(features))
    uv = every.uv[corners[cut]].astype(np.float32)
    uv[..., 1] = 1.0 - uv[..., 1]
    return Triangles(
        points=every.points,
        point_start=every.point_start,
        corners=every.corners[corners[cut]],
        start=np.concatenate([[0], np.cumsum(counts)]),
        surface=np.repeat(surface, per_face),
        color=every.color[face],
        uv=uv,
        image=every.image[face],
    )


@dataclass(frozen=True, slots=True)
class _Every:
    """All faces of a batch in one; `owner`: (F,) their features."""

    points: NDArray[np.float64]
    point_start: NDArray[np.int64]
    corners: NDArray[np.int64]
    rings: NDArray[np.int64]
    shells: NDArray[np.int64]
    surface: NDArray[np.uint8]
    color: NDArray[np.uint8]
    uv: NDArray[np.float32]
    image: NDArray[np.int32]
    owner: NDArray[np.int64]


def _joined(features: Sequence[Sequence[Faces]]) -> _Every:
    pieces = [piece for feature in features for piece in feature]
    first = np.cumsum([0, *(len(p.points) for p in pieces)])
    per_feature = [sum(len(p.points) for p in feature) for feature in features]
    owners = [row for row, feature in enumerate(features) for _ in feature]

    def stack(arrays: list[NDArray[Any]], shape: tuple[int, ...], dtype: type) -> NDArray[Any]:
        joined: NDArray[Any] = np.concatenate([np.empty((0, *shape), dtype), *arrays])
        return joined.astype(dtype, copy=False)

    return _Every(
        points=stack([p.points for p in pieces], (3,), np.float64),
        point_start=np.cumsum([0, *per_feature]),
        corners=stack([p.corners + f for p, f in zip(pieces, first, strict=False)], (), np.int64),
        rings=stack([p.rings for p in pieces], (), np.int64),
        shells=stack([p.shells for p in pieces], (), np.int64),
        surface=stack([p.surface for p in pieces], (), np.uint8),
        color=stack(
            [np.zeros((len(p.shells), 4)) if p.color is None else p.color for p in pieces],
            (4,),
            np.uint8,
        ),
        uv=stack(
            [np.zeros((len(p.corners), 2)) if p.uv is None else p.uv for p in pieces],
            (2,),
            np.float32,
        ),
        image=stack(
            [np.full(len(p.shells), -1) if p.image is None else p.image for p in pieces],
            (),
            np.int32,
        ),
        owner=np.repeat(np.array(owners, np.int64), [len(p.shells) for p in pieces]),
    )


def _starts(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    starts: NDArray[np.int64] = np.cumsum(sizes) - sizes
    return starts


def _next(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each place in rings the place that follows, around."""
    following = np.arange(1, int(sizes.sum()) + 1)
    following[np.cumsum(sizes)[sizes > 0] - 1] = _starts(sizes)[sizes > 0]
    return following


def _cleaned(
    every: _Every,
) -> tuple[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]], NDArray[np.int64]]:
    """Drop repeated corners, rings of fewer than three, and faces that lost their shell.

    Returns:
        places of the corners that are left among all corners, sizes of rings, rings of faces;
        and the faces that are left.
    """
    corners, rings, shells = every.corners, every.rings, every.shells
    keep = corners != corners[_next(rings)] if len(corners) else np.empty(0, bool)
    ring_of = np.repeat(np.arange(len(rings)), rings)
    sizes = np.bincount(ring_of[keep], minlength=len(rings))
    face_of_ring = np.repeat(np.arange(len(shells)), shells)
    ring_stays = sizes >= 3
    face_stays = np.zeros(len(shells), dtype=bool)
    has = shells > 0
    face_stays[has] = ring_stays[_starts(shells)[has]]
    ring_stays &= face_stays[face_of_ring]
    places = np.flatnonzero(keep & ring_stays[ring_of])
    left = np.bincount(face_of_ring[ring_stays], minlength=len(shells))
    faces = np.flatnonzero(face_stays)
    return (places, sizes[ring_stays], left[faces]), faces


def _metres(
    points: NDArray[np.float64],
    rings: NDArray[np.int64],
    shells: NDArray[np.int64],
    degrees: bool,
) -> NDArray[np.float64]:
    """Return (C, 3) metres from the first corner of each face."""
    per_face = np.add.reduceat(rings, _starts(shells)) if len(shells) else shells
    origin = np.repeat(points[_starts(per_face)], per_face, axis=0)
    away = points - origin
    if degrees:
        # On a sphere: faces are small, and only their planes are asked for.
        away[:, 0] *= 111_320.0 * np.cos(np.radians(origin[:, 1]))
        away[:, 1] *= 110_574.0
    return away


def _planes(
    xyz: NDArray[np.float64], rings: NDArray[np.int64], shells: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the (F, 3) unit normals of faces by Newell's formula, and which have an area."""
    if not len(shells):
        return np.empty((0, 3)), np.empty(0, bool)
    across = np.cross(xyz, xyz[_next(rings)])
    normal = np.add.reduceat(across, _starts(rings), axis=0)[_starts(shells)]
    length = np.linalg.norm(normal, axis=1)
    keep = length > 2 * _MIN_AREA_M2
    return normal / np.where(keep, length, 1.0)[:, None], keep


def _laid(
    xyz: NDArray[np.float64],
    normal: NDArray[np.float64],
    rings: NDArray[np.int64],
    shells: NDArray[np.int64],
    corners: NDArray[np.int64],
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.int64]]:
    """Lay faces into their planes, shells counter-clockwise and holes clockwise.

    Returns:
        (C, 2) coordinates on a grid of whole numbers of each face, not rounded; (F,) whether a
        face is bent; the corners in the order of the coordinates.
    """
    if not len(shells):
        return np.empty((0, 2)), np.empty(0, bool), corners
    helper = np.where(np.abs(normal[:, 2:]) < 0.9, (0.0, 0.0, 1.0), (1.0, 0.0, 0.0))
    right = np.cross(helper, normal)
    right /= np.linalg.norm(right, axis=1)[:, None]
    axes = np.stack([right, np.cross(normal, right), normal], axis=1)
    per_face = np.add.reduceat(rings, _starts(shells))
    local = np.einsum("cij,cj->ci", np.repeat(axes, per_face, axis=0), xyz)
    at = _starts(per_face)
    low, high = np.minimum.reduceat(local, at), np.maximum.reduceat(local, at)
    extent = high - low
    scale = _GRID / extent[:, :2].max(axis=1)
    plane = (local[:, :2] - np.repeat(low[:, :2], per_face, axis=0)) * np.repeat(scale, per_face)[
        :, None
    ]
    first = _starts(rings)
    turned = plane[_next(rings)]
    twice = np.add.reduceat(plane[:, 0] * turned[:, 1] - plane[:, 1] * turned[:, 0], first)
    is_shell = np.zeros(len(rings), dtype=bool)
    is_shell[_starts(shells)] = True
    wrong = np.repeat(~is_shell & (twice > 0), rings)
    place = np.arange(len(plane))
    mirrored = np.repeat(2 * first + rings - 1, rings) - place
    order = np.where(wrong, mirrored, place)
    return plane[order], extent[:, 2] > _FLAT_M, corners[order]


def _cut(
    plane: NDArray[np.float64], rings: NDArray[np.int64], shells: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (T, 3) places in `plane`, and (F,) how many triangles each face has."""
    if not len(shells):
        return np.empty((0, 3), np.int64), np.empty(0, np.int64)
    # Lazily, since the server imports readers but never compiled code.
    from tiling.tilers.triangulate import triangulate

    triangles, start = triangulate(
        np.rint(plane).astype(np.int64),
        np.concatenate([[0], np.cumsum(rings)]),
        np.concatenate([[0], np.cumsum(shells)]),
        plane,
    )
    return triangles, np.diff(start)


def _by_slope(surface: NDArray[np.uint8], normal: NDArray[np.float64]) -> NDArray[np.uint8]:
    up = normal[:, 2]
    guess = np.select([up > _WALL_NZ, up < -_WALL_NZ], [ROOF, GROUND], WALL)
    chosen: NDArray[np.uint8] = np.where(surface == UNKNOWN, guess, surface).astype(np.uint8)
    return chosen
