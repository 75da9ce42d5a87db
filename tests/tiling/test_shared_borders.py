"""Borders of divisions of several levels: what coincides in the source coincides at every zoom."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import mapbox_vector_tile
import numpy as np
import pyarrow as pa
import pyogrio
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from tiling.batches import LAYER_COLUMN, FeatureBatch
from tiling.crs import TILE_REF
from tiling.findings import Findings
from tiling.stores.pmtiles import PmtilesReader, PmtilesWriter
from tiling.tilers.base import Run, SilentProgress
from tiling.tilers.layer_rules import LayerRule
from tiling.tilers.pipeline import SerialExecutor
from tiling.tilers.shared_borders import simplified_together
from tiling.tilers.vector import VectorTiler
from tiling.validate.vectortiles import check_vector_tiles

DEMO = Path(__file__).parent.parent.parent / "cim_server" / "demo" / "data"
LEVELS = ("市", "县", "镇")


def towns(areas: np.ndarray, each: int, seed: int) -> np.ndarray:
    """Cut areas into cells around random points: borders end in the middle of others."""
    rng = np.random.default_rng(seed)
    made = []
    for area in areas:
        west, south, east, north = area.bounds
        points = shapely.MultiPoint(rng.uniform((west, south), (east, north), (each, 2)))
        cells = shapely.get_parts(shapely.voronoi_polygons(points, extend_to=area))
        pieces = shapely.intersection(cells, area)
        made.append(pieces[shapely.area(pieces) > 0])
    return np.concatenate(made)


@pytest.fixture(scope="module")
def levels() -> FeatureBatch:
    meta, table = pyogrio.read_arrow(DEMO / "suizhou_counties_cgcs2000.geojson")
    counties = shapely.from_wkb(table.column(meta["geometry_name"] or "wkb_geometry").to_numpy())
    cut = towns(counties, 12, 1)
    geometry = np.concatenate([[shapely.union_all(counties)], counties, cut])
    names = np.repeat(LEVELS, [1, len(counties), len(cut)])
    columns = pa.table({LAYER_COLUMN: names, "级": names})
    return FeatureBatch(TILE_REF, np.arange(len(geometry)), geometry, columns)


@pytest.fixture(scope="module")
def tiles(levels: FeatureBatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("levels")
    writer = PmtilesWriter(folder / "tiles.pmtiles")
    findings = Findings()
    run = Run(writer, folder, SerialExecutor(), 1, 1 << 30, SilentProgress(), findings)
    rules = {"市": LayerRule(5, 9), "县": LayerRule(5, 11), "镇": LayerRule(7, 11)}
    info = VectorTiler(coverage=True, rules=rules).run([levels], run)
    path = writer.commit(info.metadata).path
    with PmtilesReader(path) as reader:
        assert check_vector_tiles(reader)[0] == []
    # Cells that end in the middle of a border are no coverage by themselves, which is told.
    assert {f.rule for f in findings} <= {"coverage-broken", "polygons-collected", "collapsed"}
    return path


def layer_at(path: Path, zoom: int, layer: str) -> np.ndarray:
    """Return the pieces of a layer without buffers, in units of the zoom."""
    found: list[Any] = []
    with PmtilesReader(path) as reader:
        for key in reader.keys():
            z, x, y = (int(v) for v in key.removesuffix(".mvt").split("/"))
            tile = reader.get(key) if z == zoom else None
            if tile is None:
                continue
            decoded = mapbox_vector_tile.decode(
                gzip.decompress(tile.data), default_options={"y_coord_down": True}
            )
            for feature in decoded.get(layer, {"features": []})["features"]:
                shape = shapely.geometry.shape(feature["geometry"])
                inside = shapely.intersection(shape, shapely.box(0, 0, 4096, 4096))
                corner = np.array([x, y]) * 4096
                found.append(shapely.transform(inside, lambda xy, c=corner: xy + c))
    return np.array(found, dtype=object)


@pytest.mark.parametrize("zoom", [5, 6, 7, 8, 9, 10, 11])
def test_levels_of_divisions_coincide_at_every_zoom_across_tiles(tiles: Path, zoom: int) -> None:
    shown = {name: layer_at(tiles, zoom, name) for name in LEVELS}
    whole = {name: shapely.union_all(found) for name, found in shown.items() if len(found)}
    assert len(whole) == (2 if zoom in (5, 6, 10, 11) else 3)
    parent, *children = whole.values()
    for name, area in whole.items():
        # No overlap wider than a unit among the pieces of a level.
        assert shown[name].size
        assert sum(p.area for p in shown[name]) - area.area <= parent.length / 2
    for child in children:
        # Neither a gap nor an overlap as wide as a tile unit: nothing is left half a unit within.
        apart = shapely.symmetric_difference(parent, child)
        assert shapely.is_empty(shapely.buffer(apart, -0.5 - 1e-9))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), tolerance=st.floats(1.0, 2000.0))
def test_children_and_parents_simplified_together_have_the_same_outline(
    seed: int, tolerance: float
) -> None:
    square = shapely.box(0, 0, 40_000, 40_000)
    ring = shapely.get_coordinates(shapely.segmentize(square, 500.0))[:-1]
    noise = np.random.default_rng(seed).uniform(-150, 150, ring.shape)
    ragged = shapely.Polygon(ring + noise)
    parent = shapely.make_valid(ragged, method="structure")
    if parent.geom_type != "Polygon":
        parent = max(shapely.get_parts(parent), key=shapely.area)
    children = towns(np.array([parent], dtype=object), 9, seed % 1000)
    children = shapely.get_parts(children)
    children = children[shapely.get_dimensions(children) == 2]
    together = simplified_together(np.array([parent, *children], dtype=object), tolerance)
    assert shapely.is_valid(together).all()
    union = shapely.union_all(together[1:])
    # What the source itself leaves open, by rounding, is narrower than a centimetre.
    apart = shapely.symmetric_difference(union, together[0])
    assert shapely.is_empty(shapely.buffer(apart, -0.01))
    overlap = shapely.area(together[1:]).sum() - union.area
    assert abs(overlap) <= 0.01 * parent.length


def test_polygons_that_overlap_go_on_overlapping() -> None:
    one, two = shapely.box(0, 0, 100, 100), shapely.box(90, 0, 200, 100)
    a, b = simplified_together(np.array([one, two], dtype=object), 1.0)
    assert a.equals(one) and b.equals(two)


def test_a_polygon_thinner_than_a_centimetre_stays_as_it_is() -> None:
    thin = shapely.box(0, 0, 100, 1e-4)
    (same,) = simplified_together(np.array([thin], dtype=object), 1.0)
    assert same.equals(thin)
