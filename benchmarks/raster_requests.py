"""Dynamic tiles of one COG beside plain TiTiler: 2 workers each, 16 connections, in turn.

Ours without memory (``CIM_TILE_CACHE=0``), ours with every tile in memory, and TiTiler with the
GDAL settings that its documentation recommends; the same COG, the same tiles in the same order.
"""

from __future__ import annotations

import asyncio
import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.transform import from_origin
from rasterio.warp import transform_bounds

from benchmarks import inputs
from benchmarks.bench import Bench, ingest
from benchmarks.published import CIM, stores
from tiling.bounds import Region
from tiling.schemes import WEB_MERCATOR_QUAD

_CONNECTIONS, _WORKERS, _TILES, _SECONDS = 16, 2, 400, 6.0
_FRAMES = {
    "EPSG:4490": from_origin(113.3, 31.8, 1e-5, 1e-5),
    "EPSG:4547": from_origin(434000, 3519000, 1, 1),
    "EPSG:3857": from_origin(12612000, 3730000, 1.2, 1.2),
}
_GDAL = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_CACHEMAX": "200",
    "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": ".tif",
}


def raster_requests(bench: Bench) -> dict[str, Any]:
    """Tiles of three COGs, as JPEG and as PNG."""
    data = bench.data("raster-requests")
    result: dict[str, Any] = {}
    for crs in _FRAMES:
        asset = crs.replace(":", "").lower()
        source = _in_frame(inputs.image(bench.folder, bench.count(8192)), crs)
        bench.run(f"publish {crs}", ingest(source, asset, [], data))
        (cog,) = (data / s["path"] for s in stores(data, asset) if s["format"] == "cog")
        tiles = _tiles(cog)
        for ending in ("jpg", "png"):
            rows = _compare(bench, data, asset, cog, tiles, ending)
            result[f"{crs} {ending}"] = rows
            rival = rows["titiler"]["tiles_s"]
            for who, row in rows.items():
                print(
                    f"{crs:10} {ending}  {who:14} {row['tiles_s']:8.1f} tiles/s "
                    f"p50 {row['p50_ms']:7.1f} ms  p99 {row['p99_ms']:7.1f} ms  "
                    f"{row['tiles_s'] / rival:6.1f} x",
                    flush=True,
                )
    return result


def _compare(
    bench: Bench, data: Path, asset: str, cog: Path, tiles: list[tuple[int, int, int]], ending: str
) -> dict[str, dict[str, float]]:
    def ours(z: int, x: int, y: int) -> str:
        return f"/raster/{asset}/tiles/WebMercatorQuad/{z}/{x}/{y}.{ending}"

    def theirs(z: int, x: int, y: int) -> str:
        return f"/cog/tiles/WebMercatorQuad/{z}/{x}/{y}.{ending}?url={cog}"

    serve = [CIM, "serve", "--data", data, "--workers", str(_WORKERS), "--port"]
    plain = [
        sys.executable, "-m", "uvicorn", "benchmarks.plain_titiler:app", "--no-access-log",
        "--workers", str(_WORKERS), "--timeout-worker-healthcheck", "60", "--port",
    ]  # fmt: skip
    quiet = {"CIM_ACCESS_LOG": "0"}
    contestants: dict[str, tuple[list[Any], dict[str, str], Callable[..., str], int]] = {
        "cim, no memory": (serve, {**quiet, "CIM_TILE_CACHE": "0"}, ours, 0),
        "titiler": (plain, _GDAL, theirs, 0),
        "cim, warm": (serve, {**quiet, "CIM_TILE_CACHE": "512M"}, ours, 6),
    }
    taken: dict[str, list[dict[str, float]]] = {who: [] for who in contestants}
    for _ in range(bench.runs):
        for who, (command, environment, address, rounds) in contestants.items():
            with _serving(command, environment, bench.folder / "log.txt") as port:
                paths = [address(*tile) for tile in tiles]
                # A few first, so that both workers have imported what they need and opened files.
                asyncio.run(_load(port, paths[:40], 40))
                for _ in range(rounds):
                    asyncio.run(_load(port, paths, len(paths)))
                taken[who].append(asyncio.run(_load(port, paths, None)))
    return {
        who: {key: statistics.median(row[key] for row in rows) for key in rows[0]}
        for who, rows in taken.items()
    }


def _in_frame(source: Path, crs: str) -> Path:
    path = source.with_name(f"{source.stem}-{crs[5:]}.tif")
    if not path.exists():
        with rasterio.open(source) as image:
            profile = {**image.profile, "crs": crs, "transform": _FRAMES[crs]}
            with rasterio.open(path, "w", **profile) as out:
                for _, window in image.block_windows(1):
                    out.write(image.read(window=window), window=window)
    return path


def _tiles(cog: Path) -> list[tuple[int, int, int]]:
    """Tiles within the image at its four finest levels, in a fixed random order."""
    with rasterio.open(cog) as image:
        crs = "EPSG:4326" if image.crs.is_geographic else image.crs
        west, south, east, north = transform_bounds(crs, "EPSG:4326", *image.bounds)
        finest = WEB_MERCATOR_QUAD.level_for((east - west) / image.width)
    # The inner part: the box of a projected image has corners that it does not reach.
    dx, dy = (east - west) * 0.05, (north - south) * 0.05
    area = Region(west + dx, south + dy, east - dx, north - dy)
    found = [
        tuple(tile)
        for level in range(finest - 3, finest + 1)
        for tile in WEB_MERCATOR_QUAD.tiles_in(area, level)
    ]
    order = np.random.default_rng(5).permutation(len(found))[:_TILES]
    return [found[i] for i in order]  # type: ignore[misc]


@contextmanager
def _serving(command: list[Any], environment: dict[str, str], log: Path) -> Iterator[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with log.open("ab") as out:
        process = subprocess.Popen(
            [*map(str, command), str(port)],
            env={**os.environ, **environment},
            stdout=out,
            stderr=out,
        )
    try:
        _wait(port, process)
        yield port
    finally:
        process.terminate()
        process.wait(30)


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/openapi.json", timeout=30).close()
            return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.2)
    raise RuntimeError(f"a server did not start; see the log ({process.returncode=})")


async def _load(port: int, paths: list[str], limit: int | None) -> dict[str, float]:
    """Ask over `_CONNECTIONS` connections for `limit` tiles, or for `_SECONDS`."""
    times: list[float] = []
    begun = 0
    start = time.perf_counter()

    async def connection() -> None:
        nonlocal begun
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while begun < limit if limit is not None else time.perf_counter() - start < _SECONDS:
            path = paths[begun % len(paths)]
            begun += 1
            asked = time.perf_counter()
            writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(
                int(line.split(b":")[1])
                for line in head.split(b"\r\n")
                if line.lower().startswith(b"content-length:")
            )
            body = await reader.readexactly(length)
            if not head.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(f"{path}: {head[:60]!r} {body[:200]!r}")
            times.append(time.perf_counter() - asked)
        writer.close()

    await asyncio.gather(*(connection() for _ in range(_CONNECTIONS)))
    wall = time.perf_counter() - start
    p50, p99 = np.percentile(times, (50, 99)) * 1000
    return {"tiles_s": len(times) / wall, "p50_ms": float(p50), "p99_ms": float(p99)}
