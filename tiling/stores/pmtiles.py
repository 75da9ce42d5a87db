"""PMTiles v3 as a store: the reader, which parses each directory once.

Keys are ``{z}/{x}/{y}.{ending}``, y counted from the north. A get is a binary search in NumPy
arrays and one read; `PmtilesWriter` lives next door.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tiling.errors import FormatError, StoreError
from tiling.formats.pmtiles import (
    COMPRESSION_GZIP,
    COMPRESSION_NONE,
    HEADER_NBYTES,
    TILE_TYPES,
    Directory,
    Header,
    decompress,
    parse_key,
    tile_cells,
    tile_id,
)
from tiling.stores.base import Encoding, StoredTile, media_type
from tiling.stores.pmtiles_writer import FORMAT, PmtilesWriter

__all__ = ["FORMAT", "PmtilesReader", "PmtilesWriter"]

MAX_METADATA_NBYTES = 1 << 26
_CACHED_LEAVES = 4096
_LISTED_AT_ONCE = 1 << 16
_MAX_DEPTH = 4


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
        self.path = Path(path)
        try:
            self._descriptor: _Descriptor | None = _Descriptor(self.path)
        except OSError as error:
            raise StoreError(f"{path}: cannot be opened: {error.strerror}") from error
        self._lock = threading.Lock()
        self._leaves: dict[int, Directory] = {}
        try:
            self._nbytes = os.fstat(self._descriptor.fd).st_size
            self.header = Header.from_bytes(os.pread(self._descriptor.fd, HEADER_NBYTES, 0))
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
        """Release the file; requests that are under way still finish."""
        self._descriptor = None

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
        descriptor = self._descriptor
        if descriptor is None:
            raise StoreError(f"{self.path}: the reader is closed")
        if offset + length > self._nbytes:
            raise StoreError(f"{self.path}: bytes {offset}+{length} lie beyond its end")
        data = os.pread(descriptor.fd, length, offset)
        if len(data) != length:
            raise StoreError(f"{self.path}: bytes {offset}+{length} could not be read")
        return data


class _Descriptor:
    # Closed with its last user, never while another thread reads from the same number.
    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "fd"):
            os.close(self.fd)


def etag(data: bytes) -> str:
    """Return a strong validator of a body: 16 hex digits of BLAKE2b."""
    return hashlib.blake2b(data, digest_size=8).hexdigest()
