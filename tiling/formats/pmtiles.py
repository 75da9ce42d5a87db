"""PMTiles version 3: the header and the directories, bytes <-> values.

Written after https://github.com/protomaps/PMTiles/blob/main/spec/v3/spec.md. A tile id counts
cells along the Hilbert curve of each zoom, all lower zooms first. Directories are columns of
varints, so they are read and written a column at a time. Bounds are degrees, longitude first.
"""

from __future__ import annotations

import gzip
import re
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tiling.errors import FormatError
from tiling.formats.ragged import RaggedBytes
from tiling.formats.varint import decode_varints, encode_varints
from tiling.hilbert import hilbert2, unhilbert2

MAGIC = b"PMTiles"
VERSION = 3
HEADER_NBYTES = 127
MAX_ROOT_NBYTES = 16384 - HEADER_NBYTES
MAX_ZOOM = 31
MAX_DIRECTORY_NBYTES = 1 << 28

COMPRESSION_NONE, COMPRESSION_GZIP = 1, 2
TILE_TYPES = {"mvt": 1, "png": 2, "jpg": 3, "webp": 4, "avif": 5}
_HEADER = struct.Struct("<7sB11Q6B4iB2i")
_SECTIONS = (
    "root_offset",
    "root_length",
    "metadata_offset",
    "metadata_length",
    "leaves_offset",
    "leaves_length",
    "data_offset",
    "data_length",
    "addressed_tiles",
    "tile_entries",
    "tile_contents",
)
_FIRST_LEAF_ENTRIES = 4096
_TILE_KEY = re.compile(r"(\d{1,2})/(\d{1,10})/(\d{1,10})\.([a-z]+)")


