"""Search: which published assets lie where, from when, under which words; page by page.

Only assets with a current version are found. Where a search says a place or a time, an index is
asked for candidates first; few of them are looked at one by one, and counted. Where there are many,
the table is read in its order until the page is full.
"""

from __future__ import annotations

import math
from collections.abc import Collection as Container
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from catalog.access import AccessFilter
from catalog.cql2.conditions import Compiler
from catalog.cql2.places import extent_of
from catalog.cql2.tree import Tree
from catalog.dialects import Dialect, dialect_of
from catalog.paging import Order, SortKey, token_of
from catalog.published import days
from catalog.queryables import compiler
from catalog.records import Item, Version, parse_time
from catalog.schema import published
from tiling.bounds import Region
from tiling.errors import QueryInvalid, RecordInvalid

MAX_LIMIT = 10_000
_MAX_TEXT = 1_000

Interval = tuple[datetime | None, datetime | None]


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """What is asked for; every condition that is given must hold.

    Attributes:
        bbox: west, south, east, north, or with heights (metres) after south and north; degrees.
            ``west > east`` crosses the antimeridian. A shared edge counts as an overlap.
        interval: first and last moment, inclusive, None for an open end.
        ids, collections, kinds: one of these; None for any.
        text: words that all occur in id, title, description or properties, in any case.
        filter: a CQL2 filter, see `catalog.cql2`.
        sort: by what, before the id.
        limit: assets per page, 1 to 10,000.
        token: where the page begins: `SearchPage.next` of the page before.
    """

    bbox: tuple[float, ...] | None = None
    interval: Interval | None = None
    ids: Container[str] | None = None
    collections: Container[str] | None = None
    kinds: Container[str] | None = None
    text: str = ""
    filter: Tree | None = None
    sort: tuple[SortKey, ...] = ()
    limit: int = 100
    token: str | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.limit <= MAX_LIMIT:
            raise QueryInvalid(f"limit {self.limit} is not in 1..{MAX_LIMIT}")
        if len(self.text) > _MAX_TEXT:
            raise QueryInvalid(f"the search text is longer than {_MAX_TEXT} characters")
        if self.bbox is not None:
            _check_bbox(self.bbox)
        if self.interval is not None:
            first, last = self.interval
            if any(end is not None and end.tzinfo is None for end in self.interval):
                raise QueryInvalid(f"the interval {first} to {last} lacks a zone")
            if first is not None and last is not None and first > last:
                raise QueryInvalid(f"the interval ends ({last}) before it begins ({first})")


@dataclass(frozen=True, slots=True)
class SearchPage:
    """One page of a search.

    Attributes:
        items: assets with their current versions, in the order asked for.
        next: token of the page after this one, None on the last.
        matched: number of assets on all pages; None where counting would be most of the work.
    """

    items: list[tuple[Item, Version]]
    next: str | None
    matched: int | None


@dataclass(frozen=True, slots=True)
class Extent:
    """Where and when the published assets of a collection lie.

    Attributes:
        count: of assets.
        bounds: of all of them.
        first, last: the first and the last moment of their data.
    """

    count: int
    bounds: Region
    first: datetime
    last: datetime

    def touches(self, bbox: tuple[float, ...] | None, interval: Interval | None) -> bool:
        """Say whether it has a place in common with a bbox, and a moment with an interval."""
        if bbox is not None:
            west, south, low, east, north, high = _six(bbox)
            b = self.bounds
            spans = [(west, east)] if west <= east else [(west, 180.0), (-180.0, east)]
            if not any(b.west <= e and b.east >= w for w, e in spans):
                return False
            if b.north < south or b.south > north or b.max_height_m < low or b.min_height_m > high:
                return False
        first, last = interval or (None, None)
        if first is not None and self.last < first:
            return False
        return last is None or self.first <= last


def extents(connection: sa.Connection, access: AccessFilter) -> dict[str, Extent]:
    """Return the extents of the collections that have published assets, by id."""
    p = published.c
    query = sa.select(
        p.collection,
        sa.func.count(),
        *(sa.func.min(p[n]) for n in ("west", "south")),
        *(sa.func.max(p[n]) for n in ("east", "north")),
        sa.func.min(p.min_height_m),
        sa.func.max(p.max_height_m),
        sa.func.min(p.first),
        sa.func.max(p.last),
    )
    rows = connection.execute(query.where(access.condition(published)).group_by(p.collection))
    return {row[0]: Extent(row[1], Region(*row[2:8]), *row[8:]) for row in rows}


def _check_bbox(bbox: tuple[float, ...]) -> None:
    if len(bbox) not in (4, 6) or not all(math.isfinite(v) for v in bbox):
        raise QueryInvalid(f"bbox {list(bbox)} is not made of 4 or 6 finite numbers")
    west, south, low, east, north, high = _six(bbox)
    if not (-180 <= west <= 180 and -180 <= east <= 180):
        raise QueryInvalid(f"bbox {list(bbox)}: longitudes lie outside -180..180")
    if not -90 <= south <= north <= 90:
        raise QueryInvalid(f"bbox {list(bbox)}: latitudes are not -90 <= south <= north <= 90")
    if low > high:
        raise QueryInvalid(f"bbox {list(bbox)}: the lowest height is above the highest")


def _six(bbox: tuple[float, ...]) -> tuple[float, float, float, float, float, float]:
    if len(bbox) == 6:
        west, south, low, east, north, high = bbox
    else:
        west, south, east, north = bbox
        low, high = -math.inf, math.inf
    return west, south, low, east, north, high


