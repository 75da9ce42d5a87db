"""Bounding volumes in geodetic coordinates: degrees and metres, longitude first."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple


class Region(NamedTuple):
    """A box in longitude, latitude and ellipsoidal height.

    Attributes:
        west, south, east, north: degrees; ``west <= east``, never across the antimeridian.
        min_height_m, max_height_m: metres above the WGS 84 ellipsoid.
    """

    west: float
    south: float
    east: float
    north: float
    min_height_m: float = 0.0
    max_height_m: float = 0.0

    def union(self, other: Region) -> Region:
        """Return the smallest region that holds both."""
        return Region(
            min(self.west, other.west),
            min(self.south, other.south),
            max(self.east, other.east),
            max(self.north, other.north),
            min(self.min_height_m, other.min_height_m),
            max(self.max_height_m, other.max_height_m),
        )

    def contains(self, other: Region, slack_deg: float = 0.0, slack_m: float = 0.0) -> bool:
        """Say whether `other` lies inside, give or take the slack."""
        return (
            self.west <= other.west + slack_deg
            and self.south <= other.south + slack_deg
            and self.east >= other.east - slack_deg
            and self.north >= other.north - slack_deg
            and self.min_height_m <= other.min_height_m + slack_m
            and self.max_height_m >= other.max_height_m - slack_m
        )

    def intersects(self, other: Region) -> bool:
        """Say whether the two overlap on the ground; a shared edge counts."""
        return (
            self.west <= other.east
            and other.west <= self.east
            and self.south <= other.north
            and other.south <= self.north
        )

    def to_3dtiles(self) -> list[float]:
        """Return the ``region`` array of 3D Tiles: radians and metres."""
        return [
            *(math.radians(v) for v in (self.west, self.south, self.east, self.north)),
            self.min_height_m,
            self.max_height_m,
        ]

    @classmethod
    def from_3dtiles(cls, values: Iterable[float]) -> Region:
        """Make a region from the ``region`` array of 3D Tiles."""
        w, s, e, n, lo, hi = values
        return cls(math.degrees(w), math.degrees(s), math.degrees(e), math.degrees(n), lo, hi)

    def bbox2d(self) -> list[float]:
        """Return ``[west, south, east, north]``."""
        return [self.west, self.south, self.east, self.north]

    def bbox3d(self) -> list[float]:
        """Return the six-number bbox of STAC and GeoJSON."""
        return [
            self.west,
            self.south,
            self.min_height_m,
            self.east,
            self.north,
            self.max_height_m,
        ]
