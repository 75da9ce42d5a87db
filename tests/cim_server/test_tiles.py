"""The tile path: stored bytes, encodings, caching, ranges, hostile paths."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import mapbox_vector_tile
import pytest

from cim_server.testing.services import ServiceTests
from styles.glyphs import font_names

BUILDINGS = quote("buildings-曾都区")


class TestBuildings(ServiceTests):
    found = {
        f"/tiles/{BUILDINGS}/current/tileset.json": "application/json",
        f"/tiles/{BUILDINGS}/1/content/0/0/0.glb": "model/gltf-binary",
        f"/tiles/{BUILDINGS}/1/subtrees/0/0/0.subtree": "application/octet-stream",
    }
    missing = (
        f"/tiles/{BUILDINGS}/current/content/0/0/1.glb",
        f"/tiles/{BUILDINGS}/2/tileset.json",
        f"/tiles/{BUILDINGS}/01/tileset.json",
        f"/tiles/{BUILDINGS}/latest/tileset.json",
        f"/tiles/{BUILDINGS}/current/tilejson.json",
        f"/tiles/{BUILDINGS}/current/archive.pmtiles",
        f"/tiles/{BUILDINGS}/current/",
        "/tiles/none/current/tileset.json",
    )


class TestTerrain(ServiceTests):
    found = {
        "/tiles/dem/current/layer.json": "application/json",
        "/tiles/dem/1/0/1/0.terrain": "application/vnd.quantized-mesh",
    }
    missing = ("/tiles/dem/current/0/0/0.terrain", "/tiles/dem/1/9/9/9.terrain")


class TestDivisions(ServiceTests):
    found = {
        "/tiles/divisions/current/tilejson.json": "application/json",
        "/tiles/divisions/1/0/0/0.mvt": "application/vnd.mapbox-vector-tile",
        "/tiles/divisions/1/archive.pmtiles": "application/vnd.pmtiles",
    }
    missing = (
        "/tiles/divisions/1/5/0/0.mvt",
        "/tiles/divisions/1/0/0/0.pbf",
        "/tiles/divisions/1/00/0/0.mvt",
        "/tiles/divisions/1/-1/0/0.mvt",
    )


def raw(client: httpx.Client, path: str, **headers: str) -> tuple[httpx.Response, bytes]:
    """Get without httpx's own decoding."""
    with client.stream("GET", path, headers=headers) as answer:
        return answer, b"".join(answer.iter_raw())


def test_stored_gzip_is_sent_as_it_is_to_who_accepts_it(client: httpx.Client) -> None:
    answer, body = raw(client, "/tiles/dem/1/0/1/0.terrain", **{"Accept-Encoding": "br, gzip"})
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.headers["vary"] == "Accept-Encoding"
    assert int(answer.headers["content-length"]) == len(body)
    assert gzip.decompress(body) == bytes(range(200)) * 10


@pytest.mark.parametrize("accepted", ["identity", "br", "gzip;q=0", "gzip;q=0.000, *;q=0", ""])
def test_who_does_not_accept_gzip_gets_plain_bytes(client: httpx.Client, accepted: str) -> None:
    answer, body = raw(client, "/tiles/dem/1/0/1/0.terrain", **{"Accept-Encoding": accepted})
    assert "content-encoding" not in answer.headers
    assert body == bytes(range(200)) * 10


def test_each_encoding_has_its_own_etag(client: httpx.Client) -> None:
    path = f"/tiles/{BUILDINGS}/current/content/0/0/0.glb"
    packed, _ = raw(client, path, **{"Accept-Encoding": "gzip"})
    plain, _ = raw(client, path, **{"Accept-Encoding": "identity"})
    assert packed.headers["etag"] != plain.headers["etag"]
    crossed = {"Accept-Encoding": "identity", "If-None-Match": packed.headers["etag"]}
    assert client.get(path, headers=crossed).status_code == 200


def test_numbered_versions_never_change_and_current_is_asked_again(client: httpx.Client) -> None:
    numbered = client.get("/tiles/dem/1/layer.json").headers["cache-control"]
    current = client.get("/tiles/dem/current/layer.json").headers["cache-control"]
    assert numbered == "public, max-age=31536000, immutable"
    assert "no-cache" in current and "immutable" not in current


def test_tilejson_leads_to_tiles_that_decode(client: httpx.Client) -> None:
    document = client.get("/tiles/divisions/current/tilejson.json").json()
    assert document["tilejson"] == "3.0.0"
    assert (document["minzoom"], document["maxzoom"]) == (0, 1)
    assert document["vector_layers"][0]["fields"] == {"名称": "String"}
    url = document["tiles"][0]
    assert (
        url == f"{str(client.base_url).rstrip('/')}/tiles/divisions/current/{{z}}/{{x}}/{{y}}.mvt"
    )
    tile = client.get(url.format(z=1, x=1, y=0))
    decoded = mapbox_vector_tile.decode(tile.content)
    assert decoded["divisions"]["features"][0]["properties"] == {"名称": "曾都区"}


