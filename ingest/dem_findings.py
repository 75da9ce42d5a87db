"""What an elevation model is found to be: converted, void, spiked, joined."""

from __future__ import annotations

import numpy as np
import rasterio
from rasterio.features import shapes

from ingest.dem_groups import DemGroup
from ingest.dem_pixels import Cleaning, Tally
from ingest.readers.sheets import factor
from tiling.dem import DemStack
from tiling.findings import Finding, Findings

# Places along an axis of a raster that are asked whether anything is there, for the report.
_VOID_CELLS = 256


def note_pixels(group: DemGroup, tally: Tally, cleaning: Cleaning, findings: Findings) -> None:
    """Add what was found in the pixels of a group."""
    for sheet in (placed.sheet for placed in group.placed):
        if factor(sheet) != 1.0:
            message = f"heights in {sheet.unit} were converted to metres"
            findings.add("heights-converted", "info", message, samples=[sheet.name])
        if (sheet.scale, sheet.offset) != (1.0, 0.0):
            message = f"stored values were read as value * {sheet.scale:g} + {sheet.offset:g}"
            findings.add("heights-scaled", "info", message, samples=[sheet.name])
        if sheet.dtype in ("float64", "int32", "uint32", "int64", "uint64"):
            findings.add(
                "heights-float32",
                "info",
                f"heights of type {sheet.dtype} are kept as float32 (within 0.25 mm below 4096 m)",
                samples=[sheet.name],
            )
    findings.add(
        "raster-nodata",
        "info",
        "pixels of the elevation model hold no data",
        tally.void,
    )
    findings.add(
        "void-filled",
        "repair",
        f"void pixels enclosed by data within {cleaning.fill_pixels} pixels were interpolated "
        "(--fill-voids)",
        tally.filled,
    )
    if tally.zero_land.is_suspect(tally.valid):
        findings.add(
            "zero-land",
            "warning",
            f"pixels are exactly 0 m ({tally.zero_land.zeros / tally.valid:.1%} of the raster), "
            "lie together and end at a cliff, and the rest is nowhere near 0 m: probably nodata "
            "that the files do not declare; kept as heights, --nodata 0 leaves them out",
            tally.zero_land.zeros,
            [group.placed[0].sheet.name],
        )
    severity, done = ("repair", "replaced by") if cleaning.despike else ("warning", "left, off")
    findings.add(
        "spike",
        severity,  # type: ignore[arg-type]
        f"spikes or pits ({done} the median of their neighbours): longitude, latitude, height"
        + ("" if cleaning.despike else "; --despike replaces them"),
        tally.outliers,
        [tuple(place) for place in tally.places],
    )


def voids(stack: DemStack) -> list[Finding]:
    """Say where no group has data inside the boxes of the sheets."""
    extent = stack.extent
    n = _VOID_CELLS
    lon = extent.west + (np.arange(n) + 0.5) / n * (extent.east - extent.west)
    lat = extent.north - (np.arange(n) + 0.5) / n * (extent.north - extent.south)
    covered = np.zeros((n, n), dtype=bool)
    grid = [g.ravel() for g in np.meshgrid(lon, lat)]
    for layer in stack.layers:
        boxes_of = np.zeros((n, n), dtype=bool)
        for west, south, east, north in layer.coverage:
            across = (lon >= west) & (lon <= east)
            boxes_of |= ((lat >= south) & (lat <= north))[:, None] & across
        # The box of a projected sheet is wider than the sheet.
        column, row = layer.pixels(*layer.places(*grid), 0)
        width, height = layer.sizes[0]
        inside = (column >= 0) & (column <= width - 1) & (row >= 0) & (row <= height - 1)
        covered |= boxes_of & inside.reshape(n, n)
    void = np.isnan(stack.sample(*grid)).reshape(n, n) & covered
    if not void.any():
        return []
    transform = rasterio.Affine(
        (extent.east - extent.west) / n, 0, extent.west, 0, -(extent.north - extent.south) / n,
        extent.north,
    )  # fmt: skip
    boxes = []
    for shape, _ in shapes(void.astype(np.uint8), void, transform=transform):
        x, y = np.array(shape["coordinates"][0]).T
        boxes.append([round(float(v), 5) for v in (x.min(), y.min(), x.max(), y.max())])
    findings = Findings()
    boxes.sort(key=lambda b: (b[0] - b[2]) * (b[3] - b[1]))
    findings.add(
        "dem-void",
        "warning",
        f"areas without heights, {void.sum() / covered.sum():.1%} of what the sheets cover: west, "
        "south, east, north of the largest",
        len(boxes),
        [tuple(box) for box in boxes],
    )
    return list(findings)


def report_seams(stack: DemStack, findings: Findings) -> None:
    """Add how wide the seams between groups are."""
    if len(stack.layers) < 2:
        return
    widths = [round(width, 1) for width in stack.feathers_m[:-1]]
    findings.add(
        "dem-seams",
        "info",
        "groups of sheets fade into those below them over so many metres",
        len(widths),
        widths,
    )
