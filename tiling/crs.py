"""Frames and the way between them: the only module that imports pyproj.

A `SpatialRef` is a horizontal CRS *and* a vertical datum; nothing is assumed about either. The one
idea: PROJ does the horizontal step alone, the vertical step is ours (`tiling.geoid`), and steps
that PROJ would skip in silence are either refused or written into the `ShiftRecord`. Longitude
(easting) first, always.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import pyproj
import shapely
from numpy.typing import ArrayLike, NDArray
from pyproj.crs import CompoundCRS, GeographicCRS
from pyproj.crs.coordinate_system import Ellipsoidal2DCS
from pyproj.crs.enums import Ellipsoidal2DCSAxis
from pyproj.enums import WktVersion
from pyproj.exceptions import CRSError, ProjError

from tiling.areas import explain
from tiling.bounds import Region
from tiling.ellipsoid import ecef_to_geodetic, enu_to_ecef_matrix, geodetic_to_ecef
from tiling.errors import CrsMissing, DatumUndeclared, OutsideArea, SourceError
from tiling.gcj02 import (
    bd09_to_cgcs2000,
    cgcs2000_to_bd09,
    cgcs2000_to_gcj02,
    gcj02_to_cgcs2000,
)
from tiling.geoid import ELLIPSOIDAL, VerticalDatum, parse_vertical
from tiling.shifts import ShiftRecord, null_shift, stated_accuracy

if TYPE_CHECKING:
    from tiling.batches import FeatureBatch

__all__ = [
    "CGCS2000_REF",
    "TILE_REF",
    "Offset",
    "ShiftRecord",
    "SpatialRef",
    "bd09_to_cgcs2000",
    "cgcs2000_to_bd09",
    "cgcs2000_to_gcj02",
    "describe_shift",
    "ecef_to_geodetic",
    "enu_to_ecef_matrix",
    "gcj02_to_cgcs2000",
    "geodetic_of",
    "geodetic_to_ecef",
    "parse_crs",
    "reframe",
    "to_lonlat",
    "transform_points",
]

Offset = Literal["GCJ-02", "BD-09"]
FloatArray: TypeAlias = NDArray[np.float64]

_OFFSETS: dict[str, Offset] = {
    "GCJ-02": "GCJ-02",
    "GCJ02": "GCJ-02",
    "BD-09": "BD-09",
    "BD09": "BD-09",
    "BD09LL": "BD-09",
}
# A code with a vertical part behind a plus sign; PROJ strings begin with one and do not match.
_COMPOUND = re.compile(r"((?:EPSG:)?\d+|(?:GCJ|BD)-?\d+(?:LL)?)\s*\+\s*(.+)", re.IGNORECASE)
_REMEDY = "declare it: --crs EPSG:4547 (or another code), WKT, GCJ-02, BD-09"
# Of PROJ's match confidences, 70 and more mean equal parameters; 25 and 50 are guesses that
# `_same_projection` has to confirm.
_CONFIDENT, _GUESSED = 70, 25
_STRAY_DEG = 10.0


@dataclass(frozen=True, slots=True)
class SpatialRef:
    """The frame of coordinates; hashable and picklable.

    Attributes:
        crs: horizontal CRS, two-dimensional.
        vertical: what heights are counted from; None when nobody declared it.
        offset: the shift of internet maps that the coordinates carry on top of `crs`.
        note: empty, or what `parse` could not take over as stated; belongs into reports.
    """

    crs: pyproj.CRS
    vertical: VerticalDatum | None = None
    offset: Offset | None = None
    note: str = field(default="", compare=False)

    @classmethod
    def parse(cls, text: str) -> SpatialRef:
        """Make a frame from what a file or a user says.

        Args:
            text: ``EPSG:4547``, ``EPSG:4490+5737``, WKT of any kind (ESRI's too), PROJ strings,
                PROJJSON, ``GCJ-02``, ``BD-09``. A code may carry ``+`` and a vertical datum as
                `parse_vertical` takes it, so `code` can be parsed back (unless it names a grid
                file). A vertical part that cannot be computed leaves `vertical` None, and `note`
                says so.

        Raises:
            CrsMissing: empty, unknown, local or vertical only.
        """
        stated = text.strip("\ufeff \t\r\n\0")
        compound = _COMPOUND.fullmatch(stated)
        if compound is not None:
            vertical, note = _stated_vertical(compound[2], stated)
            return replace(cls.parse(compound[1]), vertical=vertical, note=note)
        offset = _OFFSETS.get(stated.upper())
        if offset is not None:
            return cls(parse_crs("EPSG:4490"), None, offset)
        return cls.of(parse_crs(f"EPSG:{stated}" if stated.isdecimal() else stated))

    @classmethod
    def of(cls, crs: pyproj.CRS) -> SpatialRef:
        """Make a frame from a CRS, taking compound and three-dimensional ones apart.

        Raises:
            CrsMissing: the CRS does not place anything on the Earth's surface.
        """
        if crs.is_compound:
            horizontal, height = crs.sub_crs_list[0], crs.sub_crs_list[1]
            vertical, note = _vertical_of(height)
            return replace(cls.of(horizontal), vertical=vertical, note=note)
        flat = crs.source_crs if crs.is_bound and crs.source_crs is not None else crs
        if not (flat.is_geographic or flat.is_projected):
            raise CrsMissing(
                f"{crs.name!r} is a {crs.type_name}: it places nothing on the map", remedy=_REMEDY
            )
        if len(flat.axis_info) == 3:
            # The third axis of a geographic or projected 3D CRS is the height above the ellipsoid.
            return cls(_canonical(crs.to_2d()), ELLIPSOIDAL)
        return cls(_canonical(crs))

    @property
    def code(self) -> str:
        """``EPSG:4547``, ``GCJ-02``, or the CRS's name; with ``+5737`` where it has a datum code.

        Other datums are appended in words: ``EPSG:4547+ellipsoidal``, ``EPSG:4547+offset:-18.9``.
        """
        base = self.offset or self.horizontal_code
        if self.vertical is None:
            return base
        return f"{base}+{self.vertical.code.removeprefix('EPSG:')}"

    @property
    def horizontal_code(self) -> str:
        """``AUTHORITY:CODE`` of the horizontal CRS, or its name when it has none."""
        authority = self.crs.to_authority(min_confidence=100)
        return ":".join(authority) if authority else self.crs.name

    @property
    def is_projected(self) -> bool:
        """Whether coordinates are lengths rather than degrees."""
        return bool(self.crs.is_projected)

    @property
    def unit_m(self) -> float:
        """Metres in the unit of projected coordinates; 1 for degrees."""
        return float(self.crs.axis_info[0].unit_conversion_factor) if self.is_projected else 1.0

    def to_wkt1(self) -> str:
        """Return the frame as WKT 1, which LAS wants; compound where the datum has a code.

        Raises:
            CrsMissing: WKT 1 cannot say it.
        """
        crs = self.crs
        if self.vertical is not None and self.vertical.code.startswith("EPSG:"):
            height = parse_crs(self.vertical.code)
            crs = CompoundCRS(f"{crs.name} + {height.name}", [crs, height])
        try:
            return str(crs.to_wkt(WktVersion.WKT1_GDAL))
        except CRSError as error:
            raise CrsMissing(f"{self.code} cannot be said in WKT 1: {error}") from error

    def with_vertical(self, vertical: VerticalDatum | None) -> SpatialRef:
        """Return the same horizontal frame with another vertical datum."""
        return replace(self, vertical=vertical)

    def same_horizontal(self, other: SpatialRef) -> bool:
        """Say whether both have the same horizontal coordinates."""
        return self.offset == other.offset and self.crs == other.crs

    def to_json(self) -> dict[str, Any]:
        """Return the frame as a JSON object: a code where it says everything, WKT2 elsewhere."""
        return {
            "crs": _definition(self.crs),
            "vertical": None if self.vertical is None else self.vertical.to_json(),
            "offset": self.offset,
            "note": self.note,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> SpatialRef:
        """Make a frame from what `to_json` returned."""
        vertical = data["vertical"]
        return cls(
            parse_crs(data["crs"]),
            None if vertical is None else VerticalDatum.from_json(vertical),
            data["offset"],
            data["note"],
        )


@lru_cache(maxsize=256)
def parse_crs(text: str) -> pyproj.CRS:
    """Return the CRS of a code, WKT, PROJ string or PROJJSON, taken as it is; made once.

    Raises:
        CrsMissing: there is no such CRS.
    """
    try:
        return pyproj.CRS.from_user_input(text)
    except CRSError as error:
        shown = text if len(text) <= 80 else f"{text[:80]}..."
        problem = f"no such coordinate reference system: {shown!r}" if text else "no CRS is stated"
        raise CrsMissing(problem, remedy=_REMEDY) from error


def geodetic_of(crs: pyproj.CRS) -> SpatialRef:
    """Return longitude, latitude and ellipsoidal height on the datum of a geocentric CRS.

    Raises:
        CrsMissing: its ellipsoid is not that of WGS 84 to within a millimetre.
    """
    if not _like_wgs84(crs):
        raise CrsMissing(f"{crs.name!r} is geocentric on another ellipsoid", remedy=_REMEDY)
    axes = Ellipsoidal2DCS(axis=Ellipsoidal2DCSAxis.LATITUDE_LONGITUDE)
    flat = GeographicCRS(name=crs.name, datum=crs.datum, ellipsoidal_cs=axes)
    return SpatialRef(_canonical(flat), ELLIPSOIDAL)


def _canonical(crs: pyproj.CRS) -> pyproj.CRS:
    """Replace a CRS by its EPSG entry when the parameters are the same."""
    return _canonical_of(crs.srs)


@lru_cache(maxsize=256)
def _canonical_of(srs: str) -> pyproj.CRS:
    crs = parse_crs(srs)
    # A bound CRS holds the user's own datum shift, which an EPSG entry would drop.
    code = None if crs.is_bound else _epsg_of(crs)
    # Through the definition, so that what is read back is equal to the hash.
    return parse_crs(_definition(crs) if code is None else f"EPSG:{code}")


def _epsg_of(crs: pyproj.CRS) -> int | None:
    """Return the EPSG code whose parameters and datum equal those of `crs`, by whatever name."""
    code = crs.to_epsg(min_confidence=_CONFIDENT)
    if code is None and crs.is_projected:
        guess = crs.to_epsg(min_confidence=_GUESSED)
        code = guess if guess and _same_projection(crs, parse_crs(f"EPSG:{guess}")) else None
    return None if code is None else int(code)


def _same_projection(a: pyproj.CRS, b: pyproj.CRS) -> bool:
    x, y = a.coordinate_operation, b.coordinate_operation
    if a.datum != b.datum or x is None or y is None or x.method_code != y.method_code:
        return False
    mine, theirs = ({p.code: _si(p) for p in step.params} for step in (x, y))
    units = [{axis.unit_conversion_factor for axis in c.axis_info} for c in (a, b)]
    return (
        units[0] == units[1]
        and mine.keys() == theirs.keys()
        and np.allclose([mine[code] for code in theirs], list(theirs.values()), 1e-12, 1e-12)
    )


def _si(parameter: Any) -> float:
    return float(parameter.value) * float(parameter.unit_conversion_factor)


def _definition(crs: pyproj.CRS) -> str:
    authority = crs.to_authority(min_confidence=100)
    if authority is not None:
        code = ":".join(authority)
        if parse_crs(code) == crs:
            return code
    return str(crs.to_wkt())


def _stated_vertical(text: str, whole: str) -> tuple[VerticalDatum | None, str]:
    code = f"EPSG:{text}" if text.isdecimal() else text
    if not code.upper().startswith("EPSG:"):
        return parse_vertical(code), ""
    crs = parse_crs(code)
    if not crs.is_vertical:
        raise CrsMissing(
            f"{code} ({crs.name}) in {whole!r} is no vertical datum",
            remedy="write EPSG:horizontal+vertical, e.g. EPSG:4490+5737",
        )
    return _vertical_of(crs)


def _vertical_of(crs: pyproj.CRS) -> tuple[VerticalDatum | None, str]:
    epsg = _epsg_of(crs)
    name = f"EPSG:{epsg}" if epsg else crs.name
    try:
        return parse_vertical(name), ""
    except DatumUndeclared as error:
        return None, f"the vertical datum {crs.name!r} ({name}) is not used: {error.problem}"


TILE_REF = SpatialRef(pyproj.CRS.from_epsg(4326), ELLIPSOIDAL)
CGCS2000_REF = SpatialRef(pyproj.CRS.from_epsg(4490), ELLIPSOIDAL)


@dataclass(frozen=True, slots=True)
class _Step:
    transformer: pyproj.Transformer | None
    null_shift: bool


@lru_cache(maxsize=256)
def _step(source: str, target: str) -> _Step:
    """Return the horizontal step; made once, because 4490 -> 3857 costs 55 ms to make."""
    src, dst = parse_crs(source), parse_crs(target)
    if src == dst:
        return _Step(None, False)
    try:
        exact = pyproj.Transformer.from_crs(src, dst, always_xy=True, allow_ballpark=False)
        return _Step(exact, False)
    except ProjError as error:
        strange = [c for c in (src, dst) if not _like_wgs84(c)]
        if strange:
            datum = strange[0].geodetic_crs or strange[0]
            raise SourceError(
                f"no datum shift is known from {src.name!r} to {dst.name!r}; without one the "
                "result would be off by up to some hundred metres",
                remedy=f"give {datum.name!r} with local parameters, as WKT or as a PROJ string "
                "with +towgs84=..., to --crs",
            ) from error
    return _Step(pyproj.Transformer.from_crs(src, dst, always_xy=True), True)


def _like_wgs84(crs: pyproj.CRS) -> bool:
    # Ellipsoids of the space age (WGS 84, GRS 80, CGCS2000) belong to geocentric datums that agree
    # within a metre or two; Krasovsky, IAG 1975, Clarke ... do not.
    shape = crs.ellipsoid
    return (
        shape is not None
        and abs(shape.semi_major_metre - 6378137.0) < 0.5
        and abs(shape.inverse_flattening - 298.2572) < 1e-3
    )


def _run_step(src: pyproj.CRS, dst: pyproj.CRS, x: FloatArray, y: FloatArray) -> tuple[Any, Any]:
    transformer = _step(src.srs, dst.srs).transformer
    if transformer is None:
        return x, y
    return transformer.transform(x, y)


def _horizontal(
    src: SpatialRef, dst: SpatialRef, x: FloatArray, y: FloatArray
) -> tuple[FloatArray, FloatArray]:
    if src.same_horizontal(dst):
        return x, y
    if src.offset is not None:
        x, y = (gcj02_to_cgcs2000 if src.offset == "GCJ-02" else bd09_to_cgcs2000)(x, y)
    x, y = _run_step(src.crs, dst.crs, x, y)
    if dst.offset is not None:
        x, y = (cgcs2000_to_gcj02 if dst.offset == "GCJ-02" else cgcs2000_to_bd09)(x, y)
    return x, y


def to_lonlat(ref: SpatialRef, x: ArrayLike, y: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Return longitude and latitude (degrees, WGS 84) of (N,) coordinates in `ref`.

    Points that the projection cannot reach come back as inf.
    """
    xs, ys = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    return _horizontal(ref, TILE_REF, xs, ys)


def transform_points(
    src: SpatialRef,
    dst: SpatialRef,
    x: ArrayLike,
    y: ArrayLike,
    z: ArrayLike | None = None,
) -> tuple[FloatArray, FloatArray, FloatArray | None]:
    """Transform points between frames, horizontally by PROJ and vertically by `tiling.geoid`.

    Args:
        src, dst: the frames.
        x, y: (N,) easting or longitude, northing or latitude, in the units of `src`.
        z: (N,) metres in ``src.vertical``, or None.

    Returns:
        x, y and z in `dst`, (N,) float64 each; z is None when none was given. Points that a
        projection cannot reach come back as inf; `reframe` refuses them.

    Raises:
        DatumUndeclared: heights are given and just one of the two vertical datums is known.
        SourceError: no datum shift is known between the two.
        OutsideArea: a point lies outside a user's geoid grid.
    """
    xs, ys = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    new_x, new_y = _horizontal(src, dst, xs, ys)
    if z is None:
        return new_x, new_y, None
    heights = np.asarray(z, dtype=np.float64)
    if src.vertical == dst.vertical:
        return new_x, new_y, heights
    if src.vertical is None or dst.vertical is None:
        blind = src if src.vertical is None else dst
        raise DatumUndeclared(
            f"heights cannot go from {src.code} to {dst.code}: {blind.code} has no vertical datum",
            remedy="declare it: --vertical EPSG:5737, ellipsoidal, offset:METRES or grid:FILE",
        )
    lon, lat = (new_x, new_y) if dst.same_horizontal(TILE_REF) else to_lonlat(src, xs, ys)
    shift = src.vertical.separation(lon, lat) - dst.vertical.separation(lon, lat)
    return new_x, new_y, heights + shift


def describe_shift(
    src: SpatialRef, dst: SpatialRef, place: tuple[float, float] | None = None
) -> ShiftRecord:
    """Say how coordinates go from one frame to another, without any.

    Args:
        src, dst: the frames.
        place: longitude and latitude (degrees) in the data: PROJ chooses between operations by
            place. None takes the middle of the area that the source CRS is made for.

    Raises:
        SourceError: no datum shift is known between the two.
    """
    assumptions = [s for s in (src.note,) if s]
    step = _step(src.crs.srs, dst.crs.srs)
    parts, accuracy = [], "exact: the same horizontal coordinates"
    if src.offset is not None:
        parts.append(f"inverse of the {src.offset} shift (fixed point, under 1 mm)")
    if step.transformer is not None:
        there = place or _middle(src.crs)
        used = step.transformer
        if used.description.startswith("unavailable"):
            # Several operations were candidates; which one ran is known only afterwards.
            used.transform(*_horizontal(TILE_REF, SpatialRef(src.crs), *np.array(there)))
            used = step.transformer.get_last_used_operation()
        parts.append(used.description)
        accuracy, doubt = _accuracy(used, there)
        assumptions += [doubt] if doubt else []
    if step.null_shift:
        accuracy, assumed = null_shift(*((c.geodetic_crs or c).name for c in (src.crs, dst.crs)))
        assumptions.append(assumed)
    if dst.offset is not None:
        parts.append(f"{dst.offset} shift")
    if src.vertical is not None and dst.vertical is not None and src.vertical != dst.vertical:
        parts.append(f"heights from {src.vertical.code} to {dst.vertical.code}")
        assumptions += [v.approximated for v in (src.vertical, dst.vertical) if v.approximated]
    return ShiftRecord(
        src.code,
        dst.code,
        " + ".join(parts) or "none",
        accuracy,
        step.null_shift,
        tuple(assumptions),
    )


def _middle(crs: pyproj.CRS) -> tuple[float, float]:
    area = crs.area_of_use
    if area is None:
        return 114.0, 31.0
    return (area.west + area.east) / 2, (area.south + area.north) / 2


def _accuracy(used: pyproj.Transformer, place: tuple[float, float]) -> tuple[str, str]:
    area = used.area_of_use
    # An area across the antimeridian is no Region; nothing is said about the place then.
    known = area is not None and area.west <= area.east
    meant_for = Region(area.west, area.south, area.east, area.north) if known else None
    return stated_accuracy(used.description, used.accuracy, meant_for, place)


def reframe(
    batch: FeatureBatch, ref: SpatialRef, source: str | Path | None = None
) -> tuple[FeatureBatch, ShiftRecord]:
    """Bring a batch into another frame: the one conversion that features ever go through.

    Heights of 3D geometries are shifted when both vertical datums are known. When one is not,
    they are kept as they are and the result says so: its `ref` keeps the source's datum (or None).

    Args:
        batch: N features in any frame.
        ref: the frame wanted.
        source: the file, for messages.

    Returns:
        the batch in `ref` (a new one; attributes and ids shared) and how it got there.

    Raises:
        OutsideArea: a coordinate that is not finite, or that has no place in `ref`.
        SourceError: no datum shift is known between the frames.
    """
    has_z = shapely.has_z(batch.geometry)
    blind = has_z.any() and (batch.ref.vertical is None or ref.vertical is None)
    target = ref.with_vertical(batch.ref.vertical) if blind else ref

    def flat(x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
        return transform_points(batch.ref, target, x, y)[:2]

    def deep(x: FloatArray, y: FloatArray, z: FloatArray) -> tuple[Any, ...]:
        return transform_points(batch.ref, target, x, y, z)

    moved = np.empty(len(batch), dtype=object)
    moved[~has_z] = shapely.transform(batch.geometry[~has_z], flat, interleaved=False)
    if has_z.any():
        moved[has_z] = shapely.transform(
            batch.geometry[has_z], deep, include_z=True, interleaved=False
        )
    _require_place(batch, moved, ref, source)
    record = describe_shift(batch.ref, target, _sample_place(moved, target))
    if blind and batch.ref.vertical is None and ref.vertical is not None:
        kept = "heights of 3D geometries are kept as they are: their vertical datum is not declared"
        record = replace(record, assumptions=(*record.assumptions, kept))
    return replace(batch, ref=target, geometry=moved), record


def _sample_place(geometry: NDArray[np.object_], ref: SpatialRef) -> tuple[float, float] | None:
    counts = np.flatnonzero(shapely.get_num_coordinates(geometry))
    if not counts.size:
        return None
    first = shapely.get_coordinates(geometry[counts[0]])[0]
    lon, lat = to_lonlat(ref, first[:1], first[1:2])
    return float(lon[0]), float(lat[0])


def _require_place(
    batch: FeatureBatch, moved: NDArray[np.object_], ref: SpatialRef, source: str | Path | None
) -> None:
    coordinates, owner = shapely.get_coordinates(moved, return_index=True)
    bad = ~np.isfinite(coordinates).all(axis=1)
    if not bad.any():
        bad = _misplaced(batch.ref, ref, coordinates)
    if not bad.any():
        return
    raw = shapely.get_coordinates(batch.geometry)
    x, y = raw[int(np.flatnonzero(bad)[0])]
    features = np.unique(batch.ids[owner[bad]])
    diagnosis, remedy = explain(raw[bad, 0], raw[bad, 1])
    raise OutsideArea(
        f"{features.size} of {len(batch)} features hold coordinates that have no place in "
        f"{batch.ref.code}, e.g. {x:.10g}, {y:.10g} of feature {features[0]}"
        + (f": {diagnosis}" if diagnosis else ""),
        source=source,
        remedy=remedy,
    )


def _misplaced(
    src: SpatialRef, dst: SpatialRef, coordinates: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Mark points off the globe, and points many zones away from what the source CRS is made for.

    Steps between equal datums pass a latitude of 113 through. Transverse Mercator answers
    everywhere: northings read as eastings land in the sea, and for southern provinces still inside
    a box around China. No city's data strays ten degrees.
    """
    lon, lat = to_lonlat(dst, coordinates[:, 0], coordinates[:, 1])
    marked: NDArray[np.bool_] = (np.abs(lat) > 90.0) | (np.abs(lon) > 360.0)
    area = src.crs.area_of_use
    if area is None or not src.is_projected or area.west > area.east:
        return marked
    marked |= (lon < area.west - _STRAY_DEG) | (lon > area.east + _STRAY_DEG)
    marked |= (lat < area.south - _STRAY_DEG) | (lat > area.north + _STRAY_DEG)
    return marked
