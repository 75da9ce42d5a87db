"""What numbers say of themselves: heights or elevations, metres or not, roof or ground.

Decisions are made on a sample of rows and always reported. A column is only ever *read* in another
way (as an elevation in place of a height); numbers that seem to be in another unit, or in each
other's column, are warned of and never converted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ingest.height_columns import CLEAR_NAMES, ELEVATION_NAMES, HeightColumns
from ingest.manifest import HeightMode
from tiling.findings import Findings

Floats = NDArray[np.float64]

# Fewer rows say nothing.
MIN_ROWS = 10
# One building in twenty of any city is lower than this; not so where numbers are elevations.
LOW_BUILDING_M = 20.0
# What may be wrong in the columns of any city.
_STRAYS = 0.05
# Metres of a storey in other units than metres: bounds of the median, and the unit.
_STOREY_UNITS = (
    (8.0, 16.0, "feet"),
    (22.0, 55.0, "decimetres"),
    (220.0, 550.0, "centimetres"),
    (2200.0, 5500.0, "millimetres"),
)
# Half of a city is not taller than this, in metres.
_TALL_HALF_M = 250.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a column is to be read.

    Attributes:
        mode: heights above ground, or elevations.
        why: the figures that speak for it.
        sure: whether they speak for it alone.
    """

    mode: HeightMode
    why: str
    sure: bool


def judge_height(name: str, height: Floats, ground: Floats) -> Verdict | None:
    """Decide whether a column holds heights above ground or elevations of roofs.

    Of the two readings the one is impossible under which roofs lie below their ground, and the
    one improbable under which a city has no low buildings. Where both are possible (cities near
    sea level), elevations follow the ground and heights do not.

    Args:
        name: of the column; where numbers leave it open, it decides.
        height: (N,) metres, NaN for missing.
        ground: (N,) elevations of the ground, NaN for missing; all NaN where a terrain has them.

    Returns:
        None where neither numbers, which are too few, nor the name say anything.
    """
    given = np.isfinite(height) & (height > 0)
    named: HeightMode = "absolute" if name.casefold() in ELEVATION_NAMES else "relative"
    if given.sum() < MIN_ROWS:
        return Verdict(named, "its name", False) if named == "absolute" else None
    low = float(np.quantile(height[given], _STRAYS))
    both = given & np.isfinite(ground)
    if both.sum() < MIN_ROWS:
        if low > LOW_BUILDING_M:
            return Verdict(
                "absolute", f"19 of 20 numbers are above {low:.4g}: no city is so tall", True
            )
        return Verdict(named, f"the lowest numbers are about {low:.4g}, and its name", True)
    above = height[both] - ground[both]
    below = float((above < 0.5).mean())
    if below > _STRAYS:
        return Verdict(
            "relative", f"as elevations {below:.0%} of the roofs would lie below their ground", True
        )
    low_above = float(np.quantile(above, _STRAYS))
    if low > LOW_BUILDING_M >= low_above:
        return Verdict(
            "absolute",
            f"19 of 20 numbers are above {low:.4g}, and above the ground by {low_above:.3g} "
            "or more",
            True,
        )
    slope, error = _slope(ground[both], height[both])
    follows, ignores = abs(slope - 1) <= 3 * error, abs(slope) <= 3 * error
    if follows != ignores and error < 0.3:
        return Verdict(
            "absolute" if follows else "relative",
            f"where the ground rises by 1 m the numbers rise by {slope:.2f} ± {error:.2f} m",
            True,
        )
    return Verdict(named, "its numbers may be either: its name decides", False)


def _slope(x: Floats, y: Floats) -> tuple[float, float]:
    """Return the slope of the regression of y on x and its standard error; inf where x is flat."""
    centred = x - x.mean()
    spread = float((centred**2).sum())
    if spread < 1e-9 or len(x) < 3:
        return 0.0, np.inf
    slope = float((centred * (y - y.mean())).sum()) / spread
    rest = y - y.mean() - slope * centred
    return slope, float(np.sqrt((rest**2).sum() / (len(x) - 2) / spread))


def judge_part_base(part: Floats, top: Floats, ground: Floats) -> Verdict | None:
    """Decide whether parts begin at a height above ground or at an elevation.

    Args:
        part: (N,) where parts begin, metres; NaN and 0 for what begins on the ground.
        top: (N,) heights of the buildings above ground.
        ground: (N,) elevations of the ground, NaN for missing.

    Returns:
        None where there are too few parts above the ground to say anything.
    """
    given = np.isfinite(part) & (part > 0) & np.isfinite(top)
    if given.sum() < MIN_ROWS:
        return None
    over = float((part >= top)[given].mean())
    if over <= 0.5:
        return Verdict("relative", f"{1 - over:.0%} begin below the top of their building", True)
    above = (part - ground)[given & np.isfinite(ground)]
    tops = top[given & np.isfinite(ground)]
    fits = float(((above >= -0.5) & (above < tops)).mean()) if len(above) else 0.0
    if fits >= 0.9:
        return Verdict(
            "absolute",
            f"{over:.0%} would begin above the top of their building, and {fits:.0%} fit between "
            "ground and top as elevations",
            True,
        )
    return Verdict("relative", f"{over:.0%} begin above the top of their building", False)


def warn_of_numbers(columns: HeightColumns, read: Mapping[str, Floats], findings: Findings) -> None:
    """Report numbers that seem to be in another unit or in each other's column.

    Args:
        columns: how the columns are read.
        read: role -> (N,) numbers of the sample.
        findings: receives warnings that name the remedy.
    """
    height, roof, ground, floors = (read[r] for r in ("height", "roof", "ground", "floors"))
    exchanged = np.isfinite(roof) & np.isfinite(ground)
    if exchanged.sum() >= MIN_ROWS and float((roof < ground)[exchanged].mean()) > 0.5:
        findings.add(
            "roof-below-ground",
            "warning",
            f"most roofs in {columns.roof!r} lie below the ground in {columns.ground!r}: if the "
            f"columns are exchanged, give --roof-field {columns.ground} "
            f"--base-field {columns.roof}",
        )
    above = height if columns.height else roof - ground
    name = columns.height or columns.roof
    if unit := _unit(above, floors):
        findings.add(
            "height-unit",
            "warning",
            f"{name!r} seems to hold {unit}, not metres: convert the column in the source",
        )


def _unit(height: Floats, floors: Floats) -> str | None:
    storeyed = (height > 0) & (floors >= 1) & (floors <= 250)
    if storeyed.sum() >= MIN_ROWS:
        storey = float(np.median(height[storeyed] / floors[storeyed]))
        return next((unit for low, high, unit in _STOREY_UNITS if low <= storey <= high), None)
    given = height[np.isfinite(height) & (height > 0)]
    if len(given) >= MIN_ROWS and float(np.median(given)) > _TALL_HALF_M:
        return f"something (half of it is above {np.median(given):.4g})"
    return None


def is_ambiguous(columns: HeightColumns) -> bool:
    """Say whether the name of the height column leaves open what it holds."""
    return columns.height is not None and columns.height.casefold() not in CLEAR_NAMES


def read_differently(columns: HeightColumns, verdict: Verdict) -> HeightColumns:
    """Return the columns with the height column read as a verdict says."""
    if verdict.mode == "relative":
        return columns
    evidence = f"{columns.evidence}, read as elevations of roofs"
    return replace(columns, height=None, roof=columns.height, evidence=evidence)
