"""The gzip member (RFC 1952): a deflate stream with a header before it and a CRC and size after it.

ZIP keeps the same deflate stream with the same CRC and size in its own header. So a tile moves
between a ZIP entry and a gzip body by exchanging 10 + 8 bytes, without recompression.
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

from tiling.errors import StoreError
from tiling.stores.base import Encoding, StoredTile

MAX_CONTENT_NBYTES = 1 << 30
"""No tile is larger than this when decoded; what claims to be is refused as a bomb."""

_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"  # deflate, no flags, no time, any OS
_TRAILER = struct.Struct("<II")
_FHCRC, _FEXTRA, _FNAME, _FCOMMENT = 2, 4, 8, 16


# What these begin with never looks like gzip, so a body that does was compressed for a client.
_NEVER_GZIP = (
    ".terrain", ".json", ".glb", ".gltf", ".b3dm", ".i3dm", ".cmpt", ".pnts", ".subtree", ".mvt",
    ".pbf",
)  # fmt: skip


class GzipMember(NamedTuple):
    """A gzip member taken apart.

    Attributes:
        deflate: the raw stream.
        crc32: of the decoded content.
        size: of the decoded content, modulo 2**32.
    """

    deflate: bytes
    crc32: int
    size: int


def split(data: bytes, what: object) -> GzipMember:
    """Take a gzip member apart without decoding it.

    Args:
        data: exactly one member.
        what: names the tile in the error.

    Raises:
        StoreError: not a gzip member.
    """
    if len(data) < 18 or data[:3] != b"\x1f\x8b\x08" or data[3] & 0xE0:
        raise StoreError(f"{what}: said to be gzip, but begins with {data[:4].hex(' ')!r}")
    start = _end_of_header(data)
    if start > len(data) - 8:
        raise StoreError(f"{what}: the gzip header does not end within {len(data)} bytes")
    crc32, size = _TRAILER.unpack_from(data, len(data) - 8)
    return GzipMember(data[start:-8], crc32, size)


def _end_of_header(data: bytes) -> int:
    flags, start = data[3], 10
    if flags & _FEXTRA:
        start += 2 + int.from_bytes(data[start : start + 2], "little")
    for flag in (_FNAME, _FCOMMENT):
        if flags & flag:
            end = data.find(b"\0", start)
            start = len(data) if end < 0 else end + 1
    return start + 2 if flags & _FHCRC else start


def join(member: GzipMember) -> bytes:
    """Return the member as one body that can be sent with ``Content-Encoding: gzip``."""
    return _HEADER + member.deflate + _TRAILER.pack(member.crc32, member.size)


def is_packed(key: str, data: bytes) -> bool:
    """Say whether the body of a tile is a gzip member although nobody says so."""
    return data[:3] == _HEADER[:3] and key.endswith(_NEVER_GZIP)


def check_plain(key: str, data: bytes, what: object) -> None:
    """Refuse a compressed body that is said to be none: no client could read what it is sent.

    Raises:
        StoreError: see `is_packed`.
    """
    if is_packed(key, data):
        raise StoreError(f"{what}: the body is compressed; put it with encoding 'gzip'")


def decode(data: bytes, encoding: Encoding, what: object, limit: int = MAX_CONTENT_NBYTES) -> bytes:
    """Return the content of a tile, checked against its CRC.

    Args:
        data: the bytes as they are sent.
        encoding: how they are coded.
        what: names the tile in the error.
        limit: the largest content that is accepted.

    Raises:
        StoreError: damaged, truncated, followed by something else, or larger than `limit`.
    """
    if encoding is None:
        return data
    inflater = zlib.decompressobj(wbits=31)
    try:
        content = inflater.decompress(data, limit)
        if not inflater.eof:
            # Exactly `limit` bytes may have come out with only the trailer left to read.
            content += inflater.decompress(inflater.unconsumed_tail, 1)
    except zlib.error as error:
        raise StoreError(f"{what}: the gzip stream is damaged: {error}") from error
    if len(content) > limit:
        raise StoreError(f"{what}: decodes to more than {limit} bytes; refused as a bomb")
    if not inflater.eof:
        raise StoreError(f"{what}: the gzip stream is truncated")
    if inflater.unused_data:
        raise StoreError(f"{what}: {len(inflater.unused_data)} bytes follow the gzip member")
    return content


def content(tile: StoredTile, what: object = "tile") -> bytes:
    """Return the decoded content of a stored tile; see `decode`."""
    return decode(tile.data, tile.encoding, what)
