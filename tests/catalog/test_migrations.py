"""A catalogue of any age opens, and loses nothing on the way."""

import shutil
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from catalog import migrations
from catalog.database import Catalog
from catalog.engine import migrating, open_engine, reading, writing
from catalog.records import standard_collections
from catalog.schema import HEAD, metadata
from tests.catalog.conftest import item, new_version, ticking
from tiling.errors import CatalogError

FUTURE = """
import sqlalchemy as sa
from alembic import op
revision = "9999"
down_revision = "{head}"
def upgrade():
    with op.batch_alter_table("items") as table:
        table.add_column(sa.Column("owner", sa.String, nullable=False, server_default="规划局"))
    {extra}
def downgrade():
    with op.batch_alter_table("items") as table:
        table.drop_column("owner")
"""


def future(tmp_path: Path, extra: str = "") -> Path:
    """The migrations with one more after the newest."""
    folder = tmp_path / "migrations"
    shutil.copytree(
        migrations.FOLDER, folder, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True
    )
    text = FUTURE.format(head=HEAD, extra=extra)
    (folder / "versions" / "v9999_future.py").write_text(text, encoding="utf-8")
    return folder


def contents(url: str) -> dict[str, list[tuple[object, ...]]]:
    tables = ["collections", "items", "versions", "stores", "numbers", "published", "changes"]
    found: dict[str, list[tuple[object, ...]]] = {}
    engine = open_engine(url)
    with reading(engine) as connection:
        for table in tables:
            query = sa.select(*metadata.tables[table].columns)
            found[table] = [tuple(row) for row in connection.execute(query)]
        if connection.dialect.name == "sqlite":
            boxes = connection.execute(sa.text("SELECT * FROM published_boxes"))
            found["boxes"] = [tuple(row) for row in boxes]
    engine.dispose()
    # In the order of rows in a database there is no law.
    return {table: sorted(rows, key=repr) for table, rows in found.items()}


@pytest.fixture
def filled(database: str) -> str:
    with Catalog.open(database) as catalog:
        catalog.ensure_collections(standard_collections())
        for n in range(3):
            catalog.publish(item("随州", properties={"n": n}), new_version(info={"名": "🏙️"}))
        catalog.publish(item("gone"), new_version())
        catalog.delete("gone")
    return database


def test_the_migrated_tables_are_those_of_the_code(filled: str) -> None:
    with Catalog.open(filled) as catalog, reading(catalog._engine) as connection:
        # The tree and the tables below it are SQLite's own.
        options = {
            "compare_type": True,
            "include_name": lambda name, *_: (
                not str(name).startswith(("published_boxes", "spatial_ref_sys", "published_by_box"))
            ),
        }
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, metadata) == []


def test_the_head_of_the_code_is_the_newest_migration(filled: str) -> None:
    with Catalog.open(filled) as catalog, reading(catalog._engine) as connection:
        scripts = ScriptDirectory.from_config(migrations.config(connection))
        assert scripts.get_heads() == [HEAD]
        assert migrations.revision(connection) == HEAD


def test_up_and_down_again_keeps_every_row(filled: str, tmp_path: Path) -> None:
    folder = future(tmp_path)
    before = contents(filled)
    with Catalog.open(filled) as catalog:
        with migrating(catalog._engine) as connection:
            migrations.upgrade(connection, folder)
            owners = connection.execute(sa.text("SELECT owner FROM items")).scalars().all()
            assert owners == ["规划局"]
        assert contents(filled) == before
        with migrating(catalog._engine) as connection:
            migrations.downgrade(connection, HEAD, folder)
    assert contents(filled) == before
    with Catalog.open(filled) as catalog:
        assert catalog.publish(item("随州"), new_version()).number == 4
        assert catalog.publish(item("gone"), new_version()).number == 2


def test_down_to_nothing_and_up_again_gives_an_empty_catalogue(filled: str) -> None:
    with Catalog.open(filled) as catalog, migrating(catalog._engine) as connection:
        migrations.downgrade(connection, "base")
        assert set(sa.inspect(connection).get_table_names()) - {"spatial_ref_sys"} == {
            "alembic_version"
        }
    with Catalog.open(filled) as catalog:
        assert catalog.items() == []
        assert catalog.sequence() == 0


def test_what_was_published_before_there_were_searches_is_found_as_if_published_now(
    database: str,
) -> None:
    with Catalog.open(database, clock=ticking()) as catalog:
        catalog.ensure_collections(standard_collections())
        for name, said in {
            "moment": {"datetime": "2020-02-03T04:05:06.789+08:00"},
            "span": {"start_datetime": "0001-01-02T00:00:00Z", "end_datetime": "9999-01-01T00:00Z"},
            "timeless": {"名": "大光路", "n": [1, None]},
        }.items():
            catalog.publish(item(name, properties=said), new_version())
            catalog.publish(item(name, properties=said, description=f"{name} Ä"), new_version())
        catalog.rollback("moment", 1)
        catalog.publish(item("gone"), new_version())
        catalog.delete("gone")
        before = contents(database)
        with migrating(catalog._engine) as connection:
            migrations.downgrade(connection, "0001")
            assert "published" not in sa.inspect(connection).get_table_names()
        with migrating(catalog._engine) as connection:
            migrations.upgrade(connection)
    after = contents(database)
    # The numbers of rows are nobody's business; boxes go with their rows.
    for state in (before, after):
        state["published"] = sorted((row[1:] for row in state["published"]), key=repr)
        state["boxes"] = sorted((row[1:] for row in state.get("boxes", [])), key=repr)
    assert after == before


def test_a_migration_that_fails_leaves_the_old_catalogue_whole(filled: str, tmp_path: Path) -> None:
    folder = future(tmp_path, extra='op.execute("SELECT no_such_function()")')
    before = contents(filled)
    with Catalog.open(filled) as catalog:
        with (
            pytest.raises(CatalogError, match="no_such_function"),
            migrating(catalog._engine) as connection,
        ):
            migrations.upgrade(connection, folder)
    assert contents(filled) == before
    with Catalog.open(filled) as catalog, reading(catalog._engine) as connection:
        assert migrations.revision(connection) == HEAD
        assert "owner" not in {c["name"] for c in sa.inspect(connection).get_columns("items")}


def test_a_migration_that_breaks_references_is_undone(filled: str, tmp_path: Path) -> None:
    folder = future(tmp_path, extra='op.execute("DELETE FROM items")')
    before = contents(filled)
    with Catalog.open(filled) as catalog:
        with pytest.raises(
            CatalogError, match="4 references, the first in table|violates foreign key"
        ):
            with migrating(catalog._engine) as connection:
                migrations.upgrade(connection, folder)
        assert contents(filled) == before
        with (
            pytest.raises(CatalogError, match="(?i)foreign key"),
            writing(catalog._engine) as again,
        ):
            again.execute(sa.text("DELETE FROM items"))
    assert contents(filled) == before


def test_a_catalogue_of_a_newer_program_is_refused_and_left_alone(
    filled: str, tmp_path: Path
) -> None:
    with Catalog.open(filled) as catalog, migrating(catalog._engine) as connection:
        migrations.upgrade(connection, future(tmp_path))
    before = contents(filled)
    with pytest.raises(CatalogError, match="revision 9999, newer than this program"):
        Catalog.open(filled)
    assert contents(filled) == before
