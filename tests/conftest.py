"""Fixtures shared by the whole suite.

The real command line; the demo, ingested once; and independent judges of tiles: the JSON Schemas
of their formats, and the Khronos glTF validator.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from tests.commands import Command, Outcome, run_cim
from tests.postgres import Server, running_server

SCHEMAS = Path(__file__).parent / "schemas"
NODE = Path(__file__).parent / "node"
DIALECT = "https://json-schema.org/draft/2020-12/schema"

SchemaErrors = Callable[[str, Any], list[str]]
GltfIssues = Callable[[list[Path]], dict[str, list[dict[str, Any]]]]


@pytest.fixture(scope="session")
def cim() -> Command:
    return run_cim


@pytest.fixture
def cim_here(capfd: pytest.CaptureFixture[str]) -> Command:
    """Run the command line in this process: the same code without the start-up."""
    from cim_server.cli import main

    def run(*arguments: str | Path) -> Outcome:
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main([str(a) for a in arguments])
        out, err = capfd.readouterr()
        return Outcome(int(stopped.value.code or 0), out, err)

    return run


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A PostgreSQL server with PostGIS, started when first asked for."""
    with running_server() as server:
        yield server


@pytest.fixture(scope="session")
def demo_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the whole demo, made once for all test processes."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = shared / "demo-data"
    with (shared / "demo.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "done").exists():
            done = run_cim("demo", "--data", folder, "--port", "0", "--check")
            assert done.code == 0, done.err
            (folder / "done").touch()
    return folder


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
