"""LAS, LAZ and COPC: one file or a folder of thousands.

A COPC is a LAZ whose points are sorted into an octree; it is read like any other, in file order.
Headers alone decide everything about a file; points are read in chunks, by workers.
"""

from __future__ import annotations

from pathlib import Path

from ingest.readers.las_frame import frame_of
from ingest.readers.las_header import SIGNATURE, LasHeader, read_header
from ingest.readers.las_points import PackedPoints
from ingest.readers.las_records import WAVEFORM_FORMATS, LasLayout
from ingest.readers.laz import coding
from ingest.readers.point_file import Cut, PointFile
from ingest.readers.point_files import PointFilesReader
from tiling.findings import Findings

_SUFFIXES = (".las", ".laz")


class LasReader(PointFilesReader):
    """Reads LAS, LAZ and COPC; see `ingest.readers.point_files.PointFilesReader`."""

    name = "las"
    suffixes = _SUFFIXES

    @classmethod
    def knows(cls, path: Path) -> bool:
        """Say whether the file begins as LAS does."""
        with path.open("rb") as file:
            return file.read(4) == SIGNATURE

    def describe(self, path: Path, findings: Findings) -> PointFile:
        """Read a file's header.

        Raises:
            SourceUnreadable: see `read_header`.
        """
        header = read_header(path)
        _note(path, header, findings)
        layout = LasLayout.of(path, header, findings)
        return PointFile(
            path,
            header.label + (", COPC" if header.find("copc", 1) else ""),
            header.count,
            layout.columns,
            header.bounds,
            header.scales,
            frame_of(path, header, findings),
            (header, layout),
        )

    def cut(self, file: PointFile) -> Cut:
        """Say how the points are cut: LAZ at its chunks.

        Raises:
            SourceUnreadable: the file is a LAZ whose chunk table lies.
        """
        header, layout = file.known
        if header.compressed:
            packing = coding(file.path, header)
            return Cut("las", lambda a, b: PackedPoints(layout, packing.range(a, b)), packing.ends)
        at, nbytes = header.points_at, header.record_nbytes
        return Cut("las", lambda a, b: PackedPoints(layout, at + a * nbytes))


def _note(path: Path, header: LasHeader, findings: Findings) -> None:
    if header.record_format in WAVEFORM_FORMATS:
        message = "waveforms are left out; their points are kept"
        findings.add("waveforms-dropped", "drop", message, header.count, [path.name])
    if header.surplus_nbytes:
        message = "bytes after the last point that the header counts are left out"
        room = header.surplus_nbytes // header.record_nbytes
        samples = [f"{path.name}: {header.surplus_nbytes} bytes, room for {room} points"]
        findings.add("surplus-bytes", "warning", message, samples=samples)
    if header.bounds is None and header.count:
        message = "the header's bounds mean nothing: they are measured"
        findings.add("bounds-unusable", "warning", message, samples=[path.name])
