"""The city as ready-made solids, for rivals that cannot extrude: WKB faces and OBJ.

Making them costs the rival nothing here; whoever uses it pays for that step too.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from benchmarks import city


def wkb_folder(folder: Path, count: int) -> Path:
    """Write one MULTIPOLYGON Z of walls, roof and floor a building, y up, as py3dtiles wants it."""
    made = folder / f"city-{count}-wkb"
    if not made.exists():
        staged = folder / f"staged-{made.name}"
        staged.mkdir(exist_ok=True)
        for number, (polygon, low, high) in enumerate(_buildings(count)):
            faces = [_flat(polygon, high), _flat(polygon.reverse(), low)]
            faces += [
                shapely.Polygon([(*a, low), (*b, low), (*b, high), (*a, high)])
                for ring in (polygon.exterior, *polygon.interiors)
                for a, b in pairwise(ring.coords)
            ]
            solid = shapely.MultiPolygon(faces)
            turned = shapely.transform(
                solid, lambda xyz: xyz[:, [0, 2, 1]] * [1, 1, -1], include_z=True
            )
            (staged / f"{number}.wkb").write_bytes(
                shapely.to_wkb(turned, output_dimension=3, flavor="iso")
            )
        staged.rename(made)
    return made


def obj_file(folder: Path, count: int) -> Path:
    """Write one OBJ of triangles, y up, a named object a building."""
    made = folder / f"city-{count}.obj"
    if not made.exists():
        staged = made.with_suffix(".part")
        with staged.open("w", encoding="utf-8") as file:
            first = 1
            for number, (polygon, low, high) in enumerate(_buildings(count)):
                positions, triangles = _triangles(polygon, low, high)
                file.write(f"o building{number}\n")
                file.writelines(f"v {x:.3f} {z:.3f} {-y:.3f}\n" for x, y, z in positions)
                file.writelines(f"f {a} {b} {c}\n" for a, b, c in triangles + first)
                first += len(positions)
        staged.rename(made)
    return made


def _buildings(count: int) -> Iterator[tuple[Any, float, float]]:
    """Yield outlines relative to the city's corner, lowest and highest elevation."""
    for rows in city.chunks(count):
        local = shapely.transform(rows.geometry, lambda xy: xy - city.ORIGIN)
        low = rows.table[city.BASE].to_numpy()
        high = low + rows.table[city.HEIGHT].to_numpy()
        yield from zip(shapely.orient_polygons(local), low.tolist(), high.tolist(), strict=True)


def _flat(polygon: Any, z: float) -> Any:
    return shapely.force_3d(polygon, z)


def _triangles(
    polygon: Any, low: float, high: float
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    corners = []
    for part in shapely.orient_polygons(shapely.constrained_delaunay_triangles(polygon)).geoms:
        corners += [(*at, high) for at in part.exterior.coords[:3]]
        corners += [(*at, low) for at in part.exterior.coords[2::-1]]
    for ring in (polygon.exterior, *polygon.interiors):
        for a, b in pairwise(ring.coords):
            corners += [(*a, low), (*b, low), (*b, high), (*a, low), (*b, high), (*a, high)]
    positions, index = np.unique(np.array(corners), axis=0, return_inverse=True)
    return positions, index.reshape(-1, 3)
