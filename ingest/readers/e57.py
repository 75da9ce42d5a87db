"""E57: the scans of a station-based survey as one cloud, each in its place.

A file holds scans, each with points in its own frame and a pose (rotation and translation) that
brings them into the file's. Coordinates are Cartesian or spherical. libE57 checks the pages of a
file as it reads them. Layout: ASTM E2807-11.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ingest.readers.e57_points import (
    CARTESIAN,
    INVALID,
    SPHERICAL,
    ScanPart,
    column_name,
    fields_of,
    pose_of,
    reading,
)
from ingest.readers.point_chunks import PointColumn
from ingest.readers.point_file import Cut, PointFile
from ingest.readers.point_files import PointFilesReader
from ingest.readers.point_names import points_of
from ingest.readers.points import common_columns
from tiling.errors import CrsMissing, SourceUnreadable
from tiling.findings import Findings
from tiling.point_frames import PointFrame


class E57Reader(PointFilesReader):
    """Reads E57; see `ingest.readers.point_files.PointFilesReader`."""

    name = "e57"
    suffixes = (".e57",)

    @classmethod
    def knows(cls, path: Path) -> bool:
        """Say whether the file begins as E57 does."""
        with path.open("rb") as file:
            return file.read(8) == b"ASTM-E57"

    def describe(self, path: Path, findings: Findings) -> PointFile:
        """Read a file's structure, not its points.

        Raises:
            SourceUnreadable: it is damaged, or a scan has no coordinates.
        """
        with reading(path) as file:
            root = file.root()
            scans = [root["data3D"][n] for n in range(root["data3D"].childCount())]
            described = [self._scan(path, number, scan) for number, scan in enumerate(scans)]
            images = root["images2D"].childCount() if root.isDefined("images2D") else 0
            stated = root["coordinateMetadata"].value() if _states_frame(root) else ""
        findings.add("images-dropped", "drop", "images of an E57 are left out", images, [path.name])
        columns = common_columns(described, findings)
        ends = np.cumsum([count for _, count in described], dtype=np.int64)
        count = int(ends[-1]) if len(ends) else 0
        if count > 8 * path.stat().st_size:
            raise _refused(path, f"it announces {count} points in {path.stat().st_size} bytes")
        label = f"E57, {len(described)} scans"
        frame = _frame(stated, findings)
        return PointFile(path, label, count, columns, None, None, frame, ends)

    def _scan(self, path: Path, number: int, scan: Any) -> tuple[tuple[PointColumn, ...], int]:
        types = fields_of(scan)
        if not (set(CARTESIAN) <= types.keys() or set(SPHERICAL) <= types.keys()):
            raise _refused(path, f"scan {number} has neither Cartesian nor spherical coordinates")
        try:
            pose_of(scan)
        except ValueError as error:
            raise _refused(path, f"the pose of scan {number} is no rotation: {error}") from error
        own = {k: v for k, v in types.items() if k not in (*CARTESIAN, *SPHERICAL, *INVALID)}
        names = [*"xyz", *map(column_name, own)]
        return points_of(path, names, ["f8"] * 3 + list(own.values()))[0], int(
            scan["points"].childCount()
        )

    def cut(self, file: PointFile) -> Cut:
        """Say how the points are cut: best between scans."""
        ends = file.known

        def parts(start: int, end: int) -> tuple[ScanPart, ...]:
            begins = np.append(0, ends[:-1])
            low, high = np.maximum(begins, start), np.minimum(ends, end)
            return tuple(
                ScanPart(int(n), int(low[n] - begins[n]), int(high[n] - low[n]))
                for n in np.flatnonzero(low < high)
            )

        return Cut("e57", parts, ends)


def _states_frame(root: Any) -> bool:
    return bool(root.isDefined("coordinateMetadata"))


def _frame(stated: str, findings: Findings) -> PointFrame | None:
    if not stated.strip():
        return None
    try:
        return PointFrame.parse(stated)
    except CrsMissing as error:
        findings.add("crs-unusable", "warning", f"its frame is not used: {error.problem}")
        return None


def _refused(path: Path, problem: str) -> SourceUnreadable:
    return SourceUnreadable(problem, source=path, remedy="export it again from the scanner's data")
