"""TileJSON 3.0.0 of terrain products, and the page that lists what a terrain asset offers.

``encoding`` and ``tileSize`` are what MapLibre reads of a ``raster-dem`` source; ``cim:vertical``
says what coded heights and contour lines are counted from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from cim_server.links import Links
from cim_server.state import CURRENT, Entry
from cim_server.surfaces import Surface
from tiling.schemes import Scheme

CONTOURS = "contours"
_DEEPEST = 24
# Contour lines of coarser levels would be a few loops around mountain ranges.
_FIRST_CONTOURS = 6


@dataclass(frozen=True, slots=True)
class Kind:
    """A product that comes as images.

    Attributes:
        title: for people.
        encoding: MapLibre's name for coded heights; empty for pictures.
    """

    title: str
    encoding: str = ""


IMAGES: Mapping[str, Kind] = {
    "hillshade": Kind("山体阴影 hillshade"),
    "slope": Kind("坡度 slope"),
    "terrainrgb": Kind("高程 Terrain-RGB", "mapbox"),
    "terrarium": Kind("高程 Terrarium", "terrarium"),
}


def tilejson(
    entry: Entry,
    surface: Surface,
    product: str,
    scheme: Scheme,
    tile_size: int,
    link: Links,
    query: Mapping[str, str],
) -> dict[str, Any]:
    """Return the TileJSON of a product.

    Args:
        entry: the version.
        surface: its elevation models.
        product: key of `IMAGES`, or ``contours``.
        scheme: the grid.
        tile_size: 256 or 512 pixels in each tile.
        link: makes absolute URLs.
        query: parameters that the tiles keep.
    """
    lines = product == CONTOURS
    ending = ".mvt" if lines else ".png" if tile_size == 256 else "@2x.png"
    place = {"z": "{z}", "x": "{x}", "y": "{y}"}
    url = link(
        "terrain-tiles",
        asset=entry.asset,
        product=product,
        grid=scheme.name,
        ending=ending,
        **place,
    )
    west, south, east, north = entry.bounds[:4]
    deepest = max_level(entry, scheme, tile_size)
    low = min(_FIRST_CONTOURS, deepest) if lines else 0
    document: dict[str, Any] = {
        "tilejson": "3.0.0",
        "name": f"{entry.title} · {CONTOURS if lines else IMAGES[product].title}",
        "version": f"{entry.number}.0.0",
        "scheme": "xyz",
        "tiles": [f"{url}?{urlencode(query)}" if query else url],
        "minzoom": low,
        "maxzoom": deepest,
        "bounds": [west, south, east, north],
        "center": [(west + east) / 2, (south + north) / 2, min(max(low, 10), deepest)],
        "cim:grid": scheme.name,
    }
    if lines:
        fields = {"height": "Number", "index": "Boolean"}
        document["vector_layers"] = [{"id": CONTOURS, "fields": fields}]
    else:
        document["tileSize"] = tile_size
    if lines or IMAGES[product].encoding:
        document["cim:vertical"] = surface.datum
    if not lines and IMAGES[product].encoding:
        document["encoding"] = IMAGES[product].encoding
    return document


def max_level(entry: Entry, scheme: Scheme, tile_size: int) -> int:
    """Return the coarsest level whose pixels are at least as fine as the elevation model's."""
    resolution = entry.info.get("resolution_deg")
    if resolution is None:
        return 14
    return min(scheme.level_for(float(resolution), tile_size), _DEEPEST)


def described(
    entry: Entry, surface: Surface, version: int | None, link: Links, grids: tuple[str, ...]
) -> dict[str, Any]:
    """Return what is served of a terrain version, with links.

    Args:
        entry: the version.
        surface: its elevation models.
        version: as asked for; None for the current one.
        link: makes absolute URLs.
        grids: names of the tiling grids.
    """
    asset = entry.asset
    shown = {"asset": asset, "version": version}
    links = [
        _link("self", link("terrain", **shown), "application/json", entry.title),
        _link(
            "terrain",
            link("layer-json", asset=asset, version=CURRENT if version is None else version),
            "application/json",
            "quantized-mesh",
        ),
        *(
            _link(
                "tilejson",
                link("terrain-tilejson", **shown, product=product, grid=grid),
                "application/json",
                f"{kind.title}, {grid}",
            )
            for product, kind in IMAGES.items()
            for grid in grids
        ),
        _link(
            "tilejson",
            link("terrain-tilejson", **shown, product=CONTOURS, grid=grids[0]),
            "application/json",
            f"等高线 {CONTOURS}, {grids[0]}",
        ),
        _link(
            "point",
            link("terrain-point", **shown, lon="{lon}", lat="{lat}"),
            "application/json",
            "高程查询 elevation at a place",
            templated=True,
        ),
        _link(
            "profile",
            link("terrain-profile", **shown),
            "application/geo+json",
            "剖面 elevation along a line",
        ),
    ]
    return {
        "asset": asset,
        "version": entry.number,
        "title": entry.title,
        "bounds": entry.bounds.bbox2d(),
        "resolution_deg": entry.info.get("resolution_deg"),
        "vertical": surface.datum,
        "links": links,
    }


def _link(rel: str, href: str, media_type: str, title: str, **more: Any) -> dict[str, Any]:
    return {"rel": rel, "href": href, "type": media_type, "title": title, **more}
