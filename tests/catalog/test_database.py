"""Laws of the catalogue: versions, their numbers, atomicity, concurrency."""

import multiprocessing
import os
import signal
import sqlite3
import threading
from datetime import UTC, datetime
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalog import engine, events
from catalog.database import Catalog
from catalog.records import (
    Collection,
    Item,
    NewVersion,
    StoreRef,
    standard_collections,
)
from catalog.search import SearchQuery
from tests.catalog.conftest import item, new_version, store
from tests.postgres import Server
from tiling.bounds import Region
from tiling.errors import CatalogError, ConfigError, Conflict, NotFound, RecordInvalid


def test_what_is_published_is_current_and_reads_back_as_it_was_said(catalog: Catalog) -> None:
    said = new_version(
        store("assets/新.3tz"),
        store("assets/旧.3tz", "b"),
        info={"tiles": 3, "fields": ["名称", "层数"]},
        report={"findings": [{"rule": "x", "severity": "drop", "count": 2}]},
        job="j1",
        tombstones=("content/1/2/3.glb",),
    )
    made = catalog.publish(item(description="一", properties={"cim:division": "420111"}), said)
    assert made.number == 1
    assert catalog.version("guanggu") == made == catalog.version("guanggu", 1)
    for name in NewVersion.__dataclass_fields__:
        assert getattr(made, name) == getattr(said, name)
    got = catalog.item("guanggu")
    assert got.current == 1
    assert got.properties == {"cim:division": "420111"}
    assert got.created == got.updated == made.created


def test_publishing_again_keeps_every_version_newest_first(catalog: Catalog) -> None:
    for n in range(1, 4):
        assert catalog.publish(item(title=f"第{n}版"), new_version()).number == n
    assert [v.number for v in catalog.versions("guanggu")] == [3, 2, 1]
    got = catalog.item("guanggu")
    assert (got.current, got.title) == (3, "第3版")
    assert got.created < got.updated


def test_rollback_only_moves_current(catalog: Catalog) -> None:
    for _ in range(3):
        catalog.publish(item(), new_version())
    before = catalog.versions("guanggu")
    assert catalog.rollback("guanggu", 1).number == 1
    assert catalog.version("guanggu").number == 1
    assert catalog.versions("guanggu") == before
    assert catalog.publish(item(), new_version()).number == 4
    assert catalog.rollback("guanggu", 2).number == 2


def test_rollback_to_what_never_was_changes_nothing(catalog: Catalog) -> None:
    catalog.publish(item(), new_version())
    sequence = catalog.sequence()
    with pytest.raises(NotFound, match="has no version 7"):
        catalog.rollback("guanggu", 7)
    with pytest.raises(NotFound, match="no asset '曾都'"):
        catalog.rollback("曾都", 1)
    assert catalog.sequence() == sequence


def test_numbers_are_not_used_again_after_a_deletion(catalog: Catalog) -> None:
    catalog.publish(item(), new_version())
    catalog.publish(item(), new_version())
    catalog.delete("guanggu")
    with pytest.raises(NotFound):
        catalog.item("guanggu")
    with pytest.raises(NotFound):
        catalog.versions("guanggu")
    assert catalog.items() == []
    assert catalog.search(SearchQuery()).matched == 0
    assert catalog.publish(item(), new_version()).number == 3
    assert [v.number for v in catalog.versions("guanggu")] == [3]


def test_deleting_returns_only_stores_that_nobody_else_uses(catalog: Catalog) -> None:
    shared, mine = store("assets/shared.3tz"), store("assets/mine.3tz", "b")
    catalog.publish(item("a"), new_version(mine, shared))
    catalog.publish(item("a"), new_version(mine))
    catalog.publish(item("b"), new_version(shared))
    assert catalog.delete("a") == [mine]
    assert catalog.delete("b") == [shared]


def test_an_asset_keeps_its_kind(catalog: Catalog) -> None:
    catalog.publish(item(), new_version())
    with pytest.raises(Conflict, match="holds buildings, not terrain"):
        catalog.publish(item(kind="terrain"), new_version())
    assert [v.number for v in catalog.versions("guanggu")] == [1]


