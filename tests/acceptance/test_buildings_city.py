"""A town of six thousand, odd shapes among them, through the real binary: the laws of issue 3.

Everything is decoded by readers that share nothing with the project: the standard library's ZIP,
pygltflib, the meshoptimizer project's decoder, PROJ and the raw geoid grid.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import struct
import subprocess
import time
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import shapely

from benchmarks import city
from tests.acceptance.conftest import Assets
from tests.acceptance.geodesy import from_ecef, reproject, undulation_m
from tests.acceptance.glb import Content, read_glb
from tests.acceptance.implicit import Node, tree
from tests.acceptance.odd_city import CRS, KEY, OddCity, as_in_tiles, write_odd_city, written
from tests.acceptance.solid import Wanted, nearest_m, solids, wanted
from tests.acceptance.tilesets import subtree_parts
from tests.commands import CIM, Command
from tests.conftest import GltfIssues, SchemaErrors

pytestmark = pytest.mark.timeout(600)

OPTIONS = ["--id", "c", "--kind", "buildings", "--vertical", "EPSG:5737", "--key", KEY]
OPTIONS += ["--bad-heights", "default"]
# Walls that two buildings share may stand back by two steps, so that they do not flicker.
STEP_BACK = 2
ROOT_NBYTES = 300_000


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> OddCity:
    return write_odd_city(tmp_path_factory.mktemp("town"))


@pytest.fixture(scope="module")
def data(cim: Command, town: OddCity, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    done = cim("ingest", town.path, *OPTIONS, "--data", folder, "--workers", "2")
    assert done.code == 0, done.err
    return folder


class Tileset:
    """A published tileset, read from its archives; the newest comes first and hides older ones."""

    def __init__(self, cim: Command, data: Path) -> None:
        assets = Assets(data, tuple(cim("list", "--data", data, "--json").json()))
        paths = [data / s["path"] for s in assets.named("c")["stores"] if s["format"] == "3tz"]
        self._archives = [zipfile.ZipFile(path) for path in paths]
        self.names = {name for archive in self._archives for name in archive.namelist()}

    def fetch(self, name: str) -> bytes:
        """Return a member."""
        for archive in self._archives:
            if name in archive.namelist():
                return archive.read(name)
        raise AssertionError(f"{name} is available and missing")

    def nodes(self) -> list[Node]:
        """Return its tree."""
        return tree("tileset.json", self.fetch)

    def close(self) -> None:
        """Close the archives."""
        for archive in self._archives:
            archive.close()


@pytest.fixture(scope="module")
def tileset(cim: Command, data: Path) -> Iterator[Tileset]:
    opened = Tileset(cim, data)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def nodes(tileset: Tileset) -> list[Node]:
    return tileset.nodes()


@pytest.fixture(scope="module")
def contents(tileset: Tileset, nodes: list[Node]) -> dict[str, Content]:
    return {node.uri: read_glb(tileset.fetch(node.uri)) for node in nodes if node.uri}


@pytest.fixture(scope="module")
def leaves(contents: dict[str, Content]) -> list[Content]:
    found = [content for content in contents.values() if content.cls == "feature"]
    assert len(found) > 10
    return found


def should_be(town: OddCity, content: Content, key: str) -> tuple[Wanted, float]:
    """Return a feature as it should be, and by how much its datum differs from end to end."""
    outline, row = town.outlines[key], town.rows[key]
    lonlat = shapely.transform(
        outline, lambda xy: np.column_stack(reproject(CRS, 4490, xy[:, 0], xy[:, 1]))
    )
    lon, lat = shapely.get_coordinates(lonlat).T
    geoid = undulation_m(lon, lat)
    # A building stands level: its base is where the datum is somewhere beneath it.
    low = row[city.BASE] + geoid.mean()
    return wanted(content, lonlat, low, low + row[city.HEIGHT]), float(np.ptp(geoid))


def test_every_source_feature_is_there_once_at_full_detail(
    town: OddCity, leaves: list[Content]
) -> None:
    keys = [row[KEY] for content in leaves for row in content.rows]
    assert len(keys) == len(set(keys))
    assert set(keys) == set(town.rows)


def test_every_attribute_of_every_feature_is_as_in_the_source(
    town: OddCity, leaves: list[Content]
) -> None:
    compared = nulls = 0
    for content in leaves:
        for row in content.rows:
            for name, value in town.rows[row[KEY]].items():
                expected, found = as_in_tiles(value), row[name]
                assert found == expected, (row[KEY], name, expected, found)
                assert isinstance(found, type(expected)) or isinstance(found, (int, float))
                compared, nulls = compared + 1, nulls + (value is None)
    assert compared == len(town.rows) * 11
    assert nulls > 1000


def test_every_corner_is_within_a_step_of_its_place(town: OddCity, leaves: list[Content]) -> None:
    for content in leaves:
        step = content.quantum_m
        for row, solid in zip(content.rows, solids(content), strict=True):
            want, datum_m = should_be(town, content, row[KEY])
            corners = np.concatenate([want.low, want.high])
            reach = (0.5 + STEP_BACK) * step + datum_m + 1e-3
            assert nearest_m(solid.corners, corners).max() < reach, row[KEY]
            assert nearest_m(corners, solid.corners).max() < reach, row[KEY]


def test_areas_and_volumes_are_those_of_the_source_within_the_step(
    town: OddCity, leaves: list[Content]
) -> None:
    area = volume = wanted_area = wanted_volume = 0.0
    for content in leaves:
        step = content.quantum_m
        for row, solid in zip(content.rows, solids(content), strict=True):
            want, _ = should_be(town, content, row[KEY])
            # Every side may be off by half a step's diagonal, and stand back.
            slack = want.perimeter_m * step * (0.5 * 2**0.5 + STEP_BACK) + 10 * step**2
            assert abs(solid.area_m2 - want.area_m2) <= slack, row[KEY]
            thick = slack * want.height_m + want.area_m2 * 2 * step
            assert abs(solid.volume_m3 - want.area_m2 * want.height_m) <= thick, row[KEY]
            area, wanted_area = area + solid.area_m2, wanted_area + want.area_m2
            volume = volume + solid.volume_m3
            wanted_volume = wanted_volume + want.area_m2 * want.height_m
    # Errors of single buildings cancel.
    assert area == pytest.approx(wanted_area, rel=2e-4)
    assert volume == pytest.approx(wanted_volume, rel=3e-4)


def test_whoever_has_children_with_content_has_content(nodes: list[Node]) -> None:
    filled = {node.name for node in nodes if node.uri}
    for node in nodes:
        if node.uri and node.parent:
            assert node.parent in filled, node
    assert all(node.uri for node in nodes), "a tile without content would be a hole"
    tops = [node for node in nodes if node.parent is None]
    assert tops


def test_only_leaves_hold_features_and_only_others_hold_blocks(
    nodes: list[Node], contents: dict[str, Content]
) -> None:
    parents = {node.parent for node in nodes}
    for node in nodes:
        assert node.uri
        assert contents[node.uri].cls == ("block" if node.name in parents else "feature"), node
    levels = {node.cell.level for node in nodes if node.name not in parents}
    assert len(levels) > 1, "a crowded cell should be split"


def test_errors_halve_from_level_to_level_and_all_tiles_refine_by_replacing(
    tileset: Tileset, nodes: list[Node]
) -> None:
    document = json.loads(tileset.fetch("tileset.json"))
    assert document["root"]["refine"] == "REPLACE"
    for child in document["root"]["children"]:
        assert child.get("refine", "REPLACE") == "REPLACE"
        assert child["geometricError"] < document["root"]["geometricError"]
    assert document["root"]["geometricError"] < document["geometricError"]
    error = {node.name: node.error_m for node in nodes}
    for node in nodes:
        if node.parent:
            assert node.error_m == error[node.parent] / 2


def test_volumes_hold_their_children_and_what_is_drawn(
    nodes: list[Node], contents: dict[str, Content]
) -> None:
    region = {node.name: node.region for node in nodes}
    for node in nodes:
        west, south, east, north, low, high = node.region
        assert west < east and south < north and low < high
        if node.parent:
            outer = region[node.parent]
            assert (outer[[0, 1, 4]] <= node.region[[0, 1, 4]]).all(), node
            assert (outer[[2, 3, 5]] >= node.region[[2, 3, 5]]).all(), node
        assert node.uri
        lon, lat, height = from_ecef(contents[node.uri].ecef)
        # PROJ's inverse is good to a nanometre, angles to 1e-13 radians.
        assert np.radians(lon.min()) >= west - 1e-12 and np.radians(lon.max()) <= east + 1e-12
        assert np.radians(lat.min()) >= south - 1e-12 and np.radians(lat.max()) <= north + 1e-12
        assert height.min() >= low - 1e-6 and height.max() <= high + 1e-6


def test_every_building_is_counted_at_every_level(
    town: OddCity, nodes: list[Node], contents: dict[str, Content]
) -> None:
    below: dict[Any, int] = defaultdict(int)
    for node in reversed(nodes):
        assert node.uri
        content = contents[node.uri]
        if content.cls == "feature":
            stands_for = len(content.rows)
        else:
            stands_for = int(sum(row["cim:features"] for row in content.rows))
            assert stands_for == below[node.name], node
        assert node.metadata["features"] == [stands_for]
        if node.parent:
            below[node.parent] += stands_for
    total = sum(n.metadata["features"][0] for n in nodes if n.parent is None)
    assert total == len(town.rows)


def test_what_is_generalised_stays_within_its_error(
    nodes: list[Node], contents: dict[str, Content]
) -> None:
    corners = defaultdict(list)
    for node in reversed(nodes):
        assert node.uri
        mine = contents[node.uri].ecef
        if node.name in corners:
            finest = np.concatenate(corners[node.name])
            lon, lat, _ = from_ecef(finest)
            span = np.array([np.ptp(lon), np.ptp(lat)])
            own_lon, own_lat, _ = from_ecef(mine)
            slack = np.degrees(node.error_m / 6_356_752.0)
            wide = slack / np.cos(np.radians(lat.mean()))
            # What is drawn far away covers the town, and reaches no further than its error.
            assert own_lon.min() >= lon.min() - wide and own_lon.max() <= lon.max() + wide
            assert own_lat.min() >= lat.min() - slack and own_lat.max() <= lat.max() + slack
            covered = np.array([np.ptp(own_lon), np.ptp(own_lat)])
            assert (covered >= span - 2 * np.array([wide, slack])).all(), node
            corners[node.parent].append(finest) if node.parent else None
        elif node.parent:
            corners[node.parent].append(mine)


def test_coarser_tiles_are_lighter_and_the_first_view_is_small(
    tileset: Tileset, nodes: list[Node], contents: dict[str, Content]
) -> None:
    triangles: dict[int, int] = defaultdict(int)
    for node in nodes:
        assert node.uri
        assert len(contents[node.uri].triangles) <= 200_000
        triangles[node.cell.level] += len(contents[node.uri].triangles)
        if node.parent is None:
            assert len(tileset.fetch(node.uri)) < ROOT_NBYTES
    levels = sorted(triangles)
    for coarse, fine in zip(levels, levels[1:6], strict=False):
        assert triangles[coarse] <= triangles[fine]


def test_schemas_and_the_khronos_validator_find_nothing(
    tileset: Tileset,
    nodes: list[Node],
    schema_errors: SchemaErrors,
    gltf_issues: GltfIssues,
    tmp_path: Path,
) -> None:
    document = json.loads(tileset.fetch("tileset.json"))
    assert schema_errors("3d-tiles/tileset.schema.json", document) == []
    for name in tileset.names:
        if name.endswith(".subtree"):
            parts = subtree_parts(tileset.fetch(name))[0]
            assert schema_errors("3d-tiles/Subtree/subtree.schema.json", parts) == []
    paths = []
    for node in nodes:
        assert node.uri
        glb = tileset.fetch(node.uri)
        gltf = json.loads(glb[20 : 20 + struct.unpack_from("<I", glb, 12)[0]])
        assert schema_errors("gltf/core/glTF.schema.json", gltf) == []
        structural = "gltf/EXT_structural_metadata/schema/glTF.EXT_structural_metadata.schema.json"
        extension = gltf["extensions"]["EXT_structural_metadata"]
        assert schema_errors(structural, extension) == []
        paths.append(tmp_path / f"{len(paths)}.glb")
        paths[-1].write_bytes(glb)
    found = gltf_issues(paths)
    assert len(found) == len(paths)
    assert not any(found.values()), {k: v for k, v in found.items() if v}


def test_cim_check_finds_every_law_kept(cim: Command, data: Path) -> None:
    checked = cim("check", "c", "--data", data, "--json")
    assert checked.code == 0, checked.out
    assert [f for f in checked.json()["findings"] if f["severity"] == "error"] == []


def stores(cim: Command, folder: Path) -> list[tuple[str, str]]:
    shown = cim("show", "c", "--data", folder, "--json").json()
    newest = max(shown["versions"], key=lambda version: version["version"])
    return [(s["role"], s["sha256"]) for s in newest["stores"]]


def test_killed_at_random_and_resumed_otherwise_it_ends_with_the_same_bytes(
    cim: Command, town: OddCity, data: Path, tmp_path: Path
) -> None:
    seed = time.time_ns()
    print(f"random moments of seed {seed}")
    moments = random.Random(seed)
    command = [CIM, "ingest", town.path, *OPTIONS, "--data", tmp_path, "--workers", "2"]
    killed = 0
    for _ in range(4):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(moments.uniform(1.0, 6.0))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            killed += 1
    assert killed
    # One process instead of two and a quarter of the memory: neither may show.
    options = ["--workers", "1", "--memory", "256MB"]
    done = cim("ingest", town.path, *OPTIONS, "--data", tmp_path, *options)
    assert done.code == 0, done.err
    assert stores(cim, tmp_path) == stores(cim, data)


def digests(opened: Tileset) -> dict[str, str]:
    """Return the digest of everything a client can reach."""
    names = {node.uri for node in opened.nodes() if node.uri}
    names |= {"tileset.json"} | {n for n in opened.names if n.endswith(".subtree")}
    return {name: hashlib.sha256(opened.fetch(name)).hexdigest() for name in sorted(names)}


def test_an_update_gives_the_tiles_of_a_rebuilt_city(
    cim: Command, town: OddCity, data: Path, nodes: list[Node], tmp_path: Path
) -> None:
    keys = sorted(town.rows)
    rng = np.random.default_rng(5)
    picked = [keys[i] for i in rng.choice(len(keys), 60, replace=False)]
    changed, gone = picked[:40], picked[40:]
    rows = {key: dict(town.rows[key]) for key in changed}
    for row in rows.values():
        row[city.HEIGHT] = round(row[city.HEIGHT] + 6.6, 1)
        row["名称"] = "改建·随州大厦🏗"
    added = {f"99{n:017d}": dict(town.rows[keys[n]]) for n in range(10)}
    shapes = {key: town.outlines[key] for key in changed}
    for n, (key, row) in enumerate(added.items()):
        row[KEY] = key
        shapes[key] = shapely.transform(town.outlines[keys[n]], lambda xy: xy + [3000.0, 15.0])
    rows |= added

    def as_rows(shown: dict[str, dict[str, Any]], outlines: dict[str, Any]) -> city.Rows:
        schema = next(city.chunks(10)).table.schema
        table = pa.Table.from_pylist(list(shown.values()), schema=schema)
        return city.Rows(np.array([outlines[key] for key in shown], dtype=object), table)

    changes = written(tmp_path / "变更.fgb", [as_rows(rows, shapes)])
    kept = {key: row for key, row in town.rows.items() if key not in gone} | rows
    whole = written(tmp_path / "全市.fgb", [as_rows(kept, town.outlines | shapes)])
    apart, rebuilt = tmp_path / "updated", tmp_path / "rebuilt"
    shutil.copytree(data, apart)
    deletions = [option for key in gone for option in ("--delete", key)]
    done = cim("ingest", changes.path, "--id", "c", "--update", *deletions, "--data", apart)
    assert done.code == 0, done.err
    done = cim("ingest", whole.path, *OPTIONS, "--data", rebuilt)
    assert done.code == 0, done.err
    new, old = Tileset(cim, apart), Tileset(cim, rebuilt)
    try:
        mine, theirs = digests(new), digests(old)
        reached = {node.uri for node in new.nodes()}
    finally:
        new.close()
        old.close()
    assert {n: d for n, d in mine.items() if n in reached} == {
        n: d for n, d in theirs.items() if n.endswith(".glb")
    }
    assert mine["tileset.json"] == theirs["tileset.json"]
    assert cim("check", "c", "--data", apart).code == 0
    assert cim("rollback", "c", "1", "--data", apart).code == 0
    back = Tileset(cim, apart)
    try:
        assert {node.uri for node in back.nodes()} == {node.uri for node in nodes}
    finally:
        back.close()
