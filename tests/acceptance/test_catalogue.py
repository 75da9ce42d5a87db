"""The catalogue of the demo through the real server: valid STAC, and every address leads there."""

from __future__ import annotations

import base64
import hashlib
import math
import re
import warnings
from typing import Any
from urllib.parse import urljoin

import pytest

from tests.acceptance.conftest import Assets
from tests.acceptance.serving import BASE, Client

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from stac_pydantic import Item
    from stac_pydantic.api import (
        Collection,
        Collections,
        Conformance,
        ItemCollection,
        LandingPage,
    )

_NI = re.compile(r"ni:///sha-256;([A-Za-z0-9_-]{43})")


@pytest.fixture(scope="module")
def items(demo_server: Client) -> list[dict[str, Any]]:
    """Every item, found by following the catalogue page by page."""
    found: list[dict[str, Any]] = []
    href = f"{BASE}/stac/search?limit=5"
    while href:
        page = demo_server.get(href).json()
        ItemCollection.model_validate(page)
        found += page["features"]
        href = next((link["href"] for link in page["links"] if link["rel"] == "next"), "")
    return found


def filled(template: str, bbox: list[float], zoom: int) -> str:
    """Return the address of the web mercator tile in the middle of a 3D box."""
    lon, lat = (bbox[0] + bbox[3]) / 2, math.radians((bbox[1] + bbox[4]) / 2)
    x = (lon + 180) / 360 * 2**zoom
    y = (1 - math.asinh(math.tan(lat)) / math.pi) / 2 * 2**zoom
    for name, value in {"z": zoom, "x": int(x), "y": int(y)}.items():
        template = template.replace(f"{{{name}}}", str(value))
    return template


def test_every_item_and_collection_is_valid(
    demo: Assets, demo_server: Client, items: list[dict[str, Any]]
) -> None:
    assert {item["id"] for item in items} == {asset["id"] for asset in demo.listed}
    assert len(items) == 18
    for item in items:
        Item.model_validate(item)
        assert len(item["bbox"]) == 6
    LandingPage.model_validate(demo_server.get(f"{BASE}/stac").json())
    Conformance.model_validate(demo_server.get(f"{BASE}/stac/conformance").json())
    listed = demo_server.get(f"{BASE}/stac/collections").json()
    Collections.model_validate(listed)
    for collection in listed["collections"]:
        Collection.model_validate(collection)


def test_an_item_alone_is_the_item_of_the_search(
    demo_server: Client, items: list[dict[str, Any]]
) -> None:
    for item in items:
        own = next(link["href"] for link in item["links"] if link["rel"] == "self")
        assert demo_server.get(own).json() == item


def test_every_link_and_asset_answers_with_the_type_it_names(
    demo: Assets, demo_server: Client, items: list[dict[str, Any]]
) -> None:
    answered = templates = 0
    for item in items:
        zoom = demo.named(item["id"])["info"]["min_level"]
        places = [*item["links"], *item["assets"].values()]
        for place in places:
            href = place["href"]
            assert href == urljoin(BASE, href), "absolute"
            if href.startswith("ni:"):
                continue
            if "{" in href:
                templates += 1
                href = filled(href, item["bbox"], zoom)
            answer = demo_server.get(href)
            assert answer.status_code == 200, (item["id"], href)
            media_type = answer.headers["content-type"].partition(";")[0]
            assert media_type == place["type"].partition(";")[0], (item["id"], href)
            assert answer.content
            answered += 1
    assert answered > 100
    assert templates >= 11


def test_files_are_named_by_what_is_in_them(
    demo: Assets, demo_server: Client, items: list[dict[str, Any]]
) -> None:
    compared = 0
    for item in items:
        stores = {s["sha256"]: demo.data / s["path"] for s in demo.named(item["id"])["stores"]}
        files = [a for a in item["assets"].values() if "file:checksum" in a]
        assert len(files) == len(stores)
        for file in files:
            digest = file["file:checksum"].removeprefix("1220")
            content = stores[digest].read_bytes()
            assert hashlib.sha256(content).hexdigest() == digest
            assert len(content) == file["file:size"]
            named = _NI.fullmatch(file["href"])
            if named:
                assert base64.urlsafe_b64decode(named[1] + "=").hex() == digest
            else:
                assert demo_server.content(file["href"]) == content
            compared += 1
    assert compared == sum(len(demo.named(a["id"])["stores"]) for a in demo.listed)


def test_boxes_hold_what_the_sources_hold_and_little_more(items: list[dict[str, Any]]) -> None:
    # Where the demo's places are, from an atlas: west, south, east, north.
    places = {
        "shanghai": (121.45, 31.2, 121.56, 31.28),
        "wuhan": (114.3, 30.4, 114.5, 30.6),
        "suizhou": (112.6, 31.2, 114.3, 32.7),
        "hubei": (107.9, 28.8, 116.6, 33.5),
        "washington": (-78, 38, -76, 48),
        "naip": (-100.2, 46, -98, 48),
        "autzen": (-123.08, 44.04, -123.06, 44.06),
    }
    for item in items:
        west, south, _, east, north, _ = item["bbox"]
        place = places[item["id"].partition("-")[0]]
        assert place[0] <= west < east <= place[2], (item["id"], item["bbox"])
        assert place[1] <= south < north <= place[3], (item["id"], item["bbox"])
