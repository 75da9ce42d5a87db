"""Laws of vector tilesets, checked with decoders and a projection that are not ours."""

from __future__ import annotations

import gzip
import multiprocessing
import warnings
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import mapbox_vector_tile
import numpy as np
import pyarrow as pa
import pyogrio
import pyproj
import pytest
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tiling.batches import LAYER_COLUMN, FeatureBatch
from tiling.crs import TILE_REF, SpatialRef
from tiling.errors import Cancelled, ConfigError, FieldInvalid, NothingToTile, TilingError
from tiling.findings import Findings
from tiling.stores.base import StoreInfo
from tiling.stores.pmtiles import PmtilesReader, PmtilesWriter
from tiling.testing.cities import synthetic_footprints
from tiling.tilers import vector
from tiling.tilers.base import Run, SilentProgress, TilesetInfo
from tiling.tilers.pipeline import SerialExecutor
from tiling.tilers.simplify import of_dimension, slices, to_tile
from tiling.tilers.vector import VectorTiler
from tiling.tilers.zoom_range import Measure, default_zooms
from tiling.validate.vectortiles import check_vector_archive, check_vector_tiles

DEMO = Path(__file__).parent.parent.parent / "cim_server" / "demo" / "data"
EXTENT = 4096
TO_MERCATOR = pyproj.Transformer.from_crs(4326, 3857, always_xy=True)
HALF_WORLD_M = 20037508.342789244


class Tileset:
    """A finished archive, decoded by other people's code."""

    def __init__(self, path: Path, info: TilesetInfo, store: StoreInfo, findings: Findings) -> None:
        self.path, self.info, self.store, self.findings = path, info, store, findings

    def tiles(self, zoom: int) -> Iterator[tuple[int, int, dict[str, Any]]]:
        with PmtilesReader(self.path) as reader:
            for key in reader.keys():
                z, x, y = (int(v) for v in key.removesuffix(".mvt").split("/"))
                if z == zoom:
                    tile = reader.get(key)
                    assert tile is not None and tile.encoding == "gzip"
                    data = gzip.decompress(tile.data)
                    yield (
                        x,
                        y,
                        mapbox_vector_tile.decode(data, default_options={"y_coord_down": True}),
                    )

    def pieces(self, zoom: int, layer: str) -> dict[int, list[Any]]:
        """Return per feature id its pieces without buffers, in units of the zoom."""
        found: dict[int, list[Any]] = {}
        for x, y, tile in self.tiles(zoom):
            for feature in tile.get(layer, {"features": []})["features"]:
                shape = shapely.geometry.shape(feature["geometry"])
                assert shape.is_valid, (zoom, x, y, feature["id"])
                inside = shapely.intersection(shape, shapely.box(0, 0, EXTENT, EXTENT))
                moved = shapely.transform(
                    inside, lambda xy, x=x, y=y: xy + (x * EXTENT, y * EXTENT)
                )
                found.setdefault(feature["id"], []).append(moved)
        return found

    def properties(self, zoom: int, layer: str) -> dict[int, dict[str, Any]]:
        return {
            feature["id"]: feature["properties"]
            for _, _, tile in self.tiles(zoom)
            for feature in tile.get(layer, {"features": []})["features"]
        }

    def check(self) -> dict[str, Any]:
        with PmtilesReader(self.path) as reader:
            findings, facts = check_vector_tiles(reader)
        assert findings == []
        assert facts["tiles"] == self.info.tiles == self.store.tiles
        assert facts["features"] == self.info.features
        return facts


def tile_run(folder: Path, executor: Executor, workers: int = 1, memory: int = 1 << 30) -> Run:
    writer = PmtilesWriter(folder / "tiles.pmtiles")
    return Run(writer, folder / "scratch", executor, workers, memory, SilentProgress(), Findings())


