"""The laws of finished vector tiles.

Rings are wound and closed as MVT 2.1 asks, coordinates stay within the buffer, every feature seen
anywhere is present at the highest zoom of its layer, and the metadata declares just what the tiles
hold.
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tiling.errors import FormatError
from tiling.findings import Finding, Findings
from tiling.formats.mvt import BUFFER, EXTENT
from tiling.stores.base import StoredTile
from tiling.stores.pmtiles import PmtilesReader
from tiling.validate.mvt_reading import CLOSE_PATH, LINE_TO, MOVE_TO, Ints, ReadLayer, read_tile

_LABEL_SUFFIX = "_label"
_VERSION = 2
# What one job checks at most: few enough that stopping does not take long.
_MOST_TILES = 500


class VectorStore(Protocol):
    """What is checked: tiles, their keys, and the archive's metadata."""

    metadata: dict[str, Any]

    def get(self, key: str) -> StoredTile | None:
        """Return the tile under `key`."""
        ...

    def keys(self) -> Iterator[str]:
        """Yield every key once."""
        ...


def check_vector_tiles(store: VectorStore) -> tuple[list[Finding], dict[str, Any]]:
    """Check every tile of a store.

    Args:
        store: an open PMTiles archive of vector tiles.

    Returns:
        findings, with severity ``error`` where a law is broken; facts: ``features`` (present at
        the highest zoom), ``tiles``, ``layers`` (features per layer, at the highest zoom).
    """
    check = _Check(store.metadata)
    check.tiles(store, store.keys())
    return check.finish()


def check_vector_archive(
    path: Path, executor: Executor, workers: int, step: Callable[[int], None]
) -> tuple[list[Finding], dict[str, Any]]:
    """Check every tile of an archive on several processes; see `check_vector_tiles`.

    Args:
        path: a PMTiles archive of vector tiles.
        executor, workers: where tiles are checked, and how many processes there are.
        step: told how many tiles were checked.
    """
    with PmtilesReader(path) as store:
        keys = list(store.keys())
        total = _Check(store.metadata)
    share = max(1, min(_MOST_TILES, math.ceil(len(keys) / (2 * workers))))
    jobs = [
        executor.submit(_check_part, path, keys[start : start + share])
        for start in range(0, len(keys), share)
    ]
    try:
        for job in jobs:
            part = job.result()
            total.merge(part)
            step(part.count)
    finally:
        for job in jobs:
            job.cancel()
    return total.finish()


def _check_part(path: Path, keys: list[str]) -> _Check:
    with PmtilesReader(path) as store:
        check = _Check(store.metadata)
        check.tiles(store, keys)
    return check


