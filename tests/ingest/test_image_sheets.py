"""An image of many sheets: a store each, an order, an overview; copies, updates, bad sheets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp
from rasterio.shutil import copy
from rasterio.transform import from_origin
from rasterio.warp import transform
from rio_cogeo.cogeo import cog_validate

from catalog.records import Version
from ingest.check import check_version
from ingest.manifest import IngestOptions
from ingest.mosaic_assets import HANDFUL
from ingest.report import Report
from ingest.run import IngestFailed, Resources, ingest
from ingest.workspace import Workspace
from tiling.errors import Cancelled
from tiling.findings import Findings
from tiling.mosaics import SheetIndex
from tiling.tilers.base import SilentProgress

RGB = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)


def sheet(
    path: Path,
    value: int,
    west: float,
    *,
    crs: str = "EPSG:4490",
    north: float = 31.5,
    step: float = 1e-4,
    size: int = 600,
    bands: int = 3,
    dtype: Any = np.uint8,
    **profile: Any,
) -> Path:
    path.parent.mkdir(exist_ok=True)
    with rasterio.open(
        path, "w", driver="GTiff", width=size, height=size, count=bands, dtype=dtype, crs=crs,
        transform=from_origin(west, north, step, step), **profile,
    ) as sink:  # fmt: skip
        sink.write(np.full((bands, size, size), value, dtype))
        if bands == 3:
            sink.colorinterp = RGB
    return path


def run(
    workspace: Workspace, *sources: Path, progress: SilentProgress | None = None, **more: Any
) -> tuple[Report, Version]:
    given: dict[str, Any] = {"kind": "imagery", "mosaic": "sheets", **more}
    options = IngestOptions(sources=sources, id="ortho", **given)
    report = ingest(options, workspace, Resources(workers=2), progress or SilentProgress())
    with workspace.open_catalog() as catalog:
        version = catalog.version("ortho")
        findings, _ = check_version(workspace, catalog.item("ortho"), version)
    assert [f for f in findings if f.severity == "error"] == []
    return report, version


def index_of(workspace: Workspace, version: Version) -> SheetIndex:
    (ref,) = [s for s in version.stores if s.role == "sheets"]
    return SheetIndex.open(workspace.store_path(ref))


def overview_at(workspace: Workspace, version: Version, lon: float, lat: float) -> int | None:
    (ref,) = [s for s in version.stores if s.role == "overview"]
    with rasterio.open(workspace.store_path(ref)) as cog:
        (x,), (y,) = transform("EPSG:4326", cog.crs, [lon], [lat])
        row, column = cog.index(x, y)
        there = cog.dataset_mask()[row, column]
        return int(cog.read(1)[row, column]) if there else None


def rules(report: Report) -> dict[str, int]:
    return {f.rule: f.count for f in report.findings}


def test_every_sheet_is_a_store_and_the_first_wins(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "data")
    sheet(tmp_path / "图幅" / "1.tif", 40, 113.0)
    sheet(tmp_path / "图幅" / "2.tif", 200, 113.03)
    _, version = run(workspace, tmp_path / "图幅")
    index = index_of(workspace, version)
    assert [s.name for s in index.sheets] == ["1.tif", "2.tif"]
    stores = {s.sha256: workspace.store_path(s) for s in version.stores if s.role == "data"}
    assert len(stores) == 2
    for row, value in zip(index.sheets, (40, 200), strict=True):
        assert cog_validate(stores[row.store], strict=True)[0]
        with rasterio.open(stores[row.store]) as cog:
            assert abs(int(cog.read(1)[300, 300]) - value) < 3 and cog.crs.to_epsg() == 4490
    assert index.bounds[:4] == pytest.approx((113.0, 31.44, 113.09, 31.5))
    assert version.bounds[:4] == pytest.approx(index.bounds[:4])
    for lon, value in [(113.01, 40), (113.05, 40), (113.08, 200)]:
        assert overview_at(workspace, version, lon, 31.47) == pytest.approx(value, abs=3)
    mosaic = version.info["mosaic"]
    assert mosaic["sheets"] == 2 and version.info["crs"] == "EPSG:4490"
    (ref,) = [s for s in version.stores if s.role == "overview"]
    with rasterio.open(workspace.store_path(ref)) as cog:
        assert cog.res[0] == pytest.approx(mosaic["overview_resolution_m"])
        side = 2 * np.pi * 6378137 / 256 / 2 ** mosaic["overview_max_zoom"]
        assert cog.res[0] == pytest.approx(side)
        offset = (cog.transform.c + np.pi * 6378137) / side
        assert offset == pytest.approx(round(offset), abs=1e-6)


def test_sheets_of_different_frames_lie_in_one_mosaic(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "data")
    a = sheet(tmp_path / "a.tif", 40, 113.0)
    b = sheet(tmp_path / "b.tif", 200, 415_000, crs="EPSG:4547", north=3_486_000, step=10)
    _, version = run(workspace, a, b)
    index = index_of(workspace, version)
    assert [s.crs for s in index.sheets] == ["EPSG:4490", "EPSG:4547"]
    assert version.info["crs"] == "mixed"
    assert [round(s.resolution_m, 1) for s in index.sheets] == [11.1, 10.0]
    assert overview_at(workspace, version, 113.03, 31.47) == pytest.approx(40, abs=3)
    assert overview_at(workspace, version, 113.12, 31.47) == pytest.approx(200, abs=3)


def test_the_newest_or_the_finest_wins_when_asked(tmp_path: Path) -> None:
    old = sheet(tmp_path / "old.tif", 40, 113.0, step=5e-5, size=1200)
    new = sheet(tmp_path / "new.tif", 200, 113.0)
    for path, day in ((old, "2019:03:01 10:00:00"), (new, "2024:05:01 10:00:00")):
        with rasterio.open(path, "r+") as sink:
            sink.update_tags(TIFFTAG_DATETIME=day)
    for order, first in [("newest", "new.tif"), ("finest", "old.tif"), ("given", "new.tif")]:
        workspace = Workspace(tmp_path / order)
        _, version = run(workspace, new, old, order=order)
        top = index_of(workspace, version).sheets[0]
        assert top.name == first
        assert top.date == {"new.tif": "2024-05-01", "old.tif": "2019-03-01"}[first]
        value = 200 if first == "new.tif" else 40
        assert overview_at(workspace, version, 113.03, 31.47) == pytest.approx(value, abs=3)
    sheet(tmp_path / "undated.tif", 1, 113.0)
    with pytest.raises(IngestFailed, match=r"undated\.tif.*TIFFTAG_DATETIME"):
        run(Workspace(tmp_path / "x"), old, tmp_path / "undated.tif", order="newest")
    tables = tuple(
        {"source": str(path), "date": day}
        for path, day in ((tmp_path / "undated.tif", "2025-01-01"), (old, "2026-01-01"))
    )
    workspace = Workspace(tmp_path / "said")
    _, version = run(workspace, tmp_path / "undated.tif", old, order="newest", rasters=tables)
    dates = [(s.name, s.date) for s in index_of(workspace, version).sheets]
    assert dates == [("old.tif", "2026-01-01"), ("undated.tif", "2025-01-01")]


def test_more_than_a_handful_of_sheets_stay_sheets(tmp_path: Path) -> None:
    folder = tmp_path / "sheets"
    folder.mkdir()
    for number in range(HANDFUL + 1):
        sheet(folder / f"{number}.tif", 20 * number, 113.0 + number * 0.01, size=64)
    workspace = Workspace(tmp_path / "many")
    _, version = run(workspace, folder, mosaic=None)
    assert len(index_of(workspace, version)) == HANDFUL + 1
    (folder / "0.tif").unlink()
    _, version = run(Workspace(tmp_path / "few"), folder, mosaic=None)
    assert "mosaic" not in version.info and len(version.stores) == 1


def test_a_sheet_that_is_a_cog_is_kept_byte_for_byte(tmp_path: Path) -> None:
    plain = sheet(tmp_path / "plain.tif", 90, 113.0, size=1300)
    ready = tmp_path / "ready.tif"
    copy(plain, ready, driver="COG", COMPRESS="WEBP")
    other = sheet(tmp_path / "other.tif", 30, 113.2)
    workspace = Workspace(tmp_path / "data")
    _, version = run(workspace, ready, other)
    first, second = index_of(workspace, version).sheets
    stores = {s.sha256: workspace.store_path(s) for s in version.stores}
    assert stores[first.store].read_bytes() == ready.read_bytes()
    assert stores[second.store].read_bytes() != other.read_bytes()
    assert first.info["compression"] == "webp"


def test_a_second_ingest_makes_only_what_is_new(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "data")
    folder = tmp_path / "s"
    for number in range(3):
        sheet(folder / f"{number}.tif", 50 * number + 20, 113 + number * 0.06)
    _, before = run(workspace, folder)
    held = {s.sha256: workspace.store_path(s).stat().st_mtime_ns for s in before.stores}
    sheet(folder / "1.tif", 250, 113.06)
    sheet(folder / "3.tif", 220, 113.18)
    report, after = run(workspace, folder)
    assert after.number == 2 and rules(report)["sheets-kept"] == 2
    rows = index_of(workspace, after).sheets
    assert [r.name for r in rows] == ["0.tif", "1.tif", "2.tif", "3.tif"]
    assert [r.store in held for r in rows] == [True, False, True, False]
    for store in after.stores:
        if store.sha256 in held:
            assert workspace.store_path(store).stat().st_mtime_ns == held[store.sha256]
    assert overview_at(workspace, after, 113.09, 31.47) == pytest.approx(250, abs=3)
    # As if all had been made at once.
    _, whole = run(Workspace(tmp_path / "fresh"), folder)
    assert {s.sha256 for s in whole.stores} == {s.sha256 for s in after.stores}


def test_sixteen_bit_sheets_share_one_display_range_and_nodata_shows_what_is_below(
    tmp_path: Path,
) -> None:
    a = sheet(tmp_path / "a.tif", 1000, 113.0, bands=1, dtype=np.uint16, nodata=0)
    b = sheet(tmp_path / "b.tif", 3000, 113.0, bands=1, dtype=np.uint16, nodata=0)
    with rasterio.open(a, "r+") as sink:
        values = sink.read()
        values[:, :, 300:] = 0
        sink.write(values)
    workspace = Workspace(tmp_path / "data")
    _, version = run(workspace, a, b)
    assert version.info["rescale"] == [[1000.0, 3000.0]]
    assert overview_at(workspace, version, 113.01, 31.47) == 1000
    assert overview_at(workspace, version, 113.05, 31.47) == 3000


class _StopAfter(SilentProgress):
    def __init__(self, sheets: int) -> None:
        self.left, self.step = sheets, ""

    def begin(self, step: str, total: int | None = None) -> None:
        self.step = step

    def advance(self, amount: int = 1) -> None:
        self.left -= amount if self.step == "sheets" else 0
        if self.left <= 0:
            raise Cancelled("stopped by the user")


def test_a_stopped_run_goes_on_where_it_was_and_ends_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    for number in range(5):
        sheet(folder / f"{number}.tif", 50 * number + 20, 113 + number * 0.06)
    workspace = Workspace(tmp_path / "data")
    with pytest.raises(IngestFailed, match="stopped"):
        run(workspace, folder, progress=_StopAfter(2))
    notes = {p: p.stat().st_mtime_ns for p in workspace.root.glob("jobs/*/sheets/*.json")}
    assert notes
    finished = {p.with_suffix(".tif").stat().st_ino for p in notes}
    _, version = run(workspace, folder)
    inodes = {workspace.store_path(s).stat().st_ino for s in version.stores}
    assert finished <= inodes
    _, whole = run(Workspace(tmp_path / "fresh"), folder)
    assert {s.sha256 for s in whole.stores} == {s.sha256 for s in version.stores}


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"bands": 1}, "1 band of uint8"),
        ({"dtype": np.uint16}, "3 bands of uint16"),
        ({"bands": 1, "photometric": "palette"}, "palette"),
    ],
)
def test_sheets_of_different_kinds_are_refused_by_name(
    tmp_path: Path, bad: dict[str, Any], words: str
) -> None:
    sheet(tmp_path / "s" / "a.tif", 1, 113.0)
    path = sheet(tmp_path / "s" / "b.tif", 1, 113.1, **bad)
    if "photometric" in bad:
        with rasterio.open(path, "r+") as sink:
            sink.write_colormap(1, {1: (9, 8, 7, 255)})
    with pytest.raises(IngestFailed, match=rf"b\.tif.*{words}.*cannot lie in one mosaic"):
        run(Workspace(tmp_path / "data"), tmp_path / "s")


def test_one_bad_sheet_is_named_and_nothing_is_published(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "data")
    for number in range(3):
        sheet(tmp_path / "s" / f"{number}.tif", 90, 113 + number * 0.06, compress="deflate")
    bad = tmp_path / "s" / "1.tif"
    content = bytearray(bad.read_bytes())
    content[-300:-100] = b"\xff" * 200
    bad.write_bytes(content)
    with pytest.raises(IngestFailed, match=r"1\.tif: .*cannot be read"):
        run(workspace, tmp_path / "s")
    with workspace.open_catalog() as catalog:
        assert list(catalog.items()) == []
    assert not (workspace.root / "stores").exists()


def test_a_copy_of_a_sheet_is_left_out_and_counted(tmp_path: Path) -> None:
    a = sheet(tmp_path / "a.tif", 90, 113.0)
    b = tmp_path / "b.tif"
    b.write_bytes(a.read_bytes())
    report, version = run(Workspace(tmp_path / "data"), a, b)
    assert rules(report)["sheet-repeated"] == 1
    assert len([s for s in version.stores if s.role == "data"]) == 1


def test_findings_of_sheets_are_counted_together(tmp_path: Path) -> None:
    for number in range(2):
        sheet(tmp_path / "s" / f"{number}.tif", 90 + number, 113 + number * 0.06)
    report, _ = run(Workspace(tmp_path / "data"), tmp_path / "s")
    assert rules(report)["compression"] == 2 and isinstance(report.findings, Findings)
