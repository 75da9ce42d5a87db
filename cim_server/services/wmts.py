"""WMTS 1.0.0 capabilities of one raster, with RESTful tile templates.

Two conventions decide whether QGIS and GDAL place the tiles rightly. ``TopLeftCorner`` follows the
axis order of the CRS (latitude first for EPSG:4490), and ``ScaleDenominator`` is OGC's, for pixels
of 0.28 mm (OGC 07-057r7 §6.1), not the 96 dpi value that Chinese catalogues print.
"""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree.ElementTree import Element, SubElement, register_namespace, tostring

from morecantile import TileMatrixSet
from morecantile.defaults import TileMatrixSets

from cim_server.links import Links
from cim_server.services.rasters import CatalogueReader, RasterSource

_WMTS = "http://www.opengis.net/wmts/1.0"
_OWS = "http://www.opengis.net/ows/1.1"
_XLINK = "http://www.w3.org/1999/xlink"
_FORMATS = {"image/png": "png", "image/jpeg": "jpeg", "image/webp": "webp"}


def capabilities(
    links: Links, asset: str, title: str, source: RasterSource, sets: TileMatrixSets, query: str
) -> bytes:
    """Return the capabilities document; blocks on GDAL.

    Args:
        links: makes absolute URLs.
        asset: id, which names the layer.
        title: of the layer.
        source: the raster.
        sets: the grids it is served in.
        query: query string that the tiles keep, without ``?``.
    """
    register_namespace("", _WMTS)
    register_namespace("ows", _OWS)
    register_namespace("xlink", _XLINK)
    root = Element(f"{{{_WMTS}}}Capabilities", {"version": "1.0.0"})
    identification = _ows(root, "ServiceIdentification")
    _ows(identification, "Title", title)
    _ows(identification, "ServiceType", "OGC WMTS")
    _ows(identification, "ServiceTypeVersion", "1.0.0")
    contents = SubElement(root, f"{{{_WMTS}}}Contents")
    layer = SubElement(contents, f"{{{_WMTS}}}Layer")
    _ows(layer, "Title", title)
    with CatalogueReader(str(source.path)) as reader:
        west, south, east, north = reader.get_geographic_bounds("EPSG:4326")
    box = _ows(layer, "WGS84BoundingBox")
    _ows(box, "LowerCorner", f"{west} {south}")
    _ows(box, "UpperCorner", f"{east} {north}")
    _ows(layer, "Identifier", asset)
    style = _wmts(layer, "Style", isDefault="true")
    _ows(style, "Identifier", "default")
    for media_type in _FORMATS:
        _wmts(layer, "Format", media_type)
    for name in sets.list():
        tms = sets.get(name)
        with CatalogueReader(str(source.path), tms=tms) as reader:
            deepest = int(reader.maxzoom)
        _wmts(_wmts(layer, "TileMatrixSetLink"), "TileMatrixSet", name)
        contents.append(_matrix_set(name, tms, deepest))
    for media_type, ending in _FORMATS.items():
        fields = {"tms": "{TileMatrixSet}", "z": "{TileMatrix}", "x": "{TileCol}"}
        address = links("raster-wmts-tiles", asset=asset, y="{TileRow}", ending=ending, **fields)
        template = f"{address}?{query}" if query else address
        attributes = {"format": media_type, "resourceType": "tile", "template": template}
        SubElement(layer, f"{{{_WMTS}}}ResourceURL", attributes)
    href = links("raster-wmts", asset=asset)
    SubElement(root, f"{{{_WMTS}}}ServiceMetadataURL", {f"{{{_XLINK}}}href": href})
    return bytes(tostring(root, encoding="utf-8", xml_declaration=True))


def _matrix_set(name: str, tms: TileMatrixSet, deepest: int) -> Element:
    element = Element(f"{{{_WMTS}}}TileMatrixSet")
    _ows(element, "Identifier", name)
    epsg = tms.crs.to_epsg()
    _ows(element, "SupportedCRS", f"urn:ogc:def:crs:EPSG::{epsg}")
    for identifier, lines in _matrices(tms, deepest):
        matrix = _wmts(element, "TileMatrix")
        _ows(matrix, "Identifier", identifier)
        for tag, text in lines:
            _wmts(matrix, tag, text)
    return element


def _matrices(tms: TileMatrixSet, deepest: int) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    for matrix in tms.tileMatrices[: deepest + 1]:
        x, y = matrix.pointOfOrigin
        yield (
            matrix.id,
            [
                ("ScaleDenominator", repr(float(matrix.scaleDenominator))),
                ("TopLeftCorner", f"{x} {y}"),
                ("TileWidth", str(matrix.tileWidth)),
                ("TileHeight", str(matrix.tileHeight)),
                ("MatrixWidth", str(matrix.matrixWidth)),
                ("MatrixHeight", str(matrix.matrixHeight)),
            ],
        )


def _ows(parent: Element, tag: str, text: str | None = None) -> Element:
    element = SubElement(parent, f"{{{_OWS}}}{tag}")
    # XML 1.0 has no way to write control characters, which a title may hold.
    element.text = text and "".join(c for c in text if c.isprintable())
    return element


def _wmts(parent: Element, tag: str, text: str | None = None, **attributes: str) -> Element:
    element = SubElement(parent, f"{{{_WMTS}}}{tag}", attributes)
    element.text = text
    return element
