"""The SQLite file under the catalogue: how it is opened, locked, migrated, and complains."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import make_url

from catalog.cql2.operands import fold_accents, fold_case
from catalog.cql2.places import relates
from tiling.errors import CatalogError, ConfigError, Conflict

BUSY_SECONDS = 60

# What filters need and SQLite does not have.
FUNCTIONS: tuple[tuple[str, int, Callable[..., Any]], ...] = (
    ("cim_casei", 1, fold_case),
    ("cim_accenti", 1, fold_accents),
    ("cim_spatial", 6, relates),
)


def sqlite_path(url: str | Path) -> Path:
    """Return the file that a path or an ``sqlite:///`` URL names.

    Raises:
        ConfigError: another database, no file, or options.
    """
    if isinstance(url, Path) or "://" not in url:
        return Path(url)
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite" or not parsed.database or parsed.query:
        shown = parsed.render_as_string(hide_password=True)
        raise ConfigError(
            f"{shown}: the catalogue rests in an SQLite file; give its path or sqlite:///path"
        )
    return Path(parsed.database)


def open_engine(path: Path) -> sa.Engine:
    """Return an engine whose transactions begin as deferred ones, for reading."""
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=str(path)),
        connect_args={"timeout": BUSY_SECONDS},
        json_serializer=_dumps,
    )
    sa.event.listen(engine, "connect", _connected)
    sa.event.listen(engine, "begin", _begun)
    return engine


def _connected(connection: sqlite3.Connection, _record: object) -> None:
    # We say BEGIN ourselves: the driver's own idea of transactions leaves out DDL and reads.
    connection.isolation_level = None
    for pragma in (
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
        # As SQL has it; SQLite's own LIKE takes "a" for "A", though not "ä" for "Ä".
        "case_sensitive_like = ON",
    ):
        connection.execute(f"PRAGMA {pragma}").close()
    for name, arguments, function in FUNCTIONS:
        connection.create_function(name, arguments, function, deterministic=True)


def _begun(connection: sa.Connection) -> None:
    # IMMEDIATE takes the write lock before the first read: a transaction that reads first and
    # writes later could only fail when another one wrote in between.
    writes = connection.get_execution_options().get("cim_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


@contextmanager
def reading(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Give a connection that sees one state of the catalogue."""
    with _told(engine), engine.connect() as connection, connection.begin():
        yield connection


@contextmanager
def writing(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Give a connection that holds the write lock; commits at the end, or changes nothing."""
    options = {"cim_write": True}
    with _told(engine), engine.connect().execution_options(**options) as connection:
        with connection.begin():
            yield connection


@contextmanager
def migrating(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Give what `writing` gives, with foreign keys checked at the end instead of all the way.

    SQLite rebuilds a table to alter it, which breaks the references to it for a moment; it can turn
    the checks off only outside of a transaction.
    """
    with _told(engine), engine.connect() as connection:
        raw = connection.connection.dbapi_connection
        assert raw is not None
        raw.cursor().execute("PRAGMA foreign_keys = OFF").close()
        try:
            with connection.execution_options(cim_write=True).begin():
                yield connection
                broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
                if broken:
                    raise CatalogError(
                        f"{engine.url.database}: the migration would break {len(broken)} "
                        f"references, the first in table {broken[0][0]}; nothing was changed"
                    )
        finally:
            connection.invalidate()  # the next user shall not find the checks off


@contextmanager
def _told(engine: sa.Engine) -> Iterator[None]:
    """Turn the driver's complaints into errors that name the file and the remedy."""
    try:
        yield
    except sa.exc.DBAPIError as error:
        path, cause = engine.url.database, error.orig
        if "locked" in str(cause):
            raise Conflict(
                f"{path}: another process has been writing for {BUSY_SECONDS} s; try again"
            ) from error
        remedy = "free some space" if "full" in str(cause) else "check the file and its permissions"
        raise CatalogError(f"{path}: {cause}; {remedy}, nothing was changed") from error