def test_an_unknown_collection_is_refused_and_leaves_nothing(catalog: Catalog) -> None:
    with pytest.raises(NotFound, match="no collection '桥梁'"):
        catalog.publish(item(collection="桥梁"), new_version())
    assert catalog.items() == []
    assert catalog.sequence() == 0
    with pytest.raises(NotFound, match="no collection '桥梁'"):
        catalog.collection("桥梁")


def test_an_update_changes_what_is_said_and_not_what_is_published(catalog: Catalog) -> None:
    version = catalog.publish(item(), new_version())
    got = catalog.update(item(title="光谷建筑", collection="models", properties={"a": 1}))
    assert (got.title, got.collection, got.properties) == ("光谷建筑", "models", {"a": 1})
    assert got.current == 1
    assert catalog.version("guanggu") == version
    with pytest.raises(NotFound):
        catalog.update(item("nobody"))


def test_items_are_listed_by_collection_and_kind(catalog: Catalog) -> None:
    catalog.publish(item("b"), new_version())
    catalog.publish(item("a", collection="roads", kind="vector"), new_version())
    catalog.publish(item("c", collection="water", kind="vector"), new_version())
    assert [i.id for i in catalog.items()] == ["a", "b", "c"]
    assert [i.id for i in catalog.items(kind="vector")] == ["a", "c"]
    assert [i.id for i in catalog.items(collection="water")] == ["c"]
    assert catalog.items(collection="water", kind="buildings") == []


def test_collections_keep_their_order_and_can_be_renamed(catalog: Catalog) -> None:
    standard = standard_collections()
    assert catalog.collections() == standard
    catalog.ensure_collections([Collection("bridges", "桥梁", level=3, parent="models")])
    catalog.ensure_collections([Collection("terrain", "高程", "Relief", parent="base")])
    catalog.ensure_collections(standard[:2])
    after = catalog.collections()
    assert [c.id for c in after] == [c.id for c in standard] + ["bridges"]
    assert catalog.collection("terrain").title == "高程"


def test_standard_collections_name_parents_that_come_before_them() -> None:
    seen: set[str] = set()
    for collection in standard_collections():
        assert collection.parent is None or collection.parent in seen
        seen.add(collection.id)


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(texts, texts, st.dictionaries(texts.map("x:".__add__), texts | st.integers(), max_size=4))
def test_any_text_survives(
    catalog: Catalog, title: str, description: str, properties: dict[str, object]
) -> None:
    said = item(title=title, description=description, properties=properties)
    catalog.publish(said, new_version(info=properties, report={"n": [properties]}))
    got = catalog.item("guanggu")
    assert (got.title, got.description, got.properties) == (title, description, properties)
    assert catalog.version("guanggu").info == properties
    assert catalog.version("guanggu").report == {"n": [properties]}


@pytest.mark.parametrize("item_id", ["随州-曾都区", "a", "A.b_c-d", "٣", "x" * 128])
def test_ids_of_any_script_are_taken(catalog: Catalog, item_id: str) -> None:
    catalog.publish(item(item_id), new_version())
    assert catalog.item(item_id).id == item_id


@pytest.mark.parametrize(
    "item_id",
    [
        "",
        "a/b",
        "..",
        ".hidden",
        "-x",
        "a b",
        "a\n",
        "x" * 129,
        "a\\b",
        "🏙",
        "e\u0301",
        "a%2f",
        "a?",
    ],
)
def test_ids_that_would_break_a_url_are_refused(item_id: str) -> None:
    with pytest.raises(RecordInvalid, match="cannot be part of a URL"):
        item(item_id)


@pytest.mark.parametrize(
    "bounds",
    [
        Region(30.4, 114.3, 30.6, 114.5),
        Region(441464, 3507677, 441465, 3507678),
        Region(2, 0, 1, 1),
        Region(0, 0, 1, float("nan")),
        Region(0, 0, 1, 1, 5, 4),
    ],
)
def test_bounds_that_are_no_degrees_are_refused(bounds: Region) -> None:
    with pytest.raises(RecordInvalid, match="bounds"):
        new_version(bounds=bounds)


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../b", "a//b", "", "a\\b", "./a"])
def test_store_paths_stay_within_the_data_folder(path: str) -> None:
    with pytest.raises(RecordInvalid, match="not relative"):
        store(path)


