"""Vector files through GDAL (pyogrio), as Arrow columns in bounded batches.

Shapefile, GeoPackage, GeoJSON (collections, arrays, sequences), FlatGeobuf, FileGDB, DXF, CSV, and
ZIP archives of these. The one idea: `ingest.readers.dataset` finds out what lies there and brings
it into a form GDAL reads without guessing; here it becomes `FeatureBatch`es, and everything that
is dropped, repaired or assumed on the way becomes a finding.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyogrio.raw import open_arrow
from pyogrio.raw import read as read_raw

from ingest.encoding import codec
from ingest.readers.base import (
    DEFAULT_BATCH_NBYTES,
    Closing,
    Extent,
    Kind,
    LayerInfo,
    ReadOptions,
    SourceInfo,
)
from ingest.readers.columns import decode_column, plain_column, unescape_dxf
from ingest.readers.dataset import Dataset, find_datasets, gdal, sniff_format
from ingest.readers.features import FeatureStream
from ingest.readers.layers import Layer, choose_layer, describe, frame_of
from tiling.batches import FeatureBatch
from tiling.errors import SourceUnreadable
from tiling.findings import Findings

_MAX_ROWS = 65_536


class VectorReader(Closing):
    """Reads every vector format that GDAL knows and this project vouches for."""

    name: ClassVar[str] = "vector"
    kind: ClassVar[Kind] = "vector"

    def __init__(self, path: Path, options: ReadOptions | None = None) -> None:
        self.path = Path(path)
        self.options = options or ReadOptions()
        self.findings = Findings()
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._datasets: tuple[Dataset, ...] | None = None
        self._info: SourceInfo | None = None
        self._layers: tuple[Layer, ...] = ()

    @classmethod
    def sniff(cls, path: Path) -> bool:
        """Say whether the reader knows the file; reads at most 64 KiB."""
        return sniff_format(Path(path)) is not None

    def info(self) -> SourceInfo:
        """Return what the source holds; every layer is looked at once and then remembered."""
        if self._info is None:
            notes = Findings()
            datasets = self._open()
            self._layers = tuple(
                layer for dataset in datasets for layer in describe(dataset, self.options, notes)
            )
            files = tuple(dict.fromkeys(f for d in datasets for f in d.files))
            self._info = SourceInfo(
                self.path,
                self.name,
                self.kind,
                tuple(layer.info for layer in self._layers),
                files,
                sum(f.stat().st_size for f in files),
                tuple(notes),
            )
            self.findings.merge(notes)
        return self._info

    def batches(
        self,
        columns: Sequence[str] | None = None,
        region: Extent | None = None,
        max_nbytes: int = DEFAULT_BATCH_NBYTES,
    ) -> Iterator[FeatureBatch]:
        """Yield the features of the chosen layer; see `SourceReader.batches`."""
        info = self.info()
        layer = choose_layer(self.path, self._layers, self.options.layer)
        ref = frame_of(layer.info, self.path)
        self.findings = Findings()
        self.findings.merge(info.findings)
        stream = FeatureStream(self.path, ref, columns, region, layer.info, self.findings)
        for ordinal, batch, fids in self._record_batches(layer, stream.columns, max_nbytes):

            def linearise(
                rows: NDArray[np.bool_], fids: NDArray[np.int64] = fids
            ) -> NDArray[np.object_]:
                return self._without_arcs(layer, fids[rows])

            features = stream.from_wkb(
                ordinal,
                batch.column(batch.num_columns - 1),
                self._attributes(layer, batch, stream.columns, ordinal),
                linearise,
                layer.damaged(fids),
            )
            if len(features):
                yield from features.split(max_nbytes)

    def _record_batches(
        self, layer: Layer, columns: Sequence[str], max_nbytes: int
    ) -> Iterator[tuple[int, pa.RecordBatch, NDArray[np.int64]]]:
        """Yield (ordinal of the first row, columns + geometry last, feature ids of GDAL)."""
        source_names = dict(layer.source_names)
        wanted = {source_names[name] for name in columns}
        # GDAL keeps the source's order, and repeated names arrive together.
        kept = [name for name, in_source in layer.source_names if in_source in wanted]
        positions = [1 + kept.index(name) for name in columns] + [1 + len(kept)]
        with gdal(layer.dataset, self.findings):
            source = open_arrow(
                layer.dataset.location,
                layer=layer.name_in_dataset,
                columns=sorted(wanted),
                encoding=layer.dataset.gdal_encoding,
                batch_size=_rows_per_batch(layer.info, layer.dataset.nbytes, max_nbytes),
                use_pyarrow=True,
                return_fids=True,
                **layer.dataset.open_options,
            )
            _, stream = source.__enter__()
        try:
            ordinal = 0
            while True:
                with gdal(layer.dataset, self.findings):
                    batch = next(stream, None)
                    if batch is None:
                        break
                    # Offsets and UTF-8 are what a driver gets wrong, and what nobody checks later.
                    batch.validate(full=True)
                fids = batch.column(0).to_numpy().astype(np.int64)
                yield ordinal, batch.select(positions), fids
                ordinal += batch.num_rows
            # Some drivers end the stream at a damaged feature without an error.
            if ordinal != layer.info.features:
                raise SourceUnreadable(
                    f"damaged or cut short ({layer.dataset.format}): after {ordinal} of "
                    f"{layer.info.features} features nothing more can be read",
                    source=self.path,
                    remedy="copy or export it again",
                )
        finally:
            # Even printing the stream of a closed dataset aborts the process: let go of it first.
            del stream
            source.__exit__(None, None, None)

    def _attributes(
        self, layer: Layer, batch: pa.RecordBatch, columns: Sequence[str], ordinal: int
    ) -> pa.Table:
        arrays = []
        for position, name in enumerate(columns):
            column = batch.column(position)
            if layer.dataset.raw_text and pa.types.is_string(column.type):
                column = self._decode(layer, name, column, ordinal)
            arrays.append(plain_column(column))
        if not arrays:
            return pa.table({"": pa.nulls(batch.num_rows)}).select([])
        return pa.table(arrays, names=list(columns))

    def _decode(self, layer: Layer, name: str, column: pa.Array, ordinal: int) -> pa.Array:
        decision = layer.dataset.encoding
        python_codec = codec(decision.encoding)
        assert python_codec is not None  # the decision was made with it
        decoded, bad = decode_column(column, python_codec)
        self.findings.add(
            "text-undecodable",
            "warning",
            f"values of {name!r} hold bytes that {decision.encoding} does not have; "
            "they were replaced by U+FFFD",
            len(bad),
            (ordinal + row for row in bad),
        )
        return unescape_dxf(decoded) if layer.dataset.format == "dxf" else decoded

    def _without_arcs(self, layer: Layer, fids: NDArray[np.int64]) -> NDArray[np.object_]:
        # GDAL's Arrow stream hands out arcs; its feature interface turns them into lines.
        with gdal(layer.dataset, self.findings):
            found = read_raw(
                layer.dataset.location,
                layer=layer.name_in_dataset,
                columns=[],
                fids=fids,
                **layer.dataset.open_options,
            )
        geometry: NDArray[np.object_] = found[2]
        return geometry

    def _open(self) -> tuple[Dataset, ...]:
        if self._datasets is None:
            self._scratch = tempfile.TemporaryDirectory(prefix="cim-read-")
            self._datasets = find_datasets(self.path, Path(self._scratch.name), self.options)
        return self._datasets

    def close(self) -> None:
        """Drop the scratch folder."""
        if self._scratch is not None:
            self._scratch.cleanup()
        self._scratch, self._datasets, self._info = None, None, None


def _rows_per_batch(info: LayerInfo, nbytes: int, max_nbytes: int) -> int:
    # Twice the bytes on disk is a fair guess of a row in memory; text formats take less.
    row_nbytes = max(64, 2 * nbytes // max(1, info.features))
    return int(min(_MAX_ROWS, max(1, max_nbytes // row_nbytes)))