def make(
    folder: Path,
    batches: Any,
    executor: Executor | None = None,
    workers: int = 1,
    **options: Any,
) -> Tileset:
    run = tile_run(folder, executor or SerialExecutor(), workers)
    try:
        info = VectorTiler(**options).run(batches, run)
        store = run.writer.commit(info.metadata)
    finally:
        run.writer.abort()
    return Tileset(store.path, info, store, run.findings)


def read(name: str) -> FeatureBatch:
    with warnings.catch_warnings():
        # GDAL renumbers features of OpenStreetMap whose ids repeat.
        warnings.simplefilter("ignore", RuntimeWarning)
        meta, table = pyogrio.read_arrow(DEMO / name)
    column = meta["geometry_name"] or "wkb_geometry"
    geometry = shapely.from_wkb(table.column(column).to_numpy())
    table = table.drop_columns([column])
    return FeatureBatch(TILE_REF, np.arange(len(geometry)), geometry, table)


def batch_of(*texts: str, **columns: Any) -> FeatureBatch:
    geometry = np.array([shapely.from_wkt(t) for t in texts], dtype=object)
    table = pa.table(columns or {"n": list(range(len(texts)))})
    return FeatureBatch(TILE_REF, np.arange(len(texts)), geometry, table)


def in_units(geometry: Any, zoom: int) -> Any:
    """Project with pyproj and scale to the units of a zoom, y downwards."""

    def project(lonlat: Any) -> Any:
        x, y = TO_MERCATOR.transform(lonlat[:, 0], lonlat[:, 1])
        scale = EXTENT * 2**zoom / (2 * HALF_WORLD_M)
        return np.stack([(x + HALF_WORLD_M) * scale, (HALF_WORLD_M - y) * scale], axis=1)

    return shapely.transform(geometry, project)


@pytest.fixture(scope="module")
def suizhou(tmp_path_factory: pytest.TempPathFactory) -> Tileset:
    batch = read("suizhou_counties_cgcs2000.geojson")
    return make(tmp_path_factory.mktemp("suizhou"), [batch], layer="counties", coverage=True)


@pytest.fixture(scope="module")
def city() -> FeatureBatch:
    return synthetic_footprints(1500, seed=3)


@pytest.fixture(scope="module")
def small_units() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vector, "UNIT_FEATURES", 200)
        yield


@pytest.fixture(scope="module")
def tiled_city(
    city: FeatureBatch, small_units: None, tmp_path_factory: pytest.TempPathFactory
) -> Tileset:
    return make(tmp_path_factory.mktemp("city"), [city], layer="白模")


# ---------------------------------------------------------------- divisions


def test_divisions_keep_the_laws_and_get_the_zooms_of_divisions(suizhou: Tileset) -> None:
    suizhou.check()
    assert (suizhou.info.min_level, suizhou.info.max_level) == (4, 12)
    assert list(suizhou.findings) == []


def test_divisions_have_the_area_and_the_names_of_the_source(suizhou: Tileset) -> None:
    source = read("suizhou_counties_cgcs2000.geojson")
    zoom = suizhou.info.max_level
    pieces, expected = suizhou.pieces(zoom, "counties"), in_units(source.geometry, zoom)
    properties = suizhou.properties(zoom, "counties")
    for i, row in enumerate(source.attributes.to_pylist()):
        assert properties[i] == row
        union = shapely.union_all(pieces[i])
        assert abs(union.area - expected[i].area) <= expected[i].length
        assert expected[i].buffer(1.0).contains(union)
        assert union.buffer(1.0).contains(expected[i])


def test_divisions_neither_overlap_nor_part_at_any_zoom(suizhou: Tileset) -> None:
    source = shapely.union_all(read("suizhou_counties_cgcs2000.geojson").geometry)
    for zoom in range(suizhou.info.min_level, suizhou.info.max_level + 1):
        pieces = [p for parts in suizhou.pieces(zoom, "counties").values() for p in parts]
        whole = shapely.union_all(pieces)
        assert sum(p.area for p in pieces) == pytest.approx(whole.area, abs=1e-6)
        holes = sum(len(p.interiors) for p in shapely.get_parts(whole))
        assert holes == sum(len(p.interiors) for p in shapely.get_parts(source))


