"""Elevation models of many sheets: grouped, cleaned, stored and laid over each other."""

from __future__ import annotations

import json
import resource
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio import Affine

from ingest import dem_pixels, dem_rasters
from ingest.dem_groups import DemGroup
from ingest.dem_pixels import Cleaning
from ingest.dem_rasters import make_stack
from ingest.manifest import IngestOptions, merge_options, read_manifest
from ingest.plan import Plan, make_plan
from tests.commands import Command
from tiling.crs import TILE_REF, SpatialRef, transform_points
from tiling.dem import DemStack
from tiling.errors import (
    ConfigError,
    NothingToTile,
    RasterUnsupported,
    SourceError,
    SourceUnreadable,
)
from tiling.findings import Findings
from tiling.stores.directory import DirectoryWriter
from tiling.tilers.base import Run, SilentProgress
from tiling.tilers.pipeline import SerialExecutor

Array = NDArray[Any]
BAD = Path(__file__).parent.parent / "data" / "bad" / "raster"


def sheet(
    path: Path,
    values: Array,
    x: float = 113.0,
    y: float = 32.0,
    step: float = 0.0001,
    crs: str = "EPSG:4490",
    date: str = "",
    **options: Any,
) -> Path:
    tags = {k: options.pop(k) for k in ("scales", "offsets", "units") if k in options}
    with rasterio.open(
        path,
        "w",
        driver=options.pop("driver", "GTiff"),
        width=values.shape[1],
        height=values.shape[0],
        count=1,
        dtype=values.dtype,
        crs=crs,
        transform=Affine(step, 0, x, 0, -step, y),
        **options,
    ) as sink:
        sink.write(values, 1)
        for name, value in tags.items():
            setattr(sink, name, [value])
        if date:
            sink.update_tags(TIFFTAG_DATETIME=f"{date.replace('-', ':')} 12:00:00")
    return path


def plan(*sources: Path, **options: Any) -> Plan:
    options.setdefault("vertical", "ellipsoidal")
    made = make_plan(IngestOptions(sources=sources, id="d", kind="terrain", **options))
    if made.refusal is not None:
        raise made.refusal
    return made


def stack(
    folder: Path,
    groups: tuple[DemGroup, ...],
    cleaning: Cleaning = Cleaning(),  # noqa: B008
) -> tuple[DemStack, Findings]:
    findings = Findings()
    folder.mkdir(exist_ok=True)
    unused = DirectoryWriter(folder.with_name(f"{folder.name}-tiles"))
    run = Run(unused, folder, SerialExecutor(), 1, 1 << 30, SilentProgress(), findings)
    return make_stack(groups, cleaning, run), findings


def at(source: DemStack, lon: float, lat: float) -> float:
    return float(source.sample(np.array([lon]), np.array([lat]))[0])


def flat(height: float, side: int = 100, dtype: Any = np.float32) -> Array:
    return np.full((side, side), height, dtype)


def test_sheets_of_one_grid_and_datum_are_one_raster_and_others_lie_below_by_their_pixels(
    tmp_path: Path,
) -> None:
    x, y, _ = transform_points(TILE_REF, SpatialRef.parse("EPSG:4547"), [113.0], [32.01])
    coarse = sheet(tmp_path / "a.tif", flat(30), 112.99, 32.02, 0.001)
    metres = sheet(tmp_path / "b.tif", flat(20), x[0], y[0], 20.0, "EPSG:4547")
    west = sheet(tmp_path / "c.tif", flat(10))
    east = sheet(tmp_path / "d.tif", flat(11), 113.01)
    made = plan(coarse, metres, west, east)
    assert [len(g.placed) for g in made.groups] == [2, 1, 1]
    assert [round(g.pixel_m) for g in made.groups] == [11, 20, 111]
    assert made.groups[0].width == 200 and made.groups[0].height == 100
    source, _ = stack(tmp_path / "job", made.groups)
    assert [at(source, *p) for p in ((113.005, 31.995), (113.015, 31.995))] == [10, 11]
    assert at(source, 113.012, 32.005) == 20 and at(source, 113.06, 31.95) == 30
    assert len(source.coverage) == 4


