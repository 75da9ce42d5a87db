"""The same thousand buildings as vector tiles, against PROJ's 3857 and the source itself."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict

import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
from numpy.typing import NDArray

from tests.acceptance.city import COUNT, CRS, City
from tests.acceptance.conftest import Assets
from tests.acceptance.geodesy import reproject
from tests.acceptance.mvt import Piece, box, header, pieces, side_m

ZOOM, EXTENT = 16, 4096
QUANTUM_M = side_m(ZOOM) / EXTENT


@pytest.fixture(scope="module")
def found(vector_city: Assets) -> dict[int, list[Piece]]:
    """What all tiles of the highest zoom show, by the building's number in the source."""
    archive = vector_city.store("suizhou", "pmtiles")
    assert header(archive)["max_zoom"] == ZOOM
    by_number = defaultdict(list)
    for piece in pieces(archive, ZOOM, EXTENT):
        by_number[int(piece.attributes["编号"].removeprefix("楼"))].append(piece)
    return dict(by_number)


@pytest.fixture(scope="module")
def outlines(city: City) -> NDArray[np.object_]:
    """PROJ's own answer in EPSG:3857."""
    return np.asarray(
        shapely.transform(
            city.outlines, lambda xy: np.column_stack(reproject(CRS, 3857, xy[:, 0], xy[:, 1]))
        )
    )


def test_every_building_is_present_once_under_its_own_id(found: dict[int, list[Piece]]) -> None:
    assert sorted(found) == list(range(COUNT))
    ids = {number: {piece.id for piece in parts} for number, parts in found.items()}
    assert all(len(own) == 1 for own in ids.values())
    assert len(set.union(*ids.values())) == COUNT
    for parts in found.values():
        tiles = [piece.tile for piece in parts]
        assert len(tiles) == len(set(tiles)), "twice in one tile"
    assert sum(len(parts) > 1 for parts in found.values()) > 100, "too few cross a tile's edge"


def test_every_vertex_is_within_a_quantum_of_projs_answer(
    found: dict[int, list[Piece]], outlines: NDArray[np.object_]
) -> None:
    farthest = 0.0
    for number, parts in found.items():
        corners = shapely.points(shapely.get_coordinates(outlines[number]))
        for piece in parts:
            # What the tile decodes to lies on the outline, or on the line where it was cut.
            vertices = shapely.points(shapely.get_coordinates(piece.geometry))
            cut = shapely.intersection(outlines[number], piece.geometry.envelope)
            away = shapely.distance(vertices, shapely.boundary(cut))
            assert away.max() <= QUANTUM_M, (number, piece.tile)
            # And every corner inside the tile is a vertex there.
            inside = corners[shapely.contains_properly(box(piece.tile), corners)]
            for corner in inside:
                farthest = max(farthest, float(shapely.distance(corner, vertices).min()))
    print(f"greatest distance {farthest / QUANTUM_M:.3f} quanta of {QUANTUM_M:.3f} m")
    assert 0 < farthest <= QUANTUM_M


def test_the_pieces_make_up_the_area_of_the_source(
    found: dict[int, list[Piece]], outlines: NDArray[np.object_]
) -> None:
    worst = 0.0
    for number, parts in found.items():
        own = [shapely.intersection(p.geometry, box(p.tile)) for p in parts]
        area = sum(shapely.area(own))
        # Without their buffers tiles do not overlap, so nothing is counted twice.
        assert shapely.area(shapely.union_all(own)) == pytest.approx(area, rel=1e-6)
        # Rounding moves every edge by less than half a quantum's diagonal.
        allowed = shapely.length(outlines[number]) * QUANTUM_M * np.sqrt(0.5)
        difference = abs(area - shapely.area(outlines[number]))
        assert difference <= allowed, number
        worst = max(worst, difference / shapely.area(outlines[number]))
    total = sum(
        shapely.area(shapely.intersection(p.geometry, box(p.tile)))
        for ps in found.values()
        for p in ps
    )
    assert total == pytest.approx(float(shapely.area(outlines).sum()), rel=1e-4)
    print(f"greatest difference in area {worst:.2%}")


def test_every_attribute_is_as_in_the_source_in_every_piece(
    city: City, found: dict[int, list[Piece]]
) -> None:
    for number, parts in found.items():
        expected = {
            name: value.isoformat() if isinstance(value, dt.date) else value
            for name, value in city.rows[number].items()
            if value is not None
        }
        for piece in parts:
            assert piece.attributes == expected, number


def test_lower_zooms_show_no_building_that_is_not_in_the_source(
    vector_city: Assets, outlines: NDArray[np.object_]
) -> None:
    archive = vector_city.store("suizhou", "pmtiles")
    for zoom in range(header(archive)["min_zoom"], ZOOM):
        seen = set()
        for piece in pieces(archive, zoom, EXTENT):
            number = int(piece.attributes["编号"].removeprefix("楼"))
            seen.add(number)
            unit = side_m(zoom) / EXTENT
            if np.sqrt(outlines[number].area) < 8 * unit:
                # Smaller than a pixel: drawn as the pixel that it lies in, for its neighbours too.
                assert piece.geometry.area <= 64 * unit**2 * 1.0001
                assert shapely.distance(piece.geometry, outlines[number]) <= unit, (zoom, number)
                continue
            # Simplified by no more than a tile unit, then rounded.
            away = shapely.hausdorff_distance(
                piece.geometry, shapely.intersection(outlines[number], piece.geometry.envelope)
            )
            assert away <= 3 * unit, (zoom, number)
        assert len(seen) <= COUNT


@pytest.mark.parametrize(
    "asset",
    [
        "shanghai-landuse",
        "shanghai-pois",
        "shanghai-roads",
        "shanghai-water",
        "suizhou-counties",
        "suizhou-places",
        "wuhan-roads",
        "wuhan-water",
    ],
)
def test_real_features_of_every_kind_are_drawn_where_they_are(demo: Assets, asset: str) -> None:
    archive = demo.store(asset, "pmtiles")
    zoom = header(archive)["max_zoom"]
    unit_m = side_m(zoom) / EXTENT
    table = pq.read_table(demo.store(asset, "geoparquet"))
    ids = table.column("cim_feature_id").to_pylist()
    shapes = shapely.transform(
        shapely.from_wkb(table.column("geometry").to_numpy()),
        lambda xy: np.column_stack(reproject(4326, 3857, xy[:, 0], xy[:, 1])),
    )
    source = dict(zip(ids, shapes, strict=True))
    names = dict(zip(ids, table.column("name").to_pylist(), strict=True))
    drawn = defaultdict(list)
    for piece in pieces(archive, zoom, EXTENT):
        assert piece.attributes.get("name") == names[piece.id]
        if piece.layer == asset:
            drawn[piece.id].append(piece.geometry)
    assert drawn.keys() == source.keys()
    for number, parts in drawn.items():
        shape = source[number]
        vertices = shapely.points(np.concatenate([shapely.get_coordinates(p) for p in parts]))
        assert shapely.distance(vertices, shape).max() <= 2 * unit_m, number
        away = shapely.distance(
            shapely.points(shapely.get_coordinates(shape)), shapely.union_all(parts)
        )
        assert away.max() <= 2 * unit_m, number
