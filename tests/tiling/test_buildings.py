"""Footprints become a lawful tileset: right places, all attributes, the same bytes every time."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyproj
import pytest
import shapely

from tests.tiling.formats.decoding import decoded
from tiling.batches import BASE_COLUMN, HEIGHT_COLUMN, HEIGHT_SOURCE_COLUMN, FeatureBatch
from tiling.bounds import Region
from tiling.crs import TILE_REF
from tiling.errors import Cancelled, ConfigError, NothingToTile, TilingError
from tiling.findings import Findings
from tiling.formats.gltf_reading import Glb
from tiling.formats.subtree import decode_subtree
from tiling.stores.directory import DirectoryReader, DirectoryWriter
from tiling.stores.zip3tz import ThreeTzReader, ThreeTzWriter
from tiling.testing.cities import synthetic_footprints
from tiling.tilers.base import Progress, Run, SilentProgress, TilesetInfo
from tiling.tilers.buildings import BuildingsTiler
from tiling.tilers.pipeline import SerialExecutor
from tiling.tilers.quadtree import SUBTREE_LEVELS
from tiling.validate.tileset3d import check_tileset

DATA = Path(__file__).parent.parent / "data"

# Small budgets, so that a small city already has many levels.
SMALL = {"tile_features": 60, "tile_vertices": 3000}


def tile(
    folder: Path,
    batches: Iterable[FeatureBatch],
    executor: Executor | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> TilesetInfo:
    """Tile into ``folder/tiles`` with scratch space in ``folder/scratch``."""
    writer = DirectoryWriter(folder / "tiles")
    (folder / "scratch").mkdir(parents=True, exist_ok=True)
    run = Run(
        writer=writer,
        scratch=folder / "scratch",
        executor=executor or SerialExecutor(),
        workers=2,
        memory_nbytes=1 << 30,
        progress=progress or SilentProgress(),
        findings=Findings(),
    )
    try:
        info = BuildingsTiler(**options).run(batches, run)
    except BaseException:
        writer.abort()
        raise
    writer.commit()
    return info


def contents(folder: Path) -> dict[str, bytes]:
    """Return every tile of ``folder/tiles``, uncompressed."""
    reader = DirectoryReader(folder / "tiles")
    found = {}
    for key in reader.keys():
        stored = reader.get(key)
        assert stored is not None
        found[key] = gzip.decompress(stored.data) if stored.encoding else stored.data
    reader.close()
    return found


def wuhan() -> FeatureBatch:
    """Real footprints with heights; the ground is put 12 m above the ellipsoid."""
    features = json.loads((DATA / "wuhan_buildings.geojson").read_text("utf-8"))["features"]
    geometry = shapely.from_geojson([json.dumps(f["geometry"]) for f in features])
    rows = [f["properties"] for f in features]
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = pa.table({name: pa.array([row.get(name) for row in rows]) for name in names})
    n = len(rows)
    return (
        FeatureBatch(TILE_REF, np.arange(n), np.asarray(geometry, dtype=object), table)
        .with_column(BASE_COLUMN, np.full(n, 12.0))
        .with_column(HEIGHT_COLUMN, table.column("height").to_numpy().astype(float))
        .with_column(HEIGHT_SOURCE_COLUMN, pa.array(["column:height"] * n))
    )


@pytest.fixture(scope="module")
def city() -> FeatureBatch:
    return synthetic_footprints(1500, seed=7)


@pytest.fixture(scope="module")
def tiled(city: FeatureBatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("city")
    tile(folder, [city], **SMALL)
    return folder


@pytest.fixture(scope="module")
def tiles(tiled: Path) -> dict[str, bytes]:
    return contents(tiled)


def rows(tiles: dict[str, bytes]) -> dict[int, dict[str, Any]]:
    """Return every feature's attributes by feature id."""
    found: dict[int, dict[str, Any]] = {}
    for key, data in tiles.items():
        if key.endswith(".glb") and not is_block(data):
            glb = Glb(data)
            count, columns = glb.features()
            extension = glb.document["extensions"]["EXT_structural_metadata"]
            schema = extension["schema"]["classes"]["feature"]["properties"]
            absent = {p["name"]: [None] * count for i, p in schema.items() if i not in columns}
            named = {schema[i]["name"]: column.tolist() for i, column in columns.items()}
            for i, row in enumerate(zip(*(named | absent).values(), strict=True)):
                values = dict(zip(named | absent, row, strict=True))
                assert values["cim:feature_id"] not in found, f"twice: row {i} of {key}"
                found[values["cim:feature_id"]] = values
    return found


