"""PMTiles v3 as a store: a staged writer and a reader that parses each directory once.

Keys are ``{z}/{x}/{y}.{ending}``, y counted from the north. The writer keeps the tile bytes in a
staging file in the order of their arrival, and writes the archive clustered (by tile id, equal
tiles once) on commit; so the order of the puts never shows in the bytes.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from tiling.errors import FormatError, StoreError
from tiling.formats.pmtiles import (
    COMPRESSION_GZIP,
    COMPRESSION_NONE,
    HEADER_NBYTES,
    MAX_ZOOM,
    TILE_TYPES,
    Directory,
    Header,
    decompress,
    pack_directories,
    tile_cells,
    tile_id,
)
from tiling.stores.base import Encoding, StoredTile, StoreInfo, media_type

FORMAT = "pmtiles"
MAX_METADATA_NBYTES = 1 << 26
_KEY = re.compile(r"(\d{1,2})/(\d{1,10})/(\d{1,10})\.([a-z]+)")
_CACHED_LEAVES = 4096
_COPY_NBYTES = 1 << 22
_LISTED_AT_ONCE = 1 << 16
_MAX_DEPTH = 4


def parse_key(key: str) -> tuple[int, int, int, str] | None:
    """Return zoom, x, y and ending of a key, or None when no tile can have it."""
    match = _KEY.fullmatch(key)
    if match is None:
        return None
    zoom, x, y = int(match[1]), int(match[2]), int(match[3])
    if zoom > MAX_ZOOM or x >= 1 << zoom or y >= 1 << zoom:
        return None
    # One key per tile: "01" or other spellings of a number are not keys.
    if f"{zoom}/{x}/{y}.{match[4]}" != key:
        return None
    return zoom, x, y, match[4]


class PmtilesWriter:
    """Writes an archive; visible under `path` only after `commit`.

    Args:
        path: the file to make; a staging file beside it carries the ending ``.part``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._part = path.with_name(path.name + ".part")
        self._data = path.with_name(path.name + ".tiles.part")
        self._contents: dict[bytes, int] = {}  # digest -> index into _spans
        self._spans: list[tuple[int, int]] = []  # offset in the staging file, length
        self._tiles: dict[int, int] = {}  # tile id -> index into _spans
        self._kind: tuple[str, Encoding] | None = None
        self._nbytes = 0
        self._done = False
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: BinaryIO = self._data.open("w+b")

    def put(self, key: str, data: bytes, encoding: Encoding = None) -> None:
        """Add a tile.

        Args:
            key: ``{z}/{x}/{y}.{ending}``; all tiles share ending and encoding.
            data: the body, one gzip member when `encoding` is ``"gzip"``.
            encoding: see `tiling.stores.base.StoredTile`.

        Raises:
            StoreError: no valid key, a key put twice, an empty body, mixed kinds, a full disk.
        """
        parsed = parse_key(key)
        if parsed is None or parsed[3] not in TILE_TYPES:
            raise StoreError(
                f"{self.path}: {key!r} cannot be a tile of a PMTiles archive; "
                f"use z/x/y and one of {', '.join(TILE_TYPES)}"
            )
        zoom, x, y, ending = parsed
        if self._kind is None:
            self._kind = (ending, encoding)
        if self._kind != (ending, encoding):
            raise StoreError(f"{self.path}: {key} is {(ending, encoding)}, others {self._kind}")
        identity = tile_id(zoom, x, y)
        if identity in self._tiles:
            raise StoreError(f"{self.path}: {key} was put twice")
        if not data:
            raise StoreError(f"{self.path}: {key} is empty; a missing tile is simply not put")
        digest = hashlib.sha256(data).digest()
        content = self._contents.get(digest)
        if content is None:
            content = self._contents[digest] = len(self._spans)
            try:
                self._file.write(data)
            except OSError as error:
                raise StoreError(f"{self._data}: cannot write: {error}") from error
            self._spans.append((self._nbytes, len(data)))
            self._nbytes += len(data)
        self._tiles[identity] = content

    def commit(self, metadata: Mapping[str, Any] | None = None) -> StoreInfo:
        """Write the archive and rename it into place.

        Args:
            metadata: JSON; ``bounds``, ``center`` (degrees, zoom) also enter the header.

        Raises:
            StoreError: nothing was put, or the disk is full.
        """
        if self._kind is None:
            raise StoreError(f"{self.path}: no tile was put; an empty archive is not written")
        try:
            self._file.flush()
            info = self._write(dict(metadata or {}), self._kind)
        except OSError as error:
            self.abort()
            raise StoreError(f"{self.path}: cannot write: {error}") from error
        self._close()
        return info

    def abort(self) -> None:
        """Remove what was staged; after `commit` do nothing."""
        if not self._done:
            self._close()
            self._part.unlink(missing_ok=True)

    def _close(self) -> None:
        self._done = True
        self._file.close()
        self._data.unlink(missing_ok=True)

    def _write(self, metadata: dict[str, Any], kind: tuple[str, Encoding]) -> StoreInfo:
        entries, order = self._entries()
        root, leaves = pack_directories(entries)
        text = json.dumps(metadata, ensure_ascii=False, sort_keys=True).encode()
        packed = gzip.compress(text, 9, mtime=0)
        zooms, x, y = tile_cells(np.array(sorted(self._tiles), dtype=np.uint64))
        metadata_offset = HEADER_NBYTES + len(root)
        leaves_offset = metadata_offset + len(packed)
        data_offset = leaves_offset + len(leaves)
        low, high = int(zooms.min()), int(zooms.max())
        bounds = _bounds(metadata.get("bounds"), zooms, x, y)
        header = Header(
            HEADER_NBYTES,
            len(root),
            metadata_offset,
            len(packed),
            leaves_offset,
            len(leaves),
            data_offset,
            self._nbytes,
            len(self._tiles),
            len(entries),
            len(self._spans),
            True,
            COMPRESSION_GZIP,
            COMPRESSION_NONE if kind[1] is None else COMPRESSION_GZIP,
            TILE_TYPES[kind[0]],
            low,
            high,
            bounds,
            _center(metadata.get("center"), bounds, low),
        )
        sha, nbytes = hashlib.sha256(), 0
        with self._part.open("wb") as file:
            head = (header.to_bytes(), root, packed, leaves)
            for piece in (*head, *self._pieces(order)):
                file.write(piece)
                sha.update(piece)
                nbytes += len(piece)
            file.flush()
            os.fsync(file.fileno())
        self._part.replace(self.path)
        return StoreInfo(self.path, FORMAT, sha.hexdigest(), nbytes, len(self._tiles))

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
        # Contents that lie side by side in the staging file are copied in one go.
        spans = np.array(self._spans, dtype=np.int64)[order]
        broken = np.ones(len(spans), dtype=bool)
        broken[1:] = spans[1:, 0] != spans[:-1].sum(axis=1)
        starts = np.flatnonzero(broken)
        lengths = np.add.reduceat(spans[:, 1], starts)
        for offset, length in zip(spans[starts, 0].tolist(), lengths.tolist(), strict=True):
            self._file.seek(offset)
            for done in range(0, length, _COPY_NBYTES):
                yield self._file.read(min(_COPY_NBYTES, length - done))


