"""The rooms of the house and the arrows between them, as the code has them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("tiling", "ingest", "styles", "catalog", "cim_server")
MAY_IMPORT = {
    "tiling": set(),
    "styles": set(),
    "catalog": {"tiling"},
    "ingest": {"catalog", "tiling"},
    "cim_server": {"ingest", "catalog", "tiling", "styles"},
}
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}


def modules() -> dict[str, Path]:
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if "node_modules" in path.parts:
                continue
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


MODULES = modules()


def imports(path: Path, name: str, at_import_time: bool) -> Iterator[str]:
    """Yield the dotted names a module imports, only the unconditional ones if asked."""

    def walk(node: ast.AST) -> Iterator[ast.AST]:
        for child in ast.iter_child_nodes(node):
            lazy = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            typing_only = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            if at_import_time and (lazy or typing_only):
                continue
            yield child
            yield from walk(child)

    for node in walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative import"
            for alias in node.names:
                dotted = f"{node.module}.{alias.name}"
                yield dotted if dotted in MODULES else str(node.module)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_what_its_layer_may(name: str) -> None:
    layer = name.split(".")[0]
    for target in imports(MODULES[name], name, at_import_time=False):
        other = target.split(".")[0]
        if other in PACKAGES and other != layer:
            assert other in MAY_IMPORT[layer], f"{name} imports {target}"


def test_no_import_cycles() -> None:
    graph = {
        name: {t for t in imports(path, name, at_import_time=True) if t in MODULES and t != name}
        for name, path in MODULES.items()
    }
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" → ".join(error.args[1]))


def test_only_one_module_imports_pyproj() -> None:
    users = {
        name
        for name, path in MODULES.items()
        if any(t.split(".")[0] == "pyproj" for t in imports(path, name, at_import_time=False))
    }
    assert users == {"tiling.crs"}


def test_tiling_and_catalog_know_no_http_and_tiling_no_database() -> None:
    http = {"starlette", "fastapi", "titiler", "uvicorn", "httpx"}
    for name, path in MODULES.items():
        targets = {t.split(".")[0] for t in imports(path, name, at_import_time=False)}
        if not name.startswith("cim_server"):
            assert not targets & http, name
        if name.startswith("tiling"):
            assert not targets & {"sqlalchemy", "alembic"}, name


def test_the_server_starts_without_compilers_or_rivals() -> None:
    for name, path in MODULES.items():
        if name.startswith("cim_server"):
            targets = {t.split(".")[0] for t in imports(path, name, at_import_time=False)}
            assert not targets & {"numba", "py3dtiles"}, name


def test_no_module_is_named_for_nothing_in_particular() -> None:
    for name in MODULES:
        assert not FORBIDDEN_NAMES & set(name.split(".")), name


def test_packages_are_at_most_two_deep() -> None:
    for name, path in MODULES.items():
        depth = len(path.relative_to(ROOT).parts)
        assert depth <= 4, f"{name} lies too deep"


def test_every_package_is_typed_and_says_what_it_is() -> None:
    for package in PACKAGES:
        assert (ROOT / package / "py.typed").exists()
    for name, path in MODULES.items():
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), (
            f"{name} has no docstring"
        )


def test_nothing_unfinished_is_left_behind() -> None:
    pattern = re.compile(r"\b(TODO|FIXME|XXX|raise NotImplementedError)\b")
    for name, path in MODULES.items():
        hit = pattern.search(path.read_text(encoding="utf-8"))
        assert hit is None, f"{name}: {hit.group()}"
