"""White-model buildings beside their rivals: speed, memory, bytes, updates."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import city, rivals
from benchmarks.bench import Bench, Contestant, ingest
from benchmarks.published import CIM, cim_json, stores, tileset_paths, weigh

OPTIONS = ("--kind", "buildings", "--vertical", "EPSG:5737", "--key", city.CODE)
SIZES = (10_000, 100_000, 1_000_000)
# py3dtiles looks through all buildings for every tile, so this size flatters it.
RIVAL_SIZE = 10_000


def buildings(bench: Bench) -> dict[str, Any]:
    """Ten thousand, a hundred thousand and a million footprints; rivals at ten thousand."""
    start_up = _start_up(bench)
    result: dict[str, Any] = {"start_up": start_up, "sizes": {}}
    for full in SIZES:
        count = bench.count(full)
        source = city.footprints(bench.folder, count)
        contestants: dict[str, Contestant] = {"cim": partial(_ingested, source)}
        if full == RIVAL_SIZE:
            contestants |= rivals.solids_to_tiles(bench.folder, count)
        figures = bench.in_turn(f"city-{count}", contestants)
        for row in figures.values():
            if "failed" not in row:
                row["per_s"] = round(count / row["wall_s"])
                row["per_core_s"] = round(count / row["cpu_s"])
        ours = figures["cim"]
        ours["per_core_s_without_start"] = round(count / (ours["cpu_s"] - start_up["cpu_s"]))
        # The last run of `in_turn` was a rival's where there are any.
        data = bench.data("weighed")
        bench.run(f"city-{count} again, to be weighed", ingest(source, "city", OPTIONS, data))
        result["sizes"][str(count)] = {"figures": figures, "weights": _weights(data, count)}
    rate = [v["figures"]["cim"]["per_core_s"] for v in result["sizes"].values()]
    bare = [v["figures"]["cim"]["per_core_s_without_start"] for v in result["sizes"].values()]
    result["linearity"] = {
        "per_core": round(max(rate) / min(rate), 2),
        "per_core_without_start": round(max(bare) / min(bare), 2),
    }
    print(json.dumps(result["linearity"]), flush=True)
    return result


def buildings_memory(bench: Bench) -> dict[str, Any]:
    """One and three million within ``--memory 1GB``."""
    result: dict[str, Any] = {}
    for full in (1_000_000, 3_000_000):
        count = bench.count(full)
        source = city.footprints(bench.folder, count)
        options = (*OPTIONS, "--memory", "1GB")
        data = bench.data("memory")
        figures = bench.run(f"{count} in 1 GB", ingest(source, "city", options, data))
        result[str(count)] = asdict(figures)
        shutil.rmtree(data)
    return result


def buildings_natural(bench: Bench) -> dict[str, Any]:
    """A million in towns of natural density, with more corners."""
    count = bench.count(1_000_000)
    source = city.footprints(bench.folder, count, "natural")
    data = bench.data("natural")
    figures = bench.run(f"natural city of {count}", ingest(source, "city", OPTIONS, data))
    return {"figures": asdict(figures), "weights": _weights(data, count)}


def buildings_update(bench: Bench) -> dict[str, Any]:
    """A hundred changed buildings in a million: neighbours, then scattered; rolled back between."""
    count = bench.count(1_000_000)
    source = city.footprints(bench.folder, count)
    data = bench.data("update")
    result: dict[str, Any] = {
        "whole": asdict(bench.run("update: the city", ingest(source, "city", OPTIONS, data)))
    }
    for name, rows in (
        ("block", city.block(count, 100)),
        ("scattered", city.scattered(count, 100)),
    ):
        changes = bench.folder / f"changes-{name}-{count}.fgb"
        changes.unlink(missing_ok=True)
        city.write(changes, iter([rows]))
        command: list[str | Path] = [
            CIM,
            "ingest",
            changes,
            "--id",
            "city",
            "--update",
            "--data",
            data,
        ]
        runs = []
        for _ in range(bench.runs):
            runs.append(asdict(bench.run(f"update: {name}", command)))
            runs[-1]["written_nbytes"] = _newest_nbytes(data)
            assert cim_json("check", "city", "--data", data)["findings"] == []
            cim_json("rollback", "city", "1", "--data", data)
        result[name] = sorted(runs, key=lambda run: run["wall_s"])[len(runs) // 2]
    return result


def _ingested(source: Path, out: Path) -> list[str | Path]:
    return ingest(source, "city", OPTIONS, out)


def _start_up(bench: Bench) -> dict[str, Any]:
    """Return what a run costs whatever it is given; compiled kernels are cached by the first."""
    source = city.footprints(bench.folder, 100)
    bench.run("a hundred, first run", ingest(source, "few", OPTIONS, bench.data("few")))
    figures = [
        asdict(bench.run("a hundred", ingest(source, "few", OPTIONS, bench.data("few"))))
        for _ in range(3)
    ]
    return sorted(figures, key=lambda each: each["cpu_s"])[1]


def _weights(data: Path, count: int) -> dict[str, Any]:
    started = time.perf_counter()
    weights = weigh(tileset_paths(data, "city"))
    assert weights.features == count, f"{weights.features} buildings at full detail, not {count}"
    nbytes = {s["format"]: s["bytes"] for s in stores(data, "city")}
    result = {
        **asdict(weights),
        "leaf_bytes_per_building": round(weights.leaf_nbytes / count, 1),
        "tileset_bytes_per_building": round(nbytes["3tz"] / count, 1),
        "store_nbytes": nbytes,
    }
    print(
        f"  {result['leaf_bytes_per_building']} B a building at full detail, "
        f"{result['tileset_bytes_per_building']} in the tileset; {weights.leaves} of "
        f"{weights.tiles} tiles are leaves; first view {weights.first_view_nbytes / 1000:.0f} kB "
        f"({time.perf_counter() - started:.0f} s to read)",
        flush=True,
    )
    return result


def _newest_nbytes(data: Path) -> int:
    shown = cim_json("show", "city", "--data", data)
    versions = {v["version"]: v["stores"] for v in shown["versions"]}
    before = {s["sha256"] for s in versions[1]}
    return sum(s["bytes"] for s in versions[shown["current"]] if s["sha256"] not in before)
