"""Geometry rules G1 to G7: repair what can be repaired, drop the rest, count both."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import shapely
from numpy.typing import NDArray

from tiling.batches import FeatureBatch
from tiling.findings import Findings, Severity

_POLYGON, _MULTIPOLYGON, _COLLECTION = 3, 6, 7
# 1e-14 square degrees is about a square centimetre on the ground: no building, no parcel.
MIN_AREA_DEG2 = 1e-14


def _note(
    batch: FeatureBatch,
    findings: Findings,
    rule: str,
    severity: Severity,
    message: str,
    hit: NDArray[np.bool_],
) -> None:
    findings.add(rule, severity, message, int(hit.sum()), batch.ids[hit].tolist())


def _drop(
    batch: FeatureBatch, findings: Findings, rule: str, message: str, bad: NDArray[np.bool_]
) -> FeatureBatch:
    if not bad.any():
        return batch
    _note(batch, findings, rule, "drop", message, bad)
    return batch.take(~bad)


def finite_coordinates(batch: FeatureBatch, findings: Findings) -> FeatureBatch:
    """G1: a feature with a NaN or infinite coordinate is dropped."""
    coordinates, owner = shapely.get_coordinates(batch.geometry, return_index=True)
    bad = np.zeros(len(batch), dtype=bool)
    bad[owner[~np.isfinite(coordinates).all(axis=1)]] = True
    return _drop(batch, findings, "G1-not-finite", "a coordinate is NaN or infinite", bad)


def two_dimensional(batch: FeatureBatch, findings: Findings) -> FeatureBatch:
    """G2: Z and M of outlines are set aside; heights come from columns or a terrain."""
    has_z = shapely.has_z(batch.geometry)
    if not has_z.any():
        return batch
    _note(batch, findings, "G2-z-set-aside", "info", "Z of the outline is not used", has_z)
    return replace(batch, geometry=shapely.force_2d(batch.geometry))


def polygons_only(batch: FeatureBatch, findings: Findings) -> FeatureBatch:
    """G3: of collections the polygons are kept; points and lines are dropped."""
    batch = _flatten_collections(batch, findings)
    kinds = shapely.get_type_id(batch.geometry)
    bad = (kinds != _POLYGON) & (kinds != _MULTIPOLYGON)
    return _drop(batch, findings, "G3-no-polygon", "points and lines have no area here", bad)


def no_collections(batch: FeatureBatch, findings: Findings) -> FeatureBatch:
    """G4: a mixed collection keeps the parts of its highest dimension."""
    return _flatten_collections(batch, findings)


def _flatten_collections(batch: FeatureBatch, findings: Findings) -> FeatureBatch:
    mixed = shapely.get_type_id(batch.geometry) == _COLLECTION
    if not mixed.any():
        return batch
    _note(
        batch,
        findings,
        "G4-collection",
        "repair",
        "of a geometry collection the parts of the highest dimension are kept",
        mixed,
    )
    geometry = batch.geometry.copy()
    geometry[mixed] = _highest_dimension(geometry[mixed])
    return replace(batch, geometry=geometry)


def _highest_dimension(collections: NDArray[np.object_]) -> NDArray[np.object_]:
    parts, owner = shapely.get_parts(collections, return_index=True)
    while (shapely.get_type_id(parts) == _COLLECTION).any():
        parts, inner = shapely.get_parts(parts, return_index=True)
        owner = owner[inner]
    parts, inner = shapely.get_parts(parts, return_index=True)
    owner = owner[inner]
    dimension = shapely.get_dimensions(parts)
    highest = np.full(len(collections), -1)
    np.maximum.at(highest, owner, dimension)
    keep = dimension == highest[owner]
    parts, owner = parts[keep], owner[keep]
    result = np.full(len(collections), shapely.GeometryCollection(), dtype=object)
    for kind, make in ((0, shapely.multipoints), (1, shapely.multilinestrings)):
        chosen = highest[owner] == kind
        if chosen.any():
            make(parts[chosen], indices=owner[chosen], out=result)
    chosen = highest[owner] == 2
    if chosen.any():
        shapely.multipolygons(parts[chosen], indices=owner[chosen], out=result)
    return result


def valid_polygons(batch: FeatureBatch, findings: Findings) -> FeatureBatch:
    """G5: self-crossing outlines are repaired; what is left of them keeps its polygons.

    Repeated vertices are removed on the way. The repair is that of JTS "structure", which keeps
    holes holes; lines and points that it leaves behind are dropped.
    """
    geometry = batch.geometry
    areal = shapely.get_dimensions(geometry) == 2
    repeated, collapsed = _repeated_vertices(geometry, areal)
    if repeated.any():
        _note(
            batch, findings, "G5-repeated-vertex", "repair", "repeated vertices removed", repeated
        )
        # GEOS refuses to thin out a ring that is one point; the repair below takes it.
        thin = repeated & ~collapsed
        geometry = geometry.copy()
        geometry[thin] = shapely.remove_repeated_points(geometry[thin])
    bad = areal & ~shapely.is_valid(geometry)
    if bad.any():
        repaired = shapely.make_valid(geometry[bad], method="structure", keep_collapsed=False)
        mixed = shapely.get_type_id(repaired) == _COLLECTION
        if mixed.any():
            repaired[mixed] = _highest_dimension(repaired[mixed])
        _note_repairs(batch, findings, geometry, np.flatnonzero(bad), repaired)
        geometry = geometry.copy()
        geometry[bad] = repaired
    if geometry is not batch.geometry:
        batch = replace(batch, geometry=geometry)
    empty = shapely.is_empty(batch.geometry)
    return _drop(batch, findings, "G6-empty", "the geometry is empty or has no area", empty)


def _note_repairs(
    batch: FeatureBatch,
    findings: Findings,
    geometry: NDArray[np.object_],
    rows: NDArray[np.intp],
    repaired: NDArray[np.object_],
) -> None:
    # A finding of its own for each reason, so that it does not show how the rows were cut into
    # batches. What became empty is dropped, and counted there.
    rows = rows[~shapely.is_empty(repaired)]
    reasons = np.array([r.split("[")[0] for r in shapely.is_valid_reason(geometry[rows])])
    for reason in np.unique(reasons):
        hit = np.zeros(len(batch), dtype=bool)
        hit[rows[reasons == reason]] = True
        message = f"outline repaired ({reason})"
        _note(batch, findings, "G5-invalid-polygon", "repair", message, hit)


def _repeated_vertices(
    geometry: NDArray[np.object_], areal: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Say which polygons repeat a vertex, and which have a ring that is only one point."""
    rows = np.flatnonzero(areal)
    polygons, part_of = shapely.get_parts(geometry[rows], return_index=True)
    rings, polygon_of = shapely.get_rings(polygons, return_index=True)
    points, ring_of = shapely.get_coordinates(rings, return_index=True)
    same = (points[1:] == points[:-1]).all(axis=1) & (ring_of[1:] == ring_of[:-1])
    repeats = np.bincount(ring_of[1:][same], minlength=len(rings))
    row_of = rows[part_of[polygon_of]]
    repeated, collapsed = np.zeros((2, len(geometry)), dtype=bool)
    repeated[row_of[repeats > 0]] = True
    collapsed[row_of[repeats == shapely.get_num_coordinates(rings) - 1]] = True
    return repeated, collapsed


def not_empty(batch: FeatureBatch, findings: Findings) -> FeatureBatch:
    """G6: an empty geometry is dropped."""
    return _drop(
        batch,
        findings,
        "G6-empty",
        "the geometry is empty or has no area",
        shapely.is_empty(batch.geometry),
    )


def area_not_zero(batch: FeatureBatch, findings: Findings) -> FeatureBatch:
    """G7: a polygon without area is dropped."""
    bad = shapely.area(batch.geometry) < MIN_AREA_DEG2
    return _drop(batch, findings, "G7-no-area", "the polygon has no area", bad)
