"""What searches see of an asset in one row, and its box and days in an R*Tree."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0002"
down_revision = "0001"

_TIME = sa.String(27)


def upgrade() -> None:
    """Make the tables and fill them with the current version of every asset."""
    op.create_table(
        "published",
        sa.Column("row", sa.Integer, primary_key=True),
        sa.Column("id", sa.String, sa.ForeignKey("items.id"), nullable=False, unique=True),
        sa.Column("collection", sa.String, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("title", sa.String, nullable=False),
        sa.Column("description", sa.String, nullable=False),
        sa.Column("created", _TIME, nullable=False),
        sa.Column("updated", _TIME, nullable=False),
        sa.Column("datetime", _TIME),
        sa.Column("start_datetime", _TIME),
        sa.Column("end_datetime", _TIME),
        sa.Column("first", _TIME, nullable=False),
        sa.Column("last", _TIME, nullable=False),
        *(
            sa.Column(name, sa.Float, nullable=False)
            for name in ("west", "south", "east", "north", "min_height_m", "max_height_m")
        ),
        sa.Column("words", sa.String, nullable=False),
        sa.Column("properties", sa.JSON().with_variant(JSONB(), "postgresql"), nullable=False),
    )
    op.create_index("published_by_collection", "published", ["collection", "id"])
    op.create_index("published_by_update", "published", ["updated", "id"])
    interval = f"{_member('i.properties', 'start_datetime')} IS NOT NULL"
    op.execute(
        f"""
        INSERT INTO published (
            id, collection, kind, number, title, description, created, updated,
            datetime, start_datetime, end_datetime, first, last,
            west, south, east, north, min_height_m, max_height_m, words, properties
        )
        SELECT i.id, i.collection, i.kind, i.current, i.title,
            CASE i.description WHEN '' THEN i.title ELSE i.description END, i.created, i.updated,
            CASE WHEN {interval} THEN NULL ELSE coalesce(i.data_start, v.created) END,
            CASE WHEN {interval} THEN i.data_start END,
            CASE WHEN {interval} THEN i.data_end END,
            coalesce(i.data_start, v.created), coalesce(i.data_end, v.created),
            v.west, v.south, v.east, v.north, v.min_height_m, v.max_height_m,
            i.words, {"i.properties::jsonb" if _is_postgresql() else "i.properties"}
        FROM items i JOIN versions v ON v.item_id = i.id AND v.number = i.current
        """
    )
    _index_boxes()
    with op.batch_alter_table("items") as table:
        for name in ("words", "data_start", "data_end"):
            table.drop_column(name)


def _is_postgresql() -> bool:
    return op.get_bind().dialect.name == "postgresql"


def _member(column: str, name: str) -> str:
    if _is_postgresql():
        return f"({column} ->> '{name}')"
    return f"json_extract({column}, '$.{name}')"


def _index_boxes() -> None:
    if _is_postgresql():
        op.execute(
            "CREATE INDEX published_by_box ON published "
            "USING gist (box(point(west, south), point(east, north)))"
        )
        return
    op.execute(
        "CREATE VIRTUAL TABLE published_boxes "
        "USING rtree(row, west, east, south, north, first_day, last_day)"
    )
    op.execute(
        """
        INSERT INTO published_boxes
        SELECT row, west, east, south, north,
            julianday(first) - 2440587.5, julianday(last) - 2440587.5
        FROM published
        """
    )


def downgrade() -> None:
    """Put the derived columns back into the assets, and drop the tables."""
    with op.batch_alter_table("items") as table:
        table.add_column(sa.Column("words", sa.String, nullable=False, server_default=""))
        table.add_column(sa.Column("data_start", _TIME))
        table.add_column(sa.Column("data_end", _TIME))
    op.execute(
        """
        UPDATE items SET words = p.words, data_start = p.first, data_end = p.last
        FROM published p WHERE p.id = items.id
        """
    )
    # Where the data say nothing of their time, that of publishing stood in for it.
    stated = ", ".join(_member("properties", n) for n in ("datetime", "start_datetime"))
    op.execute(
        f"UPDATE items SET data_start = NULL, data_end = NULL WHERE coalesce({stated}) IS NULL"
    )
    with op.batch_alter_table("items") as table:
        table.alter_column("words", existing_type=sa.String, server_default=None)
    if not _is_postgresql():
        op.execute("DROP TABLE published_boxes")
    op.drop_table("published")
