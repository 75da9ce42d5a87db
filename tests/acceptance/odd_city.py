"""A town with everything that makes trouble: what a city model must take without losing a building.

Beside buildings of natural density: footprints of 20,000 corners, slivers, duplicates, parts that
overlap or share walls, courtyards with buildings in them, chains that cross the borders of cells.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from benchmarks import city

KEY = city.CODE
CRS = 4547
PLAIN = 6000


@dataclass(frozen=True)
class OddCity:
    """The town and where it lies.

    Attributes:
        path: FlatGeobuf.
        outlines: key -> polygon or multipolygon, EPSG:4547 metres.
        rows: key -> attributes, None for null.
    """

    path: Path
    outlines: dict[str, Any]
    rows: dict[str, dict[str, Any]]


def write_odd_city(folder: Path) -> OddCity:
    """Write the town; always the same."""
    plain = list(city.chunks(PLAIN, "natural"))
    corner = shapely.bounds(plain[0].geometry).max(axis=0)[2:] + 200
    odd = _odd(corner)
    rows = plain[0].table.slice(0, len(odd))
    codes = pa.array([f"4213{number:015d}" for number in range(len(odd))])
    rows = rows.set_column(rows.schema.get_field_index(KEY), KEY, codes)
    every = [*plain, city.Rows(odd, rows)]
    return written(folder / "奇形怪状.fgb", every)


def written(path: Path, parts: list[city.Rows]) -> OddCity:
    """Write rows and remember them by key."""
    city.write(path, iter(parts))
    geometry = np.concatenate([part.geometry for part in parts])
    rows = pa.concat_tables([part.table for part in parts]).to_pylist()
    keys = [row[KEY] for row in rows]
    assert len(set(keys)) == len(keys)
    return OddCity(path, dict(zip(keys, geometry, strict=True)), dict(zip(keys, rows, strict=True)))


def as_in_tiles(value: Any) -> Any:
    """Return how a tile says a value: moments as ISO 8601; FlatGeobuf makes moments of dates."""
    return f"{value.isoformat()}T00:00:00" if isinstance(value, dt.date) else value


def _odd(corner: NDArray[np.float64]) -> NDArray[np.object_]:
    made: list[Any] = []

    def place(shape: Any) -> None:
        # Rows of twenty, far enough apart.
        x, y = corner + np.array([len(made) % 20, len(made) // 20]) * 130.0
        made.append(shapely.transform(shape, lambda xy: xy + [x, y]))

    for turns in (20_000, 20_000, 20_000, 20_000, 3_000):
        place(_round(turns))
    place(_round(5_000).difference(_round(5_000, 20)))
    for thin in (0.002, 0.01, 0.05, 0.3):
        place(shapely.box(0, 0, 40, thin))
        place(shapely.Polygon([(0, 0), (30, thin), (60, 0), (30, -thin)]))
    for size in (0.05, 0.4, 2.0):
        place(shapely.box(0, 0, size, size))
    # Two that overlap, and a tower on a podium with which it shares a wall.
    at = len(made)
    place(shapely.box(0, 0, 30, 20))
    place(shapely.box(0, 0, 12, 10))
    made[-1] = shapely.transform(made[at], lambda xy: xy + [10, 5])
    place(shapely.box(0, 0, 12, 10))
    made[-1] = shapely.box(*shapely.bounds(made[at])[:2], *shapely.bounds(made[at])[:2] + [12, 10])
    # A courtyard with a building in it, as one feature and as two.
    ring = shapely.box(0, 0, 50, 50).difference(shapely.box(10, 10, 40, 40))
    place(shapely.union(ring, shapely.box(20, 20, 30, 30)))
    place(ring)
    place(ring)
    made[-1] = shapely.transform(shapely.box(20, 20, 30, 30), lambda xy: xy + corner_of(made[-2]))
    comb = [
        (x + s, y) for x in range(0, 60, 2) for s, y in ((0, 0), (0.5, 30), (1.0, 30), (1.5, 0))
    ]
    place(shapely.Polygon([*comb, (60, -5), (0, -5)]))
    place(shapely.MultiPolygon([shapely.box(x, 0, x + 3, 3) for x in range(0, 100, 5)]))
    place(
        shapely.Polygon([(0, 0), (10, 0), (10, 10), (5, 10), (5, 10), (5.0001, 10.0001), (0, 10)])
    )
    holes = [shapely.box(x, y, x + 2, y + 2) for x in range(2, 58, 4) for y in range(2, 58, 4)]
    place(shapely.box(0, 0, 60, 60).difference(shapely.union_all(holes)))
    # A chain across several cells, 1.1 km apart each, and one wider than a cell.
    for step in range(25):
        made.append(shapely.box(*(corner - [step * 90, 5000]), *(corner - [step * 90 - 80, 4980])))
    made.append(shapely.box(*(corner - [0, 9000]), *(corner + [1800, -8900])))
    return np.array(made, dtype=object)


def corner_of(shape: Any) -> NDArray[np.float64]:
    """Return the lower left corner of a shape's bounds."""
    low: NDArray[np.float64] = shapely.bounds(shape)[:2]
    return low


def _round(turns: int, radius: float = 45.0) -> Any:
    angle = np.linspace(0, 2 * np.pi, turns, endpoint=False)
    wave = radius + np.sin(angle * 60) * radius / 15
    return shapely.Polygon(np.stack([60 + wave * np.cos(angle), 60 + wave * np.sin(angle)], axis=1))
