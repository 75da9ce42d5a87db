"""Deterministic inputs of the benchmarks, made once into a folder.

Footprints on a 30 m grid, 40 % L-shapes, some with a hole, eleven attributes, five of them Chinese
text; a float32 DEM of smooth hills; an RGB image with the entropy of a photograph.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyogrio
import rasterio
import shapely
from rasterio.io import DatasetWriter
from rasterio.transform import from_origin
from rasterio.windows import Window

from tiling.testing.cities import synthetic_footprints

WEST, NORTH = 113.0, 32.0
_STRIP = 512


def footprints(folder: Path, count: int) -> Path:
    """Make `count` footprints as FlatGeobuf in EPSG:4490."""
    path = folder / f"footprints-{count}.fgb"
    if not path.exists():
        city = synthetic_footprints(count, seed=7, lon=113.38, lat=31.69)
        table = city.attributes.append_column(
            "geometry", pa.array(shapely.to_wkb(city.geometry), type=pa.binary())
        )
        pyogrio.write_arrow(
            table,
            path,
            driver="FlatGeobuf",
            geometry_name="geometry",
            geometry_type="Unknown",
            crs="EPSG:4490",
        )
    return path


def dem(folder: Path, size: int) -> Path:
    """Make a `size`² float32 DEM at 1e-4°, deflated; a strip at a time, so any size will do."""
    path = folder / f"dem-{size}.tif"
    if path.exists():
        return path
    x = np.arange(size, dtype=np.float64)
    rng = np.random.default_rng(11)
    waves = []
    for wave in (2048, 700, 150, 37):
        phase = rng.uniform(0, 6.28, 2)
        waves.append((wave / 16 * np.sin(x / wave * 6 + phase[0]), np.cos(x / wave * 6 + phase[1])))
    part = path.with_suffix(".part.tif")
    profile = {"compress": "deflate", "zlevel": 1, "num_threads": "all_cpus", "nodata": -9999.0}
    with _create(part, (1, size, size), "float32", 1e-4, **profile) as out:
        for top in range(0, size, _STRIP):
            rows = slice(top, min(size, top + _STRIP))
            heights = 300.0 + sum(np.outer(down[rows], across) for down, across in waves)
            heights += rng.normal(0, 0.2, heights.shape)
            window = Window(0, top, size, rows.stop - top)
            out.write(heights.astype(np.float32), 1, window=window)
    part.rename(path)
    return path


def image(folder: Path, size: int) -> Path:
    """Make a `size`² RGB image in EPSG:4490, tiled, uncompressed."""
    path = folder / f"image-{size}.tif"
    if not path.exists():
        rng = np.random.default_rng(13)
        coarse = rng.integers(0, 255, (3, size // 64, size // 64), dtype=np.uint8)
        smooth = coarse.repeat(64, axis=1).repeat(64, axis=2)
        noise = rng.integers(0, 24, smooth.shape, dtype=np.uint8)
        with _create(path, smooth.shape, "uint8", 1e-5, photometric="rgb") as out:
            out.write(np.minimum(smooth, 230) + noise)
    return path


def _create(
    path: Path, shape: tuple[int, int, int], dtype: str, degrees: float, **profile: object
) -> DatasetWriter:
    count, height, width = shape
    return rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=count,
        height=height,
        width=width,
        dtype=dtype,
        crs="EPSG:4490",
        transform=from_origin(WEST, NORTH, degrees, degrees),
        tiled=True,
        blockxsize=512,
        blockysize=512,
        bigtiff="if_safer",
        **profile,
    )