def test_every_building_is_present_once_with_all_its_attributes(
    city: FeatureBatch, tiles: dict[str, bytes]
) -> None:
    found = rows(tiles)
    assert sorted(found) == city.ids.tolist()
    for position, source in enumerate(city.attributes.to_pylist()):
        row = found[int(city.ids[position])]
        source["普查日期"] = source["普查日期"].isoformat()
        # What we derive is kept to single precision: to less than a millimetre.
        for name in (BASE_COLUMN, HEIGHT_COLUMN):
            assert row[name] == pytest.approx(source.pop(name), abs=1e-4)
        assert {name: row[name] for name in source} == source


def test_the_laws_of_a_tileset_hold(tiled: Path, city: FeatureBatch) -> None:
    findings, facts = check_tileset(DirectoryReader(tiled / "tiles"))
    assert findings == []
    assert facts["features"] == len(city)
    assert facts["tiles"] > 20


def test_the_khronos_validator_finds_nothing_in_any_tile(tiled: Path, gltf_issues: Any) -> None:
    files = sorted((tiled / "tiles").rglob("*.glb"))
    issues = gltf_issues(files)
    assert len(issues) == len(files) > 20
    assert not any(issues.values())


def test_every_json_keeps_its_schema(tiles: dict[str, bytes], schema_errors: Any) -> None:
    assert schema_errors("3d-tiles/tileset.schema.json", orjson.loads(tiles["tileset.json"])) == []
    for key, data in tiles.items():
        if key.endswith(".subtree"):
            document = orjson.loads(data[24 : 24 + int.from_bytes(data[8:16], "little")])
            assert schema_errors("3d-tiles/Subtree/subtree.schema.json", document) == []
        if key.endswith(".glb"):
            document = Glb(data).document
            extension = document["extensions"]["EXT_structural_metadata"]
            assert schema_errors("gltf/core/glTF.schema.json", document) == []
            path = "gltf/EXT_structural_metadata/schema/glTF.EXT_structural_metadata.schema.json"
            assert schema_errors(path, extension) == []


def vertices(data: bytes) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return ECEF positions (V, 3) and feature rows (V,), decoded by others."""
    document, accessors = decoded(data)
    attributes = document["meshes"][0]["primitives"][0]["attributes"]
    local = accessors[attributes["POSITION"]] * document["nodes"][1]["scale"][0]
    matrix = np.array(document["nodes"][0]["matrix"]).reshape(4, 4).T
    x, y, z = (local @ matrix[:3, :3].T + matrix[:3, 3]).T
    return np.stack([x, -z, y], axis=1), accessors[attributes["_FEATURE_ID_0"]]


def is_block(data: bytes) -> bool:
    """Say whether a tile shows blocks of buildings, and not buildings at full detail."""
    extension = Glb(data).document["extensions"]["EXT_structural_metadata"]
    return "block" in extension["schema"]["classes"]


def worst_distance_m(batch: FeatureBatch, tiles: dict[str, bytes], skirt_m: float) -> float:
    """Return how far the farthest corner of any building lies from pyproj's own answer."""
    to_ecef = pyproj.Transformer.from_crs(4979, 4978, always_xy=True)
    position = {int(i): p for p, i in enumerate(batch.ids)}
    base, height = batch.column(BASE_COLUMN), batch.column(HEIGHT_COLUMN)
    worst, seen = 0.0, 0
    for key, data in tiles.items():
        if not key.endswith(".glb") or is_block(data):
            continue
        ecef, feature = vertices(data)
        ids = Glb(data).features()[1]["cim_feature_id"]
        for row, identity in enumerate(ids.tolist()):
            p = position[identity]
            lon, lat = shapely.get_coordinates(batch.geometry[p]).T
            expected = np.concatenate(
                [
                    np.stack(to_ecef.transform(lon, lat, np.full(len(lon), h)), axis=1)
                    for h in (base[p] - skirt_m, base[p] + height[p])
                ]
            )
            own = ecef[feature == row]
            apart = np.linalg.norm(own[:, None] - expected[None], axis=2)
            worst = max(worst, apart.min(axis=1).max(), apart.min(axis=0).max())
            seen += 1
    assert seen == len(batch)
    return worst


def test_positions_are_within_a_centimetre_of_pyproj(
    city: FeatureBatch, tiles: dict[str, bytes]
) -> None:
    assert worst_distance_m(city, tiles, skirt_m=0.0) < 0.01


