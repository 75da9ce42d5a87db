"""One vector tile straight from features, without a tiling before it.

The encoder is that of the baked tiles. Nothing is simplified alone, so borders that coincide stay
together: shapes are rounded to the tile unit and no more. The work is bounded: the largest features
are drawn, and who is left out is counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from numpy.typing import NDArray

from tiling.batches import LAYER_COLUMN, FeatureBatch
from tiling.coords import TileCoord
from tiling.formats.mvt import LAYER_FIELD, plain_attributes
from tiling.formats.mvt_geometry import POLYGON, geometry_kinds
from tiling.formats.mvt_layer import code_attributes, message, write_layer
from tiling.schemes import MERCATOR_MAX_LAT_DEG
from tiling.tilers.clipping import clip_by_rect
from tiling.tilers.pipeline import compress
from tiling.tilers.simplify import cells_of, of_dimension
from tiling.tilers.vector_cells import CellContent, cell_contents
from tiling.tilers.vector_features import to_mercator

MAX_FEATURES = 20_000
MAX_COORDINATES = 1_000_000


class LiveTile(NamedTuple):
    """A tile and what it left out.

    Attributes:
        data: one gzip member; None where nothing is drawn.
        over_budget: features left out because larger ones took the room.
        collapsed: features of which rounding left nothing, and that begin in this tile.
    """

    data: bytes | None
    over_budget: int
    collapsed: int


def live_tile(batches: Iterable[FeatureBatch], tile: TileCoord, layer: str) -> LiveTile:
    """Draw features in a tile.

    Args:
        batches: features around the tile, in longitude and latitude.
        tile: of WebMercatorQuad.
        layer: the layer of features that name none in `LAYER_COLUMN`.
    """
    batch, left_out = _largest(batches)
    if batch is None:
        return LiveTile(None, 0, 0)
    geometry = _projected(batch.geometry)
    rows = np.flatnonzero(~shapely.is_empty(geometry))
    cell = (tile.x, tile.y)
    cuts = list(cell_contents(geometry[rows], tile.level, tile.level, cell, rows))
    if not cuts:
        return LiveTile(None, left_out, 0)
    (cut,) = cuts
    absent = cut.rows[cut.commands.lengths == 0]
    x, y = _first(geometry[absent])
    home = np.stack(cells_of(x, y, tile.level))
    collapsed = int((home == [[tile.x], [tile.y]]).all(axis=0).sum())
    body = _encoded(batch, geometry, cut, layer)
    return LiveTile(compress(body) if body else None, left_out, collapsed)


def _largest(batches: Iterable[FeatureBatch]) -> tuple[FeatureBatch | None, int]:
    # By size and id, so that the size of the batches does not show.
    found: list[FeatureBatch] = []
    held = seen = 0
    for batch in batches:
        found.append(batch)
        held += len(batch)
        seen += len(batch)
        if held > 2 * MAX_FEATURES:
            joined = _joined(found)
            found = [joined.take(_by_size(joined)[:MAX_FEATURES])]
            held = len(found[0])
    if not found:
        return None, 0
    joined = _joined(found)
    order = _by_size(joined)[:MAX_FEATURES]
    # Not before all are seen: who is dropped for its vertices would make room for later ones.
    mass = np.cumsum(shapely.get_num_coordinates(joined.geometry[order]))
    order = order[: max(1, int(np.searchsorted(mass, MAX_COORDINATES, side="right")))]
    chosen = joined.take(order[np.argsort(joined.ids[order], kind="stable")])
    return chosen, seen - len(chosen)


def _joined(batches: list[FeatureBatch]) -> FeatureBatch:
    if len(batches) == 1:
        return batches[0]
    return FeatureBatch(
        batches[0].ref,
        np.concatenate([batch.ids for batch in batches]),
        np.concatenate([batch.geometry for batch in batches]),
        pa.concat_tables([b.attributes for b in batches], promote_options="permissive"),
    )


def _by_size(batch: FeatureBatch) -> NDArray[np.int64]:
    bounds = shapely.bounds(batch.geometry)
    size = np.maximum(bounds[:, 2] - bounds[:, 0], bounds[:, 3] - bounds[:, 1])
    return np.asarray(np.lexsort((batch.ids, -size)), dtype=np.int64)


def _projected(geometry: NDArray[np.object_]) -> NDArray[np.object_]:
    shapes = np.asarray(shapely.force_2d(geometry), dtype=object)
    kinds = np.maximum(1, shapely.get_dimensions(shapes) + 1)
    broken = np.flatnonzero((kinds == POLYGON) & ~shapely.is_valid(shapes))
    shapes[broken] = shapely.make_valid(shapes[broken], method="structure")
    shapes = of_dimension(shapes, kinds)
    limit = MERCATOR_MAX_LAT_DEG
    polar = np.flatnonzero(np.abs(shapely.bounds(shapes)[:, [1, 3]]).max(axis=1) > limit)
    if len(polar):
        cut = clip_by_rect(shapes[polar], -180.0, -limit, 180.0, limit)
        shapes[polar] = of_dimension(cut, kinds[polar])
    return np.asarray(shapely.transform(shapes, to_mercator), dtype=object)


def _first(geometry: NDArray[np.object_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    places, owner = shapely.get_coordinates(geometry, return_index=True)
    starts = np.flatnonzero(np.diff(owner, prepend=-1))
    return places[starts, 0], places[starts, 1]


def _encoded(
    batch: FeatureBatch, geometry: NDArray[np.object_], cut: CellContent, layer: str
) -> bytes:
    present = np.flatnonzero(cut.commands.lengths > 0)
    table = batch.attributes
    names = np.full(len(batch), layer, dtype=object)
    if LAYER_COLUMN in table.column_names:
        stated = pc.fill_null(pc.cast(table.column(LAYER_COLUMN), pa.string()), layer)
        names = np.asarray(stated.to_numpy(), dtype=object)
        table = table.drop_columns([LAYER_COLUMN])
    coded = code_attributes(plain_attributes(table)[0], len(batch))
    kinds = geometry_kinds(geometry)
    layers = []
    for name in sorted(set(names[cut.rows[present]].tolist())):
        place = present[names[cut.rows[present]] == name]
        rows = cut.rows[place]
        commands = cut.commands.take(place)
        body = write_layer(name, batch.ids[rows], kinds[rows], commands, coded, rows)
        layers.append(message(LAYER_FIELD, body))
    return b"".join(layers)
