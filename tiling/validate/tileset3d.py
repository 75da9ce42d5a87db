"""Laws of a finished 3D Tiles tileset: every tile is read back as a client would.

Availability equals content, volumes hold decoded content and children, geometric errors
decrease, and every feature is present exactly once. Implicit quadtrees under an explicit root,
with glb content, as `tiling.tilers.buildings` writes them.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import orjson
from numpy.typing import NDArray

from tiling.bounds import Region
from tiling.coords import TileCoord, unmorton2
from tiling.ellipsoid import ecef_to_geodetic
from tiling.errors import FormatError
from tiling.findings import Finding, Findings
from tiling.formats.subtree import Subtree, decode_subtree, node_count
from tiling.stores.base import StoredTile
from tiling.validate.gltf import Glb

FEATURE_ID_PROPERTY = "cim_feature_id"

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


def check_tileset(store: TileSource) -> tuple[list[Finding], dict[str, Any]]:
    """Check the laws of a tileset.

    Args:
        store: holds ``tileset.json`` and everything below it.

    Returns:
        what is wrong (empty when all laws hold), and counted facts: tiles, subtrees, features,
        triangles, lowest geometric error.
    """
    check = _Check(store)
    check.run()
    return list(check.findings), check.facts()


@dataclass(slots=True)
class _Check:
    store: TileSource
    findings: Findings = field(default_factory=Findings)
    asked: set[str] = field(default_factory=set)
    features: list[NDArray[np.int64]] = field(default_factory=list)
    triangles: int = 0
    contents: int = 0
    subtrees: int = 0
    lowest_error_m: float = float("inf")

    def run(self) -> None:
        data = self._read("tileset.json")
        if data is None:
            return
        try:
            document = orjson.loads(data)
            self._tileset(document)
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            self._error("tileset-structure", f"tileset.json is damaged: {error!r}", "tileset.json")
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
        self._tile(document["root"], document["geometricError"], None)

    def _tile(self, tile: dict[str, Any], error_above_m: float, above: Region | None) -> None:
        region = Region.from_3dtiles(tile["boundingVolume"]["region"])
        name = str(tile.get("content", {}).get("uri", "root"))
        self._errors_decrease(error_above_m, tile["geometricError"], name)
        self._inside(above, region, name)
        if "implicitTiling" in tile:
            self._quadtree(tile, region)
            return
        if "content" in tile:
            self._content(tile["content"]["uri"], region)
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
            for coord, volume, parent in self._nodes(subtree, top, levels, above, key):
                deepest = max(deepest, coord.level)
                self._inside(parent, volume, key)
                if coord.level >= depth:
                    self._error("availability", "a tile below availableLevels", key)
                if subtree.contents[_node(coord, top)]:
                    self._content(_fill(tile["content"]["uri"], coord), volume)
            pending.extend(self._children(subtree, top, levels, key))
        if deepest != depth - 1:
            self._error("availability", f"availableLevels {depth}, found {deepest + 1}", region)

    def _nodes(
        self, subtree: Subtree, top: TileCoord, levels: int, above: Region, key: str
    ) -> Iterator[tuple[TileCoord, Region, Region | None]]:
        """Yield every tile of a subtree with its volume and its parent's."""
        nodes = np.flatnonzero(subtree.tiles)
        if len(nodes) != len(subtree.regions):
            self._error("tileset-structure", "not one bounding region for every tile", key)
            return
        if (subtree.contents & ~subtree.tiles).any():
            self._error("availability", "content without a tile", key)
        volumes = {
            int(node): Region.from_3dtiles(region)
            for node, region in zip(nodes, subtree.regions.tolist(), strict=True)
        }
        for node, volume in volumes.items():
            parent = above if node == 0 else volumes.get((node - 1) // 4)
            if parent is None:
                self._error("availability", "a tile without its parent", key)
            yield _coord(node, top), volume, parent

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

    def _content(self, key: str, volume: Region) -> None:
        data = self._read(key)
        if data is None:
            return
        self.contents += 1
        try:
            glb = Glb(data)
            primitives = glb.primitives()
            count, columns = glb.features()
        except FormatError as error:
            self._error("content-damaged", f"{error}", key)
            return
        seen = np.zeros(count, dtype=bool)
        for primitive in primitives:
            self.triangles += len(primitive.triangles)
            self._holds(volume, primitive.ecef, key)
            ids = primitive.feature_ids
            if ids is None or primitive.feature_count != count or ids.max(initial=0) >= count:
                self._error("feature-id", "feature ids do not fit the property table", key)
                return
            seen[ids] = True
        if not seen.all():
            self._error("feature-id", f"{int((~seen).sum())} features have no triangle", key)
        if FEATURE_ID_PROPERTY in columns:
            self.features.append(columns[FEATURE_ID_PROPERTY].astype(np.int64))
        else:
            self._error("feature-id", f"no property {FEATURE_ID_PROPERTY}", key)

    def _holds(self, volume: Region, ecef: NDArray[np.float64], key: str) -> None:
        lon, lat, height = ecef_to_geodetic(ecef)
        found = Region(
            float(lon.min()),
            float(lat.min()),
            float(lon.max()),
            float(lat.max()),
            float(height.min()),
            float(height.max()),
        )
        if not volume.contains(found, _SLACK_DEG, _SLACK_M):
            self._error("volume-content", "decoded content leaves its bounding volume", key)

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
