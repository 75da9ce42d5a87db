"""The STAC API: valid documents, search, paging, links that lead somewhere."""

from __future__ import annotations

import warnings
from typing import Any
from urllib.parse import quote

import httpx
import jsonschema
import orjson
import pytest

from cim_server.testing.services import ServiceTests

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from stac_pydantic import Collection, Item
    from stac_pydantic.api import Collections, Conformance, ItemCollection, LandingPage

ASSETS = {"buildings-曾都区", "dem", "divisions", "image", "image-16bit"}


@pytest.fixture
def collection(client: httpx.Client) -> str:
    found = client.get("/stac/search", params={"ids": "dem"}).json()["features"]
    return str(found[0]["collection"])


class TestStac(ServiceTests):
    found = {
        "/stac": "application/json",
        "/stac/conformance": "application/json",
        "/stac/collections": "application/json",
        "/stac/search": "application/geo+json",
        "/stac/search?ids=dem": "application/geo+json",
        "/stac/queryables": "application/schema+json",
        "/stac/collections?q=no+such": "application/json",
    }
    missing = (
        "/stac/collections/none",
        "/stac/collections/none/items",
        "/stac/collections/none/items/dem",
        "/stac/none",
    )


def search(client: httpx.Client, **query: Any) -> set[str]:
    answer = client.get("/stac/search", params=query)
    assert answer.status_code == 200, answer.text
    return {feature["id"] for feature in answer.json()["features"]}


def test_every_document_is_valid(client: httpx.Client, collection: str) -> None:
    LandingPage.model_validate(client.get("/stac").json())
    Conformance.model_validate(client.get("/stac/conformance").json())
    Collections.model_validate(client.get("/stac/collections").json())
    Collection.model_validate(client.get(f"/stac/collections/{collection}").json())
    page = client.get("/stac/search").json()
    ItemCollection.model_validate(page)
    for feature in page["features"]:
        Item.model_validate(feature)
    items = client.get(f"/stac/collections/{collection}/items").json()
    ItemCollection.model_validate(items)
    Item.model_validate(client.get(f"/stac/collections/{collection}/items/dem").json())


def test_every_link_and_service_of_the_catalogue_answers(client: httpx.Client) -> None:
    root = client.get("/stac").json()
    page = client.get("/stac/search").json()
    documents = [root, *client.get("/stac/collections").json()["collections"], *page["features"]]
    seen = set()
    for document in documents:
        links = [link["href"] for link in document["links"] if link["rel"] not in ("xyz",)]
        assets = [asset["href"] for asset in document.get("assets", {}).values()]
        for href in {*links, *assets} - seen:
            seen.add(href)
            if href.startswith("ni:"):
                continue
            assert href.startswith(str(client.base_url)), href
            assert client.get(href).status_code == 200, href
    assert len(seen) > 15


def test_a_search_finds_by_place_time_id_and_collection(
    client: httpx.Client, collection: str
) -> None:
    assert search(client) == ASSETS
    assert search(client, ids="dem,image") == {"dem", "image"}
    assert search(client, ids="buildings-曾都区") == {"buildings-曾都区"}
    assert search(client, collections=collection) == ASSETS
    assert search(client, collections="none") == set()
    assert search(client, bbox="113,31,114,32") == ASSETS
    assert search(client, bbox="114,31,115,32") == set()
    assert search(client, bbox="113,31,400,114,32,500") == set()
    assert search(client, datetime="2000-01-01T00:00:00Z/..") == ASSETS
    assert search(client, datetime="../2000-01-01T00:00:00Z") == set()


def test_a_filter_is_understood_in_both_languages_and_over_both_methods(
    client: httpx.Client,
) -> None:
    text = "\"cim:kind\" = 'terrain' OR title LIKE '%16%'"
    tree = {
        "op": "or",
        "args": [
            {"op": "=", "args": [{"property": "cim:kind"}, "terrain"]},
            {"op": "like", "args": [{"property": "title"}, "%16%"]},
        ],
    }
    expected = {
        f["id"]
        for f in client.get("/stac/search").json()["features"]
        if f["properties"]["cim:kind"] == "terrain" or "16" in f["properties"]["title"]
    }
    assert "dem" in expected < ASSETS
    assert search(client, filter=text) == expected
    as_json = {"filter": orjson.dumps(tree).decode(), "filter-lang": "cql2-json"}
    assert search(client, **as_json) == expected
    for body in ({"filter": tree}, {"filter": text, "filter-lang": "cql2-text"}):
        answer = client.post("/stac/search", json=body | {"limit": 1}).json()
        assert set(pages(client, answer)) == expected
    inside = "S_WITHIN(geometry, POLYGON((113 31, 114 31, 114 32, 113 32, 113 31)))"
    assert search(client, filter=f"{inside} AND NOT ({text})") == ASSETS - expected


