"""A point cloud as COPC beside its tiles: its own frame, every column, for analysis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ingest.make import Making, fresh
from ingest.readers.las_points import PackedPoints
from ingest.readers.point_chunks import Bounds, PointChunk
from ingest.readers.point_groups import PointGroup, read_group
from ingest.workspace import file_store
from tiling.batches import PointBatch
from tiling.crs import SpatialRef, transform_points
from tiling.errors import CrsMissing, TilingError
from tiling.formats.copc import CopcFile, CopcWriter
from tiling.formats.las_records import LasSchema
from tiling.stores.base import StoreInfo
from tiling.tilers.copc import CopcPlan, CopcTiler
from tiling.tilers.pipeline import drain
from tiling.tilers.point_sampling import VOXELS
from tiling.validate.copc import check_nodes

if TYPE_CHECKING:
    from tiling.findings import Findings

Triple = tuple[float, float, float]
# Of coordinates that no file states a step for, in metres.
_STEP_M = 1e-4
_MOST_STEPS = 2**31 - 2


def check_frame(ref: SpatialRef, source: Path) -> None:
    """Refuse a frame that a COPC cannot have.

    Raises:
        CrsMissing: degrees, which are no sides of a cube, or nothing WKT 1 can say.
    """
    if not ref.is_projected:
        raise CrsMissing(
            f"its coordinates are degrees ({ref.code}); the cubes of a COPC need lengths",
            source=source,
            remedy="leave --copc out, or bring the points into a projected frame first",
        )
    ref.to_wkt1()


def make_copc(making: Making, groups: Sequence[PointGroup], spacing_m: float | None) -> StoreInfo:
    """Write a COPC of all chunks, check it, and return it as a store.

    Args:
        making: of the asset.
        groups: chunks with common columns; the frame of the first is that of the file.
        spacing_m: least distance of points when thinned; None: all points.
    """
    findings = making.report.findings
    chunks = [chunk for group in groups for chunk in group]
    ref = chunks[0].ref
    others = sum(chunk.count for chunk in chunks if chunk.ref != ref)
    message = f"points of other frames are brought into {ref.code} for the COPC"
    findings.add("copc-reframed", "info", message, others)
    bounds = _bounds(making, groups, ref)
    scales, offsets = _steps(chunks, bounds, findings)
    columns = {c.name: (c.dtype, c.width, c.no_data, c.description) for c in chunks[0].columns}
    spacing = None if spacing_m is None else spacing_m / ref.unit_m
    plan = CopcPlan.of(LasSchema.of(columns, scales, offsets), bounds, spacing)
    path = fresh(making.folder / "cloud.copc.laz")
    packed = [c.layout for c in chunks if isinstance(c.layout, PackedPoints)]
    standard_time = bool(packed) and all(each.layout.standard_time for each in packed)
    writer = CopcWriter(path, plan.schema, ref.to_wkt1(), standard_time, plan.cube, VOXELS)
    try:
        with making.report.step("copc"):
            tiler: CopcTiler[PointGroup] = CopcTiler(partial(read_in_frame, ref))
            totals = tiler.run(groups, plan, writer, making.run(None))
    finally:
        writer.abort()
    with making.report.step("check-copc"):
        nodes = list(CopcFile.open(path).nodes)
        shares = [nodes[i::64] for i in range(min(64, len(nodes)))]
        making.progress.begin("copc-check", len(shares))
        jobs = [(check_nodes, (path, share)) for share in shares]
        drain(jobs, making.executor, making.workers * 2, making.progress)
        found = sum(count for _, _, count in CopcFile.open(path).nodes.values())
        if found != totals.count:
            raise TilingError(f"{path.name} holds {found} points, not {totals.count}")
    return file_store(path, "copc")


def read_in_frame(ref: SpatialRef, group: PointGroup) -> PointBatch:
    """Return the points of a group in a frame."""
    batch, _ = read_group(group)
    if batch.ref == ref:
        return batch
    x, y, z = transform_points(batch.ref, ref, *batch.xyz.T)
    assert z is not None
    return replace(batch, ref=ref, xyz=np.stack([x, y, z], axis=1))


def measure(ref: SpatialRef, group: PointGroup) -> Bounds | None:
    """Return the bounds of a group's points in a frame; None without points."""
    xyz = read_in_frame(ref, tuple(replace(chunk, columns=()) for chunk in group)).xyz
    if not len(xyz):
        return None
    low, high = xyz.min(axis=0).tolist(), xyz.max(axis=0).tolist()
    return (low[0], low[1], low[2], high[0], high[1], high[2])


def _bounds(making: Making, groups: Sequence[PointGroup], ref: SpatialRef) -> Bounds:
    """Return the bounds of all points: of the headers where they hold, else measured."""
    chunks = [chunk for group in groups for chunk in group]
    outside = {finding.rule for finding in making.report.findings}
    stated = [chunk.bounds for chunk in chunks if chunk.ref == ref]
    known = [each for each in stated if each is not None]
    if len(known) < len(chunks) or "points-outside-bounds" in outside:
        making.progress.begin("copc-bounds", len(groups))
        futures = [making.executor.submit(measure, ref, group) for group in groups]
        known = []
        for future in futures:
            if (measured := future.result()) is not None:
                known.append(measured)
            making.progress.advance()
    low = np.min([each[:3] for each in known], axis=0).tolist()
    high = np.max([each[3:] for each in known], axis=0).tolist()
    return (low[0], low[1], low[2], high[0], high[1], high[2])


def _steps(
    chunks: Sequence[PointChunk], bounds: Bounds, findings: Findings
) -> tuple[Triple, Triple]:
    """Return scales and offsets: the source's own, so that its whole numbers are kept."""
    stated: dict[tuple[Triple, Triple], int] = {}
    loose = 0
    for chunk in chunks:
        if not isinstance(chunk.layout, PackedPoints) or chunk.ref != chunks[0].ref:
            loose += chunk.count
            continue
        layout, unit = chunk.layout.layout, chunk.z_unit_m
        scales = (layout.scales[0], layout.scales[1], layout.scales[2] * unit)
        offsets = (layout.offsets[0], layout.offsets[1], layout.offsets[2] * unit)
        key = scales, offsets
        stated[key] = stated.get(key, 0) + chunk.count
    low, high = np.array(bounds[:3]), np.array(bounds[3:])
    middle = np.floor((low + high) / 2)
    if not stated:
        scale = np.array([_STEP_M / chunks[0].ref.unit_m] * 2 + [_STEP_M])
        offset = middle
    else:
        scale = np.min([scales for scales, _ in stated], axis=0)
        offset = np.array(next(iter(stated))[1])
    while ((high - low) / scale > _MOST_STEPS).any():
        scale = scale * 10
        offset = middle
    if (np.abs(np.stack([low, high]) - offset) / scale > _MOST_STEPS).any():
        offset = middle
    for (scales, offsets), count in stated.items():
        steps = (np.array(offsets) - offset) / scale
        parts = np.array(scales) / scale
        whole = np.abs(steps - np.rint(steps)) < 1e-6
        if not (whole.all() and (np.abs(parts - np.rint(parts)) < 1e-9).all()):
            loose += count
    message = f"coordinates are rounded to steps of {scale.max():g} in the COPC"
    findings.add("copc-rounded", "info", message, loose)
    return _triple(scale), _triple(offset)


def _triple(values: np.ndarray) -> Triple:
    x, y, z = values.tolist()
    return x, y, z
