"""Where a model stands: the place of its origin, which way it is turned, and how large a unit is.

Models know east, north and up of their own; nothing in OBJ or glTF says where on the Earth.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from tiling.ellipsoid import ecef_to_geodetic, enu_to_ecef_matrix
from tiling.errors import ConfigError

Up = Literal["y", "z"]
FORM = "LON,LAT,HEIGHT[,HEADING[,SCALE]]"
_NAMES = ("lon", "lat", "height", "heading", "scale")


@dataclass(frozen=True, slots=True)
class Placement:
    """The place of a model's origin.

    Attributes:
        lon_deg, lat_deg: degrees, WGS 84 / CGCS2000.
        height_m: metres in the vertical datum that is declared for the asset.
        heading_deg: clockwise from north, where the model's own north points.
        scale: metres of a unit of the model.
    """

    lon_deg: float
    lat_deg: float
    height_m: float
    heading_deg: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        values = (self.lon_deg, self.lat_deg, self.height_m, self.heading_deg, self.scale)
        if not all(math.isfinite(v) for v in values):
            raise ConfigError(f"a placement holds something that is no number: {values}")
        if abs(self.lon_deg) > 180 or abs(self.lat_deg) > 90:
            raise ConfigError(
                f"a model cannot stand at longitude {self.lon_deg}, latitude {self.lat_deg}: "
                f"write {FORM} in degrees and metres, longitude first"
            )
        if self.scale <= 0:
            raise ConfigError(f"the scale of a model is {self.scale}; it must be above 0")

    @classmethod
    def parse(cls, text: str) -> Placement:
        """Read ``LON,LAT,HEIGHT[,HEADING[,SCALE]]``.

        Raises:
            ConfigError: not so many numbers, or numbers that mean no place.
        """
        try:
            values = [float(part) for part in text.split(",")]
        except ValueError:
            values = []
        if not 3 <= len(values) <= 5:
            raise ConfigError(f"--place {text!r} is not {FORM}, such as 114.3,30.6,25,90")
        return cls(*values)

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> Placement:
        """Read the numbers of a ``[[models]]`` table.

        Raises:
            ConfigError: one is missing or no number.
        """
        values = {name: table[name] for name in _NAMES if name in table}
        for name, value in values.items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ConfigError(f"{name} = {value!r} of a model is no number")
        if missing := [name for name in _NAMES[:3] if name not in values]:
            raise ConfigError(f"a model lacks {', '.join(missing)}: {dict(table)}")
        return cls(*(float(values.get(n, d)) for n, d in zip(_NAMES, (0, 0, 0, 0, 1), strict=True)))

    def enu(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (N, 3) metres east, north and up of the origin, of (N, 3) z-up model points."""
        turn = math.radians(self.heading_deg)
        cos, sin = math.cos(turn), math.sin(turn)
        east = points[:, 0] * cos + points[:, 1] * sin
        north = points[:, 1] * cos - points[:, 0] * sin
        placed: NDArray[np.float64] = np.stack([east, north, points[:, 2]], axis=1) * self.scale
        return placed

    def geodetic(self, enu: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (N, 3) longitude and latitude in degrees and height, of (N, 3) local metres.

        Heights are in the datum of `height_m`: over the extent of a model its separation from
        the ellipsoid is one number (a few millimetres in a kilometre).
        """
        frame = enu_to_ecef_matrix(self.lon_deg, self.lat_deg, self.height_m)
        return np.stack(ecef_to_geodetic(enu @ frame[:3, :3].T + frame[:3, 3]), axis=1)


def parse_up(text: str | None) -> Up | None:
    """Check ``--up``.

    Raises:
        ConfigError: neither y nor z.
    """
    if text is not None and text not in get_args(Up):
        raise ConfigError(f"--up {text!r} is neither y nor z")
    return text  # type: ignore[return-value]
