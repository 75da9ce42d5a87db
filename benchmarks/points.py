"""Point clouds to 3D Tiles beside py3dtiles: time, memory, bytes a point."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import laspy
import numpy as np
from pyproj import CRS

from benchmarks import rivals
from benchmarks.bench import Bench, Contestant, ingest

_LINE_M = 100.0
_CHUNK = 1_000_000


def survey(folder: Path, count: int) -> tuple[Path, Path]:
    """Return a survey of ten points a square metre in flight-line order, as LAZ and as LAS.

    Point format 7, EPSG:4547, millimetres; RGB with noise of its own in every channel, intensity,
    classes 2, 5 and 6, a scanner that sweeps across lines of 100 m, houses of 12 m.
    """
    laz, las = folder / f"survey-{count}.laz", folder / f"survey-{count}.las"
    if laz.exists() and las.exists():
        return laz, las
    rng = np.random.default_rng(7)
    header = laspy.LasHeader(point_format=7, version="1.4")
    header.scales, header.offsets = [0.001] * 3, [560_000, 3_510_000, 0]
    header.add_crs(CRS.from_epsg(4547))
    side = float(np.sqrt(count / 10.0))
    lines = max(1, round(side / _LINE_M))
    with laspy.open(laz, "w", header=header) as packed, laspy.open(las, "w", header=header) as flat:
        for start in range(0, count, _CHUNK):
            index = np.arange(start, min(start + _CHUNK, count))
            line, along = np.divmod(index * (lines / count), 1.0)
            points = _sweep(line, along * side, index, rng, header)
            packed.write_points(points)
            flat.write_points(points)
    return laz, las


def _sweep(line: Any, along: Any, index: Any, rng: np.random.Generator, header: Any) -> Any:
    count = len(index)
    x = line * _LINE_M + _LINE_M * (0.5 + 0.55 * np.sin(index / 200.0)) + rng.normal(0, 0.1, count)
    y = along + rng.normal(0, 0.2, count)
    z = 50 + 10 * np.sin(x / 300) + 8 * np.cos(y / 210) + rng.normal(0, 0.03, count)
    house = (np.floor(x / 30) % 3 == 0) & (np.floor(y / 30) % 2 == 0)
    points = laspy.ScaleAwarePointRecord.zeros(count, header=header)
    points.x, points.y, points.z = 560_000 + x, 3_510_000 + y, z + 12 * house
    grey = 120 + 60 * np.sin(x / 17)
    for name in ("red", "green", "blue"):
        points[name] = (grey + rng.integers(-20, 20, count)).astype(np.uint16) * 257
    points.classification = np.where(house, 6, np.where(rng.random(count) < 0.2, 5, 2))
    points.intensity = rng.integers(0, 4096, count)
    return points


def pointcloud(bench: Bench) -> dict[str, Any]:
    """2 M points of a survey to 3D Tiles (20 M with ``--scale 10``).

    The rival is given LAS: with lazrs installed it waits for ever on LAZ.
    """
    count = bench.count(2_000_000)
    laz, las = survey(bench.folder, count)
    options = ["--vertical", "ellipsoidal", "--memory", "1GB"]
    contestants: dict[str, Contestant] = {
        "cim": lambda out: ingest(laz, "points", options, out),
        "py3dtiles": lambda out: rivals.py3dtiles_points(las, out),
    }
    result: dict[str, Any] = bench.in_turn("pointcloud", contestants)
    data = bench.data("pointcloud-size")
    bench.run("pointcloud size", ingest(laz, "points", options, data))
    (store,) = (data / "stores").rglob("*.3tz")
    result["bytes_per_point"] = store.stat().st_size / count
    print(f"pointcloud   {result['bytes_per_point']:.1f} bytes a point")
    return result
