"""The database under the catalogue: how it is opened, locked, migrated, and complains."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import make_url

from catalog import postgresql, sqlite
from tiling.errors import CatalogError, ConfigError, Conflict

BUSY_SECONDS = 60


def open_engine(url: str | Path) -> sa.Engine:
    """Return the engine of a database; nothing is connected to yet.

    Args:
        url: path of an SQLite file, ``sqlite:///path`` or ``postgresql+psycopg://…``.

    Raises:
        ConfigError: another database, or one that cannot hold a catalogue.
        CatalogError: the folder of an SQLite file does not exist.
    """
    if isinstance(url, str) and "://" in url:
        try:
            parsed = make_url(url)
        except sa.exc.ArgumentError as error:
            raise ConfigError("the database URL is none, such as postgresql+psycopg://…") from error
        if parsed.get_backend_name() == "postgresql":
            return postgresql.open_engine(
                parsed.set(drivername=postgresql.DRIVER), BUSY_SECONDS, _dumps
            )
    path = sqlite_path(url)
    if not path.parent.is_dir():
        raise CatalogError(f"{path}: the folder {path.parent} does not exist; make it first")
    return sqlite.open_engine(path, BUSY_SECONDS, _dumps)


def sqlite_path(url: str | Path) -> Path:
    """Return the file that a path or an ``sqlite:///`` URL names.

    Raises:
        ConfigError: another database, no file, or options.
    """
    if isinstance(url, Path) or "://" not in url:
        return Path(url)
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite" or not parsed.database or parsed.query:
        raise ConfigError(
            f"{postgresql.shown(parsed)}: the catalogue rests in an SQLite file or in PostgreSQL; "
            "give a path, sqlite:///path or postgresql+psycopg://user@host/database"
        )
    return Path(parsed.database)


def where(engine: sa.Engine) -> str:
    """Return where a catalogue rests, as messages show it."""
    if engine.dialect.name == "sqlite":
        return str(engine.url.database)
    return postgresql.shown(engine.url)


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


@contextmanager
def reading(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Give a connection that sees one state of the catalogue."""
    options: dict[str, Any] = {}
    if engine.dialect.name == "postgresql":
        options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    with _told(engine), engine.connect().execution_options(**options) as connection:
        with connection.begin():
            yield connection


@contextmanager
def writing(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Give a connection that holds the write lock; commits at the end, or changes nothing."""
    options = {"cim_write": True}
    with _told(engine), engine.connect().execution_options(**options) as connection:
        with connection.begin():
            if engine.dialect.name == "postgresql":
                postgresql.lock_for_writing(connection)
            yield connection


@contextmanager
def migrating(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Give what `writing` gives, with the references of SQLite checked at the end.

    SQLite rebuilds a table to alter it, which breaks the references to it for a moment.
    """
    if engine.dialect.name == "postgresql":
        with writing(engine) as connection:
            postgresql.check(connection)
            yield connection
        return
    with _told(engine), engine.connect() as connection:
        sqlite.without_references(connection)
        try:
            with connection.execution_options(cim_write=True).begin():
                yield connection
                sqlite.check_references(connection)
        finally:
            connection.invalidate()  # the next user shall not find the checks off


@contextmanager
def _told(engine: sa.Engine) -> Iterator[None]:
    """Turn the driver's complaints into errors that name the database and the remedy."""
    try:
        yield
    except sa.exc.DBAPIError as error:
        name, cause = where(engine), error.orig
        if "locked" in str(cause) or "lock timeout" in str(cause):
            raise Conflict(
                f"{name}: another process has been writing for {BUSY_SECONDS} s; try again"
            ) from error
        remedy = "check the server and the URL"
        if engine.dialect.name == "sqlite":
            remedy = "check the file and its permissions"
            if "full" in str(cause):
                remedy = "free some space"
        raise CatalogError(f"{name}: {cause}; {remedy}, nothing was changed") from error