def test_every_division_has_one_label_within_it_at_every_zoom(suizhou: Tileset) -> None:
    for zoom in range(suizhou.info.min_level, suizhou.info.max_level + 1):
        areas, labels = suizhou.pieces(zoom, "counties"), suizhou.pieces(zoom, "counties_label")
        assert sorted(labels) == [0, 1, 2]
        for i, points in labels.items():
            assert len(points) == 1
            assert shapely.union_all(areas[i]).buffer(1.5).contains(points[0])
    assert suizhou.properties(12, "counties_label") == suizhou.properties(12, "counties")


def test_a_label_stands_at_the_same_spot_at_every_zoom(suizhou: Tileset) -> None:
    low, high = suizhou.info.min_level, suizhou.info.max_level
    exact = {i: p[0] for i, p in suizhou.pieces(high, "counties_label").items()}
    for zoom in range(low, high):
        for i, (place,) in suizhou.pieces(zoom, "counties_label").items():
            scale = 2 ** (high - zoom)
            # Rounded to the unit of its zoom.
            assert abs(place.x * scale - exact[i].x) <= 0.5 * scale + 1
            assert abs(place.y * scale - exact[i].y) <= 0.5 * scale + 1


def test_the_metadata_says_what_viewers_ask_for(suizhou: Tileset) -> None:
    with PmtilesReader(suizhou.path) as reader:
        metadata, header = reader.metadata, reader.header
    fields = {"name": "String", "gb": "String", "adcode": "String"}
    assert metadata["vector_layers"] == [
        {"id": name, "fields": fields, "minzoom": 4, "maxzoom": 12}
        for name in ("counties", "counties_label")
    ]
    assert metadata["counts"] == {"counties": 3}
    source = read("suizhou_counties_cgcs2000.geojson")
    assert metadata["bounds"] == pytest.approx(shapely.total_bounds(source.geometry))
    assert header.bounds == pytest.approx(metadata["bounds"], abs=1e-6)
    assert (header.min_zoom, header.max_zoom) == (4, 12)


def test_a_broken_coverage_is_told_and_tiled_all_the_same(tmp_path: Path) -> None:
    batch = batch_of(
        "POLYGON ((113 31, 114 31, 114 32, 113 32, 113 31))",
        "POLYGON ((113.9 31, 115 31, 115 32, 113.9 32, 113.9 31))",
    )
    tileset = make(tmp_path, [batch], coverage=True, max_zoom=9)
    tileset.check()
    (finding,) = [f for f in tileset.findings if f.rule == "coverage-broken"]
    assert (finding.count, finding.samples) == (2, (0, 1))
    assert len(tileset.pieces(9, "features_label")) == 2


# ---------------------------------------------------------------- features of a city


def test_every_footprint_is_there_to_the_tile_unit(city: FeatureBatch, tiled_city: Tileset) -> None:
    tiled_city.check()
    zoom = tiled_city.info.max_level
    pieces, expected = tiled_city.pieces(zoom, "白模"), in_units(city.geometry, zoom)
    assert sorted(pieces) == list(range(len(city)))
    for i, parts in pieces.items():
        union = shapely.union_all(parts)
        assert shapely.hausdorff_distance(union, expected[i]) <= 1.0
        assert abs(union.area - expected[i].area) <= expected[i].length


def test_every_attribute_is_there(city: FeatureBatch, tiled_city: Tileset) -> None:
    found = tiled_city.properties(tiled_city.info.max_level, "白模")
    for i, row in enumerate(city.attributes.to_pylist()):
        row["普查日期"] = None if row["普查日期"] is None else row["普查日期"].isoformat()
        assert found[i] == {name: value for name, value in row.items() if value is not None}