def test_of_equal_pixels_the_newer_sheets_win_and_the_declared_order_wins_over_both(
    tmp_path: Path,
) -> None:
    old = sheet(tmp_path / "a.tif", flat(1), date="2015-03-01")
    new = sheet(tmp_path / "b.tif", flat(2), date="2021-07-31")
    other = sheet(tmp_path / "c.tif", flat(3), 113.00003, 32.00003, date="2023-01-02")
    made = plan(old, new, other)
    assert [g.date for g in made.groups] == ["2023-01-02", "2021-07-31"]
    assert [p.sheet.name for p in made.groups[1].placed] == [str(new), str(old)]
    assert at(stack(tmp_path / "1", made.groups)[0], 113.005, 31.995) == 3
    assert "newer" in next(f.message for f in made.findings if f.rule == "dem-groups")
    given = plan(old, new, other, order="given")
    assert at(stack(tmp_path / "2", given.groups)[0], 113.005, 31.995) == 1
    assert "as given" in next(f.message for f in given.findings if f.rule == "dem-groups")


def test_a_manifest_declares_frame_datum_and_date_of_each_raster(tmp_path: Path) -> None:
    sheet(tmp_path / "新.tif", flat(68.9), crs=None)
    sheet(tmp_path / "旧.tif", flat(50.0, 300), 112.99, 32.01)
    (tmp_path / "m.toml").write_text(
        """id = "高程"
kind = "terrain"
vertical = "ellipsoidal"
[[rasters]]
source = "新.tif"
crs = "EPSG:4490"
vertical = "offset:-18.9"
date = 2024-05-01
[[rasters]]
source = "旧.tif"
""",
        encoding="utf-8",
    )
    made = make_plan(merge_options({}, read_manifest(tmp_path / "m.toml")))
    assert made.refusal is None and len(made.groups) == 2
    assert made.groups[0].date == "2024-05-01"
    assert made.groups[0].ref.code == "EPSG:4490+offset:-18.9"
    source, _ = stack(tmp_path / "job", made.groups)
    assert at(source, 113.005, 31.995) == pytest.approx(50.0, abs=1e-5)
    (tmp_path / "m.toml").write_text('[[rasters]]\nsource = "a.tif"\ndate = "gestern"\n')
    with pytest.raises(ConfigError, match="no date|not a date"):
        read_manifest(tmp_path / "m.toml")


def test_folders_and_zips_of_sheets_and_single_files_make_one_terrain(tmp_path: Path) -> None:
    folder = tmp_path / "图幅"
    folder.mkdir()
    sheet(folder / "1.tif", flat(1))
    sheet(folder / "2.img", flat(2), 113.01, driver="HFA")
    packed = [sheet(tmp_path / f"{n}.tif", flat(n), 113 + (n - 1) / 100) for n in (3, 4)]
    with zipfile.ZipFile(tmp_path / "成果.zip", "w") as archive:
        for path in packed:
            archive.write(path, f"成果/{path.name}")
            path.unlink()
    last = sheet(tmp_path / "5.tif", flat(5), 113.04)
    made = plan(folder, tmp_path / "成果.zip", last)
    source, _ = stack(tmp_path / "job", made.groups)
    assert len(source.layers) == 1
    lon = 113.005 + np.arange(5) / 100
    np.testing.assert_array_equal(source.sample(lon, np.full(5, 31.995)), [1, 2, 3, 4, 5])


