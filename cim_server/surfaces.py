"""The surface of a terrain version: what names it, and how a worker opens it.

`Surface` is made from the catalogue by the serving process and travels to the workers; there
`open_source` keeps the sources that were asked for lately, with their files open.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from cim_server.state import Entry, State
from tiling.errors import NotFound

if TYPE_CHECKING:
    from tiling.dem import DemLayer, DemStack
    from tiling.geoid import VerticalDatum

# Surfaces a worker keeps open, and what the decoded blocks of each may take.
_KEPT_OPEN = 8
_CACHE_NBYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Surface:
    """Names the surface of one version; hashable and picklable.

    Attributes:
        paths: its COGs, in order of priority; immutable files.
        vertical: JSON of the vertical datum that its heights are counted from.
        terrain: JSON of what the version keeps of its surface and meshes; empty for old versions.
        digests: sha256 of the COGs and the water, and so of every answer that is made from them.
        water: the polygons of water in its tiles; empty where these have no masks.
    """

    paths: tuple[str, ...]
    vertical: str
    terrain: str
    digests: str
    water: str = ""

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
    water = [ref for ref in entry.stores if ref.role == "water"]
    return Surface(
        tuple(str(state.path_of(ref)) for ref in refs),
        json.dumps(dict(entry.info["vertical"]), sort_keys=True),
        json.dumps(dict(entry.info.get("terrain", {})), sort_keys=True),
        " ".join(ref.sha256 for ref in (*refs, *water)),
        str(state.path_of(water[0])) if water else "",
    )


@lru_cache(maxsize=_KEPT_OPEN)
def open_source(surface: Surface) -> DemStack:
    """Open a surface, or return it open; in a worker, never in the serving process.

    Raises:
        NotFound: an older version of this program kept its rasters in another form.
    """
    from tiling.dem import DemStack

    # Of the whole process, which is a worker: blocks are kept by the stack, not once more by GDAL,
    # and the files beside a COG are none of its own.
    os.environ.setdefault("GDAL_CACHEMAX", "16")
    os.environ.setdefault("GDAL_DISABLE_READDIR_ON_OPEN", "EMPTY_DIR")
    os.environ.setdefault("CPL_VSIL_CURL_ALLOWED_EXTENSIONS", ".none")
    kept = json.loads(surface.terrain)
    if "dem" in kept:
        return DemStack.from_json(surface.paths, kept, _CACHE_NBYTES)
    return DemStack([_described(path, datum_of(surface)) for path in surface.paths], _CACHE_NBYTES)


def _described(path: str, vertical: VerticalDatum) -> DemLayer:
    """Describe a raster of a version that keeps no description of it."""
    import rasterio

    from tiling.crs import SpatialRef
    from tiling.dem import DemLayer

    with rasterio.open(path) as dataset:
        text = dataset.crs.to_wkt()
        plain = dataset.scales == (1.0,) and dataset.offsets == (0.0,)
        if not plain or dataset.units[0] not in (None, "", "m", "metre"):
            raise NotFound("the heights were stored by an older version in units; ingest it again")
    # The range of heights is asked of a surface that is meshed; these are not.
    ref = SpatialRef.parse(text).with_vertical(vertical)
    return DemLayer.describe(path, ref, math.nan, math.nan)


@lru_cache(maxsize=_KEPT_OPEN)
def datum_of(surface: Surface) -> VerticalDatum:
    """Return the vertical datum of a surface."""
    from tiling.geoid import VerticalDatum

    return VerticalDatum.from_json(json.loads(surface.vertical))
