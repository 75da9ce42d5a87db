"""A catalogue in a temporary folder, and a clock that ticks one second a look."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from catalog.database import Catalog
from catalog.records import Item, NewVersion, StoreRef, standard_collections
from tests.postgres import Server
from tiling.bounds import Region


def ticking() -> Callable[[], datetime]:
    now = datetime(2026, 1, 1, tzinfo=UTC)

    def clock() -> datetime:
        nonlocal now
        now += timedelta(seconds=1)
        return now

    return clock


def store(path: str = "assets/a.3tz", digit: str = "a") -> StoreRef:
    return StoreRef("tiles", "3tz", path, digit * 64, 12, "application/vnd.maxar.archive.3tz+zip")


def new_version(*stores: StoreRef, bounds: Region | None = None, **fields: object) -> NewVersion:
    where = bounds or Region(114.3, 30.4, 114.5, 30.6, 12.5, 438.0)
    return NewVersion(where, stores or (store(),), **fields)  # type: ignore[arg-type]


def item(item_id: str = "guanggu", **fields: object) -> Item:
    given = {"collection": "buildings", "kind": "buildings", "title": "光谷白模"} | fields
    return Item(item_id, **given)  # type: ignore[arg-type]


NewDatabase = Callable[[], str]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def new_database(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> NewDatabase:
    """Return a function that makes an empty database and returns its URL: the laws of a catalogue
    hold on every one.
    """
    if request.param == "postgresql":
        server: Server = request.getfixturevalue("postgres")
        return server.new_database
    return lambda: f"sqlite:///{tmp_path_factory.mktemp('c') / 'catalog.sqlite'}"


@pytest.fixture
def database(new_database: NewDatabase) -> str:
    """The URL of an empty database."""
    return new_database()


@pytest.fixture
def catalog(database: str) -> Iterator[Catalog]:
    with Catalog.open(database, clock=ticking()) as opened:
        opened.ensure_collections(standard_collections())
        yield opened
