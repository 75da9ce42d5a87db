"""Buildings as 3D Tiles 1.0: the same city in the older packing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pygltflib
import pytest

from tests.commands import Command
from tiling.errors import FormatError
from tiling.formats.b3dm import decode_b3dm
from tiling.formats.gltf_reading import Glb
from tiling.stores.gzip_member import content
from tiling.stores.zip3tz import ThreeTzReader


@pytest.fixture(scope="module")
def exported(cim: Command, demo_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("legacy") / "上海"
    done = cim("export", "shanghai-buildings", out, "--format", "3dtiles-1.0", "--data", demo_data)
    assert done.code == 0, done.err
    return out


def tiles(tile: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield tile
    assert tile.get("refine", "REPLACE") == "REPLACE"
    assert bool(tile.get("children")) == (tile["geometricError"] > 0)
    for child in tile.get("children", ()):
        assert child["geometricError"] < tile["geometricError"]
        yield from tiles(child)


def contents(folder: Path) -> dict[str, bytes]:
    root = json.loads((folder / "tileset.json").read_text("utf-8"))["root"]
    uris = [tile["content"]["uri"] for tile in tiles(root) if "content" in tile]
    assert len(uris) == len(set(uris))
    return {uri: (folder / uri).read_bytes() for uri in uris}


def original(cim: Command, demo_data: Path) -> dict[str, Glb]:
    shown = cim("show", "shanghai-buildings", "--data", demo_data, "--json").json()
    store = next(s for s in shown["versions"][0]["stores"] if s["role"] == "tiles")
    reader = ThreeTzReader(demo_data / store["path"])
    found = {}
    for key in reader.keys():
        if key.endswith(".glb"):
            tile = reader.get(key)
            assert tile is not None
            found[key.removesuffix(".glb") + ".b3dm"] = Glb(content(tile))
    reader.close()
    return found


def test_the_tileset_is_explicit_and_of_version_1_0(exported: Path, schema_errors: Any) -> None:
    document = json.loads((exported / "tileset.json").read_text("utf-8"))
    assert document["asset"]["version"] == "1.0"
    assert schema_errors("3d-tiles/tileset.schema.json", document) == []
    assert "implicitTiling" not in json.dumps(document)
    # A viewer that flies to the tileset finds the city, not a cell of 78 km.
    west, south, east, north = np.degrees(document["root"]["boundingVolume"]["region"][:4])
    assert 0 < east - west < 0.3 and 0 < north - south < 0.3
    files = {str(p.relative_to(exported)) for p in exported.rglob("*.b3dm")}
    assert files == set(contents(exported))


def test_every_building_keeps_its_attributes_and_its_place(
    cim: Command, demo_data: Path, exported: Path
) -> None:
    expected = original(cim, demo_data)
    made = contents(exported)
    assert made.keys() == expected.keys()
    for uri, data in made.items():
        glb, table, length = decode_b3dm(data)
        count, columns = expected[uri].features()
        assert length == count
        metadata = expected[uri].document["extensions"]["EXT_structural_metadata"]
        (properties,) = (c["properties"] for c in metadata["schema"]["classes"].values())
        assert set(table) == {prop["name"] for prop in properties.values()}
        for identity, prop in properties.items():
            absent = [None] * count
            values = columns[identity].tolist() if identity in columns else absent
            assert table[prop["name"]] == values
        (before,) = expected[uri].primitives()
        document = pygltflib.GLTF2().load_from_bytes(glb)
        node = document.nodes[0]
        accessor = document.accessors[document.meshes[0].primitives[0].attributes.POSITION]
        view = document.bufferViews[accessor.bufferView]
        local = np.frombuffer(
            document.binary_blob(), "<f4", accessor.count * 3, view.byteOffset
        ).reshape(-1, 3)
        matrix = np.array(node.matrix).reshape(4, 4).T
        y_up = local.astype(float) @ matrix[:3, :3].T + matrix[:3, 3]
        after = np.column_stack([y_up[:, 0], -y_up[:, 2], y_up[:, 1]])
        # Metres in float32: of its 24 bits, what a tile spans takes most.
        assert np.abs(after - before.ecef).max() < local.max() * 2.0**-23


def test_the_models_inside_need_no_extension_and_are_valid(
    exported: Path, gltf_issues: Any, tmp_path: Path
) -> None:
    files = []
    for number, data in enumerate(contents(exported).values()):
        assert len(data) % 8 == 0
        glb, _, length = decode_b3dm(data)
        document = pygltflib.GLTF2().load_from_bytes(glb)
        assert not document.extensionsRequired
        attributes = document.meshes[0].primitives[0].attributes
        accessor = document.accessors[attributes._BATCHID]
        view = document.bufferViews[accessor.bufferView]
        assert accessor.componentType == pygltflib.UNSIGNED_SHORT
        raw = np.frombuffer(document.binary_blob(), "<u2", view.byteLength // 2, view.byteOffset)
        ids = raw[:: (view.byteStride or 2) // 2][: accessor.count]
        assert set(ids.tolist()) == set(range(length))
        files.append(tmp_path / f"{number}.glb")
        files[-1].write_bytes(glb)
    assert all(issues == [] for issues in gltf_issues(files).values())


def test_what_is_no_b3dm_is_refused(exported: Path) -> None:
    data = next(iter(contents(exported).values()))
    for broken in (b"", data[:20], data[:-1], b"glTF" + data[4:]):
        with pytest.raises(FormatError):
            decode_b3dm(broken)


def test_only_buildings_have_it(cim: Command, demo_data: Path, tmp_path: Path) -> None:
    done = cim(
        "export", "hubei-terrain", tmp_path / "t", "--format", "3dtiles-1.0", "--data", demo_data
    )
    assert done.code == 2
    assert "3tz" in done.err