def test_vector_tiles_have_a_style_for_maplibre(client: httpx.Client) -> None:
    response = client.get("/tiles/divisions/current/style.json")
    style = response.json()
    url = style["sources"]["tiles"]["url"]
    assert client.get(url).json()["tilejson"] == "3.0.0"
    drawn = [layer for layer in style["layers"] if layer.get("source-layer") == "divisions"]
    names = [layer["layout"]["text-field"] for layer in drawn if layer["type"] == "symbol"]
    assert names and all(["get", "名称"] in name[1] for name in names)
    fonts = str(client.base_url).rstrip("/") + "/styles/fonts/{fontstack}/{range}.pbf"
    assert style.get("glyphs") == (fonts if font_names() else None)
    assert "Host" in response.headers["vary"]
    assert client.get("/tiles/buildings/current/style.json").status_code == 404


def hostile() -> list[str]:
    return [
        "..%2F..%2Fcatalog.db",
        "%2e%2e/%2e%2e/catalog.db",
        "content/..%2f..%2f..%2fcatalog.db",
        "..%5C..%5Ccatalog.db",
        "tileset.json%00.glb",
        "a%0d%0aSet-Cookie:%20x",
        "x" * 300,
        "%2Fetc%2Fpasswd",
        "/etc/passwd",
        "%ff%fe",
    ]


@pytest.mark.parametrize("key", hostile())
def test_a_hostile_path_is_refused_as_a_problem(client: httpx.Client, key: str) -> None:
    # As raw bytes, since the client would tidy the path up.
    url = client.base_url.copy_with(raw_path=f"/tiles/dem/current/{key}".encode())
    request = client.build_request("GET", url)
    answer = client.send(request)
    assert answer.status_code in (400, 404), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert "set-cookie" not in answer.headers


def test_the_archive_answers_ranges(client: httpx.Client, city: Any) -> None:
    path = "/tiles/divisions/1/archive.pmtiles"
    whole = (city.data / "stores" / "divisions.pmtiles").read_bytes()
    full = client.get(path)
    assert full.content == whole and full.headers["accept-ranges"] == "bytes"
    assert full.headers["etag"] == f'"{hashlib.sha256(whole).hexdigest()}"'
    n = len(whole)
    for asked, expected, span in (
        ("bytes=0-126", whole[:127], f"bytes 0-126/{n}"),
        ("bytes=10-", whole[10:], f"bytes 10-{n - 1}/{n}"),
        ("bytes=-7", whole[-7:], f"bytes {n - 7}-{n - 1}/{n}"),
        (f"bytes=5-{n * 9}", whole[5:], f"bytes 5-{n - 1}/{n}"),
    ):
        part = client.get(path, headers={"Range": asked})
        assert part.status_code == 206, asked
        assert part.content == expected and part.headers["content-range"] == span
    for ignored in ("bytes=9-5", "lines=1-2", "bytes=0-1,4-5", "bytes=-"):
        assert client.get(path, headers={"Range": ignored}).status_code == 200, ignored
    beyond = client.get(path, headers={"Range": f"bytes={n}-"})
    assert beyond.status_code == 416 and beyond.headers["content-range"] == f"bytes */{n}"
    stale = {"Range": "bytes=0-1", "If-Range": '"old"'}
    assert client.get(path, headers=stale).status_code == 200


def test_the_archive_is_readable_by_the_reference_reader(client: httpx.Client) -> None:
    from pmtiles.reader import Reader

    def get_bytes(offset: int, length: int) -> bytes:
        span = {"Range": f"bytes={offset}-{offset + length - 1}"}
        return client.get("/tiles/divisions/current/archive.pmtiles", headers=span).content

    tile = Reader(get_bytes).get(1, 1, 0)
    assert tile is not None
    decoded = mapbox_vector_tile.decode(gzip.decompress(tile))
    assert decoded["divisions"]["features"][0]["properties"]["名称"] == "曾都区"


def test_a_newer_store_answers_first_and_tombstones_hide(own_city: Any, serve: Any) -> None:
    old = own_city.archive("old", {"a/1.glb": b"old", "a/2.glb": b"kept", "a/3.glb": b"gone"})
    new = own_city.archive("new", {"a/1.glb": b"new"})
    own_city.publish("part", "buildings", new, old, tombstones=("a/3.glb",))
    with serve(own_city.settings()) as client:
        assert client.get("/tiles/part/current/a/1.glb").content == b"new"
        assert client.get("/tiles/part/current/a/2.glb").content == b"kept"
        assert client.get("/tiles/part/current/a/3.glb").status_code == 404


def test_a_store_that_vanished_is_a_503_without_the_path(own_city: Any, serve: Any) -> None:
    ref = own_city.archive("doomed", {"tileset.json": b"{}"})
    own_city.publish("doomed", "buildings", ref)
    Path(own_city.data / ref.path).unlink()
    with serve(own_city.settings()) as client:
        answer = client.get("/tiles/doomed/current/tileset.json")
        assert answer.status_code == 503
        assert answer.headers["content-type"] == "application/problem+json"
        assert str(own_city.data) not in answer.text
        assert client.get("/healthz").status_code == 503


def test_more_versions_than_open_stores_are_served(own_city: Any, serve: Any) -> None:
    for i in range(6):
        ref = own_city.archive(f"s{i}", {"tileset.json": str(i).encode()})
        own_city.publish("many", "buildings", ref)
    with serve(own_city.settings(open_stores=2)) as client:
        for _ in range(2):
            for i in range(6):
                assert client.get(f"/tiles/many/{i + 1}/tileset.json").content == str(i).encode()
        assert 'cim_open_stores{pid="' in client.get("/metrics").text