def test_overviews_count_what_they_leave_out(city: FeatureBatch, tiled_city: Tileset) -> None:
    info = tiled_city.info
    dropped = info.metadata["dropped"]
    for zoom in range(info.min_level, info.max_level):
        shown = len(tiled_city.pieces(zoom, "白模"))
        missing = sum(counts.get(str(zoom), 0) for counts in dropped.values())
        assert shown + missing == len(city)
    told = sum(f.count for f in tiled_city.findings if f.rule == "polygons-collected")
    assert told == sum(dropped["collected"].values())
    assert info.metadata["pixels"]


def test_parallel_is_serial_is_resumed_and_batches_do_not_matter(
    city: FeatureBatch, tiled_city: Tileset, small_units: None, tmp_path: Path
) -> None:
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=spawn) as pool:
        parallel = make(tmp_path / "p", city.split(60_000), pool, 2, layer="白模")
    assert parallel.store.sha256 == tiled_city.store.sha256
    assert parallel.info == tiled_city.info
    assert parallel.findings.to_json() == tiled_city.findings.to_json()

    class Stop(SilentProgress):
        steps = 0

        def begin(self, step: str, total: int | None = None) -> None:
            self.building = step == "vector-tiles"

        def advance(self, amount: int = 1) -> None:
            self.steps += self.building
            if self.steps > 3:
                raise Cancelled("stopped")

    run = replace(tile_run(tmp_path / "r", SerialExecutor()), progress=Stop())
    with pytest.raises(Cancelled):
        VectorTiler(layer="白模").run([city], run)
    run.writer.abort()
    assert list((tmp_path / "r" / "scratch" / "vector-tiles").glob("*.part"))
    resumed = make(tmp_path / "r", _never(), layer="白模")
    assert resumed.store.sha256 == tiled_city.store.sha256
    assert resumed.findings.to_json() == tiled_city.findings.to_json()


def test_an_archive_checked_in_parts_is_judged_as_a_whole(
    tiled_city: Tileset, tmp_path: Path
) -> None:
    steps: list[int] = []
    with PmtilesReader(tiled_city.path) as reader:
        whole = check_vector_tiles(reader)
        metadata = {**reader.metadata, "counts": {"白模": 1501}, "vector_layers": []}
        keys = list(reader.keys())
        broken = PmtilesWriter(tmp_path / "broken.pmtiles")
        for key in keys:
            tile = reader.get(key)
            assert tile is not None
            broken.put(key, tile.data, tile.encoding)
    parts = check_vector_archive(tiled_city.path, SerialExecutor(), 2, steps.append)
    assert parts == whole
    assert sum(steps) == len(keys) and len(steps) > 1
    path = broken.commit(metadata).path
    with PmtilesReader(path) as reader:
        whole = check_vector_tiles(reader)
    parts = check_vector_archive(path, SerialExecutor(), 2, steps.append)
    assert [f.to_json() for f in parts[0]] == [f.to_json() for f in whole[0]]
    assert {"feature-count", "layer-undeclared"} <= {f.rule for f in parts[0]}


def _never() -> Iterator[FeatureBatch]:
    raise AssertionError("a resumed run reads the source again")
    yield


def test_the_size_of_units_does_not_show_at_full_detail(
    city: FeatureBatch, tiled_city: Tileset, tmp_path: Path
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vector, "UNIT_FEATURES", 10**9)
        whole = make(tmp_path, [city], layer="白模")
    zoom = whole.info.max_level
    with PmtilesReader(whole.path) as one, PmtilesReader(tiled_city.path) as many:
        assert sorted(one.keys()) == sorted(many.keys())
        for key in one.keys():
            if key.startswith(f"{zoom}/"):
                assert one.get(key) == many.get(key)


