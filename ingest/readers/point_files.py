"""Point clouds of files: one, or a folder of thousands, as one source.

What every family of formats shares: files are described by their headers alone, their columns are
brought together, and their points are cut into chunks for workers. A family says how a file is
known, described and cut; how its chunks are decoded stands in `ingest.readers.points`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from ingest.readers.base import (
    DEFAULT_BATCH_NBYTES,
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
from ingest.readers.points import common_columns, read_chunk
from tiling.batches import FeatureBatch
from tiling.crs import SpatialRef, transform_points
from tiling.ellipsoid import ecef_to_geodetic
from tiling.errors import CrsMissing, NothingToTile, SourceError
from tiling.findings import Findings
from tiling.geoid import parse_vertical
from tiling.point_frames import PointFrame


@dataclass(frozen=True, slots=True)
class PointFile:
    """What the header of one file says.

    Attributes:
        path: the file.
        label: its format, for people.
        count: number of points.
        columns: what its points have.
        bounds: (xmin, ymin, zmin, xmax, ymax, zmax) as stated, in the file's own units; None when
            they are not stated.
        scale: quantum of the coordinates, in the file's own units; None for floats.
        frame: as stated by the file or by the user; None when nobody does.
        known: what the family keeps for cutting and decoding.
    """

    path: Path
    label: str
    count: int
    columns: tuple[PointColumn, ...]
    bounds: Bounds | None
    scale: tuple[float, float, float] | None
    frame: PointFrame | None
    known: Any


@dataclass(frozen=True, slots=True)
class Cut:
    """How a file's points are cut.

    Attributes:
        decoder: a key of `ingest.readers.points.DECODERS`.
        layout: what the decoder needs for the points from one ordinal to before another.
        ends: (C,) int64; ordinals after which cutting is cheap, the last one the file's count;
            None where any cut is as good.
    """

    decoder: str
    layout: Callable[[int, int], Any]
    ends: NDArray[np.int64] | None = None


class PointFilesReader:
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
            found = self.path.rglob("*")
            endings = self.endings()
            paths = sorted(p for p in found if p.suffix.lower() in endings and p.is_file())
            if not paths:
                raise NothingToTile(
                    f"the folder holds no file that ends in {', '.join(endings)}",
                    source=self.path,
                    remedy="name the files, or the folder they lie in",
                )
        described = [self._framed(self.describe(path, self.findings)) for path in paths]
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

    def _framed(self, file: PointFile) -> PointFile:
        """Decide a file's frame: what is declared wins over what it states."""
        stated, declared = self._believable(file), self.options.crs
        frame = stated
        if declared is not None:
            frame = PointFrame.parse(declared)
            if stated is not None and stated.geocentric == frame.geocentric:
                frame = self._over(stated, frame)
        elif stated is None and self.options.assume_crs is not None:
            frame = PointFrame.parse(self.options.assume_crs)
        if frame is None:
            return replace(file, frame=None)
        if self.options.points.height_unit is not None:
            frame = frame.with_unit(self.options.points.height_unit)
        if frame.ref.note:
            self.findings.add("vertical-datum-unused", "warning", frame.ref.note)
        if frame.assumption:
            self.findings.add("height-unit-assumed", "assumption", frame.assumption)
        if frame.z_unit_m != 1.0 and not frame.geocentric:
            message = f"heights in {frame.unit} are converted to metres"
            self.findings.add("heights-converted", "info", message, file.count)
        if frame.geocentric:
            message = "geocentric coordinates are converted to longitude, latitude and height"
            self.findings.add("geocentric-converted", "info", message, file.count)
        return replace(file, frame=replace(frame, ref=self._on_datum(frame.ref)))

    def _over(self, stated: PointFrame, declared: PointFrame) -> PointFrame:
        if not declared.ref.same_horizontal(stated.ref):
            self.findings.add(
                "crs-overridden",
                "warning",
                f"files state {stated.ref.code}; read as {declared.ref.code} as declared",
            )
            return declared
        # Saying the horizontal CRS once more takes back neither the datum nor the unit of heights.
        return declared if declared.states_unit else stated

    def _believable(self, file: PointFile) -> PointFrame | None:
        """Return the frame a file states; None where its own bounds contradict it."""
        if file.frame is None or not file.frame.geocentric or file.bounds is None:
            return file.frame
        radius = float(np.linalg.norm(np.add(file.bounds[:3], file.bounds[3:]) / 2))
        if _LEAST_RADIUS_M < radius < _MOST_RADIUS_M:
            return file.frame
        self.findings.add(
            "crs-unusable",
            "warning",
            "its frame is not used: it says geocentric, and points lie "
            f"{radius / 1000:.0f} km from the Earth's centre",
            samples=[file.path.name],
        )
        return None

    def _on_datum(self, ref: SpatialRef) -> SpatialRef:
        """Return the frame with its heights as the user declares or assumes them."""
        if self.options.vertical is not None:
            return ref.with_vertical(parse_vertical(self.options.vertical))
        if ref.vertical is None and self.options.assume_vertical is not None:
            return ref.with_vertical(parse_vertical(self.options.assume_vertical))
        return ref

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
            _MEASURED[key] = (*low.tolist(), *high.tolist())
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
                _in_metres(_widened(file), frame),
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
                box = _geodetic(box) if frame.geocentric else _in_metres(box, frame)
            if box is not None:
                here, there = file.frame, self.files[0].frame
                if here and there and not here.ref.same_horizontal(there.ref):
                    box = _moved(box, here.ref, there.ref)
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

    def close(self) -> None:
        """Release nothing: files are opened where they are read."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


# Bounds of files whose headers state none: a plan looks at a source more than once.
_MEASURED: dict[tuple[Path, int, int, PointOptions], Bounds] = {}
# The Earth's surface, with room for the deepest trench and the highest flight.
_LEAST_RADIUS_M, _MOST_RADIUS_M = 6.34e6, 6.41e6
# Stands in where coordinates are only measured, never placed.
_UNKNOWN = PointFrame(SpatialRef.parse("EPSG:3857"))


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


def _widened(file: PointFile) -> Bounds | None:
    """Return a file's bounds and a quantum around them: some are stated before rounding."""
    if file.bounds is None or file.scale is None:
        return file.bounds
    around = np.abs(file.scale)
    low, high = file.bounds[:3] - around, file.bounds[3:] + around
    return (*low.tolist(), *high.tolist())


