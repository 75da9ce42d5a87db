from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import shapely
from numpy.typing import NDArray

from ingest.height_columns import find_columns, number_column
from ingest.height_rule import HeightRule
from ingest.heights import HeightResolver
from ingest.manifest import IngestOptions
from ingest.overrides import Override
from tiling.batches import (
    BASE_COLUMN,
    HEIGHT_COLUMN,
    HEIGHT_SOURCE_COLUMN,
    MESH_COLUMN,
    SKIRT_COLUMN,
    FeatureBatch,
)
from tiling.crs import TILE_REF
from tiling.errors import FieldInvalid
from tiling.findings import Findings
from tiling.geoid import ELLIPSOIDAL, parse_vertical
from tiling.meshes import FeatureMesh, encode_mesh

RULE = HeightRule(class_fields=("class",), by_class={"厂房": 12.0, "tower": 60.0})


def options(**values: Any) -> IngestOptions:
    return IngestOptions(sources=(Path("a.shp"),), id="a", **values)


def batch(**columns: Any) -> FeatureBatch:
    n = len(next(iter(columns.values())))
    x = 113.3 + 0.001 * np.arange(n)
    return FeatureBatch(
        TILE_REF,
        np.arange(n, dtype=np.int64) + 100,
        shapely.box(x, 31.7, x + 0.0002, 31.7002),
        pa.table({name: pa.array(values) for name, values in columns.items()}),
    )


def resolve(
    source: FeatureBatch, vertical: Any = ELLIPSOIDAL, ground: Any = None, **declared: Any
) -> tuple[FeatureBatch, Findings]:
    declared_options = options(**declared)
    findings = Findings()
    columns = find_columns(source.attributes.column_names, declared_options, "a.shp")
    resolver = HeightResolver(
        columns, RULE, vertical, ground, declared_options.bad_heights, "a.shp", findings
    )
    return resolver(source), findings


