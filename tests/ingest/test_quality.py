from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import shapely

from ingest.quality import BEFORE_REFRAMING, RULES, apply_rules
from tiling.batches import FeatureBatch
from tiling.crs import TILE_REF
from tiling.findings import Findings


def batch(*wkts: str) -> FeatureBatch:
    geometry = np.array([shapely.from_wkt(w) for w in wkts], dtype=object)
    ids = np.arange(len(wkts), dtype=np.int64)
    return FeatureBatch(TILE_REF, ids, geometry, pa.table({"n": ids}))


def clean(kind: str, *wkts: str) -> tuple[FeatureBatch, dict[str, int]]:
    findings = Findings()
    made = apply_rules((*BEFORE_REFRAMING, *RULES[kind]), batch(*wkts), findings)
    # Outlines are whole degrees here, for the eye.
    return made, {f.rule: f.count for f in findings if f.rule != "G9-huge"}


SQUARE = "POLYGON((0 0,1 0,1 1,0 1,0 0))"
ODD = {
    "bowtie": ("POLYGON((0 0,1 1,1 0,0 1,0 0))", "G5-invalid-polygon"),
    "repeated": ("POLYGON((0 0,1 0,1 0,1 1,0 1,0 0))", "G5-repeated-vertex"),
    "z": ("POLYGON Z((0 0 5,1 0 5,1 1 5,0 1 5,0 0 5))", "G2-z-set-aside"),
    "collection": (f"GEOMETRYCOLLECTION(POINT(0 0),{SQUARE})", "G4-collection"),
}


@pytest.mark.parametrize("name", ODD)
def test_what_can_be_repaired_is_kept_and_counted(name: str) -> None:
    wkt, rule = ODD[name]
    made, counts = clean("buildings", SQUARE, wkt)
    assert made.ids.tolist() == [0, 1]
    assert counts[rule] == 1
    assert shapely.is_valid(made.geometry).all()
    assert not shapely.has_z(made.geometry).any()


@pytest.mark.parametrize(
    ("wkt", "rule"),
    [
        ("POLYGON((0 0,1 1,2 2,0 0))", "G6-empty"),
        ("POLYGON((0 0,1e-8 0,1e-8 1e-8,0 0))", "G7-no-area"),
        ("POINT(0 0)", "G3-no-polygon"),
        ("POLYGON EMPTY", "G6-empty"),
    ],
)
def test_what_is_no_footprint_is_dropped_and_counted(wkt: str, rule: str) -> None:
    made, counts = clean("buildings", SQUARE, wkt)
    assert made.ids.tolist() == [0]
    assert counts == {rule: 1} or counts == {rule: 1, "G5-invalid-polygon": 1}


def test_a_feature_that_is_not_finite_is_dropped() -> None:
    source = batch(SQUARE, SQUARE)
    with np.errstate(invalid="ignore"):
        source.geometry[1] = shapely.polygons([[0, 0], [np.nan, 0], [1, 1], [0, 0]])
    findings = Findings()
    made = apply_rules(BEFORE_REFRAMING, source, findings)
    assert made.ids.tolist() == [0]
    assert [f.rule for f in findings] == ["G1-not-finite"]


def test_holes_and_parts_survive_untouched() -> None:
    holed = "POLYGON((0 0,9 0,9 9,0 9,0 0),(1 1,2 1,2 2,1 2,1 1))"
    parts = "MULTIPOLYGON(((0 0,1 0,1 1,0 0)),((5 5,6 5,6 6,5 5)))"
    made, counts = clean("buildings", holed, parts)
    assert counts == {}
    assert shapely.equals_exact(made.geometry, batch(holed, parts).geometry).all()


def test_other_vectors_keep_points_and_lines() -> None:
    made, counts = clean("vector", "POINT(1 2)", "LINESTRING(0 0,1 1)", SQUARE)
    assert made.ids.tolist() == [0, 1, 2]
    assert counts == {}


def test_a_repair_keeps_the_area_that_is_enclosed() -> None:
    made, _ = clean("buildings", ODD["bowtie"][0])
    assert shapely.area(made.geometry)[0] == pytest.approx(0.5)


@pytest.mark.parametrize("kind", ["buildings", "vector"])
def test_a_ring_that_is_one_point_many_times_is_dropped_or_leaves_its_polygon(kind: str) -> None:
    point = "1 1,1 1,1 1,1 1"
    made, counts = clean(
        kind,
        f"POLYGON(({point}))",
        f"POLYGON((0 0,4 0,4 4,0 4,0 0),({point}))",
        f"MULTIPOLYGON((({point})),((0 0,4 0,4 4,0 4,0 0)))",
    )
    assert made.ids.tolist() == [1, 2]
    assert shapely.area(made.geometry).tolist() == [16, 16]
    assert counts == {"G5-repeated-vertex": 3, "G5-invalid-polygon": 2, "G6-empty": 1}


def test_findings_do_not_show_how_features_were_cut_into_batches() -> None:
    bowtie, outside = ODD["bowtie"][0], "POLYGON((0 0,4 0,4 4,0 4,0 0),(5 5,6 5,6 6,5 5))"
    whole, parts = Findings(), Findings()
    rows = batch(bowtie, outside, bowtie, outside)
    apply_rules(RULES["buildings"], rows, whole)
    for start in range(4):
        apply_rules(RULES["buildings"], rows.take(np.arange(4) == start), parts)
    assert sorted(map(str, whole)) == sorted(map(str, parts))
