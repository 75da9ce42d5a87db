"""WMTS 1.0.0 capabilities of rasters, with RESTful tile templates or for key-value requests.

Two conventions decide whether QGIS and GDAL place the tiles rightly. ``TopLeftCorner`` follows the
axis order of the CRS (latitude first for EPSG:4490), and ``ScaleDenominator`` is OGC's, for pixels
of 0.28 mm (OGC 07-057r7 §6.1), not the 96 dpi value that Chinese catalogues print. Each layer
states the rows and columns it reaches, so that clients ask for no others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element, SubElement, register_namespace, tostring

from morecantile import TileMatrixSet
from morecantile.defaults import TileMatrixSets

from cim_server.links import Links
from cim_server.open_rasters import raster_facts
from cim_server.raster_sources import VersionRasters
from tiling.bounds import Region
from tiling.schemes import SCHEMES

_WMTS = "http://www.opengis.net/wmts/1.0"
_OWS = "http://www.opengis.net/ows/1.1"
_XLINK = "http://www.w3.org/1999/xlink"
FORMATS = {"image/png": "png", "image/jpeg": "jpeg", "image/webp": "webp"}


@dataclass(frozen=True, slots=True)
class Layer:
    """One raster asset.

    Attributes:
        asset: id, which names the layer.
        title: for people.
        bounds: lon/lat degrees.
        resolution_deg: degrees of longitude of a pixel.
    """

    asset: str
    title: str
    bounds: Region
    resolution_deg: float

    @classmethod
    def of(cls, asset: str, rasters: VersionRasters) -> Layer:
        """Describe an asset; blocks on GDAL the first time."""
        finest = raster_facts(str(rasters.finest()))
        whole = raster_facts(str(rasters.whole().path))
        width = finest.bounds.east - finest.bounds.west
        return cls(asset, rasters.title, whole.bounds, width / finest.levels[0][0])

    def deepest(self, grid: str) -> int:
        """Return the finest level worth asking for."""
        return SCHEMES[grid].level_for(self.resolution_deg)


def capabilities(
    links: Links, layers: Sequence[Layer], sets: TileMatrixSets, address: str, query: str | None
) -> bytes:
    """Return the capabilities document.

    Args:
        links: makes absolute URLs.
        layers: of the document.
        sets: the grids they are served in.
        address: absolute URL of this document, or of the service for key-value requests.
        query: query string that RESTful tiles keep, without ``?``; None: key-value requests.
    """
    register_namespace("", _WMTS)
    register_namespace("ows", _OWS)
    register_namespace("xlink", _XLINK)
    root = Element(f"{{{_WMTS}}}Capabilities", {"version": "1.0.0"})
    identification = _ows(root, "ServiceIdentification")
    _ows(identification, "Title", layers[0].title if len(layers) == 1 else "cim-server")
    _ows(identification, "ServiceType", "OGC WMTS")
    _ows(identification, "ServiceTypeVersion", "1.0.0")
    if query is None:
        _operations(root, address)
    contents = SubElement(root, f"{{{_WMTS}}}Contents")
    for layer in layers:
        _layer(contents, links, layer, sets, query)
    for name in sets.list():
        deepest = max((layer.deepest(name) for layer in layers), default=0)
        contents.append(_matrix_set(name, sets.get(name), deepest))
    SubElement(root, f"{{{_WMTS}}}ServiceMetadataURL", {f"{{{_XLINK}}}href": address})
    return bytes(tostring(root, encoding="utf-8", xml_declaration=True))


def exception(code: str, locator: str, text: str) -> bytes:
    """Return an OWS exception report (OGC 06-121r3 §8)."""
    register_namespace("", _OWS)
    root = Element(f"{{{_OWS}}}ExceptionReport", {"version": "1.1.0", "xml:lang": "en"})
    named = {"exceptionCode": code, **({"locator": locator} if locator else {})}
    found = SubElement(root, f"{{{_OWS}}}Exception", named)
    _ows(found, "ExceptionText", text)
    return bytes(tostring(root, encoding="utf-8", xml_declaration=True))


def _operations(root: Element, address: str) -> None:
    operations = _ows(root, "OperationsMetadata")
    for name in ("GetCapabilities", "GetTile"):
        operation = SubElement(operations, f"{{{_OWS}}}Operation", {"name": name})
        http = _ows(_ows(operation, "DCP"), "HTTP")
        get = SubElement(http, f"{{{_OWS}}}Get", {f"{{{_XLINK}}}href": f"{address}?"})
        constraint = SubElement(get, f"{{{_OWS}}}Constraint", {"name": "GetEncoding"})
        _ows(_ows(constraint, "AllowedValues"), "Value", "KVP")


def _layer(
    contents: Element, links: Links, described: Layer, sets: TileMatrixSets, query: str | None
) -> None:
    layer = SubElement(contents, f"{{{_WMTS}}}Layer")
    _ows(layer, "Title", described.title)
    bounds = described.bounds
    box = _ows(layer, "WGS84BoundingBox")
    _ows(box, "LowerCorner", f"{bounds.west} {bounds.south}")
    _ows(box, "UpperCorner", f"{bounds.east} {bounds.north}")
    _ows(layer, "Identifier", described.asset)
    style = _wmts(layer, "Style", isDefault="true")
    _ows(style, "Identifier", "default")
    for media_type in FORMATS:
        _wmts(layer, "Format", media_type)
    for name in sets.list():
        link = _wmts(layer, "TileMatrixSetLink")
        _wmts(link, "TileMatrixSet", name)
        limits = _wmts(link, "TileMatrixSetLimits")
        for level in range(described.deepest(name) + 1):
            reach = SCHEMES[name].tile_range(bounds, level)
            row = _wmts(limits, "TileMatrixLimits")
            _wmts(row, "TileMatrix", str(level))
            for tag, number in (
                ("MinTileRow", reach.min_y),
                ("MaxTileRow", reach.max_y),
                ("MinTileCol", reach.min_x),
                ("MaxTileCol", reach.max_x),
            ):
                _wmts(row, tag, str(number))
    if query is None:
        return
    for media_type, ending in FORMATS.items():
        fields = {"tms": "{TileMatrixSet}", "z": "{TileMatrix}", "x": "{TileCol}"}
        address = links(
            "raster-wmts-tiles", asset=described.asset, y="{TileRow}", ending=ending, **fields
        )
        template = f"{address}?{query}" if query else address
        attributes = {"format": media_type, "resourceType": "tile", "template": template}
        SubElement(layer, f"{{{_WMTS}}}ResourceURL", attributes)


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
