"""Tables of the catalogue, as `catalog.migrations` leaves them at `HEAD`.

Only living assets have rows in ``items`` and ``versions``; ``numbers`` remembers the last version
number of every asset that ever was, and ``changes`` what happened to it. Times rest as fixed-width
ISO 8601 text in UTC, so that comparing text compares times on every database.
"""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

HEAD = "0002"
"""The revision this code reads and writes; equals the newest file in ``migrations/versions``."""


class Instant(TypeDecorator[datetime]):
    """An aware time, kept as ``2026-01-31T08:00:00.000000Z``."""

    impl = sa.String(27)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> str | None:
        """Write a time; one without a zone is refused."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"the time {value} lacks a zone")
        utc = value.astimezone(UTC).replace(tzinfo=None)
        return utc.isoformat(timespec="microseconds") + "Z"

    def process_result_value(self, value: str | None, dialect: Dialect) -> datetime | None:
        """Read a time."""
        return None if value is None else datetime.fromisoformat(value)


metadata = sa.MetaData()

collections = sa.Table(
    "collections",
    metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("title", sa.String, nullable=False),
    sa.Column("title_en", sa.String, nullable=False),
    sa.Column("description", sa.String, nullable=False),
    sa.Column("level", sa.Integer),
    sa.Column("parent", sa.String, sa.ForeignKey("collections.id")),
)

items = sa.Table(
    "items",
    metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("collection", sa.String, sa.ForeignKey("collections.id"), nullable=False),
    sa.Column("kind", sa.String, nullable=False),
    sa.Column("title", sa.String, nullable=False),
    sa.Column("description", sa.String, nullable=False),
    sa.Column("properties", sa.JSON, nullable=False),
    sa.Column("created", Instant, nullable=False),
    sa.Column("updated", Instant, nullable=False),
    sa.Column("current", sa.Integer),
    sa.Index("items_by_collection", "collection"),
)

versions = sa.Table(
    "versions",
    metadata,
    sa.Column("item_id", sa.String, sa.ForeignKey("items.id"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("created", Instant, nullable=False),
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

stores = sa.Table(
    "stores",
    metadata,
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
    sa.Index("stores_by_path", "path"),
)

numbers = sa.Table(
    "numbers",
    metadata,
    sa.Column("item_id", sa.String, primary_key=True),
    sa.Column("last", sa.Integer, nullable=False),
)

# An asset as searches see it, in its current version: written anew by `catalog.published` with
# whatever changes it, so that a search reads one row of one table.
published = sa.Table(
    "published",
    metadata,
    # The key of the row in the R*Tree `published_boxes`, which knows numbers only.
    sa.Column("row", sa.Integer, primary_key=True),
    sa.Column("id", sa.String, sa.ForeignKey("items.id"), nullable=False, unique=True),
    sa.Column("collection", sa.String, nullable=False),
    sa.Column("kind", sa.String, nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("title", sa.String, nullable=False),
    sa.Column("description", sa.String, nullable=False),
    sa.Column("created", Instant, nullable=False),
    sa.Column("updated", Instant, nullable=False),
    # As the STAC item shows them: a moment, or a first and a last.
    sa.Column("datetime", Instant),
    sa.Column("start_datetime", Instant),
    sa.Column("end_datetime", Instant),
    # The same in every case.
    sa.Column("first", Instant, nullable=False),
    sa.Column("last", Instant, nullable=False),
    sa.Column("west", sa.Float, nullable=False),
    sa.Column("south", sa.Float, nullable=False),
    sa.Column("east", sa.Float, nullable=False),
    sa.Column("north", sa.Float, nullable=False),
    sa.Column("min_height_m", sa.Float, nullable=False),
    sa.Column("max_height_m", sa.Float, nullable=False),
    sa.Column("words", sa.String, nullable=False),
    sa.Column("properties", sa.JSON().with_variant(JSONB(), "postgresql"), nullable=False),
    sa.Index("published_by_collection", "collection", "id"),
    sa.Index("published_by_update", "updated", "id"),
)

# On SQLite an R*Tree: 32-bit boxes around those of `published`, with days since 1970 as the third
# dimension. A table to SQLAlchemy's queries only; the migration makes it.
published_boxes = sa.table(
    "published_boxes",
    *(sa.column(n) for n in ("row", "west", "east", "south", "north", "first_day", "last_day")),
)

changes = sa.Table(
    "changes",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("time", Instant, nullable=False),
    sa.Column("action", sa.String, nullable=False),
    sa.Column("item_id", sa.String, nullable=False),
    sa.Column("version", sa.Integer),
    sa.Column("detail", sa.JSON, nullable=False),
    sa.Index("changes_by_item", "item_id", "seq"),
    sqlite_autoincrement=True,
)
