"""What workers compute for live tiles: imported when it runs, in a worker."""

from __future__ import annotations

import json
from pathlib import Path

MAX_ROWS = 4_000_000


def live(
    paths: tuple[Path, ...], layer: str, tile: tuple[int, int, int], tree: str
) -> tuple[bytes | None, int, int]:
    """Return a vector tile of the features that fulfil a filter, see `tiling.tilers.live_tile`.

    Args:
        paths: GeoParquet files of a version, newest first.
        layer: name of the layer of features that name none.
        tile: level, column and row of WebMercatorQuad.
        tree: JSON of the filter.

    Returns:
        one gzip member or None; features over the budget; features that rounding took.

    Raises:
        QueryInvalid: the filter does not suit the features, or too many would have to be read.
    """
    import pyarrow as pa

    from cim_server.row_filter import RowFilter
    from ingest.building_rows import without_replaced
    from tiling.coords import TileCoord
    from tiling.formats.geoparquet import read_geoparquet
    from tiling.formats.geoparquet_footer import attribute_schema
    from tiling.formats.mvt import BUFFER, EXTENT
    from tiling.schemes import WEB_MERCATOR_QUAD
    from tiling.tilers.live_tile import live_tile

    schema = pa.unify_schemas(
        [attribute_schema(path) for path in paths], promote_options="permissive"
    )
    rows = RowFilter(json.loads(tree), schema, MAX_ROWS)
    coord = TileCoord(*tile)
    box = WEB_MERCATOR_QUAD.bounds(coord)
    # Twice the buffer: a degree of latitude is not as high everywhere in a tile.
    wide = (box.east - box.west) * 2 * BUFFER / EXTENT
    high = (box.north - box.south) * 2 * BUFFER / EXTENT
    around = (box.west - wide, box.south - high, box.east + wide, box.north + high)
    files = [(path, read_geoparquet(path, around, where=rows)) for path in paths]
    drawn = live_tile(without_replaced(files), coord, layer)
    return drawn.data, drawn.over_budget, drawn.collapsed
