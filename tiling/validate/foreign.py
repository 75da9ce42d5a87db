"""3D Tiles made elsewhere: everything a viewer would ask for is looked for, read and counted.

One idea: walk from the root document as a viewer does, explicit tiles, implicit quadtrees and
octrees, nested tilesets and what models point to. What a viewer cannot load is an error; what it
may stumble over is a warning. Nothing outside of the store is ever asked for.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from tiling.bounds import Region
from tiling.errors import FormatError, StoreError
from tiling.findings import Finding, Findings
from tiling.stores import gzip_member
from tiling.validate.contents import Content, parse_json, read_content
from tiling.validate.foreign_subtree import Cell, Implicit, fill, parse_implicit, read_subtree
from tiling.validate.tileset3d import TileSource
from tiling.validate.volumes import check_transform, check_volume, volume_region

ROOT = "tileset.json"
# The largest tile or document that is decoded; photogrammetry stays under a tenth of it.
MAX_FILE_NBYTES = 256 * 2**20
# py3dtiles takes 14 ms a tile; what it objects to, it objects to in all tiles of an exporter.
_SECOND_OPINIONS = 100

_INFINITE = float("inf")
_VERSIONS = ("0.0", "1.0", "1.1")
_EXTENSIONS = (
    "3DTILES_batch_table_hierarchy",
    "3DTILES_bounding_volume_S2",
    "3DTILES_content_gltf",
    "3DTILES_draco_point_compression",
    "3DTILES_ellipsoid",
    "3DTILES_implicit_tiling",
    "3DTILES_metadata",
    "3DTILES_multiple_contents",
)
_BINARY = (".b3dm", ".i3dm", ".cmpt", ".pnts", ".glb")


def check_foreign(store: TileSource) -> tuple[list[Finding], dict[str, Any]]:
    """Check a tileset that this project did not make.

    Args:
        store: holds ``tileset.json`` and everything below it.

    Returns:
        what is wrong (severity ``error``) or doubtful, and counted facts.
    """
    walk = ForeignTileset(store)
    walk.walk()
    walk.orphans()
    return list(walk.findings), walk.facts()


@dataclass(frozen=True, slots=True)
class _Tile:
    tile: Any
    level: int
    error_above_m: float
    transform: NDArray[np.float64]
    refined: bool


@dataclass(slots=True)
class ForeignTileset:
    """One walk through a tileset.

    Attributes:
        store: where it lies.
        root: key of the root document.
        contents: whether contents are read, or only looked for.
        findings: what is wrong.
        reached: format of every file that a viewer may ask for, by key.
        nbytes: their sizes as they lie, known for what was read.
        region: where the tileset is; None when nowhere on the Earth.
        levels: how deep it goes.
        tiles: number of contents, nested tilesets not counted.
        features: rows, instances and points of all contents, all levels of detail counted.
        progress: called before every file that is read; may raise to stop.
    """

    store: TileSource
    root: str = ROOT
    contents: bool = True
    findings: Findings = field(default_factory=Findings)
    reached: dict[str, str] = field(default_factory=dict)
    nbytes: dict[str, int] = field(default_factory=dict)
    region: Region | None = None
    levels: int = 0
    tiles: int = 0
    features: int = 0
    progress: Callable[[], None] = lambda: None
    _keys: frozenset[str] = frozenset()
    _documents: list[tuple[str, tuple[str, ...], _Tile]] = field(default_factory=list)

    def walk(self) -> None:
        """Follow everything from the root document.

        Raises:
            StoreError: the store cannot be read at all, or holds names that leave it.
        """
        keys = list(self.store.keys())
        self._keys = frozenset(keys)
        for key in _repeated(keys):
            self._error("name-repeated", "names that occur twice", key)
        self._documents = [(self.root, (), _Tile(None, 0, _INFINITE, np.eye(4), False))]
        while self._documents:
            key, above, start = self._documents.pop()
            if key in above:
                self._error("tileset-cycle", "a nested tileset contains itself", key)
            elif key not in self.reached:
                data = self._read(key, "tileset")
                if data is not None:
                    self._document(key, (*above, key), start, data)

    def orphans(self) -> None:
        """Count files to which nothing leads."""
        left = sorted(self._keys - self.reached.keys())
        self.findings.add(
            "file-unused", "info", "files to which nothing in the tileset leads", len(left), left
        )

    def facts(self) -> dict[str, Any]:
        """Return counts: contents, files and bytes by format, levels."""
        formats: dict[str, dict[str, int]] = {}
        for key, name in sorted(self.reached.items()):
            entry = formats.setdefault(name, {"files": 0, "nbytes": 0})
            entry["files"] += 1
            entry["nbytes"] += self.nbytes.get(key, 0)
        return {
            "tiles": self.tiles,
            "levels": self.levels,
            "files": len(self.reached),
            "nbytes": sum(self.nbytes.values()),
            "formats": formats,
            "rows": self.features,
        }

    def _error(self, rule: str, message: str, sample: str) -> None:
        self.findings.add(rule, "error", message, samples=[sample])

    def _doubt(self, rule: str, message: str, sample: str) -> None:
        self.findings.add(rule, "warning", message, samples=[sample])

    def _read(self, key: str, kind: str) -> bytes | None:
        """Return the decoded bytes of a file and note that it is needed."""
        if key not in self._keys:
            alike = [k for k in self._keys if k.casefold() == key.casefold()]
            hint = f" (there is {alike[0]}: letter case counts)" if alike else ""
            self._error("file-missing", "files that are named, but are not there", key + hint)
            return None
        self.reached[key] = kind
        self.progress()
        try:
            stored = self.store.get(key)
            if stored is None:
                self._error("file-missing", "files that are named, but are not there", key)
                return None
            self.nbytes[key] = len(stored.data)
            return gzip_member.decode(stored.data, stored.encoding, key, MAX_FILE_NBYTES)
        except StoreError as error:
            self._error("file-damaged", "files that cannot be read", f"{key}: {error}")
            return None

    def _resolve(self, base: str, uri: Any) -> str | None:
        """Return the key of an address beside `base`, None when it is embedded or refused."""
        if not isinstance(uri, str) or not uri:
            self._error("uri-invalid", "addresses that are none", f"{base}: {uri!r}")
            return None
        if uri.startswith("data:"):
            return None
        # Viewers in a browser read backslashes as slashes.
        parts = urlsplit(uri.replace("\\", "/"))
        path = unquote(parts.path)
        joined = posixpath.normpath(posixpath.join(posixpath.dirname(base), path))
        if parts.scheme or parts.netloc:
            message = "addresses elsewhere: nothing is fetched from a network or another disk"
            self._error("uri-outside", message, f"{base}: {uri[:200]}")
            return None
        if path.startswith("/") or joined == ".." or joined.startswith("../"):
            message = "addresses that leave the folder of the tileset"
            self._error("uri-outside", message, f"{base}: {uri[:200]}")
            return None
        return joined

    def _document(self, key: str, chain: tuple[str, ...], start: _Tile, data: bytes) -> None:
        try:
            document, doubts = parse_json(data)
            for doubt in doubts:
                self._doubt("json-mark", doubt, key)
            self._head(key, document)
        except FormatError as error:
            self._error("tileset-structure", "tilesets that are damaged", f"{key}: {error}")
            return
        if not chain[:-1]:
            self._place(key, document["root"])
        pending = [replace(start, tile=document["root"])]
        while pending:
            here = pending.pop()
            try:
                pending.extend(self._tile(key, chain, here))
            except FormatError as error:
                self._error("tileset-structure", "tilesets that are damaged", f"{key}: {error}")

    def _head(self, key: str, document: dict[str, Any]) -> None:
        asset = document.get("asset")
        version = asset.get("version") if isinstance(asset, dict) else None
        if version not in _VERSIONS:
            raise FormatError(f"asset.version is {version!r}, known are {', '.join(_VERSIONS)}")
        if not isinstance(document.get("root"), dict):
            raise FormatError(f"its root is {str(document.get('root'))[:80]}")
        for name in ("extensionsUsed", "extensionsRequired"):
            names = document.get(name, [])
            if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
                raise FormatError(f"{name} is no list of names: {str(names)[:80]}")
        strange = sorted(set(document.get("extensionsRequired", [])) - {*_EXTENSIONS})
        for name in strange:
            self._doubt("extension-required", f"{name} is required; few viewers know it", key)
        if "schemaUri" in document:
            self._file(key, document["schemaUri"], "schema")
        _error_m(document)

    def _place(self, key: str, root: dict[str, Any]) -> None:
        try:
            transform = check_transform(root["transform"]) if "transform" in root else np.eye(4)
            self.region = volume_region(root.get("boundingVolume", {}), transform)
        except FormatError:
            return  # said again where the tile is looked at
        if self.region is None:
            message = (
                "the root has no place on the Earth: its bounding volume, after its transform, "
                "does not lie near the ground"
            )
            self._error("tileset-place", message, key)

    def _tile(self, key: str, chain: tuple[str, ...], here: _Tile) -> Iterator[_Tile]:
        tile = here.tile
        if not isinstance(tile, dict):
            raise FormatError(f"a tile is {str(tile)[:80]}")
        self.levels = max(self.levels, here.level + 1)
        check_volume(tile.get("boundingVolume"))
        if "viewerRequestVolume" in tile:
            check_volume(tile["viewerRequestVolume"])
        error_m = _error_m(tile)
        if error_m > here.error_above_m:
            self._doubt("error-increases", "geometric errors that grow downwards", key)
        transform = here.transform
        if "transform" in tile:
            transform = transform @ check_transform(tile["transform"])
        self._refinement(key, tile, here)
        below = _Tile(None, here.level + 1, error_m, transform, True)
        implicit = _implicit(tile)
        if implicit is not None:
            self._implicit(key, tile, parse_implicit(implicit), chain, below)
            return
        for uri in _contents(tile):
            self._content(key, uri, chain, below)
        children = tile.get("children", [])
        if not isinstance(children, list):
            raise FormatError(f"children are {str(children)[:80]}")
        for child in children:
            yield _Tile(child, here.level + 1, error_m, transform, True)

    def _refinement(self, key: str, tile: dict[str, Any], here: _Tile) -> None:
        refine = tile.get("refine")
        if refine is None:
            if not here.refined:
                self._doubt("refine-missing", "the root does not say how it is refined", key)
        elif not isinstance(refine, str) or refine.upper() not in ("ADD", "REPLACE"):
            raise FormatError(f"refine is {refine!r}, neither ADD nor REPLACE")
        elif refine != refine.upper():
            self._doubt("refine-case", "refine in small letters", key)

    def _file(self, base: str, uri: Any, kind: str) -> bytes | None:
        key = self._resolve(base, uri)
        return None if key is None else self._read(key, kind)

    def _content(self, base: str, uri: Any, chain: tuple[str, ...], below: _Tile) -> None:
        key = self._resolve(base, uri)
        if key is None:
            if isinstance(uri, str) and uri.startswith("data:"):
                self.tiles += 1
            return
        if self.reached.get(key, "tileset") != "tileset":
            return  # several tiles may show the same content
        if not self.contents and key.lower().endswith(_BINARY) and key in self._keys:
            self.reached[key] = key.rpartition(".")[2].lower()
            self.tiles += 1
            return
        if key.lower().endswith(".json") and key in self.reached:
            self._documents.append((key, chain, below))
            return
        data = self._read(key, "content")
        if data is None:
            return
        try:
            content = read_content(data, second_opinion=self.tiles < _SECOND_OPINIONS)
        except FormatError as error:
            self._error("content-damaged", "contents that cannot be read", f"{key}: {error}")
            return
        for doubt in content.doubts:
            self._doubt("content-doubtful", doubt, key)
        self.reached[key] = content.format
        if content.format == "tileset":
            del self.reached[key]  # so that it is walked
            self._documents.append((key, chain, below))
            return
        self.tiles += 1
        self.features += content.features
        self._needed(key, content)

    def _needed(self, key: str, content: Content) -> None:
        for uri in dict.fromkeys(content.uris):
            needed = self._resolve(key, uri)
            if needed is not None and needed not in self.reached:
                self._read(needed, "resource")

    def _implicit(
        self,
        key: str,
        tile: dict[str, Any],
        implicit: Implicit,
        chain: tuple[str, ...],
        below: _Tile,
    ) -> None:
        if tile.get("children"):
            raise FormatError("an implicit root has explicit children")
        templates = [implicit.check_template(uri) for uri in _contents(tile)]
        pending: list[Cell] = [(0, 0, 0, 0)]
        while pending:
            top = pending.pop()
            subtree_key = self._resolve(key, fill(implicit.subtrees, top))
            data = None if subtree_key is None else self._read(subtree_key, "subtree")
            if data is None or subtree_key is None:
                continue
            try:
                subtree = read_subtree(data, implicit, top, self._fetcher(subtree_key))
                if subtree.deepest >= implicit.depth or len(subtree.contents) > len(templates):
                    raise FormatError("it has tiles below availableLevels, or unnamed contents")
            except FormatError as error:
                self._error(
                    "tileset-structure", "tilesets that are damaged", f"{subtree_key}: {error}"
                )
                continue
            self.levels = max(self.levels, below.level + subtree.deepest)
            for template, cells in zip(templates, subtree.contents, strict=False):
                for cell in cells:
                    self._content(key, fill(template, cell), chain, below)
            pending.extend(subtree.children)

    def _fetcher(self, base: str) -> Any:
        def fetch(uri: str) -> bytes:
            data = self._file(base, uri, "subtree")
            if data is None:
                raise FormatError(f"its buffer {uri!r} is missing")
            return data

        return fetch


def _repeated(keys: Iterable[str]) -> Iterator[str]:
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            yield key
        seen.add(key)


def _error_m(owner: dict[str, Any]) -> float:
    value = owner.get("geometricError")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _INFINITE:
        raise FormatError(f"geometricError is {value!r}, not metres of 0 or more")
    return float(value)


def _implicit(tile: dict[str, Any]) -> Any:
    extensions = tile.get("extensions")
    if isinstance(extensions, dict) and "3DTILES_implicit_tiling" in extensions:
        return extensions["3DTILES_implicit_tiling"]
    return tile.get("implicitTiling")


def _contents(tile: dict[str, Any]) -> list[Any]:
    """Return the addresses of a tile's contents."""
    listed = tile.get("contents", [])
    extensions = tile.get("extensions")
    if isinstance(extensions, dict) and "3DTILES_multiple_contents" in extensions:
        many = extensions["3DTILES_multiple_contents"]
        listed = many.get("contents", many.get("content", [])) if isinstance(many, dict) else many
    if "content" in tile:
        if listed:
            raise FormatError("a tile has both content and contents")
        listed = [tile["content"]]
    if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
        raise FormatError(f"the contents of a tile are {str(listed)[:80]}")
    for content in listed:
        if "boundingVolume" in content:
            check_volume(content["boundingVolume"])
    # Before 1.0 the address was called "url".
    return [content.get("uri", content.get("url")) for content in listed]
