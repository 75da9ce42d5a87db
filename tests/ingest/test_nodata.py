"""Nodata that files do not declare, or declare wrongly: said by the user, suspected on evidence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio import Affine

from ingest.dem_pixels import Cleaning
from ingest.manifest import IngestOptions, read_manifest
from ingest.plan import make_plan
from ingest.zero_land import ZeroLand
from tests.commands import Command
from tests.ingest.test_dem import at, plan, sheet, stack
from tiling.errors import ConfigError, RasterUnsupported

Array = NDArray[Any]
DATA = Path(__file__).parent.parent / "data"


def rules(folder: Path, *sources: Path, **options: Any) -> set[str]:
    _, findings = stack(folder, plan(*sources, **options).groups)
    return {finding.rule for finding in findings}


def land(low: float, high: float, side: int = 200) -> NDArray[np.float32]:
    y, x = np.mgrid[:side, :side]
    waves = (np.sin(x / 9) * np.cos(y / 11) + 1) / 2
    return (low + (high - low) * waves).astype(np.float32)


def collar(values: Array, width: int = 40) -> Array:
    """Set a rim to 0, as a rotated sheet leaves it."""
    framed = np.zeros_like(values)
    framed[width:-width, width:-width] = values[width:-width, width:-width]
    return framed


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
@pytest.mark.parametrize("stated", [None, -9999])
def test_declared_nodata_is_void_whatever_the_file_says(
    dtype: Any, stated: float | None, tmp_path: Path
) -> None:
    values = collar(land(80, 120)).astype(dtype)
    file = sheet(tmp_path / "a.tif", values, nodata=stated)
    source, findings = stack(tmp_path / "job", plan(file, nodata=0.0).groups, Cleaning(0))
    assert np.isnan(at(source, 113.001, 31.999))
    assert 80 <= at(source, 113.01, 31.99) <= 120
    void = {f.rule: f.count for f in findings}["raster-nodata"]
    assert void == np.count_nonzero(values == 0)


def test_a_wrong_nodata_of_the_file_becomes_land_again(tmp_path: Path) -> None:
    file = sheet(tmp_path / "a.tif", collar(land(-5, 5)), nodata=0)
    before, _ = stack(tmp_path / "one", plan(file).groups, Cleaning(0))
    after, _ = stack(tmp_path / "two", plan(file, nodata=-32768.0).groups, Cleaning(0))
    assert np.isnan(at(before, 113.001, 31.999)) and at(after, 113.001, 31.999) == 0


def test_the_plan_says_that_nodata_is_declared_and_of_how_many_sheets(tmp_path: Path) -> None:
    file = sheet(tmp_path / "a.tif", collar(land(80, 120)))
    found = {f.rule: f for f in plan(file, nodata=0.0).findings}
    assert found["nodata-declared"].count == 1 and "0" in found["nodata-declared"].message


def test_a_manifest_declares_nodata_of_single_rasters(tmp_path: Path) -> None:
    sheet(tmp_path / "a.tif", collar(land(80, 120)))
    sheet(tmp_path / "b.tif", np.zeros((200, 200), np.float32), 113.03)
    manifest = tmp_path / "m.toml"
    manifest.write_text(
        'id = "d"\nkind = "terrain"\nvertical = "ellipsoidal"\n'
        '[[rasters]]\nsource = "a.tif"\nnodata = 0\n[[rasters]]\nsource = "b.tif"\n',
        encoding="utf-8",
    )
    made = make_plan(IngestOptions(**read_manifest(manifest)))
    source, _ = stack(tmp_path / "job", made.groups, Cleaning(0))
    assert np.isnan(at(source, 113.001, 31.999)) and at(source, 113.031, 31.999) == 0
    manifest.write_text('id = "d"\nnodata = "0"\n', encoding="utf-8")
    with pytest.raises(ConfigError, match="nodata = '0' is not a number"):
        read_manifest(manifest)


@pytest.mark.parametrize("value", [0.5, -1.0, 256.0, float("nan")])
def test_a_value_that_pixels_cannot_have_is_refused(value: float, tmp_path: Path) -> None:
    file = sheet(tmp_path / "a.tif", np.ones((20, 20), np.uint8))
    with pytest.raises(RasterUnsupported, match="uint8") as caught:
        plan(file, nodata=value)
    assert "0 to 255" in caught.value.remedy


def test_a_mask_and_a_declared_value_contradict_each_other() -> None:
    with pytest.raises(RasterUnsupported, match="alpha band"):
        make_plan(
            IngestOptions(
                sources=(DATA / "raster" / "alpha.tif",),
                id="a", kind="imagery", area="world", nodata=0.0,
            )
        )  # fmt: skip


def test_nodata_is_of_rasters_alone() -> None:
    with pytest.raises(ConfigError, match="--nodata is of rasters"):
        make_plan(IngestOptions(sources=(DATA / "wuhan_buildings.geojson",), id="b", nodata=0.0))


@pytest.mark.parametrize("apart", ["join", "sheets"])
def test_declared_nodata_of_an_image_is_transparent(
    apart: str, cim_here: Command, tmp_path: Path
) -> None:
    folder = tmp_path / "sheets"
    folder.mkdir()
    for number in range(2):
        pixels = np.full((3, 64, 64), 90 + number, np.uint8)
        pixels[:, :, :20] = 255
        with rasterio.open(
            folder / f"{number}.tif", "w", driver="GTiff", width=64, height=64, count=3,
            dtype="uint8", crs="EPSG:4490", photometric="RGB",
            transform=Affine(0.001, 0, 113 + 0.064 * number, 0, -0.001, 32),
        ) as sink:  # fmt: skip
            sink.write(pixels)
    data = tmp_path / "data"
    options = ["--kind", "imagery", "--mosaic", apart, "--nodata", "255", "--data", data]
    done = cim_here("ingest", folder, "--id", "i", *options)
    assert done.code == 0, done.err
    asset = next(a for a in json.loads(cim_here("list", "--data", data, "--json").out))
    cogs = [s["path"] for s in asset["versions"][-1]["stores"] if s["format"] == "cog"]
    absent = seen = 0
    for path in cogs:
        with rasterio.open(data / path) as cog:
            mask = cog.dataset_mask()
            if cog.width in (64, 128):
                absent += int((mask == 0).sum())
                seen += mask.size
    assert (absent, seen) == (2 * 20 * 64, 2 * 64 * 64)


def test_zeros_behind_a_cliff_are_reported_with_the_remedy_and_kept(tmp_path: Path) -> None:
    file = sheet(tmp_path / "a.tif", collar(land(80, 120)))
    source, findings = stack(tmp_path / "job", plan(file).groups)
    found = {f.rule: f for f in findings}["zero-land"]
    assert found.severity == "warning" and "--nodata 0" in found.message
    assert found.count == 200 * 200 - 120 * 120
    assert at(source, 113.001, 31.999) == 0
    assert "zero-land" not in rules(tmp_path / "said", file, nodata=0.0)


def test_the_sea_has_a_shore_and_is_not_suspected(tmp_path: Path) -> None:
    y, x = np.mgrid[:200, :200]
    for name, slope in (("gentle", 0.02), ("steep", 0.6)):
        # Pixels of 11 m; the shore winds.
        inland = (x - 80 - 15 * np.sin(y / 13)) * 11 * slope
        values = np.where(inland > 0, inland, 0).astype(np.float32)
        assert "zero-land" not in rules(tmp_path / name, sheet(tmp_path / f"{name}.tif", values))


@pytest.mark.parametrize(
    "values",
    [
        np.zeros((100, 100), np.float32),
        land(-3, 3).round(),
        np.where(np.indices((200, 200)).sum(axis=0) % 9 == 0, 0, land(80, 120)),
    ],
    ids=["nothing but sea", "land around 0", "zeros strewn"],
)
def test_other_zeros_are_not_suspected(values: Array, tmp_path: Path) -> None:
    assert "zero-land" not in rules(tmp_path / "job", sheet(tmp_path / "a.tif", values))


def test_counts_of_windows_add_up_to_those_of_the_whole() -> None:
    values = np.full((101, 131), np.nan, np.float32)
    values[:100, :130] = collar(land(5, 60, 130)[:100], 30)
    values[10, 10:40] = np.nan
    whole, parts = ZeroLand(), ZeroLand()
    whole.count(values, 1.0)
    for top in range(0, 100, 32):
        for left in range(0, 130, 48):
            part = ZeroLand()
            part.count(values[top : min(top + 32, 100) + 1, left : min(left + 48, 130) + 1], 1.0)
            parts.add(part)
    assert parts == whole
    pairs = 0
    for j, i in np.argwhere(values == 0).tolist():
        beside = (values[j, i - 1 : i], values[j, i + 1 : i + 2])
        along = (values[j - 1 : j, i], values[j + 1 : j + 2, i])
        pairs += sum(int((np.abs(v) > 0).any()) for v in (*beside, *along))
    assert whole.shores == pairs > 0 and whole.zeros == np.count_nonzero(values == 0)
