"""Models: what OBJ and glTF files hold, and where a placement puts it."""

from __future__ import annotations

import base64
import io
import json
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from ingest.manifest import IngestOptions, merge_options, read_manifest
from ingest.plan import make_plan
from ingest.readers.gltf import read_gltf
from ingest.readers.obj import read_obj
from ingest.readers.parts import Model, Part
from ingest.readers.placement import Placement, parse_up
from tiling.ellipsoid import geodetic_to_ecef
from tiling.errors import ConfigError, SourceUnreadable
from tiling.findings import Findings

CAMPUS = """\
# 校园
mtllib 材质.mtl
o 教学楼
v 0 0 0
v 10 0 0
v 10 0 -8
v 0 0 -8
v 0 5 0
v 10 5 0
v 10 5 -8
v 0 5 -8
vt 0 0
vt 1 0
vt 1 1
vt 0 1
usemtl 墙
f 1/1 2/2 6/3 5/4
f 2/1 3/2 7/3 6/4
f 3/1 4/2 8/3 7/4
f 4/1 1/2 5/3 8/4
usemtl roof
f 5 6 7 8
f 4 3 2 1
o tower
v 20 0 0
v 22 0 0
v 22 0 -2
v 20 9 -1
usemtl 墙
f -4 -3 -1
f -3 -2 -1
f -2 -4 -1
f -2 -3 -4
"""
LIBRARY = "newmtl 墙\nKd 1 1 1\nmap_Kd -s 1 1 1 墙 面.png\nnewmtl roof\nKd 0.5 0 0\nd 0.5\n"


def png() -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), 90, np.uint8)).save(out, "PNG")
    return out.getvalue()


def campus(folder: Path, encoding: str = "utf-8") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "校园.obj").write_bytes(CAMPUS.encode(encoding))
    (folder / "材质.mtl").write_bytes(LIBRARY.encode(encoding))
    (folder / "墙 面.png").write_bytes(png())
    return folder / "校园.obj"


def volume(part: Part) -> float:
    """Signed volume: positive when triangles are counter-clockwise from outside."""
    a, b, c = (part.vertices[part.triangles[:, i]] for i in range(3))
    return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6)


@pytest.mark.parametrize("encoding", ["utf-8", "gbk"])
def test_every_object_of_an_obj_is_a_part_with_its_materials(tmp_path: Path, encoding: str) -> None:
    findings = Findings()
    model = read_obj(campus(tmp_path, encoding), findings)
    school, tower = model.parts
    assert (school.name, tower.name) == ("教学楼", "tower")
    assert school.materials == ("墙", "roof") and tower.materials == ("墙",)
    assert volume(school) == pytest.approx(400) and volume(tower) == pytest.approx(6)
    assert {f.name for f in model.files} == {"校园.obj", "材质.mtl", "墙 面.png"}
    assert [t.data for t in model.images] == [png()]
    assert (school.image == [0] * 8 + [-1] * 4).all()
    assert (tower.image == -1).all()  # a texture, but no coordinates
    # Half of sRGB is a fifth of the light.
    assert school.colors[8:].tolist() == [[55, 0, 0, 128]] * 4
    assert school.uv[0].tolist() == [[0, 1], [1, 1], [1, 0]]  # v counts downwards
    assert len(findings) == 0


def test_groups_stand_in_where_there_are_no_objects(tmp_path: Path) -> None:
    path = tmp_path / "a.obj"
    path.write_text(CAMPUS.replace("\no ", "\ng "))
    assert [p.name for p in read_obj(path, Findings()).parts] == ["教学楼", "tower"]
    path.write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    assert [p.name for p in read_obj(path, Findings()).parts] == [""]


def test_what_is_missing_beside_an_obj_is_told_and_the_rest_stays(tmp_path: Path) -> None:
    path = campus(tmp_path)
    (tmp_path / "墙 面.png").unlink()
    findings = Findings()
    model = read_obj(path, findings)
    assert [f.rule for f in findings] == ["texture-missing"] and not model.images
    (tmp_path / "材质.mtl").unlink()
    findings = Findings()
    read_obj(path, findings)
    assert {f.rule for f in findings} == {"material-library-missing", "material-missing"}


