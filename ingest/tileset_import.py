"""Finished 3D Tiles become an asset as they are: read through, copied, never changed.

Every file a viewer may ask for is copied byte for byte into a 3TZ under the path it had; what was
compressed for a server stays compressed. Files to which nothing leads stay behind and are counted.
"""

from __future__ import annotations

from ingest.make import Made, Making
from ingest.readers.tileset import TilesetReader, single_tileset
from tiling.errors import SourceUnreadable
from tiling.stores.base import StoreInfo
from tiling.stores.zip3tz import ThreeTzWriter
from tiling.tilers.base import TilesetInfo
from tiling.validate.foreign import ROOT, ForeignTileset


def make_imported(making: Making) -> Made:
    """Check a tileset made elsewhere, contents included, and copy it into a 3TZ.

    Raises:
        SourceUnreadable: something in it is missing or damaged; the message lists what.
    """
    path = single_tileset([info.path for info in making.plan.sources])
    with TilesetReader(path) as reader:
        making.progress.begin("check", making.plan.layers[0].extra["files"])
        with making.report.step("check"):
            walk = reader.walk(contents=True, progress=making.progress.advance)
        making.report.findings.merge(
            f for f in walk.findings if f not in making.plan.sources[0].findings
        )
        making.progress.begin("copy", len(walk.reached))
        with making.report.step("copy"):
            store = _copy(making, walk)
    facts = walk.facts()
    assert walk.region is not None  # without one the walk refuses
    info = TilesetInfo(
        bounds=walk.region,
        min_level=0,
        max_level=facts["levels"] - 1,
        tiles=facts["tiles"],
        metadata={"imported": True, **{k: facts[k] for k in ("formats", "files", "rows")}},
    )
    return Made((("tiles", store),), info)


def _copy(making: Making, walk: ForeignTileset) -> StoreInfo:
    """Copy what was reached, the root first; the same tileset gives the same archive."""
    keys = {key: key for key in sorted(walk.reached)}
    if walk.root != ROOT:
        if ROOT in keys:
            raise SourceUnreadable(
                f"its root {walk.root!r} leads to another {ROOT!r}, whose place it must take",
                source=making.plan.sources[0].path,
                remedy=f"name the {ROOT} itself, or rename the other",
            )
        keys[walk.root] = ROOT
    target = making.folder / "tiles.3tz"
    # A run that was killed before publishing leaves it here.
    target.unlink(missing_ok=True)
    writer = ThreeTzWriter(target)
    try:
        for key in sorted(keys, key=lambda key: key != walk.root):
            tile = walk.store.get(key)
            if tile is None:
                raise SourceUnreadable(
                    f"{key} vanished while it was read",
                    source=making.plan.sources[0].path,
                    remedy="leave the folder alone while it is taken in, and run again",
                )
            writer.put(keys[key], tile.data, tile.encoding)
            making.progress.advance()
        return writer.commit()
    finally:
        writer.abort()