@pytest.mark.parametrize(
    "properties",
    [
        {"x": float("nan")},
        {"x": object()},
        {"x": "\ud800"},
        {"datetime": "yesterday"},
        {"datetime": "2024-01-01T00:00:00"},
        {"start_datetime": "2024-01-01T00:00:00Z"},
        {"start_datetime": "2024-01-02T00:00:00Z", "end_datetime": "2024-01-01T00:00:00Z"},
    ],
)
def test_properties_that_cannot_be_kept_are_refused(properties: dict[str, object]) -> None:
    with pytest.raises(RecordInvalid):
        item(properties=properties)


def test_a_version_without_stores_is_refused() -> None:
    with pytest.raises(RecordInvalid, match="without a store"):
        NewVersion(Region(0, 0, 1, 1), ())


def test_a_failure_within_a_publication_leaves_the_previous_version_current(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog.publish(item(), new_version())
    before = (catalog.item("guanggu"), catalog.versions("guanggu"), catalog.changes())

    def fail(*_: object) -> None:
        raise RuntimeError("lightning")

    monkeypatch.setattr(events, "append", fail)
    with pytest.raises(RuntimeError, match="lightning"):
        catalog.publish(item(title="半成品"), new_version())
    monkeypatch.undo()
    assert before == (catalog.item("guanggu"), catalog.versions("guanggu"), catalog.changes())
    assert catalog.publish(item(), new_version()).number == 2


def _publish_and_die(path: Path) -> None:
    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    events.append = die  # type: ignore[assignment]
    Catalog.open(path).publish(item(title="半成品"), new_version())


def _publish_many(path: str, name: str, count: int, start: Barrier) -> None:
    with Catalog.open(path) as catalog:
        start.wait(30)
        for _ in range(count):
            catalog.publish(item(title=name), new_version())


def _run(target: object, *args: object) -> multiprocessing.process.BaseProcess:
    process = multiprocessing.get_context("spawn").Process(target=target, args=args)  # type: ignore[arg-type]
    process.start()
    return process


def test_a_kill_within_a_publication_leaves_the_previous_version_current(
    database: str,
) -> None:
    path = database
    with Catalog.open(path) as catalog:
        catalog.ensure_collections(standard_collections())
        catalog.publish(item(), new_version())
    process = _run(_publish_and_die, path)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    with Catalog.open(path) as catalog:
        assert catalog.item("guanggu").title == "光谷白模"
        assert catalog.version("guanggu").number == 1
        assert [c.action for c in catalog.changes()] == ["create", "publish"]


def test_two_processes_publish_the_same_asset_and_lose_nothing(
    database: str,
) -> None:
    path = database
    with Catalog.open(path) as catalog:
        catalog.ensure_collections(standard_collections())
        start = multiprocessing.get_context("spawn").Barrier(2)
        others = [_run(_publish_many, path, name, 25, start) for name in ("甲", "乙")]
        for process in others:
            process.join()
            assert process.exitcode == 0
        assert [v.number for v in catalog.versions("guanggu")] == list(range(50, 0, -1))
        published = [c for c in catalog.changes() if c.action == "publish"]
        assert [c.version for c in published] == list(range(1, 51))
        assert [c.action for c in catalog.changes()].count("create") == 1
        assert catalog.item("guanggu").current == 50


def test_two_processes_make_the_same_new_catalogue(
    database: str,
) -> None:
    path = database
    start = multiprocessing.get_context("spawn").Barrier(2)
    others = [_run(_open_only, path, start) for _ in range(2)]
    for process in others:
        process.join()
        assert process.exitcode == 0
    with Catalog.open(path) as catalog:
        assert catalog.sequence() == 0


def _open_only(path: str, start: Barrier) -> None:
    start.wait(30)
    Catalog.open(path).close()


def test_readers_in_threads_see_whole_publications(catalog: Catalog) -> None:
    catalog.publish(item(title="1"), new_version(info={"n": 1}))
    torn: list[object] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            for found, version in catalog.search(SearchQuery()).items:
                if found.title != str(version.info["n"]) or found.current != version.number:
                    torn.append((found, version))

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for n in range(2, 60):
        catalog.publish(item(title=str(n)), new_version(info={"n": n}))
    done.set()
    for thread in threads:
        thread.join()
    assert torn == []


def test_another_writer_is_waited_for_and_then_named(
    catalog: Catalog, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "BUSY_SECONDS", 0.2)
    with engine.writing(catalog._engine), Catalog.open(database) as impatient:
        with pytest.raises(Conflict, match="another process"):
            impatient.publish(item(), new_version())


def test_a_full_disk_is_told_and_changes_nothing(tmp_path: Path) -> None:
    catalog = Catalog.open(tmp_path / "catalog.sqlite")
    catalog.ensure_collections(standard_collections())
    catalog.publish(item(), new_version())

    @sa.event.listens_for(catalog._engine, "connect")
    def limit(connection: sqlite3.Connection, _record: object) -> None:
        # SQLite's own limit on pages stands for a file system without space.
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages + 2}")

    catalog._engine.dispose()
    with pytest.raises(CatalogError, match="full; free some space"):
        catalog.publish(item(), new_version(info={"big": "x" * 100_000}))
    assert catalog.version("guanggu").number == 1
    catalog.close()