@pytest.mark.parametrize("name", ["http://example.com/a.png", "../墙.png", "/etc/hostname"])
def test_nothing_outside_of_the_models_folder_is_read(tmp_path: Path, name: str) -> None:
    (tmp_path / "墙.png").write_bytes(png())
    path = campus(tmp_path / "m")
    (tmp_path / "m" / "材质.mtl").write_text(LIBRARY.replace("墙 面.png", name), "utf-8")
    findings = Findings()
    assert read_obj(path, findings).images == []
    assert [f.rule for f in findings] == ["texture-missing"]


def test_paths_of_another_machine_lead_to_the_file_beside(tmp_path: Path) -> None:
    path = campus(tmp_path)
    away = LIBRARY.replace("墙 面.png", "D:\\项目\\贴图\\墙 面.png")
    (tmp_path / "材质.mtl").write_text(away, "utf-8")
    assert len(read_obj(path, Findings()).images) == 1
    (tmp_path / "材质.mtl").write_text(LIBRARY.replace("墙 面.png", "贴图\\墙 面.png"), "utf-8")
    assert len(read_obj(path, Findings()).images) == 1


def test_concave_polygons_keep_their_area_and_side(tmp_path: Path) -> None:
    ring = [(0, 0), (4, 0), (4, 1), (1, 1), (1, 3), (4, 3), (4, 4), (0, 4)]
    lines = [f"v {x} {y} 7" for x, y in ring] + ["f " + " ".join(map(str, range(1, 9)))]
    path = tmp_path / "c.obj"
    path.write_text("\n".join(lines))
    (part,) = read_obj(path, Findings()).parts
    a, b, c = (part.vertices[part.triangles[:, i]] for i in range(3))
    areas = np.cross(b - a, c - a)[:, 2] / 2
    assert len(areas) == 6 and (areas > 0).all() and areas.sum() == pytest.approx(10)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("f 1 2 99", "vertex 99"),
        ("f 1 2 0", "means nothing"),
        ("f 1 2 -99", "means nothing"),
        ("f 1 2 x", "means nothing"),
        ("f 1 2", "2 corners"),
        ("v nan 0 0", "vertex 13"),
        ("v a b c", "no numbers"),
        ("f 1/9 2/9 3/9", "texture coordinate 9"),
    ],
)
def test_a_damaged_obj_is_a_clear_error(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "a.obj"
    path.write_text(CAMPUS + line + "\n")
    with pytest.raises(SourceUnreadable, match=said) as caught:
        read_obj(path, Findings())
    assert str(path) in str(caught.value) and caught.value.remedy


def test_an_obj_without_faces_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.obj"
    path.write_text("v 0 0 0\n")
    with pytest.raises(SourceUnreadable, match="no faces"):
        read_obj(path, Findings())


def scene() -> trimesh.Scene:
    """Two nodes that show one box, one of them mirrored and turned, and a textured square."""
    found = trimesh.Scene()
    box = trimesh.creation.box((2, 4, 6))
    turn = trimesh.transformations.rotation_matrix(0.7, (0, 1, 0), (1, 0, 0))
    mirror = np.diag([-1.0, 1.0, 1.0, 1.0])
    found.add_geometry(box, node_name="主楼", geom_name="box")
    found.add_geometry(box, node_name="附楼", geom_name="box", transform=turn @ mirror)
    square = trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], [[0, 1, 2], [0, 2, 3]])
    picture = Image.fromarray(np.full((4, 4, 3), 200, np.uint8))
    material = trimesh.visual.material.PBRMaterial(
        name="招牌", baseColorTexture=picture, baseColorFactor=[255, 128, 0, 255]
    )
    uv = np.array([[0, 0], [1, 0], [1, 1], [0, 1.0]])
    square.visual = trimesh.visual.TextureVisuals(uv=uv, material=material)
    found.add_geometry(square, node_name="招牌", geom_name="square")
    return found


def sorted_corners(model: Model) -> NDArray[np.float64]:
    corners = np.concatenate([p.vertices[p.triangles].reshape(-1, 9) for p in model.parts])
    rounded = corners.round(5) + 0.0
    return rounded[np.lexsort(rounded.T)]


