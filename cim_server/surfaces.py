"""The surface of a terrain version: what names it, and how a worker opens it.

`Surface` is made from the catalogue by the serving process and travels to the workers; there
`open_source` keeps the sources that were asked for lately, with their files open.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cim_server.state import Entry, State
from tiling.batches import Lattice, TerrainSource
from tiling.errors import NotFound

if TYPE_CHECKING:
    from ingest.readers.elevation import ElevationRaster
    from tiling.bounds import Region
    from tiling.geoid import VerticalDatum

_KEPT_OPEN = 16


@dataclass(frozen=True, slots=True)
class Surface:
    """Names the surface of one version; hashable and picklable.

    Attributes:
        paths: its COGs, in order of priority; immutable files.
        vertical: JSON of the vertical datum that its heights are counted from.
        terrain: JSON of what the version keeps of its surface and meshes; empty for old versions.
        digests: sha256 of the COGs, and so of every answer that is made from them.
    """

    paths: tuple[str, ...]
    vertical: str
    terrain: str
    digests: str

    @property
    def datum(self) -> dict[str, Any]:
        """The vertical datum as clients are told it."""
        return told(json.loads(self.vertical))


def told(datum: dict[str, Any]) -> dict[str, Any]:
    """Return a vertical datum's JSON without the path of its grid on this machine."""
    return {name: value for name, value in datum.items() if name != "grid"}


def surface_of(state: State, entry: Entry) -> Surface:
    """Return the surface of a terrain version.

    Raises:
        NotFound: the version is no terrain, or keeps no elevation model.
    """
    refs = [ref for ref in entry.stores if ref.role == "data" and ref.format == "cog"]
    if entry.kind != "terrain" or not refs:
        raise NotFound(
            f"version {entry.number} of {entry.asset!r} is of kind {entry.kind} and keeps no "
            "elevation model: terrain services need one"
        )
    if "vertical" not in entry.info:
        raise NotFound(
            f"version {entry.number} of {entry.asset!r} does not say what its heights are counted "
            "from: ingest it again with --vertical"
        )
    return Surface(
        tuple(str(state.path_of(ref)) for ref in refs),
        json.dumps(dict(entry.info["vertical"]), sort_keys=True),
        json.dumps(dict(entry.info.get("terrain", {})), sort_keys=True),
        " ".join(ref.sha256 for ref in refs),
    )


class AnywhereSource(TerrainSource, Protocol):
    """A surface that can also be asked at places in any order."""

    def sample(
        self, lon_deg: NDArray[np.float64], lat_deg: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return (N,) ellipsoidal heights, metres, from the finest pixels; NaN where void."""
        ...


@lru_cache(maxsize=_KEPT_OPEN)
def open_source(surface: Surface) -> AnywhereSource:
    """Open a surface, or return it open; in a worker, never in the serving process."""
    from ingest.readers import open_source as open_file
    from ingest.readers.base import ReadOptions
    from ingest.readers.raster import RasterReader

    vertical = datum_of(surface)
    reader = open_file(surface.paths[0], ReadOptions())
    assert isinstance(reader, RasterReader)
    return _Sampled(reader.elevation(vertical), vertical)


@lru_cache(maxsize=_KEPT_OPEN)
def datum_of(surface: Surface) -> VerticalDatum:
    """Return the vertical datum of a surface."""
    from tiling.geoid import VerticalDatum

    return VerticalDatum.from_json(json.loads(surface.vertical))


@dataclass(frozen=True)
class _Sampled:
    """One raster as a `TerrainSource`: sampled node by node from its finest pixels."""

    raster: ElevationRaster
    vertical: VerticalDatum

    @property
    def extent(self) -> Region:
        return self.raster.extent

    @property
    def coverage(self) -> tuple[Region, ...]:
        return self.raster.coverage

    @property
    def resolution_deg(self) -> float:
        return self.raster.resolution_deg

    def sample(
        self, lon_deg: NDArray[np.float64], lat_deg: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        found = self.raster.sample(lon_deg, lat_deg)
        known = np.isfinite(found)
        found[known] += self.vertical.separation(lon_deg[known], lat_deg[known])
        return found

    def heights(self, lattice: Lattice) -> NDArray[np.float64]:
        lon = lattice.west_deg + np.arange(lattice.columns) * lattice.step_deg
        lat = lattice.south_deg + np.arange(lattice.rows) * lattice.step_deg
        x, y = (g.ravel() for g in np.meshgrid(lon, lat))
        return self.sample(x, y).reshape(lattice.rows, lattice.columns)
