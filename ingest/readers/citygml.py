"""CityGML 2.0 and 3.0 buildings, one at a time.

The file is streamed: what was read of a building is freed before the next. Only the index of
global textures rests in memory. No entities are expanded and nothing is fetched.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, ClassVar

from lxml import etree

from ingest.readers.base import ReadOptions
from ingest.readers.city import CityFeature, CityReader
from ingest.readers.citygml_attributes import CodeLists, attributes
from ingest.readers.citygml_geometry import PARTS, BuildingGeometry
from ingest.readers.citygml_looks import Looks, gml_id, local
from ingest.readers.faces import Faces
from tiling.findings import Findings

_TAKEN = ("Building", "Bridge", "OtherConstruction")
_MAX_LOD = 2
_MEMBERS = ("cityObjectMember", "featureMember", "surfaceDataMember", "Envelope")
_NAMESPACE = re.compile(rb"http://www\.opengis\.net/citygml/(?:[a-z]+/)?(\d\.\d)")


class CityGmlReader(CityReader):
    """Reads the buildings of CityGML."""

    name: ClassVar[str] = "citygml"

    def __init__(self, path: Path, options: ReadOptions | None = None) -> None:
        super().__init__(path, options)
        self._version = ""
        self._srs: str | None = None
        # Global appearances may follow the buildings: the first walk collects them.
        self._looks: Looks | None = None
        self._lists = CodeLists(self.path)

    @classmethod
    def sniff(cls, path: Path) -> bool:
        """Say whether the reader knows the file; reads at most 64 KiB."""
        path = Path(path)
        if path.is_dir():
            return False
        with path.open("rb") as file:
            head = file.read(64 * 1024)
        if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
            head = head.decode("utf-16", "replace").encode()
        start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
        return start.startswith(b"<") and b"CityModel" in head and bool(_NAMESPACE.search(head))

    def reference(self) -> str | None:
        """Return the ``srsName`` of the envelope or the first geometry."""
        return self._srs

    def format(self) -> str:
        """Return the format and its version."""
        return f"CityGML {self._version}".strip()

    def also_read(self) -> Sequence[Path]:
        """Return the lists of codes."""
        return self._lists.files

    def close(self) -> None:
        """Let go of what the first walk found."""
        super().close()
        self._looks = None

    def features(self, findings: Findings) -> Iterator[CityFeature]:
        """Walk the buildings; see `CityReader.features`."""
        first = self._looks is None
        looks = self._looks or Looks()
        skipped: Counter[str] = Counter()
        number = 0
        with self.path.open("rb") as file:
            for element in self._members(file):
                if local(element) == "Envelope":
                    self._see_srs(element.get("srsName"), "the envelope")
                elif local(element) == "surfaceDataMember":
                    if _is_global(element):
                        if first:
                            self._add_looks(looks, element, findings)
                        _free(element)
                else:
                    for thing in element:
                        name = local(thing)
                        if name in _TAKEN:
                            number += 1
                            yield self._feature(thing, number, looks, findings)
                        elif name:
                            skipped[name] += 1
                    _free(element)
        self._looks = looks
        for name, count in sorted(skipped.items()):
            findings.add(
                "object-skipped", "info", f"{name}: is no building, objects are left out", count
            )

    def _members(self, file: IO[bytes]) -> Iterator[etree._Element]:
        """Yield what the file consists of, as soon as it is whole."""
        context = etree.iterparse(
            file,
            events=("end",),
            tag=tuple(f"{{*}}{name}" for name in _MEMBERS),
            resolve_entities=False,
            no_network=True,
            load_dtd=False,
            huge_tree=False,
        )
        try:
            for _, element in context:
                self._check_head(element)
                yield element
        except etree.XMLSyntaxError as error:
            raise self.unreadable(f"it is no XML, or cut short: {error}") from error

    def _add_looks(self, looks: Looks, data: etree._Element, findings: Findings) -> None:
        try:
            looks.add(data, self.image_number, findings)
        except ValueError as error:
            raise self.unreadable(f"an appearance is damaged: {error}") from error

    def _check_head(self, element: etree._Element) -> None:
        if self._version:
            return
        tree = element.getroottree()
        if tree.docinfo.internalDTD is not None:
            raise self.unreadable("it has a document type declaration, which CityGML never has")
        spaces = " ".join(str(space) for space in tree.getroot().nsmap.values())
        found = _NAMESPACE.search(spaces.encode())
        self._version = found[1].decode() if found else "?"
        if self._version not in ("2.0", "3.0"):
            raise self.unreadable(f"it is CityGML {self._version}; readable are 2.0 and 3.0")

    def _see_srs(self, name: str | None, where: str) -> None:
        if name is None or not name.strip():
            return
        if self._srs is None:
            self._srs = name.strip()
        elif self._srs != name.strip():
            raise self.unreadable(
                f"{where} is in {name!r}, what came before in {self._srs!r}: one file, one "
                "reference system"
            )

    def _feature(
        self, thing: etree._Element, number: int, looks: Looks, findings: Findings
    ) -> CityFeature:
        name = gml_id(thing) or f"{local(thing)}-{number}"
        for srs in set(thing.xpath(".//@srsName")):
            self._see_srs(str(srs), f"building {name!r}")
        own = Looks(dict(looks.rings), dict(looks.colors)) if _has_looks(thing) else looks
        if own is not looks:
            for data in thing.iter("{*}surfaceDataMember"):
                self._add_looks(own, data, findings)
        try:
            return self._made(thing, name, own, findings)
        except ValueError as error:
            raise self.unreadable(f"building {name!r} has {error}") from error

    def _made(
        self, thing: etree._Element, name: str, looks: Looks, findings: Findings
    ) -> CityFeature:
        geometry = BuildingGeometry(thing, looks, findings)
        members = [thing, *_parts(thing)]
        levels = {member: _chosen(geometry.lods(member)) for member in members}
        finest = max(levels.values())
        faces: list[Faces] = []
        outline: list[Faces] = []
        for member in members:
            level = levels[member]
            # A building may hold a coarse shape of the whole beside the finer ones of its parts.
            if level > 0 and not (member is thing and level < finest):
                faces += geometry.faces(member, level)
            if 0 in geometry.lods(member):
                outline += geometry.faces(member, 0)
        found: dict[str, Any] = {}
        for member in members:
            if member is thing or local(member).endswith("Part"):
                for key, value in attributes(member, self._lists, findings).items():
                    found.setdefault(key, value)
        lod = str(finest) if faces else "0" if outline else None
        return CityFeature(name, local(thing), lod, found, faces, [] if faces else outline)


def _chosen(levels: set[int]) -> int:
    """Return the finest level up to 2, else the coarsest above; -1 for none."""
    fitting = [level for level in levels if level <= _MAX_LOD]
    return (
        max(fitting)
        if fitting and max(fitting) > 0
        else min((level for level in levels if level > _MAX_LOD), default=max(fitting, default=-1))
    )


def _parts(thing: etree._Element) -> Iterator[etree._Element]:
    """Yield parts and installations of an object, and theirs."""
    for child in thing:
        if local(child) in PARTS:
            for part in child:
                if local(part):
                    yield part
                    yield from _parts(part)


def _has_looks(thing: etree._Element) -> bool:
    return next(thing.iter("{*}surfaceDataMember"), None) is not None


def _is_global(data: etree._Element) -> bool:
    appearance = data.getparent()
    member = None if appearance is None else appearance.getparent()
    return member is not None and local(member) == "appearanceMember"


def _free(element: etree._Element) -> None:
    """Free what was read of an element, and what came before it."""
    element.clear()
    parent = element.getparent()
    while parent is not None and element.getprevious() is not None:
        del parent[0]