def test_the_query_extension_is_a_filter(client: httpx.Client) -> None:
    def found(**query: Any) -> set[str]:
        answer = client.post("/stac/search", json={"query": query})
        assert answer.status_code == 200, answer.text
        return {feature["id"] for feature in answer.json()["features"]}

    assert found(id={"startsWith": "image"}) == {"image", "image-16bit"}
    assert found(id={"startsWith": "image", "endsWith": "bit"}) == {"image-16bit"}
    assert found(id={"contains": "_"}) == set()
    assert found(id={"in": ["dem", "image"]}, **{"cim:kind": {"neq": "imagery"}}) == {"dem"}
    assert search(client, query='{"id": {"eq": "dem"}}') == {"dem"}


def test_items_come_in_the_order_asked_for_page_by_page(client: httpx.Client) -> None:
    everything = client.get("/stac/search").json()["features"]
    by_kind = sorted(everything, key=lambda f: f["id"], reverse=True)
    by_kind.sort(key=lambda f: f["properties"]["cim:kind"])
    expected = [feature["id"] for feature in by_kind]
    keys = [{"field": "properties.cim:kind"}, {"field": "id", "direction": "desc"}]
    for size in (1, 2, 10):
        by_get = client.get("/stac/search", params={"sortby": "+cim:kind,-id", "limit": size})
        by_post = client.post("/stac/search", json={"sortby": keys, "limit": size})
        assert pages(client, by_get.json()) == expected
        assert pages(client, by_post.json()) == expected


def test_only_the_fields_asked_for_are_shown(client: httpx.Client) -> None:
    def keys(fields: str) -> dict[str, Any]:
        answer = client.get("/stac/search", params={"ids": "dem", "fields": fields}).json()
        return dict(answer["features"][0])

    whole = keys("")
    assert keys("properties.title") == {
        "type": "Feature",
        "id": "dem",
        "collection": whole["collection"],
        "properties": {"title": whole["properties"]["title"]},
    }
    assert keys("-assets,-links").keys() == whole.keys() - {"assets", "links"}
    without = keys("-properties.title,-geometry")
    assert "geometry" not in without
    assert without["properties"].keys() == whole["properties"].keys() - {"title"}
    assert (
        keys("-properties,properties.title")["properties"] == keys("properties.title")["properties"]
    )


def test_queryables_name_what_a_filter_can_ask(client: httpx.Client, collection: str) -> None:
    for path in ("/stac/queryables", f"/stac/collections/{collection}/queryables"):
        document = client.get(path).json()
        jsonschema.Draft202012Validator.check_schema(document)
        assert document["$id"].endswith(path)
        for name, schema in document["properties"].items():
            if schema.get("type") in ("string", "number", "boolean"):
                assert search(client, filter=f'"{name}" IS NULL OR "{name}" = "{name}"') == ASSETS
    assert client.get("/stac/collections/none/queryables").status_code == 404


def test_collections_are_found_by_place_time_and_words(
    client: httpx.Client, collection: str
) -> None:
    def found(**query: Any) -> set[str]:
        answer = client.get("/stac/collections", params=query)
        assert answer.status_code == 200, answer.text
        document = answer.json()
        assert document["numberReturned"] == len(document["collections"])
        return {each["id"] for each in document["collections"]}

    everything = found()
    assert collection in found(bbox="113,31,114,32") < everything
    assert found(bbox="100,31,101,32") == set()
    assert collection in found(datetime="2000-01-01T00:00:00Z/..")
    assert found(datetime="../2000-01-01T00:00:00Z") == set()
    title = client.get(f"/stac/collections/{collection}").json()["title"]
    assert collection in found(q=title)
    assert len(found(limit=2)) == 2
    assert client.get("/stac/collections", params={"limit": 0}).status_code == 400


