"""Geometry of CityGML buildings to faces: solids and surfaces, their references resolved."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from lxml import etree

from ingest.readers.citygml_looks import Looks, gml_id, local
from ingest.readers.cityjson_geometry import SURFACES
from ingest.readers.faces import UNKNOWN, Faces
from tiling.findings import Findings
from tiling.meshes import OTHER

HREF = "{http://www.w3.org/1999/xlink}href"
_POLYGONS = ("Polygon", "PolygonPatch", "Triangle", "Rectangle")
_BOUNDARIES = ("boundedBy", "boundary")
# Members of an object that hold others, which are looked at on their own.
PARTS = (
    "consistsOfBuildingPart", "buildingPart", "consistsOfBridgePart", "bridgePart",
    "outerBuildingInstallation", "buildingInstallation", "outerBridgeInstallation",
    "bridgeInstallation", "outerBridgeConstructionElement", "bridgeConstructiveElement",
    "buildingConstructiveElement",
)  # fmt: skip
_MAX_DEPTH = 64


@dataclass(frozen=True, slots=True)
class _Polygon:
    """A polygon as it is used: the other way around, maybe."""

    element: etree._Element
    reverse: bool


class BuildingGeometry:
    """Makes the faces of one building; references are resolved within it."""

    def __init__(self, building: etree._Element, looks: Looks, findings: Findings) -> None:
        self._looks = looks
        self._findings = findings
        self._by_id = {
            found: e for e in building.iter(etree.Element) if (found := gml_id(e)) is not None
        }

    def lods(self, thing: etree._Element) -> set[int]:
        """Return the levels of detail of an object's surfaces, its parts left out."""
        found = set()
        for element in self._own(thing):
            name = local(element)
            if name[:3] == "lod" and name[3:4].isdigit() and name[4:] in _KINDS:
                found.add(int(name[3]))
        return found

    def faces(self, thing: etree._Element, lod: int) -> list[Faces]:
        """Return the faces of an object at a level of detail.

        Surfaces that say what they are win over the same ones in a solid.

        Raises:
            ValueError: positions that are no numbers, or not three each.
        """
        said: dict[etree._Element, tuple[_Polygon, int]] = {}
        plain: dict[etree._Element, _Polygon] = {}
        for element in self._own(thing):
            name = local(element)
            if name[:4] != f"lod{lod}" or name[4:] not in _KINDS:
                continue
            surface = self._surface_of(element, thing)
            for polygon in self._polygons(element, False, 0):
                if surface is None:
                    plain[polygon.element] = polygon
                else:
                    said[polygon.element] = (polygon, surface)
        chosen = dict(said)
        # A solid that repeats its surfaces in place of naming them would be drawn twice.
        if not said or any(e in said for e in plain):
            for element, polygon in plain.items():
                surface = said[element][1] if element in said else UNKNOWN
                chosen[element] = (polygon, surface)
        made = self._made(list(chosen.values()))
        return [] if made is None else [made]

    def _own(self, thing: etree._Element) -> Iterator[etree._Element]:
        """Yield the ``lodN...`` members of an object and of the surfaces that bound it."""
        for child in thing:
            name = local(child)
            if name in PARTS:
                continue
            if name[:3] == "lod":
                yield child
            elif name in _BOUNDARIES:
                for surface in child:
                    yield from (e for e in surface if local(e)[:3] == "lod")

    def _surface_of(self, element: etree._Element, thing: etree._Element) -> int | None:
        parent = element.getparent()
        if parent is None or parent is thing:
            return None
        return SURFACES.get(local(parent), OTHER)

    def _polygons(self, element: etree._Element, reverse: bool, depth: int) -> Iterator[_Polygon]:
        if depth > _MAX_DEPTH:
            raise ValueError("its geometry refers to itself, or nests too deep")
        kind = local(element)
        if kind in _POLYGONS:
            yield _Polygon(element, reverse)
            return
        if kind == "OrientableSurface" and element.get("orientation") == "-":
            reverse = not reverse
        target = element.get(HREF)
        if target is not None:
            found = self._by_id.get(target.lstrip("#"))
            if found is None:
                self._findings.add(
                    "reference-missing",
                    "warning",
                    "surfaces that are named are not in the building: left out",
                    samples=[target[:200]],
                )
            else:
                yield from self._polygons(found, reverse, depth + 1)
        for child in element:
            yield from self._polygons(child, reverse, depth + 1)

    def _made(self, polygons: list[tuple[_Polygon, int]]) -> Faces | None:
        values: list[str] = []
        rings: list[int] = []
        shells: list[int] = []
        uvs = []
        images: list[int] = []
        colors: list[tuple[int, int, int, int]] = []
        flips: list[bool] = []
        for polygon, _ in polygons:
            count, image = 0, -1
            for part in polygon.element:
                if local(part) not in ("exterior", "interior"):
                    continue
                for ring in part:
                    words = _words(ring)
                    if len(words) % 3:
                        raise ValueError(
                            f"a ring of {len(words)} numbers, which is no multiple of three"
                        )
                    size = len(words) // 3
                    look = self._looks.texture_of(gml_id(ring), size) if self._looks.rings else None
                    uvs.append(np.zeros((size, 2), np.float32) if look is None else look[1])
                    if count == 0 and look is not None:
                        image = look[0]
                    values += words
                    rings.append(size)
                    flips.append(polygon.reverse)
                    count += 1
            shells.append(count)
            images.append(image)
            colors.append(self._color(polygon.element))
        if not values:
            return None
        points = np.array([float(v) for v in values]).reshape(-1, 3)
        if not np.isfinite(points).all():
            bad = points[~np.isfinite(points).all(axis=1)][0]
            raise ValueError(f"the position {bad.tolist()}")
        sizes = np.array(rings, dtype=np.int64)
        corners = np.arange(len(points))
        first = np.cumsum(sizes) - sizes
        flipped = np.repeat(np.array(flips), sizes)
        order = np.where(flipped, np.repeat(2 * first + sizes - 1, sizes) - corners, corners)
        textured = max(images) >= 0
        return Faces(
            points,
            order,
            sizes,
            np.array(shells, dtype=np.int64),
            np.array([surface for _, surface in polygons], dtype=np.uint8),
            np.array(colors, dtype=np.uint8) if any(c[3] for c in colors) else None,
            np.concatenate(uvs)[order] if textured else None,
            np.array(images, dtype=np.int32) if textured else None,
        ).compact()

    def _color(self, element: etree._Element) -> tuple[int, int, int, int]:
        here: etree._Element | None = element
        while self._looks.colors and here is not None:
            found = self._looks.colors.get(gml_id(here) or "")
            if found is not None:
                return found
            here = here.getparent()
        return (0, 0, 0, 0)


_KINDS = (
    "Solid", "MultiSurface", "CompositeSurface", "Surface", "Geometry", "FootPrint", "RoofEdge",
    "MultiSolid",
)  # fmt: skip


def _words(ring: etree._Element) -> list[str]:
    """Return the numbers of a ring: of its ``posList``, its ``pos``, or its ``coordinates``."""
    words: list[str] = []
    for element in ring.iter(etree.Element):
        kind = local(element)
        if kind in ("posList", "pos"):
            words += (element.text or "").split()
        elif kind == "coordinates":
            words += (element.text or "").replace(",", " ").split()
    return words
