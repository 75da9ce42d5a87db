"""tileset.json keeps its schema, and errors that do not decrease are refused."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from tiling.bounds import Region
from tiling.formats.subtree import TILE_CLASS
from tiling.formats.tileset_json import ImplicitRoot, encode_tileset

SCHEMA = {"id": "cim", "classes": {"tile": TILE_CLASS}}


def root(west: float = 112.5, error_m: float = 64.0) -> ImplicitRoot:
    return ImplicitRoot(
        region=Region(west, 30.9375, west + 0.703125, 31.640625, 10.0, 90.0),
        geometric_error_m=error_m,
        content="content/8/416/172/{level}/{x}/{y}.glb",
        subtrees="subtrees/8/416/172/{level}.{x}.{y}.subtree",
        subtree_levels=6,
        available_levels=3,
    )


def test_the_document_keeps_the_schema(schema_errors: Any) -> None:
    data = encode_tileset([root(), root(113.203125)], 1e6, 1e5, SCHEMA, {"城市": "随州"})
    document = orjson.loads(data)
    assert schema_errors("3d-tiles/tileset.schema.json", document) == []
    assert document["asset"]["extras"] == {"城市": "随州"}


def test_the_schema_does_object_to_what_is_wrong(schema_errors: Any) -> None:
    document = orjson.loads(encode_tileset([root()], 1e6, 1e5, SCHEMA, {}))
    del document["root"]["children"][0]["implicitTiling"]["subtreeLevels"]
    assert schema_errors("3d-tiles/tileset.schema.json", document)


def test_the_root_holds_every_child() -> None:
    document = orjson.loads(encode_tileset([root(), root(113.203125)], 1e6, 1e5, SCHEMA, {}))
    whole = Region.from_3dtiles(document["root"]["boundingVolume"]["region"])
    assert whole.contains(root().region, 1e-12)
    assert whole.contains(root(113.203125).region, 1e-12)


@pytest.mark.parametrize(("top", "explicit", "implicit"), [(10, 10, 5), (10, 5, 5), (5, 10, 1)])
def test_errors_that_do_not_decrease_are_refused(
    top: float, explicit: float, implicit: float
) -> None:
    with pytest.raises(ValueError, match="decrease"):
        encode_tileset([root(error_m=implicit)], top, explicit, SCHEMA, {})


def test_an_empty_tileset_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        encode_tileset([], 2, 1, SCHEMA, {})
