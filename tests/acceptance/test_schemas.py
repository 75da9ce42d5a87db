"""Every file of every 3D Tiles asset of the demo, before the judges: schemas, Khronos, `cim check`.

The archive is read as what it claims to be, a ZIP, by the standard library.
"""

from __future__ import annotations

import json
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import Assets
from tests.acceptance.tilesets import subtree_parts, walk
from tests.commands import Command
from tests.conftest import GltfIssues, SchemaErrors

INDEX = "@3dtilesIndex1@"
EXTENSIONS = {
    name: f"gltf/{name}/schema/{file}.{name}.schema.json"
    for name, file in (
        ("EXT_structural_metadata", "glTF"),
        ("EXT_mesh_features", "mesh.primitive"),
    )
}


@pytest.fixture(scope="module")
def archives(demo: Assets) -> dict[str, dict[str, bytes]]:
    """Every entry of every 3D Tiles archive, by asset and name."""
    found = {}
    for asset in demo.of("buildings"):
        with zipfile.ZipFile(demo.store(asset["id"], "3tz")) as archive:
            assert archive.testzip() is None
            found[asset["id"]] = {name: archive.read(name) for name in archive.namelist()}
    assert len(found) == 3
    return found


def gltf_json(glb: bytes) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(glb[20 : 20 + struct.unpack_from("<I", glb, 12)[0]])
    return document


def test_every_json_keeps_its_schema(
    archives: dict[str, dict[str, bytes]], schema_errors: SchemaErrors
) -> None:
    judged = 0
    for asset, files in archives.items():
        for name, data in files.items():
            documents: list[tuple[str, Any]] = []
            if name == "tileset.json":
                documents = [("3d-tiles/tileset.schema.json", json.loads(data))]
            elif name.endswith(".subtree"):
                documents = [("3d-tiles/Subtree/subtree.schema.json", subtree_parts(data)[0])]
            elif name.endswith(".glb"):
                gltf = gltf_json(data)
                documents = [("gltf/core/glTF.schema.json", gltf)]
                holders = [gltf, *(p for m in gltf["meshes"] for p in m["primitives"])]
                for holder in holders:
                    extensions = holder["extensions"]
                    documents += [
                        (EXTENSIONS[e], extensions[e]) for e in EXTENSIONS if e in extensions
                    ]
                assert len(documents) == 3
            else:
                assert name == INDEX
            for schema, document in documents:
                assert schema_errors(schema, document) == [], f"{asset}: {name}"
                judged += 1
    assert judged >= 3 * (1 + 1 + 3)


def test_the_khronos_validator_finds_no_error_and_no_warning(
    archives: dict[str, dict[str, bytes]], gltf_issues: GltfIssues, tmp_path: Path
) -> None:
    paths = []
    for asset, files in archives.items():
        for name, data in files.items():
            if name.endswith(".glb"):
                paths.append(tmp_path / f"{asset}-{name.replace('/', '-')}")
                paths[-1].write_bytes(data)
    found = gltf_issues(paths)
    assert len(found) == len(paths) >= 3
    assert not any(found.values()), found


def test_an_archive_holds_what_its_tileset_leads_to_and_nothing_else(
    archives: dict[str, dict[str, bytes]],
) -> None:
    for files in archives.values():
        found = {f.url for f in walk("tileset.json", files.__getitem__)}
        assert found == set(files) - {INDEX}
        assert list(files)[-1] == INDEX


def test_errors_decrease_from_the_tileset_to_its_leaves(
    archives: dict[str, dict[str, bytes]],
) -> None:
    def decreases(tile: dict[str, Any], above_m: float) -> None:
        assert above_m > tile["geometricError"] > 0
        for child in tile.get("children", ()):
            decreases(child, tile["geometricError"])

    for files in archives.values():
        tileset = json.loads(files["tileset.json"])
        decreases(tileset["root"], tileset["geometricError"])


def test_cim_check_finds_every_law_kept(cim_here: Command, demo: Assets) -> None:
    assert len(demo.listed) == 18
    for asset in demo.listed:
        checked = cim_here("check", asset["id"], "--data", demo.data, "--json")
        assert checked.code == 0, (asset["id"], checked.out)
        assert [f for f in checked.json()["findings"] if f["severity"] == "error"] == []
