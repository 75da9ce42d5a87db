"""The installed ``cim``, run as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

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
