"""What a reader is: it says what a source holds and yields it in batches.

A reader knows nothing of tilers. Whatever it drops, repairs or assumes is a finding; whatever it
cannot take is a `SourceError` that names the file, the value and the remedy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Literal, Protocol, Self

from ingest.encoding import EncodingDecision
from ingest.readers.placement import Placement, Up
from ingest.readers.point_chunks import PointFacts, PointOptions
from tiling.batches import FeatureBatch
from tiling.crs import SpatialRef
from tiling.findings import Finding, Findings

__all__ = [
    "Closing",
    "EncodingDecision",
    "FieldInfo",
    "LayerInfo",
    "ReadOptions",
    "SourceInfo",
    "SourceReader",
]

Kind = Literal["vector", "raster", "tileset", "pointcloud"]
Extent = tuple[float, float, float, float]

SNIFF_NBYTES = 64 * 1024
DEFAULT_BATCH_NBYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class FieldInfo:
    """An attribute column: its name and its Arrow type as text, e.g. ``int64``."""

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class LayerInfo:
    """One layer of a source.

    Attributes:
        name: the layer's name in the source.
        geometry_type: ``Point``, ``LineString``, ``Polygon``, their ``Multi`` forms,
            ``GeometryCollection``, ``Geometry`` for a mixture, ``unsupported`` for a layer that
            is listed but refused when it is read, ``Raster``, or None for a table
            without geometry. A ``Polygon`` layer may hold multipolygons too, as Shapefiles do.
        features: number of rows, those without geometry included; 0 for rasters, -1 unknown.
        fields: attribute columns in the source's order.
        extent: (xmin, ymin, xmax, ymax) in the layer's own frame; None when it is empty.
        ref: the frame, declared or embedded; None when there is none.
        encoding: how text is decoded; None where no text is read.
        has_z: whether coordinates carry heights.
        extra: further facts: ``format``, ``driver``; mixed layers tell the rows of each type in
            ``geometry_types``; rasters tell bands, dtype, width, height, nodata and resolution.
    """

    name: str
    geometry_type: str | None
    features: int
    fields: tuple[FieldInfo, ...]
    extent: Extent | None
    ref: SpatialRef | None
    encoding: EncodingDecision | None
    has_z: bool
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """What a source holds.

    Attributes:
        path: the file or folder that was opened.
        reader: name of the reader.
        kind: ``vector``, ``raster``, ``tileset`` or ``pointcloud``.
        layers: every layer, those without geometry included.
        files: every file that is read, sidecars included.
        nbytes: their size.
        findings: what was noticed or assumed on opening.
        points: what the headers of a point cloud say; None for anything else.
    """

    path: Path
    reader: str
    kind: Kind
    layers: tuple[LayerInfo, ...]
    files: tuple[Path, ...]
    nbytes: int
    findings: tuple[Finding, ...]
    points: PointFacts | None = None

    def fingerprint(self) -> str:
        """Return the sha256 over names, sizes and content of `files`, streamed.

        Where the files lie does not matter, so a copied source keeps its fingerprint.
        """
        root = self.path if self.path.is_dir() else self.path.parent
        digest = hashlib.sha256()
        for name, path in sorted((_relative(path, root), path) for path in self.files):
            digest.update(f"{name}\0{path.stat().st_size}\0".encode("utf-8", "surrogateescape"))
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """What the user declares about a source; picklable.

    Attributes:
        crs: the frame, as `SpatialRef.parse` takes it; wins over the file's own.
        encoding: text encoding; wins over what the file says.
        layer: name of the layer to read.
        place: where a model stands.
        up: the axis of a model that points up; None: what its format says.
        vertical: datum of the heights of points, as `parse_vertical` takes it; wins over the file.
        assume_vertical: the same for files of points that state none.
        assume_crs: the frame of files of points that state none.
        points: what else is declared about points.
        nodata: stored value of absent pixels of rasters; replaces what the files say of it.
    """

    crs: str | None = None
    encoding: str | None = None
    layer: str | None = None
    place: Placement | None = None
    up: Up | None = None
    vertical: str | None = None
    assume_vertical: str | None = None
    assume_crs: str | None = None
    points: PointOptions = PointOptions()
    nodata: float | None = None


class Closing:
    """A context manager that closes itself; `close` is for the reader to give."""

    def close(self) -> None:
        """Release what was opened."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class SourceReader(Protocol):
    """Reads one family of formats; a context manager that owns what it opens.

    Attributes:
        name: stable name of the reader.
        kind: what its batches are.
        findings: what opening and the latest pass of `batches` dropped, repaired or assumed.
    """

    name: ClassVar[str]
    kind: ClassVar[Kind]
    findings: Findings

    def __init__(self, path: Path, options: ReadOptions = ...) -> None: ...

    @classmethod
    def sniff(cls, path: Path) -> bool:
        """Say whether the reader knows the file; reads at most `SNIFF_NBYTES`."""
        ...

    def info(self) -> SourceInfo:
        """Return what the source holds.

        Raises:
            SourceError: the source cannot be read.
        """
        ...

    def batches(
        self,
        columns: Sequence[str] | None = None,
        region: Extent | None = None,
        max_nbytes: int = DEFAULT_BATCH_NBYTES,
    ) -> Iterator[FeatureBatch]:
        """Yield the features of one layer in file order.

        Args:
            columns: attributes to read, in this order; None for all, () for none.
            region: (xmin, ymin, xmax, ymax) in the layer's own frame; only features whose box
                touches it are yielded.
            max_nbytes: rough bound of a batch; how the rows are cut never changes ids or values.

        Raises:
            CrsMissing: neither the source nor the user declares a frame.
            SourceError: the source cannot be read.
        """
        ...

    def close(self) -> None:
        """Release what was opened."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
