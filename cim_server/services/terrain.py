"""Terrain services: reliefs, coded heights and contour lines, from a terrain asset's own surface.

Bound to catalogue ids as the raster services are; what is computed runs in the worker processes.
The grids are those of imagery; contour lines come as vector tiles, in WebMercatorQuad alone.
"""

# No postponed annotations here: FastAPI resolves them at run time.
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, Path, Query, Request
from rio_tiler.colormap import cmap
from starlette.responses import Response

from cim_server.computed import TileKey
from cim_server.errors import InvalidRequest
from cim_server.links import Links
from cim_server.middleware.conditional import validate
from cim_server.relief_work import ImageJob, contour_tile, image
from cim_server.responses import IMMUTABLE, REVALIDATE, accepts_gzip, inflate, json_response
from cim_server.services.terrain_tilejson import CONTOURS, IMAGES, described, tilejson
from cim_server.state import Entry, State
from cim_server.surfaces import Surface, surface_of
from tiling.coords import TileCoord
from tiling.errors import NotFound, TilingError
from tiling.schemes import CGCS2000_QUAD, WEB_MERCATOR_QUAD, Scheme
from tiling.stores.base import StoredTile

PREFIX = "/terrain/{asset}"
GRIDS = {scheme.name: scheme for scheme in (WEB_MERCATOR_QUAD, CGCS2000_QUAD)}
MAX_LEVEL = 24
MVT = "application/vnd.mapbox-vector-tile"
_VARY = {"Vary": "Host, Forwarded, X-Forwarded-Host, X-Forwarded-Proto, X-Forwarded-Prefix"}
_MEDIA_TYPES = {"png": "image/png", "webp": "image/webp"}
_DEFAULT_RAMP = "rdylgn_r"
_PNG: Any = {200: {"content": {"image/png": {}, "image/webp": {}}}}
_JSON: Any = {200: {"content": {"application/json": {}}}}

AssetId = Annotated[str, Path(description="Id of a terrain asset.")]
VersionNumber = Annotated[
    int | None, Query(ge=1, description="Version number; the current one if left out.")
]
Level = Annotated[int, Path(ge=0, le=MAX_LEVEL, description="Level (zoom).")]
Cell = Annotated[int, Path(ge=0, description="Column or row of the grid, from the north-west.")]


class Found:
    """A terrain version that was asked for.

    Attributes:
        entry: the version.
        surface: its elevation models.
        cache_control: of answers about it.
    """

    def __init__(self, entry: Entry, surface: Surface, version: int | None) -> None:
        self.entry = entry
        self.surface = surface
        self.version = version
        self.cache_control = REVALIDATE if version is None else IMMUTABLE

    def validate(self, request: Request, more: str = "") -> None:
        """End the request if the client holds the answer: it follows from surface and address."""
        url = f"{request.url.path}?{request.url.query}"
        # The same raster may be published again, counted from another datum.
        surface = f"{self.surface.digests} {self.surface.vertical} {self.surface.terrain}"
        validate(request.scope, f"{surface} {url} {more}", self.cache_control)


def found_dependency(state: State) -> Any:
    """Return the dependency that finds the terrain version of a request."""

    def found(asset: AssetId, version: VersionNumber = None) -> Found:
        entry = state.entry(asset, "current" if version is None else str(version))
        return Found(entry, surface_of(state, entry), version)

    return found


def check_cell(grid: str, z: int, x: int, y: int) -> None:
    """Check that a grid has a cell.

    Raises:
        NotFound: no such grid, or no such cell in it.
    """
    if grid not in GRIDS:
        raise NotFound(f"there is no grid {grid!r}; there are {', '.join(GRIDS)}")
    columns, rows = GRIDS[grid].size(z)
    if x >= columns or y >= rows:
        raise NotFound(f"{grid} has {columns} x {rows} cells at level {z}: {x}/{y} is not one")