def test_positions_hold_in_a_tile_as_wide_as_a_level_eight_cell(tmp_path: Path) -> None:
    corners = [(113.21, 31.65), (113.89, 31.65), (113.21, 32.33), (113.89, 32.33)]
    geometry = shapely.box(*np.array([(x, y, x + 3e-4, y + 3e-4) for x, y in corners]).T)
    n = len(corners)
    batch = FeatureBatch(
        TILE_REF,
        np.arange(n),
        np.asarray(geometry, dtype=object),
        pa.table({BASE_COLUMN: np.full(n, 90.0), HEIGHT_COLUMN: np.full(n, 30.0)}),
    )
    info = tile(tmp_path, [batch])
    assert info.features == 4
    assert worst_distance_m(batch, contents(tmp_path), skirt_m=0.0) < 0.01


def test_real_buildings_are_in_place_and_named(tmp_path: Path, gltf_issues: Any) -> None:
    batch = wuhan()
    info = tile(tmp_path, batch.split(20_000))
    found = contents(tmp_path)
    assert check_tileset(DirectoryReader(tmp_path / "tiles"))[0] == []
    # Parts that share walls are set apart by two steps of the grid.
    assert worst_distance_m(batch, found, skirt_m=0.0) < 0.1
    assert "光谷国际广场" in {row["name"] for row in rows(found).values()}
    assert not any(gltf_issues(sorted((tmp_path / "tiles").rglob("*.glb"))).values())
    assert info.features == len(batch) == 87
    tight = Region(*shapely.total_bounds(batch.geometry).tolist(), 12.0, 12.0)
    assert info.bounds.contains(tight)
    assert {field["name"] for field in info.metadata["fields"]} >= set(
        batch.attributes.column_names
    )


