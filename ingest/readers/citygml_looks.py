"""Appearances of CityGML: which picture or colour a surface has.

Elements are known by their local names, which 2.0 and 3.0 share where it matters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from lxml import etree
from numpy.typing import NDArray

from ingest.readers.cityjson_geometry import MAX_UV
from ingest.readers.parts import linear
from tiling.findings import Findings

GML_IDS = ("{http://www.opengis.net/gml}id", "{http://www.opengis.net/gml/3.2}id")


def local(element: etree._Element) -> str:
    """Return the name of an element without its namespace; empty for comments and the like."""
    tag = element.tag
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


def gml_id(element: etree._Element) -> str | None:
    """Return the ``gml:id`` of an element."""
    for name in GML_IDS:
        found = element.get(name)
        if found is not None:
            return str(found)
    return None


@dataclass(slots=True)
class Looks:
    """Textures and colours by the id of what has them.

    Attributes:
        rings: id of a ring -> number of its image, (C, 2) float32 as bytes, v upwards.
        colors: id of a surface -> linear RGBA.
    """

    rings: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    colors: dict[str, tuple[int, int, int, int]] = field(default_factory=dict)

    def add(
        self,
        data: etree._Element,
        image_number: Callable[[str], int],
        findings: Findings,
    ) -> None:
        """Take over a ``surfaceDataMember``; what has a look already keeps it.

        Raises:
            ValueError: colours or texture coordinates that are no numbers.
        """
        for element in data:
            kind = local(element)
            if kind == "ParameterizedTexture":
                self._texture(element, image_number, findings)
            elif kind == "X3DMaterial":
                self._material(element)
            elif kind:
                findings.add(
                    "appearance-skipped", "info", f"{kind} is not drawn", samples=[gml_id(element)]
                )

    def _texture(
        self,
        element: etree._Element,
        image_number: Callable[[str], int],
        findings: Findings,
    ) -> None:
        name = next((e.text for e in element if local(e) == "imageURI"), None)
        if name is None or not name.strip():
            return
        number = image_number(name.strip())
        for ring, text in _coordinates(element):
            uv = np.array([float(word) for word in text.split()])
            if not (np.abs(uv) <= MAX_UV).all():
                raise ValueError(f"ring {ring!r} has texture coordinates beyond {MAX_UV:g}")
            self.rings.setdefault(ring, (number, uv.astype(np.float32).tobytes()))
        if any(local(e) in ("TexCoordGen", "worldToTexture") for e in element.iter()):
            findings.add(
                "appearance-skipped",
                "info",
                "textures projected by a matrix (TexCoordGen) are not drawn",
            )

    def _material(self, element: etree._Element) -> None:
        rgb, clear, targets = [0.8, 0.8, 0.8], 0.0, []
        for child in element.iter():
            text = (child.text or "").strip()
            kind = local(child)
            if kind == "diffuseColor":
                rgb = [float(word) for word in text.split()]
            elif kind == "transparency":
                clear = float(text)
            elif kind == "target" and text:
                targets.append(text.lstrip("#"))
        if len(rgb) != 3:
            raise ValueError(f"a diffuseColor of {len(rgb)} numbers")
        # Fully clear walls would not be seen at all, which no author means.
        alpha = round(255 * min(max(1.0 - clear, 0.1), 1.0))
        if not np.isfinite(rgb).all():
            raise ValueError(f"the diffuseColor {rgb}")
        red, green, blue = (int(c) for c in linear(np.array(rgb)))
        for target in targets:
            self.colors.setdefault(target, (red, green, blue, alpha))

    def texture_of(self, ring: str | None, count: int) -> tuple[int, NDArray[np.float32]] | None:
        """Return image and (count, 2) coordinates of a ring; None when they do not fit it."""
        found = self.rings.get(ring) if ring else None
        if found is None:
            return None
        uv = np.frombuffer(found[1], dtype=np.float32)
        return (found[0], uv.reshape(-1, 2)) if len(uv) == 2 * count else None


def _coordinates(texture: etree._Element) -> Iterator[tuple[str, str]]:
    """Yield rings and their coordinates, an attribute in 2.0 and an element beside in 3.0."""
    for element in texture.iter():
        if local(element) != "TexCoordList":
            continue
        lists = [e for e in element if local(e) == "textureCoordinates"]
        rings = [(e.text or "").strip() for e in element if local(e) == "ring"]
        for place, each in enumerate(lists):
            ring = each.get("ring") or (rings[place] if place < len(rings) else "")
            if ring:
                yield ring.lstrip("#"), each.text or ""
