"""CityGML 2.0 and 3.0: a real block of Yokosuka, and buildings written for one question each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import shapely
from lxml import etree

from ingest.readers import open_source
from ingest.readers.base import ReadOptions
from ingest.readers.citygml import CityGmlReader
from tests.ingest.readers.reader_tests import ReaderTests, the_layer
from tests.ingest.readers.test_cityjson import BOX, SHELL, meshes, open_edges, volume
from tiling.batches import MESH_COLUMN, FeatureBatch
from tiling.ellipsoid import enu_to_ecef_matrix, geodetic_to_ecef
from tiling.errors import SourceUnreadable
from tiling.meshes import GROUND, ROOF, WALL, FeatureMesh

DATA = Path(__file__).parents[2] / "data" / "city"
# Square metres of a square degree at 35.26 degrees north on WGS 84.
DEGREES2 = 90_998.0 * 110_945.0
YOKOSUKA = DATA / "52397519_bldg_6697_op.gml"
SPACES = {
    "2.0": 'xmlns:core="http://www.opengis.net/citygml/2.0" '
    'xmlns:bldg="http://www.opengis.net/citygml/building/2.0" '
    'xmlns:gen="http://www.opengis.net/citygml/generics/2.0" '
    'xmlns:app="http://www.opengis.net/citygml/appearance/2.0" '
    'xmlns:gml="http://www.opengis.net/gml" ',
    "3.0": 'xmlns:core="http://www.opengis.net/citygml/3.0" '
    'xmlns:bldg="http://www.opengis.net/citygml/building/3.0" '
    'xmlns:con="http://www.opengis.net/citygml/construction/3.0" '
    'xmlns:gen="http://www.opengis.net/citygml/generics/3.0" '
    'xmlns:app="http://www.opengis.net/citygml/appearance/3.0" '
    'xmlns:gml="http://www.opengis.net/gml/3.2" ',
}
ENVELOPE = (
    '<gml:boundedBy><gml:Envelope srsName="urn:ogc:def:crs,crs:EPSG::25832,crs:EPSG::7837">'
    "</gml:Envelope></gml:boundedBy>"
)
ORIGIN = np.array([690000.0, 5335000.0, 500.0])


def polygon(face: list[list[int]], name: str = "", reverse: bool = False) -> str:
    rings = []
    for number, ring in enumerate(face):
        corners = [*ring, ring[0]]
        text = " ".join(
            f"{v:.3f}" for i in (corners[::-1] if reverse else corners) for v in BOX[i] + ORIGIN
        )
        role = "exterior" if number == 0 else "interior"
        ring_id = f' gml:id="{name}_ring"' if name and number == 0 else ""
        rings.append(
            f"<gml:{role}><gml:LinearRing{ring_id}><gml:posList>{text}</gml:posList>"
            f"</gml:LinearRing></gml:{role}>"
        )
    polygon_id = f' gml:id="{name}"' if name else ""
    return f"<gml:Polygon{polygon_id}>{''.join(rings)}</gml:Polygon>"


def members(polygons: list[str]) -> str:
    return "".join(f"<gml:surfaceMember>{p}</gml:surfaceMember>" for p in polygons)


def solid(inside: str) -> str:
    return (
        "<gml:Solid><gml:exterior><gml:CompositeSurface>"
        f"{inside}</gml:CompositeSurface></gml:exterior></gml:Solid>"
    )


def model(buildings: str, more: str = "", version: str = "2.0", head: str = ENVELOPE) -> str:
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><core:CityModel {SPACES[version]} '
        f'xmlns:xlink="http://www.w3.org/1999/xlink">{head}'
        f"<core:cityObjectMember>{buildings}</core:cityObjectMember>{more}</core:CityModel>"
    )


def building(inside: str, name: str = "楼1") -> str:
    return f'<bldg:Building gml:id="{name}">{inside}</bldg:Building>'


WHOLE = solid(members([polygon(face) for face in SHELL]))


def written(folder: Path, text: str) -> Path:
    path = folder / "城.gml"
    path.write_text(text, encoding="utf-8")
    return path


def read(path: Path) -> FeatureBatch:
    with open_source(path, ReadOptions()) as reader:
        assert isinstance(reader, CityGmlReader)
        (batch,) = reader.batches()
        return batch


def one(folder: Path, text: str) -> FeatureMesh:
    (mesh,) = meshes(read(written(folder, text)))
    return mesh


class TestCityGml(ReaderTests):
    @pytest.fixture
    def reader_class(self) -> type[CityGmlReader]:
        return CityGmlReader

    @pytest.fixture
    def source(self) -> Path:
        return YOKOSUKA

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
        np.testing.assert_allclose(layer.extent[:2], every.min(axis=0)[:2], atol=1e-12)
        np.testing.assert_allclose(layer.extent[2:], every.max(axis=0)[:2], atol=1e-12)

    def test_the_fingerprint_moves_with_the_file_and_changes_with_a_byte(
        self, source: Path, options: ReadOptions, tmp_path: Path
    ) -> None:
        """Pictures lie in a folder beside the file, so the whole folder is copied."""
        with open_source(source, options) as reader:
            info = reader.info()
        assert {f.suffix for f in info.files} == {".gml", ".jpg"}
        copied = copy_with_pictures(tmp_path)
        with open_source(copied, options) as reader:
            assert reader.info().fingerprint() == info.fingerprint()
        with info.files[1].open("rb") as file:
            picture = file.read()
        (copied.parent / info.files[1].relative_to(DATA)).write_bytes(picture + b" ")
        with open_source(copied, options) as reader:
            assert reader.info().fingerprint() != info.fingerprint()


def copy_with_pictures(folder: Path) -> Path:
    target = folder / "udx" / "bldg" / YOKOSUKA.name
    for file in (YOKOSUKA, *DATA.glob("52397519_bldg_6697_appearance/*")):
        place = target.parent / file.relative_to(DATA)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(file.read_bytes())
    return target


def metres(mesh: FeatureMesh) -> FeatureMesh:
    """Bring a mesh in degrees to a local frame in metres."""
    lon, lat, height = mesh.vertices[0]
    frame = enu_to_ecef_matrix(lon, lat, height)
    local = (geodetic_to_ecef(*mesh.vertices.T) - frame[:3, 3]) @ frame[:3, :3]
    return FeatureMesh(local, mesh.triangles, mesh.surfaces)


def test_yokosuka_lies_where_it_is_and_is_closed() -> None:
    batch = read(YOKOSUKA)
    assert len(batch) == 4 and batch.ref.code == "EPSG:6668"
    assert shapely.total_bounds(batch.geometry)[:2] == pytest.approx((139.7380, 35.2587), abs=2e-3)
    tree = etree.parse(str(YOKOSUKA))
    for row, mesh in enumerate(meshes(batch)):
        local = metres(mesh)
        # A block of lod1 is its footprint times its height.
        assert open_edges(local) == 0 and volume(local) > 0
        if batch.column("lod")[row] == "1":
            height = np.ptp(mesh.vertices[:, 2])
            area = shapely.area(batch.geometry[row]) * DEGREES2
            assert volume(local) == pytest.approx(area * height, rel=0.01)
    lowest = min(mesh.vertices[:, 2].min() for mesh in meshes(batch))
    positions = [e.text.split() for e in tree.iter("{*}posList")]
    assert lowest == min(float(v) for text in positions for v in text[2::3])


def test_pictures_lie_on_the_roof_of_yokosuka() -> None:
    batch = read(YOKOSUKA)
    row = batch.column("lod").tolist().index("2")
    mesh = meshes(batch)[row]
    assert [t.media_type for t in mesh.images] == ["image/jpeg"]
    assert mesh.image is not None and mesh.uv is not None
    drawn = mesh.image >= 0
    assert drawn.any() and set(mesh.surfaces[drawn].tolist()) == {ROOF}
    # The first corner of the ring has u, v = 0.292331, 0.007874 in the file.
    corner = np.array((139.73897719313715, 35.25959331855165, 16.491458252427755))
    at = (
        np.all(np.isclose(mesh.vertices[mesh.triangles], corner, atol=1e-12), axis=2)
        & drawn[:, None]
    )
    near = mesh.uv[at]
    assert np.isclose(near, (0.292331, 1 - 0.007874), atol=1e-6).all(axis=1).any()


def test_attributes_of_yokosuka_have_types_and_chinese_or_japanese_names() -> None:
    batch = read(YOKOSUKA)
    types = {n: str(batch.attributes.schema.field(n).type) for n in batch.attributes.schema.names}
    assert types["measuredHeight"] == "double" and types["storeysAboveGround"] == "int64"
    assert types["図形ID"] == "int64" and types["１階床面積"] == "double"
    assert types["buildingID"] == "string" and types["totalFloorArea"] == "double"
    row = batch.column("id").tolist().index("bldg_787d830e-2534-410a-8a2a-a531efeb2533")
    assert batch.column("name")[row] == "横須賀美術館" and batch.column("usage")[row] == "422"


def test_codes_become_what_their_list_says(tmp_path: Path) -> None:
    path = copy_with_pictures(tmp_path)
    (tmp_path / "codelists").mkdir()
    (tmp_path / "codelists" / "Building_usage.xml").write_text(
        '<gml:Dictionary xmlns:gml="http://www.opengis.net/gml"><gml:dictionaryEntry>'
        "<gml:Definition><gml:description>文教厚生施設</gml:description><gml:name>422</gml:name>"
        "</gml:Definition></gml:dictionaryEntry></gml:Dictionary>",
        encoding="utf-8",
    )
    batch = read(path)
    row = batch.column("id").tolist().index("bldg_787d830e-2534-410a-8a2a-a531efeb2533")
    assert batch.column("usage")[row] == "文教厚生施設"
    assert batch.column("usage_code")[row] == "422"
    with open_source(path) as reader:
        assert any(f.name == "Building_usage.xml" for f in reader.info().files)


def test_a_solid_is_closed_and_has_its_volume(tmp_path: Path) -> None:
    mesh = one(tmp_path, model(building(f"<bldg:lod1Solid>{WHOLE}</bldg:lod1Solid>")))
    assert volume(mesh) == pytest.approx(22, abs=1e-6) and open_edges(mesh) == 0
    np.testing.assert_allclose(mesh.vertices.min(axis=0), ORIGIN)


def bounded(version: str, reference: bool = True) -> str:
    """A building whose surfaces say what they are, and a solid that refers to them."""
    kinds = ["GroundSurface", "RoofSurface", *["WallSurface"] * 8]
    names = [f"p{i}" for i in range(10)]
    space, role, at = (
        ("bldg", "boundedBy", "bldg") if version == "2.0" else ("con", "boundary", "core")
    )
    role = f"{'bldg' if version == '2.0' else 'core'}:{role}"
    faces = "".join(
        f"<{role}><{space}:{kind}><{at}:lod2MultiSurface><gml:MultiSurface>"
        f"{members([polygon(face, name)])}</gml:MultiSurface></{at}:lod2MultiSurface>"
        f"</{space}:{kind}></{role}>"
        for kind, name, face in zip(kinds, names, SHELL, strict=True)
    )
    links = "".join(f'<gml:surfaceMember xlink:href="#{name}"/>' for name in names)
    inside = solid(links) if reference else WHOLE
    return building(f"{faces}<{at}:lod2Solid>{inside}</{at}:lod2Solid>")


@pytest.mark.parametrize("version", ["2.0", "3.0"])
@pytest.mark.parametrize("reference", [True, False])
def test_surfaces_are_drawn_once_and_say_what_they_are(
    tmp_path: Path, version: str, reference: bool
) -> None:
    mesh = one(tmp_path, model(bounded(version, reference), version=version))
    assert volume(mesh) == pytest.approx(22, abs=1e-6) and len(mesh.triangles) == 32
    counts = np.bincount(mesh.surfaces)
    assert (counts[WALL], counts[ROOF], counts[GROUND]) == (16, 8, 8)


def test_surfaces_that_are_turned_around_are_turned_back(tmp_path: Path) -> None:
    turned = [
        '<gml:OrientableSurface orientation="-"><gml:baseSurface>'
        f"{polygon(face, reverse=True)}</gml:baseSurface></gml:OrientableSurface>"
        for face in SHELL
    ]
    inside = solid(members(turned))
    mesh = one(tmp_path, model(building(f"<bldg:lod2Solid>{inside}</bldg:lod2Solid>")))
    assert volume(mesh) == pytest.approx(22, abs=1e-6)


@pytest.mark.parametrize("role", ["consistsOfBuildingPart", "outerBuildingInstallation"])
def test_parts_are_of_their_building_and_its_coarse_shape_gives_way(
    tmp_path: Path, role: str
) -> None:
    kind = "BuildingPart" if "Part" in role else "BuildingInstallation"
    part = (
        f"<bldg:{role}><bldg:{kind}><gml:name>翼</gml:name><bldg:lod2Solid>{WHOLE}"
        f"</bldg:lod2Solid></bldg:{kind}></bldg:{role}>"
    )
    text = model(building(f"<bldg:lod1Solid>{WHOLE}</bldg:lod1Solid>{part}{part}"))
    assert volume(one(tmp_path, text)) == pytest.approx(44, abs=1e-6)
    names = read(written(tmp_path, text)).attributes.column_names
    assert ("name" in names) == (kind == "BuildingPart")


def test_generic_attributes_of_both_versions(tmp_path: Path) -> None:
    shape = f"<bldg:lod1Solid>{WHOLE}</bldg:lod1Solid>"
    old = '<gen:stringAttribute name="编码"><gen:value>0012</gen:value></gen:stringAttribute>'
    old += '<gen:intAttribute name="n"><gen:value>x</gen:value></gen:intAttribute>'
    batch = read(written(tmp_path, model(building(old + shape))))
    assert batch.column("编码").tolist() == ["0012"] and batch.column("n").tolist() == ["x"]
    new = (
        "<core:genericAttribute><gen:IntAttribute><gen:name>层数</gen:name>"
        "<gen:value>7</gen:value></gen:IntAttribute></core:genericAttribute>"
        f"<core:lod1Solid>{WHOLE}</core:lod1Solid>"
    )
    batch = read(written(tmp_path, model(building(new), version="3.0")))
    assert batch.column("层数").tolist() == [7]


def test_materials_colour_the_surfaces_they_name(tmp_path: Path) -> None:
    looks = (
        "<app:appearanceMember><app:Appearance><app:surfaceDataMember><app:X3DMaterial>"
        "<app:diffuseColor>1 0 0</app:diffuseColor><app:target>#p1</app:target>"
        "</app:X3DMaterial></app:surfaceDataMember></app:Appearance></app:appearanceMember>"
    )
    mesh = one(tmp_path, model(bounded("2.0"), looks))
    assert mesh.colors is not None
    red = np.all(mesh.colors == (255, 0, 0, 255), axis=1)
    assert set(mesh.surfaces[red].tolist()) == {ROOF} and red.sum() == 8


@pytest.mark.parametrize("version", ["2.0", "3.0"])
def test_textures_of_both_versions(tmp_path: Path, version: str) -> None:
    (tmp_path / "墙.png").write_bytes(b"\x89PNG\r\n\x1a\n-")
    uv = "0 0 1 0 1 1 0 1 0 0"
    if version == "2.0":
        target = (
            '<app:target uri="#p2"><app:TexCoordList>'
            f'<app:textureCoordinates ring="#p2_ring">{uv}</app:textureCoordinates>'
            "</app:TexCoordList></app:target>"
        )
    else:
        target = (
            "<app:textureParameterization><app:TextureAssociation><app:target>#p2</app:target>"
            "<app:textureParameterization><app:TexCoordList>"
            f"<app:textureCoordinates>{uv}</app:textureCoordinates><app:ring>#p2_ring</app:ring>"
            "</app:TexCoordList></app:textureParameterization></app:TextureAssociation>"
            "</app:textureParameterization>"
        )
    looks = (
        "<app:appearanceMember><app:Appearance><app:surfaceDataMember><app:ParameterizedTexture>"
        f"<app:imageURI>墙.png</app:imageURI>{target}</app:ParameterizedTexture>"
        "</app:surfaceDataMember></app:Appearance></app:appearanceMember>"
    )
    mesh = one(tmp_path, model(bounded(version), looks, version))
    assert mesh.image is not None and mesh.uv is not None and len(mesh.images) == 1
    (rows,) = np.nonzero(mesh.image >= 0)
    assert len(rows) == 2
    corners = mesh.vertices[mesh.triangles[rows]] - ORIGIN
    np.testing.assert_allclose(mesh.uv[rows][..., 0], corners[..., 0] / 4, atol=1e-6)
    np.testing.assert_allclose(mesh.uv[rows][..., 1], 1 - corners[..., 2] / 2, atol=1e-6)


def test_the_frame_of_a_compound_name_is_its_horizontal_part(tmp_path: Path) -> None:
    path = written(tmp_path, model(building(f"<bldg:lod1Solid>{WHOLE}</bldg:lod1Solid>")))
    with open_source(path) as reader:
        layer = reader.info().layers[0]
        assert layer.ref is not None and layer.ref.code == "EPSG:25832"
        assert layer.extra["format"] == "CityGML 2.0"


def test_a_reference_to_nothing_is_a_finding(tmp_path: Path) -> None:
    text = model(bounded("2.0")).replace('href="#p3"', 'href="#nowhere"')
    with open_source(written(tmp_path, text)) as reader:
        reader.info()
        assert "reference-missing" in {f.rule for f in reader.findings}


SHAPE = building(f"<bldg:lod1Solid>{WHOLE}</bldg:lod1Solid>")
BOMB = (
    '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">'
    '<!ENTITY c SYSTEM "file:///etc/passwd">]>'
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (model(SHAPE).replace("690000.000", "north", 1), "building '楼1' has .*north"),
        (model(SHAPE).replace("690000.000", "nan", 1), "building '楼1' has the position"),
        (model(SHAPE).replace("690000.000 ", "", 1), "no multiple of three"),
        (model(SHAPE)[:-300], "cut short"),
        (model(SHAPE).replace("?>", "?>" + BOMB, 1), "document type declaration"),
        (model(SHAPE).replace("/2.0", "/1.0"), "CityGML 1.0"),
        (
            model(SHAPE).replace("<gml:Solid>", '<gml:Solid srsName="EPSG:4326">'),
            "what came before",
        ),
    ],
)
def test_files_that_lie_are_refused_by_building_and_value(
    tmp_path: Path, text: str, said: str
) -> None:
    with open_source(written(tmp_path, text)) as reader:
        with pytest.raises(SourceUnreadable, match=said) as caught:
            reader.info()
    assert "城.gml" in str(caught.value) and caught.value.remedy


def test_a_surface_that_refers_to_itself_is_refused(tmp_path: Path) -> None:
    inside = (
        '<bldg:lod2MultiSurface><gml:MultiSurface gml:id="m">'
        '<gml:surfaceMember xlink:href="#m"/></gml:MultiSurface></bldg:lod2MultiSurface>'
    )
    with open_source(written(tmp_path, model(building(inside)))) as reader:
        with pytest.raises(SourceUnreadable, match="refers to itself"):
            reader.info()
