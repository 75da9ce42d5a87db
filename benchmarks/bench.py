"""What every job shares: the folder of inputs and outputs, how often to run, how large."""

from __future__ import annotations

import shutil
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure import Figures, measure
from benchmarks.published import CIM

# A command that makes `out`, an empty folder; None: it cannot run here, for the reason printed.
Contestant = Callable[[Path], Sequence[str | Path]]


@dataclass(frozen=True, slots=True)
class Bench:
    """One session of benchmarks.

    Attributes:
        folder: inputs are made here once and kept.
        runs: of every contestant.
        scale: factor on the size of every input.
    """

    folder: Path
    runs: int
    scale: float

    def count(self, full: int) -> int:
        """Return the scaled size of an input."""
        return max(1, int(full * self.scale))

    def data(self, name: str) -> Path:
        """Return an empty data folder."""
        out = self.folder / f"out-{name}"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        return out

    def run(self, name: str, command: Sequence[str | Path], **options: Any) -> Figures:
        """Measure one command and print it."""
        figures = measure(command, self.folder / "log.txt", **options)
        show(name, asdict(figures))
        return figures

    def in_turn(self, job: str, contestants: Mapping[str, Contestant]) -> dict[str, dict[str, Any]]:
        """Run contestants in turn (A, B, A, B …), each into an empty folder; return medians.

        A drifting machine touches all of them. One that fails is left out with its reason.
        """
        taken: dict[str, list[dict[str, float]]] = {who: [] for who in contestants}
        failed: dict[str, str] = {}
        for _ in range(self.runs):
            for who, command in contestants.items():
                if who in failed:
                    continue
                try:
                    figures = measure(command(self.data(job)), self.folder / "log.txt")
                except (RuntimeError, FileNotFoundError) as error:
                    if who == "cim":
                        raise
                    failed[who] = str(error)
                    print(f"{job:12} {who:18} did not run: {error}", file=sys.stderr, flush=True)
                else:
                    taken[who].append(asdict(figures))
        result: dict[str, dict[str, Any]] = {who: {"failed": why} for who, why in failed.items()}
        for who, rows in taken.items():
            if rows and who not in failed:
                result[who] = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
                show(f"{job:12} {who}", result[who])
        return result


def ingest(source: Path, asset: str, options: Sequence[str], data: Path) -> list[str | Path]:
    """Return the command that ingests a file."""
    return [CIM, "ingest", source, "--id", asset, *options, "--data", data]


def show(name: str, figures: Mapping[str, Any]) -> None:
    """Print one line of figures."""
    units = {"wall_s": "s wall", "cpu_s": "s CPU", "peak_rss_mb": "MB RSS", "peak_pss_mb": "MB PSS"}
    line = "  ".join(f"{figures[key]:9.2f} {unit}" for key, unit in units.items())
    print(f"{name:34} {line}", flush=True)
