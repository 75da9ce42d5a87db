"""Records as STAC 1.1.0 JSON, given a function that knows the server's addresses.

The function ``link(name, **params)`` returns an absolute URL. Names and parameters:

    stac-root, portal (item)                          the landing page, the page that shows an asset
    stac-collection (collection), stac-item (collection, item)
    tileset, layer-json, tilejson, raster-tilejson, pmtiles, copc (asset, version)
    vector-tiles, raster-tiles (asset, version, z, x, y)     with "{z}" and so on to fill in
    terrain (asset, version), terrain-tilejson (asset, version, product, grid)

Files that rest on disk without an address of their own are named by their content: an RFC 6920
``ni:`` URI, beside ``file:checksum`` (a multihash) and ``file:size``, so that a receiver can tell
which of them it has.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from catalog.records import Collection, Item, StoreRef, Version, data_interval
from catalog.search import Extent
from tiling.bounds import Region

STAC_VERSION = "1.1.0"
FILE_EXTENSION = "https://stac-extensions.github.io/file/v2.1.0/schema.json"
PROJECTION_EXTENSION = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"
VERSION_EXTENSION = "https://stac-extensions.github.io/version/v1.2.0/schema.json"
WEB_MAP_LINKS_EXTENSION = "https://stac-extensions.github.io/web-map-links/v1.2.0/schema.json"

JSON, GEOJSON, HTML = "application/json", "application/geo+json", "text/html"
PMTILES, MVT, PNG = "application/vnd.pmtiles", "application/vnd.mapbox-vector-tile", "image/png"

Link = Callable[..., str]

# How the version was made, for the next update of it: paths of this machine are no one else's.
_OWN_INFO = frozenset({"tiler", "options"})

_TEMPLATE = {"z": "{z}", "x": "{x}", "y": "{y}"}
# Multihash: function code 0x12 (sha2-256), then the digest's length 0x20.
_SHA256_PREFIX = "1220"


def item_to_stac(
    item: Item,
    version: Version,
    link: Link,
    collections: Mapping[str, Collection],
    *,
    shown: str | None = None,
) -> dict[str, Any]:
    """Return an asset in one of its versions as a STAC Item.

    Args:
        item: the asset.
        version: which of its states.
        link: makes absolute URLs; see the module.
        collections: every collection by id, for level and category.
        shown: the version's name in URLs, its number by default; ``current`` where the links shall
            follow later versions.
    """
    target = {"asset": item.id, "version": shown or str(version.number)}
    links = [
        _link("self", link("stac-item", collection=item.collection, item=item.id), GEOJSON),
        _link("root", link("stac-root"), JSON),
        _link("parent", link("stac-collection", collection=item.collection), JSON),
        _link("collection", link("stac-collection", collection=item.collection), JSON),
        _link("alternate", link("portal", item=item.id), HTML, item.title),
    ]
    map_links = _map_links(item, version, link, target)
    extensions = [FILE_EXTENSION, PROJECTION_EXTENSION, VERSION_EXTENSION]
    if map_links:
        extensions.append(WEB_MAP_LINKS_EXTENSION)
    return {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": extensions,
        "id": item.id,
        "collection": item.collection,
        "geometry": _footprint(version.bounds),
        "bbox": version.bounds.bbox3d(),
        "properties": _properties(item, version, collections),
        "links": links + map_links,
        "assets": _assets(item, version, link, target),
    }


def collection_to_stac(
    collection: Collection,
    extent: Extent | None,
    link: Link,
    collections: Mapping[str, Collection],
) -> dict[str, Any]:
    """Return a collection as a STAC Collection.

    Args:
        collection: the collection.
        extent: where and when its published assets lie; None where there are none: it takes the
            whole world and an open interval, as STAC demands some extent.
        link: makes absolute URLs; see the module.
        collections: every collection by id, for the category.
    """
    bbox: list[float] = [-180, -90, 180, 90]
    interval: list[str | None] = [None, None]
    if extent is not None:
        bbox = extent.bounds.bbox3d()
        interval = [_time(extent.first), _time(extent.last)]
    out: dict[str, Any] = {
        "type": "Collection",
        "stac_version": STAC_VERSION,
        "stac_extensions": [],
        "id": collection.id,
        "title": collection.title,
        "description": collection.description or collection.title,
        "license": "other",
        "extent": {
            "spatial": {"bbox": [bbox]},
            "temporal": {"interval": [interval]},
        },
        "cim:title_en": collection.title_en,
        "cim:category": category(collection, collections),
        "cim:assets": 0 if extent is None else extent.count,
        "links": [
            _link("self", link("stac-collection", collection=collection.id), JSON),
            _link("root", link("stac-root"), JSON),
            _link("parent", link("stac-root"), JSON),
        ],
    }
    if collection.level is not None:
        out["cim:level"] = collection.level
    return out


def category(collection: Collection, collections: Mapping[str, Collection]) -> str:
    """Return the titles from the topmost collection down, e.g. ``时空基础/行政区划``."""
    titles = [collection.title]
    seen = {collection.id}
    while collection.parent is not None and collection.parent not in seen:
        collection = collections[collection.parent]
        seen.add(collection.id)
        titles.append(collection.title)
    return "/".join(reversed(titles))


def _properties(
    item: Item, version: Version, collections: Mapping[str, Collection]
) -> dict[str, Any]:
    collection = collections[item.collection]
    properties = dict(item.properties)
    properties |= _times(item, version)
    properties |= {
        "title": item.title,
        "description": item.description or item.title,
        "created": _time(item.created),
        "updated": _time(item.updated),
        "version": str(version.number),
        "proj:code": _epsg(item.properties),
        "cim:kind": item.kind,
        "cim:category": category(collection, collections),
        "cim:quality": _quality(version.report),
        "cim:info": {k: v for k, v in version.info.items() if k not in _OWN_INFO},
    }
    if collection.level is not None:
        properties.setdefault("cim:level", collection.level)
    return properties


def _times(item: Item, version: Version) -> dict[str, Any]:
    span = data_interval(item.properties)
    if span is None:
        return {"datetime": _time(version.created)}
    first, last = span
    if item.properties.get("start_datetime") is None:
        return {"datetime": _time(first)}
    return {"datetime": None, "start_datetime": _time(first), "end_datetime": _time(last)}


def _time(value: datetime) -> str:
    return value.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"


def _epsg(properties: Mapping[str, Any]) -> str | None:
    """Return the horizontal CRS as ``AUTHORITY:CODE``; STAC's null stands for any other."""
    code = properties.get("proj:code", properties.get("cim:source_crs"))
    if not isinstance(code, str):
        return None
    authority, colon, number = code.partition("+")[0].partition(":")
    return f"{authority}:{number}" if colon and authority and number.isalnum() else None


