"""The reader of models: parts become features with footprints and meshes, in their place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import shapely

from ingest.readers import open_source
from ingest.readers.base import ReadOptions
from ingest.readers.model import ModelReader
from ingest.readers.placement import Placement
from tests.ingest.test_models import CAMPUS, campus, png, scene
from tiling.batches import MESH_COLUMN, FeatureBatch
from tiling.ellipsoid import enu_to_ecef_matrix, geodetic_to_ecef
from tiling.errors import CimError, ConfigError, CrsMissing, FieldInvalid, OutsideArea
from tiling.meshes import FeatureMesh, decode_mesh

PLACE = Placement(114.3, 30.6, 20.0)


def read(path: Path, options: ReadOptions, **asked: object) -> FeatureBatch:
    with open_source(path, options) as reader:
        assert isinstance(reader, ModelReader)
        (batch,) = reader.batches(**asked)  # type: ignore[arg-type]
        return batch


def meshes(batch: FeatureBatch) -> list[FeatureMesh]:
    return [decode_mesh(record) for record in batch.attributes.column(MESH_COLUMN).to_pylist()]


def local(mesh: FeatureMesh, place: Placement) -> np.ndarray:
    """Metres east, north and up of the origin, by the inverse of an independent formula."""
    frame = enu_to_ecef_matrix(place.lon_deg, place.lat_deg, place.height_m)
    return (geodetic_to_ecef(*mesh.vertices.T) - frame[:3, 3]) @ frame[:3, :3]


def test_the_parts_of_an_obj_stand_where_they_were_placed(tmp_path: Path) -> None:
    batch = read(campus(tmp_path), ReadOptions(place=PLACE))
    assert batch.column("name").tolist() == ["教学楼", "tower"]
    assert batch.column("material").tolist() == ["墙, roof", "墙"]
    assert batch.column("triangles").tolist() == [12, 4] and batch.ids.tolist() == [0, 1]
    school, tower = meshes(batch)
    points = local(school, PLACE)
    np.testing.assert_allclose(points.min(axis=0), (0, 0, 0), atol=1e-6)
    np.testing.assert_allclose(points.max(axis=0), (10, 8, 5), atol=1e-6)
    assert [t.data for t in school.images] == [png()] and tower.images == ()
    assert school.image.tolist() == [0] * 8 + [-1] * 4


def test_footprints_cover_what_is_seen_from_above(tmp_path: Path) -> None:
    batch = read(campus(tmp_path), ReadOptions(place=PLACE, up="z"))
    # With z up the model lies on its side: 10 m by 5 m.
    metres = np.array([np.cos(np.radians(30.6)) * 111_320, 110_860])
    flat = shapely.transform(batch.geometry[0], lambda xy: (xy - [114.3, 30.6]) * metres)
    assert flat.area == pytest.approx(50, rel=0.01)


def test_a_wall_without_thickness_still_has_a_footprint(tmp_path: Path) -> None:
    path = tmp_path / "wall.obj"
    path.write_text("v 0 0 0\nv 9 0 0\nv 9 3 0\nv 0 3 0\nf 1 2 3 4\n")
    (outline,) = read(path, ReadOptions(place=PLACE)).geometry
    assert outline.geom_type == "Polygon" and outline.is_valid and outline.area > 0


def test_nodes_of_a_glb_are_features_and_turn_with_the_heading(tmp_path: Path) -> None:
    path = tmp_path / "楼.glb"
    path.write_bytes(scene().export(file_type="glb"))
    north = read(path, ReadOptions(place=PLACE))
    east = read(path, ReadOptions(place=Placement(114.3, 30.6, 20.0, 90.0, 2.0)))
    assert set(north.column("name")) == {"主楼", "附楼", "招牌"}
    for a, b in zip(meshes(north), meshes(east), strict=True):
        x, y, z = local(a, PLACE).T
        np.testing.assert_allclose(local(b, PLACE), np.stack([y, -x, z], 1) * 2, atol=1e-5)


def test_models_in_map_coordinates_need_a_crs_and_no_place(tmp_path: Path) -> None:
    path = tmp_path / "map.obj"
    path.write_text("v 527000 3390000 20\nv 527009 3390000 20\nv 527009 3390007 26\nf 1 2 3\n")
    batch = read(path, ReadOptions(crs="EPSG:4547"))
    assert batch.ref.code == "EPSG:4547"
    np.testing.assert_allclose(meshes(batch)[0].vertices[0], (527000, 3390000, 20))
    with pytest.raises(CrsMissing, match="as those of a map do"):
        read(path, ReadOptions())
    with pytest.raises(OutsideArea, match="from its origin"):
        read(path, ReadOptions(place=PLACE))
    with pytest.raises(ConfigError, match="either"):
        read(path, ReadOptions(place=PLACE, crs="EPSG:4547"))


def test_a_model_without_a_place_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(CimError, match="--place LON,LAT,HEIGHT"):
        read(campus(tmp_path), ReadOptions())


def test_batches_keep_ids_whatever_their_size(tmp_path: Path) -> None:
    with open_source(campus(tmp_path), ReadOptions(place=PLACE)) as reader:
        one = list(reader.batches())
        many = list(reader.batches(max_nbytes=1))
        assert [b.ids.tolist() for b in one] == [[0, 1]]
        assert [b.ids.tolist() for b in many] == [[0], [1]]
        east = list(reader.batches(columns=("name",), region=(114.30015, 30, 115, 31)))
        assert [b.ids.tolist() for b in east] == [[1]]
        with pytest.raises(FieldInvalid, match="no field"):
            list(reader.batches(columns=("x",)))


def test_the_axis_that_points_up_is_an_assumption_for_obj_alone(tmp_path: Path) -> None:
    with open_source(campus(tmp_path), ReadOptions(place=PLACE)) as reader:
        assert [f.rule for f in reader.info().findings] == ["model-up"]
        assert len(reader.info().files) == 3
    path = tmp_path / "a.glb"
    path.write_bytes(scene().export(file_type="glb"))
    with open_source(path, ReadOptions(place=PLACE)) as reader:
        assert reader.info().findings == ()
    assert "v 0 0 0" in CAMPUS
