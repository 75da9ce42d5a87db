"""Times a command as a whole process tree: wall, CPU, and the memory it holds at its peak.

RSS counts a page once for every process that maps it, so workers that share a file or a library
count it again; PSS divides shared pages among their holders and is what the machine has to give.
Both are of the tree at one moment, not sums of the processes' own peaks.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PAGE = os.sysconf("SC_PAGE_SIZE")
POLL_S = 0.05
# The kernel walks every page to tell PSS, so it is asked less often.
PSS_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class Figures:
    """One run of a command.

    Attributes:
        wall_s, cpu_s: seconds; CPU of user and kernel, of all processes that ended.
        peak_rss_mb, peak_pss_mb: MiB of the process tree.
    """

    wall_s: float
    cpu_s: float
    peak_rss_mb: float
    peak_pss_mb: float


def measure(
    command: Sequence[str | Path],
    log: Path,
    *,
    env: Mapping[str, str] | None = None,
    limit_s: float | None = None,
) -> Figures:
    """Run a command to its end.

    Args:
        command: program and arguments.
        log: file for what it prints, both streams.
        env: added to the environment.
        limit_s: seconds after which it is ended.

    Raises:
        RuntimeError: it failed or took too long; the message carries the end of what it printed.
    """
    before = os.times()
    start = time.perf_counter()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
        )
        rss = pss = 0
        asked = 0.0
        while process.poll() is None:
            tree = _tree(process.pid)
            rss = max(rss, sum(tree.values()))
            now = time.perf_counter()
            if now - asked >= PSS_EVERY_S:
                pss = max(pss, sum(_pss(pid) for pid in tree))
                asked = now
            if limit_s is not None and now - start > limit_s:
                process.kill()
                process.wait()
                raise RuntimeError(f"{command[0]} was ended after {limit_s:.0f} s")
            time.sleep(POLL_S)
    wall = time.perf_counter() - start
    after = os.times()
    if process.returncode:
        tail = log.read_text(errors="replace")[-2000:]
        raise RuntimeError(f"{command[0]} exited {process.returncode}:\n{tail}")
    cpu = (after.children_user - before.children_user) + (
        after.children_system - before.children_system
    )
    return Figures(round(wall, 2), round(cpu, 2), round(rss / 2**20, 1), round(pss / 2**20, 1))


def _tree(root: int) -> dict[int, int]:
    """Return process id -> RSS in bytes of a process and all below it."""
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
    return {pid: rss[pid] for pid in tree if pid in rss}


def _pss(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
