"""Borders that several polygons share, of one level or of several, simplified once for all of them.

All borders are laid over each other and cut the plane into atoms, of which every polygon is a
union: a county of one, its city of some, its province of many. The atoms are a coverage whatever
the polygons are, so GEOS simplifies it without opening a gap or making an overlap, and what
coincides before coincides afterwards. Where polygons overlap or leave a gap, they go on doing so.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc
import shapely
from numpy.typing import NDArray

from tiling.batches import FeatureBatch
from tiling.findings import Findings
from tiling.formats.mvt_geometry import POLYGON, geometry_kinds
from tiling.tilers.base import Run
from tiling.tilers.extsort import Spool
from tiling.tilers.pipeline import drain
from tiling.tilers.simplify import TOLERANCE_QUANTA, Geometries, quantum_m
from tiling.tilers.vector_features import DUST, LAYER, SHOWN

# Borders closer to each other than this are one: no map shows it, and no survey is finer.
_SNAP_M = 0.01
# Features of about as many atoms are joined at once.
_GROWTH = 4
_COLUMN = "geometry"


def simplified_together(polygons: Geometries, tolerance_m: float) -> Geometries:
    """Simplify polygons so that borders which coincide go on coinciding.

    Args:
        polygons: (N,) valid polygons or multipolygons, Web Mercator metres.
        tolerance_m: of `shapely.coverage_simplify`.

    Returns:
        (N,) polygons; one that is narrower than a centimetre stays as it is.
    """
    lines = shapely.union_all(shapely.boundary(polygons), grid_size=_SNAP_M)
    atoms = shapely.get_parts(shapely.polygonize([lines]))
    inside = shapely.point_on_surface(atoms)
    owner, atom = shapely.STRtree(inside).query(polygons, predicate="intersects")
    atoms = np.asarray(shapely.coverage_simplify(atoms, tolerance_m), dtype=object)
    result = polygons.copy()
    counts = np.bincount(owner, minlength=len(polygons))
    starts = np.cumsum(counts) - counts
    order = np.lexsort((atom, owner))
    owner, atom = owner[order], atom[order]
    width = 1
    while width // _GROWTH < counts.max(initial=0):
        rows = np.flatnonzero((counts > width // _GROWTH) & (counts <= width))
        if len(rows):
            pieces = np.full((len(rows), width), None, dtype=object)
            for_row = np.repeat(np.arange(len(rows)), counts[rows])
            column = np.arange(len(for_row)) - np.repeat(
                np.cumsum(counts[rows]) - counts[rows], counts[rows]
            )
            pieces[for_row, column] = atoms[atom[np.repeat(starts[rows], counts[rows]) + column]]
            result[rows] = shapely.coverage_union_all(pieces, axis=1)
        width *= _GROWTH
    return result


def spool_borders(folder: Path, zooms: Iterable[int], run: Run) -> None:
    """Simplify the polygons of a spool for each zoom and leave them beside it.

    Args:
        folder: of a spool with all features under one key, as units of work gather them.
        zooms: which; those done already are left as they are.
        run: where jobs go.
    """
    jobs = [(_write, (folder, zoom)) for zoom in zooms if not _path(folder, zoom).exists()]
    run.progress.begin("shared borders", len(jobs))
    drain(jobs, run.executor, run.workers, run.progress)


def read_borders(folder: Path, zoom: int, rows: NDArray[np.int64]) -> Geometries:
    """Return what `spool_borders` left of some rows; None for what it was not given.

    Args:
        folder, zoom: as there.
        rows: (M,) positions among all features, ordered by id.
    """
    with pa.OSFile(str(_path(folder, zoom))) as file:
        column = pa.ipc.open_file(file).read_all().column(_COLUMN)
    wkb = column.take(pa.array(rows)).to_numpy(zero_copy_only=False)
    return np.asarray(shapely.from_wkb(wkb), dtype=object)


def _path(folder: Path, zoom: int) -> Path:
    return folder / f"borders-{zoom:02d}.arrow"


def _write(folder: Path, zoom: int) -> None:
    _, batch = Spool(folder).gather(0, 1)
    bit = np.uint32(1 << zoom)
    drawn = (batch.column(SHOWN) & ~batch.column(DUST) & bit) != 0
    rows = np.flatnonzero(drawn & (geometry_kinds(batch.geometry) == POLYGON))
    wkb = np.full(len(batch), None, dtype=object)
    if len(rows):
        tolerance = TOLERANCE_QUANTA * quantum_m(zoom)
        wkb[rows] = shapely.to_wkb(simplified_together(batch.geometry[rows], tolerance))
    table = pa.table({_COLUMN: pa.array(wkb, pa.large_binary())})
    path = _path(folder, zoom)
    partial = path.with_suffix(".part")
    with pa.OSFile(str(partial), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    partial.rename(path)


def check_coverage(batch: FeatureBatch, findings: Findings) -> None:
    """Report the polygons of each layer that overlap, or whose shared borders differ."""
    polygons = geometry_kinds(batch.geometry) == POLYGON
    layers = batch.attributes.column(LAYER)
    for name in pc.unique(layers).to_pylist():
        own = polygons & pc.equal(layers, name).to_numpy(zero_copy_only=False)
        rows = np.flatnonzero(own)
        if shapely.coverage_is_valid(batch.geometry[rows]):
            continue
        faulty = ~shapely.is_empty(shapely.coverage_invalid_edges(batch.geometry[rows]))
        findings.add(
            "coverage-broken",
            "warning",
            f"layer {name!r}: polygons overlap or their shared borders differ; they are drawn so",
            int(faulty.sum()),
            sorted(batch.ids[rows[faulty]].tolist()),
        )