def test_real_buildings_and_roads_keep_the_laws(tmp_path: Path) -> None:
    buildings, roads = read("wuhan_buildings.geojson"), read("wuhan_roads.geojson")
    for name, batch in (("buildings", buildings), ("roads", roads)):
        tileset = make(tmp_path / name, [batch], layer=name)
        tileset.check()
        zoom = tileset.info.max_level
        pieces = tileset.pieces(zoom, name)
        assert sorted(pieces) == list(range(len(batch)))
        expected = in_units(batch.geometry, zoom)
        for i, parts in pieces.items():
            assert shapely.hausdorff_distance(shapely.union_all(parts), expected[i]) <= 1.5


# ---------------------------------------------------------------- any geometry

coordinates = st.tuples(
    st.floats(113.3, 113.3 + 0.08, allow_nan=False), st.floats(31.6, 31.68, allow_nan=False)
)
points = st.builds(shapely.Point, coordinates)
lines = st.builds(shapely.LineString, st.lists(coordinates, min_size=2, max_size=8))
polygons = st.builds(
    lambda ring: shapely.make_valid(shapely.Polygon(ring), method="structure"),
    st.lists(coordinates, min_size=3, max_size=12),
).filter(lambda p: p.geom_type in ("Polygon", "MultiPolygon") and p.area > 0)


