"""Running: publishing without a restart, health, metrics, styles, docs, portal, workers."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from starlette.applications import Starlette

from catalog.database import Catalog
from cim_server.services.portal import StaticFiles
from cim_server.testing.services import ServiceTests
from styles import style_names
from tiling.errors import CatalogError

BUILDINGS = quote("buildings-曾都区")


class TestReports(ServiceTests):
    found = {
        f"/reports/{BUILDINGS}/current": "application/json",
        f"/reports/{BUILDINGS}/1": "application/json",
    }
    missing = (f"/reports/{BUILDINGS}/9", "/reports/none/current")


class TestStyles(ServiceTests):
    found = {f"/styles/{name}.json": "application/json" for name in style_names()}
    missing = ("/styles/none.json", "/styles/..%2Fsecret.json", "/styles/")


class TestOperation(ServiceTests):
    found = {"/healthz": "application/json", "/metrics": "text/plain"}
    missing = ("/health", "/favicon.ico.php", "/tiles", "/static/none.js")
    conditional = False


def eventually(check: Any, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


def test_a_publication_shows_without_a_restart(own_city: Any, serve: Any) -> None:
    first = own_city.archive("v1", {"tileset.json": b'{"v": 1}'})
    own_city.publish("楼", "buildings", first)
    with serve(own_city.settings(poll_s=0.5)) as client:
        current = f"/tiles/{quote('楼')}/current/tileset.json"
        old = client.get(current)
        assert old.json() == {"v": 1}
        second = own_city.archive("v2", {"tileset.json": b'{"v": 2}'})
        started = time.monotonic()
        own_city.publish("楼", "buildings", second)
        eventually(lambda: client.get(current).json() == {"v": 2})
        assert time.monotonic() - started < 2.0
        known = {"If-None-Match": old.headers["etag"]}
        assert client.get(current, headers=known).status_code == 200
        assert client.get(f"/tiles/{quote('楼')}/1/tileset.json").json() == {"v": 1}
        with Catalog.open(own_city.data / "catalog.db") as catalog:
            catalog.rollback("楼", 1)
        eventually(lambda: client.get(current).json() == {"v": 1})
        assert client.get(current, headers=known).status_code == 304
        with Catalog.open(own_city.data / "catalog.db") as catalog:
            catalog.delete("楼")
        eventually(lambda: client.get(current).status_code == 404)
        assert client.get("/stac/search").json()["features"] == []


def test_an_empty_data_folder_is_served(tmp_path: Path, own_city: Any, serve: Any) -> None:
    with serve(own_city.settings(data=tmp_path / "new" / "数据")) as client:
        assert client.get("/healthz").json()["assets"] == 0
        assert client.get("/stac/search").json()["features"] == []


def test_health_fails_while_the_catalogue_cannot_be_read(
    own_city: Any, serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_city.publish("one", "buildings", own_city.archive("one", {"tileset.json": b"{}"}))

    def unreadable(catalog: Catalog) -> int:
        raise CatalogError("the disk is gone")

    with serve(own_city.settings()) as client:
        with monkeypatch.context() as broken:
            broken.setattr(Catalog, "sequence", unreadable)
            eventually(lambda: client.get("/healthz").status_code == 503)
            assert client.get("/tiles/one/current/tileset.json").status_code == 200
        eventually(lambda: client.get("/healthz").status_code == 200)


def test_health_fails_when_the_following_ends_by_a_defect(
    own_city: Any, serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_city.publish("one", "buildings", own_city.archive("one", {"tileset.json": b"{}"}))

    def defect(catalog: Catalog) -> int:
        raise ZeroDivisionError

    with serve(own_city.settings()) as client:
        with monkeypatch.context() as broken:
            broken.setattr(Catalog, "sequence", defect)
            time.sleep(0.3)
        assert client.get("/healthz").status_code == 503


def test_health_counts_what_is_there_and_what_is_not(own_city: Any, serve: Any) -> None:
    ref = own_city.archive("one", {"tileset.json": b"{}"})
    own_city.publish("one", "buildings", ref)
    with serve(own_city.settings()) as client:
        body = client.get("/healthz").json()
        assert body["status"] == "ok" and body["catalogue"]["reachable"]
        assert body["stores"] == {"present": 1, "missing": 0, "examples": []}
        (own_city.data / ref.path).write_bytes(b"cut")
        broken = client.get("/healthz")
        assert broken.status_code == 503 and broken.json()["stores"]["examples"] == [ref.path]


def test_metrics_count_by_route_and_status(own_city: Any, serve: Any) -> None:
    own_city.publish("one", "buildings", own_city.archive("one", {"tileset.json": b"{}" * 9}))
    with serve(own_city.settings()) as client:
        for _ in range(3):
            client.get("/tiles/one/1/tileset.json", headers={"Accept-Encoding": "identity"})
        client.get("/tiles/one/1/none")
        client.get("/nothing")
        text = client.get("/metrics").text
        route = 'route="/tiles/{asset}/{version}/{key}"'
        assert re.search(
            rf'cim_requests_total{{pid="\d+",{route},method="GET",status="200"}} 3', text
        )
        assert re.search(rf'requests_total{{.*{route}.*status="404"}} 1', text)
        assert re.search(r'requests_total{.*route="unmatched".*status="404"} 1', text)
        assert re.search(rf"cim_request_seconds_count{{.*{route}}} 4", text)
        assert re.search(rf'cim_request_seconds_bucket{{.*{route},le="\+Inf"}} 4', text)
        assert re.search(r"cim_store_openings_total{.*} 1", text)
        assert re.search(r"cim_store_hits_total{.*} 3", text)
        assert all(
            re.fullmatch(r'#.*|[a-z_]+{([a-z]+="[^"]*",?)+} [0-9.e+-]+', line)
            for line in text.splitlines()
        )


def test_metrics_need_the_key_when_there_is_one(own_city: Any, serve: Any) -> None:
    key = "a-secret-of-the-city"
    with serve(own_city.settings(admin_key=key)) as client:
        refused = client.get("/metrics", headers={"Authorization": "Bearer wrong"})
        assert refused.status_code == 401 == client.get("/metrics").status_code
        assert refused.headers["www-authenticate"] == "Bearer"
        assert refused.headers["content-type"] == "application/problem+json"
        allowed = client.get("/metrics", headers={"Authorization": f"Bearer {key}"})
        assert allowed.status_code == 200


def test_the_report_is_what_the_ingest_wrote(client: httpx.Client) -> None:
    report = client.get(f"/reports/{BUILDINGS}/current").json()
    assert report["findings"][0]["rule"] == "ring-closed"


def test_the_docs_load_nothing_from_elsewhere(client: httpx.Client) -> None:
    page = client.get("/docs")
    assert page.status_code == 200
    # Every address in the page is relative to it.
    assert not re.findall(r"""(?:src|href)=["'](?:https?:)?//""", page.text)
    assert "static/swagger/swagger-ui-bundle.js" in page.text
    assert '"openapi.json"' in page.text or "'openapi.json'" in page.text


