"""A city of known positions through the real binary, and the demo behind the real server."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.city import City, write_city
from tests.acceptance.serving import Client, served
from tests.commands import Command


@dataclass(frozen=True)
class Assets:
    """Every asset of a data folder as ``cim list --json`` shows it."""

    data: Path
    listed: tuple[dict[str, Any], ...]

    def of(self, *kinds: str) -> list[dict[str, Any]]:
        """Return the assets of some kinds."""
        return [asset for asset in self.listed if asset["kind"] in kinds]

    def named(self, asset: str) -> dict[str, Any]:
        """Return the current version of an asset."""
        found = next(a for a in self.listed if a["id"] == asset)
        return next(v for v in found["versions"] if v["version"] == found["current"])

    def store(self, asset: str, store_format: str) -> Path:
        """Return the file of an asset's current version."""
        stores = [s for s in self.named(asset)["stores"] if s["format"] == store_format]
        assert len(stores) == 1
        return self.data / stores[0]["path"]


@pytest.fixture(scope="session")
def demo(cim: Command, demo_data: Path) -> Assets:
    return Assets(demo_data, tuple(cim("list", "--data", demo_data, "--json").json()))


@pytest.fixture(scope="session")
def demo_server(demo_data: Path) -> Iterator[Client]:
    with served(demo_data) as client:
        yield client


@pytest.fixture(scope="session")
def city(tmp_path_factory: pytest.TempPathFactory) -> City:
    return write_city(tmp_path_factory.mktemp("随州"))


@pytest.fixture(scope="session")
def white_model(cim: Command, city: City, tmp_path_factory: pytest.TempPathFactory) -> Assets:
    """The city as buildings in the 1985 datum; its frame is read from the ``.prj``."""
    data = tmp_path_factory.mktemp("白模")
    options = ["--id", "suizhou", "--kind", "buildings", "--vertical", "EPSG:5737"]
    done = cim("ingest", city.path, *options, "--data", data)
    assert done.code == 0, done.err
    return Assets(data, tuple(cim("list", "--data", data, "--json").json()))


@pytest.fixture(scope="session")
def vector_city(cim: Command, city: City, tmp_path_factory: pytest.TempPathFactory) -> Assets:
    """The city as vector tiles to zoom 16; its frame is declared, for it has no ``.prj``."""
    folder = tmp_path_factory.mktemp("无坐标系")
    for file in city.path.parent.glob(f"{city.path.stem}.*"):
        if file.suffix != ".prj":
            shutil.copy(file, folder)
    options = ["--id", "suizhou", "--kind", "vector", "--max-zoom", "16", "--crs", "EPSG:4547"]
    data = tmp_path_factory.mktemp("矢量")
    done = cim("ingest", folder / city.path.name, *options, "--data", data)
    assert done.code == 0, done.err
    return Assets(data, tuple(cim("list", "--data", data, "--json").json()))
