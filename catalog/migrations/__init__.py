"""Migrations: how a catalogue of any age becomes one of today, in one transaction.

The write lock that the caller's transaction holds keeps two processes from migrating at once.
Alembic is imported only when there is something to migrate, which spares every other start of the
program the time it takes.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from catalog.engine import where
from catalog.schema import HEAD
from tiling.errors import CatalogError

if TYPE_CHECKING:
    from alembic.config import Config

FOLDER = Path(__file__).parent


def revision(connection: sa.Connection) -> str | None:
    """Return the revision of a database, None for an empty one."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
    return found


def is_head(found: str | None) -> bool:
    """Say whether this code reads and writes the revision as it is."""
    return found == HEAD


def upgrade(connection: sa.Connection, folder: Path = FOLDER, target: str = "head") -> None:
    """Bring a database to a newer revision within the caller's transaction.

    Raises:
        CatalogError: the database was written by a newer program.
    """
    from alembic import command
    from alembic.script import ScriptDirectory
    from alembic.util.exc import CommandError

    settings = config(connection, folder)
    found = revision(connection)
    if found is not None:
        try:
            ScriptDirectory.from_config(settings).get_revision(found)
        except CommandError as error:
            raise CatalogError(
                f"{where(connection.engine)}: the catalogue is of revision {found}, newer "
                f"than this program, which knows {HEAD}; install the newer program"
            ) from error
    command.upgrade(settings, target)


def downgrade(connection: sa.Connection, target: str, folder: Path = FOLDER) -> None:
    """Take a database back to an older revision (``base`` empties it)."""
    from alembic import command

    command.downgrade(config(connection, folder), target)


def config(connection: sa.Connection, folder: Path = FOLDER) -> Config:
    """Return the settings Alembic works with; it uses the connection it is given."""
    from alembic.config import Config

    settings = Config()
    # Alembic reads its options with configparser, to which a percent sign means a variable.
    settings.set_main_option("script_location", str(folder).replace("%", "%%"))
    settings.set_main_option("path_separator", "os")
    settings.attributes["connection"] = connection
    return settings
