"""Where the data lies: refused when it is not where the user says, with the features at fault.

The header of a source gives its extent, and that decides. Only when the extent reaches outside the
declared area are the features looked at: a few without a place (0, 0) are another mistake, with
another remedy, than a wrong frame.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray

from ingest.readers import open_source
from ingest.readers.base import LayerInfo, ReadOptions
from tiling.areas import check_area, explain
from tiling.bounds import Region
from tiling.crs import TILE_REF, SpatialRef, transform_points
from tiling.errors import CrsMissing, GeometryInvalid, OutsideArea

_SAMPLES = 5
# Web maps end there too.
MAX_LATITUDE_DEG = 85.0
Corners = tuple[NDArray[np.float64], NDArray[np.float64]]


def check_location(
    path: Path, layer: LayerInfo, ref: SpatialRef, area: Region, options: ReadOptions
) -> None:
    """Check the extent of a layer, and name the features that lie outside.

    Args:
        path: the source.
        layer: with its extent in its own frame.
        ref: frame of the coordinates.
        area: where they must lie, WGS 84 degrees.
        options: how the source is read.

    Raises:
        OutsideArea: the layer, or some of its features, lie elsewhere.
    """
    assert layer.extent is not None  # the caller knows that there is one
    x, y = _corners(np.array([layer.extent]))
    try:
        check_area(
            *_degrees(x, y, ref),
            area,
            path,
            raw=(x, y),
            what="corners of its extent",
            declared=ref.code,
        )
    except OutsideArea:
        if layer.geometry_type not in ("Raster", "Points"):
            _check_features(path, layer, ref, area, options)
        raise


def check_batch(
    geometry: NDArray[np.object_], ids: NDArray[np.int64], area: Region, path: Path
) -> None:
    """Check features that are longitude and latitude already.

    Raises:
        OutsideArea: some lie outside; the message names them.
    """
    x, y = _corners(shapely.bounds(geometry))
    outside = _outside(x, y, area)
    if outside.any():
        raise _strays(path, ids[outside], len(ids), area, (x, y), outside)


def check_reach(geometry: NDArray[np.object_], ids: NDArray[np.int64], path: Path) -> None:
    """Check that buildings lie where tiles can hold them.

    Args:
        geometry: (N,) polygons, lon/lat degrees.
        ids: ordinals in the source.
        path: the source.

    Raises:
        GeometryInvalid: some reach across the antimeridian, or lie near a pole.
    """
    west, south, east, north = shapely.bounds(geometry).T
    for bad, problem, remedy in (
        (
            (east - west > 180) | (east > 180) | (west < -180),
            "reach across the antimeridian (180° of longitude)",
            "cut them there: what lies on either side is a feature of its own",
        ),
        (
            (north > MAX_LATITUDE_DEG) | (south < -MAX_LATITUDE_DEG),
            f"lie beyond {MAX_LATITUDE_DEG:g}° of latitude",
            "remove them: cells of tiles have no width at the poles",
        ),
    ):
        if bad.any():
            named = ", ".join(map(str, ids[bad][:_SAMPLES].tolist()))
            raise GeometryInvalid(
                f"{int(bad.sum())} buildings {problem}: features {named} (counted from 0)",
                source=path,
                remedy=remedy,
            )


def crs_missing(path: Path, layer: LayerInfo, area: Region) -> CrsMissing:
    """Return the refusal of a layer without a frame, with what its coordinates look like."""
    problem, remedy = "it has no coordinate reference system", "--crs EPSG:4547 (or another code)"
    if layer.extent is not None:
        diagnosis, guess = explain(*_corners(np.array([layer.extent])), area)
        if diagnosis:
            west, south, east, north = layer.extent
            problem += (
                f"; its coordinates go from {west:.10g}, {south:.10g} to {east:.10g}, "
                f"{north:.10g}: {diagnosis}"
            )
            remedy = guess
            if "degrees" in diagnosis:
                remedy += ", or --crs GCJ-02 or BD-09 where they come from an internet map"
    return CrsMissing(
        problem,
        source=path,
        remedy=f"declare it: {remedy} (--assume-crs does the same, recorded as an assumption)",
    )


def _check_features(
    path: Path, layer: LayerInfo, ref: SpatialRef, area: Region, options: ReadOptions
) -> None:
    strays: list[NDArray[np.int64]] = []
    first: tuple[Corners, NDArray[np.bool_]] | None = None
    with open_source(path, options) as reader:
        for batch in reader.batches(columns=()):
            x, y = _corners(shapely.bounds(batch.geometry))
            # What is no number is dropped by a quality rule, wherever it would lie.
            outside = _outside(*_degrees(x, y, ref), area) & np.isfinite(x + y).reshape(4, -1)[0]
            if outside.any():
                strays.append(batch.ids[outside])
                first = first or ((x, y), outside)
    ids = np.concatenate(strays) if strays else np.empty(0, np.int64)
    # Where most lie outside, the frame is at fault and not the features.
    if first is not None and 2 * len(ids) < layer.features:
        raise _strays(path, ids, layer.features, area, *first)


def _strays(
    path: Path,
    ids: NDArray[np.int64],
    total: int,
    area: Region,
    corners: Corners,
    outside: NDArray[np.bool_],
) -> OutsideArea:
    x, y = (axis.reshape(4, -1)[:, outside][0] for axis in corners)
    diagnosis, _ = explain(x[:1], y[:1], area)
    named = ", ".join(map(str, ids[:_SAMPLES].tolist())) + (" …" if len(ids) > _SAMPLES else "")
    return OutsideArea(
        f"{len(ids)} of {total} features lie outside the declared area "
        f"{area.west:g},{area.south:g},{area.east:g},{area.north:g} (numbers {named}, counted "
        f"from 0); the first is at {x[0]:.10g}, {y[0]:.10g}"
        + (f": {diagnosis}" if diagnosis else ""),
        source=path,
        remedy="correct or remove them in the source, or declare where all of it lies: --area "
        "west,south,east,north or --area world",
    )


def _corners(bounds: NDArray[np.float64]) -> Corners:
    """Return x and y of the corners of (N, 4) boxes: (4 N,) each, the first corners first."""
    x = np.concatenate([bounds[:, 0], bounds[:, 2], bounds[:, 2], bounds[:, 0]])
    y = np.concatenate([bounds[:, 1], bounds[:, 1], bounds[:, 3], bounds[:, 3]])
    return x, y


def _degrees(x: NDArray[np.float64], y: NDArray[np.float64], ref: SpatialRef) -> Corners:
    lon, lat, _ = transform_points(ref.with_vertical(None), TILE_REF.with_vertical(None), x, y)
    return np.asarray(lon), np.asarray(lat)


def _outside(lon: NDArray[np.float64], lat: NDArray[np.float64], area: Region) -> NDArray[np.bool_]:
    """Say which of N boxes reach outside; NaN and infinity count as outside."""
    inside = (lon >= area.west) & (lon <= area.east) & (lat >= area.south) & (lat <= area.north)
    return ~np.asarray(inside.reshape(4, -1).all(axis=0), dtype=np.bool_)