@dataclass(frozen=True, slots=True)
class Header:
    """The fixed head of an archive; offsets and lengths are bytes from the start of the file.

    Attributes:
        bounds: west, south, east, north in degrees.
        center: longitude, latitude in degrees, and a zoom.
    """

    root_offset: int
    root_length: int
    metadata_offset: int
    metadata_length: int
    leaves_offset: int
    leaves_length: int
    data_offset: int
    data_length: int
    addressed_tiles: int
    tile_entries: int
    tile_contents: int
    clustered: bool
    internal_compression: int
    tile_compression: int
    tile_type: int
    min_zoom: int
    max_zoom: int
    bounds: tuple[float, float, float, float]
    center: tuple[float, float, int]

    @property
    def west(self) -> float:
        """Western bound, degrees."""
        return self.bounds[0]

    @property
    def south(self) -> float:
        """Southern bound, degrees."""
        return self.bounds[1]

    @property
    def east(self) -> float:
        """Eastern bound, degrees."""
        return self.bounds[2]

    @property
    def north(self) -> float:
        """Northern bound, degrees."""
        return self.bounds[3]

    def to_bytes(self) -> bytes:
        """Return the 127 bytes."""
        west, south, east, north = (round(v * 1e7) for v in self.bounds)
        lon, lat, zoom = self.center
        return _HEADER.pack(
            MAGIC,
            VERSION,
            self.root_offset,
            self.root_length,
            self.metadata_offset,
            self.metadata_length,
            self.leaves_offset,
            self.leaves_length,
            self.data_offset,
            self.data_length,
            self.addressed_tiles,
            self.tile_entries,
            self.tile_contents,
            self.clustered,
            self.internal_compression,
            self.tile_compression,
            self.tile_type,
            self.min_zoom,
            self.max_zoom,
            west,
            south,
            east,
            north,
            zoom,
            round(lon * 1e7),
            round(lat * 1e7),
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Header:
        """Read the header.

        Raises:
            FormatError: too short, not a PMTiles file, or another version.
        """
        if len(data) < HEADER_NBYTES:
            raise FormatError(f"{len(data)} bytes are too few for the header of a PMTiles archive")
        magic, version, *fields = _HEADER.unpack(data[:HEADER_NBYTES])
        if magic != MAGIC:
            raise FormatError(f"not a PMTiles archive: it begins with {data[:7]!r}")
        if version != VERSION:
            raise FormatError(f"PMTiles version {version}; only version {VERSION} is read")
        clustered, inner, outer, kind, low, high, w, s, e, n, zoom, lon, lat = fields[11:]
        return cls(
            **dict(zip(_SECTIONS, fields[:11], strict=True)),
            clustered=clustered == 1,
            internal_compression=inner,
            tile_compression=outer,
            tile_type=kind,
            min_zoom=low,
            max_zoom=high,
            bounds=(w / 1e7, s / 1e7, e / 1e7, n / 1e7),
            center=(lon / 1e7, lat / 1e7, zoom),
        )


@dataclass(frozen=True, slots=True)
class Directory:
    """Entries of one directory, ascending by tile id.

    Attributes:
        ids: (N,) uint64, the first tile id of each entry.
        offsets: (N,) uint64, from the start of the data (or leaf) section.
        lengths: (N,) uint64, bytes.
        runs: (N,) uint64, how many consecutive ids share the content; 0 points to a leaf.
    """

    ids: NDArray[np.uint64]
    offsets: NDArray[np.uint64]
    lengths: NDArray[np.uint64]
    runs: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.ids)

    def slice(self, start: int, stop: int) -> Directory:
        """Return entries `start` to `stop`."""
        part = np.s_[start:stop]
        return Directory(self.ids[part], self.offsets[part], self.lengths[part], self.runs[part])

    def to_bytes(self) -> bytes:
        """Return the gzip-compressed directory."""
        follows = np.zeros(len(self), dtype=bool)
        follows[1:] = self.offsets[1:] == self.offsets[:-1] + self.lengths[:-1]
        columns = [
            np.array([len(self)], dtype=np.uint64),
            np.diff(self.ids, prepend=np.uint64(0)),
            self.runs,
            self.lengths,
            np.where(follows, np.uint64(0), self.offsets + np.uint64(1)),
        ]
        packed = RaggedBytes.below([encode_varints(c) for c in columns])
        return gzip.compress(packed.tobytes(), 9, mtime=0)

    @classmethod
    def from_bytes(cls, data: bytes, compression: int) -> Directory:
        """Read a directory.

        Args:
            data: as it rests in the file.
            compression: 1 none, 2 gzip.

        Raises:
            FormatError: damaged, or entries that do not ascend.
        """
        values = decode_varints(decompress(data, compression, MAX_DIRECTORY_NBYTES))
        count = int(values[0]) if len(values) else -1
        if count < 1 or len(values) != 1 + 4 * count:
            raise FormatError(f"a directory of {count} entries holds {len(values)} numbers")
        deltas, runs, lengths, marks = values[1:].reshape(4, count)
        if not deltas[1:].all():
            raise FormatError("a directory names a tile id twice")
        ids = np.cumsum(deltas, dtype=np.uint64)
        last = zoom_base(MAX_ZOOM + 1)
        if (ids[1:] <= ids[:-1]).any() or int(ids[-1]) >= last or int(runs.max()) > last:
            raise FormatError("a directory's tile ids do not ascend, or leave the last zoom")
        if (ids[:-1] + runs[:-1] > ids[1:]).any() or int(ids[-1]) + int(runs[-1]) > last:
            raise FormatError("two entries of a directory overlap")
        if not lengths.all() or marks[0] == 0:
            raise FormatError("an entry of a directory is empty or has no offset")
        # A zero mark follows its predecessor: its offset is the last marked one plus the lengths
        # in between, which one running sum gives for all.
        marked = np.maximum.accumulate(np.where(marks != 0, np.arange(count), 0))
        before = np.cumsum(lengths, dtype=np.uint64) - lengths
        offsets = marks[marked] - np.uint64(1) + before - before[marked]
        return cls(ids, offsets, lengths, runs)


