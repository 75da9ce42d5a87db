"""The demo: small real places, ingested by the same code as any other data.

`demo.toml` lists the assets in the order of ingest; the files and their licences are in `data/`.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

DEMO_FOLDER = Path(__file__).parent


def demo_manifests() -> list[dict[str, Any]]:
    """Return the options of each demo asset, with absolute source paths."""
    data = tomllib.loads((DEMO_FOLDER / "demo.toml").read_text(encoding="utf-8"))
    manifests: list[dict[str, Any]] = data["asset"]
    for manifest in manifests:
        manifest["sources"] = tuple(DEMO_FOLDER / "data" / s for s in manifest["sources"])
    return manifests