def test_the_size_and_order_of_batches_is_irrelevant(
    city: FeatureBatch, tiles: dict[str, bytes], tmp_path: Path
) -> None:
    shuffled = city.take(np.random.default_rng(1).permutation(len(city)))
    tile(tmp_path, shuffled.split(city.nbytes // 9), **SMALL)
    assert contents(tmp_path) == tiles


def test_workers_change_nothing(
    city: FeatureBatch, tiles: dict[str, bytes], tmp_path: Path
) -> None:
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        tile(tmp_path, [city], pool, **SMALL)
    assert contents(tmp_path) == tiles


class _StopsAfter(SilentProgress):
    """Progress whose user asks to stop after some steps."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def advance(self, amount: int = 1) -> None:
        self.left -= 1
        if self.left < 0:
            raise Cancelled("stopped")


@pytest.mark.parametrize("steps", [0, 1, 4, 12])
def test_resumed_is_uninterrupted(
    steps: int, city: FeatureBatch, tiles: dict[str, bytes], tmp_path: Path
) -> None:
    with pytest.raises(Cancelled):
        tile(tmp_path, city.split(city.nbytes // 3), progress=_StopsAfter(steps), **SMALL)
    assert not (tmp_path / "tiles").exists()
    tile(tmp_path, city.split(city.nbytes // 3), **SMALL)
    assert contents(tmp_path) == tiles


def test_a_resumed_run_reads_the_source_no_more(city: FeatureBatch, tmp_path: Path) -> None:
    def once() -> Iterator[FeatureBatch]:
        yield city

    with pytest.raises(Cancelled):
        tile(tmp_path, once(), progress=_StopsAfter(6), **SMALL)

    def never() -> Iterator[FeatureBatch]:
        raise AssertionError("the source was read again")
        yield city

    assert tile(tmp_path, never(), **SMALL).features == len(city)


def test_an_archive_holds_what_a_directory_holds(
    city: FeatureBatch, tiles: dict[str, bytes], tmp_path: Path
) -> None:
    writer = ThreeTzWriter(tmp_path / "city.3tz")
    scratch = tmp_path / "scratch"
    run = Run(writer, scratch, SerialExecutor(), 1, 1 << 30, SilentProgress(), Findings())
    BuildingsTiler(**SMALL).run([city], run)
    writer.commit()
    reader = ThreeTzReader(tmp_path / "city.3tz")
    assert check_tileset(reader)[0] == []
    stored = {key: reader.get(key) for key in tiles}
    assert all(s is not None and s.encoding == "gzip" for s in stored.values())
    assert {k: gzip.decompress(s.data) for k, s in stored.items() if s is not None} == tiles


def test_buildings_that_overhang_their_cells_stay_inside_their_volumes(tmp_path: Path) -> None:
    # 113.203125 E and 31.640625 N are edges of level-8 cells, so of every deeper level too.
    x, y = 113.203125, 31.640625
    geometry = shapely.box(
        *np.array(
            [
                (x - 9e-4, y - 1e-3, x + 2e-4, y + 1e-4),
                (x - 2e-4, y - 2e-4, x + 9e-4, y + 9e-4),
                (x + 0.2, y - 5e-4, x + 0.201, y + 6e-4),
            ]
        ).T
    )
    table = pa.table({BASE_COLUMN: [5.0, -30.0, 900.0], HEIGHT_COLUMN: [10.0, 20.0, 300.0]})
    batch = FeatureBatch(TILE_REF, np.arange(3), np.asarray(geometry, dtype=object), table)
    info = tile(tmp_path, [batch])
    findings, facts = check_tileset(DirectoryReader(tmp_path / "tiles"))
    assert (findings, facts["features"]) == ([], 3)
    document = orjson.loads(contents(tmp_path)["tileset.json"])
    assert len(document["root"]["children"]) == 2
    assert info.features == 3


def test_deep_cities_get_child_subtrees(tmp_path: Path) -> None:
    batch = synthetic_footprints(400, seed=3)
    info = tile(tmp_path, [batch], tile_features=2)
    assert info.max_level >= 8 + SUBTREE_LEVELS
    findings, facts = check_tileset(DirectoryReader(tmp_path / "tiles"))
    assert findings == []
    assert facts["features"] == 400
    root = decode_subtree(contents(tmp_path)["subtrees/8/417/173/0.0.0.subtree"], SUBTREE_LEVELS)
    assert root.children.any()


def test_levels_outside_of_the_options_hold_nothing(tmp_path: Path) -> None:
    info = tile(tmp_path, [synthetic_footprints(300, 1)], min_level=13, max_level=14, **SMALL)
    assert (info.min_level, info.max_level) == (13, 14)
    assert check_tileset(DirectoryReader(tmp_path / "tiles"))[0] == []


def test_the_root_is_refined_from_anywhere_and_errors_decrease(tiles: dict[str, bytes]) -> None:
    document = orjson.loads(tiles["tileset.json"])
    top, root = document["geometricError"], document["root"]["geometricError"]
    below = document["root"]["children"][0]["geometricError"]
    assert top > root > below > 0
    # Cesium's screen-space error on a full-HD view, 40,000 km away, must exceed its limit of 16.
    assert root * 1080 / (40_000_000 * 2 * np.tan(np.radians(30) / 2)) > 16


def test_every_tile_names_its_properties_in_chinese(tiles: dict[str, bytes]) -> None:
    for key, data in tiles.items():
        if key.endswith(".glb") and not is_block(data):
            schema = Glb(data).document["extensions"]["EXT_structural_metadata"]["schema"]
            properties = schema["classes"]["feature"]["properties"]
            assert properties["u7528_u9014"]["name"] == "用途"
            assert properties["cim_height_m"]["componentType"] == "FLOAT32"


def test_one_building_of_many_vertices_is_whole(tmp_path: Path) -> None:
    ring = shapely.Point(113.4, 31.7).buffer(1e-3, quad_segs=5000)
    table = pa.table({BASE_COLUMN: [0.0], HEIGHT_COLUMN: [10.0]})
    batch = FeatureBatch(TILE_REF, np.arange(1), np.array([ring], dtype=object), table)
    info = tile(tmp_path, [batch])
    # Down to the deepest level, as no cell above may hold so many vertices.
    assert (info.min_level, info.max_level, info.features) == (8, 18, 1)
    assert check_tileset(DirectoryReader(tmp_path / "tiles"))[0] == []


@pytest.mark.parametrize(
    ("column", "value"), [(HEIGHT_COLUMN, 0.0), (HEIGHT_COLUMN, np.nan), (BASE_COLUMN, np.inf)]
)
def test_heights_that_break_the_contract_are_refused(
    column: str, value: float, tmp_path: Path
) -> None:
    batch = synthetic_footprints(10, 1)
    values = batch.column(column).copy()
    values[4] = value
    with pytest.raises(TilingError, match="feature 4"):
        tile(tmp_path, [batch.with_column(column, values)])


def test_lines_are_refused(tmp_path: Path) -> None:
    batch = synthetic_footprints(3, 1)
    batch.geometry[1] = shapely.boundary(batch.geometry[1])
    with pytest.raises(TilingError, match="feature 1: LineString"):
        tile(tmp_path, [batch])


def test_nothing_makes_no_tileset(tmp_path: Path) -> None:
    with pytest.raises(NothingToTile):
        tile(tmp_path, [])
    assert not (tmp_path / "tiles").exists()


@pytest.mark.parametrize(
    "options", [{"min_level": 7}, {"max_level": 21}, {"min_level": 15, "max_level": 14}]
)
def test_levels_that_contradict_each_other_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="levels"):
        BuildingsTiler(**options)
