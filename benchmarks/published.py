"""What a published version weighs, read from its files as they rest on disk.

A 3TZ is a ZIP whose members are the tiles; their deflate streams are what a client is sent, so a
member's compressed size is what a tile costs on the wire (a gzip frame adds 18 bytes to it).
"""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CIM = Path(sys.executable).parent / "cim"
GZIP_FRAME = 18


@dataclass(frozen=True, slots=True)
class TileFacts:
    """One content of a tileset.

    Attributes:
        key: its path.
        level: of the global quadtree.
        nbytes: gzipped.
        plain_nbytes: as glTF.
        cls: class of its property table; ``feature`` is full detail.
        count: rows of that table.
    """

    key: str
    level: int
    nbytes: int
    plain_nbytes: int
    cls: str
    count: int


@dataclass(frozen=True, slots=True)
class Weights:
    """Bytes of a tileset, gzipped as sent.

    Attributes:
        features: at full detail.
        tiles, leaves: contents of any kind; those at full detail.
        leaf_nbytes, coarse_nbytes, other_nbytes: full detail; generalised; JSON and subtrees.
        first_view_nbytes: tileset.json, and the first subtree and content of each root.
        levels: level -> contents, bytes, rows.
    """

    features: int
    tiles: int
    leaves: int
    leaf_nbytes: int
    coarse_nbytes: int
    other_nbytes: int
    first_view_nbytes: int
    levels: dict[int, tuple[int, int, int]]


def cim_json(*arguments: str | Path) -> Any:
    """Return what a command of ``cim`` prints with ``--json``."""
    command = [str(CIM), *map(str, arguments), "--json"]
    return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)


def stores(data: Path, asset: str) -> list[dict[str, Any]]:
    """Return the stores of the current version of an asset."""
    shown = cim_json("show", asset, "--data", data)
    version = next(v for v in shown["versions"] if v["version"] == shown["current"])
    found: list[dict[str, Any]] = version["stores"]
    return found


def tileset_paths(data: Path, asset: str) -> list[Path]:
    """Return the 3TZ files of an asset, those that come first hiding members of the others."""
    return [data / s["path"] for s in stores(data, asset) if s["format"] == "3tz"]


def contents(paths: list[Path]) -> Iterator[TileFacts]:
    """Yield every content of a tileset."""
    for archive, member in _members(paths):
        if member.filename.endswith(".glb"):
            cls, count = _table(archive.read(member))
            root, level = member.filename.split("/")[1], member.filename.split("/")[4]
            yield TileFacts(
                member.filename,
                int(root) + int(level),
                member.compress_size + GZIP_FRAME,
                member.file_size,
                cls,
                count,
            )


def weigh(paths: list[Path]) -> Weights:
    """Read a tileset."""
    tiles = list(contents(paths))
    others = [
        member
        for _, member in _members(paths)
        if not member.filename.endswith(".glb") and not member.filename.startswith("@")
    ]
    leaves = [tile for tile in tiles if tile.cls == "feature"]
    top = min(tile.level for tile in tiles)
    levels: dict[int, tuple[int, int, int]] = {}
    for tile in sorted(tiles, key=lambda tile: tile.level):
        number, nbytes, rows = levels.get(tile.level, (0, 0, 0))
        levels[tile.level] = number + 1, nbytes + tile.nbytes, rows + tile.count
    first = [m for m in others if m.filename == "tileset.json" or "/0.0.0.subtree" in m.filename]
    return Weights(
        features=sum(tile.count for tile in leaves),
        tiles=len(tiles),
        leaves=len(leaves),
        leaf_nbytes=sum(tile.nbytes for tile in leaves),
        coarse_nbytes=sum(tile.nbytes for tile in tiles) - sum(tile.nbytes for tile in leaves),
        other_nbytes=sum(m.compress_size + GZIP_FRAME for m in others),
        first_view_nbytes=sum(m.compress_size + GZIP_FRAME for m in first)
        + sum(tile.nbytes for tile in tiles if tile.level == top),
        levels=levels,
    )


def _members(paths: list[Path]) -> Iterator[tuple[zipfile.ZipFile, zipfile.ZipInfo]]:
    seen: set[str] = set()
    for path in paths:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if member.filename not in seen:
                    seen.add(member.filename)
                    yield archive, member


def _table(glb: bytes) -> tuple[str, int]:
    nbytes, kind = struct.unpack_from("<I4s", glb, 12)
    assert kind == b"JSON"
    gltf = json.loads(glb[20 : 20 + nbytes])
    (table,) = gltf["extensions"]["EXT_structural_metadata"]["propertyTables"]
    return table["class"], table["count"]
