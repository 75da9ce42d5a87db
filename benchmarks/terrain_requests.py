"""What the server computes of a terrain on request: one tile after another, one core, cold tiles.

Each tile is asked once; the surface is open and kernels are compiled, as in a worker that has
served before. Beside it, where there is one, the way of plain TiTiler: rio-tiler reads the tile
from the same COG, its own algorithm codes the heights, and GDAL writes the PNG.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import inputs
from benchmarks.bench import Bench, ingest
from benchmarks.published import stores
from catalog.database import Catalog

Tile = tuple[int, int, int]
_TILES = 100


def terrain_requests(bench: Bench) -> dict[str, Any]:
    """Mesh, relief and contour tiles of a DEM that was published without baking."""
    source = inputs.dem(bench.folder, bench.count(4096))
    data = bench.data("terrain-requests")
    options = ["--kind", "terrain", "--vertical", "EPSG:5737", "--bake", "none"]
    bench.run("publish, nothing baked", ingest(source, "dem", options, data))
    # In a process of its own: kernels and GDAL's settings are a worker's.
    command = [sys.executable, "-m", "benchmarks.terrain_requests", str(data), str(bench.runs)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    for name, row in result.items():
        print(f"{name:34} " + "  ".join(f"{k} {v:9.2f}" for k, v in row.items()), flush=True)
    return result


def _measure(data: Path, runs: int) -> dict[str, dict[str, float]]:
    from cim_server.mesh_work import terrain_tile
    from cim_server.relief_work import ImageJob, contour_tile, image
    from cim_server.surfaces import Surface, open_source
    from tiling.schemes import TMS_GEOGRAPHIC, WEB_MERCATOR_QUAD, Scheme

    with Catalog.open(data / "catalog.db") as catalog:
        info = catalog.version("dem").info
    (cog,) = (str(data / s["path"]) for s in stores(data, "dem") if s["format"] == "cog")
    surface = Surface((cog,), json.dumps(info["vertical"]), json.dumps(info["terrain"]), "")
    (area,) = open_source(surface).coverage
    levels = info["terrain"]["mesh"]["levels"]

    def some(scheme: Scheme, level: int) -> list[Tile]:
        tiles = [tuple(t) for t in scheme.tiles_in(area, level)]
        chosen = np.random.default_rng(level).permutation(len(tiles))[:_TILES]
        return [tiles[i] for i in chosen]  # type: ignore[misc]

    rows: dict[str, list[tuple[float, float]]] = {}

    def each(name: str, tiles: Sequence[Tile], make: Callable[[Tile], object]) -> None:
        taken = []
        for tile in tiles:
            start = time.perf_counter()
            assert make(tile) is not None, (name, tile)
            taken.append((time.perf_counter() - start) * 1000)
        rows.setdefault(name, []).append((statistics.median(taken), max(taken)))

    def relief(product: str) -> Callable[[Tile], object]:
        return lambda tile: image(ImageJob(surface, product, "WebMercatorQuad", tile, 256, "png"))

    for run in range(runs + 1):
        if run == 1:
            rows.clear()  # the first compiled the kernels
        for level in levels[-4:]:
            open_source.cache_clear()
            each(
                f"mesh, level {level}",
                some(TMS_GEOGRAPHIC, level),
                lambda t: terrain_tile(surface, t),
            )
        tiles = some(WEB_MERCATOR_QUAD, 13)
        for product in ("hillshade", "terrainrgb"):
            open_source.cache_clear()
            each(product, tiles, relief(product))
            each(f"{product}, rio-tiler", tiles, _rival(cog, product))
        open_source.cache_clear()
        each("contours", tiles, lambda t: contour_tile(surface, t, None))
    return {
        name: {
            "p50_ms": statistics.median(p50 for p50, _ in figures),
            "max_ms": statistics.median(worst for _, worst in figures),
        }
        for name, figures in rows.items()
    }


def _rival(cog: str, product: str) -> Callable[[Tile], object]:
    from rio_tiler.io import Reader
    from titiler.core.algorithm import algorithms

    algorithm = algorithms.get(product)()

    def make(tile: Tile) -> object:
        z, x, y = tile
        with Reader(cog) as reader:
            picture = reader.tile(x, y, z, buffer=1.0 if product == "hillshade" else None)
        return algorithm(picture).render(img_format="PNG")

    return make


if __name__ == "__main__":
    print(json.dumps(_measure(Path(sys.argv[1]), int(sys.argv[2]))))
