"""A tileset over HTTP, fetched as a client fetches it: RFC 3986, gzip, ETags, no guessing."""

from __future__ import annotations

import gzip
import json
from urllib.parse import quote, urlsplit

import pytest

from tests.acceptance.conftest import Assets
from tests.acceptance.glb import read_glb
from tests.acceptance.serving import BASE, Client
from tests.acceptance.tilesets import walk

MEDIA_TYPES = {"tileset": "application/json", "content": "model/gltf-binary"}


@pytest.mark.parametrize("version", ["current", "1"])
@pytest.mark.parametrize("asset", ["shanghai-buildings", "wuhan-buildings", "washington-buildings"])
def test_a_client_reaches_every_building_from_the_address_of_the_tileset(
    demo: Assets, demo_server: Client, asset: str, version: str
) -> None:
    asked = []

    def fetch(url: str) -> bytes:
        answer = demo_server.get(url, headers={"Accept-Encoding": "gzip"})
        assert answer.status_code == 200, url
        assert answer.headers["content-encoding"] == "gzip", url
        sent = int(answer.headers["content-length"])
        assert sent < len(answer.content), "httpx has decoded the body"
        cached = demo_server.get(url, headers={"If-None-Match": answer.headers["etag"]})
        assert (cached.status_code, cached.content) == (304, b"")
        asked.append((url, answer.headers["content-type"], answer.content))
        return answer.content

    url = f"{BASE}/tiles/{asset}/{version}/tileset.json"
    found = list(walk(url, fetch))
    folder = f"/tiles/{asset}/{version}/"
    assert all(urlsplit(f.url).path.startswith(folder) for f in found)
    for got, (_, media_type, _) in zip(found, asked, strict=True):
        if got.kind in MEDIA_TYPES:
            assert media_type == MEDIA_TYPES[got.kind]
    contents = [read_glb(f.data) for f in found if f.kind == "content"]
    buildings = sum(len(content.rows) for content in contents if content.cls == "feature")
    assert buildings == demo.named(asset)["info"]["features"]


def test_who_cannot_read_gzip_gets_the_same_bytes_plain(demo_server: Client) -> None:
    url = f"{BASE}/tiles/shanghai-buildings/current/tileset.json"
    plain = demo_server.get(url, headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert json.loads(plain.content) == json.loads(demo_server.content(url))


def test_a_tile_that_is_not_available_is_a_404_that_says_so(demo_server: Client) -> None:
    missing = demo_server.get(f"{BASE}/tiles/shanghai-buildings/current/content/8/0/0/0/0/0.glb")
    assert missing.status_code == 404
    assert missing.headers["content-type"] == "application/problem+json"
    unknown = demo_server.get(f"{BASE}/tiles/{quote('曾都区')}/current/tileset.json")
    assert unknown.status_code == 404
    with pytest.raises(gzip.BadGzipFile):
        gzip.decompress(unknown.content)
