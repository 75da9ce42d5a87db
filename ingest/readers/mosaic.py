"""A mosaic of sheets as one GDAL dataset, without writing anything: the text of a VRT.

The first sheet wins where sheets overlap, so it is listed last: GDAL paints in order. Sheets off
the first one's pixel grid are resampled bilinearly.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree as ET

from ingest.readers.sheets import Sheet
from tiling.errors import RasterUnsupported

_GDAL_TYPES = {
    "uint8": "Byte",
    "int8": "Int8",
    "uint16": "UInt16",
    "int16": "Int16",
    "uint32": "UInt32",
    "int32": "Int32",
    "uint64": "UInt64",
    "int64": "Int64",
    "float32": "Float32",
    "float64": "Float64",
}
# The mosaic covers all sheets; a city's worth of stray sheets must not claim half the globe.
_MAX_PIXELS = 2**31 - 1


def mosaic_vrt(sheets: Sequence[Sheet], srs: str) -> str:
    """Return the text of a VRT over sheets, which GDAL opens like a file name.

    Args:
        sheets: one or more with equal bands and types, in order of priority.
        srs: WKT or code of the frame that they share.

    Raises:
        RasterUnsupported: bands or types differ, or the sheets lie too far apart.
    """
    first = sheets[0]
    for sheet in sheets[1:]:
        if (sheet.dtypes, sheet.colorinterp) != (first.dtypes, first.colorinterp):
            raise RasterUnsupported(
                f"{sheet.bands} bands of {sheet.dtype} ({', '.join(sheet.colorinterp)}) cannot be "
                f"joined with {first.bands} of {first.dtype} ({', '.join(first.colorinterp)})",
                source=sheet.name,
                remedy="give sheets of one kind, or ingest them as assets of their own",
            )
    a, _, _, _, e, _ = first.transform
    boxes = [sheet.bounds for sheet in sheets]
    west, south = min(b[0] for b in boxes), min(b[1] for b in boxes)
    east, north = max(b[2] for b in boxes), max(b[3] for b in boxes)
    left, top = (west if a > 0 else east), (north if e < 0 else south)
    width, height = round((east - west) / abs(a)), round((north - south) / abs(e))
    if max(width, height) > _MAX_PIXELS:
        raise RasterUnsupported(
            f"the sheets lie too far apart: their mosaic would have {width} x {height} pixels",
            source=first.name,
            remedy="ingest sheets of distant places as assets of their own",
        )
    root = ET.Element("VRTDataset", rasterXSize=str(width), rasterYSize=str(height))
    ET.SubElement(root, "SRS", dataAxisToSRSAxisMapping="1,2").text = srs
    ET.SubElement(root, "GeoTransform").text = f"{left!r}, {a!r}, 0.0, {top!r}, 0.0, {e!r}"
    for band in range(1, first.bands + 1):
        _band(root, sheets, band, left, top)
    if first.masked and first.nodata is None and "alpha" not in first.colorinterp:
        mask = ET.SubElement(root, "MaskBand")
        target = ET.SubElement(mask, "VRTRasterBand", dataType="Byte")
        for sheet in reversed(sheets):
            _source(target, "SimpleSource", sheet, "mask,1", (left, top), first)
    return ET.tostring(root, encoding="unicode")


def _band(root: ET.Element, sheets: Sequence[Sheet], band: int, left: float, top: float) -> None:
    first = sheets[0]
    element = ET.SubElement(
        root, "VRTRasterBand", dataType=_GDAL_TYPES[first.dtypes[band - 1]], band=str(band)
    )
    facts = {"ColorInterp": first.colorinterp[band - 1].capitalize()}
    if first.nodata is not None:
        facts["NoDataValue"] = repr(first.nodata)
    if band == 1:
        facts |= {"Offset": repr(first.offset), "Scale": repr(first.scale), "UnitType": first.unit}
    for tag, text in facts.items():
        ET.SubElement(element, tag).text = text
    if first.colormap:
        table = ET.SubElement(element, "ColorTable")
        for red, green, blue, alpha in first.colormap:
            ET.SubElement(table, "Entry", c1=str(red), c2=str(green), c3=str(blue), c4=str(alpha))
    for sheet in reversed(sheets):
        source = _source(element, "ComplexSource", sheet, str(band), (left, top), first)
        if sheet.nodata is not None:
            ET.SubElement(source, "NODATA").text = repr(sheet.nodata)
        elif sheet.masked:
            ET.SubElement(source, "UseMaskBand").text = "true"


def _source(
    parent: ET.Element,
    kind: str,
    sheet: Sheet,
    band: str,
    origin: tuple[float, float],
    first: Sheet,
) -> ET.Element:
    a, _, c, _, e, f = sheet.transform
    source = ET.SubElement(parent, kind)
    if (a, e) != (first.transform[0], first.transform[4]):
        source.set("resampling", "bilinear")
    ET.SubElement(source, "SourceFilename", relativeToVRT="0", shared="0").text = sheet.name
    ET.SubElement(source, "SourceBand").text = band
    rows, columns = sheet.block
    ET.SubElement(
        source,
        "SourceProperties",
        RasterXSize=str(sheet.width),
        RasterYSize=str(sheet.height),
        DataType=_GDAL_TYPES[sheet.dtype],
        BlockXSize=str(columns),
        BlockYSize=str(rows),
    )
    size = {"xSize": str(sheet.width), "ySize": str(sheet.height)}
    ET.SubElement(source, "SrcRect", {"xOff": "0", "yOff": "0", **size})
    step_x, step_y = first.transform[0], first.transform[4]
    x, y = (c - origin[0]) / step_x, (f - origin[1]) / step_y
    width, height = sheet.width * a / step_x, sheet.height * e / step_y
    numbers = (x, y, width, height)
    whole = [round(v) if abs(v - round(v)) < 0.01 else v for v in numbers]
    names = ("xOff", "yOff", "xSize", "ySize")
    ET.SubElement(source, "DstRect", {k: repr(v) for k, v in zip(names, whole, strict=True)})
    return source
