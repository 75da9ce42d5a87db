"""Whole ingests beside their rivals: ``python -m benchmarks [--jobs A,B] [--runs N] [--scale F]``.

Each pair runs in turn (ours, rival, ours, rival …) so that a drifting machine touches both; the
medians are printed. Inputs are made once and kept in the folder given by ``--folder``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import inputs, rivals
from benchmarks.measure import Figures, measure

CIM = str(Path(sys.executable).parent / "cim")


@dataclass(frozen=True, slots=True)
class Job:
    """One kind of ingest and who else does it."""

    source: Callable[[Path, float], Path]
    options: list[str]
    rivals: dict[str, Callable[[Path, Path], list[str]]]


def _count(full: int, scale: float) -> int:
    return max(1, int(full * scale))


JOBS = {
    "buildings": Job(
        lambda folder, scale: inputs.footprints(folder, _count(100_000, scale)),
        ["--kind", "buildings", "--vertical", "EPSG:5737"],
        {},
    ),
    "terrain": Job(
        lambda folder, scale: inputs.dem(folder, _count(2048, scale)),
        ["--kind", "terrain", "--vertical", "EPSG:5737"],
        {},
    ),
    "imagery": Job(
        lambda folder, scale: inputs.image(folder, _count(8192, scale)),
        ["--kind", "imagery"],
        {"GDAL COG driver": rivals.gdal_cog, "rio cogeo": rivals.rio_cogeo},
    ),
    "vector": Job(
        lambda folder, scale: inputs.footprints(folder, _count(100_000, scale)),
        ["--kind", "vector", "--min-zoom", "13", "--max-zoom", "16"],
        {"tippecanoe": rivals.tippecanoe, "GDAL MVT driver": rivals.gdal_mvt},
    ),
}


def main() -> None:
    """Run the chosen jobs and print a table and JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", default=",".join(JOBS))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--folder", type=Path, default=Path("data/bench"))
    chosen = parser.parse_args()
    chosen.folder.mkdir(parents=True, exist_ok=True)
    results = {}
    for name in chosen.jobs.split(","):
        job = JOBS[name]
        source = job.source(chosen.folder, chosen.scale)
        contestants = {"cim": _ours(name, job), **job.rivals}
        runs: dict[str, list[Figures]] = {who: [] for who in contestants}
        for _ in range(chosen.runs):
            for who, command in contestants.items():
                out = chosen.folder / f"out-{name}"
                shutil.rmtree(out, ignore_errors=True)
                out.mkdir()
                runs[who].append(measure(command(source, out), chosen.folder / "log.txt"))
        results[name] = {who: _median(figures) for who, figures in runs.items()}
        for who, figures in results[name].items():
            print(
                f"{name:10} {who:16} wall {figures['wall_s']:8.2f} s"
                f"   cpu {figures['cpu_s']:8.2f} s"
                f"   peak RSS {figures['peak_rss_mb']:8.1f} MB   ({source.name})",
                flush=True,
            )
    print(json.dumps(results, indent=2))


def _ours(name: str, job: Job) -> Callable[[Path, Path], list[str]]:
    def command(source: Path, out: Path) -> list[str]:
        return [CIM, "ingest", str(source), "--id", name, *job.options, "--data", str(out)]

    return command


def _median(runs: list[Figures]) -> dict[str, float]:
    rows = [asdict(run) for run in runs]
    return {key: statistics.median(row[key] for row in rows) for key in rows[0]}


main()
