"""Independent judges of tiles: JSON Schemas of the formats, and the Khronos glTF validator."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import settings
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

SCHEMAS = Path(__file__).parent.parent / "schemas"
NODE = Path(__file__).parent.parent / "node"
DIALECT = "https://json-schema.org/draft/2020-12/schema"

# Timing is not what these tests state, and shared machines are uneven.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

SchemaErrors = Callable[[str, Any], list[str]]
GltfIssues = Callable[[list[Path]], dict[str, list[dict[str, Any]]]]


def _load(uri: str) -> Resource[Any]:
    path = SCHEMAS / uri.removeprefix("https://schemas.invalid/")
    if not path.exists():
        # Extensions refer to glTF's own schemas as if they lay in one folder.
        path = SCHEMAS / "gltf" / "core" / path.name
    document = json.loads(path.read_text("utf-8"))
    # Several schemas claim one $id; the path is what tells them apart.
    document["$id"] = uri
    return Resource.from_contents(document, default_specification=DRAFT202012)


@pytest.fixture(scope="session")
def schema_errors() -> SchemaErrors:
    """Return a function (path below tests/schemas, document) -> what the schema objects to."""
    registry: Registry[Any] = Registry(retrieve=_load)

    def errors(path: str, document: Any) -> list[str]:
        schema = {"$schema": DIALECT, "$ref": f"https://schemas.invalid/{path}"}
        validator = jsonschema.Draft202012Validator(schema, registry=registry)
        return [f"{e.json_path}: {e.message}" for e in validator.iter_errors(document)]

    return errors


@pytest.fixture(scope="session")
def gltf_issues() -> GltfIssues:
    """Return a function from glb files to the validator's errors and warnings."""
    node = shutil.which("node")
    if node is None or not (NODE / "node_modules" / "gltf-validator").exists():
        pytest.fail("the glTF validator is missing: npm ci --prefix tests/node")

    def issues(files: list[Path]) -> dict[str, list[dict[str, Any]]]:
        done = subprocess.run(
            [node, NODE / "gltf_issues.js", *files], capture_output=True, check=True, text=True
        )
        found: dict[str, list[dict[str, Any]]] = json.loads(done.stdout)
        return found

    return issues