class PmtilesReader:
    """Reads an archive; safe to share between threads.

    Args:
        path: the file.

    Attributes:
        header: the fixed head.
        metadata: the archive's JSON object.

    Raises:
        StoreError: missing, truncated or damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._fd = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise StoreError(f"{path}: cannot open: {error.strerror}") from error
        self._open = True
        self._lock = threading.Lock()
        self._leaves: dict[int, Directory] = {}
        try:
            self._nbytes = os.fstat(self._fd).st_size
            self.header = Header.from_bytes(os.pread(self._fd, HEADER_NBYTES, 0))
            self._check_sections()
            h = self.header
            self._root = self._directory(h.root_offset, h.root_length)
            self.metadata = self._read_metadata()
        except FormatError as error:
            self.close()
            raise StoreError(f"{path}: {error}; make the archive again") from error
        except StoreError:
            self.close()
            raise
        self._encoding: Encoding = "gzip" if h.tile_compression == COMPRESSION_GZIP else None
        names = {number: ending for ending, number in TILE_TYPES.items()}
        self._ending = names.get(h.tile_type, "bin")
        self._media_type = media_type("." + self._ending)

    def get(self, key: str) -> StoredTile | None:
        """Return the tile under ``{z}/{x}/{y}.{ending}``, or None."""
        parsed = parse_key(key)
        if parsed is None or parsed[3] != self._ending:
            return None
        span = self._find(tile_id(parsed[0], parsed[1], parsed[2]))
        if span is None:
            return None
        data = self._read(self.header.data_offset + span[0], span[1])
        return StoredTile(data, self._media_type, self._encoding, etag(data))

    def keys(self) -> Iterator[str]:
        """Yield every key once, in the order of the tile ids."""
        for directory in self._tile_directories(self._root, 0):
            stops = np.cumsum(directory.runs)
            # A run may address billions of tiles: unroll it a piece at a time.
            for start in range(0, int(stops[-1]), _LISTED_AT_ONCE):
                stop = min(start + _LISTED_AT_ONCE, int(stops[-1]))
                place = np.arange(start, stop, dtype=np.uint64)
                rows = np.searchsorted(stops, place, side="right")
                ids = directory.ids[rows] + place - (stops - directory.runs)[rows]
                zooms, x, y = (a.tolist() for a in tile_cells(ids))
                for zoom, column, row in zip(zooms, x, y, strict=True):
                    yield f"{zoom}/{column}/{row}.{self._ending}"

    def close(self) -> None:
        """Release the file."""
        if self._open:
            self._open = False
            os.close(self._fd)

    def __enter__(self) -> PmtilesReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _find(self, identity: int) -> tuple[int, int] | None:
        directory = self._root
        for _ in range(_MAX_DEPTH):
            row = int(directory.ids.searchsorted(np.uint64(identity), side="right")) - 1
            if row < 0:
                return None
            run = int(directory.runs[row])
            offset, length = int(directory.offsets[row]), int(directory.lengths[row])
            if run:
                inside = identity - int(directory.ids[row]) < run
                return (offset, length) if inside else None
            directory = self._leaf(offset, length)
        raise StoreError(f"{self.path}: leaf directories are nested deeper than {_MAX_DEPTH}")

    def _leaf(self, offset: int, length: int) -> Directory:
        leaf = self._leaves.get(offset)
        if leaf is None:
            start = self.header.leaves_offset + offset
            try:
                leaf = self._directory(start, length)
            except FormatError as error:
                raise StoreError(f"{self.path}: leaf at {start}: {error}") from error
            with self._lock:
                while len(self._leaves) >= _CACHED_LEAVES:
                    self._leaves.pop(next(iter(self._leaves)))
                self._leaves[offset] = leaf
        return leaf

    def _tile_directories(self, directory: Directory, depth: int) -> Iterator[Directory]:
        if depth > _MAX_DEPTH:
            raise StoreError(f"{self.path}: leaf directories are nested deeper than {_MAX_DEPTH}")
        pointers = directory.runs == 0
        cuts = np.flatnonzero(np.diff(pointers.astype(np.int8))) + 1
        for start, stop in zip([0, *cuts], [*cuts, len(directory)], strict=True):
            part = directory.slice(int(start), int(stop))
            if not pointers[start]:
                yield part
                continue
            for offset, length in zip(part.offsets.tolist(), part.lengths.tolist(), strict=True):
                yield from self._tile_directories(self._leaf(offset, length), depth + 1)

    def _directory(self, offset: int, length: int) -> Directory:
        raw = self._read(offset, length)
        return Directory.from_bytes(raw, self.header.internal_compression)

    def _read_metadata(self) -> dict[str, Any]:
        h = self.header
        if h.metadata_length == 0:
            return {}
        raw = self._read(h.metadata_offset, h.metadata_length)
        text = decompress(raw, h.internal_compression, MAX_METADATA_NBYTES)
        try:
            metadata = json.loads(text)
        except ValueError as error:
            raise FormatError(f"the metadata is not JSON: {error}") from error
        if not isinstance(metadata, dict):
            raise FormatError("the metadata is not a JSON object")
        return metadata

    def _check_sections(self) -> None:
        h = self.header
        for name, offset, length in (
            ("root directory", h.root_offset, h.root_length),
            ("metadata", h.metadata_offset, h.metadata_length),
            ("leaf directories", h.leaves_offset, h.leaves_length),
            ("tile data", h.data_offset, h.data_length),
        ):
            if offset + length > self._nbytes:
                raise FormatError(
                    f"truncated: the {name} should end at byte {offset + length}, "
                    f"the file has {self._nbytes}"
                )
        if h.tile_compression not in (COMPRESSION_NONE, COMPRESSION_GZIP):
            raise FormatError(f"tile compression {h.tile_compression} is not supported")

    def _read(self, offset: int, length: int) -> bytes:
        if offset + length > self._nbytes:
            raise StoreError(f"{self.path}: bytes {offset}+{length} lie beyond its end")
        if not self._open:
            raise StoreError(f"{self.path}: the reader is closed")
        data = os.pread(self._fd, length, offset)
        if len(data) != length:
            raise StoreError(f"{self.path}: bytes {offset}+{length} could not be read")
        return data


def etag(data: bytes) -> str:
    """Return a strong validator of a body: 16 hex digits of BLAKE2b."""
    return hashlib.blake2b(data, digest_size=8).hexdigest()


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
