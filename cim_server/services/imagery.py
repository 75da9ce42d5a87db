"""Dynamic raster endpoints: TiTiler, bound to the catalogue.

The one idea: what is opened comes from the catalogue, never from the caller. Any parameter that
could name a file or a URL is refused, and so is one that would make a single request expensive
without end. Endpoints are plain functions, which FastAPI runs in the worker threads of GDAL.
"""

# No postponed annotations here: FastAPI resolves them at run time, and these name local functions.
import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

import rasterio
from fastapi import APIRouter, Body, Depends, Path, Query, Request
from morecantile import TileMatrixSet
from morecantile.defaults import TileMatrixSets
from rio_tiler.constants import WEB_MERCATOR_TMS
from rio_tiler.expression import parse_expression
from starlette.responses import Response
from titiler.core.algorithm import Algorithms
from titiler.core.algorithm import algorithms as all_algorithms
from titiler.core.dependencies import BidxExprParams, ColorMapParams, ImageRenderingParams
from titiler.core.factory import TilerFactory
from titiler.core.resources.enums import ImageType
from titiler.core.utils import render_image

from cim_server.crop_shape import crop_shape
from cim_server.errors import InvalidRequest
from cim_server.links import Links, quote_path
from cim_server.middleware.conditional import validate
from cim_server.open_rasters import raster_facts
from cim_server.raster_sources import rasters_of
from cim_server.raster_tiles import MEDIA_TYPES
from cim_server.responses import IMMUTABLE, REVALIDATE
from cim_server.services.rasters import CatalogueReader, RasterSource, band_count
from cim_server.services.wmts import Layer, capabilities
from cim_server.state import State
from tiling.schemes import cgcs2000_quad

PREFIX = "/raster/{asset}"
MAX_ZOOM = 24
# Contours and their like loop over a step that the caller chooses; these do bounded work.
ALGORITHMS = ("cast", "hillshade", "slope", "terrainrgb", "terrarium")
GDAL_ENV = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_NUM_THREADS": "1",
    # Nothing in the data folder may lead GDAL to the network.
    "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": ".none",
}

# Upper bounds of what one request may ask for, by the name of the query or path parameter.
LIMITS = {
    "buffer": 128.0,
    "height": 4096.0,
    "histogram_bins": 1024.0,
    "max_size": 4096.0,
    "padding": 128.0,
    "tilesize": 2048.0,
    "width": 4096.0,
    "z": float(MAX_ZOOM),
}
MAX_LENGTHS = {"algorithm_params": 512, "color_formula": 256, "colormap": 16384, "expression": 256}
_CRS_PARAMETERS = ("crs", "coord_crs", "dst_crs")
_OF_TILEJSON = ("tilesize", "tile_format", "minzoom", "maxzoom")
_EPSG = re.compile(r"EPSG:\d{4,6}", re.IGNORECASE)


def tile_matrix_sets() -> TileMatrixSets:
    """Return the grids in which imagery is served."""
    sets: dict[str, TileMatrixSet] = {
        "WebMercatorQuad": WEB_MERCATOR_TMS,
        "CGCS2000Quad": cgcs2000_quad(),
    }
    return TileMatrixSets(sets)


def check_parameters(request: Request) -> None:
    """Refuse parameters that name sources, and sizes beyond `LIMITS`.

    Raises:
        InvalidRequest: with the parameter, its value and what is allowed.
    """
    query = request.query_params
    if "url" in query:
        raise InvalidRequest(
            "rasters are chosen by the asset in the path; the parameter 'url' is not accepted"
        )
    # GDAL would take a file name or a URL for a CRS, and open it.
    for name in _CRS_PARAMETERS:
        for value in query.getlist(name):
            if not _EPSG.fullmatch(value):
                raise InvalidRequest(f"{name}={value!r}: name a CRS by its code, as EPSG:4490")
    for name, value in [*query.multi_items(), *request.path_params.items()]:
        if name in MAX_LENGTHS and len(value) > MAX_LENGTHS[name]:
            raise InvalidRequest(f"{name} is longer than {MAX_LENGTHS[name]} characters")
        if name in LIMITS:
            for number in str(value).split(","):
                _check_number(name, number)


def _check_number(name: str, text: str) -> None:
    try:
        number = float(text)
    except ValueError:
        return  # the declared type of the parameter gives the better message
    if not 0 <= number <= LIMITS[name]:
        raise InvalidRequest(f"{name}={text} is not between 0 and {LIMITS[name]:g}")


