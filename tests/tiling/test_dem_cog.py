"""COGs of heights as GDAL and rio-cogeo see them: pixels, overviews, voids, frame, layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rio_cogeo.cogeo import cog_validate

from tiling.crs import SpatialRef
from tiling.findings import Findings
from tiling.formats import cog
from tiling.stores.directory import DirectoryWriter
from tiling.tilers import dem_cog
from tiling.tilers.base import Run, SilentProgress
from tiling.tilers.dem_cog import CogWriter, Image, base_tiles, overview_parts
from tiling.tilers.pipeline import SerialExecutor, pour

TRANSFORM = (2e-4, 0.0, 113.0, 0.0, -2e-4, 32.0)


def hills(width: int, height: int, voids: bool = True) -> NDArray[np.float32]:
    rng = np.random.default_rng(5)
    x, y = np.arange(width), np.arange(height)
    z = 300 + 80 * np.outer(np.cos(y / 130), np.sin(x / 170)) + rng.normal(0, 2, (height, width))
    pixels = z.astype(np.float32)
    if voids:
        pixels[300:900, 512:1024] = np.nan
        pixels[rng.random(pixels.shape) < 0.1] = np.nan
    return pixels


def write(
    folder: Path, pixels: NDArray[np.float32], dtype: str = "float32", crs: str = "EPSG:4490",
    band: tuple[int, int] = (1024, 512),
) -> Path:  # fmt: skip
    height, width = pixels.shape
    folder.mkdir()
    ref = SpatialRef.parse(crs)
    image = Image(width, height, dtype, ref, TRANSFORM, str(folder / "plane"))
    unused = DirectoryWriter(folder / "tiles")
    run = Run(unused, folder, SerialExecutor(), 1, 1 << 30, SilentProgress(), Findings())
    rim = image.rim(0)
    blocks = []
    for top in range(0, height, band[0]):
        for left in range(0, width, band[1]):
            window = pixels[max(top - rim, 0) : top + band[0], max(left - rim, 0) : left + band[1]]
            blocks += list(base_tiles(image, window, left, top, rim))
    writer = CogWriter(image, folder / "dem.tif")
    for parts in reversed(overview_parts(image, "pieces", run)):
        for part in parts:
            pour(part, writer.put, run.findings)
    for tile in blocks:
        writer.put(tile.key, tile.data)
    writer.commit()
    return folder / "dem.tif"


def gdal_overview(pixels: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    profile: dict[str, Any] = {"count": 1, "dtype": "float32", "nodata": np.nan}
    height, width = pixels.shape
    with rasterio.MemoryFile() as memory:
        with memory.open(driver="GTiff", width=width, height=height, **profile) as sink:
            sink.write(pixels, 1)
            sink.build_overviews([factor], Resampling.average)
        with memory.open(overview_level=0) as source:
            read: NDArray[np.float32] = source.read(1)
            return read


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("size", [(2600, 1400), (2501, 1777), (1025, 4099), (512, 512), (7, 3)])
def test_gdal_reads_the_pixels_and_overviews_of_its_own_kind(
    size: tuple[int, int], tmp_path: Path
) -> None:
    pixels = hills(*size, voids=min(size) > 1024)
    path = write(tmp_path / "高程", pixels)
    assert cog_validate(path, strict=True) == (True, [], [])
    with rasterio.open(path) as made:
        assert tuple(made.transform)[:6] == TRANSFORM
        assert SpatialRef.parse(made.crs.to_wkt()).code == "EPSG:4490"
        assert np.isnan(made.nodata) and made.dtypes == ("float32",)
        np.testing.assert_array_equal(made.read(1), pixels)
        factors = made.overviews(1)
    assert len(factors) == len(Image(*size, "float32", SpatialRef.parse("EPSG:4490"), TRANSFORM,
                                     "").sizes()) - 1  # fmt: skip
    for number, factor in enumerate(factors[:2]):
        with rasterio.open(path, overview_level=number) as made:
            ours = made.read(1)
        theirs = gdal_overview(pixels, factor)
        assert ours.shape == theirs.shape
        # An overview of an overview weighs pixels beside voids otherwise than one of the image.
        if number == 0 or not np.isnan(pixels).any():
            np.testing.assert_array_equal(np.isnan(ours), np.isnan(theirs))
            np.testing.assert_allclose(ours, theirs, atol=2e-3 if number == 0 else 0.7)


def test_pieces_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = hills(2501, 1777)
    whole = write(tmp_path / "a", pixels, band=(2048, 4096)).read_bytes()
    monkeypatch.setattr(dem_cog, "_PIECE", 1024)
    other = write(tmp_path / "b", pixels)
    with rasterio.open(tmp_path / "a" / "dem.tif") as one, rasterio.open(other) as two:
        for number in range(len(one.overviews(1))):
            with (
                rasterio.open(one.name, overview_level=number) as small,
                rasterio.open(two.name, overview_level=number) as alike,
            ):
                np.testing.assert_array_equal(small.read(1), alike.read(1))
        np.testing.assert_array_equal(one.read(1), two.read(1))
    assert len(whole) == len(other.read_bytes())


def test_whole_metres_and_files_beyond_four_gigabytes_and_projected_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.rint(hills(1300, 1100))
    monkeypatch.setattr(cog, "_CLASSIC_NBYTES", 1000)
    path = write(tmp_path / "a", pixels, "int16", "EPSG:4547")
    assert path.read_bytes()[:4] == b"II\x2b\0"
    assert cog_validate(path, strict=True)[0]
    with rasterio.open(path) as made:
        assert made.nodata == -32768 and made.crs.to_epsg() == 4547
        stored = made.read(1)
    np.testing.assert_array_equal(stored, np.where(np.isnan(pixels), -32768, pixels))


def test_blocks_without_data_take_no_room(tmp_path: Path) -> None:
    pixels = np.full((2048, 2048), np.nan, dtype=np.float32)
    pixels[600:610, 700:720] = 5
    path = write(tmp_path / "a", pixels, band=(512, 512))
    assert path.stat().st_size < 20_000
    with rasterio.open(path) as made:
        np.testing.assert_array_equal(made.read(1), pixels)
    with rasterio.open(path, overview_level=1) as small:
        np.testing.assert_array_equal(np.unique(small.read(1)[150:153, 175:180]), [5])