def test_a_sliver_thinner_than_any_cut_is_told_and_drawn(tmp_path: Path) -> None:
    # Two corners a hundred-millionth of a metre apart: valid, and less than tile units can say.
    sliver = shapely.Polygon([(113.375, 31.65625), (113.38, 31.625), (113.37999999999998, 31.625)])
    batch = batch_of(shapely.to_wkt(sliver, rounding_precision=-1))
    tileset = make(tmp_path, [batch], min_zoom=9, max_zoom=11)
    tileset.check()
    assert list(tileset.pieces(11, "features")) == [0]
    assert [f.count for f in tileset.findings if f.rule == "polygon-too-thin"] == [1]


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(shapes=st.lists(points | lines | polygons, min_size=1, max_size=8), zoom=st.integers(9, 14))
def test_the_pieces_of_a_feature_make_the_feature(
    shapes: list[Any], zoom: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    geometry = np.array(shapes, dtype=object)
    table = pa.table({"名": [str(i) for i in range(len(shapes))]})
    batch = FeatureBatch(TILE_REF, np.arange(len(shapes)), geometry, table)
    folder = tmp_path_factory.mktemp("law")
    tileset = make(folder, [batch], min_zoom=zoom - 2, max_zoom=zoom)
    tileset.check()
    expected, pieces = in_units(geometry, zoom), tileset.pieces(zoom, "features")
    assert sorted(pieces) == list(range(len(shapes)))
    for i, parts in pieces.items():
        union = shapely.union_all(parts)
        # One unit of rounding, and one more where slivers are repaired or drawn as a unit.
        assert expected[i].buffer(2.5).contains(union)
        if expected[i].area > 0:
            assert abs(union.area - expected[i].area) <= 2 * expected[i].length + 2
        else:
            assert union.buffer(2.5).contains(expected[i])


def test_a_thousand_points_lie_where_pyproj_says(tmp_path: Path) -> None:
    rng = np.random.default_rng(11)
    lon, lat = rng.uniform(108, 117, 1000), rng.uniform(29, 34, 1000)
    geometry = np.asarray(shapely.points(lon, lat), dtype=object)
    batch = FeatureBatch(TILE_REF, np.arange(1000), geometry, pa.table({"n": np.arange(1000)}))
    tileset = make(tmp_path, [batch], min_zoom=14)
    tileset.check()
    zoom = tileset.info.max_level
    expected, found = in_units(geometry, zoom), tileset.pieces(zoom, "features")
    distances = [shapely.distance(expected[i], found[i][0]) for i in range(1000)]
    assert max(distances) <= np.sqrt(0.5) + 1e-6  # half a unit in x and in y


def test_a_feature_smaller_than_a_unit_is_still_there_at_full_detail(tmp_path: Path) -> None:
    batch = batch_of(
        "POLYGON ((113.3 31.6, 113.3000001 31.6, 113.3000001 31.6000001, 113.3 31.6))",
        "LINESTRING (113.4 31.6, 113.4000001 31.6)",
        "POLYGON ((113.5 31.6, 113.6 31.6, 113.6 31.7, 113.5 31.6))",
    )
    tileset = make(tmp_path, [batch], min_zoom=8, max_zoom=10)
    tileset.check()
    pieces = tileset.pieces(10, "features")
    assert sorted(pieces) == [0, 1, 2]
    expected = in_units(batch.geometry, 10)
    assert all(shapely.distance(pieces[i][0], expected[i]) < 1 for i in range(2))
    (finding,) = [f for f in tileset.findings if f.rule == "feature-enlarged"]
    assert (finding.count, set(finding.samples)) == (2, {0, 1})
    assert sorted(tileset.pieces(9, "features")) == [2]


def test_a_tile_over_its_budget_keeps_the_largest_and_counts_the_rest(tmp_path: Path) -> None:
    city = synthetic_footprints(3000, seed=5)
    budget = 30_000
    tileset = make(tmp_path, [city], min_zoom=12, max_zoom=15, tile_nbytes=budget)
    tileset.check()
    left_out = tileset.info.metadata["dropped"]["over_budget"]
    assert left_out and "15" not in left_out
    sizes = np.sqrt(shapely.area(in_units(city.geometry, 15)))
    with PmtilesReader(tileset.path) as reader:
        heavy = {k: len(t.data) for k in reader.keys() if (t := reader.get(k)) is not None}
    assert all(size <= budget for key, size in heavy.items() if not key.startswith("15/"))
    assert max(heavy.values()) == tileset.info.metadata["heaviest_tile_nbytes"]
    crowded = 0
    for x, y, tile in tileset.tiles(12):
        kept = {f["id"] for f in tile["features"]["features"]}
        here = {i for i in range(len(city)) if _touches(city.geometry[i], 12, x, y)}
        small = {i for i in here if sizes[i] / 8 < 8}
        gone = here - kept - small
        if gone:
            crowded += 1
            assert min(sizes[list(kept)]) >= max(sizes[list(gone)]) - 1e-6
    assert crowded


def _touches(geometry: Any, zoom: int, x: int, y: int) -> bool:
    shape = in_units(geometry, zoom)
    cell = shapely.box(x * EXTENT, y * EXTENT, (x + 1) * EXTENT, (y + 1) * EXTENT)
    return bool(shape.intersects(cell.buffer(64, join_style="mitre")))


# ---------------------------------------------------------------- options and refusals


def test_layers_come_from_their_column(tmp_path: Path) -> None:
    batch = batch_of(
        "POINT (113 31)",
        "POLYGON ((113 31, 114 31, 114 32, 113 31))",
        "LINESTRING (113 31, 114 32)",
        **{LAYER_COLUMN: ["点", "面", None], "a": [1, None, None], "b": [None, "x", "y"]},
    )
    tileset = make(tmp_path, [batch], layer="其他", max_zoom=8, labels=True)
    tileset.check()
    layers = {v["id"]: v["fields"] for v in tileset.info.metadata["vector_layers"]}
    assert layers == {
        "点": {"a": "Number"},
        "面": {"b": "String"},
        "面_label": {"b": "String"},
        "其他": {"b": "String"},
    }
    assert tileset.info.metadata["counts"] == {"点": 1, "面": 1, "其他": 1}
    assert tileset.info.metadata["geometries"] == {
        "点": ["Point"],
        "面": ["Polygon"],
        "其他": ["LineString"],
    }


def test_ids_come_from_a_column_when_asked(tmp_path: Path) -> None:
    batch = batch_of("POINT (113 31)", "POINT (114 31)", code=[4213, 4201])
    tileset = make(tmp_path, [batch], id_column="code", max_zoom=6)
    tileset.check()
    assert sorted(tileset.pieces(6, "features")) == [4201, 4213]


@pytest.mark.parametrize(
    ("column", "word"),
    [("nix", "no field"), ("text", "cannot"), ("minus", "cannot"), ("same", "repeat")],
)
def test_a_column_that_cannot_be_the_id_is_refused(tmp_path: Path, column: str, word: str) -> None:
    batch = batch_of(
        "POINT (113 31)", "POINT (114 31)", text=["a", "b"], minus=[-1, 1], same=[5, 5]
    )
    with pytest.raises(FieldInvalid, match=word):
        make(tmp_path, [batch], id_column=column)


@pytest.mark.parametrize("zooms", [(5, 3), (-1, 3), (3, 25)])
def test_zooms_that_contradict_each_other_are_refused(
    tmp_path: Path, zooms: tuple[int, int]
) -> None:
    with pytest.raises(ConfigError, match="zooms"):
        make(tmp_path, [batch_of("POINT (113 31)")], min_zoom=zooms[0], max_zoom=zooms[1])


def test_nothing_to_tile_is_told(tmp_path: Path) -> None:
    with pytest.raises(NothingToTile):
        make(tmp_path / "none", [])
    with pytest.raises(NothingToTile):
        make(tmp_path / "empty", [batch_of("POLYGON EMPTY")])


def test_another_frame_is_refused(tmp_path: Path) -> None:
    batch = replace(batch_of("POINT (500000 3500000)"), ref=SpatialRef.parse("EPSG:4547"))
    with pytest.raises(TilingError, match="EPSG:4547"):
        make(tmp_path, [batch])


def test_drops_and_repairs_of_geometry_and_numbers_are_counted(tmp_path: Path) -> None:
    batch = batch_of(
        "POLYGON ((113 31, 114 32, 114 31, 113 32, 113 31))",
        "POLYGON EMPTY",
        "POINT Z (113 31 5)",
        "POLYGON ((100 80, 110 80, 110 89, 100 89, 100 80))",
        v=[float("nan"), 1.0, float("inf"), 2.0],
        raw=[b"a", b"b", b"c", b"d"],
    )
    tileset = make(tmp_path, [batch], max_zoom=6)
    tileset.check()
    counts = {f.rule: f.count for f in tileset.findings}
    assert counts["geometry-repaired"] == 1
    assert counts["geometry-empty"] == 1
    assert counts["outside-mercator"] == 1
    assert counts["number-not-finite"] == 2
    assert counts["attribute-omitted"] == 3
    assert tileset.info.features == 3


def test_points_are_thinned_evenly_where_overviews_crowd(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    geometry = np.asarray(
        shapely.points(rng.uniform(113, 113.1, 4000), rng.uniform(31, 31.1, 4000)), dtype=object
    )
    batch = FeatureBatch(TILE_REF, np.arange(4000), geometry, pa.table({"n": np.arange(4000)}))
    tileset = make(tmp_path, [batch], min_zoom=6, max_zoom=14, tile_nbytes=20_000)
    tileset.check()
    dropped = tileset.info.metadata["dropped"]
    shown = shapely.points([p[0].coords[0] for p in tileset.pieces(6, "features").values()])
    assert len(shown) + dropped["thinned"]["6"] == 4000
    (tile,) = [t for _, _, t in tileset.tiles(9)]
    kept = geometry[[f["id"] for f in tile["features"]["features"]]]
    west = (shapely.get_x(kept) < 113.05).mean()
    assert 0.45 < west < 0.55


def test_points_left_out_before_the_overview_tiles_are_counted_too(tmp_path: Path) -> None:
    n = 60_000
    rng = np.random.default_rng(3)
    lon, lat = rng.uniform(113, 113.1, n), rng.uniform(31, 31.1, n)
    geometry = np.asarray(shapely.points(lon, lat), dtype=object)
    batch = FeatureBatch(TILE_REF, np.arange(n), geometry, pa.table({"n": np.arange(n)}))
    tileset = make(tmp_path, [batch], min_zoom=8, max_zoom=14)
    dropped = tileset.info.metadata["dropped"]
    (tile,) = [t for _, _, t in tileset.tiles(8)]
    left_out = sum(dropped[why].get("8", 0) for why in ("thinned", "over_budget"))
    assert len(tile["features"]["features"]) + left_out == n
    assert dropped["thinned"]["8"] > 0
    assert any(f.rule == "points-thinned" for f in tileset.findings)


@pytest.mark.parametrize(
    ("size_m", "segment_m", "zooms"),
    [(60_000, 1_000, (4, 12)), (1_100, 27, (8, 15)), (32, 9, (13, 16))],
    ids=["divisions", "roads", "buildings"],
)
def test_default_zooms_follow_size_and_detail(
    size_m: float, segment_m: float, zooms: tuple[int, int]
) -> None:
    layer = Measure(10, 0, [size_m] * 101, [segment_m] * 101, [10] * 17)
    assert default_zooms(layer) == zooms


# ---------------------------------------------------------------- the steps


def test_of_dimension_keeps_the_parts_of_the_kind() -> None:
    mixed = shapely.from_wkt(
        "GEOMETRYCOLLECTION (POINT (1 1), LINESTRING (0 0, 1 1), "
        "MULTIPOLYGON (((0 0, 1 0, 1 1, 0 0))), POLYGON ((2 2, 3 2, 3 3, 2 2)))"
    )
    geometry = np.array([mixed, mixed, mixed, shapely.Point(1, 1)], dtype=object)
    kept = of_dimension(geometry, np.array([1, 2, 3, 3]))
    assert [g.geom_type for g in kept[:3]] == ["MultiPoint", "MultiLineString", "MultiPolygon"]
    assert kept[2].area == 1.0 and kept[3].is_empty


def test_slices_cover_a_feature_and_carry_the_buffer() -> None:
    line = shapely.LineString([(-HALF_WORLD_M + 1, 5.0), (HALF_WORLD_M - 1, 7.0)])
    cuts = list(slices(np.array([line], dtype=object), 5))
    assert {(c.x, c.y) for c in cuts} >= {(x, 15) for x in range(32)}
    side = 2 * HALF_WORLD_M / 32
    inner = [c for c in cuts if 0 < c.x < 31 and c.y == 15]
    for cut in inner:
        assert cut.pieces[0].length == pytest.approx(side * (1 + 2 * 64 / 4096), rel=1e-9)


def test_slices_stay_within_the_cell_that_is_asked_for() -> None:
    square = shapely.box(-1e6, -1e6, 1e6, 1e6)
    geometry = np.array([square, shapely.Point(0, 0)], dtype=object)
    cuts = list(slices(geometry, 6, 2, (1, 1), np.array([7, 9])))
    assert {(c.x >> 4, c.y >> 4) for c in cuts} == {(1, 1)}
    assert {tuple(c.rows.tolist()) for c in cuts} == {(7,), (7, 9)}


def test_rounding_that_breaks_a_polygon_is_mended() -> None:
    # A spike that folds over its base once rounded.
    unit = 2 * HALF_WORLD_M / 4096
    shape = shapely.Polygon([(0, 0), (20, 0), (20, 20), (10.4, 0.4), (9.6, 20), (0, 20)])
    moved = shapely.transform(shape, lambda xy: xy * unit)
    (local,) = to_tile(np.array([moved], dtype=object), 0, 0, 0)
    assert local.is_valid and not local.is_empty
    assert np.array_equal(shapely.get_coordinates(local), np.rint(shapely.get_coordinates(local)))
    assert local.area == pytest.approx(shape.area, abs=shape.length)