def parse_interval(text: str) -> Interval:
    """Read the ``datetime`` parameter of STAC and OGC API: a time, or ``first/last``.

    ``..`` or nothing stands for an open end.

    Raises:
        QueryInvalid: not a time, both ends open, or an end before its beginning.
    """
    parts = text.split("/")
    try:
        ends = [None if p in ("", "..") else parse_time(p.replace(" ", "+")) for p in parts]
    except RecordInvalid as error:
        raise QueryInvalid(f"datetime {text!r}: {error}") from error
    if len(ends) > 2 or all(end is None for end in ends):
        raise QueryInvalid(f"datetime {text!r} is neither a time nor an interval first/last")
    return ends[0], ends[-1]


def parse_bbox(text: str) -> tuple[float, ...]:
    """Read the ``bbox`` parameter: 4 or 6 numbers with commas between them.

    Raises:
        QueryInvalid: anything else.
    """
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise QueryInvalid(f"bbox {text!r} is not made of numbers") from error
    _check_bbox(values)
    return values


def conditions(query: SearchQuery, compiler: Compiler) -> list[sa.ColumnElement[bool]]:
    """Return what must hold of rows of ``published``, page aside."""
    found: list[sa.ColumnElement[bool]] = []
    for column, wanted in (
        (published.c.id, query.ids),
        (published.c.collection, query.collections),
        (published.c.kind, query.kinds),
    ):
        if wanted is not None:
            found.append(column.in_(sorted(wanted)))
    if query.bbox is not None:
        found.append(_overlaps(query.bbox))
    if query.interval is not None:
        first, last = query.interval
        if first is not None:
            found.append(published.c.last >= first)
        if last is not None:
            found.append(published.c.first <= last)
    # Substrings, not tokens: Chinese has no spaces, and two characters make a word.
    for word in query.text.casefold().split():
        found.append(published.c.words.contains(word, autoescape=True))
    if query.filter is not None:
        found.append(compiler.condition(query.filter))
    return found


def _overlaps(bbox: tuple[float, ...]) -> sa.ColumnElement[bool]:
    west, south, low, east, north, high = _six(bbox)
    p = published.c
    after_west, before_east = p.east >= west, p.west <= east
    across = sa.or_ if west > east else sa.and_
    parts = [across(after_west, before_east), p.north >= south, p.south <= north]
    if not (math.isinf(low) or math.isinf(high)):
        parts += [p.max_height_m >= low, p.min_height_m <= high]
    return sa.and_(*parts)


def _nearby(
    query: SearchQuery, dialect: Dialect
) -> tuple[sa.FromClause, sa.FromClause, list[sa.ColumnElement[bool]]]:
    boxes = [] if query.bbox is None else [_flat(query.bbox)]
    if (extent := extent_of(query.filter)) is not None:
        boxes.append(extent)
    first, last = query.interval or (None, None)
    return dialect.near(
        boxes, None if first is None else days(first), None if last is None else days(last)
    )


def _flat(bbox: tuple[float, ...]) -> tuple[float, float, float, float]:
    west, south, _, east, north, _ = _six(bbox)
    return west, south, east, north


# Up to here candidates are looked at one by one, which takes microseconds for each.
_FEW = 2_000


def page(
    connection: sa.Connection, query: SearchQuery, access: AccessFilter
) -> tuple[list[str], str | None, int | None]:
    """Return the ids of one page, the token of the next, and how many match on all pages.

    Raises:
        QueryInvalid: a filter or a token that means nothing.
    """
    dialect = dialect_of(connection)
    words = compiler(connection.dialect.name)
    order = Order.of(query.sort, words)
    where = [access.condition(published), *conditions(query, words)]
    candidates, joined, hints = _nearby(query, dialect)
    columns = [published.c.id, *(c.label(f"key_{n}") for n, c in enumerate(order.columns))]
    if not _are_few(connection, candidates if hints else published, hints):
        rows = sa.select(*columns).where(*where)
        if query.token is not None:
            rows = rows.where(order.after(query.token))
        found = connection.execute(rows.order_by(*order.clauses()).limit(query.limit + 1)).all()
        matched = None
        if len(where) == 1 + (query.collections is not None) + (query.ids is not None):
            count = sa.select(sa.func.count()).select_from(published).where(*where)
            matched = connection.scalar(count) or 0
    else:
        source = joined if hints else published
        # Each candidate is looked at once, for the page and for the count.
        matches = sa.select(*columns).select_from(source).where(*where, *hints).cte("matches")
        matches = matches.prefix_with("MATERIALIZED")
        there = order.on(list(matches.c)[1:])
        total = sa.select(sa.func.count()).select_from(matches).scalar_subquery()
        rows = sa.select(*matches.c, total).order_by(*there.clauses()).limit(query.limit + 1)
        if query.token is not None:
            rows = rows.where(there.after(query.token))
        found = connection.execute(rows).all()
        matched = found[0][-1] if found else _none_here(connection, query, matches)
    shown = found[: query.limit]
    after = token_of(shown[-1][1 : 1 + len(order.columns)]) if len(found) > len(shown) else None
    return [row[0] for row in shown], after, matched


def _are_few(
    connection: sa.Connection, table: sa.FromClause, where: list[sa.ColumnElement[bool]]
) -> bool:
    some = sa.select(sa.literal(1)).select_from(table).where(*where).limit(_FEW + 1).subquery()
    return (connection.scalar(sa.select(sa.func.count()).select_from(some)) or 0) <= _FEW


def _none_here(connection: sa.Connection, query: SearchQuery, matches: sa.CTE) -> int:
    """Return how many match when a page is empty: a page beyond the last may be asked for."""
    if query.token is None:
        return 0
    return connection.scalar(sa.select(sa.func.count()).select_from(matches)) or 0
