"""The stores of a point cloud: 3D Tiles in a 3TZ.

Readers cut the source into chunks and decode them in workers, tilers know chunks only as something
that can be read: here the two meet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ingest.make import Made, Making, fresh, judge
from ingest.readers import open_source
from ingest.readers.point_chunks import PointChunk
from ingest.readers.point_colours import ColourEvidence
from ingest.readers.point_files import PointFilesReader
from ingest.readers.point_groups import grouped, read_group
from ingest.readers.points import common_columns
from tiling.crs import TILE_REF, describe_shift
from tiling.errors import OutsideArea
from tiling.geoid import ELLIPSOIDAL
from tiling.stores.zip3tz import ThreeTzWriter
from tiling.tilers.base import TilesetInfo
from tiling.tilers.pointcloud import PointCloudTiler
from tiling.validate.pointcloud import check_pointcloud_archive

# So many pieces at least, that a run that is killed has little to repeat.
_PIECES = 50
_LEAST_POINTS, _MOST_POINTS = 100_000, 400_000


def make_pointcloud(making: Making) -> Made:
    """Point clouds to 3D Tiles in a 3TZ."""
    findings, declared = making.report.findings, making.plan.options.points()

    def depth(largest: int, count: int) -> int:
        return ColourEvidence(count, largest).depth(declared.colour_depth, findings)

    tiler = PointCloudTiler(read_group, depth)
    writer = ThreeTzWriter(fresh(making.folder / "tiles.3tz"))
    try:
        with making.report.step("tile"):
            most = _piece_points(making)
            chunks = _chunks(making, most)
            groups = list(grouped(chunks, most))
            info = tiler.run(groups, making.run(writer))
            tiles = writer.commit()
    finally:
        writer.abort()
    with making.report.step("check"):
        making.progress.begin("check", info.tiles)
        found, _ = check_pointcloud_archive(
            tiles.path,
            making.executor,
            making.progress.advance,
            making.folder / f"check-{tiles.sha256}",
        )
    judge(making, found)
    stores = [("tiles", tiles)]
    wanted = making.plan.options.copc_wish()
    if wanted is not None:
        from ingest.copc_store import make_copc

        stores.append(("data", make_copc(making, groups, wanted.spacing_m)))
    return Made(tuple(stores), replace(info, metadata={**info.metadata, **_told(chunks, info)}))


def _told(chunks: Sequence[PointChunk], info: TilesetInfo) -> dict[str, Any]:
    """Return what viewers tell of a point besides its tile: what columns mean, and its height.

    Heights in tiles are ellipsoidal. How far the datum of the source lies above the ellipsoid is
    stated at the corners of the bounds (south-west, south-east, north-west, north-east), bilinear
    between them; left out where sources have several datums, or where a corner has no geoid.
    """
    said = {column.name: column.description for column in chunks[0].columns}
    fields = [
        {**field, "description": said[field["name"]]} if said.get(field["name"]) else field
        for field in info.metadata["fields"]
    ]
    told: dict[str, Any] = {"fields": fields}
    datums = {chunk.ref.vertical for chunk in chunks}
    datum = datums.pop() if len(datums) == 1 else None
    if datum is not None and datum != ELLIPSOIDAL:
        west, south, east, north = info.bounds.bbox2d()
        try:
            undulations = datum.separation([west, east, west, east], [south, south, north, north])
        except OutsideArea:
            # The corners may lie outside a city's own grid although no point does.
            return told
        told["datum"] = {"id": datum.code, "undulations_m": undulations.tolist()}
    return told


def _piece_points(making: Making) -> int:
    """Return how many points workers read at once."""
    total = sum(info.points.count for info in making.plan.sources if info.points is not None)
    return min(max(total // _PIECES, _LEAST_POINTS), _MOST_POINTS)


def _chunks(making: Making, most: int) -> list[PointChunk]:
    """Return the pieces of all sources, and note how their frames become that of the tiles."""
    plan = making.plan
    chunks: list[PointChunk] = []
    for index, info in enumerate(plan.sources):
        with open_source(info.path, plan.read_options(index)) as reader:
            assert isinstance(reader, PointFilesReader)  # the plan groups sources by their kind
            chunks += reader.chunks(most)
    columns = common_columns(
        [(chunk.columns, chunk.count) for chunk in chunks], making.report.findings
    )
    chunks = [
        chunk if chunk.columns == columns else replace(chunk, columns=columns) for chunk in chunks
    ]
    for ref in dict.fromkeys(chunk.ref for chunk in chunks):
        making.report.shifts.append(describe_shift(ref, TILE_REF).to_json())
    return chunks
