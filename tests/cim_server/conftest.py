"""A small city in real stores, and a real server in front of it."""

from __future__ import annotations

import gzip
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import mapbox_vector_tile
import numpy as np
import pytest
import rasterio
from affine import Affine

from catalog.database import Catalog
from catalog.records import Item, Kind, NewVersion, Role, StoreRef, Version, standard_collections
from cim_server.serve import make_server
from cim_server.settings import Settings
from tiling.bounds import Region
from tiling.geoid import parse_vertical
from tiling.stores.base import StoreInfo
from tiling.stores.pmtiles import PmtilesWriter
from tiling.stores.zip3tz import ThreeTzWriter

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # rasterio 1.4 multiplies affine 3 transforms with *, and rio-tiler takes a warning that is
    # raised for a raster without a zoom range.
    ignored = pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(ignored)


BOUNDS = Region(113.3, 31.6, 113.5, 31.8, -10.0, 300.0)
BUILDINGS, TERRAIN, DIVISIONS = "buildings-曾都区", "dem", "divisions"
IMAGE, DEEP = "image", "image-16bit"
GLB = b"glTF" + bytes(range(256)) * 20
TERRAIN_TILE = bytes(range(200)) * 10
MEDIA_TYPES = {
    "3tz": "application/vnd.maxar.archive.3tz+zip",
    "pmtiles": "application/vnd.pmtiles",
    "cog": "image/tiff; application=geotiff; profile=cloud-optimized",
}


def squeeze(data: bytes) -> bytes:
    return gzip.compress(data, 6, mtime=0)


@dataclass(frozen=True)
class City:
    """A data folder; `publish` works while a server runs on it."""

    data: Path

    def settings(self, **more: Any) -> Settings:
        return Settings(**{"data": self.data, "port": 0, "poll_s": 0.05, **more})

    def ref(self, role: Role, store: StoreInfo) -> StoreRef:
        kind = "cog" if store.path.suffix == ".tif" else store.format
        path = store.path.relative_to(self.data).as_posix()
        return StoreRef(role, kind, path, store.sha256, store.nbytes, MEDIA_TYPES[kind])  # type: ignore[arg-type]

    def publish(self, asset: str, kind: Kind, *stores: StoreRef, **more: Any) -> Version:
        with Catalog.open(self.data / "catalog.db") as catalog:
            catalog.ensure_collections(standard_collections())
            collection = more.pop("collection", catalog.collections()[0].id)
            item = Item(asset, collection, kind, more.pop("title", f"随州 {asset}"))
            new = NewVersion(**{"bounds": BOUNDS, "stores": stores, **more})
            return catalog.publish(item, new)

    def archive(self, name: str, tiles: dict[str, bytes]) -> StoreRef:
        writer = ThreeTzWriter(self.data / "stores" / f"{name}.3tz")
        for key, data in tiles.items():
            writer.put(key, squeeze(data), "gzip")
        return self.ref("tiles", writer.commit())

    def vector(self, name: str, feature: str) -> StoreRef:
        writer = PmtilesWriter(self.data / "stores" / f"{name}.pmtiles")
        for key in ("0/0/0.mvt", "1/1/0.mvt"):
            writer.put(key, squeeze(mvt(feature)), "gzip")
        layers = [{"id": "divisions", "fields": {"名称": "String"}}]
        return self.ref("tiles", writer.commit({"vector_layers": layers}))

    def cog(self, name: str, array: Any, crs: str, **profile: Any) -> StoreRef:
        path = self.data / "stores" / f"{name}.tif"
        count, height, width = array.shape
        with rasterio.open(
            path,
            "w",
            driver="COG",
            width=width,
            height=height,
            count=count,
            dtype=array.dtype,
            crs=crs,
            transform=Affine(0.2 / width, 0, 113.3, 0, -0.2 / height, 31.8),
            **profile,
        ) as dataset:
            dataset.write(array)
        sha = hashlib.sha256(path.read_bytes()).hexdigest()
        return self.ref("data", StoreInfo(path, "cog", sha, path.stat().st_size, 0))


def mvt(feature: str) -> bytes:
    geometry = "POLYGON((0 0, 0 4096, 4096 4096, 4096 0, 0 0))"
    layer = {
        "name": "divisions",
        "features": [{"geometry": geometry, "properties": {"名称": feature}, "id": 1}],
    }
    return bytes(mapbox_vector_tile.encode([layer]))


def tileset(label: str) -> bytes:
    content = {"asset": {"version": "1.1"}, "extras": {"label": label}, "geometricError": 100}
    return json.dumps(content).encode()


def make_city(folder: Path) -> City:
    (folder / "stores").mkdir(parents=True)
    city = City(folder)
    rows = np.linspace(0, 500, 512, dtype=np.float32)
    heights = np.broadcast_to(rows[:, None], (512, 512)).astype(np.float32)[None].copy()
    heights[0, :32, :32] = -9999
    three = {"tileset.json": tileset("first"), "subtrees/0/0/0.subtree": b"subt" * 20}
    three["content/0/0/0.glb"] = GLB
    report = {"findings": [{"rule": "ring-closed", "severity": "repair", "count": 2}]}
    city.publish(BUILDINGS, "buildings", city.archive("buildings", three), report=report)
    layer = {"layer.json": b'{"tilejson": "2.1.0"}', "0/1/0.terrain": TERRAIN_TILE}
    dem = city.cog("dem", heights, "EPSG:4490", nodata=-9999)
    facts = {"vertical": parse_vertical("EPSG:5737").to_json(), "resolution_deg": 0.2 / 512}
    city.publish(TERRAIN, "terrain", city.archive("terrain", layer), dem, info=facts)
    city.publish(DIVISIONS, "divisions", city.vector("divisions", "曾都区"))
    rgb = np.zeros((3, 512, 512), np.uint8)
    rgb[0, :, :256] = 200
    rgb[1, :256, :] = 100
    city.publish(IMAGE, "imagery", city.cog("image", rgb, "EPSG:4490"))
    deep = (np.arange(512 * 512, dtype=np.uint32).reshape(1, 512, 512) // 64 + 3000).astype(
        np.uint16
    )
    info = {"rescale": [[3000, 7095]]}
    city.publish(DEEP, "imagery", city.cog("deep", deep, "EPSG:4326"), info=info)
    return city


@contextmanager
def serving(settings: Settings) -> Iterator[httpx.Client]:
    server = make_server(settings)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        deadline = time.monotonic() + 30
        while not server.started:
            assert thread.is_alive() and time.monotonic() < deadline, "the server did not start"
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="session")
def city(tmp_path_factory: pytest.TempPathFactory) -> City:
    return make_city(tmp_path_factory.mktemp("city"))


@pytest.fixture(scope="session")
def client(city: City) -> Iterator[httpx.Client]:
    with serving(city.settings(public_url="")) as running:
        yield running


@pytest.fixture
def own_city(tmp_path: Path) -> City:
    """A city that a test may change."""
    (tmp_path / "stores").mkdir()
    return City(tmp_path)


@pytest.fixture
def serve() -> Callable[[Settings], AbstractContextManager[httpx.Client]]:
    return serving
