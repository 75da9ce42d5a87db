"""Reading a LAZ flight as arrays: our readers in two processes beside laspy with lazrs in parallel.

Both decode every point to float64 coordinates and every column. Run as a program, this module is
one of the two: ``python -m benchmarks.point_reading cim|laspy FILE``.
"""

from __future__ import annotations

import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import laspy
import numpy as np
from pyproj import CRS

from benchmarks.bench import Bench
from ingest.readers.las import LasReader
from ingest.readers.point_chunks import PointChunk
from ingest.readers.points import read_chunk

LINE_POINTS = 20_000


def point_reading(bench: Bench) -> dict[str, Any]:
    """Measure both on 20 million points in flight-line order, point format 7."""
    count = bench.count(20_000_000)
    source = bench.folder / f"flight-{count}.laz"
    if not source.exists():
        write_flight(source, count)

    def contestant(who: str) -> Any:
        return lambda out: [sys.executable, "-m", "benchmarks.point_reading", who, source]

    return bench.in_turn("reading", {who: contestant(who) for who in ("cim", "laspy")})


def write_flight(path: Path, count: int) -> None:
    """Write seeded points of flight lines: EPSG:4547, RGB, class, intensity, GPS time."""
    header = laspy.LasHeader(point_format=7, version="1.4")
    header.scales, header.offsets = np.full(3, 0.001), np.array([441_000.0, 3_507_000.0, 0.0])
    header.add_crs(CRS("EPSG:4547"))
    rng = np.random.default_rng(7)
    with laspy.open(path, mode="w", header=header) as file:
        for first in range(0, count, 50 * LINE_POINTS):
            n = np.arange(first, min(first + 50 * LINE_POINTS, count))
            points = laspy.ScaleAwarePointRecord.zeros(len(n), header=header)
            points.x = 441_000 + n % LINE_POINTS * 0.05
            points.y = 3_507_000 + n // LINE_POINTS * 0.5 + rng.random(len(n)) * 0.4
            points.z = 100 + 10 * np.sin(points.x / 50) + rng.normal(0, 0.05, len(n))
            for channel in ("red", "green", "blue"):
                points[channel] = rng.integers(90, 140, len(n)) * 256
            points.classification = rng.choice([2, 5, 6], len(n))
            points.intensity = rng.integers(0, 2000, len(n))
            points.gps_time = n * 1e-5
            points.return_number = points.number_of_returns = np.ones(len(n), np.uint8)
            file.write_points(points)


def _count(chunk: PointChunk) -> int:
    return len(read_chunk(chunk))


def _read(who: str, source: Path) -> None:
    if who == "cim":
        with ProcessPoolExecutor(2, get_context("spawn")) as workers:
            count = sum(workers.map(_count, LasReader(source).chunks(500_000)))
    else:
        cloud = laspy.read(source, laz_backend=laspy.LazBackend.LazrsParallel)
        columns = [
            cloud.xyz,
            *(np.asarray(cloud[name]) for name in cloud.point_format.dimension_names),
        ]
        count = len(columns[0])
    print(count)


if __name__ == "__main__":
    _read(sys.argv[1], Path(sys.argv[2]))
