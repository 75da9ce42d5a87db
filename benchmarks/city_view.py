"""The million-building city in a browser: what each view takes until its last tile is drawn."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import city
from benchmarks.bench import Bench, ingest
from benchmarks.footprints import OPTIONS
from benchmarks.published import stores
from tests.browser.views import arrive, browsing, look, serving, views_of, visiting


def city_view(bench: Bench) -> dict[str, Any]:
    """Publish a million buildings, look at them from above and below; pictures in the folder."""
    count = bench.count(1_000_000)
    data = bench.data("view")
    source = city.footprints(bench.folder, count)
    bench.run(f"city of {count}", ingest(source, "city", OPTIONS, data))
    return see(data, "city", bench.folder / "views", bench.folder / "server.txt")


def see(data: Path, asset: str, pictures: Path, log: Path) -> dict[str, Any]:
    """Look at a published city from every place, each in a browser that knows nothing yet."""
    pictures.mkdir(exist_ok=True)
    (parquet,) = (s["path"] for s in stores(data, asset) if s["format"] == "geoparquet")
    result: dict[str, Any] = {}
    with serving(data, log) as origin, browsing() as browser:
        for name, eye in {"home": None, **views_of(data / parquet)}.items():
            with visiting(browser, origin) as visit:
                sight = arrive(visit)
                if eye is not None:
                    sight = look(visit, eye)
                visit.watched.page.screenshot(path=pictures / f"{name.replace(' ', '')}.png")
                trouble = visit.watched.trouble
                nbytes = sum(each for _, each in visit.answers)
            result[name] = {**asdict(sight), "trouble": trouble}
            print(
                f"{name:8} {sight.requests:5} requests {sight.nbytes / 1e6:8.2f} MB "
                f"({nbytes / 1e6:.2f} since opening), last tile after {sight.last_tile_s:6.2f} s, "
                f"drawn {sight.seconds:6.2f} s; on screen {sight.selected} tiles, "
                f"{sight.triangles:,} triangles, errors {sight.errors_m} m; "
                f"{sight.memory_mb:.0f} MB, {sight.frame_ms:.0f} ms a frame; "
                f"{len(trouble)} troubles",
                flush=True,
            )
    return result
