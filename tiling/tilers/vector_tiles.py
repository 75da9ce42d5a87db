"""The tiles of one unit of vector work: runs in a worker, knows nothing beyond its spool.

A unit is a cell and a range of zooms. All its features are gathered and their attributes coded at
once. Per zoom the simple shapes of all tiles are encoded by one compiled loop; GEOS cuts and
repairs the others, tile by tile.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from tiling.batches import FeatureBatch
from tiling.findings import Finding
from tiling.formats.mvt import BUFFER, EXTENT, LAYER_FIELD
from tiling.formats.mvt_geometry import LINE, POINT, POLYGON, encode_geometry, geometry_kinds
from tiling.formats.mvt_layer import code_attributes, message, write_layer
from tiling.formats.ragged import RaggedBytes
from tiling.tilers.extsort import Spool
from tiling.tilers.pipeline import Tile, UnitResult, compress
from tiling.tilers.shared_borders import read_borders
from tiling.tilers.simplify import (
    WORLD_M,
    cells_of,
    quantum_m,
    simplified,
    tile_side_m,
)
from tiling.tilers.vector_cells import CellContent, cell_contents
from tiling.tilers.vector_features import (
    DUST,
    HOME_X,
    HOME_Y,
    LABEL_X,
    LABEL_Y,
    LAYER,
    OWN_COLUMNS,
    RANK,
    SHOWN,
    SIZE,
)
from tiling.tilers.vector_selection import pixels_at, spread

LABEL_SUFFIX = "_label"


@dataclass(frozen=True, slots=True)
class VectorUnit:
    """One unit of work; picklable.

    Attributes:
        folder: the spool of features by cell.
        key: the spool's key of this unit.
        zooms: first and last zoom that the unit makes.
        cell: level, x, y of the cell whose tiles it makes.
        full_zooms: by layer, the zoom of full detail, where nothing is simplified or left out.
        coverage: the polygons share borders, and go on sharing them when simplified.
        labels: add a layer of label points for polygons.
        tile_nbytes: what a compressed tile may weigh below full detail.
    """

    folder: Path
    key: int
    zooms: tuple[int, int]
    cell: tuple[int, int, int]
    full_zooms: Mapping[str, int]
    coverage: bool
    labels: bool
    tile_nbytes: int


def build_unit(unit: VectorUnit) -> UnitResult:
    """Make the tiles of a unit; facts fill while the tiles are taken."""
    _, batch = Spool(unit.folder).gather(unit.key, unit.key + 1)
    work = _Work(unit, batch)
    return UnitResult(work.tiles(), work.facts, work.findings)


class _Work:
    def __init__(self, unit: VectorUnit, batch: FeatureBatch) -> None:
        self.unit = unit
        self.ids = batch.ids
        self.geometry = batch.geometry
        self.kinds = geometry_kinds(batch.geometry)
        self.size = batch.column(SIZE)
        self.home = np.stack([batch.column(HOME_X), batch.column(HOME_Y)])
        self.label = np.stack([batch.column(LABEL_X), batch.column(LABEL_Y)])
        layers = batch.attributes.column(LAYER).combine_chunks().dictionary_encode()
        self.layer_names: list[str] = layers.dictionary.to_pylist()
        self.layer_codes = layers.indices.to_numpy()
        full = [unit.full_zooms[name] for name in self.layer_names]
        self.full_zoom = np.array(full, dtype=np.int64)[self.layer_codes]
        self.shown, self.dust = batch.column(SHOWN), batch.column(DUST)
        self.rank = batch.column(RANK)
        own = batch.attributes.drop_columns([*OWN_COLUMNS, SHOWN, DUST])
        self.attributes = code_attributes(own, len(self.ids))
        self.facts: dict[str, Any] = {
            "tiles": {},
            "complete": 0,
            "left_out": {},
            "collapsed": {},
            "heaviest": 0,
            "layers": {},
        }
        self.findings: list[Finding] = []

    def tiles(self) -> Iterator[Tile]:
        level, x, y = self.unit.cell
        for zoom in range(self.unit.zooms[0], self.unit.zooms[1] + 1):
            bit = np.uint32(1 << zoom)
            rows = np.flatnonzero(self.shown & bit)
            geometry = self._simplified(rows, zoom)
            dust = np.flatnonzero(self.dust[rows] & bit)
            geometry[dust] = pixels_at(self.label[:, rows[dust]], zoom)
            home = np.stack(cells_of(self.home[0], self.home[1], zoom))
            label = np.stack(cells_of(self.label[0], self.label[1], zoom))
            for cut in cell_contents(geometry, zoom, level, (x, y), rows):
                at_home = (home[:, cut.rows] == [[cut.x], [cut.y]]).all(axis=0)
                labelled = (label[:, cut.rows] == [[cut.x], [cut.y]]).all(axis=0)
                labelled &= (self.dust[cut.rows] & bit) == 0
                data = self._tile(zoom, cut, at_home, labelled)
                if data is not None:
                    self._count("tiles", zoom, 1)
                    yield Tile(f"{zoom}/{cut.x}/{cut.y}.mvt", data, "gzip")

    def _simplified(self, rows: NDArray[np.int64], zoom: int) -> NDArray[np.object_]:
        geometry = self.geometry[rows]
        coarse = self.full_zoom[rows] != zoom
        if self.unit.coverage and zoom < max(self.unit.full_zooms.values()):
            together = read_borders(self.unit.folder, zoom, rows)
            shared = ~shapely.is_missing(together)
            geometry[shared] = together[shared]
            coarse &= ~shared
        alone = np.flatnonzero(coarse)
        if len(alone):
            geometry[alone] = simplified(geometry[alone], zoom)
        return geometry

    def _tile(
        self,
        zoom: int,
        cut: CellContent,
        at_home: NDArray[np.bool_],
        labelled: NDArray[np.bool_],
    ) -> bytes | None:
        full = self.full_zoom[cut.rows] == zoom
        gone = (cut.commands.lengths == 0) & at_home
        self._count("collapsed", zoom, int((gone & ~full).sum()))
        lost = np.flatnonzero(gone & full)
        if len(lost):
            smallest, _ = encode_geometry(self._smallest(cut, lost, zoom))
            # Behind the others, then put in the places of those that have no bytes.
            every = RaggedBytes.below([cut.commands, smallest])
            source = np.arange(len(cut.rows))
            source[lost] = len(cut.rows) + np.arange(len(lost))
            cut = cut._replace(commands=every.take(source))
            self.findings.append(
                Finding(
                    "feature-enlarged",
                    "info",
                    "features smaller than a tile unit are drawn as one unit at full detail",
                    len(lost),
                    tuple(self.ids[cut.rows[lost]][:10].tolist()),
                )
            )
        present = np.flatnonzero(cut.commands.lengths > 0)
        if not len(present):
            return None
        packed = compress(self._encode(zoom, cut, labelled, present))
        if len(packed) > self.unit.tile_nbytes and not full.all():
            packed = self._lighter(zoom, cut, labelled, present, packed)
        self.facts["complete"] += int((at_home & full)[present].sum())
        self.facts["heaviest"] = max(self.facts["heaviest"], len(packed))
        return packed

    def _lighter(
        self,
        zoom: int,
        cut: CellContent,
        labelled: NDArray[np.bool_],
        present: NDArray[np.int64],
        packed: bytes,
    ) -> bytes:
        # What is at full detail stays. Then the most important, the largest; points, which have
        # no size, by an even scatter of their ids.
        rows = cut.rows[present]
        full = self.full_zoom[rows] == zoom
        by = (spread(self.ids[rows]), -self.size[rows], -self.rank[rows], ~full)
        order = present[np.lexsort(by)]
        kept, least = len(order), max(1, int(full.sum()))
        while len(packed) > self.unit.tile_nbytes and kept > least:
            kept = max(least, min(kept - 1, int(0.95 * kept * self.unit.tile_nbytes / len(packed))))
            packed = compress(self._encode(zoom, cut, labelled, np.sort(order[:kept])))
        self._count("left_out", zoom, len(order) - kept)
        return packed

    def _encode(
        self,
        zoom: int,
        cut: CellContent,
        labelled: NDArray[np.bool_],
        chosen: NDArray[np.int64],
    ) -> bytes:
        # `chosen` are places in the cell of features that have commands.
        layers = []
        codes = self.layer_codes[cut.rows[chosen]]
        for code in np.unique(codes).tolist():
            place = chosen[codes == code]
            name = self.layer_names[code]
            commands = cut.commands.take(place)
            layers.append(self._layer(zoom, name, cut.rows[place], commands))
        for code in np.unique(codes).tolist() if self.unit.labels else ():
            place = chosen[(codes == code) & labelled[chosen]]
            rows = cut.rows[place[self.kinds[cut.rows[place]] == POLYGON]]
            if len(rows):
                commands, _ = encode_geometry(self._label_points(zoom, cut, rows))
                name = self.layer_names[code] + LABEL_SUFFIX
                layers.append(self._layer(zoom, name, rows, commands, POINT))
        return b"".join(layers)

    def _layer(
        self,
        zoom: int,
        name: str,
        rows: NDArray[np.int64],
        commands: RaggedBytes,
        kind: int | None = None,
    ) -> bytes:
        low, high = self.facts["layers"].get(name, (zoom, zoom))
        self.facts["layers"][name] = (min(low, zoom), max(high, zoom))
        kinds = self.kinds[rows] if kind is None else np.full(len(rows), kind)
        body = write_layer(name, self.ids[rows], kinds, commands, self.attributes, rows)
        return message(LAYER_FIELD, body)

    def _label_points(
        self, zoom: int, cut: CellContent, rows: NDArray[np.int64]
    ) -> NDArray[np.object_]:
        x, y = _tile_units(self.label[:, rows], zoom, cut)
        # Rounding must not push a label into the neighbour: it is drawn once.
        return np.asarray(
            shapely.points(np.clip(np.rint(x), 0, EXTENT - 1), np.clip(np.rint(y), 0, EXTENT - 1)),
            dtype=object,
        )

    def _smallest(
        self, cut: CellContent, lost: NDArray[np.int64], zoom: int
    ) -> NDArray[np.object_]:
        rows = cut.rows[lost]
        x, y = (np.floor(v) for v in _tile_units(self.home[:, rows], zoom, cut))
        x, y = (np.clip(v, -BUFFER, EXTENT + BUFFER - 1) for v in (x, y))
        shapes = np.asarray(shapely.box(x, y, x + 1, y + 1), dtype=object)
        lines = np.flatnonzero(self.kinds[rows] == LINE)
        ends = np.stack([np.stack([x, y], axis=1), np.stack([x + 1, y], axis=1)], axis=1)
        shapes[lines] = shapely.linestrings(ends[lines])
        return shapes

    def _count(self, fact: str, zoom: int, amount: int) -> None:
        if amount:
            counts = self.facts[fact]
            counts[str(zoom)] = counts.get(str(zoom), 0) + amount


def _tile_units(
    places_m: NDArray[np.float64], zoom: int, cut: CellContent
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    west = cut.x * tile_side_m(zoom) - WORLD_M / 2
    north = WORLD_M / 2 - cut.y * tile_side_m(zoom)
    unit = quantum_m(zoom)
    return (places_m[0] - west) / unit, (north - places_m[1]) / unit
