"""Absolute links: behind proxies, with a configured address, and against lies."""

from __future__ import annotations

import asyncio
import string
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send

from cim_server.links import PATHS, Links
from cim_server.middleware.base_url import BaseUrlMiddleware


def links_in(client: httpx.Client, headers: dict[str, str]) -> set[str]:
    """Return scheme, host and prefix of every link of several kinds of documents."""
    bases = set()
    landing = client.get("/stac", headers=headers).json()
    urls = [link["href"] for link in landing["links"]]
    paths = ["/stac"] * len(urls)
    tilejson = client.get("/tiles/divisions/current/tilejson.json", headers=headers).json()
    raster = client.get("/raster/image/WebMercatorQuad/tilejson.json", headers=headers).json()
    for url, path in (
        *zip(urls, paths, strict=True),
        (tilejson["tiles"][0], "/tiles"),
        (raster["tiles"][0], "/raster"),
    ):
        for marker in (path, "/stac", "/docs", "/openapi.json"):
            if marker in url:
                bases.add(url[: url.index(marker)])
                break
    return bases


@pytest.mark.parametrize(
    ("headers", "base"),
    [
        ({"Host": "cim.suizhou.cn"}, "http://cim.suizhou.cn"),
        ({"Host": "10.1.2.3:8080"}, "http://10.1.2.3:8080"),
        (
            {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "cim.example.cn"},
            "https://cim.example.cn",
        ),
        (
            {
                "X-Forwarded-Proto": "https, http",
                "X-Forwarded-Host": "a.cn, b.cn",
                "X-Forwarded-Port": "8443",
                "X-Forwarded-Prefix": "/city/cim/",
            },
            "https://a.cn:8443/city/cim",
        ),
        (
            {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "a.cn", "X-Forwarded-Port": "443"},
            "https://a.cn",
        ),
        (
            {"Forwarded": 'for=1.2.3.4;proto=https;host="a.cn:444", for=5.6.7.8;host=b'},
            "https://a.cn:444",
        ),
        (
            {"Forwarded": "proto=https;host=a.cn", "X-Forwarded-Prefix": "/p"},
            "https://a.cn/p",
        ),
    ],
)
def test_links_name_the_address_that_the_client_used(
    client: httpx.Client, headers: dict[str, str], base: str
) -> None:
    assert links_in(client, headers) == {base}


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-Host": "evil.cn/<script>"},
        {"X-Forwarded-Proto": "javascript"},
        {"X-Forwarded-Prefix": "/../x"},
        {"X-Forwarded-Prefix": "//evil.cn"},
        {"Forwarded": 'host="evil cn"'},
        {"Host": "evil.cn/path"},
    ],
)
def test_what_is_no_address_is_not_believed(client: httpx.Client, headers: dict[str, str]) -> None:
    for base in links_in(client, headers):
        assert "evil" not in base and ".." not in base and base.startswith("http://")


def test_the_openapi_document_names_the_prefix(client: httpx.Client) -> None:
    headers = {"X-Forwarded-Prefix": "/city"}
    assert client.get("/openapi.json", headers=headers).json()["servers"] == [{"url": "/city"}]
    assert "servers" not in client.get("/openapi.json").json()


def test_a_configured_address_wins_over_headers(city: Any, serve: Any) -> None:
    with serve(city.settings(public_url="https://cim.example.cn/base/")) as client:
        lies = {"X-Forwarded-Host": "b.cn", "Host": "c.cn"}
        assert links_in(client, lies) == {"https://cim.example.cn/base"}
        # A proxy that leaves the prefix on the path is understood too.
        assert client.get("/base/stac").status_code == 200
        assert client.get("/stac").status_code == 200


def scope_of(client_host: str, headers: dict[str, str]) -> Scope:
    raw = [(b"host", b"own.cn"), *((k.encode(), v.encode()) for k, v in headers.items())]
    return {
        "type": "http",
        "scheme": "http",
        "path": "/stac",
        "root_path": "",
        "client": (client_host, 1),
        "server": ("127.0.0.1", 8000),
        "headers": raw,
    }


def base_seen(scope: Scope, *, public_url: str = "", trusted: tuple[str, ...] = ()) -> str:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(Links.of(scope).base)

    async def nothing(*_: Any) -> Any:
        raise AssertionError

    asyncio.run(BaseUrlMiddleware(app, public_url, trusted)(scope, nothing, nothing))
    return seen[0]


def test_only_trusted_proxies_are_believed() -> None:
    said = {"x-forwarded-host": "a.cn", "x-forwarded-proto": "https"}
    trusted = ("10.0.0.0/8", "::1")
    assert base_seen(scope_of("10.9.9.9", said), trusted=trusted) == "https://a.cn"
    assert base_seen(scope_of("::1", said), trusted=trusted) == "https://a.cn"
    assert base_seen(scope_of("11.0.0.1", said), trusted=trusted) == "http://own.cn"
    assert base_seen(scope_of("unix", said), trusted=trusted) == "http://own.cn"
    assert base_seen(scope_of("10.9.9.9", {}), trusted=trusted) == "http://own.cn"


@given(st.text(max_size=40), st.sampled_from(["x-forwarded-host", "x-forwarded-prefix"]))
def test_whatever_a_proxy_says_the_base_stays_a_plain_url(value: str, name: str) -> None:
    encoded = value.encode("latin-1", "ignore").decode("latin-1")
    scope = scope_of("10.0.0.1", {})
    scope["headers"].append((name.encode(), encoded.encode("latin-1")))
    base = base_seen(scope, trusted=("10.0.0.1",))
    parts = urlsplit(base)
    assert parts.scheme == "http" and parts.netloc and not parts.query and not parts.fragment
    assert set(base) <= set(string.ascii_letters + string.digits + ":/.-_~[]")


def test_every_link_name_makes_an_absolute_url_with_chinese_quoted() -> None:
    link = Links("https://cim.cn/p")
    fields = {
        "asset": "楼-1",
        "item": "楼-1",
        "collection": "时空",
        "id": "楼-1",
        "version": "current",
        "key": "{z}/{x}/{y}.mvt",
        "tms": "CGCS2000Quad",
        "ending": "png",
        "lon": "{lon}",
        "lat": "{lat}",
        "product": "slope",
        "grid": "CGCS2000Quad",
        "z": "{z}",
        "x": "{x}",
        "y": "{y}",
        "fontstack": "{fontstack}",
        "range": "{range}",
    }
    for name in PATHS:
        url = link(name, **fields)
        assert url.isascii() and url.startswith("https://cim.cn/p/"), name
    tile = link("tile", asset="楼-1", version="current", key="{z}/{x}/{y}.mvt")
    assert tile == "https://cim.cn/p/tiles/%E6%A5%BC-1/current/{z}/{x}/{y}.mvt"
    assert link("stac-search", limit=2, token=None, ids="楼") == (
        "https://cim.cn/p/stac/search?limit=2&ids=%E6%A5%BC"
    )
    with pytest.raises(KeyError):
        link("tileset", asset="x")
