"""The index of sheets: what touches a place, in order; it survives the file; it is fast to ask."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from tiling.errors import StoreError
from tiling.formats.geoparquet_footer import geometry_types
from tiling.mosaics import MosaicSheet, SheetIndex


def sheet(
    name: str, west: float, south: float, side: float, date: str | None = None
) -> MosaicSheet:
    return MosaicSheet(
        name=name,
        store=hashlib.sha256(name.encode()).hexdigest(),
        source="0" * 64,
        recipe="r",
        crs="EPSG:4490",
        width=100,
        height=100,
        resolution_m=0.5,
        date=date,
        outline=shapely.get_coordinates(shapely.box(west, south, west + side, south + side)),
        info={"rescale": [[0.0, 1.5]], "名": "图幅"},
    )


numbers = st.floats(-80, 80).map(lambda v: round(v, 3))
sheets = st.lists(st.tuples(numbers, numbers, st.floats(0.01, 9)), min_size=1, max_size=40)


@given(sheets, numbers, numbers, st.floats(0.01, 30))
def test_exactly_the_sheets_that_overlap_a_box_are_named_in_order(
    places: list[tuple[float, float, float]], west: float, south: float, side: float
) -> None:
    index = SheetIndex([sheet(str(i), *place) for i, place in enumerate(places)])
    box = shapely.box(west, south, west + side, south + side)
    expected = [
        s.name
        for s in index.sheets
        if shapely.relate(shapely.Polygon(s.outline), box).startswith("2")
    ]
    assert [s.name for s in index.touching(*box.bounds)] == expected


def test_an_index_survives_its_file_and_other_programs_open_it(tmp_path: Path) -> None:
    index = SheetIndex(
        [sheet("新/1.tif", 113, 31, 1, "2024-05-01"), sheet("旧/1.tif", 112.5, 31, 1)]
    )
    index.write(tmp_path / "a.parquet")
    again = SheetIndex.open(tmp_path / "a.parquet")
    for before, after in zip(index.sheets, again.sheets, strict=True):
        np.testing.assert_array_equal(before.outline, after.outline)
        for name in ("name", "store", "source", "recipe", "crs", "width", "date", "info"):
            assert getattr(before, name) == getattr(after, name)
    assert again.bounds[:4] == (112.5, 31, 114, 32)
    again.write(tmp_path / "b.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.parquet", "b.parquet"]
    assert geometry_types(tmp_path / "a.parquet") == ["Polygon"]


def test_what_is_no_index_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    with pytest.raises(StoreError, match="not a readable index"):
        SheetIndex.open(path)
    path.write_bytes(b"PAR1 nonsense")
    with pytest.raises(StoreError, match="not a readable index"):
        SheetIndex.open(path)