class _Check:
    """What was seen of some tiles; picklable, and adds up."""

    def __init__(self, metadata: dict[str, Any]) -> None:
        self.findings = Findings()
        self.count = 0
        self.declared = {layer["id"]: layer for layer in metadata.get("vector_layers", ())}
        self.counts: dict[str, int] = metadata.get("counts", {})
        self.ids: dict[str, dict[int, list[Ints]]] = {}  # layer -> zoom -> ids
        self.fields: dict[str, set[str]] = {}
        self.top = 0

    def tiles(self, store: VectorStore, keys: Iterable[str]) -> None:
        """Check the tiles under `keys`."""
        for key in keys:
            tile = store.get(key)
            self.count += 1
            if tile is None:
                self._add("tile-missing", "a listed tile cannot be read", 1, key)
                continue
            try:
                data = gzip.decompress(tile.data) if tile.encoding == "gzip" else tile.data
                layers = read_tile(data)
            except (FormatError, OSError, EOFError) as error:
                self._add("tile-unreadable", f"a tile cannot be decoded: {error}", 1, key)
                continue
            self.tile(key, layers)

    def merge(self, other: _Check) -> None:
        """Add what was seen of other tiles."""
        self.findings.merge(other.findings)
        self.count += other.count
        self.top = max(self.top, other.top)
        for name, zooms in other.ids.items():
            own = self.ids.setdefault(name, {})
            for zoom, parts in zooms.items():
                own.setdefault(zoom, []).extend(parts)
        for name, fields in other.fields.items():
            self.fields.setdefault(name, set()).update(fields)

    def tile(self, key: str, layers: list[ReadLayer]) -> None:
        zoom = int(key.split("/", 1)[0])
        self.top = max(self.top, zoom)
        names = [layer.name for layer in layers]
        self._add("layer-repeated", "a tile holds a layer twice", len(names) - len(set(names)), key)
        self._add("tile-empty", "a tile without layers", int(not layers), key)
        for layer in layers:
            self._layer(key, zoom, layer)

    def _layer(self, key: str, zoom: int, layer: ReadLayer) -> None:
        self.ids.setdefault(layer.name, {}).setdefault(zoom, []).append(layer.ids)
        self.fields.setdefault(layer.name, set()).update(layer.keys)
        declared = self.declared.get(layer.name)
        unknown = declared is None or not declared["minzoom"] <= zoom <= declared["maxzoom"]
        self._add("layer-undeclared", "the metadata lacks a layer or its zooms", int(unknown), key)
        strange = layer.version != _VERSION or layer.extent != EXTENT
        self._add("layer-header", "a layer of another version or extent", int(strange), key)
        self._tags(key, layer)
        self._add("id-missing", "features without an id", int((layer.ids < 0).sum()), key)
        repeated = len(layer.ids) - len(np.unique(layer.ids))
        self._add("id-repeated", "a tile holds a feature twice", repeated, key)
        self._geometry(key, layer)

    def _tags(self, key: str, layer: ReadLayer) -> None:
        odd = int((layer.tag_counts % 2).sum())
        self._add("tags-odd", "features whose tags do not pair", odd, key)
        if odd:
            return
        pairs = layer.tags.reshape(-1, 2)
        outside = (pairs >= (len(layer.keys), layer.values)).any(axis=1)
        self._add("tag-outside", "tags point beyond keys or values", int(outside.sum()), key)
        spare = len(layer.keys) - len(np.unique(pairs[:, 0]))
        self._add("key-unused", "keys that no feature uses", max(0, spare), key)

    def _geometry(self, key: str, layer: ReadLayer) -> None:
        limit = np.array([-BUFFER - 1, EXTENT + BUFFER + 1])
        outside = ((layer.xy < limit[0]) | (layer.xy > limit[1])).any(axis=1)
        self._add("outside-buffer", "points beyond the tile's buffer", int(outside.sum()), key)
        feature, command, count = layer.commands[:, 0], layer.commands[:, 2], layer.commands[:, 3]
        bare = len(layer.ids) - len(np.unique(feature))
        self._add("geometry-missing", "features without geometry", bare, key)
        wrong = ~_well_formed(layer.kinds[feature], feature, command, count)
        self._add("commands", "commands that do not fit the type", int(wrong.sum()), key)
        if wrong.any():
            return
        repeated = _repeated_points(layer)
        self._add("point-repeated", "lines or rings that repeat a point", repeated, key)
        if (layer.kinds == 3).any():
            self._rings(key, layer)

    def _rings(self, key: str, layer: ReadLayer) -> None:
        owner, area2 = _ring_areas(layer)
        self._add("ring-flat", "rings without area", int((area2 == 0).sum()), key)
        first = np.diff(owner, prepend=-1) != 0
        inverted = int((first & (area2 < 0)).sum())
        self._add("ring-winding", "polygons that begin with a hole", inverted, key)

    def finish(self) -> tuple[list[Finding], dict[str, Any]]:
        """Check what concerns all tiles together; see `check_vector_tiles`."""
        present: dict[str, int] = {}
        for name, zooms in self.ids.items():
            top = self._top(name)
            full = _distinct(zooms.get(top, []))
            everywhere = _distinct([ids for parts in zooms.values() for ids in parts])
            missing = np.setdiff1d(everywhere, full)
            self.findings.add(
                "feature-missing",
                "error",
                f"features of layer {name!r} are absent at zoom {top}",
                len(missing),
                missing[:10].tolist(),
            )
            present[name] = len(full)
        features = {n: c for n, c in present.items() if not self._is_label(n)}
        for name, count in self.counts.items():
            if features.get(name, 0) != count:
                self.findings.add(
                    "feature-count",
                    "error",
                    f"layer {name!r} should hold {count} features, zoom {self._top(name)} has "
                    f"{features.get(name, 0)}",
                )
        self._declared()
        facts = {"features": sum(features.values()), "layers": features, "tiles": self.count}
        return list(self.findings), facts

    def _top(self, name: str) -> int:
        # A layer may end before the tileset does.
        declared = self.declared.get(name)
        return self.top if declared is None else int(declared["maxzoom"])

    def _is_label(self, name: str) -> bool:
        base = name.removesuffix(_LABEL_SUFFIX)
        return base != name and base in self.ids and name not in self.counts

    def _declared(self) -> None:
        for name, layer in self.declared.items():
            self._add("layer-absent", f"no tile holds layer {name!r}", int(name not in self.ids))
            found, stated = self.fields.get(name, set()), set(layer["fields"])
            extra, absent = sorted(found - stated), sorted(stated - found)
            self._add("field-undeclared", f"undeclared fields in {name!r}", len(extra), *extra)
            self._add("field-absent", f"no tile holds fields of {name!r}", len(absent), *absent)

    def _add(self, rule: str, message: str, count: int, *samples: Any) -> None:
        self.findings.add(rule, "error", message, count, samples)