def _in_metres(bounds: Bounds | None, frame: PointFrame) -> Bounds | None:
    """Return bounds with heights in metres; None for geocentric ones, whose box says little."""
    if bounds is None or frame.geocentric:
        return None
    xmin, ymin, zmin, xmax, ymax, zmax = bounds
    return xmin, ymin, zmin * frame.z_unit_m, xmax, ymax, zmax * frame.z_unit_m


def _geodetic(box: Bounds) -> Bounds:
    """Return longitudes, latitudes and heights of a geocentric box: more than its points span."""
    t = np.linspace(0.0, 1.0, 5)
    sides = (low + t * (high - low) for low, high in zip(box[:3], box[3:], strict=True))
    places = np.stack([g.ravel() for g in np.meshgrid(*sides)], axis=1)
    positions = np.stack(ecef_to_geodetic(places), axis=1)
    return (*positions.min(axis=0).tolist(), *positions.max(axis=0).tolist())


def _moved(box: Bounds, src: SpatialRef, dst: SpatialRef) -> Bounds:
    # Edges bend between frames: eleven points of each say where the box goes.
    t = np.linspace(0.0, 1.0, 11)
    x, y = (
        g.ravel()
        for g in np.meshgrid(box[0] + t * (box[3] - box[0]), box[1] + t * (box[4] - box[1]))
    )
    x, y, _ = transform_points(src, dst, x, y)
    return float(x.min()), float(y.min()), box[2], float(x.max()), float(y.max()), box[5]
