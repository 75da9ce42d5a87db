"""Point clouds to 3D Tiles beside py3dtiles: time, memory, bytes a point."""

from __future__ import annotations

from typing import Any

from benchmarks import rivals
from benchmarks.bench import Bench, Contestant, ingest
from benchmarks.flights import flight


def pointcloud(bench: Bench) -> dict[str, Any]:
    """2 M points of a flight to 3D Tiles (20 M with ``--scale 10``).

    The rival is given LAS: with lazrs installed it waits for ever on LAZ.
    """
    count = bench.count(2_000_000)
    laz = flight(bench.folder / f"flight-{count}.laz", count)
    las = flight(bench.folder / f"flight-{count}.las", count)
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
