"""Geometry objects of CityJSON to faces: nested lists flattened, semantics and appearance beside.

A face is a list of rings, a ring a list of places among the vertices. Surfaces, shells, solids and
multi-solids nest them one, two and three deep; values of semantics and materials nest alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingest.readers.faces import UNKNOWN, Faces
from ingest.readers.parts import linear
from tiling.errors import SourceUnreadable
from tiling.findings import Findings
from tiling.meshes import GROUND, OTHER, ROOF, WALL

# How deep faces lie in the boundaries of each type.
_DEPTH = {
    "MultiSurface": 1,
    "CompositeSurface": 1,
    "Solid": 2,
    "MultiSolid": 3,
    "CompositeSolid": 3,
}
# A picture that repeats more often than this on one wall is a mistake.
MAX_UV = 1e5
_LINES = ("MultiPoint", "MultiLineString")
SURFACES = {
    "WallSurface": WALL,
    "RoofSurface": ROOF,
    "GroundSurface": GROUND,
    "OuterFloorSurface": ROOF,
    "OuterCeilingSurface": WALL,
}


@dataclass(frozen=True, slots=True)
class Appearance:
    """What geometry refers to for its looks.

    Attributes:
        colors: (M, 4) uint8 linear RGBA of the materials, alpha 0 without a diffuse colour.
        images: number of each texture's image among those of the source.
        uv: (U, 2) float32, v upwards.
        theme_material, theme_texture: names of the themes to take; None: the first.
    """

    colors: NDArray[np.uint8]
    images: tuple[int, ...]
    uv: NDArray[np.float32]
    theme_material: str | None
    theme_texture: str | None

    @classmethod
    def of(
        cls, data: Mapping[str, Any], image_number: Callable[[str], int], path: Path
    ) -> Appearance:
        """Read the ``appearance`` member of a document."""
        try:
            materials = data.get("materials") or []
            colors = np.zeros((len(materials), 4), dtype=np.uint8)
            for row, material in enumerate(materials):
                if (rgb := material.get("diffuseColor")) is not None:
                    colors[row, :3] = linear(np.array(rgb, dtype=np.float64).reshape(3))
                    clear = float(material.get("transparency") or 0.0)
                    # Fully clear walls would not be seen at all, which no author means.
                    colors[row, 3] = round(255 * min(max(1.0 - clear, 0.1), 1.0))
            textures = [str(texture["image"]) for texture in data.get("textures") or []]
            uv = np.array(data.get("vertices-texture") or [], dtype=np.float64).reshape(-1, 2)
            if not (np.abs(uv) <= MAX_UV).all():
                raise ValueError(f"texture coordinates beyond {MAX_UV:g}")
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise SourceUnreadable(
                f"its appearance is damaged: {error!r}", source=path, remedy="export it again"
            ) from error
        return cls(
            colors,
            tuple(image_number(name) for name in textures),
            uv.astype(np.float32),
            data.get("default-theme-material"),
            data.get("default-theme-texture"),
        )


@dataclass(frozen=True, slots=True)
class Shapes:
    """Makes faces of the geometries of one document.

    Attributes:
        path: the file, for messages.
        vertices: (V, 3) float64.
        appearance: of the document.
        templates: the ``geometry-templates`` member.
    """

    path: Path
    vertices: NDArray[np.float64]
    appearance: Appearance
    templates: Mapping[str, Any]

    def lod(self, geometry: Any, name: str) -> float:
        """Return the level of detail of a geometry; of an instance that of its template.

        Geometries of points and lines have -1: they are never chosen.
        """
        if not isinstance(geometry, dict):
            raise self._bad(name, "a geometry that is no object")
        if geometry.get("type") in _LINES:
            return -1.0
        if geometry.get("type") == "GeometryInstance":
            return self.lod(self._template(geometry, name), name)
        stated = geometry.get("lod")
        try:
            return float(stated)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            raise self._bad(name, f"a geometry of LoD {stated!r}") from None

    def faces(self, geometry: Mapping[str, Any], name: str, findings: Findings) -> list[Faces]:
        """Return the faces of a geometry, none when it has none.

        Args:
            geometry: of the object `name`.
            findings: receives unusual things.

        Raises:
            SourceUnreadable: an index out of range, lists nested wrongly, an unknown type.
        """
        if geometry.get("type") == "GeometryInstance":
            return self._instance(geometry, name)
        return self._polygons(geometry, name, self.vertices)

    def _template(self, geometry: Mapping[str, Any], name: str) -> Any:
        number = geometry.get("template")
        known = self.templates.get("templates") or []
        if not isinstance(number, int) or not 0 <= number < len(known):
            raise self._bad(name, f"template {number!r} of {len(known)}")
        if isinstance(known[number], dict) and known[number].get("type") == "GeometryInstance":
            raise self._bad(name, "a template that is an instance itself")
        return known[number]

    def _instance(self, geometry: Mapping[str, Any], name: str) -> list[Faces]:
        try:
            raw = self.templates.get("vertices-templates") or []
            points = np.array(raw, dtype=np.float64).reshape(-1, 3)
            matrix = np.array(geometry["transformationMatrix"], dtype=np.float64).reshape(4, 4)
            (place,) = geometry["boundaries"]
            if not 0 <= place < len(self.vertices):
                raise ValueError(f"vertex {place} of {len(self.vertices)}")
        except (KeyError, TypeError, ValueError) as error:
            raise self._bad(name, f"an instance that is damaged: {error!r}") from error
        with np.errstate(over="ignore", invalid="ignore"):  # whoever takes the shape looks at it
            moved = points @ matrix[:3, :3].T + matrix[:3, 3] + self.vertices[place]
        return self._polygons(self._template(geometry, name), name, moved)

    def _polygons(
        self, geometry: Mapping[str, Any], name: str, vertices: NDArray[np.float64]
    ) -> list[Faces]:
        kind = geometry.get("type")
        depth = _DEPTH.get(kind) if isinstance(kind, str) else None
        if depth is None:
            raise self._bad(name, f"a geometry of type {kind!r}")
        boundaries = geometry.get("boundaries")
        faces: list[Any] = []
        flat: list[int] = []
        rings: list[int] = []
        shells: list[int] = []
        try:
            faces.extend(_flat(boundaries, depth))
            for face in faces:
                shells.append(len(face))
                for ring in face:
                    rings.append(len(ring))
                    flat.extend(ring)
            corners = np.array(flat, dtype=object if not flat else None)
        except (TypeError, ValueError) as error:
            raise self._bad(name, f"boundaries that are no lists of rings: {error}") from error
        if not flat:
            return []
        if corners.dtype.kind not in "iu":
            odd = next(c for c in flat if not isinstance(c, int) or isinstance(c, bool))
            raise self._bad(name, f"{odd!r} where the number of a vertex belongs")
        if corners.min() < 0 or corners.max() >= len(vertices):
            odd = corners.min() if corners.min() < 0 else corners.max()
            raise self._bad(name, f"vertex {odd} of {len(vertices)}")
        uv, image = self._textures(geometry, faces, depth, name, len(flat))
        return [
            Faces(
                vertices,
                corners.astype(np.int64),
                np.array(rings, dtype=np.int64),
                np.array(shells, dtype=np.int64),
                self._surfaces(geometry, boundaries, depth, len(faces), name),
                self._materials(geometry, boundaries, depth, len(faces), name),
                uv,
                image,
            ).compact()
        ]

    def _surfaces(
        self, geometry: Mapping[str, Any], boundaries: Any, depth: int, count: int, name: str
    ) -> NDArray[np.uint8]:
        semantics = geometry.get("semantics")
        if not semantics:
            return np.full(count, UNKNOWN, np.uint8)
        try:
            kinds = [s["type"] for s in semantics["surfaces"]]
            codes = [SURFACES.get(k, OTHER) for k in kinds]
            places = list(_beside(semantics.get("values"), boundaries, depth))
            found = [UNKNOWN if p is None else codes[_place(p, len(codes))] for p in places]
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise self._bad(name, f"semantics that are damaged: {error}") from error
        return np.array(found, dtype=np.uint8)

    def _materials(
        self, geometry: Mapping[str, Any], boundaries: Any, depth: int, count: int, name: str
    ) -> NDArray[np.uint8] | None:
        theme = _theme(geometry.get("material"), self.appearance.theme_material)
        if theme is None:
            return None
        colors = self.appearance.colors
        try:
            if "value" in theme:
                places = [theme["value"]] * count
            else:
                places = list(_beside(theme.get("values"), boundaries, depth))
            none = np.zeros(4, np.uint8)
            rows = [none if p is None else colors[_place(p, len(colors))] for p in places]
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise self._bad(name, f"materials that are damaged: {error}") from error
        return np.array(rows, dtype=np.uint8).reshape(count, 4)

    def _textures(
        self, geometry: Mapping[str, Any], faces: list[Any], depth: int, name: str, corners: int
    ) -> tuple[NDArray[np.float32] | None, NDArray[np.int32] | None]:
        theme = _theme(geometry.get("texture"), self.appearance.theme_texture)
        if theme is None or not self.appearance.images:
            return None, None
        uv = np.zeros((corners, 2), dtype=np.float32)
        image = np.full(len(faces), -1, dtype=np.int32)
        at = 0
        try:
            values = list(_beside(theme.get("values"), geometry["boundaries"], depth))
            for row, (face, value) in enumerate(zip(faces, values, strict=True)):
                for number, ring in enumerate(face):
                    said = value[number] if value else [None]
                    if said and said[0] is not None:
                        picture = _place(said[0], len(self.appearance.images))
                        places = [_place(p, len(self.appearance.uv)) for p in said[1:]]
                        if len(places) != len(ring):
                            raise ValueError(f"{len(places)} places for {len(ring)} corners")
                        uv[at : at + len(ring)] = self.appearance.uv[places]
                        if number == 0:
                            image[row] = self.appearance.images[picture]
                    at += len(ring)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise self._bad(name, f"textures that are damaged: {error}") from error
        return uv, image

    def _bad(self, name: str, what: str) -> SourceUnreadable:
        return SourceUnreadable(
            f"object {name!r} has {what}", source=self.path, remedy="export it again"
        )


def _theme(themes: Any, wanted: str | None) -> Mapping[str, Any] | None:
    """Return the theme that the document prefers, else the first."""
    if not isinstance(themes, dict) or not themes:
        return None
    found = themes.get(wanted) if wanted in themes else next(iter(themes.values()))
    return found if isinstance(found, dict) else None


def _flat(nested: Any, depth: int) -> Iterator[Any]:
    if not isinstance(nested, list):
        raise TypeError(f"{nested!r:.40} where a list belongs")
    if depth == 1:
        yield from nested
        return
    for each in nested:
        yield from _flat(each, depth - 1)


def _beside(values: Any, boundaries: Any, depth: int) -> Iterator[Any]:
    """Yield the value of each face; null at any level says nothing about all below it."""
    if depth == 0:
        yield values
        return
    if values is None:
        values = [None] * len(boundaries)
    if len(values) != len(boundaries):
        raise ValueError(f"{len(values)} values for {len(boundaries)} boundaries")
    for value, inner in zip(values, boundaries, strict=True):
        yield from _beside(value, inner, depth - 1)


def _place(number: Any, count: int) -> int:
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < count:
        raise IndexError(f"number {number!r} of {count}")
    return number
