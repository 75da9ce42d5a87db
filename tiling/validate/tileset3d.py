"""Laws of a finished 3D Tiles tileset: every tile is read back as a client would.

Availability equals content, volumes hold decoded content and children, geometric errors
decrease, every feature is present exactly once at full detail, and what a coarser tile stands for
adds up. Implicit quadtrees under an explicit root, with glb content and REPLACE refinement, as
`tiling.tilers.buildings` writes them.

The structure is walked first; it promises contents, and these are checked a chunk at a time, on
as many processes as there are.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import orjson
from numpy.typing import NDArray

from tiling.bounds import Region
from tiling.coords import TileCoord, unmorton2
from tiling.errors import FormatError
from tiling.findings import Finding, Findings
from tiling.formats.extent import geodetic_range
from tiling.formats.gltf_reading import Glb
from tiling.formats.subtree import Subtree, decode_subtree, node_count
from tiling.stores import open_store
from tiling.stores.base import StoredTile

FEATURE_ID_PROPERTY, FEATURES_PROPERTY = "cim_feature_id", "cim_features"
_CHUNK_TILES = 32

# A tenth of a millimetre: degrees and radians are converted to and fro.
_SLACK_DEG, _SLACK_M = 1e-9, 1e-4


class TileSource(Protocol):
    """A store that can be read and listed."""

    def get(self, key: str) -> StoredTile | None:
        """Return the tile under `key`, or None."""
        ...

    def keys(self) -> Iterator[str]:
        """Yield every key once."""
        ...


class Promise(NamedTuple):
    """A content that the structure promises.

    Attributes:
        key: of the tile.
        volume: of the tile.
        features: source features that the tile stands for.
    """

    key: str
    volume: Region
    features: int


@dataclass(frozen=True, slots=True)
class ContentFacts:
    """What some contents are; picklable.

    Attributes:
        findings: what is wrong.
        ids: (N,) int64 or text, what identifies the features of tiles at full detail.
        triangles, contents: counts.
    """

    findings: tuple[Finding, ...]
    ids: NDArray[Any]
    triangles: int
    contents: int


CheckContents = Callable[[Sequence[Promise], str], Iterable[ContentFacts]]


def check_tileset(
    store: TileSource, contents: CheckContents | None = None
) -> tuple[list[Finding], dict[str, Any]]:
    """Check the laws of a tileset.

    Args:
        store: holds ``tileset.json`` and everything below it.
        contents: checks promised contents by the property that identifies features; by default
            here, one after the other.

    Returns:
        what is wrong (empty when all laws hold), and counted facts: tiles, subtrees, features,
        triangles, lowest geometric error.
    """
    check = _Check(store)
    check.run(contents or (lambda promises, key: [check_contents(store, promises, key)]))
    return list(check.findings), check.facts()


def check_archive(
    path: Path, executor: Executor, workers: int, step: Callable[[int], None]
) -> tuple[list[Finding], dict[str, Any]]:
    """Check a tileset in one archive on several processes; see `check_tileset`.

    Args:
        path: a 3TZ archive.
        executor, workers: where contents are checked.
        step: told of every tile that was checked.
    """

    def spread(promises: Sequence[Promise], key: str) -> Iterator[ContentFacts]:
        chunks = [promises[i : i + _CHUNK_TILES] for i in range(0, len(promises), _CHUNK_TILES)]
        jobs = [executor.submit(_check_archived, path, chunk, key) for chunk in chunks]
        try:
            for job in jobs:
                facts = job.result()
                step(facts.contents)
                yield facts
        finally:
            for job in jobs:
                job.cancel()

    store = open_store(path, "3tz")
    try:
        return check_tileset(store, spread)
    finally:
        store.close()


def _check_archived(path: Path, promises: Sequence[Promise], key: str) -> ContentFacts:
    store = open_store(path, "3tz")
    try:
        return check_contents(store, promises, key)
    finally:
        store.close()


@dataclass(slots=True)
class _Check:
    store: TileSource
    findings: Findings = field(default_factory=Findings)
    asked: set[str] = field(default_factory=set)
    promises: list[Promise] = field(default_factory=list)
    features: list[NDArray[Any]] = field(default_factory=list)
    identity: str = FEATURE_ID_PROPERTY
    triangles: int = 0
    contents: int = 0
    subtrees: int = 0
    lowest_error_m: float = float("inf")

    def run(self, contents: CheckContents) -> None:
        data = self._read("tileset.json")
        if data is None:
            return
        try:
            document = orjson.loads(data)
            self._tileset(document)
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            self._error("tileset-structure", f"tileset.json is damaged: {error!r}", "tileset.json")
        for facts in contents(self.promises, self.identity):
            self.findings.merge(facts.findings)
            self.features.append(facts.ids)
            self.triangles += facts.triangles
            self.contents += facts.contents
        self._orphans()
        self._features_once()

    def facts(self) -> dict[str, Any]:
        return {
            "tiles": self.contents,
            "subtrees": self.subtrees,
            "features": sum(len(ids) for ids in self.features),
            "triangles": self.triangles,
            "lowest_geometric_error_m": self.lowest_error_m,
        }

    def _error(self, rule: str, message: str, sample: Any) -> None:
        self.findings.add(rule, "error", message, samples=[sample])

    def _read(self, key: str) -> bytes | None:
        self.asked.add(key)
        tile = self.store.get(key)
        if tile is None:
            self._error("tile-missing", "promised, but not in the store", key)
            return None
        return gzip.decompress(tile.data) if tile.encoding == "gzip" else tile.data

    def _tileset(self, document: dict[str, Any]) -> None:
        if document["asset"]["version"] != "1.1":
            self._error("tileset-structure", "not 3D Tiles 1.1", document["asset"]["version"])
        self.identity = document["asset"].get("extras", {}).get("cim:key", FEATURE_ID_PROPERTY)
        self._tile(document["root"], document["geometricError"], None)

    def _tile(self, tile: dict[str, Any], error_above_m: float, above: Region | None) -> None:
        region = Region.from_3dtiles(tile["boundingVolume"]["region"])
        name = str(tile.get("content", {}).get("uri", "root"))
        self._errors_decrease(error_above_m, tile["geometricError"], name)
        self._inside(above, region, name)
        if "implicitTiling" in tile:
            self._quadtree(tile, region)
            return
        for child in tile.get("children", []):
            self._tile(child, tile["geometricError"], region)

    def _errors_decrease(self, above_m: float, here_m: float, name: str) -> None:
        self.lowest_error_m = min(self.lowest_error_m, here_m)
        if not above_m > here_m >= 0:
            self._error("error-decrease", f"geometric error {here_m} below {above_m}", name)

    def _inside(self, outer: Region | None, inner: Region, name: str) -> None:
        if outer is not None and not outer.contains(inner, _SLACK_DEG, _SLACK_M):
            self._error("volume-child", "a tile's volume is not inside its parent's", name)

    def _quadtree(self, tile: dict[str, Any], region: Region) -> None:
        implicit = tile["implicitTiling"]
        levels, depth = implicit["subtreeLevels"], implicit["availableLevels"]
        lowest_m = tile["geometricError"] / 2 ** (depth - 1)
        self.lowest_error_m = min(self.lowest_error_m, lowest_m)
        if lowest_m <= 0 < depth - 1:
            self._error("error-decrease", "halving zero", tile["content"]["uri"])
        pending: list[tuple[TileCoord, Region]] = [(TileCoord(0, 0, 0), region)]
        deepest = 0
        while pending:
            top, above = pending.pop()
            key = _fill(implicit["subtrees"]["uri"], top)
            data = self._read(key)
            if data is None:
                continue
            self.subtrees += 1
            try:
                subtree = decode_subtree(data, levels)
            except FormatError as error:
                self._error("tileset-structure", f"{error}", key)
                continue
            for coord, volume, parent, features in self._nodes(subtree, top, above, key):
                deepest = max(deepest, coord.level)
                self._inside(parent, volume, key)
                if coord.level >= depth:
                    self._error("availability", "a tile below availableLevels", key)
                if subtree.contents[_node(coord, top)]:
                    key = _fill(tile["content"]["uri"], coord)
                    self.asked.add(key)
                    self.promises.append(Promise(key, volume, features))
            pending.extend(self._children(subtree, top, levels, key))
        if deepest != depth - 1:
            self._error("availability", f"availableLevels {depth}, found {deepest + 1}", region)

    def _nodes(
        self, subtree: Subtree, top: TileCoord, above: Region, key: str
    ) -> Iterator[tuple[TileCoord, Region, Region | None, int]]:
        """Yield every tile of a subtree with its volume, its parent's, and its features."""
        nodes = np.flatnonzero(subtree.tiles)
        if len(nodes) != len(subtree.regions):
            self._error("tileset-structure", "not one bounding region for every tile", key)
            return
        if (subtree.contents & ~subtree.tiles).any():
            self._error("availability", "content without a tile", key)
        self._counts_add_up(nodes, subtree.features.astype(np.int64), key)
        volumes = {
            int(node): Region.from_3dtiles(region)
            for node, region in zip(nodes, subtree.regions.tolist(), strict=True)
        }
        counts = subtree.features.tolist()
        for (node, volume), features in zip(volumes.items(), counts, strict=True):
            parent = above if node == 0 else volumes.get((node - 1) // 4)
            if parent is None:
                self._error("availability", "a tile without its parent", key)
            yield _coord(node, top), volume, parent, features

    def _counts_add_up(
        self, nodes: NDArray[np.int64], features: NDArray[np.int64], key: str
    ) -> None:
        row_of = {node: row for row, node in enumerate(nodes.tolist())}
        below = np.zeros(len(nodes), dtype=np.int64)
        has_children = np.zeros(len(nodes), dtype=bool)
        for row, node in enumerate(nodes.tolist()):
            parent = row_of.get((node - 1) // 4) if node else None
            if parent is not None:
                below[parent] += features[row]
                has_children[parent] = True
        if (has_children & (below != features)).any():
            self._error("feature-count", "a tile stands for others than its children do", key)

    def _children(
        self, subtree: Subtree, top: TileCoord, levels: int, key: str
    ) -> Iterator[tuple[TileCoord, Region]]:
        leaves = np.flatnonzero(subtree.tiles)
        order = {int(node): i for i, node in enumerate(leaves)}
        for morton in np.flatnonzero(subtree.children).tolist():
            parent = node_count(levels - 1) + (morton >> 2)
            if parent not in order:
                self._error("availability", "a child subtree below a tile that is not there", key)
                continue
            x, y = unmorton2(np.uint64(morton))
            coord = TileCoord(
                top.level + levels, (top.x << levels) + int(x), (top.y << levels) + int(y)
            )
            yield coord, Region.from_3dtiles(subtree.regions[order[parent]].tolist())

    def _orphans(self) -> None:
        orphans = sorted(set(self.store.keys()) - self.asked)
        self.findings.add(
            "tile-orphan", "error", "in the store, but nothing leads there", len(orphans), orphans
        )

    def _features_once(self) -> None:
        if not self.features:
            return
        ids, counts = np.unique(np.concatenate(self.features), return_counts=True)
        repeated = ids[counts > 1]
        self.findings.add(
            "feature-repeated",
            "error",
            "present more than once",
            len(repeated),
            repeated.tolist()[:10],
        )


def check_contents(store: TileSource, promises: Sequence[Promise], key: str) -> ContentFacts:
    """Check contents against what was promised of them.

    Args:
        store: holds them.
        promises: which, and what of them.
        key: id of the property that identifies features.
    """
    check = _Contents(store, key)
    for promise in promises:
        check.check(promise)
    ids = np.concatenate(check.ids) if check.ids else np.empty(0, dtype=np.int64)
    return ContentFacts(tuple(check.findings), ids, check.triangles, check.contents)


@dataclass(slots=True)
class _Contents:
    store: TileSource
    key: str
    findings: Findings = field(default_factory=Findings)
    ids: list[NDArray[Any]] = field(default_factory=list)
    triangles: int = 0
    contents: int = 0

    def _error(self, rule: str, message: str, sample: Any) -> None:
        self.findings.add(rule, "error", message, samples=[sample])

    def check(self, promise: Promise) -> None:
        tile = self.store.get(promise.key)
        if tile is None:
            self._error("tile-missing", "promised, but not in the store", promise.key)
            return
        self.contents += 1
        try:
            data = gzip.decompress(tile.data) if tile.encoding == "gzip" else tile.data
            glb = Glb(data)
            primitives = glb.primitives()
            count, columns = glb.features()
        except (FormatError, OSError, EOFError, zlib.error) as error:
            self._error("content-damaged", f"{error}", promise.key)
            return
        seen = np.zeros(count, dtype=bool)
        for primitive in primitives:
            self.triangles += len(primitive.triangles)
            self._holds(promise, primitive.ecef)
            ids = primitive.feature_ids
            if ids is None or primitive.feature_count != count or ids.max(initial=0) >= count:
                self._error("feature-id", "feature ids do not fit the property table", promise.key)
                return
            seen[ids] = True
        if not seen.all():
            missing = int((~seen).sum())
            self._error("feature-id", f"{missing} features have no triangle", promise.key)
        self._identify(promise, count, columns)

    def _identify(self, promise: Promise, count: int, columns: dict[str, NDArray[Any]]) -> None:
        if FEATURES_PROPERTY in columns:
            stands_for = int(columns[FEATURES_PROPERTY].sum())
        elif self.key in columns:
            stands_for = count
            self.ids.append(columns[self.key])
        else:
            self._error("feature-id", f"no property {self.key}", promise.key)
            return
        if stands_for != promise.features:
            self._error(
                "feature-count", f"{promise.features} promised, {stands_for} shown", promise.key
            )

    def _holds(self, promise: Promise, ecef: NDArray[np.float64]) -> None:
        found = Region(*geodetic_range(ecef))
        if not promise.volume.contains(found, _SLACK_DEG, _SLACK_M):
            message = "decoded content leaves its bounding volume"
            self._error("volume-content", message, promise.key)


def _fill(template: str, coord: TileCoord) -> str:
    values = coord._asdict()
    return re.sub(r"\{(level|x|y)\}", lambda match: str(values[match[1]]), template)


def _node(coord: TileCoord, top: TileCoord) -> int:
    depth = coord.level - top.level
    local = TileCoord(depth, coord.x - (top.x << depth), coord.y - (top.y << depth))
    return node_count(depth) + local.morton()


def _coord(node: int, top: TileCoord) -> TileCoord:
    depth = 0
    while node >= node_count(depth + 1):
        depth += 1
    x, y = unmorton2(np.uint64(node - node_count(depth)))
    return TileCoord(top.level + depth, (top.x << depth) + int(x), (top.y << depth) + int(y))
