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
    repeated = areal & (
        shapely.get_num_coordinates(shapely.remove_repeated_points(geometry))
        < shapely.get_num_coordinates(geometry)
    )
    if repeated.any():
        _note(
            batch, findings, "G5-repeated-vertex", "repair", "repeated vertices removed", repeated
        )
        geometry = geometry.copy()
        geometry[repeated] = shapely.remove_repeated_points(geometry[repeated])
    bad = areal & ~shapely.is_valid(geometry)
    if bad.any():
        reasons = sorted({r.split("[")[0] for r in shapely.is_valid_reason(geometry[bad]).tolist()})
        _note(
            batch,
            findings,
            "G5-invalid-polygon",
            "repair",
            f"outline repaired ({', '.join(reasons)})",
            bad,
        )
        repaired = shapely.make_valid(geometry[bad], method="structure", keep_collapsed=False)
        mixed = shapely.get_type_id(repaired) == _COLLECTION
        if mixed.any():
            repaired[mixed] = _highest_dimension(repaired[mixed])
        geometry = geometry.copy()
        geometry[bad] = repaired
    if geometry is not batch.geometry:
        batch = replace(batch, geometry=geometry)
    empty = shapely.is_empty(batch.geometry)
    return _drop(batch, findings, "G6-empty", "the geometry is empty", empty)


def not_empty(batch: FeatureBatch, findings: Findings) -> FeatureBatch:
    """G6: an empty geometry is dropped."""
    return _drop(
        batch, findings, "G6-empty", "the geometry is empty", shapely.is_empty(batch.geometry)
    )


def area_not_zero(batch: FeatureBatch, findings: Findings) -> FeatureBatch:
    """G7: a polygon without area is dropped."""
    bad = shapely.area(batch.geometry) < MIN_AREA_DEG2
    return _drop(batch, findings, "G7-no-area", "the polygon has no area", bad)