def test_units_scales_and_nodata_of_sheets_in_one_raster_may_differ(tmp_path: Path) -> None:
    a = sheet(tmp_path / "a.tif", flat(1000, dtype=np.int16), scales=0.1, offsets=5.0)
    feet = flat(100)
    feet[:50] = -1
    b = sheet(tmp_path / "b.tif", feet, 113.01, units="ft", nodata=-1)
    c = sheet(tmp_path / "c.tif", flat(7, dtype=np.float64), 113.02)
    source, findings = stack(tmp_path / "job", plan(a, b, c).groups)
    found = source.sample(np.array([113.005, 113.015, 113.015, 113.025]), np.full(4, 31.993))
    np.testing.assert_allclose(found, [105, 30.48, 30.48, 7], rtol=1e-6)
    assert np.isnan(at(source, 113.015, 31.998))
    rules = {f.rule: f.count for f in findings}
    assert rules["heights-scaled"] == rules["heights-converted"] == rules["heights-float32"] == 1
    assert rules["raster-nodata"] == 5000
    with rasterio.open(source.layers[0].path) as cog:
        assert cog.scales == (1.0,) and cog.dtypes == ("float32",)


def test_whole_metres_stay_16_bit(tmp_path: Path) -> None:
    z = flat(50, 1300, np.int16)
    z[:600, :600] = -9999
    source, _ = stack(
        tmp_path / "job", plan(sheet(tmp_path / "a.tif", z, nodata=-9999, step=0.00001)).groups
    )
    with rasterio.open(source.layers[0].path) as cog:
        assert cog.dtypes == ("int16",) and cog.nodata == -32768
        assert cog.overviews(1) == [2, 4]
        # Averages ignore voids.
        assert set(np.unique(cog.read(1, out_shape=(325, 325)))) == {-32768, 50}


def test_small_voids_are_interpolated_and_large_ones_are_reported(tmp_path: Path) -> None:
    row, column = np.mgrid[0:300, 0:300]
    z = (100 + row + 2 * column).astype(np.float32)
    true = z.copy()
    z[50:55, 50:55] = np.nan
    z[:, 200] = np.nan
    z[150:250, 50:150] = np.nan
    path = sheet(tmp_path / "a.tif", z, nodata=np.nan)
    source, findings = stack(tmp_path / "job", plan(path).groups, Cleaning(8))
    with rasterio.open(source.layers[0].path) as cog:
        stored = cog.read(1)
    assert np.isfinite(stored[50:55, 50:55]).all() and np.isfinite(stored[1:-1, 200]).all()
    np.testing.assert_allclose(stored[50:55, 50:55], true[50:55, 50:55], atol=4)
    np.testing.assert_allclose(stored[20:-20, 200], true[20:-20, 200], atol=2)
    assert np.isnan(stored[158:242, 58:142]).all()
    np.testing.assert_array_equal(stored[np.isfinite(z)], z[np.isfinite(z)])
    by_rule = {f.rule: f for f in findings}
    assert by_rule["void-filled"].severity == "repair"
    boxes = by_rule["dem-void"].samples
    west, south, east, north = boxes[0]
    assert 113.004 < west < 113.007 < 113.013 < east < 113.016
    none, findings = stack(tmp_path / "none", plan(path, fill_voids=0).groups, Cleaning(0))
    with rasterio.open(none.layers[0].path) as cog:
        np.testing.assert_array_equal(cog.read(1), z)
    assert "void-filled" not in {f.rule for f in findings}


def test_voids_that_a_coarser_group_knows_are_left_to_it(tmp_path: Path) -> None:
    z = flat(100, 400)
    z[198:202, 198:202] = np.nan
    z[50:54, 50:54] = np.nan
    fine = sheet(tmp_path / "a.tif", z, nodata=np.nan)
    below = flat(90, 60)
    below[:20] = np.nan
    coarse = sheet(tmp_path / "b.tif", below, 112.99, 32.005, 0.001, nodata=np.nan)
    source, findings = stack(tmp_path / "job", plan(fine, coarse).groups)
    with rasterio.open(source.layers[0].path) as cog:
        stored = cog.read(1)
    assert np.isnan(stored[198:202, 198:202]).all() and (stored[50:54, 50:54] == 100).all()
    assert at(source, 113.02, 31.98) == 90 and at(source, 113.0052, 31.9948) == 100
    assert "dem-seams" in {f.rule for f in findings}