async def computed(
    state: State,
    found: Found,
    scheme: Scheme,
    tile: tuple[int, int, int],
    media_type: str,
    work: Callable[..., bytes | None],
    *arguments: Any,
) -> StoredTile:
    """Return what a worker makes of a tile, kept since it was last made or made now.

    Raises:
        NotFound: the terrain has nothing there.
    """
    missing = NotFound("{!r} has no heights in tile {}/{}/{}".format(found.entry.asset, *tile))
    # Told apart here, so that nobody keeps the workers busy with the rest of the world.
    if not found.entry.bounds.intersects(scheme.bounds(TileCoord(*tile))):
        raise missing

    async def make() -> StoredTile | None:
        data = await state.workers.run(work, *arguments)
        return None if data is None else StoredTile(data, media_type, None, "")

    made = await state.computed.get(
        TileKey(found.surface.digests, (work.__name__, *arguments)), make
    )
    if made is None:
        raise missing
    return made


def router(state: State) -> APIRouter:
    """Return the endpoints of reliefs and contours below ``/terrain/{asset}``."""
    routes = APIRouter(prefix=PREFIX, tags=["terrain"], default_response_class=Response)
    find = found_dependency(state)
    _add_descriptions(routes, find)
    _add_contours(routes, state, find)
    _add_images(routes, state, find)
    return routes


def _add_descriptions(routes: APIRouter, find: Any) -> None:
    @routes.get("", operation_id="terrain.describe", responses=_JSON)
    async def describe(request: Request, found: Annotated[Found, Depends(find)]) -> Response:
        """List what is served of a terrain asset, and what its heights are counted from."""
        link = Links.of(request.scope)
        document = described(found.entry, found.surface, found.version, link, tuple(GRIDS))
        return json_response(document, request.headers, extra=_VARY)

    @routes.get("/{product}/{grid}/tilejson.json", operation_id="terrain.tilejson", responses=_JSON)
    async def tilejson_of(
        request: Request,
        product: Annotated[str, Path(description="hillshade, slope, terrainrgb …, contours.")],
        grid: Annotated[str, Path(description="WebMercatorQuad or CGCS2000Quad.")],
        found: Annotated[Found, Depends(find)],
        tilesize: Annotated[
            int, Query(description="256, or 512 for twice the pixels in each tile.")
        ] = 256,
    ) -> Response:
        """Describe the tiles of a product as TileJSON 3.0; its query is kept for the tiles."""
        if tilesize not in (256, 512):
            raise InvalidRequest(f"tilesize={tilesize} is neither 256 nor 512")
        _check_product(product, grid)
        query = {k: v for k, v in request.query_params.items() if k != "tilesize"}
        link = Links.of(request.scope)
        document = tilejson(found.entry, found.surface, product, GRIDS[grid], tilesize, link, query)
        return json_response(document, request.headers, extra=_VARY)


def _check_product(product: str, grid: str) -> None:
    if product not in (*IMAGES, CONTOURS):
        raise NotFound(
            f"terrain has no product {product!r}; there are {', '.join((*IMAGES, CONTOURS))}"
        )
    check_cell(grid, 0, 0, 0)
    if product == CONTOURS and grid != WEB_MERCATOR_QUAD.name:
        raise NotFound("contour lines come in WebMercatorQuad, the grid of vector tiles")


def _add_contours(routes: APIRouter, state: State, find: Any) -> None:
    @routes.get(
        "/contours/tiles/WebMercatorQuad/{z}/{x}/{y}.mvt",
        operation_id="terrain.contours",
        responses={200: {"content": {MVT: {}}}},
    )
    async def contours(
        request: Request,
        z: Level,
        x: Cell,
        y: Cell,
        found: Annotated[Found, Depends(find)],
        interval: Annotated[
            float | None, Query(ge=0.1, le=5000, description="Metres between two lines.")
        ] = None,
    ) -> Response:
        """Return contour lines as a vector tile, heights in the asset's own vertical datum."""
        check_cell(WEB_MERCATOR_QUAD.name, z, x, y)
        gzip = accepts_gzip(request.headers.get("accept-encoding"))
        found.validate(request, f"gzip={gzip}")
        work = (contour_tile, found.surface, (z, x, y), interval)
        try:
            tile = await computed(state, found, WEB_MERCATOR_QUAD, (z, x, y), MVT, *work)
        except TilingError as error:
            raise InvalidRequest(str(error)) from error
        sent = {"Vary": "Accept-Encoding"}
        if gzip:
            sent["Content-Encoding"] = "gzip"
        return Response(tile.data if gzip else inflate(tile.data), media_type=MVT, headers=sent)


