"""Fixtures shared by the whole suite: the real command line, and the demo, ingested once."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from tests.commands import Command, Outcome, run_cim


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
