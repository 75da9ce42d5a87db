"""Whole runs beside their rivals: ``python -m benchmarks [--jobs A,B] [--runs N] [--scale F]``.

Contestants run in turn (ours, rival, ours, rival …) so that a drifting machine touches all; the
medians are printed, and everything as JSON in the folder. Inputs are made once and kept in the
folder given by ``--folder``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import (
    city_view,
    conformance,
    footprints,
    layers,
    point_reading,
    points,
    raster_requests,
    terrain_requests,
)
from benchmarks.bench import Bench

JOBS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "buildings": footprints.buildings,
    "buildings-memory": footprints.buildings_memory,
    "buildings-natural": footprints.buildings_natural,
    "buildings-update": footprints.buildings_update,
    "city-view": city_view.city_view,
    "conformance": conformance.conformance,
    "point-reading": point_reading.point_reading,
    "terrain": layers.terrain,
    "terrain-requests": terrain_requests.terrain_requests,
    "imagery": layers.imagery,
    "raster": raster_requests.raster_requests,
    "vector": layers.vector,
    "pointcloud": points.pointcloud,
}


def main() -> None:
    """Run the chosen jobs and write their figures to ``results.json`` in the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", default=",".join(JOBS), help=f"of {', '.join(JOBS)}")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--folder", type=Path, default=Path("data/bench"))
    chosen = parser.parse_args()
    names = chosen.jobs.split(",")
    unknown = [name for name in names if name not in JOBS]
    if unknown:
        parser.error(f"no job {', '.join(unknown)}; there are {', '.join(JOBS)}")
    chosen.folder.mkdir(parents=True, exist_ok=True)
    bench = Bench(chosen.folder.resolve(), chosen.runs, chosen.scale)
    path = bench.folder / "results.json"
    results = json.loads(path.read_text("utf-8")) if path.exists() else {}
    for name in names:
        print(f"— {name}", flush=True)
        results[name] = JOBS[name](bench)
        path.write_text(json.dumps(results, indent=2, ensure_ascii=False), "utf-8")
    print(f"figures in {path}")


main()