def test_intersects_looks_at_the_shape_and_not_only_at_its_box(client: httpx.Client) -> None:
    around = {"type": "Polygon", "coordinates": [[[112, 31], [114, 31], [114, 33], [112, 31]]]}
    # Its box covers the assets, its area does not.
    beside = {"type": "Polygon", "coordinates": [[[112, 31], [113, 33], [112, 33], [112, 31]]]}
    corner = {"type": "LineString", "coordinates": [[112, 31.9], [113.31, 33], [114, 31.95]]}
    post = {"intersects": around, "limit": 2}
    first = client.post("/stac/search", json=post).json()
    assert first["numberReturned"] == 2
    assert len(pages(client, first)) == len(ASSETS)
    for shape in (beside, corner):
        assert client.post("/stac/search", json={"intersects": shape}).json()["features"] == []


def pages(client: httpx.Client, page: dict[str, Any]) -> list[str]:
    """Follow the next links to the end."""
    ids = [f["id"] for f in page["features"]]
    for _ in range(20):
        more = [link for link in page["links"] if link["rel"] == "next"]
        if not more:
            return ids
        if more[0].get("method") == "POST":
            page = client.post(more[0]["href"], json=more[0]["body"]).json()
        else:
            page = client.get(more[0]["href"]).json()
        ids += [f["id"] for f in page["features"]]
    raise AssertionError("the pages never end")


def test_following_the_pages_finds_everything_once(client: httpx.Client, collection: str) -> None:
    for size in (1, 2, 5, 1000, 100_000):
        by_get = client.get("/stac/search", params={"limit": size, "bbox": "113,31,114,32"})
        by_post = client.post("/stac/search", json={"limit": size, "bbox": [113, 31, 114, 32]})
        by_items = client.get(f"/stac/collections/{collection}/items", params={"limit": size})
        for first in (by_get, by_post, by_items):
            assert first.status_code == 200, first.text
            assert sorted(pages(client, first.json())) == sorted(ASSETS)
            assert first.json()["numberMatched"] == len(ASSETS)


@pytest.mark.parametrize(
    "query",
    [
        {"bbox": "1,2,3"},
        {"bbox": "1,2,x,4"},
        {"bbox": "nan,31,114,32"},
        {"bbox": "113,91,114,92"},
        {"datetime": "yesterday"},
        {"limit": "0"},
        {"limit": "ten"},
        {"token": "\x00"},
        {"cloud_cover": "10"},
        {"filter": "title ="},
        {"filter": "title = 'a'", "filter-lang": "cql2-json"},
        {"filter": "title = 'a'", "filter-lang": "sql"},
        {"filter": "title = 'a'", "filter-crs": "EPSG:4547"},
        {"filter": "\"cim:info\" = 'a'"},
        {"query": '{"title": {"like": "a"}}'},
        {"query": '{"title": 5}'},
        {"query": '{"title": {"startsWith": 5}}'},
        {"sortby": "geometry"},
        {"sortby": "a,b,c,d,e,f,g,h,i"},
        {"intersects": "{"},
        {"intersects": "[]"},
        {"intersects": '{"type": "Polygon", "coordinates": [[[1]]]}'},
        {"intersects": '{"type": "Point", "coordinates": [1, 2]}', "bbox": "1,2,3,4"},
    ],
)
def test_a_meaningless_search_is_a_400_problem(client: httpx.Client, query: dict[str, str]) -> None:
    answer = client.get("/stac/search", params=query)
    assert answer.status_code == 400, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"]


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{", b'{"limit": -1}', b'{"query": []}', b'{"sortby": "a"}', b'{"filter": 5}'],
)
def test_a_meaningless_body_is_a_400_problem(client: httpx.Client, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    answer = client.post("/stac/search", content=body, headers=headers)
    assert answer.status_code == 400, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


def test_too_large_a_body_is_a_413_problem(client: httpx.Client) -> None:
    body = b'{"ids": ["' + b"x" * (1 << 20) + b'"]}'
    headers = {"Content-Type": "application/json"}
    declared = client.post("/stac/search", content=body, headers=headers)
    assert declared.status_code == 413

    def chunks() -> Any:
        for start in range(0, len(body), 65536):
            yield body[start : start + 65536]

    streamed = client.post("/stac/search", content=chunks(), headers=headers)
    assert streamed.status_code == 413
    assert streamed.headers["content-type"] == "application/problem+json"


def test_a_chinese_id_works_in_every_address(client: httpx.Client, collection: str) -> None:
    asset = "buildings-曾都区"
    item = client.get(f"/stac/collections/{collection}/items/{quote(asset)}").json()
    assert item["id"] == asset
    assert client.get(item["assets"]["tileset"]["href"]).json()["extras"] == {"label": "first"}
