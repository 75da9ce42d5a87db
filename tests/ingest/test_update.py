"""The law of updates: what is changed a block at a time equals what is made as a whole."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import shapely
from pyogrio.raw import write_arrow

from catalog.database import Catalog
from catalog.feature_index import FeatureIndex
from catalog.records import Version
from cim_server.cli import main
from ingest.building_rows import read_features
from ingest.whole import open_tiles
from ingest.workspace import Workspace
from tests.commands import Outcome
from tiling.testing.cities import synthetic_footprints

OPTIONS = ("--vertical", "ellipsoidal", "--base-field", "地面高", "--key", "编码")


def run_cim(*arguments: Any) -> Outcome:
    """Run the command line in this process: the same code without the start-up."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as stopped,
    ):
        main([str(a) for a in arguments])
    return Outcome(int(stopped.value.code or 0), out.getvalue(), err.getvalue())


def city(n: int = 3000, seed: int = 5) -> pa.Table:
    """A city of some three base cells, in lon/lat, known by text keys."""
    batch = synthetic_footprints(n, seed)
    rng = np.random.default_rng(seed)
    return pa.table(
        {
            "编码": pa.array([f"421303-{i:07d}" for i in range(n)]),
            "名称": batch.attributes.column("名称"),
            "用途": batch.attributes.column("用途"),
            "楼层": batch.attributes.column("楼层"),
            "楼高": pa.array(np.round(rng.uniform(3, 90, n), 1)),
            "地面高": pa.array(np.round(rng.uniform(40, 60, n), 2)),
            "geometry": pa.array(shapely.to_wkb(batch.geometry)),
        }
    )


def write(table: pa.Table, path: Path) -> Path:
    write_arrow(
        table,
        str(path),
        driver="FlatGeobuf",
        geometry_type="Polygon",
        geometry_name="geometry",
        crs="EPSG:4490",
        layer_options={"SPATIAL_INDEX": "NO"},
    )
    return path


def edited(table: pa.Table, rows: np.ndarray, **columns: Any) -> pa.Table:
    """Return some rows with other values in some columns."""
    part = table.take(pa.array(rows))
    for name, values in columns.items():
        at = part.column_names.index(name)
        part = part.set_column(at, name, pa.array(values, part.column(name).type))
    return part


def current(data: Path, asset: str = "城") -> Version:
    with Catalog.open(f"sqlite:///{data / 'catalog.db'}") as catalog:
        return catalog.version(asset)


def tiles(data: Path) -> dict[str, bytes]:
    store = open_tiles(Workspace(data), current(data))
    try:
        return {key: store.get(key).data for key in store.keys()}  # type: ignore[union-attr]
    finally:
        store.close()


def features(data: Path) -> list[dict[str, Any]]:
    version = current(data)
    paths = [data / ref.path for ref in version.stores if ref.role == "features"]
    rows = [
        {**row, "wkb": wkb}
        for batch in read_features(paths)
        for row, wkb in zip(
            batch.attributes.to_pylist(), shapely.to_wkb(batch.geometry), strict=True
        )
    ]
    return sorted(rows, key=lambda row: row["编码"])


def ingest(source: Path, data: Path, *options: str) -> dict[str, Any]:
    done = run_cim("ingest", source, "--id", "城", "--data", data, "--json", *OPTIONS, *options)
    assert done.code == 0, done.err
    report: dict[str, Any] = json.loads(done.out)
    return report


def update(data: Path, *arguments: Any) -> dict[str, Any]:
    done = run_cim("ingest", *arguments, "--id", "城", "--update", "--data", data, "--json")
    assert done.code == 0, done.err
    report: dict[str, Any] = json.loads(done.out)
    return report


@pytest.fixture(scope="module")
def source() -> pa.Table:
    return city()


@pytest.fixture()
def data(source: pa.Table, tmp_path: Path) -> Path:
    ingest(write(source, tmp_path / "city.fgb"), tmp_path / "data")
    return tmp_path / "data"


def assert_equal_to_rebuilt(data: Path, whole: pa.Table, folder: Path) -> None:
    rebuilt = folder / "rebuilt"
    ingest(write(whole, folder / "whole.fgb"), rebuilt)
    found, wanted = tiles(data), tiles(rebuilt)
    assert found.keys() == wanted.keys()
    different = [key for key in wanted if found[key] != wanted[key]]
    assert not different
    assert features(data) == features(rebuilt)
    for name in ("features", "tiles", "min_level", "max_level", "tiles_per_level"):
        assert current(data).info[name] == current(rebuilt).info[name]
    assert current(data).bounds == current(rebuilt).bounds


def test_changed_added_and_deleted_features_equal_a_whole_ingest(
    source: pa.Table, data: Path, tmp_path: Path
) -> None:
    rows = np.arange(200, 260)
    changed = edited(source, rows, 楼高=np.full(60, 123.4), 名称=["新楼"] * 60)
    added = edited(source, rows[:2], 编码=["421303-A", "421303-B"])
    moved = shapely.transform(
        shapely.from_wkb(added.column("geometry").to_numpy()), lambda xy: xy + [0.02, 0.011]
    )
    added = added.set_column(6, "geometry", pa.array(shapely.to_wkb(moved)))
    change = write(pa.concat_tables([changed, added]), tmp_path / "change.fgb")
    report = update(data, change, "--delete", "421303-0000007", "--delete", "421303-0002999")
    assert report["result"]["version"] == 2
    assert (report["result"]["changed"], report["result"]["added"]) == (60, 2)
    assert report["result"]["deleted"] == 2
    kept = source.filter(pa.array(~np.isin(np.arange(len(source)), [*rows.tolist(), 7, 2999])))
    assert_equal_to_rebuilt(data, pa.concat_tables([kept, changed, added]), tmp_path)
    checked = run_cim("check", "城", "--data", data)
    assert checked.code == 0, checked.out


