"""The features of a version, read from its GeoParquet files, newest first.

A file that an update wrote holds every feature of the base cells that it names; the rows of older
files in those cells count no longer.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray

from tiling.batches import FeatureBatch
from tiling.crs import TILE_REF
from tiling.formats.geoparquet import read_geoparquet
from tiling.formats.geoparquet_footer import read_file_metadata
from tiling.tilers.quadtree import BASE_LEVEL, cell_mortons, places

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True, slots=True)
class FeatureFile:
    """One file of a version's features.

    Attributes:
        path: the file.
        cells: sorted Morton indices of the base cells that it replaces in older files; None: it is
            the oldest, and whole.
    """

    path: Path
    cells: NDArray[np.uint64] | None


def feature_files(paths: Sequence[Path]) -> list[FeatureFile]:
    """Return the files of a version with what they replace, in the order given (newest first)."""
    found = []
    for path in paths:
        cells = read_file_metadata(path).get("cells")
        found.append(
            FeatureFile(path, None if cells is None else np.array(sorted(cells), dtype=np.uint64))
        )
    return found


def read_features(paths: Sequence[Path]) -> Iterator[FeatureBatch]:
    """Yield every feature of a version once.

    Args:
        paths: its GeoParquet files, newest first.
    """
    return without_replaced([(path, read_geoparquet(path)) for path in paths])


def without_replaced(
    files: Sequence[tuple[Path, Iterable[FeatureBatch]]],
) -> Iterator[FeatureBatch]:
    """Yield what counts of what was read of each file.

    Args:
        files: of a version, newest first, with features that were read of them.
    """
    replaced = np.empty(0, dtype=np.uint64)
    for file, (_, batches) in zip(feature_files([p for p, _ in files]), files, strict=True):
        for batch in batches:
            if len(replaced):
                batch = batch.take(~np.isin(base_cells(batch), replaced))
            if len(batch):
                yield batch
        if file.cells is not None:
            replaced = np.union1d(replaced, file.cells)


def base_cells(batch: FeatureBatch) -> NDArray[np.uint64]:
    """Return the (N,) Morton indices of the base cells of N features."""
    place = places(batch.geometry)
    return cell_mortons(place[:, 0], place[:, 1], BASE_LEVEL)


def features_in_cells(paths: Sequence[Path], cells: NDArray[np.uint64]) -> list[FeatureBatch]:
    """Return the features of base cells; row groups elsewhere are not read.

    Args:
        paths: GeoParquet files of a version, newest first.
        cells: (M,) Morton indices.
    """
    wanted = np.unique(cells)
    found: list[FeatureBatch] = []
    for file in feature_files(paths):
        here = wanted if file.cells is None else np.intersect1d(wanted, file.cells)
        if len(here):
            found.extend(_rows_in_cells(file.path, here))
        wanted = np.setdiff1d(wanted, here) if file.cells is not None else wanted
    return found


def _rows_in_cells(path: Path, cells: NDArray[np.uint64]) -> Iterator[FeatureBatch]:
    with pq.ParquetFile(path) as file:
        names = json.loads(file.metadata.metadata[b"cim"])
        own = set(names.values())
        attributes = [n for n in file.schema_arrow.names if n not in own]
        for group in range(file.num_row_groups):
            # The box column of 16,384 rows is small; most groups end here.
            boxes = file.read_row_group(group, [names["bbox"]]).column(0).combine_chunks()
            candidates = _candidates(boxes, cells)
            if not len(candidates):
                continue
            table = file.read_row_group(
                group, [*attributes, names["geometry"], names["feature_id"]]
            )
            table = table.take(pa.array(candidates))
            batch = FeatureBatch(
                TILE_REF,
                np.asarray(table.column(names["feature_id"]).to_numpy()),
                np.asarray(shapely.from_wkb(table.column(names["geometry"]).to_numpy()), object),
                table.select(attributes).combine_chunks(),
            )
            batch = batch.take(np.isin(base_cells(batch), cells))
            if len(batch):
                yield batch


def _candidates(boxes: pa.StructArray, cells: NDArray[np.uint64]) -> NDArray[np.intp]:
    """Return the rows whose places lie in one of the cells."""
    west, south, east, north = (np.asarray(boxes.field(c).to_numpy()) for c in _CORNERS)
    place = cell_mortons((west + east) / 2, (south + north) / 2, BASE_LEVEL)
    return np.flatnonzero(np.isin(place, cells))
