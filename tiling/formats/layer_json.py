"""``layer.json``: the description that a Cesium terrain provider reads first.

The one idea: ``available`` is a promise. A viewer asks for exactly the tiles it names, so it is
computed from the set of tiles that exist, as rectangles that cover that set and nothing else.
Rows count from the south (TMS).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiling.bounds import Region
from tiling.coords import TileCoord
from tiling.errors import FormatError

TILE_TEMPLATE = "{z}/{x}/{y}.terrain"
EXTENSIONS = ("octvertexnormals",)
WATER_MASK = "watermask"

Rectangle = dict[str, int]


def layer_json(
    available: Sequence[Sequence[Rectangle]],
    bounds: Region,
    *,
    name: str = "",
    description: str = "",
    attribution: str = "",
    parent_url: str = "",
    water: bool = False,
) -> dict[str, Any]:
    """Return the description of a terrain tileset.

    Args:
        available: per level, from level 0, the rectangles of tiles that exist (see `rectangles`).
        bounds: area of the data, degrees.
        name, description, attribution: texts for people; attribution is shown by the viewer.
        parent_url: of the folder of another terrain, relative to this one's: viewers take from
            there the tiles that this one lacks. Both have the same projection and scheme.
        water: tiles carry water masks.
    """
    parent = {"parentUrl": parent_url} if parent_url else {}
    return {
        "tilejson": "2.1.0",
        "name": name,
        "description": description,
        "version": "1.0.0",
        "format": "quantized-mesh-1.0",
        "scheme": "tms",
        "projection": "EPSG:4326",
        "extensions": [*EXTENSIONS, *([WATER_MASK] if water else [])],
        "tiles": [TILE_TEMPLATE],
        "attribution": attribution,
        "bounds": bounds.bbox2d(),
        "minzoom": 0,
        "maxzoom": len(available) - 1,
        "available": [list(level) for level in available],
        **parent,
    }


def rectangles(mask: NDArray[np.bool_], x0: int, y0: int) -> list[Rectangle]:
    """Cover the true cells of a mask by disjoint rectangles, and nothing else.

    Equal runs in consecutive rows are joined; a full mask gives one rectangle.

    Args:
        mask: (rows, columns) bool; row 0 is the southernmost.
        x0: tile column of the mask's first column.
        y0: tile row of the mask's first row.

    Returns:
        rectangles with inclusive ``startX, startY, endX, endY``, ordered by row, then column.
    """
    open_runs: dict[tuple[int, int], int] = {}
    done: list[Rectangle] = []
    for row in range(mask.shape[0] + 1):
        runs = _runs(mask[row]) if row < mask.shape[0] else set()
        for run in [r for r in open_runs if r not in runs]:
            done.append(_rectangle(run, open_runs.pop(run), row - 1, x0, y0))
        for run in runs:
            open_runs.setdefault(run, row)
    return sorted(done, key=lambda r: (r["startY"], r["startX"]))


def available_tiles(layer: Mapping[str, Any]) -> Iterable[TileCoord]:
    """Yield every tile that a description promises.

    Args:
        layer: a parsed ``layer.json``.

    Raises:
        FormatError: ``available`` is missing or a rectangle is not one.
    """
    levels = layer.get("available")
    if not isinstance(levels, list):
        raise FormatError("layer.json has no `available`")
    for level, found in enumerate(levels):
        for rectangle in found:
            try:
                columns = range(rectangle["startX"], rectangle["endX"] + 1)
                rows = range(rectangle["startY"], rectangle["endY"] + 1)
            except (KeyError, TypeError) as error:
                raise FormatError(f"level {level}: {rectangle!r} is no rectangle") from error
            for y in rows:
                for x in columns:
                    yield TileCoord(level, x, y)


def _runs(row: NDArray[np.bool_]) -> set[tuple[int, int]]:
    change = np.flatnonzero(np.diff(row.astype(np.int8), prepend=0, append=0))
    return {(int(a), int(b) - 1) for a, b in zip(change[::2], change[1::2], strict=True)}


def _rectangle(run: tuple[int, int], first: int, last: int, x0: int, y0: int) -> Rectangle:
    return {"startX": x0 + run[0], "startY": y0 + first, "endX": x0 + run[1], "endY": y0 + last}
