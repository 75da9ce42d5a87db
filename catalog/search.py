"""Search: which published assets lie where, from when, under which words; page by page.

Pages follow the asset's id (keyset paging): whatever is published meanwhile, no asset that stays
is skipped or repeated. Only assets with a current version are found.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Collection as Container
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from catalog.records import Item, Version, parse_time
from catalog.schema import items, versions
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
        limit: assets per page, 1 to 10,000.
        token: where the page begins: `SearchPage.next` of the page before.
    """

    bbox: tuple[float, ...] | None = None
    interval: Interval | None = None
    ids: Container[str] | None = None
    collections: Container[str] | None = None
    kinds: Container[str] | None = None
    text: str = ""
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
        items: assets with their current versions, by id.
        next: token of the page after this one, None on the last.
        matched: number of assets on all pages.
    """

    items: list[tuple[Item, Version]]
    next: str | None
    matched: int


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


def words_of(item: Item) -> str:
    """Return the text in which the words of a search are looked up, case folded."""
    parts = [item.id, item.title, item.description]
    parts.extend(str(value) for value in item.properties.values())
    return "\n".join(parts).casefold()


def conditions(query: SearchQuery) -> list[sa.ColumnElement[bool]]:
    """Return what must hold of ``items`` joined with their current ``versions``, page aside."""
    found: list[sa.ColumnElement[bool]] = []
    for column, wanted in (
        (items.c.id, query.ids),
        (items.c.collection, query.collections),
        (items.c.kind, query.kinds),
    ):
        if wanted is not None:
            found.append(column.in_(sorted(wanted)))
    if query.bbox is not None:
        found.append(_overlaps(query.bbox))
    if query.interval is not None:
        first, last = query.interval
        if first is not None:
            found.append(sa.func.coalesce(items.c.data_end, versions.c.created) >= first)
        if last is not None:
            found.append(sa.func.coalesce(items.c.data_start, versions.c.created) <= last)
    # Substrings, not tokens: Chinese has no spaces, and two characters make a word.
    for word in query.text.casefold().split():
        found.append(items.c.words.contains(word, autoescape=True))
    return found


def _overlaps(bbox: tuple[float, ...]) -> sa.ColumnElement[bool]:
    west, south, low, east, north, high = _six(bbox)
    v = versions.c
    after_west, before_east = v.east >= west, v.west <= east
    across = sa.or_ if west > east else sa.and_
    parts = [across(after_west, before_east), v.north >= south, v.south <= north]
    if not (math.isinf(low) or math.isinf(high)):
        parts += [v.max_height_m >= low, v.min_height_m <= high]
    return sa.and_(*parts)


def token_after(item_id: str) -> str:
    """Return the token of the page that begins after an asset."""
    return base64.urlsafe_b64encode(item_id.encode()).decode().rstrip("=")


def id_of_token(token: str) -> str:
    """Return the asset id in a token.

    Raises:
        QueryInvalid: not a token of ours.
    """
    try:
        padded = token.encode("ascii") + b"=" * (-len(token) % 4)
        return base64.b64decode(padded, altchars=b"-_", validate=True).decode()
    except (UnicodeError, binascii.Error) as error:
        raise QueryInvalid(f"{token[:80]!r} is no token of this catalogue") from error
