"""A style of MapLibre for whatever layers a tileset has."""

from __future__ import annotations

import json
from typing import Any

import pytest

from styles.maps import GEOMETRIES, MapLayer, map_kind, map_kinds, map_style

TILES = "http://localhost/tiles/a/current/tilejson.json"
LAYERS = [
    MapLayer("市", ("Polygon",), ("name",), "市_label", 17),
    MapLayer("县", ("Polygon",), ("name",), "县_label", 103),
    MapLayer("道路", ("LineString",), ("名称", "道路等级"), None, 374),
    MapLayer("门牌", ("Point",), ("门牌号",), None, 900),
    MapLayer("未知", GEOMETRIES, (), None, 5),
]


def layers_of(style: dict[str, Any], source_layer: str) -> list[dict[str, Any]]:
    return [layer for layer in style["layers"] if layer.get("source-layer") == source_layer]


@pytest.mark.parametrize(
    ("name", "geometry", "fields", "kind"),
    [
        ("hubei_counties", "Polygon", (), "divisions"),
        ("行政区划", "Polygon", (), "divisions"),
        ("水系", "Polygon", (), "water"),
        ("水系", "LineString", (), "waterways"),
        ("shanghai_buildings", "Polygon", (), "buildings"),
        ("a", "Polygon", ("层数",), "buildings"),
        ("宗地", "Polygon", (), "parcels"),
        ("a", "Polygon", (), "parcels"),
        ("道路中心线", "LineString", (), "roads"),
        ("a", "LineString", (), "roads"),
        ("a", "Point", ("门牌号",), "house-numbers"),
        ("pois", "Point", ("name",), "points"),
    ],
)
def test_the_kind_follows_from_name_fields_and_geometry(
    name: str, geometry: str, fields: tuple[str, ...], kind: str
) -> None:
    assert map_kind(MapLayer(name, (geometry,), fields), geometry) == kind


def test_polygons_with_labels_are_divisions_whatever_they_are_called() -> None:
    assert map_kind(MapLayer("water", ("Polygon",), (), "water_label"), "Polygon") == "divisions"


def test_each_geometry_has_one_kind_for_what_nothing_is_known_of() -> None:
    defaults = [kind["geometry"] for kind in map_kinds().values() if kind.get("default")]
    assert sorted(defaults) == sorted(GEOMETRIES)


def test_every_layer_is_drawn_and_nothing_stands_for_a_value_any_more() -> None:
    style = map_style("城市", TILES, LAYERS)
    assert style["sources"] == {"tiles": {"type": "vector", "url": TILES}}
    for layer in LAYERS:
        assert layers_of(style, layer.name)
    ids = [layer["id"] for layer in style["layers"]]
    assert len(set(ids)) == len(ids)
    assert '"$' not in json.dumps(style)
    assert "glyphs" not in style
    assert map_style("城市", TILES, LAYERS, "http://localhost/fonts")["glyphs"]


def test_names_come_from_the_points_made_for_them_and_from_fields_that_are_there() -> None:
    style = map_style("城市", TILES, LAYERS)
    (name,) = layers_of(style, "县_label")
    assert name["layout"]["text-field"] == ["to-string", ["coalesce", ["get", "name"], ""]]
    assert all(layer["type"] != "symbol" for layer in layers_of(style, "县"))
    assert all(layer["type"] != "symbol" for layer in layers_of(style, "未知"))
    (number,) = layers_of(style, "门牌")
    assert ["get", "门牌号"] in number["layout"]["text-field"][1]


def test_names_lie_over_lines_over_areas_and_cities_over_counties() -> None:
    style = map_style("城市", TILES, LAYERS)
    order = {"background": -1, "fill": 0, "line": 1, "circle": 2, "symbol": 3}
    types = [order[layer["type"]] for layer in style["layers"]]
    assert types == sorted(types)
    sources = [layer.get("source-layer") for layer in style["layers"]]
    assert sources.index("县_label") < sources.index("市_label")
    # But a click finds the county.
    areas = [layer["source-layer"] for layer in style["layers"] if layer["type"] == "fill"]
    assert areas.index("市") < areas.index("县")


def test_features_of_other_geometries_are_not_drawn_in_a_layer_s_manner() -> None:
    style = map_style("城市", TILES, LAYERS)
    drawn = {layer["filter"][2]: layer["type"] for layer in layers_of(style, "未知")}
    assert set(drawn) == set(GEOMETRIES)
    assert drawn["Point"] == "circle" and drawn["LineString"] == "line"
