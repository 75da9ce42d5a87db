"""Elevation at a place and along a line, from a terrain asset's own surface.

Every height is given twice: above the ellipsoid, and above a named vertical datum — the asset's
own, or for an asset of ellipsoidal heights the EGM96 geoid.
"""

# No postponed annotations here: FastAPI resolves them at run time.
import math
from typing import Annotated, Any, Literal

import numpy as np
import orjson
from fastapi import APIRouter, Body, Depends, Path, Query, Request
from starlette.responses import Response

from cim_server.errors import InvalidRequest
from cim_server.relief_work import Profile, Span, profile, span_of
from cim_server.services.terrain import PREFIX, Found, found_dependency
from cim_server.state import State

GEOJSON = "application/geo+json"
MAX_VERTICES = 5_000
MAX_SAMPLES = 10_000
MAX_LENGTH_M = 1_000_000.0
DEFAULT_SAMPLES = 256
_ANSWER: Any = {200: {"content": {GEOJSON: {}, "text/csv": {}}}}

Samples = Annotated[
    int | None,
    Query(ge=2, le=MAX_SAMPLES, description=f"Number of places; {DEFAULT_SAMPLES} if left out."),
]
Spacing = Annotated[
    float | None, Query(gt=0, description="Metres between two places, instead of a number.")
]
Format = Annotated[Literal["geojson", "csv"], Query(description="geojson or csv.")]


def router(state: State) -> APIRouter:
    """Return the endpoints ``point`` and ``profile`` below ``/terrain/{asset}``."""
    routes = APIRouter(prefix=PREFIX, tags=["terrain"], default_response_class=Response)
    find = found_dependency(state)

    @routes.get(
        "/point/{lon},{lat}",
        operation_id="terrain.point",
        responses={200: {"content": {"application/json": {}}}},
    )
    async def point(
        request: Request,
        lon: Annotated[float, Path(ge=-180, le=180, description="Longitude, degrees.")],
        lat: Annotated[float, Path(ge=-90, le=90, description="Latitude, degrees.")],
        found: Annotated[Found, Depends(find)],
    ) -> Response:
        """Return the elevation at a place; null, with the reason, where there is none."""
        found.validate(request)
        place = Span((lon,), (lat,))
        answer = await state.workers.run(profile, found.surface, place, None, None)
        return Response(orjson.dumps(_place(answer)), media_type="application/json")

    @routes.get("/profile", operation_id="terrain.profile", responses=_ANSWER)
    async def along(
        request: Request,
        found: Annotated[Found, Depends(find)],
        line: Annotated[str, Query(description="lon,lat;lon,lat;… in degrees.")],
        samples: Samples = None,
        spacing: Spacing = None,
        format: Format = "geojson",
    ) -> Response:
        """Return the elevation along a line: GeoJSON, or CSV."""
        found.validate(request)
        return await _profile(state, found, _from_text(line), samples, spacing, format)

    @routes.post("/profile", operation_id="terrain.postProfile", responses=_ANSWER)
    async def along_posted(
        found: Annotated[Found, Depends(find)],
        body: Annotated[dict[str, Any], Body(description="A GeoJSON LineString or its Feature.")],
        samples: Samples = None,
        spacing: Spacing = None,
        format: Format = "geojson",
    ) -> Response:
        """Return the elevation along a GeoJSON line."""
        answer = await _profile(state, found, _from_geojson(body), samples, spacing, format)
        answer.headers["Cache-Control"] = "no-store"
        return answer

    return routes


async def _profile(
    state: State,
    found: Found,
    line: Span,
    samples: int | None,
    spacing: float | None,
    format: str,
) -> Response:
    if samples is not None and spacing is not None:
        raise InvalidRequest("samples and spacing exclude each other: give one of them")
    length = span_of(line)
    if not 0 < length <= MAX_LENGTH_M:
        raise InvalidRequest(
            f"the line is about {length / 1000:,.0f} km long; it must have a length, "
            f"of at most {MAX_LENGTH_M / 1000:,.0f} km"
        )
    if spacing is not None and length / spacing > MAX_SAMPLES:
        raise InvalidRequest(
            f"spacing={spacing:g} asks for about {length / spacing:,.0f} places along the line; "
            f"{MAX_SAMPLES:,} is the most: {length / MAX_SAMPLES:.1f} m or more would do"
        )
    number = DEFAULT_SAMPLES if samples is None and spacing is None else samples
    answer = await state.workers.run(profile, found.surface, line, number, spacing)
    if format == "csv":
        headers = {"Content-Disposition": 'attachment; filename="profile.csv"'}
        return Response(_csv(answer), media_type="text/csv", headers=headers)
    return Response(orjson.dumps(_feature(answer)), media_type=GEOJSON)


