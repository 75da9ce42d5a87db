"""Keys of tiles: relative POSIX paths that mean the same in an archive, a folder and a URL."""

from __future__ import annotations

from tiling.errors import StoreError

MAX_SEGMENT_NBYTES = 255
MAX_KEY_NBYTES = 4096


def is_key(key: str) -> bool:
    """Say whether a key can be put into every kind of store.

    It must have no empty, ``.`` or ``..`` segment, no backslash, no control character and no lone
    surrogate, and fit the limits of a file system (255 bytes a segment).
    """
    try:
        nbytes = len(key.encode())
    except UnicodeEncodeError:
        return False
    if not 0 < nbytes <= MAX_KEY_NBYTES or "\\" in key or any(ord(c) < 32 for c in key):
        return False
    segments = key.split("/")
    return all(
        segment not in ("", ".", "..") and len(segment.encode()) <= MAX_SEGMENT_NBYTES
        for segment in segments
    )


def check_key(key: str, store: object) -> str:
    """Return `key` when `is_key` holds.

    Raises:
        StoreError: it does not.
    """
    if not is_key(key):
        raise StoreError(
            f"{store}: {key[:200]!r} is no key; keys are relative paths with '/' between names, "
            "without '..', backslashes and control characters"
        )
    return key
