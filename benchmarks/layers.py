"""Terrain, imagery and vector tiles beside their rivals."""

from __future__ import annotations

from typing import Any

from benchmarks import inputs, rivals
from benchmarks.bench import Bench, Contestant, ingest


def terrain(bench: Bench) -> dict[str, Any]:
    """A float32 DEM to quantized-mesh of all levels."""
    source = inputs.dem(bench.folder, bench.count(2048))
    options = ["--kind", "terrain", "--vertical", "EPSG:5737"]
    contestants: dict[str, Contestant] = {
        "cim": lambda out: ingest(source, "dem", options, out),
        "pydelatin": lambda out: rivals.delatin(source, out),
    }
    return bench.in_turn("terrain", contestants)


def imagery(bench: Bench) -> dict[str, Any]:
    """An RGB image to a JPEG COG."""
    source = inputs.image(bench.folder, bench.count(16_384))
    contestants: dict[str, Contestant] = {
        "cim": lambda out: ingest(source, "image", ["--kind", "imagery"], out),
        "GDAL COG driver": lambda out: rivals.gdal_cog(source, out),
        "rio cogeo": lambda out: rivals.rio_cogeo(source, out),
    }
    return bench.in_turn("imagery", contestants)


def vector(bench: Bench) -> dict[str, Any]:
    """Footprints to vector tiles of zooms 13 to 16, every one kept."""
    source = inputs.footprints(bench.folder, bench.count(100_000))
    options = ["--kind", "vector", "--min-zoom", "13", "--max-zoom", "16"]
    contestants: dict[str, Contestant] = {
        "cim": lambda out: ingest(source, "footprints", options, out),
        "tippecanoe": lambda out: rivals.tippecanoe(source, out),
        "GDAL MVT driver": lambda out: rivals.gdal_mvt(source, out),
    }
    return bench.in_turn("vector", contestants)
