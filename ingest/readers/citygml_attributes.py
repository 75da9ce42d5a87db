"""Attributes of CityGML objects: standard ones, generic ones, those of extensions; code lists."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lxml import etree

from ingest.readers.citygml_geometry import PARTS
from ingest.readers.citygml_looks import local
from tiling.errors import SourceUnreadable
from tiling.findings import Findings

_NUMBERS: dict[str, type] = {
    "measuredHeight": float,
    "storeysAboveGround": int,
    "storeysBelowGround": int,
    "yearOfConstruction": int,
    "yearOfDemolition": int,
    "intAttribute": int,
    "IntAttribute": int,
    "doubleAttribute": float,
    "DoubleAttribute": float,
    "measureAttribute": float,
    "MeasureAttribute": float,
}
# Geometry, other objects, and what is said about the object elsewhere.
_PASSED = (
    *PARTS, "boundedBy", "boundary", "appearance", "opening", "externalReference", "generalizesTo",
    "relatedTo", "interiorBuildingInstallation", "interiorRoom", "buildingRoom", "buildingUnit",
    "buildingSubdivision", "multiPoint", "terrainIntersection",
)  # fmt: skip
_MAX_LIST_NBYTES = 16 << 20


class CodeLists:
    """Meanings of codes, from dictionaries that lie near the file.

    Only files at most two folders above the source's folder, or below that, are read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lists: dict[str, dict[str, str] | None] = {}
        self.files: list[Path] = []

    def meaning(self, space: str, code: str, findings: Findings) -> str | None:
        """Return what a code means; None when its list is not at hand, or lacks it."""
        if space not in self._lists:
            self._lists[space] = self._read(space)
        known = self._lists[space]
        if known is None:
            findings.add(
                "codelist-missing",
                "info",
                "lists of codes that are named are not at hand: the codes are kept",
                samples=[space[:200]] if self._first(space) else [],
            )
            return None
        return known.get(code)

    def _first(self, space: str) -> bool:
        seen = f"!{space}"
        new = seen not in self._lists
        self._lists.setdefault(seen, None)
        return new

    def _read(self, space: str) -> dict[str, str] | None:
        folder = self._path.parent.resolve()
        root = folder.parents[min(1, len(folder.parents) - 1)] if folder.parents else folder
        try:
            file = (folder / space.strip()).resolve()
            if "://" in space or not file.is_relative_to(root) or not file.is_file():
                return None
            if file.suffix.lower() not in (".xml", ".gml"):
                return None
        except (OSError, ValueError):  # a name too long, or with a null character
            return None
        if file.stat().st_size > _MAX_LIST_NBYTES:
            return None
        parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)
        try:
            tree = etree.parse(str(file), parser)
        except etree.XMLSyntaxError as error:
            raise SourceUnreadable(
                f"the list of codes is no XML: {error}", source=file, remedy="correct or remove it"
            ) from error
        self.files.append(file)
        found = {}
        for entry in tree.getroot().iter(etree.Element):
            if local(entry) == "Definition":
                said = {local(e): (e.text or "").strip() for e in entry}
                if said.get("name"):
                    found[said["name"]] = said.get("description") or said["name"]
        return found


def attributes(thing: etree._Element, lists: CodeLists, findings: Findings) -> dict[str, Any]:
    """Return the attributes of an object.

    Attributes of extensions have the name of their innermost element; a name that comes several
    times holds a list. A code whose meaning is at hand becomes that, and ``name_code`` the code.
    """
    found: dict[str, Any] = {}
    for name, value in _values(thing, lists, findings):
        if name not in found:
            found[name] = value
        elif isinstance(found[name], list):
            found[name].append(value)
        else:
            found[name] = [found[name], value]
    return found


def _values(
    thing: etree._Element, lists: CodeLists, findings: Findings
) -> Iterator[tuple[str, Any]]:
    for child in thing:
        name = local(child)
        if not name or name in _PASSED or name[:3] == "lod":
            continue
        if name == "genericAttribute":
            for attribute in child:
                yield from _generic(attribute, local(attribute), findings)
        elif name.endswith("Attribute") and child.get("name") is not None:
            yield from _generic(child, name, findings)
        elif name == "genericAttributeSet":
            for attribute in child:
                yield from _generic(attribute, local(attribute), findings)
        elif len(child):
            # Containers, of extensions mostly: their innermost elements are the values.
            yield from _values(child, lists, findings)
        elif (text := (child.text or "").strip()) and (space := child.get("codeSpace")):
            meaning = lists.meaning(space, text, findings)
            yield name, text if meaning is None else meaning
            if meaning is not None:
                yield f"{name}_code", text
        elif text:
            kind = float if child.get("uom") is not None else _NUMBERS.get(name)
            yield name, _number(text, kind, name, findings)


def _generic(element: etree._Element, kind: str, findings: Findings) -> Iterator[tuple[str, Any]]:
    name = element.get("name")
    value = None
    for child in element:
        if local(child) == "value":
            value = (child.text or "").strip()
        elif local(child) == "name":
            name = (child.text or "").strip()
        elif local(child).endswith("Attribute"):
            yield from _generic(child, local(child), findings)
    if name and value:
        yield name, _number(value, _NUMBERS.get(kind), name, findings)


def _number(text: str, kind: type | None, name: str, findings: Findings) -> Any:
    if kind is None:
        return text
    try:
        value = float(text)
        return int(text) if kind is int and value == int(value) else value
    except (ValueError, OverflowError):
        findings.add(
            "attribute-no-number",
            "warning",
            "numbers that are none are kept as text",
            samples=[f"{name}: {text[:80]}"],
        )
        return text
