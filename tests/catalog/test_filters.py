"""A filter means the same inside the database as on the STAC items that clients see."""

from __future__ import annotations

import json
import random
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.cql2.tree import parse_json, parse_text
from catalog.database import Catalog
from catalog.paging import SortKey
from catalog.records import standard_collections
from catalog.search import SearchQuery
from catalog.stac import item_to_stac
from tests.catalog.conftest import NewDatabase, item, new_version, ticking
from tiling.bounds import Region
from tiling.errors import QueryInvalid

DAY0 = datetime(2020, 1, 1, tzinfo=UTC)
TEXTS = ["东湖", "光谷大道", "Straße", "STRASSE", "100%", "a_b", "aXb", "Ünï", "Uni", "x'y", ""]
VALUES: list[Any] = [
    *TEXTS, 0, 3, 3.5, -7, True, False, None, ["东湖", 3], ["东湖"], [], [3, True], {"a": 1}
]  # fmt: skip
Documents = list[dict[str, Any]]


class City:
    """A catalogue and the STAC items that clients see of it."""

    def __init__(self, catalog: Catalog, documents: Documents) -> None:
        self.catalog = catalog
        self.documents = documents


@pytest.fixture(scope="module")
def city(new_database: NewDatabase) -> Iterator[City]:
    """120 assets whose owners disagree about the types of their properties."""
    dice = random.Random(7)
    with Catalog.open(new_database(), clock=ticking()) as catalog:
        catalog.ensure_collections(standard_collections())
        for n in range(120):
            west, south = dice.randrange(-10, 10), dice.randrange(-10, 10)
            bounds = Region(
                west, south, west + dice.choice([0, 1, 5]), south + dice.choice([0, 1, 5]), 0, 9
            )
            start = DAY0 + timedelta(hours=dice.randrange(96))
            end = start + timedelta(hours=dice.choice([0, 5, 30]))
            properties: dict[str, Any] = dice.choice(
                [
                    {},
                    {"datetime": start.isoformat()},
                    {"start_datetime": start.isoformat(), "end_datetime": end.isoformat()},
                ]
            )
            properties = dict(properties)
            for name in ("owner", "名称", "keywords", "cim:level"):
                if dice.random() < 0.8:
                    properties[name] = dice.choice(VALUES)
            said = item(
                f"{dice.choice('甲乙ab')}{n}",
                collection=dice.choice(["roads", "water", "terrain"]),
                kind=dice.choice(["vector", "terrain"]),
                title=dice.choice(TEXTS[:-1]),
                description=dice.choice(["", "随州市"]),
                properties=properties,
            )
            catalog.publish(said, new_version(bounds=bounds))
        known = {c.id: c for c in catalog.collections()}
        found = catalog.search(SearchQuery(limit=1000)).items
        documents = [item_to_stac(i, v, lambda *_, **__: "http://x", known) for i, v in found]
        yield City(catalog, documents)


# The reference: a filter on a STAC item, with None for unknown.

Unknown = None


def named(document: dict[str, Any], name: str) -> Any:
    if name in ("id", "collection", "geometry"):
        return document[name]
    return document["properties"].get(name)


