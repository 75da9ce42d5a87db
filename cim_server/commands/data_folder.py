"""The data folder that commands work on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ingest.workspace import Workspace
from tiling.errors import NotFound

DataOption = Annotated[
    Path, typer.Option("--data", help="The data folder.", envvar="CIM_DATA", show_default=True)
]
DEFAULT_DATA = Path("data")
DATABASE_VARIABLE = "CIM_DATABASE_URL"


def existing(data: Path) -> Workspace:
    """Return the data folder of a command that needs one.

    Raises:
        NotFound: there is none.
    """
    # Whoever mistypes --data should not be shown an empty city.
    if not data.exists():
        raise NotFound(f"there is no data folder {data}: name it with --data, or $CIM_DATA")
    return workspace(data)


def workspace(data: Path) -> Workspace:
    """Return a data folder with the catalogue that ``CIM_DATABASE_URL`` names, or its own."""
    return Workspace(data, os.environ.get(DATABASE_VARIABLE, ""))
