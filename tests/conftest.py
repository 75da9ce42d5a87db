"""Fixtures shared by the whole suite: the real command line, and the demo, ingested once."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

CIM = Path(sys.executable).parent / "cim"
DEMO_SOURCES = Path(__file__).parent.parent / "cim_server" / "demo" / "data"


class Outcome(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


Command = Callable[..., Outcome]


def run_cim(*arguments: str | Path, env: dict[str, str] | None = None) -> Outcome:
    """Run the installed ``cim`` as a user would."""
    done = subprocess.run(
        [CIM, *map(str, arguments)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=240,
        env={**os.environ, **(env or {})},
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def cim() -> Command:
    return run_cim


@pytest.fixture
def cim_here(capfd: pytest.CaptureFixture[str]) -> Command:
    """Run the command line in this process: the same code without the start-up."""
    from cim_server.cli import main

    def run(*arguments: str | Path) -> Outcome:
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main([str(a) for a in arguments])
        out, err = capfd.readouterr()
        return Outcome(int(stopped.value.code or 0), out, err)

    return run


@pytest.fixture(scope="session")
def demo_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the whole demo, made once for all test processes."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = shared / "demo-data"
    with (shared / "demo.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "done").exists():
            done = run_cim("demo", "--data", folder, "--port", "0", "--check")
            assert done.code == 0, done.err
            (folder / "done").touch()
    return folder
