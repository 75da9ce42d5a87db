"""Responses of the tile path: one complete body, caching headers, conditional requests.

Stored tiles are gzip members already: they are sent as they are to whoever accepts gzip, and
inflated (within a bound) for whoever does not. Nothing is compressed while serving.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import orjson
from starlette.datastructures import Headers
from starlette.responses import Response

from tiling.errors import StoreError
from tiling.stores.base import StoredTile

IMMUTABLE = "public, max-age=31536000, immutable"
REVALIDATE = "public, no-cache"
MAX_INFLATED_NBYTES = 256 << 20
_GZIP_WBITS = 31


@lru_cache(maxsize=1024)
def accepts_gzip(accept_encoding: str | None) -> bool:
    """Say whether an ``Accept-Encoding`` value allows gzip (RFC 9110 §12.5.3).

    Without the header we send identity: the field allows anything then, but plain scripts that
    do not send it cannot inflate either.
    """
    if not accept_encoding:
        return False
    accepted: dict[str, bool] = {}
    for part in accept_encoding.split(","):
        coding, _, params = part.partition(";")
        name, _, weight = params.partition("=")
        zero = name.strip().lower() == "q" and weight.strip().rstrip("0") in ("", ".", "0.")
        accepted[coding.strip().lower()] = not zero
    for coding in ("gzip", "x-gzip", "*"):
        if coding in accepted:
            return accepted[coding]
    return False


def matches(if_none_match: str | None, etag: str) -> bool:
    """Say whether ``If-None-Match`` names `etag` (weak comparison, RFC 9110 §13.1.2)."""
    if not if_none_match:
        return False
    if if_none_match.strip() == "*":
        return True
    return any(part.strip().removeprefix("W/") == etag for part in if_none_match.split(","))


def inflate(data: bytes, limit: int = MAX_INFLATED_NBYTES) -> bytes:
    """Return the content of one gzip member.

    Raises:
        StoreError: it is damaged, or larger than `limit` bytes.
    """
    stream = zlib.decompressobj(_GZIP_WBITS)
    try:
        body = stream.decompress(data, limit)
    except zlib.error as error:
        raise StoreError(f"a stored tile is not a gzip member: {error}") from error
    if not stream.eof:
        why = "inflates to more than" if stream.unconsumed_tail else "is cut short; limit"
        raise StoreError(f"a stored tile {why} {limit} bytes")
    return body


def tile_response(tile: StoredTile, headers: Headers, cache_control: str) -> Response:
    """Answer a tile request with the stored bytes, or 304.

    Args:
        tile: what the store returned.
        headers: of the request.
        cache_control: `IMMUTABLE` or `REVALIDATE`.
    """
    data, etag = tile.data, f'"{tile.etag}"'
    sent = {"Cache-Control": cache_control}
    if tile.encoding is not None:
        sent["Vary"] = "Accept-Encoding"
        if accepts_gzip(headers.get("accept-encoding")):
            # A strong validator names one sequence of bytes, so each encoding has its own.
            etag = f'"{tile.etag}-gzip"'
            sent["Content-Encoding"] = "gzip"
        else:
            data = b""
    sent["ETag"] = etag
    if matches(headers.get("if-none-match"), etag):
        sent.pop("Content-Encoding", None)
        return Response(status_code=304, headers=sent)
    return Response(data or inflate(tile.data), media_type=tile.media_type, headers=sent)


def json_response(
    content: Any,
    headers: Headers,
    *,
    cache_control: str = REVALIDATE,
    media_type: str = "application/json",
    status: int = 200,
    extra: Mapping[str, str] | None = None,
) -> Response:
    """Answer with JSON under an ETag made from the bytes, or 304.

    Args:
        content: anything orjson can write.
        headers: of the request.
        cache_control: e.g. `REVALIDATE`.
        media_type: Content-Type.
        status: HTTP status.
        extra: further response headers.
    """
    body = orjson.dumps(content)
    return bytes_response(body, headers, media_type, cache_control, status=status, extra=extra)


def bytes_response(
    body: bytes,
    headers: Headers,
    media_type: str,
    cache_control: str = REVALIDATE,
    *,
    status: int = 200,
    extra: Mapping[str, str] | None = None,
) -> Response:
    """Answer with bytes under an ETag made from them, or 304."""
    etag = f'"{blake2b(body, digest_size=12).hexdigest()}"'
    sent = {"ETag": etag, "Cache-Control": cache_control, **(extra or {})}
    if status == 200 and matches(headers.get("if-none-match"), etag):
        return Response(status_code=304, headers=sent)
    return Response(body, status_code=status, media_type=media_type, headers=sent)


def plain_json(content: Any, status: int = 200, media_type: str = "application/json") -> Response:
    """Answer with JSON that nobody may keep."""
    return Response(
        orjson.dumps(content),
        status_code=status,
        media_type=media_type,
        headers={"Cache-Control": "no-store"},
    )
