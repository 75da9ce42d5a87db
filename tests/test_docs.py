"""What the pages say is what the program does."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
import typer

from cim_server.app import make_app
from cim_server.cli import app
from cim_server.demo import DEMO_FOLDER, demo_manifests
from cim_server.settings import Settings
from ingest.export import EXPORTERS
from ingest.manifest import KINDS, IngestOptions, merge_options

ROOT = Path(__file__).parent.parent


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def command(name: str) -> Any:
    group = typer.main.get_command(app)
    return group.commands[name]  # type: ignore[attr-defined]


def test_the_two_commands_are_the_first_lines_of_the_readme() -> None:
    for readme in ("README.md", "README.zh-CN.md"):
        block = page(readme).split("```")[1]
        assert [line.split("#")[0].strip() for line in block.splitlines()[1:3]] == [
            "make demo",
            "make test",
        ]
    targets = re.findall(r"^(\w+):", page("Makefile"), re.MULTILINE)
    assert {"setup", "demo", "test", "lint", "bench"} <= set(targets)


def test_every_command_and_option_is_documented_and_no_other() -> None:
    text = page("docs/cli.md")
    group = typer.main.get_command(app)
    for name in group.commands:  # type: ignore[attr-defined]
        assert re.search(rf"\b{name}\b", text), name
        for parameter in command(name).params:
            for flag in parameter.opts:
                if flag.startswith("--") and flag != "--help":
                    assert f"{flag}" in text, f"cim {name} {flag}"
    known = {
        flag
        for name in group.commands  # type: ignore[attr-defined]
        for parameter in command(name).params
        for flag in (*parameter.opts, *parameter.secondary_opts)
    }
    assert set(re.findall(r"--[a-z][a-z-]+", text)) <= known


@pytest.mark.parametrize("readme", ["README.md", "README.zh-CN.md"])
def test_the_readme_shows_only_options_that_exist(readme: str) -> None:
    for line in re.sub(r"\\\n", " ", page(readme)).splitlines():
        if line.startswith("cim "):
            name = line.split()[1]
            known = {flag for p in command(name).params for flag in p.opts}
            assert set(re.findall(r"--[a-z-]+", line)) <= known, line


def test_every_option_of_an_ingest_can_be_given_on_the_command_line() -> None:
    on_line = {p.name for p in command("ingest").params}
    tables = {"properties", "models", "overrides", "rasters", "layers"}  # of a manifest
    wanted = {f.name for f in dataclasses.fields(IngestOptions)} - tables
    assert wanted <= on_line


def test_kinds_and_export_formats_are_documented() -> None:
    text = page("docs/cli.md")
    for word in (*KINDS, *EXPORTERS):
        assert f"`{word}`" in text, word


def test_every_setting_is_documented() -> None:
    text = page("docs/server.md")
    for setting in dataclasses.fields(Settings):
        assert f"`CIM_{setting.name.upper()}`" in text, setting.name


def test_every_path_of_the_api_is_documented(tmp_path: Path) -> None:
    described = make_app(Settings(data=tmp_path))
    paths = {getattr(route, "path", "") for route in described.routes}
    roots = {"/" + p.strip("/").split("/")[0] for p in paths}
    text = page("docs/server.md")
    for root in roots - {"/"}:
        assert f"`{root}" in text, root


def test_pages_link_only_to_what_exists() -> None:
    for source in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#]+)\)", source.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (source.parent / target).exists(), f"{source.name}: {target}"


def test_the_architecture_page_names_every_module_room() -> None:
    text = page("docs/architecture.md")
    for package in ("tiling", "ingest", "catalog", "cim_server"):
        for path in (ROOT / package).iterdir():
            if path.name.startswith((".", "_")) or path.name in ("py.typed", "node_modules"):
                continue
            assert path.stem in text or path.name in text, f"{package}/{path.name}"


def test_every_demo_file_has_a_licence_line_and_is_used() -> None:
    licences = page("cim_server/demo/data/README.md")
    used = {p for m in demo_manifests() for p in m["sources"]}
    patterns = [w for w in re.findall(r"`([^`]+)`", licences) if "." in w]
    total = 0
    for path in (DEMO_FOLDER / "data").iterdir():
        if path.name == "README.md":
            continue
        total += path.stat().st_size
        assert any(path.match(pattern) for pattern in patterns), path.name
        assert any(path.stem == source.stem for source in used), path.name
    assert total <= 15 * 2**20


def test_the_demo_manifests_are_options_as_any_other() -> None:
    ids = [merge_options({}, manifest).id for manifest in demo_manifests()]
    assert len(ids) == len(set(ids)) >= 10


def test_the_front_end_is_locked_and_names_no_registry() -> None:
    for lock in ("cim_server/portal/package-lock.json", "tests/node/package-lock.json"):
        packages = json.loads(page(lock))["packages"]
        assert len(packages) > 1
        assert not [name for name, entry in packages.items() if "resolved" in entry]
