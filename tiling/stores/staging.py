"""Staging: a store is written beside its place and renamed into it when it is complete.

Placing is idempotent and never overwrites: when the place is taken by the same content, as after a
kill between the rename and the publication, the staged copy is dropped; other content is refused.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tiling.errors import StoreError


def staged(path: Path) -> Path:
    """Return where the store that will be `path` is written."""
    return path.with_name(path.name + ".part")


def place(part: Path, path: Path, digest: str, digest_of: Callable[[Path], str]) -> bool:
    """Rename `part` to `path`, durably.

    Args:
        part: what was written and flushed.
        path: where it shall rest, in the same folder.
        digest: of what was written.
        digest_of: computes the same of what is found at `path`.

    Returns:
        True when it was renamed, False when the same content rests there already; the caller
        removes `part` then.

    Raises:
        StoreError: something else rests there.
    """
    if path.exists():
        if digest_of(path) != digest:
            raise StoreError(
                f"{path}: exists with other content, and a store never changes; "
                "choose another name or remove it"
            )
        return False
    os.rename(part, path)
    sync_folder(path.parent)
    return True


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_sha256(path: Path) -> str:
    """Return the hex sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Turn an error of the operating system into one that names the store."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{path}: {error.strerror or error}; nothing was published. "
            "Check the space, the quota and the permissions of its folder, then run again"
        ) from error
