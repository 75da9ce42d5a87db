"""Baked tiles of an image: the same bytes as served, whoever makes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pmtiles.reader import MmapSource, Reader, all_tiles

from cim_server.raster_bake import BakeOptions, bake, bake_options
from ingest.workspace import Workspace
from tiling.errors import ConfigError, Conflict
from tiling.tilers.base import SilentProgress


def baked(city: Any, out: Path, options: BakeOptions, **more: Any) -> dict[str, Any]:
    workspace = Workspace(city.data)
    with workspace.open_catalog() as catalog:
        item, version = catalog.item("ortho"), catalog.version("ortho", None)
    given = {"workers": 1, "overwrite": False, "progress": SilentProgress(), **more}
    return bake(workspace, item, version, out, options, **given)


@pytest.fixture
def ortho(own_city: Any) -> Any:
    rng = np.random.default_rng(7)
    pixels = np.kron(rng.integers(0, 255, (3, 32, 32)), np.ones((1, 32, 32))).astype(np.uint8)
    own_city.publish("ortho", "imagery", own_city.cog("ortho", pixels, "EPSG:4490"))
    return own_city


@pytest.mark.parametrize(
    ("ending", "size", "media_type"),
    [("webp", 256, "image/webp"), ("png", 512, "image/png"), ("jpg", 256, "image/jpeg")],
)
def test_baked_tiles_are_those_that_are_served(
    ortho: Any, serve: Any, tmp_path: Path, ending: Any, size: int, media_type: str
) -> None:
    out = tmp_path / "out.pmtiles"
    done = baked(ortho, out, BakeOptions(ending=ending, size=size))
    with out.open("rb") as file, serve(ortho.settings()) as client:
        source = MmapSource(file)
        header = Reader(source).header()
        tiles = dict(all_tiles(source))
        assert len(tiles) == done["tiles"] == header["addressed_tiles_count"]
        assert (header["min_zoom"], header["max_zoom"]) == (0, done["max_zoom"])
        said = client.get("/raster/ortho/WebMercatorQuad/tilejson.json").json()
        assert done["max_zoom"] == said["maxzoom"] - (size == 512)
        near = [cell for cell in tiles if cell[0] == done["max_zoom"]]
        far = [cell for cell in tiles if cell[0] < done["max_zoom"]]
        for z, x, y in far[-4:] + near[:: max(1, len(near) // 6)]:
            path = f"/raster/ortho/tiles/WebMercatorQuad/{z}/{x}/{y}.{ending}"
            answer = client.get(path, params={"tilesize": size})
            assert answer.headers["content-type"] == media_type
            assert answer.content == tiles[z, x, y]


def test_any_number_of_workers_makes_the_same_archive(ortho: Any, tmp_path: Path) -> None:
    one, two = tmp_path / "one.pmtiles", tmp_path / "two.pmtiles"
    baked(ortho, one, BakeOptions(max_zoom=11))
    baked(ortho, two, BakeOptions(max_zoom=11), workers=2)
    assert one.read_bytes() == two.read_bytes()
    assert not list((ortho.data / "jobs").iterdir())


def test_what_is_there_is_replaced_only_when_told(ortho: Any, tmp_path: Path) -> None:
    out = tmp_path / "out.pmtiles"
    out.write_bytes(b"precious")
    with pytest.raises(Conflict, match="--overwrite"):
        baked(ortho, out, BakeOptions(max_zoom=8))
    with pytest.raises(ConfigError, match="--min-zoom 9 is above --max-zoom 8"):
        baked(ortho, out, BakeOptions(9, 8), overwrite=True)
    assert out.read_bytes() == b"precious"
    baked(ortho, out, BakeOptions(max_zoom=8), overwrite=True)
    assert out.read_bytes()[:7] == b"PMTiles"
    assert [p.name for p in tmp_path.glob("*out.pmtiles*")] == ["out.pmtiles"]


def test_unknown_formats_and_sizes_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"--tile-format 'gif' is not one of png, jpg, webp"):
        bake_options(None, None, "gif", None)
    with pytest.raises(ConfigError, match="--tile-size 300"):
        bake_options(None, None, None, 300)
