"""Times a command as a whole process: wall, CPU, and the peak RSS of its process tree."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

PAGE = os.sysconf("SC_PAGE_SIZE")
POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Figures:
    """One run of a command."""

    wall_s: float
    cpu_s: float
    peak_rss_mb: float


def measure(command: list[str], log: Path) -> Figures:
    """Run a command to its end.

    Raises:
        RuntimeError: it failed; the message carries the end of what it printed.
    """
    before = os.times()
    start = time.perf_counter()
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        peak = 0
        while process.poll() is None:
            peak = max(peak, _tree_rss(process.pid))
            time.sleep(POLL_S)
    wall = time.perf_counter() - start
    after = os.times()
    if process.returncode:
        tail = log.read_text(errors="replace")[-2000:]
        raise RuntimeError(f"{command[0]} exited {process.returncode}:\n{tail}")
    cpu = (after.children_user - before.children_user) + (
        after.children_system - before.children_system
    )
    return Figures(round(wall, 2), round(cpu, 2), round(peak / 2**20, 1))


def _tree_rss(root: int) -> int:
    parents: dict[int, int] = {}
    rss: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            parents[int(entry.name)] = int(stat[1])
            rss[int(entry.name)] = int(stat[21]) * PAGE
    tree = {root}
    grown = True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in tree} - tree
        tree |= more
        grown = bool(more)
    return sum(rss.get(pid, 0) for pid in tree)
