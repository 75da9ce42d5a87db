"""An image as GDAL's COG driver should see it: the text of a VRT, nothing copied.

Only what belongs into the result passes: the bands that are kept, under colours that were decided,
one mask or one nodata value, and the place. Tags, thumbnails and layouts of the source do not, so
the same pixels give the same file however they were stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from xml.etree import ElementTree as ET

from rasterio.enums import ColorInterp
from rasterio.io import DatasetReader

from tiling.tilers.cog import BLOCK
from tiling.tilers.image_look import Look

GDAL_TYPES: Mapping[str, str] = MappingProxyType(
    {
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
)


def image_vrt(
    source: DatasetReader,
    dataset: str | Path,
    look: Look,
    *,
    mask: Path | None,
    keep_alpha: bool,
    nodata: float | None,
) -> str:
    """Return the text of a VRT over an image.

    Args:
        source: the open image.
        dataset: its name, or the text of a VRT, as GDAL opens it again.
        look: how it is understood.
        mask: file of one band that says where there is a picture; None: the source's own mask, if
            `Look.has_mask`.
        keep_alpha: keep the alpha band as a band, without any mask.
        nodata: value to declare; None when there is a mask.
    """
    width, height = source.width, source.height
    root = ET.Element("VRTDataset", rasterXSize=str(width), rasterYSize=str(height))
    ET.SubElement(root, "SRS", dataAxisToSRSAxisMapping="1,2").text = source.crs.to_wkt()
    a, b, c, d, e, f = tuple(source.transform)[:6]
    ET.SubElement(root, "GeoTransform").text = ", ".join(repr(v) for v in (c, a, b, f, d, e))
    bands = list(zip(look.bands, look.colorinterp, strict=True))
    if keep_alpha and look.alpha is not None:
        bands.append((look.alpha, ColorInterp.alpha))
    rows, columns = source.block_shapes[0]
    properties = {
        "RasterXSize": str(width),
        "RasterYSize": str(height),
        "DataType": GDAL_TYPES[look.dtype],
        "BlockXSize": str(columns),
        "BlockYSize": str(rows),
    }
    # Whole blocks of the result; the default of a VRT is 128.
    block = {"blockXSize": str(BLOCK), "blockYSize": str(BLOCK)}
    window = {"xOff": "0", "yOff": "0", "xSize": str(width), "ySize": str(height)}

    def add_source(parent: ET.Element, name: str | Path, band: str) -> None:
        simple = ET.SubElement(parent, "SimpleSource")
        ET.SubElement(simple, "SourceFilename", relativeToVRT="0", shared="0").text = str(name)
        ET.SubElement(simple, "SourceBand").text = band
        if name is dataset and not band.startswith("mask"):
            ET.SubElement(simple, "SourceProperties", properties)
        ET.SubElement(simple, "SrcRect", window)
        ET.SubElement(simple, "DstRect", window)

    for position, (index, color) in enumerate(bands, 1):
        band = ET.SubElement(
            root, "VRTRasterBand", block, dataType=GDAL_TYPES[look.dtype], band=str(position)
        )
        facts = {"ColorInterp": color.name.capitalize()}
        if nodata is not None:
            facts["NoDataValue"] = repr(nodata)
        if (source.scales[index - 1], source.offsets[index - 1]) != (1.0, 0.0):
            facts["Offset"] = repr(source.offsets[index - 1])
            facts["Scale"] = repr(source.scales[index - 1])
        for tag, text in facts.items():
            ET.SubElement(band, tag).text = text
        if look.palette:
            table, entries = ET.SubElement(band, "ColorTable"), source.colormap(1)
            for value in sorted(entries):
                components = zip(("c1", "c2", "c3", "c4"), entries[value], strict=True)
                ET.SubElement(table, "Entry", {name: str(part) for name, part in components})
        add_source(band, dataset, str(index))
    if not keep_alpha and (mask is not None or look.has_mask):
        band = ET.SubElement(
            ET.SubElement(root, "MaskBand"), "VRTRasterBand", block, dataType="Byte"
        )
        if mask is not None:
            add_source(band, mask, "1")
        else:
            add_source(band, dataset, f"mask,{look.bands[0]}")
    return ET.tostring(root, encoding="unicode")
