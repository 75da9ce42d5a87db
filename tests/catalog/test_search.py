"""Search equals brute force, pages are complete, and the access filter is never leaked around."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.access import EVERYTHING, NOTHING, AccessFilter
from catalog.database import Catalog
from catalog.records import Item, Version, data_interval, standard_collections
from catalog.search import SearchQuery, parse_bbox, parse_interval
from tests.catalog.conftest import NewDatabase, item, new_version, ticking
from tiling.bounds import Region
from tiling.errors import NotFound, QueryInvalid

COLLECTIONS = ["roads", "water", "terrain"]
KINDS = ["vector", "terrain"]
NAMES = ["东湖", "光谷大道", "ＡBC road", '100% O\'Neil_"x"', "straße 🏙️", "东西湖"]
DAY0 = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def city(new_database: NewDatabase) -> Iterator[Catalog]:
    """80 assets on a coarse grid, so that edges touch and times are equal now and then."""
    import random

    dice = random.Random(42)
    with Catalog.open(new_database(), clock=ticking()) as catalog:
        catalog.ensure_collections(standard_collections())
        for n in range(80):
            west, south = dice.randrange(-180, 175, 5), dice.randrange(-90, 85, 5)
            bounds = Region(
                west, south, min(180, west + dice.choice([0, 5, 40])), south + dice.choice([0, 5]),
                dice.randrange(-100, 100), dice.randrange(100, 300),
            )  # fmt: skip
            start = DAY0 + timedelta(days=dice.randrange(20))
            end = start + timedelta(days=dice.randrange(5))
            properties = dice.choice(
                [
                    {},
                    {"datetime": start.isoformat()},
                    {"start_datetime": start.isoformat(), "end_datetime": end.isoformat()},
                ]
            )
            said = item(
                f"{dice.choice('甲乙ab')}{n}",
                collection=dice.choice(COLLECTIONS),
                kind=dice.choice(KINDS),
                title=dice.choice(NAMES),
                description=dice.choice(["", "随州市"]),
                properties=properties,
            )
            for _ in range(dice.choice([1, 1, 3])):
                catalog.publish(said, new_version(bounds=bounds))
            if dice.random() < 0.2:
                catalog.rollback(said.id, 1)
        yield catalog


def matches(query: SearchQuery, found: Item, version: Version) -> bool:
    b = version.bounds
    if query.bbox is not None:
        if len(query.bbox) == 6:
            west, south, low, east, north, high = query.bbox
            if b.max_height_m < low or b.min_height_m > high:
                return False
        else:
            west, south, east, north = query.bbox
        spans = [(west, east)] if west <= east else [(west, 180.0), (-180.0, east)]
        if not any(b.west <= e and b.east >= w for w, e in spans):
            return False
        if b.north < south or b.south > north:
            return False
    first, last = data_interval(found.properties) or (version.created, version.created)
    if query.interval is not None:
        start, end = query.interval
        if (start is not None and last < start) or (end is not None and first > end):
            return False
    for value, wanted in (
        (found.id, query.ids),
        (found.collection, query.collections),
        (found.kind, query.kinds),
    ):
        if wanted is not None and value not in wanted:
            return False
    values = [found.id, found.title, found.description, *map(str, found.properties.values())]
    text = "\n".join(values).casefold()
    return all(word in text for word in query.text.casefold().split())


grid = st.integers(-36, 36).map(lambda n: n * 5)
latitudes = st.integers(-18, 18).map(lambda n: n * 5)
moments = st.integers(-2, 26).map(lambda n: DAY0 + timedelta(days=n)) | st.none()


@st.composite
def boxes(draw: st.DrawFn) -> tuple[float, ...]:
    west, east = draw(grid), draw(grid)
    south, north = sorted((draw(latitudes), draw(latitudes)))
    if draw(st.booleans()):
        return west, south, east, north
    low, high = sorted((draw(st.integers(-150, 350)), draw(st.integers(-150, 350))))
    return west, south, low, east, north, high


@st.composite
def intervals(draw: st.DrawFn) -> tuple[datetime | None, datetime | None]:
    first, last = draw(moments), draw(moments)
    if first is not None and last is not None and first > last:
        first, last = last, first
    return first, last


queries = st.builds(
    SearchQuery,
    bbox=st.none() | boxes(),
    interval=st.none() | intervals(),
    ids=st.none() | st.sets(st.integers(0, 79).map("甲{}".format), max_size=9),
    collections=st.none() | st.sets(st.sampled_from([*COLLECTIONS, "nowhere"])),
    kinds=st.none() | st.sets(st.sampled_from(KINDS)),
    text=st.sampled_from(
        ["", "湖", "东 湖", "STRASSE", "100%", "_", "'", '"x"', "%", "🏙️", "随州市 road"]
    ),
    limit=st.integers(1, 90),
)
filters = st.builds(
    AccessFilter,
    everything=st.booleans(),
    ids=st.frozensets(st.integers(0, 79).map("乙{}".format), max_size=30),
    collections=st.frozensets(st.sampled_from(COLLECTIONS)),
)


def may_see(access: AccessFilter, found: Item) -> bool:
    named = found.id in access.ids or found.collection in access.collections
    return access.everything or named


def pages(catalog: Catalog, query: SearchQuery, access: AccessFilter) -> Iterator[Item]:
    while True:
        page = catalog.search(query, access)
        assert len(page.items) <= query.limit
        for found, version in page.items:
            assert version == catalog.version(found.id)
            yield found
        if page.next is None:
            return
        assert len(page.items) == query.limit
        query = replace(query, token=page.next)


@settings(deadline=None, max_examples=50)
@given(queries, filters)
def test_search_equals_brute_force_and_pages_neither_skip_nor_repeat(
    city: Catalog, query: SearchQuery, access: AccessFilter
) -> None:
    everything = [(i, city.version(i.id)) for i in _items(city)]
    expected = [i.id for i, v in everything if may_see(access, i) and matches(query, i, v)]
    assert [i.id for i in pages(city, query, access)] == expected
    assert city.search(query, access).matched == len(expected)


_CACHE: dict[int, list[Item]] = {}


def _items(catalog: Catalog) -> list[Item]:
    return _CACHE.setdefault(id(catalog), catalog.items())


@settings(deadline=None, max_examples=30)
@given(filters)
def test_a_listing_shows_exactly_what_a_request_allows(city: Catalog, access: AccessFilter) -> None:
    listed = {i.id for i in city.items(access=access)}
    found = {i.id for i, _ in city.search(SearchQuery(limit=1000), access).items}
    allowed = set()
    for each in _items(city):
        try:
            allowed.add(city.item(each.id, access).id)
        except NotFound:
            continue
    assert listed == found == allowed


def test_the_extreme_filters(city: Catalog) -> None:
    assert city.search(SearchQuery(), NOTHING).matched == 0
    assert city.search(SearchQuery(), EVERYTHING).matched == 80


def test_what_is_published_between_two_pages_neither_skips_nor_repeats(catalog: Catalog) -> None:
    for n in range(0, 20, 2):
        catalog.publish(item(f"a{n:02d}"), new_version())
    first = catalog.search(SearchQuery(limit=5))
    catalog.publish(item("a00"), new_version())
    catalog.publish(item("a03"), new_version())
    catalog.delete("a08")
    second = catalog.search(SearchQuery(limit=50, token=first.next))
    ids = [i.id for i, _ in first.items + second.items]
    assert ids == sorted(set(ids))
    assert {f"a{n:02d}" for n in range(0, 20, 2)} <= set(ids)


@pytest.mark.parametrize("token", ["!", "é", "a", "Zg==x", "____", "\ud800"])
def test_a_forged_token_is_refused(catalog: Catalog, token: str) -> None:
    with pytest.raises(QueryInvalid, match="no token"):
        catalog.search(SearchQuery(token=token))


@pytest.mark.parametrize(
    "arguments",
    [
        {"limit": 0},
        {"limit": 10_001},
        {"text": "x" * 1001},
        {"bbox": (1, 2, 3)},
        {"bbox": (0, 0, 1, float("nan"))},
        {"bbox": (0, 0, 181, 1)},
        {"bbox": (0, 2, 1, 1)},
        {"bbox": (0, 0, 5, 1, 1, 4)},
        {"interval": (DAY0, DAY0 - timedelta(1))},
        {"interval": (datetime(2020, 1, 1), None)},
    ],
)
def test_queries_that_mean_nothing_are_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(QueryInvalid):
        SearchQuery(**arguments)  # type: ignore[arg-type]


def test_thousands_of_ids_can_be_asked_for(city: Catalog) -> None:
    query = SearchQuery(ids=[f"x{n}" for n in range(20_000)])
    assert city.search(query).matched == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2020-01-01T00:00:00Z", (DAY0, DAY0)),
        ("2020-01-01T08:00:00+08:00/..", (DAY0, None)),
        ("2020-01-01T08:00:00 08:00/", (DAY0, None)),
        ("../2020-01-01T00:00:00Z", (None, DAY0)),
        ("/2020-01-01T00:00:00Z", (None, DAY0)),
    ],
)
def test_intervals_are_read(text: str, expected: object) -> None:
    assert parse_interval(text) == expected


@pytest.mark.parametrize(
    "text", ["", "..", "../..", "x", "2020-01-01T00:00:00", "a/b/c", "2020-01-01T00:00:00Z/x"]
)
def test_odd_intervals_are_refused(text: str) -> None:
    with pytest.raises(QueryInvalid, match="datetime"):
        parse_interval(text)


def test_bboxes_are_read() -> None:
    assert parse_bbox("1,2,3.5,4") == (1, 2, 3.5, 4)
    for odd in ("", "1,2,3", "1,2,3,x", "nan,0,1,1", "0,0,inf,1"):
        with pytest.raises(QueryInvalid, match="bbox"):
            parse_bbox(odd)


@settings(deadline=None, max_examples=10)
@given(filters)
def test_extents_are_those_of_what_may_be_seen(city: Catalog, access: AccessFilter) -> None:
    expected: dict[str, list[tuple[Item, Version]]] = {}
    for each in _items(city):
        if may_see(access, each):
            expected.setdefault(each.collection, []).append((each, city.version(each.id)))
    found = city.extents(access)
    assert found.keys() == expected.keys()
    for collection, extent in found.items():
        bounds = [version.bounds for _, version in expected[collection]]
        spans = [
            data_interval(each.properties) or (version.created, version.created)
            for each, version in expected[collection]
        ]
        union = bounds[0]
        for other in bounds[1:]:
            union = union.union(other)
        assert extent.bounds == union
        assert extent.count == len(bounds)
        assert extent.first == min(first for first, _ in spans)
        assert extent.last == max(last for _, last in spans)
