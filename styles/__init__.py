"""Style files as data, with a loader. Imports nothing of the project.

A style is a JSON file in this folder. `buildings` is a 3D Tiles style (CesiumJS reads its
``color``) with one member more, ``heights``: what stands in for a height that a source lacks.
"""

from __future__ import annotations

import json
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