def _from_text(text: str) -> Span:
    points = [part.split(",") for part in text.strip("; ").split(";")]
    try:
        return _line([(float(lon), float(lat)) for lon, lat in points])
    except ValueError:
        raise InvalidRequest(
            f"line={text[:80]!r} is not a list of places: line=113.3,31.7;113.4,31.8"
        ) from None


def _from_geojson(body: dict[str, Any]) -> Span:
    geometry = body.get("geometry") if body.get("type") == "Feature" else body
    if not isinstance(geometry, dict) or geometry.get("type") != "LineString":
        raise InvalidRequest("the body is not a GeoJSON LineString, nor a Feature that holds one")
    try:
        return _line([(float(p[0]), float(p[1])) for p in geometry["coordinates"]])
    except (KeyError, TypeError, ValueError, IndexError):
        raise InvalidRequest(
            "the coordinates of the LineString are not a list of [longitude, latitude]"
        ) from None


def _line(points: list[tuple[float, float]]) -> Span:
    if not 2 <= len(points) <= MAX_VERTICES:
        raise InvalidRequest(
            f"the line has {len(points)} places; it needs 2, and may have {MAX_VERTICES:,}"
        )
    for lon, lat in points:
        if not (abs(lon) <= 180 and abs(lat) <= 90):
            raise InvalidRequest(f"{lon:g},{lat:g} is no longitude and latitude in degrees")
    return Span(tuple(lon for lon, _ in points), tuple(lat for _, lat in points))


def _metres(value: float) -> float | None:
    return round(float(value), 3) if math.isfinite(value) else None


def _datums(found: Profile) -> dict[str, Any]:
    return {
        "orthometric": found.datum,
        "ellipsoidal": {"code": "ellipsoidal", "kind": "ellipsoidal"},
    }


def _place(found: Profile) -> dict[str, Any]:
    return {
        "lon": float(found.lon[0]),
        "lat": float(found.lat[0]),
        "orthometric_m": _metres(found.orthometric[0]),
        "ellipsoidal_m": _metres(found.ellipsoidal[0]),
        "separation_m": _metres(found.ellipsoidal[0] - found.orthometric[0]),
        "datums": _datums(found),
        "reason": found.reasons[0] or None,
    }


def _feature(found: Profile) -> dict[str, Any]:
    low, high, ascent, descent, voids = found.climb
    return {
        "type": "Feature",
        "geometry": {
            "type": "LineString",
            "coordinates": np.stack([found.lon, found.lat], axis=1).tolist(),
        },
        "properties": {
            "length_m": _metres(found.distance[-1]),
            "samples": len(found.lon),
            "spacing_m": _metres(found.distance[1]),
            "min_m": _metres(low),
            "max_m": _metres(high),
            "ascent_m": _metres(ascent),
            "descent_m": _metres(descent),
            "voids": voids,
            "datums": _datums(found),
            "distance_m": [_metres(d) for d in found.distance],
            "orthometric_m": [_metres(h) for h in found.orthometric],
            "ellipsoidal_m": [_metres(h) for h in found.ellipsoidal],
        },
    }


def _csv(found: Profile) -> str:
    rows = zip(
        found.distance, found.lon, found.lat, found.orthometric, found.ellipsoidal, strict=True
    )
    lines = ["distance_m,lon,lat,orthometric_m,ellipsoidal_m"]
    for distance, lon, lat, *heights in rows:
        known = ("" if math.isnan(h) else f"{h:.3f}" for h in heights)
        lines.append(",".join((f"{distance:.3f}", f"{lon:.9f}", f"{lat:.9f}", *known)))
    return "\r\n".join([*lines, ""])
