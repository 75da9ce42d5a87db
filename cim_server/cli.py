"""The command line, a contract that people script against.

Results go to stdout, progress and errors to stderr. Exit codes: 0 done, 2 usage, 3 the input was
refused, 4 the target is missing or conflicts, 130 cancelled (resumable), 1 a defect of ours.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Annotated

import typer

from cim_server.commands.assets import (
    delete_command,
    list_command,
    rollback_command,
    show_command,
    versions_command,
)
from cim_server.commands.derive import derive_command
from cim_server.commands.looking import check_command, export_command, find_command
from cim_server.commands.making import ingest_command, plan_command
from cim_server.commands.serving import demo_command, serve_command
from tiling.errors import CimError

app = typer.Typer(
    name="cim",
    help="城市信息模型核心 — city information model core.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

COMMANDS: dict[str, Callable[..., None]] = {
    "plan": plan_command,
    "ingest": ingest_command,
    "list": list_command,
    "show": show_command,
    "versions": versions_command,
    "rollback": rollback_command,
    "delete": delete_command,
    "derive": derive_command,
    "export": export_command,
    "check": check_command,
    "find": find_command,
    "serve": serve_command,
    "demo": demo_command,
}
for _name, _command in COMMANDS.items():
    app.command(_name)(_command)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"cim-server {metadata.version('cim-server')}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """城市信息模型核心 — city information model core."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    try:
        code = app(args=arguments, standalone_mode=False)
    except CimError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except typer.Abort:
        print("cancelled", file=sys.stderr)
        sys.exit(130)
    except KeyboardInterrupt:
        print("cancelled at once; the same command resumes", file=sys.stderr)
        sys.exit(130)
    except typer.TyperException as error:
        error.show()  # type: ignore[attr-defined]  # the base class keeps it private
        sys.exit(2)
    except BrokenPipeError:
        # The reader of our output went away (cim list | head): not an error worth a message.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    sys.exit(code if isinstance(code, int) else 0)