class Look:
    """How a relief looks: what a caller may choose of hillshades and slopes."""

    def __init__(
        self,
        azimuth: Annotated[float, Query(ge=0, le=360, description="Light from, degrees.")] = 315,
        altitude: Annotated[float, Query(ge=0, le=90, description="Height of the light.")] = 45,
        exaggeration: Annotated[float, Query(gt=0, le=100, description="Of heights.")] = 1,
        rescale: Annotated[
            str, Query(description="Slopes of the ramp's first and last colour, degrees: low,high.")
        ] = "0,60",
        colormap_name: Annotated[
            str, Query(description="Colours of slopes: a colormap of rio-tiler.")
        ] = _DEFAULT_RAMP,
    ) -> None:
        self.light = (azimuth, altitude, exaggeration)
        self.scale = _pair(rescale)
        self.ramp = _ramp(colormap_name)


Product = Annotated[str, Path(description="hillshade, slope, terrainrgb or terrarium.")]
Grid = Annotated[str, Path(description="WebMercatorQuad or CGCS2000Quad.")]
Ending = Annotated[str, Path(description="png; or webp for hillshade and slope.")]


def _add_images(routes: APIRouter, state: State, find: Any) -> None:
    async def answer(request: Request, found: Found, look: Look, size: int) -> Response:
        params = request.path_params
        product, grid, ending = params["product"], params["grid"], params["ending"]
        tile = int(params["z"]), int(params["x"]), int(params["y"])
        if product not in IMAGES:
            raise NotFound(f"terrain has no images {product!r}; there are {', '.join(IMAGES)}")
        check_cell(grid, *tile)
        if ending not in _MEDIA_TYPES:
            raise NotFound(f"images end in .png or .webp, not .{ending}")
        if ending != "png" and IMAGES[product].encoding:
            raise InvalidRequest(f"{product} is exact in PNG alone: ask for .png")
        found.validate(request)
        ramp = look.ramp if product == "slope" else b""
        job = ImageJob(
            found.surface, product, grid, tile, size, ending, look.light, look.scale, ramp
        )
        media_type = _MEDIA_TYPES[ending]
        made = await computed(state, found, GRIDS[grid], tile, media_type, image, job)
        return Response(made.data, media_type=media_type)

    # First, because the other would take "y@2x" for a row.
    @routes.get(
        "/{product}/tiles/{grid}/{z}/{x}/{y}@2x.{ending}",
        operation_id="terrain.image2x",
        responses=_PNG,
    )
    async def twice(
        request: Request,
        product: Product,
        grid: Grid,
        z: Level,
        x: Cell,
        y: Cell,
        ending: Ending,
        found: Annotated[Found, Depends(find)],
        look: Annotated[Look, Depends()],
    ) -> Response:
        """Return a relief with 512 pixels along the tile's edge."""
        return await answer(request, found, look, 512)

    @routes.get(
        "/{product}/tiles/{grid}/{z}/{x}/{y}.{ending}",
        operation_id="terrain.image",
        responses=_PNG,
    )
    async def once(
        request: Request,
        product: Product,
        grid: Grid,
        z: Level,
        x: Cell,
        y: Cell,
        ending: Ending,
        found: Annotated[Found, Depends(find)],
        look: Annotated[Look, Depends()],
    ) -> Response:
        """Return a relief of the terrain as an image, 256 pixels along the tile's edge."""
        return await answer(request, found, look, 256)


def _pair(text: str) -> tuple[float, float]:
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise InvalidRequest(f"rescale={text!r} is not two numbers: low,high") from None
    if not -1e9 < low < high < 1e9:
        raise InvalidRequest(f"rescale={text!r} does not rise")
    return low, high


def _ramp(name: str) -> bytes:
    if name not in cmap.list():
        raise InvalidRequest(f"there is no colormap {name!r}")
    colours = cmap.get(name)
    # Colormaps of classes or intervals are no ramps.
    if not isinstance(colours, dict) or sorted(colours) != list(range(256)):
        raise InvalidRequest(f"colormap {name!r} has classes, not 256 colours")
    return np.array([colours[i] for i in range(256)], dtype=np.uint8).tobytes()