def _well_formed(kinds: Ints, feature: Ints, command: Ints, count: Ints) -> NDArray[np.bool_]:
    # Each command must be the one that may follow its predecessor in the same feature.
    begins = np.diff(feature, prepend=-1) != 0
    before = np.where(begins, 0, np.roll(command, 1))
    last = np.append(begins[1:], True)
    points = (kinds == 1) & begins & last & (command == MOVE_TO)
    start = (command == MOVE_TO) & (count == 1) & ~last
    lines = (kinds == 2) & (
        (start & np.isin(before, (0, LINE_TO)))
        | ((command == LINE_TO) & (before == MOVE_TO) & (count >= 1))
    )
    rings = (kinds == 3) & (
        (start & np.isin(before, (0, CLOSE_PATH)))
        | ((command == LINE_TO) & (before == MOVE_TO) & (count >= 2) & ~last)
        | ((command == CLOSE_PATH) & (before == LINE_TO) & (count == 1))
    )
    return np.asarray(points | lines | rings)


def _repeated_points(layer: ReadLayer) -> int:
    # Every LineTo has a point before it in the same line or ring.
    x, y = layer.xy[:, 0], layer.xy[:, 1]
    still = (x[1:] == x[:-1]) & (y[1:] == y[:-1])
    drawn = layer.commands[layer.points_of[1:], 2] == LINE_TO
    return int(np.count_nonzero(still & drawn))


def _ring_areas(layer: ReadLayer) -> tuple[Ints, Ints]:
    # Of polygons only: the feature of each ring and twice its signed area (surveyor's formula).
    commands = layer.commands
    polygon = layer.kinds[commands[layer.points_of, 0]] == 3
    xy, of = layer.xy[polygon], layer.points_of[polygon]
    starts = np.flatnonzero(commands[of, 2] == MOVE_TO)
    stops = np.append(starts[1:], len(xy))
    following = np.arange(1, len(xy) + 1)
    following[stops - 1] = starts
    cross = xy[:, 0] * xy[following, 1] - xy[following, 0] * xy[:, 1]
    return commands[of[starts], 0], np.add.reduceat(cross, starts)


def _distinct(parts: list[Ints]) -> Ints:
    return np.unique(np.concatenate([np.empty(0, dtype=np.int64), *parts]))
