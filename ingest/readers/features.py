"""Columns -> `FeatureBatch`, the same for every vector reader.

Ids are ordinals of the layer in file order, given before anything is dropped, so that neither the
size of the chunks nor a region changes them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from ingest.readers.base import Extent, LayerInfo
from ingest.readers.wkb import Decoded, decode_wkb
from tiling.batches import FeatureBatch
from tiling.crs import SpatialRef
from tiling.errors import FieldInvalid
from tiling.findings import Findings

Linearise = Callable[[NDArray[np.bool_]], NDArray[np.object_]]


class FeatureStream:
    """Turns the columns of one layer into batches and counts what happens on the way.

    Attributes:
        columns: the attributes to read, in this order.
    """

    def __init__(
        self,
        path: Path,
        ref: SpatialRef,
        columns: Sequence[str] | None,
        region: Extent | None,
        info: LayerInfo,
        findings: Findings,
    ) -> None:
        self.columns = _known_columns(path, columns, info)
        self._ref = ref
        self._region = region
        self._findings = findings

    def from_wkb(
        self,
        ordinal: int,
        wkb: pa.Array,
        attributes: pa.Table,
        linearise: Linearise,
        present: NDArray[np.bool_] | None = None,
    ) -> FeatureBatch:
        """Make a batch of N rows.

        Args:
            ordinal: of the first row in its layer.
            wkb: (N,) Arrow binary.
            attributes: N rows.
            linearise: returns the WKB of rows with arcs as lines; see `decode_wkb`.
            present: (N,) bool, rows that hold a geometry in the file: a null among them is damage.
        """
        return self.from_decoded(ordinal, decode_wkb(wkb, linearise), attributes, present)

    def from_decoded(
        self,
        ordinal: int,
        decoded: Decoded,
        attributes: pa.Table,
        present: NDArray[np.bool_] | None = None,
    ) -> FeatureBatch:
        """Make a batch of N rows whose geometries exist already."""
        ids = np.arange(ordinal, ordinal + attributes.num_rows, dtype=np.int64)
        damaged = decoded.unreadable
        null = decoded.null
        if present is not None:
            damaged = damaged | (shapely.is_missing(decoded.geometry) & present)
            null = null & ~damaged
        for rule, severity, message, rows in (
            ("geometry-null", "drop", "rows without geometry", null),
            ("geometry-unreadable", "drop", "geometries whose bytes are damaged", damaged),
            ("ring-closed", "repair", "polygon rings that were closed", decoded.repaired),
            ("arc-linearised", "repair", "arcs that became lines", decoded.linearised),
            ("measure-dropped", "info", "M values (measures) that were dropped", decoded.measured),
        ):
            self._findings.add(rule, severity, message, int(rows.sum()), ids[rows][:10].tolist())  # type: ignore[arg-type]
        keep = ~(null | damaged)
        if self._region is not None:
            keep &= _touches(decoded.geometry, self._region)
        batch = FeatureBatch(self._ref, ids, decoded.geometry, attributes)
        return batch if keep.all() else batch.take(keep)


def _known_columns(path: Path, columns: Sequence[str] | None, info: LayerInfo) -> tuple[str, ...]:
    known = [f.name for f in info.fields]
    if columns is None:
        return tuple(known)
    if missing := [c for c in columns if c not in known]:
        raise FieldInvalid(
            f"layer {info.name!r} has no field {missing[0]!r}",
            source=path,
            remedy=f"fields: {', '.join(known) or 'none'}",
        )
    return tuple(dict.fromkeys(columns))


def _touches(geometry: NDArray[np.object_], region: Extent) -> NDArray[np.bool_]:
    xmin, ymin, xmax, ymax = region
    bounds = shapely.bounds(geometry)  # NaN for missing ones: every comparison is false
    touches: NDArray[np.bool_] = (
        (bounds[:, 0] <= xmax)
        & (bounds[:, 2] >= xmin)
        & (bounds[:, 1] <= ymax)
        & (bounds[:, 3] >= ymin)
    )
    return touches
