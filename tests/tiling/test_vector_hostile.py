"""Shapes that a tiler meets rarely: across the antimeridian, at the poles, huge, empty, not finite;
and the buffer of tiles, which holds all that it should and nothing beyond."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.tiling.test_vector import EXTENT, batch_of, in_units, make
from tiling.batches import FeatureBatch
from tiling.crs import TILE_REF
from tiling.formats.mvt import BUFFER


def wave(vertices: int) -> Any:
    """A ring of many vertices around Suizhou, about 110 km across."""
    turn = np.linspace(0, 2 * np.pi, vertices, endpoint=False)
    radius = 0.5 + 0.02 * np.sin(37 * turn) + 0.002 * np.sin(vertices // 60 * turn)
    return shapely.Polygon(
        np.stack([113.4 + radius * np.cos(turn), 31.7 + radius * np.sin(turn)], 1)
    )


shapes = st.builds(
    lambda x, y, w, h, kind: {
        "area": shapely.box(x, y, x + w, y + h),
        "line": shapely.LineString([(x, y), (x + w, y + h), (x + w, y)]),
        "point": shapely.Point(x, y),
    }[kind],
    st.floats(113.3, 113.5),
    st.floats(31.6, 31.8),
    st.floats(0.001, 0.08),
    st.floats(0.001, 0.08),
    st.sampled_from(["area", "line", "point"]),
)


@settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow])
@given(shapes=st.lists(shapes, min_size=1, max_size=6))
def test_a_tile_holds_its_buffer_and_nothing_beyond(
    shapes: list[Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    geometry = np.array(shapes, dtype=object)
    batch = FeatureBatch(
        TILE_REF, np.arange(len(shapes)), geometry, pa.table({"n": range(len(shapes))})
    )
    tileset = make(tmp_path_factory.mktemp("buffer"), [batch], min_zoom=12, max_zoom=12)
    expected = in_units(geometry, 12)
    for x, y, tile in tileset.tiles(12):
        here = {f["id"]: f["geometry"] for f in tile["features"]["features"]}
        frame = shapely.box(-BUFFER, -BUFFER, EXTENT + BUFFER, EXTENT + BUFFER)
        inner = shapely.box(1 - BUFFER, 1 - BUFFER, EXTENT + BUFFER - 1, EXTENT + BUFFER - 1)
        for i, whole in enumerate(expected):
            own = shapely.transform(whole, lambda xy, x=x, y=y: xy - (x * EXTENT, y * EXTENT))
            wanted = shapely.intersection(own, inner)
            if i not in here:
                assert wanted.is_empty
                continue
            found = shapely.geometry.shape(here[i])
            assert frame.covers(found)
            assert found.buffer(1.5).covers(wanted)
            assert own.buffer(1.5).covers(found)


def test_what_crosses_the_antimeridian_or_reaches_a_pole_is_cut_and_never_wraps(
    tmp_path: Path,
) -> None:
    batch = batch_of(
        "POLYGON ((179 10, 180 10, 180 12, 179 12, 179 10))",
        "MULTIPOLYGON (((179.5 20, 180 20, 180 21, 179.5 21, 179.5 20)), "
        "((-180 20, -179.5 20, -179.5 21, -180 21, -180 20)))",
        "LINESTRING (-180 0, 180 0)",
        "POLYGON ((100 80, 110 80, 110 90, 100 90, 100 80))",
        "POLYGON ((-180 -90, 180 -90, 180 -60, -180 -60, -180 -90))",
        "POINT (180 0)",
        "POINT (-180 0)",
    )
    tileset = make(tmp_path, [batch], min_zoom=0, max_zoom=4)
    tileset.check()
    pieces = tileset.pieces(4, "features")
    world = 16 * EXTENT
    assert sorted(pieces) == list(range(7))
    spans = {i: shapely.union_all(parts).bounds for i, parts in pieces.items()}
    assert spans[0][0] == pytest.approx(world * 359 / 360, abs=1) and spans[0][2] == world
    assert spans[1][0] == 0 and spans[1][2] == world
    assert shapely.union_all(pieces[1]).area < world * world / 360 / 90
    assert (spans[2][0], spans[2][2]) == (0, world)
    assert spans[3][1] == 0  # the Mercator square ends at 85.05°
    assert spans[4][3] == world
    assert (spans[5][0], spans[6][0]) == (world, 0)


def test_a_ring_of_thirty_thousand_vertices_is_whole_at_the_top_zoom(tmp_path: Path) -> None:
    ring = wave(30_000)
    batch = FeatureBatch(
        TILE_REF, np.arange(1), np.array([ring], dtype=object), pa.table({"n": [1]})
    )
    tileset = make(tmp_path, [batch], min_zoom=8, max_zoom=11)
    tileset.check()
    union = shapely.union_all(tileset.pieces(11, "features")[0])
    expected = in_units(np.array([ring], dtype=object), 11)[0]
    assert abs(union.area - expected.area) / expected.area < 1e-6
    for one, other in ((union, expected), (expected, union)):
        edge = other.boundary
        shapely.prepare(edge)
        corners = shapely.points(shapely.get_coordinates(one)[::50])
        assert shapely.dwithin(corners, edge, 1.5).all()
