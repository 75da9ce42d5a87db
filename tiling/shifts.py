"""The record of a change of frame: what was done to coordinates, for the report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tiling.bounds import Region

_TILE_PRECISION = {"WGS 84", "China Geodetic Coordinate System 2000"}


@dataclass(frozen=True, slots=True)
class ShiftRecord:
    """How coordinates came from one frame into another; goes into the report.

    Attributes:
        source, target: `SpatialRef.code`.
        operation: PROJ's name of the horizontal step, with the vertical step of our own.
        accuracy_note: a sentence on what to expect.
        null_shift: the datums were taken as equal: no shift was applied between them.
        assumptions: sentences; each was decided without the source saying so.
    """

    source: str
    target: str
    operation: str
    accuracy_note: str
    null_shift: bool
    assumptions: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the record as a JSON object."""
        return {
            "source": self.source,
            "target": self.target,
            "operation": self.operation,
            "accuracy_note": self.accuracy_note,
            "null_shift": self.null_shift,
            "assumptions": list(self.assumptions),
        }


def stated_accuracy(
    operation: str, accuracy_m: float, meant_for: Region | None, place: tuple[float, float]
) -> tuple[str, str]:
    """Say what PROJ promises of an operation, and whether the promise holds at a place.

    Args:
        operation: PROJ's name of it.
        accuracy_m: metres; negative when PROJ knows none.
        meant_for: the area the operation was derived in, None for everywhere.
        place: longitude and latitude of the data, degrees.

    Returns:
        an accuracy note, and a doubt (empty when there is none).
    """
    note = f"PROJ states {accuracy_m:g} m" if accuracy_m >= 0 else "not stated by PROJ"
    lon, lat = place
    if meant_for is None or meant_for.contains(Region(lon, lat, lon, lat)):
        return note, ""
    doubt = (
        f"{operation!r} was derived for {_rectangle(meant_for)} and the data lies outside, at "
        f"{lon:.3f},{lat:.3f}: expect errors of ten metres or more, or give local parameters "
        "(+towgs84=...)"
    )
    return f"{note}, but not at this place", doubt


def null_shift(source_datum: str, target_datum: str) -> tuple[str, str]:
    """Say what it means that two datums are taken as equal: an accuracy note, an assumption."""
    assumption = f"{source_datum} and {target_datum} are taken as equal: no datum shift is applied"
    if {source_datum, target_datum} <= _TILE_PRECISION:
        return (
            "equal at tile precision: centimetres at the epoch 2000.0 of CGCS2000; plate motion "
            "adds some 3 cm a year to what GNSS measures today"
        ), assumption
    return "both datums are geocentric: within a metre or two", assumption


def _rectangle(region: Region) -> str:
    return ",".join(f"{v:g}" for v in region.bbox2d())
