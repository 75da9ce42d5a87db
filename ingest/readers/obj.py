"""Wavefront OBJ with its material libraries.

Text in UTF-8 or GBK, relative indices, polygons of any number of corners (concave ones too), one
part for each object (``o``), for each group (``g``) where a file has no objects.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray

from ingest.encoding import decode
from ingest.readers.parts import WHITE, Beside, Model, Part, linear, texture
from tiling.errors import SourceUnreadable
from tiling.findings import Findings
from tiling.formats.primitive import Texture

# Options of map_Kd and the values that follow each.
_MAP_OPTIONS = {
    "-blendu": 1, "-blendv": 1, "-boost": 1, "-bm": 1, "-cc": 1, "-clamp": 1, "-imfchan": 1,
    "-mm": 2, "-o": 3, "-s": 3, "-t": 3, "-texres": 1, "-type": 1,
}  # fmt: skip


@dataclass(slots=True)
class _Faces:
    """Polygons as they are read: corners of all of them in one list each."""

    sizes: list[int] = field(default_factory=list)
    corners: list[int] = field(default_factory=list)
    uvs: list[int] = field(default_factory=list)
    objects: list[int] = field(default_factory=list)
    groups: list[int] = field(default_factory=list)
    materials: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Material:
    color: tuple[int, ...] = WHITE
    image: str | None = None


def read_obj(path: Path, findings: Findings) -> Model:
    """Read a model.

    Raises:
        SourceUnreadable: a line that means nothing, an index out of range, or no faces.
    """
    beside = Beside(path, findings)
    text = _text(path.read_bytes(), path)
    vertices: list[str] = []
    uvs: list[str] = []
    names: dict[str, dict[str, int]] = {"o": {"": 0}, "g": {"": 0}, "usemtl": {"": 0}}
    now = {"o": 0, "g": 0, "usemtl": 0}
    faces = _Faces()
    library: dict[str, _Material] = {}
    for number, line in enumerate(text.replace("\\\n", " ").splitlines(), 1):
        word, _, rest = line.strip().partition(" ")
        if word == "v":
            vertices.append(rest)
        elif word == "vt":
            uvs.append(rest)
        elif word == "f":
            _face(faces, rest.split(), len(vertices), len(uvs), path, number)
            for which, column in (("o", faces.objects), ("g", faces.groups)):
                column.append(now[which])
            faces.materials.append(now["usemtl"])
        elif word in names:
            known = names[word]
            now[word] = known.setdefault(rest.strip(), len(known))
        elif word == "mtllib":
            data = beside.read(rest.strip(), "material library")
            if data is not None:
                library |= _materials(_text(data, path), path)
    if not faces.sizes:
        raise SourceUnreadable(
            f"it has {len(vertices)} vertices and no faces", source=path, remedy="export it again"
        )
    points, coordinates = _numbers(vertices, 3, path), _numbers(uvs, 2, path)
    coordinates[:, 1] = 1.0 - coordinates[:, 1]  # OBJ counts v upwards
    by_object = len(set(faces.objects)) > 1 or len(names["o"]) > 1
    owners, labels = (faces.objects, names["o"]) if by_object else (faces.groups, names["g"])
    images, colors, image_of = _resolved(list(names["usemtl"]), library, beside, findings)
    triangles, corner, polygon = _triangulated(faces, points, path)
    material = np.array(faces.materials)[polygon]
    uv_index = np.array(faces.uvs)[corner]
    has_uv: NDArray[np.bool_] = np.all(uv_index >= 0, axis=1)
    if uv_index.max() >= len(coordinates):
        raise SourceUnreadable(
            f"a face names texture coordinate {uv_index.max() + 1} of {len(coordinates)}",
            source=path,
            remedy="export it again",
        )
    table = coordinates if len(coordinates) else np.zeros((1, 2))
    uv = np.where(has_uv[:, None, None], table[np.maximum(uv_index, 0)], 0.0).astype(np.float32)
    image = np.where(has_uv, image_of[material], -1).astype(np.int32)
    owner = np.array(owners)[polygon]
    material_names = list(names["usemtl"])
    parts = []
    for label, index in labels.items():
        rows = np.flatnonzero(owner == index)
        if len(rows):
            used, local = np.unique(triangles[rows], return_inverse=True)
            parts.append(
                Part(
                    label,
                    tuple(material_names[m] for m in dict.fromkeys(material[rows].tolist()) if m),
                    points[used],
                    local.reshape(-1, 3).astype(np.int64),
                    colors[material[rows]],
                    uv[rows],
                    image[rows],
                )
            )
    return Model(parts, images, beside.files)


def _text(data: bytes, path: Path) -> str:
    for name in ("utf-8-sig", "gb18030"):
        text, whole = decode(data, name)
        if whole:
            return text
    raise SourceUnreadable(
        "its text is neither UTF-8 nor GBK", source=path, remedy="save it in UTF-8"
    )


def _face(
    faces: _Faces, words: list[str], vertices: int, uvs: int, path: Path, number: int
) -> None:
    if len(words) < 3:
        raise SourceUnreadable(
            f"line {number}: a face of {len(words)} corners", source=path, remedy="export it again"
        )
    for word in words:
        v, _, rest = word.partition("/")
        vt = rest.partition("/")[0]
        try:
            corner = int(v) - 1 if v[0] != "-" else vertices + int(v)
            uv = -1 if not vt else int(vt) - 1 if vt[0] != "-" else uvs + int(vt)
        except (ValueError, IndexError):
            corner = uv = -2
        if corner < 0 or uv < -1:
            raise SourceUnreadable(
                f"line {number}: a corner {word!r} of a face means nothing",
                source=path,
                remedy="export it again",
            )
        faces.corners.append(corner)
        faces.uvs.append(uv)
    faces.sizes.append(len(words))


def _numbers(lines: list[str], width: int, path: Path) -> NDArray[np.float64]:
    try:
        # Colours or weights may follow the coordinates.
        found = np.array([(line.split() + ["0"] * width)[:width] for line in lines], np.float64)
    except ValueError as error:
        raise SourceUnreadable(
            f"a vertex holds no numbers: {error}", source=path, remedy="export it again"
        ) from error
    found = found.reshape(-1, width)
    if not np.isfinite(found).all():
        bad = int(np.flatnonzero(~np.isfinite(found).all(axis=1))[0])
        raise SourceUnreadable(
            f"vertex {bad + 1} is {lines[bad]!r}", source=path, remedy="export it again"
        )
    return found


def _triangulated(
    faces: _Faces, points: NDArray[np.float64], path: Path
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return (T, 3) vertices, (T, 3) places of the corners, and (T,) polygons of triangles."""
    corners, sizes = np.array(faces.corners), np.array(faces.sizes)
    if corners.max() >= len(points):
        raise SourceUnreadable(
            f"a face names vertex {corners.max() + 1} of {len(points)}",
            source=path,
            remedy="export it again",
        )
    starts = np.cumsum(sizes) - sizes
    found, owners = [], []
    for size in np.unique(sizes).tolist():
        rows = np.flatnonzero(sizes == size)
        ring = starts[rows][:, None] + np.arange(size)
        fan = np.stack([np.zeros(size - 2, int), np.arange(1, size - 1), np.arange(2, size)], 1)
        concave = _concave(points[corners[ring]]) if size > 3 else np.zeros(len(rows), bool)
        found.append(ring[~concave][:, fan].reshape(-1, 3))
        owners.append(np.repeat(rows[~concave], size - 2))
        for row, places in zip(rows[concave], ring[concave], strict=True):
            cut = places[_cut(points[corners[places]], fan)]
            found.append(cut)
            owners.append(np.full(len(cut), row))
    corner, polygon = np.concatenate(found), np.concatenate(owners)
    order = np.argsort(polygon, kind="stable")
    return corners[corner[order]], corner[order], polygon[order]


