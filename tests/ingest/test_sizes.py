"""Slivers, giants, duplicates, low buildings and those across the antimeridian."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from ingest.location import check_reach
from ingest.quality.duplicates import note_duplicates
from ingest.quality.sizes import huge_outlines, slivers
from tiling.batches import BASE_COLUMN, HEIGHT_COLUMN, MESH_COLUMN, FeatureBatch
from tiling.crs import TILE_REF
from tiling.errors import GeometryInvalid
from tiling.findings import Findings

DEGREE_M = 111_319.49


def boxes(sizes: Any, latitude: float = 31.7) -> Any:
    """Rectangles of so many metres east and north, turned by their number."""
    east, north = np.asarray(sizes, dtype=float).T
    x, y = 113.0 + 0.1 * np.arange(len(east)), np.full(len(east), latitude)
    scale = np.cos(np.radians(latitude))
    return shapely.box(x, y, x + east / DEGREE_M / scale, y + north / DEGREE_M)


def batch(geometry: Any, height: Any = 10.0, **columns: Any) -> FeatureBatch:
    n = len(geometry)
    table = {BASE_COLUMN: np.zeros(n), HEIGHT_COLUMN: np.broadcast_to(height, n), **columns}
    return FeatureBatch(TILE_REF, np.arange(n), np.asarray(geometry, object), pa.table(table))


@given(
    width=st.floats(0.02, 2.0).filter(lambda w: abs(w - 0.2) > 0.01),
    length=st.floats(100, 500),
    latitude=st.floats(-80, 80),
    turned=st.booleans(),
)
def test_a_sliver_is_known_at_any_latitude_and_whichever_way_it_lies(
    width: float, length: float, latitude: float, turned: bool
) -> None:
    size = (length, width) if turned else (width, length)
    findings = Findings()
    made = slivers(batch(boxes([size, (10, 10)], latitude)), findings)
    assert len(made) == 2
    mean = width * length / (width + length)
    if abs(mean - 0.2) > 0.002:
        assert [f.samples for f in findings] == ([(0,)] if mean < 0.2 else [])


def test_the_footprint_of_a_wall_with_its_own_shape_is_no_sliver() -> None:
    findings = Findings()
    own = pa.array([b"x", None], pa.large_binary())
    slivers(batch(boxes([(0.05, 9), (0.05, 9)]), **{MESH_COLUMN: own}), findings)
    assert [f.samples for f in findings] == [(1,)]


def test_outlines_of_more_than_five_kilometres_are_kept_and_counted() -> None:
    findings = Findings()
    made = huge_outlines(batch(boxes([(4900, 900), (4900, 1200), (50, 50)])), findings)
    assert len(made) == 3
    assert [f.samples for f in findings] == [(1,)]


def test_buildings_across_the_antimeridian_and_at_the_poles_are_refused_by_number() -> None:
    ids = np.array([7, 8])
    check_reach(boxes([(10, 10), (10, 10)]), ids, Path("a.shp"))
    wide = np.array([shapely.box(113, 31, 113.1, 31.1), shapely.box(-179.9, 31, 179.9, 31.1)])
    with pytest.raises(GeometryInvalid, match="antimeridian.* 8 "):
        check_reach(wide, ids, Path("a.shp"))
    with pytest.raises(GeometryInvalid, match="85°.* 7, 8 "):
        check_reach(boxes([(10, 10), (10, 10)], 85.5), ids, Path("a.shp"))


@given(
    which=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=12),
    turns=st.integers(0, 3),
)
def test_every_repetition_counts_once_however_its_ring_begins(
    which: list[tuple[int, int]], turns: int
) -> None:
    ell = shapely.from_wkt("POLYGON((0 0,4 0,4 4,2 4,2 2,0 2,0 0))")
    # The mirrored one has the same box and is another outline.
    mirrored = shapely.transform(ell, lambda p: np.column_stack([4 - p[:, 0], p[:, 1]]))
    shapes = [ell, mirrored, shapely.box(0, 0, 4, 4), shapely.box(9, 9, 10, 10)]
    rings = [list(shapes[s].exterior.coords)[:-1] for s, _ in which]
    turned = [shapely.Polygon(r[turns * i % 4 :] + r[: turns * i % 4]) for i, r in enumerate(rings)]
    findings = Findings()
    note_duplicates(batch(turned, [float(h) for _, h in which]), findings)
    seen: set[tuple[int, int]] = set()
    again = [i for i, w in enumerate(which) if w in seen or seen.add(w)]  # type: ignore[func-returns-value]
    assert [s for f in findings for s in f.samples] == again[:10]
    assert sum(f.count for f in findings) == len(again)


def test_shapes_of_their_own_over_one_footprint_are_no_duplicates() -> None:
    findings = Findings()
    same = np.repeat(boxes([(9, 9)]), 3)
    for shapes in ([b"x", b"y", None], [b"x", b"x", b"x"]):
        own = pa.array(shapes, pa.large_binary())
        note_duplicates(batch(same, **{MESH_COLUMN: own}), findings)
    assert not list(findings)


def test_a_report_tells_of_duplicates_low_buildings_and_walls_in_one_plane(
    tmp_path: Path, cim_here: Any
) -> None:
    def square(x: float) -> Any:
        e = 0.0001
        return [[x, 31.7], [x + e, 31.7], [x + e, 31.7 + e], [x, 31.7 + e], [x, 31.7]]

    places = [(113.38, 9), (113.39, 9), (113.38, 9), (113.40, 0.3), (113.41, 5), (113.41, 9)]
    features = [
        {
            "type": "Feature",
            "properties": {"height": height},
            "geometry": {"type": "Polygon", "coordinates": [square(x)]},
        }
        for x, height in places
    ]
    source, data, report = tmp_path / "楼.geojson", tmp_path / "data", tmp_path / "r.json"
    source.write_text(json.dumps({"type": "FeatureCollection", "features": features}), "utf-8")
    done = cim_here(
        "ingest", source, "--id", "x", "--vertical", "ellipsoidal", "--data", data,
        "--report", report,
    )  # fmt: skip
    assert done.code == 0, done.err
    found = {f["rule"]: f for f in json.loads(report.read_text("utf-8"))["findings"]}
    assert found["G10-duplicate"]["samples"] == [2]
    assert found["height-low"]["samples"] == [3]
    assert found["coplanar-set-apart"]["count"] >= 4
    assert cim_here("check", "x", "--data", data).code == 0
