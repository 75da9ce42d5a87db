"""Point clouds that only PDAL knows: PCD, BPF, SBET, Riegl's RXP and RDB, I3S.

PDAL is the optional extra `pdal`, because no wheel of it exists; it is imported when a file asks
for it. What has a reader here (LAS, E57, PLY, text) never goes through it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ingest.readers.pdal_points import SIZE, PdalPoints, column_name, streaming
from ingest.readers.point_file import Cut, PointFile
from ingest.readers.point_files import PointFilesReader
from ingest.readers.point_names import points_of
from tiling.errors import CrsMissing, NothingToTile
from tiling.findings import Findings
from tiling.point_frames import PointFrame


class PdalReader(PointFilesReader):
    """Reads what PDAL reads; see `ingest.readers.point_files.PointFilesReader`."""

    name = "pdal"
    suffixes = (".pcd", ".bpf", ".sbet", ".rxp", ".rdb", ".rdbx", ".slpk")

    @classmethod
    def knows(cls, path: Path) -> bool:
        """Say whether the file is named as one that PDAL reads; PDAL itself goes by names too."""
        return path.suffix.lower() in cls.suffixes

    def describe(self, path: Path, findings: Findings) -> PointFile:
        """Read a file once, for its count, its bounds and its columns.

        Raises:
            SourceUnreadable: PDAL is not installed, or cannot read the file.
        """
        low, high, count = np.full(3, np.inf), np.full(3, -np.inf), 0
        with streaming(path) as (pipeline, blocks):
            dtype = None
            for block in blocks:
                dtype, count = block.dtype, count + len(block)
                xyz = np.stack([block[axis] for axis in "XYZ"], axis=1)
                low, high = np.minimum(low, xyz.min(axis=0)), np.maximum(high, xyz.max(axis=0))
            stated = str(pipeline.srswkt2)
        if dtype is None or dtype.names is None:
            raise NothingToTile(
                "PDAL finds no points in it", source=path, remedy="check its export"
            )
        fields = tuple((name, dtype[name].str) for name in dtype.names)
        names = [column_name(name) for name in dtype.names]
        columns, _ = points_of(path, names, [kind for _, kind in fields])
        bounds = (*low.tolist(), *high.tolist())
        label = f"{path.suffix[1:].upper()}, by PDAL"
        frame = _frame(stated, findings)
        return PointFile(path, label, count, columns, bounds, None, frame, None)

    def cut(self, file: PointFile) -> Cut:
        """Say how the points are cut: where PDAL's own blocks end."""
        ends = np.append(np.arange(SIZE, file.count, SIZE, dtype=np.int64), file.count)
        return Cut("pdal", lambda a, b: PdalPoints(a, b - a), ends)


def _frame(stated: str, findings: Findings) -> PointFrame | None:
    if not stated.strip():
        return None
    try:
        return PointFrame.parse(stated)
    except CrsMissing as error:
        findings.add("crs-unusable", "warning", f"its frame is not used: {error.problem}")
        return None
