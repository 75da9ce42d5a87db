"""Vertical datums: what a height H is measured from, and how far that is from the ellipsoid.

The one idea: PROJ returns heights unchanged, without a word, when it lacks a geoid grid; so the
vertical step is taken here, explicitly, and never by PROJ. Every datum answers one question, the
separation N at a place, with ``h_ellipsoidal = H + N``. Metres; longitude and latitude in degrees
on WGS 84 (or CGCS2000, equal at this precision).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tiling.errors import DatumUndeclared, SourceError
from tiling.geoid_grid import bundled_egm96, load_grid

Kind = Literal["ellipsoidal", "grid", "offset"]


@dataclass(frozen=True, slots=True)
class VerticalDatum:
    """The surface that heights are counted from; hashable and picklable.

    Attributes:
        kind: ``ellipsoidal`` (N = 0), ``offset`` (N is a constant) or ``grid`` (N is interpolated).
        code: how a user writes it, e.g. ``EPSG:5737``, ``ellipsoidal``, ``offset:-18.9``.
        offset_m: metres added to the separation; the whole of it for ``offset``.
        grid: absolute path of a grid file; None for the bundled EGM96.
        approximated: empty, or a sentence about what was taken for what; it belongs into reports.
    """

    kind: Kind
    code: str
    offset_m: float = 0.0
    grid: str | None = None
    approximated: str = ""

    def separation(self, lon_deg: ArrayLike, lat_deg: ArrayLike) -> NDArray[np.float64]:
        """Return the height of the datum's zero surface above the ellipsoid.

        Args:
            lon_deg: (N,) degrees; any multiple of 360 may be added.
            lat_deg: (N,) degrees.

        Returns:
            (N,) float64 metres: ``h_ellipsoidal = H + separation``. NaN where a coordinate is NaN.

        Raises:
            OutsideArea: a point lies outside a user's grid.
            SourceUnreadable: the grid file cannot be read.
        """
        lon, lat = np.broadcast_arrays(
            np.asarray(lon_deg, dtype=np.float64), np.asarray(lat_deg, dtype=np.float64)
        )
        if self.kind != "grid":
            return np.full(lon.shape, self.offset_m)
        grid = bundled_egm96() if self.grid is None else load_grid(self.grid)
        return grid.interpolate(lon, lat) + self.offset_m

    def separation_axes(
        self, lon_deg: NDArray[np.float64], lat_deg: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return the separation at the crossings of meridians and parallels.

        Args:
            lon_deg: (n,) degrees; any multiple of 360 may be added.
            lat_deg: (m,) degrees.

        Returns:
            (m, n) float64 metres, at a place as `separation` says (but for the order of sums);
            NaN outside a user's grid.

        Raises:
            SourceUnreadable: the grid file cannot be read.
        """
        if self.kind != "grid":
            return np.full((len(lat_deg), len(lon_deg)), self.offset_m)
        grid = bundled_egm96() if self.grid is None else load_grid(self.grid)
        return grid.interpolate_axes(lon_deg, lat_deg) + self.offset_m

    def to_json(self) -> dict[str, Any]:
        """Return the datum as a JSON object."""
        return {
            "kind": self.kind,
            "code": self.code,
            "offset_m": self.offset_m,
            "grid": self.grid,
            "approximated": self.approximated,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> VerticalDatum:
        """Make a datum from what `to_json` returned."""
        return cls(data["kind"], data["code"], data["offset_m"], data["grid"], data["approximated"])


ELLIPSOIDAL = VerticalDatum("ellipsoidal", "ellipsoidal")

# The origin of 1985 at Qingdao is 72.260 m, that of 1956 72.289 m (GB 22021-2008): a height of
# 1956 is 0.029 m more than the same point's height of 1985.
_YELLOW_SEA_1956_OFFSET_M = -0.029

# A datum that a user may name is one row here.
_KNOWN: dict[str, VerticalDatum] = {
    "ELLIPSOIDAL": ELLIPSOIDAL,
    "EPSG:5773": VerticalDatum("grid", "EPSG:5773"),
    "EPSG:5737": VerticalDatum(
        "grid",
        "EPSG:5737",
        approximated="EPSG:5737 (1985 national height datum) taken through EGM96: absolute heights "
        "may be off by decimetres, in mountains by a metre; a city's own quasi-geoid grid "
        "(grid:FILE) removes this",
    ),
    "EPSG:5736": VerticalDatum(
        "grid",
        "EPSG:5736",
        offset_m=_YELLOW_SEA_1956_OFFSET_M,
        approximated="EPSG:5736 (Yellow Sea 1956) taken as the 1985 national height datum less "
        "0.029 m, and that through EGM96: absolute heights may be off by decimetres, in mountains "
        "by a metre; a city's own quasi-geoid grid (grid:FILE) removes this",
    ),
}

_NAMES: dict[str, str] = {
    "WGS84": "ELLIPSOIDAL",
    "大地高": "ELLIPSOIDAL",
    "EGM96": "EPSG:5773",
    "1985国家高程基准": "EPSG:5737",
    "1985": "EPSG:5737",
    "1956年黄海高程系": "EPSG:5736",
    "1956黄海高程": "EPSG:5736",
}

SUPPORTED = "ellipsoidal | EPSG:5737 | EPSG:5773 | EPSG:5736 | offset:METRES | grid:FILE"

_MAX_OFFSET_M = 12_000.0


def parse_vertical(text: str) -> VerticalDatum:
    """Make a vertical datum from what a user wrote.

    Args:
        text: ``ellipsoidal``, ``EPSG:5737`` (1985 national height datum), ``EPSG:5773`` (EGM96),
            ``EPSG:5736`` (Yellow Sea 1956), ``offset:METRES`` (h = H + METRES) or ``grid:FILE``
            (``.gtx``, GeoTIFF of PROJ's kind, ESRI ``.asc``, or the ``.DAC`` layout of EGM96).

    Raises:
        DatumUndeclared: the datum is unknown, or known but cannot be computed here.
        SourceUnreadable: the grid file is missing or damaged.
    """
    stated = text.strip()
    prefix, _, rest = stated.partition(":")
    if prefix.lower() == "offset":
        return _offset(rest, stated)
    if prefix.lower() == "grid":
        return _user_grid(rest)
    name = _NAMES.get(stated.upper(), stated.upper())
    datum = _KNOWN.get(name)
    if datum is None:
        raise DatumUndeclared(
            f"the vertical datum {stated!r} cannot be computed here{_reason(name)}",
            remedy=f"declare one of: {SUPPORTED}",
        )
    return datum


def _reason(name: str) -> str:
    if name == "EPSG:3855":
        return ": no EGM2008 grid is bundled; name one with grid:FILE (us_nga_egm08_25.tif)"
    if name in ("EPSG:5714", "MSL"):
        return ": 'mean sea level' does not say which; EPSG:5773 (EGM96) is the usual assumption"
    return ""


def _offset(number: str, stated: str) -> VerticalDatum:
    try:
        metres = float(number)
    except ValueError:
        metres = math.nan
    if not abs(metres) <= _MAX_OFFSET_M:
        raise DatumUndeclared(
            f"the vertical offset {stated!r} is no number of metres",
            remedy="write offset:METRES with h_ellipsoidal = H + METRES, e.g. offset:-18.85",
        )
    return VerticalDatum("offset", f"offset:{metres:g}", offset_m=metres)


def _user_grid(path: str) -> VerticalDatum:
    if not path.strip():
        raise SourceError("grid: names no file", remedy="write grid:FILE with a .gtx or .tif file")
    absolute = Path(path.strip()).expanduser().resolve()
    # Loaded now, so that a wrong file is refused before the work begins.
    load_grid(str(absolute))
    return VerticalDatum("grid", f"grid:{absolute.name}", grid=str(absolute))