class CatalogueTiler(TilerFactory):
    """TiTiler's endpoints under a path that names the asset, with links made by our rules."""

    def url_for(self, request: Request, name: str, **path_params: Any) -> str:
        """Return an absolute URL of another endpoint of the same asset."""
        asset = request.path_params["asset"]
        path = self.router.url_path_for(name, asset=asset, **path_params)
        return Links.of(request.scope).base + quote_path(str(path))

    def tilesets(self) -> None:
        """Leave out the list of tilesets, whose HTML form loads scripts from a CDN."""

    def tilejson(self) -> None:
        """Leave it to `router`: rio-tiler knows one file, and a mosaic has finer sheets."""


def _bands_of(expression: str) -> tuple[int, ...]:
    try:
        return tuple(parse_expression(expression))
    except ValueError as error:
        raise InvalidRequest(f"expression {expression!r} names no band: {error}") from error


def _source_dependency(state: State) -> Callable[..., RasterSource]:
    def source(
        request: Request,
        asset: Annotated[str, Path(description="Id of an imagery or terrain asset.")],
        version: Annotated[
            int | None, Query(ge=1, description="Version number; the current one if left out.")
        ] = None,
    ) -> RasterSource:
        """Find the raster of an asset in the catalogue."""
        entry = state.entry(asset, "current" if version is None else str(version))
        rasters = rasters_of(state, entry)
        if request.method == "GET":
            validate(
                request.scope,
                f"{rasters.digests} {request.url}",
                REVALIDATE if version is None else IMMUTABLE,
            )
        return rasters.whole()

    return source


