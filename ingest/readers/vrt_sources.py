"""What a raster may lead GDAL to open: files beside it, never the network or the rest of the disk.

A VRT names other files, and so do sidecars (external overviews and masks). GDAL follows such names
wherever they lead: to URLs (``/vsicurl/``, ``/vsis3/``), to any file of the machine, or to a small
text file that is a web service to some driver. Everything is checked by reading the names as text,
before GDAL sees any of them.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

from tiling.errors import RasterUnsupported, SourceUnreadable

_MAX_VRT_NBYTES = 64 * 1024**2
_MAX_DEPTH = 8
_VRT = b"<VRTDataset"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# What a source of a VRT may be: formats that are one local file.
_SOURCES = (*_TIFF, b"EHFA_HEADER_TAG", b"\x89PNG\r\n", b"\xff\xd8\xff", b"ncols", b"NCOLS")
_SIDECARS = (".ovr", ".OVR", ".msk", ".MSK")
_FILE_TAGS = ("SourceFilename", "SourceDataset")
_HGT = ".hgt"
_BESIDE = ":::BASE:::"


def is_vrt(path: Path) -> bool:
    """Say whether a file is a VRT by its content."""
    return _head(path).lstrip().startswith(_VRT)


def check_vrt(path: Path, folder: Path | None = None, depth: int = 0) -> None:
    """Refuse a VRT that leads anywhere but to raster files in its own folder or below.

    Args:
        path: the VRT.
        folder: the folder that nothing may leave, the VRT's own by default.
        depth: how many VRTs led here.

    Raises:
        RasterUnsupported: it names a URL, a file elsewhere, code, or is of a kind that hides names.
        SourceUnreadable: it is no XML, or names a file that is not there.
    """
    root_folder = (folder or path.parent).resolve()
    if path.stat().st_size > _MAX_VRT_NBYTES or depth > _MAX_DEPTH:
        raise RasterUnsupported(
            f"a VRT of {path.stat().st_size:,} bytes, {depth} VRTs deep",
            source=path,
            remedy=f"name its sheets directly; up to {_MAX_VRT_NBYTES:,} bytes and {_MAX_DEPTH} "
            "levels are read",
        )
    try:
        root = ET.fromstring(path.read_bytes())
    except ET.ParseError as error:
        raise SourceUnreadable(
            f"the VRT is no XML: {error}", source=path, remedy="make it again with gdalbuildvrt"
        ) from error
    for element in root.iter():
        _refuse_code(path, element)
    for element in root.iter():
        if element.tag in _FILE_TAGS:
            _check_source(path, root_folder, element, depth)


def check_sidecars(path: Path) -> None:
    """Refuse external overviews and masks that are something else than TIFF or HFA.

    Raises:
        RasterUnsupported: GDAL would open it with whatever driver recognises it.
    """
    for ending in _SIDECARS:
        beside = path.with_name(path.name + ending)
        if beside.exists() and not _head(beside).startswith((*_TIFF, b"EHFA_HEADER_TAG")):
            raise RasterUnsupported(
                f"the file of overviews or masks beside it, {beside.name}, is no TIFF",
                source=path,
                remedy="remove it, or make it again with gdaladdo -ro",
            )


def check_overview_name(path: Path, name: str | None) -> None:
    """Refuse overviews that metadata of a raster place outside its folder.

    Raises:
        RasterUnsupported: they lie elsewhere.
    """
    if name is None:
        return
    inside = path.parent / name.removeprefix(_BESIDE)
    if not (inside.is_file() and inside.resolve().is_relative_to(path.parent.resolve())):
        raise RasterUnsupported(
            f"its metadata say that overviews lie in {name!r}, outside its folder",
            source=path,
            remedy="remove OVERVIEW_FILE from its .aux.xml, or make overviews with gdaladdo",
        )


def _refuse_code(path: Path, element: ET.Element) -> None:
    kind = element.get("subClass")
    if element.tag == "VRTDataset" and kind is not None:
        raise RasterUnsupported(
            f"a VRT of the kind {kind}, which computes pixels",
            source=path,
            remedy="write it out: gdal_translate IN.vrt OUT.tif",
        )
    if element.tag.startswith("PixelFunction"):
        raise RasterUnsupported(
            f"a VRT with a function of pixels ({(element.text or '').strip()[:40]!r})",
            source=path,
            remedy="write it out: gdal_translate IN.vrt OUT.tif",
        )


def _check_source(path: Path, folder: Path, element: ET.Element, depth: int) -> None:
    name = (element.text or "").strip()
    relative = element.get("relativeToVRT", element.get("relativetoVRT", "0")) == "1"
    named = path.parent / name if relative else Path(name)
    if name.startswith(("<", "/vsi")) or "://" in name or not named.is_absolute() and not relative:
        raise _elsewhere(path, name)
    resolved = named.resolve()
    if not resolved.is_relative_to(folder):
        raise _elsewhere(path, name)
    if not resolved.is_file():
        raise SourceUnreadable(
            f"the VRT names the file {name!r}, which is not there",
            source=path,
            remedy="put its sheets where it expects them, or make it again with gdalbuildvrt",
        )
    if is_vrt(resolved):
        check_vrt(resolved, folder, depth + 1)
        return
    head = _head(resolved)
    if not head.lstrip().startswith(_SOURCES) and resolved.suffix.lower() != _HGT:
        raise RasterUnsupported(
            f"the VRT names {name!r}, which begins with {head[:12]!r}: no raster file",
            source=path,
            remedy="a VRT may be made of GeoTIFF, IMG, HGT, ASC, PNG and JPEG files",
        )
    check_sidecars(resolved)


def _elsewhere(path: Path, name: str) -> RasterUnsupported:
    return RasterUnsupported(
        f"the VRT names {name!r}, which is not a file in its own folder or below",
        source=path,
        remedy="copy the sheets beside the VRT and name them relative to it (relativeToVRT=1); "
        "nothing is opened elsewhere or from the network",
    )


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(64)