def value(document: dict[str, Any], node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    if "property" in node:
        found = named(document, node["property"])
        if node["property"] in TIMES:
            return None if found is None else datetime.fromisoformat(found)
        return found
    if "timestamp" in node:
        return datetime.fromisoformat(node["timestamp"])
    if "date" in node:
        return datetime.fromisoformat(node["date"]).replace(tzinfo=UTC)
    inner = value(document, node["args"][0])
    if not isinstance(inner, str):
        return None
    if node["op"] == "casei":
        return inner.upper().lower()
    apart = unicodedata.normalize("NFD", inner)
    return unicodedata.normalize("NFC", "".join(c for c in apart if not unicodedata.combining(c)))


TIMES = ("datetime", "start_datetime", "end_datetime", "created", "updated")


def sort_of(v: Any) -> str | None:
    if isinstance(v, bool):
        return "boolean"
    if isinstance(v, int | float):
        return "number"
    return {str: "text", datetime: "time"}.get(type(v))


def compared(op: str, a: Any, b: Any) -> bool | None:
    if sort_of(a) is None or sort_of(a) != sort_of(b):
        return Unknown
    return bool({"=": a == b, "<>": a != b, "<": a < b, "<=": a <= b, ">": a > b, ">=": a >= b}[op])


def span(document: dict[str, Any], node: Any) -> tuple[datetime, datetime] | None:
    if isinstance(node, dict) and "interval" in node:
        ends = [end if end == ".." else span(document, end) for end in node["interval"]]
        if None in ends:
            return None
        start, end = ends
        low = datetime.min.replace(tzinfo=UTC) if start == ".." else start[0]
        return low, datetime.max.replace(tzinfo=UTC) if end == ".." else end[1]
    moment = value(document, node)
    if moment is None:
        return None
    if isinstance(node, dict) and "date" in node:
        return moment, moment + timedelta(days=1) - timedelta(microseconds=1)
    return moment, moment


RELATIONS: dict[str, Callable[[Any, Any, Any, Any], bool]] = {
    "t_after": lambda a, b, c, d: a > d,
    "t_before": lambda a, b, c, d: b < c,
    "t_intersects": lambda a, b, c, d: not (b < c or a > d),
    "t_disjoint": lambda a, b, c, d: b < c or a > d,
    "t_during": lambda a, b, c, d: c < a and b < d,
    "t_contains": lambda a, b, c, d: a < c and d < b,
    "t_equals": lambda a, b, c, d: (a, b) == (c, d),
    "t_meets": lambda a, b, c, d: b == c,
}


def holds(document: dict[str, Any], tree: Any) -> bool | None:
    if isinstance(tree, bool):
        return tree
    op, args = tree["op"], tree["args"]
    if op in ("and", "or"):
        found = [holds(document, arg) for arg in args]
        decisive = op == "or"
        if decisive in found:
            return decisive
        return Unknown if None in found else not decisive
    if op == "not":
        inner = holds(document, args[0])
        return Unknown if inner is None else not inner
    if op == "isNull":
        return value(document, args[0]) is None
    if op == "between":
        low, high = (compared(o, value(document, args[0]), value(document, a))
                     for o, a in ((">=", args[1]), ("<=", args[2])))  # fmt: skip
        return False if False in (low, high) else Unknown if None in (low, high) else True
    if op == "in":
        found = [compared("=", value(document, args[0]), value(document, a)) for a in args[1]]
        return True if True in found else Unknown if None in found else False
    if op == "like":
        text, pattern = value(document, args[0]), value(document, args[1])
        if not isinstance(text, str):
            return Unknown
        parts = re.findall(r"\\.|.", pattern, re.DOTALL)
        regex = "".join({"%": ".*", "_": "."}.get(p, re.escape(p[-1])) for p in parts)
        return re.fullmatch(regex, text, re.DOTALL) is not None
    if op.startswith("s_"):
        area = shapely.from_geojson(json.dumps(args[1]))
        here = shapely.from_wkt(shapely.to_wkt(footprint(document)))
        return bool(getattr(shapely, op[2:])(here, area))
    if op.startswith("t_"):
        a, b = span(document, args[0]), span(document, args[1])
        return Unknown if a is None or b is None else RELATIONS[op](*a, *b)
    if op.startswith("a_"):
        held = value(document, args[0])
        if not isinstance(held, list):
            return Unknown
        same = [[compared("=", h, w) is True for w in args[1]] for h in held]
        has_all = all(any(row[n] for row in same) for n in range(len(args[1])))
        no_other = all(map(any, same))
        return {"a_contains": has_all, "a_containedBy": no_other, "a_equals": has_all and no_other,
                "a_overlaps": any(map(any, same))}[op]  # fmt: skip
    return compared(op, value(document, args[0]), value(document, args[1]))


def footprint(document: dict[str, Any]) -> shapely.Geometry:
    west, south, _, east, north, _ = document["bbox"]
    corners = sorted({(west, south), (west, north), (east, south), (east, north)})
    return shapely.MultiPoint(corners).convex_hull


texts = st.sampled_from(TEXTS)
numbers = st.sampled_from([-7, 0, 3, 3.5, 4])
owned = st.sampled_from(["owner", "名称", "cim:none", "keywords"]).map(lambda n: {"property": n})
text_properties = st.sampled_from(["id", "title", "collection", "cim:kind"])
text_sides = text_properties.map(lambda n: {"property": n}) | owned
times = st.integers(0, 96).map(
    lambda h: {"timestamp": (DAY0 + timedelta(hours=h)).isoformat().replace("+00:00", "Z")}
)
dates = st.sampled_from([{"date": "2020-01-01"}, {"date": "2020-01-03"}])
time_sides = st.sampled_from(TIMES).map(lambda n: {"property": n})
spans = st.one_of(
    times, dates, time_sides,
    st.tuples(st.just("..") | times | time_sides, st.just("..") | dates | times).map(
        lambda ends: {"interval": list(ends)}
    ),
)  # fmt: skip
comparisons = st.sampled_from(["=", "<>", "<", "<=", ">", ">="])


def folded(sides: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    op = st.sampled_from(["casei", "accenti"])
    return sides | st.builds(lambda o, s: {"op": o, "args": [s]}, op, sides)


def call(op: st.SearchStrategy[str], *sides: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.builds(lambda o, s: {"op": o, "args": list(s)}, op, st.tuples(*sides))


@st.composite
def areas(draw: st.DrawFn) -> dict[str, Any]:
    west, south = draw(st.integers(-12, 12)), draw(st.integers(-12, 12))
    size = draw(st.sampled_from([1, 4, 9]))
    shape = draw(
        st.sampled_from(
            [
                shapely.box(west, south, west + size, south + size),
                shapely.Polygon([(west, south), (west + size, south), (west, south + size)]),
                shapely.Point(west, south),
                shapely.LineString([(west, south), (west + size, south + size)]),
            ]
        )
    )
    return json.loads(shapely.to_geojson(shape))  # type: ignore[no-any-return]


geometry = st.just({"property": "geometry"})
PATTERNS = st.sampled_from(["%湖", "a_b", "a\\_b", "100\\%", "%", "stra%", "_ni"])
values = st.one_of(texts, numbers, st.booleans())
leaves = st.one_of(
    st.booleans(),
    call(comparisons, folded(text_sides), folded(texts)),
    call(comparisons, owned, values),
    call(comparisons, owned, owned),
    call(comparisons, time_sides, times | dates | time_sides),
    call(st.just("between"), owned, numbers, numbers),
    call(st.just("in"), owned, st.lists(values, max_size=3)),
    call(st.just("like"), folded(text_sides), PATTERNS),
    call(st.just("isNull"), owned | time_sides),
    call(st.sampled_from(["s_intersects", "s_within", "s_contains", "s_disjoint", "s_touches",
                          "s_equals", "s_overlaps", "s_crosses"]), geometry, areas()),
    call(st.sampled_from(sorted(RELATIONS)), spans, spans),
    call(st.sampled_from(["a_contains", "a_containedBy", "a_equals", "a_overlaps"]),
         st.just({"property": "keywords"}), st.lists(values, max_size=2)),
)  # fmt: skip
trees = st.recursive(
    leaves,
    lambda inner: (
        st.builds(
            lambda op, args: {"op": op, "args": args},
            st.sampled_from(["and", "or"]),
            st.lists(inner, min_size=2, max_size=3),
        )
        | inner.map(lambda tree: {"op": "not", "args": [tree]})
    ),
    max_leaves=6,
)


@settings(deadline=None, max_examples=200)
@given(trees)
def test_the_database_finds_what_the_items_say(city: City, tree: dict[str, Any]) -> None:
    catalog, documents = city.catalog, city.documents
    found = catalog.search(SearchQuery(filter=parse_json(tree), limit=1000))
    expected = [d["id"] for d in documents if holds(d, tree)]
    assert [each.id for each, _ in found.items] == expected
    assert found.matched == len(expected)


def key_of(found: Any) -> Any:
    kind = {"number": 0, "boolean": 0, "text": 1, "time": 1}[sort_of(found) or "text"]
    return kind, found


SORTABLE = ["title", "collection", "datetime", "created", "cim:kind", "id", "owner"]


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.builds(SortKey, st.sampled_from(SORTABLE), st.booleans()), max_size=3),
    st.integers(1, 50),
)
def test_pages_in_any_order_neither_skip_nor_repeat(
    city: City, keys: list[SortKey], limit: int
) -> None:
    catalog, documents = city.catalog, city.documents
    query = SearchQuery(sort=tuple(keys), limit=limit, filter={"op": "<>", "args": ["a", "b"]})
    seen: list[str] = []
    while True:
        page = catalog.search(query)
        seen += [each.id for each, _ in page.items]
        if page.next is None:
            break
        query = replace(query, token=page.next)
    by_id = {d["id"]: d for d in documents}
    assert sorted(seen) == sorted(by_id)
    for before, after in pairwise(by_id[each] for each in seen):
        for key in keys:
            a, b = value(before, {"property": key.name}), value(after, {"property": key.name})
            if isinstance(a, list | dict) or isinstance(b, list | dict):
                break  # lists have no order that a client could check
            if a is None or b is None:
                assert a is not None or b is None, "what has no value comes last"
            elif key_of(a)[0] != key_of(b)[0]:
                assert key_of(a) < key_of(b), "numbers come before texts"
            elif key_of(a) != key_of(b):
                assert (key_of(a) > key_of(b)) == key.descending
            else:
                continue
            if a != b:
                break


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("title = 'a' AND", "no CQL2 text"),
        ("floors + 1 = 2", r"'\+', which this catalogue does not offer"),
        ("foo(title) = 'a'", "'foo', which"),
        ("title = 5", "cannot be compared"),
        ("title = geometry", "cannot be compared"),
        ("datetime > 'yesterday'", "neither a date nor a time"),
        ("datetime > '2020-01-01T00:00:00'", "neither a date"),
        ("\"cim:info\" = 'a'", "cannot be asked for: it belongs to the tiles"),
        ("code = 420123456789012345", "codes are text"),
        ("title LIKE 'a\\'", "escapes nothing"),
        ("S_INTERSECTS(title, POINT(1 2))", "compares the property 'geometry'"),
        ("S_INTERSECTS(geometry, POLYGON((0 0, 1 1, 0 1, 1 0, 0 0)))", "not valid"),
        ("T_AFTER(title, DATE('2020-01-01'))", "is no time"),
        ("(" * 60 + "a=1" + ")" * 60, "nests deeper"),
        ("-" * 9000 + "1 = a", "nests deeper"),
        ("NOT " * 5000 + "a = 1", "nests deeper"),
        ("a = '" + "x" * 200_000 + "'", "longer than"),
    ],
)
def test_what_cannot_be_answered_is_refused_by_name(city: City, text: str, message: str) -> None:
    with pytest.raises(QueryInvalid, match=message):
        city.catalog.search(SearchQuery(filter=parse_text(text)))


@pytest.mark.parametrize(
    "data",
    [[], 5, None, {"op": "="}, {"op": "=", "args": [1]}, {"op": "and", "args": []}, {"x": 1},
     {"op": "in", "args": [{"property": "a"}, 5]}, {"op": "not", "args": [1, 2]},
     {"op": "isNull", "args": ["a"]}, {"op": "=", "args": [{"property": 'a"b'}, 1]},
     {"op": "=", "args": [{"property": "a"}, 1e300 * 1e10]}],
)  # fmt: skip
def test_json_that_is_no_filter_is_refused(city: City, data: Any) -> None:
    with pytest.raises(QueryInvalid):
        city.catalog.search(SearchQuery(filter=parse_json(data)))


def test_json_as_deep_as_a_stack_is_refused_before_it_is_read() -> None:
    tree: Any = {"op": "=", "args": [{"property": "a"}, 1]}
    for _ in range(50_000):
        tree = {"op": "not", "args": [tree]}
    with pytest.raises(QueryInvalid, match="nests too deep"):
        parse_json(tree)
    while isinstance(tree, dict) and tree["op"] == "not":  # freed here, not by the interpreter
        tree = tree["args"].pop()
