"""CityJSON 1.0 to 2.0 and CityJSONSeq (one feature a line).

A CityJSON file is parsed whole; of a sequence only one line is in memory at a time. Objects hang
below a building by `children`: parts and installations belong to its shape. Of the
geometries of an object the finest up to LoD 2.x is taken.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import orjson
from numpy.typing import NDArray

from ingest.readers.base import ReadOptions
from ingest.readers.city import CityFeature, CityReader
from ingest.readers.cityjson_geometry import Appearance, Shapes
from ingest.readers.faces import Faces
from tiling.findings import Findings

# What becomes features or parts of their shape, by the beginning of the type.
_TAKEN = ("Building", "Bridge", "OtherConstruction")
# What lies within a building, and cannot be seen from outside.
_INSIDE = ("Room", "Furniture", "Storey", "BuildingUnit")
_TYPE = re.compile(rb'"type"\s*:\s*"CityJSON"')
_MAX_LOD = 3.0
_VERSIONS = ("1.0", "1.1", "2.0")


class CityJsonReader(CityReader):
    """Reads CityJSON and CityJSONSeq."""

    name: ClassVar[str] = "cityjson"

    def __init__(self, path: Path, options: ReadOptions | None = None) -> None:
        super().__init__(path, options)
        self._head: Mapping[str, Any] = {}
        self._sequence = False

    @classmethod
    def sniff(cls, path: Path) -> bool:
        """Say whether the reader knows the file; reads at most 64 KiB."""
        path = Path(path)
        if path.is_dir():
            return False
        with path.open("rb") as file:
            head = file.read(64 * 1024)
        if not head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
            return False
        # Writers may put the type behind the objects: then these are known by their name.
        return bool(_TYPE.search(head)) or b'"CityObjects"' in head

    def reference(self) -> str | None:
        """Return the reference system of the metadata."""
        metadata = self._head.get("metadata")
        stated = metadata.get("referenceSystem") if isinstance(metadata, dict) else None
        return stated if isinstance(stated, str) and stated.strip() else None

    def format(self) -> str:
        """Return the format and its version."""
        kind = "CityJSONSeq" if self._sequence else "CityJSON"
        return f"{kind} {self._head.get('version', '')}".strip()

    def features(self, findings: Findings) -> Iterator[CityFeature]:
        """Walk the buildings; see `CityReader.features`."""
        skipped: Counter[str] = Counter()
        for head, document in self._documents():
            yield from self._walk(head, document, findings, skipped)
        for kind, count in sorted(skipped.items()):
            within = kind.endswith(_INSIDE)
            why = "lies within buildings" if within else "is no building"
            findings.add("object-skipped", "info", f"{kind}: {why}, objects are left out", count)

    def _documents(self) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
        """Yield the head (transform, appearance, metadata) and what holds objects and vertices."""
        with self.path.open("rb") as file:
            line = file.readline()
            head = self._parsed_line(line, 1)
            rest = None if head is None else file.read(1)
            while rest is not None and rest and not rest.strip():
                rest = file.read(1)
            if head is None or not rest:
                file.seek(0)
                document = self._checked(self._parsed(file.read().lstrip(b"\xef\xbb\xbf")))
                self._head, self._sequence = document, False
                yield document, document
                return
            self._head, self._sequence = self._checked(head), True
            if self._head.get("CityObjects"):
                yield self._head, self._head
            number = 1
            line = rest + file.readline()
            while line:
                number += 1
                if line.strip():
                    feature = self._parsed(line, number)
                    if not isinstance(feature, dict) or feature.get("type") != "CityJSONFeature":
                        raise self.unreadable(f"line {number} is no CityJSONFeature")
                    yield self._head, feature
                line = file.readline()

    def _parsed_line(self, line: bytes, number: int) -> Mapping[str, Any] | None:
        """Return the first line as an object; None when the document goes on behind it."""
        stripped = line.strip().lstrip(b"\xef\xbb\xbf")
        if not stripped.endswith(b"}"):
            return None
        try:
            found = orjson.loads(stripped)
        except orjson.JSONDecodeError:
            return None
        return found if isinstance(found, dict) else None

    def _parsed(self, data: bytes, line: int | None = None) -> Any:
        try:
            return orjson.loads(data)
        except orjson.JSONDecodeError as error:
            at = f"line {line}" if line else "the file"
            raise self.unreadable(f"{at} is no JSON, or cut short: {error}") from error

    def _checked(self, document: Any) -> Mapping[str, Any]:
        if not isinstance(document, dict) or document.get("type") != "CityJSON":
            raise self.unreadable("it is not of type CityJSON")
        version = document.get("version")
        if version not in _VERSIONS:
            raise self.unreadable(
                f"it is CityJSON {version!r}; readable are {', '.join(_VERSIONS)}"
            )
        return document

    def _walk(
        self,
        head: Mapping[str, Any],
        document: Mapping[str, Any],
        findings: Findings,
        skipped: Counter[str],
    ) -> Iterator[CityFeature]:
        objects = document.get("CityObjects")
        if not isinstance(objects, dict):
            raise self.unreadable("it has no CityObjects")
        appearance = document.get("appearance") or head.get("appearance") or {}
        shapes = Shapes(
            self.path,
            _vertices(self, document, head.get("transform")),
            Appearance.of(appearance, self.image_number, self.path),
            head.get("geometry-templates") or {},
        )
        groups: dict[str, list[str]] = {}
        for name, thing in objects.items():
            if not isinstance(thing, dict) or not isinstance(thing.get("type"), str):
                raise self.unreadable(f"object {name!r} has no type")
            kind = thing["type"]
            if not kind.lstrip("+").startswith(_TAKEN) or kind.endswith(_INSIDE):
                skipped[kind] += 1
                continue
            groups.setdefault(self._root(name, objects, findings), []).append(name)
        for root, members in groups.items():
            yield self._feature(root, members, objects, shapes, findings)

    def _root(self, name: str, objects: Mapping[str, Any], findings: Findings) -> str:
        """Climb to the building that an object belongs to."""
        seen = {name}
        here = name
        while parents := objects[here].get("parents"):
            above = parents[0] if isinstance(parents, list) else parents
            if not isinstance(above, str) or above not in objects:
                findings.add(
                    "parent-missing",
                    "warning",
                    "the parent of an object is not in the file: it stands for itself",
                    samples=[f"{here} -> {above}"],
                )
                return here
            if above in seen:
                raise self.unreadable(f"the parents of object {name!r} go around in a circle")
            kind = objects[above].get("type") if isinstance(objects[above], dict) else None
            if not isinstance(kind, str) or not kind.startswith(_TAKEN):
                return here  # a group of buildings, say, is none
            seen.add(above)
            here = above
        return here

    def _feature(
        self,
        root: str,
        members: list[str],
        objects: Mapping[str, Any],
        shapes: Shapes,
        findings: Findings,
    ) -> CityFeature:
        chosen: dict[str, tuple[float, Any]] = {}
        outlines: list[Any] = []
        for name in members:
            geometries = objects[name].get("geometry") or []
            if not isinstance(geometries, list):
                raise self.unreadable(f"the geometry of object {name!r} is no list")
            by_lod = sorted(
                ((shapes.lod(geometry, name), i) for i, geometry in enumerate(geometries)),
                key=lambda pair: pair[0],
            )
            outlines += [(name, geometries[i]) for lod, i in by_lod if 0 <= lod < 1]
            solid = [(lod, geometries[i]) for lod, i in by_lod if lod >= 1]
            if solid:
                fitting = [pair for pair in solid if pair[0] < _MAX_LOD]
                chosen[name] = fitting[-1] if fitting else solid[0]
        finest = max((int(lod) for lod, _ in chosen.values()), default=0)
        # A building may hold a coarse shape of the whole beside the finer ones of its parts.
        if root in chosen and int(chosen[root][0]) < finest:
            del chosen[root]
        faces: list[Faces] = []
        for name, (_, geometry) in chosen.items():
            faces += shapes.faces(geometry, name, findings)
        outline: list[Faces] = []
        if not faces:
            for name, geometry in outlines:
                outline += shapes.faces(geometry, name, findings)
        lod = max((lod for lod, _ in chosen.values()), default=0.0 if outline else None)
        thing = objects[root]
        attributes = dict(self._attributes(root, objects))
        for name in members:
            if objects[name]["type"].endswith("Part"):
                # What the building does not say itself is what its first part says.
                for key, value in self._attributes(name, objects).items():
                    attributes.setdefault(key, value)
        return CityFeature(
            root,
            thing["type"],
            None if lod is None else f"{lod:g}",
            attributes,
            faces,
            outline,
        )

    def _attributes(self, name: str, objects: Mapping[str, Any]) -> Mapping[str, Any]:
        found = objects[name].get("attributes") or {}
        if not isinstance(found, dict):
            raise self.unreadable(f"the attributes of object {name!r} are no object")
        return found


def _vertices(
    reader: CityReader, document: Mapping[str, Any], transform: Any
) -> NDArray[np.float64]:
    """Return (V, 3) coordinates of a document's vertices."""
    raw = document.get("vertices")
    if not isinstance(raw, list):
        raise reader.unreadable("it has no list of vertices")
    try:
        points = np.array(raw, dtype=np.float64).reshape(len(raw), 3)
        if transform is not None:
            scale = np.array(transform["scale"], dtype=np.float64).reshape(3)
            with np.errstate(over="ignore", invalid="ignore"):  # looked at below
                points = points * scale + np.array(transform["translate"], np.float64).reshape(3)
    except (KeyError, TypeError, ValueError) as error:
        raise reader.unreadable(
            f"vertices or transform hold something else than three numbers each: {error}"
        ) from error
    if not np.isfinite(points).all():
        bad = int(np.flatnonzero(~np.isfinite(points).all(axis=1))[0])
        raise reader.unreadable(f"vertex {bad} is {raw[bad]!r}")
    return points
