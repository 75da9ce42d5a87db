"""Point clouds of files: one, or a folder of thousands, as one source.

What every family of formats shares: files are described by their headers alone, their columns are
brought together, and their points are cut into chunks for workers. A family says how a file is
known, described and cut; how its chunks are decoded stands in `ingest.readers.points`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ingest.readers.base import (
    DEFAULT_BATCH_NBYTES,
    Closing,
    Extent,
    FieldInfo,
    Kind,
    LayerInfo,
    ReadOptions,
    SourceInfo,
)
from ingest.readers.point_chunks import (
    CHUNK_POINTS,
    Bounds,
    PointChunk,
    PointColumn,
    PointFacts,
    PointOptions,
)
from ingest.readers.point_file import Cut, PointFile
from ingest.readers.point_places import geodetic, in_metres, moved, placed, widened
from ingest.readers.points import common_columns, read_chunk
from tiling.batches import FeatureBatch
from tiling.crs import TILE_REF, SpatialRef
from tiling.errors import CrsMissing, NothingToTile, SourceError
from tiling.findings import Findings
from tiling.point_frames import PointFrame


class PointFilesReader(Closing):
    """Reads a family of point clouds; see `ingest.readers.base.SourceReader`.

    Attributes:
        suffixes: what files of the family are named, for folders.
        findings: what was noticed, assumed or left out.
    """

    name: ClassVar[str]
    kind: ClassVar[Kind] = "pointcloud"
    suffixes: ClassVar[tuple[str, ...]]
    findings: Findings

    def __init__(self, path: Path, options: ReadOptions = ReadOptions()) -> None:  # noqa: B008
        self.path = Path(path)
        self.options = options
        self.findings = Findings()

    @classmethod
    def knows(cls, path: Path) -> bool:
        """Say whether a file is of this family; reads at most `SNIFF_NBYTES`."""
        raise TypeError(f"{cls.__name__} does not say which files it knows")

    def describe(self, path: Path, findings: Findings) -> PointFile:
        """Read a file's header; `PointFile.frame` is what the file itself states.

        Raises:
            SourceError: the file is damaged, or of a kind that cannot be read.
        """
        raise TypeError(f"{type(self).__name__} does not describe files")

    def cut(self, file: PointFile) -> Cut:
        """Say how a file's points are cut into chunks.

        Raises:
            SourceError: the file is damaged.
        """
        raise TypeError(f"{type(self).__name__} does not cut files")

    def endings(self) -> tuple[str, ...]:
        """Return what files of a folder are named."""
        return self.suffixes

    @classmethod
    def sniff(cls, path: Path) -> bool:
        """Say whether this is a file of the family, or a folder that holds one."""
        if path.is_dir():
            return any(p.suffix.lower() in cls.suffixes for p in path.rglob("*"))
        return path.is_file() and cls.knows(path)

    @cached_property
    def files(self) -> tuple[PointFile, ...]:
        """The files that hold points, by name.

        Raises:
            SourceError: see `describe`.
        """
        paths = [self.path]
        if self.path.is_dir():
            found = [p for p in self.path.rglob("*") if p.is_file()]
            endings = self.endings()
            paths = sorted(p for p in found if p.suffix.lower() in endings)
            others = sorted({p.suffix.lower() or p.name for p in found} - {*endings})
            message = f"files of other kinds in the folder are not read: {', '.join(others[:8])}"
            self.findings.add("other-files", "info", message, len(found) - len(paths))
            if not paths:
                raise NothingToTile(
                    f"the folder holds no file that ends in {', '.join(endings)}",
                    source=self.path,
                    remedy="name the files, or the folder they lie in",
                )
        described = [self._placed(path) for path in paths]
        empty = [file.path.name for file in described if not file.count]
        if len(described) > 1:
            self.findings.add("empty-files", "info", "files hold no points", len(empty), empty)
            described = [file for file in described if file.count] or described[:1]
        frames = {file.frame.ref.code for file in described if file.frame is not None}
        if len(frames) > 1:
            message = f"files lie in {len(frames)} frames: each is brought into the tiles' frame"
            self.findings.add("mixed-frames", "info", message, len(frames), sorted(frames))
        unplaced = [file.path.name for file in described if file.frame is None]
        if len(unplaced) < len(described):
            message = "files state no coordinate reference system, others do"
            self.findings.add("crs-missing", "warning", message, len(unplaced), unplaced)
        return tuple(described)

    def _placed(self, path: Path) -> PointFile:
        return placed(self.describe(path, self.findings), self.options, self.findings)

    def _bounds_of(self, file: PointFile) -> Bounds | None:
        """Return a file's bounds, in its own units; measured where its header states none."""
        if file.bounds is not None or not file.count:
            return file.bounds
        state = file.path.stat()
        key = (file.path, state.st_size, state.st_mtime_ns, self.options.points)
        if key not in _MEASURED:
            low, high = np.full(3, np.inf), np.full(3, -np.inf)
            for chunk in self._chunks_of(replace(file, frame=None), CHUNK_POINTS, ()):
                xyz = read_chunk(chunk, ()).xyz
                low = np.minimum(low, xyz.min(axis=0, initial=np.inf))
                high = np.maximum(high, xyz.max(axis=0, initial=-np.inf))
            seen = bool((low <= high).all())
            _MEASURED[key] = (*low.tolist(), *high.tolist()) if seen else None
        return _MEASURED[key]

    @property
    def columns(self) -> tuple[PointColumn, ...]:
        """The columns of the whole source; see `common_columns`."""
        return self._columns

    @cached_property
    def _columns(self) -> tuple[PointColumn, ...]:
        counts = [(file.columns, file.count) for file in self.files]
        return common_columns(counts, self.findings)

    @property
    def ref(self) -> SpatialRef | None:
        """The frame of the first file, without a datum when a file has none; None likewise."""
        refs = [None if file.frame is None else file.frame.ref for file in self.files]
        first = refs[0]
        if first is None or any(ref is None for ref in refs):
            return None
        blind = any(ref is not None and ref.vertical is None for ref in refs)
        return first.with_vertical(None) if blind else first

    def info(self) -> SourceInfo:
        """Return what the source holds, as one layer; reads headers only.

        Raises:
            SourceError: see `files`.
        """
        files, columns = self.files, self.columns
        scales = [file.scale for file in files if file.scale]
        bounds = self._bounds()
        colour = next((c.dtype for c in columns if c.name == "rgb"), None)
        facts = PointFacts(
            sum(file.count for file in files),
            columns,
            bounds,
            min(scales) if scales else None,
            colour,
            len(files),
            dict(Counter(file.label for file in files)),
        )
        layer = LayerInfo(
            name=self.path.stem,
            geometry_type="Points",
            features=facts.count,
            fields=tuple(FieldInfo(c.name, c.dtype) for c in columns),
            extent=None if bounds is None else (bounds[0], bounds[1], bounds[3], bounds[4]),
            ref=self.ref,
            encoding=None,
            has_z=True,
            extra=facts.to_json(),
        )
        paths = tuple(file.path for file in files)
        nbytes = sum(path.stat().st_size for path in paths)
        return SourceInfo(
            self.path,
            self.name,
            self.kind,
            (layer,),
            paths,
            nbytes,
            tuple(self.findings),
            facts,
        )

    def chunks(self, max_points: int = CHUNK_POINTS) -> list[PointChunk]:
        """Cut the source into pieces that workers decode with `read_chunk`.

        Every point is in exactly one chunk, in file order; LAZ chunks are not cut apart unless one
        of them holds more than `max_points`.

        Args:
            max_points: how many points a chunk holds at most.

        Raises:
            CrsMissing: a file has no frame, and none was declared.
            NothingToTile: there are no points.
            SourceError: a file is damaged.
        """
        chunks: list[PointChunk] = []
        for file in self.files:
            if file.frame is None:
                raise CrsMissing(
                    "the file states no coordinate reference system",
                    source=file.path,
                    remedy="declare it: --crs EPSG:4547 (or another code)",
                )
            first = chunks[-1].first + chunks[-1].count if chunks else 0
            chunks += self._chunks_of(file, max_points, self.columns, first)
        if not chunks:
            raise NothingToTile(
                "it holds no points", source=self.path, remedy="check the export that made it"
            )
        return chunks

    def _chunks_of(
        self,
        file: PointFile,
        max_points: int,
        columns: tuple[PointColumn, ...],
        first: int = 0,
    ) -> Iterator[PointChunk]:
        cut = self.cut(file)
        frame = file.frame or _UNKNOWN
        start = 0
        for end in _pieces(file.count, cut.ends, max_points):
            yield PointChunk(
                file.path,
                cut.decoder,
                first + start,
                start,
                end - start,
                frame.ref,
                columns,
                in_metres(widened(file), frame),
                frame.z_unit_m,
                frame.geocentric,
                cut.layout(start, end),
                self.options.points.drop_withheld,
            )
            start = end

    def _bounds(self) -> Bounds | None:
        """Return the bounds of all files in the frame of the first."""
        boxes = []
        for file in self.files:
            box = self._bounds_of(file)
            if box is not None:
                frame = file.frame or _UNKNOWN
                box = geodetic(box) if frame.geocentric else in_metres(box, frame)
            if box is not None:
                here, there = file.frame, self.files[0].frame
                if here and there and not here.ref.same_horizontal(there.ref):
                    box = moved(box, here.ref, there.ref)
                boxes.append(box)
        if not boxes:
            return None
        low, high = np.min(boxes, axis=0), np.max(boxes, axis=0)
        return (*low[:3].tolist(), *high[3:].tolist())

    def batches(
        self,
        columns: Sequence[str] | None = None,
        region: Extent | None = None,
        max_nbytes: int = DEFAULT_BATCH_NBYTES,
    ) -> Iterator[FeatureBatch]:
        """Refuse: points are no features.

        Raises:
            SourceError: always.
        """
        raise SourceError(
            "a point cloud has no features", source=self.path, remedy="ingest it as a pointcloud"
        )


# Bounds of files whose headers state none: a plan looks at a source more than once.
_MEASURED: dict[tuple[Path, int, int, PointOptions], Bounds | None] = {}
# Stands in where coordinates are only measured, never placed.
_UNKNOWN = PointFrame(TILE_REF)


def _pieces(count: int, ends: NDArray[np.int64] | None, max_points: int) -> Iterator[int]:
    """Yield where each piece ends: as late as `max_points` and the cheap cuts allow."""
    start = 0
    while start < count:
        end = min(start + max_points, count)
        if ends is not None:
            cut = int(np.searchsorted(ends, end, side="right"))
            if cut and ends[cut - 1] > start:
                end = int(ends[cut - 1])
        yield end
        start = end
