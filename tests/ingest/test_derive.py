"""What is derived of point clouds, through the command."""

from __future__ import annotations

import json
from pathlib import Path

import laspy
import numpy as np
import pytest
import rasterio
import shapely
from pyproj import CRS

from ingest.derive import DeriveOptions, Products, derive
from ingest.readers.base import ReadOptions
from tests.commands import Command
from tiling.crs import TILE_REF, SpatialRef, to_lonlat, transform_points
from tiling.tilers.base import SilentProgress

# A hill of 100 m by 80 m near Suizhou, with houses of 9 m and a spike of noise.
WEST, SOUTH = 500_000.0, 3_500_000.0


def height(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.asarray(60 + 0.05 * (x - WEST) + 3 * np.sin((y - SOUTH) / 15))


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(7)
    n = 40_000
    x, y = WEST + rng.uniform(0, 100, n), SOUTH + rng.uniform(0, 80, n)
    house = (np.abs(x - WEST - 50) < 2.5) & (np.abs(y - SOUTH - 40) < 2.5)
    # Nothing was measured in the east beyond a pond's shore.
    keep = x < WEST + 90
    z = height(x, y) + np.where(house, 9.0, 0.0)
    kind = np.where(house, 6, 2)
    z[0], kind[0] = 900.0, 7
    folder = tmp_path_factory.mktemp("点云")
    for number, part in enumerate(np.array_split(np.flatnonzero(keep), 3)):
        header = laspy.LasHeader(point_format=6, version="1.4")
        header.scales, header.offsets = [0.001] * 3, [WEST, SOUTH, 0]
        header.add_crs(CRS.from_user_input("EPSG:4547+5737"))
        las = laspy.LasData(header)
        las.x, las.y, las.z = x[part], y[part], z[part]
        las.classification = kind[part].astype(np.uint8)
        las.return_number = np.ones(len(part), dtype=np.uint8)
        las.number_of_returns = np.ones(len(part), dtype=np.uint8)
        las.write(folder / f"航带{number}.laz")
    return folder


def test_a_terrain_model_is_the_ground_and_a_surface_model_what_stands_on_it(
    cim: Command, cloud: Path, tmp_path: Path
) -> None:
    dtm, dsm = tmp_path / "地面.tif", tmp_path / "表面.tif"
    made = cim("derive", cloud, "--dtm", dtm, "--dsm", dsm, "--cell", "1", "--json").json()
    with rasterio.open(dtm) as a, rasterio.open(dsm) as b:
        assert a.crs.to_wkt() == b.crs.to_wkt()
        crs = CRS.from_wkt(a.crs.to_wkt())
        assert crs.is_compound and crs.sub_crs_list[1].to_epsg() == 5737
        ground, surface = a.read(1), b.read(1)
        rows, columns = np.mgrid[0 : a.height, 0 : a.width]
        x, y = a.transform * (columns + 0.5, rows + 0.5)
        assert a.transform * (0, a.height) == (WEST, SOUTH)
    known = ~np.isnan(ground)
    # Means of about five points of a slope of 0.2.
    assert np.abs(ground - height(x, y))[known].max() < 0.35
    roof = (np.abs(x - WEST - 50) < 2) & (np.abs(y - SOUTH - 40) < 2)
    assert (np.abs(surface - height(x, y) - 9)[roof] < 0.6).all()
    assert np.nanmax(surface) < 100  # the noise is in neither
    # Under the house the ground is interpolated; beyond the shore nothing is invented.
    assert known[roof].all()
    assert not known[(x > WEST + 91)].any()
    rules = {finding["rule"]: finding["count"] for finding in made["findings"]}
    assert rules["points-left-out"] == 1
    assert rules["ground-interpolated"] >= 16


def test_density_footprint_and_classes_account_for_every_point(
    cim: Command, cloud: Path, tmp_path: Path
) -> None:
    density, footprint = tmp_path / "d.tif", tmp_path / "f.geojson"
    classes = tmp_path / "c.json"
    options = ("--density", density, "--footprint", footprint, "--classes", classes)
    made = cim("derive", cloud, *options, "--cell", "2", "--json").json()
    with rasterio.open(density) as raster:
        assert raster.read(1).sum() * 4 == made["points"] - 1
    counted = json.loads(classes.read_text(encoding="utf-8"))["classes"]
    assert sum(facts["points"] for facts in counted.values()) == made["points"]
    assert counted["7"]["highest_m"] == 900.0
    (feature,) = json.loads(footprint.read_text(encoding="utf-8"))["features"]
    outline = shapely.geometry.shape(feature["geometry"])
    corners = to_lonlat(
        SpatialRef.parse("EPSG:4547"),
        [WEST, WEST + 90, WEST + 90, WEST],
        [SOUTH, SOUTH, SOUTH + 80, SOUTH + 80],
    )
    true = shapely.Polygon(np.stack(corners, axis=1))
    assert outline.intersection(true).area > 0.999 * true.area
    assert outline.area < 1.3 * true.area


def test_the_files_are_the_same_whoever_computes_them(cloud: Path, tmp_path: Path) -> None:
    found = []
    for name, workers in (("one", 1), ("two", 2)):
        folder = tmp_path / name
        folder.mkdir()
        products = Products(dtm=folder / "dtm.tif", footprint=folder / "f.geojson")
        options = DeriveOptions(read=ReadOptions(), fill_cells=4)
        derive([cloud], products, options, "local", workers, SilentProgress())
        found.append([path.read_bytes() for path in sorted(folder.iterdir())])
    assert found[0] == found[1]


def test_a_terrain_model_becomes_terrain_on_its_own_datum(
    cim: Command, cloud: Path, tmp_path: Path
) -> None:
    dtm, data = tmp_path / "dtm.tif", tmp_path / "data"
    assert not cim("derive", cloud, "--dtm", dtm, "--cell", "1").code
    assert not cim("ingest", dtm, "--id", "地形", "--kind", "terrain", "--data", data).code
    (shown,) = cim("list", "--json", "--data", data).json()
    assert shown["kind"] == "terrain"
    top = transform_points(
        SpatialRef.parse("EPSG:4547+5737"), TILE_REF, [WEST + 90], [SOUTH + 23.6], [67.5]
    )[2]
    assert top is not None and top[0] < 60  # the ellipsoid is above the sea here
    # Terrain declares whole metres around what it holds, with room for sheets a little higher.
    assert top[0] <= shown["versions"][0]["bbox"][5] < 67


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "nothing to derive"),
        (("--dtm", "{tmp}/no/dtm.tif"), "there is no folder"),
        (("--dtm", "{tmp}/a.tif", "--dsm", "{tmp}/a.tif"), "go to the same file"),
        (("--dtm", "{tmp}/a.tif", "--ground", "9"), "classes there are: 2, 6, 7"),
        (("--dtm", "{tmp}/a.tif", "--ground", "boden"), "names no classes"),
        (("--dtm", "{tmp}/a.tif", "--cell", "0"), "more than 0 metres"),
        (("--dtm", "{tmp}/a.tif", "--to-crs", "EPSG:4490"), "--to-crs EPSG:4547"),
    ],
)
def test_what_cannot_be_made_is_refused_and_leaves_nothing(
    cim_here: Command, cloud: Path, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    stated = [argument.format(tmp=tmp_path) for argument in arguments]
    result = cim_here("derive", cloud, *stated)
    assert result.code in (2, 3)
    assert said in result.err
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_there_stays_unless_it_is_to_be_replaced(
    cim: Command, cloud: Path, tmp_path: Path
) -> None:
    target = tmp_path / "c.json"
    target.write_text("mine", encoding="utf-8")
    result = cim("derive", cloud, "--classes", target)
    assert result.code == 2 and target.read_text(encoding="utf-8") == "mine"
    assert not cim("derive", cloud, "--classes", target, "--overwrite").code
    assert json.loads(target.read_text(encoding="utf-8"))["classes"]


def test_what_is_no_point_cloud_is_refused(cim: Command, tmp_path: Path) -> None:
    source = tmp_path / "a.geojson"
    point = {"type": "Feature", "properties": {}, "geometry": {"type": "Point"}}
    point["geometry"] = {"type": "Point", "coordinates": [113.4, 31.7]}
    collection = {"type": "FeatureCollection", "features": [point]}
    source.write_text(json.dumps(collection), encoding="utf-8")
    result = cim("derive", source, "--dtm", tmp_path / "a.tif")
    assert result.code == 3 and "no point cloud" in result.err
