"""What is derived of a point cloud: terrain and surface models, density, footprint, classes.

The one idea: one pass over the points, in workers, whatever is asked for.
"""

from __future__ import annotations

import math
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, fields
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingest.executors import default_workers, open_executor
from ingest.point_products import PointProducts
from ingest.readers import open_source
from ingest.readers.base import ReadOptions
from ingest.readers.point_chunks import PointChunk
from ingest.readers.point_files import PointFilesReader
from ingest.readers.points import read_chunk
from tiling.batches import PointBatch
from tiling.crs import SpatialRef, to_lonlat, transform_points
from tiling.errors import ConfigError, CrsMissing, UnknownFormat
from tiling.findings import Findings
from tiling.tilers.base import Progress
from tiling.tilers.point_rasters import CellGrid, PointRule, Reduced, reduce_points

# Cells of a density without a stated size hold about as many points.
_POINTS_A_CELL = 4
# A second process pays from half a million points on.
_POINTS_A_UNIT = 25
_CELLS_M = (0.1, 0.2, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Products:
    """Where each product goes; None: not wanted.

    Attributes:
        dtm: COG of the mean height of the ground in each cell, metres.
        dsm: COG of the greatest height of first returns in each cell, metres.
        density: COG of points per square metre.
        footprint: GeoJSON (longitude, latitude) of the area that holds points.
        classes: JSON of the number and the range of heights of each class.
    """

    dtm: Path | None = None
    dsm: Path | None = None
    density: Path | None = None
    footprint: Path | None = None
    classes: Path | None = None

    def wanted(self) -> dict[str, Path]:
        """Return the products that are wanted, by name."""
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: path for name, path in named.items() if path is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class DeriveOptions:
    """How products are made.

    Attributes:
        read: what the user declares about the sources.
        to_crs: frame of the products; that of the first source when None.
        cell_m: side of a cell in metres; from the density of points when None.
        fill_cells: voids of a terrain model that ground encloses within so many cells are
            interpolated.
        ground: classes that are the ground.
        overwrite: replace targets that are there.
    """

    read: ReadOptions
    to_crs: str | None = None
    cell_m: float | None = None
    fill_cells: int
    ground: tuple[int, ...] = PointRule().ground
    overwrite: bool = False


def derive(
    sources: Sequence[Path],
    products: Products,
    options: DeriveOptions,
    executor: str,
    workers: int | None,
    progress: Progress,
) -> dict[str, Any]:
    """Derive products of a point cloud.

    Args:
        sources: files or folders of points.
        products: what is wanted.
        options: how.
        executor, workers: see `ingest.executors.open_executor`; as many processes as pay when
            None.
        progress: counts points.

    Returns:
        JSON: the frame, the cells, points, files by product, findings.

    Raises:
        ConfigError: nothing is wanted, a target is there, or the frame has no metres.
        FieldInvalid: a terrain model is wanted and no point is ground.
        SourceError: a source cannot be read.
        StoreError: the disk is full or not writable.
    """
    targets = products.wanted()
    _check_targets(targets, options.overwrite)
    findings = Findings()
    chunks: list[PointChunk] = []
    for source in sources:
        with open_source(source, options.read) as reader:
            if not isinstance(reader, PointFilesReader):
                raise UnknownFormat(
                    "it is no point cloud", source=source, remedy="name LAS, LAZ or COPC files"
                )
            chunks += reader.chunks()
            findings.merge(reader.findings)
    ref = SpatialRef.parse(options.to_crs) if options.to_crs else chunks[0].ref
    if ref.vertical is None:
        ref = ref.with_vertical(chunks[0].ref.vertical)
    _require_metres(ref, chunks)
    if ref.vertical is None:
        message = "nobody says what heights are counted from: products carry no vertical datum"
        findings.add("datum-undeclared", "warning", message, len(chunks))
    bounds = _bounds(chunks, ref)
    count = sum(chunk.count for chunk in chunks)
    workers = workers or default_workers(count // _POINTS_A_UNIT)
    cell = options.cell_m or _cell_for(bounds, count)
    grid = CellGrid.over(bounds, cell)
    with tempfile.TemporaryDirectory(dir=next(iter(targets.values())).parent) as scratch:
        rule = PointRule(options.ground)
        gathered = PointProducts(
            ref, grid, targets, Path(scratch), rule, options.fill_cells, findings
        )
        progress.begin("points", count)
        with open_executor(executor, workers) as pool:
            work = partial(_reduce, grid=grid, ref=ref, rule=rule)
            for size, reduced in _in_order(pool, work, chunks, 2 * workers):
                gathered.add(reduced)
                progress.advance(size)
        result = gathered.write(progress)
    return {
        "crs": ref.code,
        "cell_m": cell,
        "columns": grid.columns,
        "rows": grid.rows,
        "points": count,
        "products": result,
        "findings": findings.to_json(),
    }


def _check_targets(targets: dict[str, Path], overwrite: bool) -> None:
    if not targets:
        raise ConfigError("nothing to derive: name --dtm, --dsm, --density, --footprint, --classes")
    if len({path.resolve() for path in targets.values()}) < len(targets):
        raise ConfigError("two products go to the same file: name one for each")
    for name, path in targets.items():
        if path.exists() and not overwrite:
            raise ConfigError(f"--{name} {path} is there already: --overwrite replaces it")
        if not path.parent.is_dir():
            raise ConfigError(f"--{name} {path}: there is no folder {path.parent}")


def _require_metres(ref: SpatialRef, chunks: Sequence[PointChunk]) -> None:
    unit = ref.crs.axis_info[0].unit_conversion_factor if ref.is_projected else None
    if unit == 1.0:
        return
    x, y, _ = _corners(chunks[0])
    lon, lat = (float(np.mean(v)) for v in to_lonlat(chunks[0].ref, x, y))
    meridian = 3 * round(lon / 3)
    if 75 <= meridian <= 135 and lat > 0:
        # CGCS2000 / 3-degree Gauss-Kruger CM 75E is EPSG:4534, each 3 degrees east one more.
        zone = 4534 + (meridian - 75) // 3
    else:
        zone = (32601 if lat >= 0 else 32701) + int((lon + 180) // 6) % 60
    raise ConfigError(
        f"coordinates in {ref.horizontal_code} are not metres, and cells are square metres: "
        f"choose the frame of the products with --to-crs EPSG:{zone}"
    )


def _corners(chunk: PointChunk) -> tuple[NDArray[np.float64], ...]:
    if chunk.bounds is None:
        batch = read_chunk(chunk, ())
        low, high = batch.xyz.min(axis=0), batch.xyz.max(axis=0)
    else:
        low, high = np.array(chunk.bounds[:3]), np.array(chunk.bounds[3:])
    # Edges bend between frames: eleven points along each say where they go.
    t = np.linspace(0.0, 1.0, 11)
    x, y = np.meshgrid(low[0] + t * (high[0] - low[0]), low[1] + t * (high[1] - low[1]))
    return x.ravel(), y.ravel(), np.array([low[2], high[2]])


def _bounds(chunks: Sequence[PointChunk], ref: SpatialRef) -> tuple[float, float, float, float]:
    boxes = []
    for chunk in {chunk.path: chunk for chunk in chunks}.values():
        x, y, _ = _corners(chunk)
        if not chunk.ref.same_horizontal(ref):
            x, y, _ = transform_points(chunk.ref, ref, x, y)
        boxes.append((x.min(), y.min(), x.max(), y.max()))
    low, high = np.min(boxes, axis=0), np.max(boxes, axis=0)
    return float(low[0]), float(low[1]), float(high[2]), float(high[3])


def _cell_for(bounds: tuple[float, float, float, float], count: int) -> float:
    xmin, ymin, xmax, ymax = bounds
    spacing = math.sqrt(max((xmax - xmin) * (ymax - ymin), 1e-6) * _POINTS_A_CELL / count)
    return next((cell for cell in _CELLS_M if cell >= spacing), _CELLS_M[-1])


def _reduce(chunk: PointChunk, grid: CellGrid, ref: SpatialRef, rule: PointRule) -> Reduced:
    held = {column.name for column in chunk.columns}
    batch = read_chunk(chunk, [name for name in rule.columns if name in held])
    if batch.ref != ref:
        x, y, z = transform_points(batch.ref, ref, *batch.xyz.T)
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            raise CrsMissing(
                f"points cannot be brought from {batch.ref.code} to {ref.code}",
                source=chunk.path,
                remedy="check the frame they are said to be in: --crs",
            )
        assert z is not None  # heights went in
        batch = PointBatch(ref, batch.first, np.stack([x, y, z], axis=1), batch.columns)
    return reduce_points(batch, grid, rule)


def _in_order(
    pool: Executor, work: Any, chunks: Sequence[PointChunk], most: int
) -> Iterator[tuple[int, Reduced]]:
    """Yield what workers make of chunks; no more than `most` are under way."""
    coming = iter(chunks)
    under_way: deque[tuple[int, Future[Reduced]]] = deque(
        (chunk.count, pool.submit(work, chunk)) for chunk in islice(coming, most)
    )
    try:
        while under_way:
            size, future = under_way.popleft()
            yield size, future.result()
            for chunk in islice(coming, 1):
                under_way.append((chunk.count, pool.submit(work, chunk)))
    finally:
        for _, future in under_way:
            future.cancel()
