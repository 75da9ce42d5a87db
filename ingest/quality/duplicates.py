"""Exact duplicates: the same outline with the same base and height, more than once."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray

from ingest.quality.outlines import outline_hashes
from tiling.batches import BASE_COLUMN, HEIGHT_COLUMN, MESH_COLUMN, FeatureBatch
from tiling.findings import Findings


def note_duplicates(batch: FeatureBatch, findings: Findings) -> None:
    """Count the features that repeat another one; they are kept, and flicker no more than it.

    Duplicates lie in one place, so features that are sorted by place meet theirs in one batch.
    Only what shares box, base and height with another one is looked at in full.

    Args:
        batch: N features in lon/lat degrees with base and height.
        findings: counts the repetitions, without the first of each.
    """
    boxes = shapely.bounds(batch.geometry)
    numbers = np.column_stack([boxes, batch.column(BASE_COLUMN), batch.column(HEIGHT_COLUMN)])
    if MESH_COLUMN in batch.attributes.column_names:
        # Shapes of their own may differ over the same footprint.
        own = np.asarray(batch.attributes.column(MESH_COLUMN).is_valid().to_numpy())
        rows = np.flatnonzero(~own)
    else:
        rows = np.arange(len(batch))
    rows = rows[_repeats(_row_hashes(numbers[rows]))]
    if not len(rows):
        return
    outlines = outline_hashes(batch.geometry[rows])
    every = _row_hashes(np.column_stack([outlines.view(np.float64), numbers[rows, 4:]]))
    order = np.lexsort((batch.ids[rows], every))
    again = np.append(False, every[order][1:] == every[order][:-1])
    ids = np.sort(batch.ids[rows[order[again]]])
    findings.add(
        "G10-duplicate",
        "warning",
        "features repeat another one, outline, base and height; they are kept",
        len(ids),
        ids.tolist(),
    )


def _row_hashes(numbers: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Return a hash of the bits of each row of (N, K) numbers."""
    bits = np.ascontiguousarray(numbers).view(np.uint64)
    mixed = np.zeros(len(numbers), dtype=np.uint64)
    for column in range(bits.shape[1]):
        mixed = (mixed ^ bits[:, column]) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    return mixed


def _repeats(values: NDArray[np.uint64]) -> NDArray[np.intp]:
    """Return the places of the values that occur more than once, ascending."""
    if not len(values):
        return np.empty(0, dtype=np.intp)
    order = np.argsort(values, kind="stable")
    same = values[order][1:] == values[order][:-1]
    twice = np.append(False, same) | np.append(same, False)
    return np.sort(order[twice])
