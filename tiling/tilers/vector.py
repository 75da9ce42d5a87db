"""Vector tiles: features of any kind to a pyramid of MVT.

At the highest zoom every feature is present and exact to the tile unit; below it features are
simplified under a unit, what is smaller than a pixel is left out, and tiles that would weigh too
much keep their largest features. Everything left out is counted per zoom.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tiling.batches import FeatureBatch
from tiling.coords import morton2, unmorton2
from tiling.crs import TILE_REF
from tiling.errors import TilingError
from tiling.formats.mvt_geometry import LINE, POINT, POLYGON
from tiling.schemes import WEB_MERCATOR_QUAD
from tiling.tilers.base import Requirements, Run, TilesetInfo
from tiling.tilers.extsort import Spool, SpoolWriter
from tiling.tilers.layer_rules import LayerRules, key_name
from tiling.tilers.pipeline import build_units
from tiling.tilers.shared_borders import check_coverage, spool_borders
from tiling.tilers.simplify import simplified, slices
from tiling.tilers.vector_drops import report_drops
from tiling.tilers.vector_features import (
    DUST,
    KEY_LEVEL,
    SHOWN,
    Summary,
    restore_findings,
    spool_features,
)
from tiling.tilers.vector_selection import Outlines, select
from tiling.tilers.vector_tiles import LABEL_SUFFIX, VectorUnit, build_unit
from tiling.tilers.vector_zooms import resolve_zooms

TILE_NBYTES = 500_000
# A unit's share of the data: enough to be worth a process, small enough for any memory.
UNIT_FEATURES, UNIT_COORDINATES = 10_000, 400_000
# A coverage is simplified as a whole, hence in memory.
COVERAGE_COORDINATES = 1_000_000
_OVERVIEW_ZOOMS = 2
_COVERAGE_SPAN = 6
_CHUNK_ROWS = 20_000
_BAND_SHIFT = 48
_GEOMETRIES = {POINT: "Point", LINE: "LineString", POLYGON: "Polygon"}
_CELLS, _DECIDED = "vector-cells", "decided.json"


@dataclass(frozen=True, slots=True)
class _Band:
    # Zooms whose units are the cells of level `low`.
    low: int
    high: int

    @property
    def mask(self) -> np.uint32:
        return np.uint32((2 << self.high) - (1 << self.low))


@dataclass(frozen=True, slots=True)
class VectorTiler:
    """Turns features into vector tiles.

    Attributes:
        min_zoom, max_zoom: zooms to make; chosen from the features when None.
        layer: name of the layer of features that name none in ``cim:layer``.
        coverage: polygons that share borders (divisions): they go on sharing them at every zoom.
        labels: add a layer ``<layer>_label`` of one point per polygon, so that viewers can write
            names; as `coverage` when None.
        id_column: an integer field that gives the feature ids; the ordinals in the source if None.
        attribution: shown by viewers.
        name: of the tileset; the layer's when empty.
        tile_nbytes: what a compressed tile may weigh below the highest zoom.
        rules: what is declared of single layers, by name.
        key: the field, by its name in the source, that the ids were made of: the metadata say
            under ``promoteId`` which attribute of each layer holds it.
    """

    min_zoom: int | None = None
    max_zoom: int | None = None
    layer: str = "features"
    coverage: bool = False
    labels: bool | None = None
    id_column: str | None = None
    attribution: str = ""
    name: str = ""
    tile_nbytes: int = TILE_NBYTES
    rules: LayerRules = field(default_factory=dict)
    key: str | None = None

    kind: ClassVar[str] = "vector"
    requirements: ClassVar[Requirements] = Requirements(TILE_REF)

    def run(self, batches: Iterable[FeatureBatch], run: Run) -> TilesetInfo:
        """Make the tiles of all features and put them into the run's writer.

        Args:
            batches: features in longitude and latitude (WGS 84, CGCS2000).
            run: see `tiling.tilers.base.Run`.

        Raises:
            NothingToTile: there is no feature.
            FieldInvalid: `id_column` cannot give ids.
            ConfigError: zooms that contradict each other.
            TilingError: the batches are not in longitude and latitude.
            Cancelled: asked to stop.
        """
        features, summary = spool_features(
            batches,
            run.scratch / "vector-features",
            self.layer,
            self.id_column,
            max(1 << 24, run.memory_nbytes // 8),
            run.progress,
            self.rules,
            self._labels(),
        )
        restore_findings(summary, run.findings)
        zooms = resolve_zooms(summary, self.rules, self.min_zoom, self.max_zoom)
        low, high = min(z for z, _ in zooms.values()), max(z for _, z in zooms.values())
        full = {name: last for name, (_, last) in zooms.items()}
        cells = run.scratch / _CELLS
        if self._shares_borders(features, summary, run):
            _spool_cells(features, zooms, summary, [], cells, run)
            spool_borders(cells, range(low, high), run)
            units = list(self._coverage_units(cells, summary, low, high, full))
        else:
            bands = _bands(summary, low, high)
            _spool_cells(features, zooms, summary, bands, cells, run)
            units = list(self._cell_units(cells, bands, full))
        facts = build_units("vector-tiles", units, build_unit, run)
        return self._info(summary, facts, low, high, run)

    def _labels(self) -> bool:
        return self.coverage if self.labels is None else self.labels

    def _shares_borders(self, features: Spool, summary: Summary, run: Run) -> bool:
        if not self.coverage or not summary.polygons:
            return False
        if summary.coordinates > COVERAGE_COORDINATES:
            run.findings.add(
                "coverage-too-large",
                "info",
                "too many vertices to simplify shared borders together; each polygon is "
                "simplified alone, within a tile unit",
                summary.features,
            )
            return False
        check_coverage(features.gather(0, 1 << 64)[1], run.findings)
        return True

    def _cell_units(
        self, cells: Path, bands: list[_Band], full: Mapping[str, int]
    ) -> Iterator[VectorUnit]:
        labels = self._labels()
        for key in Spool(cells).keys().tolist():
            band = bands[key >> _BAND_SHIFT]
            x, y = unmorton2([key & ((1 << _BAND_SHIFT) - 1)])
            cell = (band.low, int(x[0]), int(y[0]))
            zooms = (band.low, band.high)
            yield VectorUnit(cells, key, zooms, cell, full, False, labels, self.tile_nbytes)

    def _coverage_units(
        self, cells: Path, summary: Summary, low: int, high: int, full: Mapping[str, int]
    ) -> Iterator[VectorUnit]:
        labels = self._labels()
        for zoom in range(low, high + 1):
            level = max(0, zoom - _COVERAGE_SPAN)
            for cell in WEB_MERCATOR_QUAD.tiles_in(summary.region, level):
                yield VectorUnit(
                    cells,
                    0,
                    (zoom, zoom),
                    (level, cell.x, cell.y),
                    full,
                    True,
                    labels,
                    self.tile_nbytes,
                )

    def _info(
        self, summary: Summary, facts: list[dict[str, Any]], low: int, high: int, run: Run
    ) -> TilesetInfo:
        complete = sum(f["complete"] for f in facts)
        if complete != summary.features:
            raise TilingError(
                f"{summary.features} features entered, {complete} are present at zoom {high}"
            )
        tiles, left_out = _sum(facts, "tiles"), _sum(facts, "left_out")
        decided = json.loads((run.scratch / _CELLS / _DECIDED).read_text(encoding="utf-8"))
        dropped = {
            **decided["dropped"],
            "collapsed": _sum(facts, "collapsed"),
            "over_budget": left_out,
        }
        report_drops(run.findings, dropped, decided["pixels"], self.tile_nbytes)
        zooms = sorted(int(z) for z in tiles)
        west, south, east, north = summary.bounds
        metadata = {
            "name": self.name or self.layer,
            "type": "overlay",
            "format": "pbf",
            "minzoom": zooms[0],
            "maxzoom": zooms[-1],
            "bounds": summary.bounds,
            "center": [(west + east) / 2, (south + north) / 2, zooms[0]],
            "vector_layers": _vector_layers(summary, facts),
            "counts": {name: entry["features"] for name, entry in summary.layers.items()},
            "geometries": {
                name: [_GEOMETRIES[kind] for kind in entry["geometries"]]
                for name, entry in summary.layers.items()
            },
            "tiles": tiles,
            "dropped": dropped,
            "pixels": decided["pixels"],
            "heaviest_tile_nbytes": max(f["heaviest"] for f in facts),
        }
        if self.key is not None:
            called = {name: key_name(self.rules, name, self.key) for name in summary.layers}
            metadata["promoteId"] = {
                name: key for name, key in called.items() if key in summary.layers[name]["fields"]
            }
        if self.attribution:
            metadata["attribution"] = self.attribution
        count = sum(tiles.values())
        return TilesetInfo(summary.region, zooms[0], zooms[-1], count, summary.features, metadata)


def _bands(summary: Summary, low: int, high: int) -> list[_Band]:
    # The first band holds full detail; those after it, upwards, ever fewer features.
    top = min(KEY_LEVEL, high)
    level = low
    while level < top and (
        summary.crowd[level] > UNIT_FEATURES or summary.mass[level] > UNIT_COORDINATES
    ):
        level += 1
    bands = [_Band(level, high)]
    while bands[-1].low > low:
        above = bands[-1].low - 1
        bands.append(_Band(max(low, above - _OVERVIEW_ZOOMS + 1), above))
    return bands


def _spool_cells(
    features: Spool,
    zooms: Mapping[str, tuple[int, int]],
    summary: Summary,
    bands: list[_Band],
    folder: Path,
    run: Run,
) -> None:
    """Sort features into the cells of each band; without bands all lie under one key."""
    if Spool.is_finished(folder):
        return
    writer = SpoolWriter.create(folder, max(1 << 24, run.memory_nbytes // 8))
    run.progress.begin("sort features", features.rows * max(1, len(bands)))
    numbers = {entry["number"]: zooms[name] for name, entry in summary.layers.items()}
    outlines = Outlines.load(features.folder)
    chosen = select(outlines, numbers)
    full = np.array([numbers[n][1] for n in range(len(numbers))])[outlines.records["layer"]]
    start = 0
    for _, batch in features.chunks(_CHUNK_ROWS):
        here = slice(start, start + len(batch))
        start += len(batch)
        for name, mask in ((SHOWN, chosen.shown[here]), (DUST, chosen.dust[here])):
            batch = batch.with_column(name, pa.array(mask))
        for number, band in enumerate(bands):
            rows = np.flatnonzero(chosen.shown[here] & band.mask)
            if len(rows):
                _add_band(writer, batch, rows, number, band, full[here] == band.high)
            run.progress.advance(len(batch))
        if not bands:
            writer.add(batch, np.zeros(len(batch), dtype=np.uint64))
            run.progress.advance(len(batch))
    decided = {"dropped": chosen.dropped, "pixels": chosen.pixels}
    # Before the spool is finished, so that a resumed run finds the counts with it.
    (folder / _DECIDED).write_text(json.dumps(decided), encoding="utf-8")
    writer.finish()


def _add_band(
    writer: SpoolWriter,
    batch: FeatureBatch,
    rows: NDArray[np.int64],
    number: int,
    band: _Band,
    whole: NDArray[np.bool_],
) -> None:
    geometry = batch.geometry[rows]
    coarse = np.flatnonzero(~whole[rows])
    if number and len(coarse):
        geometry[coarse] = simplified(geometry[coarse], band.high)
    cuts = list(slices(geometry, band.low, rows=rows))
    if not cuts:
        return
    lengths = [len(cut.rows) for cut in cuts]
    cells = morton2([cut.x for cut in cuts], [cut.y for cut in cuts])
    index = np.concatenate([cut.rows for cut in cuts])
    parts = FeatureBatch(
        batch.ref,
        batch.ids[index],
        np.concatenate([cut.pieces for cut in cuts]),
        batch.attributes.take(pa.array(index)),
    )
    writer.add(parts, np.repeat(cells, lengths) | np.uint64(number << _BAND_SHIFT))


def _vector_layers(summary: Summary, facts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    zooms: dict[str, tuple[int, int]] = {}
    for fact in facts:
        for name, (low, high) in fact["layers"].items():
            old = zooms.get(name, (low, high))
            zooms[name] = (min(low, old[0]), max(high, old[1]))
    layers = []
    for name, entry in summary.layers.items():
        for called in (name, name + LABEL_SUFFIX):
            if called in zooms:
                low, high = zooms[called]
                layers.append(
                    {"id": called, "fields": entry["fields"], "minzoom": low, "maxzoom": high}
                )
    return layers


def _sum(facts: list[dict[str, Any]], name: str) -> dict[str, int]:
    totals: dict[str, int] = {}
    for fact in facts:
        for zoom, amount in fact[name].items():
            totals[zoom] = totals.get(zoom, 0) + amount
    return dict(sorted(totals.items(), key=lambda item: int(item[0])))