def test_spikes_and_pits_are_found_and_walls_and_cliffs_are_not(tmp_path: Path) -> None:
    z = flat(100, 200)
    z[20, 20], z[60, 60], z[61, 60] = 900, -50, -52
    z[100:120, 100:120] = 160  # a tower, with corners
    z[150:] = 300  # a cliff
    path = sheet(tmp_path / "a.tif", z)
    source, findings = stack(tmp_path / "job", plan(path).groups)
    spikes = next(f for f in findings if f.rule == "spike")
    assert (spikes.count, spikes.severity) == (3, "warning")
    assert [113.00205, 31.99795, 900.0] in list(map(list, spikes.samples))
    assert at(source, 113.00205, 31.99795) == pytest.approx(900)
    clean, findings = stack(tmp_path / "clean", plan(path).groups, Cleaning(despike=True))
    assert next(f for f in findings if f.rule == "spike").severity == "repair"
    with rasterio.open(clean.layers[0].path) as cog:
        stored = cog.read(1)
    assert (stored[20, 20], stored[60, 60], stored[61, 60]) == (100, 100, 100)
    np.testing.assert_array_equal(stored[90:], z[90:])


def test_windows_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(3)
    z = (random.random((1200, 1300)) * 20 + 100).astype(np.float32)
    z[random.random(z.shape) < 0.2] = np.nan
    z[random.random(z.shape) < 0.001] = 2000
    z[300:700, 400:800] = np.nan
    groups = plan(sheet(tmp_path / "a.tif", z, nodata=np.nan)).groups
    cleaning = Cleaning(5, True)
    stored = []
    for name, rows, columns, chunk in (("一", 2048, 4096, 4096), ("二", 512, 512, 512)):
        monkeypatch.setattr(dem_pixels, "BAND_ROWS", rows)
        monkeypatch.setattr(dem_pixels, "BAND_COLUMNS", columns)
        monkeypatch.setattr(dem_pixels, "CHUNK_COLUMNS", chunk)
        source, _ = stack(tmp_path / name, groups, cleaning)
        with rasterio.open(source.layers[0].path) as cog:
            stored.append([cog.read(1).tobytes()])
        with rasterio.open(source.layers[0].path, overview_level=1) as cog:
            stored[-1].append(cog.read(1).tobytes())
    assert stored[0] == stored[1]


def test_what_is_finished_is_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fine = sheet(tmp_path / "a.tif", flat(1))
    coarse = sheet(tmp_path / "b.tif", flat(2), 112.9, 32.1, 0.01)
    groups = plan(fine, coarse).groups
    whole, expected = stack(tmp_path / "whole", groups)
    real = dem_rasters.CogWriter
    calls: list[Path] = []

    def killed(image: Any, part: Path) -> Any:
        calls.append(part)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(image, part)

    monkeypatch.setattr(dem_rasters, "CogWriter", killed)
    with pytest.raises(KeyboardInterrupt):
        stack(tmp_path / "job", groups)
    again, findings = stack(tmp_path / "job", groups)
    assert len(calls) == 3
    assert findings.to_json() == expected.to_json()
    for one, two in zip(whole.layers, again.layers, strict=True):
        assert Path(one.path).read_bytes() == Path(two.path).read_bytes()
    names = sorted(p.name for p in (tmp_path / "job").iterdir())
    assert names == ["dem-000.json", "dem-000.tif", "dem-001.json", "dem-001.tif"]


def test_a_thousand_sheets_are_one_raster_and_few_files_are_open(tmp_path: Path) -> None:
    folder = tmp_path / "sheets"
    folder.mkdir()
    for k in range(1000):
        i, j = k % 40, k // 40
        sheet(folder / f"{k:04d}.tif", flat(k, 8), 113 + i * 0.0008, 32 - j * 0.0008)
    made = plan(folder)
    assert len(made.groups) == 1 and len(made.groups[0].placed) == 1000
    np.testing.assert_allclose(made.groups[0].coverage(), [(113.0, 31.98, 113.032, 32.0)])
    source, _ = stack(tmp_path / "job", made.groups)
    assert at(source, 113.0004, 31.9996) == 0 and at(source, 113.0316, 31.9804) == 999


