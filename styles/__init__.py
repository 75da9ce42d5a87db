"""Style files as data, with a loader. Imports nothing of the project.

A style is a JSON file in this folder. `buildings` is a 3D Tiles style (CesiumJS reads its
``color``) with one member more, ``heights``: what stands in for a height that a source lacks.
`pointcloud` colours points by their class.

The files in ``maps/`` are styles of layers of vector tiles, see `styles.maps`.

The files in ``rasters/`` say how an image looks: ``bands`` or an ``expression`` of them, the
``range`` of values shown (left out: the raster's own), and a ``ramp`` of ``[value, colour]``, the
values those of the range, or 0 to 1 where it is the raster's own.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any


def style_names() -> tuple[str, ...]:
    """Return the names of the styles, sorted."""
    entries = (entry.name for entry in files(__name__).iterdir())
    return tuple(sorted(name[: -len(".json")] for name in entries if name.endswith(".json")))


def load_style(name: str) -> dict[str, Any]:
    """Return a style as a JSON object.

    Raises:
        KeyError: there is no style of that name.
    """
    if name not in style_names():
        raise KeyError(f"no style {name!r}; there are {', '.join(style_names())}")
    style: dict[str, Any] = json.loads((files(__name__) / f"{name}.json").read_text("utf-8"))
    return style


def raster_style_names() -> tuple[str, ...]:
    """Return the names of the styles of rasters, sorted."""
    entries = (entry.name for entry in (files(__name__) / "rasters").iterdir())
    return tuple(sorted(name[: -len(".json")] for name in entries if name.endswith(".json")))


@cache
def load_raster_style(name: str) -> dict[str, Any]:
    """Return a style of rasters as a JSON object; shared, so not to be changed.

    Raises:
        KeyError: there is no style of that name.
    """
    if name not in raster_style_names():
        raise KeyError(f"no raster style {name!r}; there are {', '.join(raster_style_names())}")
    text = (files(__name__) / "rasters" / f"{name}.json").read_text("utf-8")
    style: dict[str, Any] = json.loads(text)
    return style