def router(state: State) -> APIRouter:
    """Return the raster endpoints."""
    source = _source_dependency(state)

    def layer(
        found: Annotated[RasterSource, Depends(source)],
        params: Annotated[BidxExprParams, Depends()],
    ) -> BidxExprParams:
        if params.indexes is None and params.expression is None:
            params.indexes = found.bands()
        asked: Sequence[int] = params.indexes or ()
        if params.expression is not None:
            asked = _bands_of(params.expression)
        count = band_count(str(found.path))
        for index in asked:
            if not 1 <= index <= count:
                raise InvalidRequest(f"there is no band {index}; the raster has {count}")
        return params

    def render(
        request: Request,
        found: Annotated[RasterSource, Depends(source)],
        layers: Annotated[BidxExprParams, Depends(layer)],
        params: Annotated[ImageRenderingParams, Depends()],
    ) -> ImageRenderingParams:
        # An expression or an algorithm has a range of its own, which the caller knows.
        computed = layers.expression is not None or "algorithm" in request.query_params
        if params.rescale is None and not computed:
            params.rescale = found.rescale(layers.indexes)  # type: ignore[assignment]
        return params

    sets = tile_matrix_sets()

    def path(found: Annotated[RasterSource, Depends(source)]) -> str:
        return str(found.path)

    routes = APIRouter(prefix=PREFIX, tags=["raster"], dependencies=[Depends(check_parameters)])

    @routes.get(
        "/WMTSCapabilities.xml",
        response_class=Response,
        responses={200: {"content": {"application/xml": {}}}},
        operation_id="raster.getWMTSCapabilities",
    )
    def wmts(
        request: Request,
        asset: Annotated[str, Path(description="Id of an imagery or terrain asset.")],
        found: Annotated[RasterSource, Depends(source)],
        version: Annotated[int | None, Query(ge=1)] = None,
    ) -> Response:
        """Describe the asset's tiles as OGC WMTS 1.0.0 for QGIS, ArcGIS and GDAL."""
        links = Links.of(request.scope)
        entry = state.entry(asset, "current" if version is None else str(version))
        layer = Layer.of(asset, rasters_of(state, entry))
        address = links("raster-wmts", asset=asset)
        body = capabilities(links, [layer], sets, address, request.url.query)
        return Response(body, media_type="application/xml")

    @routes.post(
        "/crop.{format}",
        response_class=Response,
        responses={200: {"content": {m: {} for m in MEDIA_TYPES.values()}}},
        operation_id="raster.postCrop",
    )
    def crop(
        found: Annotated[RasterSource, Depends(source)],
        layers: Annotated[BidxExprParams, Depends(layer)],
        params: Annotated[ImageRenderingParams, Depends(render)],
        colormap: Annotated[Any, Depends(ColorMapParams)],
        body: Annotated[dict[str, Any], Body(description="A GeoJSON polygon or its Feature.")],
        format: Annotated[Literal["png", "jpg", "webp"], Path()],
        max_size: Annotated[
            int, Query(ge=1, le=int(LIMITS["max_size"]), description="Pixels of the longer side.")
        ] = 1024,
    ) -> Response:
        """Cut a polygon out of the raster."""
        cut = crop_shape(body, raster_facts(str(found.path)).bounds)
        with rasterio.Env(**GDAL_ENV), CatalogueReader(str(found.path)) as reader:
            image = reader.feature(
                cut, indexes=layers.indexes, expression=layers.expression, max_size=max_size
            )
        if params.rescale:
            image.rescale(params.rescale)
        content, media_type = render_image(
            image, output_format=ImageType(format), colormap=colormap, add_mask=True
        )
        return Response(content, media_type=media_type)

    @routes.get(
        "/bbox/{west},{south},{east},{north}.{format}",
        response_class=Response,
        responses={200: {"content": {m: {} for m in MEDIA_TYPES.values()}}},
        operation_id="raster.getBbox",
    )
    def bbox(
        found: Annotated[RasterSource, Depends(source)],
        layers: Annotated[BidxExprParams, Depends(layer)],
        params: Annotated[ImageRenderingParams, Depends(render)],
        colormap: Annotated[Any, Depends(ColorMapParams)],
        west: Annotated[float, Path(description="Degrees.")],
        south: Annotated[float, Path(description="Degrees.")],
        east: Annotated[float, Path(description="Degrees.")],
        north: Annotated[float, Path(description="Degrees.")],
        format: Annotated[Literal["png", "jpg", "webp"], Path()],
        max_size: Annotated[
            int, Query(ge=1, le=int(LIMITS["max_size"]), description="Pixels of the longer side.")
        ] = 1024,
    ) -> Response:
        """Cut a rectangle out of the raster."""
        corners = [(west, south), (east, south), (east, north), (west, north), (west, south)]
        body = {"type": "Polygon", "coordinates": [corners]}
        return crop(found, layers, params, colormap, body, format, max_size)

    @routes.get(
        "/{tileMatrixSetId}/tilejson.json",
        operation_id="raster.getTileJSON",
        dependencies=[Depends(render)],
    )
    def tilejson(
        request: Request,
        asset: Annotated[str, Path(description="Id of an imagery or terrain asset.")],
        tileMatrixSetId: Annotated[Literal["WebMercatorQuad", "CGCS2000Quad"], Path()],
        version: Annotated[int | None, Query(ge=1)] = None,
        tilesize: Annotated[
            Literal["256", "512"], Query(description="Pixels along a tile's edge.")
        ] = "512",
        tile_format: Annotated[
            Literal["png", "jpg", "jpeg", "webp"] | None,
            Query(description="Left out: what the client accepts."),
        ] = None,
    ) -> dict[str, Any]:
        """Describe the asset's tiles as TileJSON 3.0; levels are those of the WMTS."""
        entry = state.entry(asset, "current" if version is None else str(version))
        described = Layer.of(asset, rasters_of(state, entry))
        left = [p for p in request.query_params.multi_items() if p[0] not in _OF_TILEJSON]
        name = "raster-wmts-tiles" if tile_format else "raster-negotiated-tiles"
        cell = {"tms": tileMatrixSetId, "z": "{z}", "x": "{x}", "y": "{y}"}
        if tile_format:
            cell["ending"] = tile_format
        address = Links.of(request.scope)(name, asset=asset, **cell)
        west, south, east, north = described.bounds[:4]
        return {
            "tilejson": "3.0.0",
            "name": described.title,
            "version": f"{entry.number}.0.0",
            "scheme": "xyz",
            "tiles": [f"{address}?{urlencode([*left, ('tilesize', tilesize)])}"],
            "minzoom": 0,
            "maxzoom": described.deepest(tileMatrixSetId),
            "bounds": [west, south, east, north],
            "center": [(west + east) / 2, (south + north) / 2, 0],
        }

    tiler = CatalogueTiler(
        router=routes,
        name="raster",
        reader=CatalogueReader,
        path_dependency=path,
        layer_dependency=layer,  # type: ignore[arg-type]
        render_dependency=render,  # type: ignore[arg-type]
        process_dependency=Algorithms(
            {name: all_algorithms.get(name) for name in ALGORITHMS}
        ).dependency,
        environment_dependency=lambda: dict(GDAL_ENV),
        supported_tms=sets,
        add_part=False,
        add_viewer=False,
    )
    # Statistics of drawn polygons read at full resolution, one read for each: not bounded.
    kept = [
        r
        for r in tiler.router.routes
        if "POST" not in (getattr(r, "methods", None) or ()) or getattr(r, "name", "") == "crop"
    ]
    tiler.router.routes[:] = kept
    return routes
