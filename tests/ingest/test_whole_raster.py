"""A terrain of several groups, and an image of many sheets, leave as one COG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.transform import from_origin
from rio_cogeo.cogeo import cog_validate

from ingest.export import export
from ingest.manifest import IngestOptions
from ingest.run import Resources, ingest
from ingest.workspace import Workspace
from tiling.errors import ConfigError
from tiling.tilers.base import SilentProgress


def raster(
    path: Path, values: NDArray[Any], west: float, north: float, step: float, crs: str
) -> Path:
    bands = values if values.ndim == 3 else values[None]
    with rasterio.open(
        path, "w", driver="GTiff", width=bands.shape[2], height=bands.shape[1], count=len(bands),
        dtype=bands.dtype, crs=crs, transform=from_origin(west, north, step, step),
        **({"photometric": "rgb"} if len(bands) == 3 else {}),
    ) as sink:  # fmt: skip
        sink.write(bands)
    return path


def published(tmp_path: Path, *sources: Path, **options: Any) -> Workspace:
    workspace = Workspace(tmp_path / "数据")
    declared = IngestOptions(sources=sources, id="d", **options)
    ingest(declared, workspace, Resources(workers=1), SilentProgress())
    return workspace


def exported(workspace: Workspace, out: Path) -> Path:
    with workspace.open_catalog() as catalog:
        item, version = catalog.item("d"), catalog.version("d")
    export(
        workspace, item, version, out, "cog", "UTF-8", overwrite=False, progress=SilentProgress()
    )
    return out


def test_a_stack_of_groups_leaves_as_its_surface_at_the_finest_pixels(tmp_path: Path) -> None:
    ramp = np.add.outer(np.zeros(150), np.arange(150.0)).astype(np.float32)
    fine = raster(tmp_path / "a.tif", 100 + ramp, 113.0, 32.0, 1e-4, "EPSG:4490")
    coarse = raster(
        tmp_path / "b.tif", np.full((40, 60), 50, np.float32), 112.99, 32.01, 1e-3, "EPSG:4490"
    )
    workspace = published(tmp_path, fine, coarse, kind="terrain", vertical="EPSG:5737", max_zoom=9)
    path = exported(workspace, tmp_path / "whole.tif")
    assert cog_validate(path, strict=True)[0]
    with rasterio.open(path) as whole:
        np.testing.assert_allclose(whole.bounds, (112.99, 31.97, 113.05, 32.01), atol=1e-9)
        assert whole.res == pytest.approx((1e-4, 1e-4))
        pixels = whole.read(1)
    # In the datum of the first group; away from the seam the pixels are the source's own.
    row, column = 100, 100
    inner = pixels[row + 40 : row + 110, column + 40 : column + 110]
    np.testing.assert_allclose(inner, (100 + ramp)[40:110, 40:110], atol=2e-3)
    assert np.isfinite(pixels).all()
    np.testing.assert_allclose(pixels[:50, :50], 50, atol=2e-3)


def test_sheets_of_an_image_leave_as_their_mosaic_and_frames_that_differ_are_refused(
    tmp_path: Path,
) -> None:
    def colour(*rgb: int) -> NDArray[np.uint8]:
        return np.broadcast_to(np.array(rgb, np.uint8)[:, None, None], (3, 300, 300)).copy()

    west = raster(tmp_path / "a.tif", colour(200, 10, 10), 113.0, 32.0, 1e-5, "EPSG:4490")
    east = raster(tmp_path / "b.tif", colour(10, 200, 10), 113.002, 32.0, 1e-5, "EPSG:4490")
    chosen: dict[str, Any] = {"kind": "imagery", "mosaic": "sheets", "compress": "deflate"}
    workspace = published(tmp_path, west, east, **chosen)
    with rasterio.open(exported(workspace, tmp_path / "whole.tif")) as whole:
        assert (whole.width, whole.height) == (500, 300)
        pixels = whole.read()
    assert pixels[:3, 150, 250].tolist() == pytest.approx([200, 10, 10], abs=4)
    assert pixels[:3, 150, 400].tolist() == pytest.approx([10, 200, 10], abs=4)
    metres = raster(tmp_path / "c.tif", colour(1, 1, 90), 500_000.0, 3_541_000.0, 1.0, "EPSG:4547")
    workspace = published(tmp_path, west, metres, **chosen)
    with pytest.raises(ConfigError, match=r"2 frames.*gdalwarp"):
        exported(workspace, tmp_path / "two.tif")
    assert not (tmp_path / "two.tif").exists()