@pytest.mark.parametrize("ending", ["glb", "gltf"])
def test_gltf_agrees_with_an_independent_reader(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"楼.{ending}"
    if ending == "glb":
        path.write_bytes(scene().export(file_type="glb"))
    else:
        for name, data in trimesh.exchange.gltf.export_gltf(scene()).items():
            (path if name == "model.gltf" else tmp_path / name).write_bytes(data)
    model = read_gltf(path, Findings())
    assert {p.name for p in model.parts} == {"主楼", "附楼", "招牌"}
    theirs = trimesh.load_scene(path, process=False).to_mesh()
    wanted = theirs.triangles.reshape(-1, 9).round(5) + 0.0
    ours = sorted_corners(model)
    # A mirrored triangle may begin at another corner: compare what does not depend on it.
    assert len(ours) == len(wanted)
    for total in (np.min, np.max, np.sum):
        a = np.sort(total(ours.reshape(-1, 3, 3), axis=1), axis=0)
        b = np.sort(total(wanted.reshape(-1, 3, 3), axis=1), axis=0)
        np.testing.assert_allclose(a, b, atol=1e-4)
    by_name = {p.name: p for p in model.parts}
    assert volume(by_name["主楼"]) == pytest.approx(48, rel=1e-5)
    assert volume(by_name["附楼"]) == pytest.approx(48, rel=1e-5)  # not inside out
    sign = by_name["招牌"]
    assert sign.materials == ("招牌",) and (sign.image == 0).all() and len(model.images) == 1
    assert sign.colors[0].tolist() == [255, 128, 0, 255]


def handmade(**changes: Any) -> bytes:
    """A glTF of one triangle in an embedded buffer."""
    data = struct.pack("<9f3H", 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 1, 2)
    uri = "data:application/octet-stream;base64," + base64.b64encode(data).decode()
    document: dict[str, Any] = {
        "asset": {"version": "2.0"},
        "nodes": [{"mesh": 0}],
        "scenes": [{"nodes": [0]}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "indices": 1}]}],
        "buffers": [{"byteLength": 42, "uri": uri}],
        "bufferViews": [
            {"buffer": 0, "byteLength": 36},
            {"buffer": 0, "byteOffset": 36, "byteLength": 6},
        ],
        "accessors": [
            {"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3"},
            {"bufferView": 1, "componentType": 5123, "count": 3, "type": "SCALAR"},
        ],
    }
    return json.dumps(document | changes).encode()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"nodes": [{"mesh": 3}]}, "damaged"),
        ({"nodes": [{"mesh": 0, "children": [0]}]}, "two parents"),
        ({"nodes": []}, "damaged"),
        ({"scenes": [{"nodes": []}]}, "no node shows triangles"),
        ({"extensionsRequired": ["KHR_draco_mesh_compression"]}, "compressed by KHR_draco"),
        ({"buffers": [{"byteLength": 42, "uri": "gone.bin"}]}, "missing"),
        ({"buffers": [{"byteLength": 42, "uri": "http://example.com/a.bin"}]}, "missing"),
        ({"buffers": [{"byteLength": 42, "uri": "data:;base64,AA=="}]}, "shorter"),
        ({"accessors": []}, "damaged"),
        ({"meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "indices": 0}]}]}, ""),
    ],
)
def test_a_damaged_gltf_is_a_clear_error(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    path = tmp_path / "a.gltf"
    path.write_bytes(handmade())
    assert len(read_gltf(path, Findings()).parts) == 1
    path.write_bytes(handmade(**changes))
    if said:
        with pytest.raises(SourceUnreadable, match=said):
            read_gltf(path, Findings())


def test_random_damage_of_a_glb_never_raises_anything_else(tmp_path: Path) -> None:
    whole = scene().export(file_type="glb")
    rng = np.random.default_rng(2)
    path = tmp_path / "a.glb"
    for _ in range(200):
        data = bytearray(whole)
        for at in rng.integers(0, len(data), 5):
            data[at] = rng.integers(0, 256)
        path.write_bytes(bytes(data[: rng.integers(1, len(data) + 1)]))
        try:
            read_gltf(path, Findings())
        except SourceUnreadable:
            pass


angles = st.floats(-720, 720)
places = st.builds(
    Placement,
    st.floats(74, 135),
    st.floats(4, 53),
    st.floats(-100, 4000),
    angles,
    st.floats(0.01, 100),
)


@given(places, st.lists(st.tuples(*[st.floats(-50, 50)] * 3), min_size=2, max_size=9))
def test_distances_survive_the_placement_times_its_scale(
    place: Placement, points: list[tuple[float, float, float]]
) -> None:
    local = np.array(points)
    lon, lat, height = place.geodetic(place.enu(local)).T
    earth = geodetic_to_ecef(lon, lat, height)
    ours = np.linalg.norm(np.diff(earth, axis=0), axis=1)
    wanted = np.linalg.norm(np.diff(local, axis=0), axis=1) * place.scale
    np.testing.assert_allclose(ours, wanted, atol=1e-5)


@given(places)
def test_the_origin_lies_where_it_was_put_and_heading_turns_clockwise(place: Placement) -> None:
    origin, ahead = place.geodetic(place.enu(np.array([[0.0, 0, 0], [0, 10, 0]])))
    np.testing.assert_allclose(origin, (place.lon_deg, place.lat_deg, place.height_m), atol=1e-7)
    east = (ahead[0] - origin[0]) * math.cos(math.radians(place.lat_deg))
    azimuth = math.degrees(math.atan2(east, ahead[1] - origin[1]))
    assert abs((azimuth - place.heading_deg + 180) % 360 - 180) < 0.5


def test_a_placement_is_read_longitude_first() -> None:
    assert Placement.parse("114.3, 30.6,25") == Placement(114.3, 30.6, 25.0)
    assert Placement.parse("114.3,30.6,25,90,0.01") == Placement(114.3, 30.6, 25.0, 90.0, 0.01)
    table = {"source": "a.obj", "lon": 114, "lat": 30.5, "height": 20, "scale": 0.5}
    assert Placement.from_table(table) == Placement(114.0, 30.5, 20.0, 0.0, 0.5)


@pytest.mark.parametrize(
    "text", ["", "114", "114,30", "30.6,114.3,25", "a,b,c", "1,2,3,4,5,6", "nan,0,0", "1,2,3,0,0"]
)
def test_a_placement_that_means_no_place_is_a_usage_error(text: str) -> None:
    with pytest.raises(ConfigError):
        Placement.parse(text)


def test_a_manifest_places_each_model_beside_it(tmp_path: Path) -> None:
    manifest = tmp_path / "校园.toml"
    manifest.write_text(
        'id = "campus"\nup = "z"\n'
        '[[models]]\nsource = "a.glb"\nlon = 114.3\nlat = 30.6\nheight = 20\nup = "y"\n'
        '[[models]]\nsource = "b.obj"\nlon = 114.31\nlat = 30.6\nheight = 21\nheading = 45\n',
        "utf-8",
    )
    options = merge_options({}, read_manifest(manifest))
    assert options.sources == (tmp_path / "a.glb", tmp_path / "b.obj")
    assert options.placement(tmp_path / "a.glb") == (Placement(114.3, 30.6, 20.0), "y")
    assert options.placement(tmp_path / "b.obj") == (Placement(114.31, 30.6, 21.0, 45.0), "z")
    json.dumps(options.to_json())


@pytest.mark.parametrize(
    "table",
    ["lon = 114\nlat = 30\nheight = 0", 'source = "a.glb"\nlon = 114', 'source = "a"\nx = 1'],
)
def test_a_model_that_is_told_too_little_is_a_usage_error(tmp_path: Path, table: str) -> None:
    manifest = tmp_path / "m.toml"
    manifest.write_text('id = "a"\n[[models]]\n' + table, "utf-8")
    with pytest.raises(ConfigError):
        merge_options({}, read_manifest(manifest))


def test_a_placement_of_what_is_no_model_is_a_usage_error(tmp_path: Path) -> None:
    footprints = Path(__file__).parent.parent / "data" / "wuhan_buildings.geojson"
    with pytest.raises(ConfigError, match="only OBJ and glTF"):
        make_plan(IngestOptions(sources=(footprints,), id="a", place="114,30,0"))


def test_a_table_that_lacks_a_number_is_a_usage_error() -> None:
    with pytest.raises(ConfigError, match="lacks height"):
        Placement.from_table({"lon": 114, "lat": 30})
    with pytest.raises(ConfigError, match="no number"):
        Placement.from_table({"lon": 114, "lat": 30, "height": True})
    with pytest.raises(ConfigError, match="--up"):
        parse_up("x")
