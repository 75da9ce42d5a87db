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
from rasterio.transform import from_origin

from tiling.testing.cities import synthetic_footprints

WEST, NORTH = 113.0, 32.0


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
    """Make a `size`² float32 DEM at 1e-4°, deflated."""
    path = folder / f"dem-{size}.tif"
    if not path.exists():
        x = np.arange(size, dtype=np.float64)
        rng = np.random.default_rng(11)
        heights = np.full((size, size), 300.0)
        for wave in (2048, 700, 150, 37):
            phase = rng.uniform(0, 6.28, 2)
            angle = x / wave * 6
            heights += wave / 16 * np.outer(np.sin(angle + phase[0]), np.cos(angle + phase[1]))
        heights += rng.normal(0, 0.2, heights.shape)
        _write(path, heights.astype(np.float32)[None], 1e-4, compress="deflate", nodata=-9999.0)
    return path


def image(folder: Path, size: int) -> Path:
    """Make a `size`² RGB image in EPSG:4490, tiled, uncompressed."""
    path = folder / f"image-{size}.tif"
    if not path.exists():
        rng = np.random.default_rng(13)
        coarse = rng.integers(0, 255, (3, size // 64, size // 64), dtype=np.uint8)
        smooth = coarse.repeat(64, axis=1).repeat(64, axis=2)
        noise = rng.integers(0, 24, smooth.shape, dtype=np.uint8)
        _write(path, np.minimum(smooth, 230) + noise, 1e-5, photometric="rgb")
    return path


def _write(path: Path, values: np.ndarray, degrees: float, **profile: object) -> None:
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=len(values),
        height=values.shape[1],
        width=values.shape[2],
        dtype=values.dtype,
        crs="EPSG:4490",
        transform=from_origin(WEST, NORTH, degrees, degrees),
        tiled=True,
        blockxsize=512,
        blockysize=512,
        **profile,
    ) as dataset:
        dataset.write(values)
