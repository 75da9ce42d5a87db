"""The data folder that commands work on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ingest.workspace import Workspace
from tiling.errors import NotFound

DataOption = Annotated[
    Path, typer.Option("--data", help="The data folder.", envvar="CIM_DATA", show_default=True)
]
DEFAULT_DATA = Path("data")


def existing(data: Path) -> Workspace:
    """Return the data folder of a command that needs one.

    Raises:
        NotFound: there is none.
    """
    # Whoever mistypes --data should not be shown an empty city.
    if not data.exists():
        raise NotFound(f"there is no data folder {data}: name it with --data, or $CIM_DATA")
    return Workspace(data)
