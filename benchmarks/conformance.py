"""Every tile of a city before the judges: JSON Schemas, the Khronos validator, ``cim check``."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import jsonschema
from referencing import Registry

from benchmarks import city
from benchmarks.bench import Bench, ingest
from benchmarks.footprints import OPTIONS
from benchmarks.published import cim_json, tileset_paths
from tests.acceptance.tilesets import subtree_parts, walk
from tests.conftest import DIALECT, NODE, _load

_AT_ONCE = 400


def conformance(bench: Bench) -> dict[str, Any]:
    """A hundred thousand buildings of each layout; fails where a judge objects."""
    result: dict[str, Any] = {}
    for layout in ("grid", "natural"):
        count = bench.count(100_000)
        data = bench.data("conformance")
        source = city.footprints(bench.folder, count, layout)
        bench.run(f"{layout} city of {count}", ingest(source, "city", OPTIONS, data))
        started = time.perf_counter()
        (path,) = tileset_paths(data, "city")
        with zipfile.ZipFile(path) as archive:
            judged = _judge(archive)
        errors = [
            finding
            for finding in cim_json("check", "city", "--data", data)["findings"]
            if finding["severity"] == "error"
        ]
        assert not errors, errors
        judged["seconds"] = round(time.perf_counter() - started, 1)
        print(f"{layout}: {judged}", flush=True)
        result[layout] = judged
    return result


def _judge(archive: zipfile.ZipFile) -> dict[str, Any]:
    validators = {
        name: _validator(path)
        for name, path in {
            "tileset": "3d-tiles/tileset.schema.json",
            "subtree": "3d-tiles/Subtree/subtree.schema.json",
            "gltf": "gltf/core/glTF.schema.json",
            "EXT_structural_metadata": "gltf/EXT_structural_metadata/schema/"
            "glTF.EXT_structural_metadata.schema.json",
            "EXT_mesh_features": "gltf/EXT_mesh_features/schema/"
            "mesh.primitive.EXT_mesh_features.schema.json",
        }.items()
    }
    counts = {"tiles": 0, "documents": 0}
    names = []
    for found in walk("tileset.json", archive.read):
        if found.kind == "content":
            gltf = json.loads(found.data[20 : 20 + struct.unpack_from("<I", found.data, 12)[0]])
            documents = [("gltf", gltf)]
            for holder in (gltf, *(p for mesh in gltf["meshes"] for p in mesh["primitives"])):
                documents += [(n, e) for n, e in holder["extensions"].items() if n in validators]
            names.append(found.url)
        elif found.kind == "subtree":
            documents = [("subtree", subtree_parts(found.data)[0])]
        else:
            documents = [("tileset", json.loads(found.data))]
        for kind, document in documents:
            errors = [e.message for e in validators[kind].iter_errors(document)]
            assert not errors, f"{found.url}: {errors[:3]}"
            counts["documents"] += 1
    counts["tiles"] = len(names)
    for begin in range(0, len(names), _AT_ONCE):
        _khronos(archive, names[begin : begin + _AT_ONCE])
    return counts


def _validator(path: str) -> jsonschema.Draft202012Validator:
    schema = {"$schema": DIALECT, "$ref": f"https://schemas.invalid/{path}"}
    return jsonschema.Draft202012Validator(schema, registry=Registry(retrieve=_load))


def _khronos(archive: zipfile.ZipFile, names: list[str]) -> None:
    node = shutil.which("node")
    assert node, "node is missing"
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{number}.glb" for number in range(len(names))]
        for path, name in zip(paths, names, strict=True):
            path.write_bytes(archive.read(name))
        command = [node, NODE / "gltf_issues.js", *paths]
        done = subprocess.run(command, capture_output=True, check=True, text=True)
    issues = {name: found for name, found in json.loads(done.stdout).items() if found}
    assert not issues, list(issues.items())[:3]