def pack_directories(entries: Directory) -> tuple[bytes, bytes]:
    """Return the root and the leaf section for all entries; the root fits its 16 KiB."""
    root = entries.to_bytes()
    if len(root) <= MAX_ROOT_NBYTES:
        return root, b""
    size = _FIRST_LEAF_ENTRIES
    while True:
        starts = np.arange(0, len(entries), size)
        leaves = [entries.slice(s, s + size).to_bytes() for s in starts.tolist()]
        lengths = np.array([len(leaf) for leaf in leaves], dtype=np.uint64)
        offsets = np.cumsum(lengths, dtype=np.uint64) - lengths
        root = Directory(entries.ids[starts], offsets, lengths, np.zeros_like(lengths)).to_bytes()
        if len(root) <= MAX_ROOT_NBYTES:
            return root, b"".join(leaves)
        size *= 2


def decompress(data: bytes, compression: int, max_nbytes: int) -> bytes:
    """Undo the internal compression, never beyond `max_nbytes`.

    Raises:
        FormatError: damaged, too large, or a compression other than none and gzip.
    """
    if compression == COMPRESSION_NONE:
        return data
    if compression != COMPRESSION_GZIP:
        raise FormatError(f"compression {compression} is not supported; only none and gzip are")
    inflater = zlib.decompressobj(wbits=31)
    try:
        result = inflater.decompress(data, max_nbytes)
    except zlib.error as error:
        raise FormatError(f"damaged gzip data: {error}") from error
    if not inflater.eof:
        raise FormatError(f"gzip data is cut off or larger than {max_nbytes} bytes")
    return result


def zoom_base(zoom: int) -> int:
    """Return the first tile id of a zoom."""
    return ((1 << (2 * zoom)) - 1) // 3


def tile_ids(zoom: int, x: ArrayLike, y: ArrayLike) -> NDArray[np.uint64]:
    """Return the ids of (N,) cells of one zoom, y from the north."""
    return hilbert2(x, y, zoom) + np.uint64(zoom_base(zoom))


def tile_id(zoom: int, x: int, y: int) -> int:
    """Return the id of one cell: the scalar twin of `tile_ids`, for single look-ups."""
    position = 0
    for bit in range(zoom - 1, -1, -1):
        side = 1 << bit
        rx, ry = (x >> bit) & 1, (y >> bit) & 1
        position += ((3 * rx) ^ ry) << (2 * bit)
        x, y = x & (side - 1), y & (side - 1)
        if not ry:
            x, y = (side - 1 - y, side - 1 - x) if rx else (y, x)
    return position + zoom_base(zoom)


def tile_cells(
    ids: NDArray[np.uint64],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return zoom, x and y, (N,) int64 each, of (N,) tile ids."""
    bases = np.array([zoom_base(z) for z in range(MAX_ZOOM + 1)], dtype=np.uint64)
    zooms = np.searchsorted(bases, ids, side="right").astype(np.int64) - 1
    x, y = np.zeros(len(ids), dtype=np.int64), np.zeros(len(ids), dtype=np.int64)
    for zoom in np.unique(zooms):
        rows = np.flatnonzero(zooms == zoom)
        x[rows], y[rows] = unhilbert2(ids[rows] - bases[zoom], int(zoom))
    return zooms, x, y


def parse_key(key: str) -> tuple[int, int, int, str] | None:
    """Return zoom, x, y and ending of a key, or None when no tile can have it."""
    match = _TILE_KEY.fullmatch(key)
    if match is None:
        return None
    zoom, x, y = int(match[1]), int(match[2]), int(match[3])
    if zoom > MAX_ZOOM or x >= 1 << zoom or y >= 1 << zoom:
        return None
    # One key per tile: "01" or other spellings of a number are not keys.
    if f"{zoom}/{x}/{y}.{match[4]}" != key:
        return None
    return zoom, x, y, match[4]