def test_the_openapi_document_covers_every_kind_of_address(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    heads = {path.split("/")[1] for path in document["paths"]}
    assert heads >= {"tiles", "raster", "stac", "styles", "reports", "healthz", "metrics"}
    ids = [o["operationId"] for p in document["paths"].values() for o in p.values()]
    assert len(ids) == len(set(ids))


def portal_folder(folder: Path) -> Path:
    (folder / "assets").mkdir(parents=True)
    (folder / "swagger").mkdir()
    (folder / "index.html").write_text("<html>门户</html>", encoding="utf-8")
    (folder / "assets" / "index-abc.js").write_text("let x = 1;\n" * 500)
    (folder / "swagger" / "favicon.png").write_bytes(b"\x89PNG" + bytes(3000))
    return folder


def test_the_portal_is_sent_with_the_right_caching(tmp_path: Path, monkeypatch: Any) -> None:
    import asyncio

    from cim_server.errors import HANDLERS
    from cim_server.services import portal

    app = Starlette(
        routes=portal.routes(portal_folder(tmp_path / "static")), exception_handlers=HANDLERS
    )

    async def check() -> None:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://t") as client:
            index = await client.get("/")
            assert "门户" in index.text and index.headers["content-type"].startswith("text/html")
            assert "no-cache" in index.headers["cache-control"]
            known = {"If-None-Match": index.headers["etag"]}
            assert (await client.get("/", headers=known)).status_code == 304
            script = await client.get("/static/assets/index-abc.js")
            assert script.headers["content-encoding"] == "gzip"
            assert script.headers["content-type"] == "text/javascript; charset=utf-8"
            assert "immutable" in script.headers["cache-control"]
            assert script.text.startswith("let x = 1;")
            image = await client.get("/static/swagger/favicon.png")
            assert image.headers["content-type"] == "image/png"
            assert "immutable" not in image.headers["cache-control"]
            for path in ("/static/..%2Findex.html", "/static//etc/passwd", "/static/"):
                assert (await client.get(path)).status_code == 404, path

    asyncio.run(check())


def test_a_portal_that_was_not_built_says_so(tmp_path: Path) -> None:
    assert StaticFiles.of(tmp_path / "none").files == {}


def test_several_workers_share_one_port(own_city: Any, tmp_path: Path) -> None:
    own_city.publish("one", "buildings", own_city.archive("one", {"tileset.json": b"{}"}))
    code = "from cim_server.settings import Settings\nfrom cim_server.serve import serve\n"
    code += "if __name__ == '__main__': serve(Settings.from_env())"
    script = tmp_path / "run.py"
    script.write_text(code)
    environ = {**os.environ, "CIM_DATA": str(own_city.data), "CIM_PORT": "0", "CIM_WORKERS": "2"}
    log = tmp_path / "log"
    with log.open("wb") as stream:
        server = subprocess.Popen([sys.executable, script], env=environ, stderr=stream)
    try:
        eventually(lambda: log.read_text().count("startup complete") == 2, 60)
        port = re.search(r"http://127.0.0.1:(\d+)", log.read_text())
        assert port is not None
        pids = set()
        for _ in range(200):
            text = httpx.get(f"http://127.0.0.1:{port[1]}/metrics").text
            pids |= set(re.findall(r'cim_assets{pid="(\d+)"} 1', text))
            if len(pids) == 2:
                break
        assert len(pids) == 2
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) in (0, -signal.SIGTERM)


def test_the_server_loads_neither_numba_nor_py3dtiles() -> None:
    code = "import sys, json, cim_server.serve\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    modules = set(json.loads(done.stdout))
    assert not modules & {"numba", "py3dtiles", "pyogrio", "pandas", "ingest"}


@pytest.mark.parametrize("path", ["/", "/stac", "/tiles/dem/current/layer.json"])
def test_a_websocket_or_odd_method_does_no_harm(client: httpx.Client, path: str) -> None:
    answer = client.request("BREW", path)
    assert answer.status_code in (400, 405)
    assert "Traceback" not in answer.text
