"""A city over its province: a terrain that another one surrounds.

The one idea: the rasters of the parent lie beneath the child's own. So the child's tiles are whole,
at the border of the city and far above it, where one tile shows city and province; and what the
child has no tiles for, viewers take from the parent, whose address is the ``parentUrl`` of
``layer.json``. The rasters are those of the parent's version of that day: stores of both versions,
kept as long as one of them needs them.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from catalog.database import Catalog
from catalog.records import StoreRef
from ingest.workspace import Workspace
from tiling.dem import DemStack
from tiling.errors import ConfigError, NotFound


@dataclass(frozen=True, slots=True)
class Parent:
    """A terrain that surrounds another.

    Attributes:
        id: of the asset.
        stores: its rasters, first wins.
        surface: the same, opened.
    """

    id: str
    stores: tuple[StoreRef, ...]
    surface: DemStack

    @property
    def url(self) -> str:
        """Its folder, relative to the folder of any other terrain of the same server."""
        return f"../../{quote(self.id)}/current"


def open_parent(workspace: Workspace, catalog: Catalog, child: str, parent: str) -> Parent:
    """Return the parent of a terrain.

    Args:
        workspace, catalog: where it is.
        child: id of the terrain that is made.
        parent: id of the asset that was named.

    Raises:
        ConfigError: it is no terrain, is too old, or has `child` among its own parents.
        NotFound: there is no such asset, or it has no published version.
    """
    line = [parent]
    while line[-1] != child:
        try:
            item = catalog.item(line[-1])
        except NotFound as error:
            raise NotFound(
                f"--parent {line[-1]!r}: there is no such asset (cim list shows them)"
            ) from error
        if item.kind != "terrain":
            raise ConfigError(
                f"--parent {item.id!r} is an asset of kind {item.kind}: name a terrain"
            )
        if item.current is None:
            raise NotFound(f"--parent {item.id!r} has no published version")
        known = catalog.version(item.id).info
        above = known.get("options", {}).get("parent")
        if above is None:
            break
        line.append(above)
    else:
        chain = " -> ".join((child, *line))
        raise ConfigError(f"--parent {parent!r}: a terrain would surround itself: {chain}")
    version = catalog.version(parent)
    terrain = dict(version.info.get("terrain", {}))
    if "dem" not in terrain:
        raise ConfigError(
            f"--parent {parent!r} was made by an older version of this program: ingest it again"
        )
    stores = tuple(ref for ref in version.stores if ref.role == "data")
    paths = [workspace.store_path(ref) for ref in stores]
    layers = DemStack.from_json(paths, terrain).layers
    return Parent(parent, stores, DemStack(layers, beneath=len(layers)))


def children(catalog: Catalog, parent: str) -> list[str]:
    """Return the terrains whose published version names a parent."""
    found = []
    for item in catalog.items():
        if item.kind == "terrain" and item.current is not None:
            if catalog.version(item.id).info.get("options", {}).get("parent") == parent:
                found.append(item.id)
    return found
