"""Rows of features that a filter keeps are the assets that it keeps in the catalogue."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from catalog.cql2.tree import parse_json
from catalog.database import Catalog
from catalog.records import standard_collections
from catalog.search import SearchQuery
from cim_server.row_filter import RowFilter
from tests.catalog.conftest import item, new_version, ticking
from tiling.errors import QueryInvalid

TEXTS = [
    "İstanbul", "istanbul", "i̇stanbul", "ISTANBUL", "Straße", "STRASSE", "straſse", "ſ", "s", "S",
    "\u212a", "K", "k", "ΟΔΟΣ", "οδος", "οδοσ", "ＡＢ路", "ａｂ路", "AB路", "ǰ", "J\u030c", "ﬁ",
    "FI", "Ünï", "uni", "Å", "\u212b", "a_b", "aXb", "100%", "光谷大道", "",
]  # fmt: skip
ROWS: list[dict[str, Any]] = [
    {"t": text, "u": TEXTS[(n * 7 + 3) % len(TEXTS)], "n": n % 5 - 1.5, "b": n % 2 == 0}
    for n, text in enumerate(TEXTS)
] + [{}, {"t": "K", "n": 0.5}, {"u": "k", "b": True}]
SCHEMA = pa.schema({"t": pa.string(), "u": pa.string(), "n": pa.float64(), "b": pa.bool_()})
TABLE = pa.Table.from_pylist(ROWS, SCHEMA)


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalog]:
    url = f"sqlite:///{tmp_path_factory.mktemp('rows') / 'catalog.sqlite'}"
    with Catalog.open(url, clock=ticking()) as opened:
        opened.ensure_collections(standard_collections())
        for n, row in enumerate(ROWS):
            opened.publish(item(f"a{n:03}", properties=row), new_version())
        yield opened


def named(*names: str) -> st.SearchStrategy[Any]:
    return st.sampled_from(names).map(lambda name: {"property": name})


def call(op: st.SearchStrategy[str], *sides: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.builds(lambda o, s: {"op": o, "args": list(s)}, op, st.tuples(*sides))


def folded(sides: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    once = call(st.sampled_from(["casei", "accenti"]), sides)
    return sides | once | call(st.sampled_from(["casei", "accenti"]), once)


COMPARE = st.sampled_from(["=", "<>", "<", "<=", ">", ">="])
texts, numbers = st.sampled_from(TEXTS), st.sampled_from([-1.5, 0, 0.5, 2])
patterns = st.sampled_from(["%s%", "k", "_", "a\\_b", "100\\%", "stra%", "ａｂ%", "οδο_", "%", ""])
leaves = st.one_of(
    st.booleans(),
    call(COMPARE, folded(named("t", "u")), folded(texts | named("t", "u"))),
    call(COMPARE, named("n"), numbers),
    call(st.sampled_from(["=", "<>"]), named("b"), st.booleans()),
    call(st.just("between"), named("n"), numbers, numbers),
    call(st.just("in"), folded(named("t")), st.lists(texts, min_size=1, max_size=3)),
    call(st.just("like"), folded(named("t", "u")), folded(patterns)),
    call(st.just("isNull"), named("t", "u", "n", "b")),
)
trees = st.recursive(
    leaves,
    lambda inner: call(st.sampled_from(["and", "or"]), inner, inner) | call(st.just("not"), inner),
    max_leaves=5,
)
casei_t = {"op": "casei", "args": [{"property": "t"}]}


@settings(deadline=None, max_examples=150)
@given(trees)
@example({"op": "=", "args": [casei_t, {"op": "casei", "args": ["STRASSE"]}]})
@example({"op": "=", "args": [casei_t, {"op": "casei", "args": ["İstanbul"]}]})
@example({"op": "=", "args": [casei_t, {"op": "casei", "args": ["οδος"]}]})
@example({"op": "=", "args": [casei_t, {"op": "casei", "args": ["\u212a"]}]})
def test_a_filter_keeps_the_same_rows_as_the_catalogue(catalog: Catalog, tree: Any) -> None:
    found = catalog.search(SearchQuery(filter=parse_json(tree), limit=1000))
    kept = RowFilter(parse_json(tree), SCHEMA, len(TABLE)).mask(TABLE)
    assert [f"a{n:03}" for n in kept.nonzero()[0]] == [each.id for each, _ in found.items]


@pytest.mark.parametrize(
    ("one", "same"),
    [
        ("Straße", {"Straße", "STRASSE", "straſse"}),
        ("k", {"K", "k", "\u212a"}),
        ("S", {"ſ", "s", "S"}),
        ("ａｂ路", {"ＡＢ路", "ａｂ路"}),
        ("İSTANBUL", {"İstanbul", "i̇stanbul"}),
    ],
)
def test_case_is_folded_by_way_of_upper_case(one: str, same: set[str]) -> None:
    tree = {"op": "=", "args": [casei_t, {"op": "casei", "args": [one]}]}
    kept = RowFilter(tree, SCHEMA, len(TABLE)).mask(TABLE)
    assert {row["t"] for row, keep in zip(ROWS, kept, strict=True) if keep} == same


def test_an_attribute_that_a_file_lacks_folds_to_nothing() -> None:
    twice = {"op": "casei", "args": [{"op": "accenti", "args": [{"property": "t"}]}]}
    tree = {"op": "=", "args": [twice, "uni"]}
    assert not RowFilter(tree, SCHEMA, 99).mask(TABLE.drop_columns(["t"])).any()
    kept = RowFilter(tree, SCHEMA, 99).mask(TABLE)
    assert {row["t"] for row, keep in zip(ROWS, kept, strict=True) if keep} == {"Ünï", "uni"}


def test_a_fold_of_numbers_or_of_two_sides_is_refused() -> None:
    for args, said in (([{"property": "n"}], "asks for text"), (["a", "b"], "sides")):
        tree = {"op": "=", "args": [{"op": "casei", "args": args}, "a"]}
        with pytest.raises(QueryInvalid, match=said):
            RowFilter(tree, SCHEMA, 10)
