"""The wheel: complete, and working alone, without Node and without the repository."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FEW = ("hubei-terrain", "suizhou-counties", "naip-imagery")
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT],
        check=True,
        capture_output=True,
    )
    return next(out.glob("cim_server-*.whl"))


def test_the_wheel_carries_the_five_packages_with_their_data(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for package in ("cim_server", "tiling", "ingest", "styles", "catalog"):
        assert f"{package}/py.typed" in names
    for part in (
        "cim_server/portal/static/index.html",
        "cim_server/demo/demo.toml",
        "cim_server/demo/data/shanghai_buildings.geojson",
        "tiling/data/WW15MGH.DAC.xz",
        "styles/buildings.json",
        "styles/fonts/Noto Sans SC Regular/0-255.pbf.gz",
    ):
        assert part in names, part
    demo = tomllib.loads((ROOT / "cim_server" / "demo" / "demo.toml").read_text("utf-8"))
    for asset in demo["asset"]:
        for source in asset["sources"]:
            assert f"cim_server/demo/data/{source}" in names
    assert any(n.startswith("catalog/migrations/versions/") for n in names)
    assert any(n.startswith("cim_server/portal/static/") and "Workers" in n for n in names)


def test_the_wheel_leaves_sources_and_node_packages_at_home(wheel: Path) -> None:
    for name in zipfile.ZipFile(wheel).namelist():
        assert "node_modules" not in name
        assert not name.startswith("cim_server/portal/src/")
        assert not name.startswith(("tests/", "benchmarks/", "docs/"))


@pytest.mark.slow
def test_the_demo_runs_from_the_wheel_alone(wheel: Path, tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    env = {**os.environ, "UV_PYTHON_DOWNLOADS": "never"}
    subprocess.run([BIN / "uv", "venv", "-q", "-p", sys.executable, venv], check=True, env=env)
    subprocess.run(
        [
            BIN / "uv", "pip", "install", "-q", "--python", venv / "bin" / "python",
            "--constraint", ROOT / "constraints.txt", wheel,
        ],
        check=True,
        env=env,
    )  # fmt: skip
    # A few assets, as each has loops to compile; the whole demo is run from the repository.
    (manifest,) = venv.glob("lib/*/site-packages/cim_server/demo/demo.toml")
    head, *assets = manifest.read_text("utf-8").split("[[asset]]")
    few = [text for text in assets if any(f'id = "{name}"' in text for name in FEW)]
    assert len(few) == len(FEW)
    manifest.write_text("[[asset]]".join([head, *few]), "utf-8")
    # Neither Node nor the repository is to be found.
    alone = {"PATH": f"{venv / 'bin'}:/usr/sbin:/sbin", "HOME": str(tmp_path), "LANG": "C.UTF-8"}
    done = subprocess.run(
        [venv / "bin" / "cim", "demo", "--port", "0", "--check", "--data", tmp_path / "data"],
        cwd=tmp_path,
        env=alone,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("ok  http") >= 1 + len(FEW)