def test_only_what_changed_is_written(source: pa.Table, data: Path, tmp_path: Path) -> None:
    change = edited(source, np.array([10]), 楼高=[50.0])
    update(data, write(change, tmp_path / "one.fgb"))
    version = current(data)
    newest, oldest = (ref for ref in version.stores if ref.role == "tiles")
    assert newest.nbytes < oldest.nbytes
    info = version.info["update"]
    assert info["cells"] == 1
    # The base cell, the six levels above it, and no other tile.
    assert info["tiles"] == 7


def test_a_block_is_replaced_by_extent(source: pa.Table, data: Path, tmp_path: Path) -> None:
    geometry = shapely.from_wkb(source.column("geometry").to_numpy())
    boxes = shapely.bounds(geometry)
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    west, south = centre.min(axis=0)
    east, north = west + 0.004, south + 0.003
    inside = (centre[:, 0] <= east) & (centre[:, 1] <= north)
    assert 50 < inside.sum() < 500
    rebuilt = edited(source, np.flatnonzero(inside)[:20], 用途=["商业"] * 20)
    change = write(rebuilt, tmp_path / "block.fgb")
    area = f"{west - 1e-6},{south - 1e-6},{east},{north}"
    report = update(data, change, "--delete-area", area)
    assert report["result"]["deleted"] == inside.sum() - 20
    whole = pa.concat_tables([source.filter(pa.array(~inside)), rebuilt])
    assert_equal_to_rebuilt(data, whole, tmp_path)


def test_updates_add_up_and_can_be_rolled_back(
    source: pa.Table, data: Path, tmp_path: Path
) -> None:
    before = tiles(data)
    first = edited(source, np.arange(5), 楼高=np.full(5, 33.0))
    second = edited(source, np.arange(3, 8), 楼高=np.full(5, 44.0))
    update(data, write(first, tmp_path / "first.fgb"))
    update(data, write(second, tmp_path / "second.fgb"))
    assert current(data).number == 3
    whole = pa.concat_tables([first.slice(0, 3), second, source.slice(8)])
    assert_equal_to_rebuilt(data, whole, tmp_path)
    assert run_cim("rollback", "城", "1", "--data", data).code == 0
    assert tiles(data) == before


def test_a_cell_that_is_emptied_leaves_no_tile(
    source: pa.Table, data: Path, tmp_path: Path
) -> None:
    far = edited(source, np.array([0]), 编码=["远"])
    moved = shapely.transform(
        shapely.from_wkb(far.column("geometry").to_numpy()), lambda xy: xy + [0.9, 0.9]
    )
    far = far.set_column(6, "geometry", pa.array(shapely.to_wkb(moved)))
    before = tiles(data)
    update(data, write(far, tmp_path / "far.fgb"))
    assert len(tiles(data)) > len(before)
    update(data, "--delete", "远")
    assert tiles(data) == before
    assert_equal_to_rebuilt(data, source, tmp_path)


def test_the_index_follows(source: pa.Table, data: Path, tmp_path: Path) -> None:
    change = edited(source, np.array([10]), 名称=["图书馆"])
    update(data, write(change, tmp_path / "one.fgb"), "--delete", "421303-0000011")
    paths = [data / ref.path for ref in current(data).stores if ref.role == "index"]
    index = FeatureIndex.open(paths)
    try:
        assert index.count() == 2999
        assert [hit.code for hit in index.find("图书馆")] == ["421303-0000010"]
        assert index.find("421303-0000011") == []
    finally:
        index.close()


def test_an_update_that_changes_nothing_publishes_nothing(
    source: pa.Table, data: Path, tmp_path: Path
) -> None:
    same = write(source.slice(5, 10), tmp_path / "same.fgb")
    report = update(data, same)
    assert report["result"]["unchanged"] and report["result"]["version"] == 1
    report = update(data, "--delete", "没有")
    assert report["result"]["unchanged"]
    assert any(f["rule"] == "deleted-unknown" for f in report["findings"])


def test_an_asset_without_a_key_says_what_to_do(source: pa.Table, tmp_path: Path) -> None:
    path, data = write(source.slice(0, 50), tmp_path / "a.fgb"), tmp_path / "data"
    options = [o for o in OPTIONS if o not in ("--key", "编码")]
    assert run_cim("ingest", path, "--id", "城", "--data", data, *options).code == 0
    done = run_cim("ingest", path, "--id", "城", "--update", "--data", data)
    assert done.code == 4
    assert "--key" in done.err


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"编码": [None]}, "no key"),
        ({"编码": ["421303-0000001", "421303-0000001"]}, "more than one feature"),
    ],
)
def test_keys_that_identify_nothing_are_refused(
    source: pa.Table, data: Path, tmp_path: Path, columns: dict[str, Any], message: str
) -> None:
    change = edited(source, np.arange(len(columns["编码"])), **columns)
    before = tiles(data)
    path = write(change, tmp_path / "bad.fgb")
    done = run_cim("ingest", path, "--id", "城", "--update", "--data", data)
    assert done.code == 3
    assert message in done.err
    assert current(data).number == 1 and tiles(data) == before


def test_a_column_the_asset_lacks_is_refused(source: pa.Table, data: Path, tmp_path: Path) -> None:
    change = source.slice(0, 2).append_column("新列", pa.array([1, 2]))
    path = write(change, tmp_path / "more.fgb")
    done = run_cim("ingest", path, "--id", "城", "--update", "--data", data)
    assert done.code == 3
    assert "新列" in done.err
