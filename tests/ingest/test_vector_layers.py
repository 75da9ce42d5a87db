"""Several layers in one vector tileset: names, zooms, attributes, ranks and ids, end to end."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import mapbox_vector_tile
import numpy as np
import pyarrow as pa
import pytest
import shapely
from pyogrio.raw import write_arrow

from ingest.manifest import IngestOptions
from ingest.plan import make_plan
from tiling.errors import ConfigError
from tiling.stores.pmtiles import PmtilesReader


def write_layer(path: Path, name: str, kind: str, geometry: Any, **columns: Any) -> None:
    write_arrow(
        pa.table({**columns, "geom": pa.array(shapely.to_wkb(geometry), pa.binary())}),
        str(path),
        layer=name,
        driver="GPKG",
        geometry_type=kind,
        geometry_name="geom",
        crs="EPSG:4490",
        append=path.exists(),
    )


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gpkg") / "随州.gpkg"
    x = 113.3 + 0.01 * np.arange(6)
    ends = np.stack([np.stack([x, x * 0 + 31.7], 1), np.stack([x + 0.009, x * 0 + 31.72], 1)], 1)
    write_layer(
        path,
        "道路",
        "LineString",
        shapely.linestrings(ends),
        编码=[f"R{i}" for i in range(6)],
        名称=["烈山大道", "", None, "迎宾大道", "交通大道", "青年路"],
        单行=[True, False, None, True, False, True],
        建成=pa.array(np.array(["2001-05-31"] * 6, dtype="datetime64[D]")),
    )
    write_layer(
        path,
        "地名",
        "Point",
        shapely.points(x, x * 0 + 31.71),
        编码=[f"P{i}" for i in range(6)],
        人口=pa.array([1, 2, 3, 40, 50, None], pa.int64()),
        密度=[0.5, 1.0, 2.5, 3.0, 4.0, None],
    )
    return path


def ingested(cim_here: Any, data: Path, *arguments: Any) -> tuple[dict[str, Any], Path]:
    report = data.parent / "report.json"
    done = cim_here("ingest", *arguments, "--data", data, "--report", report)
    assert done.code == 0, done.err
    shown = cim_here("show", arguments[-1], "--data", data, "--json").json()["versions"][0]
    path = next(s["path"] for s in shown["stores"] if s["role"] == "tiles")
    with PmtilesReader(data / path) as reader:
        return reader.metadata, data / path


def features(path: Path, zoom: int, layer: str) -> dict[int, dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    with PmtilesReader(path) as reader:
        for key in reader.keys():
            if key.startswith(f"{zoom}/"):
                tile = reader.get(key)
                assert tile is not None
                decoded = mapbox_vector_tile.decode(gzip.decompress(tile.data))
                for feature in decoded.get(layer, {"features": []})["features"]:
                    found[feature["id"]] = feature["properties"]
    return found


def test_every_layer_of_a_geopackage_becomes_a_layer_with_zooms_and_attributes_of_its_own(
    city: Path, tmp_path: Path, cim_here: Any
) -> None:
    metadata, path = ingested(
        cim_here, tmp_path / "data", city, "--layer", "*", "--layer-zooms", "道路=8-12",
        "--layer-zooms", "地名=6-14", "--attributes", "地名=编码,人口", "--rename", "编码=id",
        "--rank", "地名=人口:desc", "--key", "编码", "--id", "城",
    )  # fmt: skip
    layers = {layer["id"]: layer for layer in metadata["vector_layers"]}
    assert layers["道路"]["fields"] == {
        "id": "String", "名称": "String", "单行": "Boolean", "建成": "String"
    }  # fmt: skip
    assert layers["地名"]["fields"] == {"id": "String", "人口": "Number"}
    zooms = {name: (layer["minzoom"], layer["maxzoom"]) for name, layer in layers.items()}
    assert zooms == {"道路": (8, 12), "地名": (6, 14)}
    assert metadata["promoteId"] == {"道路": "id", "地名": "id"}
    assert metadata["counts"] == {"道路": 6, "地名": 6}
    roads = {p["id"]: p for p in features(path, 12, "道路").values()}
    assert roads["R0"] == {"id": "R0", "名称": "烈山大道", "单行": True, "建成": "2001-05-31"}
    # An empty text is there, nothing is not.
    assert roads["R1"]["名称"] == "" and "名称" not in roads["R2"] and "单行" not in roads["R2"]
    assert roads["R1"]["单行"] is False
    assert features(path, 13, "道路") == {} and len(features(path, 14, "地名")) == 6
    assert cim_here("check", "城", "--data", tmp_path / "data").code == 0


def test_ids_come_from_the_key_and_stay_when_features_are_reordered(
    city: Path, tmp_path: Path, cim_here: Any
) -> None:
    options = ["--layer", "地名", "--key", "编码", "--max-zoom", 8]
    _, one = ingested(cim_here, tmp_path / "a" / "data", city, *options, "--id", "x")
    x = 113.3 + 0.01 * np.arange(6)
    other = tmp_path / "其他.gpkg"
    keys = [f"P{i}" for i in range(6)][::-1]
    write_layer(other, "地名", "Point", shapely.points(x[::-1], x * 0 + 31.71), 编码=keys)
    _, two = ingested(cim_here, tmp_path / "b" / "data", other, *options, "--id", "x")
    by_key = [{p["编码"]: i for i, p in features(path, 8, "x").items()} for path in (one, two)]
    assert by_key[0] == by_key[1] and len(by_key[0]) == 6


def test_a_manifest_declares_layers_by_tables(city: Path, tmp_path: Path, cim_here: Any) -> None:
    manifest = tmp_path / "m.toml"
    manifest.write_text(
        'id = "城"\n'
        f'[[layers]]\nname = "roads"\nsource = "{city}"\nlayer = "道路"\nzooms = "9-11"\n'
        'attributes = ["名称"]\nrename = { "名称" = "name" }\n'
        f'[[layers]]\nname = "places"\nsource = "{city}"\nlayer = "地名"\nrank = "人口:asc"\n',
        encoding="utf-8",
    )
    metadata, path = ingested(cim_here, tmp_path / "data", "--manifest", manifest, "--id", "城")
    layers = {layer["id"]: layer["fields"] for layer in metadata["vector_layers"]}
    assert layers == {
        "roads": {"name": "String"},
        "places": {"编码": "String", "人口": "Number", "密度": "Number"},
    }
    assert {p["name"] for p in features(path, 11, "roads").values() if p} >= {"烈山大道", ""}
    stores = cim_here("show", "城", "--data", tmp_path / "data", "--json").json()["versions"][0]
    features_path = next(s["path"] for s in stores["stores"] if s["role"] == "features")
    table = pa.parquet.read_table(tmp_path / "data" / features_path)
    # The features beside the tiles keep every attribute under its own name.
    assert {"名称", "编码", "单行", "人口", "cim:layer"} <= set(table.column_names)


@pytest.mark.parametrize(
    ("wish", "word"),
    [
        ({"layer": "*", "layer_zooms": ("铁路=3-5",)}, "no layer '铁路'"),
        ({"layer": "*", "attributes": ("道路=人口",)}, "has no field '人口'"),
        ({"layer": "*", "attributes": ("无",)}, "no layer has a field '无'"),
        ({"layer": "*", "rename": ("无=x",)}, "no layer has a field '无'"),
        ({"layer": "*", "kind": "buildings"}, "layers, their zooms"),
        ({"layer_zooms": ("9-5",), "layer": "道路"}, "must ascend"),
        ({"layer_zooms": ("x",), "layer": "道路"}, "neither like 8-16"),
        ({"rank": ("人口:down",), "layer": "地名"}, "not like population:desc"),
        ({"rename": ("a",), "layer": "地名"}, "not like 名称=name"),
        ({"layer": "*", "layers": ({"name": "x"},)}, "leave one out"),
    ],
)
def test_wishes_that_cannot_be_met_are_refused_before_anything_is_read(
    city: Path, wish: dict[str, Any], word: str
) -> None:
    with pytest.raises(ConfigError, match=word):
        make_plan(IngestOptions(sources=(city,), id="x", **wish))


def test_a_rank_that_is_no_number_is_refused_by_name(
    city: Path, tmp_path: Path, cim_here: Any
) -> None:
    done = cim_here(
        "ingest", city, "--layer", "地名", "--rank", "编码", "--id", "x", "--data", tmp_path
    )
    assert done.code == 3 and "cannot rank" in done.err


def test_the_plan_says_what_each_layer_becomes(city: Path, cim_here: Any) -> None:
    plan = json.loads(cim_here("plan", city, "--layer", "*", "--id", "x", "--json").out)
    assert [(s["layer"], s["tile_layer"]) for s in plan["sources"]] == [
        ("道路", "道路"),
        ("地名", "地名"),
    ]
    assert plan["kind"] == "vector" and plan["features"] == 12
