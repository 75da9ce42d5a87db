"""Results on stdout, for machines."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import orjson
import typer

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def emit(value: Any) -> None:
    """Print a value as JSON; what JSON has not (dates, paths) as text."""
    sys.stdout.write(orjson.dumps(value, option=orjson.OPT_INDENT_2, default=str).decode() + "\n")