def _concave(rings: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Mark (P, N, 3) polygons with a corner that turns against the rest."""
    before, after = np.roll(rings, 1, axis=1), np.roll(rings, -1, axis=1)
    turns = np.cross(rings - before, after - rings)
    normal = np.cross(rings, after).sum(axis=1)
    marked: NDArray[np.bool_] = (np.einsum("pnc,pc->pn", turns, normal) < -1e-9).any(axis=1)
    return marked


def _cut(ring: NDArray[np.float64], fan: NDArray[np.int64]) -> NDArray[np.int64]:
    """Triangulate one (N, 3) concave polygon in its plane; by a fan where it crosses itself."""
    normal = np.cross(ring, np.roll(ring, -1, axis=0)).sum(axis=0)
    drop = int(np.argmax(np.abs(normal)))
    flat = np.delete(ring, drop, axis=1)
    polygon = shapely.Polygon(flat)
    if not polygon.is_valid:
        return fan
    pieces = shapely.get_parts(shapely.constrained_delaunay_triangles(polygon))
    place = {tuple(xy): i for i, xy in enumerate(flat.tolist())}
    points = shapely.get_coordinates(pieces).reshape(-1, 4, 2)[:, :3].tolist()
    cut = np.array([[place[tuple(xy)] for xy in triangle] for triangle in points])
    areas = np.einsum("tc,c->t", np.cross(ring[cut[:, 1]] - ring[cut[:, 0]],
                                          ring[cut[:, 2]] - ring[cut[:, 0]]), normal)  # fmt: skip
    cut[areas < 0] = cut[areas < 0][:, ::-1]
    return cut


def _materials(text: str, path: Path) -> dict[str, _Material]:
    """Read a material library: diffuse colour, opacity and diffuse texture."""
    found: dict[str, _Material] = {}
    name: str | None = None
    rgb, alpha, image = [1.0, 1.0, 1.0], 1.0, None

    def keep() -> None:
        if name is not None:
            color = (*linear(np.array(rgb)).tolist(), round(255 * min(max(alpha, 0.0), 1.0)))
            found[name] = _Material(color, image)

    def number(text: str) -> float:
        try:
            return float(text)
        except ValueError as error:
            raise SourceUnreadable(
                f"material {name!r} holds {text!r} where a number belongs",
                source=path,
                remedy="export it again",
            ) from error

    for line in text.splitlines():
        word, _, rest = line.strip().partition(" ")
        values = rest.split()
        if word == "newmtl":
            keep()
            name, rgb, alpha, image = rest.strip(), [1.0, 1.0, 1.0], 1.0, None
        elif word == "Kd" and len(values) >= 3 and values[0] not in ("spectral", "xyz"):
            rgb = [number(v) for v in values[:3]]
        elif word == "d" and values:
            alpha = number(values[-1])
        elif word == "Tr" and values:
            alpha = 1.0 - number(values[0])
        elif word == "map_Kd":
            image = _without_options(rest.strip())
    keep()
    return found


def _without_options(rest: str) -> str:
    while (head := rest.split(maxsplit=1)) and head[0] in _MAP_OPTIONS and len(head) > 1:
        rest = head[1]
        for _ in range(_MAP_OPTIONS[head[0]]):
            first, _, after = rest.partition(" ")
            # -o, -s and -t may have fewer than three values.
            if head[0] in ("-o", "-s", "-t") and not _is_number(first):
                break
            rest = after.lstrip()
    return rest


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).lstrip("+-").isdigit()


def _resolved(
    names: list[str], library: dict[str, _Material], beside: Beside, findings: Findings
) -> tuple[list[Texture], NDArray[np.uint8], NDArray[np.int32]]:
    """Return images, and the (M, 4) colour and (M,) image of each material that is used."""
    images: list[Texture] = []
    place: dict[str, int] = {}
    colors = np.full((len(names), 4), 255, np.uint8)
    image_of = np.full(len(names), -1, np.int32)
    missing = [name for name in names if name and name not in library]
    findings.add("material-missing", "warning", "materials that no library has: white",
                 len(missing), missing)  # fmt: skip
    for index, name in enumerate(names):
        material = library.get(name, _Material())
        colors[index] = material.color
        if material.image is None:
            continue
        if material.image not in place:
            data = beside.read(material.image, "texture")
            place[material.image] = -1 if data is None else len(images)
            if data is not None:
                images.append(texture(data))
        image_of[index] = place[material.image]
    return images, colors, image_of
