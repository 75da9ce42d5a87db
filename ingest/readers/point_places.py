"""Where a file of points lies: the frame that counts, and its bounds in it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ingest.readers.base import ReadOptions
from ingest.readers.point_chunks import Bounds
from ingest.readers.point_file import PointFile
from tiling.crs import SpatialRef, transform_points
from tiling.ellipsoid import ecef_to_geodetic
from tiling.findings import Findings
from tiling.geoid import parse_vertical
from tiling.point_frames import PointFrame

# The Earth's surface, with room for the deepest trench and the highest flight.
_LEAST_RADIUS_M, _MOST_RADIUS_M = 6.34e6, 6.41e6


def placed(file: PointFile, options: ReadOptions, findings: Findings) -> PointFile:
    """Return a file with its frame decided: what is declared wins over what it states.

    Args:
        file: its frame is what it states itself, or None.
        options: what the user declares and assumes.
        findings: receives contradictions, assumptions and conversions.

    Raises:
        CrsMissing: the declaration itself is no CRS.
        DatumUndeclared: the declared datum is none.
    """
    stated, declared = _believable(file, findings), options.crs
    frame = stated
    if declared is not None:
        frame = PointFrame.parse(declared)
        if stated is not None and stated.geocentric == frame.geocentric:
            frame = _over(stated, frame, findings)
    elif stated is None and options.assume_crs is not None:
        frame = PointFrame.parse(options.assume_crs)
    if frame is None:
        return replace(file, frame=None)
    if options.points.height_unit is not None:
        frame = frame.with_unit(options.points.height_unit)
    if frame.ref.note:
        findings.add("vertical-datum-unused", "warning", frame.ref.note)
    if frame.assumption:
        findings.add("height-unit-assumed", "assumption", frame.assumption)
    if frame.z_unit_m != 1.0 and not frame.geocentric:
        message = f"heights in {frame.unit} are converted to metres"
        findings.add("heights-converted", "info", message, file.count)
    if frame.geocentric:
        message = "geocentric coordinates are converted to longitude, latitude and height"
        findings.add("geocentric-converted", "info", message, file.count)
    return replace(file, frame=replace(frame, ref=_on_datum(frame.ref, options)))


def _over(stated: PointFrame, declared: PointFrame, findings: Findings) -> PointFrame:
    if not declared.ref.same_horizontal(stated.ref):
        findings.add(
            "crs-overridden",
            "warning",
            f"files state {stated.ref.code}; read as {declared.ref.code} as declared",
        )
        return declared
    # Saying the horizontal CRS once more takes back neither the datum nor the unit of heights.
    return declared if declared.states_unit else stated


def _believable(file: PointFile, findings: Findings) -> PointFrame | None:
    """Return the frame a file states; None where its own bounds contradict it."""
    if file.frame is None or not file.frame.geocentric or file.bounds is None:
        return file.frame
    radius = float(np.linalg.norm(np.add(file.bounds[:3], file.bounds[3:]) / 2))
    if _LEAST_RADIUS_M < radius < _MOST_RADIUS_M:
        return file.frame
    findings.add(
        "crs-unusable",
        "warning",
        "its frame is not used: it says geocentric, and points lie "
        f"{radius / 1000:.0f} km from the Earth's centre",
        samples=[file.path.name],
    )
    return None


def _on_datum(ref: SpatialRef, options: ReadOptions) -> SpatialRef:
    """Return the frame with its heights as the user declares or assumes them."""
    if options.vertical is not None:
        return ref.with_vertical(parse_vertical(options.vertical))
    if ref.vertical is None and options.assume_vertical is not None:
        return ref.with_vertical(parse_vertical(options.assume_vertical))
    return ref


def widened(file: PointFile) -> Bounds | None:
    """Return a file's bounds and a quantum around them: some are stated before rounding."""
    if file.bounds is None or file.scale is None:
        return file.bounds
    around = np.abs(file.scale)
    low, high = file.bounds[:3] - around, file.bounds[3:] + around
    return (*low.tolist(), *high.tolist())


def in_metres(bounds: Bounds | None, frame: PointFrame) -> Bounds | None:
    """Return bounds with heights in metres; None for geocentric ones, whose box says little."""
    if bounds is None or frame.geocentric:
        return None
    xmin, ymin, zmin, xmax, ymax, zmax = bounds
    return xmin, ymin, zmin * frame.z_unit_m, xmax, ymax, zmax * frame.z_unit_m


def geodetic(box: Bounds) -> Bounds:
    """Return longitudes, latitudes and heights of a geocentric box: more than its points span."""
    t = np.linspace(0.0, 1.0, 5)
    sides = (low + t * (high - low) for low, high in zip(box[:3], box[3:], strict=True))
    places = np.stack([g.ravel() for g in np.meshgrid(*sides)], axis=1)
    positions = np.stack(ecef_to_geodetic(places), axis=1)
    return (*positions.min(axis=0).tolist(), *positions.max(axis=0).tolist())


def moved(box: Bounds, src: SpatialRef, dst: SpatialRef) -> Bounds:
    """Return a box in another frame, heights as they are."""
    # Edges bend between frames: eleven points of each say where the box goes.
    t = np.linspace(0.0, 1.0, 11)
    x, y = (
        g.ravel()
        for g in np.meshgrid(box[0] + t * (box[3] - box[0]), box[1] + t * (box[4] - box[1]))
    )
    x, y, _ = transform_points(src, dst, x, y)
    return float(x.min()), float(y.min()), box[2], float(x.max()), float(y.max()), box[5]