def test_what_is_no_elevation_is_refused_by_name(tmp_path: Path) -> None:
    good = sheet(tmp_path / "好.tif", flat(5))
    lost = flat(50)
    lost[3, 4] = -9999
    bad = sheet(tmp_path / "坏.tif", lost, 113.01)
    with pytest.raises(RasterUnsupported, match="-9999") as caught:
        stack(tmp_path / "1", plan(good, bad).groups)
    assert str(caught.value.source).endswith("坏.tif") and "--nodata" in caught.value.remedy
    empty = sheet(tmp_path / "空.tif", flat(0), nodata=0)
    with pytest.raises(NothingToTile, match="all 10000 pixels"):
        stack(tmp_path / "2", plan(empty).groups)
    source, _ = stack(tmp_path / "3", plan(good, empty).groups)
    assert at(source, 113.005, 31.995) == 5
    rough = sheet(tmp_path / "半.tif", np.random.default_rng(0).random((300, 300)).astype("f4"))
    rough.write_bytes(rough.read_bytes()[:200_000])
    with pytest.raises(SourceUnreadable, match="truncated") as unreadable:
        stack(tmp_path / "4", plan(rough).groups)
    assert str(unreadable.value.source).endswith("半.tif")
    with pytest.raises(RasterUnsupported, match="fathom"):
        plan(sheet(tmp_path / "a.tif", flat(1), units="fathom"))


def test_the_command_makes_a_terrain_of_two_rasters_and_keeps_both(
    cim_here: Command, tmp_path: Path
) -> None:
    fine = sheet(tmp_path / "细.tif", flat(80, 200), 113.01, 31.99)
    coarse = sheet(tmp_path / "粗.tif", flat(90, 100, np.int16), 113.0, 32.0, 0.0005)
    options = ["--id", "地形", "--kind", "terrain", "--vertical", "EPSG:5737"]
    data = ["--data", tmp_path / "data"]
    shown = cim_here("plan", fine, coarse, *options, *data, "--json")
    assert shown.code == 0, shown.err
    assert [g["pixel_m"] for g in shown.json()["groups"]] == pytest.approx([11.1, 55.6], rel=0.01)
    made = cim_here("ingest", fine, coarse, *options, *data, "--json")
    assert made.code == 0, made.err
    stores = [s for s in made.json()["result"]["stores"] if s["role"] == "data"]
    assert len(stores) == 2
    paths = [tmp_path / "data" / s["path"] for s in stores]
    with rasterio.open(paths[0]) as first, rasterio.open(paths[1]) as second:
        assert (first.dtypes, second.dtypes) == (("float32",), ("int16",))
    assert "dem-groups" in json.dumps(made.json()["findings"])


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("byte_truncated.tif", SourceUnreadable, "Read error"),
        ("corrupted_deflate_singlestrip.tif", RasterUnsupported, "no geotransform"),
        ("excessive-memory-TIFFFillTile.tif", SourceUnreadable, "Too large tile byte count"),
        ("huge4GB.tif", RasterUnsupported, "no geotransform"),
        ("image_width_above_32bit.tif", SourceUnreadable, "2147483648"),
        ("toomanyblocks.tif", SourceUnreadable, "60000"),
        ("unknown_compression.tif", SourceUnreadable, "65535"),
        ("rotated.tif", RasterUnsupported, "rotated"),
    ],
)
def test_a_damaged_or_absurd_sheet_is_refused_without_taking_memory(
    tmp_path: Path, name: str, error: type[SourceError], words: str
) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(error, match=words) as caught:
        stack(tmp_path / "job", plan(BAD / name, crs="EPSG:4547", area="world").groups)
    assert caught.value.remedy and name in str(caught.value.source)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000
