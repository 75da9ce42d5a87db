"""Terrain tiles that were not baked: meshed on request from the elevation model, then kept.

The same address, the same bytes: a client cannot tell a tile of the store from one of these.
``layer.json`` is completed to name all levels that are served.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from cim_server.computed import TileKey
from cim_server.mesh_work import terrain_tile, whole_layer
from cim_server.responses import inflate
from cim_server.state import Entry, State
from cim_server.surfaces import Surface, surface_of
from tiling.coords import TileCoord
from tiling.schemes import TMS_GEOGRAPHIC
from tiling.stores.base import StoredTile
from tiling.stores.pmtiles import etag

_TILE = re.compile(r"(\d{1,2})/(\d{1,8})/(\d{1,8})\.terrain")
_MEDIA_TYPE = "application/vnd.quantized-mesh"
LAYER = "layer.json"


def is_partly_baked(entry: Entry) -> bool:
    """Say whether a version serves levels that its stores do not hold."""
    terrain = entry.info.get("terrain") or {}
    if not {"mesh", "dem"} <= set(terrain):
        return False
    return int(terrain["baked"]) < int(terrain["mesh"]["levels"][-1])


async def on_demand(state: State, entry: Entry, key: str) -> StoredTile | None:
    """Return what the stores of a partly baked version do not hold, None if there is no such tile.

    Args:
        state: of the server.
        entry: a version for which `is_partly_baked`.
        key: of the tile, or ``layer.json``.

    Raises:
        Overloaded: too much is being computed already.
    """
    if key == LAYER:
        baked = await state.tile(entry, LAYER)
        if baked is None:
            return None
        body = baked.data if baked.encoding is None else inflate(baked.data)
        surface = surface_of(state, entry)
        return await _made(state, "application/json", surface, whole_layer, body)
    match = _TILE.fullmatch(key)
    if match is None:
        return None
    tile = TileCoord(*(int(number) for number in match.groups()))
    if tile.level not in entry.info["terrain"]["mesh"]["levels"]:
        return None
    columns, rows = TMS_GEOGRAPHIC.size(tile.level)
    if tile.x >= columns or tile.y >= rows:
        return None
    # Told apart here, so that nobody keeps the workers busy with the rest of the world.
    if not entry.bounds.intersects(TMS_GEOGRAPHIC.bounds(tile)):
        return None
    return await _made(state, _MEDIA_TYPE, surface_of(state, entry), terrain_tile, tuple(tile))


async def _made(
    state: State,
    media_type: str,
    surface: Surface,
    work: Callable[..., bytes | None],
    argument: Any,
) -> StoredTile | None:
    async def make() -> StoredTile | None:
        data = await state.workers.run(work, surface, argument)
        return None if data is None else StoredTile(data, media_type, "gzip", etag(data))

    key = TileKey(surface.digests, (work.__name__, surface.terrain, argument))
    return await state.computed.get(key, make)
