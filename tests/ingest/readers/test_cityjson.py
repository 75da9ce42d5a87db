"""CityJSON and its sequences: real buildings, volumes, looks, and files that lie."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely

from ingest.readers import open_source
from ingest.readers.base import ReadOptions
from ingest.readers.cityjson import CityJsonReader
from tests.ingest.readers.reader_tests import ReaderTests, the_layer
from tiling.batches import MESH_COLUMN, FeatureBatch
from tiling.errors import CrsMissing, SourceUnreadable
from tiling.meshes import GROUND, ROOF, WALL, FeatureMesh, decode_mesh

DATA = Path(__file__).parents[2] / "data" / "city"
DELFT = DATA / "delft.city.json"
# A box of 4 x 3 x 2 with a hole of 1 x 1 through it from top to bottom.
_OUTER = [(0, 0), (4, 0), (4, 3), (0, 3)]
_INNER = [(1, 1), (1, 2), (2, 2), (2, 1)]
BOX = [[x, y, z] for z in (0, 2) for x, y in (*_OUTER, *_INNER)]
WALLS = [[[i, (i + 1) % 4, (i + 1) % 4 + 8, i + 8]] for i in range(4)]
HOLE = [[[4 + i, 4 + (i + 1) % 4, 12 + (i + 1) % 4, 12 + i]] for i in range(4)]
BOTTOM = [[0, 3, 2, 1], [4, 7, 6, 5]]
TOP = [[8, 9, 10, 11], [12, 13, 14, 15]]
SHELL = [BOTTOM, TOP, *WALLS, *HOLE]


def city(**changes: Any) -> dict[str, Any]:
    document: dict[str, Any] = {
        "type": "CityJSON",
        "version": "2.0",
        "transform": {"scale": [1, 1, 1], "translate": [500000, 3390000, 20]},
        "metadata": {"referenceSystem": "https://www.opengis.net/def/crs/EPSG/0/4547"},
        "CityObjects": {
            "甲": {
                "type": "Building",
                "attributes": {"名称": "教学楼", "layers": 2, "built": "2001-02-03", "x": [1]},
                "geometry": [{"type": "Solid", "lod": "2.2", "boundaries": [SHELL]}],
            }
        },
        "vertices": BOX,
    }
    return document | changes


def written(folder: Path, document: dict[str, Any]) -> Path:
    path = folder / "楼.city.json"
    path.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    return path


def read(path: Path, crs: str | None = None) -> FeatureBatch:
    with open_source(path, ReadOptions(crs=crs)) as reader:
        assert isinstance(reader, CityJsonReader)
        (batch,) = reader.batches()
        return batch


def meshes(batch: FeatureBatch) -> list[FeatureMesh]:
    return [decode_mesh(record) for record in batch.attributes.column(MESH_COLUMN).to_pylist()]


def volume(mesh: FeatureMesh) -> float:
    """Signed volume by the divergence theorem."""
    corners = (mesh.vertices - mesh.vertices[0])[mesh.triangles]
    return float(np.einsum("ti,ti->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6)


def open_edges(mesh: FeatureMesh) -> int:
    """Count directed sides of triangles without their opposite."""
    sides = np.stack([mesh.triangles, np.roll(mesh.triangles, -1, axis=1)], axis=2).reshape(-1, 2)
    there = {tuple(side) for side in sides.tolist()}
    return sum((b, a) not in there for a, b in there)


class TestCityJson(ReaderTests):
    @pytest.fixture
    def reader_class(self) -> type[CityJsonReader]:
        return CityJsonReader

    @pytest.fixture
    def source(self) -> Path:
        return DELFT

    def test_fields_are_those_of_the_batches(self, source: Path, options: ReadOptions) -> None:
        with open_source(source, options) as reader:
            fields = the_layer(reader, options).fields
            (batch,) = reader.batches()
        schema = [(f.name, str(f.type)) for f in batch.attributes.schema]
        assert schema == [(f.name, f.type) for f in fields] + [(MESH_COLUMN, "large_binary")]

    def test_the_extent_and_z_are_those_of_the_geometry(
        self, source: Path, options: ReadOptions
    ) -> None:
        """Footprints have no z, and roofs may reach beyond them: the extent is that of shapes."""
        with open_source(source, options) as reader:
            layer = the_layer(reader, options)
            (batch,) = reader.batches()
        every = np.concatenate([mesh.vertices for mesh in meshes(batch)])
        assert layer.has_z and layer.extent is not None
        np.testing.assert_allclose(layer.extent[:2], every.min(axis=0)[:2], atol=1e-9)
        np.testing.assert_allclose(layer.extent[2:], every.max(axis=0)[:2], atol=1e-9)


class TestCityJsonSeq(TestCityJson):
    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        return sequence(tmp_path / "delft.city.jsonl", json.loads(DELFT.read_text()))


def sequence(path: Path, document: dict[str, Any]) -> Path:
    """Write a document as a sequence, each building with the vertices it uses."""
    head = {k: document[k] for k in ("type", "version", "transform", "metadata")}
    lines: list[dict[str, Any]] = [{**head, "CityObjects": {}, "vertices": []}]
    things = document["CityObjects"]
    for name, thing in things.items():
        if thing["type"] == "Building":
            own = {n: things[n] for n in (name, *thing.get("children", []))}
            lines.append(
                {
                    "type": "CityJSONFeature",
                    "id": name,
                    "CityObjects": own,
                    "vertices": document["vertices"],
                }
            )
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n", encoding="utf-8")
    return path


def test_volumes_are_those_that_the_surveyors_state() -> None:
    batch = read(DELFT)
    stated = batch.column("b3_volume_lod22")
    assert len(batch) == 10 and set(batch.column("lod")) == {"2.2"}
    found = [volume(mesh) for mesh in meshes(batch)]
    np.testing.assert_allclose(found, stated, rtol=2e-3)


def test_footprints_are_the_union_of_the_ground_surfaces() -> None:
    raw = json.loads(DELFT.read_text())
    points = np.array(raw["vertices"])[:, :2] * raw["transform"]["scale"][:2]
    points += raw["transform"]["translate"][:2]
    batch = read(DELFT)
    for name, outline in zip(batch.column("id"), batch.geometry, strict=True):
        grounds = []
        for part in raw["CityObjects"][name]["children"]:
            (solid,) = [g for g in raw["CityObjects"][part]["geometry"] if g["lod"] == "2.2"]
            kinds = [s["type"] for s in solid["semantics"]["surfaces"]]
            for face, kind in zip(
                solid["boundaries"][0], solid["semantics"]["values"][0], strict=True
            ):
                if kinds[kind] == "GroundSurface":
                    shell, *holes = [points[ring] for ring in face]
                    grounds.append(shapely.make_valid(shapely.Polygon(shell, holes)))
        expected = shapely.union_all(grounds)
        assert outline.is_valid
        assert shapely.area(shapely.symmetric_difference(outline, expected)) < 1e-3, name


def test_places_heights_and_surfaces_are_those_of_the_file() -> None:
    raw = json.loads(DELFT.read_text())
    name = "NL.IMBAG.Pand.0503100000030621"
    members = [name, *raw["CityObjects"][name]["children"]]
    assert len(members) == 3
    fine = [g for m in members for g in raw["CityObjects"][m]["geometry"] if g["lod"] == "2.2"]
    used = sorted(
        {i for g in fine for shell in g["boundaries"] for f in shell for r in f for i in r}
    )
    expected = np.array(raw["vertices"])[used] * raw["transform"]["scale"]
    expected += raw["transform"]["translate"]
    batch = read(DELFT)
    mesh = meshes(batch)[batch.column("id").tolist().index(name)]
    found = np.unique(mesh.vertices, axis=0)
    np.testing.assert_allclose(found, np.unique(expected, axis=0), atol=1e-9)
    assert set(mesh.surfaces.tolist()) == {WALL, ROOF, GROUND} and mesh.colors is None


def test_attributes_keep_their_types() -> None:
    schema = read(DELFT).attributes.schema
    types = {n: str(schema.field(n).type) for n in schema.names}
    assert types["b3_bouwlagen"] == "int64" and types["b3_h_dak_max"] == "double"
    assert types["b3_is_glas_dak"] == "bool" and types["begingeldigheid"] == "date32[day]"
    assert types["status"] == "string" and types["tijdstipregistratie"] == "string"


def test_a_height_datum_that_cannot_be_computed_is_said(tmp_path: Path) -> None:
    with open_source(DELFT) as reader:
        layer = reader.info().layers[0]
        assert layer.ref is not None and layer.ref.code == "EPSG:28992"
        assert layer.ref.vertical is None
        assert any(f.rule == "vertical-unknown" for f in reader.findings)


def test_a_sequence_says_what_the_file_says(tmp_path: Path) -> None:
    whole = read(DELFT)
    lines = read(sequence(tmp_path / "a.city.jsonl", json.loads(DELFT.read_text())))
    assert lines.attributes.equals(whole.attributes)
    assert shapely.equals_exact(lines.geometry, whole.geometry).all()


def test_a_solid_with_a_hole_is_closed_and_has_its_volume(tmp_path: Path) -> None:
    batch = read(written(tmp_path, city()))
    (mesh,) = meshes(batch)
    assert volume(mesh) == pytest.approx(4 * 3 * 2 - 2) and open_edges(mesh) == 0
    assert batch.ref.code == "EPSG:4547"
    (outline,) = batch.geometry
    assert outline.area == pytest.approx(11) and len(outline.interiors) == 1
    assert np.bincount(mesh.surfaces).tolist() == [16, 8, 8]  # by slope
    assert mesh.vertices.min(axis=0).tolist() == [500000, 3390000, 20]


def test_nested_attributes_are_json_and_dates_are_dates(tmp_path: Path) -> None:
    row = read(written(tmp_path, city())).attributes.drop([MESH_COLUMN]).to_pylist()[0]
    assert row["名称"] == "教学楼" and row["x"] == "[1]" and str(row["built"]) == "2001-02-03"
    assert (row["id"], row["type"], row["lod"]) == ("甲", "Building", "2.2")


@pytest.mark.parametrize(
    ("kind", "boundaries"),
    [
        ("MultiSurface", SHELL),
        ("CompositeSurface", SHELL),
        ("MultiSolid", [[SHELL]]),
        ("CompositeSolid", [[SHELL]]),
    ],
)
def test_every_nesting_gives_the_same_shape(tmp_path: Path, kind: str, boundaries: Any) -> None:
    document = city()
    document["CityObjects"]["甲"]["geometry"] = [
        {"type": kind, "lod": "1.2", "boundaries": boundaries}
    ]
    (mesh,) = meshes(read(written(tmp_path, document)))
    assert volume(mesh) == pytest.approx(22)


def test_an_instance_is_its_template_moved(tmp_path: Path) -> None:
    template = {"type": "MultiSurface", "lod": "2", "boundaries": SHELL}
    document = city(**{"geometry-templates": {"templates": [template], "vertices-templates": BOX}})
    matrix = [2, 0, 0, 10, 0, 2, 0, 0, 0, 0, 2, 0, 0, 0, 0, 1]
    document["CityObjects"]["甲"]["geometry"] = [
        {
            "type": "GeometryInstance",
            "template": 0,
            "boundaries": [2],
            "transformationMatrix": matrix,
        }
    ]
    (mesh,) = meshes(read(written(tmp_path, document)))
    assert volume(mesh) == pytest.approx(22 * 8)
    assert mesh.vertices.min(axis=0).tolist() == [500014, 3390003, 20]


def test_parts_belong_to_their_building_and_its_coarse_shape_gives_way(tmp_path: Path) -> None:
    document = city()
    solid = document["CityObjects"]["甲"]["geometry"][0]
    document["CityObjects"]["甲"]["geometry"] = [{**solid, "lod": "1"}]
    for name in ("a", "b"):
        document["CityObjects"][name] = {
            "type": "BuildingPart",
            "parents": ["甲"],
            "geometry": [solid, {**solid, "lod": "3.1"}, {**solid, "lod": 1}],
        }
    batch = read(written(tmp_path, document))
    (mesh,) = meshes(batch)
    assert volume(mesh) == pytest.approx(44) and batch.column("lod").tolist() == ["2.2"]


def test_a_footprint_alone_is_left_to_be_extruded(tmp_path: Path) -> None:
    document = city()
    document["CityObjects"]["甲"]["geometry"] = [
        {"type": "MultiSurface", "lod": "0", "boundaries": [[TOP[0], TOP[1]]]}
    ]
    batch = read(written(tmp_path, document))
    assert batch.attributes.column(MESH_COLUMN).to_pylist() == [None]
    assert batch.geometry[0].area == pytest.approx(11)


def test_materials_win_over_semantics() -> None:
    (mesh,) = meshes(read(DATA / "mt-1.json", "EPSG:28992"))
    assert mesh.colors is not None
    # sRGB 0.1 and 0.9 in linear light (IEC 61966-2-1), half clear.
    assert {tuple(c) for c in mesh.colors.tolist()} == {(3, 3, 201, 128)}
    assert volume(mesh) == pytest.approx(20.53, abs=0.01)


def textured(image: str) -> dict[str, Any]:
    document = city(
        appearance={
            "textures": [{"type": "PNG", "image": image}],
            "vertices-texture": [[0, 0], [1, 0], [1, 1], [0, 1]],
        }
    )
    nothing = [[None]]
    values = [[[None], [None]], [[None], [None]], [[0, 0, 1, 2, 3]], *[nothing] * 7]
    geometry = document["CityObjects"]["甲"]["geometry"][0]
    geometry["texture"] = {"夏": {"values": [values]}}
    return document


def test_textures_lie_on_their_faces_with_v_downwards(tmp_path: Path) -> None:
    (tmp_path / "墙.png").write_bytes(b"\x89PNG\r\n\x1a\n-")
    (mesh,) = meshes(read(written(tmp_path, textured("墙.png"))))
    assert mesh.image is not None and mesh.uv is not None and len(mesh.images) == 1
    (rows,) = np.nonzero(mesh.image >= 0)
    assert len(rows) == 2 and set(mesh.surfaces[rows].tolist()) == {WALL}
    corners = mesh.vertices[mesh.triangles[rows]] - [500000, 3390000, 20]
    # The wall of y = 0 is 4 wide and 2 high.
    np.testing.assert_allclose(mesh.uv[rows][..., 0], corners[..., 0] / 4, atol=1e-6)
    np.testing.assert_allclose(mesh.uv[rows][..., 1], 1 - corners[..., 2] / 2, atol=1e-6)


def test_a_missing_texture_is_a_finding(tmp_path: Path) -> None:
    path = written(tmp_path, textured("../../etc/passwd.png"))
    with open_source(path) as reader:
        (batch,) = reader.batches()
        assert meshes(batch)[0].images == ()
        assert [f.rule for f in reader.findings if f.severity == "warning"] == ["texture-missing"]


def test_what_is_no_building_is_counted(tmp_path: Path) -> None:
    document = city()
    document["CityObjects"]["tree"] = {"type": "SolitaryVegetationObject", "geometry": []}
    document["CityObjects"]["room"] = {"type": "BuildingRoom", "parents": ["甲"], "geometry": []}
    document["CityObjects"]["无"] = {"type": "Building"}
    with open_source(written(tmp_path, document)) as reader:
        assert reader.info().layers[0].features == 2
        found = {f.rule: f.count for f in reader.findings}
    assert found["geometry-missing"] == 1 and "object-skipped" in found


def test_latitude_first_is_turned_around(tmp_path: Path) -> None:
    document = city(metadata={"referenceSystem": "EPSG:4490"})
    document["transform"] = {"scale": [1e-5, 1e-5, 1], "translate": [30.5, 114.3, 20]}
    batch = read(written(tmp_path, document))
    np.testing.assert_allclose(shapely.bounds(batch.geometry[0])[:2], (114.3, 30.5))
    document["transform"]["translate"] = [114.3, 30.5, 20]
    with open_source(written(tmp_path, document)) as reader:
        (batch,) = reader.batches()
        assert "axis-order" in {f.rule for f in reader.findings}
    np.testing.assert_allclose(shapely.bounds(batch.geometry[0])[:2], (114.3, 30.5))


def _with_boundaries(boundaries: Any) -> dict[str, Any]:
    document = city()
    document["CityObjects"]["甲"]["geometry"][0]["boundaries"] = boundaries
    return document


def _circle() -> dict[str, Any]:
    document = city()
    document["CityObjects"]["a"] = {"type": "BuildingPart", "parents": ["b"]}
    document["CityObjects"]["b"] = {"type": "BuildingPart", "parents": ["a"]}
    return document


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (_with_boundaries([[[[0, 1, 99]]]]), "object '甲' has vertex 99 of 16"),
        (_with_boundaries([[[[0, 1, -1]]]]), "object '甲' has vertex -1 of 16"),
        (_with_boundaries([[[[0, 1, 1.5]]]]), "1.5 where the number of a vertex belongs"),
        (_with_boundaries([[0, 1, 2]]), "no lists of rings"),
        (_circle(), "around in a circle"),
        (city(vertices=[[0, 0, 1e999]] * 16), "vertex 0|no JSON"),
        (city(vertices=[[0, 0]] * 16), "three numbers"),
        (city(vertices={}), "no list of vertices"),
        (city(version="9.9"), "CityJSON '9.9'"),
        (city(CityObjects=[]), "no CityObjects"),
        (city(CityObjects={"甲": {}}), "object '甲' has no type"),
    ],
)
def test_files_that_lie_are_refused_by_object_and_value(
    tmp_path: Path, document: dict[str, Any], said: str
) -> None:
    path = written(tmp_path, document)
    with open_source(path) as reader, pytest.raises(SourceUnreadable, match=said) as caught:
        reader.info()
    assert "楼.city.json" in str(caught.value) and caught.value.remedy


@pytest.mark.parametrize("part", [0.3, 0.7, 0.999])
def test_a_file_cut_short_is_refused(tmp_path: Path, part: float) -> None:
    data = DELFT.read_bytes()
    path = tmp_path / "cut.city.json"
    path.write_bytes(data[: int(len(data) * part)])
    with open_source(path) as reader, pytest.raises(SourceUnreadable, match="cut short"):
        reader.info()


def test_a_sequence_with_a_foreign_line_names_it(tmp_path: Path) -> None:
    path = sequence(tmp_path / "a.jsonl", json.loads(DELFT.read_text()))
    path.write_text(path.read_text() + '{"type":"Feature"}\n')
    with open_source(path) as reader, pytest.raises(SourceUnreadable, match="line 12 "):
        reader.info()


def test_without_a_reference_system_it_must_be_declared(tmp_path: Path) -> None:
    path = written(tmp_path, city(metadata={}))
    with open_source(path) as reader, pytest.raises(CrsMissing, match="no reference system"):
        next(iter(reader.batches()))
    assert read(path, "EPSG:4547").ref.code == "EPSG:4547"
