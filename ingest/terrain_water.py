"""Water of a terrain: the polygons of a vector asset, as masks in its tiles.

The polygons are those of the asset's version of that day: a store of both versions, kept as long as
one of them needs it, so a tile that is made on request later is the baked one.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import shapely

from catalog.database import Catalog
from catalog.records import StoreRef, Version
from ingest.workspace import Workspace
from tiling.crs import TILE_REF
from tiling.errors import ConfigError, NotFound
from tiling.formats.geoparquet import read_geoparquet
from tiling.tilers.terrain_water import WaterAreas

_KINDS = ("vector", "divisions")


def open_water(workspace: Workspace, catalog: Catalog, asset: str) -> StoreRef:
    """Return the polygons of an asset as a store of a terrain version.

    Args:
        workspace, catalog: where it is.
        asset: id of the asset that was named.

    Raises:
        ConfigError: it is no vector asset, or holds no polygons.
        NotFound: there is no such asset, or it has no published version.
    """
    try:
        item = catalog.item(asset)
    except NotFound as error:
        raise NotFound(
            f"--water {asset!r}: there is no such asset (cim list shows them)"
        ) from error
    if item.kind not in _KINDS:
        raise ConfigError(
            f"--water {asset!r} is an asset of kind {item.kind}: name one of polygons of water"
        )
    if item.current is None:
        raise NotFound(f"--water {asset!r} has no published version")
    version = catalog.version(asset)
    found = [ref for ref in version.stores if ref.role == "features"]
    if len(found) != 1:
        raise ConfigError(f"--water {asset!r} keeps no features: ingest it again")
    _require_polygons(asset, workspace.store_path(found[0]))
    return replace(found[0], role="water")


def _require_polygons(asset: str, path: Path) -> None:
    for batch in read_geoparquet(path, columns=()):
        if not batch.ref.same_horizontal(TILE_REF):
            raise ConfigError(f"--water {asset!r} is kept in {batch.ref.code}: ingest it again")
        if (shapely.get_dimensions(batch.geometry) == 2).any():
            return
    raise ConfigError(
        f"--water {asset!r} holds no polygons: lines and points are no areas of water"
    )


def water_of(workspace: Workspace, version: Version) -> WaterAreas | None:
    """Return where water is, if a terrain version carries masks of it."""
    refs = [ref for ref in version.stores if ref.role == "water"]
    return WaterAreas(str(workspace.store_path(refs[0]))) if refs else None
