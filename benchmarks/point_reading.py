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

from benchmarks.bench import Bench
from benchmarks.flights import flight
from ingest.readers.las import LasReader
from ingest.readers.point_chunks import PointChunk
from ingest.readers.points import read_chunk


def point_reading(bench: Bench) -> dict[str, Any]:
    """Measure both on 20 million points in flight-line order, point format 7."""
    count = bench.count(20_000_000)
    source = flight(bench.folder / f"flight-{count}.laz", count)

    def contestant(who: str) -> Any:
        return lambda out: [sys.executable, "-m", "benchmarks.point_reading", who, source]

    return bench.in_turn("reading", {who: contestant(who) for who in ("cim", "laspy")})


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
