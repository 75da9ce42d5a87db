"""The first catalogue: collections, assets, versions with their stores, and the change log."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_TABLES = ("collections", "items", "versions", "stores", "numbers", "changes")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "collections",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("title", sa.String, nullable=False),
        sa.Column("title_en", sa.String, nullable=False),
        sa.Column("description", sa.String, nullable=False),
        sa.Column("level", sa.Integer),
        sa.Column("parent", sa.String, sa.ForeignKey("collections.id")),
    )
    op.create_table(
        "items",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("collection", sa.String, sa.ForeignKey("collections.id"), nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("title", sa.String, nullable=False),
        sa.Column("description", sa.String, nullable=False),
        sa.Column("properties", sa.JSON, nullable=False),
        sa.Column("created", sa.String(27), nullable=False),
        sa.Column("updated", sa.String(27), nullable=False),
        sa.Column("current", sa.Integer),
        sa.Column("words", sa.String, nullable=False),
        sa.Column("data_start", sa.String(27)),
        sa.Column("data_end", sa.String(27)),
    )
    op.create_index("items_by_collection", "items", ["collection"])
    _create_versions()
    op.create_table(
        "numbers",
        sa.Column("item_id", sa.String, primary_key=True),
        sa.Column("last", sa.Integer, nullable=False),
    )
    _create_changes()


def _create_versions() -> None:
    op.create_table(
        "versions",
        sa.Column("item_id", sa.String, sa.ForeignKey("items.id"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("created", sa.String(27), nullable=False),
        sa.Column("west", sa.Float, nullable=False),
        sa.Column("south", sa.Float, nullable=False),
        sa.Column("east", sa.Float, nullable=False),
        sa.Column("north", sa.Float, nullable=False),
        sa.Column("min_height_m", sa.Float, nullable=False),
        sa.Column("max_height_m", sa.Float, nullable=False),
        sa.Column("info", sa.JSON, nullable=False),
        sa.Column("report", sa.JSON, nullable=False),
        sa.Column("job", sa.String, nullable=False),
        sa.Column("tombstones", sa.JSON, nullable=False),
    )
    op.create_table(
        "stores",
        sa.Column("item_id", sa.String, primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("position", sa.Integer, primary_key=True),
        sa.Column("role", sa.String, nullable=False),
        sa.Column("format", sa.String, nullable=False),
        sa.Column("path", sa.String, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("nbytes", sa.BigInteger, nullable=False),
        sa.Column("media_type", sa.String, nullable=False),
        sa.ForeignKeyConstraint(["item_id", "number"], ["versions.item_id", "versions.number"]),
    )
    op.create_index("stores_by_path", "stores", ["path"])


def _create_changes() -> None:
    op.create_table(
        "changes",
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("time", sa.String(27), nullable=False),
        sa.Column("action", sa.String, nullable=False),
        sa.Column("item_id", sa.String, nullable=False),
        sa.Column("version", sa.Integer),
        sa.Column("detail", sa.JSON, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("changes_by_item", "changes", ["item_id", "seq"])
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE FUNCTION changes_refuse() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'the change log is append-only'; END $$"
        )
        op.execute(
            "CREATE TRIGGER changes_refuse BEFORE UPDATE OR DELETE OR TRUNCATE ON changes "
            "FOR EACH STATEMENT EXECUTE FUNCTION changes_refuse()"
        )
        return
    for event in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER changes_refuse_{event.lower()} BEFORE {event} ON changes "
            "BEGIN SELECT RAISE(ABORT, 'the change log is append-only'); END"
        )


def downgrade() -> None:
    """Drop the tables, and with them what they hold."""
    for table in reversed(_TABLES):
        op.drop_table(table)
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION changes_refuse()")
