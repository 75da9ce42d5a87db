"""The polygon that a caller cuts out of a raster: GeoJSON, checked before any pixel is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import shapely
from shapely.geometry import shape

from cim_server.errors import InvalidRequest
from tiling.bounds import Region
from tiling.errors import NotFound

MAX_VERTICES = 10_000


def crop_shape(document: Mapping[str, Any], bounds: Region) -> dict[str, Any]:
    """Return a polygon as GeoJSON geometry, lon/lat degrees.

    Args:
        document: a GeoJSON Polygon or MultiPolygon, or a Feature of one.
        bounds: of the raster, degrees.

    Raises:
        InvalidRequest: another type, no numbers, too many vertices, beyond the Earth, or a
            boundary that crosses itself.
        NotFound: the polygon lies beside the raster.
    """
    geometry = document.get("geometry") if document.get("type") == "Feature" else document
    kind = geometry.get("type") if isinstance(geometry, dict) else None
    if not isinstance(geometry, dict) or kind not in ("Polygon", "MultiPolygon"):
        raise InvalidRequest(
            f"{kind!r} cannot be cut out: send a GeoJSON Polygon or MultiPolygon, or its Feature"
        )
    try:
        polygon = shape(geometry)
    except (KeyError, TypeError, ValueError, IndexError, shapely.errors.ShapelyError) as error:
        raise InvalidRequest(f"the coordinates are not those of a {kind}: {error}") from error
    count = shapely.get_num_coordinates(polygon)
    if not 0 < count <= MAX_VERTICES:
        raise InvalidRequest(f"the polygon has {count} vertices, not 1 to {MAX_VERTICES}")
    west, south, east, north = polygon.bounds
    if not (-180 <= west <= east <= 180 and -90 <= south <= north <= 90):
        raise InvalidRequest(
            f"the polygon reaches {west}, {south}, {east}, {north}: not degrees of longitude and "
            "latitude"
        )
    if not polygon.is_valid:
        raise InvalidRequest(f"the polygon is not valid: {shapely.is_valid_reason(polygon)}")
    if not polygon.intersects(shapely.box(*bounds[:4])):
        raise NotFound("the polygon lies beside the raster")
    return dict(shapely.geometry.mapping(polygon))