def _quality(report: Mapping[str, Any]) -> dict[str, int]:
    """Return how many features, pixels or tiles each severity of finding concerns."""
    counts: Counter[str] = Counter()
    for finding in report.get("findings", ()):
        counts[finding["severity"]] += finding["count"]
    return dict(sorted(counts.items()))


def _footprint(bounds: Region) -> dict[str, Any]:
    west, south, east, north = bounds.bbox2d()
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {"type": "Polygon", "coordinates": [ring]}


def _map_links(
    item: Item, version: Version, link: Link, target: Mapping[str, str]
) -> list[dict[str, Any]]:
    if item.kind in ("buildings", "pointcloud"):
        return [_link("3d-tiles", link("tileset", **target), JSON, item.title)]
    if item.kind == "imagery":
        return [
            _link("tilejson", link("raster-tilejson", **target), JSON, item.title),
            _link("xyz", link("raster-tiles", **target, **_TEMPLATE), PNG, item.title),
        ]
    if item.kind == "terrain":
        # What is computed of a terrain needs its elevation model, and to know its datum.
        if "vertical" not in version.info or all(s.format != "cog" for s in version.stores):
            return []
        return [
            *(
                _link(
                    "tilejson",
                    link("terrain-tilejson", **target, product=product, grid="WebMercatorQuad"),
                    JSON,
                    f"{item.title} {product}",
                )
                for product in ("hillshade", "terrainrgb", "contours")
            ),
            _link("service", link("terrain", **target), JSON, item.title),
        ]
    if item.kind in ("vector", "divisions"):
        links = [
            _link("tilejson", link("tilejson", **target), JSON, item.title),
            _link("xyz", link("vector-tiles", **target, **_TEMPLATE), MVT, item.title),
        ]
        archives = [store for store in version.stores if store.format == "pmtiles"]
        # Of several none is the whole, and the server hands out no other.
        if len(archives) == 1 and not version.tombstones:
            links.append(_link("pmtiles", link("pmtiles", **target), PMTILES, item.title))
        return links
    return []


def _assets(
    item: Item, version: Version, link: Link, target: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    entries = {
        "buildings": ("tileset", "tileset", ["data", "3d-tiles"]),
        "pointcloud": ("tileset", "tileset", ["data", "3d-tiles"]),
        "terrain": ("terrain", "layer-json", ["data", "quantized-mesh"]),
        "imagery": ("tilejson", "raster-tilejson", ["visual", "tilejson"]),
        "vector": ("tilejson", "tilejson", ["data", "tilejson"]),
        "divisions": ("tilejson", "tilejson", ["data", "tilejson"]),
    }
    key, name, roles = entries[item.kind]
    assets: dict[str, dict[str, Any]] = {
        key: {"href": link(name, **target), "type": JSON, "title": item.title, "roles": roles}
    }
    served: set[str] = set()
    for store in version.stores:
        # The server hands out the newest PMTiles archive and COPC of a version as a file.
        direct = store.format in ("pmtiles", "copc") and store.format not in served
        served.add(store.format)
        href = link(store.format, **target) if direct else _named(store)
        assets[_asset_key(store, assets)] = {
            "href": href,
            "type": store.media_type,
            "title": store.path.rpartition("/")[2],
            "roles": [store.role, "archive"],
            "file:checksum": _SHA256_PREFIX + store.sha256,
            "file:size": store.nbytes,
        }
    return assets


def _asset_key(store: StoreRef, taken: Mapping[str, Any]) -> str:
    key = base = f"{store.role}-{store.format}"
    number = 1
    while key in taken:
        number += 1
        key = f"{base}-{number}"
    return key


def _named(store: StoreRef) -> str:
    digest = base64.urlsafe_b64encode(bytes.fromhex(store.sha256)).decode().rstrip("=")
    return f"ni:///sha-256;{digest}"


def _link(rel: str, href: str, media_type: str, title: str = "") -> dict[str, Any]:
    out = {"rel": rel, "href": href, "type": media_type}
    return out | {"title": title} if title else out
