"""What rests beside the tiles of buildings: their features as GeoParquet, and the feature index.

Both are written from the sorted spool, each as one job of the executor beside the tiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from catalog.feature_index import CODE_NAMES, NAME_NAMES, FeatureIndexWriter, field_among
from ingest.quality.duplicates import note_duplicates
from tiling.batches import BASE_COLUMN, HEIGHT_COLUMN, FeatureBatch
from tiling.findings import Findings
from tiling.formats.geoparquet import write_sorted
from tiling.tilers.extsort import Spool
from tiling.tilers.quadtree import BASE_LEVEL, DEEPEST_LEVEL

_INDEX_ROWS = 50_000


def write_features(spool_folder: Path, path: Path, cells: Sequence[int] | None) -> None:
    """Write the features of a spool as GeoParquet.

    Args:
        spool_folder: of the sorted spool.
        path: the file to make.
        cells: Morton indices of the base cells that the file replaces in older ones; None: it is
            the whole.
    """
    metadata = {} if cells is None else {"cells": list(cells)}
    write_sorted(Spool(spool_folder), path, file_metadata=metadata)


def write_index(
    spool_folder: Path | None,
    path: Path,
    code: str | None,
    name: str | None,
    cells: NDArray[np.uint64] | None,
) -> Findings:
    """Write the feature index of a spool; the one pass in which all features meet.

    Args:
        spool_folder: of the sorted spool; None: there are no features.
        path: the file to make.
        code, name: columns that hold them; None: features have none.
        cells: the base cells that it replaces in older indices; None: it is the whole.

    Returns:
        what is seen only there: duplicates.
    """
    findings = Findings()
    # What a run that was killed left of it.
    path.unlink(missing_ok=True)
    writer = FeatureIndexWriter(path)
    try:
        if spool_folder is not None:
            for keys, batch in Spool(spool_folder).chunks(_INDEX_ROWS):
                writer.add(index_rows(keys, batch, code, name))
                note_duplicates(batch, findings)
        writer.finish(cells)
    except BaseException:
        writer.abort()
        raise
    return findings


def index_rows(
    keys: NDArray[np.uint64], batch: FeatureBatch, code: str | None, name: str | None
) -> pa.Table:
    """Return what the feature index keeps of N features.

    Args:
        keys: (N,) Morton indices at `DEEPEST_LEVEL`.
        batch: the features.
        code, name: columns that hold them.
    """
    bounds = shapely.bounds(batch.geometry)
    centre = shapely.get_coordinates(shapely.centroid(batch.geometry))
    nothing = pa.nulls(len(batch), pa.string())
    names = batch.attributes.column_names
    return pa.table(
        {
            "id": pa.array(batch.ids),
            "code": batch.attributes.column(code) if code in names else nothing,
            "name": batch.attributes.column(name) if name in names else nothing,
            "cell": pa.array(keys >> np.uint64(2 * (DEEPEST_LEVEL - BASE_LEVEL))),
            **{
                axis: pa.array(bounds[:, i])
                for i, axis in enumerate(("west", "south", "east", "north"))
            },
            "lon": pa.array(centre[:, 0]),
            "lat": pa.array(centre[:, 1]),
            "base_m": batch.attributes.column(BASE_COLUMN),
            "height_m": batch.attributes.column(HEIGHT_COLUMN),
        }
    )


def code_column(names: Sequence[str], declared: str | None) -> str | None:
    """Return the column that holds the codes of features: the declared, or a well-known one."""
    return declared or field_among(names, CODE_NAMES)


def name_column(names: Sequence[str]) -> str | None:
    """Return the column that holds the names of features, if one is known by its own."""
    return field_among(names, NAME_NAMES)
