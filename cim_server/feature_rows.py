"""Features of a version by place or by id, read from its GeoParquet files in threads.

Row groups are small and lie together; their boxes are kept for files that were asked lately, so
that a place reads the groups around it and no more. Files are named by their content: what is kept
of one cannot grow stale.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

# Arrow and shapely are loaded with the first request for features, not with the server.
if TYPE_CHECKING:
    from tiling.batches import FeatureBatch

MAX_FEATURES = 100
MAX_RADIUS_M = 10_000.0
_METRES_PER_DEGREE = 111_195.0


def features_at(
    paths: Sequence[Path], lon: float, lat: float, radius_m: float, limit: int
) -> list[dict[str, Any]]:
    """Return the features at a place as GeoJSON, the nearest first.

    Args:
        paths: GeoParquet files of a version, newest first.
        lon, lat: the place; WGS 84 degrees.
        radius_m: how far off a feature may be: 0 for polygons around the place; metres along the
            ground, as if the Earth were flat there.
        limit: at most so many.

    Raises:
        StoreError: a file is missing or damaged.
    """
    import numpy as np
    import shapely

    from ingest.building_rows import without_replaced
    from tiling.formats.geoparquet import read_geoparquet

    across = max(math.cos(math.radians(lat)), 1e-6)
    high = radius_m / _METRES_PER_DEGREE
    wide = min(high / across, 180.0)
    box = (lon - wide, lat - high, lon + wide, lat + high)
    here = shapely.Point(0.0, 0.0)

    def flat(xy: Any) -> Any:
        return (xy - (lon, lat)) * (_METRES_PER_DEGREE * across, _METRES_PER_DEGREE)

    found: list[tuple[float, int, dict[str, Any]]] = []
    files = [(path, read_geoparquet(path, box)) for path in paths]
    for batch in without_replaced(files):
        away = shapely.distance(shapely.transform(batch.geometry, flat), here)
        # A place on a border touches both sides, which no rounding of metres may change.
        away[shapely.intersects_xy(batch.geometry, lon, lat)] = 0.0
        rows = np.flatnonzero(away <= radius_m)
        rows = rows[np.argsort(away[rows], kind="stable")][:limit]
        for feature, distance in zip(_documents(batch.take(rows)), away[rows], strict=True):
            feature["distance_m"] = round(float(distance), 3)
            found.append((float(distance), int(feature["id"]), feature))
    return [feature for *_, feature in sorted(found, key=lambda each: each[:2])[:limit]]


def feature_by_id(paths: Sequence[Path], feature_id: int) -> dict[str, Any] | None:
    """Return a feature as GeoJSON, None where there is none.

    Args:
        paths: GeoParquet files of a version, newest first.
        feature_id: as tiles have it.

    Raises:
        StoreError: a file is missing or damaged.
    """
    from ingest.building_rows import without_replaced

    files = [(path, _rows_of(path, feature_id)) for path in paths]
    for batch in without_replaced(files):
        return next(_documents(batch))
    return None


def _rows_of(path: Path, feature_id: int) -> Iterator[FeatureBatch]:
    import numpy as np

    from tiling.formats.geoparquet import read_rows

    ids, starts = _ids(path)
    rows = np.flatnonzero(ids == feature_id)
    for row in rows.tolist():
        group = int(np.searchsorted(starts, row, side="right")) - 1
        yield read_rows(path, group, row - int(starts[group]), 1)


@lru_cache(maxsize=4)
def _ids(path: Path) -> tuple[Any, Any]:
    """Return the ids of a file's features and the first row of each row group."""
    from tiling.formats.geoparquet import read_ids

    return read_ids(path)


def _documents(batch: FeatureBatch) -> Iterator[dict[str, Any]]:
    import shapely

    geometries = shapely.to_geojson(batch.geometry)
    rows = batch.attributes.to_pylist()
    for feature_id, geometry, row in zip(batch.ids.tolist(), geometries, rows, strict=True):
        yield {
            "type": "Feature",
            "id": feature_id,
            "geometry": None if geometry is None else orjson.loads(geometry),
            "properties": {name: _plain(value) for name, value in row.items()},
        }


def _plain(value: Any) -> Any:
    """Return a value as JSON has it: bytes and decimals as text, NaN as null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return str(value)
