"""Lookup of features by code, id and name, over HTTP and on the command line."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from catalog.access import AccessFilter
from catalog.database import Catalog
from catalog.feature_index import OpenIndexes, find_features
from catalog.records import StoreRef
from cim_server.testing.services import ServiceTests
from ingest.workspace import Workspace, file_store
from tests.catalog.test_feature_index import CITY, rows, write
from tests.cim_server.conftest import City, serving
from tests.commands import Command
from tiling.errors import NotFound


def index_ref(city: City, *features: Any, cells: Any = None) -> StoreRef:
    path = write(city.data / "new.sqlite", rows(*features), cells=cells)
    return Workspace(city.data).adopt(file_store(path, "sqlite"), "index")


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> City:
    city = City(tmp_path_factory.mktemp("lookup"))
    (city.data / "stores").mkdir()
    city.publish("白模-曾都区", "buildings", index_ref(city, *CITY))
    city.publish("other", "buildings", index_ref(city, (4, "421303001", None, 10)))
    return city


@pytest.fixture(scope="module")
def client(indexed: City) -> Iterator[httpx.Client]:
    with serving(indexed.settings()) as running:
        yield running


class TestLookup(ServiceTests):
    found = {
        "/features/lookup?q=421303001": "application/geo+json",
        "/features/lookup?q=%E5%85%89%E8%B0%B7&prefix=true": "application/geo+json",
    }
    missing = ("/features/none", "/features/lookup?q=1&asset=none")


def ids(client: httpx.Client, **query: Any) -> list[tuple[str, int]]:
    answer = client.get("/features/lookup", params=query)
    assert answer.status_code == 200, answer.text
    return [(f["properties"]["asset"], f["id"]) for f in answer.json()["features"]]


def test_a_code_is_found_in_every_asset_or_in_one(client: httpx.Client) -> None:
    assert ids(client, q="421303001") == [("other", 4), ("白模-曾都区", 4)]
    assert ids(client, q="421303001", asset="白模-曾都区") == [("白模-曾都区", 4)]
    assert ids(client, q="421303001", limit=1, offset=1) == [("白模-曾都区", 4)]
    assert ids(client, q="421303001", by="name") == []
    assert ids(client, q="光谷中心", prefix=True) == [("白模-曾都区", 4), ("白模-曾都区", 12)]


def test_a_feature_says_where_it_is_and_its_links_lead_somewhere(client: httpx.Client) -> None:
    (feature,) = client.get("/features/lookup", params={"q": "😀 塔"}).json()["features"]
    assert feature["geometry"] == {"type": "Point", "coordinates": [113.0013, 31.7]}
    assert feature["properties"]["cell"] == "14/2/2"
    (item,) = [link["href"] for link in feature["links"] if link["rel"] == "item"]
    assert client.get(item).json()["id"] == "白模-曾都区"


@pytest.mark.parametrize(
    "query",
    ["", "q=", "q=%00", "q=" + "x" * 10_000, "q=1&limit=-1", "q=1&limit=1001", "q=1&offset=-1"]
    + ["q=1&by=shape", "q=1&by=", "q=1&prefix=maybe", "q=1&colour=red", "q=1&limit=many"],
)
def test_a_lookup_that_means_nothing_is_a_400_problem(client: httpx.Client, query: str) -> None:
    answer = client.get(f"/features/lookup?{query}")
    assert answer.status_code == 400, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"]


@pytest.mark.parametrize("text", ["%", "_", "4_", "%ff%fe", "' OR 1=1 --"])
def test_wildcards_find_nothing(client: httpx.Client, text: str) -> None:
    assert ids(client, q=text, prefix=True) == []


def test_nobody_finds_what_he_may_not_see(indexed: City) -> None:
    may = AccessFilter(ids=frozenset({"other"}))
    with Catalog.open(indexed.data / "catalog.db") as catalog:
        indexes = OpenIndexes(indexed.data)
        found = find_features(catalog, indexes, "421303001", may)
        assert [f.asset for f in found] == ["other"]
        with pytest.raises(NotFound):
            find_features(catalog, indexes, "1", may, asset="白模-曾都区")
        indexes.close()


def test_an_update_a_rollback_and_a_deletion_show_at_once(
    own_city: City, cim_here: Command
) -> None:
    base = index_ref(own_city, *CITY)
    own_city.publish("a", "buildings", base)
    with serving(own_city.settings()) as client:
        assert ids(client, q="421303002") == [("a", 7)]
        overlay = index_ref(own_city, (4, "新编码", None, 10), cells=[10])
        own_city.publish("a", "buildings", overlay, base)
        assert ids(client, q="421303002") == []
        assert ids(client, q="新编码") == [("a", 4)]
        assert ids(client, q="4213%", prefix=True) == [("a", 12)]
        with Catalog.open(own_city.data / "catalog.db") as catalog:
            catalog.rollback("a", 1)
            assert ids(client, q="421303002") == [("a", 7)]
            gone = catalog.delete("a")
        Workspace(own_city.data).remove_stores(gone)
        assert ids(client, q="421303002") == []
        held = [1]
        for _ in range(100):
            held = [p for p in Path("/proc/self/fd").iterdir() if _is(p, own_city.data, ".sqlite")]
            if not held:
                break
            time.sleep(0.05)
        assert not held, "a deleted index is still open"


def _is(descriptor: Path, folder: Path, ending: str) -> bool:
    try:
        target = str(descriptor.readlink())
    except FileNotFoundError:
        return False
    return str(folder) in target and ending in target


def test_the_command_line_finds_the_same(indexed: City, cim_here: Command) -> None:
    done = cim_here("find", "光谷", "--prefix", "--json", "--data", indexed.data)
    assert done.code == 0, done.err
    assert [(f["asset"], f["id"]) for f in json.loads(done.out)] == [
        ("白模-曾都区", 4),
        ("白模-曾都区", 12),
    ]
    shown = cim_here("find", "421303001", "--asset", "other", "--data", indexed.data)
    assert "421303001" in shown.out and "9.2 m" in shown.out
    assert cim_here("find", "x", "--asset", "none", "--data", indexed.data).code == 4
    assert cim_here("find", "", "--data", indexed.data).code == 2
    nothing = cim_here("find", "没有", "--data", indexed.data)
    assert (nothing.code, nothing.out) == (0, "") and "没有" in nothing.err


def test_a_missing_index_is_a_503_that_names_no_path(own_city: City) -> None:
    own_city.publish("a", "buildings", index_ref(own_city, *CITY))
    shutil.rmtree(own_city.data / "stores")
    with serving(own_city.settings()) as client:
        answer = client.get("/features/lookup?q=1")
        assert answer.status_code == 503
        assert str(own_city.data) not in answer.text
