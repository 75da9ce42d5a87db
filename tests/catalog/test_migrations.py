"""A catalogue of any age opens, and loses nothing on the way."""

import shutil
import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from catalog import migrations
from catalog.database import Catalog
from catalog.engine import migrating, reading, writing
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


def contents(path: Path) -> dict[str, list[tuple[object, ...]]]:
    tables = ["collections", "items", "versions", "stores", "numbers", "published", "changes"]
    with sqlite3.connect(path) as connection:
        found = {}
        for table in tables:
            columns = ", ".join(f'"{column.name}"' for column in metadata.tables[table].columns)
            found[table] = connection.execute(f"SELECT {columns} FROM {table}").fetchall()
        found["boxes"] = connection.execute("SELECT * FROM published_boxes").fetchall()
    connection.close()
    return found


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    path = tmp_path / "catalog.sqlite"
    with Catalog.open(path) as catalog:
        catalog.ensure_collections(standard_collections())
        for n in range(3):
            catalog.publish(item("随州", properties={"n": n}), new_version(info={"名": "🏙️"}))
        catalog.publish(item("gone"), new_version())
        catalog.delete("gone")
    return path


def test_the_migrated_tables_are_those_of_the_code(filled: Path) -> None:
    with Catalog.open(filled) as catalog, reading(catalog._engine) as connection:
        # The tree and the tables below it are SQLite's own.
        options = {
            "compare_type": True,
            "include_name": lambda name, *_: not str(name).startswith("published_boxes"),
        }
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, metadata) == []


def test_the_head_of_the_code_is_the_newest_migration(filled: Path) -> None:
    with Catalog.open(filled) as catalog, reading(catalog._engine) as connection:
        scripts = ScriptDirectory.from_config(migrations.config(connection))
        assert scripts.get_heads() == [HEAD]
        assert migrations.revision(connection) == HEAD


def test_up_and_down_again_keeps_every_row(filled: Path, tmp_path: Path) -> None:
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


def test_down_to_nothing_and_up_again_gives_an_empty_catalogue(filled: Path) -> None:
    with Catalog.open(filled) as catalog, migrating(catalog._engine) as connection:
        migrations.downgrade(connection, "base")
        assert sa.inspect(connection).get_table_names() == ["alembic_version"]
    with Catalog.open(filled) as catalog:
        assert catalog.items() == []
        assert catalog.sequence() == 0


def test_what_was_published_before_there_were_searches_is_found_as_if_published_now(
    tmp_path: Path,
) -> None:
    path = tmp_path / "catalog.sqlite"
    with Catalog.open(path, clock=ticking()) as catalog:
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
        before = contents(path)
        with migrating(catalog._engine) as connection:
            migrations.downgrade(connection, "0001")
            assert "published" not in sa.inspect(connection).get_table_names()
        with migrating(catalog._engine) as connection:
            migrations.upgrade(connection)
    after = contents(path)
    # The numbers of rows are nobody's business; boxes go with their rows.
    for state in (before, after):
        state["published"] = sorted(row[1:] for row in state["published"])
        state["boxes"] = sorted(row[1:] for row in state["boxes"])
    assert after == before


def test_a_migration_that_fails_leaves_the_old_catalogue_whole(
    filled: Path, tmp_path: Path
) -> None:
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


def test_a_migration_that_breaks_references_is_undone(filled: Path, tmp_path: Path) -> None:
    folder = future(tmp_path, extra='op.execute("DELETE FROM items")')
    before = contents(filled)
    with Catalog.open(filled) as catalog:
        with pytest.raises(CatalogError, match="break 4 references, the first in table versions"):
            with migrating(catalog._engine) as connection:
                migrations.upgrade(connection, folder)
        assert contents(filled) == before
        with pytest.raises(CatalogError, match="FOREIGN KEY"), writing(catalog._engine) as again:
            again.execute(sa.text("DELETE FROM items"))
    assert contents(filled) == before


def test_a_catalogue_of_a_newer_program_is_refused_and_left_alone(
    filled: Path, tmp_path: Path
) -> None:
    with Catalog.open(filled) as catalog, migrating(catalog._engine) as connection:
        migrations.upgrade(connection, future(tmp_path))
    before = contents(filled)
    with pytest.raises(CatalogError, match="revision 9999, newer than this program"):
        Catalog.open(filled)
    assert contents(filled) == before
