"""Laws of a finished tileset of points: every tile is read back as a client would.

Availability equals content, volumes hold decoded points and children, geometric errors decrease,
and the points of all tiles are as many as the root stands for: refinement is ADD, so each is in one
tile. Implicit octrees under an explicit root, as `tiling.tilers.pointcloud` writes them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson

from tiling.bounds import Region
from tiling.errors import FormatError, StoreError
from tiling.findings import Finding, Findings
from tiling.formats.extent import geodetic_range
from tiling.formats.points_glb import decode_points
from tiling.formats.subtree import Subtree, decode_subtree, node_count
from tiling.stores import gzip_member, open_store
from tiling.validate.foreign_subtree import Cell, fill
from tiling.validate.tileset3d import TileSource

_BRANCHING = 8
# Tiles that a worker checks at once, and how often workers are asked at least.
_MOST_TILES, _LEAST_CHUNKS = 32, 16
# A tenth of a millimetre: degrees and radians are converted to and fro.
_SLACK_DEG, _SLACK_M = 1e-9, 1e-4


class PointPromise(NamedTuple):
    """A content that the structure promises: its key, volume, and number of points."""

    key: str
    volume: Region
    points: int


@dataclass(frozen=True, slots=True)
class PointFacts:
    """What some contents are; picklable.

    Attributes:
        findings: what is wrong.
        points, contents: counts.
    """

    findings: tuple[Finding, ...]
    points: int
    contents: int


CheckPoints = Callable[[Sequence[PointPromise]], Iterator[PointFacts]]


def check_pointcloud(
    store: TileSource, contents: CheckPoints | None = None
) -> tuple[list[Finding], dict[str, Any]]:
    """Check the laws of a tileset of points.

    Args:
        store: holds ``tileset.json`` and everything below it.
        contents: checks promised contents; by default here, one after the other.

    Returns:
        what is wrong (empty when all laws hold), and counted facts: tiles, subtrees, features
        (points), lowest geometric error.
    """
    walk = _Walk(store)
    findings = walk.findings
    try:
        walk.run()
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, StoreError) as error:
        message = f"the tileset is damaged: {error!r}"
        findings.add("tileset-structure", "error", message, samples=["tileset.json"])
    points = tiles = 0
    checked = contents(walk.promises) if contents else iter([_check_contents(store, walk.promises)])
    for facts in checked:
        findings.merge(facts.findings)
        points += facts.points
        tiles += facts.contents
    orphans = sorted(set(store.keys()) - walk.asked)
    message = "in the store, but nothing leads to it"
    findings.add("tile-orphan", "error", message, len(orphans), orphans)
    if points != walk.points:
        message = f"the roots stand for {walk.points} points, the tiles hold {points}"
        findings.add("points-count", "error", message)
    return list(findings), {
        "tiles": tiles,
        "subtrees": walk.subtrees,
        "features": points,
        "lowest_geometric_error_m": walk.lowest_error_m,
    }


def check_pointcloud_archive(
    path: Path, executor: Executor, step: Callable[[int], None], journal: Path | None = None
) -> tuple[list[Finding], dict[str, Any]]:
    """Check a tileset of points in one 3TZ on several processes; see `check_pointcloud`.

    Args:
        path: the archive.
        executor: where contents are checked.
        step: told of every tile that was checked.
        journal: folder of what was found in this very archive, chunk by chunk: an interrupted
            check goes on from there.
    """
    if journal is not None:
        journal.mkdir(parents=True, exist_ok=True)

    def spread(promises: Sequence[PointPromise]) -> Iterator[PointFacts]:
        size = min(_MOST_TILES, len(promises) // _LEAST_CHUNKS + 1)
        chunks = [promises[i : i + size] for i in range(0, len(promises), size)]
        notes = [None if journal is None else journal / f"{i:06d}.json" for i in range(len(chunks))]
        jobs: list[Future[PointFacts] | Path] = [
            note
            if note is not None and note.exists()
            else executor.submit(_check_archived, path, chunk, note)
            for chunk, note in zip(chunks, notes, strict=True)
        ]
        try:
            for job in jobs:
                facts = _noted(job) if isinstance(job, Path) else job.result()
                step(facts.contents)
                yield facts
        finally:
            for job in jobs:
                if not isinstance(job, Path):
                    job.cancel()

    store = open_store(path, "3tz")
    try:
        return check_pointcloud(store, spread)
    finally:
        store.close()


def _check_archived(path: Path, promises: Sequence[PointPromise], note: Path | None) -> PointFacts:
    store = open_store(path, "3tz")
    try:
        facts = _check_contents(store, promises)
    finally:
        store.close()
    if note is not None:
        findings = [finding.to_json() for finding in facts.findings]
        partial = note.with_suffix(f".{os.getpid()}.tmp")
        partial.write_bytes(orjson.dumps([findings, facts.points, facts.contents]))
        partial.rename(note)
    return facts


def _noted(note: Path) -> PointFacts:
    findings, points, contents = orjson.loads(note.read_bytes())
    return PointFacts(tuple(Finding.from_json(each) for each in findings), points, contents)


def _check_contents(store: TileSource, promises: Sequence[PointPromise]) -> PointFacts:
    findings = Findings()
    points = contents = 0
    for promise in promises:
        tile = store.get(promise.key)
        if tile is None:
            message = "promised, but not in the store"
            findings.add("tile-missing", "error", message, samples=[promise.key])
            continue
        try:
            decoded = decode_points(gzip_member.content(tile, promise.key))
        except (FormatError, StoreError) as error:
            message = f"contents that cannot be read: {error}"
            findings.add("content-damaged", "error", message, samples=[promise.key])
            continue
        contents += 1
        points += len(decoded.ecef)
        if not promise.volume.contains(Region(*geodetic_range(decoded.ecef)), _SLACK_DEG, _SLACK_M):
            message = "a tile's points are not inside its volume"
            findings.add("volume-content", "error", message, samples=[promise.key])
        if len(decoded.ecef) > promise.points:
            message = "a tile holds more points than it and all below stand for"
            findings.add("points-count", "error", message, samples=[promise.key])
        for name, values in decoded.columns.items():
            if len(values) != len(decoded.ecef):
                message = f"{name} has another number of values than there are points"
                findings.add("points-columns", "error", message, samples=[promise.key])
    return PointFacts(tuple(findings), points, contents)


class _Walk:
    """The structure of a tileset: follows every subtree and collects what it promises."""

    def __init__(self, store: TileSource) -> None:
        self.store = store
        self.findings = Findings()
        self.asked: set[str] = set()
        self.promises: list[PointPromise] = []
        self.points = 0
        self.subtrees = 0
        self.lowest_error_m = float("inf")

    def run(self) -> None:
        document = orjson.loads(self._read("tileset.json"))
        root = document["root"]
        errors_m = [document["geometricError"], root["geometricError"]]
        outer = Region.from_3dtiles(root["boundingVolume"]["region"])
        for tile in root["children"]:
            self._decrease([*errors_m, tile["geometricError"]])
            region = Region.from_3dtiles(tile["boundingVolume"]["region"])
            self._inside(outer, region, tile["content"]["uri"])
            if tile["refine"] != "ADD":
                self._error("tileset-structure", "points are not added", tile["content"]["uri"])
            self._octree(tile, region)

    def _error(self, rule: str, message: str, sample: str) -> None:
        self.findings.add(rule, "error", message, samples=[sample])

    def _read(self, key: str) -> bytes:
        self.asked.add(key)
        tile = self.store.get(key)
        if tile is None:
            raise StoreError(f"{key} is missing")
        return gzip_member.content(tile, key)

    def _decrease(self, errors_m: list[float]) -> None:
        self.lowest_error_m = min(self.lowest_error_m, errors_m[-1])
        if sorted(errors_m, reverse=True) != errors_m or len(set(errors_m)) != len(errors_m):
            self._error("error-decrease", f"geometric errors {errors_m}", "tileset.json")

    def _inside(self, outer: Region, inner: Region, name: str) -> None:
        if not outer.contains(inner, _SLACK_DEG, _SLACK_M):
            self._error("volume-child", "a tile's volume is not inside its parent's", name)

    def _octree(self, tile: dict[str, Any], region: Region) -> None:
        implicit = tile["implicitTiling"]
        if implicit["subdivisionScheme"] != "OCTREE":
            raise ValueError(f"subdivision scheme {implicit['subdivisionScheme']!r}")
        levels, depth = implicit["subtreeLevels"], implicit["availableLevels"]
        self.lowest_error_m = min(self.lowest_error_m, tile["geometricError"] / 2 ** (depth - 1))
        pending: list[tuple[Cell, Region]] = [((0, 0, 0, 0), region)]
        deepest = 0
        while pending:
            top, above = pending.pop()
            key = fill(implicit["subtrees"]["uri"], top)
            try:
                subtree = decode_subtree(self._read(key), levels, _BRANCHING)
            except (FormatError, StoreError) as error:
                self._error("tileset-structure", f"{error}", key)
                continue
            self.subtrees += 1
            last = self._nodes(tile, subtree, top, above, key)
            deepest = max(deepest, last)
            parents = {
                int(node): Region.from_3dtiles(volume)
                for node, volume in zip(
                    np.flatnonzero(subtree.tiles), subtree.regions.tolist(), strict=False
                )
            }
            first = node_count(levels - 1, _BRANCHING)
            for child in np.flatnonzero(subtree.children).tolist():
                parent = parents.get(first + child // _BRANCHING)
                if parent is None:
                    self._error("availability", "a subtree without its parent", key)
                    continue
                pending.append((_cell(child, levels, top), parent))
        if deepest != depth - 1:
            name = tile["content"]["uri"]
            self._error("availability", f"availableLevels {depth}, found {deepest + 1}", name)

    def _nodes(
        self, tile: dict[str, Any], subtree: Subtree, top: Cell, above: Region, key: str
    ) -> int:
        """Check the tiles of a subtree and note what they promise; return the deepest level."""
        nodes = np.flatnonzero(subtree.tiles)
        if len(nodes) != len(subtree.regions):
            self._error("tileset-structure", "not one bounding region for every tile", key)
            return top[0]
        if (subtree.contents & ~subtree.tiles).any():
            self._error("availability", "content without a tile", key)
        known: dict[int, tuple[Region, int]] = {}
        below: dict[int, int] = {}
        deepest = top[0]
        rows = zip(nodes.tolist(), subtree.regions.tolist(), subtree.features.tolist(), strict=True)
        for node, numbers, points in rows:
            volume = Region.from_3dtiles(numbers)
            known[node] = (volume, points)
            parent = (node - 1) // _BRANCHING
            if node and parent not in known:
                self._error("availability", "a tile without its parent", key)
                continue
            self._inside(known[parent][0] if node else above, volume, key)
            if node:
                below[parent] = below.get(parent, 0) + points
            elif top[0] == 0:
                self.points += points
            depth = 0
            while node >= node_count(depth + 1, _BRANCHING):
                depth += 1
            deepest = max(deepest, top[0] + depth)
            if subtree.contents[node]:
                cell = _cell(node - node_count(depth, _BRANCHING), depth, top)
                name = fill(tile["content"]["uri"], cell)
                self.asked.add(name)
                self.promises.append(PointPromise(name, volume, points))
        if any(points > known[node][1] for node, points in below.items()):
            self._error("points-count", "children stand for more points than their parent", key)
        return deepest


def _cell(morton: int, depth: int, top: Cell) -> Cell:
    local = [
        sum((morton >> (3 * bit + axis) & 1) << bit for bit in range(depth)) for axis in range(3)
    ]
    x, y, z = ((base << depth) + own for base, own in zip(top[1:], local, strict=True))
    return top[0] + depth, x, y, z
