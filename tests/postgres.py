"""A PostgreSQL server with PostGIS, started for the tests of one process and stopped after them."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import psycopg

# Debian keeps the server's programs out of PATH, one folder for each version.
_FOLDERS = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)


@dataclass
class Server:
    """A running server; sockets only, nobody else can reach it."""

    sockets: Path
    _numbers: Iterator[int] = field(default_factory=count)

    def url(self, database: str) -> str:
        """Return the URL of a database."""
        return f"postgresql+psycopg://cim@/{database}?host={self.sockets}"

    def new_database(self, options: str = "TEMPLATE cim_template") -> str:
        """Make a database with PostGIS and return its URL."""
        name = f"cim{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} {options}")
        return self.url(name)

    def execute(self, statement: str, database: str = "postgres") -> None:
        """Run a statement outside of a transaction."""
        at = f"host={self.sockets} user=cim dbname={database}"
        with psycopg.connect(at, autocommit=True) as connection:
            connection.execute(statement.encode())


def _program(name: str) -> str:
    found = shutil.which(name, path=os.pathsep.join(map(str, _FOLDERS))) or shutil.which(name)
    assert found is not None, f"{name} is missing: apt-get install postgresql postgis"
    return found


@contextmanager
def running_server() -> Iterator[Server]:
    """Start a server of a new cluster in a temporary folder."""
    # Unix sockets have short names, and the server does not run as root.
    folder = Path(tempfile.mkdtemp(prefix="cim-pg-", dir="/tmp"))
    as_user: list[str] = []
    if os.geteuid() == 0:
        owner = pwd.getpwnam("postgres")
        os.chown(folder, owner.pw_uid, owner.pw_gid)
        as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    data = folder / "data"

    def run(*command: str) -> None:
        subprocess.run([*as_user, *command], check=True, cwd=folder, stdout=subprocess.DEVNULL)

    settings = "-c fsync=off -c listen_addresses='' -c max_connections=40"
    control = (_program("pg_ctl"), "-D", str(data), "-s", "-w")
    try:
        run(_program("initdb"), "-D", str(data), "-U", "cim", "-A", "trust",
            "-E", "UTF8", "--locale=C", "--no-sync")  # fmt: skip
        run(*control, "-l", str(folder / "log"), "-o", f"{settings} -k {folder}", "start")
        try:
            server = Server(folder)
            server.execute("CREATE DATABASE cim_template")
            server.execute("CREATE EXTENSION postgis", "cim_template")
            yield server
        finally:
            run(*control, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)
