"""The frame of a point cloud: units of height, and geocentric coordinates, made plain.

Clouds come with heights in feet and with ECEF coordinates, which a `SpatialRef` does not hold: its
heights are metres over a datum. What a file states is taken apart here, once, into the `SpatialRef`
of the decoded points and what decoding has to do to get there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from tiling.crs import SpatialRef, geodetic_of, parse_crs

# Metres in a unit of heights, by the name users give it.
UNITS = {"metre": 1.0, "foot": 0.3048, "us-foot": 1200 / 3937}


@dataclass(frozen=True, slots=True)
class PointFrame:
    """What stated coordinates are and become.

    Attributes:
        ref: the frame of the decoded points, heights in metres.
        z_unit_m: metres in a unit of the stated heights.
        geocentric: whether ECEF metres are stated; `ref` is then longitude, latitude, height.
        states_unit: whether the unit of heights is stated, not assumed.
    """

    ref: SpatialRef
    z_unit_m: float = 1.0
    geocentric: bool = False
    states_unit: bool = True

    @classmethod
    def parse(cls, text: str) -> PointFrame:
        """Take a frame apart, given as `SpatialRef.parse` takes it, or a geocentric one.

        Heights without a stated unit are counted in the unit of the horizontal coordinates when
        these are lengths, in metres when they are degrees.

        Raises:
            CrsMissing: see `SpatialRef.parse`.
        """
        return _parse(text)

    @property
    def assumption(self) -> str:
        """What was assumed of heights; empty when nothing was."""
        if self.states_unit or self.z_unit_m == 1.0:
            return ""
        return f"no unit of heights is stated: they are counted in {self.unit} as x and y are"

    def with_unit(self, name: str) -> PointFrame:
        """Return the frame with heights in the unit of that name, one of `UNITS`."""
        return replace(self, z_unit_m=UNITS[name], states_unit=True)

    @property
    def unit(self) -> str:
        """Name of the unit of the stated heights."""
        near = (name for name, metres in UNITS.items() if abs(self.z_unit_m / metres - 1) < 1e-9)
        return next(near, f"units of {self.z_unit_m} m")


@lru_cache(maxsize=256)
def _parse(text: str) -> PointFrame:
    crs = _parsed(text)
    if crs is not None and crs.is_geocentric:
        return PointFrame(geodetic_of(crs), geocentric=True)
    ref = SpatialRef.parse(text)
    unit = 1.0 if crs is None and ref.vertical is not None else _unit_of_heights(crs)
    if unit is not None:
        return PointFrame(ref, unit)
    flat = float(ref.crs.axis_info[0].unit_conversion_factor) if ref.is_projected else 1.0
    return PointFrame(ref, flat, states_unit=False)


def _parsed(text: str) -> Any:
    """Return PROJ's CRS; None for what `SpatialRef.parse` alone knows (``GCJ-02``)."""
    stated = text.strip("\ufeff \t\r\n\0")
    ours = stated.upper().startswith(("GCJ", "BD"))
    if ours or ("+" in stated and not stated.startswith("+") and "[" not in stated):
        return None
    return parse_crs(f"EPSG:{stated}" if stated.isdecimal() else stated)


def _unit_of_heights(crs: Any) -> float | None:
    """Return metres in the unit of the vertical axis; None when there is none."""
    if crs is None:
        return None
    if crs.is_bound and crs.source_crs is not None:
        return _unit_of_heights(crs.source_crs)
    if crs.is_compound:
        return float(crs.sub_crs_list[1].axis_info[0].unit_conversion_factor)
    return float(crs.axis_info[2].unit_conversion_factor) if len(crs.axis_info) == 3 else None