def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    path = tmp_path / "catalog.sqlite"
    path.write_bytes(b"PK\3\4" * 1000)
    with pytest.raises(CatalogError, match="catalog.sqlite: file is not a database"):
        Catalog.open(path)
    assert path.read_bytes() == b"PK\3\4" * 1000


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="does not exist"):
        Catalog.open(tmp_path / "none" / "catalog.sqlite")


@pytest.mark.parametrize(
    "url", ["mysql://u:secret@h/db", "sqlite://", "sqlite:///x?mode=ro", "://secret"]
)
def test_other_databases_are_refused_and_no_password_is_shown(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Catalog.open(url)
    assert "secret" not in str(caught.value)


def test_a_server_that_does_not_answer_is_told_without_the_password() -> None:
    with pytest.raises(CatalogError, match="u:\\*\\*\\*@127.0.0.1:9/db") as caught:
        Catalog.open("postgresql://u:secret@127.0.0.1:9/db")
    assert "secret" not in str(caught.value)


def test_a_database_that_sorts_by_language_or_lacks_postgis_is_refused(postgres: Server) -> None:
    by_language = postgres.new_database("TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'zh'")
    with pytest.raises(ConfigError, match="LC_COLLATE 'C'"):
        Catalog.open(by_language)
    with pytest.raises(ConfigError, match="CREATE EXTENSION postgis"):
        Catalog.open(postgres.new_database("TEMPLATE template0"))


def test_paths_with_chinese_and_odd_characters_are_opened(tmp_path: Path) -> None:
    folder = tmp_path / "城市 #1?%20"
    folder.mkdir()
    with Catalog.open(folder / "目录.sqlite") as catalog:
        assert catalog.sequence() == 0
    assert (folder / "目录.sqlite").exists()
    with Catalog.open(f"sqlite:///{tmp_path}/x.sqlite") as catalog:
        assert catalog.sequence() == 0


def test_a_clock_without_a_zone_is_refused(tmp_path: Path) -> None:
    with Catalog.open(tmp_path / "c.sqlite", clock=lambda: datetime(2026, 1, 1)) as catalog:
        catalog.ensure_collections(standard_collections())
        with pytest.raises(RecordInvalid, match="without a zone"):
            catalog.publish(item(), new_version())


def test_times_of_any_zone_are_kept_as_the_same_moment(tmp_path: Path) -> None:
    moment = datetime.fromisoformat("2026-01-01T08:00:00.000001+08:00")
    with Catalog.open(tmp_path / "c.sqlite", clock=lambda: moment) as catalog:
        catalog.ensure_collections(standard_collections())
        catalog.publish(item(), new_version())
        got = catalog.item("guanggu").created
    assert got == moment
    assert got.tzinfo == UTC


def test_records_are_values() -> None:
    assert StoreRef.from_json(store().to_json()) == store()
    with pytest.raises(AttributeError):
        store().path = "b"  # type: ignore[misc]
    assert isinstance(item(), Item)
