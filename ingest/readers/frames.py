"""The frame of a source: what the user declares against what the file states."""

from __future__ import annotations

from ingest.readers.base import ReadOptions
from tiling.crs import SpatialRef
from tiling.errors import CrsMissing
from tiling.findings import Findings


def resolve_frame(stated: str | None, options: ReadOptions, notes: Findings) -> SpatialRef | None:
    """Return the frame: what the user declares wins over what the file states.

    Args:
        stated: the file's CRS as text, or None.
        options: `crs` is the user's declaration.
        notes: receives contradictions, and vertical parts that could not be used.

    Raises:
        CrsMissing: the declaration itself is no CRS.
    """
    embedded = _parse_stated(stated, notes)
    if embedded is not None and embedded.note:
        notes.add("vertical-datum-unused", "warning", embedded.note)
    if options.crs is None:
        return embedded
    declared = SpatialRef.parse(options.crs)
    if embedded is None:
        return declared
    if not declared.same_horizontal(embedded):
        notes.add(
            "crs-overridden",
            "warning",
            f"the file states {embedded.code}; read as {declared.code} as declared",
        )
        return declared
    # Saying the horizontal CRS once more does not take back the file's vertical datum.
    return declared if declared.vertical else declared.with_vertical(embedded.vertical)


def _parse_stated(stated: str | None, notes: Findings) -> SpatialRef | None:
    if not stated or "undefined" in stated[:60].lower():
        return None
    try:
        return SpatialRef.parse(stated)
    except CrsMissing as error:
        notes.add("crs-unusable", "warning", f"the file's CRS cannot be used: {error.problem}")
        return None
