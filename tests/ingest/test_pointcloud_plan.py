"""What a plan says of point clouds: frames, datums and refusals, before any point is read."""

from __future__ import annotations

import shutil
from pathlib import Path

import laspy
import numpy as np
import pytest
from pyproj import CRS

from ingest.manifest import IngestOptions, read_manifest
from ingest.plan import Plan, make_plan
from ingest.readers import open_source
from tiling.errors import (
    ConfigError,
    CrsMissing,
    DatumUndeclared,
    NothingToTile,
    OutsideArea,
    SourceError,
)

DATA = Path(__file__).parents[1] / "data" / "pointcloud"


def a_cloud(path: Path, crs: str | None = "EPSG:4547", count: int = 10) -> Path:
    header = laspy.LasHeader(point_format=7, version="1.4")
    header.scales, header.offsets = np.full(3, 0.001), np.array([441_000, 3_507_000, 0])
    if crs:
        header.add_crs(CRS(crs))
    cloud = laspy.LasData(header)
    cloud.x = 441_000 + np.arange(count) * 0.5
    cloud.y = 3_507_000 + np.arange(count) * 0.5
    cloud.z = 80 + np.arange(count) * 0.1
    cloud.write(path)
    return path


def plan(*sources: Path, **options) -> Plan:
    return make_plan(IngestOptions(sources=sources, id="点云", **options))


def chunk_refs(made: Plan) -> list[str]:
    with open_source(made.sources[0].path, made.read_options(0)) as reader:
        return [chunk.ref.code for chunk in reader.chunks()]


def test_a_cloud_is_known_by_its_content_and_goes_to_its_collection(tmp_path: Path) -> None:
    made = plan(a_cloud(tmp_path / "a.laz"), vertical="EPSG:5737")
    assert made.refusal is None
    assert (made.kind, made.collection) == ("pointcloud", "pointclouds")
    assert made.features == 10 and made.refs[0].code == "EPSG:4547+5737"
    shown = made.to_json()["sources"][0]["extra"]
    assert shown["points"] == 10 and shown["formats"] == {"LAS 1.4, format 7, LAZ": 1}
    assert shown["described"] == {"gps_time": "GPS seconds since the week's beginning"}
    assert shown["bounds"][2] == 80 and shown["columns"]["rgb"] == "uint16 x 3"
    assert chunk_refs(made) == ["EPSG:4547+5737"]


def test_heights_without_a_datum_are_refused_assumed_or_read_from_the_file(tmp_path: Path) -> None:
    bare, compound = a_cloud(tmp_path / "a.laz"), a_cloud(tmp_path / "b.laz", "EPSG:4547+5737")
    refusal = plan(bare).refusal
    assert isinstance(refusal, DatumUndeclared) and "--vertical" in refusal.remedy
    assumed = plan(bare, assume_vertical="EPSG:5773")
    assert chunk_refs(assumed) == ["EPSG:4547+5773"]
    assert "vertical-assumed" in [f.rule for f in assumed.findings]
    assert plan(compound).refusal is None and chunk_refs(plan(compound)) == ["EPSG:4547+5737"]
    other = plan(compound, vertical="ellipsoidal")
    assert chunk_refs(other) == ["EPSG:4547+ellipsoidal"]
    assert "vertical-overridden" in [f.rule for f in other.findings]


def test_one_file_without_a_datum_or_frame_holds_up_its_folder(tmp_path: Path) -> None:
    a_cloud(tmp_path / "a.laz", "EPSG:4547+5737")
    a_cloud(tmp_path / "b.laz", "EPSG:4547")
    assert isinstance(plan(tmp_path).refusal, DatumUndeclared)
    assert chunk_refs(plan(tmp_path, assume_vertical="ellipsoidal")) == [
        "EPSG:4547+5737",
        "EPSG:4547+ellipsoidal",
    ]
    a_cloud(tmp_path / "c.laz", None)
    assert isinstance(plan(tmp_path, vertical="EPSG:5737").refusal, CrsMissing)
    made = plan(tmp_path, vertical="EPSG:5737", assume_crs="EPSG:4547")
    assert made.refusal is None and set(chunk_refs(made)) == {"EPSG:4547+5737"}
    assert "crs-assumed" in [f.rule for f in made.findings]


def test_coordinates_elsewhere_are_refused_before_points_are_read(tmp_path: Path) -> None:
    path = a_cloud(tmp_path / "a.laz", None)
    refusal = plan(path, crs="EPSG:32631", vertical="ellipsoidal").refusal
    assert isinstance(refusal, OutsideArea)
    # Latitude stands where longitude belongs: nothing in the file says so, the area does.
    turned = plan(DATA / "test_epsg_4326_axis.las", vertical="ellipsoidal").refusal
    assert isinstance(turned, OutsideArea)


def test_kinds_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    cloud = a_cloud(tmp_path / "a.laz")
    table = tmp_path / "a.csv"
    table.write_text("lon,lat,name\n113.1,31.5,a\n")
    with pytest.raises(SourceError, match="--kind buildings cannot be made of a point cloud"):
        plan(cloud, kind="buildings")
    with pytest.raises(SourceError, match="--kind pointcloud cannot be made of a vector"):
        plan(table, kind="pointcloud", crs="EPSG:4490")
    with pytest.raises(ConfigError, match="cannot be one asset"):
        plan(cloud, table, vertical="ellipsoidal", crs="EPSG:4490")


def test_a_cloud_without_points_is_refused(tmp_path: Path) -> None:
    path = shutil.copy(DATA / "no-points.las", tmp_path / "a.las")
    refusal = plan(Path(path), vertical="ellipsoidal").refusal
    assert isinstance(refusal, NothingToTile) and "no points" in refusal.problem


def test_text_is_a_cloud_when_its_columns_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("x,y,z,note\n441000,3507000,80,1\n441001,3507001,81,2\n")
    made = plan(path, point_columns="x,y,z,-", crs="EPSG:4547", vertical="EPSG:5737")
    assert made.refusal is None and made.kind == "pointcloud" and made.features == 2
    assert plan(path, crs="EPSG:4547").kind == "vector"


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("height_unit", "feet", "metre, foot, us-foot"),
        ("withheld", "maybe", "keep or drop"),
        ("colour_depth", 12, "not 8 or 16"),
        ("point_columns", "x,y", "x, y and z once each"),
        ("point_columns", "x,y,z,z", "x, y and z once each"),
    ],
)
def test_options_that_mean_nothing_are_refused(name: str, value: object, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        IngestOptions(sources=(Path("a.laz"),), id="a", **{name: value})


def test_a_manifest_may_say_the_same(tmp_path: Path) -> None:
    a_cloud(tmp_path / "a.laz")
    manifest = tmp_path / "m.toml"
    manifest.write_text(
        'id = "a"\nsources = ["a.laz"]\nwithheld = "drop"\n'
        'colour_depth = 16\nheight_unit = "foot"\n'
    )
    points = IngestOptions(**read_manifest(manifest)).points()
    assert (points.drop_withheld, points.colour_depth, points.height_unit) == (True, 16, "foot")
