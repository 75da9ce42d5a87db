"""Synthetic flights of a laser scanner, seeded: the point clouds that benchmarks measure.

Ten points a square metre in flight-line order, as LAZ 1.4 of point format 7 in EPSG:4547: a scanner
sweeps across lines of 100 m, trees return a pulse up to three times, houses stand 12 m high; RGB
with noise of its own in every channel, intensity, classes 2, 5 and 6, GPS time of the pulse. LASzip
makes some 11 bytes of a point.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import laspy
import numpy as np
from pyproj import CRS

DENSITY_PER_M2 = 10.0
_LINE_M = 100.0
_CHUNK = 1_000_000
_PULSES_PER_S = 200_000
# Adjusted standard GPS time of a day in 2023.
_GPS_TIME_S = 366_000_000.0
_EAST_M, _NORTH_M = 560_000.0, 3_510_000.0


def flight(path: Path, count: int, east_m: float = 0.0, seed: int = 7) -> Path:
    """Write a flight over a square, unless it is there.

    Args:
        path: a LAZ, or a LAS by its suffix.
        count: of points.
        east_m: how far the square is moved, metres.
        seed: of the noise.
    """
    if path.exists():
        return path
    rng = np.random.default_rng(seed)
    header = laspy.LasHeader(point_format=7, version="1.4")
    header.scales, header.offsets = np.full(3, 0.001), np.array([_EAST_M, _NORTH_M, 0.0])
    header.add_crs(CRS.from_epsg(4547))
    side_m = float(np.sqrt(count / DENSITY_PER_M2))
    lines = max(1, round(side_m / _LINE_M))
    partial = path.with_suffix(f".part{path.suffix}")
    with laspy.open(partial, "w", header=header) as file:
        for start in range(0, count, _CHUNK):
            index = np.arange(start, min(start + _CHUNK, count))
            line, along = np.divmod(index * (lines / count), 1.0)
            x = line * _LINE_M + _LINE_M * (0.5 + 0.55 * np.sin(index / 200.0)) + east_m
            y = np.where(line % 2 == 0, along, 1.0 - along) * side_m
            file.write_points(_points(x, y, index, rng, header))
    return partial.rename(path)


def _points(x: Any, y: Any, index: Any, rng: np.random.Generator, header: Any) -> Any:
    count = len(index)
    x = x + rng.normal(0, 0.1, count)
    y = y + rng.normal(0, 0.2, count)
    house = (np.floor(x / 30) % 3 == 0) & (np.floor(y / 30) % 2 == 0)
    tree = ~house & (np.sin(x / 9) * np.cos(y / 7) > 0.4)
    # A pulse that meets a tree has three returns, whose points follow each other.
    number = index % 3
    z = 50 + 10 * np.sin(x / 300) + 8 * np.cos(y / 210) + rng.normal(0, 0.03, count)
    z += 12 * house + tree * (number < 2) * rng.uniform(2, 9, count)
    points = laspy.ScaleAwarePointRecord.zeros(count, header=header)
    points.x, points.y, points.z = _EAST_M + x, _NORTH_M + y, z
    grey = 120 + 60 * np.sin(x / 17)
    for channel in ("red", "green", "blue"):
        points[channel] = (grey + rng.integers(-40, 40, count)).astype(np.uint16) * 257
    points.classification = np.where(house, 6, np.where(tree & (number < 2), 5, 2))
    points.intensity = rng.integers(0, 40_000, count)
    points.return_number = np.where(tree, number + 1, 1)
    points.number_of_returns = np.where(tree, 3, 1)
    points.gps_time = np.where(tree, index // 3 * 3, index) / _PULSES_PER_S + _GPS_TIME_S
    return points
