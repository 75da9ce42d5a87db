"""Writes PMTiles v3, staged and clustered.

Tiles wait in the order of their arrival; the archive is written by tile id, equal tiles once, on
commit: so the order of the puts never shows in the bytes.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import itertools
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiling.errors import StoreError
from tiling.formats.pmtiles import (
    COMPRESSION_GZIP,
    COMPRESSION_NONE,
    HEADER_NBYTES,
    TILE_TYPES,
    Directory,
    Header,
    pack_directories,
    parse_key,
    tile_cells,
    tile_id,
)
from tiling.stores import gzip_member, staging
from tiling.stores.base import Encoding, StoreInfo

FORMAT = "pmtiles"
_COPY_NBYTES = 1 << 22


class PmtilesWriter:
    """Writes an archive; visible under `path` only after `commit`.

    Args:
        path: the file to make. Tiles wait in an unnamed file beside it, so that a killed run leaves
            at most ``<path>.part``, which the next one overwrites.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._part = staging.staged(self.path)
        self._contents: dict[bytes, int] = {}  # digest -> index into _spans
        self._spans: list[tuple[int, int]] = []  # offset in the waiting file, length
        self._tiles: dict[int, int] = {}  # tile id -> index into _spans
        self._kind: tuple[str, Encoding] | None = None
        self._nbytes = 0
        with staging.told(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._waiting = tempfile.TemporaryFile(dir=self.path.parent, buffering=1 << 20)
        self._open = True

    def put(self, key: str, data: bytes, encoding: Encoding = None) -> None:
        """Add a tile.

        Args:
            key: ``{z}/{x}/{y}.{ending}``; all tiles share ending and encoding.
            data: the body, one gzip member when `encoding` is ``"gzip"``.
            encoding: see `tiling.stores.base.StoredTile`.

        Raises:
            StoreError: no valid key, a key put twice, an empty body, mixed kinds, a body that is
                not what `encoding` says, a full disk, or a closed writer.
        """
        self._check_open()
        parsed = parse_key(key)
        if parsed is None or parsed[3] not in TILE_TYPES:
            raise StoreError(
                f"{self.path}: {key!r} cannot be a tile of a PMTiles archive; "
                f"use z/x/y and one of {', '.join(TILE_TYPES)}"
            )
        zoom, x, y, ending = parsed
        if (self._kind or (ending, encoding)) != (ending, encoding):
            raise StoreError(f"{self.path}: {key} is {(ending, encoding)}, others {self._kind}")
        identity = tile_id(zoom, x, y)
        if identity in self._tiles:
            raise StoreError(f"{self.path}: {key} was put twice")
        if not data:
            raise StoreError(f"{self.path}: {key} is empty; a missing tile is simply not put")
        if encoding == "gzip":
            gzip_member.split(data, f"{self.path}: {key}")
        else:
            gzip_member.check_plain(key, data, f"{self.path}: {key}")
        self._kind = (ending, encoding)
        digest = hashlib.sha256(data).digest()
        content = self._contents.get(digest)
        if content is None:
            with staging.told(self.path):
                self._waiting.write(data)
            content = self._contents[digest] = len(self._spans)
            self._spans.append((self._nbytes, len(data)))
            self._nbytes += len(data)
        self._tiles[identity] = content

    def commit(self, metadata: Mapping[str, Any] | None = None) -> StoreInfo:
        """Write the archive, flush it to disk and rename it into place.

        Args:
            metadata: JSON; ``bounds``, ``center`` (degrees, zoom) also enter the header.

        Raises:
            StoreError: nothing was put, the disk is full, or another store rests at the path.
        """
        self._check_open()
        if self._kind is None:
            raise StoreError(f"{self.path}: no tile was put; an empty archive is not written")
        with staging.told(self.path):
            self._waiting.flush()
            info = self._write(dict(metadata or {}), self._kind)
            self._close()
            if not staging.place(self._part, self.path, info.sha256, staging.file_sha256):
                self._part.unlink()
        return info

    def abort(self) -> None:
        """Drop what was written; calling it after `commit` does nothing."""
        if self._open:
            # On a full disk the rest of the buffer cannot be flushed; it is dropped anyway.
            with contextlib.suppress(OSError):
                self._close()
            self._part.unlink(missing_ok=True)

    def _check_open(self) -> None:
        if not self._open:
            raise StoreError(f"{self.path}: the writer is closed")

    def _close(self) -> None:
        self._open = False
        self._waiting.close()

    def _write(self, metadata: dict[str, Any], kind: tuple[str, Encoding]) -> StoreInfo:
        entries, order = self._entries()
        root, leaves = pack_directories(entries)
        packed = gzip.compress(
            json.dumps(metadata, ensure_ascii=False, sort_keys=True).encode(), 9, mtime=0
        )
        header = self._header(metadata, kind, entries, (len(root), len(packed), len(leaves)))
        sha256, nbytes = hashlib.sha256(), 0
        with self._part.open("wb") as file:
            for piece in itertools.chain(
                (header.to_bytes(), root, packed, leaves), self._pieces(order)
            ):
                file.write(piece)
                sha256.update(piece)
                nbytes += len(piece)
            file.flush()
            os.fsync(file.fileno())
        return StoreInfo(self.path, FORMAT, sha256.hexdigest(), nbytes, len(self._tiles))

    def _header(
        self,
        metadata: dict[str, Any],
        kind: tuple[str, Encoding],
        entries: Directory,
        sizes: tuple[int, int, int],
    ) -> Header:
        zooms, x, y = tile_cells(np.fromiter(self._tiles, np.uint64, len(self._tiles)))
        bounds = _bounds(metadata.get("bounds"), zooms, x, y)
        root, packed, leaves = sizes
        return Header(
            root_offset=HEADER_NBYTES,
            root_length=root,
            metadata_offset=HEADER_NBYTES + root,
            metadata_length=packed,
            leaves_offset=HEADER_NBYTES + root + packed,
            leaves_length=leaves,
            data_offset=HEADER_NBYTES + root + packed + leaves,
            data_length=self._nbytes,
            addressed_tiles=len(self._tiles),
            tile_entries=len(entries),
            tile_contents=len(self._spans),
            clustered=True,
            internal_compression=COMPRESSION_GZIP,
            tile_compression=COMPRESSION_NONE if kind[1] is None else COMPRESSION_GZIP,
            tile_type=TILE_TYPES[kind[0]],
            min_zoom=int(zooms.min()),
            max_zoom=int(zooms.max()),
            bounds=bounds,
            center=_center(metadata.get("center"), bounds, int(zooms.min())),
        )

    def _entries(self) -> tuple[Directory, NDArray[np.int64]]:
        # Returns the directory and the contents in the order of their first tile.
        ids = np.fromiter(self._tiles.keys(), dtype=np.uint64, count=len(self._tiles))
        content = np.fromiter(self._tiles.values(), dtype=np.int64, count=len(self._tiles))
        by_id = np.argsort(ids)
        ids, content = ids[by_id], content[by_id]
        uniques, first = np.unique(content, return_index=True)
        order = uniques[np.argsort(first)]
        lengths = np.array([s[1] for s in self._spans], dtype=np.uint64)
        offsets = np.empty_like(lengths)
        offsets[order] = np.cumsum(lengths[order], dtype=np.uint64) - lengths[order]
        fresh = np.ones(len(ids), dtype=bool)
        fresh[1:] = (content[1:] != content[:-1]) | (ids[1:] != ids[:-1] + np.uint64(1))
        starts = np.flatnonzero(fresh)
        runs = np.diff(starts, append=len(ids)).astype(np.uint64)
        chosen = content[starts]
        return Directory(ids[starts], offsets[chosen], lengths[chosen], runs), order

    def _pieces(self, order: NDArray[np.int64]) -> Iterator[bytes]:
        # Contents that lie side by side in the waiting file are copied in one go.
        spans = np.array(self._spans, dtype=np.int64)[order]
        broken = np.ones(len(spans), dtype=bool)
        broken[1:] = spans[1:, 0] != spans[:-1].sum(axis=1)
        starts = np.flatnonzero(broken)
        lengths = np.add.reduceat(spans[:, 1], starts)
        for offset, length in zip(spans[starts, 0].tolist(), lengths.tolist(), strict=True):
            self._waiting.seek(offset)
            for done in range(0, length, _COPY_NBYTES):
                yield self._waiting.read(min(_COPY_NBYTES, length - done))


def _bounds(
    declared: Any, zooms: NDArray[np.int64], x: NDArray[np.int64], y: NDArray[np.int64]
) -> tuple[float, float, float, float]:
    if declared is not None:
        west, south, east, north = (float(v) for v in declared)
        return west, south, east, north
    top = zooms == zooms.max()
    side = float(1 << int(zooms.max()))
    west, east = x[top].min() / side * 360 - 180, (x[top].max() + 1) / side * 360 - 180
    rows = np.array([y[top].max() + 1, y[top].min()]) / side
    south, north = np.degrees(np.arctan(np.sinh(np.pi * (1 - 2 * rows))))
    return float(west), float(south), float(east), float(north)


def _center(
    declared: Any, bounds: tuple[float, float, float, float], zoom: int
) -> tuple[float, float, int]:
    if declared is not None:
        return float(declared[0]), float(declared[1]), int(declared[2])
    return (bounds[0] + bounds[2]) / 2, (bounds[1] + bounds[3]) / 2, zoom