def slope(
    footprints: NDArray[np.object_], findings: Findings
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return np.full(len(footprints), 33.25), np.full(len(footprints), 35.5)


def rules(findings: Findings) -> dict[str, int]:
    return {f.rule: f.count for f in findings}


def test_a_height_above_ground_stands_on_its_ground_elevation() -> None:
    made, _ = resolve(batch(楼高=[10.0, 20.0], 地面高=[50.0, 60.0]))
    assert made.column(BASE_COLUMN).tolist() == [50.0, 60.0]
    assert made.column(HEIGHT_COLUMN).tolist() == [10.0, 20.0]
    assert made.attributes.column(HEIGHT_SOURCE_COLUMN).to_pylist() == ["field", "field"]


def test_a_roof_elevation_becomes_a_height_above_ground() -> None:
    made, _ = resolve(batch(楼栋高=[70.0], 地面高=[50.0]))
    assert made.column(HEIGHT_COLUMN).tolist() == [20.0]
    made, _ = resolve(
        batch(H=[70.0], G=[50.0]), height_field="H", base_field="G", height_mode="absolute"
    )
    assert made.column(HEIGHT_COLUMN).tolist() == [20.0]


def test_three_heights_that_disagree_are_counted() -> None:
    made, findings = resolve(batch(楼高=[20.0, 20.0], 楼栋高=[70.0, 75.0], 地面高=[50.0, 50.0]))
    assert made.column(HEIGHT_COLUMN).tolist() == [20.0, 20.0]
    assert rules(findings)["height-mismatch"] == 1


def test_elevations_in_1985_heights_become_ellipsoidal() -> None:
    vertical = parse_vertical("EPSG:5737")
    source = batch(height=[10.0], 地面高=[50.0])
    made, _ = resolve(source, vertical)
    centre = shapely.centroid(source.geometry)
    expected = 50.0 + vertical.separation(shapely.get_x(centre), shapely.get_y(centre))
    assert made.column(BASE_COLUMN) == pytest.approx(expected, abs=5.1e-4)
    assert made.column(BASE_COLUMN)[0] < 45  # the geoid lies about 10 m below the ellipsoid here


def test_buildings_stand_on_the_terrain_when_one_is_named() -> None:
    made, findings = resolve(batch(height=[10.0]), ground=slope, terrain="dem")
    assert made.column(BASE_COLUMN).tolist() == [33.25]
    assert "base-zero" not in rules(findings)


def test_without_ground_or_terrain_zero_is_an_assumption_in_the_report() -> None:
    _, findings = resolve(batch(height=[10.0]))
    assert rules(findings)["base-zero"] == 1


def test_missing_heights_come_from_storeys_then_class_then_the_default() -> None:
    made, findings = resolve(
        batch(
            height=[None, float("nan"), 0.0, 7.5],
            floors=[4, None, None, None],
            **{"class": ["厂房", "厂房", None, None]},
        )
    )
    assert made.column(HEIGHT_COLUMN).tolist() == [12.0, 12.0, 9.0, 7.5]
    sources = made.attributes.column(HEIGHT_SOURCE_COLUMN).to_pylist()
    assert sources == ["floors", "class", "default", "field"]
    counted = rules(findings)
    assert counted["height-by-floors"] == 1
    assert counted["height-by-class"] == 1
    assert counted["height-by-default"] == 1


def test_a_negative_height_is_refused_with_its_value_and_a_remedy() -> None:
    with pytest.raises(FieldInvalid, match=r"feature 101 says -3 m") as caught:
        resolve(batch(height=[5.0, -3.0]))
    assert "--bad-heights" in caught.value.remedy


def test_an_absurd_height_is_refused() -> None:
    with pytest.raises(FieldInvalid, match="5000 m"):
        resolve(batch(height=[5000.0]))


def test_bad_heights_may_be_dropped_or_replaced_and_are_counted() -> None:
    made, findings = resolve(batch(height=[5.0, -3.0, None]), bad_heights="drop")
    assert made.ids.tolist() == [100]
    assert rules(findings)["height-dropped"] == 2
    made, findings = resolve(batch(height=[5.0, -3.0, None]), bad_heights="default")
    assert made.column(HEIGHT_COLUMN).tolist() == [5.0, 9.0, 9.0]
    assert rules(findings)["height-impossible"] == 1
    with pytest.raises(FieldInvalid):
        resolve(batch(height=[5.0, None]), bad_heights="refuse")


def test_a_building_part_begins_above_the_ground() -> None:
    made, findings = resolve(batch(height=[50.0, 10.0], min_height=[20.0, 30.0]))
    assert made.column(BASE_COLUMN).tolist() == [20.0, 0.0]
    assert made.column(HEIGHT_COLUMN).tolist() == [30.0, 10.0]
    assert rules(findings)["part-base-above-top"] == 1


def test_numbers_in_text_are_numbers_and_other_text_is_refused() -> None:
    assert number_column(batch(h=["12.5", " 3 ", "", None]), "h", "a").tolist()[:2] == [12.5, 3.0]
    with pytest.raises(FieldInvalid, match="such as '12米'"):
        number_column(batch(h=["3", "12米"]), "h", "a.shp")
    with pytest.raises(FieldInvalid, match="not a number"):
        number_column(batch(h=[True, False]), "h", "a.shp")


def test_a_named_column_that_is_missing_is_refused_with_what_there_is() -> None:
    with pytest.raises(FieldInvalid, match="no column '高'.*它有|it has: 名称, height"):
        find_columns(["名称", "height"], options(height_field="高"), "a.shp")


def test_roof_elevations_alone_say_nothing_about_heights() -> None:
    with pytest.raises(FieldInvalid, match="where the ground is"):
        find_columns(["楼栋高"], options(), "a.shp")
    assert find_columns(["楼栋高"], options(terrain="dem"), "a.shp").roof == "楼栋高"


def test_the_skirt_is_as_deep_as_the_relief_of_the_ground() -> None:
    made, _ = resolve(
        batch(height=[50.0, 50.0], min_height=[None, 20.0]), ground=slope, terrain="dem"
    )
    assert made.column(SKIRT_COLUMN).tolist() == [2.25, 0.0]  # a part above ground needs none
    made, _ = resolve(batch(height=[10.0], 地面高=[50.0]))
    assert made.column(SKIRT_COLUMN).tolist() == [0.0]


def test_bases_and_heights_are_kept_to_the_millimetre() -> None:
    made, _ = resolve(batch(楼栋高=[70.1 + 1e-7], 地面高=[50.2]))
    assert made.column(HEIGHT_COLUMN).tolist() == [19.9]


def test_a_resolver_sent_to_a_worker_reports_to_the_findings_it_is_given() -> None:
    source = batch(height=[10.0, None])
    own, given = Findings(), Findings()
    columns = find_columns(source.attributes.column_names, options(), "a.shp")
    vertical = parse_vertical("EPSG:5737")
    resolver = HeightResolver(columns, RULE, vertical, slope, None, "a.shp", own)
    sent = pickle.dumps(resolver)
    assert len(sent) < 10_000
    made = pickle.loads(sent).resolve(source, given)
    assert made.attributes.equals(resolver.resolve(source, Findings()).attributes)
    assert rules(given) == {"height-by-default": 1}
    assert not rules(own)


def shaped(low: list[float | None], high: float) -> FeatureBatch:
    """Footprints of which those with a lowest point have a shape of their own."""
    triangles = np.array([[0, 1, 2]], dtype=np.uint32)
    records = [
        None
        if z is None
        else encode_mesh(
            FeatureMesh(
                np.array([[113.3, 31.7, z], [113.3001, 31.7, z], [113.3, 31.7, high]]),
                triangles,
                np.zeros(1, dtype=np.uint8),
            )
        )
        for z in low
    ]
    plain = batch(height=[7.0] * len(low))
    return plain.with_column(MESH_COLUMN, pa.array(records, pa.large_binary()))


def test_a_shape_of_its_own_brings_base_and_height_among_footprints_that_are_extruded() -> None:
    made, findings = resolve(shaped([10.0, None, 12.0], 12.0), terrain="dem", ground=slope)
    assert made.ids.tolist() == [100, 101, 102]
    assert made.column(BASE_COLUMN).tolist() == [10.0, 33.25, 12.0]
    assert made.column(HEIGHT_COLUMN).tolist() == [2.0, 7.0, 0.1]
    assert made.column(SKIRT_COLUMN).tolist() == [0.0, 2.25, 0.0]
    assert made.column(HEIGHT_SOURCE_COLUMN).tolist() == ["shape", "field", "shape"]
    assert rules(findings)["shape-off-ground"] == 2


def test_an_override_wins_over_the_terrain_and_walls_still_reach_the_ground() -> None:
    source = batch(编码=["A-1", "A-2"], height=[10.0, 10.0])
    findings = Findings()
    columns = find_columns(source.attributes.column_names, options(), "a.shp")
    said = (Override.from_table({"match": {"编码": "A-1"}, "base": 40, "roof": 60}),)
    resolver = HeightResolver(columns, RULE, ELLIPSOIDAL, slope, None, "a.shp", findings, said)
    made = resolver(source)
    assert made.column(BASE_COLUMN).tolist() == [40.0, 33.25]
    assert made.column(HEIGHT_COLUMN).tolist() == [20.0, 10.0]
    assert made.column(SKIRT_COLUMN).tolist() == [6.75, 2.25]
