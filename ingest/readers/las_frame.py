"""The frame of a LAS file: WKT or GeoTIFF keys, and the units its heights are measured in.

GeoTIFF keys are read by GDAL, from a TIFF of one pixel that carries them: it knows the keys'
history better than any table here could.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from pathlib import Path

from ingest.readers.las_header import LasHeader
from tiling.errors import CrsMissing
from tiling.findings import Findings
from tiling.point_frames import PointFrame

_PROJECTION = "LASF_Projection"
_WKT, _KEYS, _DOUBLES, _TEXT = 2112, 34735, 34736, 34737


def frame_of(path: Path, header: LasHeader, findings: Findings) -> PointFrame | None:
    """Return the frame that a LAS file states; None when it states none.

    Args:
        path: the file, for messages.
        header: its header.
        findings: receives what was assumed, and what is stated and cannot be used.
    """
    wkt = next((_decoded(raw) for raw in header.find(_PROJECTION, _WKT)), "")
    keys = next(iter(header.find(_PROJECTION, _KEYS)), b"")
    doubles = b"".join(header.find(_PROJECTION, _DOUBLES)[:1])
    text = b"".join(header.find(_PROJECTION, _TEXT)[:1])
    of_keys = _keys_as_wkt(keys, doubles, text) if keys else ""
    # The header says which of them counts; the other is what some program added.
    stated = [wkt, of_keys] if header.wkt else [of_keys, wkt]
    usable = [frame for each in stated if each and (frame := _usable(each, findings)) is not None]
    if len(usable) == 2 and not usable[0].ref.same_horizontal(usable[1].ref):
        findings.add(
            "crs-contradiction",
            "warning",
            f"files state {usable[0].ref.code} and {usable[1].ref.code}; the first is the one that "
            "their header points to, and is used",
            samples=[path.name],
        )
    return usable[0] if usable else None


def _usable(stated: str, findings: Findings) -> PointFrame | None:
    try:
        return PointFrame.parse(stated)
    except CrsMissing as error:
        findings.add("crs-unusable", "warning", f"its frame is not used: {error.problem}")
        return None


def _decoded(raw: bytes) -> str:
    return raw.rstrip(b"\0 ").decode("utf-8", "replace")


@lru_cache(maxsize=256)
def _keys_as_wkt(keys: bytes, doubles: bytes, text: bytes) -> str:
    """Return the WKT of GeoTIFF keys; empty when they define nothing."""
    # Only here: a run that reads no old LAS holds no GDAL in memory.
    from rasterio.errors import RasterioError
    from rasterio.io import MemoryFile

    with MemoryFile(_tiff(_whole(keys, doubles, text), doubles, text)) as file:
        try:
            with file.open() as dataset:
                return str(dataset.crs.to_wkt()) if dataset.crs else ""
        except RasterioError:
            return ""


def _whole(keys: bytes, doubles: bytes, text: bytes) -> bytes:
    """Return the directory without keys whose values are missing: GDAL would take none of them."""
    numbers = struct.unpack(f"<{len(keys) // 2}H", keys[: len(keys) // 2 * 2])
    room = {_DOUBLES: len(doubles) // 8, _TEXT: len(text)}
    # Some programs write more entries than they count.
    count = numbers[3] if len(numbers) >= 4 else 0
    entries = [numbers[at : at + 4] for at in range(4, len(numbers) - 3, 4)][:count]
    kept = [key for key in entries if key[1] not in room or key[2] + key[3] <= room[key[1]]]
    head = (*numbers[:3], len(kept)) if len(numbers) >= 4 else (1, 1, 0, 0)
    return struct.pack(f"<{4 + 4 * len(kept)}H", *head, *(each for key in kept for each in key))


def _tiff(keys: bytes, doubles: bytes, text: bytes) -> bytes:
    """Return a TIFF of one pixel with these keys (TIFF 6.0; GeoTIFF 1.1, section 7.1)."""
    short, long, double, ascii_ = 3, 4, 12, 2
    tags = [
        (256, short, 1, b"\1\0"),
        (257, short, 1, b"\1\0"),
        (258, short, 1, b"\x08\0"),
        (259, short, 1, b"\1\0"),
        (262, short, 1, b"\1\0"),
        (273, long, 1, struct.pack("<I", 8)),
        (277, short, 1, b"\1\0"),
        (278, short, 1, b"\1\0"),
        (279, long, 1, struct.pack("<I", 1)),
        (33550, double, 3, struct.pack("<3d", 1, 1, 0)),
        (33922, double, 6, bytes(48)),
        (_KEYS, short, len(keys) // 2, keys[: len(keys) // 2 * 2]),
    ]
    if len(doubles) >= 8:
        tags.append((_DOUBLES, double, len(doubles) // 8, doubles[: len(doubles) // 8 * 8]))
    if text:
        # Names of systems may be in any encoding, and nothing depends on them.
        plain = bytes(byte if byte < 128 else ord("?") for byte in text)
        tags.append((_TEXT, ascii_, len(plain), plain))
    # Header, the pixel (padded to a word), then the values that do not fit into four bytes.
    at, values, entries = 16, b"", b""
    for tag, kind, count, raw in tags:
        entries += struct.pack("<HHI", tag, kind, count)
        if len(raw) <= 4:
            entries += raw.ljust(4, b"\0")
        else:
            entries += struct.pack("<I", at + len(values))
            values += raw + bytes(len(raw) % 2)
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", at + len(values)) + bytes(8) + values + directory
