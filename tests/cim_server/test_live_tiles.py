"""Live tiles: what they hold is what the filter says of the source, drawn as baked tiles are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import mapbox_vector_tile
import numpy as np
import pyarrow as pa
import pytest
import shapely

from cim_server.row_filter import RowFilter
from ingest.manifest import IngestOptions
from ingest.run import Resources, ingest
from ingest.workspace import Workspace
from tests.cim_server.conftest import City, serving
from tiling.batches import FeatureBatch
from tiling.coords import TileCoord
from tiling.crs import TILE_REF
from tiling.errors import QueryInvalid
from tiling.schemes import WEB_MERCATOR_QUAD
from tiling.tilers import live_tile as live_module
from tiling.tilers.base import SilentProgress
from tiling.tilers.live_tile import live_tile

SIDE, ZOOM = 20, 15
WEST, SOUTH, STEP = 113.3, 31.6, 0.001


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("live")
    path: Path = folder / "parcels.geojson"
    features: list[dict[str, Any]] = []
    for n in range(SIDE * SIDE):
        west, south = WEST + n % SIDE * STEP, SOUTH + n // SIDE * STEP
        shape = shapely.box(west, south, west + STEP, south + STEP)
        about = {"名称": f"地块 {n}", "n": n, "ratio": None if n % 5 == 0 else n / 7}
        geometry = json.loads(shapely.to_geojson(shape))
        features.append({"type": "Feature", "geometry": geometry, "properties": about})
    document = {"type": "FeatureCollection", "features": features}
    path.write_text(json.dumps(document, ensure_ascii=False), "utf-8")
    options = IngestOptions(sources=(path,), id="地块", kind="vector", max_zoom=ZOOM)
    ingest(options, Workspace(folder / "data"), Resources(workers=1), SilentProgress())
    with serving(City(folder / "data").settings()) as running:
        yield running


def tile_at(lon: float, lat: float, zoom: int) -> TileCoord:
    u, v = WEB_MERCATOR_QUAD.position(np.array([lon]), np.array([lat]), zoom)
    return TileCoord(zoom, int(u[0]), int(v[0]))


def asked(client: httpx.Client, tile: TileCoord, **query: str) -> httpx.Response:
    return client.get(f"/tiles/地块/current/{tile.level}/{tile.x}/{tile.y}.mvt", params=query)


def drawn(answer: httpx.Response) -> dict[int, Any]:
    assert answer.status_code == 200, answer.text
    (layer,) = mapbox_vector_tile.decode(answer.content).items()
    assert layer[0] == "地块"
    return {feature["id"]: feature for feature in layer[1]["features"]}


MIDDLE = tile_at(WEST + 10 * STEP, SOUTH + 10 * STEP, ZOOM)


def test_without_a_condition_a_live_tile_is_the_baked_one(client: httpx.Client) -> None:
    baked, live = drawn(asked(client, MIDDLE)), drawn(asked(client, MIDDLE, filter="TRUE"))
    assert len(baked) > 20
    assert live == baked


def test_a_live_tile_holds_what_fulfils_the_filter_and_nothing_else(client: httpx.Client) -> None:
    baked = drawn(asked(client, MIDDLE))
    text = "n >= 150 AND NOT (\"名称\" LIKE '%7' OR ratio IS NULL)"
    expected = {
        n for n in baked if n >= 150 and not str(n).endswith("7") and n % 5 != 0
    }  # fmt: skip
    answer = asked(client, MIDDLE, filter=text)
    assert expected and drawn(answer).keys() == expected
    assert "CIM-Dropped" not in answer.headers
    like = {"op": "like", "args": [{"property": "名称"}, "%7"]}
    null = {"op": "isNull", "args": [{"property": "ratio"}]}
    tree = {
        "op": "and",
        "args": [
            {"op": ">=", "args": [{"property": "n"}, 150]},
            {"op": "not", "args": [{"op": "or", "args": [like, null]}]},
        ],
    }
    same = asked(client, MIDDLE, filter=json.dumps(tree), **{"filter-lang": "cql2-json"})
    assert same.content == answer.content
    assert same.headers["etag"] == answer.headers["etag"]
    again = client.get(same.url, headers={"If-None-Match": same.headers["etag"]})
    assert again.status_code == 304


def test_what_rounding_takes_at_low_zooms_is_counted(client: httpx.Client) -> None:
    answer = asked(client, tile_at(WEST, SOUTH, 2), filter="TRUE")
    counts = dict(part.split("=") for part in answer.headers["CIM-Dropped"].split(", "))
    shown = len(drawn(answer)) if answer.status_code == 200 else 0
    assert int(counts["collapsed"]) + shown == SIDE * SIDE


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"filter": "floors > 3"}, "'floors'"),
        ({"filter": "n = 'three'"}, "cannot be compared"),
        ({"filter": "n >"}, "no CQL2 text"),
        ({"filter": "n + 1 = 2"}, "do not offer"),
        ({"filter": "n = 1 OR " * 2000 + "n = 2"}, "longer than"),
        ({"filter": "{", "filter-lang": "cql2-json"}, "no JSON"),
        ({"filter": "TRUE", "filter-lang": "sql"}, "filter-lang"),
    ],
)
def test_bad_filters_are_told_what_is_wrong(
    client: httpx.Client, query: dict[str, str], said: str
) -> None:
    answer = asked(client, MIDDLE, **query)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert said in answer.json()["detail"]


def test_where_nothing_fulfils_the_filter_there_is_no_tile(client: httpx.Client) -> None:
    assert asked(client, MIDDLE, filter="n < 0").status_code == 404
    assert asked(client, tile_at(0, 0, ZOOM), filter="TRUE").status_code == 404
    assert client.get("/tiles/地块/current/style.json?filter=TRUE").status_code == 400


def test_the_tilejson_of_a_filter_leads_to_its_tiles(client: httpx.Client) -> None:
    tree = {"op": "like", "args": [{"property": "名称"}, "%7 & {z}"]}
    for query in (
        {"filter": "n < 150 AND \"名称\" LIKE '%7'"},
        {"filter": json.dumps(tree), "filter-lang": "cql2-json"},
    ):
        document = client.get("/tiles/地块/current/tilejson.json", params=query).json()
        (template,) = document["tiles"]
        for name, number in zip("zxy", (MIDDLE.level, MIDDLE.x, MIDDLE.y), strict=True):
            template = template.replace(f"{{{name}}}", str(number))
        answer, same = client.get(template), asked(client, MIDDLE, **query)
        assert (answer.status_code, answer.content) == (same.status_code, same.content)
    (plain,) = client.get("/tiles/地块/current/tilejson.json").json()["tiles"]
    assert plain.endswith("/{z}/{x}/{y}.mvt")
    bad = client.get("/tiles/地块/current/tilejson.json", params={"filter": "n >"})
    assert bad.status_code == 400 and "no CQL2 text" in bad.json()["detail"]


def test_the_description_of_the_service_names_the_filter(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    for key in ("{z}/{x}/{y}.mvt", "tilejson.json"):
        said = paths[f"/tiles/{{asset}}/{{version}}/{key}"]["get"]["parameters"]
        assert {"filter", "filter-lang"} <= {each["name"] for each in said if each["in"] == "query"}


def test_over_the_budget_the_largest_stay_however_they_are_batched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(live_module, "MAX_FEATURES", 5)
    sides = np.random.default_rng(3).permutation(np.arange(1, 41)) * 1e-4
    shapes = np.asarray(shapely.box(WEST, SOUTH, WEST + sides, SOUTH + sides), dtype=object)
    whole = FeatureBatch(TILE_REF, np.arange(40), shapes, pa.table({"n": np.arange(40)}))
    tile = tile_at(WEST, SOUTH, 12)
    once = live_tile([whole], tile, "a")
    parts = [whole.take(np.arange(first, first + 4)) for first in range(0, 40, 4)]
    assert live_tile(parts, tile, "a") == once
    assert once.over_budget == 35
    monkeypatch.setattr(live_module, "MAX_COORDINATES", 12)
    once = live_tile([whole], tile, "a")
    assert live_tile(parts, tile, "a") == once
    assert once.over_budget == 38


def test_conditions_are_those_of_sql_with_unknown_values() -> None:
    table = pa.table({"a": [1, None, 3], "t": ["Ab", None, "cd"], "b": [True, False, None]})

    def found(tree: Any) -> list[bool]:
        result: list[bool] = RowFilter(tree, table.schema, 10).mask(table).tolist()
        return result

    a, t = {"property": "a"}, {"property": "t"}
    assert found({"op": "<>", "args": [a, 1]}) == [False, False, True]
    assert found({"op": "not", "args": [{"op": "=", "args": [a, 1]}]}) == [False, False, True]
    assert found({"op": "in", "args": [t, ["Ab", "x"]]}) == [True, False, False]
    assert found({"op": "between", "args": [a, 2, 3]}) == [False, False, True]
    assert found({"op": "=", "args": [{"op": "casei", "args": [t]}, "ab"]}) == [True, False, False]
    assert found({"op": "isNull", "args": [a]}) == [False, True, False]
    assert found({"property": "b"}) == [True, False, False]
    with pytest.raises(QueryInvalid, match="too many"):
        RowFilter(True, table.schema, 2).mask(table)
