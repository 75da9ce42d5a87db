"""The bytes of a Cloud Optimized GeoTIFF of one band: compressed blocks and what precedes them.

TIFF 6.0 with the BigTIFF extension, DEFLATE with a predictor (Adobe TIFF Technical Note 3 for
floating point), and the layout that GDAL's COG driver documents: all directories first, the full
image before its overviews, then the pixels of the smallest overview and so on to the full image.
Blocks are square; one that holds no data is absent (offset and size 0), which readers take for
nodata.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import deflate
import numpy as np
import rasterio
from numpy.typing import NDArray

BLOCK = 512
DEFLATE_LEVEL = 6
# Above this many bytes of pixels offsets take 64 bits: a header is written before all is known.
_CLASSIC_NBYTES = 2**31
_GHOST = b"LAYOUT=IFDS_BEFORE_DATA\nKNOWN_INCOMPATIBLE_EDITION=NO\n "
_GEO_TAGS = (33550, 33922, 34264, 34735, 34736, 34737)
_SHORT, _LONG, _LONG8, _ASCII = 3, 4, 16, 2
_SIZES = {1: 1, _ASCII: 1, _SHORT: 2, _LONG: 4, 12: 8, _LONG8: 8}

Tag = tuple[int, int, bytes]  # type, count, value


class Level(NamedTuple):
    """The full image or an overview.

    Attributes:
        width, height: pixels.
        offsets, nbytes: (rows, columns) uint64 of its blocks in the file; 0 where one is absent.
    """

    width: int
    height: int
    offsets: NDArray[np.uint64]
    nbytes: NDArray[np.uint64]


def levels(width: int, height: int) -> list[Level]:
    """Return the full image and its overviews, each half as large, until one is a block."""
    found = []
    while True:
        shape = -(-height // BLOCK), -(-width // BLOCK)
        found.append(Level(width, height, np.zeros(shape, np.uint64), np.zeros(shape, np.uint64)))
        if max(width, height) <= BLOCK:
            return found
        width, height = -(-width // 2), -(-height // 2)


def encode_block(pixels: NDArray[np.float32] | NDArray[np.int16]) -> bytes:
    """Return a block as it rests in the file.

    Args:
        pixels: at most (512, 512) float32 or int16; what is missing to the right and below is
            filled up with the last column and row.
    """
    rows, columns = pixels.shape
    whole: NDArray[Any] = pixels
    if (rows, columns) != (BLOCK, BLOCK):
        whole = np.pad(pixels, ((0, BLOCK - rows), (0, BLOCK - columns)), mode="edge")
    if pixels.dtype == np.float32:
        # The bytes of a row sorted by their weight, highest first; then differences of bytes.
        planes = whole.astype(">f4").view(np.uint8).reshape(BLOCK, BLOCK, 4).transpose(0, 2, 1)
        plain = np.ascontiguousarray(planes).reshape(BLOCK, BLOCK * 4)
    else:
        plain = np.ascontiguousarray(whole, dtype="<i2").view("<u2")
    coded = plain.copy()
    coded[:, 1:] -= plain[:, :-1]
    return bytes(deflate.zlib_compress(coded.tobytes(), DEFLATE_LEVEL))


def place_tags(crs_wkt: str, transform: Sequence[float]) -> dict[int, Tag]:
    """Return the GeoTIFF tags of a place: GDAL writes an empty raster there, and they are read.

    Args:
        crs_wkt: the frame.
        transform: x = a * column + c, y = e * row + f as (a, 0, c, 0, e, f).
    """
    with rasterio.MemoryFile() as memory:
        with memory.open(
            driver="GTiff", width=1, height=1, count=1, dtype="uint8", crs=crs_wkt,
            transform=rasterio.Affine(*transform),
        ):  # fmt: skip
            pass
        data = memory.read()
    order = "<" if data[:2] == b"II" else ">"
    (at,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, at)
    tags: dict[int, Tag] = {}
    for index in range(count):
        entry = at + 2 + 12 * index
        tag, kind, number = struct.unpack_from(order + "HHI", data, entry)
        if tag in _GEO_TAGS:
            size = _SIZES[kind] * number
            start = entry + 8 if size <= 4 else struct.unpack_from(order + "I", data, entry + 8)[0]
            tags[tag] = kind, number, data[start : start + size]
    return tags


def header(levels: Sequence[Level], dtype: str, nodata: str, place: Mapping[int, Tag]) -> bytes:
    """Return everything before the pixels.

    Args:
        levels: see `levels`; their offsets and sizes go into the header.
        dtype: ``float32`` or ``int16``.
        nodata: as GDAL writes it: ``nan`` or a whole number.
        place: see `place_tags`.
    """
    pixels = levels[0].width * levels[0].height * np.dtype(dtype).itemsize * 4 // 3
    big = pixels > _CLASSIC_NBYTES
    out = io.BytesIO()
    if big:
        out.write(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0))
    else:
        out.write(struct.pack("<2sHI", b"II", 42, 0))
    out.write(b"GDAL_STRUCTURAL_METADATA_SIZE=%06d bytes\n" % len(_GHOST) + _GHOST)
    link = 8 if big else 4
    for number, level in enumerate(levels):
        at = out.tell() + -out.tell() % 8
        out.seek(link)
        out.write(struct.pack("<Q" if big else "<I", at))
        out.seek(at)
        tags = _tags(level, dtype, nodata, place if number == 0 else {}, number > 0, big)
        link = _write_directory(out, tags, big)
    out.seek(0, io.SEEK_END)
    return out.getvalue()


def _tags(
    level: Level,
    dtype: str,
    nodata: str,
    place: Mapping[int, Tag],
    reduced: bool,
    big: bool,
) -> dict[int, Tag]:
    def short(*values: int) -> Tag:
        return _SHORT, len(values), struct.pack(f"<{len(values)}H", *values)

    def long(value: int) -> Tag:
        return _LONG, 1, struct.pack("<I", value)

    floating = dtype == "float32"
    blocks = level.offsets.size
    text = nodata.encode() + b"\0"
    offsets = level.offsets.astype("<u8" if big else "<u4").tobytes()
    return {
        **({254: long(1)} if reduced else {}),  # a reduced image
        256: long(level.width),
        257: long(level.height),
        258: short(32 if floating else 16),
        259: short(8),  # DEFLATE
        262: short(1),  # black is zero
        277: short(1),
        284: short(1),
        317: short(3 if floating else 2),
        322: short(BLOCK),
        323: short(BLOCK),
        324: (_LONG8 if big else _LONG, blocks, offsets),
        325: (_LONG, blocks, level.nbytes.astype("<u4").tobytes()),
        339: short(3 if floating else 2),
        **place,
        42113: (_ASCII, len(text), text),
    }


def _write_directory(out: io.BytesIO, tags: Mapping[int, Tag], big: bool) -> int:
    """Write a directory and the values it points to; return where the next one's place goes."""
    count, entry, room = ("<Q", "<HHQ", 8) if big else ("<H", "<HHI", 4)
    start = out.tell()
    values = start + struct.calcsize(count) + len(tags) * (struct.calcsize(entry) + room) + room
    link = values - room
    out.write(struct.pack(count, len(tags)))
    beside = io.BytesIO()
    for tag in sorted(tags):
        kind, number, data = tags[tag]
        out.write(struct.pack(entry, tag, kind, number))
        if len(data) <= room:
            out.write(data.ljust(room, b"\0"))
        else:
            beside.write(b"\0" * (-(values + beside.tell()) % 8))
            out.write(struct.pack("<Q" if big else "<I", values + beside.tell()))
            beside.write(data)
    out.write(bytes(room))
    out.write(beside.getvalue())
    return link
