"""The finest meshes of a terrain asset, as viewers draw them; picklable, for workers.

Tiles are read where they are baked, and otherwise made as the server makes them on request.
"""

from __future__ import annotations

import gzip
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog.records import Version
from ingest.workspace import Workspace
from tiling.coords import TileCoord
from tiling.dem import DemStack
from tiling.findings import Findings
from tiling.stores import TileStore, open_store
from tiling.stores.overlay import OverlayReader
from tiling.tilers.terrain import TerrainSpec, build_tile
from tiling.tilers.terrain_faces import Lattice, height_ranges, node_heights, tiles_under

# Nodes that are kept, and that one call takes at most: 4 bytes each.
_KEPT_NODES = 16 << 20
# Tiles below a footprint, at most; no building is so large.
_WIDEST = 256

Array = NDArray[np.float64]


class DrawnTerrain:
    """Meshes of the finest level.

    Args:
        surface: what tiles that are not baked are made of.
        spec: of the terrain's meshes.
        baked: deepest level that stores hold.
        stores: path and format of each, newest first.
        gone: keys that no store answers any more.
    """

    def __init__(
        self,
        surface: DemStack,
        spec: TerrainSpec,
        baked: int,
        stores: tuple[tuple[Path, str], ...],
        gone: frozenset[str] = frozenset(),
    ) -> None:
        self._made = (surface, spec, baked, stores, gone)
        self._surface, self._spec = surface, spec
        self._stores = stores if baked >= spec.levels[-1] else None
        self._gone = gone
        level = spec.levels[-1]
        self._lattice = Lattice(level, spec.cells(level))
        self._tiles = max(1, _KEPT_NODES // (self._lattice.cells + 1) ** 2)
        self._widest = min(_WIDEST, self._tiles)
        self._kept: OrderedDict[TileCoord, NDArray[np.float32] | None] = OrderedDict()
        self._opened: TileStore | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return DrawnTerrain, self._made

    @classmethod
    def of(cls, workspace: Workspace, version: Version, surface: DemStack) -> DrawnTerrain:
        """Open the meshes of a version of a terrain asset.

        Raises:
            ConfigError: another version of this program made them.
        """
        kept = version.info["terrain"]
        refs = [ref for ref in version.stores if ref.role == "tiles"]
        stores = tuple((workspace.store_path(ref), ref.format) for ref in refs)
        spec = TerrainSpec.from_json(kept)
        return cls(surface, spec, kept["baked"], stores, frozenset(version.tombstones))

    def ranges(self, footprints: NDArray[np.object_], findings: Findings) -> tuple[Array, Array]:
        """Return (N,) lowest and (N,) highest points of the meshes below N footprints, metres.

        Args:
            footprints: (N,) polygons in lon/lat degrees.
            findings: counts the footprints that are too wide to be looked up.

        Returns:
            ellipsoidal heights; ``inf`` and ``-inf`` where the terrain has no tiles.
        """
        spans = tiles_under(footprints, self._lattice)
        tiles = (spans[:, 2:] - spans[:, :2] + 1).prod(axis=1)
        wide = tiles > self._widest
        findings.add(
            "ground-too-wide",
            "assumption",
            f"footprints over more than {self._widest} terrain tiles stand on the elevation "
            "model alone",
            int(wide.sum()),
        )
        low, high = np.full(len(footprints), np.inf), np.full(len(footprints), -np.inf)
        rows = np.flatnonzero(~wide)
        # Neighbours share tiles: in the order of the tiles, each is looked up once.
        rows = rows[np.lexsort((spans[rows, 0], spans[rows, 1]))]
        parts = np.cumsum(tiles[rows]) // self._tiles
        for part in np.split(rows, np.flatnonzero(np.diff(parts)) + 1):
            if len(part):
                low[part], high[part] = height_ranges(footprints[part], self._lattice, self._faces)
        return low, high

    def _faces(self, coord: TileCoord) -> NDArray[np.float32] | None:
        if coord in self._kept:
            self._kept.move_to_end(coord)
            return self._kept[coord]
        data = self._tile(coord) if self._spec.has(coord) else None
        faces = None if data is None else node_heights(data, self._lattice.cells)
        self._kept[coord] = faces
        if len(self._kept) > self._tiles:
            self._kept.popitem(last=False)
        return faces

    def _tile(self, coord: TileCoord) -> bytes | None:
        if self._stores is None:
            return build_tile(self._surface, self._spec, coord)
        if self._opened is None:
            self._opened = OverlayReader([open_store(*at) for at in self._stores], self._gone)
        stored = self._opened.get(f"{coord.level}/{coord.x}/{coord.y}.terrain")
        if stored is None:
            return None
        return gzip.decompress(stored.data) if stored.encoding == "gzip" else stored.data
