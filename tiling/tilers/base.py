"""What a tiler is: it declares what it needs and turns batches into tiles of one kind.

The caller (ingest) brings the source into the frame and the columns that `Requirements` name;
the tiler knows neither files nor formats of sources. Everything a run shares travels in `Run`.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tiling.bounds import Region
from tiling.crs import SpatialRef
from tiling.findings import Findings
from tiling.stores.base import PutTile


class Progress(Protocol):
    """Feedback and cancellation; every loop over tiles or batches calls `advance`."""

    def begin(self, step: str, total: int | None = None) -> None:
        """Start a step; `total` is in the unit that `advance` counts, None when unknown."""
        ...

    def advance(self, amount: int = 1) -> None:
        """Count work done.

        Raises:
            Cancelled: the user asked to stop.
        """
        ...


class SilentProgress:
    """Progress that shows nothing and never cancels."""

    def begin(self, step: str, total: int | None = None) -> None:
        """Do nothing."""

    def advance(self, amount: int = 1) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True)
class Requirements:
    """What a tiler needs of its source.

    Attributes:
        ref: the frame that coordinates must be in.
        columns: attribute columns that must be present.
        heights: whether the vertical datum must be known.
    """

    ref: SpatialRef
    columns: tuple[str, ...] = ()
    heights: bool = False


@dataclass(slots=True)
class Run:
    """One run of a tiler.

    Attributes:
        writer: the staged store that receives the tiles.
        scratch: a folder that survives a kill; the same command finds it again and resumes.
        executor: where work units go; results never depend on it.
        workers: how many units it runs at once.
        memory_nbytes: the declared budget of the whole process tree.
        progress: feedback and cancellation.
        findings: drops, repairs and assumptions are added here.
    """

    writer: PutTile
    scratch: Path
    executor: Executor
    workers: int
    memory_nbytes: int
    progress: Progress
    findings: Findings


@dataclass(frozen=True, slots=True)
class TilesetInfo:
    """What a tiler made.

    Attributes:
        bounds: volume of everything in the tileset, WGS 84 degrees and ellipsoidal metres.
        min_level, max_level: levels that hold tiles.
        tiles: number of content tiles.
        features: source features present at full detail (0 for rasters).
        metadata: JSON facts for the catalogue (fields, errors per level, layers ...).
    """

    bounds: Region
    min_level: int
    max_level: int
    tiles: int
    features: int = 0
    metadata: Mapping[str, Any] = field(default_factory=dict)
