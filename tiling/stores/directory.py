"""A folder of tiles, decoded: what any web server, QGIS and a person with a file manager can read.

The law *archive = directory*: the same keys give the same content, only that a folder holds it
uncompressed. Written under ``<path>.part`` and renamed. Its sha256 is that of the sorted listing
``<sha256 of the file>  <bytes>  <key>``, one line a file.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tiling.errors import StoreError
from tiling.stores import gzip_member, staging
from tiling.stores.base import Encoding, StoredTile, StoreInfo, media_type
from tiling.stores.keys import check_key, is_key
from tiling.stores.zip3tz import METADATA_KEY, metadata_json


class DirectoryWriter:
    """Writes a folder of decoded tiles; see `PutTile`.

    Args:
        path: where the folder shall rest; it is written to ``<path>.part`` beside it, and what an
            interrupted run left there is dropped.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._part = staging.staged(self.path)
        self._listing: dict[str, tuple[str, int]] = {}
        with staging.told(self.path):
            if self._part.exists():
                shutil.rmtree(self._part)
            self._part.mkdir(parents=True)
        self._open = True

    def put(self, key: str, data: bytes, encoding: Encoding = None) -> None:
        """Add a tile, decoded.

        Raises:
            StoreError: the key is hostile, was put before or is also a folder, the data is not
                what `encoding` says, the disk is full, or the writer is closed.
        """
        self._check_open()
        check_key(key, self.path)
        if key in self._listing:
            raise StoreError(f"{self.path}: {key} was put twice")
        content = gzip_member.decode(data, encoding, f"{self.path}: {key}")
        gzip_member.check_plain(key, content, f"{self.path}: {key}")
        target = self._part / key
        with staging.told(self.path):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        self._listing[key] = (hashlib.sha256(content).hexdigest(), len(content))

    def commit(self, metadata: Mapping[str, Any] | None = None) -> StoreInfo:
        """Flush to disk and rename into place.

        Args:
            metadata: JSON that is kept as the file ``metadata.json``.

        Raises:
            StoreError: the disk is full, or another store rests at the path already.
        """
        self._check_open()
        if metadata:
            self.put(METADATA_KEY, metadata_json(metadata))
        digest = _listing_sha256(self._listing)
        with staging.told(self.path):
            # One flush of everything; a million single ones would take hours.
            os.sync()
            self._open = False
            if not staging.place(self._part, self.path, digest, directory_sha256):
                shutil.rmtree(self._part)
        nbytes = sum(size for _, size in self._listing.values())
        return StoreInfo(self.path, "directory", digest, nbytes, len(self._listing))

    def abort(self) -> None:
        """Drop what was written; calling it after `commit` does nothing."""
        if self._open:
            self._open = False
            shutil.rmtree(self._part)

    def _check_open(self) -> None:
        if not self._open:
            raise StoreError(f"{self.path}: the writer is closed")


class DirectoryReader:
    """Reads a folder of tiles, ours or foreign; safe to share between threads.

    Files that were compressed for a server (foreign terrain and tilesets) come out as gzip.
    Symbolic links that leave the folder do not exist for it.

    Args:
        path: the folder.

    Raises:
        StoreError: there is no such folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        if not self.path.is_dir():
            raise StoreError(f"{self.path}: there is no such folder")
        self._root = os.path.realpath(self.path)
        self._open = True

    def get(self, key: str) -> StoredTile | None:
        """Return the tile under `key`, or None.

        Raises:
            StoreError: the file cannot be read, or the reader is closed.
        """
        self._check_open()
        if not is_key(key):
            return None
        file = os.path.realpath(os.path.join(self._root, key))
        if not file.startswith(self._root + os.sep):
            return None
        try:
            data = Path(file).read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        except OSError as error:
            raise StoreError(f"{self.path}: {key}: {error.strerror}") from error
        # ctb-tile and others write folders of tiles compressed for a server that says so.
        packed = gzip_member.is_packed(key, data)
        etag = hashlib.sha256(data).hexdigest()[:32]
        return StoredTile(data, media_type(key), "gzip" if packed else None, etag)

    def keys(self) -> Iterator[str]:
        """Yield every key once, sorted within each folder.

        Raises:
            StoreError: a file name that is not UTF-8.
        """
        self._check_open()
        for folder, subfolders, names in os.walk(self._root):
            subfolders.sort()
            for name in sorted(names):
                file = os.path.join(folder, name)
                key = os.path.relpath(file, self._root).replace(os.sep, "/")
                if os.path.realpath(file).startswith(self._root + os.sep):
                    yield check_key(key, self.path)

    def close(self) -> None:
        """Release nothing but the right to read."""
        self._open = False

    def _check_open(self) -> None:
        if not self._open:
            raise StoreError(f"{self.path}: the reader is closed")


def directory_sha256(path: Path) -> str:
    """Return the digest of a folder's sorted listing, as `StoreInfo.sha256` has it."""
    listing = {}
    for key in DirectoryReader(path).keys():
        file = path / key
        listing[key] = (staging.file_sha256(file), file.stat().st_size)
    return _listing_sha256(listing)


def _listing_sha256(listing: Mapping[str, tuple[str, int]]) -> str:
    digest = hashlib.sha256()
    for key in sorted(listing):
        sha256, nbytes = listing[key]
        digest.update(f"{sha256}  {nbytes}  {key}\n".encode())
    return digest.hexdigest()
