"""Zipped sources, unpacked into a scratch folder with checksums verified.

Names inside a ZIP made on Chinese Windows are GBK without a flag that says so; Python reads them
as cp437 and GDAL as what it likes. Unpacking puts the right names on disk once, and reading from a
folder is faster than seeking in a deflated stream.
"""

from __future__ import annotations

import shutil
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from ingest.encoding import decode
from tiling.errors import SourceUnreadable

_VECTOR_ENDINGS = (
    ".shp",
    ".gpkg",
    ".geojson",
    ".geojsonl",
    ".geojsons",
    ".fgb",
    ".gdbtable",
    ".dxf",
)
# These accompany rasters too, as notes and metadata.
_TABLE_ENDINGS = (".json", ".csv")
_RASTER_ENDINGS = (".tif", ".img", ".asc", ".hgt", ".vrt")
_LANGUAGE_FLAG = 0x800
_ENCRYPTED_FLAG = 0x1
_RESERVE_NBYTES = 64 * 1024 * 1024
_BLOCK_NBYTES = 1024 * 1024


def unpack(path: Path, scratch: Path) -> None:
    """Unpack a ZIP into `scratch`, keeping folders.

    Raises:
        SourceUnreadable: corrupt, encrypted, a name that points outside, or larger than the disk.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = [m for m in archive.infolist() if not m.is_dir()]
            _check_room(path, members, scratch)
            for member in members:
                _unpack_member(path, archive, member, scratch)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        # RuntimeError is what zipfile raises for compression methods it does not know (Deflate64).
        raise SourceUnreadable(
            f"the archive is corrupt: {error}", source=path, remedy="copy or download it again"
        ) from error


def _check_room(path: Path, members: list[zipfile.ZipInfo], scratch: Path) -> None:
    needed = sum(m.file_size for m in members)
    free = shutil.disk_usage(scratch).free - _RESERVE_NBYTES
    if needed > free:
        raise SourceUnreadable(
            f"unpacked it claims {needed} bytes, {max(0, free)} are free in {scratch.parent}",
            source=path,
            remedy="free space there, or point TMPDIR elsewhere",
        )


def _unpack_member(
    path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo, scratch: Path
) -> None:
    name = member_name(member)
    if member.flag_bits & _ENCRYPTED_FLAG:
        raise SourceUnreadable(
            f"{name!r} is encrypted", source=path, remedy="unpack it with its password first"
        )
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not parts or ".." in parts or parts[0].endswith((":", "/")):
        raise SourceUnreadable(
            f"the name {name!r} points outside the archive", source=path, remedy="pack it again"
        )
    target = scratch.joinpath(*parts)
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(member) as source, target.open("wb") as sink:
        left = member.file_size
        while block := source.read(_BLOCK_NBYTES):
            left -= len(block)
            if left < 0:
                raise SourceUnreadable(
                    f"{name!r} holds more than the {member.file_size} bytes it claims",
                    source=path,
                    remedy="pack it again",
                )
            sink.write(block)


def member_name(member: zipfile.ZipInfo) -> str:
    """Return a member's name; without the UTF-8 flag it is UTF-8 or GBK, whichever decodes."""
    if member.flag_bits & _LANGUAGE_FLAG:
        return member.filename
    raw = member.filename.encode("cp437")
    for name in ("utf-8", "gb18030"):
        text, whole = decode(raw, name)
        if whole:
            return text
    return member.filename


def is_vector_archive(head: bytes, tail: bytes) -> bool:
    """Say whether a ZIP holds something this project's vector readers know.

    Args:
        head: the first bytes of the file, with local headers.
        tail: the last bytes, with the central directory.
    """
    lowered = (head + tail).lower()

    def holds(endings: tuple[str, ...]) -> bool:
        return any(ending.encode() in lowered for ending in endings)

    return holds(_VECTOR_ENDINGS) or (holds(_TABLE_ENDINGS) and not holds(_RASTER_ENDINGS))
