"""Where tiles rest: narrow protocols by verb.

A store is immutable once committed and named by the sha256 of its file. Tiles that compress are
handed over and returned as one gzip member (RFC 1952, mtime 0, no name), so that nothing is
compressed twice between the worker that made a tile and the client that reads it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

Encoding = Literal["gzip"] | None


@dataclass(frozen=True, slots=True)
class StoredTile:
    """The bytes of one tile as they can be sent.

    Attributes:
        data: the body; one gzip member when ``encoding`` is ``"gzip"``.
        media_type: e.g. ``model/gltf-binary``.
        encoding: the Content-Encoding of ``data``.
        etag: strong validator without quotes, from the content.
    """

    data: bytes
    media_type: str
    encoding: Encoding
    etag: str


@dataclass(frozen=True, slots=True)
class StoreInfo:
    """A committed store.

    Attributes:
        path: the file (or folder).
        format: key in ``STORES``, e.g. ``3tz``.
        sha256: hex digest of the file; of the sorted listing for folders.
        nbytes: size on disk.
        tiles: number of entries.
    """

    path: Path
    format: str
    sha256: str
    nbytes: int
    tiles: int


@runtime_checkable
class GetTile(Protocol):
    """Reads one tile."""

    def get(self, key: str) -> StoredTile | None:
        """Return the tile under `key` (a relative path such as ``content/0/0/0.glb``), or None."""
        ...

    def close(self) -> None:
        """Release the file."""
        ...


@runtime_checkable
class ListTiles(Protocol):
    """Lists keys."""

    def keys(self) -> Iterator[str]:
        """Yield every key once."""
        ...


class PutTile(Protocol):
    """Writes a store: staged under a temporary name, visible only after `commit`."""

    def put(self, key: str, data: bytes, encoding: Encoding = None) -> None:
        """Add a tile; a key may be put once."""
        ...

    def commit(self, metadata: Mapping[str, Any] | None = None) -> StoreInfo:
        """Finish, flush to disk and rename into place."""
        ...

    def abort(self) -> None:
        """Drop what was written; calling it after `commit` does nothing."""
        ...


MEDIA_TYPES: Mapping[str, str] = {
    "json": "application/json",
    "glb": "model/gltf-binary",
    "gltf": "model/gltf+json",
    "b3dm": "application/octet-stream",
    "pnts": "application/octet-stream",
    "subtree": "application/octet-stream",
    "terrain": "application/vnd.quantized-mesh",
    "mvt": "application/vnd.mapbox-vector-tile",
    "png": "image/png",
    "jpg": "image/jpeg",
    "webp": "image/webp",
}


def media_type(key: str) -> str:
    """Return the media type for the ending of `key`."""
    return MEDIA_TYPES.get(key.rpartition(".")[2], "application/octet-stream")
