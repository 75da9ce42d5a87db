"""The check finds what is broken: each test breaks one law of a sound tileset."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from tiling.findings import Findings
from tiling.formats.subtree import Subtree, decode_subtree, encode_subtree
from tiling.stores.base import Encoding, StoredTile, StoreInfo
from tiling.testing.cities import synthetic_footprints
from tiling.tilers.base import Run, SilentProgress
from tiling.tilers.buildings import BuildingsTiler
from tiling.tilers.pipeline import SerialExecutor
from tiling.tilers.quadtree import SUBTREE_LEVELS
from tiling.validate.tileset3d import check_tileset

ROOT = "subtrees/8/417/173/0.0.0.subtree"


class Shelf(dict[str, bytes]):
    """Tiles in memory, easy to damage."""

    def put(self, key: str, data: bytes, encoding: Encoding = None) -> None:
        self[key] = gzip.decompress(data) if encoding else data

    def commit(self, metadata: Any = None) -> StoreInfo:
        raise AssertionError("a tiler does not commit")

    def abort(self) -> None:
        raise AssertionError("a tiler does not abort")


class View:
    """A shelf as a store."""

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf

    def get(self, key: str) -> StoredTile | None:
        data = self.shelf.get(key)
        return None if data is None else StoredTile(data, "", None, "")

    def keys(self) -> Iterator[str]:
        return iter(self.shelf)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    shelf = Shelf()
    scratch = tmp_path_factory.mktemp("scratch")
    run = Run(shelf, scratch, SerialExecutor(), 1, 1 << 30, SilentProgress(), Findings())
    BuildingsTiler(tile_features=100).run([synthetic_footprints(400, 5)], run)
    return shelf


@pytest.fixture
def shelf(sound: Shelf) -> Shelf:
    return Shelf(sound)


def broken(shelf: Shelf) -> set[str]:
    findings, _ = check_tileset(View(shelf))
    assert all(f.severity == "error" for f in findings)
    return {f.rule for f in findings}


def a_tile(shelf: Shelf) -> str:
    return sorted(k for k in shelf if k.endswith(".glb"))[-1]


def edit(shelf: Shelf, change: Any) -> None:
    document = orjson.loads(shelf["tileset.json"])
    change(document)
    shelf["tileset.json"] = orjson.dumps(document)


def rewrite(shelf: Shelf, **changes: Any) -> None:
    subtree = decode_subtree(shelf[ROOT], SUBTREE_LEVELS)
    parts = {name: getattr(subtree, name).copy() for name in Subtree.__slots__}
    shelf[ROOT] = encode_subtree(Subtree(**(parts | {k: f(parts[k]) for k, f in changes.items()})))


def test_a_sound_tileset_has_no_finding(shelf: Shelf) -> None:
    findings, facts = check_tileset(View(shelf))
    assert findings == []
    assert facts["features"] == 400
    assert facts["tiles"] == sum(k.endswith(".glb") for k in shelf)
    assert facts["subtrees"] == sum(k.endswith(".subtree") for k in shelf)


def test_promised_content_that_is_missing(shelf: Shelf) -> None:
    del shelf[a_tile(shelf)]
    assert broken(shelf) == {"tile-missing"}


def test_content_that_nothing_promises(shelf: Shelf) -> None:
    shelf["content/8/417/173/9/0/0.glb"] = shelf[a_tile(shelf)]
    assert broken(shelf) == {"tile-orphan"}


def test_a_missing_subtree_and_all_below_it(shelf: Shelf) -> None:
    del shelf[ROOT]
    assert broken(shelf) >= {"tile-missing", "tile-orphan"}


def test_a_missing_tileset_json(shelf: Shelf) -> None:
    del shelf["tileset.json"]
    assert broken(shelf) == {"tile-missing"}


@pytest.mark.parametrize("text", [b"", b"{}", b"[1]", b'{"asset": {"version": "1.1"}}'])
def test_a_damaged_tileset_json(shelf: Shelf, text: bytes) -> None:
    shelf["tileset.json"] = text
    assert "tileset-structure" in broken(shelf)


def test_content_that_leaves_its_volume(shelf: Shelf) -> None:
    def lower(regions: Any) -> Any:
        regions[-1, 5] -= 5.0
        return regions

    rewrite(shelf, regions=lower)
    assert "volume-content" in broken(shelf)


def test_a_child_that_leaves_its_parent(shelf: Shelf) -> None:
    def widen(regions: Any) -> Any:
        regions[-1, 0] -= 1e-4
        return regions

    rewrite(shelf, regions=widen)
    assert broken(shelf) == {"volume-child"}


def test_a_root_that_does_not_hold_its_children(shelf: Shelf) -> None:
    def shrink(document: Any) -> None:
        document["root"]["boundingVolume"]["region"][5] -= 50

    edit(shelf, shrink)
    assert broken(shelf) == {"volume-child"}


def test_geometric_errors_that_stay_equal(shelf: Shelf) -> None:
    def flatten(document: Any) -> None:
        document["root"]["geometricError"] = document["geometricError"]

    edit(shelf, flatten)
    assert broken(shelf) == {"error-decrease"}


def test_availability_that_hides_content(shelf: Shelf) -> None:
    def hide(contents: Any) -> Any:
        contents[np.flatnonzero(contents)[-1]] = False
        return contents

    rewrite(shelf, contents=hide)
    assert broken(shelf) == {"tile-orphan"}


def test_available_levels_that_lie(shelf: Shelf) -> None:
    def deepen(document: Any) -> None:
        document["root"]["children"][0]["implicitTiling"]["availableLevels"] += 1

    edit(shelf, deepen)
    assert broken(shelf) == {"availability"}


def test_a_feature_that_is_present_twice(shelf: Shelf) -> None:
    leaves = [k for k in sorted(shelf) if k.endswith(".glb") and b'"feature"' in shelf[k]]
    shelf[leaves[0]] = shelf[leaves[1]]
    findings, _ = check_tileset(View(shelf))
    repeated = next(f for f in findings if f.rule == "feature-repeated")
    assert repeated.count > 10
    assert len(repeated.samples) == 10


@pytest.mark.parametrize("cut", [1, 100, 5000])
def test_truncated_content(shelf: Shelf, cut: int) -> None:
    key = a_tile(shelf)
    shelf[key] = shelf[key][:-cut]
    assert broken(shelf) == {"content-damaged"}


def test_a_truncated_subtree(shelf: Shelf) -> None:
    shelf[ROOT] = shelf[ROOT][:-8]
    assert broken(shelf) >= {"tileset-structure"}


def test_nothing_is_found_in_an_empty_folder(tmp_path: Path) -> None:
    assert broken(Shelf()) == {"tile-missing"}
